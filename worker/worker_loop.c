/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one poll: the ROUTER all peers talk to, the DEALER to the next worker, the compute and loading
 * threads' queues, signals and the lifeline.
 *
 * Beside it, an idle compute thread waits for the ROUTER's messages (worker.h).  Of news both would be told;
 * but each has an epoll descriptor that asks for them exclusively, and of those the kernel serves the one
 * that was made first, the compute thread's, as long as that waits.  It is a hint only: both look for
 * messages whenever they are awake, and the loop thread wakes up often.  While the compute thread looks again
 * and again instead of waiting, the loop thread is not told at all.
 */
#include "worker/worker_loop.h"

#include "worker/worker.h"

#include "engine/base/thread.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define MESSAGES_PER_TURN 64 /* then handshakes and clocks get their turn */
#define PUMP_MS           40
#define MORE_MS           1 /* that an idle compute thread leaves the lock alone for */

struct loop {
    const struct worker_loop_options *o;
    int idle_fd; /* epoll, an idle compute thread's: the ROUTER and the bell */
    int news_fd; /* epoll, the loop thread's: the ROUTER */
    int bell;    /* eventfd */
    int router;  /* the ROUTER's news: ZMQ_FD, the context's */

    pthread_mutex_t lock;       /* of what follows */
    struct tern_queue *idle_in; /* an idle compute thread waits for it, or for messages; or NULL */
    bool rung;
    bool untold; /* news_fd does not watch the ROUTER */
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

/* -- taking messages, by the loop thread or by an idle compute thread ------------------------------------ */

/* True: there may be more. */
static bool take_messages(struct loop *l)
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
            return false;
        /* Nothing but messages of the wrong form for a while: they are counted and logged where they are. */
        if (st == TERN_ERR_FORMAT)
            return true;
        if (st)
            tern_log_err("receive", &err);
    }
    return true;
}

/* Whether the loop thread is told of messages.  When the system has no room for the asking, it is tried again
 * behind the next message; at the end the ROUTER may be gone. */
static void tell_loop(struct loop *l, bool on)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLEXCLUSIVE };

    if (l->untold == on && epoll_ctl(l->news_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, l->router, &e) == 0)
        l->untold = !on;
}

static bool net_take(void *impl)
{
    struct loop *l = impl;
    bool more;

    worker_clock(l->worker, tern_now_ms());
    more = take_messages(l);
    tell_loop(l, true);
    return more;
}

/* Other threads that this CPU could run come first. */
static void look_until(const struct loop *l, uint64_t ns)
{
    struct epoll_event e;

    while (epoll_wait(l->idle_fd, &e, 1, 0) == 0 && tern_now_ns() < ns)
        sched_yield();
}

static void net_wait(void *impl, struct tern_queue *in, bool more, uint64_t awake_ns)
{
    struct loop *l = impl;
    bool awake = !more && tern_now_ns() < awake_ns;
    struct epoll_event e;
    uint64_t n;

    l->idle_in = in;
    if (awake)
        tell_loop(l, false);
    pthread_mutex_unlock(&l->lock);
    /* Whatever ends it, the caller looks at everything. */
    if (awake)
        look_until(l, awake_ns);
    else if (more)
        (void)poll(NULL, 0, MORE_MS);
    else
        (void)epoll_wait(l->idle_fd, &e, 1, -1);
    pthread_mutex_lock(&l->lock);
    l->idle_in = NULL;
    if (!l->rung)
        return;
    TERN_BUG_IF(read(l->bell, &n, sizeof n) != (ssize_t)sizeof n);
    l->rung = false;
    tell_loop(l, true); /* the caller may be shut, and take nothing any more */
}

