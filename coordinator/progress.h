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
#include <stddef.h>
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

#define PROGRESS_LINE 256

/* What is drawn on a terminal of `cols` columns: "what [###...] 44 % of 100 MB", fitted.  Its length. */
size_t progress_line(char out[static PROGRESS_LINE], unsigned cols, const char *what, double percent,
                     double mb);

#endif
