/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody to talk with: a conversation, and behind it whoever answers: a model of this program
 * (chat_session.h) or a server (chat_server.h).
 *
 * What was said is kept here; a partner may hold what it needs of it (a KV cache) and is told when that is
 * no beginning of it any more.  A turn that fails changes nothing.
 *
 * Thread: one; with a model of this program the scheduler's.
 */
#ifndef TERN_COORDINATOR_CHAT_PARTNER_H
#define TERN_COORDINATOR_CHAT_PARTNER_H

#include "coordinator/generate.h"
#include "coordinator/transcript.h"

#include <stdio.h>

#define CHAT_UNKNOWN UINT32_MAX /* a figure nobody told */

struct chat_figures {
    uint32_t n_answers;
    uint32_t n_prompt, n_kept; /* of the last turn: ids that had to be sent, and that were in the caches */
    uint32_t n_tokens;         /* of the last answer */
    double first_ms, rest_ms;  /* until its first token, and from there on */
    int64_t rows_sent;         /* tokens sent through the layers since the beginning; -1: not known */
};

/* The last answer; text is the partner's until the next turn. */
struct chat_answer {
    const char *text; /* [n_text], valid UTF-8 */
    size_t n_text;
    enum generate_end end;
    char note[200]; /* why it is not all that there might have been, or empty */
};

struct chat;

struct chat_kind {
    /* Makes ready for the first turn, once it is known what was said before. */
    enum tern_status (*begin)(struct chat *c, struct tern_err *err);
    /* Answers the last message of c->log: fills c->answer and c->figures (but n_answers), passes text on as
     * it becomes final, ends early when a signal has come.  After a failure it knows nothing of the turn. */
    enum tern_status (*ask)(struct chat *c, struct tern_err *err);
    /* Whether a conversation could go on with t; NULL: any. */
    enum tern_status (*check)(struct chat *c, const struct transcript *t, struct tern_err *err);
    /* What it holds of the conversation is not its beginning any more. */
    void (*forget)(struct chat *c);
    /* Who answers, in a few words, without a newline; and figures of its own, lines with newlines. */
    void (*describe)(const struct chat *c, FILE *to);
    void (*stats)(const struct chat *c, FILE *to);
    void (*close)(struct chat *c); /* frees c */
};

struct chat {
    const struct chat_kind *kind;
    struct transcript log;
    struct chat_answer answer;
    struct chat_figures figures;
    bool broken; /* nothing more can be asked */
    /* Text of the answer as it becomes final: false when nobody takes it any more. */
    bool (*on_text)(void *user, const char *text, size_t len);
    void *user;
};

void chat_close(struct chat **c);
/* Before the first turn: joins workers, looks for the server. */
enum tern_status chat_begin(struct chat *c, struct tern_err *err) TERN_MUST_CHECK;

/* One turn: the user's words, and the answer, which ends early when a signal has come.  After a failure the
 * conversation is what it was. */
enum tern_status chat_ask(struct chat *c, const char *text, size_t len, struct tern_err *err) TERN_MUST_CHECK;

/* Forgets everything but the system prompt. */
void chat_reset(struct chat *c);
/* What the system says, from here on; the conversation stays. */
enum tern_status chat_set_system(struct chat *c, const char *text, size_t len,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* Another conversation: taken from *t, which is empty then.  Refused when who answers cannot go on.
 */
enum tern_status chat_set_log(struct chat *c, struct transcript *t, struct tern_err *err) TERN_MUST_CHECK;

#endif
