/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed set of step buffers that go round: free, filling, computing, going out.
 */
#include "worker/worker_run.h"

#include "engine/base/mem.h"

#include <stdlib.h>

/* Steps of less are done before an announcement is there. */
#define SOON_US 1000
/* An announced step is seldom later; and a peer that only announces must not keep us busy for long. */
#define AWAKE_NS 1000000

/* -- out ------------------------------------------------------------------------------------------------- */

/* The parts of a step that have not been sent. */
static enum tern_status send_parts(struct worker_run *r, struct tern_step *s, struct tern_err *err)
{
    const struct worker_way *way = &r->way;
    const struct worker_net *net = way->net;
    uint32_t n_parts = tern_wire_step_parts(s);

    for (; s->parts_out < n_parts; s->parts_out++) {
        const uint8_t *payload = NULL;
        size_t len = 0, payload_len = 0;
        enum tern_status st =
            tern_wire_put_step(s, way->home, way->epoch, way->layout, s->parts_out, r->header,
                               sizeof r->header, &len, &payload, &payload_len, err);

        if (!st && way->home)
            st = net->reply(net->impl, way->route, way->route_len, r->header, len,
                            payload_len ? payload : NULL, payload_len, err);
        else if (!st)
            st = net->next_send(net->impl, r->header, len, payload_len ? payload : NULL, payload_len, err);
        if (st)
            return st;
    }
    return TERN_OK;
}

static bool is_sent(const struct tern_step *s)
{
    return s->parts_out == tern_wire_step_parts(s);
}

/* A computed step of which nothing is left to be sent. */
static void put_free(struct worker_run *r, struct tern_step *s)
{
    if (s->n_failed > s->n_failed_in) {
        r->n_refused += s->n_failed - s->n_failed_in;
        r->refused = s->failed[s->n_failed - 1];
    }
    r->free[r->n_free++] = s;
}

/* On the compute thread.  Why a step could not be sent shows again when the loop thread tries. */
static bool on_run(void *arg, struct tern_step *s)
{
    struct worker_run *r = arg;
    bool sent;

    pthread_mutex_lock(r->way.net->lock);
    tern_alloc_guard_begin("worker step");
    if (!r->shut && r->n_unsent == 0)
        (void)send_parts(r, s, NULL);
    tern_alloc_guard_end();
    sent = is_sent(s);
    if (sent)
        put_free(r, s);
    else
        r->n_unsent++;
    pthread_mutex_unlock(r->way.net->lock);
    return sent;
}

/* On the compute thread, with the step all but done.  Where steps queue up before us the next worker has
 * something to do as well, and would only be disturbed. */
static void announce(void *arg)
{
    struct worker_run *r = arg;
    const struct worker_way *way = &r->way;
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Soon b = TERN__SOON__INIT;
    size_t len;

    h.version = TERN_WIRE_VERSION;
    h.epoch = way->epoch;
    h.layout = way->layout;
    h.body_case = TERN__HEADER__BODY_SOON;
    h.soon = &b;
    if (pthread_mutex_trylock(way->net->lock) != 0)
        return;
    if (!r->shut && r->n_unsent == 0 && !tern_queue_ready(tern_stage_in(r->stage)) &&
        tern_wire_put(&h, r->header, sizeof r->header, &len, NULL) == TERN_OK)
        (void)way->net->next_send(way->net->impl, r->header, len, NULL, 0, NULL);
    pthread_mutex_unlock(way->net->lock);
}

/* Why that fails shows again when the loop thread tries. */
static void send_waiting(struct worker_run *r)
{
    if (worker_run_send(r, NULL) != TERN_OK)
        return;
}

/* On the compute thread, when it is idle.  Also when it is not, it looks once: sending may have taken in the
 * news of messages, of which nobody would be told again.  With messages it takes the news of room for what is
 * still to be sent, which it then does itself. */
static void await_step(void *arg)
{
    struct worker_run *r = arg;
    const struct worker_net *net = r->way.net;
    struct tern_queue *in = tern_stage_in(r->stage);

    pthread_mutex_lock(net->lock);
    while (!r->shut) {
        bool more = net->take(net->impl);

        if (!r->shut && r->n_out > 0) {
            send_waiting(r);
            more = net->take(net->impl) || more;
        }
        if (tern_queue_ready(in))
            break;
        net->wait(net->impl, in, more, r->awake_ns);
    }
    pthread_mutex_unlock(net->lock);
}

