/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link thread: one loop that owns every socket and timer of a cluster, and the table that says which
 * message is legal when.
 */
#include "coordinator/cluster.h"

#include "engine/base/log.h"
#include "engine/base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_ITEMS        (TERN_MAX_STEPS_IN_FLIGHT + 4) /* all steps, and the tags */
#define MESSAGES_PER_VISIT 32 /* of one worker, before the others get their turn */

/* -- birth and death ------------------------------------------------------------------------------------ */

enum tern_status cluster_new(const struct pipe_options *o, const struct cluster_spec *spec,
                             const struct tern_key *key, struct cluster **out, struct tern_err *err)
{
    struct cluster *c = calloc(1, sizeof *c);
    enum tern_status st;

    if (!c)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a cluster");
    c->o = *o;
    c->key = key;
    c->spec = *spec;
    tern_arch_hash(o->arch, c->arch_hash);
    while (c->epoch == 0)
        randombytes_buf(&c->epoch, sizeof c->epoch);
    for (uint32_t i = 0; i < spec->n; i++) {
        struct cluster_peer *p = &c->peers[i];

        p->member = &c->spec.members[i];
        p->index = i;
        p->info.first = p->member->first;
        p->info.last = p->member->last;
        memcpy(p->info.name, p->member->name, sizeof p->info.name);
        memcpy(p->live.endpoint, p->member->endpoint, sizeof p->live.endpoint);
        c->live[i] = p->live;
    }
    pthread_mutex_init(&c->live_lock, NULL);
    st = tern_arena_init(&c->arena, TERN_WIRE_ARENA_BYTES, "received messages", err);
    if (st == TERN_OK)
        st = tern_queue_new(QUEUE_ITEMS, &c->commands, err);
    if (st == TERN_OK)
        st = tern_queue_new(QUEUE_ITEMS, &c->events, err);
    if (st)
        cluster_free(&c);
    else
        *out = c;
    return st;
}

void cluster_free(struct cluster **cp)
{
    struct cluster *c = *cp;

    if (!c)
        return;
    tern_queue_free(&c->commands);
    tern_queue_free(&c->events);
    tern_arena_fini(&c->arena);
    pthread_mutex_destroy(&c->live_lock);
    free(c);
    *cp = NULL;
}

void cluster_live(struct cluster *c, uint32_t i, struct pipe_stage_live *out)
{
    pthread_mutex_lock(&c->live_lock);
    *out = c->live[i];
    pthread_mutex_unlock(&c->live_lock);
}

/* -- what all parts use --------------------------------------------------------------------------------- */

struct peer_text peer_describe(const struct cluster_peer *p)
{
    struct peer_text t;
    const struct cluster_member *m = p->member;

    if (m->last - m->first == 1)
        snprintf(t.z, sizeof t.z, "worker %s (%s, layer %u)", m->name, m->endpoint, m->first);
    else
        snprintf(t.z, sizeof t.z, "worker %s (%s, layers %u-%u)", m->name, m->endpoint, m->first,
                 m->last - 1);
    return t;
}

static void send_bye(struct cluster *c, struct cluster_peer *p)
{
    Tern__Header h;
    Tern__Bye bye = TERN__BYE__INIT;
    size_t len;

    if (!p->client || p->state < PEER_HELLO || p->state == PEER_GONE)
        return;
    cluster_header(c, &h, TERN__HEADER__BODY_BYE);
    bye.reason = TERN_BYE_DONE;
    h.bye = &bye;
    /* A worker that cannot be told notices by our silence. */
    if (tern_wire_put(&h, c->header, sizeof c->header, &len, NULL) == TERN_OK &&
        tern_client_send(p->client, c->header, len, NULL, 0, NULL) != TERN_OK)
        tern_log(TERN_LOG_DEBUG, "bye", "worker=%s could not be told", p->member->name);
}

static void release_workers(struct cluster *c)
{
    for (uint32_t i = 0; i < c->spec.n; i++) {
        send_bye(c, &c->peers[i]);
        c->peers[i].state = PEER_GONE;
    }
}

void cluster_break(struct cluster *c, enum tern_status status, const char *fmt, ...)
{
    char text[TERN_ERR_TEXT_BYTES];
    va_list ap;

    if (c->broken)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)TERN_FAIL(&c->error, status, "%s", text);
    c->broken = true;
    release_workers(c);
    TERN_BUG_IF(!tern_queue_push(c->events, &c->tag.broken));
}

void cluster_header(const struct cluster *c, Tern__Header *h, Tern__Header__BodyCase body)
{
    tern__header__init(h);
    h->version = TERN_WIRE_VERSION;
    h->epoch = c->epoch;
    h->layout = c->layout;
    h->body_case = body;
}

