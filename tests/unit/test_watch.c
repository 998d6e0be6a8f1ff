/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of a service, from steps made by hand: two stages, known times.
 */
#include "unit/unit.h"

#include "coordinator/serve/watch.h"
#include "engine/base/log.h"

#include <stdlib.h>
#include <string.h>

static struct watch w;
static struct pipe two = { .n_stages = 2, .max_in_flight = 4 };
static struct sched_stats stats;
static struct snapshot *snap;

static int set_up(void **state)
{
    (void)state;
    memset(&stats, 0, sizeof stats);
    snap = calloc(1, sizeof *snap);
    assert_ok(watch_init(&w, &unit_err));
    assert_ok(watch_open(&w, &two, &unit_err));
    return snap ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    watch_fini(&w);
    free(snap);
    return 0;
}

/* A step sent at t: 100 us to the first stage, 50 us there in the queue, 400 us of computing; 200 us to the
 * second one, 300 us of computing; 30 us home, 70 us for the head. */
static void add_step(uint64_t t, uint32_t n_prompt, uint32_t n_decode)
{
    const struct tern_stage_time times[2] = {
        { .compute_us = 400, .queue_us = 50, .bytes = 1000, .t_in_us = t + 100 },
        { .compute_us = 300, .queue_us = 0, .bytes = 900, .t_in_us = t + 750 },
    };
    const struct sched_trace trace = { .number = 1,
                                       .sent_us = t,
                                       .home_us = t + 1080,
                                       .taken_us = t + 1085,
                                       .done_us = t + 1150,
                                       .n_prompt = n_prompt,
                                       .n_decode = n_decode,
                                       .n_times = 2,
                                       .times = times };

    stats.steps++;
    stats.head_us += 60;
    stats.embed_us += 5;
    stats.bytes_home += 500;
    watch_step(&w, &trace, &stats);
}

static void check_near(double got, double want)
{
    if (got < want * 0.9 || got > want * 1.1)
        fail_msg("%g is not near %g", got, want);
}

/* 1000 steps, one every 2 ms, of which the last came home just now. */
static void test_rates(void **state)
{
    const uint64_t now = tern_now_ns() / 1000;

    (void)state;
    w.opened_us = now - 2000000;
    for (uint64_t i = 0; i < 1000; i++)
        add_step(w.opened_us + i * 2000, 3, 1);
    watch_snapshot(&w, snap);
    assert_int_equal(snap->steps, 1000);
    assert_int_equal(snap->n_stages, 2);
    check_near(snap->prompt_per_s, 1500);
    check_near(snap->answer_per_s, 500);
    check_near(snap->stages[0].ms_per_step, 0.4);
    check_near(snap->stages[0].idle_share, 1 - 0.2);
    check_near(snap->stages[1].idle_share, 1 - 0.15);
    check_near(snap->stages[1].tokens_per_s, 2000);
    check_near(snap->head_ms_per_step, 0.06);
    check_near(snap->coordinator_idle_share, 1 - 0.0325);
    check_near(snap->hops[0].bytes_per_s, 500000);
    check_near(snap->hops[2].bytes_per_s, 250000);
    assert_true(snap->hops[0].bytes == 1000000 && snap->hops[2].bytes == 500000);
}

static void test_hops(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20; i++)
        add_step(1000000 + i * 2000, 0, 1);
    watch_snapshot(&w, snap);
    assert_int_equal(snap->hops[0].p50_us, 100);
    assert_int_equal(snap->hops[1].p50_us, 200);
    assert_int_equal(snap->hops[2].p99_us, 30);
    assert_int_equal(snap->hops[1].n, 20);
}

static uint32_t within_us;

static void clocks_within(struct pipe *p, uint32_t i, struct pipe_stage_live *out)
{
    (void)p;
    *out = (struct pipe_stage_live){ .clock_within_us = i ? within_us + 10 : within_us };
}

/* The hops take 100, 200 and 30 us; the one in the middle is measured by both stages' clocks. */
static void test_hops_of_unsure_clocks(void **state)
{
    static const struct {
        uint32_t within_us;
        bool known[3];
    } cases[] = { { 19, { true, true, true } },
                  { 20, { true, true, false } },
                  { 95, { true, false, false } } };

    (void)state;
    two.live = clocks_within;
    add_step(1000000, 0, 1);
    for (uint32_t c = 0; c < 3; c++) {
        within_us = cases[c].within_us;
        watch_snapshot(&w, snap);
        assert_int_equal(snap->hops[0].within_us, within_us);
        assert_int_equal(snap->hops[1].within_us, 2 * within_us + 10);
        assert_int_equal(snap->hops[2].within_us, within_us + 10);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(snapshot_hop_knows(&snap->hops[i], snap->hops[i].p50_us), cases[c].known[i]);
    }
    watch_close(&w); /* they were measured by these, whatever becomes of the pipeline */
    watch_snapshot(&w, snap);
    assert_int_equal(snap->hops[1].within_us, 200);
    two.live = NULL;
}

