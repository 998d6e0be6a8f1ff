/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the ternary types of files to Tern's tiles (kernels.h), and back.
 *
 * Every function works on tile rows [tile_first, tile_last) so that threads can share a matrix.  Sources are
 * hostile: a code 3 in I2_S, a byte of TQ1_0 that no encoder writes, a float that is not ternary, or block
 * scales that differ are reported, never used.
 */
#ifndef TERN_KERNELS_PACK_H
#define TERN_KERNELS_PACK_H

#include "kernels/kernels.h"
#include "kernels/pack_tl.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ggml type ids of ternary matrices, and one of our own: TL1 and TL2 are those of the bitnet forks. */
#define TERN_TYPE_TQ1_0     34
#define TERN_TYPE_TQ2_0     35
#define TERN_TYPE_I2_S      36
#define TERN_TYPE_TL1       38
#define TERN_TYPE_TL2       39
#define TERN_TYPE_HF_PACKED 1000 /* uint8 [m/4][k] of Hugging Face: a quarter of the rows in each two bits */

/* The three bit layouts that hide behind I2_S. */
enum tern_i2s_layout { TERN_I2S_A, TERN_I2S_B, TERN_I2S_C };

enum tern_pack_result {
    TERN_PACK_OK,
    TERN_PACK_BAD_CODE, /* a code that is not a ternary value */
    TERN_PACK_SCALES,   /* TQ types: blocks with weights differ in scale, and tiles have one for all */
    TERN_PACK_BAD_SCALE /* a scale that is negative, infinite or NaN */
};

/* "2bit", "1.6bit": what options and output call them. */
const char *tern_pack_layout_name(enum tern_tile_layout layout);

/* k rounded up to whole groups of columns. */
size_t tern_pack_k_pad(enum tern_tile_layout layout, size_t k);
/* k rounded up so that a row of that many codes serves the tiles of either layout. */
size_t tern_pack_codes(size_t k);
size_t tern_pack_tiles(size_t m);
/* Bytes of one tile, and of all tiles of an m x k matrix.  False when that does not fit a size_t. */
size_t tern_pack_tile_bytes(enum tern_tile_layout layout, size_t k);
bool tern_pack_bytes(enum tern_tile_layout layout, size_t m, size_t k, size_t *bytes);

/* A matrix of ternary values as a file has it: m rows of k elements.  TQ types: k is a multiple of 256; I2_S:
 * m * k is one of 128 for layout A, of 64 for B; m is one of 4 for C.  TL types: the tiles fit. */
struct tern_trits {
    uint32_t type;            /* TERN_TYPE_*, or TERN_F32, TERN_F16, TERN_BF16 */
    enum tern_i2s_layout i2s; /* of I2_S */
    struct tern_tl_tiles tl;  /* of TL1 and TL2 */
    const uint8_t *src;       /* the tensor's bytes as in the file */
    size_t m, k;
    /* Not 0: row 2j of each of so many heads is the file's row j of it, row 2j + 1 the file's row j + d/2.  m
     * is a multiple of twice as many. */
    size_t n_heads;
    /* Of floats: t = clamp(round-half-even(w * absmean_s), -1, 1); when it is 0 they must be 0, scale or
     * -scale. */
    float absmean_s;
    float scale; /* what 1 stands for; of floats and HF packed, the others have theirs in the tensor */
};

/* One matrix on its way from a file to tiles. */
struct tern_packing {
    struct tern_trits from;
    enum tern_tile_layout layout;
    uint8_t *tiles; /* tern_pack_bytes() of room, tile 0 first, 64-byte aligned */
};

/*
 * Packs tiles [tile_first, tile_last).
 *
 * *scale gets the one scale of the weights seen in this range (0 when the range of a TQ matrix holds none);
 * for TQ types the caller compares the ranges.  Ternary values of a TQ block whose scale is 0 are all zero.
 */
enum tern_pack_result tern_pack(const struct tern_packing *p, size_t tile_first, size_t tile_last,
                                float *scale);

/* Rows [first, last) as -1, 0, +1 into w [last - first][k]; *scale as of tern_pack. */
enum tern_pack_result tern_pack_rows(const struct tern_trits *from, size_t first, size_t last, int8_t *w,
                                     float *scale);

/*
 * What tern_trits wants to know of floats (type F32, F16 or BF16).
 *
 * Sum: of the magnitudes, in a fixed order; not finite when one of them is not.
 * Absmean, of a matrix of n weights with that sum: s = 1 / max(mean, 1e-5) and scale = 1 / s, each rounded to
 * f32, the mean before; of F16 the scale is rounded to f16 after, as its published conversions are.
 * Extremes: the smallest and the largest magnitude of weights that are not 0; both 0 when there are none.
 */
double tern_pack_sum(uint32_t type, const uint8_t *src, size_t n);
void tern_pack_absmean(uint32_t type, double sum, size_t n, float *s, float *scale);
void tern_pack_extremes(uint32_t type, const uint8_t *src, size_t n, float *least, float *most);

/* The weight -1, 0 or +1 at (row, col) of the packed tiles of a matrix of k columns; padding included. */
int tern_unpack_at(enum tern_tile_layout layout, const uint8_t *tiles, size_t k, size_t row, size_t col);

/* Writes m x k ternary values w (row-major, -1/0/+1) as a tensor of I2_S, TQ1_0 or TQ2_0; dst has the bytes
 * that such a tensor takes in a file.  False when the type cannot have the shape.  (TL1 and TL2:
 * tern_tl_write.) */
bool tern_pack_file(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k,
                    float scale, uint8_t *dst);

/*
 * The same in ranges of rows, which threads may share: a tensor is the bytes of its ranges one behind the
 * other, and then the tail.  Ranges begin at multiples of the unit and end at one or at m.
 */

/* 0 when the type cannot have the shape. */
size_t tern_pack_file_unit(uint32_t type, enum tern_i2s_layout layout, size_t m, size_t k);
/* Bytes of the rows in front of `row`, a multiple of the unit or m. */
size_t tern_pack_file_offset(uint32_t type, size_t k, size_t row);
/* w [rows][k] to dst, which has room for tern_pack_file_offset(type, k, rows). */
void tern_pack_file_rows(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, size_t rows, size_t k,
                         float scale, uint8_t *dst);
#define TERN_PACK_TAIL_BYTES 32
/* What follows the rows: the scale of I2_S.  Returns how many bytes, 0 for types that have none. */
size_t tern_pack_file_tail(uint32_t type, float scale, uint8_t tail[static TERN_PACK_TAIL_BYTES]);

#endif
