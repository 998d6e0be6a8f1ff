/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-element pieces that the reference defines and the vector levels repeat for their tails.
 *
 * Static inline on purpose: every level file compiles its own copy with its own instruction set, and no
 * symbol of a higher level can be picked by the linker for a lower one.
 */
#ifndef TERN_KERNELS_SCALAR_H
#define TERN_KERNELS_SCALAR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TERN_LANES 16

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t load_u16(const void *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* 8+8, 4+4, 2+2, 1+1. */
static inline float fold16(float lane[TERN_LANES])
{
    for (size_t half = TERN_LANES / 2; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    }
    return lane[0];
}

static inline double fold16_f64(double lane[TERN_LANES])
{
    for (size_t half = TERN_LANES / 2; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    }
    return lane[0];
}

/* Clamped to -127..127 and rounded to nearest even by the addition of 1.5 * 2^23.  The comparisons are
 * written so that a NaN becomes -127, as maxps and minps do. */
static inline int8_t round_i8(float v)
{
    v = v > -127.0f ? v : -127.0f;
    v = v < 127.0f ? v : 127.0f;
    return (int8_t)((v + 12582912.0f) - 12582912.0f);
}

/* Round to nearest even; NaNs become quiet and keep the upper payload bits. */
static inline uint16_t f16_from_f32(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((u >> 13) & 0x3ffu));
    if (u >= 0x477ff000u) /* 65520 and above */
        return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) {
        /* Below 2^-14: adding 0.5 puts the last kept bit, 2^-24, into the last place of the sum. */
        uint32_t m = f32_bits(f32_from_bits(u) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | m);
    }
    u += 0xfffu + ((u >> 13) & 1u);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

static inline float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t e = h & 0x7c00u, m = h & 0x3ffu;
    if (e == 0x7c00u)
        return f32_from_bits(sign | 0x7f800000u | (m ? 0x400000u : 0u) | m << 13);
    if (e == 0)
        return f32_from_bits(sign | f32_bits((float)m * 0x1p-24f));
    return f32_from_bits(sign | (((uint32_t)(h & 0x7fffu) << 13) + 0x38000000u));
}

static inline float f32_from_bf16(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* Largest absolute value as an integer maximum of bits: NaN and infinity come out as themselves. */
static inline uint32_t absmax_bits(const float *x, size_t n, uint32_t mx)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = f32_bits(x[i]) & 0x7fffffffu;
        mx = u > mx ? u : mx;
    }
    return mx;
}

/* The places of the k elements of largest magnitude, ascending; of equal ones the first.  A radix selection
 * from the top: it stops as soon as the bits looked at tell the k-th from the next. */
static inline void largest_scalar(const float *x, size_t n, size_t k, uint16_t *places)
{
    static const int shifts[] = { 23, 15, 7, 0 };
    uint32_t mask = 0, prefix = 0;
    size_t need = k, at = 0;

    for (int pass = 0; pass < 4; pass++) {
        int shift = shifts[pass];
        uint32_t digits = 0xffu << shift & 0x7fffffffu & ~mask;
        uint32_t histogram[256] = { 0 };
        uint32_t d = 255;

        for (size_t i = 0; i < n; i++)
            if ((f32_bits(x[i]) & mask) == prefix)
                histogram[(f32_bits(x[i]) & digits) >> shift]++;
        while (histogram[d] < need)
            need -= histogram[d--];
        mask |= digits;
        prefix |= d << shift;
        if (histogram[d] == need)
            break;
    }
    for (size_t i = 0; i < n && at < k; i++) {
        uint32_t m = f32_bits(x[i]) & mask;

        if (m > prefix || (m == prefix && need > 0)) {
            need -= m == prefix;
            places[at++] = (uint16_t)i;
        }
    }
}

#endif
