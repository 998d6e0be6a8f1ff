/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs of kernels_lanes.h for AVX2: sixteen lanes are two registers of eight.
 *
 * Empty unless the file that includes it is compiled for AVX2.
 */
#ifndef TERN_KERNELS_AVX2_H
#define TERN_KERNELS_AVX2_H

#if defined(__AVX2__) || defined(TERN_SIMDE)
#define TERN_HAVE_LANES

#include "kernels/exact_math_poly.h"
#include "kernels/kernels_bytes_x86.h"
#include "kernels/kernels_fold8.h"
#include "kernels/kernels_scalar.h"

/* Keeps a value in its register: without it gcc 12 regroups the additions of unrolled code and runs out of
 * registers. */
#ifdef TERN_SIMDE
#define PIN(v) (void)(v)
#else
#define PIN(v) __asm__("" : "+x"(v))
#endif

/* For each of the names of sums: gcc 12 keeps arrays of them in memory, so they have names of their own. */
#define EACH_8(verb)  verb(0) verb(1) verb(2) verb(3) verb(4) verb(5) verb(6) verb(7)
#define EACH_12(verb) EACH_8(verb) verb(8) verb(9) verb(10) verb(11)

/*
 * Sixteen sums of 16 bits grow by two products each, code (unsigned) times q (signed).  One statement of
 * assembly, because gcc 12 copies every sum once a step when it is two.
 */
INLINE __m256i dot_16bit(__m256i sum, __m256i code, __m256i q)
{
#ifdef TERN_SIMDE
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(code, q));
#else
    __m256i product;
    __asm__("vpmaddubsw %[q], %[code], %[product]\n\tvpaddw %[product], %[sum], %[sum]"
            : [sum] "+x"(sum), [product] "=&x"(product)
            : [code] "x"(code), [q] "x"(q));
    return sum;
#endif
}

/* Eight sums of 32 bits grow by two of the sixteen each. */
INLINE __m256i widen_16bit(__m256i sum, __m256i halves)
{
    __m256i ones = _mm256_set1_epi16(1);
    PIN(ones); /* or it takes a register from a loop of sums */
    return _mm256_add_epi32(sum, _mm256_madd_epi16(halves, ones));
}

/* Sixteen floats, sixteen int32, sixteen doubles; lane 0 first. */
struct v16 {
    __m256 lo, hi;
};
struct i16 {
    __m256i lo, hi;
};
struct d16 {
    __m256d q[4];
};

/* The first n (0..8) lanes of a register set. */
INLINE __m256i lanes_below(size_t n)
{
    static const int32_t table[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    return _mm256_loadu_si256((const __m256i *)(table + 8 - n));
}

INLINE __m256i lo_mask(size_t n)
{
    return lanes_below(n < 8 ? n : 8);
}

INLINE __m256i hi_mask(size_t n)
{
    return lanes_below(n < 8 ? 0 : n - 8);
}

INLINE struct v16 set16(float f)
{
    return (struct v16){ _mm256_set1_ps(f), _mm256_set1_ps(f) };
}

INLINE struct v16 load16(const float *x)
{
    return (struct v16){ _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8) };
}

/* At most sixteen elements, zeros behind them. */
INLINE struct v16 load16n(const float *x, size_t n)
{
    if (n >= 16)
        return load16(x);
    if (n <= 8)
        return (struct v16){ _mm256_maskload_ps(x, lanes_below(n)), _mm256_setzero_ps() };
    return (struct v16){ _mm256_loadu_ps(x), _mm256_maskload_ps(x + 8, lanes_below(n - 8)) };
}

INLINE void store16n(float *x, struct v16 v, size_t n)
{
    if (n >= 16) {
        _mm256_storeu_ps(x, v.lo);
        _mm256_storeu_ps(x + 8, v.hi);
    } else {
        _mm256_maskstore_ps(x, lo_mask(n), v.lo);
        if (n > 8)
            _mm256_maskstore_ps(x + 8, hi_mask(n), v.hi);
    }
}

INLINE struct v16 add16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) };
}

INLINE struct v16 sub16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi) };
}

INLINE struct v16 mul16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) };
}

INLINE struct v16 div16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi) };
}

/* a > b ? a : b, so b where a is NaN. */
INLINE struct v16 max16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi) };
}

INLINE struct v16 min16(struct v16 a, struct v16 b)
{
    return (struct v16){ _mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi) };
}

/* a * b + c, one rounding. */
INLINE struct v16 fma16(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}

/* As fma16, but lanes from n on keep c, the sign of a zero included. */
INLINE struct v16 fma16n(struct v16 a, struct v16 b, struct v16 c, size_t n)
{
    struct v16 r = fma16(a, b, c);
    return (struct v16){ _mm256_blendv_ps(c.lo, r.lo, _mm256_castsi256_ps(lo_mask(n))),
                         _mm256_blendv_ps(c.hi, r.hi, _mm256_castsi256_ps(hi_mask(n))) };
}

