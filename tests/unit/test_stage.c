/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages on the model of this repository: cuts, chunks and company change no bit, and whatever is wrong with
 * one sequence stays with it.
 */
#include "unit/unit.h"

#include "engine/forward.h"
#include "worker/stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL      TERN_SOURCE_DIR "/deploy/models/fable.gguf"
#define MAX_LAYERS 16
#define MAX_ROWS   128
#define N_SLOTS    8
#define N_PAGES    24
#define CONTEXT    160
#define PROMPT     100

/* What all tests share; loaded once. */
static struct {
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_model *whole;              /* all layers, with the embedding */
    struct tern_model *single[MAX_LAYERS]; /* one layer each */
} lab;

static int load_models(void **state)
{
    struct tern_model_options mo = { .with_embd = true };

    (void)state;
    tern_cpu_set_float_mode();
    tern_kernels_init(&lab.kern, tern_cpu_detect());
    assert_ok(tern_gguf_open(MODEL, &lab.gguf, &unit_err));
    assert_ok(tern_arch_read(lab.gguf, &lab.arch, &unit_err));
    assert_true(lab.arch.n_layers > 1 && lab.arch.n_layers <= MAX_LAYERS);
    assert_ok(tern_pool_new(2, &lab.pool, &unit_err));
    mo.last = lab.arch.n_layers;
    assert_ok(tern_model_load(lab.gguf, &lab.arch, &lab.kern, lab.pool, &mo, &lab.whole, &unit_err));
    mo.with_embd = false;
    for (uint32_t i = 0; i < lab.arch.n_layers; i++) {
        mo.first = i;
        mo.last = i + 1;
        assert_ok(tern_model_load(lab.gguf, &lab.arch, &lab.kern, lab.pool, &mo, &lab.single[i], &unit_err));
    }
    return 0;
}

static int free_models(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < lab.arch.n_layers; i++)
        tern_model_free(&lab.single[i]);
    tern_model_free(&lab.whole);
    tern_pool_free(&lab.pool);
    tern_gguf_close(&lab.gguf);
    return 0;
}

/* -- a pipeline without wires ---------------------------------------------------------------------------- */

struct line {
    enum tern_boundary boundary;
    uint32_t n;
    struct tern_stage *stages[MAX_LAYERS];
    struct tern_step *step;
    uint64_t next;
};

/* cut: a stage for each layer; otherwise one for all. */
static void line_open(struct line *l, enum tern_boundary b, bool cut)
{
    struct tern_stage_options o = { b, N_PAGES, N_SLOTS, CONTEXT, MAX_ROWS, 0, false };

    memset(l, 0, sizeof *l);
    l->boundary = b;
    l->n = cut ? lab.arch.n_layers : 1;
    l->next = 1;
    for (uint32_t i = 0; i < l->n; i++) {
        o.index = i;
        o.is_last = i + 1 == l->n;
        assert_ok(tern_stage_new(cut ? lab.single[i] : lab.whole, lab.pool, &o, &l->stages[i], &unit_err));
    }
    assert_ok(
        tern_step_new(MAX_ROWS, (uint32_t)tern_boundary_row_bytes(b, lab.arch.n_embd), &l->step, &unit_err));
}

static void line_close(struct line *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        tern_stage_free(&l->stages[i]);
    tern_step_free(&l->step);
}

static void line_begin(struct line *l)
{
    tern_step_clear(l->step);
    l->step->step = l->next++;
}

static void line_op(struct line *l, uint32_t kind, uint32_t slot, uint32_t gen, uint32_t len)
{
    l->step->ops[l->step->n_ops++] =
        (struct tern_slot_op){ .kind = kind, .slot = slot, .gen = gen, .len = len };
}

/* Token i of text number `text`: any ids will do. */
static int32_t token(uint32_t text, uint32_t i)
{
    return (int32_t)((text * 977u + i * 131u + i * i * 7u) % 4000u);
}

