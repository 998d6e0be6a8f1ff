/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events as they come over a connection, in pieces cut anywhere: bytes in, the data of events
 * out (WHATWG HTML, "Server-sent events": only the field `data` matters here).
 *
 * From a stranger: an event of more than EVENT_STREAM_MAX_BYTES is an error, and so is a line without an end.
 */
#ifndef TERN_COORDINATOR_EVENT_STREAM_H
#define TERN_COORDINATOR_EVENT_STREAM_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define EVENT_STREAM_MAX_BYTES ((size_t)4 << 20)

/* Zeroed with `event` and `user` set it is at the beginning of a stream. */
struct event_stream {
    /* The data of one event, [len] and a NUL behind it, its lines separated by newlines.  What it returns
     * ends the feeding. */
    enum tern_status (*event)(void *user, const char *data, size_t len, struct tern_err *err);
    void *user;
    char *line, *data;       /* owned */
    size_t n_line, line_cap; /* the line so far */
    size_t n_data, data_cap; /* the event so far, a newline behind each line */
    size_t n_mark;           /* bytes of a byte order mark seen at the beginning, 3: past that */
    bool has_data, after_cr;
};

/* TERN_ERR_LIMIT, TERN_ERR_MEMORY, or what event() returned. */
enum tern_status event_stream_feed(struct event_stream *s, const char *bytes, size_t n,
                                   struct tern_err *err) TERN_MUST_CHECK;
/* An event without its end is dropped. */
void event_stream_free(struct event_stream *s);

#endif
