/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ternary products of all ARM levels share: tiles to codes, and the walk over tiles, columns and
 * rows.
 *
 * A register of 16 tile bytes belongs to four rows, four columns each: one digit of all of them times the
 * same four activations is one "step" of a quarter tile.  Few activation rows are multiplied with the codes
 * as they come out of a tile (the levels' own loops).  For many, a tile is unpacked once into a panel that
 * stays in the first cache, and ROWS_SHARED rows are run over it.
 *
 * Codes are 0..2, so |dot| <= TERN_TERNARY_MAX_K * 2 * 127 = 33292288 fits 32 bits.
 */
#ifndef TERN_KERNELS_NEON_TILES_H
#define TERN_KERNELS_NEON_TILES_H

#include "kernels/kernels.h"
#include "kernels/kernels_neon.h"

#ifdef TERN_HAVE_LANES

/* Columns of a panel: whole groups of both layouts, 20 KiB of codes. */
#define PANEL_COLS 1280
/* Activation rows that share an unpacked panel. */
#define ROWS_SHARED 64

/* The constants of 5TRIT; pinned, or gcc loads them again for every group. */
struct trits {
    uint8x16_t n81, n162, n27, n54;
    uint8x16_t pair0, pair1; /* masks of fields */
    uint8x16x2_t fields;     /* of 0..26: c0 + 4 c1 + 16 c2 */
};

INLINE struct trits trits_init(void)
{
    static const uint8_t fields[32] = { 0,  1,  2,  4,  5,  6,  8,  9,  10, 16, 17, 18, 20, 21,
                                        22, 24, 25, 26, 32, 33, 34, 36, 37, 38, 40, 41, 42 };
    struct trits k = { vdupq_n_u8(81),
                       vdupq_n_u8(162),
                       vdupq_n_u8(27),
                       vdupq_n_u8(54),
                       vdupq_n_u8(3),
                       vdupq_n_u8(12),
                       { { vld1q_u8(fields), vld1q_u8(fields + 16) } } };
    PIN(k.n81);
    PIN(k.n162);
    PIN(k.n27);
    PIN(k.n54);
    PIN(k.pair0);
    PIN(k.pair1);
    PIN(k.fields);
    return k;
}

/*
 * Splits sixteen bytes c0 + 3 c1 + 9 c2 + 27 c3 + 81 c4: *c4 and *c3 come out negative (a comparison that
 * holds is -1), the other three as the bit pairs of the result.  Nine instructions, TBL included.
 */
INLINE uint8x16_t split_trits(const struct trits *k, uint8x16_t b, uint8x16_t *c3, uint8x16_t *c4)
{
    *c4 = vaddq_u8(vcgeq_u8(b, k->n81), vcgeq_u8(b, k->n162));
    b = vmlaq_u8(b, *c4, k->n81);
    *c3 = vaddq_u8(vcgeq_u8(b, k->n27), vcgeq_u8(b, k->n54));
    b = vmlaq_u8(b, *c3, k->n27);
    return vqtbl2q_u8(k->fields, b);
}

INLINE uint8x16_t negative(uint8x16_t b)
{
    return vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(b)));
}

/* The third of the bit pairs: nothing stands above it in 5TRIT. */
INLINE uint8x16_t third_code(const enum tern_tile_layout layout, uint8x16_t b)
{
    b = vshrq_n_u8(b, 4);
    return layout == TERN_TILES_2BIT ? vandq_u8(b, vdupq_n_u8(3)) : b;
}

