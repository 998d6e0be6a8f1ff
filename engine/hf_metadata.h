/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata a GGUF of a folder's model would have, put into a writer: general.*, the keys of the
 * architecture, pooling, and the special tokens and the chat template where the tokenizer's files leave
 * them out.
 */
#ifndef TERN_ENGINE_HF_METADATA_H
#define TERN_ENGINE_HF_METADATA_H

#include "engine/gguf_write.h"
#include "engine/hf_config.h"

/* name: of the model.  file_type: general.file_type of GGUF. */
void tern_hf_put_config(const struct tern_hf_config *c, const char *name, uint32_t n_vocab,
                        uint32_t file_type, struct tern_gguf_writer *w);

/*
 * ARCH.pooling_type, as modules.json and 1_Pooling/config.json of sentence-transformers say.  A model without
 * a head and without these files is pooled by its last token, as all ternary embedding models are.
 */
enum tern_status tern_hf_put_pooling(const char *folder, const struct tern_hf_config *c,
                                     struct tern_gguf_writer *w, struct tern_err *err) TERN_MUST_CHECK;

/*
 * bos, eos, eot, eom and the chat template, as far as `tokenizer` (metadata made of the tokenizer's files)
 * lacks them.  The first id of the list of ends is eos, those that follow are eot and eom.
 */
enum tern_status tern_hf_put_specials(const char *folder, const struct tern_hf_config *c,
                                      const struct tern_gguf *tokenizer, struct tern_gguf_writer *w,
                                      struct tern_err *err) TERN_MUST_CHECK;

#endif
