/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain matrices times vectors over the sixteen lanes of the contract; see kernels_lanes.h.
 */
#ifndef TERN_KERNELS_LANES_MATVEC_H
#define TERN_KERNELS_LANES_MATVEC_H

#include "kernels/kernels_lanes.h"

#ifdef TERN_HAVE_LANES

/* Rows that share one vector; and rows and vectors that share each other, so that vectors too long for the
 * first cache are read half as often. */
#define SIDE 4
#define PAIR 2
/* Bytes that rows of blocks are prefetched ahead of their use: decoding them, a core does not look that far
 * ahead by itself.  (On a Zen 3 Q6_K times two vectors: 2.5 to 4.0 GB/s; rows without blocks gain
 * nothing.) */
#define BLOCKS_AHEAD 2048

/* Sixteen signed bytes times d. */
INLINE struct v16 scaled(struct b16 q, struct v16 d)
{
    return mul16(floats16(widen16(q)), d);
}

/* Elements [i, i + 16) of a row of a type without blocks. */
INLINE struct v16 load16_w(const enum tern_dtype type, const uint8_t *row, size_t i)
{
    if (type == TERN_F32)
        return load16((const float *)(const void *)row + i);
    return type == TERN_F16 ? load16_f16(row + 2 * i) : load16_bf16(row + 2 * i);
}

/* The last n <= 16 elements of such a row. */
INLINE struct v16 load16n_w(const enum tern_dtype type, const uint8_t *row, size_t i, size_t n)
{
    uint32_t padded[16] = { 0 };
    size_t size = type == TERN_F32 ? 4 : 2;
    memcpy(padded, row + i * size, n * size);
    return load16_w(type, (const uint8_t *)padded, 0);
}

/* Elements 0..15 and 16..31 of a step. */
struct v32 {
    struct v16 a, b;
};

/* Elements [i, i + 32) of rows of blocks, i a multiple of 32; the layouts are described at their scalar
 * definitions in dequant.c. */
INLINE struct v32 load32_q8_0(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 32 * 34;
    struct v16 d = splat_f16(b);
    return (struct v32){ scaled(load_bytes(b + 2), d), scaled(load_bytes(b + 18), d) };
}

INLINE struct v32 load32_q4_0(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 32 * 18;
    struct b16 q = load_bytes(b + 2), eight = set_bytes(8);
    struct v16 d = splat_f16(b);
    return (struct v32){ scaled(sub_bytes(bits_of(q, 0, 4), eight), d),
                         scaled(sub_bytes(bits_of(q, 4, 4), eight), d) };
}

INLINE struct v32 load32_q4_k(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 256 * 144, *s = b + 4;
    size_t j = i % 256 / 32;
    unsigned sc = s[j % 4] & 63u, mn = s[j % 4 + 4] & 63u;
    if (j >= 4) {
        sc = (s[j + 4] & 15u) | (unsigned)(s[j - 4] >> 6) << 4;
        mn = (unsigned)s[j + 4] >> 4 | (unsigned)(s[j] >> 6) << 4;
    }
    struct v16 scale = mul16(splat_f16(b), set16((float)sc)), min = mul16(splat_f16(b + 2), set16((float)mn));
    const uint8_t *q = b + 16 + 32 * (j / 2);
    unsigned shift = (unsigned)(j % 2 * 4);
    return (struct v32){ sub16(scaled(bits_of(load_bytes(q), shift, 4), scale), min),
                         sub16(scaled(bits_of(load_bytes(q + 16), shift, 4), scale), min) };
}

/* Sixteen of them: low nibbles at ql, bit pairs at qh, one scale. */
INLINE struct v16 load16_q6_k(const uint8_t *ql, const uint8_t *qh, unsigned g, struct v16 d, uint8_t scale)
{
    struct b16 high = to_high_nibbles(bits_of(load_bytes(qh), 2 * g, 2));
    struct b16 q = or_bytes(bits_of(load_bytes(ql), g / 2 * 4, 4), high);
    return scaled(sub_bytes(q, set_bytes(32)), mul16(d, set16((float)(int8_t)scale)));
}

INLINE struct v32 load32_q6_k(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 256 * 210, *s = b + 192 + i % 256 / 16;
    size_t half = i % 256 / 128;
    unsigned g = (unsigned)(i % 128 / 32);
    const uint8_t *ql = b + 64 * half + g % 2 * 32, *qh = b + 128 + 32 * half;
    struct v16 d = splat_f16(b + 208);
    return (struct v32){ load16_q6_k(ql, qh, g, d, s[0]), load16_q6_k(ql + 16, qh + 16, g, d, s[1]) };
}

INLINE struct v32 load32_tq2_0(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 256 * 66, *q = b + i % 256 / 128 * 32;
    unsigned shift = (unsigned)(i % 128 / 32 * 2);
    struct b16 one = set_bytes(1);
    struct v16 d = splat_f16(b + 64);
    return (struct v32){ scaled(sub_bytes(bits_of(load_bytes(q), shift, 2), one), d),
                         scaled(sub_bytes(bits_of(load_bytes(q + 16), shift, 2), one), d) };
}

