/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request from its first line to the end of its answer, as libmicrohttpd calls us: once with the header,
 * then for each piece of the body, once when it is whole, and at the end, however it ended.
 */
#include "coordinator/serve/http_impl.h"
#include "engine/base/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LOGGED_PATH 160 /* characters of a path in a line of the log */

void *http_exchange_target(void *server, const char *target, struct MHD_Connection *mhd)
{
    struct http_conn *c = http_conn_of(mhd);

    (void)server;
    if (c) {
        /* libmicrohttpd decodes it to a NUL, where every reader of the path would stop. */
        c->bad_target = strstr(target, "%00") != NULL;
        http_conn_target(c, target);
    }
    return NULL;
}

static struct http_exchange *begin(struct http_server *s, struct MHD_Connection *mhd, const char *url,
                                   const char *method)
{
    struct http_conn *c = http_conn_of(mhd);
    struct http_exchange *x = c ? calloc(1, sizeof *x) : NULL;

    if (!x)
        return NULL;
    x->path = strdup(url);
    if (!x->path) {
        free(x);
        return NULL;
    }
    x->server = s;
    x->conn = c;
    x->mhd = mhd;
    x->method = method;
    x->begun_ms = tern_now_ms();
    x->request.method = strcmp(method, "HEAD") == 0 ? "GET" : method;
    x->request.path = x->path;
    x->request.peer = c->peer;
    crypto_shorthash((uint8_t *)&x->request.client, c->address, sizeof c->address,
                     (const uint8_t *)s->hash_key);
    atomic_fetch_add(&s->totals.requests, 1);
    atomic_fetch_add(&s->n_busy, 1);
    return x;
}

static bool has_body(const struct http_exchange *x)
{
    const char *length = http_header(x, "Content-Length");

    return http_header(x, "Transfer-Encoding") || (length && length[strspn(length, "0")] != '\0');
}

static enum MHD_Result queue(struct http_exchange *x)
{
    if (!x->response)
        return MHD_NO;
    http_conn_phase(x->conn, HTTP_SENDING);
    return MHD_queue_response(x->mhd, x->status, x->response);
}

static void reply_refusal(struct http_exchange *x)
{
    if (x->refused == 204)
        http_reply(x, 204, NULL, NULL, 0);
    else
        http_reply_error(x, x->refused, x->why.text);
}

/* The header is there: whoever is refused now and has a body is answered at once, and his connection closed,
 * so that the body need not be read. */
static enum MHD_Result take_header(struct http_exchange *x)
{
    http_check(x);
    if (x->refused && has_body(x)) {
        x->early = true;
        reply_refusal(x);
        return queue(x);
    }
    http_conn_phase(x->conn, HTTP_BODY);
    return MHD_YES;
}

/* A body without a length may prove too long only here, where libmicrohttpd takes no answer. */
static enum MHD_Result take_body(struct http_exchange *x, const char *data, size_t n)
{
    size_t most = x->server->o.max_body;

    atomic_fetch_add(&x->server->totals.bytes_in, n);
    if (n <= most - x->body.len) {
        http_text_add(&x->body, data, n);
        if (!x->body.failed)
            return MHD_YES;
        x->status = 503;
        (void)TERN_FAIL(&x->why, TERN_ERR_MEMORY, "the server has no memory for the body of the request");
    } else {
        x->status = 413;
        (void)TERN_FAIL(&x->why, TERN_ERR_LIMIT, "the body of the request has more than %zu bytes", most);
        atomic_fetch_add(&x->server->totals.refused_size, 1);
    }
    http_text_free(&x->body);
    x->early = true;
    http_conn_farewell(x->conn, x->mhd, x->status, x->why.text);
    return MHD_NO;
}

static enum MHD_Result take_end(struct http_exchange *x)
{
    if (x->refused) {
        reply_refusal(x);
        return queue(x);
    }
    x->request.body = x->body.ptr ? x->body.ptr : "";
    x->request.n_body = x->body.len;
    http_conn_phase(x->conn, HTTP_WORK);
    x->server->o.handle(x->server->o.user, x, &x->request);
    x->was_gone = http_conn_hung_up(x->conn);
    /* The handler has read it. */
    http_text_free(&x->body);
    x->request.body = NULL;
    if (!x->response)
        http_reply_error(x, 500, "the server has no answer to this request");
    return queue(x);
}

enum MHD_Result http_exchange_step(void *server, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data, size_t *n_data,
                                   void **context)
{
    struct http_exchange *x = *context;
    enum MHD_Result result;

    (void)version;
    if (!x) {
        x = begin(server, mhd, url, method);
        *context = x;
        return x ? take_header(x) : MHD_NO;
    }
    if (*n_data == 0)
        return take_end(x);
    result = take_body(x, data, *n_data);
    *n_data = 0;
    return result;
}

/* A path as one word of a line. */
static void escape(const char *path, char out[static 4 * LOGGED_PATH + 4])
{
    size_t n = 0, i;

    for (i = 0; path[i] && i < LOGGED_PATH; i++) {
        unsigned char c = (unsigned char)path[i];

        if (c > 0x20 && c < 0x7f && c != '"' && c != '\\') {
            out[n++] = (char)c;
        } else {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = "0123456789abcdef"[c >> 4];
            out[n++] = "0123456789abcdef"[c & 15];
        }
    }
    memcpy(out + n, path[i] ? "..." : "", path[i] ? 4 : 1);
}

static void log_request(const struct http_exchange *x, bool whole)
{
    char path[4 * LOGGED_PATH + 4], method[4 * LOGGED_PATH + 4];
    /* Reading is what pages and monitors do all the time. */
    bool quiet = x->status < 400 && strcmp(x->request.method, "GET") == 0;

    escape(x->path, path);
    escape(x->method, method);
    tern_log(quiet ? TERN_LOG_DEBUG : TERN_LOG_INFO, "http.request",
             "method=%.20s path=%s status=%u ms=%llu bytes=%llu peer=%s%s", method, path, x->status,
             (unsigned long long)(tern_now_ms() - x->begun_ms), (unsigned long long)x->sent, x->conn->peer,
             whole ? "" : " broken-off");
}

void http_exchange_end(void *server, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode code)
{
    struct http_exchange *x = *context;
    struct http_server *s = server;
    bool whole; /* as far as we know */

    (void)mhd;
    if (!x)
        return;
    whole = code == MHD_REQUEST_TERMINATED_COMPLETED_OK || (x->early && !x->response);
    *context = NULL;
    if ((!whole || x->was_gone) && !atomic_load(&s->closing))
        atomic_fetch_add(&s->totals.gone, 1);
    atomic_fetch_add(&s->totals.bytes_out, x->sent);
    log_request(x, whole);
    if (whole && x->early)
        http_conn_linger(x->conn);
    else if (whole)
        http_conn_phase(x->conn, HTTP_WAITING);
    http_reply_free(x);
    http_text_free(&x->body);
    free(x->path);
    free(x);
    atomic_fetch_sub(&s->n_busy, 1);
}
