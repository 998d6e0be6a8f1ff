/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every float op of the vector levels, written once over the sixteen lanes of the contract.
 *
 * A level includes its verbs (kernels_avx2.h, kernels_avx512.h) and then this file, and gets static functions
 * of its own instruction set.  Elementwise ops round exactly like their scalar definitions whatever the
 * width; only reductions need care, and those keep lane i % 16 in place to the end.  Tails are masked:
 * nothing is read beyond the stated shapes.
 *
 * Empty when no verbs were included before.
 */
#ifndef TERN_KERNELS_LANES_H
#define TERN_KERNELS_LANES_H

#include "kernels/kernels.h"

#ifdef TERN_HAVE_LANES

/* -- BitLinear: activations ------------------------------------------------------------------------------ */

/* Clamped to -127..127 (a NaN becomes -127, as in round_i8) and rounded to nearest even. */
INLINE struct i16 codes16(struct v16 v)
{
    return round16(min16(max16(v, set16(-127.0f)), set16(127.0f)));
}

static float quantize(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum)
{
    uint32_t mx = absmax16(x, k, f32_bits(1e-5f));
    *sum = 0;
    if (mx >= 0x7f800000u) {
        memset(q, 0, k_pad);
        return 0.0f;
    }
    float s = 127.0f / f32_from_bits(mx);
    struct v16 scale = set16(s);
    struct i16 total = round16(set16(0.0f));
    for (size_t i = 0; i < k; i += 16) {
        struct i16 v = codes16(mul16(load16n(x + i, k - i), scale));
        total = addi16(total, v);
        store_bytes_n(q + i, narrow16(v), k - i);
    }
    memset(q + k, 0, k_pad - k);
    *sum = sumi16(total);
    return s;
}

/* -- float rows ------------------------------------------------------------------------------------------ */

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *y)
{
    struct v16 ss = set16(0.0f);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        struct v16 v = load16(x + i);
        ss = fma16(v, v, ss);
    }
    if (i < n) {
        struct v16 v = load16n(x + i, n - i);
        ss = fma16n(v, v, ss, n - i);
    }
    struct v16 r = set16(1.0f / sqrtf(fold(ss) / (float)n + eps));
    for (i = 0; i < n; i += 16)
        store16n(y + i, mul16(mul16(load16n(x + i, n - i), r), load16n(w + i, n - i)), n - i);
}

static void rope_neox(float *h, const float *cos_sin, size_t head_dim)
{
    size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j += 16) {
        size_t n = half - j;
        struct v16 a = load16n(h + j, n), b = load16n(h + half + j, n);
        struct v16 c = load16n(cos_sin + j, n), s = load16n(cos_sin + half + j, n);
        store16n(h + j, sub16(mul16(a, c), mul16(b, s)), n);
        store16n(h + half + j, add16(mul16(a, s), mul16(b, c)), n);
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(x + i, add16(load16n(x + i, n - i), load16n(y + i, n - i)), n - i);
}

static void relu2_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        struct v16 r = max16(load16n(gate + i, n - i), set16(0.0f));
        store16n(y + i, mul16(mul16(r, r), load16n(up + i, n - i)), n - i);
    }
}

static void f32_to_f16(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i += 16)
        store16n_f16(y + i, load16n(x + i, n - i), n - i);
}

static void f16_to_f32(const uint16_t *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(y + i, load16n_f16(x + i, n - i), n - i);
}

static bool all_finite(const float *x, size_t n)
{
    return absmax16(x, n, 0) < 0x7f800000u;
}

static double sum_exp(const float *x, size_t n, float max)
{
    struct d16 s = zero_d16();
    for (size_t i = 0; i < n; i += 16) {
        struct v16 e = exp16(sub16(load16n(x + i, n - i), set16(max)));
        s = add_d16(s, keep16n(e, n - i)); /* adding +0 to a sum of numbers >= 0 changes nothing */
    }
    return fold_d16(s);
}

/* -- the residual stream at layer boundaries ------------------------------------------------------------- */

INLINE struct v16 load16n_i8(const int8_t *q, size_t n)
{
    return floats16(widen16(load_bytes_n(q, n)));
}

