/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage: whatever is wrong with one sequence stays with it, and what is wrong with a step as a whole
 * ends the epoch.
 */
#include "lab/stage_line.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    const struct tern_stage_options good = { TERN_BOUNDARY_INT8, TERN_KV_F16, 4, 2, 64, 8, 0, true };
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_operations), cmocka_unit_test(test_bad_sequences),
        cmocka_unit_test(test_bad_payloads),   cmocka_unit_test(test_lost_steps),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, stage_lab_load, stage_lab_free);
}
