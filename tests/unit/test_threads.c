/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool covers every range exactly once and sleeps when idle; the queue hands over in order; a thread gets
 * the slices that it asks for.
 */
#include "unit/unit.h"

#include "engine/base/log.h"
#include "engine/base/thread.h"
#include "engine/pool.h"
#include "engine/queue.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* struct sched_attr of the kernel, whose header and <sched.h> exclude each other. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

static struct attr attr_now(void)
{
    struct attr a = { 0 };

    assert_int_equal(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0), 0);
    return a;
}

static void *keep_attr(void *arg)
{
    *(struct attr *)arg = attr_now();
    return NULL;
}

static void test_brief_threads(void **state)
{
    const struct attr plain = attr_now();
    struct attr brief, child;
    pthread_t thread;

    (void)state;
    tern_thread_set_kind(TERN_THREAD_BRIEF);
    brief = attr_now();
    assert_int_equal(pthread_create(&thread, NULL, keep_attr, &child), 0);
    pthread_join(thread, NULL);
    tern_thread_set_kind(TERN_THREAD_PLAIN);
    assert_true(attr_now().runtime_ns == plain.runtime_ns);
    assert_int_equal(brief.policy, plain.policy);
    assert_int_equal(brief.nice, plain.nice);
    if (plain.runtime_ns == 0) {
        print_message("this kernel has no slices to ask for\n");
        skip();
    }
    assert_true(brief.runtime_ns < plain.runtime_ns);
    assert_true(child.runtime_ns == brief.runtime_ns);
}

struct cover {
    atomic_uint *hits;
    atomic_uint busy[8];
    atomic_uint clashes;
};

static void cover_fn(void *arg, size_t first, size_t last, unsigned thread)
{
    struct cover *c = arg;

    if (atomic_fetch_add(&c->busy[thread], 1) != 0)
        atomic_fetch_add(&c->clashes, 1);
    for (size_t i = first; i < last; i++)
        atomic_fetch_add(&c->hits[i], 1);
    atomic_fetch_sub(&c->busy[thread], 1);
}

static void test_pool_covers_once(void **state)
{
    static atomic_uint hits[1000];

    (void)state;
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct tern_pool *pool;
        struct cover c = { .hits = hits };

        assert_ok(tern_pool_new(threads, &pool, &unit_err));
        assert_int_equal(tern_pool_threads(pool), threads);
        for (unsigned turn = 0; turn < 300; turn++) {
            size_t n = turn % 2 ? turn % 7 : 1000 - turn;

            for (size_t i = 0; i < 1000; i++)
                atomic_store(&hits[i], 0);
            tern_pool_run(pool, cover_fn, &c, n, turn % 13);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(atomic_load(&hits[i]), i < n);
        }
        assert_int_equal(atomic_load(&c.clashes), 0);
        tern_pool_free(&pool);
        assert_null(pool);
    }
}

static void *run_many(void *arg)
{
    static atomic_uint hits[64];
    struct cover c = { .hits = hits };

    for (int i = 0; i < 200; i++)
        tern_pool_run(arg, cover_fn, &c, 64, 3);
    return NULL;
}

static void test_pool_serves_several_callers(void **state)
{
    struct tern_pool *pool;
    pthread_t t[3];

    (void)state;
    assert_ok(tern_pool_new(3, &pool, &unit_err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, run_many, pool), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    tern_pool_free(&pool);
}

/* Helpers may still be on their way to a job that is over when the pool is stopped. */
static void test_pool_stops_at_once(void **state)
{
    static atomic_uint hits[64];
    struct cover c = { .hits = hits };

    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        struct tern_pool *pool;

        assert_ok(tern_pool_new(2 + i % 3, &pool, &unit_err));
        if (i % 5 == 0)
            tern_pool_hold(pool);
        for (unsigned j = 0; j < i % 4; j++)
            tern_pool_run(pool, cover_fn, &c, 64, 3);
        tern_pool_free(&pool);
    }
}

static double cpu_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void test_pool_sleeps(void **state)
{
    struct tern_pool *pool;
    double before;

    (void)state;
    assert_ok(tern_pool_new(4, &pool, &unit_err));
    run_many(pool);
    usleep(20000);
    before = cpu_seconds();
    usleep(500000);
    assert_true(cpu_seconds() - before < 0.05); /* three spinning threads would take 1.5 s on enough cores */
    tern_pool_free(&pool);
}

/* A pool that is held while nothing is run must fall asleep all the same. */
static void test_held_pool_sleeps(void **state)
{
    struct tern_pool *pool;
    double before;

    (void)state;
    assert_ok(tern_pool_new(4, &pool, &unit_err));
    tern_pool_hold(pool);
    run_many(pool);
    tern_pool_hold(pool);
    tern_pool_release(pool);
    before = cpu_seconds();
    usleep(500000);
    assert_true(cpu_seconds() - before < 0.05);
    run_many(pool);
    tern_pool_release(pool);
    tern_pool_free(&pool);
}

