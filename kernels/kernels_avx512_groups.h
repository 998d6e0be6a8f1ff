/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a group of 64 bytes of tiles (kernels.h) to four or five operands of VPDPBUSD, one for each four
 * columns, all sixteen outputs side by side.
 *
 * An operand is made of plain codes 0..2, or scaled: left where it is inside its bytes, only masked, so that
 * its sum of products is to be divided at the end.
 *
 * Included after kernels_avx512.h.
 */
#ifndef TERN_KERNELS_AVX512_GROUPS_H
#define TERN_KERNELS_AVX512_GROUPS_H

#include "kernels/kernels.h"

#ifdef TERN_HAVE_LANES

#include <stdalign.h>

/* TERN_TILES_2BIT, and TERN_TILES_5TRIT in two ways: with operations of AVX-512 BW only, and with VBMI. */
enum codec { BITS, TRITS, TRITS_PERMUTE };

/* Operands a group. */
INLINE size_t operands(const enum codec c)
{
    return c == BITS ? 4 : 5;
}

/*
 * BITS: all in `low`, operand i in bits 2 i + 1 .. 2 i.
 * TRITS: c0 + 3 c1 in `low`, then 9 c2, 27 c3, 81 c4.
 * TRITS_PERMUTE: c0 .. c3 in `low` like BITS, 81 c4 in `top`.
 */
struct group {
    __m512i low, nine, twenty7, top;
};

/* Bytes x < 3 n, modulo n: a byte below n wraps to something larger when n is subtracted. */
INLINE __m512i mod_thrice(__m512i x, int n)
{
    const __m512i step = _mm512_set1_epi8((char)n);
    x = _mm512_min_epu8(x, _mm512_sub_epi8(x, step));
    return _mm512_min_epu8(x, _mm512_sub_epi8(x, step));
}

#if defined(__AVX512VBMI__) || defined(TERN_SIMDE)
#define HAVE_PERMUTE

/* The four base-3 digits of an index below 81 as four fields of two bits. */
#define DIGITS(c3, c2, c1)                                                                                   \
    ((c3) << 6 | (c2) << 4 | (c1) << 2), ((c3) << 6 | (c2) << 4 | (c1) << 2 | 1),                            \
        ((c3) << 6 | (c2) << 4 | (c1) << 2 | 2)
#define DIGITS2(c3, c2) DIGITS(c3, c2, 0), DIGITS(c3, c2, 1), DIGITS(c3, c2, 2)
#define DIGITS3(c3)     DIGITS2(c3, 0), DIGITS2(c3, 1), DIGITS2(c3, 2)
static alignas(64) const uint8_t digits[128] = { DIGITS3(0), DIGITS3(1), DIGITS3(2) };

INLINE __m512i digit_fields(__m512i index)
{
    return _mm512_permutex2var_epi8(_mm512_load_si512((const void *)digits), index,
                                    _mm512_load_si512((const void *)(digits + 64)));
}
#endif

INLINE struct group take_group(const enum codec c, const uint8_t *p)
{
    struct group g = { .low = _mm512_load_si512((const void *)p) };
    if (c == BITS)
        return g;
    __m512i rest = mod_thrice(g.low, 81);
    g.top = _mm512_sub_epi8(g.low, rest);
    g.low = rest;
#ifdef HAVE_PERMUTE
    if (c == TRITS_PERMUTE) {
        g.low = digit_fields(rest);
        return g;
    }
#endif
    rest = mod_thrice(g.low, 27);
    g.twenty7 = _mm512_sub_epi8(g.low, rest);
    g.low = mod_thrice(rest, 9);
    g.nine = _mm512_sub_epi8(rest, g.low);
    return g;
}

/* Looks up the low half of each byte; bytes below 128. */
INLINE __m512i look_up(__m512i x, char a, char b, char c, char d, char e, char f, char g, char h, char i,
                       char j, char k, char l)
{
    __m128i table = _mm_setr_epi8(a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), x);
}

/* Operand i times 4^i (BITS, TRITS_PERMUTE) or 1, 1, 9, 27 (TRITS), the fifth times 81. */
INLINE __m512i scaled_operand(const enum codec c, struct group g, const unsigned i)
{
    if (i == 4)
        return g.top;
    if (c != TRITS)
        return _mm512_and_si512(g.low, _mm512_set1_epi8((char)(3 << 2 * i)));
    return i == 0   ? look_up(g.low, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0)
           : i == 1 ? look_up(g.low, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0)
           : i == 2 ? g.nine
                    : g.twenty7;
}

/* Operand i as codes 0..2. */
INLINE __m512i plain_operand(const enum codec c, struct group g, const unsigned i)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    if (i == 4) /* 0, 81, 162 */
        return _mm512_and_si512(_mm512_srli_epi16(g.top, 6), low2);
    if (c != TRITS)
        return _mm512_and_si512(i == 0   ? g.low
                                : i == 1 ? _mm512_srli_epi16(g.low, 2)
                                : i == 2 ? _mm512_srli_epi16(g.low, 4)
                                         : _mm512_srli_epi16(g.low, 6),
                                low2);
    if (i < 2)
        return scaled_operand(c, g, i);
    /* 0x09, 0x12 and 0x1b, 0x36 */
    return look_up(i == 2 ? g.nine : g.twenty7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 1, 0, 1);
}

/* The sums of the scaled operands of a group. */
struct sums {
    __m512i s0, s1, s2, s3, s4;
};

/* Each sum without its scale, added up.  All divisions are exact; those by powers of three multiply by the
 * inverse modulo 2^32. */
INLINE __m512i total(const enum codec c, struct sums s)
{
    const __m512i inverse9 = _mm512_set1_epi32(0x38e38e39), inverse27 = _mm512_set1_epi32(0x684bda13);
    const __m512i inverse81 = _mm512_set1_epi32(0x781948b1);
    __m512i a, b;
    if (c == TRITS) {
        a = _mm512_add_epi32(s.s0, s.s1);
        b = _mm512_add_epi32(_mm512_mullo_epi32(s.s2, inverse9), _mm512_mullo_epi32(s.s3, inverse27));
    } else {
        a = _mm512_add_epi32(s.s0, _mm512_srai_epi32(s.s1, 2));
        b = _mm512_add_epi32(_mm512_srai_epi32(s.s2, 4), _mm512_srai_epi32(s.s3, 6));
    }
    if (c != BITS)
        b = _mm512_add_epi32(b, _mm512_mullo_epi32(s.s4, inverse81));
    return _mm512_add_epi32(a, b);
}

#endif
#endif
