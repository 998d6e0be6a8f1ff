/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over the sixteen lanes of the contract; see kernels_lanes.h.
 *
 * A query is one head of one row; all queries of a call see the same K and V.  Four of them share each load
 * of K and V; eight sums of a score are folded together.  Scores and weights of up to sixteen queries lie
 * side by side, position after position, so that sums run over positions in order while the queries fill the
 * lanes.  With more than four queries K and V are turned into floats once for all.
 */
#ifndef TERN_KERNELS_LANES_ATTEND_H
#define TERN_KERNELS_LANES_ATTEND_H

#include "kernels/kernels_lanes.h"

#ifdef TERN_HAVE_LANES

#define PAGE      32
#define QUAD      4   /* queries that share each load */
#define SET       16  /* queries whose weights lie side by side */
#define MAX_TILED 256 /* the longest heads that scratch memory is held for */
#define PART      (16 / PARTS)

/* What K and V are when they are read. */
enum source { FROM_F16, FROM_INT8, FROM_F32 };

/* One call's queries [first, first + n), n <= SET, and their part of the state. */
struct set {
    size_t first, n;
    size_t side; /* 1, 2, 4, 8 or 16 >= n: query g of position i has p[i * side + g] */
    const float *q[SET];
    float *acc[SET];
    float old[SET], new[SET]; /* scale what was and what comes */
    _Alignas(64) float p[PAGE * SET];
    _Alignas(64) float packed[QUAD * MAX_TILED];
};

INLINE bool tiled(const struct tern_attend *a)
{
    return a->head_dim % 16 == 0 && a->head_dim <= MAX_TILED;
}

INLINE struct part load_part_kv(const enum source from, const void *kv, size_t at)
{
    if (from == FROM_F32)
        return load_part((const float *)kv + at);
    return from == FROM_F16 ? load_part_f16((const uint16_t *)kv + at)
                            : load_part_i8((const int8_t *)kv + at);
}

/* Asks memory for elements [at, at + n) of K or V.  A page is too short for the processor to notice in time
 * that it is read in order, and V is read across. */
INLINE void fetch(const void *kv, size_t at, size_t n, const enum source from)
{
    const size_t size = from == FROM_F16 ? 2 : 1;
    for (size_t i = 0; i < n * size; i += 64)
        __builtin_prefetch((const char *)kv + at * size + i);
}

/* At most sixteen elements. */
INLINE struct v16 load16n_kv(const enum source from, const void *kv, size_t at, size_t n)
{
    if (from == FROM_F32)
        return load16n((const float *)kv + at, n);
    return from == FROM_F16 ? load16n_f16((const uint16_t *)kv + at, n)
                            : load16n_i8((const int8_t *)kv + at, n);
}

/* -- scores ---------------------------------------------------------------------------------------------- */

/* Queries [at, at + n) of the set to s->packed: part by part, and in each part step by step of sixteen
 * elements, so that what a step reads lies together. */
INLINE void pack_queries(const size_t n, const struct tern_attend *a, struct set *s, size_t at)
{
    float *to = s->packed;
    for (size_t part = 0; part < PARTS; part++) {
        for (size_t d = part * PART; d < a->head_dim; d += 16) {
            for (size_t h = 0; h < n; h++, to += PART)
                store_part(to, load_part(s->q[at + h] + d));
        }
    }
}

/* One part of the lanes of the products of n queries and n_pos positions, n_pos * width == 8. */
INLINE void tile_part(const enum source from, const size_t n, const size_t width, const float *q,
                      const void *kv, const size_t *at, size_t dim, struct part *out)
{
    struct part s[8];
    for (size_t i = 0; i < 8; i++)
        s[i] = zero_part();
    for (size_t d = 0; d < dim; d += 16, q += n * PART) {
        struct part x[8];
        for (size_t j = 0; j < 8 / width; j++)
            x[j] = load_part_kv(from, kv, at[j] + d);
        for (size_t h = 0; h < n; h++) {
            struct part y = load_part(q + h * PART);
            PIN_PART(y);
            for (size_t j = 0; j < 8 / width; j++)
                s[j * width + h] = fma_part(y, x[j], s[j * width + h]);
        }
    }
    for (size_t i = 0; i < 8; i++)
        out[i] = s[i];
}

/* All positions of n queries from `at` of the set on; head_dim is a multiple of sixteen. */
INLINE void quad_scores(const enum source from, const size_t n, const struct tern_attend *a, struct set *s,
                        const void *k, size_t at)
{
    const size_t width = n <= 2 ? n : QUAD, step = 8 / width, dim = a->head_dim;
    pack_queries(n, a, s, at);
    struct part sums[PAGE / 2][PARTS][8];
    for (size_t i = 0; i < a->n_pos; i += step) {
        size_t where[8];
        for (size_t j = 0; j < step; j++) /* behind the last position comes the last one again */
            where[j] = (i + j < a->n_pos ? i + j : a->n_pos - 1) * dim;
        if (from != FROM_F32)
            fetch(a->v, i * dim, step * dim, from);
        for (size_t part = 0; part < PARTS; part++) {
            tile_part(from, n, width, s->packed + part * n * (dim / PARTS), k, where, dim,
                      sums[i / step][part]);
            for (size_t j = 0; j < step; j++)
                where[j] += PART;
        }
    }
    for (size_t i = 0; i < a->n_pos; i += step) { /* apart: a fold waits longer than it works */
        float *p = s->p + i * s->side + at;
        fold8(sums[i / step], p, p + (width == QUAD ? s->side : 4));
    }
}

