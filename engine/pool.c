/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that each work off a range of their own from the front, and then steal from the back of others'.
 *
 * A job is open from the moment the caller has shared it out until the caller itself finds nothing left to
 * do.  Helpers join while it is open, and the caller waits only for those that joined: one that sleeps or
 * was put off its CPU costs what it could have done, never more.  Ranges of one's own keep the memory that a
 * thread reads in one piece, which is what hardware prefetching wants.
 *
 * Waiting is a spin only while a caller holds the pool, because more is to follow within microseconds, and
 * even then a short one: pools of several processes may share the CPUs.
 */
#include "engine/pool.h"

#include "engine/base/log.h"
#include "engine/base/thread.h"
#include "kernels/cpu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than what one thread does alone between two operators of a layer. */
#define SPIN_NS 50000

/* What is left of one thread's share: first << 32 | last. */
struct share {
    _Alignas(64) atomic_uint_least64_t left;
};

/* The gate of a job: its number << 32 | OPEN | helpers that have joined and not left. */
#define OPEN   0x80000000u
#define JOINED 0x7fffffffu

struct tern_pool {
    unsigned n_threads;
    pthread_t *threads;       /* [n_threads - 1] */
    struct share *shares;     /* [n_threads] */
    pthread_mutex_t run_lock; /* one caller at a time */

    /* The job, written by the caller before the gate opens. */
    tern_pool_fn *fn;
    void *arg;
    size_t grain;
    _Alignas(64) atomic_uint_least64_t gate;
    atomic_bool stop;
    atomic_uint held; /* callers that hold the pool */

    pthread_mutex_t sleep_lock;
    pthread_cond_t wake, done;
    unsigned n_calls; /* of sleepers, when somebody begins to hold */
    atomic_uint sleepers;
    atomic_bool caller_sleeps;
};

struct helper {
    struct tern_pool *pool;
    unsigned index;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* -- sharing out ----------------------------------------------------------------------------------------- */

/* A piece of a share, in whole grains: from the front an eighth of what is left (few calls, yet something to
 * steal), from the back one. */
static bool take(struct share *s, size_t grain, bool front, size_t *first, size_t *last)
{
    uint_least64_t old = atomic_load_explicit(&s->left, memory_order_relaxed), now;

    do {
        uint64_t a = old >> 32, b = old & UINT32_MAX, n = b - a;
        uint64_t piece = front && n / 8 > grain ? n / 8 / grain * grain : grain, tail = n % grain;

        if (a >= b)
            return false;
        if (!front && tail)
            piece = tail; /* only the last grain of the range is a short one */
        if (piece > n)
            piece = n;
        *first = front ? a : b - piece;
        *last = *first + piece;
        now = front ? (a + piece) << 32 | b : a << 32 | (b - piece);
    } while (!atomic_compare_exchange_weak_explicit(&s->left, &old, now, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void work(struct tern_pool *p, unsigned thread)
{
    size_t first, last;

    for (unsigned i = 0; i < p->n_threads; i++)
        while (take(&p->shares[(thread + i) % p->n_threads], p->grain, i == 0, &first, &last))
            p->fn(p->arg, first, last, thread);
}

/* Equal shares, cut at multiples of the grain. */
static void share_out(struct tern_pool *p, size_t n)
{
    size_t pieces = (n + p->grain - 1) / p->grain;

    for (unsigned i = 0; i < p->n_threads; i++) {
        uint64_t first = pieces * i / p->n_threads * p->grain,
                 last = pieces * (i + 1) / p->n_threads * p->grain;

        atomic_store_explicit(&p->shares[i].left, first << 32 | (last < n ? last : n), memory_order_relaxed);
    }
}

/* -- helpers --------------------------------------------------------------------------------------------- */

static uint32_t job_number(struct tern_pool *p)
{
    return (uint32_t)(atomic_load(&p->gate) >> 32);
}

/* Spins while the pool is held; true when there is a job after `seen`. */
static bool spin_for_job(struct tern_pool *p, uint32_t seen)
{
    uint64_t start = 0;

    while (job_number(p) == seen) {
        if (atomic_load_explicit(&p->held, memory_order_relaxed) == 0)
            return false;
        if (!start)
            start = tern_now_ns();
        else if (tern_now_ns() - start > SPIN_NS)
            return false;
        for (int i = 0; i < 8 && job_number(p) == seen; i++)
            relax();
    }
    return true;
}

static void sleep_for_job(struct tern_pool *p, uint32_t seen)
{
    unsigned calls;

    pthread_mutex_lock(&p->sleep_lock);
    calls = p->n_calls;
    atomic_fetch_add(&p->sleepers, 1);
    while (job_number(p) == seen && p->n_calls == calls)
        pthread_cond_wait(&p->wake, &p->sleep_lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->sleep_lock);
}

static bool join(struct tern_pool *p, uint_least64_t gate)
{
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&p->gate, &gate, gate + 1))
            return true;
    return false;
}

static void leave(struct tern_pool *p)
{
    uint_least64_t gate = atomic_fetch_sub(&p->gate, 1);

    if ((gate & (OPEN | JOINED)) == 1 && atomic_load(&p->caller_sleeps)) { /* closed, and the last */
        pthread_mutex_lock(&p->sleep_lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->sleep_lock);
    }
}

static void *helper_main(void *arg)
{
    struct helper h = *(struct helper *)arg;
    struct tern_pool *p = h.pool;
    uint_least64_t gate;
    uint32_t seen = 0;

    free(arg);
    tern_cpu_set_float_mode();
    for (;;) {
        while (!spin_for_job(p, seen))
            sleep_for_job(p, seen);
        gate = atomic_load(&p->gate);
        if (atomic_load(&p->stop)) /* asked after the gate: the job that stops is not taken for one seen */
            return NULL;
        if (join(p, gate)) {
            work(p, h.index);
            seen = job_number(p); /* which cannot move before we leave */
            leave(p);
        } else {
            seen = (uint32_t)(gate >> 32); /* not what the gate has become meanwhile */
        }
    }
}

/* -- callers --------------------------------------------------------------------------------------------- */

static void wake_sleepers(struct tern_pool *p)
{
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->sleep_lock);
    p->n_calls++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->sleep_lock);
}

