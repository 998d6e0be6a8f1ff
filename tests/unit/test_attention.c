/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attention pass against its definition in engine/forward.h, written down here once more with the
 * reference kernels, one row at a time: whatever the rows, their company and the number of threads, the bits
 * are the same.
 */
#include "unit/unit.h"

#include "engine/forward_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_POS  4700 /* eighteen spans and a bit */
#define N_PAGES  (3 * (MAX_POS / TERN_PAGE + 1))
#define MAX_ROWS 160

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim;
};

/* n rows from position pos of sequence seq on. */
struct run {
    uint32_t seq, pos, n;
};

struct lab {
    struct tern_model model;
    struct tern_kernels ref, best;
    struct tern_kv_store kv;
    uint32_t pages[3][N_PAGES / 3];
    uint64_t random;
};

static float unit_float(uint64_t *random)
{
    return (float)(unit_random(random) >> 40) * 0x1p-23f - 1.0f;
}

/* The kinds of cache that every test tries. */
static enum tern_kv_type kv_type;
/* Positions a row sees; 0: all before it. */
static uint32_t window;

static void open_lab(struct lab *l, struct shape s)
{
    float *x = malloc(s.head_dim * sizeof *x);

    assert_non_null(x);
    memset(l, 0, sizeof *l);
    l->random = 88172645463325252u;
    l->model.arch = (struct tern_arch){
        .n_embd = 64, .n_ffn = 64, .n_heads = s.n_heads, .n_kv_heads = s.n_kv_heads, .head_dim = s.head_dim
    };
    tern_kernels_init(&l->ref, TERN_CPU_REF);
    tern_kernels_init(&l->best, tern_cpu_detect());
    assert_ok(tern_kv_store_new(kv_type, N_PAGES, 1, s.n_kv_heads, s.head_dim, &l->kv, &unit_err));
    for (uint32_t plane = 0; plane < N_PAGES * s.n_kv_heads * 2; plane++)
        for (uint32_t pos = 0; pos < TERN_PAGE; pos++) {
            for (uint32_t i = 0; i < s.head_dim; i++)
                x[i] = unit_float(&l->random);
            tern_kv_put(&l->kv, &l->ref, l->kv.data + plane * l->kv.plane_bytes, pos, x);
        }
    free(x);
    /* Each sequence's pages from the last to the first, in turn. */
    for (uint32_t i = 0; i < N_PAGES; i++)
        l->pages[i % 3][N_PAGES / 3 - 1 - i / 3] = i;
}

/* -- the definition -------------------------------------------------------------------------------------- */

static uint32_t first_seen(const struct tern_row *r)
{
    return window && r->pos + 1 > window ? r->pos + 1 - window : 0;
}

static void define_span(struct lab *l, const struct tern_row *r, uint32_t head, uint32_t span,
                        struct tern_attend *t)
{
    for (size_t g = 0; g < t->n_heads; g++) {
        t->max[g] = -INFINITY;
        t->sum[g] = 0.0f;
    }
    memset(t->acc, 0, t->n_heads * t->head_dim * sizeof *t->acc);
    for (uint32_t at = span * 256; at < span * 256 + 256 && at <= r->pos; at += 32) {
        uint8_t *k = tern_kv_k(&l->kv, r->pages[at / 32], 0, head);
        uint8_t *v = tern_kv_v(&l->kv, r->pages[at / 32], 0, head);
        uint32_t from = first_seen(r) > at ? first_seen(r) - at : 0;
        size_t skip = (size_t)from * t->head_dim * (kv_type == TERN_KV_INT8 ? 1 : 2);

        if (from >= 32)
            continue;
        t->k = k + skip;
        t->v = v + skip;
        if (kv_type == TERN_KV_INT8) {
            t->k_scale = tern_kv_scales(&l->kv, k) + from;
            t->v_scale = tern_kv_scales(&l->kv, v) + from;
        }
        t->n_pos = (r->pos + 1 - at < 32 ? r->pos + 1 - at : 32) - from;
        l->ref.attend(t);
    }
}

static void define_row(struct lab *l, const struct tern_row *r, const float *q, float *out)
{
    const struct tern_arch *a = &l->model.arch;
    size_t group = a->n_heads / a->n_kv_heads, hd = a->head_dim;
    float *memory = calloc(2 * group * (hd + 2), sizeof *memory), *span = memory + group * (hd + 2);

    assert_non_null(memory);
    for (uint32_t h = 0; h < a->n_kv_heads; h++) {
        struct tern_attend t = { .type = kv_type,
                                 .q = q + h * group * hd,
                                 .n_rows = 1,
                                 .n_heads = group,
                                 .head_dim = hd,
                                 .score_scale = 1.0f / sqrtf((float)hd),
                                 .max = memory,
                                 .sum = memory + group,
                                 .acc = memory + 2 * group };

        define_span(l, r, h, first_seen(r) / 256, &t);
        t.max = span;
        t.sum = span + group;
        t.acc = span + 2 * group;
        for (uint32_t s = first_seen(r) / 256 + 1; s <= r->pos / 256; s++) {
            define_span(l, r, h, s, &t);
            l->ref.attend_merge(group, hd, span, span + group, span + 2 * group, memory, memory + group,
                                memory + 2 * group);
        }
        for (size_t g = 0; g < group; g++)
            l->ref.attend_finish(memory + (2 + hd) * group - (group - g) * hd, memory[group + g], hd,
                                 out + (h * group + g) * hd);
    }
    free(memory);
}

