/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with toy handlers and a client that sends what it is told, byte by byte if need be.  Most tests
 * need one: `bed`, opened by their setup and closed by teardown, and `answer` for what it says.
 *
 * Paths: /echo the body, /show method, path, argument `a`, header X-A and client, /big?n=, /stream?n= pieces,
 * /drops 20 of them 20 ms apart, /endless, /stall a stream without a piece, /block until the client is gone,
 * /nothing, /twice, /public.
 */
#ifndef TERN_TESTS_UNIT_HTTP_BED_H
#define TERN_TESTS_UNIT_HTTP_BED_H

#include "coordinator/serve/http_server.h"
#include "engine/base/log.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define END            "Connection: close\r\n\r\n"
#define BED_GIVE_UP_MS 30000

struct bed {
    struct http_server *server;
    uint16_t port;
    atomic_int n_handled, n_begun, n_done, n_blocked, n_noticed;
};

static struct bed bed;
static char answer[1 << 20];

struct bed_stream {
    struct bed *bed;
    int left;    /* pieces, -1: for ever */
    bool silent; /* never a piece */
    bool slow;   /* 20 ms in front of each */
    size_t bytes;
};

static inline void bed_sleep(int ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

    nanosleep(&ts, NULL);
}

static bool bed_more(void *user, struct http_text *out)
{
    struct bed_stream *s = user;

    if (s->silent) {
        bed_sleep(50);
        return true;
    }
    if (s->left == 0)
        return false;
    if (s->slow)
        bed_sleep(20);
    if (s->left > 0)
        s->left--;
    for (size_t i = 0; i < s->bytes; i++)
        http_text_add(out, "x", 1);
    http_text_addf(out, "[%d]", s->left);
    return true;
}

static void bed_done(void *user)
{
    struct bed_stream *s = user;

    atomic_fetch_add(&s->bed->n_done, 1);
    free(s);
}

static void bed_begin_stream(struct bed *b, struct http_exchange *x, struct bed_stream how)
{
    struct bed_stream *s = calloc(1, sizeof *s);

    TERN_BUG_IF(!s);
    *s = how;
    s->bed = b;
    atomic_fetch_add(&b->n_begun, 1);
    http_stream(x, 200, "text/event-stream",
                &(struct http_stream){ .more = bed_more, .done = bed_done, .user = s });
}

static void bed_block(struct bed *b, struct http_exchange *x)
{
    uint64_t until = tern_now_ms() + BED_GIVE_UP_MS;

    atomic_fetch_add(&b->n_blocked, 1);
    while (tern_now_ms() < until && !http_gone(x))
        bed_sleep(20);
    if (tern_now_ms() < until)
        atomic_fetch_add(&b->n_noticed, 1);
    http_reply(x, 200, "text/plain", "late", 4);
}

static void bed_show(struct http_exchange *x, const struct http_request *r)
{
    const char *a = http_argument(x, "a"), *h = http_header(x, "X-A");
    struct http_text t = { 0 };

    http_text_addf(&t, "%s %s a=%s x=%s client=%llx", r->method, r->path, a ? a : "NULL", h ? h : "NULL",
                   (unsigned long long)r->client);
    http_reply_header(x, "X-Toy", "yes");
    http_reply(x, 200, "text/plain", t.ptr, t.len);
    http_text_free(&t);
}

static void bed_big(struct http_exchange *x)
{
    const char *n_text = http_argument(x, "n");
    size_t n = n_text ? strtoul(n_text, NULL, 10) : 0;
    char *p = calloc(1, n + 1);

    TERN_BUG_IF(!p);
    memset(p, 'b', n);
    http_reply(x, 200, "text/plain", p, n);
    free(p);
}

static void bed_handle(void *user, struct http_exchange *x, const struct http_request *r)
{
    const char *n = http_argument(x, "n");
    struct bed *b = user;

    atomic_fetch_add(&b->n_handled, 1);
    if (strcmp(r->path, "/echo") == 0) {
        http_reply(x, 200, "text/plain", r->body, r->n_body);
    } else if (strcmp(r->path, "/big") == 0) {
        bed_big(x);
    } else if (strcmp(r->path, "/stream") == 0) {
        bed_begin_stream(b, x, (struct bed_stream){ .left = n ? atoi(n) : 3 });
    } else if (strcmp(r->path, "/drops") == 0) {
        bed_begin_stream(b, x, (struct bed_stream){ .left = 20, .slow = true });
    } else if (strcmp(r->path, "/endless") == 0) {
        bed_begin_stream(b, x, (struct bed_stream){ .left = -1, .bytes = 65536 });
    } else if (strcmp(r->path, "/stall") == 0) {
        bed_begin_stream(b, x, (struct bed_stream){ .left = -1, .silent = true });
    } else if (strcmp(r->path, "/block") == 0) {
        bed_block(b, x);
    } else if (strcmp(r->path, "/twice") == 0) {
        http_reply_static(x, 200, "text/plain", "one", 3);
        http_reply(x, 200, "text/plain", "two", 3);
        bed_begin_stream(b, x, (struct bed_stream){ .left = 1 });
    } else if (strcmp(r->path, "/nothing") != 0) {
        bed_show(x, r);
    }
}

