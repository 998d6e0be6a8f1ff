/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker as a state machine: messages in, messages out, no sockets.
 *
 * Whoever owns the sockets (worker_loop.c; a fuzz target) calls worker_clock(), then worker_take() for each
 * message that has arrived, worker_turn() and worker_tick(), whenever a descriptor was readable and at least
 * every worker_wait_ms().  Messages go out through struct worker_net.
 *
 * A worker belongs to one coordinator process, its owner, from hello until bye, silence, or the loss of its
 * key from the allow-list.  Control is taken from the owner's key only, steps from the assigned upstream key
 * only, both looked up in the current list at every message.
 *
 * Thread: one at a time, under the lock of struct worker_net if there are several.  A compute thread that has
 * nothing to compute calls worker_clock() and worker_take(), all other calls are the loop thread's, which
 * never computes and never waits.
 */
#ifndef TERN_WORKER_WORKER_H
#define TERN_WORKER_WORKER_H

#include "engine/base/log.h"
#include "proto/allow.h"
#include "proto/link.h"
#include "worker/stage.h"
#include "worker/worker_load.h"
#include "worker/worker_plan.h"

#include <pthread.h>

enum worker_state {
    W_IDLE,     /* nobody's; a slice may still be loaded */
    W_HELD,     /* somebody's, without an assignment */
    W_LOADING,  /* assigned; tensors are being compared and loaded, the next worker is being connected */
    W_READY,    /* steps pass through */
    W_DRAINING, /* told to end, and has said so: steps on their way are computed until the owner lets go */
    W_N_STATES
};

/* How messages leave.  Statuses are those of link.h. */
struct worker_net {
    void *impl;
    enum tern_status (*reply)(void *impl, const uint8_t *route, size_t route_len, const void *header,
                              size_t header_len, const void *payload, size_t payload_len,
                              struct tern_err *err);
    enum tern_status (*next_open)(void *impl, const char *endpoint, const uint8_t *key, struct tern_err *err);
    void (*next_close)(void *impl); /* also when none is open */
    enum tern_client_state (*next_state)(void *impl);
    const char *(*next_why)(void *impl);
    enum tern_status (*next_send)(void *impl, const void *header, size_t header_len, const void *payload,
                                  size_t payload_len, struct tern_err *err);
    uint64_t (*n_refused)(void *impl); /* connections refused since the start */

    /* For compute threads, which keep away from the worker and from all of the above when `lock` is NULL. */
    pthread_mutex_t *lock; /* held by whoever calls the worker, or what stands here */
    /* Gives what has come to worker_take().  True: there may be more. */
    bool (*take)(void *impl);
    /* Gives the lock back until there may be something to take, or `in` is ready; for a moment when there may
     * be more, so that the loop thread has its turn however much comes.  Does not sleep before awake_ns, a
     * moment of tern_now_ns(). */
    void (*wait)(void *impl, struct tern_queue *in, bool more, uint64_t awake_ns);
};

/* A message that came in; everything is borrowed. */
struct worker_mail {
    const void *header, *payload;
    size_t header_len, payload_len;
    bool has_payload;
    const uint8_t *from_key; /* [TERN_KEY_BYTES], authenticated */
    const uint8_t *route;
    size_t route_len;
};

struct worker_options { /* all borrowed */
    const char *name;
    const struct worker_file *file;
    const struct tern_kernels *kern;
    struct tern_pool *pool;
    enum tern_tile_layout layout;
    uint64_t memory_limit;
    struct tern_allow *allow;
    const struct worker_net *net;
};

/* Why a message is dropped; each reason is logged once a minute and counted. */
enum worker_reject { REJECT_UNLISTED, REJECT_ROLE, REJECT_MALFORMED, REJECT_EPOCH, REJECT_STATE, REJECT_N };

/* Where the steps of an assignment go. */
struct worker_way {
    const struct worker_net *net;
    bool home; /* to the coordinator, else to the next worker */
    uint64_t epoch;
    uint32_t layout;
    uint8_t route[16];
    size_t route_len;
};