/* Rows [pos, pos + n) of a text, n_want of them wanted back. */
static void line_rows(struct line *l, uint32_t slot, uint32_t gen, uint32_t text, uint32_t pos, uint32_t n,
                      uint32_t n_want)
{
    struct tern_step *s = l->step;
    float *x = malloc(lab.arch.n_embd * sizeof *x);

    assert_non_null(x);
    assert_true(s->n_rows + n <= MAX_ROWS);
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = token(text, pos + i);

        tern_forward_embed(lab.whole, &id, 1, x);
        tern_boundary_encode(l->boundary, &lab.kern, x, lab.arch.n_embd,
                             s->payload + (size_t)(s->n_rows + i) * s->row_bytes);
    }
    free(x);
    s->runs[s->n_runs++] = (struct tern_run){ slot, gen, pos, n, n_want };
    s->n_rows += n;
}

static void line_run(struct line *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        assert_ok(tern_stage_run(l->stages[i], l->step, &unit_err));
    assert_int_equal(l->step->n_times, l->n);
}

static void assert_same_rows(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            fail_msg("byte %zu of %zu differs: %02x and %02x", i, n, a[i], b[i]);
}

static const struct tern_failed *failure_of(const struct tern_step *s, uint32_t slot, uint32_t gen)
{
    for (uint32_t i = 0; i < s->n_failed; i++)
        if (s->failed[i].slot == slot && s->failed[i].gen == gen)
            return &s->failed[i];
    return NULL;
}

/* A text in chunks, all rows wanted; returns them, the caller frees. */
static uint8_t *rows_by_chunks(enum tern_boundary b, bool cut, uint32_t text, uint32_t n, uint32_t chunk)
{
    struct line l;
    uint8_t *out;
    size_t row;

    line_open(&l, b, cut);
    row = l.step->row_bytes;
    out = malloc(n * row);
    assert_non_null(out);
    for (uint32_t pos = 0; pos < n; pos += chunk) {
        uint32_t now = n - pos < chunk ? n - pos : chunk;

        line_begin(&l);
        if (pos == 0)
            line_op(&l, TERN_OP_OPEN, 1, 1, 0);
        line_rows(&l, 1, 1, text, pos, now, now);
        line_run(&l);
        assert_int_equal(l.step->n_failed, 0);
        assert_int_equal(l.step->n_rows, now);
        memcpy(out + pos * row, l.step->payload, now * row);
    }
    line_close(&l);
    return out;
}

static const enum tern_boundary formats[] = { TERN_BOUNDARY_F32,     TERN_BOUNDARY_F16,
                                              TERN_BOUNDARY_INT8,    TERN_BOUNDARY_INT8X2,
                                              TERN_BOUNDARY_INT8_64, TERN_BOUNDARY_INT8_ROW };
#define N_FORMATS (sizeof formats / sizeof formats[0])

/* -- the same bits --------------------------------------------------------------------------------------- */

static void test_cuts(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FORMATS; f++) {
        size_t row = tern_boundary_row_bytes(formats[f], lab.arch.n_embd);
        uint8_t *one = rows_by_chunks(formats[f], false, 1, PROMPT, PROMPT);
        uint8_t *many = rows_by_chunks(formats[f], true, 1, PROMPT, PROMPT);
        bool any = false;

        assert_same_rows(one, many, PROMPT * row);
        for (size_t i = 0; i < PROMPT * row; i++)
            any |= one[i] != 0;
        assert_true(any);
        assert_true(memcmp(one, one + row, row) != 0);
        free(one);
        free(many);
    }
}

static void test_chunks(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 64 };

    (void)state;
    for (size_t f = 0; f < N_FORMATS; f++) {
        size_t row = tern_boundary_row_bytes(formats[f], lab.arch.n_embd);
        uint8_t *all = rows_by_chunks(formats[f], false, 2, PROMPT, PROMPT);

        for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
            uint8_t *cut = rows_by_chunks(formats[f], c == 1, 2, PROMPT, chunks[c]);

            assert_same_rows(all, cut, PROMPT * row);
            free(cut);
        }
        free(all);
    }
}

