/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: which rows of which sequences make up the next step, and what becomes of the rows that
 * come home.
 *
 * Each step takes one row of every sequence that is ready for its next token (with several stages: of a
 * share of them, so that all stages have work) and up to `chunk` rows of prompts.  Several steps are in
 * flight; chunks of one prompt follow each other without waiting.  KV slots are opened and freed by
 * operations that ride in the steps; a table of our own, to which the same operations are applied, says
 * beforehand that they will succeed on every worker.
 *
 * What a sequence gets never depends on what else runs: see engine/forward.h.  Results are checked as bytes
 * of a stranger.
 *
 * Thread: one.  No allocation after creation.
 */
#ifndef TERN_COORDINATOR_SCHED_H
#define TERN_COORDINATOR_SCHED_H

#include "coordinator/pipe.h"
#include "coordinator/seq.h"
#include "engine/head.h"
#include "engine/model.h"

/* Rows that go through the head at a time. */
#define SCHED_HEAD_ROWS 32

struct sched_options {
    struct pipe *pipe;              /* borrowed, as are model and head */
    const struct tern_model *model; /* with embedding */
    struct tern_head *head;         /* for SCHED_HEAD_ROWS rows; NULL: sequences ask for hidden rows */
    enum tern_boundary boundary;
    uint32_t n_slots, n_pages, max_positions; /* as the pipe was opened with */
    uint32_t chunk;                           /* prompt rows in one step, at least 1 */
};

struct sched_stage_stats {
    uint64_t compute_us, queue_us, bytes;
};

struct sched_stats {
    uint64_t steps;      /* come home */
    uint64_t rows;       /* sent */
    uint64_t rows_home;  /* came back */
    uint64_t bytes_home; /* received by the coordinator */
    uint64_t head_us, embed_us;
    uint32_t n_stages;
    struct sched_stage_stats stages[TERN_MAX_WORKERS];
};

struct sched;

enum tern_status sched_new(const struct sched_options *o, struct sched **out,
                           struct tern_err *err) TERN_MUST_CHECK;
void sched_free(struct sched **s);

/* Queues a sequence.  TERN_ERR_LIMIT when it could never fit. */
enum tern_status sched_add(struct sched *s, struct seq *q, struct tern_err *err) TERN_MUST_CHECK;

/* Ends q and drops every pointer to it: it may be freed, from now on or (inside on_logits) from the end of
 * the turn on. */
void sched_forget(struct sched *s, struct seq *q);

/*
 * One turn: sends every step there is work and room for, then takes one result, waiting up to timeout_ms,
 * and hands out its logits and rows.  TERN_AGAIN when none came in time, TERN_END when nothing is queued,
 * ready or in flight.  An error is the pipeline's and final; a single sequence's error ends that sequence
 * (seq->failed) and nothing else.
 */
enum tern_status sched_turn(struct sched *s, int timeout_ms, struct tern_err *err) TERN_MUST_CHECK;

const struct sched_stats *sched_stats(const struct sched *s);

#endif
