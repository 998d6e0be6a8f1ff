/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How well the scheduler fills pipelines of known speed, on a clock that goes on only as stages compute and
 * links delay: groups of answers, chunks of prompts, and both at once.
 */
#include "unit/sched_bed.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN   4096
#define MAX_SEQS  144
#define MAX_STEPS TERN_MAX_STEPS_IN_FLIGHT

/* A pipeline of equal stages; times in microseconds. */
struct speed {
    uint32_t n_stages, step_us, row_us, delay_us, home_step_us, home_row_us;
    uint32_t doubles, uneven; /* as in struct fake_stage */
};

struct flow;

struct user {
    struct seq seq;
    struct flow *flow;
    uint32_t n_want, n_tokens;
    uint64_t first_us, last_us, longest_us; /* tokens, and the longest time between two of them */
};

struct flow {
    struct fake fake;
    struct speed speed;
    struct sched *sched;
    bool waits_elsewhere; /* turns do not wait: see turn() */
    struct user users[MAX_SEQS];
    uint32_t n_users;
    uint64_t n_tokens, n_steps;
    uint64_t longest_chunk_us; /* that one with rows of a prompt was computed, in all stages together */
    uint32_t decode[256];      /* rows of answers in the last steps that had any */
    uint32_t n_decode;
};

static void on_hidden(struct seq *q, uint32_t pos, const float *row)
{
    struct user *u = q->user;
    struct flow *f = u->flow;
    uint64_t between;

    (void)pos;
    (void)row;
    fake_clock_us += (f->fake.fresh ? f->speed.home_step_us : 0) + f->speed.home_row_us;
    f->fake.fresh = false;
    between = fake_clock_us - u->last_us;
    if (u->n_tokens && between > u->longest_us)
        u->longest_us = between;
    u->last_us = fake_clock_us;
    if (!u->n_tokens)
        u->first_us = fake_clock_us;
    f->n_tokens++;
    if (++u->n_tokens < u->n_want)
        seq_push(q, 1);
    else
        seq_finish(q);
}

static void on_step(void *user, const struct sched_trace *t)
{
    struct flow *f = user;
    uint64_t us = 0;

    assert_true(t->sent_us <= t->home_us && t->home_us <= t->taken_us && t->taken_us <= t->done_us);
    assert_true(t->n_times == f->speed.n_stages && t->number == ++f->n_steps);
    for (uint32_t i = 0; i < t->n_times; i++)
        us += t->times[i].compute_us;
    if (t->n_prompt && us > f->longest_chunk_us)
        f->longest_chunk_us = us;
    if (t->n_decode)
        f->decode[f->n_decode++ % 256] = t->n_decode;
}

static struct flow *flow_new(const struct speed *v, uint32_t chunk)
{
    struct flow *f = calloc(1, sizeof *f);
    const struct sched_options so = { .n_slots = MAX_SEQS,
                                      .n_pages = 40 * MAX_LEN / TERN_PAGE,
                                      .max_positions = MAX_LEN,
                                      .chunk = chunk,
                                      .on_step = on_step,
                                      .on_step_user = f };

    assert_non_null(f);
    f->speed = *v;
    f->fake.home_delay_us = v->delay_us;
    f->fake.times_out = true;
    fake_clock_us = 1000000;
    f->sched = open_sched(&f->fake, v->n_stages, v->n_stages > 1 ? MAX_STEPS : 2, 320,
                          (struct fake_stage){ .step_us = v->step_us,
                                               .row_us = v->row_us,
                                               .delay_us = v->delay_us,
                                               .doubles = v->doubles,
                                               .uneven = v->uneven },
                          so);
    return f;
}

static void flow_free(struct flow *f)
{
    close_sched(&f->fake, &f->sched);
    for (uint32_t i = 0; i < f->n_users; i++)
        seq_fini(&f->users[i].seq);
    free(f);
}

static struct user *join(struct flow *f, uint32_t n_prompt, uint32_t n_want)
{
    static int32_t ids[MAX_LEN]; /* zeros */
    struct user *u = &f->users[f->n_users++];

