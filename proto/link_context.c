/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What servers and clients share: the context, options, monitor events, frames.
 */
#include "proto/link_impl.h"

#include "engine/base/log.h"
#include "engine/base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* Of descriptors, even where the hard limit is endless. */
#define MAX_DESCRIPTORS ((rlim_t)1 << 20)
/* For the end of a context: what was sent last has TERN_LINGER_MS, the rest is closing sockets. */
#define END_MS (2 * TERN_LINGER_MS)

struct tern_link_context {
    void *zmq;
    unsigned n_monitors;
    bool begun; /* there has been a socket */
};

/* Connections are descriptors, and strangers may open many before they are dropped. */
static void raise_descriptor_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    if (r.rlim_cur == RLIM_INFINITY || r.rlim_cur >= MAX_DESCRIPTORS)
        return;
    r.rlim_cur = r.rlim_max == RLIM_INFINITY || r.rlim_max > MAX_DESCRIPTORS ? MAX_DESCRIPTORS : r.rlim_max;
    /* Not fatal: fewer strangers are borne. */
    (void)setrlimit(RLIMIT_NOFILE, &r);
}

enum tern_status tern_link_context_new(struct tern_link_context **out, struct tern_err *err)
{
    struct tern_link_context *ctx = calloc(1, sizeof *ctx);

    if (!ctx)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a context of links");
    if (!zmq_has("curve")) {
        free(ctx);
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "this libzmq was built without CURVE encryption; install the one of the distribution");
    }
    raise_descriptor_limit();
    ctx->zmq = zmq_ctx_new();
    if (!ctx->zmq || zmq_ctx_set(ctx->zmq, ZMQ_IO_THREADS, 1) != 0 ||
        zmq_ctx_set(ctx->zmq, ZMQ_BLOCKY, 0) != 0) {
        enum tern_status st =
            TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot start libzmq: %s", zmq_strerror(zmq_errno()));

        tern_link_context_free(&ctx);
        return st;
    }
    *out = ctx;
    return TERN_OK;
}

static void *end_context(void *zmq)
{
    while (zmq_ctx_term(zmq) != 0 && zmq_errno() == EINTR)
        continue;
    return NULL;
}

/* By the clock that nobody sets, which pthread_timedjoin_np() does not know. */
static bool join_for(pthread_t thread, uint64_t ms)
{
    const uint64_t end = tern_now_ms() + ms;
    int rc;

    while ((rc = pthread_tryjoin_np(thread, NULL)) == EBUSY && tern_now_ms() < end)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    return rc == 0;
}

void tern_link_context_free(struct tern_link_context **ctx)
{
    pthread_t thread;

    if (!*ctx)
        return;
    /* libzmq's own thread may sit in the resolver, for as long as that waits for a name server. */
    if ((*ctx)->zmq && pthread_create(&thread, NULL, end_context, (*ctx)->zmq) != 0)
        end_context((*ctx)->zmq);
    else if ((*ctx)->zmq && !join_for(thread, END_MS))
        pthread_detach(thread);
    free(*ctx);
    *ctx = NULL;
}

/* libzmq's own threads begin with the first socket, and inherit. */
void *tern_link_socket(struct tern_link_context *ctx, int type)
{
    void *socket;

    if (ctx->begun)
        return zmq_socket(ctx->zmq, type);
    tern_thread_set_kind(TERN_THREAD_BRIEF);
    socket = zmq_socket(ctx->zmq, type);
    tern_thread_set_kind(TERN_THREAD_PLAIN);
    ctx->begun = true;
    return socket;
}

void tern_link_monitor_name(struct tern_link_context *ctx, char out[static 48])
{
    (void)snprintf(out, 48, "inproc://tern.monitor.%u", ctx->n_monitors++);
}

enum tern_status tern_link_set_bytes(void *socket, int option, const void *bytes, size_t n,
                                     struct tern_err *err)
{
    if (zmq_setsockopt(socket, option, bytes, n) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_UNSUPPORTED, zmq_errno(), "libzmq refuses its option %d: %s",
                             option, zmq_strerror(zmq_errno()));
    return TERN_OK;
}

enum tern_status tern_link_set_int(void *socket, int option, int value, struct tern_err *err)
{
    return tern_link_set_bytes(socket, option, &value, sizeof value, err);
}

enum tern_status tern_link_set_common(void *socket, bool ipv6, struct tern_err *err)
{
    int64_t max_frame = TERN_LINK_MAX_FRAME;
    enum tern_status st = tern_link_set_bytes(socket, ZMQ_MAXMSGSIZE, &max_frame, sizeof max_frame, err);

    if (!st)
        st = tern_link_set_int(socket, ZMQ_HANDSHAKE_IVL, TERN_HANDSHAKE_MS, err);
    if (!st)
        st = tern_link_set_int(socket, ZMQ_LINGER, TERN_LINGER_MS, err);
    if (!st)
        st = tern_link_set_int(socket, ZMQ_SNDHWM, TERN_SEND_QUEUE, err);
    /* With it a name that has both kinds of addresses is tried as IPv6 only: so only on demand. */
    if (!st)
        st = tern_link_set_int(socket, ZMQ_IPV6, ipv6, err);
    return st;
}

int tern_link_fd(void *socket)
{
    int fd = -1;
    size_t n = sizeof fd;

    return socket && zmq_getsockopt(socket, ZMQ_FD, &fd, &n) == 0 ? fd : -1;
}

