/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs of kernels_lanes.h for ARM's AdvSIMD (NEON): sixteen lanes are four registers of four.
 *
 * Everything here is ARMv8.0-A, so the levels above NEON use it too.  Empty on other machines.
 */
#ifndef TERN_KERNELS_NEON_H
#define TERN_KERNELS_NEON_H

#if defined(__aarch64__) && defined(__ARM_NEON)
#define TERN_HAVE_LANES

#include "kernels/exact_math_poly.h"
#include "kernels/kernels_scalar.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

/* Unrolls a loop over registers in full, at any level of optimisation: gcc 12 keeps an array in memory for a
 * single index it does not know. */
#define UNROLL _Pragma("GCC unroll 32")

/* Sixteen floats, sixteen int32, sixteen doubles, sixteen bytes; lane 0 first. */
struct v16 {
    float32x4_t a, b, c, d;
};
struct i16 {
    int32x4_t a, b, c, d;
};
struct d16 {
    float64x2_t q[8];
};
struct b16 {
    uint8x16_t v;
};

/* -- floats ---------------------------------------------------------------------------------------------- */

INLINE struct v16 set16(float f)
{
    float32x4_t v = vdupq_n_f32(f);
    return (struct v16){ v, v, v, v };
}

INLINE struct v16 load16(const float *x)
{
    return (struct v16){ vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12) };
}

/* Elements [i, i + 4) of n, zeros behind them. */
INLINE float32x4_t load4n(const float *x, size_t i, size_t n)
{
    float32x4_t v = vdupq_n_f32(0.0f);
    if (i + 4 <= n)
        return vld1q_f32(x + i);
    if (i < n)
        v = vld1q_lane_f32(x + i, v, 0);
    if (i + 1 < n)
        v = vld1q_lane_f32(x + i + 1, v, 1);
    if (i + 2 < n)
        v = vld1q_lane_f32(x + i + 2, v, 2);
    return v;
}

/* At most sixteen elements, zeros behind them. */
INLINE struct v16 load16n(const float *x, size_t n)
{
    if (n >= 16)
        return load16(x);
    return (struct v16){ load4n(x, 0, n), load4n(x, 4, n), load4n(x, 8, n), load4n(x, 12, n) };
}

INLINE void store4n(float *x, float32x4_t v, size_t i, size_t n)
{
    if (i + 4 <= n) {
        vst1q_f32(x + i, v);
        return;
    }
    if (i < n)
        vst1q_lane_f32(x + i, v, 0);
    if (i + 1 < n)
        vst1q_lane_f32(x + i + 1, v, 1);
    if (i + 2 < n)
        vst1q_lane_f32(x + i + 2, v, 2);
}

INLINE void store16n(float *x, struct v16 v, size_t n)
{
    if (n >= 16) {
        vst1q_f32(x, v.a);
        vst1q_f32(x + 4, v.b);
        vst1q_f32(x + 8, v.c);
        vst1q_f32(x + 12, v.d);
    } else {
        store4n(x, v.a, 0, n);
        store4n(x, v.b, 4, n);
        store4n(x, v.c, 8, n);
        store4n(x, v.d, 12, n);
    }
}

INLINE struct v16 add16(struct v16 x, struct v16 y)
{
    return (struct v16){ vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d) };
}

INLINE struct v16 sub16(struct v16 x, struct v16 y)
{
    return (struct v16){ vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d) };
}

INLINE struct v16 mul16(struct v16 x, struct v16 y)
{
    return (struct v16){ vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d) };
}

INLINE struct v16 div16(struct v16 x, struct v16 y)
{
    return (struct v16){ vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d) };
}

/* FMAX and FMIN return NaNs and order zeros; the contract wants a comparison. */
INLINE float32x4_t max4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}

INLINE float32x4_t min4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(x, y), x, y);
}

/* x > y ? x : y, so y where x is NaN. */
INLINE struct v16 max16(struct v16 x, struct v16 y)
{
    return (struct v16){ max4(x.a, y.a), max4(x.b, y.b), max4(x.c, y.c), max4(x.d, y.d) };
}

INLINE struct v16 min16(struct v16 x, struct v16 y)
{
    return (struct v16){ min4(x.a, y.a), min4(x.b, y.b), min4(x.c, y.c), min4(x.d, y.d) };
}

/* x * y + z, one rounding. */
INLINE struct v16 fma16(struct v16 x, struct v16 y, struct v16 z)
{
    return (struct v16){ vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                         vfmaq_f32(z.d, x.d, y.d) };
}

