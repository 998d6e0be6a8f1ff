/* SPDX-License-Identifier: Apache-2.0 */
/* Dot products of float rows: attention and the plain matrices. */
#include "tests/kernels/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* -- attend ---------------------------------------------------------------------------------------------- */

struct attend_shape {
    size_t n_rows, n_heads, head_dim, n_pos;
    enum tern_kv_type type;
    size_t gap; /* floats between the rows of q and of acc */
};

struct state {
    float *max, *sum, *acc;
};

static size_t n_queries(struct attend_shape s)
{
    return s.n_rows * s.n_heads;
}

/* Floats of acc and of q, the gaps between rows included. */
static size_t n_spread(struct attend_shape s)
{
    return s.n_rows * s.n_heads * s.head_dim + (s.n_rows - 1) * s.gap;
}

static struct state make_state(struct attend_shape s, size_t slot)
{
    return (struct state){ check_out(slot, n_queries(s) * sizeof(float)),
                           check_out(slot + 1, n_queries(s) * sizeof(float)),
                           check_out(slot + 2, n_spread(s) * sizeof(float)) };
}

static void clear_state(struct state st, struct attend_shape s)
{
    for (size_t i = 0; i < n_queries(s); i++) {
        st.max[i] = -INFINITY;
        st.sum[i] = 0.0f;
    }
    memset(st.acc, 0, n_spread(s) * sizeof(float));
}

static void run_attend(const struct tern_kernels *k, struct tern_attend a, struct state st)
{
    a.max = st.max;
    a.sum = st.sum;
    a.acc = st.acc;
    k->attend(&a);
}

static void same_state(struct check *c, struct attend_shape s, struct state ref, struct state new,
                       size_t slot)
{
    check_same_f32(c, "max", ref.max, new.max, n_queries(s));
    check_same_f32(c, "sum", ref.sum, new.sum, n_queries(s));
    check_same_f32(c, "acc", ref.acc, new.acc, n_spread(s));
    for (size_t i = 0; i < 3; i++)
        check_canary(c, slot + i);
}

/* K or V in the slots from `slot` on. */
static const void *fill_kv(struct check *c, struct attend_shape s, size_t slot, enum check_kind kind,
                           const float **scale)
{
    size_t n = s.n_pos * s.head_dim;
    if (s.type == TERN_KV_F16) {
        uint16_t *kv = check_in(slot, n * sizeof *kv);
        check_fill_f16(c, kv, n, kind);
        *scale = NULL;
        return kv;
    }
    int8_t *kv = check_in(slot, n);
    float *d = check_in(slot + 1, s.n_pos * sizeof *d);
    check_fill_q(c, kv, n, kind);
    for (size_t i = 0; i < s.n_pos; i++)
        d[i] = kind == KIND_LARGE ? 1e30f : kind == KIND_TINY ? 0x1p-140f : 0.01f + fabsf(check_unit(c));
    *scale = d;
    return kv;
}

static void attend_block(struct check *c, struct attend_shape s, enum check_kind kind, struct state ref,
                         struct state new)
{
    float *q = check_in(0, n_spread(s) * sizeof *q);
    check_fill_f32(c, q, n_spread(s), kind == KIND_LARGE ? KIND_RANDOM : kind);
    struct tern_attend a = { .q = q,
                             .q_stride = s.n_heads * s.head_dim + s.gap,
                             .type = s.type,
                             .n_rows = s.n_rows,
                             .n_heads = s.n_heads,
                             .head_dim = s.head_dim,
                             .n_pos = s.n_pos,
                             .score_scale = 1.0f / sqrtf((float)s.head_dim),
                             .acc_stride = s.n_heads * s.head_dim + s.gap };
    a.k = fill_kv(c, s, 1, kind, &a.k_scale);
    a.v = fill_kv(c, s, 3, kind == KIND_ZERO ? KIND_RANDOM : kind, &a.v_scale);
    a.next_k = check_below(c, 2) ? a.k : NULL;
    run_attend(&c->ref, a, ref);
    run_attend(&c->new, a, new);
    same_state(c, s, ref, new, 8);
}

/* Three blocks folded into one state, the last of them alone of n_pos positions. */
static void attend_case(struct check *c, struct attend_shape s, enum check_kind kind)
{
    struct state ref = make_state(s, 5), new = make_state(s, 8);
    clear_state(ref, s);
    clear_state(new, s);
    size_t n_pos = s.n_pos;
    for (int block = 0; block < 3; block++) {
        check_case(c, "rows=%zu heads=%zu dim=%zu n=%zu %s block %d %s", s.n_rows, s.n_heads, s.head_dim,
                   n_pos, s.type == TERN_KV_F16 ? "f16" : "int8", block, check_kind_names[kind]);
        s.n_pos = block < 2 ? 32 : n_pos;
        attend_block(c, s, kind, ref, new);
    }
}

