/* SPDX-License-Identifier: Apache-2.0 */
/* What goes through a pipe, in clear, to a file: see pipe_dump.h. */
#include "coordinator/pipe_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pipe_dump {
    struct pipe outer;  /* what the scheduler sees */
    struct pipe *inner; /* owned */
    int fd;             /* borrowed */
};

enum tern_status pipe_dump_create(const char *path, int *fd, struct tern_err *err)
{
    int f = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (f < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "--dump-steps: cannot create %s: %s", path,
                             strerror(errno));
    *fd = f;
    return TERN_OK;
}

enum tern_status pipe_dump_write(int fd, const void *bytes, size_t n, struct tern_err *err)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno != EINTR)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "--dump-steps: cannot write: %s", strerror(errno));
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        }
    }
    return TERN_OK;
}

static enum tern_status dump_payload(const struct pipe_dump *d, const struct tern_step *s,
                                     struct tern_err *err)
{
    return pipe_dump_write(d->fd, s->payload, (size_t)s->n_rows * s->row_bytes, err);
}

static struct tern_step *dump_take(struct pipe *p)
{
    struct pipe_dump *d = p->impl;

    return d->inner->take(d->inner);
}

static void dump_give(struct pipe *p, struct tern_step *s)
{
    struct pipe_dump *d = p->impl;

    d->inner->give(d->inner, s);
}

static enum tern_status dump_send(struct pipe *p, struct tern_step *s, struct tern_err *err)
{
    struct pipe_dump *d = p->impl;
    enum tern_status st = dump_payload(d, s, err);

    if (st) {
        d->inner->give(d->inner, s);
        return st;
    }
    return d->inner->send(d->inner, s, err);
}

static enum tern_status dump_recv(struct pipe *p, int timeout_ms, struct tern_step **out,
                                  struct tern_err *err)
{
    struct pipe_dump *d = p->impl;
    struct tern_step *s = NULL;
    enum tern_status st = d->inner->recv(d->inner, timeout_ms, &s, err);

    if (st)
        return st;
    st = dump_payload(d, s, err);
    if (st) {
        d->inner->give(d->inner, s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

static void dump_live(struct pipe *p, uint32_t i, struct pipe_stage_live *out)
{
    struct pipe_dump *d = p->impl;

    d->inner->live(d->inner, i, out);
}

static void dump_close(struct pipe *p)
{
    struct pipe_dump *d = p->impl;

    d->inner->close(d->inner);
    free(d);
}

enum tern_status pipe_dump_wrap(struct pipe **p, int fd, struct tern_err *err)
{
    struct pipe_dump *d = calloc(1, sizeof *d);

    if (!d)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for --dump-steps");
    d->inner = *p;
    d->fd = fd;
    d->outer = **p;
    d->outer.take = dump_take;
    d->outer.give = dump_give;
    d->outer.send = dump_send;
    d->outer.recv = dump_recv;
    d->outer.live = dump_live;
    d->outer.close = dump_close;
    d->outer.impl = d;
    *p = &d->outer;
    return TERN_OK;
}