/* x in the first n lanes, y behind them. */
INLINE struct v16 first16n(struct v16 x, struct v16 y, size_t n)
{
    static const uint32_t table[32] = { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
                                        ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u };
    const uint32_t *m = table + 16 - (n < 16 ? n : 16);
    return (struct v16){ vbslq_f32(vld1q_u32(m), x.a, y.a), vbslq_f32(vld1q_u32(m + 4), x.b, y.b),
                         vbslq_f32(vld1q_u32(m + 8), x.c, y.c), vbslq_f32(vld1q_u32(m + 12), x.d, y.d) };
}

/* As fma16, but lanes from n on keep z, the sign of a zero included. */
INLINE struct v16 fma16n(struct v16 x, struct v16 y, struct v16 z, size_t n)
{
    return first16n(fma16(x, y, z), z, n);
}

/* +0 in the lanes from n on. */
INLINE struct v16 keep16n(struct v16 x, size_t n)
{
    return n < 16 ? first16n(x, set16(0.0f), n) : x;
}

/* 8+8, 4+4, 2+2, 1+1. */
INLINE float fold(struct v16 x)
{
    float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float32x4_t exp4(float32x4_t x)
{
    float32x4_t magic = vdupq_n_f32(EXPF_MAGIC);
    float32x4_t t = vfmaq_f32(magic, x, vdupq_n_f32(EXPF_LOG2E));
    float32x4_t n = vsubq_f32(t, magic);
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(EXPF_LN2_HI));
    r = vfmsq_f32(r, n, vdupq_n_f32(EXPF_LN2_LO));
    float32x4_t g = vfmaq_f32(vdupq_n_f32(EXPF_G3), vdupq_n_f32(EXPF_G4), r);
    g = vfmaq_f32(vdupq_n_f32(EXPF_G2), g, r);
    g = vfmaq_f32(vdupq_n_f32(EXPF_G1), g, r);
    g = vfmaq_f32(vdupq_n_f32(EXPF_G0), g, r);
    float32x4_t y = vaddq_f32(vdupq_n_f32(1.0f), vfmaq_f32(r, g, vmulq_f32(r, r)));
    int32x4_t e = vaddq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(127 - EXPF_MAGIC_BITS));
    y = vmulq_f32(y, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)));
    y = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(EXPF_MAX)), vdupq_n_f32(INFINITY), y);
    return vbslq_f32(vcltq_f32(x, vdupq_n_f32(EXPF_MIN)), vdupq_n_f32(0.0f), y);
}

/* tern_expf. */
INLINE struct v16 exp16(struct v16 x)
{
    return (struct v16){ exp4(x.a), exp4(x.b), exp4(x.c), exp4(x.d) };
}

INLINE float32x4_t turn4(float32x4_t h, float32x4_t cs)
{
    const uint32x4_t odd = { 0, ~0u, 0, ~0u };
    float32x4_t along = vmulq_f32(h, vtrn1q_f32(cs, cs));
    float32x4_t across = vmulq_f32(vrev64q_f32(h), vtrn2q_f32(cs, cs));
    return vbslq_f32(odd, vaddq_f32(along, across), vsubq_f32(along, across));
}

/* Pairs of lanes a, b and c, s in turn: a * c - b * s and a * s + b * c, each operation rounded. */
INLINE struct v16 turn16(struct v16 x, struct v16 cs)
{
    return (struct v16){ turn4(x.a, cs.a), turn4(x.b, cs.b), turn4(x.c, cs.c), turn4(x.d, cs.d) };
}

/* In every lane the maximum of the lanes whose number leaves the same rest by `side` (1, 2, 4, 8, 16). */
INLINE struct v16 max_across(struct v16 x, const size_t side)
{
    if (side == 16)
        return x;
    float32x4_t even = max4(x.a, x.c), odd = max4(x.b, x.d);
    if (side == 8)
        return (struct v16){ even, odd, even, odd };
    float32x4_t m = max4(even, odd);
    if (side <= 2)
        m = max4(m, vextq_f32(m, m, 2));
    if (side <= 1)
        m = max4(m, vextq_f32(m, m, 1));
    return (struct v16){ m, m, m, m };
}

/* -- one register of the lanes: sixteen are PARTS of them, lane 0 in the first --------------------------- */

#define PARTS 4
struct part {
    float32x4_t v;
};

/* Keeps a value in its register; gcc 12 may regroup additions or load it again for each use otherwise. */
#define PIN(v)      __asm__("" : "+w"(v))
#define PIN_PART(p) PIN((p).v)

