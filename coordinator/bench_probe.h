/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine can do at this moment: sustained reading and int8 multiply-adds, with the threads of a
 * pool.
 *
 * A take is a few passes of both in turn.  Machines are noisy and shared, so what counts is the median of
 * many takes spread over a run, never the best.
 */
#ifndef TERN_COORDINATOR_BENCH_PROBE_H
#define TERN_COORDINATOR_BENCH_PROBE_H

#include "engine/pool.h"
#include "kernels/kernels.h"

#include <stdint.h>

#define BENCH_MAX_TAKES   2048
#define BENCH_TAKE_PASSES 5

struct bench_takes {
    uint32_t n;
    double read[BENCH_MAX_TAKES]; /* bytes per second */
    double dot[BENCH_MAX_TAKES];  /* int8 multiply-adds per second; 0: the level has no probe */
};

struct bench_range {
    double median, min, max;
};

struct bench_probe;

/* A buffer far larger than the caches, in huge pages where the system has them. */
enum tern_status bench_probe_new(struct bench_probe **out, struct tern_err *err) TERN_MUST_CHECK;
void bench_probe_free(struct bench_probe **p);

/* Adds BENCH_TAKE_PASSES values of each to t, as long as there is room.  The pool must be idle. */
void bench_probe_take(struct bench_probe *p, const struct tern_kernels *kern, struct tern_pool *pool,
                      struct bench_takes *t);

void bench_takes_add(struct bench_takes *to, const struct bench_takes *from);
/* Of n values; all 0 when there are none. */
struct bench_range bench_range_of(const double *v, uint32_t n);

#endif