/*
 * What exists only between assignment and release: the stage and the step buffers it works on.
 *
 * Waking another thread takes longer than all that is done with a small step between two stages.  So the
 * compute thread sends a computed step itself, unless one before it is still waiting for room, for steps
 * leave in order.  And while it has nothing to compute it takes the messages itself, whatever they are: it
 * may find then that its own run has been retired.  While it computes, the loop thread takes them.
 *
 * And it announces a step to the next worker a moment before it is done.  A thread that sleeps on a halted
 * CPU wakes after 50 us and more, with cold caches.  The announcement has those wakes behind it, through the
 * same threads and the same code, when the step comes; and whom it finds idle does not sleep until then.
 */
struct worker_run {
    struct tern_stage *stage;
    uint32_t n_steps;
    struct tern_step *steps[WORKER_MAX_STEPS]; /* all of them */
    struct tern_step *free[WORKER_MAX_STEPS];  /* the one used last goes first: its memory is there already */
    uint32_t n_free;
    struct tern_step *filling;               /* parts are coming in, or NULL */
    struct tern_step *out[WORKER_MAX_STEPS]; /* computed, in order, not yet sent */
    uint32_t out_head, n_out;
    uint32_t n_refused;         /* sequences this stage refused and nobody has spoken of yet */
    struct tern_failed refused; /* the last of them */

    uint32_t n_unsent; /* computed steps the compute thread has left to the loop thread */
    uint64_t awake_ns; /* a step was announced: until then the idle compute thread does not sleep */
    bool shut;         /* the compute thread takes and sends nothing any more */
    struct worker_way way;
    uint8_t header[TERN_MAX_HEADER_BYTES];
};

struct worker {
    struct worker_options o;
    enum worker_state state;
    uint64_t now_ms, list_ms;

    /* The owner, unless idle. */
    uint8_t owner_key[TERN_KEY_BYTES];
    char owner_name[TERN_MAX_NAME_BYTES + 1];
    uint8_t route[16]; /* where its messages come from, and replies go */
    size_t route_len;
    bool owner_gone; /* a reply found no route */
    uint64_t epoch;
    uint64_t last_epoch; /* the one before; what its coordinator sent before it could know is no offence */
    uint32_t layout;
    uint64_t heard_ms, progress_ms, probe_ms;
    uint64_t ping_seq; /* of the last ping answered */

    /* The assignment, from LOADING on. */
    struct worker_plan plan;
    bool tensors_known, load_started, loaded;
    uint64_t next_since_ms;
    struct worker_run *run;     /* in READY and DRAINING, or while the next worker is awaited */
    struct worker_run *retired; /* its compute thread has not ended yet */
    struct worker_loader *loader;

    uint64_t drain_until_ms;
    bool done; /* the program may end */

    uint64_t n_rejected;
    uint64_t n_faults;
    struct tern_log_limit reject_log[REJECT_N];
    struct tern_log_limit refused_log;
    struct tern_arena arena; /* of the message at hand */
    uint8_t header[TERN_MAX_HEADER_BYTES];
};

enum tern_status worker_new(const struct worker_options *o, struct worker **out,
                            struct tern_err *err) TERN_MUST_CHECK;
void worker_free(struct worker **w);

/* Says what time it is, before any of the calls below. */
void worker_clock(struct worker *w, uint64_t now_ms);
void worker_take(struct worker *w, const struct worker_mail *m);
/* Computed steps, ended loads, the link to the next worker, outgoing steps that had no room. */
void worker_turn(struct worker *w);
/* Silence, time-outs and the allow-list; after worker_take() for all that had arrived. */
void worker_tick(struct worker *w);

/* Re-reads the allow-list if it changed; it may have lost those we work with.  Part of every tick, and
 * called besides in front of handshakes, so that whoever was added a moment ago gets in.  At most ten looks a
 * second. */
void worker_watch_list(struct worker *w);
/* Say bye, compute what is on its way until the owner lets go, and be done. */
void worker_drain(struct worker *w);

/* Compute threads take and send nothing any more: the links may be closed. */
void worker_shut(struct worker *w);

/* Descriptors whose being readable calls for worker_turn(). */
#define WORKER_MAX_FDS 3
int worker_fds(const struct worker *w, int fds[static WORKER_MAX_FDS]);
/* How long the loop may sleep at most. */
int worker_wait_ms(const struct worker *w);

#endif
