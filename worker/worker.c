/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state table, and one function for each message in it.
 */
#include "worker/worker.h"

#include "worker/worker_inner.h"
#include "worker/worker_out.h"
#include "worker/worker_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define REJECT_LOG_MS 60000
#define PROBE_MS      100

/* -- birth and death ------------------------------------------------------------------------------------- */

enum tern_status worker_new(const struct worker_options *o, struct worker **out, struct tern_err *err)
{
    struct worker *w = calloc(1, sizeof *w);
    struct worker_load_options lo = { o->file, o->kern, o->pool, o->layout };
    enum tern_status st;

    if (!w)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the worker");
    w->o = *o;
    w->now_ms = tern_now_ms();
    st = tern_arena_init(&w->arena, TERN_WIRE_ARENA_BYTES, "received messages", err);
    if (!st)
        st = worker_loader_new(&lo, &w->loader, err);
    if (st) {
        worker_free(&w);
        return st;
    }
    *out = w;
    return TERN_OK;
}

void worker_free(struct worker **wp)
{
    struct worker *w = *wp;

    if (!w)
        return;
    worker_run_free(&w->run);
    worker_run_free(&w->retired);
    worker_loader_free(&w->loader);
    worker_plan_fini(&w->plan);
    tern_arena_fini(&w->arena);
    free(w);
    *wp = NULL;
}

void worker_shut(struct worker *w)
{
    if (w->run)
        worker_run_shut(w->run);
}

/* -- edges ----------------------------------------------------------------------------------------------- */

typedef enum tern_status worker_on_fn(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                      struct tern_err *err);

static worker_on_fn on_hello_idle, on_hello_held, on_hello_draining, on_assign, on_tensors, on_step,
    on_step_draining, on_soon, on_ping, on_bye;

/* Row: where we are.  Column: what came.  Empty: illegal there, dropped and counted. */
#define N_BODIES (TERN__HEADER__BODY_SOON + 1)
#define ON(body) TERN__HEADER__BODY_##body
// clang-format off
static const struct {
    const char *name;
    worker_on_fn *on[N_BODIES];
} states[W_N_STATES] = {
    [W_IDLE]     = { "idle",     { [ON(HELLO)] = on_hello_idle } },
    [W_HELD]     = { "held",     { [ON(HELLO)] = on_hello_held, [ON(PING)] = on_ping, [ON(BYE)] = on_bye,
                                   [ON(ASSIGN)] = on_assign } },
    [W_LOADING]  = { "loading",  { [ON(HELLO)] = on_hello_held, [ON(PING)] = on_ping, [ON(BYE)] = on_bye,
                                   [ON(ASSIGN)] = on_assign, [ON(TENSORS)] = on_tensors } },
    [W_READY]    = { "ready",    { [ON(HELLO)] = on_hello_held, [ON(PING)] = on_ping, [ON(BYE)] = on_bye,
                                   [ON(ASSIGN)] = on_assign, [ON(STEP)] = on_step,
                                   [ON(SOON)] = on_soon } },
    [W_DRAINING] = { "draining", { [ON(HELLO)] = on_hello_draining, [ON(PING)] = on_ping,
                                   [ON(BYE)] = on_bye, [ON(STEP)] = on_step_draining,
                                   [ON(SOON)] = on_soon } },
};

/* Who may send what. */
enum sender { SENDER_NONE, SENDER_COORDINATOR, SENDER_OWNER, SENDER_UPSTREAM };
static const enum sender senders[N_BODIES] = {
    [ON(HELLO)] = SENDER_COORDINATOR, [ON(ASSIGN)] = SENDER_OWNER, [ON(TENSORS)] = SENDER_OWNER,
    [ON(PING)] = SENDER_OWNER,        [ON(BYE)] = SENDER_OWNER,    [ON(STEP)] = SENDER_UPSTREAM,
    [ON(SOON)] = SENDER_UPSTREAM,
};
// clang-format on

void worker_enter(struct worker *w, enum worker_state to)
{
    if (w->state != to)
        tern_log(TERN_LOG_DEBUG, "state", "from=%s to=%s", states[w->state].name, states[to].name);
    w->state = to;
}