static void test_company(void **state)
{
    static const uint32_t n[] = { 40, 1, 33 };
    struct line l;
    uint32_t at = 0;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, true);
    line_begin(&l);
    for (uint32_t i = 0; i < 3; i++) {
        line_op(&l, TERN_OP_OPEN, i, 9, 0);
        line_rows(&l, i, 9, i, 0, n[i], n[i]);
    }
    line_run(&l);
    for (uint32_t i = 0; i < 3; at += n[i++]) {
        uint8_t *alone = rows_by_chunks(TERN_BOUNDARY_INT8, false, i, n[i], n[i]);

        assert_same_rows(alone, l.step->payload + (size_t)at * l.step->row_bytes,
                         (size_t)n[i] * l.step->row_bytes);
        free(alone);
    }
    line_close(&l);
}

/* Behind the last stage only the wanted rows are left, in order. */
static void test_wanted_rows(void **state)
{
    uint8_t *a = rows_by_chunks(TERN_BOUNDARY_F16, false, 1, 20, 20);
    uint8_t *b = rows_by_chunks(TERN_BOUNDARY_F16, false, 2, 10, 10);
    struct line l;
    size_t row;

    (void)state;
    line_open(&l, TERN_BOUNDARY_F16, true);
    row = l.step->row_bytes;
    line_begin(&l);
    for (uint32_t i = 0; i < 3; i++)
        line_op(&l, TERN_OP_OPEN, i, 1, 0);
    line_rows(&l, 0, 1, 1, 0, 20, 2);
    line_rows(&l, 1, 1, 3, 0, 5, 0);
    line_rows(&l, 2, 1, 2, 0, 10, 1);
    line_run(&l);
    assert_int_equal(l.step->n_rows, 3);
    assert_same_rows(l.step->payload, a + 18 * row, 2 * row);
    assert_same_rows(l.step->payload + 2 * row, b + 9 * row, row);
    line_close(&l);
    free(a);
    free(b);
}

/* -- slots ----------------------------------------------------------------------------------------------- */

static void test_fork_and_rewind(void **state)
{
    uint8_t *want = rows_by_chunks(TERN_BOUNDARY_INT8X2, false, 4, 80, 80);
    struct line l;
    size_t row;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8X2, true);
    row = l.step->row_bytes;
    line_begin(&l);
    line_op(&l, TERN_OP_OPEN, 0, 1, 0);
    line_rows(&l, 0, 1, 4, 0, 70, 1);
    line_run(&l);
    assert_same_rows(l.step->payload, want + 69 * row, row);

    /* A fork in the middle of a page goes its own way; so does the original after it. */
    line_begin(&l);
    line_op(&l, TERN_OP_FORK, 3, 1, 45);
    l.step->ops[0].from_slot = 0;
    l.step->ops[0].from_gen = 1;
    line_rows(&l, 3, 1, 4, 45, 20, 20);
    line_run(&l);
    assert_int_equal(l.step->n_failed, 0);
    assert_same_rows(l.step->payload, want + 45 * row, 20 * row);
    line_begin(&l);
    line_rows(&l, 0, 1, 4, 70, 10, 10);
    line_run(&l);
    assert_same_rows(l.step->payload, want + 70 * row, 10 * row);

    /* Other rows from a shared page, then back and the right ones again. */
    line_begin(&l);
    line_op(&l, TERN_OP_REWIND, 3, 1, 33);
    line_rows(&l, 3, 1, 5, 33, 12, 1);
    line_run(&l);
    assert_true(memcmp(l.step->payload, want + 44 * row, row) != 0);
    line_begin(&l);
    line_op(&l, TERN_OP_REWIND, 3, 1, 33);
    line_op(&l, TERN_OP_REWIND, 0, 1, 40);
    line_rows(&l, 3, 1, 4, 33, 12, 12);
    line_rows(&l, 0, 1, 4, 40, 8, 8);
    line_run(&l);
    assert_int_equal(l.step->n_failed, 0);
    assert_same_rows(l.step->payload, want + 33 * row, 12 * row);
    assert_same_rows(l.step->payload + 12 * row, want + 40 * row, 8 * row);
    line_close(&l);
    free(want);
}

