/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens without a message: loads end, links come up or break, steps are computed, clocks run out, the
 * allow-list changes.
 */
#include "worker/worker_inner.h"
#include "worker/worker_out.h"
#include "worker/worker_run.h"

#include <inttypes.h>
#include <string.h>

#define HELD_SILENCE_MS 5000 /* before an assignment names its own limit */
/* To reach the next worker: with the coordinator's own checks, a sentence within 5 s. */
#define NEXT_TIMEOUT_MS 4000
#define SUSPECT_MS      400 /* four heartbeats missed */
#define PROGRESS_MS     200
#define DRAIN_MS        2000
#define BYE_MS          100 /* for the bye to leave where there is nothing to compute */
#define LIST_MS         100
#define IDLE_TICK_MS    1000
#define BUSY_TICK_MS    50
#define STALLED_TICK_MS 10 /* the news of room for a step may have gone unheard: see link.h */
#define REFUSED_LOG_MS  60000

static enum tern_status start_run(struct worker *w, struct tern_err *err)
{
    const struct tern_model *model = worker_loader_model(w->loader);
    struct worker_way way = { .net = w->o.net,
                              .home = w->plan.is_last,
                              .epoch = w->epoch,
                              .layout = w->layout,
                              .route_len = w->route_len };
    enum tern_status st;

    memcpy(way.route, w->route, w->route_len);
    st = worker_run_new(model, w->o.pool, &w->plan, &way, &w->run, err);

    if (st)
        return st;
    w->loaded = true;
    tern_log(TERN_LOG_INFO, "loaded", "layers=%u-%u weight_bytes=%zu kv_bytes=%zu loads=%" PRIu64,
             w->plan.first, w->plan.last - 1, model->tiles_bytes + model->norms_bytes,
             tern_stage_kv_bytes(w->run->stage), worker_loader_n_loads(w->loader));
    return TERN_OK;
}

/* Loading advances when its conditions hold, in whatever order they come true. */
static enum tern_status advance_loading(struct worker *w, struct tern_err *err)
{
    enum tern_status st = worker_loader_result(w->loader, err);

    if (st == TERN_AGAIN || st == TERN_END || !w->load_started)
        st = TERN_OK; /* nothing ended, or a load that an earlier epoch gave up */
    else if (!st)
        st = start_run(w, err);
    if (st)
        return st;
    if (w->state == W_LOADING && w->tensors_known && !w->load_started && !w->retired &&
        !worker_loader_busy(w->loader)) {
        worker_loader_start(w->loader, &w->plan);
        w->load_started = true;
    }
    return TERN_OK;
}

static enum tern_status advance_link(struct worker *w, struct tern_err *err)
{
    const struct worker_net *net = w->o.net;
    enum tern_client_state link = TERN_CLIENT_UP;
    enum tern_status st;

    /* Draining without a run, there is nothing to send. */
    if (w->state != W_LOADING && w->state != W_READY && !w->run)
        return TERN_OK;
    if (!w->plan.is_last)
        link = net->next_state(net->impl);
    if (link == TERN_CLIENT_REFUSED)
        return TERN_FAIL(
            err, TERN_ERR_AUTH,
            "the next worker at %s refused this one: %s; its allow-list needs this worker's key, as a worker",
            w->plan.next_endpoint, net->next_why(net->impl));
    if (link == TERN_CLIENT_LOST)
        return TERN_FAIL(err, TERN_ERR_PEER, "the link to the next worker at %s is lost: %s",
                         w->plan.next_endpoint, net->next_why(net->impl));
    if (link == TERN_CLIENT_CONNECTING && w->loaded && w->now_ms - w->next_since_ms > NEXT_TIMEOUT_MS)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "the next worker at %s does not answer this one; is the address in the cluster file "
                         "reachable from this machine, and the port open?",
                         w->plan.next_endpoint);
    if (w->state == W_LOADING && w->loaded && link == TERN_CLIENT_UP) {
        st = worker_say_ready(w);
        if (st == TERN_OK)
            worker_enter(w, W_READY);
        return st == TERN_AGAIN || st == TERN_ERR_PEER ? TERN_OK : st;
    }
    return TERN_OK;
}

/* Sequences that this stage would not compute: the step goes on without them. */
static void report_refused(struct worker *w)
{
    static const char *const reasons[] = { "unknown", "a value is not finite",
                                           "generation or position do not match", "no room in the KV cache" };
    const struct tern_failed *f = &w->run->refused;
    uint64_t held;

    if (w->run->n_refused == 0)
        return;
    w->n_rejected += w->run->n_refused;
    w->run->n_refused = 0;
    if (tern_log_limit(&w->refused_log, w->now_ms, REFUSED_LOG_MS, &held))
        tern_log(TERN_LOG_WARN, "refused", "slot=%u gen=%u reason='%s' more=%" PRIu64, f->slot, f->gen,
                 reasons[f->code < sizeof reasons / sizeof reasons[0] ? f->code : 0], held);
}

