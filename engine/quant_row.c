/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of embeddings and heads to the types of files: see quant_row.h. */
#include "engine/quant_row.h"

#include "engine/gguf.h"
#include "kernels/kernels.h"
#include "kernels/kernels_scalar.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* f16 in two little-endian bytes; returns the value that was stored. */
static float put_f16(float v, uint8_t *out)
{
    uint16_t h = f16_from_f32(v);

    out[0] = (uint8_t)h;
    out[1] = (uint8_t)(h >> 8);
    return f32_from_f16(h);
}

static float absmax(const float *x, size_t n)
{
    float m = 0;

    for (size_t i = 0; i < n; i++)
        m = fmaxf(m, fabsf(x[i]));
    return m;
}

/* round(x / d) within lo..hi, lo's side of zero included; 0 when d is 0. */
static int level(float x, float d, int lo, int hi)
{
    float q = d != 0 ? roundf(x / d) : 0;

    return q < (float)lo ? lo : q > (float)hi ? hi : (int)q;
}

static void row_f16(const float *x, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        (void)put_f16(x[i], out + 2 * i);
}

static void row_bf16(const float *x, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;

        memcpy(&u, &x[i], sizeof u);
        u += 0x7fff + (u >> 16 & 1); /* nearest even; x is finite */
        out[2 * i] = (uint8_t)(u >> 16);
        out[2 * i + 1] = (uint8_t)(u >> 24);
    }
}

static void row_q8_0(const float *x, size_t n, uint8_t *out)
{
    for (; n; n -= 32, x += 32, out += 34) {
        float d = absmax(x, 32) / 127.0f;

        (void)put_f16(d, out);
        for (int i = 0; i < 32; i++)
            out[2 + i] = (uint8_t)(int8_t)level(x[i], d, -127, 127);
    }
}

static void row_q4_0(const float *x, size_t n, uint8_t *out)
{
    for (; n; n -= 32, x += 32, out += 18) {
        float d, top = 0;

        for (int i = 0; i < 32; i++)
            if (fabsf(x[i]) > fabsf(top))
                top = x[i];
        d = put_f16(top / -8.0f, out); /* so that the largest value has the code that reaches furthest */
        for (int j = 0; j < 16; j++)
            out[2 + j] = (uint8_t)((level(x[j], d, -8, 7) + 8) | (level(x[j + 16], d, -8, 7) + 8) << 4);
    }
}

/* Scale sc and minimum mn (6 bits each) of sub-block j, as ggml packs them. */
static void put_scale_min(uint8_t *s, int j, int sc, int mn)
{
    if (j < 4) {
        s[j] = (uint8_t)(s[j] | sc);
        s[j + 4] = (uint8_t)(s[j + 4] | mn);
        return;
    }
    s[j + 4] = (uint8_t)((sc & 15) | (mn & 15) << 4);
    s[j - 4] = (uint8_t)(s[j - 4] | (sc >> 4) << 6);
    s[j] = (uint8_t)(s[j] | (mn >> 4) << 6);
}

static void block_q4_k(const float *x, uint8_t *out)
{
    float scale[8], low[8], top_scale = 0, top_low = 0, d, dmin;

    memset(out, 0, 144);
    for (int j = 0; j < 8; j++) {
        float lo = 0, hi = 0;

        for (int i = 0; i < 32; i++) {
            lo = fminf(lo, x[32 * j + i]);
            hi = fmaxf(hi, x[32 * j + i]);
        }
        scale[j] = (hi - lo) / 15.0f;
        low[j] = -lo;
        top_scale = fmaxf(top_scale, scale[j]);
        top_low = fmaxf(top_low, low[j]);
    }
    d = put_f16(top_scale / 63.0f, out);
    dmin = put_f16(top_low / 63.0f, out + 2);
    for (int j = 0; j < 8; j++) {
        int sc = level(scale[j], d, 0, 63), mn = level(low[j], dmin, 0, 63);

        put_scale_min(out + 4, j, sc, mn);
        for (int i = 0; i < 32; i++) {
            int q = level(x[32 * j + i] + dmin * (float)mn, d * (float)sc, 0, 15);
            uint8_t *byte = &out[16 + 32 * (j / 2) + i];

            *byte = (uint8_t)(*byte | q << 4 * (j % 2));
        }
    }
}

static void block_q6_k(const float *x, uint8_t *out)
{
    float scale[16], top = 0, d;

    memset(out, 0, 210);
    for (int j = 0; j < 16; j++) {
        scale[j] = absmax(x + 16 * j, 16) / 31.0f;
        top = fmaxf(top, scale[j]);
    }
    d = put_f16(top / 127.0f, out + 208);
    for (int e = 0; e < 256; e++) {
        int half = e / 128, g = e % 128 / 32, lane = e % 32, j = e / 16;
        int sc = level(scale[j], d, 0, 127), q = level(x[e], d * (float)sc, -32, 31) + 32;
        uint8_t *lo = &out[64 * half + g % 2 * 32 + lane], *hi = &out[128 + 32 * half + lane];

        *lo = (uint8_t)(*lo | (q & 15) << 4 * (g / 2));
        *hi = (uint8_t)(*hi | (q >> 4) << 2 * g);
        out[192 + j] = (uint8_t)sc;
    }
}

/* Plus or minus the largest magnitude, or 0: whichever is nearest. */
static void block_tq2_0(const float *x, uint8_t *out)
{
    float d = put_f16(absmax(x, 256), out + 64);

    memset(out, 0, 64);
    for (int e = 0; e < 256; e++) {
        uint8_t *q = &out[e / 128 * 32 + e % 32];

        *q = (uint8_t)(*q | (level(x[e], d, -1, 1) + 1) << (e / 32 % 4 * 2));
    }
}

bool tern_quant_row(uint32_t type, const float *x, size_t n, void *out)
{
    uint8_t *to = out;

    switch (type) {
    case TERN_F32: memcpy(out, x, n * sizeof *x); return true;
    case TERN_F16: row_f16(x, n, to); return true;
    case TERN_BF16: row_bf16(x, n, to); return true;
    case TERN_Q8_0: row_q8_0(x, n, to); return true;
    case TERN_Q4_0: row_q4_0(x, n, to); return true;
    case TERN_Q4_K:
        for (size_t i = 0; i < n / 256; i++)
            block_q4_k(x + 256 * i, to + 144 * i);
        return true;
    case TERN_Q6_K:
        for (size_t i = 0; i < n / 256; i++)
            block_q6_k(x + 256 * i, to + 210 * i);
        return true;
    case TERN_TQ2_0:
        for (size_t i = 0; i < n / 256; i++)
            block_tq2_0(x + 256 * i, to + 66 * i);
        return true;
    default: return false;
    }
}

bool tern_quant_type_by_name(const char *name, uint32_t *type)
{
    for (uint32_t t = 0; t < 64; t++)
        if (tern_gguf_type_name(t) && strcasecmp(tern_gguf_type_name(t), name) == 0) {
            *type = t;
            return true;
        }
    return false;
}
