/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern chat`, as data.
 */
#ifndef TERN_COORDINATOR_CHAT_OPTIONS_H
#define TERN_COORDINATOR_CHAT_OPTIONS_H

#include "coordinator/answer_options.h"
#include "coordinator/engine_options.h"
#include "engine/chat_template.h"

#define CHAT_MAX_MESSAGES      256                /* of -p and -f */
#define CHAT_MAX_MESSAGE_BYTES ((size_t)16 << 20) /* one message, from wherever it comes */

struct chat_words {
    const char *text;
    size_t len;
    char *owned; /* what to free, or NULL */
};

struct chat_options {
    struct engine_options engine;
    struct answer_options answer;
    const struct tern_chat_format *format; /* NULL: the model's */
    struct chat_words system;              /* text NULL: none given */
    const char *load;                      /* a conversation to begin with, or NULL */
    uint32_t n_messages;                   /* said in order, then the program ends; 0: a conversation */
    struct chat_words messages[CHAT_MAX_MESSAGES];
    bool no_history;
    const char *server;       /* who answers, or NULL: a model of this program */
    const char *server_model; /* what it calls its model, or NULL: the only one it has */
    const char *api_key_file; /* for it, or NULL */
};

/* Parses and checks argv, reads files of messages.  TERN_END: --help was printed. */
enum tern_status chat_options_parse(int argc, char **argv, struct chat_options *o,
                                    struct tern_err *err) TERN_MUST_CHECK;
void chat_options_free(struct chat_options *o);

#endif
