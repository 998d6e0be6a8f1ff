/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage: cuts, layouts of tiles, chunks and company change no bit, slots are shared and rewound, and the
 * compute thread keeps order.
 */
#include "lab/stage_line.h"

#include <stdlib.h>
#include <string.h>

#define PROMPT 100

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

/* -- the thread ------------------------------------------------------------------------------------------ */

static struct tern_step *thread_step(enum tern_boundary b, uint64_t number)
{
    struct tern_step *s;

    assert_ok(tern_step_new(8, (uint32_t)tern_boundary_row_bytes(b, lab.arch.n_embd), &s, &unit_err));
    s->step = number;
    s->user = s;
    return s;
}

/* The same with a cache of int8, whose bits are its own; a copied page takes its scales along. */
static void test_int8_cache(void **state)
{
    uint8_t *f16 = rows_by_chunks(TERN_BOUNDARY_INT8, false, 2, PROMPT, PROMPT), *whole, *cut;
    size_t n = PROMPT * tern_boundary_row_bytes(TERN_BOUNDARY_INT8, lab.arch.n_embd);

    line_kv = TERN_KV_INT8;
    whole = rows_by_chunks(TERN_BOUNDARY_INT8, false, 2, PROMPT, PROMPT);
    cut = rows_by_chunks(TERN_BOUNDARY_INT8, true, 2, PROMPT, 7);
    assert_same_rows(whole, cut, n);
    assert_true(memcmp(whole, f16, n) != 0);
    test_company(state);
    test_fork_and_rewind(state);
    line_kv = TERN_KV_DEFAULT;
    free(f16);
    free(whole);
    free(cut);
}

static void test_thread(void **state)
{
    const struct tern_stage_options o = { TERN_BOUNDARY_INT8, TERN_KV_F16, 8, 2, 64, 8, 0, true };
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
    const struct tern_stage_options o = { TERN_BOUNDARY_INT8, TERN_KV_F16, 8, 2, 64, 8, 0, true };
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

/* A compute thread that fetches its steps itself, and keeps what it has run, but for one. */
struct fetcher {
    struct tern_stage *stage;
    struct tern_step *steps[4], *kept[4];
    uint32_t n_fetched, n_kept;
};

static void fetch(void *arg)
{
    struct fetcher *f = arg;

    assert_false(tern_queue_ready(tern_stage_in(f->stage)));
    if (f->n_fetched < 4)
        assert_true(tern_queue_push(tern_stage_in(f->stage), f->steps[f->n_fetched++]));
}

static bool keep(void *arg, struct tern_step *step)
{
    struct fetcher *f = arg;

    if (step == f->steps[1])
        return false;
    f->kept[f->n_kept++] = step;
    return true;
}

static void test_fetch(void **state)
{
    struct fetcher f = { .n_fetched = 0 };
    const struct tern_stage_options o = { TERN_BOUNDARY_INT8, TERN_KV_F16,    8,        2, 64, 8, 0, true,
                                          .await = fetch,     .on_run = keep, .arg = &f };

    (void)state;
    /* The last one was not due: after it nothing is fetched. */
    for (uint32_t i = 0; i < 4; i++)
        f.steps[i] = thread_step(o.boundary, i < 3 ? i + 1 : 9);
    assert_ok(tern_stage_new(lab.whole, lab.pool, &o, &f.stage, &unit_err));
    assert_ok(tern_stage_start(f.stage, &unit_err));
    assert_ptr_equal(tern_queue_pop(tern_stage_out(f.stage), 10000), f.steps[1]);
    assert_ptr_equal(tern_queue_pop(tern_stage_out(f.stage), 10000), f.steps[3]);
    assert_true(tern_stage_error(f.stage, NULL));
    tern_stage_stop(f.stage);
    assert_null(tern_queue_pop(tern_stage_out(f.stage), 10000));
    assert_int_equal(f.n_kept, 2);
    assert_ptr_equal(f.kept[0], f.steps[0]);
    assert_ptr_equal(f.kept[1], f.steps[2]);
    assert_int_equal(tern_stage_steps(f.stage), 3);
    tern_stage_free(&f.stage);
    for (uint32_t i = 0; i < 4; i++)
        tern_step_free(&f.steps[i]);
}

static void count(void *arg)
{
    ++*(uint32_t *)arg;
}

/* Stages that say when a step is nearly done compute the same as one that does not. */
static void test_soon(void **state)
{
    uint32_t said = 0, never = 0;
    struct tern_stage *s[3];
    struct line l;
    uint8_t *want;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    want = malloc((size_t)MAX_ROWS * l.step->row_bytes);
    assert_non_null(want);
    for (uint32_t k = 0; k < 3; k++) {
        const struct tern_stage_options o = { TERN_BOUNDARY_INT8,
                                              TERN_KV_F16,
                                              8,
                                              2,
                                              64,
                                              8,
                                              0,
                                              false,
                                              .soon = k > 0 ? count : NULL,
                                              .soon_us = k == 2 ? UINT32_MAX : 0,
                                              .arg = k == 2 ? &never : &said };

        assert_ok(tern_stage_new(lab.whole, lab.pool, &o, &s[k], &unit_err));
    }
    /* Steps of 1, 2, 3 and of no rows. */
    for (uint32_t i = 1; i <= 4; i++) {
        for (uint32_t k = 0; k < 3; k++) {
            line_begin(&l);
            l.step->step = i;
            line_op(&l, i == 1 ? TERN_OP_OPEN : TERN_OP_REWIND, 0, 1, 0);
            if (i < 4)
                line_rows(&l, 0, 1, i, 0, i, 0);
            assert_ok(tern_stage_run(s[k], l.step, &unit_err));
            assert_int_equal(l.step->n_rows, i % 4);
            if (k == 0)
                memcpy(want, l.step->payload, (size_t)l.step->n_rows * l.step->row_bytes);
            else
                assert_same_rows(l.step->payload, want, (size_t)l.step->n_rows * l.step->row_bytes);
        }
        assert_int_equal(said, i < 4 ? i : 3);
    }
    assert_int_equal(never, 0);
    for (uint32_t k = 0; k < 3; k++)
        tern_stage_free(&s[k]);
    line_close(&l);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_company),
        cmocka_unit_test(test_wanted_rows),
        cmocka_unit_test(test_fork_and_rewind),
        cmocka_unit_test(test_int8_cache),
        cmocka_unit_test(test_thread),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_soon),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, stage_lab_load, stage_lab_free);
}