static bool bed_public(const char *method, const char *path)
{
    return strcmp(method, "GET") == 0 && strcmp(path, "/public") == 0;
}

static void bed_error(void *user, unsigned status, const char *path, const char *message,
                      struct http_text *body, const char **type)
{
    (void)user;
    http_text_addf(body, "{\"status\":%u,\"path\":\"%s\",\"message\":\"%s\"}", status, path ? path : "(none)",
                   message);
    *type = "application/json";
}

/* Everything at 0 of o is what tests are content with. */
static inline void bed_open(struct bed *b, struct http_options o)
{
    struct tern_err err = { .text = "" };
    const char *port;

    memset(b, 0, sizeof *b);
    tern_log_set_level(TERN_LOG_ERROR);
    o.host = o.host ? o.host : "127.0.0.1";
    o.handle = bed_handle;
    o.is_public = bed_public;
    o.error = bed_error;
    o.user = b;
    if (http_server_open(&o, &b->server, &err))
        fail_msg("%s", err.text);
    port = strrchr(http_server_url(b->server), ':');
    assert_non_null(port);
    b->port = (uint16_t)atoi(port + 1);
    assert_int_not_equal(b->port, 0);
}

static inline void bed_close(struct bed *b)
{
    http_server_close(&b->server);
    assert_null(b->server);
    assert_int_equal(atomic_load(&b->n_begun), atomic_load(&b->n_done));
}

static inline struct http_counts bed_counts(const struct bed *b)
{
    struct http_counts c;

    http_server_counts(b->server, &c);
    return c;
}

/* Waits until *value is at least n; returns the milliseconds. */
static inline int bed_await(atomic_int *value, int n)
{
    uint64_t begin = tern_now_ms();

    while (atomic_load(value) < n) {
        if (tern_now_ms() - begin > BED_GIVE_UP_MS)
            fail_msg("waited in vain");
        bed_sleep(5);
    }
    return (int)(tern_now_ms() - begin);
}

/* Waits until no answer is under way any more. */
static inline void bed_settle(const struct bed *b)
{
    for (int i = 0; i < BED_GIVE_UP_MS / 5 && http_server_busy(b->server); i++)
        bed_sleep(5);
    assert_int_equal(http_server_busy(b->server), 0);
}

/* Waits until so few connections are open. */
static inline void bed_open_at_most(const struct bed *b, uint64_t n)
{
    for (int i = 0; i < BED_GIVE_UP_MS / 5 && bed_counts(b).open > n; i++)
        bed_sleep(5);
    assert_true(bed_counts(b).open <= n);
}

static inline int bed_dial(const struct bed *b)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(b->port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* False when the other side does not want it any more. */
static inline bool bed_send(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

static inline void bed_say(int fd, const char *text)
{
    assert_true(bed_send(fd, text, strlen(text)));
}

/* Reads until the other side closes (or resets), or `enough` has come, or ms are over.  NUL behind it. */
static inline size_t bed_hear(int fd, char *buf, size_t cap, const char *enough, int ms)
{
    uint64_t until = tern_now_ms() + (uint64_t)ms;
    size_t n = 0;

    buf[0] = '\0';
    while (n + 1 < cap && !(enough && strstr(buf, enough))) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        uint64_t now = tern_now_ms();
        ssize_t got;

        if (now >= until || poll(&p, 1, (int)(until - now)) <= 0)
            break;
        got = recv(fd, buf + n, cap - 1 - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        buf[n] = '\0';
    }
    return n;
}

/* True when the other side closes within ms (what it still sends is dropped). */
static inline bool bed_closed(int fd, int ms)
{
    uint64_t until = tern_now_ms() + (uint64_t)ms;
    char buf[65536];

    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        uint64_t now = tern_now_ms();

        if (now >= until || poll(&p, 1, (int)(until - now)) <= 0)
            return false;
        if (recv(fd, buf, sizeof buf, 0) <= 0)
            return true;
    }
}

static inline void bed_write_file(const char *path, const void *data, size_t n, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* Sends a whole request, hears the whole answer; the status, 0 when there was none. */
static inline int bed_ask(const struct bed *b, const char *request, char *out, size_t cap)
{
    int fd = bed_dial(b), status = 0;

    assert_true(fd >= 0);
    (void)bed_send(fd, request, strlen(request));
    bed_hear(fd, out, cap, NULL, BED_GIVE_UP_MS);
    close(fd);
    if (sscanf(out, "HTTP/1.1 %d ", &status) != 1)
        return 0;
    return status;
}

static inline int teardown(void **state)
{
    (void)state;
    bed_close(&bed);
    return 0;
}

/* Asks; the answer must have this status and, unless NULL, this part. */
static inline void expect(const char *request, int status, const char *part)
{
    int got = bed_ask(&bed, request, answer, sizeof answer);

    if (got != status)
        fail_msg("%d instead of %d for: %s", got, status, request);
    if (part && !strstr(answer, part))
        fail_msg("no '%s' in: %s", part, answer);
}

#endif
