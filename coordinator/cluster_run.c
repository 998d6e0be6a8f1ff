/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running pipeline: steps out to the first worker, results back from the last, heartbeats to all, and who
 * is to blame when it ends.
 */
#include "coordinator/cluster.h"

#include "engine/base/log.h"

#include <inttypes.h>
#include <string.h>

static uint64_t now_us(void)
{
    return tern_now_ns() / 1000;
}

/* -- steps ---------------------------------------------------------------------------------------------- */

static struct tern_step *in_flight(const struct cluster *c, uint32_t i)
{
    return c->flight[(c->flight_head + i) % TERN_MAX_STEPS_IN_FLIGHT];
}

/* True when the whole step has left, or cannot because the cluster broke. */
static bool send_step(struct cluster *c, const struct tern_step *s)
{
    struct cluster_peer *p = &c->peers[0];
    uint32_t n_parts = tern_wire_step_parts(s);
    struct tern_err err;

    while (c->parts_sent < n_parts) {
        const uint8_t *payload = NULL;
        size_t len = 0, payload_len = 0;
        enum tern_status st = tern_wire_put_step(s, false, c->epoch, c->layout, c->parts_sent, c->header,
                                                 sizeof c->header, &len, &payload, &payload_len, &err);

        if (st == TERN_OK)
            st = tern_client_send(p->client, c->header, len, payload_len ? payload : NULL, payload_len, &err);
        if (st == TERN_AGAIN)
            return false;
        if (st) {
            cluster_break(c, st, "cannot send step %" PRIu64 " to %s: %s", s->step, peer_describe(p).z,
                          err.text);
            return false;
        }
        c->parts_sent++;
    }
    return true;
}

void cluster_send_steps(struct cluster *c)
{
    while (!c->broken && c->n_sent < c->n_flight && (!c->leaving || c->parts_sent > 0) &&
           send_step(c, in_flight(c, c->n_sent))) {
        if (c->n_sent == 0)
            c->progress_ms = tern_now_ms();
        c->flight_us[(c->flight_head + c->n_sent) % TERN_MAX_STEPS_IN_FLIGHT] = now_us();
        c->n_sent++;
        c->parts_sent = 0;
    }
}

/* -- results -------------------------------------------------------------------------------------------- */

static void keep(struct cluster *c, struct tern_step *s)
{
    c->kept.n_ops = s->n_ops;
    c->kept.n_runs = s->n_runs;
    memcpy(c->kept.ops, s->ops, s->n_ops * sizeof s->ops[0]);
    memcpy(c->kept.runs, s->runs, s->n_runs * sizeof s->runs[0]);
    s->parts_in = 0;
    s->rows_in = 0;
    s->bytes_in = 0;
}

static void restore(const struct cluster *c, struct tern_step *s)
{
    s->n_ops = c->kept.n_ops;
    s->n_runs = c->kept.n_runs;
    memcpy(s->ops, c->kept.ops, s->n_ops * sizeof s->ops[0]);
    memcpy(s->runs, c->kept.runs, s->n_runs * sizeof s->runs[0]);
}

static uint32_t wanted_rows(const struct cluster *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->kept.n_runs; i++)
        n += c->kept.runs[i].n_want;
    return n;
}

/* A failure may only be reported of a sequence the step speaks of. */
static bool failed_are_known(const struct tern_step *s)
{
    for (uint32_t i = 0; i < s->n_failed; i++) {
        const struct tern_failed *f = &s->failed[i];
        bool known = false;

        for (uint32_t j = 0; j < s->n_runs && !known; j++)
            known = s->runs[j].slot == f->slot && s->runs[j].gen == f->gen;
        for (uint32_t j = 0; j < s->n_ops && !known; j++)
            known = s->ops[j].slot == f->slot && s->ops[j].gen == f->gen;
        if (!known)
            return false;
    }
    return true;
}

static void break_leaving(struct cluster *c, const struct cluster_peer *p)
{
    cluster_break(c, TERN_ERR_PEER, "%s is leaving: its ternd was told to end (draining)",
                  peer_describe(p).z);
}

/* The result is whole: what it says must fit what was sent. */
static void finish_step(struct cluster *c, struct cluster_peer *p, struct tern_step *s)
{
    restore(c, s);
    s->t_in_ns = tern_now_ns();
    if (s->n_rows != wanted_rows(c)) {
        cluster_break(c, TERN_ERR_FORMAT,
                      "%s broke the protocol: step %" PRIu64 " came back with %u rows, %u were wanted",
                      peer_describe(p).z, s->step, s->n_rows, wanted_rows(c));
        return;
    }
    if (s->n_times != c->spec.n || !failed_are_known(s)) {
        cluster_break(c, TERN_ERR_FORMAT,
                      "%s broke the protocol: step %" PRIu64
                      " came back with %u stage times for %u stages, or with the "
                      "failure of a sequence that was not in it",
                      peer_describe(p).z, s->step, s->n_times, c->spec.n);
        return;
    }
    for (uint32_t i = 0; i < s->n_times; i++)
        s->times[i].t_in_us =
            peer_clock_ours(&c->peers[i].clock, s->times[i].t_in_us, c->flight_us[c->flight_head], now_us());
    c->flight_head = (c->flight_head + 1) % TERN_MAX_STEPS_IN_FLIGHT;
    c->n_flight--;
    c->n_sent--;
    c->progress_ms = tern_now_ms();
    TERN_BUG_IF(!tern_queue_push(c->events, s));
    if (c->leaving && c->n_sent == 0)
        break_leaving(c, c->leaving);
}

