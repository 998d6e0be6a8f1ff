/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screened copy of a matrix over the lanes of the contract; see kernels_lanes.h.
 *
 * Weights are widened to 16 bits and multiplied in pairs.  One vector runs at the speed of memory; several
 * share the widened weights, and rows and columns are taken in blocks, so that what a product reads comes
 * from the first cache: four vectors of COLS columns are 16 KiB, ROWS rows of them 32 KiB in the second.
 */
#ifndef TERN_KERNELS_LANES_SCREEN_H
#define TERN_KERNELS_LANES_SCREEN_H

#include "kernels/kernels_lanes.h"

#ifdef TERN_HAVE_LANES

#define SCREEN_ROWS 16
#define SCREEN_COLS 2048

/* Columns [c, c + n_cols) of rows r .. r + n_rows - 1 times vectors j .. j + n_x - 1; at most 8 products.
 * The sums are those of the columns before, unless there were none. */
INLINE void screen_dots(const struct tern_screen *s, size_t r, size_t j, size_t c, size_t n_cols,
                        const size_t n_rows, const size_t n_x, int32_t *y)
{
    const int8_t *w = (const int8_t *)s->w + r * s->k_pad + c;
    const int16_t *x = s->x + j * s->k_pad + c;
    struct dots a[8];
    for (size_t p = 0; p < n_rows * n_x; p++)
        a[p] = dots_zero();
    for (size_t i = 0; i < n_cols; i += DOT_COLS) {
        for (size_t row = 0; row < n_rows; row++) {
            struct shorts wv = widen_codes(w + row * s->k_pad + i);
            for (size_t v = 0; v < n_x; v++)
                a[row * n_x + v] = dots_add(a[row * n_x + v], wv, x + v * s->k_pad + i);
        }
    }
    for (size_t row = 0; row < n_rows; row++)
        for (size_t v = 0; v < n_x; v++) {
            int32_t *at = y + (j + v) * s->y_stride + row;
            *at = dots_sum(a[row * n_x + v]) + (c ? *at : 0);
        }
}

INLINE void screen_side(const struct tern_screen *s, size_t r, size_t last, size_t j, size_t c, size_t n_cols,
                        const size_t n_rows, const size_t n_x, int32_t *y)
{
    size_t i = r;
    for (; i + n_rows <= last; i += n_rows)
        screen_dots(s, i, j, c, n_cols, n_rows, n_x, y + (i - r));
    for (; i < last; i++)
        screen_dots(s, i, j, c, n_cols, 1, n_x, y + (i - r));
}

/* All vectors times a block of rows. */
INLINE void screen_block(const struct tern_screen *s, size_t r, size_t last, int32_t *y)
{
    for (size_t c = 0; c < s->k_pad; c += SCREEN_COLS) {
        size_t n = s->k_pad - c < SCREEN_COLS ? s->k_pad - c : SCREEN_COLS, j = 0;
        for (; j + 4 <= s->n_x; j += 4)
            screen_side(s, r, last, j, c, n, 2, 4, y);
        switch (s->n_x - j) {
        case 3: screen_side(s, r, last, j, c, n, 2, 3, y); break;
        case 2: screen_side(s, r, last, j, c, n, 4, 2, y); break;
        case 1: screen_side(s, r, last, j, c, n, 4, 1, y); break;
        default: break;
        }
    }
}

static void screen(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    if (s->n_x == 1) { /* reads each row to its end */
        screen_side(s, row_first, row_last, 0, 0, s->k_pad, 4, 1, s->y);
        return;
    }
    for (size_t r = row_first; r < row_last; r += SCREEN_ROWS) {
        size_t last = row_last - r < SCREEN_ROWS ? row_last : r + SCREEN_ROWS;
        screen_block(s, r, last, s->y + (r - row_first));
    }
}

/* -- encoding -------------------------------------------------------------------------------------------- */

static bool screen_scale(const float *w, size_t k, float levels, struct tern_screen_row *out)
{
    struct v16 ww = set16(0.0f);
    uint32_t bits = absmax16(w, k, 0);
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        struct v16 v = load16(w + i);
        ww = fma16(v, v, ww);
    }
    if (i < k) {
        struct v16 v = load16n(w + i, k - i);
        ww = fma16n(v, v, ww, k - i);
    }
    out->norm_sq = fold(ww);
    out->scale = f32_from_bits(bits) < 1e-30f ? 0.0f : f32_from_bits(bits) / levels;
    if (bits < 0x7f800000u)
        return true;
    *out = (struct tern_screen_row){ 0.0f, INFINITY, INFINITY };
    return false;
}

/* The codes of at most sixteen weights; ee grows by what they lose.  |v * inv| is below the largest code plus
 * a half, since d is a normal number. */
INLINE struct i16 screen_codes(struct v16 v, float d, float inv, size_t n, struct v16 *ee)
{
    struct i16 q = round16(mul16(v, set16(inv)));
    struct v16 e = fma16(floats16(q), set16(-d), v);
    *ee = n >= 16 ? fma16(e, e, *ee) : fma16n(e, e, *ee, n);
    return q;
}

static void screen_row(const float *w, size_t k, size_t k_pad, int8_t *q, struct tern_screen_row *out)
{
    memset(q + k, 0, k_pad - k);
    if (!screen_scale(w, k, 127.0f, out)) {
        memset(q, 0, k);
        return;
    }
    float d = out->scale, inv = d == 0.0f ? 0.0f : 1.0f / d;
    struct v16 ee = set16(0.0f);
    size_t i = 0;
    for (; i + 16 <= k; i += 16)
        store_bytes_n(q + i, narrow16(screen_codes(load16(w + i), d, inv, 16, &ee)), 16);
    if (i < k)
        store_bytes_n(q + i, narrow16(screen_codes(load16n(w + i, k - i), d, inv, k - i, &ee)), k - i);
    out->error_sq = fold(ee);
}

static void screen4_row(const float *w, size_t k, size_t k_pad, uint8_t *q, struct tern_screen_row *out)
{
    if (!screen_scale(w, k, 7.0f, out)) {
        memset(q, 0x88, k_pad / 2);
        return;
    }
    float d = out->scale, inv = d == 0.0f ? 0.0f : 1.0f / d;
    struct v16 ee = set16(0.0f);
    for (size_t g = 0; g < k_pad; g += TERN_SCREEN_COLS) {
        struct b16 part[4];
        for (size_t p = 0; p < 4; p++) {
            size_t i = g + 16 * p, n = i < k ? k - i : 0;
            part[p] = set_bytes(8);
            if (n) /* a code plus 8; padding has code 0 */
                part[p] =
                    sub_bytes(narrow16(screen_codes(load16n(w + i, n), d, inv, n, &ee)), set_bytes(0xf8));
        }
        for (size_t p = 0; p < 2; p++)
            store_bytes_n(q + g / 2 + 16 * p, or_bytes(part[p], to_high_nibbles(part[p + 2])), 16);
    }
    out->error_sq = fold(ee);
}

static void init_screen(struct tern_kernels *k)
{
    k->screen = screen;
    k->screen_row = screen_row;
    k->screen4_row = screen4_row;
}

#endif
#endif