/* Nobody knows when a step came in: no hop is told of, and its times are 0. */
static void test_unknown_clock(void **state)
{
    const struct tern_stage_time times[2] = { { .compute_us = 5 }, { .compute_us = 7 } };
    const struct sched_trace t = {
        .sent_us = 10, .home_us = 90, .done_us = 95, .n_times = 2, .times = times
    };
    struct snapshot_step step;

    (void)state;
    watch_step(&w, &t, &stats);
    watch_snapshot(&w, snap);
    for (uint32_t i = 0; i < 3; i++)
        assert_false(snapshot_hop_knows(&snap->hops[i], 100));
    assert_int_equal(watch_traces(&w, 0, &step, 1), 1);
    assert_true(step.stages[0].in_us == 0 && step.stages[0].start_us == 0 && step.stages[0].end_us == 0);
}

/* Numbers go on when the pipeline is opened again; what is too old is gone. */
static void test_traces(void **state)
{
    static struct snapshot_step steps[WATCH_STEPS + 10];

    (void)state;
    for (uint64_t i = 0; i < WATCH_STEPS + 100; i++)
        add_step(1000000 + i * 2000, 0, 1);
    assert_int_equal(watch_traces(&w, 0, steps, WATCH_STEPS + 10), WATCH_STEPS);
    assert_int_equal(steps[0].number, 101);
    assert_int_equal(steps[WATCH_STEPS - 1].number, WATCH_STEPS + 100);
    assert_int_equal(steps[0].stages[1].start_us, steps[0].sent_us + 750);
    assert_int_equal(steps[0].stages[1].end_us, steps[0].sent_us + 1050);
    assert_int_equal(steps[0].home_us, steps[0].sent_us + 1080);
    assert_int_equal(steps[0].taken_us, steps[0].sent_us + 1085);
    assert_int_equal(steps[0].done_us, steps[0].sent_us + 1150);
    assert_int_equal(watch_traces(&w, WATCH_STEPS + 97, steps, 2), 2);
    assert_int_equal(steps[0].number, WATCH_STEPS + 98);
    assert_int_equal(watch_traces(&w, WATCH_STEPS + 100, steps, 2), 0);
    assert_int_equal(watch_traces(&w, 1000000, steps, 2), 2); /* of another server: begin anew */
    watch_close(&w);
    assert_ok(watch_open(&w, &two, &unit_err));
    memset(&stats, 0, sizeof stats);
    assert_int_equal(watch_traces(&w, 0, steps, 2), 0);
    add_step(9000000, 0, 1);
    assert_int_equal(watch_traces(&w, WATCH_STEPS + 100, steps, 2), 1);
    assert_int_equal(steps[0].number, WATCH_STEPS + 101);
    watch_snapshot(&w, snap);
    assert_int_equal(snap->steps, WATCH_STEPS + 101);
}

/* A service at rest: idle, and its rates go to nothing. */
static void test_rest(void **state)
{
    (void)state;
    w.opened_us -= 20000000;
    add_step(tern_now_ns() / 1000 - 10000000, 8, 0);
    watch_snapshot(&w, snap);
    assert_true(snap->prompt_per_s == 0 && snap->stages[0].idle_share == 1 && snap->answer_per_s == 0);
    assert_true(snap->coordinator_idle_share == 1);
}

/* While a pipeline is opened again its stages keep their names, and nothing is claimed of their state. */
static void test_closed(void **state)
{
    (void)state;
    strcpy(two.stages[1].name, "second");
    two.stages[1].first = 3;
    two.stages[1].last = 6;
    watch_snapshot(&w, snap);
    assert_true(snap->stages[1].open);
    watch_close(&w);
    watch_close(&w);
    memset(&two.stages[1], 0, sizeof two.stages[1]); /* it is gone */
    watch_snapshot(&w, snap);
    assert_int_equal(snap->n_stages, 2);
    assert_false(snap->stages[1].open);
    assert_string_equal(snap->stages[1].info.name, "second");
    assert_int_equal(snap->stages[1].info.first, 3);
    assert_int_equal(snap->stages[1].info.last, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hops, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hops_of_unsure_clocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_clock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_traces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_closed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
