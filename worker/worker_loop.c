/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one poll: the ROUTER all peers talk to, the DEALER to the next worker, the compute and loading
 * threads' queues, signals and the lifeline.
 */
#include "worker/worker_loop.h"

#include "worker/worker.h"

#include "engine/base/thread.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define MESSAGES_PER_TURN 64 /* then handshakes and clocks get their turn */
#define PUMP_MS           40

struct loop {
    const struct worker_loop_options *o;
    struct tern_link_context *ctx;
    struct tern_server *server;
    struct tern_client *next;        /* NULL: none */
    enum tern_client_state next_was; /* when it was looked at last */
    bool look_at_next;
    uint64_t pumped_ms;
    struct worker *worker;
    bool lifeline_ended;
};

/* -- struct worker_net over link.h ----------------------------------------------------------------------- */

static enum tern_status net_reply(void *impl, const uint8_t *route, size_t route_len, const void *header,
                                  size_t header_len, const void *payload, size_t payload_len,
                                  struct tern_err *err)
{
    struct loop *l = impl;

    return tern_server_send(l->server, route, route_len, header, header_len, payload, payload_len, err);
}

static void net_next_close(void *impl)
{
    struct loop *l = impl;

    if (l->next)
        tern_client_close(&l->next);
}

static enum tern_status net_next_open(void *impl, const char *endpoint, const uint8_t *key,
                                      struct tern_err *err)
{
    struct loop *l = impl;

    net_next_close(l);
    l->next_was = TERN_CLIENT_CONNECTING;
    return tern_client_open(l->ctx, endpoint, l->o->key, key, &l->next, err);
}

static enum tern_client_state net_next_state(void *impl)
{
    struct loop *l = impl;

    if (!l->next)
        return TERN_CLIENT_LOST;
    if (l->look_at_next)
        l->next_was = tern_client_pump(l->next);
    return l->next_was;
}

static const char *net_next_why(void *impl)
{
    struct loop *l = impl;

    return l->next ? tern_client_why(l->next) : "it was closed";
}

static enum tern_status net_next_send(void *impl, const void *header, size_t header_len, const void *payload,
                                      size_t payload_len, struct tern_err *err)
{
    struct loop *l = impl;

    if (!l->next)
        return TERN_FAIL(err, TERN_ERR_PEER, "there is no link to the next worker");
    return tern_client_send(l->next, header, header_len, payload, payload_len, err);
}

static uint64_t net_n_refused(void *impl)
{
    const struct tern_server_stats *s = tern_server_stats(((struct loop *)impl)->server);

    return s->refused_key + s->refused_protocol + s->refused_frames;
}

/* -- turning --------------------------------------------------------------------------------------------- */

/* The places in what is polled. */
struct places {
    struct pollfd fds[2 + WORKER_MAX_FDS + TERN_SERVER_FDS + TERN_CLIENT_FDS];
    nfds_t n;
    nfds_t lifeline, server, next; /* 0: none */
    bool unsure;                   /* do not wait */
};

/* The worker's own descriptors only end the poll: the state machine looks at its queues itself. */
static void fill_places(const struct loop *l, struct places *p)
{
    int fds[WORKER_MAX_FDS], n_fds = worker_fds(l->worker, fds);

    memset(p, 0, sizeof *p);
    p->fds[p->n++] = (struct pollfd){ .fd = l->o->signal_fd, .events = POLLIN };
    if (l->o->config->lifeline_fd >= 0) {
        p->lifeline = p->n;
        p->fds[p->n++] = (struct pollfd){ .fd = l->o->config->lifeline_fd, .events = POLLIN };
    }
    for (int i = 0; i < n_fds; i++)
        p->fds[p->n++] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    p->server = p->n;
    p->unsure = tern_server_poll_fds(l->server, &p->fds[p->n]);
    p->n += TERN_SERVER_FDS;
    if (l->next) {
        p->next = p->n;
        p->unsure = tern_client_poll_fds(l->next, &p->fds[p->n]) || p->unsure;
        p->n += TERN_CLIENT_FDS;
    }
}

/* The next worker says nothing to us; what comes all the same is thrown away, so that it cannot pile up. */
static void discard_from_next(struct loop *l)
{
    for (int i = 0; l->next && i < MESSAGES_PER_TURN; i++) {
        struct tern_link_message m;
        enum tern_status st;

        tern_link_message_init(&m);
        st = tern_client_recv(l->next, &m, NULL);
        tern_link_message_close(&m);
        if (st)
            return;
    }
}

