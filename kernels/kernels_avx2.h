/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small verbs of the AVX2 level: loads, stores and folds over the sixteen lanes of the contract, as two registers of eight.
 *
 * Empty unless the file that includes it is compiled for AVX2.
 */
#ifndef TERN_KERNELS_AVX2_H
#define TERN_KERNELS_AVX2_H

#if defined(__AVX2__) || defined(TERN_SIMDE)

#include "kernels/exact_math_poly.h"
#include "kernels/kernels_scalar.h"

#ifndef TERN_SIMDE /* the tests can compile this level against portable C versions of the intrinsics */
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Sixteen lanes: 0..7 and 8..15. */
struct v16 {
    __m256 lo, hi;
};

/* The first n (0..8) lanes set. */
INLINE __m256i lanes_below(size_t n)
{
    static const int32_t table[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    return _mm256_loadu_si256((const __m256i *)(table + 8 - n));
}

INLINE struct v16 zero16(void)
{
    return (struct v16){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

INLINE struct v16 load16(const float *x)
{
    return (struct v16){ _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8) };
}

/* The first n (0..16) elements, zeros behind them. */
INLINE struct v16 load16_tail(const float *x, size_t n)
{
    if (n <= 8)
        return (struct v16){ _mm256_maskload_ps(x, lanes_below(n)), _mm256_setzero_ps() };
    return (struct v16){ _mm256_loadu_ps(x), _mm256_maskload_ps(x + 8, lanes_below(n - 8)) };
}

INLINE struct v16 fma16(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}

/* As fma16, but lanes from n on keep c, the sign of a zero included. */
INLINE struct v16 fma16_tail(struct v16 a, struct v16 b, struct v16 c, size_t n)
{
    struct v16 r = fma16(a, b, c);
    __m256 lo = _mm256_castsi256_ps(lanes_below(n < 8 ? n : 8));
    __m256 hi = _mm256_castsi256_ps(lanes_below(n < 8 ? 0 : n - 8));
    return (struct v16){ _mm256_blendv_ps(c.lo, r.lo, lo), _mm256_blendv_ps(c.hi, r.hi, hi) };
}

/* 8+8, 4+4, 2+2, 1+1. */
INLINE float fold(struct v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

/* Clamped to -127..127 (a NaN becomes -127, as in round_i8) and rounded to nearest even. */
INLINE __m256i round8(__m256 v)
{
    v = _mm256_max_ps(v, _mm256_set1_ps(-127.0f));
    v = _mm256_min_ps(v, _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(v);
}

/* Eight int32 within int8's range to eight bytes. */
INLINE void store_i8(int8_t *q, __m256i v, size_t n)
{
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    w = _mm_packs_epi16(w, w);
    if (n >= 8) {
        _mm_storel_epi64((__m128i *)q, w);
    } else {
        int64_t bytes = _mm_cvtsi128_si64(w);
        memcpy(q, &bytes, n);
    }
}

INLINE __m256i load_i8(const int8_t *q, size_t n)
{
    if (n >= 8)
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)q));
    int64_t bytes = 0;
    memcpy(&bytes, q, n);
    return _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes));
}

/* Up to eight floats. */
INLINE __m256 load8(const float *x, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes_below(n));
}

INLINE void store8(float *x, __m256 v, size_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, lanes_below(n), v);
}

/* tern_expf, eight at a time. */
INLINE __m256 exp8(__m256 x)
{
    __m256 magic = _mm256_set1_ps(EXPF_MAGIC);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(EXPF_LOG2E), magic);
    __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXPF_LN2_HI), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXPF_LN2_LO), r);
    __m256 g = _mm256_fmadd_ps(_mm256_set1_ps(EXPF_G4), r, _mm256_set1_ps(EXPF_G3));
    g = _mm256_fmadd_ps(g, r, _mm256_set1_ps(EXPF_G2));
    g = _mm256_fmadd_ps(g, r, _mm256_set1_ps(EXPF_G1));
    g = _mm256_fmadd_ps(g, r, _mm256_set1_ps(EXPF_G0));
    __m256 y = _mm256_add_ps(_mm256_set1_ps(1.0f), _mm256_fmadd_ps(g, _mm256_mul_ps(r, r), r));
    __m256i e = _mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(127 - EXPF_MAGIC_BITS));
    y = _mm256_mul_ps(y, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
    y = _mm256_blendv_ps(y, _mm256_set1_ps(INFINITY), _mm256_cmp_ps(x, _mm256_set1_ps(EXPF_MAX), _CMP_GT_OQ));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(EXPF_MIN), _CMP_LT_OQ), y);
}

/* Largest absolute value as bits, as absmax_bits. */
INLINE uint32_t absmax(const float *x, size_t n, uint32_t least)
{
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i a = _mm256_set1_epi32((int32_t)least), b = a;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        a = _mm256_max_epi32(a, _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(x + i))));
        b = _mm256_max_epi32(b, _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(x + i + 8))));
    }
    a = _mm256_max_epi32(a, b);
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return absmax_bits(x + i, n - i, (uint32_t)_mm_cvtsi128_si32(c));
}

#endif
#endif