INLINE struct part zero_part(void)
{
    return (struct part){ vdupq_n_f32(0.0f) };
}

INLINE struct part load_part(const float *x)
{
    return (struct part){ vld1q_f32(x) };
}

INLINE void store_part(float *x, struct part a)
{
    vst1q_f32(x, a.v);
}

INLINE struct part load_part_f16(const uint16_t *x)
{
    return (struct part){ vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))) };
}

INLINE struct part load_part_i8(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    int8x8_t q = vreinterpret_s8_s32(vdup_n_s32(four));
    return (struct part){ vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(q)))) };
}

INLINE struct part fma_part(struct part a, struct part b, struct part c)
{
    return (struct part){ vfmaq_f32(c.v, a.v, b.v) };
}

/* The folds of four times four lanes, 2+2 and 1+1. */
INLINE float32x4_t fold4(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
    float64x2_t e = vreinterpretq_f64_f32(a), f = vreinterpretq_f64_f32(b);
    float64x2_t g = vreinterpretq_f64_f32(c), h = vreinterpretq_f64_f32(d);
    float32x4_t first =
        vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(e, f)), vreinterpretq_f32_f64(vzip2q_f64(e, f)));
    float32x4_t last =
        vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(g, h)), vreinterpretq_f32_f64(vzip2q_f64(g, h)));
    return vpaddq_f32(first, last);
}

/* Eight folds: of s[0..PARTS)[0] .. [3] to first, of s[..][4] .. [7] to last. */
INLINE void fold8(struct part s[PARTS][8], float *first, float *last)
{
    float32x4_t v[8];
    for (size_t i = 0; i < 8; i++)
        v[i] = vaddq_f32(vaddq_f32(s[0][i].v, s[2][i].v), vaddq_f32(s[1][i].v, s[3][i].v));
    vst1q_f32(first, fold4(v[0], v[1], v[2], v[3]));
    vst1q_f32(last, fold4(v[4], v[5], v[6], v[7]));
}

/* -- magnitudes ------------------------------------------------------------------------------------------ */

/* Largest absolute value as bits, at least `least`. */
INLINE uint32_t absmax16(const float *x, size_t n, uint32_t least)
{
    uint32x4_t mask = vdupq_n_u32(0x7fffffffu), a = vdupq_n_u32(least), b = a;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        a = vmaxq_u32(a, vandq_u32(mask, vreinterpretq_u32_f32(vld1q_f32(x + i))));
        b = vmaxq_u32(b, vandq_u32(mask, vreinterpretq_u32_f32(vld1q_f32(x + i + 4))));
    }
    return absmax_bits(x + i, n - i, vmaxvq_u32(vmaxq_u32(a, b)));
}

/* -- integers -------------------------------------------------------------------------------------------- */

/* Rounded to nearest even. */
INLINE struct i16 round16(struct v16 v)
{
    return (struct i16){ vcvtnq_s32_f32(v.a), vcvtnq_s32_f32(v.b), vcvtnq_s32_f32(v.c), vcvtnq_s32_f32(v.d) };
}

INLINE struct v16 floats16(struct i16 x)
{
    return (struct v16){ vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d) };
}

INLINE struct i16 addi16(struct i16 x, struct i16 y)
{
    return (struct i16){ vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d) };
}

INLINE int32_t sumi16(struct i16 x)
{
    return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)));
}

INLINE struct i16 seti16(int32_t v)
{
    int32x4_t x = vdupq_n_s32(v);
    return (struct i16){ x, x, x, x };
}

INLINE int32x4_t mags4(float32x4_t x)
{
    return vreinterpretq_s32_f32(vabsq_f32(x));
}

/* Sixteen magnitudes as bits. */
INLINE struct i16 mags16(const float *x)
{
    struct v16 v = load16(x);
    return (struct i16){ mags4(v.a), mags4(v.b), mags4(v.c), mags4(v.d) };
}

/* At most sixteen, zeros behind them. */
INLINE struct i16 mags16n(const float *x, size_t n)
{
    struct v16 v = load16n(x, n);
    return (struct i16){ mags4(v.a), mags4(v.b), mags4(v.c), mags4(v.d) };
}

/* The lanes' bits, as they are. */
INLINE void storei16(float *x, struct i16 v)
{
    vst1q_f32(x, vreinterpretq_f32_s32(v.a));
    vst1q_f32(x + 4, vreinterpretq_f32_s32(v.b));
    vst1q_f32(x + 8, vreinterpretq_f32_s32(v.c));
    vst1q_f32(x + 12, vreinterpretq_f32_s32(v.d));
}

