/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 level: dot products of float rows, that is attention and the plain matrices.
 *
 * A dot product has two accumulators of eight lanes and waits for each addition, so several run side by side: query heads
 * that share K and V, vectors that share a row, or rows that share a vector.
 */
#include "kernels/kernels_avx2.h"

#include "kernels/kernels_impl.h"

#if defined(__AVX2__) || defined(TERN_SIMDE)

INLINE struct v16 load16_f16(const void *p)
{
    const __m128i *h = p;
    return (struct v16){ _mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)) };
}

INLINE struct v16 load16_f16_tail(const void *p, size_t n)
{
    uint16_t h[16] = { 0 };
    memcpy(h, p, n * sizeof h[0]);
    return load16_f16(h);
}

/* -- attention -------------------------------------------------------------------------------------------------- */

/* Query heads that share one conversion of K and V to f32. */
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
            s[h] = zero16();
        size_t d = 0;
        for (; d + 16 <= dim; d += 16) {
            struct v16 kv = load16_f16(k + d);
            for (size_t h = 0; h < n; h++)
                s[h] = fma16(load16(q + h * dim + d), kv, s[h]);
        }
        if (d < dim) {
            struct v16 kv = load16_f16_tail(k + d, dim - d);
            for (size_t h = 0; h < n; h++)
                s[h] = fma16_tail(load16_tail(q + h * dim + d, dim - d), kv, s[h], dim - d);
        }
        for (size_t h = 0; h < n; h++)
            p[h][i] = fold(s[h]) * a->score_scale;
    }
}

/* Scores to weights; the running maximum and sum move on; old and new scale what was and what comes. */
static void weights(const struct tern_attend *a, size_t head, float p[PAGE], float *old, float *new)
{
    float bm = -INFINITY, bl = 0.0f;
    for (size_t i = 0; i < a->n_pos; i++)
        bm = p[i] > bm ? p[i] : bm;
    for (size_t i = 0; i < PAGE; i += 8)
        _mm256_storeu_ps(p + i, exp8(_mm256_sub_ps(_mm256_loadu_ps(p + i), _mm256_set1_ps(bm))));
    for (size_t i = 0; i < a->n_pos; i++)
        bl += p[i];
    float was = a->max[head], max = bm > was ? bm : was;
    __m256 e = exp8(_mm256_setr_ps(was - max, bm - max, 0, 0, 0, 0, 0, 0));
    float both[8];
    _mm256_storeu_ps(both, e);
    *old = was == -INFINITY ? 0.0f : both[0];
    *new = both[1];
    a->max[head] = max;
    a->sum[head] = fmaf(bl, *new, a->sum[head] * *old);
}

/* Sixteen elements (n_d of them real) of n heads. */
INLINE void weigh(const struct tern_attend *a, size_t head, const size_t n, size_t d, size_t n_d,
                  float p[HEADS][PAGE], const float *old, const float *new)
{
    struct v16 b[HEADS];
    for (size_t h = 0; h < n; h++)
        b[h] = zero16();
    for (size_t i = 0; i < a->n_pos; i++) {
        const uint16_t *v = a->v + i * a->head_dim + d;
        struct v16 vv = n_d >= 16 ? load16_f16(v) : load16_f16_tail(v, n_d);
        for (size_t h = 0; h < n; h++) {
            __m256 w = _mm256_set1_ps(p[h][i]);
            b[h] = fma16((struct v16){ w, w }, vv, b[h]);
        }
    }
    for (size_t h = 0; h < n; h++) {
        float *acc = a->acc + (head + h) * a->head_dim + d;
        __m256 so = _mm256_set1_ps(old[h]), sn = _mm256_set1_ps(new[h]);
        store8(acc, _mm256_fmadd_ps(b[h].lo, sn, _mm256_mul_ps(load8(acc, n_d), so)), n_d);
        if (n_d > 8)
            store8(acc + 8, _mm256_fmadd_ps(b[h].hi, sn, _mm256_mul_ps(load8(acc + 8, n_d - 8), so)), n_d - 8);
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
    for (size_t i = 0; i < n; i += 8)
        store8(out + i, _mm256_div_ps(load8(acc + i, n - i), _mm256_set1_ps(sum)), n - i);
}

/* -- plain matrices --------------------------------------------------------------------------------------------- */

/* Rows that share one vector; and rows and vectors that share each other, so that vectors too long for the first cache are
 * read half as often. */
#define SIDE 4
#define PAIR 2

INLINE __m256 splat_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((int16_t)load_u16(p)));
}

