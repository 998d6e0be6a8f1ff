/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue of pointers between two threads, with a descriptor a poll loop can wait on.
 *
 * Whoever pushes gives the item away, whoever pops owns it.  No allocation after creation.
 */
#ifndef TERN_ENGINE_QUEUE_H
#define TERN_ENGINE_QUEUE_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct tern_queue;

enum tern_status tern_queue_new(size_t capacity, struct tern_queue **out,
                                struct tern_err *err) TERN_MUST_CHECK;
void tern_queue_free(struct tern_queue **q);

/* False when the queue is full or closed: the item stays the caller's. */
bool tern_queue_push(struct tern_queue *q, void *item);

/* Waits up to timeout_ms (-1 for ever, 0 not at all).  NULL on time-out, or when the queue is closed and
 * empty. */
void *tern_queue_pop(struct tern_queue *q, int timeout_ms);

/* No more pushes; waiting pops return once the queue is empty. */
void tern_queue_close(struct tern_queue *q);

/* True when a pop would not wait: there is an item, or the queue is closed. */
bool tern_queue_ready(struct tern_queue *q);

/* An eventfd, readable while the queue is not empty or is closed; owned by the queue. Poll only: pop clears
 * it.  It is kept up to date from the first call on, for who never asks need not pay for it. */
int tern_queue_fd(struct tern_queue *q);

#endif
