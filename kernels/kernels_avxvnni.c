/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-VNNI level: the ternary products with VPDPBUSD on 256-bit registers; all else is the AVX2 level's.
 *
 * VPDPBUSD adds four products of bytes to 32 bits, so sums need no widening and blocks may be longer.
 */
#include "kernels/kernels_avx2.h"
#include "kernels/kernels_impl.h"

#if defined(TERN_HAVE_LANES) && (defined(__AVXVNNI__) || defined(TERN_SIMDE))

/* Steps of 64 bytes of unpacked codes: 8 KiB of the first cache. */
#define MAX_STEPS 128

INLINE __m256i dot4(__m256i sum, __m256i code, __m256i q)
{
    sum = _mm256_dpbusd_avx_epi32(sum, code, q);
    PIN(sum);
    return sum;
}

INLINE __m256i add_sums(__m256i a, __m256i b)
{
    return _mm256_add_epi32(a, b);
}

INLINE __m256i quarter(__m256i sum)
{
    return _mm256_srai_epi32(sum, 2);
}

INLINE __m256i widen(__m256i dot, __m256i sum)
{
    return _mm256_add_epi32(dot, sum);
}

#include "kernels/kernels_x256_ternary.h"

/* Twelve chains: two a cycle, five cycles until the next may follow. */
#define PROBE_CHAINS 12

static uint32_t probe_dot(size_t n_steps)
{
    __m256i code = _mm256_set1_epi8(1), q = code, sum = _mm256_setzero_si256();
#define BEGIN(i) __m256i a##i = _mm256_setzero_si256();
#define STEP(i)                                                                                              \
    a##i = dot4(a##i, code, q);                                                                              \
    PIN(q); /* or one chain would do for all */
#define END(i) sum = _mm256_add_epi32(sum, a##i);
    EACH_12(BEGIN)
    for (; n_steps > 0; n_steps--) {
        EACH_12(STEP)
    }
    EACH_12(END)
#undef BEGIN
#undef STEP
#undef END
    struct i16 all = { sum, _mm256_setzero_si256() };
    return (uint32_t)sumi16(all);
}

bool tern_kernels_init_avxvnni(struct tern_kernels *k)
{
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_CHAINS * 32;
    return true;
}

#else

bool tern_kernels_init_avxvnni(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