INLINE struct i16 maxi16(struct i16 x, struct i16 y)
{
    return (struct i16){ vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c), vmaxq_s32(x.d, y.d) };
}

/* Bit j: lane j of x is at least that of y. */
INLINE uint32_t reach16(struct i16 x, struct i16 y)
{
    static const uint16_t bits[8] = { 1, 2, 4, 8, 16, 32, 64, 128 };
    uint16x8_t bit = vld1q_u16(bits);
    uint16x8_t lo = vcombine_u16(vmovn_u32(vcgeq_s32(x.a, y.a)), vmovn_u32(vcgeq_s32(x.b, y.b)));
    uint16x8_t hi = vcombine_u16(vmovn_u32(vcgeq_s32(x.c, y.c)), vmovn_u32(vcgeq_s32(x.d, y.d)));
    return vaddvq_u16(vandq_u16(lo, bit)) | (uint32_t)vaddvq_u16(vandq_u16(hi, bit)) << 8;
}

INLINE int32x4_t count_reach4(int32x4_t count, int32x4_t x, int32x4_t y)
{
    return vsubq_s32(count, vreinterpretq_s32_u32(vcgeq_s32(x, y)));
}

/* One more in the lanes where x is at least y. */
INLINE struct i16 count_reach16(struct i16 count, struct i16 x, struct i16 y)
{
    return (struct i16){ count_reach4(count.a, x.a, y.a), count_reach4(count.b, x.b, y.b),
                         count_reach4(count.c, x.c, y.c), count_reach4(count.d, x.d, y.d) };
}

/* Sixteen signed bytes. */
INLINE struct i16 widen16(struct b16 q)
{
    int8x16_t s = vreinterpretq_s8_u8(q.v);
    int16x8_t lo = vmovl_s8(vget_low_s8(s)), hi = vmovl_high_s8(s);
    return (struct i16){ vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo), vmovl_s16(vget_low_s16(hi)),
                         vmovl_high_s16(hi) };
}

/* The lanes, all within -128..127, as bytes: the lowest one of each. */
INLINE struct b16 narrow16(struct i16 v)
{
    int16x8_t lo = vuzp1q_s16(vreinterpretq_s16_s32(v.a), vreinterpretq_s16_s32(v.b));
    int16x8_t hi = vuzp1q_s16(vreinterpretq_s16_s32(v.c), vreinterpretq_s16_s32(v.d));
    return (struct b16){ vuzp1q_u8(vreinterpretq_u8_s16(lo), vreinterpretq_u8_s16(hi)) };
}

/* -- dot products of int8 codes and int16 vectors -------------------------------------------------------- */

/* Columns of one step, their codes widened, and sums of their products. */
#define DOT_COLS 16
struct shorts {
    int16x8_t lo, hi;
};
struct dots {
    int32x4_t lo, hi;
};

INLINE struct shorts widen_codes(const int8_t *p)
{
    int8x16_t q = vld1q_s8(p);
    return (struct shorts){ vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q) };
}

INLINE struct dots dots_zero(void)
{
    return (struct dots){ vdupq_n_s32(0), vdupq_n_s32(0) };
}

INLINE struct dots dots_add(struct dots s, struct shorts w, const int16_t *x)
{
    int16x8_t lo = vld1q_s16(x), hi = vld1q_s16(x + 8);
    s.lo = vmlal_high_s16(vmlal_s16(s.lo, vget_low_s16(w.lo), vget_low_s16(lo)), w.lo, lo);
    s.hi = vmlal_high_s16(vmlal_s16(s.hi, vget_low_s16(w.hi), vget_low_s16(hi)), w.hi, hi);
    return s;
}

INLINE int32_t dots_sum(struct dots s)
{
    return vaddvq_s32(vaddq_s32(s.lo, s.hi));
}

/* -- bytes ----------------------------------------------------------------------------------------------- */

INLINE struct b16 load_bytes(const void *p)
{
    return (struct b16){ vld1q_u8(p) };
}

/* At most sixteen bytes. */
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
        vst1q_u8(p, v.v);
    } else {
        vst1q_u8(b, v.v);
        memcpy(p, b, n);
    }
}

INLINE struct b16 set_bytes(uint8_t b)
{
    return (struct b16){ vdupq_n_u8(b) };
}

INLINE struct b16 or_bytes(struct b16 x, struct b16 y)
{
    return (struct b16){ vorrq_u8(x.v, y.v) };
}

