/* SPDX-License-Identifier: Apache-2.0 */
/* See delay_relay.h. */
#include "lab/delay_relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIECES 8192  /* of one direction */
#define MAX_READ   65536 /* bytes at a time */

enum end { END_NOT, END_CLOSED, END_RESET };

struct piece {
    uint64_t due_ns;
    uint32_t n; /* bytes; 0: the end */
    enum end end;
};

/* One direction of one connection. */
struct way {
    struct delay_shape *shape;
    uint64_t *count;
    uint8_t *bytes; /* ring */
    size_t cap, head, n;
    struct piece *pieces; /* ring of MAX_PIECES */
    uint32_t first, n_pieces;
    uint64_t last_ns; /* when the last piece is due */
    bool ended;       /* its end has been read */
    bool over;        /* ... and handed on */
    bool blocked;     /* the receiver takes no more for now */
};

struct side {
    struct delay_conn *conn;
    int fd;
    uint32_t watched; /* epoll events; 0: not in the set */
};

struct delay_conn {
    struct delay_conn *next;
    struct side sides[2]; /* who connected, and whom we connected to */
    struct way ways[2];   /* ways[i] reads sides[i] */
    bool connecting, dead;
};

uint64_t delay_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* -- connections ----------------------------------------------------------------------------------------- */