static enum tern_status advance_steps(struct worker *w, struct tern_err *err)
{
    enum tern_status st;

    if (!w->run)
        return TERN_OK;
    tern_alloc_guard_begin("worker step");
    st = worker_run_collect(w->run, err);
    report_refused(w);
    if (!st)
        st = worker_flush(w, err);
    tern_alloc_guard_end();
    return st;
}

static void advance_drain(struct worker *w)
{
    if (w->state != W_DRAINING)
        return;
    if (w->owner_gone || w->now_ms >= w->drain_until_ms)
        w->done = true;
}

void worker_turn(struct worker *w)
{
    struct tern_err err;
    enum tern_status st;

    if (w->retired && worker_run_ended(w->retired))
        worker_run_free(&w->retired);
    st = advance_loading(w, &err);
    if (!st)
        st = advance_link(w, &err);
    if (!st)
        st = advance_steps(w, &err);
    if (st)
        worker_fault(w, &err);
    advance_drain(w);
    if (w->owner_gone)
        worker_reset(w, "connection-lost");
}

void worker_watch_list(struct worker *w)
{
    const struct tern_allow_entry *e;
    struct tern_err err;
    bool changed = false;

    if (w->now_ms - w->list_ms < LIST_MS)
        return;
    w->list_ms = w->now_ms;
    tern_allow_refresh(w->o.allow, &changed);
    if (!changed || w->state == W_IDLE)
        return;
    e = tern_allow_find(w->o.allow, w->owner_key);
    if (!e || e->role != TERN_ROLE_COORDINATOR) {
        (void)TERN_FAIL(&err, TERN_ERR_AUTH,
                        "the coordinator's key was removed from this worker's allow-list");
        worker_fault(w, &err);
    } else if ((w->state == W_LOADING || w->state == W_READY) &&
               worker_check_upstream(w, &w->plan, &err) != TERN_OK) {
        worker_fault(w, &err);
    }
}

void worker_clock(struct worker *w, uint64_t now_ms)
{
    /* When this process itself was stopped, nobody else was silent meanwhile. */
    if (now_ms - w->now_ms > IDLE_TICK_MS + BUSY_TICK_MS)
        w->heard_ms += now_ms - w->now_ms;
    w->now_ms = now_ms;
}

void worker_tick(struct worker *w)
{
    uint64_t now_ms = w->now_ms;
    uint64_t silence = w->plan.dead_after_ms ? w->plan.dead_after_ms : HELD_SILENCE_MS;

    worker_watch_list(w);
    if (w->state != W_IDLE && now_ms > w->heard_ms + SUSPECT_MS)
        worker_probe_owner(w);
    if (w->owner_gone)
        worker_reset(w, "connection-lost");
    else if (w->state != W_IDLE && now_ms > w->heard_ms && now_ms - w->heard_ms > silence)
        worker_reset(w, "silence");
    if (w->state == W_LOADING && w->load_started && !w->loaded && now_ms - w->progress_ms >= PROGRESS_MS) {
        w->progress_ms = now_ms;
        worker_say_loading(w);
    }
    advance_drain(w);
}

void worker_drain(struct worker *w)
{
    if (w->state == W_IDLE || w->state == W_DRAINING) {
        w->done = true; /* nobody's, or told twice */
        return;
    }
    /* The owner sends nothing new from now on, and lets go when the last result has come home. */
    w->drain_until_ms = w->now_ms + (w->run ? DRAIN_MS : BYE_MS);
    worker_enter(w, W_DRAINING);
    worker_say_bye(w);
    advance_drain(w);
}

int worker_fds(const struct worker *w, int fds[static WORKER_MAX_FDS])
{
    int n = 0;

    fds[n++] = worker_loader_fd(w->loader);
    if (w->run)
        fds[n++] = tern_queue_fd(tern_stage_out(w->run->stage));
    if (w->retired)
        fds[n++] = tern_queue_fd(tern_stage_out(w->retired->stage));
    return n;
}

int worker_wait_ms(const struct worker *w)
{
    if (w->state == W_IDLE)
        return IDLE_TICK_MS;
    return w->run && w->run->n_out > 0 ? STALLED_TICK_MS : BUSY_TICK_MS;
}
