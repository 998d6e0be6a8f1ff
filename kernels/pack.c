/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary tensors of files to tiles and to rows.
 *
 * Packing goes tile by tile in chunks of SPAN columns: sixteen rows are opened to one code a byte
 * (pack_open.c, into buffers that stay in the first cache), then closed: sixteen vectors of four rows by four
 * columns are turned so that a lane is a row, and the columns that share a byte are put together by shifts or
 * by multiplying by three.  Plain vectors of sixteen bytes do both at the speed of memory, so there is no op
 * for it in the table.  All data is little-endian.
 */
#include "kernels/pack_impl.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is little-endian and is read in place"
#endif

_Static_assert(SPAN % TQ_BLOCK == 0 && SPAN % TERN_TILE_COLS == 0 && SPAN % TERN_TILE_COLS_5TRIT == 0,
               "a span is whole blocks and whole groups");

/* Sixteen bytes; as words, a lane is one row and its bytes are four neighbouring columns. */
typedef uint8_t v16b __attribute__((vector_size(16)));
typedef uint32_t v4w __attribute__((vector_size(16)));

static size_t group_cols(enum tern_tile_layout layout)
{
    return layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
}

const char *tern_pack_layout_name(enum tern_tile_layout layout)
{
    return layout == TERN_TILES_2BIT ? "2bit" : "1.6bit";
}

size_t tern_pack_k_pad(enum tern_tile_layout layout, size_t k)
{
    size_t cols = group_cols(layout);
    return k / cols * cols + (k % cols ? cols : 0);
}

size_t tern_pack_codes(size_t k)
{
    return k / 80 * 80 + (k % 80 ? 80 : 0);
}

size_t tern_pack_tiles(size_t m)
{
    return m / TERN_TILE_ROWS + (m % TERN_TILE_ROWS != 0);
}

size_t tern_pack_tile_bytes(enum tern_tile_layout layout, size_t k)
{
    return tern_pack_k_pad(layout, k) / group_cols(layout) * TERN_TILE_GROUP_BYTES;
}

bool tern_pack_bytes(enum tern_tile_layout layout, size_t m, size_t k, size_t *bytes)
{
    size_t all;
    if (k > SIZE_MAX / 4 - TERN_TILE_COLS_5TRIT ||
        __builtin_mul_overflow(tern_pack_tile_bytes(layout, k), tern_pack_tiles(m), &all))
        return false;
    *bytes = all;
    return true;
}

/* -- codes to tiles -------------------------------------------------------------------------------------- */

