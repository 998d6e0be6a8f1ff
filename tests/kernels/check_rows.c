/* SPDX-License-Identifier: Apache-2.0 */
/* Float rows, conversions, sums over the vocabulary and the rounding at layer boundaries. */
#include "tests/kernels/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const size_t sizes[] = { 1,   7,   8,   15,   16,   17,   31,   64,   96,   100,
                                128, 256, 640, 1536, 2560, 4099, 6912, 8640, 14336 };
#define N_SIZES (sizeof sizes / sizeof sizes[0])

/* Runs one(c, n, kind) for every size and kind. */
static void for_all(struct check *c, void (*one)(struct check *c, size_t n, enum check_kind kind))
{
    for (size_t i = 0; i < N_SIZES; i++) {
        for (enum check_kind kind = 0; kind < KIND_N; kind++) {
            check_case(c, "n=%zu %s", sizes[i], check_kind_names[kind]);
            one(c, sizes[i], kind);
        }
    }
}

static float *floats_in(struct check *c, size_t slot, size_t n, enum check_kind kind)
{
    float *x = check_in(slot, n * sizeof *x);
    check_fill_f32(c, x, n, kind);
    return x;
}

static float *floats_out(size_t slot, size_t n)
{
    return check_out(slot, n * sizeof(float));
}

/* What every measured row op is called with. */
struct row_arg {
    const struct tern_kernels *k;
    size_t n;
    float *a, *b, *y;
    uint16_t *h;
    int8_t *q, *q2;
};

static void make_row_arg(struct check *c, struct row_arg *r, size_t n)
{
    r->k = &c->new;
    r->n = n;
    r->a = floats_in(c, 0, n, KIND_RANDOM);
    r->b = floats_in(c, 1, n, KIND_RANDOM);
    r->y = floats_out(2, n);
    r->h = check_out(3, n * sizeof(uint16_t));
    r->q = check_out(4, n);
    r->q2 = check_out(5, n);
    check_fill_f16(c, r->h, n, KIND_RANDOM);
    check_fill_q(c, r->q, n, KIND_RANDOM);
    check_fill_q(c, r->q2, n, KIND_RANDOM);
}

static void measure(struct check *c, size_t n, size_t bytes, void (*call)(void *arg))
{
    struct row_arg r;
    make_row_arg(c, &r, n);
    char shape[32];
    snprintf(shape, sizeof shape, "%zu", n);
    check_measure(c, shape, bytes * n, call, &r);
}

/* -- rmsnorm --------------------------------------------------------------------------------------------- */

static void one_rmsnorm(struct check *c, size_t n, enum check_kind kind)
{
    const float *x = floats_in(c, 0, n, kind), *w = floats_in(c, 1, n, KIND_RANDOM);
    float *ref = floats_out(2, n), *new = floats_out(3, n);
    c->ref.rmsnorm(x, w, n, 1e-5f, ref);
    c->new.rmsnorm(x, w, n, 1e-5f, new);
    check_same_f32(c, "y", ref, new, n);
    check_canary(c, 3);
    memcpy(new, x, n * sizeof *x);
    c->new.rmsnorm(new, w, n, 1e-5f, new);
    check_same_f32(c, "y in place", ref, new, n);
}

static void compare_rmsnorm(struct check *c)
{
    for_all(c, one_rmsnorm);
}

static void call_rmsnorm(void *arg)
{
    const struct row_arg *r = arg;
    r->k->rmsnorm(r->a, r->b, r->n, 1e-5f, r->y);
}

static void measure_rmsnorm(struct check *c)
{
    measure(c, 2560, 12, call_rmsnorm);
}

/* -- rope ------------------------------------------------------------------------------------------------ */

typedef void rope_op(float *h, const float *cos_sin, size_t head_dim);

static void one_rope(struct check *c, rope_op *ref_op, rope_op *new_op, size_t n, enum check_kind kind)
{
    n *= 2;
    const float *cs = floats_in(c, 0, n, KIND_RANDOM);
    float *ref = floats_out(1, n), *new = floats_out(2, n);
    check_fill_f32(c, ref, n, kind);
    memcpy(new, ref, n * sizeof *ref);
    ref_op(ref, cs, n);
    new_op(new, cs, n);
    check_same_f32(c, "h", ref, new, n);
    check_canary(c, 2);
}

static void one_rope_neox(struct check *c, size_t n, enum check_kind kind)
{
    one_rope(c, c->ref.rope_neox, c->new.rope_neox, n, kind);
}

