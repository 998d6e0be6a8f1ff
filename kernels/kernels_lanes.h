/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops on float rows of all vector levels, written once over the sixteen lanes of the contract.
 *
 * A level includes its verbs (kernels_avx2.h, kernels_avx512.h, kernels_neon.h), then this file and its
 * sisters kernels_lanes_*.h, and gets static functions of its own instruction set.  Elementwise ops round
 * exactly like their scalar definitions whatever the width; only reductions need care, and those keep lane
 * i % 16 in place to the end.  Tails are masked: nothing is read beyond the stated shapes.
 *
 * Empty when no verbs were included before.
 */
#ifndef TERN_KERNELS_LANES_H
#define TERN_KERNELS_LANES_H

#include "kernels/kernels.h"

#ifdef TERN_HAVE_LANES

/* -- BitLinear: activations ------------------------------------------------------------------------------ */

/* Clamped to -127..127 (a NaN becomes -127, as in round_i8) and rounded to nearest even. */
INLINE struct i16 codes16(struct v16 v)
{
    return round16(min16(max16(v, set16(-127.0f)), set16(127.0f)));
}

static float quantize(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum)
{
    uint32_t mx = absmax16(x, k, f32_bits(1e-5f));
    *sum = 0;
    if (mx >= 0x7f800000u) {
        memset(q, 0, k_pad);
        return 0.0f;
    }
    float s = 127.0f / f32_from_bits(mx);
    struct v16 scale = set16(s);
    struct i16 total = round16(set16(0.0f));
    /* No need to clamp: |x_i| is at most mx, so |x_i * s| stays below 127.00002. */
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        struct i16 v = round16(mul16(load16(x + i), scale));
        total = addi16(total, v);
        store_bytes_n(q + i, narrow16(v), 16);
    }
    if (i < k) {
        struct i16 v = round16(mul16(load16n(x + i, k - i), scale));
        total = addi16(total, v);
        store_bytes_n(q + i, narrow16(v), k - i);
    }
    memset(q + k, 0, k_pad - k);
    *sum = sumi16(total);
    return s;
}

/* -- float rows ------------------------------------------------------------------------------------------ */

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *y)
{
    struct v16 ss = set16(0.0f);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        struct v16 v = load16(x + i);
        ss = fma16(v, v, ss);
    }
    if (i < n) {
        struct v16 v = load16n(x + i, n - i);
        ss = fma16n(v, v, ss, n - i);
    }
    struct v16 r = set16(1.0f / sqrtf(fold(ss) / (float)n + eps));
    for (i = 0; i < n; i += 16)
        store16n(y + i, mul16(mul16(load16n(x + i, n - i), r), load16n(w + i, n - i)), n - i);
}

static void rope_neox(float *h, const float *cos_sin, size_t head_dim)
{
    size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j += 16) {
        size_t n = half - j;
        struct v16 a = load16n(h + j, n), b = load16n(h + half + j, n);
        struct v16 c = load16n(cos_sin + j, n), s = load16n(cos_sin + half + j, n);
        store16n(h + j, sub16(mul16(a, c), mul16(b, s)), n);
        store16n(h + half + j, add16(mul16(a, s), mul16(b, c)), n);
    }
}

static void rope_norm(float *h, const float *cos_sin, size_t head_dim)
{
    for (size_t j = 0; j < head_dim; j += 16)
        store16n(h + j, turn16(load16n(h + j, head_dim - j), load16n(cos_sin + j, head_dim - j)),
                 head_dim - j);
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(x + i, add16(load16n(x + i, n - i), load16n(y + i, n - i)), n - i);
}

static void relu2_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        struct v16 r = max16(load16n(gate + i, n - i), set16(0.0f));
        store16n(y + i, mul16(mul16(r, r), load16n(up + i, n - i)), n - i);
    }
}

/* g / (1 + e^-v); the sign of a zero v makes no difference to e^-v. */
INLINE struct v16 logistic16(struct v16 g, struct v16 v)
{
    return div16(g, add16(set16(1.0f), exp16(sub16(set16(0.0f), v))));
}

static void silu_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        struct v16 g = load16n(gate + i, n - i);
        store16n(y + i, mul16(logistic16(g, g), load16n(up + i, n - i)), n - i);
    }
}