static inline v4w load_v4w(const uint8_t *p)
{
    v4w v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Four rows of four words: word i of row j becomes lane j of vector i. */
static inline void turn(const uint8_t *const rows[4], size_t at, v4w w[4])
{
    v4w a = load_v4w(rows[0] + at), b = load_v4w(rows[1] + at);
    v4w c = load_v4w(rows[2] + at), d = load_v4w(rows[3] + at);
    v4w ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4w cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    w[0] = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
    w[1] = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
    w[2] = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
    w[3] = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
}

/* One word of each of four rows. */
static inline v4w gather(const uint8_t *const rows[4], size_t at)
{
    uint32_t w[4];
    for (size_t i = 0; i < 4; i++)
        memcpy(&w[i], rows[i] + at, sizeof w[i]);
    return (v4w){ w[0], w[1], w[2], w[3] };
}

/* Columns [0, n) of sixteen rows of codes, n whole groups, to the groups of a tile from out on. */
static void close_2bit(const uint8_t *const codes[TERN_TILE_ROWS], size_t n, uint8_t *out)
{
    for (size_t c = 0; c < n; c += TERN_TILE_COLS, out += TERN_TILE_GROUP_BYTES) {
        for (size_t r = 0; r < TERN_TILE_ROWS; r += 4) {
            v4w w[4];
            turn(codes + r, c, w);
            w[0] |= w[1] << 2 | w[2] << 4 | w[3] << 6; /* codes have two bits: nothing leaves its byte */
            memcpy(out + 4 * r, &w[0], sizeof w[0]);
        }
    }
}

static void close_5trit(const uint8_t *const codes[TERN_TILE_ROWS], size_t n, uint8_t *out)
{
    for (size_t c = 0; c < n; c += TERN_TILE_COLS_5TRIT, out += TERN_TILE_GROUP_BYTES) {
        for (size_t r = 0; r < TERN_TILE_ROWS; r += 4) {
            v4w w[4];
            turn(codes + r, c, w);
            v16b b = (v16b)gather(codes + r, c + 16);
            for (size_t i = 4; i-- > 0;)
                b = b + b + b + (v16b)w[i];
            memcpy(out + 4 * r, &b, sizeof b);
        }
    }
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static void pack_tile(const struct tern_packing *p, size_t t, uint8_t lines[TERN_TILE_ROWS][LINE],
                      struct pack_reader *reader)
{
    size_t cols = group_cols(p->layout), k_pad = tern_pack_k_pad(p->layout, p->from.k);
    uint8_t *out = p->tiles + t * tern_pack_tile_bytes(p->layout, p->from.k);
    for (size_t c = 0; c < p->from.k; c += SPAN) {
        const uint8_t *codes[TERN_TILE_ROWS];
        size_t n = p->from.k - c < SPAN ? p->from.k - c : SPAN, n_pad = k_pad - c < SPAN ? k_pad - c : SPAN;
        for (size_t r = 0; r < TERN_TILE_ROWS; r++) {
            size_t row = t * TERN_TILE_ROWS + r;
            uint8_t *line = lines[r];
            if (row < p->from.m)
                line += tern_pack_read(reader, row, c, n, line) - line;
            memset(line + (row < p->from.m ? n : 0), 1, row < p->from.m ? n_pad - n : n_pad);
            codes[r] = line;
        }
        if (p->layout == TERN_TILES_2BIT)
            close_2bit(codes, n_pad, out);
        else
            close_5trit(codes, n_pad, out);
        out += n_pad / cols * TERN_TILE_GROUP_BYTES;
    }
}

enum tern_pack_result tern_pack(const struct tern_packing *p, size_t tile_first, size_t tile_last,
                                float *scale)
{
    struct pack_reader reader;
    uint8_t lines[TERN_TILE_ROWS][LINE];
    tern_pack_read_begin(&reader, &p->from);
    for (size_t t = tile_first; t < tile_last; t++)
        pack_tile(p, t, lines, &reader);
    return tern_pack_read_end(&reader, scale);
}

enum tern_pack_result tern_pack_rows(const struct tern_trits *from, size_t first, size_t last, int8_t *w,
                                     float *scale)
{
    struct pack_reader reader;
    uint8_t line[LINE];
    tern_pack_read_begin(&reader, from);
    for (size_t row = first; row < last; row++, w += from->k) {
        for (size_t c = 0; c < from->k; c += SPAN) {
            size_t n = from->k - c < SPAN ? from->k - c : SPAN;
            const uint8_t *codes = tern_pack_read(&reader, row, c, n, line);
            for (size_t i = 0; i < n; i++)
                w[c + i] = (int8_t)(codes[i] - 1);
        }
    }
    return tern_pack_read_end(&reader, scale);
}

int tern_unpack_at(enum tern_tile_layout layout, const uint8_t *tiles, size_t k, size_t row, size_t col)
{
    size_t cols = group_cols(layout), at = col % cols;
    const uint8_t *tile = tiles + row / TERN_TILE_ROWS * tern_pack_tile_bytes(layout, k);
    unsigned b = tile[col / cols * TERN_TILE_GROUP_BYTES + row % TERN_TILE_ROWS * 4 + at % 4];
    if (layout == TERN_TILES_2BIT)
        return (int)(b >> at / 4 * 2 & 3) - 1;
    for (size_t i = 0; i < at / 4; i++)
        b /= 3;
    return (int)(b % 3) - 1;
}
