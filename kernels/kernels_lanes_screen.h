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

/* Bytes that rows are prefetched ahead of their use, and how many rows far from each other are read side by
 * side: while it computes, a Zen 3 core does not look far enough ahead by itself, and of one stream it takes
 * less.  One vector from memory, GB/s with one thread and two: two streams 21.9 and 33, with 2 KiB ahead 20.7
 * and 37; four with 1 KiB ahead 26 and 46, 2 KiB 24 and 41, 4 KiB 23 and 43; eight 20 and 30. */
#define SCREEN_AHEAD   1024
#define SCREEN_STREAMS 4

/* Columns [c, c + n_cols) of n_rows rows from r on, `gap` rows apart, times vectors j .. j + n_x - 1; at
 * most 8 products.  The sums are those of the columns before, unless there were none. */
INLINE void screen_dots(const struct tern_screen *s, size_t r, size_t gap, size_t j, size_t c, size_t n_cols,
                        const size_t n_rows, const size_t n_x, const bool ahead, int32_t *y)
{
    const size_t far = gap * s->k_pad;
    const int8_t *w = (const int8_t *)s->w + r * s->k_pad + c;
    const int16_t *x = s->x + j * s->k_pad + c;
    struct dots a[8];
    UNROLL
    for (size_t p = 0; p < n_rows * n_x; p++)
        a[p] = dots_zero();
    for (size_t i = 0; i < n_cols; i += DOT_COLS) {
        UNROLL
        for (size_t row = 0; row < n_rows; row++) {
            struct shorts wv = widen_codes(w + row * far + i);
            if (ahead)
                __builtin_prefetch(w + row * far + i + SCREEN_AHEAD);
            UNROLL
            for (size_t v = 0; v < n_x; v++)
                a[row * n_x + v] = dots_add(a[row * n_x + v], wv, x + v * s->k_pad + i);
        }
    }
    UNROLL
    for (size_t p = 0; p < n_rows * n_x; p++) {
        int32_t *at = y + (j + p % n_x) * s->y_stride + p / n_x * gap;
        *at = dots_sum(a[p]) + (c ? *at : 0);
    }
}

/* Rows [r, last), n_rows at a time: neighbours, or streams far from each other. */
INLINE void screen_side(const struct tern_screen *s, size_t r, size_t last, size_t j, size_t c, size_t n_cols,
                        const size_t n_rows, const size_t n_x, const bool streams, int32_t *y)
{
    const size_t n = (last - r) / n_rows;
    for (size_t i = 0; i < n; i++) {
        const size_t at = streams ? i : i * n_rows;
        screen_dots(s, r + at, streams ? n : 1, j, c, n_cols, n_rows, n_x, streams, y + at);
    }
    for (size_t i = n * n_rows; i < last - r; i++)
        screen_dots(s, r + i, 1, j, c, n_cols, 1, n_x, false, y + i);
}

/* All vectors times a block of rows. */
INLINE void screen_block(const struct tern_screen *s, size_t r, size_t last, int32_t *y)
{
    for (size_t c = 0; c < s->k_pad; c += SCREEN_COLS) {
        size_t n = s->k_pad - c < SCREEN_COLS ? s->k_pad - c : SCREEN_COLS, j = 0;
        for (; j + 4 <= s->n_x; j += 4)
            if (j == 0) /* the rows come from memory */
                screen_side(s, r, last, 0, c, n, 2, 4, true, y);
            else
                screen_side(s, r, last, j, c, n, 2, 4, false, y);
        switch (s->n_x - j) {
        case 3: screen_side(s, r, last, j, c, n, 2, 3, false, y); break;
        case 2: screen_side(s, r, last, j, c, n, 4, 2, false, y); break;
        case 1: screen_side(s, r, last, j, c, n, 4, 1, false, y); break;
        default: break;
        }
    }
}

static void screen(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    switch (s->n_x) { /* few vectors: each row to its end */
    case 1: screen_side(s, row_first, row_last, 0, 0, s->k_pad, SCREEN_STREAMS, 1, true, s->y); return;
    case 2: screen_side(s, row_first, row_last, 0, 0, s->k_pad, SCREEN_STREAMS, 2, true, s->y); return;
    default: break;
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
