/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TL1 and TL2, read and written: see pack_tl.h.
 *
 * A byte holds four weights of a row as two codes of pairs: 3 * (a + 1) + (b + 1), 0..8.  TL2 has them for
 * the last columns only.  The others are triples, v = 9 a + 3 b + c: a byte holds two |v|, 0..13, and the
 * signs of v lie in an area of their own, a word for the eight triples of two rows sixteen apart.  Both types
 * run through blocks of bm x by, in them through strips of rows, in them through groups of columns; the
 * sixteen or thirty-two rows of a group lie next to each other, so that one row's bytes are evenly apart.
 */
#include "kernels/pack_impl.h"

#include <string.h>

#define TL2_STRIP 32
#define TL2_COLS  6  /* of a byte of triples */
#define TL2_WORD  24 /* columns whose signs share a word */
#define TL2_TAIL  32 /* columns of a block of pairs */

/* -- which tiles ----------------------------------------------------------------------------------------- */

/* Of bitnet_b1_58-large, bitnet_b1_58-3B, and Llama3-8B-1.58 with the Falcons. */
static const struct {
    uint32_t m, k, bm1, by1, strip1, bm2, by2;
} published[] = {
    // clang-format off
    { 1536, 4096, 256, 128, 32, 256, 96 },   { 1536, 1536, 128, 64, 64, 128, 192 },
    { 4096, 1536, 256, 128, 32, 256, 96 },   { 3200, 8640, 160, 64, 32, 160, 96 },
    { 3200, 3200, 320, 128, 64, 320, 96 },   { 8640, 3200, 320, 64, 32, 320, 96 },
    { 14336, 4096, 256, 128, 32, 256, 96 },  { 4096, 14336, 128, 64, 64, 128, 96 },
    { 1024, 4096, 256, 128, 32, 256, 96 },   { 4096, 4096, 128, 64, 64, 128, 96 },
    // clang-format on
};

bool tern_tl_tiles_published(uint32_t type, size_t m, size_t k, struct tern_tl_tiles *out)
{
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        if (published[i].m != m || published[i].k != k)
            continue;
        *out = (struct tern_tl_tiles){ (uint32_t)m, (uint32_t)k, published[i].bm1, published[i].by1,
                                       published[i].strip1 };
        if (type == TERN_TYPE_TL2) {
            out->bm = published[i].bm2;
            out->by = published[i].by2;
            out->strip = TL2_STRIP;
        }
        return true;
    }
    return false;
}

bool tern_tl_bytes(uint32_t type, uint64_t m, uint64_t k, size_t *bytes)
{
    uint64_t n;
    if (__builtin_mul_overflow(m, k, &n) || n > SIZE_MAX / 8 || n % 4 != 0)
        return false;
    if (type == TERN_TYPE_TL1) {
        *bytes = (size_t)n / 4;
        return true;
    }
    if (k < 256 || m % 16 != 0)
        return false;
    uint64_t all = (k - 256) * m / 3 * 5 / 8 + 256 * m / 2 * 4 / 8;
    *bytes = (size_t)((all + 31) / 32 * 32);
    return true;
}

bool tern_tl_tiles_fit(uint32_t type, const struct tern_tl_tiles *t)
{
    size_t room;
    if (t->m == 0 || t->k == 0 || t->bm == 0 || t->by == 0 || t->strip == 0 || t->m % t->bm != 0 ||
        t->bm % t->strip != 0 || !tern_tl_bytes(type, t->m, t->k, &room))
        return false;
    if (type == TERN_TYPE_TL1)
        return (t->strip == 16 || t->strip == 32 || t->strip == 64) && t->by % (256 / t->strip) == 0 &&
               t->k % t->by == 0;
    size_t m = t->m, tail = t->k % t->by, triples = t->k - tail;
    return t->strip == TL2_STRIP && t->by % TL2_WORD == 0 && tail % TL2_TAIL == 0 &&
           m * triples / 6 + m * triples / 24 + m * tail / 4 <= room;
}

/* -- where a row lies ------------------------------------------------------------------------------------ */

/* One row's bytes of pairs: from `row` on, `block` bytes for each `by` columns, in them `step` bytes for each
 * `cols`, in them sixteen for each four. */
struct pairs {
    size_t row, by, block, cols, step;
};

/* One row's bytes of triples, and its bits of signs: of the words from `signs` on, those that follow `half`
 * bits behind the highest by twos. */
struct triples {
    size_t row, by, block;
    size_t signs, signs_block;
    unsigned half;
};

