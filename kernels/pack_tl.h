/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TL1 and TL2: types of files in which weights lie as the indexes into look-up tables that bitnet.cpp's
 * kernels want, in the order in which those kernels go through a matrix.
 *
 * That order depends on three tile sizes a shape, which the program that wrote a file took from its own
 * configuration and did not store.  They are known for the shapes that bitnet.cpp ships, and have to be told
 * for others.
 */
#ifndef TERN_KERNELS_PACK_TL_H
#define TERN_KERNELS_PACK_TL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tiles of TL1 or TL2 for matrices of m x k: bm rows and by columns to a block, rows of which go in
 * strips of `strip` (BM, BY and bm of the programs that write such files). */
struct tern_tl_tiles {
    uint32_t m, k;
    uint32_t bm, by, strip;
};

/* The tiles that bitnet.cpp ships for matrices of this shape; false when it ships none. */
bool tern_tl_tiles_published(uint32_t type, size_t m, size_t k, struct tern_tl_tiles *out);

/* Whether a matrix of type TL1 or TL2 can have these tiles: everything divides, and the codes fit into what
 * the type reserves for them. */
bool tern_tl_tiles_fit(uint32_t type, const struct tern_tl_tiles *tiles);

/* Bytes in front of the scale: a tensor has 32 more.  False for shapes that no tensor of the type can have,
 * whatever the tiles, and for sizes that do not fit. */
bool tern_tl_bytes(uint32_t type, uint64_t m, uint64_t k, size_t *bytes);

/* Writes m x k ternary values (row-major, -1/0/+1) as a tensor.  The tiles fit. */
void tern_tl_write(uint32_t type, const struct tern_tl_tiles *tiles, const int8_t *w, float scale,
                   uint8_t *dst);

#endif