/* Why this result cannot be one: NULL when it may. */
static const char *result_is_wrong(const struct cluster *c, const struct cluster_peer *p,
                                   const Tern__Header *h)
{
    if (p->index + 1 != c->spec.n)
        return "it is not the last worker";
    if (h->layout != c->layout)
        return "that is of another layout";
    if (c->n_sent == 0)
        return "no step is on its way";
    return h->result->step != in_flight(c, 0)->step ? "another step is due" : NULL;
}

void cluster_on_result(struct cluster *c, struct cluster_peer *p, const Tern__Header *h,
                       const struct tern_link_message *m)
{
    /* libzmq's accessors take no const. */
    zmq_msg_t *header = (zmq_msg_t *)(uintptr_t)&m->header, *payload = (zmq_msg_t *)(uintptr_t)&m->payload;
    size_t payload_len = m->has_payload ? zmq_msg_size(payload) : 0;
    const char *wrong = result_is_wrong(c, p, h);
    struct tern_step *s;
    struct tern_err err;
    enum tern_status st;

    if (wrong) {
        cluster_break(c, TERN_ERR_STATE,
                      "%s broke the protocol: it sent the result of step %" PRIu64 ", but %s",
                      peer_describe(p).z, h->result->step, wrong);
        return;
    }
    s = in_flight(c, 0);
    if (!c->receiving)
        keep(c, s);
    c->receiving = true;
    s->bytes_in += (uint32_t)(zmq_msg_size(header) + payload_len);
    st = tern_wire_get_step(h, payload_len ? zmq_msg_data(payload) : NULL, payload_len, wanted_rows(c), s,
                            &err);
    if (st == TERN_AGAIN)
        return;
    c->receiving = false;
    if (st == TERN_OK)
        finish_step(c, p, s);
    else
        cluster_break(c, st, "%s broke the protocol: the result of step %" PRIu64 ": %s", peer_describe(p).z,
                      h->result->step, err.text);
}

/* -- life ----------------------------------------------------------------------------------------------- */

/* Number of the last step that has left: a worker cannot have computed more. */
static uint64_t last_sent(const struct cluster *c)
{
    return c->n_sent > 0 ? in_flight(c, c->n_sent - 1)->step : 0;
}

static void publish(struct cluster *c, struct cluster_peer *p, uint64_t now)
{
    uint64_t silent = now > p->heard_ms ? now - p->heard_ms : 0;

    p->live.suspect = p->suspect;
    p->live.silent_ms = silent < UINT32_MAX ? (uint32_t)silent : UINT32_MAX;
    pthread_mutex_lock(&c->live_lock);
    c->live[p->index] = p->live;
    pthread_mutex_unlock(&c->live_lock);
}

void cluster_on_pong(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    const Tern__Pong *pong = h->pong;

    if (pong->seq > c->ping_seq) {
        cluster_break(c, TERN_ERR_STATE, "%s broke the protocol: it answered a ping that was never sent",
                      peer_describe(p).z);
        return;
    }
    peer_clock_got(&p->clock, pong->seq, pong->clock_us, now_us());
    p->live.round_trip_us = p->clock.round_trip_us;
    p->live.clock_ahead_us = p->clock.ahead_us;
    p->live.clock_within_us = p->clock.within_us;
    p->live.memory_bytes = pong->memory_bytes;
    p->live.rejected = pong->rejected;
    if (pong->steps > p->live.steps && pong->steps <= last_sent(c))
        c->progress_ms = now;
    p->live.steps = pong->steps;
    p->live.busy_us = pong->busy_us;
    publish(c, p, now);
}

static void send_ping(struct cluster *c, struct cluster_peer *p)
{
    Tern__Header h;
    Tern__Ping ping = TERN__PING__INIT;
    /* Before it is sent: a round trip may seem longer than it was, and its bound wider, but never shorter. */
    const uint64_t before_us = now_us();

    ping.seq = c->ping_seq;
    cluster_header(c, &h, TERN__HEADER__BODY_PING);
    h.ping = &ping;
    /* No room means that enough is on its way to count as life for the worker. */
    if (cluster_post(c, p, &h) == TERN_OK)
        peer_clock_sent(&p->clock, c->ping_seq, before_us);
}

