/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the scheduler share: sched.c (life, turns), sched_admit.c (who gets a slot),
 * sched_fill.c (what a step is made of), sched_home.c (what becomes of a result).
 */
#ifndef TERN_COORDINATOR_SCHED_IMPL_H
#define TERN_COORDINATOR_SCHED_IMPL_H

#include "coordinator/kv_slots.h"
#include "coordinator/sched.h"
#include "coordinator/step_tuner.h"

/* What a step in flight holds; results carry no runs. */
struct flight_run {
    struct seq *q; /* NULL: forgotten, or begun anew */
    uint32_t slot, gen, pos, n, n_want;
};

struct flight {
    uint64_t number;
    uint64_t sent_us, fill_us; /* when it was given to the pipe, and how long filling it took */
    uint32_t n_rows, n_prompt, n_decode, n_want;
    uint32_t n_runs;
    struct flight_run runs[TERN_MAX_STEP_RUNS];
};

/* Whose rows go into a step. */
struct plan {
    uint32_t n_runs, n_rows, n_prompt, n_decode;
    struct {
        struct seq *q;
        uint32_t n;
    } runs[TERN_MAX_STEP_RUNS];
};

struct sched {
    struct sched_options o;
    struct kv_slots kv;
    uint32_t n_live;                /* LIVE ones */
    uint32_t reserved;              /* pages the LIVE ones may take */
    uint32_t n_answering;           /* LIVE ones that get token after token */
    uint32_t cursor;                /* slot after the last one served with a decode row */
    struct seq *queue, **queue_end; /* waiting */
    uint64_t round;                 /* of admission */

    struct flight flights[TERN_MAX_STEPS_IN_FLIGHT];
    uint32_t first_flight, n_flights, max_flights;
    uint64_t sent;
    struct step_tuner tuner;
    double free_us[TERN_MAX_WORKERS]; /* when each stage will be through with all that has been sent */
    uint64_t wake_us; /* when a chunk may go out though nothing has come home; 0: no such time */
    struct plan plan;

    float *x;    /* [max_rows][n_embd] on the way out */
    float *home; /* [SCHED_HEAD_ROWS][n_embd] */
    size_t x_bytes, home_bytes;
    uint32_t n_home;
    struct {
        struct seq *q;
        uint32_t pos;
    } home_of[SCHED_HEAD_ROWS];
    struct sched_stats stats;
};

uint64_t sched_now_us(const struct sched *s);
/* The i-th step in flight, the oldest first. */
struct flight *sched_flight(struct sched *s, uint32_t i);

/* Every pointer to q in slots and flights goes; what its slot holds stays as a prefix if that is worth it. */
void sched_drop(struct sched *s, struct seq *q);

/* Has rows to send, once its slot has been rewound where that is due. */
bool sched_wants_rows(const struct seq *q);
/* Is at its answer: one row at a time, each of which follows from the one before. */
bool sched_is_answering(const struct seq *q);

/* -- sched_admit.c --------------------------------------------------------------------------------------- */

void sched_queue_push(struct sched *s, struct seq *q);
/* Before all others. */
void sched_queue_push_first(struct sched *s, struct seq *q);
void sched_queue_remove(struct sched *s, struct seq *q);

/* Sequences that have ended leave their slots, and what is said of the others is counted anew. */
void sched_settle(struct sched *s);
/* Whether an operation must go out even if no rows do. */
bool sched_has_slots_to_free(const struct sched *s);
/* Who would get a slot now; NULL: nobody waits, or there is no room for the one whose turn it is. */
struct seq *sched_next(struct sched *s);
/* Operations in front of a step's rows: slots to be freed and rewound. */
enum tern_status sched_tidy(struct sched *s, struct tern_step *step, struct tern_err *err) TERN_MUST_CHECK;
/* Then waiting sequences take what room there is. */
enum tern_status sched_admit(struct sched *s, struct tern_step *step, struct tern_err *err) TERN_MUST_CHECK;
/* Frees the least recently used prefix but for `spare`.  TERN_END: there is none, or the step has no room for
 * the operation. */
enum tern_status sched_evict(struct sched *s, struct tern_step *step, uint32_t spare,
                             struct tern_err *err) TERN_MUST_CHECK;

/* -- sched_fill.c ---------------------------------------------------------------------------------------- */

/* Rows of answers that may go out now. */
uint32_t sched_decode_share(struct sched *s);
/* Rows of prompts that may go out beside n_decode others; when it is only too early, sets wake_us. */
uint32_t sched_prompt_share(struct sched *s, uint32_t n_decode);
/* Fills the step and notes what it holds; embeddings that are not finite fail their sequences. */
enum tern_status sched_fill(struct sched *s, struct tern_step *step, struct flight *f, uint32_t n_decode,
                            uint32_t n_prompt, struct tern_err *err) TERN_MUST_CHECK;

/* -- sched_home.c ---------------------------------------------------------------------------------------- */

/* A step has gone: its way through the stages is foreseen. */
void sched_foresee(struct sched *s, const struct flight *f);

/* Takes the result of the oldest step in flight. */
enum tern_status sched_take_home(struct sched *s, struct tern_step *step,
                                 struct tern_err *err) TERN_MUST_CHECK;

#endif
