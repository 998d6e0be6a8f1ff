/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The largest elements of a row, for all vector levels.
 *
 * The row is cut into groups of sixteen; the k-th largest of their maxima, rounded down, is reached by at
 * least k elements and by few more, since k is a small share of the row.  Those few are picked out in one
 * sweep, and among them the k-th largest is found bit by bit.
 *
 * Empty when no verbs were included before.
 */
#ifndef TERN_KERNELS_LANES_LARGEST_H
#define TERN_KERNELS_LANES_LARGEST_H

#include "kernels/kernels.h"

#ifdef TERN_HAVE_LANES

#define LARGEST_MAX_N 65536
#define LARGEST_PICKS 512 /* more elements than this within reach: the scalar way */

/* The k-th largest magnitude of v, of which only the bits from `low` on are looked at.  n is a multiple of
 * sixteen. */
INLINE uint32_t kth_magnitude(const float *v, size_t n, size_t k, int low)
{
    uint32_t t = 0;
    for (int bit = 30; bit >= low; bit--) {
        uint32_t u = t | 1u << bit;
        struct i16 at_least = seti16((int32_t)u), count = seti16(0);
        for (size_t i = 0; i < n; i += 16)
            count = count_reach16(count, mags16(v + i), at_least);
        if ((size_t)sumi16(count) >= k)
            t = u;
    }
    return t;
}

/* The maxima of the groups; returns how many, a multiple of sixteen, zeros filled in. */
INLINE size_t group_maxima(const float *x, size_t n, float *maxima)
{
    size_t at = 0;
    for (size_t first = 0; first < n; first += 256, at += 16) {
        size_t end = n - first < 256 ? n : first + 256, i = first;
        struct i16 m = seti16(0);
        for (; i + 16 <= end; i += 16)
            m = maxi16(m, mags16(x + i));
        if (i < end)
            m = maxi16(m, mags16n(x + i, end - i));
        storei16(maxima + at, m);
    }
    return at;
}

static void largest(const float *x, size_t n, size_t k, uint16_t *places)
{
    float maxima[LARGEST_MAX_N / 16], picks[LARGEST_PICKS + 16];
    uint16_t at[LARGEST_PICKS + 16];
    size_t n_picks = 0, need = k, n_out = 0;
    uint32_t reach = kth_magnitude(maxima, group_maxima(x, n, maxima), k, 18);
    struct i16 at_least = seti16((int32_t)reach);

    for (size_t i = 0; i < n; i += 16) {
        size_t left = n - i;
        uint32_t mask = left >= 16 ? reach16(mags16(x + i), at_least)
                                   : reach16(mags16n(x + i, left), at_least) & ((1u << left) - 1);
        if (n_picks > LARGEST_PICKS - 16) {
            largest_scalar(x, n, k, places);
            return;
        }
        for (; mask; mask &= mask - 1) {
            size_t j = i + (size_t)__builtin_ctz(mask);
            at[n_picks] = (uint16_t)j;
            memcpy(&picks[n_picks++], &x[j], sizeof x[j]);
        }
    }
    memset(picks + n_picks, 0, 16 * sizeof picks[0]);
    reach = kth_magnitude(picks, (n_picks + 15) / 16 * 16, k, 0);
    for (size_t i = 0; i < n_picks; i++)
        need -= (f32_bits(picks[i]) & 0x7fffffffu) > reach;
    for (size_t i = 0; n_out < k; i++) {
        uint32_t m = f32_bits(picks[i]) & 0x7fffffffu;
        if (m > reach || (m == reach && need > 0)) {
            need -= m == reach;
            places[n_out++] = at[i];
        }
    }
}

static void init_largest(struct tern_kernels *k)
{
    k->largest = largest;
}

#endif
#endif
