/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over the sixteen lanes of the contract; see kernels_lanes.h.
 */
#ifndef TERN_KERNELS_LANES_ATTEND_H
#define TERN_KERNELS_LANES_ATTEND_H

#include "kernels/kernels_lanes.h"

#ifdef TERN_HAVE_LANES

/* Query heads that share one conversion of K and V to f32: a sum waits for its last addition, so several run
 * side by side. */
#define HEADS 4
#define PAGE  32

/* Elements [d, d + n) of one position of K or V, at most sixteen. */
INLINE struct v16 load16n_kv(const struct tern_attend *a, const void *kv, const float *scale, size_t pos,
                             size_t d, size_t n)
{
    size_t at = pos * a->head_dim + d;
    if (a->type == TERN_KV_INT8)
        return mul16(load16n_i8((const int8_t *)kv + at, n), set16(scale[pos]));
    return n < 16 ? load16n_f16((const uint16_t *)kv + at, n) : load16_f16((const uint16_t *)kv + at);
}

INLINE void scores(const struct tern_attend *a, size_t head, const size_t n, float p[HEADS][PAGE])
{
    size_t dim = a->head_dim;
    const float *q = a->q + head * dim;
    for (size_t i = 0; i < a->n_pos; i++) {
        struct v16 s[HEADS];
        for (size_t h = 0; h < n; h++)
            s[h] = set16(0.0f);
        size_t d = 0;
        for (; d + 16 <= dim; d += 16) {
            struct v16 kv = load16n_kv(a, a->k, a->k_scale, i, d, 16);
            for (size_t h = 0; h < n; h++)
                s[h] = fma16(load16(q + h * dim + d), kv, s[h]);
        }
        if (d < dim) {
            struct v16 kv = load16n_kv(a, a->k, a->k_scale, i, d, dim - d);
            for (size_t h = 0; h < n; h++)
                s[h] = fma16n(load16n(q + h * dim + d, dim - d), kv, s[h], dim - d);
        }
        for (size_t h = 0; h < n; h++)
            p[h][i] = fold(s[h]) * a->score_scale;
    }
}

/* Scores to weights; the running maximum and sum move on; *old and *new scale what was and what comes. */
static void weights(const struct tern_attend *a, size_t head, float p[PAGE], float *old, float *new)
{
    float bm = -INFINITY, bl = 0.0f;
    for (size_t i = 0; i < a->n_pos; i++)
        bm = p[i] > bm ? p[i] : bm;
    for (size_t i = 0; i < PAGE; i += 16)
        store16n(p + i, exp16(sub16(load16(p + i), set16(bm))), 16);
    for (size_t i = 0; i < a->n_pos; i++)
        bl += p[i];
    float was = a->max[head], max = bm > was ? bm : was, two[16] = { was - max, bm - max };
    store16n(two, exp16(load16(two)), 16);
    *old = was == -INFINITY ? 0.0f : two[0];
    *new = two[1];
    a->max[head] = max;
    a->sum[head] = fmaf(bl, *new, a->sum[head] * *old);
}

/* Elements [d, d + n_d) of n heads, at most sixteen. */
INLINE void weigh(const struct tern_attend *a, size_t head, const size_t n, size_t d, size_t n_d,
                  float p[HEADS][PAGE], const float *old, const float *new)
{
    struct v16 b[HEADS];
    for (size_t h = 0; h < n; h++)
        b[h] = set16(0.0f);
    for (size_t i = 0; i < a->n_pos; i++) {
        struct v16 v = load16n_kv(a, a->v, a->v_scale, i, d, n_d);
        for (size_t h = 0; h < n; h++)
            b[h] = fma16(set16(p[h][i]), v, b[h]);
    }
    for (size_t h = 0; h < n; h++) {
        float *acc = a->acc + (head + h) * a->head_dim + d;
        store16n(acc, fma16(b[h], set16(new[h]), mul16(load16n(acc, n_d), set16(old[h]))), n_d);
    }
}

INLINE void attend_heads(const struct tern_attend *a, size_t head, const size_t n)
{
    float p[HEADS][PAGE] = { { 0 } }, old[HEADS], new[HEADS];
    scores(a, head, n, p);
    for (size_t h = 0; h < n; h++)
        weights(a, head + h, p[h], &old[h], &new[h]);
    size_t d = 0;
    for (; d + 16 <= a->head_dim; d += 16)
        weigh(a, head, n, d, 16, p, old, new);
    if (d < a->head_dim)
        weigh(a, head, n, d, a->head_dim - d, p, old, new);
}

static void attend_row(const struct tern_attend *a)
{
    size_t h = 0;
    for (; h + HEADS <= a->n_heads; h += HEADS)
        attend_heads(a, h, HEADS);
    switch (a->n_heads - h) {
    case 3: attend_heads(a, h, 3); break;
    case 2: attend_heads(a, h, 2); break;
    case 1: attend_heads(a, h, 1); break;
    default: break;
    }
}

static void attend(const struct tern_attend *a)
{
    struct tern_attend row = *a;
    for (size_t i = 0; i < a->n_rows; i++) {
        attend_row(&row);
        row.q += a->q_stride;
        row.max += a->n_heads;
        row.sum += a->n_heads;
        row.acc += a->n_heads * a->head_dim;
    }
}

static void attend_finish(const float *acc, float sum, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(out + i, div16(load16n(acc + i, n - i), set16(sum)), n - i);
}

static void init_attend(struct tern_kernels *k)
{
    k->attend = attend;
    k->attend_finish = attend_finish;
}

#endif
#endif
