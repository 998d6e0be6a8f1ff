/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NEON level (ARMv8.0-A): the ternary products by SMLAL; the float ops are those of kernels_lanes.h.
 *
 * SMLAL takes eight products of bytes to sixteen bits, so a step of a quarter tile is two of them; two
 * columns of a row meet when SADALP widens the sums to 32 bits.  A product is at most 2 * 127 = 254 in
 * absolute value: WIDEN = 128 steps make 32512 <= 32767.  (MUL on bytes and SADALP would count the same.)
 */
#include "kernels/kernels_neon_tiles.h" /* first: the lanes are written in its verbs */

#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes_all.h"
#include "kernels/kernels_neon_screen4.h"

#ifdef TERN_HAVE_LANES

#define WIDEN 128

/* Rows that share the codes of a panel: 24 sums of sixteen bits, codes and activations fill the registers. */
#define PANEL_ROWS 3

/* The four activations of a step, twice. */
INLINE int8x16_t four(const int8_t *q)
{
    int32_t x;
    memcpy(&x, q, sizeof x);
    return vreinterpretq_s8_s32(vdupq_n_s32(x));
}

/* Eight sums of sixteen bits grow: two a row, one for each two columns of it. */
INLINE void step(int16x8_t *lo, int16x8_t *hi, uint8x16_t code, int8x16_t x)
{
    int8x16_t c = vreinterpretq_s8_u8(code);
    *lo = vmlal_s8(*lo, vget_low_s8(c), vget_low_s8(x));
    *hi = vmlal_high_s8(*hi, c, x);
}

/* The same for codes that are negative. */
INLINE void step_negative(int16x8_t *lo, int16x8_t *hi, uint8x16_t code, int8x16_t x)
{
    int8x16_t c = vreinterpretq_s8_u8(code);
    *lo = vmlsl_s8(*lo, vget_low_s8(c), vget_low_s8(x));
    *hi = vmlsl_high_s8(*hi, c, x);
}

/* One tile times one row, the codes straight from the tile.  A 2BIT group takes 24 instructions to unpack, 4
 * to spread the activations and 32 to multiply; a 5TRIT group 52, 5 and 40. */
INLINE struct i16 tile_row(const enum tern_tile_layout layout, const uint8_t *w, const int8_t *q,
                           size_t n_groups)
{
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const size_t most = WIDEN / (cols / 4);
    uint8x16_t low2 = vdupq_n_u8(3);
    PIN(low2);
    const struct trits k = trits_init();
    int32x4_t dot[8];
    UNROLL
    for (size_t i = 0; i < 8; i++)
        dot[i] = vdupq_n_s32(0);
    while (n_groups > 0) {
        int16x8_t a[8];
        UNROLL
        for (size_t i = 0; i < 8; i++)
            a[i] = vdupq_n_s16(0);
        size_t now = n_groups < most ? n_groups : most;
        n_groups -= now;
        for (; now > 0; now--, w += TERN_TILE_GROUP_BYTES, q += cols) {
            int8x16_t x0 = four(q), x1 = four(q + 4), x2 = four(q + 8), x3 = four(q + 12), x4 = x0;
            if (layout == TERN_TILES_5TRIT)
                x4 = four(q + 16);
            UNROLL
            for (size_t i = 0; i < 4; i++) {
                uint8x16_t b = vld1q_u8(w + 16 * i), c3, c4;
                if (layout == TERN_TILES_2BIT) {
                    step(&a[2 * i], &a[2 * i + 1], vshrq_n_u8(b, 6), x3);
                } else {
                    b = split_trits(&k, b, &c3, &c4);
                    step_negative(&a[2 * i], &a[2 * i + 1], c3, x3);
                    step_negative(&a[2 * i], &a[2 * i + 1], c4, x4);
                }
                step(&a[2 * i], &a[2 * i + 1], vandq_u8(b, low2), x0);
                step(&a[2 * i], &a[2 * i + 1], vandq_u8(vshrq_n_u8(b, 2), low2), x1);
                step(&a[2 * i], &a[2 * i + 1], third_code(layout, b), x2);
                PIN(a[2 * i]);
                PIN(a[2 * i + 1]);
            }
        }
        UNROLL
        for (size_t i = 0; i < 8; i++)
            dot[i] = vpadalq_s16(dot[i], a[i]);
    }
    return (struct i16){ vpaddq_s32(dot[0], dot[1]), vpaddq_s32(dot[2], dot[3]), vpaddq_s32(dot[4], dot[5]),
                         vpaddq_s32(dot[6], dot[7]) };
}