    assert_true(f->n_users <= MAX_SEQS);
    assert_ok(seq_init(&u->seq, ids, n_prompt, n_prompt + n_want, &unit_err));
    u->flow = f;
    u->n_want = n_want;
    u->seq.no_cache = true;
    u->seq.on_hidden = on_hidden;
    u->seq.user = u;
    assert_ok(sched_add(f->sched, &u->seq, &unit_err));
    return u;
}

/* A turn that waits, or one that does not and a wait for whatever comes first, as servers have it. */
static void turn(struct flow *f)
{
    enum tern_status st = sched_turn(f->sched, f->waits_elsewhere ? 0 : -1, &unit_err);
    uint64_t home_us, wake_us;

    if (!f->waits_elsewhere || st != TERN_AGAIN) {
        assert_ok(st);
        return;
    }
    home_us = f->fake.line[0]->t_in_ns / 1000;
    wake_us = fake_clock_us + (uint64_t)sched_wait_ms(f->sched, 1000) * 1000;
    fake_clock_us = home_us < wake_us ? home_us : wake_us;
}

static void turns_until(struct flow *f, uint64_t n_tokens)
{
    while (f->n_tokens < n_tokens)
        turn(f);
}

static void run(struct flow *f)
{
    enum tern_status st;

    while ((st = sched_turn(f->sched, -1, &unit_err)) == TERN_OK)
        ;
    assert_int_equal(st, TERN_END);
}

/* -- answers --------------------------------------------------------------------------------------------- */

static double way_of(const struct speed *v, double rows)
{
    return v->n_stages * (v->step_us + v->row_us * rows) + (v->n_stages + 1.0) * v->delay_us;
}

/* Tokens per second of n sequences with the best number of groups, known from the speeds. */
static double ideal(const struct speed *v, uint32_t n)
{
    double best = 0;

    for (uint32_t g = 1; g <= n && g <= MAX_STEPS; g++) {
        const double rows = (n + g - 1) / g, home = v->home_step_us + v->home_row_us * rows;
        const double stage = v->step_us + v->row_us * rows, slow = stage > home ? stage : home;
        const double alone = way_of(v, rows) + home, round = alone > g * slow ? alone : g * slow;

        best = n * 1e6 / round > best ? n * 1e6 / round : best;
    }
    return best;
}

static double measured(struct flow *f, uint32_t n, uint32_t skip, uint32_t count)
{
    uint64_t t0;

    turns_until(f, (uint64_t)n * skip);
    t0 = fake_clock_us;
    turns_until(f, (uint64_t)n * (skip + count));
    return (double)n * count * 1e6 / (double)(fake_clock_us - t0);
}

/* Whatever the delays of the links and the share that a row has of a step's time. */
static void test_groups_fill_the_pipeline(void **state)
{
    static const uint32_t delays[] = { 0, 1000, 5000, 20000, 50000 };
    static const uint32_t row_us[] = { 5, 60, 300 };
    static const uint32_t users[] = { 1, 2, 5, 16, 40 };

    (void)state;
    for (uint32_t n_stages = 2; n_stages <= 4; n_stages++)
        for (int d = 0; d < 5; d++)
            for (int r = 0; r < 3; r++)
                for (int k = 0; k < 5; k++) {
                    const struct speed v = { n_stages, 1000, row_us[r], delays[d], 200, 10 };
                    struct flow *f = flow_new(&v, 0);
                    double rate;

                    for (uint32_t i = 0; i < users[k]; i++)
                        (void)join(f, 1 + i % 3, 75);
                    rate = measured(f, users[k], 25, 40);
                    if (rate < 0.95 * ideal(&v, users[k]))
                        fail_msg("%u stages, delay %u us, %u us a row, %u users: %.1f of %.1f tokens/s, "
                                 "%u groups",
                                 n_stages, delays[d], row_us[r], users[k], rate, ideal(&v, users[k]),
                                 sched_stats(f->sched)->groups);
                    flow_free(f);
                }
}

