/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters of a model, read from GGUF metadata with ranges checked, and what its architecture is made
 * of, as data: there is one forward pass (forward.h), which reads it.
 */
#ifndef TERN_ENGINE_ARCH_H
#define TERN_ENGINE_ARCH_H

#include "engine/base/limits.h"
#include "engine/gguf.h"

#include <stdint.h>

/* Between gate and up of the FFN. */
enum tern_activation { TERN_RELU2, TERN_SILU, TERN_GELU };

/* Which elements of a head RoPE turns together: j and j + d/2, or 2j and 2j + 1. */
enum tern_rope { TERN_ROPE_NEOX, TERN_ROPE_NORM };

/* Norms beyond attn_norm, ffn_norm and output_norm, which all have; each a set of vectors of a layer. */
enum {
    TERN_SUB_NORMS = 1,  /* attn_sub_norm before o, ffn_sub_norm before down */
    TERN_QK_NORMS = 2,   /* attn_q_norm, attn_k_norm [head_dim], on each head before RoPE */
    TERN_POST_NORMS = 4, /* post_attention_norm, post_ffw_norm [n_embd] on what is added to the stream */
    TERN_INPUT_NORMS =
        8, /* attn_q_norm_in ... ffn_down_norm_in, on the input of each of the seven matrices */
};

/* What becomes of the rows of a text when it is embedded; TERN_POOL_NONE for models that write text. */
enum tern_pooling { TERN_POOL_NONE, TERN_POOL_MEAN, TERN_POOL_CLS, TERN_POOL_LAST };

struct tern_arch {
    char name[32];       /* "bitnet-b1.58"; the alias "bitnet-25" is renamed to it */
    char key_prefix[32]; /* as the file spells it */
    enum tern_activation activation;
    enum tern_rope rope;
    unsigned norms;   /* TERN_SUB_NORMS | ... */
    float embd_scale; /* embeddings are multiplied by it; 1 for most */
    enum tern_pooling pooling;
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
