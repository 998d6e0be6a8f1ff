/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs of kernels_lanes.h for AVX-512 (F, BW, DQ, VL): sixteen lanes are one register, and tails are
 * masks.
 *
 * Empty unless the file that includes it is compiled for AVX-512.
 */
#ifndef TERN_KERNELS_AVX512_H
#define TERN_KERNELS_AVX512_H

#if defined(__AVX512F__) || defined(TERN_SIMDE)
#define TERN_HAVE_LANES

#include "kernels/exact_math_poly.h"
#include "kernels/kernels_bytes_x86.h"
#include "kernels/kernels_fold8.h"
#include "kernels/kernels_scalar.h"

/* Sixteen floats, sixteen int32, sixteen doubles; lane 0 first. */
struct v16 {
    __m512 v;
};
struct i16 {
    __m512i v;
};
struct d16 {
    __m512d lo, hi;
};

/* The first n lanes of sixteen. */
INLINE __mmask16 lanes_below(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

INLINE struct v16 set16(float f)
{
    return (struct v16){ _mm512_set1_ps(f) };
}

INLINE struct v16 load16(const float *x)
{
    return (struct v16){ _mm512_loadu_ps(x) };
}

/* At most sixteen elements, zeros behind them. */
INLINE struct v16 load16n(const float *x, size_t n)
{
    return (struct v16){ _mm512_maskz_loadu_ps(lanes_below(n), x) };
}

INLINE void store16n(float *x, struct v16 v, size_t n)
{
    _mm512_mask_storeu_ps(x, lanes_below(n), v.v);
}

INLINE struct v16 add16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_add_ps(a.v, b.v) };
}

INLINE struct v16 sub16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_sub_ps(a.v, b.v) };
}

INLINE struct v16 mul16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_mul_ps(a.v, b.v) };
}

INLINE struct v16 div16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_div_ps(a.v, b.v) };
}

/* a > b ? a : b, so b where a is NaN. */
INLINE struct v16 max16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_max_ps(a.v, b.v) };
}

INLINE struct v16 min16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm512_min_ps(a.v, b.v) };
}

/* a * b + c, one rounding. */
INLINE struct v16 fma16(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){ _mm512_fmadd_ps(a.v, b.v, c.v) };
}

/* As fma16, but lanes from n on keep c, the sign of a zero included. */
INLINE struct v16 fma16n(struct v16 a, struct v16 b, struct v16 c, size_t n)
{
    return (struct v16){ _mm512_mask_mov_ps(c.v, lanes_below(n), _mm512_fmadd_ps(a.v, b.v, c.v)) };
}

/* +0 in the lanes from n on. */
INLINE struct v16 keep16n(struct v16 a, size_t n)
{
    return (struct v16){ _mm512_maskz_mov_ps(lanes_below(n), a.v) };
}

INLINE __m256 high8(__m512 a)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
}

/* 8+8, 4+4, 2+2, 1+1. */
INLINE float fold(struct v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), high8(a.v));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

/* tern_expf. */
INLINE struct v16 exp16(struct v16 a)
{
    __m512 x = a.v, magic = _mm512_set1_ps(EXPF_MAGIC);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(EXPF_LOG2E), magic);
    __m512 n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXPF_LN2_HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXPF_LN2_LO), r);
    __m512 g = _mm512_fmadd_ps(_mm512_set1_ps(EXPF_G4), r, _mm512_set1_ps(EXPF_G3));
    g = _mm512_fmadd_ps(g, r, _mm512_set1_ps(EXPF_G2));
    g = _mm512_fmadd_ps(g, r, _mm512_set1_ps(EXPF_G1));
    g = _mm512_fmadd_ps(g, r, _mm512_set1_ps(EXPF_G0));
    __m512 y = _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(g, _mm512_mul_ps(r, r), r));
    __m512i e = _mm512_add_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(127 - EXPF_MAGIC_BITS));
    y = _mm512_mul_ps(y, _mm512_castsi512_ps(_mm512_slli_epi32(e, 23)));
    __mmask16 over = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXPF_MAX), _CMP_GT_OQ);
    __mmask16 under = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXPF_MIN), _CMP_LT_OQ);
    y = _mm512_mask_mov_ps(y, over, _mm512_set1_ps(INFINITY));
    return (struct v16){ _mm512_mask_mov_ps(y, under, _mm512_setzero_ps()) };
}

