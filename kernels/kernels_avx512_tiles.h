/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ternary products of the AVX-512 levels, written once over the ways to take a group of 64 bytes apart
 * (kernels_avx512_groups.h).  Three loops, by the number of activation rows:
 *   one row       the operands stay scaled inside their bytes (a mask instead of a shift), each with a sum of
 *                 its own that is divided once at the end: bound by reading weights;
 *   2 .. 8 rows   plain codes 0..2, made in registers for each group and used for all rows;
 *   more          plain codes of a few tiles and a block of columns, written to the stack once and used for
 *                 all rows, six at a time: bound by VPDPBUSD.
 *
 * Every accumulator is a variable with a name: gcc 12 keeps arrays of them in memory.
 *
 * Sums cannot overflow.  An accumulator of plain codes takes at most 2 * 127 a column.  A scaled one takes a
 * quarter (2 bits) or a fifth (5 trits) of the columns at 2 * 64 * 127, or 162 * 127 for the top trit: at
 * TERN_TERNARY_MAX_K columns, rounded up to whole groups, 532676608 and 539367984.
 *
 * Included after kernels_avx512.h.
 */
#ifndef TERN_KERNELS_AVX512_TILES_H
#define TERN_KERNELS_AVX512_TILES_H

#include "kernels/kernels_avx512_dot.h"
#include "kernels/kernels_avx512_groups.h"

#ifdef TERN_HAVE_LANES

/* -- what the loops share -------------------------------------------------------------------------------- */

INLINE size_t tile_bytes(const enum codec c, const struct tern_ternary *t)
{
    return t->k_pad / (4 * operands(c)) * TERN_TILE_GROUP_BYTES;
}

INLINE __m512i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Sixteen outputs of a row from their sums of code * q. */
INLINE void finish(const struct tern_ternary *t, size_t tile, size_t row, __m512i sum)
{
    struct i16 dot = { _mm512_sub_epi32(sum, _mm512_set1_epi32(t->act_sum[row])) };
    struct v16 y = mul16(div16(floats16(dot), set16(t->act_scale[row])), set16(t->scale));
    size_t out = tile * TERN_TILE_ROWS;
    store16n(t->y + row * t->y_stride + out, y, t->m - out);
}

/* Sums of one activation row and up to four tiles. */
struct row_sums {
    __m512i t0, t1, t2, t3;
};

INLINE struct row_sums no_sums(void)
{
    __m512i z = _mm512_setzero_si512();
    return (struct row_sums){ z, z, z, z };
}

INLINE struct row_sums add_row(const unsigned n_tiles, struct row_sums s, __m512i w0, __m512i w1, __m512i w2,
                               __m512i w3, const int8_t *q)
{
    __m512i x = broadcast4(q);
    DOT(s.t0, w0, x);
    if (n_tiles > 1)
        DOT(s.t1, w1, x);
    if (n_tiles > 2) {
        DOT(s.t2, w2, x);
        DOT(s.t3, w3, x);
    }
    return s;
}

INLINE void store_row(const unsigned n_tiles, __m512i *to, struct row_sums s)
{
    to[0] = s.t0;
    if (n_tiles > 1)
        to[1] = s.t1;
    if (n_tiles > 2) {
        to[2] = s.t2;
        to[3] = s.t3;
    }
}

/* sums[n_rows][n_tiles] become outputs. */
__attribute__((noinline)) static void finish_all(const struct tern_ternary *t, size_t tile, size_t n_tiles,
                                                 size_t row, size_t n_rows, const __m512i *sums)
{
    for (size_t r = row; r < row + n_rows; r++) {
        for (size_t i = tile; i < tile + n_tiles; i++)
            finish(t, i, r, *sums++);
    }
}

/* How far in front of the loads weights are asked for, all tiles read side by side taken together. */
#define AHEAD_BYTES 8192

/* A tile is read in two stretches: towards its end what comes next is the same tile of the next ones. */
struct stretch {
    size_t bytes, ahead;
};

INLINE struct stretch stretch(const unsigned n_tiles, size_t tile, size_t part)
{
    const size_t far = AHEAD_BYTES / n_tiles, near_end = tile > far ? tile - far : 0;
    return part == 0 ? (struct stretch){ near_end, far }
                     : (struct stretch){ tile - near_end, far + (n_tiles - 1) * tile };
}

INLINE void ask_for(const uint8_t *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead));
}