static void one_rope_norm(struct check *c, size_t n, enum check_kind kind)
{
    one_rope(c, c->ref.rope_norm, c->new.rope_norm, n, kind);
}

static void compare_rope(struct check *c)
{
    for_all(c, one_rope_neox);
}

static void compare_rope_norm(struct check *c)
{
    for_all(c, one_rope_norm);
}

static void call_rope(void *arg)
{
    const struct row_arg *r = arg;
    r->k->rope_neox(r->y, r->a, r->n);
}

static void measure_rope(struct check *c)
{
    measure(c, 128, 12, call_rope);
}

/* -- add, gates ------------------------------------------------------------------------------------------ */

static void one_add(struct check *c, size_t n, enum check_kind kind)
{
    const float *y = floats_in(c, 0, n, kind);
    float *ref = floats_out(1, n), *new = floats_out(2, n);
    check_fill_f32(c, ref, n, kind);
    memcpy(new, ref, n * sizeof *ref);
    c->ref.add(ref, y, n);
    c->new.add(new, y, n);
    check_same_f32(c, "x", ref, new, n);
    check_canary(c, 2);
}

static void compare_add(struct check *c)
{
    for_all(c, one_add);
}

static void call_add(void *arg)
{
    const struct row_arg *r = arg;
    r->k->add(r->y, r->a, r->n);
}

static void measure_add(struct check *c)
{
    measure(c, 2560, 12, call_add);
}

typedef void gate_op(const float *gate, const float *up, size_t n, float *y);

static void same_gate(struct check *c, gate_op *ref_op, gate_op *new_op, const float *gate, const float *up,
                      size_t n)
{
    float *ref = floats_out(2, n), *new = floats_out(3, n);
    ref_op(gate, up, n, ref);
    new_op(gate, up, n, new);
    check_same_f32(c, "y", ref, new, n);
    check_canary(c, 3);
    memcpy(new, gate, n * sizeof *gate);
    new_op(new, up, n, new);
    check_same_f32(c, "y in place", ref, new, n);
}

static void one_gate(struct check *c, gate_op *ref_op, gate_op *new_op, size_t n, enum check_kind kind)
{
    float *gate = floats_in(c, 0, n, kind);
    const float *up = floats_in(c, 1, n, kind);
    same_gate(c, ref_op, new_op, gate, up, n);
    /* Where the exponential is neither 1 nor at its ends, and around its ends. */
    for (size_t i = 0; kind == KIND_RANDOM && i < n; i++)
        gate[i] = check_unit(c) * (i % 3 == 0 ? 8.0f : i % 3 == 1 ? 100.0f : 0.01f);
    if (kind == KIND_RANDOM)
        same_gate(c, ref_op, new_op, gate, up, n);
}

static void one_relu2(struct check *c, size_t n, enum check_kind kind)
{
    one_gate(c, c->ref.relu2_gate, c->new.relu2_gate, n, kind);
}

static void one_silu(struct check *c, size_t n, enum check_kind kind)
{
    one_gate(c, c->ref.silu_gate, c->new.silu_gate, n, kind);
}

static void one_gelu(struct check *c, size_t n, enum check_kind kind)
{
    one_gate(c, c->ref.gelu_gate, c->new.gelu_gate, n, kind);
}

static void compare_relu2(struct check *c)
{
    for_all(c, one_relu2);
}

static void compare_silu(struct check *c)
{
    for_all(c, one_silu);
}

static void compare_gelu(struct check *c)
{
    for_all(c, one_gelu);
}

static void call_relu2(void *arg)
{
    const struct row_arg *r = arg;
    r->k->relu2_gate(r->a, r->b, r->n, r->y);
}

static void call_silu(void *arg)
{
    const struct row_arg *r = arg;
    r->k->silu_gate(r->a, r->b, r->n, r->y);
}

static void measure_relu2(struct check *c)
{
    measure(c, 6912, 12, call_relu2);
}

static void measure_silu(struct check *c)
{
    measure(c, 14336, 12, call_silu);
}

/* -- halves ---------------------------------------------------------------------------------------------- */