static void conn_free(struct delay_conn *c)
{
    const struct linger reset = { 1, 0 };

    for (int i = 0; i < 2; i++) {
        if (c->sides[i].fd >= 0) {
            if (c->dead)
                setsockopt(c->sides[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(c->sides[i].fd);
        }
        free(c->ways[i].bytes);
        free(c->ways[i].pieces);
    }
    free(c);
}

static struct delay_conn *conn_new(struct delay_relay *r, struct delay_link *l, int fd)
{
    struct delay_conn *c = calloc(1, sizeof *c);

    if (!c) {
        close(fd);
        return NULL;
    }
    c->sides[0] = (struct side){ c, fd, 0 };
    c->sides[1] = (struct side){ c, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 0 };
    for (int i = 0; i < 2; i++) {
        struct way *w = &c->ways[i];

        w->shape = &l->shape[i];
        w->count = &l->bytes[i];
        w->cap = r->buffer_bytes;
        w->bytes = malloc(w->cap);
        w->pieces = malloc(MAX_PIECES * sizeof *w->pieces);
        if (!w->bytes || !w->pieces || c->sides[i].fd < 0) {
            conn_free(c);
            return NULL;
        }
    }
    return c;
}

static void take_connections(struct delay_relay *r, struct delay_link *l)
{
    const int one = 1;
    int fd;

    while ((fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct delay_conn *c = conn_new(r, l, fd);

        if (!c)
            continue;
        l->n_connections++;
        for (int i = 0; i < 2; i++)
            setsockopt(c->sides[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->connecting = true;
        if (connect(c->sides[1].fd, (const struct sockaddr *)&l->to, sizeof l->to) && errno != EINPROGRESS)
            c->dead = true;
        c->next = r->conns;
        r->conns = c;
    }
}

/* -- one direction --------------------------------------------------------------------------------------- */

static void add_piece(struct way *w, uint64_t now, uint32_t n, enum end end)
{
    w->last_ns = delay_shape_due(w->shape, now, w->last_ns, n);
    w->pieces[(w->first + w->n_pieces++) % MAX_PIECES] = (struct piece){ w->last_ns, n, end };
}

static uint32_t piece_bytes(const struct way *w)
{
    return w->shape->spec.rate ? DELAY_PIECE : MAX_READ;
}

/* Room for whatever one read may bring, and for the end. */
static bool has_room(const struct way *w)
{
    return !w->ended && w->n < w->cap && w->n_pieces + MAX_READ / DELAY_PIECE + 2 < MAX_PIECES;
}

static void way_read(struct way *w, int fd, uint64_t now)
{
    const size_t tail = (w->head + w->n) % w->cap;
    size_t room = tail < w->head ? w->head - tail : w->cap - tail;
    ssize_t got;

    if (!has_room(w))
        return;
    got = recv(fd, w->bytes + tail, room < MAX_READ ? room : MAX_READ, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        add_piece(w, now, 0, got ? END_RESET : END_CLOSED);
        w->ended = true;
        return;
    }
    w->n += (size_t)got;
    *w->count += (uint64_t)got;
    for (size_t left = (size_t)got; left;) {
        uint32_t n = left < piece_bytes(w) ? (uint32_t)left : piece_bytes(w);

        add_piece(w, now, n, END_NOT);
        left -= n;
    }
}

/* Bytes that are due and lie in one stretch. */
static size_t due_bytes(const struct way *w, uint64_t now)
{
    size_t n = 0;

    for (uint32_t i = 0; i < w->n_pieces; i++) {
        const struct piece *p = &w->pieces[(w->first + i) % MAX_PIECES];

        if (p->due_ns > now || p->end || w->head + n >= w->cap)
            break;
        n += p->n;
    }
    return w->head + n > w->cap ? w->cap - w->head : n;
}

static void drop_bytes(struct way *w, size_t n)
{
    w->n -= n;
    w->head = w->n ? (w->head + n) % w->cap : 0;
    while (n) {
        struct piece *p = &w->pieces[w->first];
        uint32_t k = n < p->n ? (uint32_t)n : p->n;

        p->n -= k;
        n -= k;
        if (p->n == 0) {
            w->first = (w->first + 1) % MAX_PIECES;
            w->n_pieces--;
        }
    }
}

/* Hands on what is due.  False: the connection is broken. */
static bool way_write(struct way *w, int fd, uint64_t now)
{
    while (w->n_pieces && w->pieces[w->first].due_ns <= now && !w->over) {
        size_t n = due_bytes(w, now);
        ssize_t sent;

        if (w->pieces[w->first].end == END_RESET)
            return false;
        if (w->pieces[w->first].end == END_CLOSED) {
            w->over = true;
            return shutdown(fd, SHUT_WR) == 0;
        }
        sent = send(fd, w->bytes + w->head, n, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            w->blocked = true;
            return true;
        }
        if (sent <= 0)
            return false;
        drop_bytes(w, (size_t)sent);
    }
    return true;
}

/* -- the loop -------------------------------------------------------------------------------------------- */

static void on_side(struct side *s, uint32_t events, uint64_t now)
{
    struct delay_conn *c = s->conn;
    const int i = s == &c->sides[1];
    int error = 0;
    socklen_t len = sizeof error;

    if (c->connecting && i == 1) {
        if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) || error)
            c->dead = true;
        c->connecting = false;
        return;
    }
    if (events & EPOLLOUT)
        c->ways[!i].blocked = false;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        way_read(&c->ways[i], s->fd, now);
}

static void watch(struct delay_relay *r, struct side *s, uint32_t events)
{
    struct epoll_event e = { events, { .ptr = s } };

    if (events == s->watched)
        return;
    epoll_ctl(r->epoll, !events ? EPOLL_CTL_DEL : s->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &e);
    s->watched = events;
}

/* Sends what is due and says what to wait for: *next is when this connection wants to be looked at again. */
static void conn_go_on(struct delay_relay *r, struct delay_conn *c, uint64_t now, uint64_t *next)
{
    uint32_t events[2] = { 0, 0 };

    if (c->connecting) {
        watch(r, &c->sides[1], EPOLLOUT);
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct way *w = &c->ways[i];
        uint64_t at = delay_shape_read_at(w->shape);

        if (!c->dead && !w->blocked && !way_write(w, c->sides[!i].fd, now))
            c->dead = true;
        if (w->n_pieces && !w->over && !w->blocked && w->pieces[w->first].due_ns < *next)
            *next = w->pieces[w->first].due_ns;
        if (w->blocked)
            events[!i] |= EPOLLOUT;
        if (has_room(w) && at <= now)
            events[i] |= EPOLLIN;
        else if (has_room(w) && at < *next)
            *next = at;
    }
    for (int i = 0; i < 2 && !c->dead; i++)
        watch(r, &c->sides[i], events[i]);
}

static void set_timer(const struct delay_relay *r, uint64_t at)
{
    struct itimerspec t = { { 0, 0 }, { 0, 0 } };

    if (at != UINT64_MAX) { /* 0 would stop it */
        t.it_value.tv_sec = (time_t)(at / 1000000000u);
        t.it_value.tv_nsec = (long)(at % 1000000000u) + (at == 0);
    }
    timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void go_on(struct delay_relay *r)
{
    const uint64_t now = delay_now_ns();
    uint64_t next = UINT64_MAX;

    for (struct delay_conn **at = &r->conns; *at;) {
        struct delay_conn *c = *at;

        if (!c->dead)
            conn_go_on(r, c, now, &next);
        if (c->dead || (c->ways[0].over && c->ways[1].over)) {
            *at = c->next;
            conn_free(c);
        } else {
            at = &c->next;
        }
    }
    set_timer(r, next);
}

void delay_relay_run(struct delay_relay *r)
{
    struct epoll_event events[64];

    for (;;) {
        int n = epoll_wait(r->epoll, events, 64, -1);
        uint64_t now = delay_now_ns(), drain;

        for (int i = 0; i < n; i++) {
            void *p = events[i].data.ptr;

            if (p == r->stop)
                return;
            if (p == &r->timer) {
                if (read(r->timer, &drain, sizeof drain) < 0 && errno != EAGAIN)
                    return;
            } else if ((uintptr_t)p - (uintptr_t)r->links < sizeof r->links) {
                take_connections(r, p);
            } else {
                on_side(p, events[i].events, now);
            }
        }
        go_on(r);
    }
}

/* -- life ------------------------------------------------------------------------------------------------ */

static bool add(struct delay_relay *r, int fd, void *what)
{
    struct epoll_event e = { EPOLLIN, { .ptr = what } };

    return fd >= 0 && epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

static bool link_open(struct delay_relay *r, struct delay_link *l)
{
    const int one = 1;
    struct sockaddr_in at;
    socklen_t len = sizeof at;

    for (int i = 0; i < 2; i++)
        delay_shape_init(&l->shape[i], &l->spec[i], l->seed + (uint64_t)i, delay_now_ns());
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        bind(l->fd, (const struct sockaddr *)&l->listen, sizeof l->listen) || listen(l->fd, 1024) ||
        getsockname(l->fd, (struct sockaddr *)&at, &len) || !add(r, l->fd, l)) {
        fprintf(stderr, "delay_proxy: cannot listen on port %u: %s\n", ntohs(l->listen.sin_port),
                strerror(errno));
        return false;
    }
    l->port = ntohs(at.sin_port);
    return true;
}

bool delay_relay_open(struct delay_relay *r)
{
    r->conns = NULL;
    r->stop[0] = r->stop[1] = -1;
    for (uint32_t i = 0; i < r->n_links; i++)
        r->links[i].fd = -1;
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (r->epoll < 0 || pipe2(r->stop, O_CLOEXEC | O_NONBLOCK) || !add(r, r->timer, &r->timer) ||
        !add(r, r->stop[0], r->stop)) {
        fprintf(stderr, "delay_proxy: cannot start: %s\n", strerror(errno));
        return false;
    }
    for (uint32_t i = 0; i < r->n_links; i++)
        if (!link_open(r, &r->links[i]))
            return false;
    return true;
}

void delay_relay_stop(struct delay_relay *r)
{
    if (write(r->stop[1], "", 1) < 0)
        return; /* full: it has been told */
}

void delay_relay_close(struct delay_relay *r)
{
    const int fds[] = { r->epoll, r->timer, r->stop[0], r->stop[1] };

    while (r->conns) {
        struct delay_conn *c = r->conns;

        r->conns = c->next;
        c->dead = true;
        conn_free(c);
    }
    for (uint32_t i = 0; i < r->n_links; i++)
        if (r->links[i].fd >= 0)
            close(r->links[i].fd);
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}
