/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screened head against the full one: on rows made to mislead it the candidates hold the best tokens and
 * their very logits, what cannot be screened gets all logits, and the sampler draws the same token.
 */
#include "unit/lab_file.h"

#include "coordinator/sample.h"
#include "engine/forward.h"
#include "engine/head.h"

#include <math.h>
#include <string.h>

#define N_VOCAB 2900
#define N_EMBD  192
#define N_ROWS  7

static uint64_t rng = 88172645463325252u;

static double unit(void)
{
    return (double)(unit_random(&rng) >> 11) * 0x1p-52 - 1.0;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(unit_random(&rng) % n);
}

/* -- heads made to mislead ------------------------------------------------------------------------------- */

enum kind { PLAIN, OUTLIERS, EQUAL, ZEROS, NORMS, TINY, CLOSE, TWINS, N_KINDS };

/* Row r of an f32 head. */
static void make_row(enum kind kind, float *w, uint32_t r)
{
    static float twin[N_EMBD];
    double size = kind == NORMS ? exp2(20 * unit()) : kind == TINY ? exp2(-140 + 10 * unit()) : 1;

    for (uint32_t i = 0; i < N_EMBD; i++)
        w[i] = (float)(unit() * size);
    if (kind == OUTLIERS) /* one weight takes the whole scale */
        w[below(N_EMBD)] *= 1000.0f;
    if (kind == EQUAL)
        for (uint32_t i = 0; i < N_EMBD; i++)
            w[i] = r % 3 ? 0.25f : -0.25f;
    if (kind == ZEROS && r % 2)
        memset(w, 0, N_EMBD * sizeof *w);
    if (r == 0)
        memcpy(twin, w, sizeof twin);
    if (kind == TWINS && r % 100 == 0) /* ties of whole rows */
        memcpy(w, twin, sizeof twin);
    if (kind == CLOSE) { /* all within what int8 can tell apart */
        memcpy(w, twin, sizeof twin);
        w[below(N_EMBD)] *= 1.0f + (float)unit() * 0.01f;
    }
}

struct bed {
    struct lab_file f;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_model *model;
};

static void bed_new(struct bed *b, uint32_t type, int kind, enum tern_cpu_level level, unsigned threads)
{
    struct tern_model_options o = { .with_embd = true };
    struct tern_synthetic shape = lab_shape_small();

    shape.n_embd = type == TERN_Q6_K || type == TERN_Q4_K || type == TERN_TQ2_0 ? 256 : N_EMBD;
    shape.n_heads = shape.n_embd / 32;
    shape.n_kv_heads = 2;
    shape.n_vocab = N_VOCAB;
    shape.embd = type;
    b->f = lab_file_new(&shape);
    for (uint32_t r = 0; kind >= 0 && r < N_VOCAB; r++)
        make_row((enum kind)kind,
                 (float *)(void *)lab_file_data(&b->f, "token_embd.weight") + (size_t)r * N_EMBD, r);
    assert_ok(tern_arch_read(b->f.g, &b->arch, &unit_err));
    tern_kernels_init(&b->kern, level);
    assert_ok(tern_pool_new(threads, &b->pool, &unit_err));
    assert_ok(tern_model_load(b->f.g, &b->arch, &b->kern, b->pool, &o, &b->model, &unit_err));
}

static void bed_free(struct bed *b)
{
    tern_model_free(&b->model);
    tern_pool_free(&b->pool);
    lab_file_free(&b->f);
}

/* -- candidates ------------------------------------------------------------------------------------------ */

static void make_x(float *x, uint32_t n, uint32_t row)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = (float)unit();
    if (row % 2) /* outliers, which take the steps of its codes */
        x[below(n)] *= 300.0f;
    if (row == 6) /* along one row of a head */
        for (uint32_t i = 0; i < n; i++)
            x[i] = i % 2 ? 1.0f : -1.0f;
}

