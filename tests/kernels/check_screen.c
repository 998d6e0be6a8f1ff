/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the screened copy: exact products of codes and quantised vectors, and the encoding of rows.
 */
#include "tests/kernels/check.h"

#include <stdio.h>
#include <string.h>

/* The largest activation that cannot overflow: see struct tern_screen. */
static int32_t most(size_t k)
{
    int64_t q = INT32_MAX / (127 * (int64_t)k);
    return q < 32767 ? (int32_t)q : 32767;
}

static int32_t draw(struct check *c, enum check_kind kind, int32_t top, size_t i)
{
    switch (kind) {
    case KIND_ZERO: return 0;
    case KIND_MAX: return top;
    case KIND_MIN: return -top;
    case KIND_SWING: return i % 2 ? -top : top;
    default: return (int32_t)check_below(c, 2 * (size_t)top + 1) - top;
    }
}

struct shape {
    size_t n_rows, k, k_pad, n_x;
};

/* Slots 0 to 2. */
static void make(struct check *c, struct tern_screen *s, struct shape p, bool nibbles, enum check_kind kind)
{
    const size_t row_bytes = nibbles ? p.k_pad / 2 : p.k_pad;
    uint8_t *w = check_in(0, p.n_rows * row_bytes);
    memset(w, nibbles ? 0x88 : 0, p.n_rows * row_bytes);
    for (size_t r = 0; r < p.n_rows; r++)
        for (size_t i = 0; i < p.k; i++) {
            int32_t q = draw(c, kind, nibbles ? 7 : 127, i);
            if (nibbles)
                w[r * row_bytes + i / 64 * 32 + i % 32] ^= (uint8_t)((8 ^ (q + 8)) << (i % 64 / 32 * 4));
            else
                w[r * row_bytes + i] = (uint8_t)(int8_t)q;
        }
    int16_t *x = check_in(1, p.n_x * p.k_pad * (nibbles ? 1 : 2));
    int8_t *x8 = (int8_t *)(void *)x;
    int32_t *sum = check_in(2, p.n_x * sizeof *sum);
    memset(x, 0, p.n_x * p.k_pad * (nibbles ? 1 : 2));
    for (size_t j = 0; j < p.n_x; j++) {
        sum[j] = 0;
        for (size_t i = 0; i < p.k; i++) {
            int32_t q = draw(c, kind, nibbles ? 127 : most(p.k), i);
            sum[j] += q;
            if (nibbles)
                x8[j * p.k_pad + i] = (int8_t)q;
            else
                x[j * p.k_pad + i] = (int16_t)q;
        }
    }
    *s = (struct tern_screen){ .w = w, .k_pad = p.k_pad, .x = x, .x8 = x8, .x_sum = sum, .n_x = p.n_x };
}

static void screen_case(struct check *c, struct shape p, bool nibbles, enum check_kind kind)
{
    check_case(c, "rows=%zu k=%zu x=%zu %s", p.n_rows, p.k, p.n_x, check_kind_names[kind]);
    struct tern_screen s;
    make(c, &s, p, nibbles, kind);
    size_t first = check_below(c, p.n_rows), last = first + 1 + check_below(c, p.n_rows - first);
    s.y_stride = last - first + check_below(c, 2);
    size_t n_y = (p.n_x - 1) * s.y_stride + last - first;
    int32_t *ref = check_out(3, n_y * sizeof *ref), *new = check_out(4, n_y * sizeof *new);
    s.y = ref;
    (nibbles ? c->ref.screen4 : c->ref.screen)(&s, first, last);
    s.y = new;
    (nibbles ? c->new.screen4 : c->new.screen)(&s, first, last);
    check_same_bytes(c, "y", ref, new, n_y * sizeof *ref);
    check_canary(c, 4);
}

static void compare(struct check *c, bool nibbles)
{
    static const size_t ks[] = { 1, 63, 64, 65, 127, 640, 2047, 2049, 2560, 4160 };
    static const size_t rows[] = { 1, 2, 3, 4, 5, 9, 16, 17, 35 }, xs[] = { 1, 2, 3, 4, 5, 6, 7, 8, 16 };
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        size_t k = ks[i], k_pad = (k + TERN_SCREEN_COLS - 1) / TERN_SCREEN_COLS * TERN_SCREEN_COLS;
        for (enum check_kind kind = 0; kind <= KIND_SWING; kind++)
            screen_case(c, (struct shape){ rows[check_below(c, 9)], k, k_pad, xs[check_below(c, 9)] },
                        nibbles, kind);
        for (size_t j = 0; j < 9; j++) {
            screen_case(c, (struct shape){ 17, k, k_pad, xs[j] }, nibbles, KIND_RANDOM);
            screen_case(c, (struct shape){ rows[j], k, k_pad, 1 }, nibbles, KIND_RANDOM);
        }
    }
}

static void compare_screen(struct check *c)
{
    compare(c, false);
}

