/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary products by SDOT, for the levels that have it: a step of a quarter tile is one instruction, its
 * four activations a lane of the row's register.
 *
 * For a single row a bit pair need not even be shifted down: the sums of pairs 1 are kept four times too
 * large on their own, those of pairs 2 sixteen times, and divided once at the end.  The largest,
 * TERN_TERNARY_MAX_K / 4 * 32 * 127 = 133169152, fits.
 */
#ifndef TERN_KERNELS_NEON_DOT_H
#define TERN_KERNELS_NEON_DOT_H

#include "kernels/kernels_neon_tiles.h"

#if defined(TERN_HAVE_LANES) && defined(__ARM_FEATURE_DOTPROD)

/* Four steps share one load of activations; the lane of SDOT must be a constant. */
INLINE int32x4_t sdot(int32x4_t sum, uint8x16_t code, int8x16_t q, const int lane)
{
    int8x16_t c = vreinterpretq_s8_u8(code);
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, c, q, 0);
    case 1: return vdotq_laneq_s32(sum, c, q, 1);
    case 2: return vdotq_laneq_s32(sum, c, q, 2);
    default: return vdotq_laneq_s32(sum, c, q, 3);
    }
}

/* The four activations of a step in all lanes. */
INLINE int8x16_t four(const int8_t *q)
{
    int32_t x;
    memcpy(&x, q, sizeof x);
    return vreinterpretq_s8_s32(vdupq_n_s32(x));
}

/* -- few rows, the codes straight from the tiles --------------------------------------------------------- */

/* The most of them: beyond, registers are short. */
#define DIRECT_2BIT  4
#define DIRECT_5TRIT 2

/* One tile of 2BIT times one row.  A group of 256 weights is 4 loads, 16 instructions to unpack and 16 to
 * multiply. */
INLINE struct i16 row_2bit(const uint8_t *w, const int8_t *q, size_t n_groups)
{
    uint8x16_t m0 = vdupq_n_u8(0x03), m1 = vdupq_n_u8(0x0c), m2 = vdupq_n_u8(0x30);
    PIN(m0);
    PIN(m1);
    PIN(m2);
    int32x4_t a[4], a4[4], a16[4];
    UNROLL
    for (size_t i = 0; i < 4; i++)
        a[i] = a4[i] = a16[i] = vdupq_n_s32(0);
    for (; n_groups > 0; n_groups--, w += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS) {
        int8x16_t x = vld1q_s8(q);
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            uint8x16_t b = vld1q_u8(w + 16 * i);
            a[i] = sdot(a[i], vandq_u8(b, m0), x, 0);
            a4[i] = sdot(a4[i], vandq_u8(b, m1), x, 1);
            a16[i] = sdot(a16[i], vandq_u8(b, m2), x, 2);
            PIN(a[i]);
            a[i] = sdot(a[i], vshrq_n_u8(b, 6), x, 3);
            PIN(a[i]);
            PIN(a4[i]);
            PIN(a16[i]);
        }
    }
    UNROLL
    for (size_t i = 0; i < 4; i++)
        a[i] = vaddq_s32(a[i], vaddq_s32(vshrq_n_s32(a4[i], 2), vshrq_n_s32(a16[i], 4)));
    return (struct i16){ a[0], a[1], a[2], a[3] };
}

/* One tile of 5TRIT times one row; a_neg sums the codes that come out negative.  A group of 320 weights is 4
 * loads and one of the last activations, 48 instructions to unpack and 20 to multiply. */
