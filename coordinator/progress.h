/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of something long, on stderr: one line that is redrawn on a terminal, plain lines now and then
 * elsewhere.
 *
 * What ends within half a second says nothing at all.  Thread: any one.
 */
#ifndef TERN_COORDINATOR_PROGRESS_H
#define TERN_COORDINATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* borrowed: "loading the model" */
    bool quiet, terminal;
    bool drawn; /* something stands on the terminal's line */
    uint64_t begin_ms, next_ms;
};

void progress_begin(struct progress *p, const char *what, bool quiet);
/* Bytes; `arg` is the struct progress, so that this serves as the engine's callback.  False when the user
 * has had enough (interrupt.h). */
bool progress_update(void *arg, uint64_t done, uint64_t total);
/* Clears the line. */
void progress_end(struct progress *p);

#endif