static void one_to_f16(struct check *c, size_t n, enum check_kind kind)
{
    float *x = floats_in(c, 0, n, kind);
    /* Around every boundary of the format: ties of normals and subnormals, overflow. */
    for (size_t i = 0; kind == KIND_RANDOM && i < n; i++)
        x[i] = ldexpf(1.0f + (float)check_below(c, 8192) / 8192.0f, (int)check_below(c, 46) - 28) *
               (i % 2 ? -1.0f : 1.0f);
    uint16_t *ref = check_out(1, n * sizeof *ref), *new = check_out(2, n * sizeof *new);
    c->ref.f32_to_f16(x, n, ref);
    c->new.f32_to_f16(x, n, new);
    check_same_f16(c, "y", ref, new, n);
    check_canary(c, 2);
}

static void compare_to_f16(struct check *c)
{
    for_all(c, one_to_f16);
}

static void call_to_f16(void *arg)
{
    const struct row_arg *r = arg;
    r->k->f32_to_f16(r->a, r->n, r->h);
}

static void measure_to_f16(struct check *c)
{
    measure(c, 2560, 6, call_to_f16);
}

static void one_from_f16(struct check *c, size_t n, enum check_kind kind)
{
    uint16_t *x = check_in(0, n * sizeof *x);
    check_fill_f16(c, x, n, kind);
    float *ref = floats_out(1, n), *new = floats_out(2, n);
    c->ref.f16_to_f32(x, n, ref);
    c->new.f16_to_f32(x, n, new);
    check_same_f32(c, "y", ref, new, n);
    check_canary(c, 2);
}

static void compare_from_f16(struct check *c)
{
    for_all(c, one_from_f16);
    check_case(c, "all halves");
    uint16_t *x = check_in(0, 65536 * sizeof *x);
    for (size_t i = 0; i < 65536; i++)
        x[i] = (uint16_t)i;
    float *ref = floats_out(1, 65536), *new = floats_out(2, 65536);
    c->ref.f16_to_f32(x, 65536, ref);
    c->new.f16_to_f32(x, 65536, new);
    check_same_f32(c, "y", ref, new, 65536);
}

static void call_from_f16(void *arg)
{
    const struct row_arg *r = arg;
    r->k->f16_to_f32(r->h, r->n, r->y);
}

static void measure_from_f16(struct check *c)
{
    measure(c, 2560, 6, call_from_f16);
}

/* -- all_finite, sum_exp --------------------------------------------------------------------------------- */

static void one_finite(struct check *c, size_t n, enum check_kind kind)
{
    static const float bad[3] = { INFINITY, -INFINITY, NAN };
    float *x = floats_in(c, 0, n, kind);
    for (size_t i = 0; i < 4; i++) {
        bool ref = c->ref.all_finite(x, n), new = c->new.all_finite(x, n);
        check_same_bytes(c, "verdict", &ref, &new, sizeof ref);
        x[i == 2 ? n - 1 : check_below(c, n)] = bad[i % 3];
    }
}

static void compare_finite(struct check *c)
{
    for_all(c, one_finite);
}

static void call_finite(void *arg)
{
    struct row_arg *r = arg;
    r->y[0] = r->k->all_finite(r->a, r->n) ? 1.0f : 0.0f;
}

static void measure_finite(struct check *c)
{
    measure(c, 2560, 4, call_finite);
}

static void same_f64(struct check *c, double ref, double new)
{
    if (!(ref != ref && new != new))
        check_same_bytes(c, "sum", &ref, &new, sizeof ref);
}

static void one_sum_exp(struct check *c, size_t n, enum check_kind kind)
{
    const float *x = floats_in(c, 0, n, kind);
    float max = x[0];
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    same_f64(c, c->ref.sum_exp(x, n, max), c->new.sum_exp(x, n, max));
}

/* The edges of the exponential one by one: in a long sum they would be lost. */
static void compare_exp_edges(struct check *c)
{
    const float edges[] = { -87.3f,
                            nextafterf(-87.3f, -100.0f),
                            nextafterf(-87.3f, 0.0f),
                            88.0f,
                            nextafterf(88.0f, 100.0f),
                            -INFINITY,
                            INFINITY,
                            0x1p-149f };
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        check_case(c, "edge %a", (double)edges[i]);
        same_f64(c, c->ref.sum_exp(edges + i, 1, 0.0f), c->new.sum_exp(edges + i, 1, 0.0f));
    }
}

