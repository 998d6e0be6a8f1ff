/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I8MM level (ARMv8.6-A): USMMLA for many rows; for few, SDOT as at DOTPROD.
 *
 * USMMLA multiplies 2 x 8 codes by 8 x 2 activations, 32 products where SDOT makes 16, but of two rows of
 * weights and two of activations: with a single row of activations half of it would be wasted.  Its operand
 * holds eight columns of two rows where the tiles hold four columns of four, so a panel is reordered once
 * (two ZIPs for two registers) before its rows are run over it.
 */
#include "kernels/kernels_impl.h"
#include "kernels/kernels_neon_dot.h"

#if defined(TERN_HAVE_LANES) && defined(__ARM_FEATURE_MATMUL_INT8)

/* Rows of activations that share the loads of codes: eight pairs of weight rows times two pairs.  With a
 * third pair the 24 sums still have registers, but gcc 12 spills five of them. */
#define PANEL_ROWS 4

/* Each 128 bytes: [2 steps][16 rows][4 columns] to [8 pairs of rows][2][8 columns]. */
static void pair_up(uint8_t *panel, size_t cols)
{
    for (; cols >= 8; cols -= 8, panel += 128) {
        uint32x4_t a[4], b[4];
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            a[i] = vreinterpretq_u32_u8(vld1q_u8(panel + 16 * i));
            b[i] = vreinterpretq_u32_u8(vld1q_u8(panel + 64 + 16 * i));
        }
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            vst1q_u8(panel + 32 * i, vreinterpretq_u8_u32(vzip1q_u32(a[i], b[i])));
            vst1q_u8(panel + 32 * i + 16, vreinterpretq_u8_u32(vzip2q_u32(a[i], b[i])));
        }
    }
}

/* Columns [0, 8) of two rows. */
INLINE int8x16_t two_rows(const int8_t *q, size_t stride)
{
    return vcombine_s8(vld1_s8(q), vld1_s8(q + stride));
}

/* A sum holds weight rows 2 i and 2 i + 1, for each the activation rows 2 p and 2 p + 1. */
INLINE void add_dots(int32_t *dot, int32x4_t x, int32x4_t y)
{
    vst1q_s32(dot, vaddq_s32(vld1q_s32(dot), vuzp1q_s32(x, y)));
    dot += TERN_TILE_ROWS;
    vst1q_s32(dot, vaddq_s32(vld1q_s32(dot), vuzp2q_s32(x, y)));
}

/* n rows, an even number, times the columns of a paired panel, a multiple of 8.  Eight loads of codes feed
 * 4 n products of 32. */
INLINE void panel_rows(const uint8_t *panel, size_t cols, const int8_t *q, size_t stride, const size_t n,
                       int32_t *dot)
{
    int32x4_t a[4 * PANEL_ROWS];
    UNROLL
    for (size_t i = 0; i < 4 * n; i++)
        a[i] = vdupq_n_s32(0);
    for (; cols > 0; cols -= 8, panel += 128, q += 8) {
        int8x16_t x[PANEL_ROWS / 2];
        UNROLL
        for (size_t p = 0; p < n / 2; p++)
            x[p] = two_rows(q + 2 * p * stride, stride);
        UNROLL
        for (size_t i = 0; i < 8; i++) {
            uint8x16_t c = vld1q_u8(panel + 16 * i);
            UNROLL
            for (size_t p = 0; p < n / 2; p++) {
                a[8 * p + i] = vusmmlaq_s32(a[8 * p + i], c, x[p]);
                PIN(a[8 * p + i]);
            }
        }
    }
    UNROLL
    for (size_t p = 0; p < n / 2; p++) {
        UNROLL
        for (size_t i = 0; i < 4; i++)
            add_dots(dot + 2 * p * TERN_TILE_ROWS + 4 * i, a[8 * p + 2 * i], a[8 * p + 2 * i + 1]);
    }
}

/* A single row takes part twice and is counted once. */
static void last_row(const uint8_t *panel, size_t cols, const int8_t *q, int32_t *dot)
{
    int32_t two[2 * TERN_TILE_ROWS] = { 0 };
    panel_rows(panel, cols, q, 0, 2, two);
    for (size_t i = 0; i < TERN_TILE_ROWS; i++)
        dot[i] += two[i];
}

/* Four columns that remain of a panel stay as they were unpacked, for SDOT. */
static void multiply(uint8_t *panel, size_t cols, const int8_t *q, size_t stride, size_t n, int32_t *dot)
{
    size_t paired = cols / 8 * 8;
    pair_up(panel, paired);
    if (paired < cols)
        dot_panel(panel + paired * TERN_TILE_ROWS, cols - paired, q + paired, stride, n, dot);
    for (; n >= PANEL_ROWS; n -= PANEL_ROWS, q += PANEL_ROWS * stride, dot += PANEL_ROWS * TERN_TILE_ROWS)
        panel_rows(panel, paired, q, stride, PANEL_ROWS, dot);
    if (n >= 2) {
        panel_rows(panel, paired, q, stride, 2, dot);
        n -= 2;
        q += 2 * stride;
        dot += 2 * TERN_TILE_ROWS;
    }
    if (n == 1)
        last_row(panel, paired, q, dot);
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

DEFINE_PROBE_DOT(vusmmlaq_s32, uint8x16_t, vdupq_n_u8)

bool tern_kernels_init_i8mm(struct tern_kernels *k)
{
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_SUMS * 32;
    return true;
}

#else

bool tern_kernels_init_i8mm(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
