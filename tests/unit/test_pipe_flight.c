/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many steps in flight over slow links: two real workers behind a relay that takes 50 ms each way.  64 small
 * steps at a time must not wait for each other, the rows must be those of one process, and the clocks and
 * times told must be true, which here can be known.
 */
#include "coordinator/local_workers.h"
#include "lab/delay_relay.h"
#include "unit/pipe_world.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT TERN_MAX_STEPS_IN_FLIGHT
#define ROUNDS    10u
#define N_STEPS   (IN_FLIGHT * ROUNDS)
#define DELAY_US  50000u
#define N_WORKERS 2u

static struct {
    struct delay_relay relay;
    pthread_t thread;
} lab;

static int set_up(void **state)
{
    (void)state;
    world_begin(TERN_LOG_WARN, tern_cpu_detect(), 1);
    return 0;
}

static struct pipe_options options(void)
{
    return (struct pipe_options){
        .gguf = world.gguf,
        .arch = &world.arch,
        .kern = &world.kern,
        .pool = world.pool,
        .boundary = TERN_BOUNDARY_INT8,
        .n_pages = IN_FLIGHT,
        .n_slots = IN_FLIGHT,
        .max_positions = 32,
        .max_rows = 8,
        .max_in_flight = IN_FLIGHT,
        .dead_after_ms = 5000,
        .step_timeout_ms = 60000,
        .join_timeout_ms = 15000,
        .quiet = true,
    };
}

/* -- the relay ------------------------------------------------------------------------------------------- */

static void *relay_main(void *arg)
{
    (void)arg;
    delay_relay_run(&lab.relay);
    return NULL;
}

/* Puts the relay in front of every worker: the coordinator's links and the workers' own go through it. */
static void slow_down(struct cluster_spec *spec)
{
    memset(&lab.relay, 0, sizeof lab.relay);
    lab.relay.n_links = spec->n;
    lab.relay.buffer_bytes = 1u << 20;
    for (uint32_t i = 0; i < spec->n; i++) {
        struct delay_link *l = &lab.relay.links[i];
        unsigned port = 0;

        assert_int_equal(sscanf(spec->members[i].endpoint, "tcp://127.0.0.1:%u", &port), 1);
        l->listen.sin_family = l->to.sin_family = AF_INET;
        l->listen.sin_addr.s_addr = l->to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        l->to.sin_port = htons((uint16_t)port);
        l->spec[0].delay_ns = l->spec[1].delay_ns = DELAY_US * UINT64_C(1000);
        l->seed = i + 1;
    }
    assert_true(delay_relay_open(&lab.relay));
    for (uint32_t i = 0; i < spec->n; i++)
        snprintf(spec->members[i].endpoint, sizeof spec->members[i].endpoint, "tcp://127.0.0.1:%u",
                 lab.relay.links[i].port);
    assert_int_equal(pthread_create(&lab.thread, NULL, relay_main, NULL), 0);
}

static void stop_relay(void)
{
    delay_relay_stop(&lab.relay);
    pthread_join(lab.thread, NULL);
    delay_relay_close(&lab.relay);
}

/* -- the work -------------------------------------------------------------------------------------------- */

/* Step i is one row of sequence i % IN_FLIGHT. */
static void send_step(struct pipe *p, uint32_t i)
{
    struct tern_step *s = p->take(p);
    uint32_t slot = i % IN_FLIGHT, pos = i / IN_FLIGHT, n = world.arch.n_embd;
    float *x = malloc(n * sizeof *x);
    uint64_t rng = i + 1;

    assert_non_null(s);
    assert_non_null(x);
    for (uint32_t k = 0; k < n; k++)
        x[k] = (float)(int)(unit_random(&rng) % 2001) / 1000.0f - 1.0f;
    if (pos == 0)
        s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .slot = slot, .gen = 1 };
    s->runs[s->n_runs++] = (struct tern_run){ slot, 1, pos, 1, 1 };
    s->n_rows = 1;
    tern_boundary_encode(TERN_BOUNDARY_INT8, &world.kern, x, n, s->payload);
    free(x);
    assert_ok(p->send(p, s, &unit_err));
}

/* All steps, as many at a time as may be; what came back goes to rows, the time from w1's end to w2's having
 * the row to hops unless NULL.  Milliseconds. */