/* +0 in the lanes from n on. */
INLINE struct v16 keep16n(struct v16 a, size_t n)
{
    return (struct v16){ _mm256_and_ps(a.lo, _mm256_castsi256_ps(lo_mask(n < 16 ? n : 16))),
                         _mm256_and_ps(a.hi, _mm256_castsi256_ps(hi_mask(n < 16 ? n : 16))) };
}

/* 8+8, 4+4, 2+2, 1+1. */
INLINE float fold(struct v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

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

/* tern_expf. */
INLINE struct v16 exp16(struct v16 x)
{
    return (struct v16){ exp8(x.lo), exp8(x.hi) };
}

INLINE __m256 turn8(__m256 h, __m256 cs)
{
    __m256 across = _mm256_mul_ps(_mm256_permute_ps(h, 0xb1), _mm256_movehdup_ps(cs));
    return _mm256_addsub_ps(_mm256_mul_ps(h, _mm256_moveldup_ps(cs)), across);
}

/* Pairs of lanes a, b and c, s in turn: a * c - b * s and a * s + b * c, each operation rounded. */
INLINE struct v16 turn16(struct v16 h, struct v16 cs)
{
    return (struct v16){ turn8(h.lo, cs.lo), turn8(h.hi, cs.hi) };
}

/* Rounded to nearest even. */
INLINE struct i16 round16(struct v16 v)
{
    return (struct i16){ _mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi) };
}

INLINE struct v16 floats16(struct i16 a)
{
    return (struct v16){ _mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi) };
}

INLINE struct i16 addi16(struct i16 a, struct i16 b)
{
    return (struct i16){ _mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi) };
}

INLINE int32_t sumi16(struct i16 a)
{
    __m256i b = _mm256_add_epi32(a.lo, a.hi);
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return _mm_cvtsi128_si32(c);
}

/* Sixteen signed bytes. */
INLINE struct i16 widen16(struct b16 q)
{
    return (struct i16){ _mm256_cvtepi8_epi32(q.v), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q.v, q.v)) };
}

/* The lanes, all within -128..127, as bytes. */
INLINE struct b16 narrow16(struct i16 v)
{
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xd8);
    return (struct b16){ _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)) };
}

/* At most sixteen bytes or halves; there are no masked forms below 32 bits here. */
INLINE struct b16 load_bytes_n(const void *p, size_t n)
{
    uint8_t b[16] = { 0 };
    if (n >= 16)
        return load_bytes(p);
    memcpy(b, p, n);
    return load_bytes(b);
}

INLINE void store_bytes_n(void *p, struct b16 v, size_t n)
{
    uint8_t b[16];
    if (n >= 16) {
        _mm_storeu_si128((__m128i *)p, v.v);
    } else {
        _mm_storeu_si128((__m128i *)(void *)b, v.v);
        memcpy(p, b, n);
    }
}

INLINE struct v16 load16_f16(const void *p)
{
    const __m128i *h = p;
    return (struct v16){ _mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)) };
}

INLINE struct v16 load16n_f16(const void *p, size_t n)
{
    uint16_t h[16] = { 0 };
    if (n >= 16)
        return load16_f16(p);
    memcpy(h, p, n * sizeof h[0]);
    return load16_f16(h);
}

INLINE void store16n_f16(uint16_t *p, struct v16 v, size_t n)
{
    struct b16 lo = { _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT) };
    struct b16 hi = { _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT) };
    store_bytes_n(p, lo, n < 8 ? 2 * n : 16);
    if (n > 8)
        store_bytes_n(p + 8, hi, 2 * (n - 8));
}

INLINE struct v16 load16_bf16(const void *p)
{
    const __m128i *h = p;
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)),
            hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (struct v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                         _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
}

/* One half in all lanes. */
INLINE struct v16 splat_f16(const uint8_t *p)
{
    __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((int16_t)load_u16(p)));
    return (struct v16){ d, d };
}

/* In every lane the maximum of the lanes whose number leaves the same rest by `side` (1, 2, 4, 8, 16). */
INLINE struct v16 max_across(struct v16 a, const size_t side)
{
    if (side == 16)
        return a;
    __m256 m = max8_across(_mm256_max_ps(a.lo, a.hi), side);
    return (struct v16){ m, m };
}

/* One register of the lanes: sixteen are PARTS of them, lane 0 in the first. */
#define PARTS 2
struct part {
    __m256 v;
};

/* Keeps what was loaded in its register: gcc 12 would load it again for each use. */
#define PIN_PART(p) PIN((p).v)

INLINE struct part zero_part(void)
{
    return (struct part){ _mm256_setzero_ps() };
}

INLINE struct part load_part(const float *x)
{
    return (struct part){ _mm256_loadu_ps(x) };
}

INLINE void store_part(float *x, struct part a)
{
    _mm256_storeu_ps(x, a.v);
}