/* Operations that cannot be done fail the sequence they name, and nobody else. */
static void test_bad_operations(void **state)
{
    static const struct {
        struct tern_slot_op op;
        uint32_t slot, gen, code;
    } cases[] = {
        { { TERN_OP_OPEN, 1, 7, 0, 0, 0 }, 1, 7, TERN_FAILED_POSITION }, /* in use */
        { { TERN_OP_OPEN, 2, 3, 0, 0, 0 }, 2, 3, TERN_FAILED_POSITION }, /* a generation it has had */
        { { TERN_OP_OPEN, N_SLOTS, 1, 0, 0, 0 }, N_SLOTS, 1, TERN_FAILED_POSITION },
        { { TERN_OP_FREE, 1, 6, 0, 0, 0 }, 1, 6, TERN_FAILED_POSITION },
        { { TERN_OP_REWIND, 4, 1, 99, 0, 0 }, 4, 1, TERN_FAILED_POSITION },
        { { TERN_OP_FORK, 5, 1, 31, 1, 5 }, 5, 1, TERN_FAILED_POSITION }, /* longer than its source */
        { { TERN_OP_FORK, 5, 1, 3, 2, 3 }, 5, 1, TERN_FAILED_POSITION },  /* of a freed sequence */
    };
    uint8_t *want = rows_by_chunks(TERN_BOUNDARY_INT8, false, 1, 12, 12);

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct line l;
        const struct tern_failed *f;

        line_open(&l, TERN_BOUNDARY_INT8, true);
        line_begin(&l);
        line_op(&l, TERN_OP_OPEN, 1, 5, 0);
        line_op(&l, TERN_OP_OPEN, 2, 3, 0);
        line_op(&l, TERN_OP_FREE, 2, 3, 0);
        line_op(&l, TERN_OP_OPEN, 4, 1, 0);
        line_rows(&l, 1, 5, 1, 0, 10, 1);
        line_rows(&l, 4, 1, 2, 0, 10, 1);
        line_run(&l);
        assert_int_equal(l.step->n_failed, 0);

        line_begin(&l);
        l.step->ops[l.step->n_ops++] = cases[c].op;
        line_rows(&l, 1, 5, 1, 10, 2, 2);
        line_run(&l);
        assert_int_equal(l.step->n_failed, 1);
        f = failure_of(l.step, cases[c].slot, cases[c].gen);
        assert_non_null(f);
        assert_int_equal(f->code, cases[c].code);
        assert_int_equal(f->where, 0);
        assert_same_rows(l.step->payload, want + 10 * (size_t)l.step->row_bytes,
                         2 * (size_t)l.step->row_bytes);
        line_close(&l);
    }
    free(want);
}

/* -- one bad sequence among good ones -------------------------------------------------------------------- */

enum bad {
    BAD_GENERATION,
    BAD_FORMER,
    BAD_POSITION,
    BAD_UNOPENED,
    BAD_CONTEXT,
    BAD_PAGES,
    BAD_NAN,
    BAD_INF,
    BAD_HUGE,
    BAD_UPSTREAM,
    BAD_N
};

/* A layer made to speak louder than it was trained to, so that a row can die in it. */
#define LOUD 2
static void set_loud(float factor)
{
    lab.whole->layers[LOUD].down.scale *= factor;
    lab.single[LOUD]->layers[0].down.scale *= factor;
}

/* Puts a value into an f32 row. */
static void spoil(struct line *l, uint32_t row, float value)
{
    memcpy(l->step->payload + (size_t)row * l->step->row_bytes + 40, &value, sizeof value);
}

