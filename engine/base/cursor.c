/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/cursor.h"

#include <string.h>

void tern_cursor_init(struct tern_cursor *c, const void *bytes, size_t len)
{
    c->begin = bytes;
    c->at = bytes;
    c->end = c->at ? c->at + len : c->at;
    c->bad = false;
}

bool tern_cursor_bytes(struct tern_cursor *c, uint64_t n, const uint8_t **out)
{
    if (c->bad || n > tern_cursor_left(c)) {
        c->bad = true;
        return false;
    }
    *out = c->at;
    c->at += (size_t)n;
    return true;
}

bool tern_cursor_skip(struct tern_cursor *c, uint64_t n)
{
    const uint8_t *unused;
    return tern_cursor_bytes(c, n, &unused);
}

bool tern_cursor_u8(struct tern_cursor *c, uint8_t *out)
{
    const uint8_t *p;
    if (!tern_cursor_bytes(c, 1, &p))
        return false;
    *out = p[0];
    return true;
}

bool tern_cursor_u16(struct tern_cursor *c, uint16_t *out)
{
    const uint8_t *p;
    if (!tern_cursor_bytes(c, 2, &p))
        return false;
    *out = (uint16_t)(p[0] | p[1] << 8);
    return true;
}

bool tern_cursor_u32(struct tern_cursor *c, uint32_t *out)
{
    const uint8_t *p;
    if (!tern_cursor_bytes(c, 4, &p))
        return false;
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

bool tern_cursor_u64(struct tern_cursor *c, uint64_t *out)
{
    uint32_t lo, hi;
    if (tern_cursor_left(c) < 8 || !tern_cursor_u32(c, &lo) || !tern_cursor_u32(c, &hi)) {
        c->bad = true;
        return false;
    }
    *out = (uint64_t)hi << 32 | lo;
    return true;
}

bool tern_cursor_f32(struct tern_cursor *c, float *out)
{
    uint32_t bits;
    if (!tern_cursor_u32(c, &bits))
        return false;
    memcpy(out, &bits, sizeof *out);
    return true;
}

bool tern_cursor_f64(struct tern_cursor *c, double *out)
{
    uint64_t bits;
    if (!tern_cursor_u64(c, &bits))
        return false;
    memcpy(out, &bits, sizeof *out);
    return true;
}
