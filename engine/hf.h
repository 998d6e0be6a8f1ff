/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hugging Face folders as models in the terms of GGUF: config.json becomes metadata, the tensors of
 * model.safetensors (or of the shards that model.safetensors.index.json names) get the names and shapes GGUF
 * has for them and a view that says how their bytes become weights, and the tokenizer's files become
 * tokenizer.* keys.
 *
 * Nothing is copied but metadata: tensors lie in the mapped files.  All of it is hostile: sizes, offsets,
 * counts and nesting are checked, and a bad file is refused with a sentence.
 */
#ifndef TERN_ENGINE_HF_H
#define TERN_ENGINE_HF_H

#include "engine/gguf.h"
#include "engine/gguf_write.h"

/* path: a folder with a config.json. */
enum tern_status tern_hf_open(const char *path, struct tern_gguf **out, struct tern_err *err) TERN_MUST_CHECK;

/*
 * Puts tokenizer.* keys for the tokenizer of the folder (hf_tokenizer.c): of tokenizer.json with
 * tokenizer_config.json, else tokenizer.model, which is a SentencePiece model or a tiktoken list.  n_vocab:
 * rows of the embedding; missing tokens are filled up as unused ones.  TERN_END when the folder has none of
 * these files (nothing is filled in err).
 */
enum tern_status tern_hf_put_tokenizer(const char *folder, uint32_t n_vocab, struct tern_gguf_writer *w,
                                       struct tern_err *err) TERN_MUST_CHECK;

#endif
