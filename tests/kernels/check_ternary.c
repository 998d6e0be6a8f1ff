/* SPDX-License-Identifier: Apache-2.0 */
/* BitLinear: activation quantisation and the ternary products. */
#include "tests/kernels/check.h"

#include "kernels/pack.h"

#include <stdio.h>
#include <string.h>

static const size_t ks[] = { 1, 16, 17, 100, 240, 256, 257, 640, 1536, 2560, 4096, 6912, 8640, 14336 };
#define N_KS (sizeof ks / sizeof ks[0])

static void quantize_case(struct check *c, size_t k, enum check_kind kind)
{
    check_case(c, "k=%zu %s", k, check_kind_names[kind]);
    size_t k_pad = tern_pack_k_pad(TERN_TILES_2BIT, k);
    float *x = check_in(0, k * sizeof *x);
    check_fill_f32(c, x, k, kind);
    int8_t *q_ref = check_out(1, k_pad), *q_new = check_out(2, k_pad);
    int32_t sums[2] = { 1, 2 };
    float s[2];
    s[0] = c->ref.quantize(x, k, k_pad, q_ref, &sums[0]);
    s[1] = c->new.quantize(x, k, k_pad, q_new, &sums[1]);
    check_same_f32(c, "scale", &s[0], &s[1], 1);
    check_same_bytes(c, "sum", &sums[0], &sums[1], sizeof sums[0]);
    check_same_bytes(c, "q", q_ref, q_new, k_pad);
    check_canary(c, 2);
}

static void compare_quantize(struct check *c)
{
    for (size_t i = 0; i < N_KS; i++) {
        for (enum check_kind kind = 0; kind < KIND_N; kind++)
            quantize_case(c, ks[i], kind);
    }
    /* Exact ties: x = j + 1/2 with a maximum of 127 must go to even. */
    float *x = check_in(0, 256 * sizeof *x);
    int8_t *q_ref = check_out(1, 256), *q_new = check_out(2, 256);
    for (int i = 0; i < 256; i++)
        x[i] = i == 255 ? 127.0f : (float)(i - 127) + (i < 254 ? 0.5f : 0.0f);
    int32_t sums[2];
    check_case(c, "ties");
    c->ref.quantize(x, 256, 256, q_ref, &sums[0]);
    c->new.quantize(x, 256, 256, q_new, &sums[1]);
    check_same_bytes(c, "q", q_ref, q_new, 256);
    check_same_bytes(c, "sum", &sums[0], &sums[1], sizeof sums[0]);
}

struct quantize_arg {
    const struct tern_kernels *k;
    const float *x;
    size_t n;
    int8_t *q;
};

static void call_quantize(void *arg)
{
    const struct quantize_arg *a = arg;
    int32_t sum;
    a->k->quantize(a->x, a->n, a->n, a->q, &sum);
}

static void measure_quantize(struct check *c)
{
    float *x = check_in(0, 6912 * sizeof *x);
    check_fill_f32(c, x, 6912, KIND_RANDOM);
    struct quantize_arg a = { &c->new, x, 6912, check_out(1, 6912) };
    check_measure(c, "6912", 6912 * sizeof *x, call_quantize, &a);
}

/* Weights: kinds ZERO, MAX, MIN give one code everywhere (1, 2, 0), SWING the extremes in turn, others any of
 * 0..2. */
static void fill_tiles(struct check *c, enum tern_tile_layout layout, uint8_t *tiles, size_t bytes,
                       enum check_kind kind)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned b = 0;
        const unsigned n = layout == TERN_TILES_2BIT ? 4 : 5;
        for (unsigned g = 0; g < n; g++) {
            unsigned code = (unsigned)check_below(c, 3);
            if (kind == KIND_ZERO)
                code = 1;
            else if (kind == KIND_MAX || kind == KIND_MIN)
                code = kind == KIND_MAX ? 2 : 0;
            else if (kind == KIND_SWING)
                code = (i + g) % 2 ? 0 : 2;
            b = layout == TERN_TILES_2BIT ? b | code << 2 * g : 3 * b + code;
        }
        tiles[i] = (uint8_t)b;
    }
}

struct shape {
    size_t m, k, n_rows, q_gap, y_gap;
    enum tern_tile_layout layout;
};

/* Fills slots 0..3 and t; y is left to the caller. */
static void make_ternary(struct check *c, struct tern_ternary *t, struct shape s, enum check_kind wk,
                         enum check_kind qk)
{
    size_t cols = s.layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    size_t n_groups = (s.k + cols - 1) / cols, k_pad = n_groups * cols;
    size_t bytes = tern_pack_tiles(s.m) * n_groups * TERN_TILE_GROUP_BYTES;
    uint8_t *tiles = check_in(0, bytes);
    fill_tiles(c, s.layout, tiles, bytes, wk);
    size_t stride = k_pad + s.q_gap;
    int8_t *q = check_in(1, (s.n_rows - 1) * stride + k_pad);
    float *act_scale = check_in(2, s.n_rows * sizeof *act_scale);
    int32_t *act_sum = check_in(3, s.n_rows * sizeof *act_sum);
    for (size_t r = 0; r < s.n_rows; r++) {
        check_fill_q(c, q + r * stride, s.k, qk);
        memset(q + r * stride + s.k, 0, k_pad - s.k);
        act_scale[r] = 1.0f + 100.0f * (1.0f + check_unit(c));
        act_sum[r] = 0;
        for (size_t i = 0; i < s.k; i++)
            act_sum[r] += q[r * stride + i];
    }
    *t = (struct tern_ternary){ .tiles = tiles,
                                .k_pad = k_pad,
                                .m = s.m,
                                .scale = 0.0123f + check_unit(c) * 0.01f,
                                .q = q,
                                .q_stride = stride,
                                .act_scale = act_scale,
                                .act_sum = act_sum,
                                .n_rows = s.n_rows,
                                .y_stride = s.m + s.y_gap };
}