INLINE struct v32 load32_w(const enum tern_dtype type, const uint8_t *row, size_t i)
{
    switch (type) {
    case TERN_Q8_0: return load32_q8_0(row, i);
    case TERN_Q4_0: return load32_q4_0(row, i);
    case TERN_Q4_K: return load32_q4_k(row, i);
    case TERN_Q6_K: return load32_q6_k(row, i);
    case TERN_TQ2_0: return load32_tq2_0(row, i);
    default: return (struct v32){ load16_w(type, row, i), load16_w(type, row, i + 16) };
    }
}

/* Types with blocks have rows of a multiple of 32. */
INLINE bool has_blocks(const enum tern_dtype type)
{
    return type != TERN_F32 && type != TERN_F16 && type != TERN_BF16;
}

/* Bytes of 32 elements of a type with blocks, rounded down. */
INLINE size_t step_bytes(const enum tern_dtype type)
{
    return type == TERN_Q8_0 ? 34 : type == TERN_Q6_K ? 26 : type == TERN_TQ2_0 ? 8 : 18;
}

/* n_rows rows, `apart` rows apart, times n_x vectors: at most SIDE products. */
INLINE void dots(const enum tern_dtype type, const struct tern_matvec *m, size_t r, size_t j, size_t apart,
                 const size_t n_rows, const size_t n_x)
{
    const uint8_t *w = (const uint8_t *)m->w + r * m->row_bytes;
    const size_t stride = apart * m->row_bytes;
    const float *x = m->x + j * m->x_stride;
    struct v16 s[SIDE];
    UNROLL
    for (size_t a = 0; a < n_rows * n_x; a++)
        s[a] = set16(0.0f);
    size_t i = 0;
    for (; i + 32 <= m->k; i += 32) {
        UNROLL
        for (size_t a = 0; a < n_rows; a++) {
            if (has_blocks(type))
                __builtin_prefetch(w + a * stride + i / 32 * step_bytes(type) + BLOCKS_AHEAD);
            struct v32 wv = load32_w(type, w + a * stride, i);
            UNROLL
            for (size_t b = 0; b < n_x; b++) {
                s[a * n_x + b] = fma16(wv.a, load16(x + b * m->x_stride + i), s[a * n_x + b]);
                s[a * n_x + b] = fma16(wv.b, load16(x + b * m->x_stride + i + 16), s[a * n_x + b]);
            }
        }
    }
    for (; !has_blocks(type) && i < m->k; i += 16) {
        size_t n = m->k - i < 16 ? m->k - i : 16;
        UNROLL
        for (size_t a = 0; a < n_rows * n_x; a++) {
            struct v16 wv = load16n_w(type, w + a / n_x * stride, i, n);
            s[a] = fma16n(wv, load16n(x + a % n_x * m->x_stride + i, n), s[a], n);
        }
    }
    UNROLL
    for (size_t a = 0; a < n_rows * n_x; a++)
        m->y[(j + a % n_x) * m->y_stride + r + a / n_x * apart] = fold(s[a]);
}

/* n_rows rows times all vectors. */
INLINE void rows(const enum tern_dtype type, const struct tern_matvec *m, size_t r, const size_t n_rows)
{
    size_t j = 0;
    for (; j + PAIR <= m->n_x; j += PAIR)
        dots(type, m, r, j, 1, n_rows, PAIR);
    if (j < m->n_x)
        dots(type, m, r, j, 1, n_rows, 1);
}

INLINE void matvec_type(const enum tern_dtype type, const struct tern_matvec *m, size_t row_first,
                        size_t row_last)
{
    size_t r = row_first;
    if (m->n_x == 1) {
        /* Four rows a quarter of the range apart: four streams of memory are faster than one. */
        const size_t apart = (row_last - row_first) / SIDE;
        for (size_t i = 0; i < apart; i++)
            dots(type, m, row_first + i, 0, apart, SIDE, 1);
        r += apart * SIDE;
    }
    for (; r + PAIR <= row_last; r += PAIR)
        rows(type, m, r, PAIR);
    if (r < row_last)
        rows(type, m, r, 1);
}

static void matvec(const struct tern_matvec *m, size_t row_first, size_t row_last)
{
    switch (m->type) {
    case TERN_F32: matvec_type(TERN_F32, m, row_first, row_last); break;
    case TERN_F16: matvec_type(TERN_F16, m, row_first, row_last); break;
    case TERN_BF16: matvec_type(TERN_BF16, m, row_first, row_last); break;
    case TERN_Q8_0: matvec_type(TERN_Q8_0, m, row_first, row_last); break;
    case TERN_Q4_0: matvec_type(TERN_Q4_0, m, row_first, row_last); break;
    case TERN_Q4_K: matvec_type(TERN_Q4_K, m, row_first, row_last); break;
    case TERN_Q6_K: matvec_type(TERN_Q6_K, m, row_first, row_last); break;
    case TERN_TQ2_0: matvec_type(TERN_TQ2_0, m, row_first, row_last); break;
    }
}

static void init_matvec(struct tern_kernels *k)
{
    k->matvec = matvec;
}

#endif
#endif