static void gelu_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        struct v16 g = load16n(gate + i, n - i);
        struct v16 v = mul16(mul16(set16(GELU_SLOPE), g), fma16(set16(GELU_CUBIC), mul16(g, g), set16(1.0f)));
        store16n(y + i, mul16(logistic16(g, v), load16n(up + i, n - i)), n - i);
    }
}

static void f32_to_f16(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i += 16)
        store16n_f16(y + i, load16n(x + i, n - i), n - i);
}

static void f16_to_f32(const uint16_t *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16)
        store16n(y + i, load16n_f16(x + i, n - i), n - i);
}

static bool all_finite(const float *x, size_t n)
{
    return absmax16(x, n, 0) < 0x7f800000u;
}

static double sum_exp(const float *x, size_t n, float max)
{
    struct d16 s = zero_d16();
    for (size_t i = 0; i < n; i += 16) {
        struct v16 e = exp16(sub16(load16n(x + i, n - i), set16(max)));
        s = add_d16(s, keep16n(e, n - i)); /* adding +0 to a sum of numbers >= 0 changes nothing */
    }
    return fold_d16(s);
}

/* -- the residual stream at layer boundaries ------------------------------------------------------------- */

INLINE struct v16 load16n_i8(const int8_t *q, size_t n)
{
    return floats16(widen16(load_bytes_n(q, n)));
}

INLINE float block_scale(const float *x, size_t n)
{
    float mx = f32_from_bits(absmax16(x, n, 0));
    return mx < 1e-30f ? 0.0f : mx / 127.0f;
}

static void encode_i8(const float *x, size_t n, size_t block, float *scales, int8_t *q)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len);
        *scales++ = d;
        if (d == 0.0f) {
            memset(q + b, 0, len);
            continue;
        }
        struct v16 inv = set16(1.0f / d);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            store_bytes_n(q + i, narrow16(codes16(mul16(load16n(x + i, left), inv))), left);
        }
    }
}

static void decode_i8(const float *scales, const int8_t *q, size_t n, size_t block, float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        struct v16 d = set16(*scales++);
        for (size_t i = b; i < b + len; i += 16)
            store16n(x + i, mul16(load16n_i8(q + i, b + len - i), d), b + len - i);
    }
}

static void encode_i8x2(const float *x, size_t n, size_t block, float *scales, int8_t *hi, int8_t *lo)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len);
        *scales++ = d;
        if (d == 0.0f) {
            memset(hi + b, 0, len);
            memset(lo + b, 0, len);
            continue;
        }
        struct v16 step = set16(d), inv = set16(1.0f / d), inv_lo = set16(254.0f / d);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            struct v16 v = load16n(x + i, left);
            struct i16 h = codes16(mul16(v, inv));
            struct v16 rest = sub16(v, mul16(floats16(h), step));
            store_bytes_n(hi + i, narrow16(h), left);
            store_bytes_n(lo + i, narrow16(codes16(mul16(rest, inv_lo))), left);
        }
    }
}

/* 254 * hi + lo is an integer below 2^24, so it may as well be computed in floats. */
static void decode_i8x2(const float *scales, const int8_t *hi, const int8_t *lo, size_t n, size_t block,
                        float *x)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        struct v16 step = set16(*scales++ / 254.0f);
        for (size_t i = b; i < b + len; i += 16) {
            size_t left = b + len - i;
            struct v16 v = fma16(load16n_i8(hi + i, left), set16(254.0f), load16n_i8(lo + i, left));
            store16n(x + i, mul16(v, step), left);
        }
    }
}

/* All of the above. */
static void init_rows(struct tern_kernels *k)
{
    k->quantize = quantize;
    k->rmsnorm = rmsnorm;
    k->rope_neox = rope_neox;
    k->rope_norm = rope_norm;
    k->add = add;
    k->relu2_gate = relu2_gate;
    k->silu_gate = silu_gate;
    k->gelu_gate = gelu_gate;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->all_finite = all_finite;
    k->sum_exp = sum_exp;
    k->encode_i8 = encode_i8;
    k->decode_i8 = decode_i8;
    k->encode_i8x2 = encode_i8x2;
    k->decode_i8x2 = decode_i8x2;
}

#endif
#endif