static void compare_sum_exp(struct check *c)
{
    for_all(c, one_sum_exp);
    compare_exp_edges(c);
    /* The whole range of the exponential, its edges included, and vocabularies of real models. */
    static const size_t vocabs[] = { 4096, 32002, 128256 };
    for (size_t v = 0; v < 3; v++) {
        check_case(c, "range n=%zu", vocabs[v]);
        float *x = check_in(0, vocabs[v] * sizeof *x);
        for (size_t i = 0; i < vocabs[v]; i++)
            x[i] = check_unit(c) * 90.0f;
        x[0] = -87.3f;
        x[1] = nextafterf(-87.3f, -100.0f);
        x[2] = 88.0f;
        x[3] = nextafterf(88.0f, 100.0f);
        same_f64(c, c->ref.sum_exp(x, vocabs[v], 0.0f), c->new.sum_exp(x, vocabs[v], 0.0f));
        x[3] = 0.0f;
        same_f64(c, c->ref.sum_exp(x, vocabs[v], 88.0f), c->new.sum_exp(x, vocabs[v], 88.0f));
        same_f64(c, c->ref.sum_exp(x, vocabs[v], 3.0f), c->new.sum_exp(x, vocabs[v], 3.0f));
    }
}

static void call_sum_exp(void *arg)
{
    struct row_arg *r = arg;
    r->y[0] = (float)r->k->sum_exp(r->a, r->n, 8.0f);
}

static void measure_sum_exp(struct check *c)
{
    measure(c, 128256, 4, call_sum_exp);
}

/* -- boundaries ------------------------------------------------------------------------------------------ */

static const size_t blocks[] = { 32, 64, 1, 100, 1 << 20 };
#define N_BLOCKS (sizeof blocks / sizeof blocks[0])

/* A row whose blocks differ in size by many orders; one of them may be zero, another just below the limit
 * 1e-30. */
static void spread(struct check *c, float *x, size_t n, size_t block)
{
    for (size_t b = 0; b < n; b += block) {
        float size = ldexpf(1.0f, (int)check_below(c, 60) - 40);
        size = check_below(c, 6) == 0 ? 0.0f : check_below(c, 6) == 0 ? 9e-31f : size;
        for (size_t i = b; i < n && i < b + block; i++)
            x[i] = check_unit(c) * size;
    }
}

static void one_encode(struct check *c, size_t n, enum check_kind kind)
{
    for (size_t i = 0; i < N_BLOCKS; i++) {
        size_t n_scales = (n + blocks[i] - 1) / blocks[i];
        check_case(c, "n=%zu block=%zu %s", n, blocks[i], check_kind_names[kind]);
        float *x = floats_in(c, 0, n, kind);
        if (kind == KIND_RANDOM)
            spread(c, x, n, blocks[i]);
        float *s_ref = floats_out(1, n_scales), *s_new = floats_out(2, n_scales);
        int8_t *q_ref = check_out(3, n), *q_new = check_out(4, n), *l_ref = check_out(5, n),
               *l_new = check_out(6, n);
        c->ref.encode_i8(x, n, blocks[i], s_ref, q_ref);
        c->new.encode_i8(x, n, blocks[i], s_new, q_new);
        check_same_f32(c, "scales", s_ref, s_new, n_scales);
        check_same_bytes(c, "q", q_ref, q_new, n);
        c->ref.encode_i8x2(x, n, blocks[i], s_ref, q_ref, l_ref);
        c->new.encode_i8x2(x, n, blocks[i], s_new, q_new, l_new);
        check_same_f32(c, "scales x2", s_ref, s_new, n_scales);
        check_same_bytes(c, "hi", q_ref, q_new, n);
        check_same_bytes(c, "lo", l_ref, l_new, n);
        check_canary(c, 2);
        check_canary(c, 4);
        check_canary(c, 6);
    }
}

static void compare_encode(struct check *c)
{
    for_all(c, one_encode);
}

static void one_decode(struct check *c, size_t n, enum check_kind kind)
{
    for (size_t i = 0; i < N_BLOCKS; i++) {
        size_t n_scales = (n + blocks[i] - 1) / blocks[i];
        check_case(c, "n=%zu block=%zu %s", n, blocks[i], check_kind_names[kind]);
        const float *s = floats_in(c, 0, n_scales, kind);
        int8_t *hi = check_in(1, n), *lo = check_in(2, n);
        for (size_t j = 0; j < n; j++) { /* -128 too: it may come from a peer */
            hi[j] = (int8_t)((int)check_below(c, 256) - 128);
            lo[j] = (int8_t)((int)check_below(c, 256) - 128);
        }
        float *ref = floats_out(3, n), *new = floats_out(4, n);
        c->ref.decode_i8(s, hi, n, blocks[i], ref);
        c->new.decode_i8(s, hi, n, blocks[i], new);
        check_same_f32(c, "x", ref, new, n);
        c->ref.decode_i8x2(s, hi, lo, n, blocks[i], ref);
        c->new.decode_i8x2(s, hi, lo, n, blocks[i], new);
        check_same_f32(c, "x of two planes", ref, new, n);
        check_canary(c, 4);
    }
}

