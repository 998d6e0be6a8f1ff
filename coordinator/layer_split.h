/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many layers each of --local's workers has: by what one layer takes on it, so that none is waited for
 * (--split measured).
 *
 * That is measured with some sequences that generate through a pipeline of even shares, opened for nothing
 * else: all stages at work at once, as they will be.
 */
#ifndef TERN_COORDINATOR_LAYER_SPLIT_H
#define TERN_COORDINATOR_LAYER_SPLIT_H

#include "coordinator/sched.h"
#include "engine/head.h"
#include "kernels/kernels.h"

struct layer_split {
    uint32_t n; /* workers; 0: evenly */
    uint32_t layers[TERN_MAX_WORKERS];
    bool measured;
    double layer_ms[TERN_MAX_WORKERS], head_ms; /* of one layer; of head and sampler in a step */
};

/* Layers of each of n stages so that the slowest one is fastest, stage i taking layer_ms[i] for each; at
 * least one layer each, n_layers >= n in all. */
void layer_split_best(const double *layer_ms, uint32_t n, uint32_t n_layers, uint32_t *out);

/* What has been seen of steps while all sequences generated; zeroed it is empty. */
struct layer_times {
    bool counting;
    uint32_t steps;
    uint64_t stage_us[TERN_MAX_WORKERS], head_us;
};
/* For sched_options.on_step; user is the struct layer_times. */
void layer_times_add(void *user, const struct sched_trace *t);

/* Sequences to measure with where so many are going to run at once, and the positions each of them takes. */
uint32_t layer_split_streams(uint32_t n_at_once, uint32_t n_workers);
uint32_t layer_split_positions(uint32_t n_streams);

/* Measures on a scheduler made for that, which fills *times; stages of pipe, n_layers in all.  head NULL:
 * hidden rows are asked for.  TERN_END: interrupted. */
enum tern_status layer_split_measure(struct sched *sched, const struct pipe *pipe, bool head,
                                     const struct tern_kernels *kern, uint32_t n_vocab, uint32_t n_streams,
                                     struct layer_times *times, struct layer_split *out,
                                     struct tern_err *err) TERN_MUST_CHECK;

#endif
