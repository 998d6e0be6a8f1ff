/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a model, whatever its publisher ships: a .gguf, the first part of a split .gguf, or a Hugging Face
 * folder (config.json, model.safetensors or sharded with an index, tokenizer.json or tokenizer.model).  All
 * become one struct tern_gguf, in GGUF's terms: names of tensors and metadata are those a GGUF of the model
 * would have.
 *
 * Options say what files do not say of themselves, or say wrongly.  They are the same for the coordinator
 * and its workers, or the hashes of the model differ.
 */
#ifndef TERN_ENGINE_MODEL_FILE_H
#define TERN_ENGINE_MODEL_FILE_H

#include "engine/gguf.h"
#include "kernels/pack.h"

#define TERN_MAX_OVERRIDES 32
#define TERN_MAX_TL_TILES  16

struct tern_file_options {
    enum tern_i2s_layout i2s_layout; /* A unless the user knows better */
    /* Metadata that replaces or completes the file's, as llama.cpp writes it: "KEY=TYPE:VALUE" with TYPE int,
     * float, bool or str.  Borrowed strings; they outlive the model. */
    const char *overrides[TERN_MAX_OVERRIDES];
    uint32_t n_overrides;
    /* Tiles of TL1 and TL2 tensors by shape, before the table of published configurations (pack_tl.h), and
     * the words they were given in, borrowed like overrides. */
    struct tern_tl_tiles tl_tiles[TERN_MAX_TL_TILES];
    uint32_t n_tl_tiles;
    const char *tl_words[TERN_MAX_TL_TILES];
    uint32_t n_tl_words;
    bool quantize; /* matrices of floats that are not ternary are made so (absmean), not refused */
};

/* o may be NULL: all defaults.  *out keeps a copy of the options.  Of a split file path is the first part;
 * the others are opened too.  A .json or .safetensors file in a Hugging Face folder means the folder. */
enum tern_status tern_model_file_open(const char *path, const struct tern_file_options *o,
                                      struct tern_gguf **out, struct tern_err *err) TERN_MUST_CHECK;

/* Gives a model that was opened or parsed otherwise its options, which are copied.  Overrides are applied, on
 * top of those applied before. */
enum tern_status tern_model_file_set_options(struct tern_gguf *g, const struct tern_file_options *o,
                                             struct tern_err *err) TERN_MUST_CHECK;

/* The options a model was opened with; defaults when it was opened otherwise. */
const struct tern_file_options *tern_model_file_options(const struct tern_gguf *g);

#endif
