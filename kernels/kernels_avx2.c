/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 level (AVX2, FMA, F16C): the ternary products; the float ops are those of kernels_lanes.h.
 */
#include "kernels/kernels_avx2.h"
#include "kernels/kernels_avx2_probe.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes_all.h"

#ifdef TERN_HAVE_LANES

/* Running sums of 16 bits: VPMADDUBSW saturates at no sum of two products of a ternary code. */
INLINE __m256i dot4(__m256i sum, __m256i code, __m256i q)
{
    return dot_16bit(sum, code, q);
}

INLINE __m256i add_sums(__m256i a, __m256i b)
{
    return _mm256_add_epi16(a, b);
}

INLINE __m256i quarter(__m256i sum)
{
    return _mm256_srai_epi16(sum, 2);
}

INLINE __m256i widen(__m256i dot, __m256i sum)
{
    return widen_16bit(dot, sum);
}

/* 64 times two products, 2 * 2 * 127 = 508, are at most 32512. */
#define MAX_STEPS 64
#include "kernels/kernels_x256_ternary.h"

/* -- nibbles --------------------------------------------------------------------------------------------- */

/* A 16-bit lane takes from 32 bytes at most 2 * 2 * 15 * 127 = 7620; after four it is widened. */
#define NIBBLE_WIDEN 4

/* One vector times n rows from r on, `gap` rows apart: streams, prefetched as those of `screen` are. */
INLINE void screen4_rows(const struct tern_screen *s, size_t r, size_t gap, size_t j, const size_t n,
                         int32_t *y)
{
    const size_t row_bytes = s->k_pad / 2, far = gap * row_bytes;
    const uint8_t *w = (const uint8_t *)s->w + r * row_bytes;
    const int8_t *x = s->x8 + j * s->k_pad;
    const __m256i low4 = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i dot[4];
    for (size_t p = 0; p < n; p++)
        dot[p] = _mm256_setzero_si256();
    for (size_t b = 0; b < row_bytes;) {
        size_t end = row_bytes - b < 32 * NIBBLE_WIDEN ? row_bytes : b + 32 * NIBBLE_WIDEN;
        __m256i a[4];
        for (size_t p = 0; p < n; p++)
            a[p] = _mm256_setzero_si256();
        for (; b < end; b += 32) {
            __m256i x0 = load32(x + 2 * b), x1 = load32(x + 2 * b + 32);
            for (size_t p = 0; p < n; p++) {
                __m256i v = load32(w + p * far + b);
                __builtin_prefetch(w + p * far + b + SCREEN_AHEAD);
                __m256i lo = _mm256_maddubs_epi16(_mm256_and_si256(v, low4), x0);
                __m256i hi = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), low4), x1);
                a[p] = _mm256_add_epi16(a[p], _mm256_add_epi16(lo, hi));
            }
        }
        for (size_t p = 0; p < n; p++)
            dot[p] = _mm256_add_epi32(dot[p], _mm256_madd_epi16(a[p], ones));
    }
    for (size_t p = 0; p < n; p++)
        y[j * s->y_stride + p * gap] = dots_sum((struct dots){ dot[p] }) - 8 * s->x_sum[j];
}

static void screen4(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    const size_t n = row_last - row_first, gap = n / SCREEN_STREAMS;
    for (size_t r = 0; r < gap; r++)
        for (size_t j = 0; j < s->n_x; j++)
            screen4_rows(s, row_first + r, gap, j, SCREEN_STREAMS, s->y + r);
    for (size_t r = gap * SCREEN_STREAMS; r < n; r++)
        for (size_t j = 0; j < s->n_x; j++)
            screen4_rows(s, row_first + r, 1, j, 1, s->y + r);
}

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    init_lanes(k);
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_read = probe_read;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_CHAINS * 32;
    k->screen4 = screen4;
    return true;
}

#else

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