/* Products below the smallest subnormal leave a -0 in every lane; a careless tail would turn it into +0. */
static void attend_minus_zero(struct check *c, size_t dim)
{
    check_case(c, "minus zero dim=%zu", dim);
    struct attend_shape s = { 1, 1, dim, 1, TERN_KV_F16, 0 };
    struct state ref = make_state(s, 5), new = make_state(s, 8);
    clear_state(ref, s);
    clear_state(new, s);
    float *q = check_in(0, dim * sizeof *q);
    uint16_t *k = check_in(1, dim * sizeof *k);
    for (size_t i = 0; i < dim; i++) {
        q[i] = -0x1p-140f;
        k[i] = 1;
    }
    struct tern_attend a = {
        .q = q, .k = k, .v = k, .n_rows = 1, .n_heads = 1, .head_dim = dim, .n_pos = 1, .score_scale = 1.0f
    };
    run_attend(&c->ref, a, ref);
    run_attend(&c->new, a, new);
    same_state(c, s, ref, new, 8);
}

static void compare_attend(struct check *c)
{
    static const size_t dims[] = { 64, 96, 100, 128, 256, 272, 1, 16, 17 };
    static const size_t heads[] = { 1, 2, 3, 4, 5, 8 };
    static const size_t counts[] = { 1, 2, 7, 16, 31, 32 }, rows[] = { 2, 3, 5, 8, 17, 32 };
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        attend_minus_zero(c, dims[d]);
        for (enum tern_kv_type t = TERN_KV_F16; t <= TERN_KV_INT8; t++) {
            for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
                for (enum check_kind kind = 0; kind < KIND_N; kind++)
                    attend_case(
                        c, (struct attend_shape){ 1, heads[h], dims[d], counts[check_below(c, 6)], t, 0 },
                        kind);
                attend_case(c,
                            (struct attend_shape){ rows[h], heads[check_below(c, 6)], dims[d],
                                                   counts[check_below(c, 6)], t, check_below(c, 20) },
                            (enum check_kind)check_below(c, KIND_N));
            }
            for (size_t n = 0; n < 6; n++)
                attend_case(c, (struct attend_shape){ 1, 4, dims[d], counts[n], t, 0 }, KIND_RANDOM);
        }
    }
}

/* A later state folded into an earlier one, with maxima on either side, and into an empty one. */
static void merge_case(struct check *c, size_t n_heads, size_t dim, enum check_kind kind)
{
    check_case(c, "heads=%zu dim=%zu %s", n_heads, dim, check_kind_names[kind]);
    struct attend_shape s = { 1, n_heads, dim, 1, TERN_KV_F16, 0 };
    struct state ref = make_state(s, 5), new = make_state(s, 8);
    float *max = check_in(0, n_heads * sizeof *max), *sum = check_in(1, n_heads * sizeof *sum);
    float *acc = check_in(2, n_heads * dim * sizeof *acc);
    clear_state(ref, s);
    clear_state(new, s);
    for (int span = 0; span < 3; span++) {
        check_fill_f32(c, max, n_heads, kind);
        check_fill_f32(c, sum, n_heads, kind);
        check_fill_f32(c, acc, n_heads * dim, kind);
        c->ref.attend_merge(n_heads, dim, max, sum, acc, ref.max, ref.sum, ref.acc);
        c->new.attend_merge(n_heads, dim, max, sum, acc, new.max, new.sum, new.acc);
        same_state(c, s, ref, new, 8);
    }
}

static void compare_merge(struct check *c)
{
    static const size_t dims[] = { 1, 15, 16, 64, 100, 128, 256 }, heads[] = { 1, 3, 4, 8 };
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
            for (enum check_kind kind = 0; kind < KIND_N; kind++)
                merge_case(c, heads[h], dims[d], kind);
        }
    }
}

struct attend_arg {
    const struct tern_kernels *k;
    struct tern_attend a;
};

static void call_attend(void *arg)
{
    const struct attend_arg *a = arg;
    a->k->attend(&a->a);
}

