/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 level (AVX2, FMA, F16C): BitLinear, float rows, and the rounding at layer boundaries.
 *
 * Elementwise ops round exactly like their scalar definitions whatever the width; only reductions need care, and those
 * keep lane i % 16 in place to the end.  Tails use masked loads, so nothing is read beyond the stated shapes.
 */
#include "kernels/kernels_avx2.h"

#include "kernels/kernels_impl.h"

#if defined(__AVX2__) || defined(TERN_SIMDE)

/* -- BitLinear -------------------------------------------------------------------------------------------------- */

static float quantize(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum)
{
    uint32_t mx = absmax(x, k, f32_bits(1e-5f));
    *sum = 0;
    if (mx >= 0x7f800000u) {
        memset(q, 0, k_pad);
        return 0.0f;
    }
    float s = 127.0f / f32_from_bits(mx);
    __m256 scale = _mm256_set1_ps(s);
    __m256i total = _mm256_setzero_si256();
    for (size_t i = 0; i < k; i += 8) {
        __m256i v = round8(_mm256_mul_ps(load8(x + i, k - i), scale));
        total = _mm256_add_epi32(total, v);
        store_i8(q + i, v, k - i);
    }
    memset(q + k, 0, k_pad - k);
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    *sum = _mm_cvtsi128_si32(c);
    return s;
}

/*
 * A 16-bit lane takes from one VPMADDUBSW at most 2 * 2 * 127 = 508 in absolute value (codes 0..2, q -127..127).  Four
 * of them a group of 16 columns, WIDEN groups: 16 * 4 * 508 = 32512 <= 32767.  Then the lane is widened to 32 bits,
 * where TERN_TERNARY_MAX_K * 2 * 127 = 33292288 fits.
 */
#define WIDEN 16

/* The largest number of activation rows that share the unpacked codes: 2 * GEMM_ROWS accumulators, codes and masks fill
 * the sixteen registers. */
#define GEMM_ROWS 4

/* Keeps a sum in its register: without it gcc 12 regroups the additions of a whole group, runs out of registers and four rows
 * take longer than four times one row. */
#ifdef TERN_SIMDE
#define PIN(v) (void)(v)
#else
#define PIN(v) __asm__("" : "+x"(v))
#endif

INLINE __m256i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

/* At most WIDEN groups (64 bytes each) of a tile times n rows of q: dot[2 r] (tile rows 0..7) and dot[2 r + 1] grow. */
INLINE void groups(const uint8_t *tile, size_t n_groups, const int8_t *q, size_t stride, const size_t n,
                   __m256i *dot)
{
    const __m256i low2 = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    __m256i a[2 * GEMM_ROWS];
    for (size_t r = 0; r < 2 * n; r++)
        a[r] = _mm256_setzero_si256();
    for (size_t g = 0; g < n_groups; g++, tile += 64, q += TERN_TILE_COLS) {
        __m256i w0 = _mm256_load_si256((const __m256i *)tile);
        __m256i w1 = _mm256_load_si256((const __m256i *)(tile + 32));
#define STEP(shift)                                                                                          \
    do {                                                                                                     \
        __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(w0, 2 * (shift)), low2);                             \
        __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(w1, 2 * (shift)), low2);                             \
        for (size_t r = 0; r < n; r++) {                                                                     \
            __m256i x = broadcast4(q + r * stride + 4 * (shift));                                            \
            a[2 * r] = _mm256_add_epi16(a[2 * r], _mm256_maddubs_epi16(c0, x));                              \
            a[2 * r + 1] = _mm256_add_epi16(a[2 * r + 1], _mm256_maddubs_epi16(c1, x));                      \
            PIN(a[2 * r]);                                                                                   \
            PIN(a[2 * r + 1]);                                                                               \
        }                                                                                                    \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (size_t r = 0; r < 2 * n; r++)
        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(a[r], ones));
}

