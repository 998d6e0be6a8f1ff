/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server end of links: a ROUTER that strangers can reach.
 *
 * libzmq's monitor says how each connection fared, but not always which one: a handshake that succeeds or
 * fails has no descriptor in its event, and garbage that looks like the oldest protocol, or a frame too
 * large, ends a connection without any word but DISCONNECTED.  So the descriptors that messages came from are
 * remembered: a connection that ends without having brought one, and without a failed handshake just before,
 * was refused by libzmq itself.
 */
#include "proto/endpoint.h"
#include "proto/link_impl.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define EVENTS                                                                                               \
    (ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |             \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED)
#define MAX_EVENTS_PER_PUMP  1024
#define MAX_REFUSED_PER_RECV 64
/* Connections that wait to be accepted; the system may allow fewer (somaxconn). */
#define BACKLOG 1024
/* Messages read ahead from one peer. */
#define RECEIVE_QUEUE 8
/* Descriptors remembered; those beyond are only counted less exactly. */
#define MAX_FDS      65536
#define LOG_EVERY_MS 10000

struct tern_server {
    void *router;
    bool unsure; /* a send may have taken the news of messages in from the descriptor */
    void *monitor;
    int fds[TERN_SERVER_FDS];
    bool more_events; /* than one pump reads */
    struct tern_zap zap;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    struct tern_server_stats stats;
    uint64_t refused_logged; /* of both kinds, when it was logged last */
    struct tern_log_limit log_limit;
    bool just_failed;  /* the last event was a failed handshake, which DISCONNECTED follows */
    uint64_t n_silent; /* handshakes that succeeded minus descriptors seen with a message */
    uint8_t proven[MAX_FDS / 8];
};

static enum tern_status set_options(void *router, bool ipv6, const struct tern_key *key, struct tern_err *err)
{
    enum tern_status st = tern_link_set_common(router, ipv6, err);

    if (!st)
        st = tern_link_set_int(router, ZMQ_CURVE_SERVER, 1, err);
    if (!st)
        st = tern_link_set_bytes(router, ZMQ_CURVE_SECRETKEY, key->secret_key, TERN_KEY_BYTES, err);
    if (!st)
        st = tern_link_set_bytes(router, ZMQ_ZAP_DOMAIN, TERN_ZAP_DOMAIN, sizeof TERN_ZAP_DOMAIN - 1, err);
    /* Should the handler ever be gone, nobody is let in instead of everybody. */
    if (!st)
        st = tern_link_set_int(router, ZMQ_ZAP_ENFORCE_DOMAIN, 1, err);
    if (!st)
        st = tern_link_set_int(router, ZMQ_ROUTER_MANDATORY, 1, err);
    if (!st)
        st = tern_link_set_int(router, ZMQ_RCVHWM, RECEIVE_QUEUE, err);
    if (!st)
        st = tern_link_set_int(router, ZMQ_BACKLOG, BACKLOG, err);
    return st;
}

static enum tern_status bind_router(struct tern_server *s, const char *endpoint, const char *addr_port,
                                    struct tern_err *err)
{
    size_t n = sizeof s->endpoint;
    int no;

    if (zmq_bind(s->router, endpoint) == 0 &&
        zmq_getsockopt(s->router, ZMQ_LAST_ENDPOINT, s->endpoint, &n) == 0)
        return TERN_OK;
    no = zmq_errno();
    if (no == EADDRINUSE)
        return TERN_FAIL_SYS(
            err, TERN_ERR_IO, no,
            "cannot listen on %s: the port is in use; choose another one, or stop what listens there",
            addr_port);
    if (no == EADDRNOTAVAIL || no == ENODEV)
        return TERN_FAIL_SYS(
            err, TERN_ERR_IO, no,
            "cannot listen on %s: this machine has no such address; 0.0.0.0 and [::] stand for all it has",
            addr_port);
    return TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot listen on %s: %s", addr_port, zmq_strerror(no));
}

/* libzmq has no limit of its own on connections: out of descriptors, its thread tries to accept for ever. */
#define FEW_DESCRIPTORS 4096

static void warn_of_few_descriptors(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < FEW_DESCRIPTORS)
        tern_log(TERN_LOG_WARN, "descriptors",
                 "limit=%llu: so many strangers connecting at once would shut listed peers out; raise it to "
                 "%d (ulimit -Hn, LimitNOFILE=)",
                 (unsigned long long)r.rlim_cur, FEW_DESCRIPTORS);
}

