/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary tensors of files to tiles, and ternary values to file types.
 *
 * Packing goes tile by tile in chunks of SPAN columns: sixteen rows are opened to one code a byte (into
 * buffers that stay in the first cache), then closed: sixteen vectors of four rows by four columns are turned
 * so that a lane is a row, and the columns that share a byte are put together by shifts or by multiplying by
 * three.  Plain vectors of sixteen bytes do both at the speed of memory, so there is no op for it in the
 * table.  All data is little-endian.
 */
#include "kernels/pack.h"

#include "kernels/kernels.h"
#include "kernels/kernels_scalar.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is little-endian and is read in place"
#endif

#define TQ_BLOCK    256
#define TQ1_0_BYTES 54
#define TQ2_0_BYTES 66

/* Columns at a time: whole blocks of every file type and whole groups of both layouts. */
#define SPAN 1280
/* A row may begin and end inside a block of the file: room for one more on each side. */
#define LINE (SPAN + 2 * TQ_BLOCK)

#define LOW2 UINT64_C(0x0303030303030303)
#define ODD1 UINT64_C(0x5555555555555555)

_Static_assert(SPAN % TQ_BLOCK == 0 && SPAN % TERN_TILE_COLS == 0 && SPAN % TERN_TILE_COLS_5TRIT == 0,
               "a span is whole blocks and whole groups");

/* Sixteen bytes; as words, a lane is one row and its bytes are four neighbouring columns. */
typedef uint8_t v16b __attribute__((vector_size(16)));
typedef uint32_t v4w __attribute__((vector_size(16)));

/* What a range of tiles has shown so far. */
struct seen {
    bool bad_code;  /* a code 3, or a byte no encoder writes */
    bool bad_scale; /* negative, infinite or NaN */
    bool differ;    /* two blocks with weights have different scales */
    float scale;    /* of the blocks with weights; 0 when there were none */
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
    unsigned shift = 6 - 2 * (unsigned)(row % 4);
    uint64_t bad = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t code = load_u64(p + i) >> shift & LOW2;
        bad |= code & code >> 1 & ODD1;
        store_u64(line + i, code);
    }
    for (; i < n; i++) {
        line[i] = (uint8_t)(p[i] >> shift & 3u);
        bad |= line[i] == 3;
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

/* n <= 16 bytes of `digits` trits each, the digit of highest value first; digit i of byte m is code
 * i * stride + m.  A byte is a fraction of 256, so that a digit is what three times it carries over. */
static inline void open_trits(const uint8_t *src, size_t n, unsigned digits, size_t stride, uint8_t *codes)
{
    v16b v = { 0 };
    memcpy(&v, src, n);
    for (unsigned i = 0; i < digits; i++) {
        v16b digit = -((v16b)(v >= 86) + (v16b)(v >= 171));
        memcpy(codes + i * stride, &digit, n);
        v = v + v + v;
    }
}

/*
 * A byte of five trits is 256 x / 243, rounded up, for some x < 243; then byte * 243 mod 256, which is what
 * was added, is below 243.  In a byte of four trits the fifth is 0.  Returns 1 for good bytes only.
 */
static unsigned good_trits(const uint8_t *src, size_t n)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (uint8_t)(src[i] * 243u) > 242;
    return !bad;
}

static void open_tq1(const uint8_t *b, uint8_t codes[TQ_BLOCK], struct seen *seen)
{
    open_trits(b, 16, 5, 32, codes);
    open_trits(b + 16, 16, 5, 32, codes + 16);
    open_trits(b + 32, 16, 5, 16, codes + 160);
    open_trits(b + 48, 4, 4, 4, codes + 240);
    unsigned good = good_trits(b, 52);
    for (size_t i = 48; i < 52; i++)
        good &= (uint8_t)(b[i] * 81u) < 86;
    seen->bad_code |= !good;
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

static const uint8_t *open_span(const struct tern_trits *p, size_t row, size_t c, size_t n, uint8_t *line,
                                struct seen *seen)
{
    if (p->type != TERN_TYPE_I2_S)
        return open_tq(p->type, p->src, p->k, row, c, n, line, seen);
    if (p->i2s == TERN_I2S_C)
        return open_i2s_c(p->src, p->k, row, c, n, line, seen);
    return open_i2s_ab(p->src, p->i2s == TERN_I2S_A ? 32 : 16, row * p->k + c, n, line, seen);
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

static uint8_t five_trits(unsigned v)
{
    return (uint8_t)((v * 256 + 242) / 243);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static void pack_tile(const struct tern_packing *p, size_t t, uint8_t lines[TERN_TILE_ROWS][LINE],
                      struct seen *seen)
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
                line += open_span(&p->from, row, c, n, line, seen) - line;
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

static void begin(const struct tern_trits *from, struct seen *seen)
{
    if (from->type == TERN_TYPE_I2_S) {
        memcpy(&seen->scale, from->src + from->m * from->k / 4, sizeof seen->scale);
        seen->bad_scale = !(seen->scale >= 0.0f) || seen->scale == INFINITY;
    }
}

static enum tern_pack_result end(const struct seen *seen, float *scale)
{
    if (seen->bad_code)
        return TERN_PACK_BAD_CODE;
    if (seen->bad_scale)
        return TERN_PACK_BAD_SCALE;
    if (seen->differ)
        return TERN_PACK_SCALES;
    *scale = seen->scale;
    return TERN_PACK_OK;
}

enum tern_pack_result tern_pack(const struct tern_packing *p, size_t tile_first, size_t tile_last,
                                float *scale)
{
    struct seen seen = { 0 };
    uint8_t lines[TERN_TILE_ROWS][LINE];
    begin(&p->from, &seen);
    for (size_t t = tile_first; t < tile_last; t++)
        pack_tile(p, t, lines, &seen);
    return end(&seen, scale);
}

enum tern_pack_result tern_pack_rows(const struct tern_trits *from, size_t first, size_t last, int8_t *w,
                                     float *scale)
{
    struct seen seen = { 0 };
    uint8_t line[LINE];
    begin(from, &seen);
    for (size_t row = first; row < last; row++, w += from->k) {
        for (size_t c = 0; c < from->k; c += SPAN) {
            size_t n = from->k - c < SPAN ? from->k - c : SPAN;
            const uint8_t *codes = open_span(from, row, c, n, line, &seen);
            for (size_t i = 0; i < n; i++)
                w[c + i] = (int8_t)(codes[i] - 1);
        }
    }
    return end(&seen, scale);
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

/* -- ternary values to file types ------------------------------------------------------------------------ */

static bool file_i2s(enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k, float scale,
                     uint8_t *dst)
{
    size_t n = m * k, lanes = layout == TERN_I2S_A ? 32 : 16;
    if (layout == TERN_I2S_C ? m % 4 != 0 : n % (4 * lanes) != 0)
        return false;
    memset(dst + n / 4, 0, 32);
    /* Four runs of codes, one over the other: the lanes of a block, or (layout C) four rows. */
    size_t run = layout == TERN_I2S_C ? k : lanes;
    for (size_t b = 0; b < n; b += 4 * run, w += 4 * run, dst += run) {
        for (size_t i = 0; i < run; i++)
            dst[i] = (uint8_t)((w[i] + 1) << 6 | (w[run + i] + 1) << 4 | (w[2 * run + i] + 1) << 2 |
                               (w[3 * run + i] + 1));
    }
    memcpy(dst, &scale, sizeof scale);
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
