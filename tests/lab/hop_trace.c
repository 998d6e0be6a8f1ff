/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library to preload into ternd (LD_PRELOAD): writes down when a large frame passes the calls of libzmq and
 * of the C library, for lab_hops.
 *
 * The k-th large frame that a worker receives is the k-th step, and so is the k-th it sends: no names are
 * needed.  Records are kept in memory and written to $TERN_HOP_TRACE.PID when the program ends.
 */
#include "lab/hop_trace.h"

#include <dlfcn.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static struct hop_record records[HOP_TRACE_MAX];
static atomic_uint n_records;
static _Thread_local uint64_t woken_ns; /* the last return of our own poll or epoll_wait */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(enum hop_kind kind, uint64_t ns)
{
    unsigned i = atomic_fetch_add(&n_records, 1);

    if (i < HOP_TRACE_MAX)
        records[i] = (struct hop_record){ ns, kind };
}

/* ISO C has no way from void * to a function. */
#define REAL(type, name)                                                                                     \
    static type *real;                                                                                       \
    if (!real)                                                                                               \
    *(void **)&real = dlsym(RTLD_NEXT, name)

typedef int poll_fn(struct pollfd *fds, nfds_t n, int timeout);
int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    int rc;

    REAL(poll_fn, "poll");
    rc = real(fds, n, timeout);
    if (n > 2) /* ours; libzmq polls one at a time */
        woken_ns = now_ns();
    return rc;
}

/* What poll is called where the C library checks sizes. */
typedef int poll_chk_fn(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
    int rc;

    REAL(poll_chk_fn, "__poll_chk");
    rc = real(fds, n, timeout, size);
    woken_ns = now_ns();
    return rc;
}

typedef int epoll_wait_fn(int fd, struct epoll_event *events, int max, int timeout);
int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    int rc;

    REAL(epoll_wait_fn, "epoll_wait");
    rc = real(fd, events, max, timeout);
    if (max == 1) /* ours; libzmq asks for many */
        woken_ns = now_ns();
    return rc;
}

typedef int zmq_send_fn(void *s, const void *buf, size_t len, int flags);
int zmq_send(void *s, const void *buf, size_t len, int flags)
{
    int rc;

    REAL(zmq_send_fn, "zmq_send");
    if (len >= HOP_TRACE_LARGE) {
        note(HOP_SEND_WOKEN, woken_ns);
        note(HOP_SEND, now_ns());
    }
    rc = real(s, buf, len, flags);
    if (len >= HOP_TRACE_LARGE)
        note(HOP_SEND_DONE, now_ns());
    return rc;
}

typedef int zmq_msg_recv_fn(zmq_msg_t *m, void *s, int flags);
int zmq_msg_recv(zmq_msg_t *m, void *s, int flags)
{
    int rc;

    REAL(zmq_msg_recv_fn, "zmq_msg_recv");
    rc = real(m, s, flags);
    if (rc >= HOP_TRACE_LARGE) {
        note(HOP_RECV_WOKEN, woken_ns);
        note(HOP_RECV_DONE, now_ns());
    }
    return rc;
}

typedef ssize_t send_fn(int fd, const void *buf, size_t n, int flags);
ssize_t send(int fd, const void *buf, size_t n, int flags)
{
    ssize_t rc;

    REAL(send_fn, "send");
    if (n >= HOP_TRACE_LARGE)
        note(HOP_TCP_SEND, now_ns());
    rc = real(fd, buf, n, flags);
    if (n >= HOP_TRACE_LARGE)
        note(HOP_TCP_SEND_DONE, now_ns());
    return rc;
}

typedef ssize_t recv_fn(int fd, void *buf, size_t n, int flags);
ssize_t recv(int fd, void *buf, size_t n, int flags)
{
    ssize_t rc;

    REAL(recv_fn, "recv");
    rc = real(fd, buf, n, flags);
    if (rc >= HOP_TRACE_LARGE)
        note(HOP_TCP_RECV, now_ns());
    return rc;
}

__attribute__((destructor)) static void save(void)
{
    const char *prefix = getenv("TERN_HOP_TRACE");
    unsigned n = atomic_load(&n_records);
    char path[256];
    FILE *f;

    if (!prefix || n == 0)
        return;
    snprintf(path, sizeof path, "%s.%d", prefix, (int)getpid());
    f = fopen(path, "wb");
    if (!f)
        return;
    fwrite(records, sizeof *records, n < HOP_TRACE_MAX ? n : HOP_TRACE_MAX, f);
    fclose(f);
}
