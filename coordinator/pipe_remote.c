/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers on other machines (or in child processes), as the scheduler sees them: a queue to the link thread
 * and one back.
 *
 * Opening takes three trips to the link thread: all workers are ours; here is the identity of the model,
 * assign; all are ready.  The identity is computed between the first two, so that a worker that cannot be had
 * is named before a large file is read.
 */
#include "coordinator/cluster.h"
#include "coordinator/interrupt.h"
#include "coordinator/pipe.h"
#include "coordinator/pipe_steps.h"
#include "engine/base/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct remote {
    struct pipe pipe;
    struct pipe_steps steps;
    struct cluster *cluster;
    struct tern_identity *model;
    pthread_t thread;
    bool started, broken;
    uint64_t next_step;
};

static struct tern_step *remote_take(struct pipe *p)
{
    return pipe_steps_take(&((struct remote *)p->impl)->steps);
}

static void remote_give(struct pipe *p, struct tern_step *s)
{
    pipe_steps_give(&((struct remote *)p->impl)->steps, s);
}

static enum tern_status fail_broken(const struct remote *r, struct tern_err *err)
{
    if (err)
        *err = r->cluster->error;
    return r->cluster->error.status;
}

static enum tern_status remote_send(struct pipe *p, struct tern_step *s, struct tern_err *err)
{
    struct remote *r = p->impl;

    if (r->broken) {
        remote_give(p, s);
        return fail_broken(r, err);
    }
    s->step = r->next_step++;
    TERN_BUG_IF(!tern_queue_push(r->cluster->commands, s));
    return TERN_OK;
}

static enum tern_status remote_recv(struct pipe *p, int timeout_ms, struct tern_step **out,
                                    struct tern_err *err)
{
    struct remote *r = p->impl;
    void *item = r->broken ? &r->cluster->tag.broken : tern_queue_pop(r->cluster->events, timeout_ms);

    if (!item)
        return TERN_AGAIN;
    if (item == &r->cluster->tag.broken) {
        r->broken = true;
        return fail_broken(r, err);
    }
    *out = item;
    return TERN_OK;
}

static void remote_live(struct pipe *p, uint32_t i, struct pipe_stage_live *out)
{
    cluster_live(((struct remote *)p->impl)->cluster, i, out);
}

static void remote_close(struct pipe *p)
{
    struct remote *r = p->impl;

    if (r->started) {
        TERN_BUG_IF(!tern_queue_push(r->cluster->commands, &r->cluster->tag.stop));
        pthread_join(r->thread, NULL);
    }
    cluster_free(&r->cluster);
    tern_identity_free(&r->model);
    pipe_steps_fini(&r->steps);
    free(r);
}

static enum tern_status start(struct remote *r, struct tern_err *err)
{
    int rc = tern_thread_start(&r->thread, cluster_main, r->cluster);

    if (rc)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, rc, "cannot start the link thread: %s", strerror(rc));
    r->started = true;
    return TERN_OK;
}

static enum tern_status await(struct remote *r, const void *tag, struct tern_err *err)
{
    void *item;
    enum tern_status st;

    while ((item = tern_queue_pop(r->cluster->events, INTERRUPT_LOOK_MS)) == NULL)
        if ((st = interrupt_check(err)))
            return st;
    if (item == &r->cluster->tag.broken) {
        r->broken = true;
        return fail_broken(r, err);
    }
    TERN_BUG_IF(item != tag);
    return TERN_OK;
}

static enum tern_status identify(struct remote *r, const struct pipe_options *o, struct tern_err *err)
{
    struct progress bar;
    enum tern_status st;

    progress_begin(&bar, "hashing the model file", o->quiet);
    st = tern_identity_compute(o->gguf, o->arch, TERN_IDENTITY_LAYERS, o->pool, progress_update, &bar,
                               &r->model, err);
    progress_end(&bar);
    return st;
}

static enum tern_status join(struct remote *r, const struct pipe_options *o, struct tern_err *err)
{
    struct cluster *c = r->cluster;
    enum tern_status st = await(r, &c->tag.joined, err);

    if (st == TERN_OK)
        st = identify(r, o, err);
    if (st)
        return st;
    c->model = r->model;
    TERN_BUG_IF(!tern_queue_push(c->commands, &c->tag.assign));
    return await(r, &c->tag.ready, err);
}

/* Links without delay need a step computing in every stage, and one on its way out and one home. */
static uint32_t choose_in_flight(const struct pipe_options *o, uint32_t n_stages)
{
    const size_t buffer = (size_t)o->max_rows * tern_boundary_row_bytes(o->boundary, o->arch->n_embd);
    uint32_t n = 2 * n_stages + PIPE_ON_THE_WAY;

    if (o->max_in_flight)
        n = o->max_in_flight;
    else if (n > PIPE_STEPS_BYTES / buffer)
        n = (uint32_t)(PIPE_STEPS_BYTES / buffer);
    if (!o->max_in_flight && n < n_stages + 2)
        n = n_stages + 2;
    return n < TERN_MAX_STEPS_IN_FLIGHT ? n : TERN_MAX_STEPS_IN_FLIGHT;
}

static void fill_pipe(struct remote *r, const struct pipe_options *o)
{
    struct pipe *p = &r->pipe;

    p->n_stages = r->cluster->spec.n;
    p->max_rows = o->max_rows;
    p->remote = true;
    p->fd = tern_queue_fd(r->cluster->events);
    p->take = remote_take;
    p->give = remote_give;
    p->send = remote_send;
    p->recv = remote_recv;
    p->live = remote_live;
    p->close = remote_close;
    p->impl = r;
    p->row_bytes = (uint32_t)tern_boundary_row_bytes(o->boundary, o->arch->n_embd);
    p->max_in_flight = r->cluster->o.max_in_flight;
}

enum tern_status pipe_remote_open(const struct pipe_options *o, const struct cluster_spec *cluster,
                                  const struct tern_key *key, struct pipe **out, struct tern_err *err)
{
    struct remote *r = calloc(1, sizeof *r);
    struct cluster_spec *spec = malloc(sizeof *spec);
    struct pipe_options sized = *o;
    enum tern_status st = TERN_OK;

    if (!r || !spec)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a pipeline");
    if (st == TERN_OK) {
        *spec = *cluster;
        st = cluster_spec_plan(spec, o->arch->n_layers, err);
    }
    if (st == TERN_OK) {
        sized.max_in_flight = choose_in_flight(o, spec->n);
        st = cluster_new(&sized, spec, key, &r->cluster, err);
    }
    free(spec);
    if (st) {
        free(r);
        return st;
    }
    r->next_step = 1;
    fill_pipe(r, o);
    st = pipe_steps_init(&r->steps, r->pipe.max_in_flight, o->max_rows, r->pipe.row_bytes, err);
    if (st == TERN_OK)
        st = start(r, err);
    if (st == TERN_OK)
        st = join(r, o, err);
    if (st) {
        remote_close(&r->pipe);
        return st;
    }
    /* The tag `ready` has published them, and they do not change any more. */
    for (uint32_t i = 0; i < r->pipe.n_stages; i++)
        r->pipe.stages[i] = r->cluster->peers[i].info;
    *out = &r->pipe;
    return TERN_OK;
}