/* Pairs of lanes a, b and c, s in turn: a * c - b * s and a * s + b * c, each operation rounded. */
INLINE struct v16 turn16(struct v16 h, struct v16 cs)
{
    __m512 along = _mm512_mul_ps(h.v, _mm512_shuffle_ps(cs.v, cs.v, 0xa0));
    __m512 across = _mm512_mul_ps(_mm512_shuffle_ps(h.v, h.v, 0xb1), _mm512_shuffle_ps(cs.v, cs.v, 0xf5));
    return (struct v16){ _mm512_mask_sub_ps(_mm512_add_ps(along, across), 0x5555, along, across) };
}

/* Rounded to nearest even. */
INLINE struct i16 round16(struct v16 v)
{
    return (struct i16){ _mm512_cvtps_epi32(v.v) };
}

INLINE struct v16 floats16(struct i16 a)
{
    return (struct v16){ _mm512_cvtepi32_ps(a.v) };
}

INLINE struct i16 addi16(struct i16 a, struct i16 b)
{
    return (struct i16){ _mm512_add_epi32(a.v, b.v) };
}

INLINE int32_t sumi16(struct i16 a)
{
    __m256i b = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return _mm_cvtsi128_si32(c);
}

/* Sixteen signed bytes. */
INLINE struct i16 widen16(struct b16 q)
{
    return (struct i16){ _mm512_cvtepi8_epi32(q.v) };
}

/* The lanes, all within -128..127, as bytes. */
INLINE struct b16 narrow16(struct i16 v)
{
    return (struct b16){ _mm512_cvtepi32_epi8(v.v) };
}

/* At most sixteen bytes. */
INLINE struct b16 load_bytes_n(const void *p, size_t n)
{
    return (struct b16){ _mm_maskz_loadu_epi8(lanes_below(n), p) };
}

INLINE void store_bytes_n(void *p, struct b16 v, size_t n)
{
    _mm_mask_storeu_epi8(p, lanes_below(n), v.v);
}

INLINE struct v16 load16_f16(const void *p)
{
    return (struct v16){ _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)) };
}

INLINE struct v16 load16n_f16(const void *p, size_t n)
{
    return (struct v16){ _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_below(n), p)) };
}

INLINE void store16n_f16(uint16_t *p, struct v16 v, size_t n)
{
    _mm256_mask_storeu_epi16(p, lanes_below(n), _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE struct v16 load16_bf16(const void *p)
{
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (struct v16){ _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)) };
}

/* One half in all lanes. */
INLINE struct v16 splat_f16(const uint8_t *p)
{
    return (struct v16){ _mm512_cvtph_ps(_mm256_set1_epi16((int16_t)load_u16(p))) };
}

/* In every lane the maximum of the lanes whose number leaves the same rest by `side` (1, 2, 4, 8, 16). */
INLINE struct v16 max_across(struct v16 a, const size_t side)
{
    if (side == 16)
        return a;
    __m256 m = max8_across(_mm256_max_ps(_mm512_castps512_ps256(a.v), high8(a.v)), side);
    return (struct v16){ _mm512_insertf32x8(_mm512_castps256_ps512(m), m, 1) };
}

/* One register of the lanes: all sixteen. */
#define PARTS 1
struct part {
    __m512 v;
};

/* Keeps what was loaded in its register: gcc 12 would load it again for each use. */
#ifdef TERN_SIMDE
#define PIN_PART(p) (void)(p)
#else
#define PIN_PART(p) __asm__("" : "+v"((p).v))
#endif

INLINE struct part zero_part(void)
{
    return (struct part){ _mm512_setzero_ps() };
}

INLINE struct part load_part(const float *x)
{
    return (struct part){ _mm512_loadu_ps(x) };
}

INLINE void store_part(float *x, struct part a)
{
    _mm512_storeu_ps(x, a.v);
}

INLINE struct part load_part_f16(const uint16_t *x)
{
    return (struct part){ load16_f16(x).v };
}

