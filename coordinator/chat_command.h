/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user can say to `tern chat` itself: /help, /reset, /system, /save, /load, /stats, /quit.
 */
#ifndef TERN_COORDINATOR_CHAT_COMMAND_H
#define TERN_COORDINATOR_CHAT_COMMAND_H

#include "coordinator/chat_partner.h"

/* Does what line says ("/save FILE") and reports on stderr; unless `quiet`, also what went well.
 * TERN_END: the conversation ends. */
enum tern_status chat_command(struct chat *c, bool quiet, const char *line,
                              struct tern_err *err) TERN_MUST_CHECK;

#endif
