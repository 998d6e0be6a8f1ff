/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums and maxima across the lanes of eight, for the x86 levels.
 *
 * A fold alone is seven additions and shuffles in a row, more than the products of a short vector.  Eight of
 * them turn into a transposition: two vectors give one that holds the half-sums of both.  The additions are
 * those of fold16 in kernels_scalar.h; only the order of their two operands differs, which changes nothing.
 *
 * Empty unless the file that includes it is compiled for AVX.
 */
#ifndef TERN_KERNELS_FOLD8_H
#define TERN_KERNELS_FOLD8_H

#if defined(__AVX2__) || defined(TERN_SIMDE)

#include "kernels/kernels_bytes_x86.h"

/* Lanes j and j + 4: those of a in the low half, of b in the high one. */
INLINE __m256 fold_4(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x21), _mm256_blend_ps(a, b, 0xf0));
}

/* Lanes j and j + 2 of each half: those of a first, then those of b. */
INLINE __m256 fold_2(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x4e), _mm256_blend_ps(a, b, 0xcc));
}

/* Lanes 2 j and 2 j + 1 of each half: those of a first, then those of b. */
INLINE __m256 fold_1(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}

/* The folds of v[0] .. v[3] to first, those of v[4] .. v[7] to last. */
INLINE void fold8_ymm(const __m256 v[8], float *first, float *last)
{
    __m256 a = fold_2(fold_4(v[0], v[4]), fold_4(v[1], v[5]));
    __m256 b = fold_2(fold_4(v[2], v[6]), fold_4(v[3], v[7]));
    __m256 r = fold_1(a, b);
    _mm_storeu_ps(first, _mm256_castps256_ps128(r));
    _mm_storeu_ps(last, _mm256_extractf128_ps(r, 1));
}

/* In every lane the maximum of the lanes whose number leaves the same rest by `side` (1, 2, 4, 8). */
INLINE __m256 max8_across(__m256 m, const size_t side)
{
    if (side <= 4)
        m = _mm256_max_ps(m, _mm256_permute2f128_ps(m, m, 0x01));
    if (side <= 2)
        m = _mm256_max_ps(m, _mm256_shuffle_ps(m, m, 0x4e));
    if (side <= 1)
        m = _mm256_max_ps(m, _mm256_shuffle_ps(m, m, 0xb1));
    return m;
}

#endif
#endif
