/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/boundary.h"

#include "engine/base/limits.h"

#include <string.h>

/* Scales are stored little-endian; so is every machine Tern runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "payload rows are little-endian");

/* The longest row: limits.h. Scales are copied through a buffer of this many at a time, because a row in a
 * message has no alignment. */
#define SCALE_CHUNK 256

static const struct {
    enum tern_boundary b;
    const char *name;
} names[] = {
    { TERN_BOUNDARY_F32, "f32" },         { TERN_BOUNDARY_F16, "f16" },
    { TERN_BOUNDARY_INT8, "int8" },       { TERN_BOUNDARY_INT8X2, "int8x2" },
    { TERN_BOUNDARY_INT8_64, "int8-64" }, { TERN_BOUNDARY_INT8_ROW, "int8-row" },
    { TERN_BOUNDARY_INT8_32, "int8-32" },
};

const char *tern_boundary_name(enum tern_boundary b)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].b == b)
            return names[i].name;
    return "unknown";
}

bool tern_boundary_by_name(const char *name, enum tern_boundary *out)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].b;
            return true;
        }
    return false;
}

bool tern_boundary_valid(uint32_t number)
{
    return number >= TERN_BOUNDARY_F32 && number <= TERN_BOUNDARY_INT8_32;
}

static size_t block_of(enum tern_boundary b, size_t n)
{
    return b == TERN_BOUNDARY_INT8_ROW ? n : b == TERN_BOUNDARY_INT8_64 ? 64 : 32;
}

static size_t scales_of(enum tern_boundary b, size_t n)
{
    size_t block = block_of(b, n);

    return (n + block - 1) / block;
}

/* Elements that "int8" sets apart, and what each costs: its value and its place. */
#define OUTLIER_BYTES 6
#define MAX_OUTLIERS  (TERN_MAX_EMBD / 64)
_Static_assert(TERN_MAX_EMBD <= 65536, "a place is a u16");

static size_t outliers_of(size_t n)
{
    return (n + 63) / 64;
}

size_t tern_boundary_row_bytes(enum tern_boundary b, size_t n)
{
    switch (b) {
    case TERN_BOUNDARY_F32: return 4 * n;
    case TERN_BOUNDARY_F16: return 2 * n;
    case TERN_BOUNDARY_INT8X2: return 4 * scales_of(b, n) + 2 * n;
    case TERN_BOUNDARY_INT8: return OUTLIER_BYTES * outliers_of(n) + 4 * scales_of(b, n) + n;
    case TERN_BOUNDARY_INT8_32:
    case TERN_BOUNDARY_INT8_64:
    case TERN_BOUNDARY_INT8_ROW: return 4 * scales_of(b, n) + n;
    }
    return 0;
}

/* -- encoding -------------------------------------------------------------------------------------------- */

static void encode_f16(const struct tern_kernels *k, const float *x, size_t n, uint8_t *row)
{
    uint16_t half[SCALE_CHUNK];

    for (size_t i = 0; i < n; i += SCALE_CHUNK) {
        size_t m = n - i < SCALE_CHUNK ? n - i : SCALE_CHUNK;

        k->f32_to_f16(x + i, m, half);
        memcpy(row + 2 * i, half, 2 * m);
    }
}

/* Scales and planes of the blocks of x. */
static void encode_blocks(enum tern_boundary b, const struct tern_kernels *k, const float *x, size_t n,
                          uint8_t *row)
{
    size_t block = block_of(b, n), n_scales = scales_of(b, n);
    int8_t *hi = (int8_t *)row + 4 * n_scales;
    float scales[SCALE_CHUNK];

    for (size_t s = 0; s < n_scales; s += SCALE_CHUNK) {
        size_t ns = n_scales - s < SCALE_CHUNK ? n_scales - s : SCALE_CHUNK;
        size_t at = s * block, m = n - at < ns * block ? n - at : ns * block;

        if (b == TERN_BOUNDARY_INT8X2)
            k->encode_i8x2(x + at, m, block, scales, hi + at, hi + n + at);
        else
            k->encode_i8(x + at, m, block, scales, hi + at);
        memcpy(row + 4 * s, scales, 4 * ns);
    }
}

/* Leaves zeros in x where it took the largest elements out. */
static void encode_outliers(const struct tern_kernels *k, float *x, size_t n, uint8_t *row)
{
    size_t n_out = outliers_of(n);
    uint16_t places[MAX_OUTLIERS];

    k->largest(x, n, n_out, places);
    for (size_t i = 0; i < n_out; i++) {
        memcpy(row + 4 * i, &x[places[i]], 4);
        x[places[i]] = 0.0f;
    }
    memcpy(row + 4 * n_out, places, 2 * n_out);
    encode_blocks(TERN_BOUNDARY_INT8, k, x, n, row + OUTLIER_BYTES * n_out);
}

