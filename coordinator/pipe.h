/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline as the coordinator's scheduler sees it: steps go in, results come out, in order, and it may
 * die.
 *
 * Two kinds behind one struct: in-process (a tern_stage with all layers, engine threads of this process) and
 * remote (a link thread that owns all sockets, heartbeats and the cluster's state).  Both take the same
 * struct tern_step through the same bounded queues; the scheduler cannot tell them apart.
 *
 * Thread: all calls from the one thread that schedules.
 */
#ifndef TERN_COORDINATOR_PIPE_H
#define TERN_COORDINATOR_PIPE_H

#include "coordinator/cluster_spec.h"
#include "engine/base/status.h"
#include "engine/boundary.h"
#include "engine/kv.h"
#include "engine/model.h"
#include "engine/pool.h"
#include "proto/keys.h"
#include "proto/step.h"

#include <stdbool.h>
#include <stdint.h>

/* What is known of one stage, for figures. */
struct pipe_stage_info {
    char name[TERN_MAX_NAME_BYTES + 1]; /* "local", or the worker's */
    char cpu[16];
    const char *layout;   /* of its tiles; NULL: the worker's own affair */
    uint32_t first, last; /* layers */
    uint32_t threads;
    uint64_t weight_bytes, kv_bytes;
};

/* What is known of one stage now, beyond what steps tell. */
struct pipe_stage_live {
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1]; /* empty in process */
    bool suspect;                               /* silent for longer than it should be */
    uint32_t silent_ms;                         /* since anything came from it */
    uint32_t round_trip_us;   /* of a heartbeat, the shortest of the last ones; 0: not known, or in process */
    int64_t clock_ahead_us;   /* of its clock against ours, from the same heartbeats */
    uint32_t clock_within_us; /* how far that may be off */
    uint64_t memory_bytes;    /* resident in its process */
    uint64_t rejected;        /* connections and messages it has refused since its start */
    uint64_t steps, busy_us;  /* in this epoch */
};

struct pipe {
    uint32_t n_stages;
    struct pipe_stage_info stages[TERN_MAX_WORKERS];
    uint32_t max_in_flight; /* steps; at least 1 */
    uint32_t max_rows;      /* of one step */
    uint32_t row_bytes;     /* of one encoded row */
    bool remote;
    int fd; /* readable when recv would not wait; for poll only, by the thread that schedules */

    /* Free steps to fill: never blocks, NULL when all are in flight. */
    struct tern_step *(*take)(struct pipe *p);
    /* Gives a step back unsent, or a result when done with it. */
    void (*give)(struct pipe *p, struct tern_step *s);
    /* Sends s (given away, also when it fails); its number is set here. */
    enum tern_status (*send)(struct pipe *p, struct tern_step *s, struct tern_err *err);
    /* The next result, waiting up to timeout_ms (-1 for ever): the step as it was sent, with the wanted
     * rows as its payload, failed and times filled (one per stage, t_in_us by our clock and between sending
     * and coming home), bytes_in what came over the last hop, from workers t_in_ns when.
     * TERN_AGAIN on time-out; TERN_ERR_PEER and others once the pipe is broken: final, and the sentence
     * names the worker. */
    enum tern_status (*recv)(struct pipe *p, int timeout_ms, struct tern_step **out, struct tern_err *err);
    /* What is known of stage i now: safe from any thread while the pipe is open. */
    void (*live)(struct pipe *p, uint32_t i, struct pipe_stage_live *out);
    void (*close)(struct pipe *p); /* frees p too; releases the workers */
    void *impl;
};

/* What any pipeline is made of.  What it points to is borrowed and must outlive the pipe, as must the key. */
struct pipe_options {
    const struct tern_gguf *gguf;
    const struct tern_arch *arch;
    const struct tern_kernels *kern;
    struct tern_pool *pool;       /* the coordinator's; an in-process stage shares it */
    enum tern_tile_layout layout; /* of an in-process stage */
    enum tern_boundary boundary;
    enum tern_kv_type kv;
    uint32_t n_pages, n_slots, max_positions, max_rows;
    uint32_t max_in_flight;   /* steps on their way at once, up to 64; 0: see below */
    uint32_t dead_after_ms;   /* silence of a worker that counts as death; 3000 */
    uint32_t step_timeout_ms; /* steps on their way and no stage gets on with them; 60000; 0: never */
    uint32_t join_timeout_ms; /* how long a worker may take to answer the first time; 5000 */
    bool quiet;               /* no progress on stderr */
};

/*
 * Steps in flight when nobody says: in process 2; over n workers one computing and one waiting in each, and
 * PIPE_ON_THE_WAY on links with some delay, as far as each process's buffers for them, max_rows * row_bytes a
 * step, stay within PIPE_STEPS_BYTES; at least n + 2, which links without delay need.  A buffer becomes
 * resident as far as a step fills it.
 */
#define PIPE_ON_THE_WAY  6u
#define PIPE_STEPS_BYTES ((size_t)32 << 20)

/* All layers in this process. */
enum tern_status pipe_local_open(const struct pipe_options *o, struct pipe **out,
                                 struct tern_err *err) TERN_MUST_CHECK;

/* Layers on the members of a cluster, in its order.  Returns when every worker is ready; names the one
 * that is not. */
enum tern_status pipe_remote_open(const struct pipe_options *o, const struct cluster_spec *cluster,
                                  const struct tern_key *key, struct pipe **out,
                                  struct tern_err *err) TERN_MUST_CHECK;

#endif