/* The bell tells an idle compute thread that its queue is ready. */
static void wake_compute(struct loop *l)
{
    const uint64_t one = 1;

    if (!l->idle_in || l->rung || !tern_queue_ready(l->idle_in))
        return;
    l->rung = true;
    /* An eventfd that counts 0 or 1 cannot block or overflow. */
    TERN_BUG_IF(write(l->bell, &one, sizeof one) != (ssize_t)sizeof one);
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
    p->fds[p->n].fd = l->news_fd;
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
    int wait_ms, n;
    bool pump;

    fill_places(l, &p);
    wait_ms = p.unsure ? 0 : worker_wait_ms(l->worker);
    pthread_mutex_unlock(&l->lock);
    n = poll(p.fds, p.n, wait_ms);
    pthread_mutex_lock(&l->lock);
    if (n < 0 && errno != EINTR)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot wait for messages: %s", strerror(errno));
    worker_clock(l->worker, tern_now_ms());
    pump = l->worker->now_ms - l->pumped_ms >= PUMP_MS;
    if (pump)
        l->pumped_ms = l->worker->now_ms;
    server = &p.fds[p.server];
    l->look_at_next = pump || (p.next && p.fds[p.next + 1].revents);
    worker_watch_list(l->worker);
    if (pump || p.unsure || server[1].revents || server[2].revents)
        tern_server_pump(l->server);
    if (p.fds[0].revents)
        take_signals(l);
    if (p.lifeline && p.fds[p.lifeline].revents)
        watch_lifeline(l);
    (void)take_messages(l);
    if (p.next && (p.unsure || p.fds[p.next].revents))
        discard_from_next(l);
    worker_turn(l->worker);
    worker_tick(l->worker);
    wake_compute(l);
    return TERN_OK;
}

static enum tern_status watch(int *epoll, int fd, uint32_t events, struct tern_err *err)
{
    struct epoll_event e = { .events = events };

    if (*epoll < 0)
        *epoll = epoll_create1(EPOLL_CLOEXEC);
    if (*epoll < 0 || epoll_ctl(*epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot wait for messages: %s", strerror(errno));
    return TERN_OK;
}

/* The idle compute thread's descriptor first: see above. */
static enum tern_status open_waits(struct loop *l, struct tern_err *err)
{
    struct pollfd fds[TERN_SERVER_FDS];
    enum tern_status st;

    (void)tern_server_poll_fds(l->server, fds);
    l->router = fds[0].fd;
    l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    st = watch(&l->idle_fd, l->router, EPOLLIN | EPOLLEXCLUSIVE, err);
    if (!st)
        st = watch(&l->idle_fd, l->bell, EPOLLIN, err);
    if (!st)
        st = watch(&l->news_fd, l->router, EPOLLIN | EPOLLEXCLUSIVE, err);
    return st;
}

static void close_waits(struct loop *l)
{
    const int fds[] = { l->idle_fd, l->news_fd, l->bell };

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
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
        st = open_waits(l, err);
    if (!st)
        st = worker_new(&wo, &l->worker, err);
    return st;
}

enum tern_status worker_loop_run(const struct worker_loop_options *o, struct tern_err *err)
{
    struct loop l = { .o = o, .idle_fd = -1, .news_fd = -1, .bell = -1, .lock = PTHREAD_MUTEX_INITIALIZER };
    const struct worker_net net = { .impl = &l,
                                    .reply = net_reply,
                                    .next_open = net_next_open,
                                    .next_close = net_next_close,
                                    .next_state = net_next_state,
                                    .next_why = net_next_why,
                                    .next_send = net_next_send,
                                    .n_refused = net_n_refused,
                                    .lock = &l.lock,
                                    .take = net_take,
                                    .wait = net_wait };
    enum tern_status st = open_all(&l, &net, err);

    pthread_mutex_lock(&l.lock);
    tern_thread_set_kind(TERN_THREAD_BRIEF);
    if (!st)
        o->on_listening(o->arg, tern_server_endpoint(l.server));
    while (!st && !l.lifeline_ended && !l.worker->done)
        st = turn(&l, err);
    if (l.worker)
        worker_shut(l.worker);
    wake_compute(&l);
    pthread_mutex_unlock(&l.lock);
    net_next_close(&l);
    if (l.server)
        tern_server_close(&l.server);
    if (l.ctx)
        tern_link_context_free(&l.ctx);
    /* Peers know by now; a load or a long step may still have to end. */
    worker_free(&l.worker);
    close_waits(&l);
    pthread_mutex_destroy(&l.lock);
    return st;
}
