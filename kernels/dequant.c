/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of the plain and block-quantised types of ggml to f32, in the order of operations of ggml's own
 * definitions: every product and sum is rounded to f32 on its own.  All numbers in the rows are
 * little-endian.
 */
#include "kernels/kernels.h"
#include "kernels/kernels_scalar.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is little-endian and is read in place"
#endif

#define QK4_0_BYTES 18
#define QK8_0_BYTES 34
#define Q4_K_BYTES  144
#define Q6_K_BYTES  210
#define TQ2_0_BYTES 66

bool tern_dtype_block(uint32_t type, size_t *elems, size_t *bytes)
{
    size_t e = 1, b;
    switch (type) {
    case TERN_F32: b = 4; break;
    case TERN_F16:
    case TERN_BF16: b = 2; break;
    case TERN_Q8_0: e = 32, b = QK8_0_BYTES; break;
    case TERN_Q4_0: e = 32, b = QK4_0_BYTES; break;
    case TERN_Q4_K: e = 256, b = Q4_K_BYTES; break;
    case TERN_Q6_K: e = 256, b = Q6_K_BYTES; break;
    case TERN_TQ2_0: e = 256, b = TQ2_0_BYTES; break;
    default: return false;
    }
    *elems = e;
    *bytes = b;
    return true;
}

/* f16 d; int8 q[32]. */
static void q8_0_block(const uint8_t *b, float *y)
{
    float d = f32_from_f16(load_u16(b));
    const int8_t *q = (const int8_t *)(b + 2);
    for (size_t i = 0; i < 32; i++)
        y[i] = (float)q[i] * d;
}

/* f16 d; 16 bytes: element j in the low nibble, j + 16 in the high one. */
static void q4_0_block(const uint8_t *b, float *y)
{
    float d = f32_from_f16(load_u16(b));
    for (size_t j = 0; j < 16; j++) {
        y[j] = (float)((b[2 + j] & 15) - 8) * d;
        y[j + 16] = (float)((b[2 + j] >> 4) - 8) * d;
    }
}

/* f16 d, f16 dmin; 12 bytes with eight 6-bit scales and eight 6-bit minima; 128 bytes of nibbles. */
static void q4_k_block(const uint8_t *b, float *y)
{
    float d = f32_from_f16(load_u16(b)), dmin = f32_from_f16(load_u16(b + 2));
    const uint8_t *s = b + 4, *qs = b + 16;
    for (size_t j = 0; j < 8; j++) {
        unsigned sc = s[j % 4] & 63u, mn = s[j % 4 + 4] & 63u;
        if (j >= 4) {
            sc = (s[j + 4] & 15u) | (unsigned)(s[j - 4] >> 6) << 4;
            mn = (unsigned)s[j + 4] >> 4 | (unsigned)(s[j] >> 6) << 4;
        }
        float scale = d * (float)sc, min = dmin * (float)mn;
        const uint8_t *q = qs + 32 * (j / 2);
        unsigned shift = j % 2 * 4;
        for (size_t i = 0; i < 32; i++)
            y[32 * j + i] = scale * (float)(q[i] >> shift & 15) - min;
    }
}

/* 128 bytes of low nibbles; 64 bytes of high bit pairs; 16 int8 scales; f16 d. */
static void q6_k_block(const uint8_t *b, float *y)
{
    float d = f32_from_f16(load_u16(b + 208));
    const int8_t *scales = (const int8_t *)(b + 192);
    for (size_t half = 0; half < 2; half++) {
        const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        for (size_t g = 0; g < 4; g++) {
            for (size_t l = 0; l < 32; l++) {
                int low = ql[g % 2 * 32 + l] >> (g / 2 * 4) & 15;
                int high = qh[l] >> (2 * g) & 3;
                float scale = d * (float)scales[8 * half + 2 * g + l / 16];
                *y++ = scale * (float)((low | high << 4) - 32);
            }
        }
    }
}

/* 64 bytes of bit pairs, each 32 bytes 128 elements; f16 d. */
static void tq2_0_block(const uint8_t *b, float *y)
{
    float d = f32_from_f16(load_u16(b + 64));
    for (size_t e = 0; e < 256; e++)
        y[e] = (float)((b[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3) - 1) * d;
}

static void plain_row(enum tern_dtype type, const uint8_t *b, size_t n, float *y)
{
    if (type == TERN_F32) {
        memcpy(y, b, n * sizeof y[0]);
    } else if (type == TERN_F16) {
        for (size_t i = 0; i < n; i++)
            y[i] = f32_from_f16(load_u16(b + 2 * i));
    } else {
        for (size_t i = 0; i < n; i++)
            y[i] = f32_from_bf16(load_u16(b + 2 * i));
    }
}

void tern_dequant_row(enum tern_dtype type, const void *row, size_t n, float *y)
{
    const uint8_t *b = row;
    size_t i = 0;
    switch (type) {
    case TERN_F32:
    case TERN_F16:
    case TERN_BF16: plain_row(type, b, n, y); break;
    case TERN_Q8_0:
        for (; i < n; i += 32, b += QK8_0_BYTES)
            q8_0_block(b, y + i);
        break;
    case TERN_Q4_0:
        for (; i < n; i += 32, b += QK4_0_BYTES)
            q4_0_block(b, y + i);
        break;
    case TERN_Q4_K:
        for (; i < n; i += 256, b += Q4_K_BYTES)
            q4_k_block(b, y + i);
        break;
    case TERN_Q6_K:
        for (; i < n; i += 256, b += Q6_K_BYTES)
            q6_k_block(b, y + i);
        break;
    case TERN_TQ2_0:
        for (; i < n; i += 256, b += TQ2_0_BYTES)
            tq2_0_block(b, y + i);
        break;
    }
}
