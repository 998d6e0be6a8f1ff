/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DOTPROD level (ARMv8.2-A): the ternary products by SDOT, whose lane form is what the tiles are made
 * for: four rows, four columns each, times the same four activations (kernels_neon_dot.h).
 */
#include "kernels/kernels_impl.h"
#include "kernels/kernels_neon_dot.h"
#include "kernels/kernels_neon_screen4.h"

#if defined(TERN_HAVE_LANES) && defined(__ARM_FEATURE_DOTPROD)

static void multiply(uint8_t *panel, size_t cols, const int8_t *q, size_t stride, size_t n, int32_t *dot)
{
    dot_panel(panel, cols, q, stride, n, dot);
}

static void ternary_2bit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    if (!few_rows(TERN_TILES_2BIT, t, tile_first, tile_last))
        shared_tiles(TERN_TILES_2BIT, t, tile_first, tile_last, multiply);
}

static void ternary_5trit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    if (!few_rows(TERN_TILES_5TRIT, t, tile_first, tile_last))
        shared_tiles(TERN_TILES_5TRIT, t, tile_first, tile_last, multiply);
}

/* The 4-bit screened copy: two instructions for 32 products, and two to take the nibbles apart. */
INLINE void nibbles(const uint8_t *w, size_t row_bytes, const int8_t *x, const size_t n, int32_t *dot)
{
    uint8x16_t low4 = vdupq_n_u8(15);
    int32x4_t a[2 * NIBBLE_ROWS];
    PIN(low4);
    UNROLL
    for (size_t p = 0; p < 2 * n; p++)
        a[p] = vdupq_n_s32(0);
    for (size_t b = 0; b < row_bytes; b += 16) {
        size_t at = 2 * b - b % 32; /* the column of the first low nibble */
        int8x16_t x0 = vld1q_s8(x + at), x1 = vld1q_s8(x + at + 32);
        UNROLL
        for (size_t p = 0; p < n; p++) {
            uint8x16_t v = vld1q_u8(w + p * row_bytes + b);
            a[2 * p] = vdotq_s32(a[2 * p], vreinterpretq_s8_u8(vandq_u8(v, low4)), x0);
            a[2 * p + 1] = vdotq_s32(a[2 * p + 1], vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), x1);
            PIN(a[2 * p]);
            PIN(a[2 * p + 1]);
        }
    }
    UNROLL
    for (size_t p = 0; p < n; p++)
        dot[p] = vaddvq_s32(vaddq_s32(a[2 * p], a[2 * p + 1]));
}

static void nibbles_of(const uint8_t *w, size_t row_bytes, const int8_t *x, const size_t n, int32_t *dot)
{
    if (n == NIBBLE_ROWS)
        nibbles(w, row_bytes, x, NIBBLE_ROWS, dot);
    else
        nibbles(w, row_bytes, x, 1, dot);
}

static void screen4(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    screen4_all(s, row_first, row_last, nibbles_of);
}

DEFINE_PROBE_DOT(vdotq_s32, int8x16_t, vdupq_n_s8)

bool tern_kernels_init_dotprod(struct tern_kernels *k)
{
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->screen4 = screen4;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_SUMS * 16;
    return true;
}

#else

bool tern_kernels_init_dotprod(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
