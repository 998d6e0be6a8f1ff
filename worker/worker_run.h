/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of one assignment on their way through: coming in by parts, with the compute thread, going out.
 */
#ifndef TERN_WORKER_WORKER_RUN_H
#define TERN_WORKER_WORKER_RUN_H

#include "worker/worker.h"

/* Allocates everything the assignment will ever need and starts the compute thread. */
enum tern_status worker_run_new(const struct tern_model *model, struct tern_pool *pool,
                                const struct worker_plan *plan, const struct worker_way *way,
                                struct worker_run **out, struct tern_err *err) TERN_MUST_CHECK;
/* Waits for the step at hand unless worker_run_ended(). */
void worker_run_free(struct worker_run **r);

/* Takes one Step message; a whole step goes on to the compute thread. */
enum tern_status worker_run_take(struct worker_run *r, const struct worker_plan *plan,
                                 const struct worker_mail *m, const Tern__Header *h,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* A step is about to come: an idle compute thread stays awake for it, though not for long. */
void worker_run_expect(struct worker_run *r);
/* Computed steps that the compute thread has not sent join the list of outgoing ones. */
enum tern_status worker_run_collect(struct worker_run *r, struct tern_err *err) TERN_MUST_CHECK;
/* Sends what is on that list, in order.  TERN_AGAIN when the rest has no room yet. */
enum tern_status worker_run_send(struct worker_run *r, struct tern_err *err) TERN_MUST_CHECK;
/* From now on the compute thread ends as soon as it can, and takes and sends nothing: the way may end. */
void worker_run_shut(struct worker_run *r);
/* After tern_stage_stop(): the compute thread is gone.  Discards what it had finished. */
bool worker_run_ended(struct worker_run *r);

#endif
