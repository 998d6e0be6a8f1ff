/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service has seen of itself: the last steps, and counts since the start.  Filled by the thread that
 * drives, a few times per step and without allocating; read by any other, as plain data (snapshot.h).
 *
 * Rates and shares are of the last WATCH_WINDOW_US, or of the last WATCH_STEPS steps where those are fewer.
 */
#ifndef TERN_COORDINATOR_SERVE_WATCH_H
#define TERN_COORDINATOR_SERVE_WATCH_H

#include "coordinator/serve/snapshot.h"

#include <pthread.h>

#define WATCH_STEPS     1024
#define WATCH_LAST      512 /* latencies of a kind kept for quantiles */
#define WATCH_WINDOW_US 5000000u

struct watch_stage {
    uint64_t in_us; /* 0: not known */
    uint32_t queue_us, compute_us, bytes;
};

struct watch_step {
    uint64_t number, sent_us, home_us, taken_us, done_us;
    uint64_t head_us, embed_us; /* the coordinator's own work until then, since the pipeline was opened */
    uint32_t n_prompt, n_decode, n_stages, bytes_home;
};

/* The last ones of a kind, and how they are spread since the start. */
struct watch_latency {
    uint32_t us[WATCH_LAST];
    uint64_t n;
    struct snapshot_histogram all;
};

struct watch_counts {
    uint64_t jobs, ended, cancelled, failed, refused, reopened, prompt_tokens, answer_tokens;
    uint32_t n_waiting, n_running;
};

struct watch {
    pthread_mutex_t lock; /* for all of it, held for moments */
    uint64_t start_us, opened_us;
    struct pipe *pipe;                            /* NULL: not open */
    struct snapshot_stage last[TERN_MAX_WORKERS]; /* when it is not: who its stages were */
    struct watch_step *steps;                     /* [WATCH_STEPS] step i at i % WATCH_STEPS */
    struct watch_stage *stages;                   /* [WATCH_STEPS][n_stages] */
    struct watch_latency *hops;                   /* [n_stages + 1] */
    uint64_t *hop_bytes;                          /* [n_stages + 1] */
    uint32_t n_stages;
    uint64_t n_steps;  /* seen since the pipeline was opened */
    uint64_t n_before; /* steps of pipelines before it: numbers go on */
    uint64_t n_total;
    uint64_t bytes_home;
    struct sched_stats sched;
    struct watch_counts counts;
    struct watch_latency first_token, between_tokens, queued;
    struct snapshot_slot slots[TERN_MAX_SLOTS];
    uint32_t n_slots;
};

enum tern_status watch_init(struct watch *w, struct tern_err *err) TERN_MUST_CHECK;
void watch_fini(struct watch *w);

/* A pipeline has been opened; it stays open until watch_close. */
enum tern_status watch_open(struct watch *w, struct pipe *pipe, struct tern_err *err) TERN_MUST_CHECK;
void watch_close(struct watch *w);

/* A step has come home; stats are the scheduler's, of that moment. */
void watch_step(struct watch *w, const struct sched_trace *t, const struct sched_stats *stats);

/* With the lock held. */
void watch_latency_add(struct watch_latency *l, uint64_t us);

/* Everything but `ready`, `why` and what the options say. */
void watch_snapshot(struct watch *w, struct snapshot *out);
uint32_t watch_traces(struct watch *w, uint64_t since, struct snapshot_step *out, uint32_t max);
uint32_t watch_slots(struct watch *w, struct snapshot_slot *out, uint32_t max);

#endif