static void measure_attend(struct check *c)
{
    static const size_t rows[] = { 1, 32 };
    for (size_t i = 0; i < 4; i++) {
        struct attend_shape s = { rows[i % 2], 4, 128, 32, i < 2 ? TERN_KV_F16 : TERN_KV_INT8, 0 };
        struct state st = make_state(s, 5);
        clear_state(st, s);
        float *q = check_in(0, n_spread(s) * sizeof *q);
        check_fill_f32(c, q, n_spread(s), KIND_RANDOM);
        struct attend_arg a = { &c->new,
                                { .q = q,
                                  .q_stride = 4 * 128,
                                  .type = s.type,
                                  .n_rows = s.n_rows,
                                  .n_heads = 4,
                                  .head_dim = 128,
                                  .n_pos = 32,
                                  .score_scale = 0.0884f,
                                  .max = st.max,
                                  .sum = st.sum,
                                  .acc = st.acc,
                                  .acc_stride = 4 * 128 } };
        a.a.k = fill_kv(c, s, 1, KIND_RANDOM, &a.a.k_scale);
        a.a.v = fill_kv(c, s, 3, KIND_RANDOM, &a.a.v_scale);
        char shape[64];
        snprintf(shape, sizeof shape, "%s %zu x 4 heads 128 x 32", i < 2 ? "f16" : "int8", s.n_rows);
        size_t position = s.type == TERN_KV_F16 ? 128 * 2 : 128 + sizeof(float);
        check_measure(c, shape, 2 * 32 * position, call_attend, &a);
    }
}

static void compare_finish(struct check *c)
{
    static const size_t dims[] = { 1, 7, 8, 16, 17, 64, 96, 100, 128, 256 };
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (enum check_kind kind = 0; kind < KIND_N; kind++) {
            check_case(c, "n=%zu %s", dims[d], check_kind_names[kind]);
            float *acc = check_in(0, dims[d] * sizeof *acc);
            check_fill_f32(c, acc, dims[d], kind);
            float *ref = check_out(1, dims[d] * sizeof *ref), *new = check_out(2, dims[d] * sizeof *new);
            float sum = kind == KIND_ZERO ? 0.0f : 1.5f + check_unit(c);
            c->ref.attend_finish(acc, sum, dims[d], ref);
            c->new.attend_finish(acc, sum, dims[d], new);
            check_same_f32(c, "out", ref, new, dims[d]);
            check_canary(c, 2);
        }
    }
}

/* -- matvec ---------------------------------------------------------------------------------------------- */

static const struct {
    enum tern_dtype type;
    const char *name;
} types[] = { { TERN_F32, "f32" },   { TERN_F16, "f16" },   { TERN_BF16, "bf16" }, { TERN_Q8_0, "q8_0" },
              { TERN_Q4_0, "q4_0" }, { TERN_Q4_K, "q4_k" }, { TERN_Q6_K, "q6_k" }, { TERN_TQ2_0, "tq2_0" } };
#define N_TYPES (sizeof types / sizeof types[0])

/* Any bytes are legal codes; the halves that scale a block are drawn apart unless the kind is WILD. */
static void fill_blocks(struct check *c, enum tern_dtype type, uint8_t *w, size_t bytes, size_t block,
                        enum check_kind kind)
{
    for (size_t i = 0; i < bytes; i++)
        w[i] = kind == KIND_ZERO ? 0 : (uint8_t)check_rand(c);
    for (size_t b = 0; kind != KIND_WILD && b < bytes; b += block) {
        uint16_t d[2];
        check_fill_f16(c, d, 2, kind);
        memcpy(w + b + (type == TERN_Q6_K ? 208 : type == TERN_TQ2_0 ? 64 : 0), d, type == TERN_Q4_K ? 4 : 2);
    }
}

static void fill_matrix(struct check *c, enum tern_dtype type, void *w, size_t bytes, enum check_kind kind)
{
    size_t elems, block;
    tern_dtype_block(type, &elems, &block);
    if (type == TERN_F32) {
        check_fill_f32(c, w, bytes / 4, kind);
    } else if (type == TERN_F16) {
        check_fill_f16(c, w, bytes / 2, kind);
    } else if (type == TERN_BF16) {
        for (size_t i = 0; i < bytes / 2; i++) {
            float f;
            check_fill_f32(c, &f, 1, kind);
            memcpy((uint16_t *)w + i, (uint8_t *)&f + 2, 2);
        }
    } else {
        fill_blocks(c, type, w, bytes, block, kind);
    }
}

static void make_matvec(struct check *c, struct tern_matvec *m, enum tern_dtype type, size_t n_rows, size_t k,
                        size_t n_x, size_t gap, enum check_kind kind)
{
    size_t elems, block;
    tern_dtype_block(type, &elems, &block);
    size_t row_bytes = k / elems * block, stride = k + gap;
    void *w = check_in(0, n_rows * row_bytes);
    fill_matrix(c, type, w, n_rows * row_bytes, kind);
    float *x = check_in(1, ((n_x - 1) * stride + k) * sizeof *x);
    check_fill_f32(c, x, (n_x - 1) * stride + k, kind == KIND_LARGE ? KIND_RANDOM : kind);
    *m = (struct tern_matvec){ .w = w,
                               .row_bytes = row_bytes,
                               .type = type,
                               .k = k,
                               .x = x,
                               .x_stride = stride,
                               .n_x = n_x,
                               .y_stride = n_rows + gap };
}

