/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary tensors of files to tiles, and ternary values to file types.
 *
 * Packing goes tile by tile in chunks of SPAN columns: sixteen rows are unpacked to one code a byte (into a
 * buffer that stays in the first cache), then scattered; both halves work on eight bytes at a time.  All data
 * is little-endian.
 */
#include "kernels/pack.h"

#include "kernels/kernels.h"
#include "kernels/kernels_scalar.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is little-endian and is read in place"
#endif

#define SPAN 2048
/* A row may begin and end inside a block of the file: room for one more on each side. */
#define LINE (SPAN + 2 * 256)

#define LOW2 UINT64_C(0x0303030303030303)
#define ODD1 UINT64_C(0x5555555555555555)

#define TQ_BLOCK    256
#define TQ1_0_BYTES 54
#define TQ2_0_BYTES 66

/* What a range of tiles has shown so far. */
struct seen {
    bool bad_code;    /* a code 3, or a byte no encoder writes */
    bool bad_scale;   /* negative, infinite or NaN */
    bool differ;      /* two blocks with weights have different scales */
    float scale;      /* of the blocks with weights; 0 when there were none */
    uint8_t tq1[256]; /* bit 0: a byte of five trits may have this value; bit 1: one of four trits may */
};

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void store_u64(uint8_t *p, uint64_t u)
{
    memcpy(p, &u, sizeof u);
}

size_t tern_pack_k_pad(size_t k)
{
    return k / TERN_TILE_COLS * TERN_TILE_COLS + (k % TERN_TILE_COLS ? TERN_TILE_COLS : 0);
}

size_t tern_pack_tiles(size_t m)
{
    return m / TERN_TILE_ROWS + (m % TERN_TILE_ROWS != 0);
}

bool tern_pack_bytes(size_t m, size_t k, size_t *bytes)
{
    size_t tile, all;
    if (k > SIZE_MAX - TERN_TILE_COLS || __builtin_mul_overflow(tern_pack_k_pad(k), (size_t)4, &tile) ||
        __builtin_mul_overflow(tile, tern_pack_tiles(m), &all))
        return false;
    *bytes = all;
    return true;
}

/* -- file bytes to codes, one a byte --------------------------------------------------------------------- */

/*
 * Groups of `lanes` bytes: the codes of one shift lie next to each other, high bits first (I2_S A and B) or
 * low bits first (TQ2_0).  Writes 4 * lanes codes.  Returns non-zero when a code is 3.
 */
static inline uint64_t open_block(const uint8_t *src, size_t lanes, bool high_first, uint8_t *codes)
{
    uint64_t bad = 0;
    for (size_t p = 0; p < lanes; p += 8) {
        uint64_t w = load_u64(src + p);
        bad |= w & w >> 1 & ODD1;
        for (unsigned g = 0; g < 4; g++)
            store_u64(codes + g * lanes + p, w >> (high_first ? 6 - 2 * g : 2 * g) & LOW2);
    }
    return bad;
}

/* Elements [first, first + n) of the flat tensor, layouts A (32 lanes) and B (16).  Returns where they begin
 * in line. */
static const uint8_t *open_i2s_ab(const uint8_t *src, size_t lanes, size_t first, size_t n, uint8_t *line,
                                  struct seen *seen)
{
    size_t elems = 4 * lanes, begin = first / elems;
    uint64_t bad = 0;
    for (size_t b = begin; b * elems < first + n; b++) {
        uint8_t *codes = line + (b - begin) * elems;
        bad |= lanes == 32 ? open_block(src + b * 32, 32, true, codes)
                           : open_block(src + b * 16, 16, true, codes);
    }
    seen->bad_code |= bad != 0;
    return line + first % elems;
}

/* Columns [c, c + n) of a row in layout C. */
static const uint8_t *open_i2s_c(const uint8_t *src, size_t k, size_t row, size_t c, size_t n, uint8_t *line,
                                 struct seen *seen)
{
    const uint8_t *p = src + row / 4 * k + c;
    unsigned shift = 6 - 2 * (unsigned)(row % 4), bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned code = p[i] >> shift & 3u;
        bad |= code & code >> 1;
        line[i] = (uint8_t)code;
    }
    seen->bad_code |= bad != 0;
    return line;
}

/* Takes one block's scale into account; a block without weights has none, and a scale of 0 makes all weights
 * zero. */
static void take_scale(struct seen *seen, uint16_t half, uint8_t codes[TQ_BLOCK])
{
    float d = f32_from_f16(half);
    if (!(d >= 0.0f) || d == INFINITY) {
        seen->bad_scale = true;
        return;
    }
    if (d == 0.0f) {
        memset(codes, 1, TQ_BLOCK);
        return;
    }
    if (d == seen->scale)
        return;
    unsigned weights = 0;
    for (size_t i = 0; i < TQ_BLOCK; i++)
        weights |= codes[i] ^ 1u;
    if (weights == 0)
        return;
    if (seen->scale != 0.0f)
        seen->differ = true;
    seen->scale = d;
}