void tern_pool_hold(struct tern_pool *p)
{
    if (p->n_threads == 1)
        return;
    atomic_fetch_add(&p->held, 1);
    wake_sleepers(p);
}

void tern_pool_release(struct tern_pool *p)
{
    if (p->n_threads > 1)
        atomic_fetch_sub(&p->held, 1);
}

/* Lets nobody else join, and waits for those that have. */
static void close_job(struct tern_pool *p)
{
    uint64_t start = 0;

    atomic_fetch_and(&p->gate, ~(uint_least64_t)OPEN);
    while (atomic_load(&p->gate) & JOINED) {
        if (!start)
            start = tern_now_ns();
        else if (tern_now_ns() - start > SPIN_NS)
            break;
        for (int i = 0; i < 8; i++)
            relax();
    }
    if (!(atomic_load(&p->gate) & JOINED))
        return;
    pthread_mutex_lock(&p->sleep_lock);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->gate) & JOINED)
        pthread_cond_wait(&p->done, &p->sleep_lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->sleep_lock);
}

void tern_pool_run(struct tern_pool *p, tern_pool_fn *fn, void *arg, size_t n, size_t grain)
{
    if (n == 0)
        return;
    TERN_BUG_IF(n > UINT32_MAX / 2);
    if (grain == 0)
        grain = 1;
    pthread_mutex_lock(&p->run_lock);
    if (p->n_threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
    } else {
        p->fn = fn;
        p->arg = arg;
        p->grain = grain;
        share_out(p, n);
        atomic_store(&p->gate, ((uint_least64_t)job_number(p) + 1) << 32 | OPEN);
        wake_sleepers(p);
        work(p, 0);
        close_job(p);
    }
    pthread_mutex_unlock(&p->run_lock);
}

static void stop_helpers(struct tern_pool *p, unsigned started)
{
    atomic_store(&p->stop, true);
    atomic_store(&p->gate, ((uint_least64_t)job_number(p) + 1) << 32);
    wake_sleepers(p);
    for (unsigned i = 0; i < started; i++)
        pthread_join(p->threads[i], NULL);
}

static int start_helper(struct tern_pool *p, unsigned index)
{
    struct helper *h = malloc(sizeof *h);
    char name[16];
    int rc;

    if (!h)
        return ENOMEM;
    h->pool = p;
    h->index = index;
    rc = tern_thread_start(&p->threads[index - 1], helper_main, h);
    if (rc) {
        free(h);
        return rc;
    }
    snprintf(name, sizeof name, "tern-pool-%u", index);
    (void)pthread_setname_np(p->threads[index - 1], name);
    return 0;
}

static void fini(struct tern_pool *p)
{
    pthread_mutex_destroy(&p->run_lock);
    pthread_mutex_destroy(&p->sleep_lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->shares);
    free(p->threads);
    free(p);
}

enum tern_status tern_pool_new(unsigned n_threads, struct tern_pool **out, struct tern_err *err)
{
    struct tern_pool *p;
    int rc = 0;
    unsigned started = 0;

    if (n_threads < 1 || n_threads > 256)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%u threads were asked for; use 1 to 256", n_threads);
    p = aligned_alloc(_Alignof(struct tern_pool), sizeof *p);
    if (p) {
        memset(p, 0, sizeof *p);
        p->threads = calloc(n_threads, sizeof *p->threads);
        p->shares = aligned_alloc(_Alignof(struct share), n_threads * sizeof *p->shares);
    }
    if (!p || !p->threads || !p->shares) {
        if (p) {
            free(p->threads);
            free(p->shares);
        }
        free(p);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u threads", n_threads);
    }
    p->n_threads = n_threads;
    pthread_mutex_init(&p->run_lock, NULL);
    pthread_mutex_init(&p->sleep_lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (unsigned i = 1; i < n_threads && rc == 0; i++) {
        rc = start_helper(p, i);
        started += rc == 0;
    }
    if (rc) {
        stop_helpers(p, started);
        fini(p);
        return TERN_FAIL_SYS(err, TERN_ERR_MEMORY, rc, "cannot start %u threads: %s", n_threads,
                             strerror(rc));
    }
    *out = p;
    return TERN_OK;
}

void tern_pool_free(struct tern_pool **pp)
{
    struct tern_pool *p = *pp;

    if (!p)
        return;
    stop_helpers(p, p->n_threads - 1);
    fini(p);
    *pp = NULL;
}

unsigned tern_pool_threads(const struct tern_pool *p)
{
    return p->n_threads;
}
