/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What head.c and head_build.c share: the screened copy and the room for queries.
 */
#ifndef TERN_ENGINE_HEAD_IMPL_H
#define TERN_ENGINE_HEAD_IMPL_H

#include "engine/head.h"

/* Rows of the head whose bounds are summed up together. */
#define TERN_HEAD_BLOCK 64

/* One row of x on its way. */
struct tern_head_query {
    uint32_t row;   /* of x, want and out */
    float step;     /* x_i is about step * code_i */
    float by_error; /* the bound of row r is error[r] * by_error + norm[r] * by_norm + a little */
    float by_norm;
    int32_t sum;          /* of the int8 codes */
    float *approx;        /* [n_vocab], in logits */
    float *upper, *lower; /* [n_blocks] the largest bounds of each block */
    int32_t *ids;         /* [cap] candidates */
    float *values;        /* [cap] */
    uint32_t n;
    float threshold; /* a lower bound of the k-th best logit outside the forced tokens */
    bool lost;       /* too many candidates */
};

/* One logit to be computed from the file. */
struct tern_head_item {
    uint32_t row;
    int32_t id;
    float *to;
};

struct tern_head {
    const struct tern_model *m;
    struct tern_pool *pool;
    enum tern_head_mode mode;
    uint32_t max_rows, n_vocab;
    uint32_t cap; /* candidates of one row of x */
    size_t n_embd, k_pad, n_blocks;
    int32_t levels; /* largest int16 code of x */

    /* The copy. */
    void *copy;
    size_t copy_bytes;
    uint8_t *codes;              /* [n_vocab] rows */
    float *scale, *error, *norm; /* [n_vocab]: error >= ||w - q * scale||, norm >= ||w|| and ||q * scale|| */
    float norm_max;
    bool sound; /* all of these are finite */

    /* Queries. */
    void *room;
    size_t room_bytes;
    float *logits;   /* [max_rows][n_vocab] */
    int16_t *x16;    /* [max_rows][k_pad], or int8 */
    int32_t *sums;   /* [max_rows] */
    int32_t *dots;   /* [n_threads][max_rows][TERN_HEAD_BLOCK] */
    uint8_t *forced; /* [n_vocab] marks, all zero between uses */
    float *heap;     /* [cap] */
    int32_t *heap_ids;
    struct tern_head_item *items;    /* [max_rows * cap] */
    struct tern_head_query *queries; /* [max_rows] */
    uint32_t n_queries;
    struct tern_head_stats stats;
};

/* Encodes all rows (head_build.c); the copy's memory is there. */
enum tern_status tern_head_encode(struct tern_head *h, struct tern_err *err) TERN_MUST_CHECK;

#endif