static void encode_copy(const struct tern_kernels *k, const float *x, size_t n, uint8_t *row)
{
    float copy[TERN_MAX_EMBD];

    memcpy(copy, x, n * sizeof *x);
    encode_outliers(k, copy, n, row);
}

void tern_boundary_encode(enum tern_boundary b, const struct tern_kernels *k, const float *x, size_t n,
                          uint8_t *row)
{
    switch (b) {
    case TERN_BOUNDARY_F32: memcpy(row, x, 4 * n); return;
    case TERN_BOUNDARY_F16: encode_f16(k, x, n, row); return;
    case TERN_BOUNDARY_INT8: encode_copy(k, x, n, row); return;
    case TERN_BOUNDARY_INT8X2:
    case TERN_BOUNDARY_INT8_32:
    case TERN_BOUNDARY_INT8_64:
    case TERN_BOUNDARY_INT8_ROW: encode_blocks(b, k, x, n, row); return;
    }
}

/* -- decoding -------------------------------------------------------------------------------------------- */

/* A scale no encoder writes: negative, infinite or NaN. */
static bool scales_ok(const float *scales, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(scales[i] >= 0.0f && scales[i] <= 3.0e38f / 128.0f))
            return false;
    return true;
}

static bool decode_f16(const struct tern_kernels *k, const uint8_t *row, size_t n, float *x)
{
    uint16_t half[SCALE_CHUNK];

    for (size_t i = 0; i < n; i += SCALE_CHUNK) {
        size_t m = n - i < SCALE_CHUNK ? n - i : SCALE_CHUNK;

        memcpy(half, row + 2 * i, 2 * m);
        k->f16_to_f32(half, m, x + i);
    }
    return k->all_finite(x, n);
}

static bool decode_blocks(enum tern_boundary b, const struct tern_kernels *k, const uint8_t *row, size_t n,
                          float *x)
{
    size_t block = block_of(b, n), n_scales = scales_of(b, n);
    const int8_t *hi = (const int8_t *)row + 4 * n_scales;
    float scales[SCALE_CHUNK];

    for (size_t s = 0; s < n_scales; s += SCALE_CHUNK) {
        size_t ns = n_scales - s < SCALE_CHUNK ? n_scales - s : SCALE_CHUNK;
        size_t at = s * block, m = n - at < ns * block ? n - at : ns * block;

        memcpy(scales, row + 4 * s, 4 * ns);
        if (!scales_ok(scales, ns))
            return false;
        if (b == TERN_BOUNDARY_INT8X2)
            k->decode_i8x2(scales, hi + at, hi + n + at, m, block, x + at);
        else
            k->decode_i8(scales, hi + at, m, block, x + at);
    }
    return true;
}

static bool decode_outliers(const struct tern_kernels *k, const uint8_t *row, size_t n, float *x)
{
    size_t n_out = outliers_of(n), next = 0;
    float values[MAX_OUTLIERS];
    uint16_t places[MAX_OUTLIERS];

    memcpy(values, row, 4 * n_out);
    memcpy(places, row + 4 * n_out, 2 * n_out);
    if (!k->all_finite(values, n_out) ||
        !decode_blocks(TERN_BOUNDARY_INT8, k, row + OUTLIER_BYTES * n_out, n, x))
        return false;
    for (size_t i = 0; i < n_out; i++) {
        if (places[i] < next || places[i] >= n)
            return false;
        x[places[i]] = values[i];
        next = places[i] + 1u;
    }
    return true;
}

bool tern_boundary_decode(enum tern_boundary b, const struct tern_kernels *k, const uint8_t *row, size_t n,
                          float *x)
{
    switch (b) {
    case TERN_BOUNDARY_F32: memcpy(x, row, 4 * n); return k->all_finite(x, n);
    case TERN_BOUNDARY_F16: return decode_f16(k, row, n, x);
    case TERN_BOUNDARY_INT8: return decode_outliers(k, row, n, x);
    case TERN_BOUNDARY_INT8X2:
    case TERN_BOUNDARY_INT8_32:
    case TERN_BOUNDARY_INT8_64:
    case TERN_BOUNDARY_INT8_ROW: return decode_blocks(b, k, row, n, x);
    }
    return false;
}

bool tern_boundary_round(enum tern_boundary b, const struct tern_kernels *k, float *x, size_t n, uint8_t *row)
{
    if (b == TERN_BOUNDARY_INT8)
        encode_outliers(k, x, n, row);
    else
        tern_boundary_encode(b, k, x, n, row);
    return tern_boundary_decode(b, k, row, n, x);
}
