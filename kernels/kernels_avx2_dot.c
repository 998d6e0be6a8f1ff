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

/* Vectors, or rows, that run side by side. */
#define SIDE 4
/* Elements of a row of the other block types decoded at a time. */
#define CHUNK 256

/* Elements [i, i + 16) of a row. */
INLINE struct v16 load16_w(const enum tern_dtype type, const uint8_t *row, size_t i)
{
    if (type == TERN_F32)
        return load16((const float *)(const void *)row + i);
    if (type == TERN_F16)
        return load16_f16(row + 2 * i);
    if (type == TERN_BF16) {
        const __m128i *h = (const __m128i *)(const void *)(row + 2 * i);
        __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
        return (struct v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                             _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
    }
    const uint8_t *b = row + i / 32 * 34; /* Q8_0 */
    const int8_t *q = (const int8_t *)(b + 2 + i % 32);
    __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((int16_t)load_u16(b)));
    return (struct v16){ _mm256_mul_ps(_mm256_cvtepi32_ps(load_i8(q, 8)), d),
                         _mm256_mul_ps(_mm256_cvtepi32_ps(load_i8(q + 8, 8)), d) };
}

/* The last n < 16 elements of a row; only for types without blocks. */
INLINE struct v16 load16_w_tail(const enum tern_dtype type, const uint8_t *row, size_t i, size_t n)
{
    uint32_t padded[16] = { 0 };
    size_t size = type == TERN_F32 ? 4 : 2;
    memcpy(padded, row + i * size, n * size);
    return load16_w(type, (const uint8_t *)padded, 0);
}

/* n_rows rows, row_bytes apart, times n_x vectors; one of the two numbers is 1. */
INLINE void dots(const enum tern_dtype type, const struct tern_matvec *m, size_t r, size_t j, const size_t n_rows,
                 const size_t n_x)
{
    const uint8_t *w = (const uint8_t *)m->w + r * m->row_bytes;
    const float *x = m->x + j * m->x_stride;
    struct v16 s[SIDE];
    for (size_t a = 0; a < n_rows * n_x; a++)
        s[a] = zero16();
    size_t i = 0;
    for (; i + 16 <= m->k; i += 16) {
        struct v16 wv = load16_w(type, w, i), xv = load16(x + i);
        s[0] = fma16(wv, xv, s[0]);
        for (size_t a = 1; a < n_rows; a++)
            s[a] = fma16(load16_w(type, w + a * m->row_bytes, i), xv, s[a]);
        for (size_t a = 1; a < n_x; a++)
            s[a] = fma16(wv, load16(x + a * m->x_stride + i), s[a]);
    }
    size_t n = m->k - i;
    for (size_t a = 0; n > 0 && a < n_rows * n_x; a++) {
        struct v16 wv = load16_w_tail(type, w + (n_x == 1 ? a : 0) * m->row_bytes, i, n);
        struct v16 xv = load16_tail(x + (n_x == 1 ? 0 : a) * m->x_stride + i, n);
        s[a] = fma16_tail(wv, xv, s[a], n);
    }
    for (size_t a = 0; a < n_rows; a++) {
        for (size_t b = 0; b < n_x; b++)
            m->y[(j + b) * m->y_stride + r + a] = fold(s[a + b]);
    }
}

INLINE void matvec_direct(const enum tern_dtype type, const struct tern_matvec *m, size_t row_first, size_t row_last)
{
    size_t r = row_first;
    for (; m->n_x == 1 && r + SIDE <= row_last; r += SIDE)
        dots(type, m, r, 0, SIDE, 1);
    for (; r < row_last; r++) {
        size_t j = 0;
        for (; j + SIDE <= m->n_x; j += SIDE)
            dots(type, m, r, j, 1, SIDE);
        for (; j < m->n_x; j++)
            dots(type, m, r, j, 1, 1);
    }
}

/* A row of the other types, decoded in chunks that stay in cache, times n_x vectors. */
INLINE void chunked_dots(const struct tern_matvec *m, size_t r, size_t j, const size_t n_x, size_t elems, size_t bytes)
{
    const uint8_t *w = (const uint8_t *)m->w + r * m->row_bytes;
    struct v16 s[SIDE];
    for (size_t a = 0; a < n_x; a++)
        s[a] = zero16();
    for (size_t i = 0; i < m->k; i += CHUNK) {
        float wf[CHUNK];
        size_t n = m->k - i < CHUNK ? m->k - i : CHUNK;
        tern_dequant_row(m->type, w + i / elems * bytes, n, wf);
        for (size_t c = 0; c < n; c += 16) {
            struct v16 wv = load16(wf + c);
            for (size_t a = 0; a < n_x; a++)
                s[a] = fma16(wv, load16(m->x + (j + a) * m->x_stride + i + c), s[a]);
        }
    }
    for (size_t a = 0; a < n_x; a++)
        m->y[(j + a) * m->y_stride + r] = fold(s[a]);
}

static void matvec_chunked(const struct tern_matvec *m, size_t row_first, size_t row_last)
{
    size_t elems, bytes;
    if (!tern_dtype_block(m->type, &elems, &bytes))
        return;
    for (size_t r = row_first; r < row_last; r++) {
        size_t j = 0;
        for (; j + SIDE <= m->n_x; j += SIDE)
            chunked_dots(m, r, j, SIDE, elems, bytes);
        for (; j < m->n_x; j++)
            chunked_dots(m, r, j, 1, elems, bytes);
    }
}

static void matvec(const struct tern_matvec *m, size_t row_first, size_t row_last)
{
    switch (m->type) {
    case TERN_F32: matvec_direct(TERN_F32, m, row_first, row_last); break;
    case TERN_F16: matvec_direct(TERN_F16, m, row_first, row_last); break;
    case TERN_BF16: matvec_direct(TERN_BF16, m, row_first, row_last); break;
    case TERN_Q8_0: matvec_direct(TERN_Q8_0, m, row_first, row_last); break;
    default: matvec_chunked(m, row_first, row_last); break;
    }
}

void tern_kernels_init_avx2_dot(struct tern_kernels *k)
{
    k->attend = attend;
    k->attend_finish = attend_finish;
    k->matvec = matvec;
}

#endif