INLINE float block_scale(const float *x, size_t n)
{
    float mx = f32_from_bits(absmax16(x, n, 0));
    return mx < 1e-30f ? 0.0f : mx / 127.0f;
}

static void encode_i8(const float *x, size_t n, size_t block, float *scales, int8_t *q)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len);
        *scales++ = d;
        if (d == 0.0f) {
            memset(q + b, 0, len);
            continue;
        }
        struct v16 inv = set16(1.0f / d);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            store_bytes_n(q + i, narrow16(codes16(mul16(load16n(x + i, left), inv))), left);
        }
    }
}

static void decode_i8(const float *scales, const int8_t *q, size_t n, size_t block, float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        struct v16 d = set16(*scales++);
        for (size_t i = b; i < b + len; i += 16)
            store16n(x + i, mul16(load16n_i8(q + i, b + len - i), d), b + len - i);
    }
}

static void encode_i8x2(const float *x, size_t n, size_t block, float *scales, int8_t *hi, int8_t *lo)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len);
        *scales++ = d;
        if (d == 0.0f) {
            memset(hi + b, 0, len);
            memset(lo + b, 0, len);
            continue;
        }
        struct v16 step = set16(d), inv = set16(1.0f / d), inv_lo = set16(254.0f / d);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            struct v16 v = load16n(x + i, left);
            struct i16 h = codes16(mul16(v, inv));
            struct v16 rest = sub16(v, mul16(floats16(h), step));
            store_bytes_n(hi + i, narrow16(h), left);
            store_bytes_n(lo + i, narrow16(codes16(mul16(rest, inv_lo))), left);
        }
    }
}

/* 254 * hi + lo is an integer below 2^24, so it may as well be computed in floats. */
static void decode_i8x2(const float *scales, const int8_t *hi, const int8_t *lo, size_t n, size_t block,
                        float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        struct v16 step = set16(*scales++ / 254.0f);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            struct v16 v = fma16(load16n_i8(hi + i, left), set16(254.0f), load16n_i8(lo + i, left));
            store16n(x + i, mul16(v, step), left);
        }
    }
}

/* -- attention ------------------------------------------------------------------------------------------- */

/* Query heads that share one conversion of K and V to f32: a sum waits for its last addition, so several run
 * side by side. */
#define HEADS 4
#define PAGE  32