/* As many groups as stages and head, and more where their times differ from step to step. */
static void test_one_more_group_where_times_are_uneven(void **state)
{
    for (uint32_t uneven = 0; uneven <= 30; uneven += 30) {
        const struct speed v = { 2, 500, 1000, 0, 500, 1000, 0, uneven };
        struct flow *f = flow_new(&v, 0);
        double rate;

        for (uint32_t i = 0; i < 6; i++)
            (void)join(f, 1, 60); /* to learn what few rows take */
        run(f);
        f->n_tokens = 0;
        for (uint32_t i = 0; i < 24; i++)
            (void)join(f, 1, 320);
        rate = measured(f, 24, 140, 150);
        assert_true(sched_stats(f->sched)->groups == (uneven ? 4 : 3));
        if (uneven && rate < 0.9 * ideal(&v, 24))
            fail_msg("%.1f of %.1f tokens/s", rate, ideal(&v, 24));
        flow_free(f);
    }
    (void)state;
}

/* Groups stay alike though their members come one by one. */
static void test_groups_do_not_fray(void **state)
{
    const struct speed v = { 3, 1000, 100, 0, 100, 10 };
    struct flow *f = flow_new(&v, 0);
    uint32_t least = UINT32_MAX, most = 0;

    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        (void)join(f, 1 + 7 * i, 200);
        for (uint32_t n = 0; n < i % 4; n++)
            assert_ok(sched_turn(f->sched, -1, &unit_err));
    }
    turns_until(f, 16 * 150);
    for (uint32_t i = f->n_decode - 40; i < f->n_decode; i++) {
        least = f->decode[i % 256] < least ? f->decode[i % 256] : least;
        most = f->decode[i % 256] > most ? f->decode[i % 256] : most;
    }
    if (most > least + 2)
        fail_msg("groups of %u to %u", least, most);
    flow_free(f);
}

/* One stage in this process shares its threads with the head: all answers in one step. */
static void test_one_group_in_process(void **state)
{
    const struct speed v = { 1, 1000, 100, 0, 100, 10 };
    struct flow *f = flow_new(&v, 0);

    (void)state;
    for (uint32_t i = 0; i < 9; i++)
        (void)join(f, 5, 60);
    turns_until(f, 9 * 40);
    assert_int_equal(sched_stats(f->sched)->groups, 1);
    assert_int_equal(f->decode[(f->n_decode - 1) % 256], 9);
    flow_free(f);
}

/* -- prompts --------------------------------------------------------------------------------------------- */

/* Microseconds of the second of two prompts, one after the other. */
static uint64_t prompt_us(const struct speed *v, uint32_t chunk, uint32_t n)
{
    struct flow *f = flow_new(v, chunk);
    uint64_t t0, us;
    struct user *u;

    (void)join(f, 300, 3);
    run(f);
    t0 = fake_clock_us;
    u = join(f, n, 1);
    run(f);
    us = u->first_us - t0;
    flow_free(f);
    return us;
}

static void test_chunks_are_as_good_as_any(void **state)
{
    static const uint32_t row_us[] = { 20, 100, 1000 }, lengths[] = { 100, 500, 2048 };
    static const uint32_t delays[] = { 0, 5000, 50000 };

    (void)state;
    for (uint32_t n_stages = 1; n_stages <= 4; n_stages++)
        for (int r = 0; r < 3; r++)
            for (int l = 0; l < 3; l++)
                for (int d = 0; d < 3; d++) {
                    const struct speed v = {
                        n_stages, 1000, row_us[r], n_stages > 1 ? delays[d] : 0, 200, 10
                    };
                    uint64_t best = UINT64_MAX, us = prompt_us(&v, 0, lengths[l]);

                    for (uint32_t c = 16; c <= 256; c *= 2) {
                        const uint64_t fixed = prompt_us(&v, c, lengths[l]);

                        best = fixed < best ? fixed : best;
                    }
                    if (us > best + best / 20)
                        fail_msg("%u stages, %u us a row, %u rows, delay %u: %llu us, the best is %llu",
                                 n_stages, row_us[r], lengths[l], v.delay_us, (unsigned long long)us,
                                 (unsigned long long)best);
                }
}