/* Modulo 256. */
INLINE struct b16 sub_bytes(struct b16 x, struct b16 y)
{
    return (struct b16){ vsubq_u8(x.v, y.v) };
}

/* Bits [shift, shift + width) of each byte. */
INLINE struct b16 bits_of(struct b16 x, unsigned shift, unsigned width)
{
    uint8x16_t down = vshlq_u8(x.v, vdupq_n_s8((int8_t) - (int)shift));
    return (struct b16){ vandq_u8(down, vdupq_n_u8((uint8_t)((1u << width) - 1))) };
}

/* Bytes below 16, times 16. */
INLINE struct b16 to_high_nibbles(struct b16 x)
{
    return (struct b16){ vshlq_n_u8(x.v, 4) };
}

/* -- halves ---------------------------------------------------------------------------------------------- */

INLINE struct v16 load16_f16(const void *p)
{
    float16x8_t lo = vreinterpretq_f16_u8(vld1q_u8(p));
    float16x8_t hi = vreinterpretq_f16_u8(vld1q_u8((const uint8_t *)p + 16));
    return (struct v16){ vcvt_f32_f16(vget_low_f16(lo)), vcvt_high_f32_f16(lo),
                         vcvt_f32_f16(vget_low_f16(hi)), vcvt_high_f32_f16(hi) };
}

INLINE struct v16 load16n_f16(const void *p, size_t n)
{
    uint16_t h[16] = { 0 };
    if (n >= 16)
        return load16_f16(p);
    memcpy(h, p, n * sizeof h[0]);
    return load16_f16(h);
}

INLINE void store16n_f16(uint16_t *y, struct v16 v, size_t n)
{
    uint8_t *p = (uint8_t *)y;
    struct b16 lo = { vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.a), v.b)) };
    struct b16 hi = { vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.c), v.d)) };
    store_bytes_n(p, lo, n < 8 ? 2 * n : 16);
    if (n > 8)
        store_bytes_n(p + 16, hi, n < 16 ? 2 * (n - 8) : 16);
}

INLINE struct v16 load16_bf16(const void *p)
{
    uint16x8_t lo = vreinterpretq_u16_u8(vld1q_u8(p));
    uint16x8_t hi = vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)p + 16));
    return (struct v16){ vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(lo), 16)),
                         vreinterpretq_f32_u32(vshll_high_n_u16(lo, 16)),
                         vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(hi), 16)),
                         vreinterpretq_f32_u32(vshll_high_n_u16(hi, 16)) };
}

/* One half in all lanes. */
INLINE struct v16 splat_f16(const uint8_t *p)
{
    float32x4_t v = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(load_u16(p))));
    return (struct v16){ v, v, v, v };
}

/* -- doubles --------------------------------------------------------------------------------------------- */

INLINE struct d16 zero_d16(void)
{
    float64x2_t z = vdupq_n_f64(0.0);
    return (struct d16){ { z, z, z, z, z, z, z, z } };
}

INLINE struct d16 add_d16(struct d16 s, struct v16 v)
{
    s.q[0] = vaddq_f64(s.q[0], vcvt_f64_f32(vget_low_f32(v.a)));
    s.q[1] = vaddq_f64(s.q[1], vcvt_high_f64_f32(v.a));
    s.q[2] = vaddq_f64(s.q[2], vcvt_f64_f32(vget_low_f32(v.b)));
    s.q[3] = vaddq_f64(s.q[3], vcvt_high_f64_f32(v.b));
    s.q[4] = vaddq_f64(s.q[4], vcvt_f64_f32(vget_low_f32(v.c)));
    s.q[5] = vaddq_f64(s.q[5], vcvt_high_f64_f32(v.c));
    s.q[6] = vaddq_f64(s.q[6], vcvt_f64_f32(vget_low_f32(v.d)));
    s.q[7] = vaddq_f64(s.q[7], vcvt_high_f64_f32(v.d));
    return s;
}

INLINE double fold_d16(struct d16 s)
{
    float64x2_t a = vaddq_f64(vaddq_f64(s.q[0], s.q[4]), vaddq_f64(s.q[2], s.q[6]));
    float64x2_t b = vaddq_f64(vaddq_f64(s.q[1], s.q[5]), vaddq_f64(s.q[3], s.q[7]));
    float64x2_t d = vaddq_f64(a, b);
    return vgetq_lane_f64(d, 0) + vgetq_lane_f64(d, 1);
}

#endif
#endif
