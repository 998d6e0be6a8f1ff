/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections and the watchdog: whoever lets the server wait too long, at whatever, is shut down.
 *
 * Every wait has a total, so a byte now and then does not prolong it; only a client that takes a long answer
 * is measured by progress, the bytes its system has acknowledged.
 */
#include "coordinator/serve/http_impl.h"
#include "engine/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define TICK_MIN_MS        10
#define TICK_MAX_MS        250
#define CROWDED_TIMEOUT_MS 2000 /* one beyond a limit shall say what it wants, and hear 503 */
#define LINGER_MS          1000
#define LINGER_BYTES       ((size_t)64 << 20)

static struct tcp_info tcp_state(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t len = sizeof info;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        memset(&info, 0, sizeof info);
    return info;
}

static void read_address(struct http_conn *c, const struct sockaddr *sa)
{
    if (sa && sa->sa_family == AF_INET) {
        const struct in_addr *a = &((const struct sockaddr_in *)(const void *)sa)->sin_addr;

        inet_ntop(AF_INET, a, c->peer, sizeof c->peer);
        memcpy(c->address, a, 4);
    } else if (sa && sa->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(a)) {
            inet_ntop(AF_INET, &a->s6_addr[12], c->peer, sizeof c->peer);
            memcpy(c->address, &a->s6_addr[12], 4);
        } else {
            inet_ntop(AF_INET6, a, c->peer, sizeof c->peer);
            memcpy(c->address, a, 8);
            c->address[15] = 6;
        }
    }
}

static uint32_t count_address(const struct http_server *s, const struct http_conn *c)
{
    uint32_t n = 0;

    for (const struct http_conn *i = s->conns; i; i = i->next)
        n += memcmp(i->address, c->address, sizeof c->address) == 0;
    return n;
}