enum tern_status cluster_post(struct cluster *c, struct cluster_peer *p, const Tern__Header *h)
{
    struct tern_err err;
    size_t len = 0;
    enum tern_status st = tern_wire_put(h, c->header, sizeof c->header, &len, &err);

    if (st == TERN_OK)
        st = tern_client_send(p->client, c->header, len, NULL, 0, &err);
    if (st && st != TERN_AGAIN)
        cluster_break(c, st, "cannot send to %s: %s", peer_describe(p).z, err.text);
    return st;
}

/* -- receiving ------------------------------------------------------------------------------------------ */

typedef void peer_on_fn(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);

/* Row: the worker's state.  Column: what came from it.  Empty: illegal there.  A Result also has a payload
 * and is not here. */
#define N_BODIES (TERN__HEADER__BODY_FAULT + 1)
#define ON(body) [TERN__HEADER__BODY_##body]
// clang-format off
static peer_on_fn *const on_message[PEER_N_STATES][N_BODIES] = {
    [PEER_HELLO]    = { ON(WELCOME) = cluster_on_welcome, ON(BUSY) = cluster_on_busy,
                        ON(FAULT) = cluster_on_fault, ON(BYE) = cluster_on_bye },
    [PEER_WELCOMED] = { ON(PONG) = cluster_on_pong, ON(FAULT) = cluster_on_fault, ON(BYE) = cluster_on_bye },
    [PEER_LOADING]  = { ON(PONG) = cluster_on_pong, ON(FAULT) = cluster_on_fault, ON(BYE) = cluster_on_bye,
                        ON(LOADING) = cluster_on_loading, ON(READY) = cluster_on_ready },
    [PEER_READY]    = { ON(PONG) = cluster_on_pong, ON(FAULT) = cluster_on_fault, ON(BYE) = cluster_on_bye },
};
// clang-format on

/* Busy has no epoch of ours; everything else must be of this start of this coordinator. */
static bool epoch_is_ours(struct cluster *c, const struct cluster_peer *p, const Tern__Header *h,
                          uint64_t now)
{
    uint64_t held;

    if (h->epoch == c->epoch || (h->epoch == 0 && h->body_case == TERN__HEADER__BODY_BUSY))
        return true;
    c->n_stale++;
    if (tern_log_limit(&c->stale_log, now, 10000, &held))
        tern_log(TERN_LOG_WARN, "stale", "worker=%s sent '%s' of another epoch; dropped (%" PRIu64 " so far)",
                 p->member->name, tern_wire_body_name(h->body_case), c->n_stale);
    return false;
}

static void take_message(struct cluster *c, struct cluster_peer *p, struct tern_link_message *m, uint64_t now)
{
    struct tern_err err;
    Tern__Header *h = NULL;
    peer_on_fn *on;

    tern_arena_reset(&c->arena);
    if (tern_wire_get(zmq_msg_data(&m->header), zmq_msg_size(&m->header), &c->arena, &h, &err) != TERN_OK) {
        cluster_break(c, TERN_ERR_FORMAT, "%s sent a message that cannot be understood: %s",
                      peer_describe(p).z, err.text);
        return;
    }
    p->heard_ms = now;
    if (p->state == PEER_GONE)
        return;
    if (!epoch_is_ours(c, p, h, now))
        return;
    if (h->body_case == TERN__HEADER__BODY_RESULT && p->state == PEER_READY) {
        cluster_on_result(c, p, h, m);
        return;
    }
    on = (unsigned)h->body_case < N_BODIES ? on_message[p->state][h->body_case] : NULL;
    if (on && !m->has_payload)
        on(c, p, h, now);
    else
        cluster_break(c, TERN_ERR_STATE, "%s broke the protocol: it sent '%s'%s, which is not legal now",
                      peer_describe(p).z, tern_wire_body_name(h->body_case),
                      m->has_payload ? " with a payload" : "");
}

static void visit_peer(struct cluster *c, struct cluster_peer *p, uint64_t now)
{
    struct tern_link_message m;
    struct tern_err err;

    if (!p->client)
        return;
    /* What the worker said before its link broke is read first: a Bye or a Fault is the better reason. */
    for (int i = 0; i < MESSAGES_PER_VISIT && !c->broken && p->client; i++) {
        enum tern_status st;

        tern_link_message_init(&m);
        st = tern_client_recv(p->client, &m, &err);
        if (st == TERN_OK)
            take_message(c, p, &m, now);
        tern_link_message_close(&m);
        if (st == TERN_AGAIN)
            break;
        if (st != TERN_OK)
            cluster_break(c, st, "%s: %s", peer_describe(p).z, err.text);
    }
    if (!c->broken && p->client)
        cluster_on_link(c, p, tern_client_pump(p->client), now);
}