INLINE struct i16 row_5trit(const uint8_t *w, const int8_t *q, size_t n_groups)
{
    const struct trits k = trits_init();
    int32x4_t a[4], a4[4], a_neg[4];
    UNROLL
    for (size_t i = 0; i < 4; i++)
        a[i] = a4[i] = a_neg[i] = vdupq_n_s32(0);
    for (; n_groups > 0; n_groups--, w += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS_5TRIT) {
        int8x16_t x = vld1q_s8(q), last = four(q + 16);
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            uint8x16_t c3, c4, b = split_trits(&k, vld1q_u8(w + 16 * i), &c3, &c4);
            a[i] = sdot(a[i], vandq_u8(b, k.pair0), x, 0);
            a4[i] = sdot(a4[i], vandq_u8(b, k.pair1), x, 1);
            a_neg[i] = sdot(a_neg[i], c3, x, 3);
            PIN(a[i]);
            PIN(a_neg[i]);
            a[i] = sdot(a[i], vshrq_n_u8(b, 4), x, 2);
            a_neg[i] = sdot(a_neg[i], c4, last, 0);
            PIN(a[i]);
            PIN(a4[i]);
            PIN(a_neg[i]);
        }
    }
    UNROLL
    for (size_t i = 0; i < 4; i++)
        a[i] = vaddq_s32(a[i], vsubq_s32(vshrq_n_s32(a4[i], 2), a_neg[i]));
    return (struct i16){ a[0], a[1], a[2], a[3] };
}

/* One tile times n rows, two to four, that share each unpacked step. */
INLINE void direct_rows(const enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile,
                        const size_t n)
{
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const uint8_t *w = t->tiles + tile * tile_bytes(layout, t->k_pad);
    const int8_t *q = t->q;
    uint8x16_t low2 = vdupq_n_u8(3);
    PIN(low2);
    const struct trits k = trits_init();
    int32x4_t a[4 * DIRECT_2BIT];
    UNROLL
    for (size_t i = 0; i < 4 * n; i++)
        a[i] = vdupq_n_s32(0);
    for (size_t c = 0; c < t->k_pad; c += cols, w += TERN_TILE_GROUP_BYTES, q += cols) {
        int8x16_t x[DIRECT_2BIT], last[DIRECT_2BIT];
        UNROLL
        for (size_t r = 0; r < n; r++) {
            x[r] = vld1q_s8(q + r * t->q_stride);
            last[r] = layout == TERN_TILES_5TRIT ? four(q + r * t->q_stride + 16) : x[r];
        }
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            uint8x16_t b = vld1q_u8(w + 16 * i), c3 = vshrq_n_u8(b, 6), c4 = c3;
            if (layout == TERN_TILES_5TRIT) {
                b = split_trits(&k, b, &c3, &c4);
                c3 = negative(c3);
                c4 = negative(c4);
            }
            uint8x16_t c0 = vandq_u8(b, low2), c1 = vandq_u8(vshrq_n_u8(b, 2), low2);
            uint8x16_t c2 = third_code(layout, b);
            UNROLL
            for (size_t r = 0; r < n; r++) {
                a[4 * r + i] = sdot(a[4 * r + i], c0, x[r], 0);
                a[4 * r + i] = sdot(a[4 * r + i], c1, x[r], 1);
                a[4 * r + i] = sdot(a[4 * r + i], c2, x[r], 2);
                a[4 * r + i] = sdot(a[4 * r + i], c3, x[r], 3);
                if (layout == TERN_TILES_5TRIT)
                    a[4 * r + i] = sdot(a[4 * r + i], c4, last[r], 0);
                PIN(a[4 * r + i]);
            }
        }
    }
    UNROLL
    for (size_t r = 0; r < n; r++)
        finish(t, r, tile, (struct i16){ a[4 * r], a[4 * r + 1], a[4 * r + 2], a[4 * r + 3] });
}

/* Tiles [first, last); false when there are more rows than that. */
INLINE bool few_rows(const enum tern_tile_layout layout, const struct tern_ternary *t, size_t first,
                     size_t last)
{
    const size_t bytes = tile_bytes(layout, t->k_pad), n_groups = bytes / TERN_TILE_GROUP_BYTES;
    if (t->n_rows > (layout == TERN_TILES_2BIT ? DIRECT_2BIT : DIRECT_5TRIT))
        return false;
    for (size_t tile = first; tile < last; tile++) {
        const uint8_t *w = t->tiles + tile * bytes;
        if (t->n_rows == 1)
            finish(t, 0, tile,
                   layout == TERN_TILES_2BIT ? row_2bit(w, t->q, n_groups) : row_5trit(w, t->q, n_groups));
        else if (t->n_rows == 2)
            direct_rows(layout, t, tile, 2);
        else if (layout == TERN_TILES_2BIT && t->n_rows == 3)
            direct_rows(layout, t, tile, 3);
        else if (layout == TERN_TILES_2BIT)
            direct_rows(layout, t, tile, 4);
    }
    return true;
}

