/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary products with 256-bit registers: the walk over tiles, the same for AVX2 and AVX-VNNI.
 *
 * Up to FEW_ROWS rows of activations are multiplied with the codes as they come out of the packed bytes.
 * More rows share codes unpacked once to bytes, in blocks of columns that stay in the first cache.  A level
 * differs in its running sums, which it defines in front of the inclusion:
 *
 *   dot4(sum, code, q)   sums grow by products of unsigned and signed bytes
 *   add_sums(a, b)       adds sums
 *   quarter(sum)         divides sums, all multiples of four, by four
 *   widen(dot, sum)      eight int32, one a tile row, grow by the sums
 *   MAX_STEPS            steps of four columns between two calls of widen
 *
 * Sums may have 16 bits: two products of codes 0..2 are at most 2 * 2 * 127 = 508, so MAX_STEPS is then 64.
 * An int32 holds any sum: TERN_TERNARY_MAX_K * 8 * 127 < 2^31.
 */
#ifndef TERN_KERNELS_X256_TERNARY_H
#define TERN_KERNELS_X256_TERNARY_H

#include "kernels/kernels_avx2.h"

#ifdef TERN_HAVE_LANES

/* Columns that one step multiplies, and the bytes of a tile's unpacked codes for them. */
#define STEP_COLS  4
#define STEP_BYTES 64
/* Rows that one pass multiplies: two sums each, which is what the registers hold. */
#define PASS_ROWS 6
/*
 * 2BIT: up to here rows multiply codes as they are unpacked, from there on codes unpacked once to bytes.  On
 * a Zen 3 from the second cache, in % of the int8 peak: 4 rows 73 and 59, 6 rows 76 and 71, 8 rows 76 and 72,
 * 10 rows 79 and 78, 12 rows 78 and 83, 24 rows 80 and 88.
 */
#define FEW_ROWS 10
/* Tiles and rows of a block, small enough for the stack (48 KiB) and the second cache. */
#define BLOCK_TILES 4
#define BLOCK_ROWS  120

