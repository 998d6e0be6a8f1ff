/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 4-bit screened copy for the ARM levels: the walk over rows and vectors, around a level's own product.
 *
 * Sixteen bytes of a row are columns j .. j + 15 in their low nibbles and j + 32 .. j + 47 in their high
 * ones.
 */
#ifndef TERN_KERNELS_NEON_SCREEN4_H
#define TERN_KERNELS_NEON_SCREEN4_H

#include "kernels/kernels.h"
#include "kernels/kernels_neon.h"

#ifdef TERN_HAVE_LANES

/* Rows that share the loads of a vector. */
#define NIBBLE_ROWS 4

/* n rows, row_bytes apart, times x: *dot .. each the sum of nibble times activation. */
typedef void nibble_fn(const uint8_t *w, size_t row_bytes, const int8_t *x, const size_t n, int32_t *dot);

INLINE void screen4_rows(const struct tern_screen *s, size_t r, const size_t n, int32_t *y,
                         nibble_fn *product)
{
    const size_t row_bytes = s->k_pad / 2;
    for (size_t j = 0; j < s->n_x; j++) {
        int32_t dot[NIBBLE_ROWS];
        product((const uint8_t *)s->w + r * row_bytes, row_bytes, s->x8 + j * s->k_pad, n, dot);
        for (size_t p = 0; p < n; p++)
            y[j * s->y_stride + p] = dot[p] - 8 * s->x_sum[j];
    }
}

INLINE void screen4_all(const struct tern_screen *s, size_t row_first, size_t row_last, nibble_fn *product)
{
    size_t r = row_first;
    for (; r + NIBBLE_ROWS <= row_last; r += NIBBLE_ROWS)
        screen4_rows(s, r, NIBBLE_ROWS, s->y + (r - row_first), product);
    for (; r < row_last; r++)
        screen4_rows(s, r, 1, s->y + (r - row_first), product);
}

#endif
#endif
