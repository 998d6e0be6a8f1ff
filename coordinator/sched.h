/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: which rows of which sequences make up the next step, and what becomes of the rows that
 * come home.
 *
 * Several steps are in flight.  Sequences that wait for their next token form as many groups as keep the
 * slowest stage busy, one row each and a step for each group (step_tuner.h); up to `chunk` rows of prompts
 * ride along, or go alone.  Of several prompts the oldest gets at least half of them, the shortest the rest.
 *
 * A sequence gets a slot when the pages it may ever take fit beside those of all that are LIVE; it is the
 * turn of the client that has the fewest, and of its users the one that has.  It begins with the longest
 * prefix that any slot holds (kv_slots.h), and leaves its own KV behind as one; the least recently used goes
 * when room is needed.
 * Slots are opened, forked, cut and freed by operations that ride in the steps; a table of our own says
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

/* One step's way.  Times are tern_now_ns() / 1000. */
struct sched_trace {
    uint64_t number;
    uint64_t sent_us, home_us;   /* given to the pipe, and back */
    uint64_t taken_us, done_us;  /* from there until then in the head and the sampler; before, it waited */
    uint32_t n_prompt, n_decode; /* rows of prompts, and rows that are one token of an answer */
    uint32_t n_times;
    const struct tern_stage_time *times; /* [n_times], one per stage */
};

struct sched_options {
    struct pipe *pipe;              /* borrowed, as are model and head */
    const struct tern_model *model; /* with embedding */
    struct tern_head *head;         /* for SCHED_HEAD_ROWS rows; NULL: sequences ask for hidden rows */
    enum tern_boundary boundary;
    uint32_t n_slots, n_pages, max_positions; /* as the pipe was opened with */
    uint32_t n_at_once; /* LIVE sequences at most, 0: n_slots; the other slots keep prefixes */
    uint32_t chunk;     /* prompt rows in one step; 0: chosen from measured stage times */
    /* Every step that has come home, when its rows have been handed out; on the scheduler's thread, inside
     * its allocation guard.  NULL: nobody wants to know. */
    void (*on_step)(void *user, const struct sched_trace *t);
    void *on_step_user;
    /* Microseconds on a clock that only goes forward; NULL: tern_now_ns() / 1000. */
    uint64_t (*now_us)(void);
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
    uint64_t prompt_rows, decode_rows; /* sent; together `rows` */
    uint32_t n_queued, n_live, n_in_flight;
    uint32_t chunk, share, groups; /* prompt rows, decode rows and steps in flight it aims at now */
    uint32_t pages, pages_free, pages_cached; /* of the KV cache; cached: held by nobody who is LIVE */
    uint64_t prefix_lookups, prefix_hits;     /* sequences that looked for a prefix, and found one */
    uint64_t prefix_tokens, prefix_evicted;   /* positions not computed again; prefixes given up */
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

/* For who waits otherwise than in a turn: how long at most, so that what may go out before a result has come
 * does; most_ms or less, and -1 for most_ms is without end. */
int sched_wait_ms(const struct sched *s, int most_ms);

const struct sched_stats *sched_stats(const struct sched *s);

#endif
