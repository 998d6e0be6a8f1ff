/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs on sixteen bytes that all x86 levels share; those that need masks or wider registers are with the
 * level's other verbs.
 */
#ifndef TERN_KERNELS_BYTES_X86_H
#define TERN_KERNELS_BYTES_X86_H

#ifndef TERN_SIMDE /* the tests can compile the levels against portable C versions of the intrinsics */
#include <immintrin.h>
#endif

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* In front of loops over sums: nothing here, where gcc keeps them in registers as it is. */
#define UNROLL

/* Sixteen bytes, signed or not as the verb says; lane 0 first. */
struct b16 {
    __m128i v;
};

INLINE struct b16 load_bytes(const void *p)
{
    return (struct b16){ _mm_loadu_si128((const __m128i *)p) };
}

INLINE struct b16 set_bytes(uint8_t b)
{
    return (struct b16){ _mm_set1_epi8((char)b) };
}

INLINE struct b16 or_bytes(struct b16 a, struct b16 b)
{
    return (struct b16){ _mm_or_si128(a.v, b.v) };
}

/* Modulo 256. */
INLINE struct b16 sub_bytes(struct b16 a, struct b16 b)
{
    return (struct b16){ _mm_sub_epi8(a.v, b.v) };
}

/* Bits [shift, shift + width) of each byte. */
INLINE struct b16 bits_of(struct b16 a, unsigned shift, unsigned width)
{
    return (struct b16){ _mm_and_si128(_mm_srl_epi16(a.v, _mm_cvtsi32_si128((int)shift)),
                                       _mm_set1_epi8((char)((1u << width) - 1))) };
}

/* Bytes below 16, times 16. */
INLINE struct b16 to_high_nibbles(struct b16 a)
{
    return (struct b16){ _mm_slli_epi16(a.v, 4) };
}

#endif
