/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation with a server that speaks OpenAI's chat API: `tern serve`, llama-server, Ollama, others.
 *
 * Each turn sends all that was said and reads the answer as a stream of events; stopping it closes the
 * connection.  What the command line does not say is not sent, so that the server's own settings hold.
 */
#ifndef TERN_COORDINATOR_CHAT_SERVER_H
#define TERN_COORDINATOR_CHAT_SERVER_H

#include "coordinator/chat_options.h"
#include "coordinator/chat_partner.h"

/* o->server is where, borrowed.  chat_begin asks it for its model, unless one was named. */
enum tern_status chat_server_open(const struct chat_options *o, struct chat **out,
                                  struct tern_err *err) TERN_MUST_CHECK;

#endif