/* Groups of eight rows of a strip of TL2 lie in the order 0, 2, 1, 3. */
static size_t swapped(size_t row)
{
    static const uint8_t order[4] = { 0, 2, 1, 3 };
    return order[row / 8] * 8u + row % 8;
}

static struct pairs tl1_row(const struct tern_tl_tiles *t, size_t m)
{
    size_t bm = t->bm, by = t->by, strip = t->strip, cols = 256 / strip, at = m % bm % strip;
    return (struct pairs){ .row = m / bm * (bm * t->k / 4) + m % bm / strip * (strip * by / 4) +
                                  at / 16 * (cols / 4 * 16) + at % 16,
                           .by = by,
                           .block = bm * by / 4,
                           .cols = cols,
                           .step = 64 };
}

static struct pairs tl2_pairs(const struct tern_tl_tiles *t, size_t m)
{
    size_t bm = t->bm, tail = t->k % t->by, triples = t->k - tail;
    return (struct pairs){ .row = (size_t)t->m * triples / 6 + (size_t)t->m * triples / 24 +
                                  m / bm * (bm * tail / 4) + m % bm / TL2_STRIP * (TL2_STRIP * TL2_TAIL / 4) +
                                  swapped(m % TL2_STRIP),
                           .by = TL2_TAIL,
                           .block = bm * TL2_TAIL / 4,
                           .cols = 4,
                           .step = TL2_STRIP };
}

static struct triples tl2_triples(const struct tern_tl_tiles *t, size_t m)
{
    size_t bm = t->bm, by = t->by, n = t->k - t->k % by, strip = m % bm / TL2_STRIP;
    return (struct triples){
        .row = m / bm * (bm * n / 6) + strip * (TL2_STRIP * by / 6) + swapped(m % TL2_STRIP),
        .by = by,
        .block = bm * by / 6,
        .signs = (size_t)t->m * n / 6 + m / bm * (bm * n / 24) + strip * (TL2_STRIP * by / 24) + m % 16 * 2,
        .signs_block = bm * by / 24,
        .half = m / 16 % 2
    };
}

/* -- reading --------------------------------------------------------------------------------------------- */

#define BAD 0x80u /* in a code */

/* Codes of the two weights of a pair, the first in the low byte. */
static const uint16_t pair_codes[16] = { 0x0000, 0x0100, 0x0200, 0x0001, 0x0101, 0x0201, 0x0002, 0x0102,
                                         0x0202, BAD,    BAD,    BAD,    BAD,    BAD,    BAD,    BAD };

/* Codes of the three weights of a triple by |v|, the first in the low byte; then of those where v is
 * negative. */
static const uint32_t triple_codes[32] = {
    0x010101, 0x020101, 0x000201, 0x010201, 0x020201, 0x000002, 0x010002, 0x020002, //
    0x000102, 0x010102, 0x020102, 0x000202, 0x010202, 0x020202, BAD,      BAD,      //
    BAD,      0x000101, 0x020001, 0x010001, 0x000001, 0x020200, 0x010200, 0x000200, //
    0x020100, 0x010100, 0x000100, 0x020000, 0x010000, 0x000000, BAD,      BAD,
};

/* Columns [first, last) of the area of pairs, both whole groups of it. */
static uint32_t read_pairs(struct pairs p, const uint8_t *src, size_t first, size_t last, uint8_t *codes)
{
    uint32_t bad = 0;
    for (size_t k = first; k < last;) {
        size_t in = k % p.by, end = last - k < p.by - in ? last : k - in + p.by;
        const uint8_t *b = src + p.row + k / p.by * p.block + in / p.cols * p.step;
        for (; k < end; k += p.cols, b += p.step) {
            for (size_t i = 0; i < p.cols / 4; i++, codes += 4) {
                uint32_t w = pair_codes[b[16 * i] >> 4] | (uint32_t)pair_codes[b[16 * i] & 15] << 16;
                bad |= w;
                memcpy(codes, &w, sizeof w);
            }
        }
    }
    return bad & 0x00800080u;
}

