/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large steps are and how many are on their way, from what earlier ones took.
 *
 * Of each stage, and of the coordinator's own part (head and sampling), it keeps a line: time = a + b * rows,
 * fitted to what was measured lately at each size.  From these follow
 *
 * - the groups that decode rows are split into: of every number the one with the shortest round, where a
 *   round of G groups of r rows takes as long as a step's way without waiting, or G times the slowest part of
 *   it, whichever is longer; and one more where times are uneven and that makes a round shorter.  So stages
 *   are kept busy by as few and large steps as possible, and delays of links by as many as it takes;
 * - the rows of a prompt in one step: those that bring all prompts through soonest, (chunks - 1) * slowest
 *   stage + one chunk's way.  While answers are being made a chunk adds at most as much as two of their
 *   rounds (or CHUNK_PATIENCE_US, if that is longer) to its own way: answers keep a third of their speed;
 * - when a chunk goes out: while answers are being made as soon as it would find the stages free on its way,
 *   so that a row of an answer behind it never waits for more than one chunk's way; else as many as keep the
 *   slowest stage busy and one more.
 *
 * Times are microseconds.  Thread: the scheduler's.  No allocation.
 */
#ifndef TERN_COORDINATOR_STEP_TUNER_H
#define TERN_COORDINATOR_STEP_TUNER_H

#include "engine/base/limits.h"

#include <stdbool.h>
#include <stdint.h>

#define CHUNK_LEAST       16     /* rows: below that a chunk's own cost is most of it */
#define CHUNK_PATIENCE_US 100000 /* what a chunk may add to the time between two tokens anywhere */
#define CHUNK_START       64     /* rows, over workers, while nothing is known */

#define TUNER_SIZES 11 /* of steps: 1, 2, 3-4, 5-8, ... 513- rows */
#define TUNER_LINKS 32

struct tuner_size {
    double rows, us; /* means */
    uint32_t n;      /* measured, up to a limit */
    uint64_t when;   /* last, in measurements of this line */
};

struct tuner_line {
    struct tuner_size sizes[TUNER_SIZES];
    uint64_t n; /* measurements */
    double a, b;
    double spread; /* mean deviation from the mean of a size, as a share of it */
    uint32_t n_spread;
    double pace; /* of chunks lately, by what the line says: prompts get slower as they grow */
};

struct step_tuner {
    uint32_t n_stages, max_flights, max_rows;
    uint32_t fixed_chunk; /* 0: chosen */
    bool remote;          /* in process the only stage and the head share their threads */
    struct tuner_line stages[TERN_MAX_WORKERS], home;
    double sum_a, sum_b; /* of all stages */
    double links[TUNER_LINKS], link;
    uint32_t n_links;
    uint32_t groups; /* chosen last, by times that are not uneven */
    bool one_more;   /* than that, because they are */
};

/* What one step took. */
struct tuner_sample {
    uint32_t n_rows, n_want; /* sent, and wanted back; 0: `home` had prompts to embed, too */
    const uint64_t *stages;  /* [n_stages] computing; NULL: not known */
    uint64_t waited;         /* in queues, all stages together */
    uint64_t away;           /* from when it was given to the pipe until its last byte was back */
    uint64_t home;           /* head, sampling, and filling the step */
};

void step_tuner_init(struct step_tuner *t, uint32_t n_stages, bool remote, uint32_t max_flights,
                     uint32_t max_rows, uint32_t fixed_chunk);
void step_tuner_note(struct step_tuner *t, const struct tuner_sample *s);

/* The slowest stage with a step of so many rows; 0: not known yet. */
double step_tuner_slowest(const struct step_tuner *t, double rows);

/* Groups for n sequences that are being answered; 1 when n is 0. */
uint32_t step_tuner_groups(struct step_tuner *t, uint32_t n);

/* Rows of prompts, of which `rest` are waiting, beside n_decode rows of answers, when the largest step on its
 * way has `largest` rows.  `answering`: there are answers being made. */
uint32_t step_tuner_chunk(const struct step_tuner *t, uint32_t rest, uint32_t n_decode, uint32_t largest,
                          bool answering);

/* Without answers: may a chunk go out behind n_flights others, which keep the slowest stage busy for `work`
 * in all?  `largest`: rows of the largest of them all. */
bool step_tuner_keeps_busy(const struct step_tuner *t, uint32_t largest, uint32_t n_flights, double work);

/* Have steps of a quarter of so many rows, or more, been measured? */
bool step_tuner_knows(const struct step_tuner *t, uint32_t rows);

/* Sends a step through stages that are free from free_us [n_stages] on, which becomes when they are behind
 * it.  How long it waits for them in all. */
double step_tuner_pass(const struct step_tuner *t, double *free_us, double sent_us, double rows);

/* How long a chunk may wait for others while answers are being made: what a clock in milliseconds and lines
 * that are a little off can be trusted with. */
double step_tuner_slack(const struct step_tuner *t, double rows);

#endif
