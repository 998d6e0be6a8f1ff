/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one poll: the ROUTER all peers talk to, the DEALER to the next worker, the compute and loading
 * threads' queues, signals and the lifeline.
 */
#include "worker/worker_loop.h"

#include "worker/worker.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define MESSAGES_PER_TURN 64 /* then handshakes and clocks get their turn */

struct loop {
    const struct worker_loop_options *o;
    struct tern_link_context *ctx;
    struct tern_server *server;
    struct tern_client *next; /* NULL: none */
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
    return tern_client_open(l->ctx, endpoint, l->o->key, key, &l->next, err);
}

static enum tern_client_state net_next_state(void *impl)
{
    struct loop *l = impl;

    return l->next ? tern_client_pump(l->next) : TERN_CLIENT_LOST;
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

/* Whose being readable only ends the poll: the state machine looks at its queues itself. */
static int fill_items(const struct loop *l, zmq_pollitem_t *items)
{
    int fds[WORKER_MAX_FDS], n_fds = worker_fds(l->worker, fds), n = 0;

    items[n++] = (zmq_pollitem_t){ .fd = l->o->signal_fd, .events = ZMQ_POLLIN };
    if (l->o->config->lifeline_fd >= 0)
        items[n++] = (zmq_pollitem_t){ .fd = l->o->config->lifeline_fd, .events = ZMQ_POLLIN };
    for (int i = 0; i < n_fds; i++)
        items[n++] = (zmq_pollitem_t){ .fd = fds[i], .events = ZMQ_POLLIN };
    tern_server_poll_items(l->server, items + n);
    n += TERN_SERVER_POLL_ITEMS;
    if (l->next) {
        tern_client_poll_items(l->next, items + n);
        if (l->worker->blocked_next)
            items[n].events |= ZMQ_POLLOUT;
        n += TERN_CLIENT_POLL_ITEMS;
    }
    return n;
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
static void watch_lifeline(struct loop *l, short events)
{
    char byte[64];
    ssize_t n;

    if (!events)
        return;
    n = read(l->o->config->lifeline_fd, byte, sizeof byte);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        l->lifeline_ended = true;
}

static enum tern_status turn(struct loop *l, struct tern_err *err)
{
    zmq_pollitem_t items[2 + WORKER_MAX_FDS + TERN_SERVER_POLL_ITEMS + TERN_CLIENT_POLL_ITEMS];
    int n = fill_items(l, items);

    if (zmq_poll(items, n, worker_wait_ms(l->worker)) < 0 && errno != EINTR)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot wait for messages: %s", zmq_strerror(errno));
    worker_clock(l->worker, tern_now_ms());
    worker_watch_list(l->worker);
    tern_server_pump(l->server);
    if (items[0].revents)
        take_signals(l);
    if (l->o->config->lifeline_fd >= 0)
        watch_lifeline(l, items[1].revents);
    take_messages(l);
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
    const struct worker_net net = {
        &l,           net_reply,     net_next_open, net_next_close, net_next_state,
        net_next_why, net_next_send, net_n_refused
    };
    enum tern_status st = open_all(&l, &net, err);

    if (!st)
        o->on_listening(o->arg, tern_server_endpoint(l.server));
    while (!st && !l.lifeline_ended && !l.worker->done)
        st = turn(&l, err);
    net_next_close(&l);
    if (l.server)
        tern_server_close(&l.server);
    if (l.ctx)
        tern_link_context_free(&l.ctx);
    /* Peers know by now; a load or a long step may still have to end. */
    worker_free(&l.worker);
    return st;
}
