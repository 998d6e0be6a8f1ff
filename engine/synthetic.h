/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models: random ternary weights in the shape of a real model, for measuring and for tests.
 *
 * A shape has the architecture of the model it is named after (arch.h), with the tensors and keys its files
 * have; those of a size alone are of architecture bitnet.  Weights are a pure function of shape and seed: the
 * same for every ternary type, number of threads and slice.  Files are streamed.
 */
#ifndef TERN_ENGINE_SYNTHETIC_H
#define TERN_ENGINE_SYNTHETIC_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/pool.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

#include <stdio.h>

struct tern_synthetic {
    const char *name; /* of the shape; goes into general.name as "synthetic NAME", or alone when NULL */
    uint32_t n_layers, n_embd, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
    double rope_theta, rms_eps;
    bool untied;      /* an output.weight of its own */
    uint32_t ternary; /* type id: I2_S, TQ1_0, TQ2_0 */
    enum tern_i2s_layout layout;
    uint32_t embd, norm; /* type ids */
    uint64_t seed;
    bool slice; /* layers [first, last) alone, without embedding, head and last norm */
    uint32_t first, last;
    bool no_tokenizer;
    const char *arch; /* NULL: "bitnet-b1.58" */
    struct tern_swa swa;
    /* What files of an architecture may have or lack. */
    bool no_input_norms; /* of qwen3 and gemma3: one that writes text, not embeddings */
    bool rope_freqs;     /* factors of RoPE's frequencies */
    bool scales;         /* a scale of its own for each matrix */
    bool varied_norms;   /* norms around 1, not ones: so that it matters which is which */
    const struct tern_gguf
        *tokenizer; /* copy its tokenizer.* keys; NULL: a byte-level BPE that fills n_vocab */
};

/* The shape of a model by name ("2b4t", "70b"), I2_S with F16 embeddings and seed 1; false when unknown. */
bool tern_synthetic_by_name(const char *name, struct tern_synthetic *out);
/* Shape i's name, NULL behind the last. */
const char *tern_synthetic_name(size_t i);

/* Weights of the ternary matrices of all layers, and elements of one embedding. */
uint64_t tern_synthetic_ternary(const struct tern_synthetic *s);
uint64_t tern_synthetic_embedding(const struct tern_synthetic *s);

/* Bytes of the file; TERN_ERR_USAGE when a matrix cannot have its type. */
enum tern_status tern_synthetic_bytes(const struct tern_synthetic *s, uint64_t *out,
                                      struct tern_err *err) TERN_MUST_CHECK;

/* Writes the file to f from its beginning; `name` is what sentences call it.  Memory: metadata, and a few
 * hundred rows of a matrix a thread.  progress (may be NULL) as in tern_model_options. */
enum tern_status tern_synthetic_write(const struct tern_synthetic *s, FILE *f, const char *name,
                                      struct tern_pool *pool, const struct tern_kernels *kern,
                                      bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                      struct tern_err *err) TERN_MUST_CHECK;

#endif