INLINE __m256i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE __m256i load32(const void *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

/* y[0..n) = ((float)(dot - act_sum) / act_scale) * scale. */
INLINE void finish(const struct tern_ternary *t, size_t row, size_t out, __m256i lo, __m256i hi)
{
    __m256i sum = _mm256_set1_epi32(t->act_sum[row]);
    struct i16 dot = { _mm256_sub_epi32(lo, sum), _mm256_sub_epi32(hi, sum) };
    struct v16 y = mul16(div16(floats16(dot), set16(t->act_scale[row])), set16(t->scale));
    store16n(t->y + row * t->y_stride + out, y, t->m - out);
}

/* Rows taken by the next pass when `left` are left: passes of nearly equal size. */
INLINE size_t next_rows(size_t left, size_t at_most)
{
    size_t n_passes = (left + at_most - 1) / at_most;
    return (left + n_passes - 1) / n_passes;
}

/*
 * Bytes that tiles are prefetched ahead of their use.  While it computes, a Zen 3 core does not look that far
 * ahead by itself: one row of 2BIT from memory, GB/s: nothing 15.6, 1 KiB 19.6, 2 KiB 21.2, 4 KiB 19.4 as one
 * stream; 19.6, 24.6, 25.7, 25.1 as two.  (Reading alone gets slower by it.)
 */
#define AHEAD 2048

/* -- unpacking ------------------------------------------------------------------------------------------- */

/*
 * 2BIT, eight tile rows: the fields at bits 1..0 and 3..2 of w and of w >> 4, the upper ones left where they
 * are: four times the code, which costs no shift.
 */
struct fields {
    __m256i c0, c1x4, c2, c3x4;
};

INLINE struct fields split_2bit(__m256i w)
{
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    __m256i v = _mm256_srli_epi16(w, 4);
    return (struct fields){ _mm256_and_si256(w, low), _mm256_and_si256(w, high), _mm256_and_si256(v, low),
                            _mm256_and_si256(v, high) };
}

/* 5TRIT, eight tile rows. */
struct trits {
    __m256i c0, c1, c2, c3, c4;
};

/* b % 81 for b <= 242: what wraps below zero is larger than what it came from. */
INLINE __m256i mod81(__m256i b)
{
    const __m256i m = _mm256_set1_epi8(81);
    b = _mm256_min_epu8(b, _mm256_sub_epi8(b, m));
    return _mm256_min_epu8(b, _mm256_sub_epi8(b, m));
}

/*
 * b = 81 c4 + 9 h + l.  r = b % 81 <= 80, h = r / 9: in even bytes r * 57 >> 9; in odd ones the upper half of
 * (256 odd + even) * 7282 holds odd / 9 in its upper byte (7282 / 65536 is 1 / 9 and 1 in 2^17 more; the even
 * byte adds less than 81 / 256 to odd).  b - r = 81 c4 is c4 modulo 4.  h and l are below 9, so tables of
 * sixteen give their digits.
 */
INLINE struct trits split_5trit(__m256i b)
{
#define TABLE(...) _mm256_setr_epi8(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0, __VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
    const __m256i low_digit = TABLE(0, 1, 2, 0, 1, 2, 0, 1, 2), high_digit = TABLE(0, 0, 0, 1, 1, 1, 2, 2, 2);
    const __m256i nines = TABLE(0, 9, 18, 27, 36, 45, 54, 63, 72);
#undef TABLE
    __m256i r = mod81(b);
    __m256i even = _mm256_srli_epi16(_mm256_maddubs_epi16(r, _mm256_set1_epi16(57)), 9);
    __m256i odd = _mm256_mulhi_epu16(r, _mm256_set1_epi16(7282));
    __m256i h = _mm256_or_si256(even, _mm256_and_si256(odd, _mm256_set1_epi16((int16_t)0xff00)));
    __m256i l = _mm256_sub_epi8(r, _mm256_shuffle_epi8(nines, h));
    return (struct trits){ _mm256_shuffle_epi8(low_digit, l), _mm256_shuffle_epi8(high_digit, l),
                           _mm256_shuffle_epi8(low_digit, h), _mm256_shuffle_epi8(high_digit, h),
                           _mm256_and_si256(_mm256_sub_epi8(b, r), _mm256_set1_epi8(3)) };
}

INLINE void put_codes(uint8_t *codes, size_t step, __m256i c)
{
    _mm256_store_si256((__m256i *)(void *)(codes + step * STEP_BYTES), c);
}

/* n_groups groups to one byte a code, STEP_BYTES a step. */
INLINE void unpack(enum tern_tile_layout layout, const uint8_t *tile, size_t n_groups, uint8_t *codes)
{
    const size_t n_fields = layout == TERN_TILES_2BIT ? 4 : 5;
    for (size_t i = 0; i < 2 * n_groups; i++, tile += 32) {
        uint8_t *out = codes + i / 2 * n_fields * STEP_BYTES + i % 2 * 32;
        __m256i w = load32(tile);
        __builtin_prefetch(tile + AHEAD);
        if (layout == TERN_TILES_2BIT) {
            const __m256i low = _mm256_set1_epi8(3);
            put_codes(out, 0, _mm256_and_si256(w, low));
            put_codes(out, 1, _mm256_and_si256(_mm256_srli_epi16(w, 2), low));
            put_codes(out, 2, _mm256_and_si256(_mm256_srli_epi16(w, 4), low));
            put_codes(out, 3, _mm256_and_si256(_mm256_srli_epi16(w, 6), low));
        } else {
            struct trits c = split_5trit(w);
            put_codes(out, 0, c.c0);
            put_codes(out, 1, c.c1);
            put_codes(out, 2, c.c2);
            put_codes(out, 3, c.c3);
            put_codes(out, 4, c.c4);
        }
    }
}

/* -- one row, few rows ----------------------------------------------------------------------------------- */

/* Groups between two calls of quarter: two fields of four times a code, at most 2 * 8 * 127 = 2032 a sum and
 * step.  The sums then hold at most 16 * 508 + 16 * 2032 / 4 = 16256, twice that before they are widened. */
#define QUARTER_GROUPS 8
#define WIDEN_GROUPS   16

INLINE size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* 2BIT, one row: at most WIDEN_GROUPS groups of a tile. */
INLINE void one_2bit(const uint8_t *tile, size_t n_groups, const int8_t *q, struct i16 *dot)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    while (n_groups > 0) {
        size_t n = least(n_groups, QUARTER_GROUPS);
        __m256i a4 = _mm256_setzero_si256(), b4 = a4;
        n_groups -= n;
        for (; n > 0; n--, tile += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS) {
            __builtin_prefetch(tile + AHEAD);
            struct fields w = split_2bit(load32(tile)), v = split_2bit(load32(tile + 32));
            __m256i x0 = broadcast4(q), x1 = broadcast4(q + 4);
            __m256i x2 = broadcast4(q + 8), x3 = broadcast4(q + 12);
            a = dot4(a, w.c0, x0);
            b = dot4(b, v.c0, x0);
            a4 = dot4(a4, w.c1x4, x1);
            b4 = dot4(b4, v.c1x4, x1);
            a = dot4(a, w.c2, x2);
            b = dot4(b, v.c2, x2);
            a4 = dot4(a4, w.c3x4, x3);
            b4 = dot4(b4, v.c3x4, x3);
        }
        a = add_sums(a, quarter(a4));
        b = add_sums(b, quarter(b4));
    }
    *dot = (struct i16){ widen(dot->lo, a), widen(dot->hi, b) };
}

