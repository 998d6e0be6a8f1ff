/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link thread's side of a cluster: one encrypted link per worker, the way from hello to ready, steps and
 * results, heartbeats, and what to call it when a worker is gone.  cluster.c has the loop, cluster_join.c
 * what happens before the first step, cluster_run.c what happens from then on.
 *
 * Two bounded queues join it to the scheduler's thread (pipe_remote.c).  Each carries steps and a few tags,
 * which are addresses within the cluster.  Once a worker is lost the cluster is broken for good: the reason
 * is in `error`, the tag `broken` is on its way, all workers have been released, and nothing is sent or
 * received any more.
 *
 * Thread: cluster_main runs in the link thread and touches everything; the scheduler touches what a tag has
 * published, and anybody may ask cluster_live.
 */
#ifndef TERN_COORDINATOR_CLUSTER_H
#define TERN_COORDINATOR_CLUSTER_H

#include "coordinator/peer_clock.h"
#include "coordinator/pipe.h"
#include "coordinator/progress.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/identity.h"
#include "engine/queue.h"
#include "proto/link.h"
#include "proto/wire.h"

#include <pthread.h>

#define CLUSTER_PING_MS    100u
#define CLUSTER_SUSPECT_MS 400u
/* How long a worker's word that its neighbour is gone waits for our own link to that neighbour to say so. */
#define CLUSTER_HOLD_MS 150u
/* How long steps on their way may take to come home when a worker has said that it is leaving; less than what
 * it waits for us. */
#define CLUSTER_LEAVE_MS 1500u
/* A busy worker is asked again until its holder, if that has died, must have been noticed. */
#define CLUSTER_BUSY_RETRY_MS 300u
/* Tensor entries in one message: 64 of the longest (255 bytes of name, 4 dimensions of 10, 32 of hash and
 * the tags) are 22 KiB. */
#define CLUSTER_TENSORS_PER_MESSAGE 64u

/* What we know of a worker.  The order is the order of events. */
enum peer_state {
    PEER_CONNECTING, /* no handshake yet */
    PEER_HELLO,      /* asked; no answer yet */
    PEER_WELCOMED,   /* ours */
    PEER_LOADING,    /* assigned */
    PEER_READY,
    PEER_GONE, /* released, by us or by itself: what it says and whether its link lives is nothing to us */
    PEER_N_STATES
};

struct cluster_peer {
    const struct cluster_member *member;
    uint32_t index;
    struct tern_client *client;
    enum peer_state state;
    uint64_t reopen_ms; /* not 0: the link was lost before the worker was ours, and is made again then */
    uint64_t hello_ms;  /* when to say hello (again) */
    uint64_t heard_ms;  /* when anything came last */
    bool suspect;
    char holder[TERN_MAX_NAME_BYTES + 1]; /* of a busy worker */
    bool assign_sent;
    size_t tensor_next, tensor_end; /* entries of the identity still to be looked at */
    uint64_t load_done, load_total;
    uint64_t load_ms; /* when loading last got on */
    struct pipe_stage_info info;
    struct peer_clock clock;
    struct pipe_stage_live live; /* ours; copied for others when it changes */
};

struct cluster {
    struct pipe_options o;
    const struct tern_key *key;        /* borrowed */
    struct cluster_spec spec;          /* planned */
    const struct tern_identity *model; /* set before the tag `assign` */
    uint8_t arch_hash[TERN_HASH_BYTES];
    uint64_t epoch;
    uint32_t layout;

    struct tern_link_context *ctx;
    struct cluster_peer peers[TERN_MAX_WORKERS];
    struct tern_arena arena; /* one received header */
    uint8_t header[TERN_MAX_HEADER_BYTES];

    struct tern_queue *commands, *events;
    struct {
        char assign, stop, joined, ready, broken;
    } tag;

