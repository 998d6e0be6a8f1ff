/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensors of a file bound to their places in the model: names, shapes and types checked (model_bind.c),
 * nothing read.
 */
#ifndef TERN_ENGINE_MODEL_IMPL_H
#define TERN_ENGINE_MODEL_IMPL_H

#include "engine/identity.h"
#include "engine/model.h"

enum tern_bind_matrix {
    TERN_BIND_Q,
    TERN_BIND_K,
    TERN_BIND_V,
    TERN_BIND_O,
    TERN_BIND_GATE,
    TERN_BIND_UP,
    TERN_BIND_DOWN,
    TERN_BIND_N_MATRICES
};

/* A norm vector of a layer. */
enum tern_norm_length { TERN_NORM_EMBD, TERN_NORM_HEAD, TERN_NORM_HEADS, TERN_NORM_FFN };
struct tern_bind_norm {
    const char *name;             /* behind "blk.N." */
    unsigned norms;               /* the architectures that have it: one of TERN_SUB_NORMS ...; 0: all */
    enum tern_norm_length length; /* n_embd, head_dim, n_heads * head_dim, n_ffn */
    size_t place;                 /* offset of its pointer in struct tern_layer */
};
#define TERN_BIND_N_NORMS 15
extern const struct tern_bind_norm tern_bind_norms[TERN_BIND_N_NORMS];

struct tern_bound_layer {
    const struct tern_tensor *matrix[TERN_BIND_N_MATRICES]; /* ternary types only */
    const struct tern_tensor *scale[TERN_BIND_N_MATRICES];  /* one F32, or NULL */
    const struct tern_tensor *norm[TERN_BIND_N_NORMS];      /* F32, F16, BF16; NULL: not of this model */
};

enum tern_status tern_bind_layer(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t layer,
                                 struct tern_bound_layer *out, struct tern_err *err) TERN_MUST_CHECK;

/* What a coordinator needs: embedding, head (the embedding itself when there is no output.weight) and the
 * last norm. */
struct tern_bound_ends {
    const struct tern_tensor *embd, *head, *norm;
};
enum tern_status tern_bind_ends(const struct tern_gguf *g, const struct tern_arch *arch,
                                struct tern_bound_ends *out, struct tern_err *err) TERN_MUST_CHECK;

/* Refuses tensors of layers [first, last), and with_embd those of no layer, that would have to be used and
 * are not: biases, norms of other architectures.  Ignoring one would give a model that answers wrongly. */
enum tern_status tern_bind_refuse_extras(const struct tern_gguf *g, const struct tern_arch *arch,
                                         uint32_t first, uint32_t last, bool with_embd,
                                         struct tern_err *err) TERN_MUST_CHECK;

#endif