/* At most WIDEN steps of n rows. */
INLINE void panel_steps(const uint8_t *panel, size_t n_steps, const int8_t *q, size_t stride, const size_t n,
                        int32_t *dot)
{
    int16x8_t a[8 * PANEL_ROWS];
    UNROLL
    for (size_t i = 0; i < 8 * n; i++)
        a[i] = vdupq_n_s16(0);
    for (; n_steps > 0; n_steps--, panel += 64, q += 4) {
        int8x16_t x[PANEL_ROWS];
        UNROLL
        for (size_t r = 0; r < n; r++)
            x[r] = four(q + r * stride);
        UNROLL
        for (size_t i = 0; i < 4; i++) {
            uint8x16_t c = vld1q_u8(panel + 16 * i);
            UNROLL
            for (size_t r = 0; r < n; r++) {
                step(&a[8 * r + 2 * i], &a[8 * r + 2 * i + 1], c, x[r]);
                PIN(a[8 * r + 2 * i]);
                PIN(a[8 * r + 2 * i + 1]);
            }
        }
    }
    UNROLL
    for (size_t i = 0; i < 4 * n; i++) {
        int32x4_t sum = vpaddq_s32(vpaddlq_s16(a[2 * i]), vpaddlq_s16(a[2 * i + 1]));
        vst1q_s32(dot + 4 * i, vaddq_s32(vld1q_s32(dot + 4 * i), sum));
    }
}

INLINE void panel_rows(const uint8_t *panel, size_t cols, const int8_t *q, size_t stride, const size_t n,
                       int32_t *dot)
{
    for (size_t c = 0; c < cols; c += 4 * WIDEN) {
        size_t n_steps = cols - c < 4 * WIDEN ? (cols - c) / 4 : WIDEN;
        panel_steps(panel + c * TERN_TILE_ROWS, n_steps, q + c, stride, n, dot);
    }
}

static void multiply(uint8_t *panel, size_t cols, const int8_t *q, size_t stride, size_t n, int32_t *dot)
{
    for (; n >= PANEL_ROWS; n -= PANEL_ROWS, q += PANEL_ROWS * stride, dot += PANEL_ROWS * TERN_TILE_ROWS)
        panel_rows(panel, cols, q, stride, PANEL_ROWS, dot);
    if (n == 2)
        panel_rows(panel, cols, q, stride, 2, dot);
    else if (n == 1)
        panel_rows(panel, cols, q, stride, 1, dot);
}

INLINE void tiles(const enum tern_tile_layout layout, const struct tern_ternary *t, size_t first, size_t last)
{
    const size_t bytes = tile_bytes(layout, t->k_pad);
    if (t->n_rows > 1) {
        shared_tiles(layout, t, first, last, multiply);
        return;
    }
    for (size_t tile = first; tile < last; tile++)
        finish(t, 0, tile, tile_row(layout, t->tiles + tile * bytes, t->q, bytes / TERN_TILE_GROUP_BYTES));
}

static void ternary_2bit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    tiles(TERN_TILES_2BIT, t, tile_first, tile_last);
}

static void ternary_5trit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    tiles(TERN_TILES_5TRIT, t, tile_first, tile_last);
}

/* -- nibbles --------------------------------------------------------------------------------------------- */

/* A lane of 16 bits takes four products of at most 15 * 127 from 32 bytes; after four times that it is
 * widened. */
#define NIBBLE_WIDEN 128

