/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker says.
 */
#ifndef TERN_WORKER_WORKER_OUT_H
#define TERN_WORKER_WORKER_OUT_H

#include "worker/worker.h"

/* To the owner.  A lost route is noted in w->owner_gone; TERN_AGAIN means that the message was not sent. */
enum tern_status worker_say_welcome(struct worker *w) TERN_MUST_CHECK;
enum tern_status worker_say_ready(struct worker *w) TERN_MUST_CHECK;
void worker_say_loading(struct worker *w);
void worker_say_pong(struct worker *w, uint64_t seq);
void worker_say_bye(struct worker *w);
void worker_say_fault(struct worker *w, const struct tern_err *why);

/* To a coordinator that cannot have us: Busy, or Bye when we are draining. */
void worker_say_busy(struct worker *w, const struct worker_mail *to, uint64_t epoch);

/* Sends computed steps while there is room.  TERN_OK also when some are left. */
enum tern_status worker_flush(struct worker *w, struct tern_err *err) TERN_MUST_CHECK;

#endif
