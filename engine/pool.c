/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that take pieces of a range from one atomic counter.
 *
 * Waiting is a short spin and then a sleep.  The spin bridges the gap between two operators of one layer (a
 * few microseconds); it is kept short because stages often share a machine with others that have work to
 * do.
 */
#include "engine/pool.h"

#include "kernels/cpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* About 10 microseconds on the machines at hand (PAUSE is 40 to 140 cycles). */
#define SPIN_TURNS 400

struct tern_pool {
    unsigned n_threads;
    pthread_t *threads;       /* [n_threads - 1] */
    pthread_mutex_t run_lock; /* one caller at a time */

    /* The job, written by the caller before `epoch` moves. */
    tern_pool_fn *fn;
    void *arg;
    size_t n, grain;
    atomic_size_t next;
    atomic_uint active; /* helpers that have not finished this job */
    atomic_uint epoch;  /* counts jobs */
    atomic_bool stop;

    pthread_mutex_t sleep_lock;
    pthread_cond_t wake, done;
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

static void work(struct tern_pool *p, unsigned thread)
{
    for (;;) {
        size_t first = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        size_t last;

        if (first >= p->n)
            return;
        last = p->grain < p->n - first ? first + p->grain : p->n;
        p->fn(p->arg, first, last, thread);
    }
}

/* Returns when the epoch is no longer `seen`. */
static void wait_for_job(struct tern_pool *p, unsigned seen)
{
    for (int i = 0; i < SPIN_TURNS; i++) {
        if (atomic_load(&p->epoch) != seen)
            return;
        relax();
    }
    pthread_mutex_lock(&p->sleep_lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->epoch) == seen)
        pthread_cond_wait(&p->wake, &p->sleep_lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->sleep_lock);
}

static void *helper_main(void *arg)
{
    struct helper h = *(struct helper *)arg;
    struct tern_pool *p = h.pool;
    unsigned seen = 0;

    free(arg);
    tern_cpu_set_float_mode();
    for (;;) {
        wait_for_job(p, seen);
        seen++;
        if (atomic_load(&p->stop))
            return NULL;
        work(p, h.index);
        if (atomic_fetch_sub(&p->active, 1) == 1 && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->sleep_lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->sleep_lock);
        }
    }
}

static void announce(struct tern_pool *p)
{
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->sleep_lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->sleep_lock);
    }
}

static void wait_until_done(struct tern_pool *p)
{
    for (int i = 0; i < SPIN_TURNS; i++) {
        if (atomic_load(&p->active) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&p->sleep_lock);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->active) != 0)
        pthread_cond_wait(&p->done, &p->sleep_lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->sleep_lock);
}

void tern_pool_run(struct tern_pool *p, tern_pool_fn *fn, void *arg, size_t n, size_t grain)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    pthread_mutex_lock(&p->run_lock);
    if (p->n_threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
    } else {
        p->fn = fn;
        p->arg = arg;
        p->n = n;
        p->grain = grain;
        atomic_store(&p->next, 0);
        atomic_store(&p->active, p->n_threads - 1);
        announce(p);
        work(p, 0);
        wait_until_done(p);
    }
    pthread_mutex_unlock(&p->run_lock);
}

static void stop_helpers(struct tern_pool *p, unsigned started)
{
    atomic_store(&p->stop, true);
    announce(p);
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
    rc = pthread_create(&p->threads[index - 1], NULL, helper_main, h);
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
    free(p->threads);
    free(p);
}

enum tern_status tern_pool_new(unsigned n_threads, struct tern_pool **out, struct tern_err *err)
{
    struct tern_pool *p;
    sigset_t all, old;
    int rc = 0;
    unsigned started = 0;

    if (n_threads < 1 || n_threads > 256)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%u threads were asked for; use 1 to 256", n_threads);
    p = calloc(1, sizeof *p);
    if (p)
        p->threads = calloc(n_threads, sizeof *p->threads);
    if (!p || !p->threads) {
        free(p);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u threads", n_threads);
    }
    p->n_threads = n_threads;
    pthread_mutex_init(&p->run_lock, NULL);
    pthread_mutex_init(&p->sleep_lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    /* Signals are for the main thread; SIGBUS stays, it is about the thread itself (engine/mapping.h). */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (unsigned i = 1; i < n_threads && rc == 0; i++) {
        rc = start_helper(p, i);
        started += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
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
