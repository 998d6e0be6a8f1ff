/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intrinsics of the vector levels as portable C, so that their logic is tested on CPUs that lack them.
 *
 * SIMDe (Debian: libsimde-dev) supplies most.  Supplied here: what its version 0.7.4 lacks, masked loads and
 * stores that touch nothing outside their mask, and fused multiply-add with one rounding (SIMDe multiplies
 * and adds).  Included on the command line in front of a level file, with TERN_SIMDE defined.
 */
#ifndef TERN_TESTS_KERNELS_SIMDE_SHIM_H
#define TERN_TESTS_KERNELS_SIMDE_SHIM_H

#if defined(TERN_SIMDE) && __has_include(<simde/x86/avx512.h>)

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include "kernels/kernels_scalar.h"

#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

typedef uint16_t __mmask16;

#define SHIM static inline __attribute__((always_inline, unused))

/* Opens a vector into an array and closes it again. */
#define OPEN(type, array, vector)                                                                            \
    type array[sizeof(vector) / sizeof(type)];                                                               \
    memcpy(array, &(vector), sizeof(vector))
#define CLOSE(vector_type, array)                                                                            \
    vector_type closed;                                                                                      \
    memcpy(&closed, array, sizeof closed);                                                                   \
    return closed

#define SHIM_FMA(name, vector, sign)                                                                         \
    SHIM vector shim_##name(vector a, vector b, vector c)                                                    \
    {                                                                                                        \
        OPEN(float, x, a);                                                                                   \
        OPEN(float, y, b);                                                                                   \
        OPEN(float, z, c);                                                                                   \
        for (size_t i = 0; i < sizeof(vector) / sizeof(float); i++)                                          \
            z[i] = fmaf(sign x[i], y[i], z[i]);                                                              \
        CLOSE(vector, z);                                                                                    \
    }
SHIM_FMA(fmadd512, __m512, +)
SHIM_FMA(fnmadd512, __m512, -)
SHIM_FMA(fmadd256, __m256, +)
SHIM_FMA(fnmadd256, __m256, -)
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#define _mm512_fmadd_ps  shim_fmadd512
#define _mm512_fnmadd_ps shim_fnmadd512
#define _mm256_fmadd_ps  shim_fmadd256
#define _mm256_fnmadd_ps shim_fnmadd256

/* Masked loads: zeros where the mask is clear. */
#define SHIM_LOAD(name, vector, element, count)                                                              \
    SHIM vector shim_##name(uint32_t mask, const void *p)                                                    \
    {                                                                                                        \
        element x[count] = { 0 };                                                                            \
        for (size_t i = 0; i < count; i++) {                                                                 \
            if (mask >> i & 1)                                                                               \
                memcpy(&x[i], (const element *)p + i, sizeof x[i]);                                          \
        }                                                                                                    \
        CLOSE(vector, x);                                                                                    \
    }
SHIM_LOAD(load_ps, __m512, float, 16)
SHIM_LOAD(load_epi16, __m256i, uint16_t, 16)
SHIM_LOAD(load_epi8, __m128i, uint8_t, 16)
#define _mm512_maskz_loadu_ps    shim_load_ps
#define _mm256_maskz_loadu_epi16 shim_load_epi16
#define _mm_maskz_loadu_epi8     shim_load_epi8

/* The sign bits of a vector's 32-bit lanes. */
SHIM uint32_t shim_signs(__m256i mask)
{
    OPEN(int32_t, m, mask);
    uint32_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits |= (uint32_t)(m[i] < 0) << i;
    return bits;
}
SHIM_LOAD(load8_ps, __m256, float, 8)
#undef _mm256_maskload_ps
#define _mm256_maskload_ps(p, mask) shim_load8_ps(shim_signs(mask), p)

#define SHIM_STORE(name, vector, element)                                                                    \
    SHIM void shim_##name(void *p, uint32_t mask, vector v)                                                  \
    {                                                                                                        \
        OPEN(element, x, v);                                                                                 \
        for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) {                                                \
            if (mask >> i & 1)                                                                               \
                memcpy((element *)p + i, &x[i], sizeof x[i]);                                                \
        }                                                                                                    \
    }
SHIM_STORE(store_ps, __m512, float)
SHIM_STORE(store_epi16, __m256i, uint16_t)
SHIM_STORE(store_epi8, __m128i, uint8_t)
SHIM_STORE(store8_ps, __m256, float)
#undef _mm256_maskstore_ps
#define _mm256_maskstore_ps(p, mask, v) shim_store8_ps(p, shim_signs(mask), v)
#define _mm512_mask_storeu_ps           shim_store_ps
#define _mm256_mask_storeu_epi16        shim_store_epi16
#define _mm_mask_storeu_epi8            shim_store_epi8