/* y[0..n) = ((float)(dot - act_sum) / act_scale) * scale. */
INLINE void finish(const struct tern_ternary *t, size_t row, size_t out, __m256i lo, __m256i hi)
{
    __m256i sum = _mm256_set1_epi32(t->act_sum[row]);
    __m256 s = _mm256_set1_ps(t->act_scale[row]), scale = _mm256_set1_ps(t->scale);
    __m256 a = _mm256_cvtepi32_ps(_mm256_sub_epi32(lo, sum));
    __m256 b = _mm256_cvtepi32_ps(_mm256_sub_epi32(hi, sum));
    float *y = t->y + row * t->y_stride + out;
    size_t n = t->m - out;
    store8(y, _mm256_mul_ps(_mm256_div_ps(a, s), scale), n);
    if (n > 8)
        store8(y + 8, _mm256_mul_ps(_mm256_div_ps(b, s), scale), n - 8);
}

/* One tile times n rows of activations, from `row` on. */
INLINE void tile_rows(const struct tern_ternary *t, size_t tile, size_t row, const size_t n)
{
    const uint8_t *w = t->tiles + tile * 4 * t->k_pad;
    const int8_t *q = t->q + row * t->q_stride;
    __m256i dot[2 * GEMM_ROWS];
    for (size_t r = 0; r < 2 * n; r++)
        dot[r] = _mm256_setzero_si256();
    size_t left = t->k_pad / TERN_TILE_COLS;
    for (; left >= WIDEN; left -= WIDEN, w += 64 * WIDEN, q += TERN_TILE_COLS * WIDEN)
        groups(w, WIDEN, q, t->q_stride, n, dot);
    groups(w, left, q, t->q_stride, n, dot);
    for (size_t r = 0; r < n; r++)
        finish(t, row + r, tile * TERN_TILE_ROWS, dot[2 * r], dot[2 * r + 1]);
}

static void ternary(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    for (size_t tile = tile_first; tile < tile_last; tile++) {
        size_t row = 0;
        for (; row + GEMM_ROWS <= t->n_rows; row += GEMM_ROWS)
            tile_rows(t, tile, row, GEMM_ROWS);
        switch (t->n_rows - row) {
        case 3: tile_rows(t, tile, row, 3); break;
        case 2: tile_rows(t, tile, row, 2); break;
        case 1: tile_rows(t, tile, row, 1); break;
        default: break;
        }
    }
}

/* -- float rows ------------------------------------------------------------------------------------------------- */

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *y)
{
    struct v16 ss = zero16();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        struct v16 v = load16(x + i);
        ss = fma16(v, v, ss);
    }
    if (i < n) {
        struct v16 v = load16_tail(x + i, n - i);
        ss = fma16_tail(v, v, ss, n - i);
    }
    float r = 1.0f / sqrtf(fold(ss) / (float)n + eps);
    __m256 scale = _mm256_set1_ps(r);
    for (i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load8(x + i, n - i), scale);
        store8(y + i, _mm256_mul_ps(v, load8(w + i, n - i)), n - i);
    }
}

static void rope_neox(float *h, const float *cos_sin, size_t head_dim)
{
    size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j += 8) {
        size_t n = half - j;
        __m256 a = load8(h + j, n), b = load8(h + half + j, n);
        __m256 c = load8(cos_sin + j, n), s = load8(cos_sin + half + j, n);
        store8(h + j, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)), n);
        store8(h + half + j, _mm256_add_ps(_mm256_mul_ps(a, s), _mm256_mul_ps(b, c)), n);
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store8(x + i, _mm256_add_ps(load8(x + i, n - i), load8(y + i, n - i)), n - i);
}

static void relu2_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 r = _mm256_max_ps(load8(gate + i, n - i), _mm256_setzero_ps());
        store8(y + i, _mm256_mul_ps(_mm256_mul_ps(r, r), load8(up + i, n - i)), n - i);
    }
}

static void f32_to_f16(const float *x, size_t n, uint16_t *y)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        y[i] = f16_from_f32(x[i]);
}

static void f16_to_f32(const uint16_t *x, size_t n, float *y)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    for (; i < n; i++)
        y[i] = f32_from_f16(x[i]);
}

static bool all_finite(const float *x, size_t n)
{
    return absmax(x, n, 0) < 0x7f800000u;
}

/* -- sums over the vocabulary ----------------------------------------------------------------------------------- */

/* Lanes 4 i .. 4 i + 3 of sixteen doubles grow by four floats. */
INLINE __m256d add4(__m256d sum, __m128 x)
{
    return _mm256_add_pd(sum, _mm256_cvtps_pd(x));
}

