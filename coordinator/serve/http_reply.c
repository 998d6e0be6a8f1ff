/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: their headers, whole ones, and those that come piece by piece.
 */
#include "coordinator/serve/http_impl.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PIECE_BYTES 16384 /* of a stream that go to libmicrohttpd at once */

const char *http_header(const struct http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->mhd, MHD_HEADER_KIND, name);
}

const char *http_argument(const struct http_exchange *x, const char *name)
{
    const char *value = NULL;
    size_t n;

    if (MHD_lookup_connection_value_n(x->mhd, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, &n) !=
        MHD_YES)
        return NULL;
    return value ? value : "";
}

bool http_gone(const struct http_exchange *x)
{
    return atomic_load(&x->server->closing) || http_conn_hung_up(x->conn);
}

void http_reply_header(struct http_exchange *x, const char *name, const char *value)
{
    char *copy = x->n_headers < HTTP_MAX_HEADERS ? strdup(value) : NULL;

    if (!copy)
        return;
    x->headers[x->n_headers].name = name;
    x->headers[x->n_headers++].value = copy;
}

static bool has_header(const struct http_exchange *x, const char *name)
{
    for (unsigned i = 0; i < x->n_headers; i++)
        if (strcasecmp(x->headers[i].name, name) == 0)
            return true;
    return false;
}

static void add(struct MHD_Response *r, const char *name, const char *value)
{
    /* Refuses line breaks; an answer without that field then. */
    (void)MHD_add_response_header(r, name, value);
}

/* Takes response over as the answer, unless there is one or it could not be made. */
static bool answer(struct http_exchange *x, unsigned status, const char *type, struct MHD_Response *response)
{
    static const struct {
        const char *name, *value;
    } defaults[] = {
        { "X-Content-Type-Options", "nosniff" },
        { "Referrer-Policy", "no-referrer" },
        { "Cross-Origin-Resource-Policy", "same-origin" },
        { "Cache-Control", "no-store" },
    };

    if (!response || x->response) {
        if (response)
            MHD_destroy_response(response);
        return false;
    }
    if (type)
        add(response, "Content-Type", type);
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (!has_header(x, defaults[i].name))
            add(response, defaults[i].name, defaults[i].value);
    if (x->server->sites.n_origins)
        add(response, "Vary", "Origin");
    if (x->guest_origin)
        add(response, "Access-Control-Allow-Origin", x->guest_origin);
    for (unsigned i = 0; i < x->n_headers; i++)
        add(response, x->headers[i].name, x->headers[i].value);
    x->status = status;
    x->response = response;
    return true;
}

static void reply(struct http_exchange *x, unsigned status, const char *type, const char *body, size_t len,
                  enum MHD_ResponseMemoryMode mode)
{
    /* libmicrohttpd only reads what it does not own. */
    if (answer(x, status, type,
               MHD_create_response_from_buffer(len, len ? (void *)(uintptr_t)body : (void *)(uintptr_t) "",
                                               len ? mode : MHD_RESPMEM_PERSISTENT)))
        x->sent = strcmp(x->method, "HEAD") == 0 ? 0 : len;
}

void http_reply(struct http_exchange *x, unsigned status, const char *type, const char *body, size_t len)
{
    reply(x, status, type, body, len, MHD_RESPMEM_MUST_COPY);
}

void http_reply_static(struct http_exchange *x, unsigned status, const char *type, const char *body,
                       size_t len)
{
    reply(x, status, type, body, len, MHD_RESPMEM_PERSISTENT);
}

void http_reply_build_error(const struct http_server *s, unsigned status, const char *path,
                            const char *message, struct http_text *body, const char **type)
{
    if (s->o.error)
        s->o.error(s->o.user, status, path, message, body, type);
    else
        http_text_addf(body, "%s\n", message);
}

void http_reply_error(struct http_exchange *x, unsigned status, const char *message)
{
    const char *type = "text/plain; charset=utf-8";
    struct http_text body = { 0 };

    http_reply_build_error(x->server, status, x->path, message, &body, &type);
    http_reply(x, status, type, body.ptr, body.len);
    http_text_free(&body);
}

/* The next piece of a stream: waits for it, but not for a client that is gone. */
static ssize_t next_piece(struct http_exchange *x)
{
    http_conn_phase(x->conn, HTTP_WORK);
    x->piece.len = 0;
    x->piece_at = 0;
    while (x->piece.len == 0 && !x->stream_ended) {
        if (http_gone(x)) {
            x->was_gone = true;
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (!x->stream.more(x->stream.user, &x->piece))
            x->stream_ended = true;
        if (x->piece.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    http_conn_phase(x->conn, HTTP_SENDING);
    return 0;
}

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct http_exchange *x = cls;
    size_t n;

    (void)pos;
    if (x->piece_at == x->piece.len) {
        ssize_t rc = x->stream_ended ? 0 : next_piece(x);

        if (rc < 0)
            return rc;
    }
    n = x->piece.len - x->piece_at;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n > max)
        n = max;
    memcpy(buf, x->piece.ptr + x->piece_at, n);
    x->piece_at += n;
    x->sent += n;
    return (ssize_t)n;
}

void http_stream(struct http_exchange *x, unsigned status, const char *type, const struct http_stream *s)
{
    struct MHD_Response *response = NULL;

    if (!x->response)
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE_BYTES, read_stream, x, NULL);
    if (!answer(x, status, type, response)) {
        s->done(s->user);
        return;
    }
    x->stream = *s;
    x->streaming = true;
}

void http_reply_free(struct http_exchange *x)
{
    if (x->streaming)
        x->stream.done(x->stream.user);
    x->streaming = false;
    for (unsigned i = 0; i < x->n_headers; i++)
        free(x->headers[i].value);
    if (x->response)
        MHD_destroy_response(x->response);
    x->response = NULL;
    http_text_free(&x->piece);
}
