/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole terminal for one program: the alternate screen, keys as they are pressed, the size as it changes.
 *
 * However the program ends, by its own will or by a signal, the terminal is what it was.  Ctrl-Z gives it
 * back for as long as the program is stopped.  One at a time, in the main thread.
 */
#ifndef TERN_COORDINATOR_FULL_SCREEN_H
#define TERN_COORDINATOR_FULL_SCREEN_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define FULL_SCREEN_NOTHING (-1) /* no key in time */
#define FULL_SCREEN_CHANGED (-2) /* draw anew: another size, or back from being stopped */

/* stdout is the terminal; keys come from stdin, if that is one. */
enum tern_status full_screen_begin(struct tern_err *err) TERN_MUST_CHECK;
void full_screen_end(void);

void full_screen_size(unsigned *columns, unsigned *rows);
/* A key's byte, or one of the above; waits at most timeout_ms. */
int full_screen_key(int timeout_ms);
/* Shows lines, each cut at the width, what is beyond the last row left out.  False: nobody sees it
 * any more. */
bool full_screen_draw(const char *text, size_t n);

#endif
