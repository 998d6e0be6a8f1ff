/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model that answers many people at once: a session, its scheduler, and the thread that drives it.
 *
 * Jobs come in from any thread through a bounded queue and are computed together; each gets the bits it
 * would get alone.  When the pipeline breaks, the jobs of that moment fail with its sentence and it is opened
 * again, until then new ones are refused.
 */
#ifndef TERN_COORDINATOR_SERVE_SERVICE_H
#define TERN_COORDINATOR_SERVE_SERVICE_H

#include "coordinator/serve/job.h"
#include "coordinator/serve/snapshot.h"
#include "coordinator/session.h"
#include "engine/chat_template.h"

struct service_options {
    const struct engine_options *engine; /* borrowed */
    const char *name;                    /* of the model, or NULL: service_model_name's own */
    uint32_t parallel;                   /* sequences computed at once */
    uint32_t max_queue;                  /* that wait for it; more are refused */
    uint32_t max_tokens;                 /* of one answer; 0: the context */
    uint32_t n_prefixes;                 /* ended sequences whose KV may stay */
    const char *chat_format;             /* a name, or NULL: by the model */
};

/* Loads the model and opens the pipeline. */
enum tern_status service_open(const struct service_options *o, struct service **out,
                              struct tern_err *err) TERN_MUST_CHECK;
/* It will be closed as soon as what is being answered has been: whoever only looks on should go.  Any
 * thread. */
void service_drain(struct service *s);
bool service_draining(struct service *s);
/* All jobs must have been freed. */
void service_close(struct service **s);

/* What does not change while it is open: any thread may read. */
const struct session *service_session(const struct service *s);
const struct tern_chat_choice *service_chat(const struct service *s); /* format NULL: no way to chat known */
uint32_t service_ctx(const struct service *s);
const char *
service_model_name(const struct service *s); /* the file's, without folder and suffix, if not given */

/* TERN_ERR_BUSY: the queue is full; TERN_ERR_PEER: the pipeline is being opened again; TERN_ERR_LIMIT,
 * TERN_ERR_USAGE: a request that can never run. */
enum tern_status service_submit(struct service *s, const struct job_request *r, struct job **out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Is it ready to take jobs?  If not, *err says why. */
bool service_ready(struct service *s, struct tern_err *err);

/* Everything that can be told of it now; any thread. */
void service_snapshot(struct service *s, struct snapshot *out);
/* Steps later than number `since` that have come home, oldest first, at most max; returns how many. */
uint32_t service_traces(struct service *s, uint64_t since, struct snapshot_step *out, uint32_t max);
/* What is in the slots now, at most max. */
uint32_t service_slots(struct service *s, struct snapshot_slot *out, uint32_t max);

/* A request has been refused, because service_submit did so or for a reason of the caller's: one may be
 * several jobs, so it is the caller who counts. */
void service_count_refused(struct service *s);

#endif