static void ternary_case(struct check *c, struct shape s, enum check_kind wk, enum check_kind qk)
{
    check_case(c, "layout %d m=%zu k=%zu rows=%zu weights %s q %s", (int)s.layout, s.m, s.k, s.n_rows,
               check_kind_names[wk], check_kind_names[qk]);
    struct tern_ternary t;
    make_ternary(c, &t, s, wk, qk);
    size_t n_y = (s.n_rows - 1) * t.y_stride + s.m, n_tiles = tern_pack_tiles(s.m);
    size_t first = check_below(c, 2) ? check_below(c, n_tiles) : 0;
    size_t last = first + 1 + check_below(c, n_tiles - first);
    float *ref = check_out(4, n_y * sizeof *ref), *new = check_out(5, n_y * sizeof *new);
    t.y = ref;
    c->ref.ternary[s.layout](&t, first, last);
    t.y = new;
    c->new.ternary[s.layout](&t, first, last);
    check_same_f32(c, "y", ref, new, n_y);
    check_canary(c, 5);
}

static void compare_layout(struct check *c, enum tern_tile_layout layout)
{
    static const size_t ms[] = { 16, 1, 33, 100 };
    static const size_t rows[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 31 };
    static const enum check_kind kinds[] = { KIND_RANDOM, KIND_ZERO, KIND_MAX, KIND_MIN, KIND_SWING };
    for (size_t i = 0; i < N_KS; i++) {
        for (size_t w = 0; w < 5; w++) {
            for (size_t q = 0; q < 5; q++) {
                struct shape s = { ms[check_below(c, 4)],   ks[i],
                                   rows[check_below(c, 12)], 16 * check_below(c, 3),
                                   check_below(c, 3),       layout };
                ternary_case(c, s, kinds[w], kinds[q]);
            }
        }
        for (size_t r = 0; r < 12; r++)
            ternary_case(c, (struct shape){ 35, ks[i], rows[r], 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    }
    /* More rows than any level shares the unpacked codes among, more columns than it unpacks at a time. */
    ternary_case(c, (struct shape){ 20, 2600, 70, 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    /* Whole matrices of real models, and the longest row the tiles allow. */
    ternary_case(c, (struct shape){ 2560, 640, 1, 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    ternary_case(c, (struct shape){ 640, 2560, 2, 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    ternary_case(c, (struct shape){ 1536, 4096, 1, 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    /* More activations than a second cache holds. */
    ternary_case(c, (struct shape){ 17, 12288, 60, 0, 0, layout }, KIND_RANDOM, KIND_RANDOM);
    ternary_case(c, (struct shape){ 16, TERN_TERNARY_MAX_K, 5, 0, 0, layout }, KIND_MAX, KIND_MAX);
    ternary_case(c, (struct shape){ 16, TERN_TERNARY_MAX_K, 3, 0, 0, layout }, KIND_MAX, KIND_MIN);
}

static void compare_2bit(struct check *c)
{
    compare_layout(c, TERN_TILES_2BIT);
}

static void compare_5trit(struct check *c)
{
    compare_layout(c, TERN_TILES_5TRIT);
}

struct ternary_arg {
    const struct tern_kernels *k;
    struct tern_ternary t;
    enum tern_tile_layout layout;
};

static void call_ternary(void *arg)
{
    const struct ternary_arg *a = arg;
    a->k->ternary[a->layout](&a->t, 0, tern_pack_tiles(a->t.m));
}

static void measure_layout(struct check *c, enum tern_tile_layout layout)
{
    static const struct shape shapes[] = { { 6912, 2560, 1, 0, 0, 0 }, { 2560, 6912, 1, 0, 0, 0 },
                                           { 2560, 2560, 1, 0, 0, 0 }, { 640, 2560, 1, 0, 0, 0 },
                                           { 6912, 2560, 4, 0, 0, 0 }, { 6912, 2560, 32, 0, 0, 0 },
                                           { 2560, 6912, 32, 0, 0, 0 } };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct shape s = shapes[i];
        struct ternary_arg a = { .k = &c->new, .layout = layout };
        s.layout = layout;
        make_ternary(c, &a.t, s, KIND_RANDOM, KIND_RANDOM);
        a.t.y = check_out(4, s.n_rows * s.m * sizeof(float));
        char name[64];
        snprintf(name, sizeof name, "%zux%zu rows %zu", s.m, s.k, s.n_rows);
        check_measure(c, name, tern_pack_tiles(s.m) * a.t.k_pad / (layout == TERN_TILES_2BIT ? 16 : 20) * 64,
                      call_ternary, &a);
    }
}

static void measure_2bit(struct check *c)
{
    measure_layout(c, TERN_TILES_2BIT);
}

static void measure_5trit(struct check *c)
{
    measure_layout(c, TERN_TILES_5TRIT);
}

const struct check_op check_ternary_ops[] = {
    { "quantize", compare_quantize, measure_quantize, offsetof(struct tern_kernels, quantize) },
    { "ternary_2bit", compare_2bit, measure_2bit, offsetof(struct tern_kernels, ternary[TERN_TILES_2BIT]) },
    { "ternary_5trit", compare_5trit, measure_5trit,
      offsetof(struct tern_kernels, ternary[TERN_TILES_5TRIT]) },
    { 0 },
};