/* Undoes the assignment.  The loaded slice stays. */
static void drop_assignment(struct worker *w)
{
    if (w->run) {
        TERN_BUG_IF(w->retired);
        worker_run_shut(w->run);
        w->retired = w->run;
        w->run = NULL;
    }
    w->o.net->next_close(w->o.net->impl);
    if (worker_loader_busy(w->loader))
        worker_loader_cancel(w->loader);
    worker_plan_fini(&w->plan);
    w->tensors_known = w->load_started = w->loaded = false;
}

void worker_reset(struct worker *w, const char *why)
{
    bool draining = w->state == W_DRAINING;

    if (w->state == W_IDLE)
        return;
    tern_log(TERN_LOG_INFO, "released", "coordinator=%s reason=%s", w->owner_name, why);
    drop_assignment(w);
    memset(w->owner_key, 0, sizeof w->owner_key);
    w->owner_name[0] = '\0';
    w->route_len = 0;
    w->owner_gone = false;
    w->last_epoch = w->epoch;
    w->epoch = w->ping_seq = 0;
    w->layout = 0;
    worker_enter(w, W_IDLE);
    w->done = draining;
}

void worker_fault(struct worker *w, const struct tern_err *why)
{
    w->n_faults++;
    tern_log(TERN_LOG_WARN, "fault", "status=%s %s", tern_status_name(why->status), why->text);
    worker_say_fault(w, why);
    worker_reset(w, "fault");
}

/* -- handlers: an error they return ends the epoch ------------------------------------------------------- */

static enum tern_status on_hello_idle(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                      struct tern_err *err)
{
    const struct tern_allow_entry *e = tern_allow_find(w->o.allow, m->from_key);

    (void)err;
    /* Busy tells this name to strangers to the holder: the list's, which the operator wrote, not the one it
     * gives itself. */
    memcpy(w->owner_name, e->name, sizeof w->owner_name);
    memcpy(w->owner_key, m->from_key, TERN_KEY_BYTES);
    memcpy(w->route, m->route, m->route_len);
    w->route_len = m->route_len;
    w->epoch = h->epoch;
    w->layout = h->layout;
    w->heard_ms = w->now_ms;
    worker_enter(w, W_HELD);
    tern_log(TERN_LOG_INFO, "held", "coordinator=%s software=%s", w->owner_name, h->hello->software);
    if (worker_say_welcome(w) != TERN_OK)
        w->owner_gone = true;
    return TERN_OK;
}

static bool same_route(const struct worker *w, const struct worker_mail *m)
{
    return w->route_len == m->route_len && memcmp(w->route, m->route, m->route_len) == 0;
}

/*
 * Somebody holds us, or holds us no longer without our having noticed.  The holder's own connection, or its
 * epoch on another connection, is the same process starting again.  Everybody else, another process with the
 * holder's key included, is told that we are busy.
 */
static enum tern_status on_hello_held(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                      struct tern_err *err)
{
    bool same_key = memcmp(m->from_key, w->owner_key, TERN_KEY_BYTES) == 0;

    if (same_key && (same_route(w, m) || h->epoch == w->epoch)) {
        worker_reset(w, "coordinator-started-again");
        return on_hello_idle(w, m, h, err);
    }
    worker_probe_owner(w);
    if (w->owner_gone) {
        worker_reset(w, "connection-lost");
        return on_hello_idle(w, m, h, err);
    }
    worker_say_busy(w, m, h->epoch);
    return TERN_OK;
}

static enum tern_status on_hello_draining(struct worker *w, const struct worker_mail *m,
                                          const Tern__Header *h, struct tern_err *err)
{
    (void)err;
    worker_say_busy(w, m, h->epoch);
    return TERN_OK;
}

void worker_probe_owner(struct worker *w)
{
    if (w->now_ms - w->probe_ms < PROBE_MS)
        return;
    w->probe_ms = w->now_ms;
    worker_say_pong(w, w->ping_seq);
}

enum tern_status worker_check_upstream(const struct worker *w, const struct worker_plan *p,
                                       struct tern_err *err)
{
    bool is_owner = memcmp(p->upstream_key, w->owner_key, TERN_KEY_BYTES) == 0;
    const struct tern_allow_entry *e = tern_allow_find(w->o.allow, p->upstream_key);
    char z85[TERN_Z85_CHARS + 1];