/* Slots 0 and 2 are good neighbours; slot 1, generation 2, is the bad one, with 3 rows behind its 30. */
static void set_up(struct line *l, bool with_bad)
{
    line_begin(l);
    for (uint32_t i = 0; i < 3; i++)
        line_op(l, TERN_OP_OPEN, i, 1, 0);
    line_op(l, TERN_OP_FREE, 1, 1, 0);
    line_op(l, TERN_OP_OPEN, 1, 2, 0);
    line_rows(l, 0, 1, 10, 0, 31, 1);
    if (with_bad)
        line_rows(l, 1, 2, 11, 0, 30, 1);
    line_rows(l, 2, 1, 12, 0, 5, 1);
    line_run(l);
    assert_int_equal(l->step->n_failed, 0);
}

/* Leaves one page free: the three sequences have one each, four others five each. */
static void take_pages(struct line *l)
{
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t slot = 4 + i / 2, pos = i % 2 * 100;

        line_begin(l);
        if (pos == 0)
            line_op(l, TERN_OP_OPEN, slot, 1, 0);
        line_rows(l, slot, 1, i, pos, pos ? CONTEXT - 100 : 100, 0);
        line_run(l);
        assert_int_equal(l->step->n_failed, 0);
    }
}

/* The bad run of a step that has only slot 0's run so far; returns what it must fail with. */
static struct tern_failed add_bad(struct line *l, enum bad kind)
{
    struct tern_failed f = { 1, 2, TERN_FAILED_POSITION, 0 };
    uint32_t row = l->step->n_rows;

    switch (kind) {
    case BAD_GENERATION:
        f.gen = 3;
        line_rows(l, 1, 3, 11, 30, 3, 1);
        break;
    case BAD_FORMER:
        f.gen = 1;
        line_rows(l, 1, 1, 11, 0, 3, 1);
        break;
    case BAD_POSITION: line_rows(l, 1, 2, 11, 31, 3, 1); break;
    case BAD_UNOPENED:
        f.slot = 3;
        line_rows(l, 3, 2, 11, 0, 3, 1);
        break;
    case BAD_CONTEXT:
        f.code = TERN_FAILED_PAGES;
        l->next--; /* the step begun becomes the first of these */
        for (uint32_t pos = 30; pos < CONTEXT - 2; pos += 64) {
            uint32_t n = CONTEXT - 2 - pos < 64 ? CONTEXT - 2 - pos : 64;

            line_begin(l);
            line_rows(l, 1, 2, 11, pos, n, 0);
            line_run(l);
            assert_int_equal(l->step->n_failed, 0);
        }
        line_begin(l);
        line_rows(l, 0, 1, 10, 31, 4, 4);
        line_rows(l, 1, 2, 11, CONTEXT - 2, 3, 1);
        break;
    case BAD_PAGES:
        f.code = TERN_FAILED_PAGES;
        line_rows(l, 1, 2, 11, 30, 60, 1);
        break;
    case BAD_NAN:
    case BAD_INF:
        f.code = TERN_FAILED_NUMERIC;
        line_rows(l, 1, 2, 11, 30, 3, 3);
        spoil(l, row + 1, kind == BAD_NAN ? NAN : -INFINITY);
        break;
    case BAD_HUGE: /* the largest f16 there is: what layer LOUD adds makes it infinite */
        f.code = TERN_FAILED_NUMERIC;
        f.where = LOUD;
        line_rows(l, 1, 2, 11, 30, 3, 3);
        for (uint32_t i = 0; i < lab.arch.n_embd; i++) {
            uint16_t v = i % 3 ? 0x7bff : 0xfbff;

            memcpy(l->step->payload + (size_t)(row + 1) * l->step->row_bytes + i * sizeof v, &v, sizeof v);
        }
        break;
    case BAD_UPSTREAM:
        f.code = TERN_FAILED_PAGES;
        f.where = 77;
        line_rows(l, 1, 2, 11, 30, 3, 3);
        tern_step_add_failed(l->step, 1, 2, TERN_FAILED_PAGES, 77);
        break;
    case BAD_N: break;
    }
    return f;
}

