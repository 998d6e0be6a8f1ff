/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters of a model, read from GGUF metadata with ranges checked.
 */
#ifndef TERN_ENGINE_ARCH_H
#define TERN_ENGINE_ARCH_H

#include "engine/base/limits.h"
#include "engine/gguf.h"

#include <stdint.h>

struct tern_arch {
    char name[32];       /* "bitnet-b1.58"; the alias "bitnet-25" is renamed to it */
    char key_prefix[32]; /* as the file spells it */
    uint32_t n_layers;
    uint32_t n_embd; /* hidden size */
    uint32_t n_ffn;
    uint32_t n_heads;    /* query heads */
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* even */
    uint32_t n_vocab;    /* rows of token_embd.weight, else of the token list; 0 when there is neither */
    uint32_t n_ctx_train;
    float rms_eps;
    double rope_theta;
};

/* Reads and checks; a model of another architecture is TERN_ERR_UNSUPPORTED and the sentence names those that
 * work. */
enum tern_status tern_arch_read(const struct tern_gguf *g, struct tern_arch *out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Hash over every hyper-parameter that changes results; the same for a model and for a slice of it (so
 * n_vocab and n_ctx_train stay out). */
void tern_arch_hash(const struct tern_arch *a, uint8_t out[static TERN_HASH_BYTES]);

#endif