    if ((p->stage == 0) != is_owner)
        return TERN_FAIL(err, TERN_ERR_USAGE, "stage %u cannot get its steps from %s", p->stage,
                         is_owner ? "the coordinator" : "another worker");
    if (is_owner || (e && e->role == TERN_ROLE_WORKER))
        return TERN_OK;
    tern_key_to_z85(p->upstream_key, z85);
    return TERN_FAIL(
        err, TERN_ERR_AUTH,
        "the worker before this one is not on this worker's allow-list as a worker; add the line `NAME "
        "worker %s` to %s",
        z85, w->o.allow->path);
}

static enum tern_status on_assign(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                  struct tern_err *err)
{
    struct worker_means means = { w->o.file, w->o.layout, tern_pool_threads(w->o.pool), w->o.memory_limit };
    struct worker_plan plan;
    enum tern_status st;

    (void)m;
    if (h->layout <= w->layout)
        return TERN_FAIL(err, TERN_ERR_STATE, "assignment %u came after assignment %u", h->layout, w->layout);
    drop_assignment(w);
    w->layout = h->layout;
    st = worker_plan_read(h->assign, &means, &plan, err);
    if (st)
        return st;
    w->plan = plan;
    st = worker_check_upstream(w, &w->plan, err);
    if (!st && !w->plan.is_last)
        st = w->o.net->next_open(w->o.net->impl, w->plan.next_endpoint, w->plan.next_key, err);
    if (st)
        return st;
    w->next_since_ms = w->progress_ms = w->now_ms;
    worker_enter(w, W_LOADING);
    tern_log(TERN_LOG_INFO, "assigned", "layers=%u-%u stage=%u wire=%s pages=%u context=%u next=%s",
             w->plan.first, w->plan.last - 1, w->plan.stage, tern_boundary_name(w->plan.boundary),
             w->plan.n_pages, w->plan.max_positions, w->plan.is_last ? "-" : w->plan.next_endpoint);
    return TERN_OK;
}

static enum tern_status on_tensors(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                   struct tern_err *err)
{
    enum tern_status st;

    (void)m;
    if (w->tensors_known)
        return TERN_FAIL(err, TERN_ERR_STATE, "more tensors were listed than the assignment announced");
    st = worker_plan_add(&w->plan, h->tensors, w->o.file, err);
    if (st == TERN_AGAIN)
        return TERN_OK;
    w->tensors_known = st == TERN_OK;
    return st;
}

static enum tern_status on_step(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                struct tern_err *err)
{
    return worker_run_take(w->run, &w->plan, m, h, err);
}

/* What was on its way when we said that we are leaving is computed.  Told to end while loading, there is
 * nothing to compute with. */
static enum tern_status on_step_draining(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                         struct tern_err *err)
{
    return w->run ? worker_run_take(w->run, &w->plan, m, h, err) : TERN_OK;
}

static enum tern_status on_soon(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                struct tern_err *err)
{
    (void)m;
    (void)h;
    (void)err;
    if (w->run)
        worker_run_expect(w->run);
    return TERN_OK;
}

static enum tern_status on_ping(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                                struct tern_err *err)
{
    (void)m;
    (void)err;
    w->ping_seq = h->ping->seq;
    worker_say_pong(w, h->ping->seq);
    return TERN_OK;
}

static enum tern_status on_bye(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                               struct tern_err *err)
{
    (void)m;
    (void)h;
    (void)err;
    worker_reset(w, "bye");
    return TERN_OK;
}

/* -- taking a message ------------------------------------------------------------------------------------ */

static void reject(struct worker *w, enum worker_reject why, const struct worker_mail *m, const char *what)
{
    static const char *const reasons[REJECT_N] = {
        [REJECT_UNLISTED] = "its key is not on the allow-list any more",
        [REJECT_ROLE] = "its key may not send this here",
        [REJECT_MALFORMED] = "malformed",
        [REJECT_EPOCH] = "it is of another epoch or assignment",
        [REJECT_STATE] = "it is illegal in this state",
    };
    const struct tern_allow_entry *e = tern_allow_find(w->o.allow, m->from_key);
    uint64_t held;

    w->n_rejected++;
    if (tern_log_limit(&w->reject_log[why], w->now_ms, REJECT_LOG_MS, &held))
        tern_log(TERN_LOG_WARN, "dropped", "from=%s message='%s' reason='%s' state=%s more=%" PRIu64,
                 e ? e->name : "(unlisted)", what, reasons[why], states[w->state].name, held);
}

