/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of an assignment, with a compute thread that takes and sends by itself, over links that only
 * write down what leaves: order, announcements, and what the loop thread is left with.
 */
#include "lab/stage_line.h"

#include "worker/worker.h"
#include "worker/worker_run.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#define ROWS MAX_ROWS /* a step of these takes longer than what is not worth an announcement */

static struct {
    pthread_mutex_t lock;
    char left[64]; /* S a step, s an announcement: in order */
    size_t n_left;
    atomic_uint n_steps;
    uint32_t n_full; /* so many sends have no room */
} net = { .lock = PTHREAD_MUTEX_INITIALIZER };

static enum tern_status next_send(void *impl, const void *header, size_t len, const void *payload,
                                  size_t payload_len, struct tern_err *err)
{
    struct tern_arena arena;
    Tern__Header *h = NULL;
    bool is_step;

    (void)impl;
    assert_ok(tern_arena_init(&arena, TERN_WIRE_ARENA_BYTES, "a message", &unit_err));
    assert_ok(tern_wire_get(header, len, &arena, &h, &unit_err));
    is_step = h->body_case == TERN__HEADER__BODY_STEP;
    assert_true(is_step || h->body_case == TERN__HEADER__BODY_SOON);
    assert_int_equal(payload_len > 0 && payload, is_step);
    assert_true(h->epoch == 7 && h->layout == 2);
    if (is_step && net.n_full > 0) {
        net.n_full--;
        tern_arena_fini(&arena);
        return TERN_FAIL(err, TERN_AGAIN, "no room");
    }
    assert_true(net.n_left < sizeof net.left - 1);
    net.left[net.n_left++] = is_step ? 'S' : 's';
    if (is_step)
        assert_int_equal(h->step->step, atomic_fetch_add(&net.n_steps, 1) + 1);
    tern_arena_fini(&arena);
    return TERN_OK;
}

static bool nothing_to_take(void *impl)
{
    (void)impl;
    return false;
}

static void wait_a_moment(void *impl, struct tern_queue *in, bool more, uint64_t awake_ns)
{
    (void)impl;
    (void)in;
    (void)more;
    (void)awake_ns;
    pthread_mutex_unlock(&net.lock);
    poll(NULL, 0, 1);
    pthread_mutex_lock(&net.lock);
}

static const struct worker_net links = {
    .next_send = next_send, .lock = &net.lock, .take = nothing_to_take, .wait = wait_a_moment
};

static struct worker_run *run;
static struct worker_plan plan;

static void begin(void)
{
    const struct worker_way way = { .net = &links, .epoch = 7, .layout = 2 };

    plan = (struct worker_plan){ .last = lab.arch.n_layers,
                                 .boundary = TERN_BOUNDARY_INT8,
                                 .kv = TERN_KV_F16,
                                 .n_pages = N_PAGES,
                                 .n_slots = 2,
                                 .max_positions = CONTEXT,
                                 .max_rows = ROWS,
                                 .n_steps = 5 };
    plan.row_bytes = (uint32_t)tern_boundary_row_bytes(plan.boundary, lab.arch.n_embd);
    memset(net.left, 0, sizeof net.left);
    net.n_left = 0;
    atomic_store(&net.n_steps, 0);
    net.n_full = 0;
    assert_ok(worker_run_new(lab.whole, lab.pool, &plan, &way, &run, &unit_err));
}

static void end(void)
{
    pthread_mutex_lock(&net.lock);
    worker_run_shut(run);
    pthread_mutex_unlock(&net.lock);
    worker_run_free(&run);
}

/* With the lock: the step's message comes in. */
static void take(struct line *l, uint64_t step)
{
    uint8_t header[TERN_MAX_HEADER_BYTES];
    const uint8_t *payload;
    size_t len, payload_len;
    struct tern_arena arena;
    Tern__Header *h;

    line_begin(l);
    l->step->step = step;
    line_op(l, step == 1 ? TERN_OP_OPEN : TERN_OP_REWIND, 0, 1, 0);
    line_rows(l, 0, 1, 1, 0, ROWS, 0);
    assert_int_equal(tern_wire_step_parts(l->step), 1);
    assert_ok(tern_wire_put_step(l->step, false, 7, 2, 0, header, sizeof header, &len, &payload, &payload_len,
                                 &unit_err));
    assert_ok(tern_arena_init(&arena, TERN_WIRE_ARENA_BYTES, "a message", &unit_err));
    assert_ok(tern_wire_get(header, len, &arena, &h, &unit_err));
    assert_ok(worker_run_take(run, &plan,
                              &(struct worker_mail){ .header = header,
                                                     .header_len = len,
                                                     .payload = payload,
                                                     .payload_len = payload_len,
                                                     .has_payload = true },
                              h, &unit_err));
    tern_arena_fini(&arena);
}

/* Until so many steps have left.  Without the lock: nothing is announced while another thread has it. */
static void await_steps(uint32_t n)
{
    uint64_t late = tern_now_ms() + 60000;

    while (atomic_load(&net.n_steps) < n) {
        assert_true(tern_now_ms() < late);
        poll(NULL, 0, 1);
    }
}

static void test_announcements(void **state)
{
    struct line l;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    begin();
    for (uint64_t i = 1; i <= 3; i++) {
        pthread_mutex_lock(&net.lock);
        take(&l, i);
        pthread_mutex_unlock(&net.lock);
        await_steps((uint32_t)i);
    }
    /* How long the first one would take nobody knew. */
    assert_string_equal(net.left, "SsSsS");
    /* Two at once: with the second waiting the first is not announced. */
    pthread_mutex_lock(&net.lock);
    take(&l, 4);
    take(&l, 5);
    pthread_mutex_unlock(&net.lock);
    await_steps(5);
    assert_string_equal(net.left, "SsSsSSsS");
    end();
    line_close(&l);
}

/* Steps that found no room stay in order, and nothing is announced behind them. */
static void test_no_room(void **state)
{
    struct line l;
    uint64_t late = tern_now_ms() + 60000;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    begin();
    pthread_mutex_lock(&net.lock);
    net.n_full = UINT32_MAX;
    for (uint64_t i = 1; i <= 3; i++)
        take(&l, i);
    while (run->n_unsent < 3) {
        pthread_mutex_unlock(&net.lock);
        assert_true(tern_now_ms() < late);
        poll(NULL, 0, 1);
        pthread_mutex_lock(&net.lock);
    }
    assert_string_equal(net.left, "");
    net.n_full = 0;
    while (worker_run_send(run, &unit_err) == TERN_OK && atomic_load(&net.n_steps) < 3)
        assert_ok(worker_run_collect(run, &unit_err));
    assert_string_equal(net.left, "SSS");
    assert_int_equal(run->n_unsent, 0);
    assert_int_equal(run->n_free, run->n_steps);
    pthread_mutex_unlock(&net.lock);
    end();
    line_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_announcements),
        cmocka_unit_test(test_no_room),
    };

    return cmocka_run_group_tests(tests, stage_lab_load, stage_lab_free);
}