static void take_messages(struct loop *l)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        struct tern_link_message m;
        struct tern_err err;
        enum tern_status st;

        tern_link_message_init(&m);
        st = tern_server_recv(l->server, &m, &err);
        if (st == TERN_OK) {
            struct worker_mail mail = { .header = zmq_msg_data(&m.header),
                                        .header_len = zmq_msg_size(&m.header),
                                        .payload = m.has_payload ? zmq_msg_data(&m.payload) : NULL,
                                        .payload_len = m.has_payload ? zmq_msg_size(&m.payload) : 0,
                                        .has_payload = m.has_payload,
                                        .from_key = m.from_key,
                                        .route = m.route,
                                        .route_len = m.route_len };

            worker_take(l->worker, &mail);
        }
        tern_link_message_close(&m);
        if (st == TERN_AGAIN)
            return;
        if (st)
            tern_log_err("receive", &err);
    }
}

static void take_signals(struct loop *l)
{
    struct signalfd_siginfo info;

    while (read(l->o->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        tern_log(TERN_LOG_INFO, "draining", "signal=%s", strsignal((int)info.ssi_signo));
        l->o->on_draining(l->o->arg);
        worker_drain(l->worker);
    }
}

/* Nothing is ever said on a lifeline; its end is the message. */
static void watch_lifeline(struct loop *l)
{
    char byte[64];
    ssize_t n;

    n = read(l->o->config->lifeline_fd, byte, sizeof byte);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        l->lifeline_ended = true;
}

/* A step that has come is on its way to the compute thread first of all; what costs system calls and is
 * seldom due is looked at when its descriptor says so, and now and then. */
static enum tern_status turn(struct loop *l, struct tern_err *err)
{
    struct places p;
    const struct pollfd *server;
    bool pump;

    fill_places(l, &p);
    if (poll(p.fds, p.n, p.unsure ? 0 : worker_wait_ms(l->worker)) < 0 && errno != EINTR)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot wait for messages: %s", strerror(errno));
    worker_clock(l->worker, tern_now_ms());
    pump = l->worker->now_ms - l->pumped_ms >= PUMP_MS;
    if (pump)
        l->pumped_ms = l->worker->now_ms;
    server = &p.fds[p.server];
    l->look_at_next = pump || (p.next && p.fds[p.next + 1].revents);
    worker_watch_list(l->worker);
    if (pump || server[1].revents || server[2].revents)
        tern_server_pump(l->server);
    if (p.fds[0].revents)
        take_signals(l);
    if (p.lifeline && p.fds[p.lifeline].revents)
        watch_lifeline(l);
    take_messages(l);
    if (p.next && (p.unsure || p.fds[p.next].revents))
        discard_from_next(l);
    worker_turn(l->worker);
    worker_tick(l->worker);
    return TERN_OK;
}

static enum tern_status open_all(struct loop *l, const struct worker_net *net, struct tern_err *err)
{
    const struct worker_loop_options *o = l->o;
    struct worker_options wo = { .name = o->config->name,
                                 .file = o->file,
                                 .kern = o->kern,
                                 .pool = o->pool,
                                 .layout = o->layout,
                                 .memory_limit = o->config->memory_limit,
                                 .allow = o->allow,
                                 .net = net };
    enum tern_status st = tern_link_context_new(&l->ctx, err);

    if (!st)
        st = tern_server_open(l->ctx, o->config->listen, o->key, o->allow, &l->server, err);
    if (!st)
        st = worker_new(&wo, &l->worker, err);
    return st;
}

enum tern_status worker_loop_run(const struct worker_loop_options *o, struct tern_err *err)
{
    struct loop l = { .o = o };
    const struct worker_net net = { &l,
                                    net_reply,
                                    net_next_open,
                                    net_next_close,
                                    net_next_state,
                                    net_next_why,
                                    net_next_send,
                                    net_n_refused,
                                    true };
    enum tern_status st = open_all(&l, &net, err);

    tern_thread_set_kind(TERN_THREAD_BRIEF);
    if (!st)
        o->on_listening(o->arg, tern_server_endpoint(l.server));
    while (!st && !l.lifeline_ended && !l.worker->done)
        st = turn(&l, err);
    if (l.worker)
        worker_shut(l.worker);
    net_next_close(&l);
    if (l.server)
        tern_server_close(&l.server);
    if (l.ctx)
        tern_link_context_free(&l.ctx);
    /* Peers know by now; a load or a long step may still have to end. */
    worker_free(&l.worker);
    return st;
}
