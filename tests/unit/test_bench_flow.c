/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How steps flowed, from made-up traces: shares of a stretch and percentiles.
 */
#include "unit/unit.h"

#include "coordinator/bench_flow.h"

#include <stdlib.h>
#include <string.h>

/* A step through two stages: when it came in, waited and computed in each. */
static void step(struct bench_traces *t, uint32_t n_prompt, uint32_t n_decode, uint64_t sent,
                 const uint32_t times[2][3], uint64_t home, uint64_t done)
{
    struct tern_stage_time x[2];
    struct sched_trace s = { .sent_us = sent,
                             .home_us = home,
                             .done_us = done,
                             .n_prompt = n_prompt,
                             .n_decode = n_decode,
                             .n_times = 2,
                             .times = x };

    for (int i = 0; i < 2; i++)
        x[i] = (struct tern_stage_time){ .t_in_us = times[i][0],
                                         .queue_us = times[i][1],
                                         .compute_us = times[i][2] };
    bench_traces_add(t, &s);
}

static void assert_near(double got, double want)
{
    if (got < want - 1e-9 || got > want + 1e-9)
        fail_msg("%g where %g was due", got, want);
}

static void test_shares(void **state)
{
    /* Stage 0 computes 1000..1400 and 1400..1800 (the second step came in at 1100 and waited), then sits
     * until 2600; stage 1 1500..1700 and 1900..2100. */
    static const uint32_t a[2][3] = { { 1000, 0, 400 }, { 1450, 50, 200 } },
                          b[2][3] = { { 1100, 300, 400 }, { 1850, 50, 200 } },
                          c[2][3] = { { 2600, 0, 400 }, { 3100, 0, 400 } };
    struct bench_traces t;
    struct bench_flow f;

    (void)state;
    assert_ok(bench_traces_new(3, 2, &t, &unit_err));
    step(&t, 0, 4, 950, a, 1800, 1900);
    step(&t, 32, 2, 1050, b, 2200, 2400);
    step(&t, 0, 6, 2550, c, 3600, 3700);
    step(&t, 0, 1, 2560, c, 3600, 3700);
    assert_int_equal(t.n, 3);
    assert_int_equal(t.lost, 1);
    bench_flow_of(&t, 1000, 3000, &f);
    assert_near(f.seconds, 0.002);
    assert_int_equal(f.steps, 2); /* the first had left before */
    assert_int_equal(f.chunks, 1);
    assert_near(f.rows, 4); /* of 2 and 6 */
    assert_near(f.chunk_rows, 32);
    assert_near(f.in_flight, (900 + 1350 + 450) / 2000.0);
    assert_near(f.head, 300 / 2000.0);
    assert_near(f.head_ms, 0.15);
    assert_near(f.stages[0].idle, 1 - 1200 / 2000.0);
    assert_near(f.stages[0].empty, 1 - 1200 / 2000.0);
    assert_near(f.stages[1].idle, 1 - 400 / 2000.0);
    assert_near(f.stages[1].empty, 1 - 500 / 2000.0); /* 1450..1700 and 1850..2100 */
    assert_near(f.stages[0].step_ms, 0.4);
    assert_near(f.stages[1].chunk_ms, 0.2);
    assert_near(f.busy, (0.6 + 0.2) / 2);
    assert_int_equal(f.busiest, 0);
    bench_traces_free(&t);
}

/* Clocks of other machines are known within some microseconds: spans may seem to overlap. */
static void test_clocks(void **state)
{
    static const uint32_t a[2][3] = { { 1000, 0, 500 }, { 1500, 0, 500 } },
                          b[2][3] = { { 1400, 0, 600 }, { 0, 100, 500 } };
    struct bench_traces t;
    struct bench_flow f;

    (void)state;
    assert_ok(bench_traces_new(8, 2, &t, &unit_err));
    bench_flow_of(&t, 1000, 1000, &f);
    assert_int_equal(f.steps, 0);
    step(&t, 0, 1, 1000, a, 2000, 2000);
    step(&t, 0, 1, 1000, b, 2100, 2100);
    bench_flow_of(&t, 1000, 2000, &f);
    assert_near(f.head, 0);
    assert_near(f.stages[0].idle, 0);
    assert_near(f.stages[0].step_ms, 0.55);
    assert_near(f.stages[1].idle, -1); /* not known once is not known */
    assert_near(f.stages[1].empty, -1);
    assert_near(f.stages[1].step_ms, 0.5);
    assert_near(f.busy, -1);
    bench_traces_free(&t);
}

/* Steps that are home wait for the head. */
static void test_head(void **state)
{
    static const uint32_t any[2][3] = { { 1000, 0, 1 }, { 1001, 0, 1 } };
    struct bench_traces t;
    struct bench_flow f;

    (void)state;
    assert_ok(bench_traces_new(8, 2, &t, &unit_err));
    step(&t, 0, 1, 1000, any, 1100, 1300);
    step(&t, 0, 1, 1000, any, 1150, 1500);
    step(&t, 0, 1, 1000, any, 1160, 1600);
    bench_flow_of(&t, 1000, 2000, &f);
    assert_near(f.head, 0.5);
    assert_near(f.head_ms, 0.5 / 3);
    bench_traces_free(&t);
}

static void test_spread(void **state)
{
    double v[200];
    struct bench_spread s;

    (void)state;
    for (int i = 0; i < 200; i++)
        v[i] = (i * 77) % 200 + 1; /* 1..200 in disorder */
    bench_spread_of(v, 200, &s);
    assert_near(s.p50, 100);
    assert_near(s.p95, 190);
    assert_near(s.p99, 198);
    bench_spread_of(v, 1, &s);
    assert_near(s.p50, 1);
    assert_near(s.p99, 1);
    bench_spread_of(v, 0, &s);
    assert_true(s.n == 0 && s.p99 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_spread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
