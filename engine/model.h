/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights of layers [first, last) and, where asked, the embedding and the head; immutable after loading.
 *
 * Ternary matrices are repacked into tiles (kernels.h) of our own memory by all threads, and the file's pages
 * are released; norms are copied as f32.  The embedding and head stay in the file's mapping in the type they
 * have there, so a model that was loaded with them keeps the file open and tern_model_check() must be asked
 * after using them.
 */
#ifndef TERN_ENGINE_MODEL_H
#define TERN_ENGINE_MODEL_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/pool.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

struct tern_matrix {
    const uint8_t *tiles; /* [ceil(m/16)] tiles */
    size_t m, k, k_pad;   /* outputs, inputs, inputs rounded up to whole groups of columns */
    float scale;          /* the file's, times its separate .scale tensor where there is one, rounded once */
};

/* Norms that the architecture does not have are NULL. */
struct tern_layer {
    const float *attn_norm;          /* [n_embd] */
    const float *q_in, *k_in, *v_in; /* [n_embd], on attn_norm's result; input norms */
    const float *q_norm, *k_norm;    /* [head_dim], on each head */
    const float *o_in;               /* [n_heads * head_dim]: sub-norm or input norm */
    const float *attn_post;          /* [n_embd] */
    const float *ffn_norm;           /* [n_embd] */
    const float *gate_in, *up_in;    /* [n_embd], on ffn_norm's result; input norms */
    const float *down_in;            /* [n_ffn]: sub-norm or input norm */
    const float *ffn_post;           /* [n_embd] */
    struct tern_matrix q, k, v, o, gate, up, down;
};

struct tern_model {
    struct tern_arch arch;
    const struct tern_kernels *kern; /* borrowed */
    uint32_t first, last;            /* this slice: layers [first, last) */
    struct tern_layer *layers;       /* [last - first] */
    enum tern_tile_layout layout;    /* of all tiles */
    void *tiles;                     /* all ternary weights of the slice */
    size_t tiles_bytes;
    float *norms; /* all norm vectors of the slice, output norm included */
    size_t norms_bytes;

    /* Only with_embd; else NULL. */
    const struct tern_tensor *embd; /* token_embd.weight: [n_vocab][n_embd] */
    const struct tern_tensor *head; /* output.weight when present, else embd */
    const float *output_norm;       /* [n_embd] */
    const struct tern_gguf *file;   /* borrowed; must outlive the model when with_embd */
};

struct tern_model_options {
    uint32_t first, last; /* last may be 0: none (a coordinator of remote workers) */
    bool with_embd;
    enum tern_tile_layout layout; /* to repack into: layout_choice.h */
    /* May be NULL; on the calling thread; bytes. */
    bool (*progress)(void *arg, uint64_t done, uint64_t total); /* false: give up, with TERN_END */
    void *progress_arg;
};

/* g must stay open while a model with_embd lives; otherwise it may be closed at once. */
enum tern_status tern_model_load(const struct tern_gguf *g, const struct tern_arch *arch,
                                 const struct tern_kernels *kern, struct tern_pool *pool,
                                 const struct tern_model_options *o, struct tern_model **out,
                                 struct tern_err *err) TERN_MUST_CHECK;
void tern_model_free(struct tern_model **model);

/* What loading [first, last) will take, from the directory alone; the promise of `tern inspect` and of ternd.
 * */
struct tern_model_need {
    size_t tiles_bytes; /* ternary weights, repacked into the layout */
    size_t norms_bytes;
    size_t embd_bytes; /* embedding and head, mapped from the file */
    size_t head_bytes; /* the screened copy of the head (engine/head.h), as --head auto makes it */
    /* One page of TERN_PAGE positions over all layers of the slice. */
    size_t kv_page_bytes[TERN_N_KV_TYPES];
    size_t scratch_bytes; /* for steps of max_rows rows and n_threads threads */
    size_t fixed_bytes;   /* the program itself: code, libraries, stacks */
};
enum tern_status tern_model_need(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t first,
                                 uint32_t last, bool with_embd, enum tern_tile_layout layout, size_t max_rows,
                                 unsigned n_threads, struct tern_model_need *out,
                                 struct tern_err *err) TERN_MUST_CHECK;

/* Fails when the file under the embedding or head was truncated. */
enum tern_status tern_model_check(const struct tern_model *model, struct tern_err *err) TERN_MUST_CHECK;

#endif