enum tern_status worker_run_send(struct worker_run *r, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    while (r->n_out > 0 && !st) {
        struct tern_step *s = r->out[r->out_head];

        st = send_parts(r, s, err);
        if (st)
            break;
        r->out_head = (r->out_head + 1) % r->n_steps;
        r->n_out--;
        r->n_unsent -= r->way.net->lock != NULL;
        put_free(r, s);
    }
    return st;
}

void worker_run_shut(struct worker_run *r)
{
    r->shut = true;
    tern_stage_stop(r->stage);
}

/* -- life ------------------------------------------------------------------------------------------------ */

enum tern_status worker_run_new(const struct tern_model *model, struct tern_pool *pool,
                                const struct worker_plan *plan, const struct worker_way *way,
                                struct worker_run **out, struct tern_err *err)
{
    struct worker_run *r = calloc(1, sizeof *r);
    struct tern_stage_options so = { .boundary = plan->boundary,
                                     .kv = plan->kv,
                                     .n_pages = plan->n_pages,
                                     .n_slots = plan->n_slots,
                                     .max_positions = plan->max_positions,
                                     .max_rows = plan->max_rows,
                                     .index = plan->stage,
                                     .is_last = plan->is_last,
                                     .await = way->net->lock ? await_step : NULL,
                                     .on_run = way->net->lock ? on_run : NULL,
                                     .soon = way->net->lock && !way->home ? announce : NULL,
                                     .soon_us = SOON_US,
                                     .arg = r };
    enum tern_status st;

    if (!r)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an assignment");
    r->way = *way;
    st = tern_stage_new(model, pool, &so, &r->stage, err);
    while (r->n_steps < plan->n_steps && !st) {
        st = tern_step_new(plan->max_rows, plan->row_bytes, &r->steps[r->n_steps], err);
        if (!st) {
            r->free[r->n_free++] = r->steps[r->n_steps];
            r->n_steps++;
        }
    }
    if (!st)
        st = tern_stage_start(r->stage, err);
    if (st) {
        worker_run_free(&r);
        return st;
    }
    *out = r;
    return TERN_OK;
}

void worker_run_free(struct worker_run **rp)
{
    struct worker_run *r = *rp;

    if (!r)
        return;
    tern_stage_free(&r->stage);
    for (uint32_t i = 0; i < r->n_steps; i++)
        tern_step_free(&r->steps[i]);
    free(r);
    *rp = NULL;
}

/* -- in -------------------------------------------------------------------------------------------------- */

enum tern_status worker_run_take(struct worker_run *r, const struct worker_plan *plan,
                                 const struct worker_mail *m, const Tern__Header *h, struct tern_err *err)
{
    struct tern_step *s = r->filling;
    enum tern_status st;

    if (!s) {
        if (r->n_free == 0)
            return TERN_FAIL(err, TERN_ERR_STATE, "more than %u steps are in flight", r->n_steps - 1);
        s = r->free[--r->n_free];
        tern_step_clear(s);
        s->bytes_in = 0;
        r->filling = s;
    }
    st = tern_wire_get_step(h, m->payload, m->payload_len, plan->max_rows, s, err);
    if (st && st != TERN_AGAIN)
        return st;
    s->bytes_in += (uint32_t)(m->header_len + m->payload_len);
    if (st == TERN_AGAIN)
        return TERN_OK;
    s->t_in_ns = tern_now_ns();
    r->awake_ns = 0;
    s->n_failed_in = s->n_failed;
    s->user = r; /* not NULL: the stage's word for "not run" */
    r->filling = NULL;
    TERN_BUG_IF(!tern_queue_push(tern_stage_in(r->stage), s));
    return TERN_OK;
}

void worker_run_expect(struct worker_run *r)
{
    r->awake_ns = tern_now_ns() + AWAKE_NS;
}

enum tern_status worker_run_collect(struct worker_run *r, struct tern_err *err)
{
    struct tern_step *s;

    while ((s = tern_queue_pop(tern_stage_out(r->stage), 0)) != NULL) {
        if (!s->user) {
            if (!tern_stage_error(r->stage, err))
                return TERN_FAIL(err, TERN_ERR_STATE, "the compute thread has ended");
            return err->status;
        }
        r->out[(r->out_head + r->n_out) % r->n_steps] = s;
        r->n_out++;
    }
    return TERN_OK;
}

bool worker_run_ended(struct worker_run *r)
{
    while (tern_queue_pop(tern_stage_out(r->stage), 0) != NULL)
        continue;
    return tern_stage_stopped(r->stage);
}
