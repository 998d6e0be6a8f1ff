/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 level (F, BW, DQ, VL, VNNI): the ternary products; the float ops are those of kernels_lanes.h.
 */
#include "kernels/kernels_avx512.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes.h"
#include "kernels/kernels_lanes_attend.h"
#include "kernels/kernels_lanes_largest.h"
#include "kernels/kernels_lanes_matvec.h"

#ifdef TERN_HAVE_LANES

/* Activation rows that share the unpacked codes.  A sum waits five cycles for its last step, so a single row
 * keeps one sum for each of the four shifts. */
#define GEMM_ROWS 8

INLINE __m512i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/*
 * One tile times n rows of activations, from `row` on.  VPDPBUSD adds four products of a code (0..2) and an
 * activation (-127..127) to 32 bits without anything narrower between, and TERN_TERNARY_MAX_K * 2 * 127 =
 * 33292288 fits.
 */
INLINE void tile_rows(const struct tern_ternary *t, size_t tile, size_t row, const size_t n)
{
    const uint8_t *w = t->tiles + tile * 4 * t->k_pad;
    const int8_t *q = t->q + row * t->q_stride;
    const __m512i low2 = _mm512_set1_epi8(3);
    const size_t chains = n == 1 ? 4 : n == 2 ? 2 : 1;
    __m512i a[GEMM_ROWS];
    for (size_t r = 0; r < n * chains; r++)
        a[r] = _mm512_setzero_si512();
    for (size_t c = 0; c < t->k_pad; c += TERN_TILE_COLS, w += 64, q += TERN_TILE_COLS) {
        __m512i codes = _mm512_loadu_si512((const void *)w);
#define STEP(shift)                                                                                          \
    do {                                                                                                     \
        __m512i s = _mm512_and_si512(_mm512_srli_epi16(codes, 2 * (shift)), low2);                           \
        for (size_t r = 0; r < n; r++) {                                                                     \
            __m512i *sum = &a[r * chains + (shift) % chains];                                                \
            *sum = _mm512_dpbusd_epi32(*sum, s, broadcast4(q + r * t->q_stride + 4 * (shift)));              \
        }                                                                                                    \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (size_t r = 0; r < n; r++) {
        struct i16 dot = { _mm512_set1_epi32(-t->act_sum[row + r]) };
        for (size_t i = 0; i < chains; i++)
            dot = addi16(dot, (struct i16){ a[r * chains + i] });
        struct v16 y = mul16(div16(floats16(dot), set16(t->act_scale[row + r])), set16(t->scale));
        size_t out = tile * TERN_TILE_ROWS;
        store16n(t->y + (row + r) * t->y_stride + out, y, t->m - out);
    }
}

static void ternary(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    for (size_t tile = tile_first; tile < tile_last; tile++) {
        size_t row = 0, left = t->n_rows;
        for (; left >= GEMM_ROWS; row += GEMM_ROWS, left -= GEMM_ROWS)
            tile_rows(t, tile, row, GEMM_ROWS);
        for (; left >= 4; row += 4, left -= 4)
            tile_rows(t, tile, row, 4);
        for (; left >= 2; row += 2, left -= 2)
            tile_rows(t, tile, row, 2);
        if (left)
            tile_rows(t, tile, row, 1);
    }
}

bool tern_kernels_init_avx512(struct tern_kernels *k)
{
    init_rows(k);
    init_attend(k);
    init_largest(k);
    init_matvec(k);
    k->ternary[TERN_TILES_2BIT] = ternary;
    return true;
}

#else

bool tern_kernels_init_avx512(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