/* Columns [first, last) of the area of triples, both multiples of 24; writes one code more. */
static uint32_t read_triples(struct triples t, const uint8_t *src, size_t first, size_t last, uint8_t *codes)
{
    uint32_t bad = 0;
    for (size_t k = first; k < last;) {
        size_t in = k % t.by, end = last - k < t.by - in ? last : k - in + t.by;
        const uint8_t *b = src + t.row + k / t.by * t.block + in / TL2_COLS * TL2_STRIP;
        const uint8_t *s = src + t.signs + k / t.by * t.signs_block + in / TL2_WORD * 32;
        for (; k < end; k += TL2_WORD, s += 32) {
            unsigned word = (s[0] | (unsigned)s[1] << 8) << t.half;
            for (unsigned i = 0; i < 4; i++, word <<= 4, b += TL2_STRIP, codes += TL2_COLS) {
                uint32_t one = triple_codes[b[0] >> 4 | (word >> 11 & 16)];
                uint32_t two = triple_codes[(b[0] & 15) | (word >> 9 & 16)];
                bad |= one | two;
                memcpy(codes, &one, sizeof one);
                memcpy(codes + 3, &two, sizeof two);
            }
        }
    }
    return bad & BAD;
}

const uint8_t *tern_tl_read(const struct tern_trits *from, size_t row, size_t c, size_t n, uint8_t *line,
                            uint32_t *bad)
{
    if (from->type == TERN_TYPE_TL1) {
        struct pairs p = tl1_row(&from->tl, row);
        *bad = read_pairs(p, from->src, c, c + n, line);
        return line;
    }
    size_t n_triples = from->k - from->k % from->tl.by, end = c + n, before = 0;
    uint8_t *at = line;
    if (c < n_triples) {
        struct triples t = tl2_triples(&from->tl, row);
        size_t last = end < n_triples ? (end + TL2_WORD - 1) / TL2_WORD * TL2_WORD : n_triples;
        before = c % TL2_WORD;
        *bad = read_triples(t, from->src, c - before, last, at);
        at += last - (c - before);
    }
    if (end > n_triples) {
        struct pairs p = tl2_pairs(&from->tl, row);
        *bad |= read_pairs(p, from->src, c > n_triples ? c - n_triples : 0, end - n_triples, at);
    }
    return line + before;
}

/* -- writing --------------------------------------------------------------------------------------------- */

static unsigned pair(const int8_t *w)
{
    return (unsigned)(3 * (w[0] + 1) + w[1] + 1);
}

static void write_pairs(const struct pairs *p, const int8_t *w, size_t n, uint8_t *dst)
{
    for (size_t k = 0; k < n; k += 4, w += 4) {
        size_t in = k % p->by;
        dst[p->row + k / p->by * p->block + in / p->cols * p->step + in % p->cols / 4 * 16] =
            (uint8_t)(pair(w) << 4 | pair(w + 2));
    }
}

static int triple(const int8_t *w)
{
    return 9 * w[0] + 3 * w[1] + w[2];
}

static void write_triples(const struct triples *t, const int8_t *w, size_t n, uint8_t *dst)
{
    for (size_t k = 0; k < n; k += TL2_COLS, w += TL2_COLS) {
        size_t in = k % t->by, i = in % TL2_WORD / 3;
        int a = triple(w), b = triple(w + 3);
        unsigned signs = (a < 0 ? 0x8000u >> 2 * i : 0) | (b < 0 ? 0x2000u >> 2 * i : 0);
        uint8_t *word = dst + t->signs + k / t->by * t->signs_block + in / TL2_WORD * 32;
        dst[t->row + k / t->by * t->block + in / TL2_COLS * TL2_STRIP] =
            (uint8_t)((a < 0 ? -a : a) << 4 | (b < 0 ? -b : b));
        signs >>= t->half;
        word[0] |= (uint8_t)signs;
        word[1] |= (uint8_t)(signs >> 8);
    }
}

void tern_tl_write(uint32_t type, const struct tern_tl_tiles *tiles, const int8_t *w, float scale,
                   uint8_t *dst)
{
    size_t bytes = 0;
    if (!tern_tl_bytes(type, tiles->m, tiles->k, &bytes))
        return;
    memset(dst, 0, bytes + 32);
    memcpy(dst + bytes, &scale, sizeof scale);
    for (size_t m = 0; m < tiles->m; m++, w += tiles->k) {
        if (type == TERN_TYPE_TL1) {
            struct pairs p = tl1_row(tiles, m);
            write_pairs(&p, w, tiles->k, dst);
        } else {
            size_t tail = tiles->k % tiles->by, n = tiles->k - tail;
            struct triples t = tl2_triples(tiles, m);
            struct pairs p = tl2_pairs(tiles, m);
            write_triples(&t, w, n, dst);
            write_pairs(&p, w + n, tail, dst);
        }
    }
}