INLINE __m128i load_bytes(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Sixteen signed bytes times d. */
INLINE struct v16 scaled(__m128i q, __m256 d)
{
    __m256i lo = _mm256_cvtepi8_epi32(q), hi = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q, q));
    return (struct v16){ _mm256_mul_ps(_mm256_cvtepi32_ps(lo), d), _mm256_mul_ps(_mm256_cvtepi32_ps(hi), d) };
}

/* Bits [shift, shift + width) of sixteen bytes. */
INLINE __m128i bits_of(__m128i v, unsigned shift, unsigned width)
{
    return _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128((int)shift)), _mm_set1_epi8((char)((1u << width) - 1)));
}

INLINE struct v16 load16_bf16(const void *p)
{
    const __m128i *h = p;
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (struct v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                         _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
}

/* Elements [i, i + 16) of a row of a type without blocks. */
INLINE struct v16 load16_w(const enum tern_dtype type, const uint8_t *row, size_t i)
{
    if (type == TERN_F32)
        return load16((const float *)(const void *)row + i);
    return type == TERN_F16 ? load16_f16(row + 2 * i) : load16_bf16(row + 2 * i);
}

/* The last n < 16 elements of such a row. */
INLINE struct v16 load16_w_tail(const enum tern_dtype type, const uint8_t *row, size_t i, size_t n)
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

/* Elements [i, i + 32) of rows of blocks, i a multiple of 32; the layouts are described at their scalar definitions in
 * dequant.c. */
INLINE struct v32 load32_q8_0(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 32 * 34;
    __m256 d = splat_f16(b);
    return (struct v32){ scaled(load_bytes(b + 2), d), scaled(load_bytes(b + 18), d) };
}

INLINE struct v32 load32_q4_0(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 32 * 18;
    __m128i q = load_bytes(b + 2), eight = _mm_set1_epi8(8);
    __m256 d = splat_f16(b);
    return (struct v32){ scaled(_mm_sub_epi8(bits_of(q, 0, 4), eight), d),
                         scaled(_mm_sub_epi8(bits_of(q, 4, 4), eight), d) };
}

INLINE struct v16 less(struct v16 v, __m256 m)
{
    return (struct v16){ _mm256_sub_ps(v.lo, m), _mm256_sub_ps(v.hi, m) };
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
    __m256 scale = _mm256_mul_ps(splat_f16(b), _mm256_set1_ps((float)sc));
    __m256 min = _mm256_mul_ps(splat_f16(b + 2), _mm256_set1_ps((float)mn));
    const uint8_t *q = b + 16 + 32 * (j / 2);
    unsigned shift = (unsigned)(j % 2 * 4);
    return (struct v32){ less(scaled(bits_of(load_bytes(q), shift, 4), scale), min),
                         less(scaled(bits_of(load_bytes(q + 16), shift, 4), scale), min) };
}

/* Sixteen of them: low nibbles at ql, bit pairs at qh, one scale. */
INLINE struct v16 load16_q6_k(const uint8_t *ql, const uint8_t *qh, unsigned g, __m256 d, uint8_t scale)
{
    __m128i high = _mm_slli_epi16(bits_of(load_bytes(qh), 2 * g, 2), 4);
    __m128i q = _mm_or_si128(bits_of(load_bytes(ql), g / 2 * 4, 4), high);
    return scaled(_mm_sub_epi8(q, _mm_set1_epi8(32)), _mm256_mul_ps(d, _mm256_set1_ps((float)(int8_t)scale)));
}

INLINE struct v32 load32_q6_k(const uint8_t *row, size_t i)
{
    const uint8_t *b = row + i / 256 * 210, *s = b + 192 + i % 256 / 16;
    size_t half = i % 256 / 128;
    unsigned g = (unsigned)(i % 128 / 32);
    const uint8_t *ql = b + 64 * half + g % 2 * 32, *qh = b + 128 + 32 * half;
    __m256 d = splat_f16(b + 208);
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
INLINE void dots(const enum tern_dtype type, const struct tern_matvec *m, size_t r, size_t j, const size_t n_rows,
                 const size_t n_x)
{
    const uint8_t *w = (const uint8_t *)m->w + r * m->row_bytes;
    const float *x = m->x + j * m->x_stride;
    struct v16 s[SIDE];
    for (size_t a = 0; a < n_rows * n_x; a++)
        s[a] = zero16();
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
            struct v16 wv = load16_w_tail(type, w + a / n_x * m->row_bytes, i, n);
            s[a] = fma16_tail(wv, load16_tail(x + a % n_x * m->x_stride + i, n), s[a], n);
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

INLINE void matvec_type(const enum tern_dtype type, const struct tern_matvec *m, size_t row_first, size_t row_last)
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

void tern_kernels_init_avx2_dot(struct tern_kernels *k)
{
    k->attend = attend;
    k->attend_finish = attend_finish;
    k->matvec = matvec;
}

#endif