/* 5TRIT, one row: at most MAX_STEPS / 5 groups of a tile. */
INLINE void one_5trit(const uint8_t *tile, size_t n_groups, const int8_t *q, struct i16 *dot)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    for (; n_groups > 0; n_groups--, tile += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS_5TRIT) {
        __builtin_prefetch(tile + AHEAD);
        struct trits w = split_5trit(load32(tile)), v = split_5trit(load32(tile + 32));
#define STEP(i)                                                                                              \
    do {                                                                                                     \
        __m256i x = broadcast4(q + 4 * (i));                                                                 \
        a = dot4(a, w.c##i, x);                                                                              \
        b = dot4(b, v.c##i, x);                                                                              \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        STEP(4);
#undef STEP
    }
    *dot = (struct i16){ widen(dot->lo, a), widen(dot->hi, b) };
}

/* n_tiles (1 or 2) tiles, `apart` tiles apart, block by block in turn. */
INLINE void one_tiles(enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile, size_t apart,
                      const size_t n_tiles)
{
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const size_t at_most = layout == TERN_TILES_2BIT ? WIDEN_GROUPS : MAX_STEPS / 5;
    const size_t tile_groups = t->k_pad / cols;
    const uint8_t *w0 = t->tiles + tile * tile_groups * TERN_TILE_GROUP_BYTES;
    const uint8_t *w1 = w0 + apart * tile_groups * TERN_TILE_GROUP_BYTES;
    const int8_t *q = t->q;
    struct i16 dot0 = { _mm256_setzero_si256(), _mm256_setzero_si256() }, dot1 = dot0;
    for (size_t left = tile_groups, n; left > 0; left -= n) {
        n = least(left, at_most);
        if (layout == TERN_TILES_2BIT) {
            one_2bit(w0, n, q, &dot0);
            if (n_tiles > 1)
                one_2bit(w1, n, q, &dot1);
        } else {
            one_5trit(w0, n, q, &dot0);
            if (n_tiles > 1)
                one_5trit(w1, n, q, &dot1);
        }
        w0 += n * TERN_TILE_GROUP_BYTES;
        w1 += n * TERN_TILE_GROUP_BYTES;
        q += n * cols;
    }
    finish(t, 0, tile * TERN_TILE_ROWS, dot0.lo, dot0.hi);
    if (n_tiles > 1)
        finish(t, 0, (tile + apart) * TERN_TILE_ROWS, dot1.lo, dot1.hi);
}

/* The range in two halves side by side: two streams of memory are faster than one. */
INLINE void one_row(enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile_first,
                    size_t tile_last)
{
    const size_t half = (tile_last - tile_first) / 2;
    for (size_t i = 0; i < half; i++)
        one_tiles(layout, t, tile_first + i, half, 2);
    if (tile_first + 2 * half < tile_last)
        one_tiles(layout, t, tile_last - 1, 0, 1);
}

/* The sums of row r (a), those of four times the codes apart (b); gcc 12 keeps arrays of them in memory. */
#define EACH_ROW(verb) verb(0) verb(1) verb(2) verb(3) verb(4) verb(5)

/* 2BIT, two rows, a whole tile, so that its halves share what is loaded of q: at most WIDEN_GROUPS groups. */
INLINE void two_groups(const uint8_t *tile, size_t n_groups, const int8_t *q, size_t stride, int32_t *dot)
{
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    const __m256i zero = _mm256_setzero_si256();
    __m256i a0 = zero, b0 = zero, a1 = zero, b1 = zero; /* a, b: tile rows 0..7, 8..15; 0, 1: rows of q */
    while (n_groups > 0) {
        size_t left = least(n_groups, QUARTER_GROUPS);
        __m256i c0 = zero, d0 = zero, c1 = zero, d1 = zero; /* the same, of four times the codes */
        n_groups -= left;
        for (; left > 0; left--, tile += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS) {
            __builtin_prefetch(tile + AHEAD);
            __m256i w = load32(tile), v = load32(tile + 32);
#define STEP(mask, at, s0, t0, s1, t1)                                                                       \
    do {                                                                                                     \
        __m256i e = _mm256_and_si256(w, mask), f = _mm256_and_si256(v, mask), x = broadcast4(q + (at));      \
        s0 = dot4(s0, e, x);                                                                                 \
        t0 = dot4(t0, f, x);                                                                                 \
        x = broadcast4(q + stride + (at));                                                                   \
        s1 = dot4(s1, e, x);                                                                                 \
        t1 = dot4(t1, f, x);                                                                                 \
    } while (0)
            STEP(low, 0, a0, b0, a1, b1);
            STEP(high, 4, c0, d0, c1, d1);
            w = _mm256_srli_epi16(w, 4);
            v = _mm256_srli_epi16(v, 4);
            STEP(low, 8, a0, b0, a1, b1);
            STEP(high, 12, c0, d0, c1, d1);
#undef STEP
        }
        a0 = add_sums(a0, quarter(c0));
        b0 = add_sums(b0, quarter(d0));
        a1 = add_sums(a1, quarter(c1));
        b1 = add_sums(b1, quarter(d1));
    }
    __m256i *d = (__m256i *)(void *)dot;
    _mm256_store_si256(d, widen(_mm256_load_si256(d), a0));
    _mm256_store_si256(d + 1, widen(_mm256_load_si256(d + 1), b0));
    _mm256_store_si256(d + 2, widen(_mm256_load_si256(d + 2), a1));
    _mm256_store_si256(d + 3, widen(_mm256_load_si256(d + 3), b1));
}

/* 2BIT, half a tile (eight tile rows) and at most WIDEN_GROUPS groups times n <= PASS_ROWS rows. */
INLINE void few_groups(const uint8_t *half, size_t n_groups, const int8_t *q, size_t stride, int32_t *dot,
                       const size_t n)
{
#define ZERO_A(r) __m256i a##r = _mm256_setzero_si256();
#define ZERO_B(r) __m256i b##r = _mm256_setzero_si256();
#define STEP_A(r)                                                                                            \
    if (n > r)                                                                                               \
        a##r = dot4(a##r, c, broadcast4(x + r * stride));
#define STEP_B(r)                                                                                            \
    if (n > r)                                                                                               \
        b##r = dot4(b##r, c, broadcast4(x + r * stride));
#define QUARTER(r)                                                                                           \
    if (n > r)                                                                                               \
        a##r = add_sums(a##r, quarter(b##r));
#define END(r)                                                                                               \
    if (n > r) {                                                                                             \
        __m256i *d = (__m256i *)(void *)(dot + r * TERN_TILE_ROWS);                                          \
        _mm256_store_si256(d, widen(_mm256_load_si256(d), a##r));                                            \
    }
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    EACH_ROW(ZERO_A)
    while (n_groups > 0) {
        size_t left = least(n_groups, QUARTER_GROUPS);
        EACH_ROW(ZERO_B)
        n_groups -= left;
        for (; left > 0; left--, half += TERN_TILE_GROUP_BYTES, q += TERN_TILE_COLS) {
            /* One field after another, since twelve sums leave four registers. */
            __builtin_prefetch(half + AHEAD);
            __m256i w = load32(half), c = _mm256_and_si256(w, low);
            const int8_t *x = q;
            EACH_ROW(STEP_A)
            c = _mm256_and_si256(w, high);
            x += STEP_COLS;
            EACH_ROW(STEP_B)
            w = _mm256_srli_epi16(w, 4);
            c = _mm256_and_si256(w, low);
            x += STEP_COLS;
            EACH_ROW(STEP_A)
            c = _mm256_and_si256(w, high);
            x += STEP_COLS;
            EACH_ROW(STEP_B)
        }
        EACH_ROW(QUARTER)
    }
    EACH_ROW(END)
#undef ZERO_A
#undef ZERO_B
#undef STEP_A
#undef STEP_B
#undef QUARTER
#undef END
}

/* 2BIT, one tile times n rows. */
INLINE void few_tile(const struct tern_ternary *t, size_t tile, size_t row, const size_t n)
{
    size_t n_groups = t->k_pad / TERN_TILE_COLS;
    const uint8_t *w = t->tiles + tile * n_groups * TERN_TILE_GROUP_BYTES;
    const int8_t *q = t->q + row * t->q_stride;
    _Alignas(64) int32_t dot[PASS_ROWS][TERN_TILE_ROWS];
    memset(dot, 0, n * sizeof dot[0]);
    while (n_groups > 0) {
        size_t left = least(n_groups, WIDEN_GROUPS);
        if (n == 2) {
            two_groups(w, left, q, t->q_stride, dot[0]);
        } else {
            few_groups(w, left, q, t->q_stride, dot[0], n);
            few_groups(w + 32, left, q, t->q_stride, dot[0] + 8, n);
        }
        n_groups -= left;
        w += left * TERN_TILE_GROUP_BYTES;
        q += left * TERN_TILE_COLS;
    }
    for (size_t r = 0; r < n; r++)
        finish(t, row + r, tile * TERN_TILE_ROWS, load32(dot[r]), load32(dot[r] + 8));
}

INLINE void few_rows(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    for (size_t tile = tile_first; tile < tile_last; tile++) {
        for (size_t row = 0, n; row < t->n_rows; row += n) {
            n = next_rows(t->n_rows - row, PASS_ROWS);
            switch (n) {
            case 1: few_tile(t, tile, row, 1); break;
            case 2: few_tile(t, tile, row, 2); break;
            case 3: few_tile(t, tile, row, 3); break;
            case 4: few_tile(t, tile, row, 4); break;
            case 5: few_tile(t, tile, row, 5); break;
            default: few_tile(t, tile, row, 6); break;
            }
        }
    }
}

/* -- many rows ------------------------------------------------------------------------------------------- */

/* At most MAX_STEPS steps of one tile times n <= PASS_ROWS rows: dot[r][0..16) grows. */
INLINE void multiply(const uint8_t *codes, size_t n_steps, const int8_t *q, size_t stride, int32_t *dot,
                     size_t ahead, const size_t n)
{
#define BEGIN(r)                                                                                             \
    __m256i a##r = _mm256_setzero_si256(), b##r = _mm256_setzero_si256();                                    \
    if (n > r)                                                                                               \
        __builtin_prefetch(q + r * stride + ahead);
#define STEP(r)                                                                                              \
    if (n > r) {                                                                                             \
        __m256i x = broadcast4(q + r * stride);                                                              \
        a##r = dot4(a##r, c0, x);                                                                            \
        b##r = dot4(b##r, c1, x);                                                                            \
    }
#define END(r)                                                                                               \
    if (n > r) {                                                                                             \
        __m256i *d = (__m256i *)(void *)(dot + r * TERN_TILE_ROWS);                                          \
        _mm256_store_si256(d, widen(_mm256_load_si256(d), a##r));                                            \
        _mm256_store_si256(d + 1, widen(_mm256_load_si256(d + 1), b##r));                                    \
    }
    EACH_ROW(BEGIN)
    for (; n_steps > 0; n_steps--, codes += STEP_BYTES, q += STEP_COLS) {
        __m256i c0 = load32(codes), c1 = load32(codes + 32);
        EACH_ROW(STEP)
    }
    EACH_ROW(END)
#undef BEGIN
#undef STEP
#undef END
}

/* One tile's steps times n_rows rows. */
static void multiply_rows(const uint8_t *codes, size_t n_steps, const int8_t *q, size_t stride, int32_t *dot,
                          size_t ahead, size_t n_rows)
{
    while (n_rows > 0) {
        size_t n = next_rows(n_rows, PASS_ROWS);
        switch (n) {
        case 1: multiply(codes, n_steps, q, stride, dot, ahead, 1); break;
        case 2: multiply(codes, n_steps, q, stride, dot, ahead, 2); break;
        case 3: multiply(codes, n_steps, q, stride, dot, ahead, 3); break;
        case 4: multiply(codes, n_steps, q, stride, dot, ahead, 4); break;
        case 5: multiply(codes, n_steps, q, stride, dot, ahead, 5); break;
        default: multiply(codes, n_steps, q, stride, dot, ahead, 6); break;
        }
        n_rows -= n;
        q += n * stride;
        dot += n * TERN_TILE_ROWS;
    }
}

/* n_tiles <= BLOCK_TILES tiles times n_rows <= BLOCK_ROWS rows. */
INLINE void multiply_block(enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile,
                           size_t n_tiles, size_t row, size_t n_rows)
{
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const size_t tile_groups = t->k_pad / cols, at_most = MAX_STEPS / (cols / STEP_COLS);
    _Alignas(64) uint8_t codes[MAX_STEPS * STEP_BYTES];
    _Alignas(64) int32_t dot[BLOCK_TILES][BLOCK_ROWS][TERN_TILE_ROWS];
    for (size_t i = 0; i < n_tiles; i++)
        memset(dot[i], 0, n_rows * sizeof dot[i][0]);
    for (size_t g = 0; g < tile_groups; g += at_most) {
        size_t n_groups = tile_groups - g < at_most ? tile_groups - g : at_most;
        const int8_t *q = t->q + row * t->q_stride + g * cols;
        for (size_t i = 0; i < n_tiles; i++) {
            unpack(layout, t->tiles + ((tile + i) * tile_groups + g) * TERN_TILE_GROUP_BYTES, n_groups,
                   codes);
            multiply_rows(codes, n_groups * (cols / STEP_COLS), q, t->q_stride, dot[i][0],
                          n_groups * cols + i * 64, n_rows);
        }
    }
    for (size_t i = 0; i < n_tiles; i++) {
        for (size_t r = 0; r < n_rows; r++)
            finish(t, row + r, (tile + i) * TERN_TILE_ROWS, load32(dot[i][r]), load32(dot[i][r] + 8));
    }
}

/* -- the op ---------------------------------------------------------------------------------------------- */

INLINE void many_rows(enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile_first,
                      size_t tile_last)
{
    for (size_t row = 0; row < t->n_rows;) {
        size_t n_rows = next_rows(t->n_rows - row, BLOCK_ROWS);
        for (size_t tile = tile_first; tile < tile_last; tile += BLOCK_TILES) {
            size_t n_tiles = tile_last - tile < BLOCK_TILES ? tile_last - tile : BLOCK_TILES;
            multiply_block(layout, t, tile, n_tiles, row, n_rows);
        }
        row += n_rows;
    }
}

/* Functions of their own, so that each has the registers and the stack that it needs. */
#define TERNARY(name, ...)                                                                                   \
    static __attribute__((noinline)) void name(const struct tern_ternary *t, size_t tile_first,              \
                                               size_t tile_last)                                             \
    {                                                                                                        \
        __VA_ARGS__;                                                                                         \
    }
TERNARY(one_row_2bit, one_row(TERN_TILES_2BIT, t, tile_first, tile_last))
TERNARY(one_row_5trit, one_row(TERN_TILES_5TRIT, t, tile_first, tile_last))
TERNARY(few_rows_2bit, few_rows(t, tile_first, tile_last))
TERNARY(many_rows_2bit, many_rows(TERN_TILES_2BIT, t, tile_first, tile_last))
TERNARY(many_rows_5trit, many_rows(TERN_TILES_5TRIT, t, tile_first, tile_last))

static void ternary_2bit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    if (t->n_rows == 1)
        one_row_2bit(t, tile_first, tile_last);
    else if (t->n_rows <= FEW_ROWS)
        few_rows_2bit(t, tile_first, tile_last);
    else
        many_rows_2bit(t, tile_first, tile_last);
}

static void ternary_5trit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    if (t->n_rows == 1)
        one_row_5trit(t, tile_first, tile_last);
    else
        many_rows_5trit(t, tile_first, tile_last);
}

#endif
#endif
