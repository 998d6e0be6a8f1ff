/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told of a running service: the one source of /metrics, /slots, the page's picture of the
 * cluster, `tern status` and `tern top`.  Plain data, copied out under a lock.
 *
 * A pipeline of n stages has n + 1 hops: coordinator to stage 0, stage i to i + 1, the last one home.
 */
#ifndef TERN_COORDINATOR_SERVE_SNAPSHOT_H
#define TERN_COORDINATOR_SERVE_SNAPSHOT_H

#include "coordinator/pipe.h"
#include "coordinator/sched.h"

#include <stdbool.h>
#include <stdint.h>

#define SNAPSHOT_BUCKETS 24 /* of a histogram: bucket i counts values below 2^i microseconds, the last all */

struct snapshot_histogram {
    uint64_t count[SNAPSHOT_BUCKETS]; /* in this bucket, not cumulated */
    uint64_t n, sum_us;
};

/* Of the last ones of a kind. */
struct snapshot_quantiles {
    uint32_t n; /* 0: none yet, and nothing is known */
    uint32_t p50_us, p99_us;
};

struct snapshot_stage {
    bool open; /* else the pipeline is not, and was of these stages */
    struct pipe_stage_info info;
    struct pipe_stage_live live;          /* not open: the endpoint alone */
    uint64_t steps, compute_us, queue_us; /* since the pipeline was opened */
    /* Of the last seconds: */
    double ms_per_step, tokens_per_s, idle_share; /* idle_share 0 to 1, negative: not known */
};

struct snapshot_hop {
    uint64_t bytes;
    double bytes_per_s;
    uint64_t n;              /* steps it was measured of, */
    uint32_t p50_us, p99_us; /* ... from the end of computing on one side to the last byte on the other; of
                              * the last ones, when n > 0 */
    uint32_t within_us;      /* how far these may be off: two machines' clocks; 0: one clock */
};

/* One of a hop's times says something: it is longer than it may be wrong by.  Else the true one was at most
 * twice that. */
static inline bool snapshot_hop_knows(const struct snapshot_hop *h, uint32_t us)
{
    return h->n > 0 && (!h->within_us || us > h->within_us);
}

struct snapshot {
    uint64_t now_us, uptime_us;
    bool ready;
    char why[256]; /* not ready */
    uint32_t parallel, max_queue, ctx, max_in_flight;
    struct sched_stats sched;
    uint32_t n_stages;
    struct snapshot_stage stages[TERN_MAX_WORKERS];
    struct snapshot_hop hops[TERN_MAX_WORKERS + 1];
    double head_ms_per_step, coordinator_idle_share;
    /* Counted since the start. */
    uint64_t jobs, jobs_ended, jobs_cancelled, jobs_failed, refused, reopened;
    uint64_t prompt_tokens, answer_tokens; /* prompt: computed or cached */
    uint64_t steps;                        /* come home; sched.steps counts since the pipeline was opened */
    uint32_t n_waiting, n_running;
    double prompt_per_s, answer_per_s;                             /* tokens, of the last seconds */
    struct snapshot_histogram first_token, between_tokens, queued; /* per job, token, job */
    struct snapshot_quantiles first_token_last, between_tokens_last, queued_last;
};

struct snapshot_step {
    uint64_t number;                              /* from 1, going on when the pipeline is opened again */
    uint64_t sent_us, home_us, taken_us, done_us; /* sched.h */
    uint32_t n_prompt, n_decode, n_stages;
    struct {
        uint64_t in_us, start_us, end_us; /* all 0: not known */
        uint32_t bytes;
    } stages[TERN_MAX_WORKERS];
};

struct snapshot_slot {
    uint32_t slot; /* below `parallel` */
    uint64_t job;  /* number of the job, from 1 */
    bool prompting;
    uint32_t n_prompt, n_prompt_done, n_cached, n_tokens, n_ctx;
    double seconds; /* since it got its slot */
};

#endif