static void *hold_and_run(void *arg)
{
    static atomic_uint hits[5000];
    struct cover c = { .hits = hits };

    for (int i = 0; i < 100; i++) {
        tern_pool_hold(arg);
        for (int j = 0; j < 5; j++)
            tern_pool_run(arg, cover_fn, &c, j % 2 ? 5000 : 17, 1 + (size_t)j);
        tern_pool_release(arg);
        if (i % 10 == 0)
            usleep(200);
    }
    return NULL;
}

static void test_pool_held_by_several(void **state)
{
    struct tern_pool *pool;
    pthread_t t[3];

    (void)state;
    assert_ok(tern_pool_new(3, &pool, &unit_err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hold_and_run, pool), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    tern_pool_free(&pool);
}

struct stuck {
    atomic_uint n_done;
};

/* Whoever gets piece 0 first works on it until all others are done: by somebody else, that is. */
static void stuck_fn(void *arg, size_t first, size_t last, unsigned thread)
{
    struct stuck *s = arg;

    (void)thread;
    if (first == 0)
        for (int i = 0; i < 20000 && atomic_load(&s->n_done) < 64 - last; i++)
            usleep(100);
    atomic_fetch_add(&s->n_done, (unsigned)(last - first));
}

static void test_pool_steals(void **state)
{
    struct tern_pool *pool;

    (void)state;
    assert_ok(tern_pool_new(2, &pool, &unit_err));
    for (int i = 0; i < 20; i++) {
        struct stuck s = { 0 };
        struct timespec a, b;

        clock_gettime(CLOCK_MONOTONIC, &a);
        tern_pool_run(pool, stuck_fn, &s, 64, 1);
        clock_gettime(CLOCK_MONOTONIC, &b);
        assert_int_equal(atomic_load(&s.n_done), 64);
        assert_true(b.tv_sec - a.tv_sec < 2); /* else the rest of the caller's share waited for it */
    }
    tern_pool_free(&pool);
}

static void test_pool_limits(void **state)
{
    struct tern_pool *pool = NULL;

    (void)state;
    assert_int_equal(tern_pool_new(0, &pool, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(tern_pool_new(257, &pool, &unit_err), TERN_ERR_USAGE);
    tern_pool_free(&pool);
}

static void test_queue_bounds(void **state)
{
    struct tern_queue *q;
    int a, b, c;
    struct pollfd p;

    (void)state;
    assert_ok(tern_queue_new(2, &q, &unit_err));
    p = (struct pollfd){ .fd = tern_queue_fd(q), .events = POLLIN };
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_false(tern_queue_ready(q));
    assert_null(tern_queue_pop(q, 0));
    assert_true(tern_queue_push(q, &a));
    assert_true(tern_queue_ready(q));
    assert_true(tern_queue_push(q, &b));
    assert_false(tern_queue_push(q, &c));
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_ptr_equal(tern_queue_pop(q, 0), &a);
    assert_ptr_equal(tern_queue_pop(q, -1), &b);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_null(tern_queue_pop(q, 30));
    assert_true(tern_queue_push(q, &c));
    tern_queue_close(q);
    assert_false(tern_queue_push(q, &a));
    assert_ptr_equal(tern_queue_pop(q, -1), &c);
    assert_true(tern_queue_ready(q));
    assert_null(tern_queue_pop(q, -1)); /* closed and empty: no wait */
    assert_int_equal(poll(&p, 1, 0), 1);
    tern_queue_free(&q);
}

struct feed {
    struct tern_queue *there, *back;
};

static void *echo(void *arg)
{
    struct feed *f = arg;
    void *item;

    while ((item = tern_queue_pop(f->there, -1)))
        while (!tern_queue_push(f->back, item))
            usleep(100);
    return NULL;
}

static void test_queue_keeps_order(void **state)
{
    struct feed f;
    pthread_t t;
    static char items[1000];
    size_t sent = 0, got = 0;

    (void)state;
    assert_ok(tern_queue_new(3, &f.there, &unit_err));
    assert_ok(tern_queue_new(3, &f.back, &unit_err));
    assert_int_equal(pthread_create(&t, NULL, echo, &f), 0);
    while (got < sizeof items) {
        void *p;

        while (sent < sizeof items && tern_queue_push(f.there, &items[sent]))
            sent++;
        p = tern_queue_pop(f.back, 30000);
        assert_ptr_equal(p, &items[got]);
        got++;
    }
    tern_queue_close(f.there);
    pthread_join(t, NULL);
    tern_queue_free(&f.there);
    tern_queue_free(&f.back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_pool_sleeps),
        cmocka_unit_test(test_pool_held_by_several),
        cmocka_unit_test(test_pool_steals),
        cmocka_unit_test(test_pool_covers_once),
        cmocka_unit_test(test_pool_serves_several_callers),
        cmocka_unit_test(test_pool_stops_at_once),
        cmocka_unit_test(test_pool_sleeps),
        cmocka_unit_test(test_pool_limits),
        cmocka_unit_test(test_brief_threads),
        cmocka_unit_test(test_queue_bounds),
        cmocka_unit_test(test_queue_keeps_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
