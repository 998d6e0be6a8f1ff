/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixed compute threads; one call: run this over [0, n).
 *
 * The calling thread takes part, so a pool of one has no threads of its own.  Waiting threads sleep, or spin
 * for some microseconds while somebody holds the pool: an idle pool costs nothing.  Calls from several
 * threads are served one after another.  How the range is shared is not defined; callers' results must not
 * depend on it.
 */
#ifndef TERN_ENGINE_POOL_H
#define TERN_ENGINE_POOL_H

#include "engine/base/status.h"

#include <stddef.h>

struct tern_pool;

/* n_threads 1..256, the caller included. */
enum tern_status tern_pool_new(unsigned n_threads, struct tern_pool **out,
                               struct tern_err *err) TERN_MUST_CHECK;
void tern_pool_free(struct tern_pool **pool);
unsigned tern_pool_threads(const struct tern_pool *pool);

/* Calls fn(arg, first, last, thread) for disjoint ranges that cover [0, n) in pieces of about `grain` or
 * more; returns when all are done. `thread` is below tern_pool_threads() and no two calls run at once with
 * the same one (for scratch). */
typedef void tern_pool_fn(void *arg, size_t first, size_t last, unsigned thread);
void tern_pool_run(struct tern_pool *pool, tern_pool_fn *fn, void *arg, size_t n, size_t grain);

/* Between the two, runs follow each other within microseconds: threads are woken at the beginning and stay
 * awake from one run to the next.  May be nested, and held by several threads. */
void tern_pool_hold(struct tern_pool *pool);
void tern_pool_release(struct tern_pool *pool);

#endif
