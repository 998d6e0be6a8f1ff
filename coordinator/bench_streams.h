/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern bench --streams`: many sequences over one pipeline, by the same scheduler as `tern serve`.
 *
 * A test of streams lets S sequences generate at once and looks at the stretch in which all of them do: from
 * when each has its second token, until n_gen tokens a stream have been made.  A test of a prompt lets S
 * sequences generate, sends one long prompt among them, and looks at the stretch until its first token.
 */
#ifndef TERN_COORDINATOR_BENCH_STREAMS_H
#define TERN_COORDINATOR_BENCH_STREAMS_H

#include "coordinator/bench.h"
#include "coordinator/bench_flow.h"
#include "coordinator/layer_split.h"

struct bench_streams_result {
    struct bench_streams_test test;
    uint32_t n_samples;
    double samples[BENCH_MAX_REPS]; /* tokens per second of all streams; of the prompt when there is one */
    double median;
    struct bench_spread first;   /* ms from the start of all sequences to each one's first token */
    struct bench_spread between; /* ms from token to token of one sequence */
    struct bench_flow flow;      /* of the last repetition */
    /* Tests of a prompt. */
    double ideal;              /* n / (n + stages - 1) for the n chunks it went in */
    double chunk_ms, trip_ms;  /* of one chunk: in the slowest stage, in all stages together; means */
    struct bench_spread trips; /* the same of every chunk, in all stages together */
    struct bench_spread alone; /* ms from token to token before the prompt came */
    struct bench_spread delay; /* ms that tokens came later than that (its p50) while it was there */
};

struct bench_streams_session {
    uint32_t threads, workers, n_stages;
    struct bench_cost cost;
    const char *level;
    uint32_t layers[TERN_MAX_WORKERS];
    struct layer_split split; /* what the layers were chosen by */
};

struct bench_streams_sink {
    enum tern_status (*row)(void *arg, const struct bench_streams_session *s,
                            const struct bench_streams_result *r, struct tern_err *err);
    void *arg;
};

/* Runs all tests of o with o->engine.threads threads.  TERN_END: interrupted. */
enum tern_status bench_streams_run(const struct bench_options *o, const struct bench_streams_sink *sink,
                                   struct bench_streams_session *out, struct tern_err *err) TERN_MUST_CHECK;

/* "s16 tg64", "pp2048 + s4". */
void bench_streams_name(const struct bench_streams_test *t, char out[64]);

/* -- output (bench_streams_print.c) ---------------------------------------------------------------------- */

/* Into what bench_print_new made; its end and its freeing are bench_print.c's. */
enum tern_status bench_streams_print_row(struct bench_print *p, const struct bench_streams_session *s,
                                         const struct bench_streams_result *r,
                                         struct tern_err *err) TERN_MUST_CHECK;
void bench_streams_print_session(struct bench_print *p, const struct bench_streams_session *s);

#endif