static bool sender_may(const struct worker *w, const struct tern_allow_entry *e, enum sender who)
{
    bool is_owner = w->state != W_IDLE && memcmp(e->key, w->owner_key, TERN_KEY_BYTES) == 0;
    bool has_plan = w->state == W_LOADING || w->state == W_READY || w->state == W_DRAINING;

    switch (who) {
    case SENDER_COORDINATOR: return e->role == TERN_ROLE_COORDINATOR;
    case SENDER_OWNER: return e->role == TERN_ROLE_COORDINATOR && is_owner;
    case SENDER_UPSTREAM:
        return has_plan && memcmp(e->key, w->plan.upstream_key, TERN_KEY_BYTES) == 0 &&
               e->role == (is_owner ? TERN_ROLE_COORDINATOR : TERN_ROLE_WORKER);
    case SENDER_NONE: break;
    }
    return false;
}

/* Ping and bye are about belonging, not about an assignment; an assignment brings the next layout. */
static bool is_of_this_epoch(const struct worker *w, const Tern__Header *h)
{
    switch (h->body_case) {
    case ON(HELLO): return true;
    case ON(ASSIGN):
    case ON(PING):
    case ON(BYE): return h->epoch == w->epoch;
    default: return h->epoch == w->epoch && h->layout == w->layout;
    }
}

/* Crossed with our fault or bye; the list of tensors follows an assignment unasked. */
static bool is_belated(const struct worker *w, const struct tern_allow_entry *e, const Tern__Header *h)
{
    return w->state == W_IDLE && e->role == TERN_ROLE_COORDINATOR && h->epoch == w->last_epoch &&
           h->epoch != 0 &&
           (h->body_case == ON(PING) || h->body_case == ON(BYE) || h->body_case == ON(TENSORS));
}

/* NULL when the message was dropped. */
static Tern__Header *open_mail(struct worker *w, const struct worker_mail *m)
{
    const struct tern_allow_entry *e = tern_allow_find(w->o.allow, m->from_key);
    Tern__Header *h = NULL;
    struct tern_err err;
    const char *name;

    if (!e || m->route_len > sizeof w->route) {
        reject(w, REJECT_UNLISTED, m, "?");
        return NULL;
    }
    tern_arena_reset(&w->arena);
    if (tern_wire_get(m->header, m->header_len, &w->arena, &h, &err) != TERN_OK) {
        reject(w, REJECT_MALFORMED, m, err.text);
        return NULL;
    }
    name = tern_wire_body_name(h->body_case);
    if (is_belated(w, e, h))
        return NULL;
    if ((unsigned)h->body_case >= N_BODIES || !sender_may(w, e, senders[h->body_case])) {
        reject(w, REJECT_ROLE, m, name);
        return NULL;
    }
    if (!is_of_this_epoch(w, h)) {
        reject(w, REJECT_EPOCH, m, name);
        return NULL;
    }
    if (m->has_payload && h->body_case != ON(STEP)) {
        reject(w, REJECT_MALFORMED, m, "a payload where none belongs");
        return NULL;
    }
    if (!states[w->state].on[h->body_case]) {
        reject(w, REJECT_STATE, m, name);
        return NULL;
    }
    return h;
}

static enum tern_status handle(struct worker *w, const struct worker_mail *m, const Tern__Header *h,
                               struct tern_err *err)
{
    bool is_step = h->body_case == ON(STEP);
    enum tern_status st;

    if (is_step)
        tern_alloc_guard_begin("worker step");
    st = states[w->state].on[h->body_case](w, m, h, err);
    if (is_step)
        tern_alloc_guard_end();
    return st;
}

void worker_take(struct worker *w, const struct worker_mail *m)
{
    Tern__Header *h = open_mail(w, m);
    struct tern_err err;

    if (!h)
        return;
    if (w->state != W_IDLE && h->body_case != ON(HELLO) &&
        memcmp(m->from_key, w->owner_key, TERN_KEY_BYTES) == 0) {
        if (!same_route(w, m)) {
            /* What the old connection lost nobody knows.  The answer goes where the owner is now. */
            memcpy(w->route, m->route, m->route_len);
            w->route_len = m->route_len;
            (void)TERN_FAIL(&err, TERN_ERR_STATE, "the coordinator's connection was replaced in mid-epoch");
            worker_fault(w, &err);
            return;
        }
        w->heard_ms = w->now_ms;
    }
    if (handle(w, m, h, &err) != TERN_OK)
        worker_fault(w, &err);
    if (w->owner_gone)
        worker_reset(w, "connection-lost");
}