/* Heads with a tail, or very long ones: one score after the other. */
INLINE void tail_scores(const enum source from, const struct tern_attend *a, struct set *s)
{
    size_t dim = a->head_dim;
    for (size_t i = 0; i < a->n_pos; i++) {
        for (size_t g = 0; g < s->n; g++) {
            struct v16 sum = set16(0.0f);
            for (size_t d = 0; d < dim; d += 16) {
                size_t n = dim - d < 16 ? dim - d : 16;
                sum = fma16n(load16n(s->q[g] + d, n), load16n_kv(from, a->k, i * dim + d, n), sum, n);
            }
            s->p[i * s->side + g] = fold(sum);
        }
    }
}

INLINE void scores(const enum source from, const struct tern_attend *a, struct set *s, const void *k)
{
    if (!tiled(a)) {
        tail_scores(from, a, s);
    } else if (s->side > QUAD) {
        for (size_t at = 0; at < s->n; at += QUAD)
            quad_scores(from, QUAD, a, s, k, at);
    } else {
        switch (s->n) {
        case 4: quad_scores(from, 4, a, s, k, 0); break;
        case 3: quad_scores(from, 3, a, s, k, 0); break;
        case 2: quad_scores(from, 2, a, s, k, 0); break;
        default: quad_scores(from, 1, a, s, k, 0); break;
        }
    }
}

/* -- weights --------------------------------------------------------------------------------------------- */

/* The new maximum, sum and scales of a set from those of its block. */
static void advance(const struct tern_attend *a, struct set *s, const float *bm, const float *bl)
{
    float *state_max = a->max + s->first, *sum = a->sum + s->first;
    struct v16 was = load16n(state_max, s->n), m = load16(bm), max = max16(m, was);
    struct v16 old = exp16(sub16(was, max)), new = exp16(sub16(m, max)); /* e^-infinity is 0 */
    store16n(state_max, max, s->n);
    store16n(sum, fma16(load16(bl), new, mul16(load16n(sum, s->n), old)), s->n);
    store16n(s->old, old, SET);
    store16n(s->new, new, SET);
}

/* Every position's `side` numbers times its scale. */
INLINE void scale_positions(float *p, const float *scale, size_t n_pos, const size_t side)
{
    for (size_t i = 0; i < n_pos; i++) {
        for (size_t g = 0; g < side; g++)
            p[i * side + g] *= scale[i];
    }
}

/* Scores to weights, for a set of `side` queries side by side. */
INLINE void weights_side(const struct tern_attend *a, struct set *s, const size_t side)
{
    float bm[SET], bl[SET] = { 0 }, *p = s->p;
    for (size_t x = a->n_pos * side; x % 16 != 0; x++) /* behind the last position */
        p[x] = -INFINITY;
    if (a->type == TERN_KV_INT8)
        scale_positions(p, a->k_scale, a->n_pos, side);
    struct v16 m = set16(-INFINITY), scale = set16(a->score_scale);
    for (size_t x = 0; x < a->n_pos * side; x += 16) {
        struct v16 v = mul16(load16(p + x), scale);
        store16n(p + x, v, 16);
        m = max16(v, m);
    }
    m = add16(max_across(m, side), set16(0.0f));
    store16n(bm, m, 16);
    for (size_t x = 0; x < a->n_pos * side; x += 16)
        store16n(p + x, exp16(sub16(load16(p + x), m)), 16);
    for (size_t i = 0; i < a->n_pos; i++) {
        for (size_t g = 0; g < side; g++)
            bl[g] += p[i * side + g];
    }
    if (a->type == TERN_KV_INT8)
        scale_positions(p, a->v_scale, a->n_pos, side);
    advance(a, s, bm, bl);
}

static void weights(const struct tern_attend *a, struct set *s)
{
    switch (s->side) {
    case 1: weights_side(a, s, 1); break;
    case 2: weights_side(a, s, 2); break;
    case 4: weights_side(a, s, 4); break;
    case 8: weights_side(a, s, 8); break;
    default: weights_side(a, s, 16); break;
    }
}

/* -- values ---------------------------------------------------------------------------------------------- */

/* `steps` times sixteen elements from d on, or n_d < 16, of n queries from `at` of the set on. */
INLINE void weigh(const enum source from, const size_t n, const size_t steps, const struct tern_attend *a,
                  struct set *s, const void *v, size_t at, size_t d, size_t n_d)
{
    struct v16 b[QUAD];
    for (size_t h = 0; h < n * steps; h++)
        b[h] = set16(0.0f);
    const float *p = s->p + at;
    for (size_t i = 0; i < a->n_pos; i++, p += s->side) {
        for (size_t c = 0; c < steps; c++) {
            struct v16 x = load16n_kv(from, v, i * a->head_dim + d + 16 * c, n_d);
            for (size_t h = 0; h < n; h++)
                b[c * n + h] = fma16(set16(p[h]), x, b[c * n + h]);
        }
    }
    for (size_t h = 0; h < n; h++) {
        for (size_t c = 0; c < steps; c++) {
            float *acc = s->acc[at + h] + d + 16 * c;
            struct v16 was = mul16(load16n(acc, n_d), set16(s->old[at + h]));
            store16n(acc, fma16(b[c * n + h], set16(s->new[at + h]), was), n_d);
        }
    }
}