static void begin(struct http_server *s, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *fd, *address;
    struct http_conn *c = calloc(1, sizeof *c);

    *context = c;
    atomic_fetch_add(&s->totals.connections, 1);
    if (!c)
        return; /* its requests are not answered */
    fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    address = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    c->server = s;
    c->fd = fd ? fd->connect_fd : -1;
    c->since_ms = tern_now_ms();
    read_address(c, address ? address->client_addr : NULL);
    pthread_mutex_lock(&s->lock);
    c->next = s->conns;
    if (c->next)
        c->next->prev = c;
    s->conns = c;
    s->n_open++;
    c->crowded = s->n_open > s->o.max_connections || count_address(s, c) > s->o.max_per_client;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void end(struct http_server *s, void **context)
{
    struct http_conn *c = *context;

    if (!c)
        return;
    pthread_mutex_lock(&s->lock);
    if (c->prev)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    s->n_open--;
    pthread_mutex_unlock(&s->lock);
    free(c);
    *context = NULL;
}

void http_conn_notify(void *server, struct MHD_Connection *mhd, void **context,
                      enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        begin(server, mhd, context);
    else
        end(server, context);
}

struct http_conn *http_conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

void http_conn_phase(struct http_conn *c, enum http_phase phase)
{
    uint64_t acked = phase == HTTP_SENDING ? tcp_state(c->fd).tcpi_bytes_acked : 0;

    pthread_mutex_lock(&c->server->lock);
    c->phase = phase;
    c->since_ms = tern_now_ms();
    c->acked = acked;
    if (phase == HTTP_WAITING)
        c->route[0] = '\0';
    else
        c->used = true;
    pthread_mutex_unlock(&c->server->lock);
}

void http_conn_target(struct http_conn *c, const char *target)
{
    const size_t len = strcspn(target, "?"), n = len < sizeof c->route ? len : sizeof c->route - 1;

    http_conn_phase(c, HTTP_HEADER);
    pthread_mutex_lock(&c->server->lock);
    memcpy(c->route, target, n);
    c->route[n] = '\0';
    pthread_mutex_unlock(&c->server->lock);
}

bool http_conn_hung_up(const struct http_conn *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

unsigned http_conn_crowd(struct http_conn *c, struct tern_err *err)
{
    struct http_server *s = c->server;
    unsigned status = 0;

    pthread_mutex_lock(&s->lock);
    if (c->crowded && s->n_open > s->o.max_connections)
        status = 503;
    else if (c->crowded && count_address(s, c) > s->o.max_per_client)
        status = 429;
    else
        c->crowded = false;
    pthread_mutex_unlock(&s->lock);
    if (status == 429)
        (void)TERN_FAIL(err, TERN_ERR_LIMIT, "one client may have %u connections at once; try again later",
                        s->o.max_per_client);
    else if (status)
        (void)TERN_FAIL(err, TERN_ERR_BUSY, "the server has its %u connections; try again later",
                        s->o.max_connections);
    return status;
}

/* What does not fit into the socket's buffer at once is lost. */
static bool say(struct http_conn *c, struct MHD_Connection *mhd, const struct http_text *all)
{
    const union MHD_ConnectionInfo *tls =
        mhd ? MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;

    if (!c->server->o.tls_cert)
        return send(c->fd, all->ptr, all->len, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    return tls && tls->tls_session && gnutls_record_send(tls->tls_session, all->ptr, all->len) > 0;
}

void http_conn_farewell(struct http_conn *c, struct MHD_Connection *mhd, unsigned status, const char *message)
{
    struct http_text body = { 0 }, all = { 0 };
    const char *type = "text/plain; charset=utf-8";

    http_reply_build_error(c->server, status, *c->route ? c->route : NULL, message, &body, &type);
    http_text_addf(&all,
                   "HTTP/1.1 %u %s\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n"
                   "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                   status, MHD_get_reason_phrase_for(status), type, body.len);
    http_text_add(&all, body.ptr, body.len);
    if (!all.failed && say(c, mhd, &all))
        atomic_fetch_add(&c->server->totals.bytes_out, body.len);
    http_text_free(&body);
    http_text_free(&all);
}

void http_conn_linger(struct http_conn *c)
{
    uint64_t until = tern_now_ms() + LINGER_MS, now;
    size_t left = LINGER_BYTES;
    char waste[16384];

    if (!c->server->o.tls_cert)
        (void)shutdown(c->fd, SHUT_WR);
    while ((now = tern_now_ms()) < until && left >= sizeof waste && !atomic_load(&c->server->closing)) {
        struct pollfd p = { .fd = c->fd, .events = POLLIN };
        ssize_t got;

        if (poll(&p, 1, (int)(until - now)) <= 0)
            continue;
        got = recv(c->fd, waste, sizeof waste, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return;
        if (got > 0)
            left -= (size_t)got;
    }
}

/* How long the connection may stay as it is; 0: for ever. */
static uint32_t patience(const struct http_server *s, const struct http_conn *c)
{
    switch (c->phase) {
    case HTTP_WAITING:
        if (c->used)
            return atomic_load(&s->draining) ? 1 : s->o.idle_timeout_ms;
        if (c->crowded && CROWDED_TIMEOUT_MS < s->o.header_timeout_ms)
            return CROWDED_TIMEOUT_MS;
        return s->o.header_timeout_ms;
    case HTTP_HEADER: return s->o.header_timeout_ms;
    case HTTP_BODY: return s->o.body_timeout_ms;
    case HTTP_WORK: return 0;
    case HTTP_SENDING: return s->o.send_timeout_ms;
    }
    return 0;
}

static void watch(struct http_server *s, struct http_conn *c, uint64_t now)
{
    uint32_t most = patience(s, c);
    struct tcp_info info;
    bool asked;

    if (c->cut || most == 0)
        return;
    if (c->phase == HTTP_SENDING) {
        info = tcp_state(c->fd);
        if (info.tcpi_bytes_acked != c->acked) {
            c->acked = info.tcpi_bytes_acked;
            c->since_ms = now;
        }
    }
    if (now < c->since_ms + most)
        return;
    asked = c->phase == HTTP_HEADER || c->phase == HTTP_BODY ||
            (c->phase == HTTP_WAITING && !c->used && tcp_state(c->fd).tcpi_bytes_received > 0);
    if (asked)
        http_conn_farewell(c, NULL, 408,
                           c->phase == HTTP_BODY ? "the body of the request did not come in time"
                                                 : "the header of the request did not come in time");
    if (asked || c->phase == HTTP_SENDING || !c->used) {
        atomic_fetch_add(&s->totals.timeouts, 1);
        tern_log(TERN_LOG_DEBUG, "http.timeout", "peer=%s while=%s", c->peer,
                 c->phase == HTTP_SENDING ? "sending"
                 : c->phase == HTTP_BODY  ? "body"
                                          : "header");
    }
    (void)shutdown(c->fd, SHUT_RDWR);
    c->cut = true;
}

/* An eighth of the shortest patience. */
static uint32_t tick_of(const struct http_options *o)
{
    uint32_t all[] = { o->header_timeout_ms, o->body_timeout_ms, o->idle_timeout_ms, o->send_timeout_ms };
    uint32_t tick = TICK_MAX_MS;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] / 8 < tick)
            tick = all[i] / 8;
    return tick < TICK_MIN_MS ? TICK_MIN_MS : tick;
}

void *http_conn_watch(void *server)
{
    struct http_server *s = server;
    uint32_t tick = tick_of(&s->o);

    pthread_mutex_lock(&s->lock);
    while (!s->ended) {
        struct timespec ts;
        uint64_t now = tern_now_ns();

        for (struct http_conn *c = s->conns; c; c = c->next)
            watch(s, c, now / 1000000u);
        if (!s->conns) {
            pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        now += tick * (uint64_t)1000000u;
        ts.tv_sec = (time_t)(now / 1000000000u);
        ts.tv_nsec = (long)(now % 1000000000u);
        while (!s->ended && pthread_cond_timedwait(&s->wake, &s->lock, &ts) == 0)
            ;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void http_conn_cut(struct http_server *s, bool all)
{
    pthread_mutex_lock(&s->lock);
    for (struct http_conn *c = s->conns; c; c = c->next)
        if (!c->cut && (all || (c->phase == HTTP_WAITING && c->used))) {
            (void)shutdown(c->fd, SHUT_RDWR);
            c->cut = true;
        }
    pthread_mutex_unlock(&s->lock);
}