/* A panel of cols columns, [cols / 4][16 rows][4 columns]. */
INLINE void unpack(const enum tern_tile_layout layout, const uint8_t *w, size_t cols, uint8_t *panel)
{
    const uint8x16_t low2 = vdupq_n_u8(3);
    const size_t group = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const struct trits k = trits_init();
    for (size_t c = 0; c < cols; c += group, w += TERN_TILE_GROUP_BYTES) {
        UNROLL
        for (size_t i = 0; i < 4; i++, panel += 16) {
            uint8x16_t b = vld1q_u8(w + 16 * i), c3, c4;
            if (layout == TERN_TILES_2BIT) {
                c3 = vshrq_n_u8(b, 6);
            } else {
                b = split_trits(&k, b, &c3, &c4);
                c3 = negative(c3);
                vst1q_u8(panel + 256, negative(c4));
            }
            vst1q_u8(panel, vandq_u8(b, low2));
            vst1q_u8(panel + 64, vandq_u8(vshrq_n_u8(b, 2), low2));
            vst1q_u8(panel + 128, third_code(layout, b));
            vst1q_u8(panel + 192, c3);
        }
        panel += 16 * group - 64;
    }
}

INLINE size_t tile_bytes(const enum tern_tile_layout layout, size_t cols)
{
    return cols / (layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT) * TERN_TILE_GROUP_BYTES;
}

/* y[0..m) of one row and tile = ((float)(dot - act_sum) / act_scale) * scale. */
INLINE void finish(const struct tern_ternary *t, size_t row, size_t tile, struct i16 dot)
{
    int32x4_t less = vdupq_n_s32(-t->act_sum[row]);
    dot = addi16(dot, (struct i16){ less, less, less, less });
    struct v16 y = mul16(div16(floats16(dot), set16(t->act_scale[row])), set16(t->scale));
    size_t out = tile * TERN_TILE_ROWS;
    store16n(t->y + row * t->y_stride + out, y, t->m - out);
}

INLINE struct i16 load_dots(const int32_t *dot)
{
    return (struct i16){ vld1q_s32(dot), vld1q_s32(dot + 4), vld1q_s32(dot + 8), vld1q_s32(dot + 12) };
}

INLINE void store_dots(int32_t *dot, struct i16 v)
{
    vst1q_s32(dot, v.a);
    vst1q_s32(dot + 4, v.b);
    vst1q_s32(dot + 8, v.c);
    vst1q_s32(dot + 12, v.d);
}

/*
 * A level's product of a panel and n rows of q, stride bytes apart: dot[n][16] grows.  The panel is the
 * level's to reorder.
 */
typedef void panel_fn(uint8_t *panel, size_t cols, const int8_t *q, size_t stride, size_t n, int32_t *dot);

/* One tile times the rows [row, row + n), n at most ROWS_SHARED. */
INLINE void shared_rows(const enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile,
                        size_t row, size_t n, panel_fn *multiply)
{
    _Alignas(64) uint8_t panel[PANEL_COLS * TERN_TILE_ROWS];
    int32_t dot[ROWS_SHARED * TERN_TILE_ROWS];
    const uint8_t *w = t->tiles + tile * tile_bytes(layout, t->k_pad);
    memset(dot, 0, n * TERN_TILE_ROWS * sizeof dot[0]);
    for (size_t c = 0; c < t->k_pad; c += PANEL_COLS) {
        size_t cols = t->k_pad - c < PANEL_COLS ? t->k_pad - c : PANEL_COLS;
        unpack(layout, w + tile_bytes(layout, c), cols, panel);
        multiply(panel, cols, t->q + row * t->q_stride + c, t->q_stride, n, dot);
    }
    for (size_t r = 0; r < n; r++)
        finish(t, row + r, tile, load_dots(dot + r * TERN_TILE_ROWS));
}

/* Tiles [first, last) for many rows. */
INLINE void shared_tiles(const enum tern_tile_layout layout, const struct tern_ternary *t, size_t first,
                         size_t last, panel_fn *multiply)
{
    for (size_t row = 0; row < t->n_rows; row += ROWS_SHARED) {
        size_t n = t->n_rows - row < ROWS_SHARED ? t->n_rows - row : ROWS_SHARED;
        for (size_t tile = first; tile < last; tile++)
            shared_rows(layout, t, tile, row, n, multiply);
    }
}

#endif
#endif