static void check_bad(enum bad kind, bool cut)
{
    enum tern_boundary format = kind == BAD_HUGE ? TERN_BOUNDARY_F16 : TERN_BOUNDARY_F32;
    struct line good, bad;
    struct tern_failed want;
    const struct tern_failed *f;
    size_t row;
    uint32_t n_bad;

    line_open(&good, format, false);
    line_open(&bad, format, cut);
    set_up(&good, false);
    set_up(&bad, true);
    row = good.step->row_bytes;
    if (kind == BAD_PAGES)
        take_pages(&bad);

    line_begin(&good);
    line_rows(&good, 0, 1, 10, 31, 4, 4);
    line_rows(&good, 2, 1, 12, 5, 6, 6);
    line_run(&good);

    line_begin(&bad);
    line_rows(&bad, 0, 1, 10, 31, 4, 4);
    want = add_bad(&bad, kind);
    n_bad = bad.step->runs[1].n_want;
    line_rows(&bad, 2, 1, 12, 5, 6, 6);
    line_run(&bad);

    assert_int_equal(bad.step->n_failed, 1);
    f = failure_of(bad.step, want.slot, want.gen);
    assert_non_null(f);
    assert_int_equal(f->code, want.code);
    assert_int_equal(f->where, want.where);
    assert_int_equal(bad.step->n_rows, 10 + n_bad);
    assert_same_rows(good.step->payload, bad.step->payload, 4 * row);
    assert_same_rows(good.step->payload + 4 * row, bad.step->payload + (4 + n_bad) * row, 6 * row);
    for (size_t i = 4 * row; i < (4 + n_bad) * row; i++)
        assert_int_equal(bad.step->payload[i], 0);

    /* It stays failed until it is freed; then the slot is as good as new. */
    line_begin(&bad);
    line_rows(&bad, want.slot, want.gen, 11, 30, 1, 1);
    line_rows(&bad, 2, 1, 12, 11, 1, 1);
    line_run(&bad);
    assert_non_null(failure_of(bad.step, want.slot, want.gen));
    assert_int_equal(bad.step->n_failed, 1);
    line_begin(&good);
    line_rows(&good, 2, 1, 12, 11, 1, 1);
    line_run(&good);
    assert_same_rows(good.step->payload, bad.step->payload + row, row);

    line_begin(&bad);
    if (kind != BAD_UNOPENED)
        line_op(&bad, TERN_OP_FREE, 1, 2, 0);
    line_op(&bad, TERN_OP_OPEN, want.slot, 8, 0);
    line_rows(&bad, want.slot, 8, 13, 0, 6, 6);
    line_run(&bad);
    assert_int_equal(bad.step->n_failed, 0);
    line_begin(&good);
    line_op(&good, TERN_OP_OPEN, 6, 1, 0);
    line_rows(&good, 6, 1, 13, 0, 6, 6);
    line_run(&good);
    assert_same_rows(good.step->payload, bad.step->payload, 6 * row);
    line_close(&good);
    line_close(&bad);
}

static void test_bad_sequences(void **state)
{
    (void)state;
    for (int kind = 0; kind < BAD_N; kind++) {
        print_message("  kind %d\n", kind);
        set_loud(kind == BAD_HUGE ? 1024.0f : 1.0f);
        check_bad((enum bad)kind, false);
        check_bad((enum bad)kind, true);
        set_loud(kind == BAD_HUGE ? 1 / 1024.0f : 1.0f);
    }
}

