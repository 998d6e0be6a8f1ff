/* SPDX-License-Identifier: Apache-2.0 */
/* Events out of bytes: see event_stream.h. */
#include "coordinator/event_stream.h"

#include <stdlib.h>
#include <string.h>

/* Appends n bytes and a NUL that is not counted. */
static enum tern_status append(char **text, size_t *len, size_t *cap, const char *bytes, size_t n,
                               struct tern_err *err)
{
    if (n > EVENT_STREAM_MAX_BYTES - *len)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the server sends an event of more than %zu bytes; given up",
                         EVENT_STREAM_MAX_BYTES);
    if (*len + n + 1 > *cap) {
        const size_t want = 2 * (*len + n) + 256;
        char *bigger = realloc(*text, want);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an event of the server");
        *text = bigger;
        *cap = want;
    }
    if (n)
        memcpy(*text + *len, bytes, n);
    *len += n;
    (*text)[*len] = '\0';
    return TERN_OK;
}

static enum tern_status end_event(struct event_stream *s, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    if (s->has_data) {
        s->data[--s->n_data] = '\0'; /* the newline behind the last line */
        st = s->event(s->user, s->data, s->n_data, err);
    }
    s->has_data = false;
    s->n_data = 0;
    return st;
}

static enum tern_status end_line(struct event_stream *s, struct tern_err *err)
{
    const char *value = s->line;
    size_t n = s->n_line;
    enum tern_status st;

    s->n_line = 0;
    if (n == 0)
        return end_event(s, err);
    if (n < 4 || memcmp(value, "data", 4) != 0 || (n > 4 && value[4] != ':'))
        return TERN_OK; /* a comment, or a field we have no use for */
    value += n > 4 ? 5 : 4;
    n -= n > 4 ? 5 : 4;
    if (n && *value == ' ') {
        value++;
        n--;
    }
    if ((st = append(&s->data, &s->n_data, &s->data_cap, value, n, err)))
        return st;
    s->has_data = true;
    return append(&s->data, &s->n_data, &s->data_cap, "\n", 1, err);
}

/* A byte order mark at the very beginning is none of the text. */
static size_t skip_mark(struct event_stream *s, const char *bytes, size_t n, struct tern_err *err,
                        enum tern_status *st)
{
    static const char mark[] = "\xef\xbb\xbf";
    size_t i = 0;

    while (i < n && s->n_mark < 3 && bytes[i] == mark[s->n_mark]) {
        s->n_mark++;
        i++;
    }
    if (i < n && s->n_mark < 3) {
        *st = append(&s->line, &s->n_line, &s->line_cap, mark, s->n_mark, err); /* it was none */
        s->n_mark = 3;
    }
    return i;
}

enum tern_status event_stream_feed(struct event_stream *s, const char *bytes, size_t n, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (size_t i = skip_mark(s, bytes, n, err, &st); i < n && !st;) {
        size_t end = i;

        if (s->after_cr) {
            s->after_cr = false;
            if (bytes[i] == '\n') {
                i++;
                continue;
            }
        }
        while (end < n && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        st = append(&s->line, &s->n_line, &s->line_cap, bytes + i, end - i, err);
        if (end < n && !st) {
            s->after_cr = bytes[end] == '\r';
            st = end_line(s, err);
        }
        i = end + 1;
    }
    return st;
}

void event_stream_free(struct event_stream *s)
{
    free(s->line);
    free(s->data);
    s->line = s->data = NULL;
    s->n_line = s->line_cap = s->n_data = s->data_cap = 0;
}
