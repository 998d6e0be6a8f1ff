/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How layers are shared out by time: the best split, which steps count, and a whole measurement with workers.
 */
#include "unit/unit.h"

#include "unit/service_bed.h"

#include "coordinator/layer_split.h"

#include <math.h>
#include <stdlib.h>

/* The time of the slowest stage, of all splits. */
static double best(const double *ms, uint32_t n, uint32_t layers)
{
    double least = 1e300;

    if (n == 1)
        return layers * ms[0];
    for (uint32_t k = 1; k + n - 1 <= layers; k++) {
        double first = k * ms[0], rest = best(ms + 1, n - 1, layers - k),
               slowest = first > rest ? first : rest;

        least = slowest < least ? slowest : least;
    }
    return least;
}

static void test_split(void **state)
{
    static const double even[] = { 1, 1, 1, 1 }, half[] = { 2, 1 };
    uint32_t split[4];

    (void)state;
    layer_split_best(even, 4, 30, split);
    assert_true(split[0] + split[1] + split[2] + split[3] == 30 && split[0] <= 8 && split[3] >= 7);
    layer_split_best(half, 2, 30, split);
    assert_true(split[0] == 10 && split[1] == 20);
    layer_split_best(half, 2, 2, split);
    assert_true(split[0] == 1 && split[1] == 1);
    for (uint32_t round = 0; round < 200; round++) {
        double ms[4], slowest = 0;
        uint32_t n = 1 + round % 4, layers = n + round % 17, sum = 0;

        for (uint32_t i = 0; i < n; i++)
            ms[i] = 0.5 + (double)((round * 7919 + i * 104729) % 1000) / 500;
        layer_split_best(ms, n, layers, split);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(split[i] >= 1);
            sum += split[i];
            slowest = split[i] * ms[i] > slowest ? split[i] * ms[i] : slowest;
        }
        assert_int_equal(sum, layers);
        assert_true(fabs(slowest - best(ms, n, layers)) < 1e-9);
    }
}

/* Steps with rows of prompts say nothing of a layer's time, nor does what is seen too early. */
static void test_times(void **state)
{
    static const struct tern_stage_time both[] = { { .compute_us = 300 }, { .compute_us = 500 } };
    struct layer_times t = { .counting = false };
    struct sched_trace step = { .home_us = 100, .done_us = 140, .n_decode = 2, .n_times = 2, .times = both };

    (void)state;
    layer_times_add(&t, &step);
    t.counting = true;
    layer_times_add(&t, &step);
    layer_times_add(&t, &step);
    step.n_prompt = 1;
    layer_times_add(&t, &step);
    step.n_prompt = step.n_decode = 0;
    layer_times_add(&t, &step);
    assert_true(t.steps == 2 && t.stage_us[0] == 600 && t.stage_us[1] == 1000 && t.head_us == 80);
}

/* Measured once, whatever becomes of the pipeline; the same text as ever. */
static void test_service(void **state)
{
    struct answer alone = { 0 }, got = { 0 };
    const struct layer_split *split;
    uint32_t n_layers;

    (void)state;
    bed_open_service(2, 2);
    bed_ask_alone(3, &alone);
    service_close(&bed_service);
    bed_engine.local = 2;
    bed_engine.split_measured = true;
    bed_open_service(2, 2);
    n_layers = service_session(bed_service)->arch.n_layers;
    split = &service_session(bed_service)->split;
    assert_true(split->measured && split->n == 2 && split->layers[0] + split->layers[1] == n_layers);
    assert_true(split->layer_ms[0] > 0 && split->layer_ms[1] > 0 && split->head_ms > 0);
    bed_ask_alone(3, &got);
    assert_null(bed_difference(&alone, &got));
    service_close(&bed_service);
    bed_engine.local = 0;
    bed_engine.split_measured = false;
    bed_answer_free(&alone);
    bed_answer_free(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_split), cmocka_unit_test(test_times),
                                        cmocka_unit_test(test_service) };

    return cmocka_run_group_tests(tests, bed_set_up, NULL);
}
