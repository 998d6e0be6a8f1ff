/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounding at layer boundaries.
 *
 * The residual stream is rounded to the boundary format in front of the first layer, between any two layers
 * and behind the last, whether a wire is there or not: so every way of cutting a model into workers gives
 * the same bits, and what crosses a wire is exactly what a single process would have kept.  The bytes of a
 * row are also the wire's payload, little-endian:
 *
 *   f32      n x f32
 *   f16      n x f16, round to nearest even
 *   int8-32  ceil(n/32) x f32 scales, then n x int8; "int8-64" and "int8-row" with blocks of 64 and n
 *   int8     ceil(n/64) x f32: the elements of largest magnitude, exactly; as many x u16: their places,
 *            ascending; then as int8-32 the row with zeros in these places
 *   int8x2   ceil(n/32) x f32 scales, then n x int8 high plane, then n x int8 low plane
 */
#ifndef TERN_ENGINE_BOUNDARY_H
#define TERN_ENGINE_BOUNDARY_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Why int8 sets its largest elements apart: the residual stream of large models has a few channels that are
 * tens to thousands of times larger than the rest, and one of them in a block takes the resolution from all
 * its neighbours.  The table that decided is in engine/BOUNDARY.md.
 *
 * The numbers are on the wire: never reused.
 */
enum tern_boundary {
    TERN_BOUNDARY_F32 = 1,
    TERN_BOUNDARY_F16 = 2,
    TERN_BOUNDARY_INT8 = 3,
    TERN_BOUNDARY_INT8X2 = 4,
    TERN_BOUNDARY_INT8_64 = 5,
    TERN_BOUNDARY_INT8_ROW = 6,
    TERN_BOUNDARY_INT8_32 = 7
};
#define TERN_BOUNDARY_DEFAULT TERN_BOUNDARY_INT8

const char *tern_boundary_name(enum tern_boundary b);
bool tern_boundary_by_name(const char *name, enum tern_boundary *out);
/* True for the numbers above. */
bool tern_boundary_valid(uint32_t number);

/* Bytes of one encoded row of n elements. */
size_t tern_boundary_row_bytes(enum tern_boundary b, size_t n);

void tern_boundary_encode(enum tern_boundary b, const struct tern_kernels *k, const float *x, size_t n,
                          uint8_t *row);

/* Decodes bytes that may come from a hostile peer.  False when a value is not finite, a scale is negative,
 * or a place is out of order. */
bool tern_boundary_decode(enum tern_boundary b, const struct tern_kernels *k, const uint8_t *row, size_t n,
                          float *x);

/* Both, in place: x becomes what the row says.  False as above. */
bool tern_boundary_round(enum tern_boundary b, const struct tern_kernels *k, float *x, size_t n,
                         uint8_t *row);

#endif
