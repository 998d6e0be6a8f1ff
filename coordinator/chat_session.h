/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation over a session: what was said, and the sequence that holds it in the KV caches.
 *
 * Each turn sends what is new alone: the sequence of the last answer is gone on with.  Whatever changes
 * what was said before (another system prompt, a loaded conversation) gives the sequence up, and the next
 * turn sends the whole.  A turn that does not fit the context is refused with a sentence and changes
 * nothing.
 *
 * Thread: the scheduler's.
 */
#ifndef TERN_COORDINATOR_CHAT_SESSION_H
#define TERN_COORDINATOR_CHAT_SESSION_H

#include "coordinator/generate.h"
#include "coordinator/session.h"
#include "coordinator/transcript.h"

struct chat_figures {
    uint32_t n_answers;
    uint32_t n_prompt, n_kept; /* of the last turn: ids that had to be sent, and that were in the caches */
    uint32_t n_tokens;         /* of the last answer */
    double first_ms, rest_ms;  /* until its first token, and from there on */
};

struct chat {
    struct session *s;           /* borrowed; connected with one slot of s->ctx positions */
    struct generate_options gen; /* with the format's ends */
    char stop[GENERATE_MAX_STOP_BYTES + 1];
    int32_t end_id;
    const struct tern_chat_format *format;
    struct transcript log;
    struct generate answer; /* the last one */
    bool live;              /* answer holds the first n_known messages */
    size_t n_known;
    uint32_t n_cached; /* its positions in the caches when the last turn began */
    bool broken;       /* the pipeline is: nothing more can be asked */
    struct chat_figures figures;
    /* Text of the answer as it becomes final: false when nobody takes it any more. */
    bool (*on_text)(void *user, const char *text, size_t len);
    void *user;
};

/* gen's fields are taken over; those of a chat are set here. */
enum tern_status chat_init(struct chat *c, struct session *s, const struct tern_chat_format *format,
                           const struct generate_options *gen, struct tern_err *err) TERN_MUST_CHECK;
/* Before the session is closed. */
void chat_fini(struct chat *c);

/* One turn: the user's words, and the answer, which ends early when a signal has come.  After a failure the
 * conversation is what it was. */
enum tern_status chat_ask(struct chat *c, const char *text, size_t len, struct tern_err *err) TERN_MUST_CHECK;

/* Tokens in use of c->s->ctx. */
uint32_t chat_length(const struct chat *c);
/* Forgets everything but the system prompt. */
void chat_reset(struct chat *c);
/* What the system says, from here on; the conversation stays. */
enum tern_status chat_set_system(struct chat *c, const char *text, size_t len,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* Another conversation: taken from *t, which is empty then.  Refused when it does not fit the context. */
enum tern_status chat_set_log(struct chat *c, struct transcript *t, struct tern_err *err) TERN_MUST_CHECK;

#endif
