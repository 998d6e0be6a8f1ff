/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of the machine as AVX2 code meets them: reading memory, and adding up int8 products.
 *
 * Each probe does what the ternary kernels cannot do without, and nothing else, so that their speed can be
 * stated as a share of it.
 */
#ifndef TERN_KERNELS_AVX2_PROBE_H
#define TERN_KERNELS_AVX2_PROBE_H

#include "kernels/kernels_avx2.h"

#ifdef TERN_HAVE_LANES

/* The exclusive or of the eight 32-bit lanes. */
INLINE uint32_t xor8(__m256i v)
{
    __m128i x = _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_xor_si128(x, _mm_shuffle_epi32(x, 0x4e));
    x = _mm_xor_si128(x, _mm_shuffle_epi32(x, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(x);
}

/*
 * Four quarters side by side, 1 KiB of each in turn: one core of a Zen 3 reads one stream at 22 GB/s, two at
 * 28, four at 29.  Eight registers, so that no load waits for the one before; no prefetch, which made it
 * slower.
 */
#define PROBE_STREAMS 4
#define PROBE_BLOCK   1024

static uint32_t probe_read(const void *p, size_t bytes)
{
    const size_t stream = bytes / PROBE_STREAMS;
    const uint8_t *block = p;
#define BEGIN(i) __m256i x##i = _mm256_setzero_si256();
#define READ(i)                                                                                              \
    x##i = _mm256_xor_si256(x##i, _mm256_load_si256(b + i));                                                 \
    PIN(x##i);
#define END(i) all = _mm256_xor_si256(all, x##i);
    EACH_8(BEGIN)
    for (size_t done = 0; done < stream; done += PROBE_BLOCK, block += PROBE_BLOCK) {
        for (size_t s = 0; s < PROBE_STREAMS; s++) {
            const __m256i *b = (const __m256i *)(const void *)(block + s * stream);
            for (const __m256i *end = b + PROBE_BLOCK / sizeof *b; b < end; b += 8) {
                EACH_8(READ)
            }
        }
    }
    __m256i all = _mm256_setzero_si256();
    EACH_8(END)
#undef BEGIN
#undef READ
#undef END
    return xor8(all);
}

/*
 * Products of codes 0..2 and q -127..127: pairs by VPMADDUBSW, added up in 16 bits for at most 64 steps (64 *
 * 508 <= 32767), then in 32 bits.  Twelve chains, so that none waits for itself.
 */
#define PROBE_CHAINS 12
#define PROBE_WIDEN  64

static uint32_t probe_dot(size_t n_steps)
{
    __m256i code = _mm256_set1_epi8(1), q = code, sum = _mm256_setzero_si256();
    while (n_steps > 0) {
        size_t n = n_steps < PROBE_WIDEN ? n_steps : PROBE_WIDEN;
#define BEGIN(i) __m256i a##i = _mm256_setzero_si256();
#define STEP(i)                                                                                              \
    a##i = dot_16bit(a##i, code, q);                                                                         \
    PIN(q); /* or one product would do for all */
#define END(i) sum = widen_16bit(sum, a##i);
        EACH_12(BEGIN)
        n_steps -= n;
        for (; n > 0; n--) {
            EACH_12(STEP)
        }
        EACH_12(END)
#undef BEGIN
#undef STEP
#undef END
    }
    struct i16 all = { sum, _mm256_setzero_si256() };
    return (uint32_t)sumi16(all);
}

#endif
#endif