static void open_tq2(const uint8_t *b, uint8_t codes[TQ_BLOCK], struct seen *seen)
{
    uint64_t bad = open_block(b, 32, false, codes) | open_block(b + 32, 32, false, codes + 128);
    seen->bad_code |= bad != 0;
    take_scale(seen, load_u16(b + 64), codes);
}

/* n bytes of `digits` trits each, the digit of highest value first; digit i of byte m is code i * n + m. */
static inline void open_trits(const uint8_t *src, size_t n, unsigned digits, uint8_t *codes)
{
    unsigned pow3 = 1;
    for (unsigned i = 0; i < digits; i++, pow3 *= 3) {
        for (size_t m = 0; m < n; m++)
            codes[i * n + m] = (uint8_t)((uint8_t)(src[m] * pow3) * 3u >> 8);
    }
}

static void open_tq1(const uint8_t *b, uint8_t codes[TQ_BLOCK], struct seen *seen)
{
    open_trits(b, 32, 5, codes);
    open_trits(b + 32, 16, 5, codes + 160);
    open_trits(b + 48, 4, 4, codes + 240);
    unsigned good = 1;
    for (size_t i = 0; i < 48; i++)
        good &= seen->tq1[b[i]];
    for (size_t i = 48; i < 52; i++)
        good &= seen->tq1[b[i]] >> 1;
    seen->bad_code |= !(good & 1u);
    take_scale(seen, load_u16(b + 52), codes);
}

/* Columns [c, c + n) of a row; c and the row length are multiples of the block. */
static const uint8_t *open_tq(uint32_t type, const uint8_t *src, size_t k, size_t row, size_t c, size_t n,
                              uint8_t *line, struct seen *seen)
{
    size_t bytes = type == TERN_TYPE_TQ1_0 ? TQ1_0_BYTES : TQ2_0_BYTES;
    const uint8_t *b = src + (row * (k / TQ_BLOCK) + c / TQ_BLOCK) * bytes;
    for (size_t i = 0; i < n; i += TQ_BLOCK, b += bytes) {
        if (type == TERN_TYPE_TQ1_0)
            open_tq1(b, line + i, seen);
        else
            open_tq2(b, line + i, seen);
    }
    return line;
}

static const uint8_t *open_span(uint32_t type, enum tern_i2s_layout layout, const uint8_t *src, size_t k,
                                size_t row, size_t c, size_t n, uint8_t *line, struct seen *seen)
{
    if (type != TERN_TYPE_I2_S)
        return open_tq(type, src, k, row, c, n, line, seen);
    if (layout == TERN_I2S_C)
        return open_i2s_c(src, k, row, c, n, line, seen);
    return open_i2s_ab(src, layout == TERN_I2S_A ? 32 : 16, row * k + c, n, line, seen);
}

/* -- codes to tiles -------------------------------------------------------------------------------------- */

/* The sixteen codes of one row and one column group as the row's four bytes of the tile. */
static inline uint32_t close_group(const uint8_t *codes)
{
    uint32_t w[4];
    memcpy(w, codes, sizeof w);
    return w[0] | w[1] << 2 | w[2] << 4 | w[3] << 6;
}

/* n codes of row r (0..15) into the tile from its column c on, c a multiple of 16. */
static void scatter(const uint8_t *codes, size_t n, size_t r, size_t c, uint8_t *tile)
{
    uint8_t *out = tile + 4 * c + 4 * r;
    size_t i = 0;
    for (; i + TERN_TILE_COLS <= n; i += TERN_TILE_COLS, out += 4 * TERN_TILE_COLS) {
        uint32_t w = close_group(codes + i);
        memcpy(out, &w, sizeof w);
    }
    if (i < n) {
        uint8_t last[TERN_TILE_COLS];
        memset(last, 1, sizeof last);
        memcpy(last, codes + i, n - i);
        uint32_t w = close_group(last);
        memcpy(out, &w, sizeof w);
    }
}

static uint8_t five_trits(unsigned v)
{
    return (uint8_t)((v * 256 + 242) / 243);
}