/* Bytes no encoder writes, in every format. */
static void test_bad_payloads(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FORMATS; f++) {
        struct line l;
        size_t row;
        uint8_t *want = rows_by_chunks(formats[f], false, 2, 3, 3);

        line_open(&l, formats[f], false);
        row = l.step->row_bytes;
        line_begin(&l);
        line_op(&l, TERN_OP_OPEN, 0, 1, 0);
        line_op(&l, TERN_OP_OPEN, 1, 1, 0);
        line_rows(&l, 0, 1, 1, 0, 3, 3);
        line_rows(&l, 1, 1, 2, 0, 3, 3);
        /* All ones are a NaN as f16, as f32, and as the scale in front of the codes. */
        memset(l.step->payload + row, 0xff, 4);
        line_run(&l);
        assert_int_equal(l.step->n_failed, 1);
        assert_non_null(failure_of(l.step, 0, 1));
        assert_int_equal(l.step->failed[0].code, TERN_FAILED_NUMERIC);
        assert_same_rows(want, l.step->payload + 3 * row, 3 * row);
        line_close(&l);
        free(want);
    }
}

/* -- what ends the epoch --------------------------------------------------------------------------------- */

static void refuse(struct line *l, enum tern_status want)
{
    struct tern_err err = { 0 };

    assert_int_equal(tern_stage_run(l->stages[0], l->step, &err), want);
    assert_true(err.text[0] != '\0');
}

static void test_lost_steps(void **state)
{
    struct line l;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    line_begin(&l);
    l.step->step = 2;
    refuse(&l, TERN_ERR_STATE);
    l.step->step = 0;
    refuse(&l, TERN_ERR_STATE);
    l.step->step = 1;
    line_run(&l);
    l.step->n_times = 0;
    refuse(&l, TERN_ERR_STATE); /* the same once more */
    l.step->step = 3;
    refuse(&l, TERN_ERR_STATE);
    assert_int_equal(tern_stage_steps(l.stages[0]), 1);
    line_close(&l);
}

static void test_contradictions(void **state)
{
    struct line l;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    line_begin(&l);
    line_op(&l, TERN_OP_OPEN, 0, 1, 0);
    line_rows(&l, 0, 1, 1, 0, 3, 1);
    l.step->n_rows = 4;
    refuse(&l, TERN_ERR_FORMAT);
    l.step->n_rows = 3;
    l.step->row_bytes++;
    refuse(&l, TERN_ERR_FORMAT);
    l.step->row_bytes--;
    l.step->failed[0] = (struct tern_failed){ 5, 1, TERN_FAILED_PAGES, 0 };
    l.step->n_failed = 1;
    refuse(&l, TERN_ERR_FORMAT); /* a sequence the step does not speak of */
    l.step->n_failed = 0;
    l.step->n_times = TERN_MAX_WORKERS;
    refuse(&l, TERN_ERR_LIMIT);
    l.step->n_times = 0;
    line_run(&l); /* nothing of all this has left a trace */
    assert_int_equal(l.step->n_failed, 0);
    line_close(&l);
}

static void test_options(void **state)
{
    const struct tern_stage_options good = { TERN_BOUNDARY_INT8, 4, 2, 64, 8, 0, true };
    struct tern_stage_options o;
    struct tern_stage *s = NULL;

    (void)state;
    o = good;
    o.boundary = (enum tern_boundary)99;
    assert_int_not_equal(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err), TERN_OK);
    o = good;
    o.n_slots = TERN_MAX_SLOTS + 1;
    assert_int_equal(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err), TERN_ERR_LIMIT);
    o = good;
    o.max_rows = TERN_MAX_STEP_ROWS + 1;
    assert_int_equal(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err), TERN_ERR_LIMIT);
    o = good;
    o.max_positions = 0;
    assert_int_equal(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err), TERN_ERR_LIMIT);
    o = good;
    o.n_pages = 0;
    assert_int_equal(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err), TERN_ERR_LIMIT);
    assert_null(s);
    assert_ok(tern_stage_new(lab.whole, lab.pool, &good, &s, &unit_err));
    assert_int_equal(tern_stage_kv_bytes(s), (size_t)4 * 2 * 2 * TERN_PAGE * lab.arch.n_layers *
                                                 lab.arch.n_kv_heads * lab.arch.head_dim);
    tern_stage_free(&s);
    assert_null(s);
}

