/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata a GGUF of a folder's model would have, but for its tokenizer: general.*, the keys of the
 * architecture, and pooling.
 */
#ifndef TERN_ENGINE_HF_METADATA_H
#define TERN_ENGINE_HF_METADATA_H

#include "engine/gguf_write.h"
#include "engine/hf_config.h"

/* name: of the model.  file_type: general.file_type of GGUF. */
void tern_hf_put_config(const struct tern_hf_config *c, const char *name, uint32_t n_vocab,
                        uint32_t file_type, struct tern_gguf_writer *w);

/*
 * ARCH.pooling_type, as modules.json and 1_Pooling/config.json of sentence-transformers say.  Without
 * these files what embeds is pooled by its last token, as all ternary models that do are.
 */
enum tern_status tern_hf_put_pooling(const char *folder, const struct tern_hf_config *c, bool embeds,
                                     struct tern_gguf_writer *w, struct tern_err *err) TERN_MUST_CHECK;

#endif
