/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edges of the state machine, for the files it consists of: worker.c (messages) and worker_turn.c
 * (everything else).
 */
#ifndef TERN_WORKER_WORKER_INNER_H
#define TERN_WORKER_WORKER_INNER_H

#include "worker/worker.h"

/* The only one that sets w->state; logs the edge. */
void worker_enter(struct worker *w, enum worker_state to);

/* Back to nobody's, whatever was going on; the loaded slice stays.  `why` is for the log. */
void worker_reset(struct worker *w, const char *why);

/* The epoch cannot go on: says so to the owner and lets go. */
void worker_fault(struct worker *w, const struct tern_err *why);

/* Sets owner_gone when the owner's connection is gone: libzmq tells that to those who send only, so a pong
 * it did not ask for is sent.  At most ten times a second. */
void worker_probe_owner(struct worker *w);

/* The upstream key is the owner's for stage 0, else a listed worker's.  Without this check a line missing in
 * the list would show as steps that vanish. */
enum tern_status worker_check_upstream(const struct worker *w, const struct worker_plan *p,
                                       struct tern_err *err) TERN_MUST_CHECK;

#endif
