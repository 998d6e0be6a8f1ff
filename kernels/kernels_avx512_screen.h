/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 4-bit screened copy (struct tern_screen) with VPDPBUSD: nibbles are unsigned bytes as they are, and the
 * high ones stay sixteen times as large until their sum is shifted.
 *
 * Two groups of 64 columns make 64 bytes.  A lane's sum of high nibbles is at most k / 32 * 240 * 127: with
 * TERN_TERNARY_MAX_K columns 124846080.
 *
 * Included after kernels_avx512.h.
 */
#ifndef TERN_KERNELS_AVX512_SCREEN_H
#define TERN_KERNELS_AVX512_SCREEN_H

#include "kernels/kernels_avx512_dot.h"

#ifdef TERN_HAVE_LANES

struct nibble_sums {
    __m512i low, high;
};

INLINE __m256i load_half(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE __m512i two_halves(const void *a, const void *b)
{
    return _mm512_inserti64x4(_mm512_inserti64x4(_mm512_setzero_si512(), load_half(a), 0), load_half(b), 1);
}

/* 32 bytes in front of zeros. */
INLINE __m512i one_half(const void *p)
{
    return _mm512_inserti64x4(_mm512_setzero_si512(), load_half(p), 0);
}

INLINE struct nibble_sums add_nibbles(struct nibble_sums s, __m512i w, __m512i x_low, __m512i x_high)
{
    DOT(s.low, _mm512_and_si512(w, _mm512_set1_epi8(0x0f)), x_low);
    DOT(s.high, _mm512_and_si512(w, _mm512_set1_epi8((char)0xf0)), x_high);
    return s;
}

INLINE int32_t nibbles_total(struct nibble_sums s)
{
    return sumi16((struct i16){ _mm512_add_epi32(s.low, _mm512_srai_epi32(s.high, 4)) });
}

/* Vector j times n_rows (1 or 4) rows from r on. */
INLINE void screen4_rows(const struct tern_screen *s, size_t r, size_t j, const unsigned n_rows, int32_t *y)
{
    const size_t bytes = s->k_pad / 2;
    const uint8_t *w = (const uint8_t *)s->w + r * bytes, *end = w + bytes;
    const int8_t *x = s->x8 + j * s->k_pad;
    struct nibble_sums a0 = { _mm512_setzero_si512(), _mm512_setzero_si512() }, a1 = a0, a2 = a0, a3 = a0;
    for (; end - w >= 64; w += 64, x += 128) {
        __m512i low = two_halves(x, x + 64), high = two_halves(x + 32, x + 96);
        a0 = add_nibbles(a0, _mm512_loadu_si512((const void *)w), low, high);
        if (n_rows > 1) {
            a1 = add_nibbles(a1, _mm512_loadu_si512((const void *)(w + bytes)), low, high);
            a2 = add_nibbles(a2, _mm512_loadu_si512((const void *)(w + 2 * bytes)), low, high);
            a3 = add_nibbles(a3, _mm512_loadu_si512((const void *)(w + 3 * bytes)), low, high);
        }
    }
    if (w < end) { /* one group */
        __m512i low = one_half(x), high = one_half(x + 32);
        a0 = add_nibbles(a0, one_half(w), low, high);
        if (n_rows > 1) {
            a1 = add_nibbles(a1, one_half(w + bytes), low, high);
            a2 = add_nibbles(a2, one_half(w + 2 * bytes), low, high);
            a3 = add_nibbles(a3, one_half(w + 3 * bytes), low, high);
        }
    }
    const int32_t less = 8 * s->x_sum[j];
    y += j * s->y_stride;
    y[0] = nibbles_total(a0) - less;
    if (n_rows > 1) {
        y[1] = nibbles_total(a1) - less;
        y[2] = nibbles_total(a2) - less;
        y[3] = nibbles_total(a3) - less;
    }
}

static void screen4(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    size_t r = row_first;
    for (; r + 4 <= row_last; r += 4)
        for (size_t j = 0; j < s->n_x; j++)
            screen4_rows(s, r, j, 4, s->y + (r - row_first));
    for (; r < row_last; r++)
        for (size_t j = 0; j < s->n_x; j++)
            screen4_rows(s, r, j, 1, s->y + (r - row_first));
}

#endif
#endif
