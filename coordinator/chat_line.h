/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines that a user says: typed at a terminal, with editing and a history file (libedit), or read from a
 * pipe.
 *
 * In both a line that ends in a backslash goes on in the next one.  The history file is the user's own (mode
 * 0600); that it cannot be read or written costs nothing but the history.
 */
#ifndef TERN_COORDINATOR_CHAT_LINE_H
#define TERN_COORDINATOR_CHAT_LINE_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct chat_line;

/* From stdin; `history`: what is typed is kept in the file, and begins with what is there. */
enum tern_status chat_line_open(bool history, struct chat_line **out, struct tern_err *err) TERN_MUST_CHECK;
void chat_line_close(struct chat_line **l);

/* Somebody types, so prompts are shown. */
bool chat_line_is_terminal(const struct chat_line *l);

/* The next line without its newline: *text [*len] is terminated and lives until the next call.  TERN_END at
 * the end of the input, TERN_AGAIN when a signal came (what was typed is dropped), TERN_ERR_LIMIT when the
 * line is longer than `max`. */
enum tern_status chat_line_read(struct chat_line *l, size_t max, const char **text, size_t *len,
                                struct tern_err *err) TERN_MUST_CHECK;

#endif