/* Element by element: `expression` of x gives an element of the result. */
#define SHIM_CONVERT(name, from_vector, from, to_vector, to, expression)                                     \
    SHIM to_vector shim_##name(from_vector v)                                                                \
    {                                                                                                        \
        OPEN(from, in, v);                                                                                   \
        to out[sizeof in / sizeof in[0]];                                                                    \
        for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {                                              \
            const from x = in[i];                                                                            \
            out[i] = (to)(expression);                                                                       \
        }                                                                                                    \
        CLOSE(to_vector, out);                                                                               \
    }
SHIM_CONVERT(epi32_epi8, __m512i, int32_t, __m128i, int8_t, x)
SHIM_CONVERT(epi32_ps, __m512i, int32_t, __m512, float, x)
SHIM_CONVERT(epi8_epi32, __m128i, int8_t, __m512i, int32_t, x)
SHIM_CONVERT(epu16_epi32, __m256i, uint16_t, __m512i, int32_t, x)
SHIM_CONVERT(ph_ps512, __m256i, uint16_t, __m512, float, f32_from_f16(x))
SHIM_CONVERT(ps_ph512, __m512, float, __m256i, uint16_t, f16_from_f32(x))
SHIM_CONVERT(ph_ps256, __m128i, uint16_t, __m256, float, f32_from_f16(x))
SHIM_CONVERT(ps_ph256, __m256, float, __m128i, uint16_t, f16_from_f32(x))
/* To nearest even, and the integer indefinite value where there is no integer. */
#define SHIM_RINT(x) ((x) >= -0x1p31f && (x) < 0x1p31f ? rintf(x) : -0x1p31f)
SHIM_CONVERT(ps_epi32_512, __m512, float, __m512i, int32_t, SHIM_RINT(x))
SHIM_CONVERT(ps_epi32_256, __m256, float, __m256i, int32_t, SHIM_RINT(x))
SHIM_CONVERT(ps_pd, __m256, float, __m512d, double, x)
/* Functions, since the level's loops are unrolled and SIMDe's version inlined everywhere takes minutes to
 * compile. */
#define SHIM_DPBUSD(name, vector)                                                                            \
    __attribute__((noinline, unused)) static vector shim_##name(vector sum, vector a, vector b)              \
    {                                                                                                        \
        OPEN(int32_t, x, sum);                                                                               \
        OPEN(uint8_t, y, a);                                                                                 \
        OPEN(int8_t, z, b);                                                                                  \
        for (size_t i = 0; i < sizeof y; i++)                                                                \
            x[i / 4] += y[i] * z[i];                                                                         \
        CLOSE(vector, x);                                                                                    \
    }
SHIM_DPBUSD(dpbusd512, __m512i)
SHIM_DPBUSD(dpbusd256, __m256i)
#undef _mm512_dpbusd_epi32
#undef _mm256_dpbusd_avx_epi32
#define _mm512_dpbusd_epi32     shim_dpbusd512
#define _mm256_dpbusd_avx_epi32 shim_dpbusd256

/* SIMDe lacks this one. */
SHIM __m512i shim_srai_epi32_512(__m512i v, unsigned n)
{
    OPEN(int32_t, x, v);
    for (size_t i = 0; i < 16; i++)
        x[i] >>= n;
    CLOSE(__m512i, x);
}
#define _mm512_srai_epi32 shim_srai_epi32_512

#undef _mm256_cvtph_ps
#undef _mm256_cvtps_ph
#undef _mm256_cvtps_epi32
#define _mm512_cvtepi32_epi8      shim_epi32_epi8
#define _mm512_cvtepi32_ps        shim_epi32_ps
#define _mm512_cvtepi8_epi32      shim_epi8_epi32
#define _mm512_cvtepu16_epi32     shim_epu16_epi32
#define _mm512_cvtph_ps           shim_ph_ps512
#define _mm512_cvtps_ph(v, round) shim_ps_ph512(v)
#define _mm256_cvtph_ps           shim_ph_ps256
#define _mm256_cvtps_ph(v, round) shim_ps_ph256(v)
#define _mm512_cvtps_epi32        shim_ps_epi32_512
#define _mm256_cvtps_epi32        shim_ps_epi32_256
#define _mm512_cvtps_pd           shim_ps_pd

#endif
#endif
