/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary values of floats: of matrices that hold 0 and plus or minus one number, and of master weights by
 * their mean magnitude.
 *
 * Whether |w| * s rounds to 1 depends on |w| alone, and more of it never less: so there is one smallest
 * magnitude that does, and weights of any type are compared with it as integers.
 */
#include "kernels/kernels_scalar.h"
#include "kernels/pack_impl.h"

static size_t float_bytes(uint32_t type)
{
    return type == TERN_F32 ? 4 : 2;
}

/* The value of a type's magnitude bits. */
static float magnitude(uint32_t type, uint32_t bits)
{
    return type == TERN_F16    ? f32_from_f16((uint16_t)bits)
           : type == TERN_BF16 ? f32_from_bf16((uint16_t)bits)
                               : f32_from_bits(bits);
}

/* The smallest magnitude m with m * s above a half, or infinity. */
static uint32_t first_one(uint32_t type, float s, uint32_t inf)
{
    uint32_t lo = 0, hi = inf; /* lo is too small */
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (magnitude(type, mid) * s > 0.5f)
            hi = mid;
        else
            lo = mid;
    }
    return hi;
}

void tern_pack_begin_floats(struct pack_reader *r)
{
    uint32_t type = r->from->type, bits = f32_bits(r->from->scale);
    r->inf = type == TERN_F32 ? 0x7f800000u : type == TERN_F16 ? 0x7c00u : 0x7f80u;
    if (r->from->absmean_s != 0) {
        r->one = first_one(type, r->from->absmean_s, r->inf);
        return;
    }
    r->one = type == TERN_F32 ? bits : type == TERN_F16 ? f16_from_f32(r->from->scale) : bits >> 16;
    if (r->one == 0 || magnitude(type, r->one) != r->from->scale)
        r->one = r->inf; /* nothing but zeros is right */
}

/* Sixteen bits: n codes of the weights at src.  Exact: the magnitude of those that are not 0 is `one`. */
static void open_halves(struct pack_reader *r, const uint8_t *src, size_t n, uint8_t *line)
{
    uint16_t one = (uint16_t)r->one, inf = (uint16_t)r->inf;
    uint16_t exact = r->from->absmean_s == 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t w, mag, is_one;
        memcpy(&w, src + 2 * i, sizeof w);
        mag = w & 0x7fff;
        is_one = mag >= one;
        bad |= (uint16_t)(mag >= inf) | (exact & (uint16_t)(mag != 0) & (uint16_t)(mag != one));
        line[i] = (uint8_t)(1 + is_one - (2 * is_one & w >> 14));
    }
    r->bad_code |= bad != 0;
}

/* The same of thirty-two. */
static void open_floats(struct pack_reader *r, const uint8_t *src, size_t n, uint8_t *line)
{
    uint32_t one = r->one, inf = r->inf, exact = r->from->absmean_s == 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t w, mag, is_one;
        memcpy(&w, src + 4 * i, sizeof w);
        mag = w & 0x7fffffff;
        is_one = mag >= one;
        bad |= (uint32_t)(mag >= inf) | (exact & (uint32_t)(mag != 0) & (uint32_t)(mag != one));
        line[i] = (uint8_t)(1 + is_one - (2 * is_one & w >> 30));
    }
    r->bad_code |= bad != 0;
}

void tern_pack_read_floats(struct pack_reader *r, size_t first, size_t n, uint8_t *line)
{
    const uint8_t *src = r->from->src + first * float_bytes(r->from->type);
    if (r->from->type == TERN_F32)
        open_floats(r, src, n, line);
    else
        open_halves(r, src, n, line);
}

/* -- what is needed before ------------------------------------------------------------------------------- */

/* The magnitude at i. */
static inline float magnitude_at(uint32_t type, const uint8_t *src, size_t i)
{
    uint32_t u;
    if (type == TERN_F32) {
        memcpy(&u, src + 4 * i, sizeof u);
        return f32_from_bits(u & 0x7fffffffu);
    }
    u = load_u16(src + 2 * i) & 0x7fffu;
    if (type == TERN_BF16)
        return f32_from_bits(u << 16);
    /* Without a branch: the exponent moved, or of those that have none the integer they are. */
    uint32_t small = 0u - (u < 0x400u), large = 0u - (u >= 0x7c00u);
    float normal = f32_from_bits((u << 13) + 0x38000000u + (large & 0x38000000u));
    float subnormal = (float)(int32_t)u * 0x1p-24f;
    return f32_from_bits((f32_bits(subnormal) & small) | (f32_bits(normal) & ~small));
}

static inline double sum(uint32_t type, const uint8_t *src, size_t n)
{
    double lane[TERN_LANES] = { 0 };
    size_t i = 0;
    for (; i + TERN_LANES <= n; i += TERN_LANES) {
        for (size_t j = 0; j < TERN_LANES; j++)
            lane[j] += (double)magnitude_at(type, src, i + j);
    }
    for (size_t j = 0; i + j < n; j++)
        lane[j] += (double)magnitude_at(type, src, i + j);
    return fold16_f64(lane);
}

double tern_pack_sum(uint32_t type, const uint8_t *src, size_t n)
{
    return type == TERN_F32   ? sum(TERN_F32, src, n)
           : type == TERN_F16 ? sum(TERN_F16, src, n)
                              : sum(TERN_BF16, src, n);
}

void tern_pack_absmean(uint32_t type, double total, size_t n, float *s, float *scale)
{
    float mean = (float)(total / (double)n);
    *s = 1.0f / (mean > 1e-5f ? mean : 1e-5f);
    *scale = 1.0f / *s;
    if (type == TERN_F16)
        *scale = f32_from_f16(f16_from_f32(*scale));
}

void tern_pack_extremes(uint32_t type, const uint8_t *src, size_t n, float *least, float *most)
{
    uint32_t lo = UINT32_MAX, hi = 0; /* lo: one less, so that 0 is the largest */
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        if (type == TERN_F32)
            memcpy(&u, src + 4 * i, sizeof u);
        else
            u = load_u16(src + 2 * i);
        u &= type == TERN_F32 ? 0x7fffffffu : 0x7fffu;
        hi = u > hi ? u : hi;
        lo = u - 1 < lo ? u - 1 : lo;
    }
    *most = magnitude(type, hi);
    *least = magnitude(type, hi == 0 ? 0 : lo + 1);
}