/* -- the thread ------------------------------------------------------------------------------------------ */

static struct tern_step *thread_step(enum tern_boundary b, uint64_t number)
{
    struct tern_step *s;

    assert_ok(tern_step_new(8, (uint32_t)tern_boundary_row_bytes(b, lab.arch.n_embd), &s, &unit_err));
    s->step = number;
    s->user = s;
    return s;
}

static void test_thread(void **state)
{
    const struct tern_stage_options o = { TERN_BOUNDARY_INT8, 8, 2, 64, 8, 0, true };
    struct tern_step *steps[5];
    struct tern_stage *s;
    struct tern_err err;

    (void)state;
    assert_ok(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err));
    assert_ok(tern_stage_start(s, &unit_err));
    for (uint32_t i = 0; i < 5; i++) {
        /* 1, 2, then one that was not due, then ones that would have been. */
        steps[i] = thread_step(o.boundary, i < 2 ? i + 1 : i == 2 ? 9 : i);
        assert_true(tern_queue_push(tern_stage_in(s), steps[i]));
    }
    for (uint32_t i = 0; i < 5; i++) {
        assert_ptr_equal(tern_queue_pop(tern_stage_out(s), 10000), steps[i]);
        assert_int_equal(steps[i]->user != NULL, i < 2);
        assert_int_equal(steps[i]->n_times, i < 2);
    }
    assert_int_equal(tern_stage_steps(s), 2);
    assert_true(tern_stage_error(s, &err));
    assert_int_equal(err.status, TERN_ERR_STATE);
    assert_false(tern_stage_stopped(s));
    tern_stage_stop(s);
    assert_null(tern_queue_pop(tern_stage_out(s), 10000));
    assert_true(tern_stage_stopped(s));
    tern_stage_free(&s);
    for (uint32_t i = 0; i < 5; i++)
        tern_step_free(&steps[i]);
}

/* What is queued when a stage is told to stop comes out again, not run. */
static void test_stop(void **state)
{
    const struct tern_stage_options o = { TERN_BOUNDARY_INT8, 8, 2, 64, 8, 0, true };
    struct tern_step *steps[TERN_STAGE_STEPS];
    struct tern_stage *s;
    uint32_t n_run = 0;

    (void)state;
    assert_ok(tern_stage_new(lab.whole, lab.pool, &o, &s, &unit_err));
    for (uint32_t i = 0; i < TERN_STAGE_STEPS; i++) {
        steps[i] = thread_step(o.boundary, i + 1);
        assert_true(tern_queue_push(tern_stage_in(s), steps[i]));
    }
    assert_ok(tern_stage_start(s, &unit_err));
    tern_stage_stop(s);
    for (uint32_t i = 0; i < TERN_STAGE_STEPS; i++) {
        assert_ptr_equal(tern_queue_pop(tern_stage_out(s), 10000), steps[i]);
        n_run += steps[i]->user != NULL;
        assert_true(steps[i]->user == NULL || i + 1 == n_run);
    }
    assert_null(tern_queue_pop(tern_stage_out(s), 10000));
    assert_int_equal(tern_stage_steps(s), n_run);
    assert_false(tern_stage_error(s, NULL));
    tern_stage_free(&s);
    for (uint32_t i = 0; i < TERN_STAGE_STEPS; i++)
        tern_step_free(&steps[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_company),
        cmocka_unit_test(test_wanted_rows),
        cmocka_unit_test(test_fork_and_rewind),
        cmocka_unit_test(test_bad_operations),
        cmocka_unit_test(test_bad_sequences),
        cmocka_unit_test(test_bad_payloads),
        cmocka_unit_test(test_lost_steps),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_thread),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, load_models, free_models);
}