    /* Steps on their way, oldest first: a ring.  n_sent of them have left, and parts_sent parts of the
     * next one. */
    struct tern_step *flight[TERN_MAX_STEPS_IN_FLIGHT];
    uint64_t flight_us[TERN_MAX_STEPS_IN_FLIGHT]; /* when it had left */
    uint32_t flight_head, n_flight, n_sent, parts_sent;
    /* Ops and runs of the oldest step while its result comes in: they do not travel home, but the
     * scheduler wants them back. */
    struct {
        uint32_t n_ops, n_runs;
        struct tern_slot_op ops[TERN_MAX_STEP_OPS];
        struct tern_run runs[TERN_MAX_STEP_RUNS];
    } kept;

    uint64_t join_until_ms, next_ping_ms, ping_seq;
    uint64_t hold_until_ms; /* not 0: a neighbour's word is held back */
    struct tern_err hold_error;
    const struct cluster_peer *leaving; /* nothing new is sent; what is on its way may come home */
    uint64_t leave_until_ms;
    uint64_t progress_ms; /* when a stage last got on with the steps in flight */
    bool joined, assigned, ready, receiving, broken, stop;
    struct tern_err error;
    uint64_t n_stale; /* messages of another epoch */
    struct tern_log_limit stale_log;
    struct progress bar;

    pthread_mutex_t live_lock;
    struct pipe_stage_live live[TERN_MAX_WORKERS]; /* under the lock */
};

/* -- cluster.c ------------------------------------------------------------------------------------------ */

/* Spec is planned already.  Makes queues and the epoch; nothing is connected before cluster_main. */
enum tern_status cluster_new(const struct pipe_options *o, const struct cluster_spec *spec,
                             const struct tern_key *key, struct cluster **out,
                             struct tern_err *err) TERN_MUST_CHECK;
void cluster_free(struct cluster **c);

/* What was known of worker i at the last heartbeat; from any thread. */
void cluster_live(struct cluster *c, uint32_t i, struct pipe_stage_live *out);

/* The link thread: returns after the tag `stop`. */
void *cluster_main(void *cluster);

/* The first reason counts; later ones are forgotten. */
void cluster_break(struct cluster *c, enum tern_status status, const char *fmt, ...) TERN_PRINTF(3, 4);

/* "worker w1 (tcp://10.0.0.7:7700, layers 0-14)" for sentences. */
struct peer_text {
    char z[TERN_MAX_NAME_BYTES + TERN_MAX_ENDPOINT_BYTES + 64];
};
struct peer_text peer_describe(const struct cluster_peer *p);

/* Version and epoch filled in. */
void cluster_header(const struct cluster *c, Tern__Header *h, Tern__Header__BodyCase body);
/* TERN_AGAIN: no room, try again next turn; a failure breaks the cluster. */
enum tern_status cluster_post(struct cluster *c, struct cluster_peer *p, const Tern__Header *h);

/* -- cluster_join.c ------------------------------------------------------------------------------------- */

enum tern_status cluster_connect(struct cluster *c, struct cluster_peer *p,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* State of the link as tern_client_pump says. */
void cluster_on_link(struct cluster *c, struct cluster_peer *p, enum tern_client_state state, uint64_t now);
void cluster_on_welcome(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_busy(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_loading(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_ready(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
/* Sends what is due before the first step and compares clocks. */
void cluster_join_tick(struct cluster *c, uint64_t now);

/* -- cluster_run.c -------------------------------------------------------------------------------------- */

/* Sends as much of the steps in flight as the first worker's link takes. */
void cluster_send_steps(struct cluster *c);
void cluster_on_result(struct cluster *c, struct cluster_peer *p, const Tern__Header *h,
                       const struct tern_link_message *m);
void cluster_on_pong(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_bye(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_fault(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now);
void cluster_on_lost(struct cluster *c, struct cluster_peer *p);
/* Heartbeats and silence of the workers that are ours. */
void cluster_run_tick(struct cluster *c, uint64_t now);

#endif