static void compare_decode(struct check *c)
{
    for_all(c, one_decode);
}

static void one_largest(struct check *c, size_t n, enum check_kind kind)
{
    const size_t counts[] = { 1, (n + 63) / 64, (n + 1) / 2, n };
    float *x = floats_in(c, 0, n, kind);
    uint16_t *ref = check_out(1, n * sizeof *ref), *new = check_out(2, n * sizeof *new);
    for (size_t repeat = 0; repeat < 2; repeat++) {
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            check_case(c, "n=%zu k=%zu %s", n, counts[i], check_kind_names[kind]);
            memset(ref, 0, n * sizeof *ref);
            memset(new, 0, n * sizeof *new);
            c->ref.largest(x, n, counts[i], ref);
            c->new.largest(x, n, counts[i], new);
            check_same_bytes(c, "places", ref, new, n * sizeof *ref);
            check_canary(c, 2);
        }
        for (size_t i = 0; i < n; i++) /* once more with many equal ones */
            x[i] = x[i] - x[i] == 0.0f ? (float)(int)(x[i] * 8.0f / (fabsf(x[i]) + 1.0f)) : x[i];
    }
}

static void compare_largest(struct check *c)
{
    for_all(c, one_largest);
}

static void call_largest(void *arg)
{
    const struct row_arg *r = arg;
    r->k->largest(r->a, r->n, r->n / 64, r->h);
}

static void measure_largest(struct check *c)
{
    measure(c, 2560, 4, call_largest);
}

static void call_encode(void *arg)
{
    const struct row_arg *r = arg;
    r->k->encode_i8(r->a, r->n, 32, r->y, r->q);
}

static void call_encode2(void *arg)
{
    const struct row_arg *r = arg;
    r->k->encode_i8x2(r->a, r->n, 32, r->y, r->q, r->q2);
}

static void call_decode(void *arg)
{
    const struct row_arg *r = arg;
    r->k->decode_i8(r->a, r->q, r->n, 32, r->y);
}

static void call_decode2(void *arg)
{
    const struct row_arg *r = arg;
    r->k->decode_i8x2(r->a, r->q, r->q2, r->n, 32, r->y);
}

static void measure_encode(struct check *c)
{
    measure(c, 2560, 5, call_encode);
}

static void measure_encode2(struct check *c)
{
    measure(c, 2560, 6, call_encode2);
}

static void measure_decode(struct check *c)
{
    measure(c, 2560, 5, call_decode);
}

static void measure_decode2(struct check *c)
{
    measure(c, 2560, 6, call_decode2);
}

#define AT(op) offsetof(struct tern_kernels, op)

const struct check_op check_row_ops[] = {
    { "rmsnorm", compare_rmsnorm, measure_rmsnorm, AT(rmsnorm) },
    { "rope_neox", compare_rope, measure_rope, AT(rope_neox) },
    { "rope_norm", compare_rope_norm, NULL, AT(rope_norm) },
    { "add", compare_add, measure_add, AT(add) },
    { "relu2_gate", compare_relu2, measure_relu2, AT(relu2_gate) },
    { "silu_gate", compare_silu, measure_silu, AT(silu_gate) },
    { "gelu_gate", compare_gelu, NULL, AT(gelu_gate) },
    { "f32_to_f16", compare_to_f16, measure_to_f16, AT(f32_to_f16) },
    { "f16_to_f32", compare_from_f16, measure_from_f16, AT(f16_to_f32) },
    { "all_finite", compare_finite, measure_finite, AT(all_finite) },
    { "sum_exp", compare_sum_exp, measure_sum_exp, AT(sum_exp) },
    { "encode_i8", compare_encode, measure_encode, AT(encode_i8) },
    { "encode_i8x2", compare_encode, measure_encode2, AT(encode_i8x2) },
    { "decode_i8", compare_decode, measure_decode, AT(decode_i8) },
    { "decode_i8x2", compare_decode, measure_decode2, AT(decode_i8x2) },
    { "largest", compare_largest, measure_largest, AT(largest) },
    { 0 },
};
