/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loading thread.  It sleeps on a queue of jobs and answers through another one.
 */
#include "worker/worker_load.h"

#include "engine/base/log.h"
#include "engine/identity.h"
#include "engine/queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct job {
    uint32_t first, last;
    struct worker_expect *expect; /* [file's tensors]; owned by the job */
    enum tern_status status;
    struct tern_err err;
};

struct worker_loader {
    struct worker_load_options o;
    struct tern_queue *jobs, *results;
    pthread_t thread;
    bool started;
    struct job job;           /* whoever got it from a queue last owns it */
    bool busy;                /* the loop's view */
    atomic_bool cancel, quit; /* quit: the program ends, so stop in the middle of it */
    atomic_uint_least64_t done, total;

    /* The loading thread's, or anyone's while not busy. */
    struct tern_identity *identity;
    struct tern_model *model;
    uint64_t n_loads;
};

static bool on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct worker_loader *l = arg;

    atomic_store_explicit(&l->done, done, memory_order_relaxed);
    atomic_store_explicit(&l->total, total, memory_order_relaxed);
    return !atomic_load(&l->quit);
}

static enum tern_status compare(const struct worker_loader *l, const struct job *j, struct tern_err *err)
{
    const struct tern_gguf *g = l->o.file->gguf;

    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_identity_entry *e;

        if (!j->expect[i].said)
            continue;
        e = tern_identity_find(l->identity, g->tensors[i].name);
        if (!e || memcmp(e->hash, j->expect[i].hash, TERN_HASH_BYTES) != 0)
            return TERN_FAIL(
                err, TERN_ERR_USAGE,
                "tensor '%.*s' of this worker's model file differs from the coordinator's; copy the "
                "coordinator's file to this worker",
                (int)g->tensors[i].name.len, g->tensors[i].name.ptr);
    }
    return TERN_OK;
}

static enum tern_status load(struct worker_loader *l, const struct job *j, struct tern_err *err)
{
    struct tern_model_options mo = {
        .first = j->first, .last = j->last, .layout = l->o.layout, .progress = on_progress, .progress_arg = l
    };
    const struct worker_file *f = l->o.file;
    enum tern_status st;

    if (l->model && l->model->first == j->first && l->model->last == j->last)
        return TERN_OK;
    /* First out, then in: the two slices may not fit together. */
    if (l->model)
        tern_model_free(&l->model);
    st = tern_model_load(f->gguf, &f->arch, l->o.kern, l->o.pool, &mo, &l->model, err);
    if (st)
        return st;
    l->n_loads++;
    /* Without this a file truncated meanwhile would have been read as zeros. */
    st = tern_gguf_check(f->gguf, err);
    if (st)
        tern_model_free(&l->model);
    return st;
}

static enum tern_status run_job(struct worker_loader *l, struct job *j, struct tern_err *err)
{
    const struct worker_file *f = l->o.file;
    enum tern_status st = TERN_OK;

    if (atomic_load(&l->cancel))
        return TERN_END;
    if (!l->identity)
        st = tern_identity_compute(f->gguf, &f->arch, TERN_IDENTITY_LAYERS, l->o.pool, on_progress, l,
                                   &l->identity, err);
    if (!st)
        st = compare(l, j, err);
    if (st)
        return st;
    if (atomic_load(&l->cancel))
        return TERN_END;
    return load(l, j, err);
}

static void *load_main(void *arg)
{
    struct worker_loader *l = arg;
    struct job *j;

    while ((j = tern_queue_pop(l->jobs, -1)) != NULL) {
        j->status = run_job(l, j, &j->err);
        free(j->expect);
        j->expect = NULL;
        TERN_BUG_IF(!tern_queue_push(l->results, j));
    }
    return NULL;
}

enum tern_status worker_loader_new(const struct worker_load_options *o, struct worker_loader **out,
                                   struct tern_err *err)
{
    struct worker_loader *l = calloc(1, sizeof *l);
    enum tern_status st;
    int rc;

    if (!l)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the loader");
    l->o = *o;
    st = tern_queue_new(1, &l->jobs, err);
    if (!st)
        st = tern_queue_new(1, &l->results, err);
    if (!st) {
        rc = pthread_create(&l->thread, NULL, load_main, l);
        l->started = rc == 0;
        if (rc)
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, rc, "cannot start the loading thread: %s", strerror(rc));
    }
    if (st) {
        worker_loader_free(&l);
        return st;
    }
    *out = l;
    return TERN_OK;
}

void worker_loader_free(struct worker_loader **lp)
{
    struct worker_loader *l = *lp;

    if (!l)
        return;
    if (l->started) {
        atomic_store(&l->cancel, true);
        atomic_store(&l->quit, true);
        tern_queue_close(l->jobs);
        pthread_join(l->thread, NULL);
    }
    tern_queue_free(&l->jobs);
    tern_queue_free(&l->results);
    tern_model_free(&l->model);
    tern_identity_free(&l->identity);
    free(l);
    *lp = NULL;
}

void worker_loader_start(struct worker_loader *l, struct worker_plan *p)
{
    TERN_BUG_IF(l->busy);
    l->job = (struct job){ .first = p->first, .last = p->last, .expect = p->expect };
    p->expect = NULL;
    l->busy = true;
    atomic_store(&l->cancel, false);
    (void)on_progress(l, 0, 0);
    TERN_BUG_IF(!tern_queue_push(l->jobs, &l->job));
}

bool worker_loader_busy(const struct worker_loader *l)
{
    return l->busy;
}

void worker_loader_cancel(struct worker_loader *l)
{
    atomic_store(&l->cancel, true);
}

int worker_loader_fd(const struct worker_loader *l)
{
    return tern_queue_fd(l->results);
}

enum tern_status worker_loader_result(struct worker_loader *l, struct tern_err *err)
{
    struct job *j = tern_queue_pop(l->results, 0);

    if (!j)
        return TERN_AGAIN;
    l->busy = false;
    if (j->status && err)
        *err = j->err;
    /* A job that was cancelled too late to stop has still ended as cancelled for whoever asked. */
    return atomic_load(&l->cancel) ? TERN_END : j->status;
}

void worker_loader_progress(const struct worker_loader *l, uint64_t *done, uint64_t *total)
{
    *done = atomic_load_explicit(&l->done, memory_order_relaxed);
    *total = atomic_load_explicit(&l->total, memory_order_relaxed);
}

const struct tern_model *worker_loader_model(const struct worker_loader *l)
{
    return l->busy ? NULL : l->model;
}

uint64_t worker_loader_n_loads(const struct worker_loader *l)
{
    return l->busy ? 0 : l->n_loads;
}