static uint64_t run_steps(struct pipe *p, uint8_t *rows, double *hops)
{
    uint64_t start = tern_now_ms(), sent_us[N_STEPS];
    uint32_t sent = 0, got = 0;

    while (got < N_STEPS) {
        struct tern_step *s = NULL;

        for (; sent < N_STEPS && sent - got < p->max_in_flight; sent++) {
            sent_us[sent] = tern_now_ns() / 1000;
            send_step(p, sent);
        }
        assert_ok(p->recv(p, 20000, &s, &unit_err));
        assert_int_equal(s->step, got + 1);
        assert_int_equal(s->n_failed, 0);
        assert_int_equal(s->n_rows, 1);
        memcpy(rows + (size_t)got * p->row_bytes, s->payload, p->row_bytes);
        for (uint32_t k = 0; k < s->n_times; k++)
            assert_true(s->times[k].t_in_us >= sent_us[got] && s->times[k].t_in_us <= tern_now_ns() / 1000);
        if (hops)
            hops[got] = (double)s->times[1].t_in_us -
                        (double)(s->times[0].t_in_us + s->times[0].queue_us + s->times[0].compute_us);
        got++;
        p->give(p, s);
    }
    return tern_now_ms() - start;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void check_live(struct pipe *p)
{
    for (uint32_t i = 0; i < p->n_stages; i++) {
        struct pipe_stage_live live;
        bool told = false;

        for (int k = 0; k < 600 && !told; k++) {
            p->live(p, i, &live);
            told = live.steps == N_STEPS;
            if (!told)
                poll(NULL, 0, 50);
        }
        assert_true(told);
        assert_true(live.busy_us > 0 && live.memory_bytes > 1u << 20);
        assert_false(live.suspect);
        assert_true(live.round_trip_us >= 2 * DELAY_US);
        assert_true(live.clock_within_us >= DELAY_US && live.clock_within_us < 10 * DELAY_US);
        /* It is one machine: both clocks are the same. */
        assert_true(llabs(live.clock_ahead_us) <= live.clock_within_us);
        assert_true(strncmp(live.endpoint, "tcp://127.0.0.1:", 16) == 0);
    }
}

static void test_slow_links(void **state)
{
    struct local_workers_options lo = { .n = N_WORKERS, .model_path = MODEL, .threads = 1, .layout = "2bit" };
    struct pipe_options o = options();
    struct local_workers *workers = NULL;
    struct cluster_spec spec;
    struct tern_key key;
    struct pipe *near = NULL, *far = NULL;
    uint8_t *want, *got;
    static double hops[N_STEPS];
    uint64_t ms;

    (void)state;
    assert_ok(pipe_local_open(&o, &near, &unit_err));
    assert_int_equal(near->max_in_flight, IN_FLIGHT);
    want = calloc(N_STEPS, near->row_bytes);
    got = calloc(N_STEPS, near->row_bytes);
    assert_true(want && got);
    (void)run_steps(near, want, NULL);
    near->close(near);

    assert_ok(local_workers_start(&lo, &workers, &spec, &key, &unit_err));
    slow_down(&spec);
    assert_ok(pipe_remote_open(&o, &spec, &key, &far, &unit_err));
    assert_int_equal(far->max_in_flight, IN_FLIGHT);
    ms = run_steps(far, got, hops);
    assert_memory_equal(got, want, (size_t)N_STEPS * far->row_bytes);
    /* Ten trips of three links of 50 ms are 1.5 s; by eights they would be 12. */
    if (ms > 10000)
        fail_msg("%u steps took %llu ms", N_STEPS, (unsigned long long)ms);
    qsort(hops, N_STEPS, sizeof *hops, by_size);
    if (hops[N_STEPS / 2] < DELAY_US * 0.8 || hops[N_STEPS / 2] > DELAY_US * 3.0)
        fail_msg("the median of a hop is told as %.0f us", hops[N_STEPS / 2]);
    check_live(far);
    far->close(far);
    local_workers_stop(&workers);
    stop_relay();
    tern_key_wipe(&key);
    free(want);
    free(got);
}

/* What is chosen when nobody says, and that no more can be taken. */
static void test_default(void **state)
{
    struct local_workers_options lo = { .n = N_WORKERS, .model_path = MODEL, .threads = 1, .layout = "2bit" };
    struct pipe_options o = options();
    struct local_workers *workers = NULL;
    struct pipe_stage_live live;
    struct cluster_spec spec;
    struct tern_key key;
    struct pipe *p = NULL;

    (void)state;
    o.max_in_flight = 0;
    assert_ok(pipe_local_open(&o, &p, &unit_err));
    assert_int_equal(p->max_in_flight, 2);
    p->live(p, 0, &live);
    assert_true(live.memory_bytes > 1u << 20);
    assert_int_equal(live.round_trip_us, 0);
    p->close(p);
    assert_ok(local_workers_start(&lo, &workers, &spec, &key, &unit_err));
    assert_ok(pipe_remote_open(&o, &spec, &key, &p, &unit_err));
    assert_int_equal(p->max_in_flight, 2 * N_WORKERS + PIPE_ON_THE_WAY);
    for (uint32_t i = 0; i < p->max_in_flight; i++)
        assert_non_null(p->take(p));
    assert_null(p->take(p));
    p->close(p);
    local_workers_stop(&workers);
    tern_key_wipe(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_links),
        cmocka_unit_test(test_default),
    };

    return cmocka_run_group_tests_name("pipe_flight", tests, set_up, close_world);
}