INLINE void nibbles(const uint8_t *w, size_t row_bytes, const int8_t *x, const size_t n, int32_t *dot)
{
    uint8x16_t low4 = vdupq_n_u8(15);
    int32x4_t sum[2 * NIBBLE_ROWS];
    PIN(low4);
    UNROLL
    for (size_t p = 0; p < 2 * n; p++)
        sum[p] = vdupq_n_s32(0);
    for (size_t b = 0; b < row_bytes;) {
        size_t end = row_bytes - b < NIBBLE_WIDEN ? row_bytes : b + NIBBLE_WIDEN;
        int16x8_t a[2 * NIBBLE_ROWS];
        UNROLL
        for (size_t p = 0; p < 2 * n; p++)
            a[p] = vdupq_n_s16(0);
        for (; b < end; b += 16) {
            size_t at = 2 * b - b % 32; /* the column of the first low nibble */
            int8x16_t x0 = vld1q_s8(x + at), x1 = vld1q_s8(x + at + 32);
            UNROLL
            for (size_t p = 0; p < n; p++) {
                uint8x16_t v = vld1q_u8(w + p * row_bytes + b);
                step(&a[2 * p], &a[2 * p + 1], vandq_u8(v, low4), x0);
                step(&a[2 * p], &a[2 * p + 1], vshrq_n_u8(v, 4), x1);
                PIN(a[2 * p]);
                PIN(a[2 * p + 1]);
            }
        }
        UNROLL
        for (size_t p = 0; p < 2 * n; p++)
            sum[p] = vpadalq_s16(sum[p], a[p]);
    }
    UNROLL
    for (size_t p = 0; p < n; p++)
        dot[p] = vaddvq_s32(vaddq_s32(sum[2 * p], sum[2 * p + 1]));
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

/* -- probes ---------------------------------------------------------------------------------------------- */

static uint32_t probe_read(const void *p, size_t bytes)
{
    const uint32_t *w = p, *end = w + bytes / sizeof *w;
    uint32x4_t x[8];
    UNROLL
    for (size_t i = 0; i < 8; i++)
        x[i] = vdupq_n_u32(0);
    for (; w < end; w += 32) {
        UNROLL
        for (size_t i = 0; i < 8; i++)
            x[i] = veorq_u32(x[i], vld1q_u32(w + 4 * i));
    }
    UNROLL
    for (size_t i = 4; i > 0; i /= 2) {
        UNROLL
        for (size_t j = 0; j < i; j++)
            x[j] = veorq_u32(x[j], x[j + i]);
    }
    uint32x2_t two = veor_u32(vget_low_u32(x[0]), vget_high_u32(x[0]));
    return vget_lane_u32(two, 0) ^ vget_lane_u32(two, 1);
}

/* Eight chains of sixteen SMLALs, then widened. */
#define PROBE_SUMS  8
#define PROBE_STEPS 16

static uint32_t probe_dot(size_t n_steps)
{
    int8x8_t code = vdup_n_s8(1), q = vdup_n_s8(1);
    int32x4_t sum[PROBE_SUMS];
    UNROLL
    for (size_t i = 0; i < PROBE_SUMS; i++)
        sum[i] = vdupq_n_s32(0);
    PIN(code);
    PIN(q);
    for (; n_steps > 0; n_steps--) {
        int16x8_t a[PROBE_SUMS];
        UNROLL
        for (size_t i = 0; i < PROBE_SUMS; i++)
            a[i] = vdupq_n_s16(0);
        UNROLL
        for (size_t s = 0; s < PROBE_STEPS; s++) {
            UNROLL
            for (size_t i = 0; i < PROBE_SUMS; i++) {
                a[i] = vmlal_s8(a[i], code, q);
                PIN(a[i]);
            }
        }
        UNROLL
        for (size_t i = 0; i < PROBE_SUMS; i++)
            sum[i] = vpadalq_s16(sum[i], a[i]);
    }
    UNROLL
    for (size_t i = 1; i < PROBE_SUMS; i++)
        sum[0] = vaddq_s32(sum[0], sum[i]);
    return (uint32_t)vaddvq_s32(sum[0]);
}

bool tern_kernels_init_neon(struct tern_kernels *k)
{
    init_lanes(k);
    k->screen4 = screen4;
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_read = probe_read;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_SUMS * PROBE_STEPS * 8;
    return true;
}

#else

bool tern_kernels_init_neon(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