enum tern_pack_result tern_pack(uint32_t type, enum tern_i2s_layout layout, const uint8_t *src, size_t m,
                                size_t k, size_t tile_first, size_t tile_last, uint8_t *tiles, float *scale)
{
    struct seen seen = { 0 };
    for (unsigned v = 0; v < 243; v++)
        seen.tq1[five_trits(v)] = v % 3 == 0 ? 3 : 1;
    if (type == TERN_TYPE_I2_S) {
        memcpy(&seen.scale, src + m * k / 4, sizeof seen.scale);
        seen.bad_scale = !(seen.scale >= 0.0f) || seen.scale == INFINITY;
    }
    uint8_t line[LINE];
    size_t k_pad = tern_pack_k_pad(k);
    for (size_t t = tile_first; t < tile_last; t++) {
        uint8_t *tile = tiles + t * 4 * k_pad;
        for (size_t c = 0; c < k; c += SPAN) {
            size_t n = k - c < SPAN ? k - c : SPAN;
            for (size_t r = 0; r < TERN_TILE_ROWS; r++) {
                size_t row = t * TERN_TILE_ROWS + r;
                const uint8_t *codes = memset(line, 1, row < m ? 0 : n);
                if (row < m)
                    codes = open_span(type, layout, src, k, row, c, n, line, &seen);
                scatter(codes, n, r, c, tile);
            }
        }
    }
    if (seen.bad_code)
        return TERN_PACK_BAD_CODE;
    if (seen.bad_scale)
        return TERN_PACK_BAD_SCALE;
    if (seen.differ)
        return TERN_PACK_SCALES;
    *scale = seen.scale;
    return TERN_PACK_OK;
}

int tern_unpack_at(const uint8_t *tiles, size_t k_pad, size_t row, size_t col)
{
    const uint8_t *tile = tiles + row / TERN_TILE_ROWS * 4 * k_pad;
    size_t at = col % TERN_TILE_COLS;
    uint8_t b = tile[col / TERN_TILE_COLS * 64 + row % TERN_TILE_ROWS * 4 + at % 4];
    return (int)(b >> at / 4 * 2 & 3) - 1;
}

/* -- ternary values to file types ------------------------------------------------------------------------ */

static bool file_i2s(enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k, float scale,
                     uint8_t *dst)
{
    size_t n = m * k, lanes = layout == TERN_I2S_A ? 32 : 16;
    if (layout == TERN_I2S_C ? m % 4 != 0 : n % (4 * lanes) != 0)
        return false;
    memset(dst, 0, n / 4 + 32);
    for (size_t e = 0; e < n; e++) {
        size_t row = e / k, j = e % (4 * lanes);
        size_t byte = layout == TERN_I2S_C ? row / 4 * k + e % k : e / (4 * lanes) * lanes + j % lanes;
        size_t group = layout == TERN_I2S_C ? row % 4 : j / lanes;
        dst[byte] |= (uint8_t)((w[e] + 1) << (6 - 2 * group));
    }
    memcpy(dst + n / 4, &scale, sizeof scale);
    return true;
}

static uint8_t close_trits(const int8_t *w, size_t stride, unsigned digits)
{
    unsigned v = 0;
    for (unsigned i = 0; i < 5; i++)
        v = 3 * v + (i < digits ? (unsigned)(w[i * stride] + 1) : 0u);
    return five_trits(v);
}

static void file_tq1_block(const int8_t *w, uint8_t *dst)
{
    for (size_t i = 0; i < 32; i++)
        dst[i] = close_trits(w + i, 32, 5);
    for (size_t i = 0; i < 16; i++)
        dst[32 + i] = close_trits(w + 160 + i, 16, 5);
    for (size_t i = 0; i < 4; i++)
        dst[48 + i] = close_trits(w + 240 + i, 4, 4);
}

static void file_tq2_block(const int8_t *w, uint8_t *dst)
{
    memset(dst, 0, 64);
    for (size_t e = 0; e < TQ_BLOCK; e++)
        dst[e / 128 * 32 + e % 32] |= (uint8_t)((w[e] + 1) << (e % 128 / 32 * 2));
}

bool tern_pack_file(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k,
                    float scale, uint8_t *dst)
{
    if (type == TERN_TYPE_I2_S)
        return file_i2s(layout, w, m, k, scale, dst);
    if ((type != TERN_TYPE_TQ1_0 && type != TERN_TYPE_TQ2_0) || k % TQ_BLOCK != 0)
        return false;
    size_t qs = type == TERN_TYPE_TQ1_0 ? TQ1_0_BYTES - 2 : TQ2_0_BYTES - 2;
    for (size_t b = 0; b < m * (k / TQ_BLOCK); b++, w += TQ_BLOCK, dst += qs + 2) {
        if (type == TERN_TYPE_TQ1_0)
            file_tq1_block(w, dst);
        else
            file_tq2_block(w, dst);
        bool weights = false;
        for (size_t i = 0; i < TQ_BLOCK; i++)
            weights |= w[i] != 0;
        uint16_t d = weights ? f16_from_f32(scale) : 0;
        memcpy(dst + qs, &d, sizeof d);
    }
    return true;
}