INLINE struct part load_part_i8(const int8_t *x)
{
    return (struct part){ _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x))) };
}

INLINE struct part fma_part(struct part a, struct part b, struct part c)
{
    return (struct part){ _mm512_fmadd_ps(a.v, b.v, c.v) };
}

/* Eight folds: of s[0][0] .. [3] to first, of s[0][4] .. [7] to last. */
INLINE void fold8(struct part s[PARTS][8], float *first, float *last)
{
    __m256 v[8];
    for (size_t i = 0; i < 8; i++)
        v[i] = _mm256_add_ps(_mm512_castps512_ps256(s[0][i].v), high8(s[0][i].v));
    fold8_ymm(v, first, last);
}

INLINE struct d16 zero_d16(void)
{
    return (struct d16){ _mm512_setzero_pd(), _mm512_setzero_pd() };
}

INLINE struct d16 add_d16(struct d16 s, struct v16 v)
{
    return (struct d16){ _mm512_add_pd(s.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(v.v))),
                         _mm512_add_pd(s.hi, _mm512_cvtps_pd(high8(v.v))) };
}

INLINE double fold_d16(struct d16 s)
{
    __m512d a = _mm512_add_pd(s.lo, s.hi);
    __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d d = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(_mm_add_sd(d, _mm_unpackhi_pd(d, d)));
}

/* Largest absolute value as bits, at least `least`. */
INLINE uint32_t absmax16(const float *x, size_t n, uint32_t least)
{
    __m512i mask = _mm512_set1_epi32(0x7fffffff), a = _mm512_set1_epi32((int32_t)least);
    for (size_t i = 0; i < n; i += 16) {
        __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes_below(n - i), x + i));
        a = _mm512_max_epi32(a, _mm512_and_si512(mask, v));
    }
    __m256i b = _mm256_max_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(c);
}

INLINE struct i16 seti16(int32_t v)
{
    return (struct i16){ _mm512_set1_epi32(v) };
}

/* Sixteen magnitudes as bits. */
INLINE struct i16 mags16(const float *x)
{
    return (struct i16){ _mm512_and_si512(_mm512_set1_epi32(0x7fffffff), _mm512_loadu_si512(x)) };
}

/* At most sixteen, zeros behind them. */
INLINE struct i16 mags16n(const float *x, size_t n)
{
    __m512i v = _mm512_castps_si512(load16n(x, n).v);
    return (struct i16){ _mm512_and_si512(_mm512_set1_epi32(0x7fffffff), v) };
}

/* The lanes' bits, as they are. */
INLINE void storei16(float *x, struct i16 v)
{
    _mm512_storeu_si512(x, v.v);
}

INLINE struct i16 maxi16(struct i16 a, struct i16 b)
{
    return (struct i16){ _mm512_max_epi32(a.v, b.v) };
}

/* Bit j: lane j of a is at least that of b. */
INLINE uint32_t reach16(struct i16 a, struct i16 b)
{
    return _mm512_cmpge_epi32_mask(a.v, b.v);
}

/* One more in the lanes where a is at least b. */
INLINE struct i16 count_reach16(struct i16 count, struct i16 a, struct i16 b)
{
    __mmask16 m = _mm512_cmpge_epi32_mask(a.v, b.v);
    return (struct i16){ _mm512_mask_add_epi32(count.v, m, count.v, _mm512_set1_epi32(1)) };
}

/* -- dot products of int8 codes and int16 vectors -------------------------------------------------------- */

/* Columns of one step, their codes widened, and the sums of pairs of their products. */
#define DOT_COLS 32
struct shorts {
    __m512i v;
};
struct dots {
    __m512i v;
};

INLINE struct shorts widen_codes(const int8_t *p)
{
    return (struct shorts){ _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p)) };
}

INLINE struct dots dots_zero(void)
{
    return (struct dots){ _mm512_setzero_si512() };
}

INLINE struct dots dots_add(struct dots s, struct shorts w, const int16_t *x)
{
    return (struct dots){ _mm512_dpwssd_epi32(s.v, w.v, _mm512_loadu_si512((const void *)x)) };
}

INLINE int32_t dots_sum(struct dots s)
{
    return sumi16((struct i16){ s.v });
}

#endif
#endif