INLINE struct part load_part_f16(const uint16_t *x)
{
    return (struct part){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x)) };
}

INLINE struct part load_part_i8(const int8_t *x)
{
    __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)x);
    return (struct part){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)) };
}

INLINE struct part fma_part(struct part a, struct part b, struct part c)
{
    return (struct part){ _mm256_fmadd_ps(a.v, b.v, c.v) };
}

/* Eight folds: of s[0..PARTS)[0] .. [3] to first, of s[..][4] .. [7] to last. */
INLINE void fold8(struct part s[PARTS][8], float *first, float *last)
{
    __m256 v[8];
    for (size_t i = 0; i < 8; i++)
        v[i] = _mm256_add_ps(s[0][i].v, s[1][i].v);
    fold8_ymm(v, first, last);
}

INLINE struct d16 zero_d16(void)
{
    __m256d z = _mm256_setzero_pd();
    return (struct d16){ { z, z, z, z } };
}

INLINE struct d16 add_d16(struct d16 s, struct v16 v)
{
    s.q[0] = _mm256_add_pd(s.q[0], _mm256_cvtps_pd(_mm256_castps256_ps128(v.lo)));
    s.q[1] = _mm256_add_pd(s.q[1], _mm256_cvtps_pd(_mm256_extractf128_ps(v.lo, 1)));
    s.q[2] = _mm256_add_pd(s.q[2], _mm256_cvtps_pd(_mm256_castps256_ps128(v.hi)));
    s.q[3] = _mm256_add_pd(s.q[3], _mm256_cvtps_pd(_mm256_extractf128_ps(v.hi, 1)));
    return s;
}

INLINE double fold_d16(struct d16 s)
{
    __m256d a = _mm256_add_pd(_mm256_add_pd(s.q[0], s.q[2]), _mm256_add_pd(s.q[1], s.q[3]));
    __m128d d = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(d, _mm_unpackhi_pd(d, d)));
}

/* Largest absolute value as bits, at least `least`. */
INLINE uint32_t absmax16(const float *x, size_t n, uint32_t least)
{
    __m256i mask = _mm256_set1_epi32(0x7fffffff), a = _mm256_set1_epi32((int32_t)least), b = a;
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

INLINE struct i16 seti16(int32_t v)
{
    return (struct i16){ _mm256_set1_epi32(v), _mm256_set1_epi32(v) };
}

/* Sixteen magnitudes as bits. */
INLINE struct i16 mags16(const float *x)
{
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return (struct i16){ _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)x)),
                         _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(x + 8))) };
}

/* At most sixteen, zeros behind them. */
INLINE struct i16 mags16n(const float *x, size_t n)
{
    struct v16 v = load16n(x, n);
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return (struct i16){ _mm256_and_si256(mask, _mm256_castps_si256(v.lo)),
                         _mm256_and_si256(mask, _mm256_castps_si256(v.hi)) };
}

/* The lanes' bits, as they are. */
INLINE void storei16(float *x, struct i16 v)
{
    _mm256_storeu_si256((__m256i *)x, v.lo);
    _mm256_storeu_si256((__m256i *)(x + 8), v.hi);
}

INLINE struct i16 maxi16(struct i16 a, struct i16 b)
{
    return (struct i16){ _mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi) };
}

/* Bit j: lane j of a is at least that of b. */
INLINE uint32_t reach16(struct i16 a, struct i16 b)
{
    int lo = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.lo, a.lo)));
    int hi = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.hi, a.hi)));
    return ~(uint32_t)(lo | hi << 8) & 0xffffu;
}

/* One more in the lanes where a is at least b. */
INLINE struct i16 count_reach16(struct i16 count, struct i16 a, struct i16 b)
{
    __m256i one = _mm256_set1_epi32(1);
    return (struct i16){ _mm256_add_epi32(count.lo, _mm256_add_epi32(one, _mm256_cmpgt_epi32(b.lo, a.lo))),
                         _mm256_add_epi32(count.hi, _mm256_add_epi32(one, _mm256_cmpgt_epi32(b.hi, a.hi))) };
}

/* -- dot products of int8 codes and int16 vectors -------------------------------------------------------- */

/* Columns of one step, their codes widened, and the sums of pairs of their products. */
#define DOT_COLS 16
struct shorts {
    __m256i v;
};
struct dots {
    __m256i v;
};

INLINE struct shorts widen_codes(const int8_t *p)
{
    return (struct shorts){ _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p)) };
}

INLINE struct dots dots_zero(void)
{
    return (struct dots){ _mm256_setzero_si256() };
}

INLINE struct dots dots_add(struct dots s, struct shorts w, const int16_t *x)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return (struct dots){ _mm256_add_epi32(s.v, _mm256_madd_epi16(w.v, v)) };
}

INLINE int32_t dots_sum(struct dots s)
{
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(s.v), _mm256_extracti128_si256(s.v, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1));
    return _mm_cvtsi128_si32(c);
}

#endif
#endif
