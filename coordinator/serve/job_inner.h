/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job as its two sides see it.  The reader's thread makes it, the driver computes it, and whoever lets go
 * of it last frees it.
 *
 * Text and tokens are the sequence's own (generate.h): the driver adds to them without the lock, the reader
 * looks, with the lock, at no more than what has been published, which does not change any more.  Where they
 * lie in memory changes with the lock only (job_reserve).
 */
#ifndef TERN_COORDINATOR_SERVE_JOB_INNER_H
#define TERN_COORDINATOR_SERVE_JOB_INNER_H

#include "coordinator/serve/job.h"
#include "coordinator/session.h"

#include <pthread.h>
#include <stdatomic.h>

struct job {
    /* Does not change. */
    struct service *service;
    struct job_request r; /* ids NULL: they are the sequence's */
    int32_t end_id;       /* what r.gen.end_id points to */
    char *stops;          /* what r.gen.stops point into */
    uint64_t number;      /* from 1 */
    uint64_t t_submit_ns;

    atomic_int holders;      /* 2, 1, 0 */
    atomic_bool cancelled;   /* by the reader, for the driver */
    struct job *next, *prev; /* in the service's inbox; among the driver's */

    /* The driver's, but for what has been published. */
    struct generate gen;
    struct embed embed;
    int slot; /* as in job_state */
    bool counted_start, counted_first;
    uint32_t n_counted;    /* tokens */
    uint64_t t_counted_ns; /* when the last of them came */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job_state state; /* published */
    size_t n_text;
    uint32_t n_tokens;

    /* The reader's. */
    size_t taken_text;
    uint32_t taken_tokens;
};

/* Checks a request against what the session can do, and makes a job that nobody computes yet, with one holder
 * for each side.  max_tokens 0: no limit beyond the context. */
enum tern_status job_new(const struct session *s, const struct job_request *r, uint32_t max_tokens,
                         struct job **out, struct tern_err *err) TERN_MUST_CHECK;
void job_drop(struct job *j);

/* The rest is the driver's. */
static inline struct seq *job_seq(struct job *j)
{
    return j->r.kind == JOB_EMBED ? &j->embed.seq : &j->gen.seq;
}

/* Room for what the next turn may add; fails the job when there is none. */
void job_reserve(struct job *j);
/* Ends it, unless it has ended: with err, or because it was cancelled when that is NULL. */
void job_end(struct job *j, const struct tern_err *err);
/* Shows the reader what is final. */
enum job_shown {
    JOB_SHOWN,
    JOB_LATER, /* the reader was looking: again soon */
    JOB_ENDED
};
enum job_shown job_publish(struct job *j);

#endif
