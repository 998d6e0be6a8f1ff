/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage: layers [first, last) of a model, the KV of all sequences for them, and the thread that computes.
 *
 * This is the worker's heart and all there is of it without a network: `ternd` feeds it from sockets, and a
 * coordinator that runs a whole model in its own process feeds it from its own queue.  Steps go in and come
 * out in order, through bounded queues; everything a step says is checked against the KV table before memory
 * is touched.
 */
#ifndef TERN_WORKER_STAGE_H
#define TERN_WORKER_STAGE_H

#include "engine/boundary.h"
#include "engine/kv.h"
#include "engine/model.h"
#include "engine/pool.h"
#include "engine/queue.h"
#include "proto/step.h"

struct tern_stage_options {
    enum tern_boundary boundary;
    enum tern_kv_type kv;
    uint32_t n_pages, n_slots, max_positions, max_rows;
    uint32_t index; /* place in the pipeline, for failures */
    bool is_last;   /* compacts the payload to the wanted rows */
    /* Called by the compute thread; or NULL.  await: before it takes a step from `in`, for which it waits in
     * any case; so long as nothing has failed.  on_run: with every step it has run; true when the step has
     * been taken, and does not go to `out`.  soon: when a step will be done in a moment, on whatever thread
     * runs it; only where the one before took soon_us or more. */
    void (*await)(void *arg);
    bool (*on_run)(void *arg, struct tern_step *step);
    void (*soon)(void *arg);
    uint32_t soon_us;
    void *arg;
};

struct tern_stage; /* owns its KV and scratch, borrows model and pool */

enum tern_status tern_stage_new(const struct tern_model *model, struct tern_pool *pool,
                                const struct tern_stage_options *o, struct tern_stage **out,
                                struct tern_err *err) TERN_MUST_CHECK;
void tern_stage_free(struct tern_stage **s); /* stops the thread first */

/* Runs one step in place, on the calling thread: ops, checks, layers; failed sequences are noted in the
 * step, their rows left as they came (zeroed).  Fails only when the step contradicts the stage as a whole (a
 * step number that is not the next one: steps were lost), which ends the epoch. */
enum tern_status tern_stage_run(struct tern_stage *s, struct tern_step *step,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Starts the compute thread: steps pushed to `in` come out of `out`, in order, run, but for those that on_run
 * takes; at most TERN_STAGE_STEPS may be between the two.  A step on which tern_stage_run failed comes out
 * with step->user set to NULL and n_rows 0, tern_stage_error() tells why, and no later one is run: they come
 * out the same way. */
#define TERN_STAGE_STEPS (2 * TERN_MAX_STEPS_IN_FLIGHT)
enum tern_status tern_stage_start(struct tern_stage *s, struct tern_err *err) TERN_MUST_CHECK;
/* Asks the thread to end after the step at hand, without waiting; steps still queued are not run.  `out`
 * becomes readable at the latest when the thread is done, and then tern_stage_stopped() is true and
 * tern_stage_free() does not block. */
void tern_stage_stop(struct tern_stage *s);
bool tern_stage_stopped(const struct tern_stage *s);
struct tern_queue *tern_stage_in(struct tern_stage *s);
struct tern_queue *tern_stage_out(struct tern_stage *s);
/* True and *err filled after the thread gave up. */
bool tern_stage_error(struct tern_stage *s, struct tern_err *err);

size_t tern_stage_kv_bytes(const struct tern_stage *s);
size_t tern_stage_scratch_bytes(const struct tern_stage *s);
/* Since start; safe from any thread. */
uint64_t tern_stage_steps(const struct tern_stage *s);
uint64_t tern_stage_busy_us(const struct tern_stage *s);

#endif