enum tern_status tern_server_open(struct tern_link_context *ctx, const char *addr_port,
                                  const struct tern_key *key, const struct tern_allow *allow,
                                  struct tern_server **out, struct tern_err *err)
{
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    struct tern_server *s;
    enum tern_status st = tern_endpoint_from_listen(addr_port, endpoint, err);

    if (st)
        return st;
    s = calloc(1, sizeof *s);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a server");
    /* First of all: from here on every handshake in this context is asked about. */
    st = tern_zap_open(ctx, allow, &s->zap, err);
    if (!st) {
        s->router = tern_link_socket(ctx, ZMQ_ROUTER);
        if (!s->router)
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot open a socket: %s",
                               zmq_strerror(zmq_errno()));
    }
    if (!st)
        st = set_options(s->router, tern_endpoint_is_ipv6(endpoint), key, err);
    if (!st)
        st = tern_link_monitor_open(ctx, s->router, EVENTS, &s->monitor, err);
    if (!st)
        st = bind_router(s, endpoint, addr_port, err);
    if (st) {
        tern_server_close(&s);
        return st;
    }
    s->fds[0] = tern_link_fd(s->router);
    s->fds[1] = tern_link_fd(s->zap.socket);
    s->fds[2] = tern_link_fd(s->monitor);
    s->unsure = s->more_events = true;
    warn_of_few_descriptors();
    *out = s;
    return TERN_OK;
}

void tern_server_close(struct tern_server **s)
{
    if (!*s)
        return;
    if ((*s)->router) {
        if ((*s)->endpoint[0])
            (void)zmq_unbind((*s)->router, (*s)->endpoint);
        tern_link_monitor_close((*s)->router, &(*s)->monitor);
        zmq_close((*s)->router);
    }
    tern_zap_close(&(*s)->zap);
    free(*s);
    *s = NULL;
}

const char *tern_server_endpoint(const struct tern_server *s)
{
    return s->endpoint;
}

bool tern_server_poll_fds(struct tern_server *s, struct pollfd fds[static TERN_SERVER_FDS])
{
    for (int i = 0; i < TERN_SERVER_FDS; i++)
        fds[i] = (struct pollfd){ .fd = s->fds[i], .events = POLLIN };
    /* POLLOUT says nothing here: there is nearly always room for somebody. */
    if (s->unsure)
        s->unsure = (tern_link_events(s->router) & ZMQ_POLLIN) != 0;
    return s->unsure || s->more_events;
}

static bool is_proven(const struct tern_server *s, uint32_t fd)
{
    return fd < MAX_FDS && s->proven[fd / 8] >> fd % 8 & 1;
}

static void set_proven(struct tern_server *s, uint32_t fd, bool on)
{
    if (fd >= MAX_FDS)
        return;
    if (on)
        s->proven[fd / 8] |= (uint8_t)(1u << fd % 8);
    else
        s->proven[fd / 8] &= (uint8_t) ~(1u << fd % 8);
}

static void on_disconnected(struct tern_server *s, uint32_t fd)
{
    if (s->just_failed)
        return;
    if (is_proven(s, fd)) {
        s->stats.closed++;
        set_proven(s, fd, false);
    } else if (s->n_silent > 0) {
        s->stats.closed++;
        s->n_silent--;
    } else {
        s->stats.refused_protocol++;
    }
}

static void on_event(struct tern_server *s, uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_ACCEPTED: set_proven(s, value, false); break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        s->stats.accepted++;
        s->n_silent++;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL: s->stats.refused_protocol++; break;
    case ZMQ_EVENT_DISCONNECTED: on_disconnected(s, value); break;
    default: break; /* HANDSHAKE_FAILED_AUTH: the ZAP handler has counted it */
    }
    s->just_failed = event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL ||
                     event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL || event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
}

