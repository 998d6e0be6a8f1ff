/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring under a mutex.  Hand-overs happen once a step, never once a row, so a lock costs nothing that can
 * be measured.
 */
#include "engine/queue.h"

#include "engine/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct tern_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    size_t cap, head, n;
    int fd;
    bool polled; /* somebody looks at the descriptor */
    bool closed;
    bool signalled; /* the eventfd is readable */
    void *items[];
};

enum tern_status tern_queue_new(size_t capacity, struct tern_queue **out, struct tern_err *err)
{
    pthread_condattr_t attr;
    struct tern_queue *q = calloc(1, sizeof *q + capacity * sizeof q->items[0]);

    if (!q)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a queue");
    q->cap = capacity;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0) {
        free(q);
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make an event descriptor: %s", strerror(errno));
    }
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &attr);
    pthread_condattr_destroy(&attr);
    *out = q;
    return TERN_OK;
}

void tern_queue_free(struct tern_queue **qp)
{
    struct tern_queue *q = *qp;

    if (!q)
        return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    close(q->fd);
    free(q);
    *qp = NULL;
}

/* Brings the descriptor in line with the state.  Called with the lock held. */
static void update_fd(struct tern_queue *q)
{
    bool want = q->polled && (q->n > 0 || q->closed);
    uint64_t one = 1;
    ssize_t r = 0;

    if (want == q->signalled)
        return;
    /* An eventfd that counts 0 or 1 cannot block or overflow. */
    if (want)
        r = write(q->fd, &one, sizeof one);
    else
        r = read(q->fd, &one, sizeof one);
    TERN_BUG_IF(r != (ssize_t)sizeof one);
    q->signalled = want;
}

bool tern_queue_push(struct tern_queue *q, void *item)
{
    bool ok;

    pthread_mutex_lock(&q->lock);
    ok = !q->closed && q->n < q->cap;
    if (ok) {
        q->items[(q->head + q->n) % q->cap] = item;
        q->n++;
        update_fd(q);
    }
    pthread_mutex_unlock(&q->lock);
    /* Behind the lock, on which the woken thread would only wait again. */
    if (ok)
        pthread_cond_signal(&q->filled);
    return ok;
}

void *tern_queue_pop(struct tern_queue *q, int timeout_ms)
{
    struct timespec until = { 0, 0 };
    void *item = NULL;
    int rc = 0;

    if (timeout_ms > 0)
        until = tern_deadline_in(timeout_ms);
    pthread_mutex_lock(&q->lock);
    while (q->n == 0 && !q->closed && timeout_ms != 0 && rc != ETIMEDOUT)
        rc = timeout_ms < 0 ? pthread_cond_wait(&q->filled, &q->lock)
                            : pthread_cond_timedwait(&q->filled, &q->lock, &until);
    if (q->n > 0) {
        item = q->items[q->head];
        q->head = (q->head + 1) % q->cap;
        q->n--;
        update_fd(q);
    }
    pthread_mutex_unlock(&q->lock);
    return item;
}

void tern_queue_close(struct tern_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    update_fd(q);
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

bool tern_queue_ready(struct tern_queue *q)
{
    bool ready;

    pthread_mutex_lock(&q->lock);
    ready = q->n > 0 || q->closed;
    pthread_mutex_unlock(&q->lock);
    return ready;
}

int tern_queue_fd(struct tern_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->polled = true;
    update_fd(q);
    pthread_mutex_unlock(&q->lock);
    return q->fd;
}