/* -- many rows, from a panel ----------------------------------------------------------------------------- */

/* The last columns of a panel, a multiple of 4, or all of them: four steps at a time, then one by one.  With
 * n rows a load of codes feeds n products. */
INLINE void dot_panel_rows(const uint8_t *panel, size_t cols, const int8_t *q, size_t stride, const size_t n,
                           int32_t *dot)
{
    int32x4_t a[16];
    UNROLL
    for (size_t i = 0; i < 4 * n; i++)
        a[i] = vld1q_s32(dot + 4 * i);
    for (; cols >= 16; cols -= 16, panel += 256, q += 16) {
        int8x16_t x[4];
        UNROLL
        for (size_t r = 0; r < n; r++)
            x[r] = vld1q_s8(q + r * stride);
#define STEP(s)                                                                                              \
    do {                                                                                                     \
        UNROLL                                                                                               \
        for (size_t i = 0; i < 4; i++) {                                                                     \
            uint8x16_t c = vld1q_u8(panel + 64 * (s) + 16 * i);                                              \
            UNROLL                                                                                           \
            for (size_t r = 0; r < n; r++) {                                                                 \
                a[4 * r + i] = sdot(a[4 * r + i], c, x[r], s);                                               \
                PIN(a[4 * r + i]);                                                                           \
            }                                                                                                \
        }                                                                                                    \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (; cols > 0; cols -= 4, panel += 64, q += 4) {
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            UNROLL
            for (size_t r = 0; r < n; r++)
                a[4 * r + i] = sdot(a[4 * r + i], vld1q_u8(panel + 16 * i), four(q + r * stride), 0);
        }
    }
    UNROLL
    for (size_t i = 0; i < 4 * n; i++)
        vst1q_s32(dot + 4 * i, a[i]);
}

INLINE void dot_panel(const uint8_t *panel, size_t cols, const int8_t *q, size_t stride, size_t n,
                      int32_t *dot)
{
    for (; n >= 4; n -= 4, q += 4 * stride, dot += 4 * TERN_TILE_ROWS)
        dot_panel_rows(panel, cols, q, stride, 4, dot);
    if (n == 3)
        dot_panel_rows(panel, cols, q, stride, 3, dot);
    else if (n == 2)
        dot_panel_rows(panel, cols, q, stride, 2, dot);
    else if (n == 1)
        dot_panel_rows(panel, cols, q, stride, 1, dot);
}

/* -- the level's int8 peak ------------------------------------------------------------------------------- */

#define PROBE_SUMS 16

/* probe_dot by one instruction, `step`, in as many chains as it takes that none waits for itself. */
#define DEFINE_PROBE_DOT(step, code_type, ones)                                                              \
    static uint32_t probe_dot(size_t n_steps)                                                                \
    {                                                                                                        \
        code_type code = ones(1);                                                                            \
        int8x16_t q = vdupq_n_s8(1);                                                                         \
        int32x4_t a[PROBE_SUMS];                                                                             \
        UNROLL                                                                                               \
        for (size_t i = 0; i < PROBE_SUMS; i++)                                                              \
            a[i] = vdupq_n_s32(0);                                                                           \
        PIN(code);                                                                                           \
        PIN(q);                                                                                              \
        for (; n_steps > 0; n_steps--) {                                                                     \
            UNROLL                                                                                           \
            for (size_t i = 0; i < PROBE_SUMS; i++) {                                                        \
                a[i] = step(a[i], code, q);                                                                  \
                PIN(a[i]);                                                                                   \
            }                                                                                                \
        }                                                                                                    \
        UNROLL                                                                                               \
        for (size_t i = 1; i < PROBE_SUMS; i++)                                                              \
            a[0] = vaddq_s32(a[0], a[i]);                                                                    \
        return (uint32_t)vaddvq_s32(a[0]);                                                                   \
    }

#endif
#endif
