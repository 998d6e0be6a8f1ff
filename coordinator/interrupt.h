/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C and SIGTERM: the first ends what is going on in good order (workers are told, children end, the exit
 * code is 128 + signal), wherever the program is; the second kills.
 *
 * Whatever may take longer than a moment looks at interrupt_signal() and gives up with TERN_END.
 */
#ifndef TERN_COORDINATOR_INTERRUPT_H
#define TERN_COORDINATOR_INTERRUPT_H

#include "engine/base/status.h"

/* How long a wait may last without a look: a signal may arrive in the moment before it begins. */
#define INTERRUPT_LOOK_MS 50

/* From here on.  Not before input is read, which the plain signals end at once. */
void interrupt_catch(void);
/* For a program that goes on after Ctrl-C: from here on no number of them kills it. */
void interrupt_outlive(void);
/* For a program that goes on after Ctrl-C: as if no SIGINT had come.  Another signal stays. */
void interrupt_forget(void);
/* The signal that came, or 0; always 0 without interrupt_catch. */
int interrupt_signal(void);
/* TERN_OK, or TERN_END and a sentence when a signal has come. */
enum tern_status interrupt_check(struct tern_err *err) TERN_MUST_CHECK;

#endif
