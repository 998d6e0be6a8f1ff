/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How steps flowed through the stages in a stretch of time: what every stage did, how many steps were on
 * their way, and how the head kept up; from the scheduler's traces (sched.h).
 *
 * Traces are kept while steps come home, without allocation, and looked at afterwards: a step that left
 * inside the stretch may come home behind it.
 */
#ifndef TERN_COORDINATOR_BENCH_FLOW_H
#define TERN_COORDINATOR_BENCH_FLOW_H

#include "coordinator/sched.h"

struct bench_step {
    uint64_t sent_us, home_us, done_us;
    uint32_t n_prompt, n_decode;
};

struct bench_visit {
    uint64_t in_us, start_us, end_us; /* in_us 0: when is not known, how long is */
};

struct bench_traces {
    uint32_t n, cap, n_stages;
    uint32_t lost;              /* came when there was no room */
    struct bench_step *steps;   /* [cap] */
    struct bench_visit *visits; /* [cap][n_stages] */
};

enum tern_status bench_traces_new(uint32_t cap, uint32_t n_stages, struct bench_traces *out,
                                  struct tern_err *err) TERN_MUST_CHECK;
void bench_traces_free(struct bench_traces *t);
void bench_traces_add(struct bench_traces *t, const struct sched_trace *s);

/* Shares are of the stretch; -1: not known. */
struct bench_stage_flow {
    double idle;     /* not computing */
    double empty;    /* nothing there to compute */
    double step_ms;  /* computing one step, mean of those that had no prompt rows */
    double chunk_ms; /* ... of those that had */
};

struct bench_flow {
    double seconds;
    uint32_t steps, chunks;  /* sent in the stretch; those with prompt rows */
    double rows, chunk_rows; /* decode rows of one that has any; prompt rows of a chunk */
    double in_flight;        /* mean number of steps between being sent and being through the head */
    double head;             /* share in which the head and the sampler were at work */
    double head_ms;          /* ... per step with decode rows */
    double busy;             /* mean of the stages: 1 - idle; or -1 */
    uint32_t busiest;        /* stage with the least idle time */
    uint32_t n_stages;
    struct bench_stage_flow stages[TERN_MAX_WORKERS];
};

/* From from_us up to to_us, on the clock of the traces. */
void bench_flow_of(const struct bench_traces *t, uint64_t from_us, uint64_t to_us, struct bench_flow *out);

struct bench_spread {
    uint32_t n;
    double p50, p95, p99; /* 0 when n is */
};

/* Sorts v. */
void bench_spread_of(double *v, uint32_t n, struct bench_spread *out);

/* Of chunks sent in the stretch: computing in all stages together.  All 0 without memory. */
void bench_trips_of(const struct bench_traces *t, uint64_t from_us, uint64_t to_us, struct bench_spread *out);

#endif