static void check_silence(struct cluster *c, struct cluster_peer *p, uint64_t now)
{
    uint64_t silent = now > p->heard_ms ? now - p->heard_ms : 0;

    if (silent >= c->o.dead_after_ms) {
        cluster_break(c, TERN_ERR_PEER,
                      "%s has been silent for %.1f s and counts as dead; is its machine still up?",
                      peer_describe(p).z, (double)silent / 1000.0);
    } else if (silent >= CLUSTER_SUSPECT_MS && !p->suspect) {
        p->suspect = true;
        tern_log(TERN_LOG_INFO, "suspect", "worker=%s silent_ms=%" PRIu64, p->member->name, silent);
    } else if (silent < CLUSTER_SUSPECT_MS && p->suspect) {
        p->suspect = false;
        tern_log(TERN_LOG_INFO, "alive", "worker=%s is heard again", p->member->name);
    }
}

/* The workers answer, but the steps do not get on: computing hangs somewhere, or a step was lost.  The first
 * stage that has not finished the oldest step is where to look. */
static void break_stuck(struct cluster *c, uint64_t ms)
{
    uint64_t step = in_flight(c, 0)->step;

    for (uint32_t i = 0; i < c->spec.n; i++)
        if (c->peers[i].live.steps < step) {
            cluster_break(c, TERN_ERR_PEER,
                          "%s answers but has not finished step %" PRIu64
                          " for %.1f s; is it stuck, or too slow for --step-timeout? restart its ternd and "
                          "see its log",
                          peer_describe(&c->peers[i]).z, step, (double)ms / 1000.0);
            return;
        }
    cluster_break(c, TERN_ERR_PEER,
                  "%s says that step %" PRIu64
                  " is done but has not sent its result for %.1f s; restart its ternd and see its log",
                  peer_describe(&c->peers[c->spec.n - 1]).z, step, (double)ms / 1000.0);
}

void cluster_run_tick(struct cluster *c, uint64_t now)
{
    bool ping = now >= c->next_ping_ms;

    if (c->hold_until_ms && now >= c->hold_until_ms) {
        cluster_break(c, c->hold_error.status, "%s", c->hold_error.text);
        return;
    }
    if (c->leaving && now >= c->leave_until_ms) {
        break_leaving(c, c->leaving);
        return;
    }
    if (c->n_sent > 0 && !c->leaving && c->o.step_timeout_ms > 0 && now > c->progress_ms &&
        now - c->progress_ms >= c->o.step_timeout_ms) {
        break_stuck(c, now - c->progress_ms);
        return;
    }
    if (ping) {
        c->next_ping_ms = now + CLUSTER_PING_MS;
        c->ping_seq++;
    }
    for (uint32_t i = 0; i < c->spec.n && !c->broken; i++) {
        struct cluster_peer *p = &c->peers[i];

        if (p->state < PEER_WELCOMED || p->state == PEER_GONE)
            continue;
        if (ping)
            send_ping(c, p);
        if (!c->broken)
            check_silence(c, p, now);
        if (ping)
            publish(c, p, now);
    }
}

/* -- ends ----------------------------------------------------------------------------------------------- */

void cluster_on_lost(struct cluster *c, struct cluster_peer *p)
{
    if (c->leaving == p) {
        break_leaving(c, p);
        return;
    }
    cluster_break(c, TERN_ERR_PEER, "%s died: connection lost", peer_describe(p).z);
}

void cluster_on_bye(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    if (h->bye->reason != TERN_BYE_DRAINING) {
        p->state = PEER_GONE;
        cluster_break(c, TERN_ERR_PEER, "%s is leaving", peer_describe(p).z);
    } else if (!c->leaving && c->n_sent > 0) {
        tern_log(TERN_LOG_INFO, "leaving", "worker=%s steps_in_flight=%u", p->member->name, c->n_sent);
        c->leaving = p;
        c->leave_until_ms = now + CLUSTER_LEAVE_MS;
    } else {
        break_leaving(c, p);
    }
}

void cluster_on_fault(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    enum tern_status st = TERN_ERR_PEER;

    if (h->fault->status >= TERN_ERR_USAGE && h->fault->status <= TERN_ERR_NUMERIC)
        st = (enum tern_status)h->fault->status;
    /* It has let go of us. */
    p->state = PEER_GONE;
    if (st != TERN_ERR_PEER) {
        cluster_break(c, st, "%s: %s", peer_describe(p).z, h->fault->text);
        return;
    }
    if (c->hold_until_ms)
        return;
    c->hold_until_ms = now + CLUSTER_HOLD_MS;
    (void)TERN_FAIL(&c->hold_error, st, "%s: %s", peer_describe(p).z, h->fault->text);
}