/* 2048 rows through n stages: at least 85 % of chunks / (chunks + n - 1) of n times one stage's speed. */
static void test_prompts_use_all_stages(void **state)
{
    (void)state;
    for (uint32_t n_stages = 2; n_stages <= 4; n_stages++) {
        const struct speed v = { n_stages, 1000 / n_stages, 1000 / n_stages, 50, 200, 10 };
        const double alone = 2048.0 * 1000, us = (double)prompt_us(&v, 0, 2048);

        assert_true(alone / n_stages / us > 0.85);
    }
}

/* -- both ------------------------------------------------------------------------------------------------ */

/* The longest time between two tokens of any of users [1, n], counted from now on anew. */
static uint64_t longest_us(struct flow *f, uint32_t n)
{
    uint64_t us = 0;

    for (uint32_t i = 1; i <= n; i++) {
        us = f->users[i].longest_us > us ? f->users[i].longest_us : us;
        f->users[i].longest_us = 0;
    }
    return us;
}

/* n answers are being made while a prompt of 2048 rows is computed. */
static void check_answers(const struct speed *v, uint32_t n, uint32_t fixed, bool waits_elsewhere)
{
    struct flow *f = flow_new(v, fixed);
    uint64_t before, during, chunk_us, t0;
    struct user *u;

    (void)join(f, 300, 2); /* to learn from */
    run(f);
    f->waits_elsewhere = waits_elsewhere;
    for (uint32_t i = 0; i < n; i++)
        (void)join(f, 3, 2000);
    turns_until(f, f->n_tokens + 20 * n);
    (void)longest_us(f, n);
    turns_until(f, f->n_tokens + 20 * n);
    before = longest_us(f, n);
    t0 = fake_clock_us;
    u = join(f, 2048, 1);
    f->longest_chunk_us = 0;
    while (!u->n_tokens)
        turn(f);
    during = longest_us(f, n);
    chunk_us = f->longest_chunk_us;
    if (during > before + chunk_us + chunk_us / 16)
        fail_msg(
            "%u stages, %u users, delay %u: %llu us between tokens, %llu before, a chunk's way takes %llu",
            v->n_stages, n, v->delay_us, (unsigned long long)during, (unsigned long long)before,
            (unsigned long long)chunk_us);
    /* And the prompt still gets most of the pipeline. */
    if (!fixed && v->delay_us <= 300 && (double)(u->first_us - t0) > 1.3 * (double)prompt_us(v, fixed, 2048))
        fail_msg("%u stages, %u users: a prompt took %llu us", v->n_stages, n,
                 (unsigned long long)(u->first_us - t0));
    flow_free(f);
}

/* While a long prompt is computed the time between two tokens grows by no more than a chunk's way. */
static void test_answers_wait_for_one_chunk(void **state)
{
    static const uint32_t users[] = { 1, 3, 16 }, delays[] = { 0, 300, 20000 };

    (void)state;
    for (uint32_t n_stages = 1; n_stages <= 4; n_stages++)
        for (int k = 0; k < 3; k++)
            for (int d = 0; d < 3; d++) {
                const struct speed v = { n_stages, 2000, 100, n_stages > 1 ? delays[d] : 0, 200, 10 };

                check_answers(&v, users[k], 0, false);
                check_answers(&v, users[k], 0, true);
                check_answers(&v, users[k], 64, false);
            }
}

/* Nor when rows take the longer the further down a prompt they are, to five times as long at its end: what
 * was measured of earlier chunks is too short for the next one. */
static void test_answers_wait_for_one_chunk_of_a_slowing_prompt(void **state)
{
    static const uint32_t users[] = { 1, 3, 16 };

    (void)state;
    for (uint32_t n_stages = 1; n_stages <= 4; n_stages++)
        for (int k = 0; k < 3; k++) {
            const struct speed v = { n_stages, 2000, 100, 0, 200, 10, 512, 0 };

            check_answers(&v, users[k], 0, false);
            check_answers(&v, users[k], 0, true);
        }
}

