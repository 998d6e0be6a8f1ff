/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the forward pass share: its scratch memory and what every pass of one layer sees.
 */
#ifndef TERN_ENGINE_FORWARD_PASS_H
#define TERN_ENGINE_FORWARD_PASS_H

#include "engine/forward.h"

/* The smallest piece of work worth handing to a thread that is awake: bytes of tiles times rows, about 2
 * microseconds' worth. */
#define MIN_PIECE 32768
/* Tiles that the kernels like to get together. */
#define GROUP_TILES 4

/* Live rows that attention takes together: one sequence's, at consecutive positions of one page. */
struct attend_block {
    size_t first, n_rows; /* of the live rows */
    bool split;           /* its spans are units of their own; it has one row then */
    size_t span, n_spans; /* those its rows see: [span, span + n_spans) */
    size_t unit;          /* in the current turn: its first unit, */
    size_t split_first;   /* and the first of its states in split */
};

/* Inputs of matrices that differ in their norms: one where attn_norm or ffn_norm serves all, up to three
 * where each has a norm of its own. */
#define MAX_INPUTS 3

/* Quantised rows: the input of matrices. */
struct codes {
    int8_t *q;        /* [max_rows][code_stride] */
    float *act_scale; /* [max_rows] */
    int32_t *act_sum; /* [max_rows] */
};

struct tern_scratch {
    struct tern_arch arch;
    size_t max_rows;
    unsigned n_threads;
    void *block;
    size_t bytes;

    /* All [max_rows] rows of ... */
    size_t *live;       /* indexes into the batch: [n_live] */
    float *cos_sin;     /* [head_dim] */
    float *cos_sin_swa; /* [head_dim]: of layers that slide; only where there are two bases */
    float *q, *k, *v;   /* [n_heads * head_dim], [n_kv_heads * head_dim] twice */
    float *att;         /* [n_heads * head_dim] */
    float *gate, *up;   /* [n_ffn] */
    float *o;           /* [n_embd]: what a residual branch adds */
    struct codes
        in[MAX_INPUTS]; /* of the next matrices; all but the first only where there are input norms */
    size_t code_stride;

    /* One a thread. */
    float *normed;    /* [wide]: the row between norm and quantisation */
    float *renormed;  /* [n_embd]: the same with an input norm on top; only where there are some */
    float *span;      /* state of a block's span: max and sum [block_rows * group], acc [... * head_dim] */
    uint8_t *encoded; /* [widest row at a boundary] */
    size_t wide, span_stride, encoded_stride;

    /* Attention. */
    struct attend_block *blocks; /* [max_rows] */
    size_t block_rows;           /* the most rows a block may have */
    float *att_max, *att_sum;    /* [n_kv_heads][max_rows][group], beside att */
    float *split;                /* states of one row's spans: [n_split] */
    size_t n_split, split_stride;

    void (*soon)(void *arg); /* NULL: nobody wants to know */
    void *soon_arg;
};

/* What every pass of one layer sees. */
struct pass {
    const struct tern_model *m;
    const struct tern_kernels *kern;
    const struct tern_layer *layer;
    /* The architecture's ops. */
    void (*gate)(const float *gate, const float *up, size_t n, float *y);
    void (*rope)(float *h, const float *cos_sin, size_t head_dim);
    struct tern_scratch *s;
    struct tern_kv_store *kv;
    struct tern_pool *pool;
    enum tern_boundary boundary;
    uint32_t i_layer; /* within the slice */
    uint32_t window;  /* not 0: a row sees so many positions, its own included */
    const float *cos_sin;
    struct tern_row *rows;
    size_t n_live;
    size_t n_pos; /* the longest row's positions, for sharing out work */
    float *x;     /* [n][n_embd], by batch index */
    uint8_t *out; /* [n][row_bytes], by batch index; only behind the last layer */
    size_t row_bytes;
};

/* RoPE'd q against the KV of each live row, to s->att. */
void tern_pass_attention(struct pass *p);

#endif