static double sum_exp(const float *x, size_t n, float max)
{
    __m256 m = _mm256_set1_ps(max);
    __m256d s0 = _mm256_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
    for (size_t i = 0; i < n; i += 16) {
        size_t left = n - i;
        struct v16 v = left >= 16 ? load16(x + i) : load16_tail(x + i, left);
        v = (struct v16){ exp8(_mm256_sub_ps(v.lo, m)), exp8(_mm256_sub_ps(v.hi, m)) };
        if (left < 16) { /* adding +0 to a sum of numbers >= 0 changes nothing */
            v.lo = _mm256_and_ps(v.lo, _mm256_castsi256_ps(lanes_below(left < 8 ? left : 8)));
            v.hi = _mm256_and_ps(v.hi, _mm256_castsi256_ps(lanes_below(left < 8 ? 0 : left - 8)));
        }
        s0 = add4(s0, _mm256_castps256_ps128(v.lo));
        s1 = add4(s1, _mm256_extractf128_ps(v.lo, 1));
        s2 = add4(s2, _mm256_castps256_ps128(v.hi));
        s3 = add4(s3, _mm256_extractf128_ps(v.hi, 1));
    }
    s0 = _mm256_add_pd(_mm256_add_pd(s0, s2), _mm256_add_pd(s1, s3));
    __m128d d = _mm_add_pd(_mm256_castpd256_pd128(s0), _mm256_extractf128_pd(s0, 1));
    return _mm_cvtsd_f64(_mm_add_sd(d, _mm_unpackhi_pd(d, d)));
}

/* -- the residual stream at layer boundaries -------------------------------------------------------------------- */

static float block_scale(const float *x, size_t n)
{
    float mx = f32_from_bits(absmax(x, n, 0));
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
        __m256 inv = _mm256_set1_ps(1.0f / d);
        for (size_t i = 0; i < len; i += 8)
            store_i8(q + b + i, round8(_mm256_mul_ps(load8(x + b + i, len - i), inv)), len - i);
    }
}

static void decode_i8(const float *scales, const int8_t *q, size_t n, size_t block, float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        __m256 d = _mm256_set1_ps(*scales++);
        for (size_t i = 0; i < len; i += 8)
            store8(x + b + i, _mm256_mul_ps(_mm256_cvtepi32_ps(load_i8(q + b + i, len - i)), d), len - i);
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
        __m256 step = _mm256_set1_ps(d), inv = _mm256_set1_ps(1.0f / d), inv_lo = _mm256_set1_ps(254.0f / d);
        for (size_t i = 0; i < len; i += 8) {
            __m256 v = load8(x + b + i, len - i);
            __m256i h = round8(_mm256_mul_ps(v, inv));
            __m256 rest = _mm256_sub_ps(v, _mm256_mul_ps(_mm256_cvtepi32_ps(h), step));
            store_i8(hi + b + i, h, len - i);
            store_i8(lo + b + i, round8(_mm256_mul_ps(rest, inv_lo)), len - i);
        }
    }
}

static void decode_i8x2(const float *scales, const int8_t *hi, const int8_t *lo, size_t n, size_t block,
                        float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        __m256 step = _mm256_set1_ps(*scales++ / 254.0f);
        for (size_t i = 0; i < len; i += 8) {
            __m256i h = _mm256_mullo_epi32(load_i8(hi + b + i, len - i), _mm256_set1_epi32(254));
            __m256i v = _mm256_add_epi32(h, load_i8(lo + b + i, len - i));
            store8(x + b + i, _mm256_mul_ps(_mm256_cvtepi32_ps(v), step), len - i);
        }
    }
}

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    k->quantize = quantize;
    k->ternary = ternary;
    k->rmsnorm = rmsnorm;
    k->rope_neox = rope_neox;
    k->add = add;
    k->relu2_gate = relu2_gate;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->all_finite = all_finite;
    k->sum_exp = sum_exp;
    k->encode_i8 = encode_i8;
    k->decode_i8 = decode_i8;
    k->encode_i8x2 = encode_i8x2;
    k->decode_i8x2 = decode_i8x2;
    tern_kernels_init_avx2_dot(k);
    return true;
}

#else

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
