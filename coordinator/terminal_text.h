/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model writes, made safe for a terminal.
 *
 * A terminal obeys control characters: an answer could rename the window, move the cursor over what stands
 * above, or type.  So on a terminal every control character but newline and tab is shown in place of being
 * sent: ESC as ^[, the second set (U+0080..U+009F, whose U+009B begins sequences like ESC [) as U+FFFD.
 * Files and pipes get the bytes as they are.
 */
#ifndef TERN_COORDINATOR_TERMINAL_TEXT_H
#define TERN_COORDINATOR_TERMINAL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Most bytes of text that one call takes, and that it makes of them. */
#define TERMINAL_TEXT_IN  512
#define TERMINAL_TEXT_OUT (3 * TERMINAL_TEXT_IN + 3)

/* A zeroed one is a fresh stream; it may be cut anywhere. */
struct terminal_text {
    unsigned char lead; /* 0xC2 seen last: the next byte says which character it is */
};

/* n <= TERMINAL_TEXT_IN bytes of valid UTF-8 in, at most TERMINAL_TEXT_OUT out; returns how many. */
size_t terminal_text_filter(struct terminal_text *t, const char *text, size_t n, char *out);

/* Writes text of any length to a stream, filtered if `terminal`.  False when the stream does not take it. */
bool terminal_text_write(struct terminal_text *t, FILE *to, bool terminal, const char *text, size_t n);

#endif