INLINE void ask_for_tiles(const unsigned n_tiles, const uint8_t *w, size_t stride, size_t ahead)
{
    ask_for(w, ahead);
    if (n_tiles > 1)
        ask_for(w + stride, ahead);
    if (n_tiles > 2) {
        ask_for(w + 2 * stride, ahead);
        ask_for(w + 3 * stride, ahead);
    }
}

/* -- one row --------------------------------------------------------------------------------------------- */

INLINE struct sums add_group(const enum codec c, struct sums s, const uint8_t *p, struct sums x)
{
    struct group g = take_group(c, p);
    DOT(s.s0, scaled_operand(c, g, 0), x.s0);
    DOT(s.s1, scaled_operand(c, g, 1), x.s1);
    DOT(s.s2, scaled_operand(c, g, 2), x.s2);
    DOT(s.s3, scaled_operand(c, g, 3), x.s3);
    if (c != BITS)
        DOT(s.s4, scaled_operand(c, g, 4), x.s4);
    return s;
}

/* n_tiles 1, 2 or 4. */
INLINE void tiles_one_row(const enum codec c, const unsigned n_tiles, const struct tern_ternary *t,
                          size_t tile)
{
    const size_t stride = tile_bytes(c, t);
    const uint8_t *w = t->tiles + tile * stride;
    const int8_t *q = t->q;
    struct sums s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0;
    for (size_t part = 0; part < 2; part++) {
        const struct stretch s = stretch(n_tiles, stride, part);
        for (const uint8_t *end = w + s.bytes; w < end; w += TERN_TILE_GROUP_BYTES, q += 4 * operands(c)) {
            struct sums x = { broadcast4(q), broadcast4(q + 4), broadcast4(q + 8), broadcast4(q + 12) };
            if (c != BITS)
                x.s4 = broadcast4(q + 16);
            ask_for_tiles(n_tiles, w, stride, s.ahead);
            s0 = add_group(c, s0, w, x);
            if (n_tiles > 1)
                s1 = add_group(c, s1, w + stride, x);
            if (n_tiles > 2) {
                s2 = add_group(c, s2, w + 2 * stride, x);
                s3 = add_group(c, s3, w + 3 * stride, x);
            }
        }
    }
    const __m512i sums[4] = { total(c, s0), total(c, s1), total(c, s2), total(c, s3) };
    finish_all(t, tile, n_tiles, 0, 1, sums);
}

INLINE void one_row(const enum codec c, const struct tern_ternary *t, size_t tile, size_t last)
{
    if (c == BITS) { /* with five sums a tile, four tiles need more registers than there are */
        for (; last - tile >= 4; tile += 4)
            tiles_one_row(c, 4, t, tile);
    }
    for (; last - tile >= 2; tile += 2)
        tiles_one_row(c, 2, t, tile);
    if (tile < last)
        tiles_one_row(c, 1, t, tile);
}

/* -- a few rows ------------------------------------------------------------------------------------------ */

#define FEW_ROWS 8

