/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary values to the types of files that keep rows apart: I2_S, TQ1_0 and TQ2_0.
 */
#include "kernels/kernels_scalar.h"
#include "kernels/pack_impl.h"

/* Elements of a block of I2_S in layouts A and B. */
static size_t block_elems(enum tern_i2s_layout layout)
{
    return layout == TERN_I2S_A ? 128 : 64;
}

/* Four runs of codes, one over the other: the lanes of a block, or (layout C) four rows. */
static void file_i2s(enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k, uint8_t *dst)
{
    size_t n = m * k, run = layout == TERN_I2S_C ? k : block_elems(layout) / 4;
    for (size_t b = 0; b < n; b += 4 * run, w += 4 * run, dst += run) {
        for (size_t i = 0; i < run; i++)
            dst[i] = (uint8_t)((w[i] + 1) << 6 | (w[run + i] + 1) << 4 | (w[2 * run + i] + 1) << 2 |
                               (w[3 * run + i] + 1));
    }
}

static uint8_t five_trits(unsigned v)
{
    return (uint8_t)((v * 256 + 242) / 243);
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
    for (size_t half = 0; half < 2; half++, w += 128, dst += 32) {
        for (size_t i = 0; i < 32; i++)
            dst[i] =
                (uint8_t)((w[i] + 1) | (w[32 + i] + 1) << 2 | (w[64 + i] + 1) << 4 | (w[96 + i] + 1) << 6);
    }
}

static size_t tq_bytes(uint32_t type)
{
    return type == TERN_TYPE_TQ1_0 ? TQ1_0_BYTES : TQ2_0_BYTES;
}

static void file_tq(uint32_t type, const int8_t *w, size_t n, float scale, uint8_t *dst)
{
    size_t qs = tq_bytes(type) - 2;
    uint16_t half = f16_from_f32(scale);
    for (size_t b = 0; b < n / TQ_BLOCK; b++, w += TQ_BLOCK, dst += qs + 2) {
        if (type == TERN_TYPE_TQ1_0)
            file_tq1_block(w, dst);
        else
            file_tq2_block(w, dst);
        uint8_t weights = 0;
        for (size_t i = 0; i < TQ_BLOCK; i++)
            weights |= (uint8_t)w[i];
        uint16_t d = weights ? half : 0;
        memcpy(dst + qs, &d, sizeof d);
    }
}

size_t tern_pack_file_unit(uint32_t type, enum tern_i2s_layout layout, size_t m, size_t k)
{
    if (type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0)
        return k % TQ_BLOCK == 0;
    if (type != TERN_TYPE_I2_S)
        return 0;
    if (layout == TERN_I2S_C)
        return m % 4 == 0 ? 4 : 0;
    size_t elems = block_elems(layout), rows = 1;
    while (rows * k % elems != 0) /* ends at elems, a power of two */
        rows *= 2;
    return m % elems * (k % elems) % elems == 0 ? rows : 0;
}

size_t tern_pack_file_offset(uint32_t type, size_t k, size_t row)
{
    return type == TERN_TYPE_I2_S ? row * k / 4 : row * (k / TQ_BLOCK) * tq_bytes(type);
}

void tern_pack_file_rows(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, size_t rows, size_t k,
                         float scale, uint8_t *dst)
{
    if (type == TERN_TYPE_I2_S)
        file_i2s(layout, w, rows, k, dst);
    else
        file_tq(type, w, rows * k, scale, dst);
}

size_t tern_pack_file_tail(uint32_t type, float scale, uint8_t tail[static TERN_PACK_TAIL_BYTES])
{
    if (type != TERN_TYPE_I2_S)
        return 0;
    memset(tail, 0, TERN_PACK_TAIL_BYTES);
    memcpy(tail, &scale, sizeof scale);
    return TERN_PACK_TAIL_BYTES;
}

bool tern_pack_file(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, size_t m, size_t k,
                    float scale, uint8_t *dst)
{
    uint8_t tail[TERN_PACK_TAIL_BYTES];
    if (tern_pack_file_unit(type, layout, m, k) == 0)
        return false;
    tern_pack_file_rows(type, layout, w, m, k, scale, dst);
    size_t n = tern_pack_file_tail(type, scale, tail);
    if (n)
        memcpy(dst + tern_pack_file_offset(type, k, m), tail, n);
    return true;
}