int tern_link_events(void *socket)
{
    int events = 0;
    size_t n = sizeof events;

    /* Interrupted: whoever looks at everything finds out. */
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) == 0 ? events : ZMQ_POLLIN | ZMQ_POLLOUT;
}

enum tern_status tern_link_monitor_open(struct tern_link_context *ctx, void *socket, int events, void **out,
                                        struct tern_err *err)
{
    char name[48];
    void *monitor;
    enum tern_status st;

    tern_link_monitor_name(ctx, name);
    monitor = tern_link_socket(ctx, ZMQ_PAIR);
    if (!monitor)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot open a monitor: %s",
                             zmq_strerror(zmq_errno()));
    /* No limit: libzmq's own thread would wait for us to read, while it holds a lock we may want. */
    st = tern_link_set_int(monitor, ZMQ_RCVHWM, 0, err);
    if (!st && (zmq_socket_monitor(socket, name, events) != 0 || zmq_connect(monitor, name) != 0))
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot open a monitor: %s",
                           zmq_strerror(zmq_errno()));
    if (st) {
        tern_link_monitor_close(socket, &monitor);
        return st;
    }
    *out = monitor;
    return TERN_OK;
}

void tern_link_monitor_close(void *socket, void **monitor)
{
    if (!*monitor)
        return;
    (void)zmq_socket_monitor(socket, NULL, 0);
    zmq_close(*monitor);
    *monitor = NULL;
}

bool tern_link_monitor_read(void *monitor, uint16_t *event, uint32_t *value)
{
    zmq_msg_t msg;
    bool ok = false;

    zmq_msg_init(&msg);
    /* The first frame: 16 bits of event, 32 bits of value; the second, an address, is always ours. */
    if (zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT) >= 0) {
        const uint8_t *p = zmq_msg_data(&msg);

        ok = zmq_msg_size(&msg) == 6;
        if (ok) {
            memcpy(event, p, 2);
            memcpy(value, p + 2, 4);
        }
        if (zmq_msg_more(&msg))
            tern_link_drain(monitor);
    }
    zmq_msg_close(&msg);
    return ok;
}

bool tern_link_more(void *socket)
{
    int more = 0;
    size_t n = sizeof more;

    return zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &n) == 0 && more;
}

void tern_link_drain(void *socket)
{
    while (tern_link_more(socket)) {
        zmq_msg_t msg;
        int rc;

        zmq_msg_init(&msg);
        rc = zmq_msg_recv(&msg, socket, ZMQ_DONTWAIT);
        zmq_msg_close(&msg);
        if (rc < 0)
            return;
    }
}

void tern_link_message_init(struct tern_link_message *m)
{
    memset(m, 0, sizeof *m);
    zmq_msg_init(&m->header);
    zmq_msg_init(&m->payload);
}

void tern_link_message_close(struct tern_link_message *m)
{
    zmq_msg_close(&m->header);
    zmq_msg_close(&m->payload);
    tern_link_message_init(m);
}

enum tern_status tern_link_recv_frames(void *socket, struct tern_link_message *m, struct tern_err *err)
{
    if (zmq_msg_recv(&m->header, socket, ZMQ_DONTWAIT) < 0) {
        int no = zmq_errno();

        if (no == EAGAIN || no == EINTR)
            return TERN_AGAIN;
        return TERN_FAIL_SYS(err, TERN_ERR_IO, no, "cannot receive: %s", zmq_strerror(no));
    }
    m->has_payload = zmq_msg_more(&m->header);
    /* libzmq hands over whole messages only: what follows is there. */
    if (m->has_payload && zmq_msg_recv(&m->payload, socket, ZMQ_DONTWAIT) < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot receive: %s", zmq_strerror(zmq_errno()));
    if (m->has_payload && zmq_msg_more(&m->payload)) {
        tern_link_drain(socket);
        return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: it has more than two frames");
    }
    if (zmq_msg_size(&m->header) > TERN_MAX_HEADER_BYTES ||
        zmq_msg_size(&m->payload) > TERN_MAX_PAYLOAD_BYTES)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "refused message: frames of %zu and %zu bytes, at most %d and %d",
                         zmq_msg_size(&m->header), zmq_msg_size(&m->payload), TERN_MAX_HEADER_BYTES,
                         TERN_MAX_PAYLOAD_BYTES);
    return TERN_OK;
}

static enum tern_status send_one(void *socket, const void *bytes, size_t n, int flags, struct tern_err *err)
{
    int no;

    if (zmq_send(socket, bytes, n, flags | ZMQ_DONTWAIT) >= 0)
        return TERN_OK;
    no = zmq_errno();
    if (no == EAGAIN || no == EINTR)
        return TERN_AGAIN;
    return TERN_FAIL_SYS(err, TERN_ERR_PEER, no, "cannot send: %s", zmq_strerror(no));
}

enum tern_status tern_link_send_frames(void *socket, const void *header, size_t header_len,
                                       const void *payload, size_t payload_len, struct tern_err *err)
{
    enum tern_status st;

    /* Once the first frame is taken the queue has room for the rest; it only fails with the connection,
     * which takes both. */
    st = send_one(socket, header, header_len, payload ? ZMQ_SNDMORE : 0, err);
    if (!st && payload)
        st = send_one(socket, payload, payload_len, 0, err);
    return st;
}