static void log_refused(struct tern_server *s)
{
    uint64_t total = s->stats.refused_key + s->stats.refused_protocol + s->stats.refused_frames, held;

    if (total == s->refused_logged || !tern_log_limit(&s->log_limit, tern_now_ms(), LOG_EVERY_MS, &held))
        return;
    s->refused_logged = total;
    tern_log(TERN_LOG_WARN, "link.refused",
             "unknown_keys=%llu (last from %s) broken_handshakes=%llu bad_frames=%llu",
             (unsigned long long)s->stats.refused_key,
             s->zap.last_address[0] ? s->zap.last_address : "nobody",
             (unsigned long long)s->stats.refused_protocol, (unsigned long long)s->stats.refused_frames);
}

void tern_server_pump(struct tern_server *s)
{
    uint16_t event;
    uint32_t value;

    s->more_events = tern_zap_pump(&s->zap);
    s->stats.refused_key = s->zap.refused;
    for (unsigned i = 0; tern_link_monitor_read(s->monitor, &event, &value); i++) {
        on_event(s, event, value);
        if (i == MAX_EVENTS_PER_PUMP) {
            s->more_events = true;
            break;
        }
    }
    log_refused(s);
}

/* The routing id: TERN_AGAIN when nothing is waiting, TERN_ERR_FORMAT when a peer chose one that is too
 * long. */
static enum tern_status recv_route(struct tern_server *s, struct tern_link_message *m, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    zmq_msg_t id;
    size_t n;

    zmq_msg_init(&id);
    if (zmq_msg_recv(&id, s->router, ZMQ_DONTWAIT) < 0) {
        int no = zmq_errno();

        st = no == EAGAIN || no == EINTR
                 ? TERN_AGAIN
                 : TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot receive: %s", zmq_strerror(no));
    } else {
        n = zmq_msg_size(&id);
        if (n == 0 || n > sizeof m->route) {
            tern_link_drain(s->router);
            st = TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: a routing id of %zu bytes", n);
        } else {
            memcpy(m->route, zmq_msg_data(&id), n);
            m->route_len = n;
        }
    }
    zmq_msg_close(&id);
    return st;
}

/* Whose message it is: what the ZAP handler said about the connection. */
static bool read_sender(struct tern_server *s, struct tern_link_message *m)
{
    const char *user = zmq_msg_gets(&m->header, "User-Id");
    int fd = zmq_msg_get(&m->header, ZMQ_SRCFD);

    if (!user || !tern_key_from_z85(user, strlen(user), m->from_key))
        return false;
    if (fd >= 0 && !is_proven(s, (uint32_t)fd)) {
        tern_server_pump(s); /* its acceptance was told before it said anything */
        set_proven(s, (uint32_t)fd, true);
        if (s->n_silent > 0)
            s->n_silent--;
    }
    return true;
}

static enum tern_status recv_message(struct tern_server *s, struct tern_link_message *m, struct tern_err *err)
{
    enum tern_status st;

    tern_link_message_close(m);
    st = recv_route(s, m, err);
    if (!st)
        st = tern_link_recv_frames(s->router, m, err);
    if (!st && !read_sender(s, m))
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: its sender is not known");
    return st;
}

enum tern_status tern_server_recv(struct tern_server *s, struct tern_link_message *m, struct tern_err *err)
{
    enum tern_status st = TERN_ERR_FORMAT;

    /* A peer that sends nothing but refused messages must not keep us here. */
    for (unsigned i = 0; i < MAX_REFUSED_PER_RECV && st == TERN_ERR_FORMAT; i++) {
        st = recv_message(s, m, err);
        if (st == TERN_ERR_FORMAT)
            s->stats.refused_frames++;
    }
    s->unsure = st != TERN_AGAIN;
    return st;
}

enum tern_status tern_server_send(struct tern_server *s, const uint8_t *route, size_t route_len,
                                  const void *header, size_t header_len, const void *payload,
                                  size_t payload_len, struct tern_err *err)
{
    enum tern_status st;

    s->unsure = true;
    if (zmq_send(s->router, route, route_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) {
        st = tern_link_send_frames(s->router, header, header_len, payload, payload_len, err);
    } else {
        int no = zmq_errno();

        if (no == EAGAIN || no == EINTR)
            st = TERN_AGAIN;
        else if (no == EHOSTUNREACH)
            st = TERN_FAIL_SYS(err, TERN_ERR_PEER, no, "cannot send: the peer has gone");
        else
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot send: %s", zmq_strerror(no));
    }
    return st;
}

const struct tern_server_stats *tern_server_stats(const struct tern_server *s)
{
    return &s->stats;
}