INLINE void scores(const struct tern_attend *a, size_t head, const size_t n, float p[HEADS][PAGE])
{
    size_t dim = a->head_dim;
    const float *q = a->q + head * dim;
    for (size_t i = 0; i < a->n_pos; i++) {
        const uint16_t *k = a->k + i * dim;
        struct v16 s[HEADS];
        for (size_t h = 0; h < n; h++)
            s[h] = set16(0.0f);
        size_t d = 0;
        for (; d + 16 <= dim; d += 16) {
            struct v16 kv = load16_f16(k + d);
            for (size_t h = 0; h < n; h++)
                s[h] = fma16(load16(q + h * dim + d), kv, s[h]);
        }
        if (d < dim) {
            struct v16 kv = load16n_f16(k + d, dim - d);
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
        struct v16 v = load16n_f16(a->v + i * a->head_dim + d, n_d);
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

static void attend(const struct tern_attend *a)
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

static void attend_finish(const float *acc, float sum, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(out + i, div16(load16n(acc + i, n - i), set16(sum)), n - i);
}

/* -- plain matrices -------------------------------------------------------------------------------------- */

/* Rows that share one vector; and rows and vectors that share each other, so that vectors too long for the
 * first cache are read half as often. */
#define SIDE 4
#define PAIR 2

INLINE __m128i load_bytes(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Sixteen signed bytes times d. */
INLINE struct v16 scaled(__m128i q, struct v16 d)
{
    return mul16(floats16(widen16(q)), d);
}

/* Bits [shift, shift + width) of sixteen bytes. */
INLINE __m128i bits_of(__m128i v, unsigned shift, unsigned width)
{
    return _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128((int)shift)),
                         _mm_set1_epi8((char)((1u << width) - 1)));
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
    __m128i q = load_bytes(b + 2), eight = _mm_set1_epi8(8);
    struct v16 d = splat_f16(b);
    return (struct v32){ scaled(_mm_sub_epi8(bits_of(q, 0, 4), eight), d),
                         scaled(_mm_sub_epi8(bits_of(q, 4, 4), eight), d) };
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
    __m128i high = _mm_slli_epi16(bits_of(load_bytes(qh), 2 * g, 2), 4);
    __m128i q = _mm_or_si128(bits_of(load_bytes(ql), g / 2 * 4, 4), high);
    return scaled(_mm_sub_epi8(q, _mm_set1_epi8(32)), mul16(d, set16((float)(int8_t)scale)));
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

INLINE struct v32 load32_w(const enum tern_dtype type, const uint8_t *row, size_t i)
{
    switch (type) {
    case TERN_Q8_0: return load32_q8_0(row, i);
    case TERN_Q4_0: return load32_q4_0(row, i);
    case TERN_Q4_K: return load32_q4_k(row, i);
    case TERN_Q6_K: return load32_q6_k(row, i);
    default: return (struct v32){ load16_w(type, row, i), load16_w(type, row, i + 16) };
    }
}

/* Types with blocks have rows of a multiple of 32. */
INLINE bool has_blocks(const enum tern_dtype type)
{
    return type != TERN_F32 && type != TERN_F16 && type != TERN_BF16;
}

/* n_rows rows, row_bytes apart, times n_x vectors: at most SIDE products. */
INLINE void dots(const enum tern_dtype type, const struct tern_matvec *m, size_t r, size_t j,
                 const size_t n_rows, const size_t n_x)
{
    const uint8_t *w = (const uint8_t *)m->w + r * m->row_bytes;
    const float *x = m->x + j * m->x_stride;
    struct v16 s[SIDE];
    for (size_t a = 0; a < n_rows * n_x; a++)
        s[a] = set16(0.0f);
    size_t i = 0;
    for (; i + 32 <= m->k; i += 32) {
        for (size_t a = 0; a < n_rows; a++) {
            struct v32 wv = load32_w(type, w + a * m->row_bytes, i);
            for (size_t b = 0; b < n_x; b++) {
                s[a * n_x + b] = fma16(wv.a, load16(x + b * m->x_stride + i), s[a * n_x + b]);
                s[a * n_x + b] = fma16(wv.b, load16(x + b * m->x_stride + i + 16), s[a * n_x + b]);
            }
        }
    }
    for (; !has_blocks(type) && i < m->k; i += 16) {
        size_t n = m->k - i < 16 ? m->k - i : 16;
        for (size_t a = 0; a < n_rows * n_x; a++) {
            struct v16 wv = load16n_w(type, w + a / n_x * m->row_bytes, i, n);
            s[a] = fma16n(wv, load16n(x + a % n_x * m->x_stride + i, n), s[a], n);
        }
    }
    for (size_t a = 0; a < n_rows * n_x; a++)
        m->y[(j + a % n_x) * m->y_stride + r + a / n_x] = fold(s[a]);
}

/* n_rows rows times all vectors. */
INLINE void rows(const enum tern_dtype type, const struct tern_matvec *m, size_t r, const size_t n_rows)
{
    size_t j = 0;
    for (; j + PAIR <= m->n_x; j += PAIR)
        dots(type, m, r, j, n_rows, PAIR);
    if (j < m->n_x)
        dots(type, m, r, j, n_rows, 1);
}

INLINE void matvec_type(const enum tern_dtype type, const struct tern_matvec *m, size_t row_first,
                        size_t row_last)
{
    size_t r = row_first;
    for (; m->n_x == 1 && r + SIDE <= row_last; r += SIDE)
        dots(type, m, r, 0, SIDE, 1);
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
    }
}

/* All of the above. */
static void init_lanes(struct tern_kernels *k)
{
    k->quantize = quantize;
    k->rmsnorm = rmsnorm;
    k->rope_neox = rope_neox;
    k->add = add;
    k->relu2_gate = relu2_gate;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->all_finite = all_finite;
    k->attend = attend;
    k->attend_finish = attend_finish;
    k->matvec = matvec;
    k->sum_exp = sum_exp;
    k->encode_i8 = encode_i8;
    k->decode_i8 = decode_i8;
    k->encode_i8x2 = encode_i8x2;
    k->decode_i8x2 = decode_i8x2;
}

#endif
#endif