/* All elements of n queries: a sum waits for its last addition, so few queries take several steps at once. */
INLINE void quad_values(const enum source from, const size_t n, const struct tern_attend *a, struct set *s,
                        const void *v, size_t at)
{
    const size_t steps = QUAD / n;
    size_t d = 0;
    for (; d + 16 * steps <= a->head_dim; d += 16 * steps) {
        if (from != FROM_F32 && a->next_k)
            fetch(a->next_k, d * PAGE, 16 * steps * PAGE, from);
        weigh(from, n, steps, a, s, v, at, d, 16);
    }
    for (; d + 16 <= a->head_dim; d += 16)
        weigh(from, n, 1, a, s, v, at, d, 16);
    if (d < a->head_dim)
        weigh(from, n, 1, a, s, v, at, d, a->head_dim - d);
}

INLINE void values(const enum source from, const struct tern_attend *a, struct set *s, const void *v)
{
    size_t at = 0;
    for (; at + QUAD <= s->n; at += QUAD)
        quad_values(from, 4, a, s, v, at);
    switch (s->n - at) {
    case 3: quad_values(from, 3, a, s, v, at); break;
    case 2: quad_values(from, 2, a, s, v, at); break;
    case 1: quad_values(from, 1, a, s, v, at); break;
    default: break;
    }
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static void find_queries(const struct tern_attend *a, struct set *s)
{
    for (size_t g = 0; g < SET; g++) { /* behind the last query comes the last one again */
        size_t query = s->first + (g < s->n ? g : s->n - 1);
        size_t row = query / a->n_heads, head = query % a->n_heads;
        s->q[g] = a->q + row * a->q_stride + head * a->head_dim;
        s->acc[g] = a->acc + row * a->acc_stride + head * a->head_dim;
    }
    s->side = s->n <= 2 ? s->n : s->n <= 4 ? 4 : s->n <= 8 ? 8 : 16;
    for (size_t x = 0; s->n < s->side && x < PAGE * SET; x += 16)
        store16n(s->p + x, set16(-INFINITY), 16); /* some of it no score will be written to */
}

INLINE void attend_from(const enum source from, const struct tern_attend *a, const void *k, const void *v)
{
    size_t n = a->n_rows * a->n_heads;
    struct set s;
    for (s.first = 0; s.first < n; s.first += SET) {
        s.n = n - s.first < SET ? n - s.first : SET;
        find_queries(a, &s);
        scores(from, a, &s, k);
        weights(a, &s);
        values(from, a, &s, v);
    }
}

/* n elements, a multiple of sixteen; int8 without its scale. */
static void to_floats(enum tern_kv_type type, const void *kv, size_t n, float *x)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(x + i,
                 type == TERN_KV_INT8 ? load16n_i8((const int8_t *)kv + i, 16)
                                      : load16_f16((const uint16_t *)kv + i),
                 16);
}

static void attend_floated(const struct tern_attend *a)
{
    _Alignas(64) float k[PAGE * MAX_TILED], v[PAGE * MAX_TILED];
    to_floats(a->type, a->k, a->n_pos * a->head_dim, k);
    to_floats(a->type, a->v, a->n_pos * a->head_dim, v);
    attend_from(FROM_F32, a, k, v);
}

static void attend(const struct tern_attend *a)
{
    if (a->n_rows * a->n_heads > QUAD && tiled(a))
        attend_floated(a);
    else if (a->type == TERN_KV_INT8)
        attend_from(FROM_INT8, a, a->k, a->v);
    else
        attend_from(FROM_F16, a, a->k, a->v);
}

static void attend_merge(size_t n_heads, size_t head_dim, const float *span_max, const float *span_sum,
                         const float *span_acc, float *max, float *sum, float *acc)
{
    for (size_t h = 0; h < n_heads; h++, acc += head_dim, span_acc += head_dim) {
        float m = span_max[h] > max[h] ? span_max[h] : max[h], two[16] = { max[h] - m, span_max[h] - m };
        store16n(two, exp16(load16(two)), 16);
        struct v16 old = set16(two[0]), new = set16(two[1]);
        max[h] = m;
        sum[h] = fmaf(span_sum[h], two[1], sum[h] * two[0]);
        for (size_t d = 0; d < head_dim; d += 16) {
            size_t n = head_dim - d;
            struct v16 was = mul16(load16n(acc + d, n), old);
            store16n(acc + d, fma16(load16n(span_acc + d, n), new, was), n);
        }
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
    k->attend_merge = attend_merge;
    k->attend_finish = attend_finish;
}

#endif
#endif
