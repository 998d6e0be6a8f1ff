/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an array of a publisher's folder is in a model, by its name, and what GGUF calls it.
 */
#ifndef TERN_ENGINE_HF_NAMES_H
#define TERN_ENGINE_HF_NAMES_H

#include "engine/base/limits.h"
#include "engine/hf_config.h"

enum tern_hf_part {
    TERN_HF_EMBEDDING,
    TERN_HF_HEAD,
    TERN_HF_NORM,       /* a vector of the family's own norms */
    TERN_HF_INPUT_NORM, /* one of those that BitNet adds before a matrix */
    TERN_HF_MATRIX,     /* one of the seven ternary ones of a layer */
    TERN_HF_SCALE,      /* weight_scale of one */
    TERN_HF_NOTHING,    /* buffers that follow from the configuration */
    TERN_HF_UNKNOWN     /* named as it is, in a layer "blk.N." before it */
};

enum tern_hf_matrix { TERN_HF_Q, TERN_HF_K, TERN_HF_V, TERN_HF_O, TERN_HF_GATE, TERN_HF_UP, TERN_HF_DOWN };

struct tern_hf_place {
    enum tern_hf_part part;
    enum tern_hf_matrix matrix;          /* of MATRIX and SCALE */
    char name[TERN_MAX_TENSOR_NAME + 1]; /* in GGUF; empty for SCALE and NOTHING */
};

/* name: with or without "model." before it, at most TERN_MAX_TENSOR_NAME bytes. */
void tern_hf_place(enum tern_hf_family family, const char *name, struct tern_hf_place *out);

/* Rows of a matrix: the outputs. */
uint64_t tern_hf_matrix_rows(const struct tern_hf_config *c, enum tern_hf_matrix matrix);

#endif
