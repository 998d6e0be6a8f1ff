/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a ternary matrix, as a file has it, to codes: one function a type.
 */
#include "kernels/kernels.h"
#include "kernels/kernels_scalar.h"
#include "kernels/pack_impl.h"

#define LOW2 UINT64_C(0x0303030303030303)
#define ODD1 UINT64_C(0x5555555555555555)

/* Sixteen bytes. */
typedef uint8_t v16b __attribute__((vector_size(16)));

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
                                  struct pack_reader *r)
{
    size_t elems = 4 * lanes, begin = first / elems;
    uint64_t bad = 0;
    for (size_t b = begin; b * elems < first + n; b++) {
        uint8_t *codes = line + (b - begin) * elems;
        bad |= lanes == 32 ? open_block(src + b * 32, 32, true, codes)
                           : open_block(src + b * 16, 16, true, codes);
    }
    r->bad_code |= bad != 0;
    return line + first % elems;
}

/* n bytes' codes at one shift: a row among the four that share bytes. */
static const uint8_t *open_shared(const uint8_t *p, unsigned shift, size_t n, uint8_t *line,
                                  struct pack_reader *r)
{
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
    r->bad_code |= bad != 0;
    return line;
}

/* Takes one block's scale into account; a block without weights has none, and a scale of 0 makes all weights
 * zero. */
static void take_scale(struct pack_reader *r, uint16_t half, uint8_t codes[TQ_BLOCK])
{
    float d = f32_from_f16(half);
    if (!(d >= 0.0f) || d == INFINITY) {
        r->bad_scale = true;
        return;
    }
    if (d == 0.0f) {
        memset(codes, 1, TQ_BLOCK);
        return;
    }
    if (d == r->scale)
        return;
    unsigned weights = 0;
    for (size_t i = 0; i < TQ_BLOCK; i++)
        weights |= codes[i] ^ 1u;
    if (weights == 0)
        return;
    if (r->scale != 0.0f)
        r->differ = true;
    r->scale = d;
}

static void open_tq2(const uint8_t *b, uint8_t codes[TQ_BLOCK], struct pack_reader *r)
{
    uint64_t bad = open_block(b, 32, false, codes) | open_block(b + 32, 32, false, codes + 128);
    r->bad_code |= bad != 0;
    take_scale(r, load_u16(b + 64), codes);
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

static void open_tq1(const uint8_t *b, uint8_t codes[TQ_BLOCK], struct pack_reader *r)
{
    open_trits(b, 16, 5, 32, codes);
    open_trits(b + 16, 16, 5, 32, codes + 16);
    open_trits(b + 32, 16, 5, 16, codes + 160);
    open_trits(b + 48, 4, 4, 4, codes + 240);
    unsigned good = good_trits(b, 52);
    for (size_t i = 48; i < 52; i++)
        good &= (uint8_t)(b[i] * 81u) < 86;
    r->bad_code |= !good;
    take_scale(r, load_u16(b + 52), codes);
}

/* Columns [c, c + n) of a row; c and the row length are multiples of the block. */
static const uint8_t *open_tq(uint32_t type, const uint8_t *src, size_t k, size_t row, size_t c, size_t n,
                              uint8_t *line, struct pack_reader *r)
{
    size_t bytes = type == TERN_TYPE_TQ1_0 ? TQ1_0_BYTES : TQ2_0_BYTES;
    const uint8_t *b = src + (row * (k / TQ_BLOCK) + c / TQ_BLOCK) * bytes;
    for (size_t i = 0; i < n; i += TQ_BLOCK, b += bytes) {
        if (type == TERN_TYPE_TQ1_0)
            open_tq1(b, line + i, r);
        else
            open_tq2(b, line + i, r);
    }
    return line;
}

/* -- any type -------------------------------------------------------------------------------------------- */

static const uint8_t *open_i2s(const struct tern_trits *t, size_t row, size_t c, size_t n, uint8_t *line,
                               struct pack_reader *r)
{
    if (t->i2s == TERN_I2S_C)
        return open_shared(t->src + row / 4 * t->k + c, 6 - 2 * (unsigned)(row % 4), n, line, r);
    return open_i2s_ab(t->src, t->i2s == TERN_I2S_A ? 32 : 16, row * t->k + c, n, line, r);
}

/* Packed by quarters of the rows. */
static const uint8_t *open_hf(const struct tern_trits *t, size_t row, size_t c, size_t n, uint8_t *line,
                              struct pack_reader *r)
{
    size_t quarter = t->m / 4 + (t->m % 4 != 0);
    return open_shared(t->src + row % quarter * t->k + c, 2 * (unsigned)(row / quarter), n, line, r);
}

/* Where the file has a row whose head's rows it keeps in another order. */
static size_t file_row(const struct tern_trits *t, size_t row)
{
    if (t->n_heads == 0)
        return row;
    size_t d = t->m / t->n_heads, at = row % d;
    return row - at + at / 2 + (at % 2 ? d / 2 : 0);
}

const uint8_t *tern_pack_read(struct pack_reader *r, size_t row, size_t c, size_t n, uint8_t *line)
{
    const struct tern_trits *t = r->from;
    uint32_t bad = 0;
    row = file_row(t, row);
    switch (t->type) {
    case TERN_TYPE_I2_S: return open_i2s(t, row, c, n, line, r);
    case TERN_TYPE_HF_PACKED: return open_hf(t, row, c, n, line, r);
    case TERN_F32:
    case TERN_F16:
    case TERN_BF16: tern_pack_read_floats(r, row * t->k + c, n, line); return line;
    case TERN_TYPE_TL1:
    case TERN_TYPE_TL2:
        line += tern_tl_read(t, row, c, n, line, &bad) - line;
        r->bad_code |= bad != 0;
        return line;
    default: return open_tq(t->type, t->src, t->k, row, c, n, line, r);
    }
}

void tern_pack_read_begin(struct pack_reader *r, const struct tern_trits *from)
{
    size_t at = from->m * from->k / 4;
    *r = (struct pack_reader){ .from = from, .scale = from->scale };
    if (from->type == TERN_TYPE_TL1 || from->type == TERN_TYPE_TL2)
        r->bad_code = !tern_tl_bytes(from->type, from->m, from->k, &at);
    if (from->type == TERN_TYPE_I2_S || from->type == TERN_TYPE_TL1 || from->type == TERN_TYPE_TL2)
        memcpy(&r->scale, from->src + at, sizeof r->scale);
    else if (from->type == TERN_TYPE_TQ1_0 || from->type == TERN_TYPE_TQ2_0)
        r->scale = 0;
    else if (from->type != TERN_TYPE_HF_PACKED)
        tern_pack_begin_floats(r);
    r->bad_scale = !(r->scale >= 0.0f) || r->scale == INFINITY;
}

enum tern_pack_result tern_pack_read_end(const struct pack_reader *r, float *scale)
{
    if (r->bad_code)
        return TERN_PACK_BAD_CODE;
    if (r->bad_scale)
        return TERN_PACK_BAD_SCALE;
    if (r->differ)
        return TERN_PACK_SCALES;
    *scale = r->scale;
    return TERN_PACK_OK;
}
