/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A min-heap of 64-bit keys in an array the caller owns, four children to a node (half the cache misses of
 * two). The order of what is popped depends on the keys alone, never on the order of pushing.
 */
#ifndef TERN_ENGINE_HEAP64_H
#define TERN_ENGINE_HEAP64_H

#include <stddef.h>
#include <stdint.h>

static inline void tern_heap_sink(uint64_t *h, size_t n, size_t i)
{
    uint64_t key = h[i];

    for (;;) {
        size_t child = 4 * i + 1, best = child, end = child + 4 < n ? child + 4 : n;

        if (child >= n)
            break;
        for (size_t c = child + 1; c < end; c++)
            if (h[c] < h[best])
                best = c;
        if (h[best] >= key)
            break;
        h[i] = h[best];
        i = best;
    }
    h[i] = key;
}

/* Makes a heap of n keys in any order: O(n). */
static inline void tern_heap_build(uint64_t *h, size_t n)
{
    for (size_t i = n / 4 + 1; i-- > 0;)
        if (i < n)
            tern_heap_sink(h, n, i);
}

/* The caller has made room for one more. */
static inline void tern_heap_push(uint64_t *h, size_t *n, uint64_t key)
{
    size_t i = (*n)++;

    while (i > 0 && h[(i - 1) / 4] > key) {
        h[i] = h[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    h[i] = key;
}

/* *n > 0. */
static inline uint64_t tern_heap_pop(uint64_t *h, size_t *n)
{
    uint64_t least = h[0];

    h[0] = h[--*n];
    if (*n > 0)
        tern_heap_sink(h, *n, 0);
    return least;
}

#endif