/* -- the pass -------------------------------------------------------------------------------------------- */

static size_t make_rows(struct lab *l, const struct run *runs, size_t n_runs, struct tern_row *rows)
{
    size_t n = 0;

    for (size_t i = 0; i < n_runs; i++)
        for (uint32_t j = 0; j < runs[i].n; j++)
            rows[n++] = (struct tern_row){ l->pages[runs[i].seq], runs[i].pos + j, 0 };
    assert_true(n <= MAX_ROWS);
    return n;
}

static void run_pass(struct lab *l, unsigned n_threads, struct tern_row *rows, size_t n, const float *q,
                     float *out)
{
    const struct tern_arch *a = &l->model.arch;
    size_t q_dim = (size_t)a->n_heads * a->head_dim;
    struct tern_pool *pool;
    struct tern_scratch *s;
    struct pass p = {
        .m = &l->model, .kern = &l->best, .kv = &l->kv, .rows = rows, .n_live = n, .window = window
    };

    assert_ok(tern_pool_new(n_threads, &pool, &unit_err));
    assert_ok(tern_scratch_new(a, MAX_ROWS, n_threads, &s, &unit_err));
    p.pool = pool;
    p.s = s;
    for (size_t i = 0; i < n; i++) {
        s->live[i] = i;
        p.n_pos = rows[i].pos >= p.n_pos ? rows[i].pos + 1u : p.n_pos;
    }
    memcpy(s->q, q, n * q_dim * sizeof *q);
    tern_pass_attention(&p);
    memcpy(out, s->att, n * q_dim * sizeof *out);
    tern_scratch_free(&s);
    tern_pool_free(&pool);
}

static void assert_same(const float *want, const float *got, size_t n, size_t q_dim, unsigned threads)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], sizeof *want) != 0)
            fail_msg("%u threads: row %zu, element %zu is %a instead of %a", threads, i / q_dim, i % q_dim,
                     (double)got[i], (double)want[i]);
}

static void compare(struct shape shape, const struct run *runs, size_t n_runs)
{
    static const unsigned threads[] = { 1, 2, 3, 16 };
    size_t q_dim = (size_t)shape.n_heads * shape.head_dim, n;
    float *q = malloc(3 * MAX_ROWS * q_dim * sizeof *q), *want = q + MAX_ROWS * q_dim,
          *got = want + MAX_ROWS * q_dim;
    struct tern_row rows[MAX_ROWS];
    struct lab l;

    assert_non_null(q);
    open_lab(&l, shape);
    n = make_rows(&l, runs, n_runs, rows);
    for (size_t i = 0; i < n * q_dim; i++)
        q[i] = 4.0f * unit_float(&l.random);
    for (size_t i = 0; i < n; i++)
        define_row(&l, &rows[i], q + i * q_dim, want + i * q_dim);
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        run_pass(&l, threads[t], rows, n, q, got);
        assert_same(want, got, n * q_dim, q_dim, threads[t]);
    }
    tern_kv_store_free(&l.kv);
    free(q);
}

/* -- tests ----------------------------------------------------------------------------------------------- */

static const struct shape shapes[] = { { 4, 1, 32 }, { 6, 2, 16 }, { 3, 3, 20 } };
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

static void test_one_row(void **state)
{
    static const uint32_t at[] = { 0, 31, 32, 255, 256, 511, 512, 700, MAX_POS - 1 };

    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++)
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
            compare(shapes[s], &(struct run){ 0, at[i], 1 }, 1);
}

static void test_many_rows(void **state)
{
    static const struct run runs[] = {
        { 1, 0, 100 }, { 1, 17, 70 }, { 1, 230, 60 }, { 1, 700, 40 }, { 1, 2040, 3 }
    };

    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++)
        for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++)
            compare(shapes[s], &runs[i], 1);
}

/* Sequences of very different lengths in one step. */
static void test_company(void **state)
{
    static const struct run few[] = { { 0, 40, 1 }, { 1, 900, 1 }, { 2, 3, 1 } };
    static const struct run uneven[] = { { 0, MAX_POS - 1, 1 }, { 1, 250, 90 }, { 2, 600, 1 } };
    static const struct run late[] = { { 0, 5, 30 }, { 2, MAX_POS - 40, 40 }, { 1, 300, 20 } };

    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++) {
        compare(shapes[s], few, 3);
        compare(shapes[s], uneven, 3);
        compare(shapes[s], late, 3);
    }
}

static void test_int8(void **state)
{
    kv_type = TERN_KV_INT8;
    test_one_row(state);
    test_company(state);
    kv_type = TERN_KV_F16;
}

/* Windows below a page, of pages, across spans, and beyond most positions. */
static void test_windows(void **state)
{
    static const uint32_t windows[] = { 1, 32, 100, 300, 2000 };

    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        window = windows[i];
        test_many_rows(state);
        test_company(state);
    }
    kv_type = TERN_KV_INT8;
    window = 70;
    test_company(state);
    kv_type = TERN_KV_F16;
    window = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_row), cmocka_unit_test(test_many_rows), cmocka_unit_test(test_company),
        cmocka_unit_test(test_int8),    cmocka_unit_test(test_windows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
