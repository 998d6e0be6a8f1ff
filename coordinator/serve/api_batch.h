/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of one request: submitted a few at a time, watched together, freed as each ends.
 *
 * A request may have more jobs than the service's queue has room: once one has been taken, those for which
 * there is none wait here.
 *
 * Thread: the connection's.
 */
#ifndef TERN_COORDINATOR_SERVE_API_BATCH_H
#define TERN_COORDINATOR_SERVE_API_BATCH_H

#include "coordinator/serve/api_fault.h"
#include "coordinator/serve/job.h"

#define API_WINDOW 16 /* jobs of one request with the service at a time */

struct api_batch_calls {
    /* Fills in job i; what it points to lives until the call that submits it is over. */
    void (*fill)(void *user, uint32_t i, struct job_request *out);
    /* Something of job i has come.  state->ended: it is the last piece. */
    void (*piece)(void *user, uint32_t i, const struct job_piece *p, const struct job_state *state);
    /* Nothing of job i has come for a while; may be NULL. */
    void (*waiting)(void *user, uint32_t i, const struct job_state *state);
    /* Once for each job, behind its last piece. */
    void (*ended)(void *user, uint32_t i, const struct job_state *state);
};

struct api_batch {
    struct service *service;
    const struct api_batch_calls *calls;
    void *user;
    struct job **jobs; /* [n], NULL before and after */
    uint32_t n, n_submitted, n_ended;
    bool no_memory;
};

/* Submits the first ones.  TERN_ERR_BUSY when there was no room for one. */
enum tern_status api_batch_begin(struct api_batch *b, struct service *service, uint32_t n,
                                 const struct api_batch_calls *calls, void *user,
                                 struct api_fault *f) TERN_MUST_CHECK;
/* Waits wait_ms at most for something to come, and passes it on.  TERN_END: all have ended.  Fails when a job
 * could not be submitted any more; one that failed by itself is for calls->ended to see. */
enum tern_status api_batch_turn(struct api_batch *b, int wait_ms, struct api_fault *f) TERN_MUST_CHECK;
/* Cancels what has not ended. */
void api_batch_end(struct api_batch *b);

#endif