/* n_tiles 1, 2 or 4; n_rows 2 .. FEW_ROWS, all rows of t. */
INLINE void tiles_few_rows(const enum codec c, const unsigned n_tiles, const unsigned n_rows,
                           const struct tern_ternary *t, size_t tile)
{
    const size_t stride = tile_bytes(c, t), qs = t->q_stride;
    const uint8_t *w = t->tiles + tile * stride;
    const int8_t *q = t->q;
    struct row_sums a0 = no_sums(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;
    for (size_t part = 0; part < 2; part++) {
        const struct stretch s = stretch(n_tiles, stride, part);
        for (const uint8_t *end = w + s.bytes; w < end; w += TERN_TILE_GROUP_BYTES, q += 4 * operands(c)) {
            ask_for_tiles(n_tiles, w, stride, s.ahead);
            struct group g0 = take_group(c, w), g1 = g0, g2 = g0, g3 = g0;
            if (n_tiles > 1)
                g1 = take_group(c, w + stride);
            if (n_tiles > 2) {
                g2 = take_group(c, w + 2 * stride);
                g3 = take_group(c, w + 3 * stride);
            }
#define ROW(r, i)                                                                                            \
    if ((r) < n_rows)                                                                                        \
    a##r = add_row(n_tiles, a##r, w0, w1, w2, w3, q + (r)*qs + 4 * (i))
#define OPERAND(i)                                                                                           \
    do {                                                                                                     \
        __m512i w0 = plain_operand(c, g0, i), w1 = w0, w2 = w0, w3 = w0;                                     \
        if (n_tiles > 1)                                                                                     \
            w1 = plain_operand(c, g1, i);                                                                    \
        if (n_tiles > 2) {                                                                                   \
            w2 = plain_operand(c, g2, i);                                                                    \
            w3 = plain_operand(c, g3, i);                                                                    \
        }                                                                                                    \
        ROW(0, i);                                                                                           \
        ROW(1, i);                                                                                           \
        ROW(2, i);                                                                                           \
        ROW(3, i);                                                                                           \
        ROW(4, i);                                                                                           \
        ROW(5, i);                                                                                           \
        ROW(6, i);                                                                                           \
        ROW(7, i);                                                                                           \
    } while (0)
            OPERAND(0);
            OPERAND(1);
            OPERAND(2);
            OPERAND(3);
            if (c != BITS)
                OPERAND(4);
#undef OPERAND
#undef ROW
        }
    }
    __m512i sums[FEW_ROWS * 4];
#define ROW(r)                                                                                               \
    if ((r) < n_rows)                                                                                        \
    store_row(n_tiles, sums + (r)*n_tiles, a##r)
    ROW(0);
    ROW(1);
    ROW(2);
    ROW(3);
    ROW(4);
    ROW(5);
    ROW(6);
    ROW(7);
#undef ROW
    finish_all(t, tile, n_tiles, 0, n_rows, sums);
}

/* As many tiles side by side as keep enough sums going and leave registers for the operands. */
INLINE void few_rows(const enum codec c, const unsigned n_rows, const struct tern_ternary *t, size_t tile,
                     size_t last)
{
    if (n_rows <= (c == BITS ? 4 : c == TRITS ? 2 : 3)) {
        for (; last - tile >= 4; tile += 4)
            tiles_few_rows(c, 4, n_rows, t, tile);
    }
    for (; last - tile >= 2; tile += 2)
        tiles_few_rows(c, 2, n_rows, t, tile);
    if (tile < last)
        tiles_few_rows(c, 1, n_rows, t, tile);
}

/* -- many rows ------------------------------------------------------------------------------------------- */

/* Operands of each of four tiles in the block on the stack: 32 KiB, so that it stays near. */
#define BLOCK_OPERANDS 128
#define BLOCK_TILES    4
#define MANY_ROWS      6 /* at a time: 24 sums */
#define NEAR_BYTES     (512 * 1024)

/* Unfinished sums wait for the next block of columns as 32-bit integers in the place of y.  Of the last tile
 * `least` outputs exist. */
INLINE __m512i waiting(const float *y, size_t least, bool is_last)
{
    return _mm512_castps_si512(is_last ? load16n(y, least).v : load16(y).v);
}

INLINE void park(float *y, size_t least, bool is_last, __m512i sum)
{
    store16n(y, (struct v16){ _mm512_castsi512_ps(sum) }, is_last ? least : TERN_TILE_ROWS);
}

INLINE struct row_sums waiting_row(const unsigned n_tiles, const float *y, size_t least)
{
    struct row_sums s = no_sums();
    s.t0 = waiting(y, least, n_tiles == 1);
    if (n_tiles > 1)
        s.t1 = waiting(y + 16, least, n_tiles == 2);
    if (n_tiles > 2) {
        s.t2 = waiting(y + 32, least, false);
        s.t3 = waiting(y + 48, least, true);
    }
    return s;
}

INLINE void row_waits(const unsigned n_tiles, float *y, size_t least, struct row_sums s)
{
    park(y, least, n_tiles == 1, s.t0);
    if (n_tiles > 1)
        park(y + 16, least, n_tiles == 2, s.t1);
    if (n_tiles > 2) {
        park(y + 32, least, false, s.t2);
        park(y + 48, least, true, s.t3);
    }
}

/* Some columns of 1, 2 or 4 tiles, unpacked. */
struct block {
    const uint8_t *codes; /* [n_operands][n_tiles][64] */
    size_t n_operands;    /* at least one */
    size_t column;        /* the first one */
    bool first, last;
    size_t row_first, row_last; /* it is meant for these rows */
};

/* n_tiles 1, 2 or 4; n_rows 4 .. MANY_ROWS, from `row` on.  No branch leads around the loop, where sums come
 * from and go to are addresses: with branches gcc 12 moves sums from register to register in the loop. */
INLINE void block_rows(const unsigned n_tiles, const unsigned n_rows, const struct tern_ternary *t,
                       const struct block *b, size_t tile, size_t row)
{
    static const float zeros[BLOCK_TILES * TERN_TILE_ROWS];
    alignas(64) float done[MANY_ROWS * BLOCK_TILES * TERN_TILE_ROWS];
    const uint8_t *w = b->codes, *end = w + b->n_operands * n_tiles * 64;
    const size_t qs = t->q_stride, out = tile * TERN_TILE_ROWS;
    const size_t least = t->m - out - (n_tiles - 1) * TERN_TILE_ROWS;
    const int8_t *q = t->q + row * qs + b->column;
    float *y = t->y + row * t->y_stride + out;
    const float *from = b->first ? zeros : y;
    const size_t from_stride = b->first ? 0 : t->y_stride;
    float *to = b->last ? done : y;
    const size_t to_stride = b->last ? n_tiles * TERN_TILE_ROWS : t->y_stride;
    struct row_sums a0 = no_sums(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0;
#define ALL_ROWS(DO)                                                                                         \
    DO(0);                                                                                                   \
    DO(1);                                                                                                   \
    DO(2);                                                                                                   \
    DO(3);                                                                                                   \
    if (n_rows > 4)                                                                                          \
        DO(4);                                                                                               \
    if (n_rows > 5)                                                                                          \
    DO(5)
#define WAITING(r) a##r = waiting_row(n_tiles, from + (r)*from_stride, least)
#define ADD(r)     a##r = add_row(n_tiles, a##r, w0, w1, w2, w3, q + (r)*qs)
#define WAITS(r)   row_waits(n_tiles, to + (r)*to_stride, least, a##r)
    ALL_ROWS(WAITING);
    for (; w < end; w += n_tiles * 64, q += 4) {
        __m512i w0 = _mm512_load_si512((const void *)w), w1 = w0, w2 = w0, w3 = w0;
        if (n_tiles > 1)
            w1 = _mm512_load_si512((const void *)(w + 64));
        if (n_tiles > 2) {
            w2 = _mm512_load_si512((const void *)(w + 128));
            w3 = _mm512_load_si512((const void *)(w + 192));
        }
        ALL_ROWS(ADD);
    }
    ALL_ROWS(WAITS);
#undef ALL_ROWS
#undef WAITING
#undef ADD
#undef WAITS
    if (b->last)
        finish_all(t, tile, n_tiles, row, n_rows, (const __m512i *)(const void *)done);
}

/* Functions of their own, since gcc allocates registers for a function as a whole, and 24 sums, four operands
 * and an activation leave few. */
#define BLOCK_ROWS(n_tiles, n_rows)                                                                          \
    __attribute__((noinline)) static void block_##n_tiles##_##n_rows(                                        \
        const struct tern_ternary *t, const struct block *b, size_t tile, size_t row)                        \
    {                                                                                                        \
        block_rows(n_tiles, n_rows, t, b, tile, row);                                                        \
    }
BLOCK_ROWS(1, 4)
BLOCK_ROWS(1, 5)
BLOCK_ROWS(1, 6)
BLOCK_ROWS(2, 4)
BLOCK_ROWS(2, 5)
BLOCK_ROWS(2, 6)
BLOCK_ROWS(4, 4)
BLOCK_ROWS(4, 5)
BLOCK_ROWS(4, 6)

/* Its rows in steps of as equal a size as can be: more than FEW_ROWS in steps of at most MANY_ROWS gives 4 ..
 * MANY_ROWS. */
INLINE void block_all_rows(const unsigned n_tiles, const struct tern_ternary *t, const struct block *b,
                           size_t tile)
{
    typedef void block_fn(const struct tern_ternary *, const struct block *, size_t, size_t);
    static block_fn *const by_rows[5][MANY_ROWS + 1] = { [1] = { [4] = block_1_4, block_1_5, block_1_6 },
                                                         [2] = { [4] = block_2_4, block_2_5, block_2_6 },
                                                         [4] = { [4] = block_4_4, block_4_5, block_4_6 } };
    size_t row = b->row_first, steps = (b->row_last - row + MANY_ROWS - 1) / MANY_ROWS;
    for (; steps > 0; steps--) {
        size_t n = (b->row_last - row + steps - 1) / steps;
        by_rows[n_tiles][n](t, b, tile, row);
        row += n;
    }
}

INLINE void unpack_groups(const enum codec c, const uint8_t *w, size_t n_groups, uint8_t *codes, size_t step)
{
    for (; n_groups > 0; n_groups--, w += TERN_TILE_GROUP_BYTES, codes += operands(c) * step) {
        struct group g = take_group(c, w);
        _mm512_store_si512((void *)codes, plain_operand(c, g, 0));
        _mm512_store_si512((void *)(codes + step), plain_operand(c, g, 1));
        _mm512_store_si512((void *)(codes + 2 * step), plain_operand(c, g, 2));
        _mm512_store_si512((void *)(codes + 3 * step), plain_operand(c, g, 3));
        if (c != BITS)
            _mm512_store_si512((void *)(codes + 4 * step), plain_operand(c, g, 4));
    }
}

INLINE void tiles_many_rows(const enum codec c, const unsigned n_tiles, const struct tern_ternary *t,
                            size_t tile, size_t row_first, size_t row_last, uint8_t *codes)
{
    const size_t stride = tile_bytes(c, t), n = stride / TERN_TILE_GROUP_BYTES;
    const size_t most = BLOCK_OPERANDS / operands(c), n_blocks = (n + most - 1) / most;
    const size_t each = (n + n_blocks - 1) / n_blocks;
    for (size_t g = 0; g < n; g += each) {
        const size_t len = n - g < each ? n - g : each;
        const uint8_t *w = t->tiles + tile * stride + g * TERN_TILE_GROUP_BYTES;
        for (size_t i = 0; i < n_tiles; i++)
            unpack_groups(c, w + i * stride, len, codes + i * 64, n_tiles * 64);
        const struct block b = { .codes = codes,
                                 .n_operands = len * operands(c),
                                 .column = g * 4 * operands(c),
                                 .first = g == 0,
                                 .last = g + len == n,
                                 .row_first = row_first,
                                 .row_last = row_last };
        block_all_rows(n_tiles, t, &b, tile);
    }
}

/* Rows whose activations stay in a second cache of 1 MiB while all tiles meet them. */
INLINE size_t near_rows(const struct tern_ternary *t)
{
    size_t n = NEAR_BYTES / t->k_pad;
    return n > 8 * MANY_ROWS ? n : 8 * MANY_ROWS;
}

INLINE void many_rows(const enum codec c, const struct tern_ternary *t, size_t first, size_t last)
{
    alignas(64) uint8_t codes[BLOCK_OPERANDS * BLOCK_TILES * 64];
    const size_t most = near_rows(t), parts = (t->n_rows + most - 1) / most;
    for (size_t part = 0; part < parts; part++) {
        const size_t row = t->n_rows * part / parts, end = t->n_rows * (part + 1) / parts;
        size_t tile = first;
        for (; last - tile >= 4; tile += 4)
            tiles_many_rows(c, 4, t, tile, row, end, codes);
        for (; last - tile >= 2; tile += 2)
            tiles_many_rows(c, 2, t, tile, row, end, codes);
        if (tile < last)
            tiles_many_rows(c, 1, t, tile, row, end, codes);
    }
}

/* Defines the op `name`; again a function for each number of rows. */
#define TERNARY(name, codec)                                                                                 \
    TERNARY_ROWS(name, codec, 2)                                                                             \
    TERNARY_ROWS(name, codec, 3)                                                                             \
    TERNARY_ROWS(name, codec, 4)                                                                             \
    TERNARY_ROWS(name, codec, 5)                                                                             \
    TERNARY_ROWS(name, codec, 6)                                                                             \
    TERNARY_ROWS(name, codec, 7)                                                                             \
    TERNARY_ROWS(name, codec, 8)                                                                             \
    __attribute__((noinline)) static void name##_many(const struct tern_ternary *t, size_t first,            \
                                                      size_t last)                                           \
    {                                                                                                        \
        many_rows(codec, t, first, last);                                                                    \
    }                                                                                                        \
    static void name(const struct tern_ternary *t, size_t first, size_t last)                                \
    {                                                                                                        \
        switch (t->n_rows) {                                                                                 \
        case 1: one_row(codec, t, first, last); break;                                                       \
        case 2: name##_2(t, first, last); break;                                                             \
        case 3: name##_3(t, first, last); break;                                                             \
        case 4: name##_4(t, first, last); break;                                                             \
        case 5: name##_5(t, first, last); break;                                                             \
        case 6: name##_6(t, first, last); break;                                                             \
        case 7: name##_7(t, first, last); break;                                                             \
        case 8: name##_8(t, first, last); break;                                                             \
        default: name##_many(t, first, last); break;                                                         \
        }                                                                                                    \
    }
#define TERNARY_ROWS(name, codec, n)                                                                         \
    __attribute__((noinline)) static void name##_##n(const struct tern_ternary *t, size_t first,             \
                                                     size_t last)                                            \
    {                                                                                                        \
        few_rows(codec, n, t, first, last);                                                                  \
    }

#endif
#endif