static bool is_in(const int32_t *ids, uint32_t n, int32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The best tokens outside the forced ones, and these, are there with the full head's logits. */
static void check_row(const struct tern_head_row *row, const struct tern_head_want *w, const float *full,
                      uint32_t n_vocab)
{
    static uint8_t used[N_VOCAB];

    if (row->logits) {
        assert_memory_equal(row->logits, full, n_vocab * sizeof *full);
        return;
    }
    assert_false(w->full);
    for (uint32_t i = 0; i < row->n; i++) {
        assert_true(i == 0 || row->ids[i] > row->ids[i - 1]);
        assert_memory_equal(&row->values[i], &full[row->ids[i]], sizeof *full);
    }
    memset(used, 0, sizeof used);
    for (uint32_t i = 0; i < w->n_forced; i++) {
        assert_true(is_in(row->ids, row->n, w->forced[i]));
        used[w->forced[i]] = 1;
    }
    for (uint32_t k = 0; k < w->k; k++) {
        int32_t best = -1;

        for (uint32_t i = 0; i < n_vocab; i++)
            if (!used[i] && (best < 0 || full[i] > full[best]))
                best = (int32_t)i;
        assert_true(is_in(row->ids, row->n, best));
        used[best] = 1;
    }
}

/* Some questions about some rows; returns how many were answered by candidates. */
static uint64_t ask(struct bed *b, struct tern_head *head, uint32_t n)
{
    const uint32_t n_embd = b->arch.n_embd;
    static int32_t forced[N_ROWS][5];
    struct tern_head_want want[N_ROWS] = { { 0 } };
    struct tern_head_row out[N_ROWS];
    const uint64_t before = tern_head_stats(head)->screened;
    float *x = malloc(n * n_embd * sizeof *x), *y = malloc(n * n_embd * sizeof *y),
          *full = malloc((size_t)n * N_VOCAB * sizeof *full);

    for (uint32_t i = 0; i < n; i++) {
        make_x(x + i * n_embd, n_embd, i);
        want[i].full = i == 4;
        want[i].k = i % 3 == 0 ? 1 : i % 3 == 1 ? 40 : 3;
        want[i].forced = forced[i];
        want[i].n_forced = i % 2 ? 5 : 0;
        for (uint32_t j = 0; j < 5; j++) /* distinct */
            forced[i][j] = (int32_t)(below(N_VOCAB / 5) * 5 + j);
    }
    memcpy(y, x, n * n_embd * sizeof *x);
    tern_forward_head(b->model, b->pool, y, n, full);
    tern_head_run(head, x, n, want, out);
    for (uint32_t i = 0; i < n; i++)
        check_row(&out[i], &want[i], full + (size_t)i * N_VOCAB, N_VOCAB);
    free(x);
    free(y);
    free(full);
    return tern_head_stats(head)->screened - before;
}

static void test_candidates(void **state)
{
    (void)state;
    for (int level = 0; level < TERN_CPU_N_LEVELS; level++) {
        if (!tern_cpu_supports((enum tern_cpu_level)level))
            continue;
        for (int kind = 0; kind < N_KINDS; kind++) {
            struct tern_head *head;
            struct bed b;
            uint64_t screened = 0;

            bed_new(&b, TERN_F32, kind, (enum tern_cpu_level)level, 1 + (unsigned)kind % 3);
            assert_ok(tern_head_new(b.model, b.pool, TERN_HEAD_AUTO, N_ROWS, &head, &unit_err));
            assert_int_equal(tern_head_mode(head), TERN_HEAD_SCREENED);
            for (uint32_t n = 1; n <= N_ROWS; n++)
                screened += ask(&b, head, n);
            if (kind == PLAIN || kind == ZEROS || kind == TWINS || kind == NORMS) /* screening pays */
                assert_true(screened > 15);
            tern_head_free(&head);
            bed_free(&b);
        }
    }
}

static void test_types(void **state)
{
    static const struct {
        uint32_t type;
        enum tern_head_mode mode;
    } types[] = { { TERN_F32, TERN_HEAD_SCREENED },  { TERN_F16, TERN_HEAD_SCREENED },
                  { TERN_BF16, TERN_HEAD_SCREENED }, { TERN_Q8_0, TERN_HEAD_SCREENED },
                  { TERN_Q6_K, TERN_HEAD_SCREENED }, { TERN_Q4_0, TERN_HEAD_FULL },
                  { TERN_Q4_K, TERN_HEAD_FULL },     { TERN_TQ2_0, TERN_HEAD_FULL } };

    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        for (int mode = TERN_HEAD_AUTO; mode <= TERN_HEAD_SCREENED; mode++) {
            struct tern_head *head;
            struct bed b;

            bed_new(&b, types[t].type, -1, tern_cpu_detect(), 2);
            assert_ok(tern_head_new(b.model, b.pool, (enum tern_head_mode)mode, N_ROWS, &head, &unit_err));
            assert_int_equal(tern_head_mode(head),
                             mode == TERN_HEAD_AUTO ? types[t].mode : (enum tern_head_mode)mode);
            assert_int_equal(ask(&b, head, N_ROWS) > 0, tern_head_mode(head) == TERN_HEAD_SCREENED);
            assert_int_equal(
                tern_head_bytes_read(head),
                tern_head_mode(head) == TERN_HEAD_FULL
                    ? b.model->head->bytes
                    : tern_head_copy_bytes(TERN_HEAD_SCREENED, TERN_F16, N_VOCAB, b.arch.n_embd));
            tern_head_free(&head);
            bed_free(&b);
        }
}

/* Values that have no bound: all logits, whatever was asked for. */
static void test_fallback(void **state)
{
    struct tern_head_want want = { .k = 1 };
    struct tern_head_row out;
    struct tern_head *head;
    struct bed b;
    float x[N_EMBD], *w;

    (void)state;
    for (int what = 0; what < 6; what++) {
        bed_new(&b, TERN_F32, PLAIN, tern_cpu_detect(), 2);
        w = (float *)(void *)lab_file_data(&b.f, "token_embd.weight") + 1000 * N_EMBD;
        w[3] = what == 1 ? INFINITY : what == 2 ? NAN : what == 3 ? 3e38f : w[3];
        assert_ok(tern_head_new(b.model, b.pool, TERN_HEAD_SCREENED, 1, &head, &unit_err));
        for (uint32_t i = 0; i < N_EMBD; i++)
            x[i] = what == 4 ? 0.0f : (float)unit();
        x[5] = what == 5 ? NAN : x[5];
        tern_head_run(head, x, 1, &want, &out);
        assert_int_equal(out.logits == NULL, what == 0);
        assert_int_equal(tern_head_stats(head)->fallback, what != 0);
        tern_head_free(&head);
        bed_free(&b);
    }
}

static void test_limits(void **state)
{
    static int32_t forced[N_VOCAB];
    struct tern_head_want want = { .k = N_VOCAB / 16 + 1 };
    struct tern_head_row out;
    struct tern_head *head;
    struct bed b;
    float x[N_EMBD];

    (void)state;
    bed_new(&b, TERN_F32, PLAIN, tern_cpu_detect(), 2);
    assert_ok(tern_head_new(b.model, b.pool, TERN_HEAD_SCREENED, 1, &head, &unit_err));
    for (uint32_t i = 0; i < N_VOCAB; i++)
        forced[i] = (int32_t)i;
    for (int what = 0; what < 3; what++) {
        make_x(x, N_EMBD, 0);
        want.forced = forced;
        want.k = what == 0 ? N_VOCAB / 16 + 1 : what == 1 ? 0 : 1;
        want.n_forced = what == 2 ? N_VOCAB : 0;
        tern_head_run(head, x, 1, &want, &out);
        assert_non_null(out.logits);
    }
    assert_int_equal(tern_head_stats(head)->fallback, 3);
    tern_head_free(&head);
    bed_free(&b);
    bed_new(&b, TERN_F32, CLOSE, tern_cpu_detect(), 2); /* more candidates than there is room for */
    assert_ok(tern_head_new(b.model, b.pool, TERN_HEAD_SCREENED, 1, &head, &unit_err));
    make_x(x, N_EMBD, 0);
    want = (struct tern_head_want){ .k = 1 };
    tern_head_run(head, x, 1, &want, &out);
    assert_non_null(out.logits);
    assert_int_equal(tern_head_stats(head)->fallback, 1);
    tern_head_free(&head);
    bed_free(&b);
}

/* -- tokens ---------------------------------------------------------------------------------------------- */

static struct sample_options options(uint32_t i)
{
    struct sample_options o;

    sample_options_default(&o);
    o.temperature = i % 4 == 0 ? 0 : 0.3 + 0.4 * (double)(i % 4);
    o.top_k = i % 5 == 0 ? 1 : 10 * (i % 5);
    o.top_p = i % 3 == 0 ? 1.0 : 0.8;
    o.min_p = i % 10 == 9 ? 1.5 : i % 2 ? 0.05 : 0;
    o.repeat_penalty = i % 7 < 3 ? 1.0 : i % 7 == 6 ? 0.6 : 1.3; /* below 1 seen tokens become likelier */
    o.frequency_penalty = i % 11 < 5 ? 0 : 0.4;
    o.presence_penalty = i % 13 < 6 ? 0 : 0.2;
    o.seed = i;
    for (uint32_t j = 0; j < i % 6; j++)
        o.bias[o.n_bias++] =
            (struct sample_bias){ (int32_t)below(N_VOCAB), j == 2 ? -INFINITY : (float)(4 * unit()) };
    return o;
}

static void test_same_tokens(void **state)
{
    const enum tern_head_mode modes[] = { TERN_HEAD_SCREENED, TERN_HEAD_STATISTICAL };
    struct tern_head *full, *heads[2];
    struct bed b;
    float x[3][N_EMBD];
    uint32_t different = 0, n_screened = 0;
    int32_t last = -1;

    (void)state;
    bed_new(&b, TERN_F16, -1, tern_cpu_detect(), 2);
    assert_ok(tern_head_new(b.model, b.pool, TERN_HEAD_FULL, 1, &full, &unit_err));
    for (int i = 0; i < 2; i++)
        assert_ok(tern_head_new(b.model, b.pool, modes[i], 1, &heads[i], &unit_err));
    for (uint32_t i = 0; i < 1500; i++) {
        const struct sample_options o = options(i);
        int32_t history[80], ids[3];

        for (uint32_t j = 0; j < 80; j++)
            history[j] = j % 9 ? (int32_t)below(N_VOCAB) : last;
        make_x(x[0], N_EMBD, i % 3);
        memcpy(x[1], x[0], sizeof x[0]);
        memcpy(x[2], x[0], sizeof x[0]);
        for (int h = 0; h < 3; h++) {
            struct tern_head_want want;
            struct tern_head_row row;
            struct sampler *s;

            assert_ok(sampler_new(&o, &b.kern, N_VOCAB, &s, &unit_err));
            sampler_want(s, history, 80, &want);
            tern_head_run(h ? heads[h - 1] : full, x[h], 1, &want, &row);
            n_screened += row.logits == NULL;
            assert_ok(sampler_pick(s, &row, history, 80, &ids[h], &unit_err));
            sampler_free(&s);
        }
        assert_int_equal(ids[0], ids[1]);
        assert_int_equal(ids[0], ids[2]); /* designed to differ once in a billion */
        different += ids[0] != last;
        last = ids[0];
    }
    assert_true(different > 1000);
    assert_true(n_screened > 2500);
    for (int i = 0; i < 2; i++)
        tern_head_free(&heads[i]);
    tern_head_free(&full);
    bed_free(&b);
}

static void test_names(void **state)
{
    enum tern_head_mode mode;

    (void)state;
    for (int i = TERN_HEAD_AUTO; i <= TERN_HEAD_STATISTICAL; i++) {
        assert_true(tern_head_mode_by_name(tern_head_mode_name((enum tern_head_mode)i), &mode));
        assert_int_equal(mode, i);
    }
    assert_false(tern_head_mode_by_name("half", &mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_candidates),  cmocka_unit_test(test_types),
        cmocka_unit_test(test_fallback),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_same_tokens), cmocka_unit_test(test_names),
    };

    tern_cpu_set_float_mode();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
