/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation with a model of this program: the sequence that holds it in the KV caches.
 *
 * Each turn sends what is new alone: the sequence of the last answer is gone on with.  Whatever changes
 * what was said before (another system prompt, a loaded conversation) gives the sequence up, and the next
 * turn sends the whole.  A turn that does not fit the context is refused with a sentence and changes
 * nothing.
 *
 * Thread: the scheduler's.
 */
#ifndef TERN_COORDINATOR_CHAT_SESSION_H
#define TERN_COORDINATOR_CHAT_SESSION_H

#include "coordinator/chat_options.h"
#include "coordinator/chat_partner.h"

/* Opens the model and finds the way it is talked to, as o says (borrowed; its grammar learns the
 * vocabulary), with a sentence on stderr when that
 * is a guess.  chat_begin opens its pipeline. */
enum tern_status chat_session_open(struct chat_options *o, struct chat **out,
                                   struct tern_err *err) TERN_MUST_CHECK;

#endif
