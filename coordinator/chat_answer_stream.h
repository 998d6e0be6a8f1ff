/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of a server out of the events of its stream (chat.completion.chunk), or out of its one object
 * when it does not stream.  From a stranger: whatever is no answer is refused with a sentence.
 */
#ifndef TERN_COORDINATOR_CHAT_ANSWER_STREAM_H
#define TERN_COORDINATOR_CHAT_ANSWER_STREAM_H

#include "coordinator/event_stream.h"

#include <stdint.h>

#define CHAT_ANSWER_MAX_BYTES ((size_t)16 << 20)

/* Zeroed with on_text and user set it is at the beginning. */
struct chat_answer_stream {
    /* A piece of the answer, valid UTF-8; false ends it. */
    bool (*on_text)(void *user, const char *text, size_t len);
    void *user;
    struct event_stream events;
    char *text; /* [n_text] and a NUL behind it, owned; NULL: nothing yet */
    size_t n_text, cap;
    bool ended, done; /* a finish_reason came; and the mark of the end */
    bool limit;       /* finish_reason "length" */
    bool usage;       /* these are known: */
    uint32_t n_prompt, n_cached, n_tokens;
    bool cached_known;
};

/* Bytes of a stream.  TERN_END: on_text does not want more. */
enum tern_status chat_answer_stream_feed(struct chat_answer_stream *a, const char *bytes, size_t n,
                                         struct tern_err *err) TERN_MUST_CHECK;
/* The object of an answer that is no stream. */
enum tern_status chat_answer_stream_whole(struct chat_answer_stream *a, const char *bytes, size_t n,
                                          struct tern_err *err) TERN_MUST_CHECK;
void chat_answer_stream_free(struct chat_answer_stream *a);

#endif