static void compare_screen4(struct check *c)
{
    compare(c, true);
}

/* -- rows ------------------------------------------------------------------------------------------------ */

static void row_case(struct check *c, size_t k, bool nibbles, enum check_kind kind)
{
    check_case(c, "k=%zu %s", k, check_kind_names[kind]);
    size_t k_pad = (k + TERN_SCREEN_COLS - 1) / TERN_SCREEN_COLS * TERN_SCREEN_COLS;
    size_t bytes = nibbles ? k_pad / 2 : k_pad;
    float *w = check_in(0, k * sizeof *w);
    check_fill_f32(c, w, k, kind);
    uint8_t *ref = check_out(1, bytes), *new = check_out(2, bytes);
    struct tern_screen_row a, b;
    if (nibbles) {
        c->ref.screen4_row(w, k, k_pad, ref, &a);
        c->new.screen4_row(w, k, k_pad, new, &b);
    } else {
        c->ref.screen_row(w, k, k_pad, (int8_t *)ref, &a);
        c->new.screen_row(w, k, k_pad, (int8_t *)new, &b);
    }
    check_same_bytes(c, "codes", ref, new, bytes);
    check_same_f32(c, "scale", &a.scale, &b.scale, 1);
    check_same_f32(c, "error", &a.error_sq, &b.error_sq, 1);
    check_same_f32(c, "norm", &a.norm_sq, &b.norm_sq, 1);
    check_canary(c, 2);
}

static void compare_rows(struct check *c, bool nibbles)
{
    static const size_t ks[] = { 1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 640, 2560 };
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++)
        for (enum check_kind kind = 0; kind < KIND_N; kind++)
            for (size_t times = 0; times < 4; times++)
                row_case(c, ks[i], nibbles, kind);
}

static void compare_screen_row(struct check *c)
{
    compare_rows(c, false);
}

static void compare_screen4_row(struct check *c)
{
    compare_rows(c, true);
}

/* -- speed ----------------------------------------------------------------------------------------------- */

struct screen_arg {
    const struct tern_kernels *k;
    struct tern_screen s;
    size_t n_rows;
    bool nibbles;
};

static void call_screen(void *arg)
{
    const struct screen_arg *a = arg;
    (a->nibbles ? a->k->screen4 : a->k->screen)(&a->s, 0, a->n_rows);
}

/* From the last cache, and from memory. */
static void measure(struct check *c, bool nibbles)
{
    static const size_t rows[] = { 1024, 65536 }, xs[] = { 1, 2, 4, 16 };
    for (size_t i = 0; i < 8; i++) {
        struct screen_arg a = { .k = &c->new, .n_rows = rows[i / 4], .nibbles = nibbles };
        struct shape p = { a.n_rows, 2560, 2560, xs[i % 4] };
        char shape[64];
        make(c, &a.s, p, nibbles, KIND_MAX);
        a.s.y = check_out(3, p.n_x * p.n_rows * sizeof(int32_t));
        a.s.y_stride = p.n_rows;
        snprintf(shape, sizeof shape, "%zux2560 x %zu", p.n_rows, p.n_x);
        check_measure(c, shape, p.n_rows * p.k_pad / (nibbles ? 2 : 1), call_screen, &a);
    }
}

static void measure_screen(struct check *c)
{
    measure(c, false);
}

static void measure_screen4(struct check *c)
{
    measure(c, true);
}

struct row_arg {
    const struct tern_kernels *k;
    const float *w;
    uint8_t *q;
    bool nibbles;
};

static void call_row(void *arg)
{
    const struct row_arg *a = arg;
    struct tern_screen_row r;
    if (a->nibbles)
        a->k->screen4_row(a->w, 2560, 2560, a->q, &r);
    else
        a->k->screen_row(a->w, 2560, 2560, (int8_t *)a->q, &r);
}

static void measure_rows(struct check *c, bool nibbles)
{
    float *w = check_in(0, 2560 * sizeof *w);
    check_fill_f32(c, w, 2560, KIND_RANDOM);
    struct row_arg a = { &c->new, w, check_out(1, 2560), nibbles };
    check_measure(c, "2560", 2560 * sizeof *w, call_row, &a);
}

static void measure_screen_row(struct check *c)
{
    measure_rows(c, false);
}

static void measure_screen4_row(struct check *c)
{
    measure_rows(c, true);
}

const struct check_op check_screen_ops[] = {
    { "screen", compare_screen, measure_screen, offsetof(struct tern_kernels, screen) },
    { "screen4", compare_screen4, measure_screen4, offsetof(struct tern_kernels, screen4) },
    { "screen_row", compare_screen_row, measure_screen_row, offsetof(struct tern_kernels, screen_row) },
    { "screen4_row", compare_screen4_row, measure_screen4_row, offsetof(struct tern_kernels, screen4_row) },
    { 0 },
};