/* -- the loop ------------------------------------------------------------------------------------------- */

static void take_commands(struct cluster *c)
{
    void *item;

    while ((item = tern_queue_pop(c->commands, 0)) != NULL) {
        if (item == &c->tag.stop) {
            c->stop = true;
        } else if (item == &c->tag.assign) {
            c->assigned = true;
            c->layout++;
            progress_begin(&c->bar, "workers are loading", c->o.quiet);
        } else if (!c->broken) { /* the steps of a broken cluster are its owner's again when it is freed */
            TERN_BUG_IF(c->n_flight == TERN_MAX_STEPS_IN_FLIGHT);
            c->flight[(c->flight_head + c->n_flight++) % TERN_MAX_STEPS_IN_FLIGHT] = item;
        }
    }
}

static int until(uint64_t now, uint64_t then)
{
    return then <= now ? 0 : (int)(then - now < CLUSTER_PING_MS ? then - now : CLUSTER_PING_MS);
}

/* Waits for a command, for a worker, or for the next tick. */
static void wait_for_work(struct cluster *c)
{
    struct pollfd fds[1 + TERN_CLIENT_FDS * TERN_MAX_WORKERS];
    nfds_t n = 0;
    int timeout = -1;
    uint64_t now = tern_now_ms();

    fds[n++] = (struct pollfd){ .fd = tern_queue_fd(c->commands), .events = POLLIN };
    if (!c->broken) {
        timeout = until(now, c->next_ping_ms);
        if (c->hold_until_ms && until(now, c->hold_until_ms) < timeout)
            timeout = until(now, c->hold_until_ms);
        for (uint32_t i = 0; i < c->spec.n; i++) {
            struct cluster_peer *p = &c->peers[i];

            if (!p->client)
                continue;
            if (tern_client_poll_fds(p->client, &fds[n]))
                timeout = 0;
            n += TERN_CLIENT_FDS;
        }
    }
    if (poll(fds, n, timeout) < 0 && errno != EINTR)
        cluster_break(c, TERN_ERR_IO, "cannot wait for the workers: %s", strerror(errno));
}

static void turn(struct cluster *c, uint64_t slept_from)
{
    uint64_t now = tern_now_ms();

    /* When this process itself was stopped, nobody else was silent meanwhile. */
    if (now - slept_from > 2 * CLUSTER_PING_MS)
        for (uint32_t i = 0; i < c->spec.n; i++)
            c->peers[i].heard_ms += now - slept_from;
    if (now - slept_from > 2 * CLUSTER_PING_MS)
        c->progress_ms += now - slept_from;
    take_commands(c);
    for (uint32_t i = 0; i < c->spec.n && !c->broken; i++)
        visit_peer(c, &c->peers[i], now);
    if (!c->broken && !c->ready)
        cluster_join_tick(c, now);
    if (!c->broken)
        cluster_run_tick(c, now);
    if (!c->broken)
        cluster_send_steps(c);
}

static enum tern_status open_links(struct cluster *c, struct tern_err *err)
{
    uint64_t now = tern_now_ms();
    enum tern_status st = tern_link_context_new(&c->ctx, err);

    c->join_until_ms = now + c->o.join_timeout_ms;
    c->next_ping_ms = now + CLUSTER_PING_MS;
    for (uint32_t i = 0; i < c->spec.n && st == TERN_OK; i++)
        st = cluster_connect(c, &c->peers[i], err);
    return st;
}

void *cluster_main(void *cluster)
{
    struct cluster *c = cluster;
    struct tern_err err;
    enum tern_status st = open_links(c, &err);

    tern_thread_set_kind(TERN_THREAD_BRIEF);
    if (st)
        cluster_break(c, st, "%s", err.text);
    while (!c->stop) {
        uint64_t from = tern_now_ms();

        wait_for_work(c);
        /* From the first step on a turn allocates nothing (libzmq apart). */
        if (c->ready)
            tern_alloc_guard_begin("link thread");
        turn(c, from);
        if (tern_alloc_guard_name())
            tern_alloc_guard_end();
    }
    if (!c->broken)
        release_workers(c);
    for (uint32_t i = 0; i < c->spec.n; i++)
        tern_client_close(&c->peers[i].client);
    tern_link_context_free(&c->ctx);
    return NULL;
}
