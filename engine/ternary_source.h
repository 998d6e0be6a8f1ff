/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way from a ternary matrix of a file to ternary values, whatever type it has there: checks its shape
 * against its type, finds its scale, and says how kernels/pack.h is to read it.
 *
 * Loading packs what it says into tiles; conversion reads it row by row.
 */
#ifndef TERN_ENGINE_TERNARY_SOURCE_H
#define TERN_ENGINE_TERNARY_SOURCE_H

#include "engine/gguf.h"
#include "engine/model_file.h"
#include "engine/pool.h"
#include "kernels/pack.h"

struct tern_ternary_source {
    const struct tern_gguf *g; /* borrowed, as is the next */
    const struct tern_tensor *t;
    struct tern_trits trits; /* of kernels/pack.h */
};

/*
 * Types of ternary matrices, and where the scale comes from:
 *
 * I2_S, TL1, TL2   the number behind the codes.
 * TQ1_0, TQ2_0     the blocks, which must all have the same unless they hold zeros alone.  Tern has one scale
 *                  a matrix, so a file whose blocks differ is refused: it was quantised block by block from
 *                  weights that were not ternary, and any one scale would change what it computes.
 * HF packed        the view.
 * F32, F16, BF16   when all values are 0 and plus or minus one number: that number.  Else, when the view says
 *                  that they are master weights or the options say `quantize`: t = clamp(round-half-even(W *
 *                  s), -1, 1) with s = 1 / max(mean|W|, 1e-5), and the scale is 1 / s (tern_pack_absmean).
 *                  Master weights of the view are always read so, whatever they hold.
 *
 * TL1 and TL2 need their tiles: those of the options, or those published for the shape.
 *
 * Reads the whole tensor, with all threads of pool, where the scale has to be found in it first (floats);
 * otherwise nothing.  Refuses what cannot be a ternary matrix with a sentence.  The result does not depend on
 * the number of threads.
 */
enum tern_status tern_ternary_open(const struct tern_gguf *g, const struct tern_tensor *t,
                                   struct tern_pool *pool, struct tern_ternary_source *out,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* True for types that tern_ternary_open knows. */
bool tern_ternary_type(uint32_t type);

/* The tiles in which a TL1 or TL2 tensor of g lies; false when nobody says. */
bool tern_ternary_tiles(const struct tern_gguf *g, const struct tern_tensor *t, struct tern_tl_tiles *out);

/* Packs the whole matrix into tiles (tern_pack_bytes of room) with all threads; *scale is what a weight of 1
 * stands for, 0 when a matrix of TQ or float type holds zeros alone. */
enum tern_status tern_ternary_pack(const struct tern_ternary_source *s, struct tern_pool *pool,
                                   enum tern_tile_layout layout, uint8_t *tiles, float *scale,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* Rows [first, last) as -1, 0, +1 into w [last - first][k].  *scale: of the weights seen; 0 when there were
 * none (TQ types), or in the whole matrix (floats).  Any thread. */
enum tern_status tern_ternary_rows(const struct tern_ternary_source *s, size_t first, size_t last, int8_t *w,
                                   float *scale, struct tern_err *err) TERN_MUST_CHECK;

#endif