/* A prompt among answers that keep all stages busy, in times that differ from step to step: it gets through
 * in three times what it takes alone. */
static void test_prompts_among_uneven_answers(void **state)
{
    static const uint32_t users[] = { 4, 24, 48 };

    (void)state;
    for (uint32_t n_stages = 2; n_stages <= 8; n_stages *= 2)
        for (int k = 0; k < 3; k++) {
            const struct speed v = { n_stages, 4000, 500, 100, 2000, 300, 0, 20 };
            struct flow *f = flow_new(&v, 0);
            uint64_t t0, us, alone = prompt_us(&v, 0, 1024);
            struct user *u;

            (void)join(f, 300, 2);
            run(f);
            f->n_tokens = 0;
            for (uint32_t i = 0; i < users[k]; i++)
                (void)join(f, 3, 3000);
            turns_until(f, users[k] * 60);
            t0 = fake_clock_us;
            u = join(f, 1024, 1);
            while (!u->n_tokens && fake_clock_us - t0 < 4 * alone)
                turn(f);
            us = fake_clock_us - t0;
            if (us > 3 * alone)
                fail_msg("%u stages, %u users: a prompt took %llu us, alone %llu", n_stages, users[k],
                         (unsigned long long)us, (unsigned long long)alone);
            flow_free(f);
        }
}

/* With more answers than steps have runs, a prompt has its run all the same. */
static void test_prompts_among_very_many_answers(void **state)
{
    const struct speed v = { 1, 1000, 20, 0, 200, 10 };
    struct flow *f = flow_new(&v, 0);
    uint64_t n_tokens;
    struct user *u;

    (void)state;
    for (uint32_t i = 0; i < 2 * TERN_MAX_STEP_RUNS; i++)
        (void)join(f, 3, 60);
    turns_until(f, 2 * TERN_MAX_STEP_RUNS * 10);
    n_tokens = f->n_tokens;
    u = join(f, 20, 1);
    while (!u->n_tokens)
        turn(f);
    assert_true(f->n_tokens - n_tokens < 6 * TERN_MAX_STEP_RUNS);
    flow_free(f);
}

/* A short prompt does not wait behind a long one, nor does the long one starve. */
static void test_short_prompts_behind_long_ones(void **state)
{
    (void)state;
    for (uint32_t n_stages = 1; n_stages <= 3; n_stages++) {
        const struct speed v = { n_stages, 1000, 200, 0, 200, 10 };
        const uint64_t alone = prompt_us(&v, 0, 2048);
        struct flow *f = flow_new(&v, 0);
        uint64_t t0, longest = 0;
        struct user *slow;

        (void)join(f, 300, 3);
        run(f);
        t0 = fake_clock_us;
        slow = join(f, 2048, 1);
        for (uint32_t i = 0; i < 20 && !slow->n_tokens; i++) {
            const uint64_t t1 = fake_clock_us;
            struct user *quick = join(f, 60, 1);

            while (!quick->n_tokens)
                assert_ok(sched_turn(f->sched, -1, &unit_err));
            longest = quick->first_us - t1 > longest ? quick->first_us - t1 : longest;
        }
        run(f);
        assert_true(longest < alone / 3);
        assert_true(slow->first_us - t0 < 2 * alone);
        flow_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_fill_the_pipeline),
        cmocka_unit_test(test_one_more_group_where_times_are_uneven),
        cmocka_unit_test(test_groups_do_not_fray),
        cmocka_unit_test(test_one_group_in_process),
        cmocka_unit_test(test_chunks_are_as_good_as_any),
        cmocka_unit_test(test_prompts_use_all_stages),
        cmocka_unit_test(test_answers_wait_for_one_chunk),
        cmocka_unit_test(test_answers_wait_for_one_chunk_of_a_slowing_prompt),
        cmocka_unit_test(test_prompts_among_uneven_answers),
        cmocka_unit_test(test_prompts_among_very_many_answers),
        cmocka_unit_test(test_short_prompts_behind_long_ones),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
