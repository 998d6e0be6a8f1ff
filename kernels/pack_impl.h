/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of pack.h: rows of a file's ternary matrix opened to codes, one a byte.
 *
 * A code is the weight plus one: 0, 1 or 2.  Where a file's bytes are bad the codes may be anything, and the
 * reader remembers it.
 */
#ifndef TERN_KERNELS_PACK_IMPL_H
#define TERN_KERNELS_PACK_IMPL_H

#include "kernels/pack.h"
#include "kernels/pack_tl.h"

#define TQ_BLOCK    256
#define TQ1_0_BYTES 54
#define TQ2_0_BYTES 66

/* Columns at a time: whole blocks of every file type and whole groups of both layouts. */
#define SPAN 1280
/* A span may begin and end inside a block of the file: room for one more on each side. */
#define LINE (SPAN + 2 * TQ_BLOCK)

/* One matrix being read, and what its bytes have shown so far. */
struct pack_reader {
    const struct tern_trits *from;
    /* Of floats, as the bits of magnitudes: weights from `one` on are not 0, from `inf` on not finite. */
    uint32_t one, inf;
    bool bad_code;  /* a code 3, a byte no encoder writes, a float that is not ternary */
    bool bad_scale; /* negative, infinite or NaN */
    bool differ;    /* two blocks with weights have different scales */
    float scale;    /* of the matrix; of TQ types, of the blocks with weights, 0 when there were none */
};

void tern_pack_read_begin(struct pack_reader *r, const struct tern_trits *from);

/* Columns [c, c + n) of a row; c is a multiple of SPAN, c + n too or the end of the row.  Returns where they
 * begin in line [LINE]. */
const uint8_t *tern_pack_read(struct pack_reader *r, size_t row, size_t c, size_t n, uint8_t *line);

enum tern_pack_result tern_pack_read_end(const struct pack_reader *r, float *scale);

/* The same for floats: elements [first, first + n) of the flat matrix. */
void tern_pack_begin_floats(struct pack_reader *r);
void tern_pack_read_floats(struct pack_reader *r, size_t first, size_t n, uint8_t *line);

/* The same for the two types of pack_tl.h: *bad gets non-zero when a code is none. */
const uint8_t *tern_tl_read(const struct tern_trits *from, size_t row, size_t c, size_t n, uint8_t *line,
                            uint32_t *bad);

#endif