static void matvec_case(struct check *c, size_t type, size_t n_rows, size_t k, size_t n_x,
                        enum check_kind kind)
{
    check_case(c, "%s rows=%zu k=%zu x=%zu %s", types[type].name, n_rows, k, n_x, check_kind_names[kind]);
    struct tern_matvec m;
    make_matvec(c, &m, types[type].type, n_rows, k, n_x, check_below(c, 2), kind);
    size_t n_y = (n_x - 1) * m.y_stride + n_rows;
    size_t first = check_below(c, 2) ? check_below(c, n_rows) : 0,
           last = first + 1 + check_below(c, n_rows - first);
    float *ref = check_out(2, n_y * sizeof *ref), *new = check_out(3, n_y * sizeof *new);
    m.y = ref;
    c->ref.matvec(&m, first, last);
    m.y = new;
    c->new.matvec(&m, first, last);
    check_same_f32(c, "y", ref, new, n_y);
    check_canary(c, 3);
}

/* As attend_minus_zero. */
static void matvec_minus_zero(struct check *c, size_t k)
{
    check_case(c, "f32 minus zero k=%zu", k);
    struct tern_matvec m;
    make_matvec(c, &m, TERN_F32, 1, k, 1, 0, KIND_ZERO);
    float *w = check_in(0, k * sizeof *w), *x = check_in(1, k * sizeof *x), ref, new;
    for (size_t i = 0; i < k; i++) {
        w[i] = -0x1p-100f;
        x[i] = 0x1p-100f;
    }
    m.y = &ref;
    c->ref.matvec(&m, 0, 1);
    m.y = &new;
    c->new.matvec(&m, 0, 1);
    check_same_f32(c, "y", &ref, &new, 1);
}

static void compare_matvec(struct check *c)
{
    static const size_t ks[] = { 1, 15, 16, 17, 31, 32, 64, 100, 256, 640, 1536, 2560, 6912, 8640 };
    static const size_t xs[] = { 1, 2, 3, 4, 5, 9 }, rows[] = { 1, 2, 3, 4, 5, 9 };
    for (size_t k = 1; k < 70; k++)
        matvec_minus_zero(c, k);
    for (size_t t = 0; t < N_TYPES; t++) {
        size_t elems, bytes;
        tern_dtype_block(types[t].type, &elems, &bytes);
        for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++) {
            if (ks[k] % elems != 0)
                continue;
            for (enum check_kind kind = 0; kind < KIND_N; kind++)
                matvec_case(c, t, rows[check_below(c, 6)], ks[k], xs[check_below(c, 6)], kind);
            for (size_t i = 0; i < 6; i++)
                matvec_case(c, t, 5, ks[k], xs[i], KIND_RANDOM);
            for (size_t i = 0; i < 6; i++)
                matvec_case(c, t, rows[i], ks[k], 1, KIND_RANDOM);
        }
    }
}

struct matvec_arg {
    const struct tern_kernels *k;
    struct tern_matvec m;
    size_t n_rows;
};

static void call_matvec(void *arg)
{
    const struct matvec_arg *a = arg;
    a->k->matvec(&a->m, 0, a->n_rows);
}

static void measure_matvec(struct check *c)
{
    for (size_t t = 0; t < N_TYPES; t++) {
        for (size_t n_x = 1; n_x <= 4; n_x += 3) {
            struct matvec_arg a = { .k = &c->new, .n_rows = 4096 };
            make_matvec(c, &a.m, types[t].type, a.n_rows, 2560, n_x, 0, KIND_RANDOM);
            a.m.y = check_out(2, n_x * a.n_rows * sizeof(float));
            char shape[64];
            snprintf(shape, sizeof shape, "%s 4096x2560 x %zu", types[t].name, n_x);
            check_measure(c, shape, a.n_rows * a.m.row_bytes, call_matvec, &a);
        }
    }
}

const struct check_op check_dot_ops[] = {
    { "attend", compare_attend, measure_attend, offsetof(struct tern_kernels, attend) },
    { "attend_merge", compare_merge, NULL, offsetof(struct tern_kernels, attend_merge) },
    { "attend_finish", compare_finish, NULL, offsetof(struct tern_kernels, attend_finish) },
    { "matvec", compare_matvec, measure_matvec, offsetof(struct tern_kernels, matvec) },
    { 0 },
};
