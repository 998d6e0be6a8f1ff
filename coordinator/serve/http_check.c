/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request must be before a handler sees it: checks in a row over its header, the first that refuses
 * decides the status.  Nothing of a body has been read by then.
 */
#include "coordinator/serve/http_impl.h"

#include <sodium.h>
#include <string.h>
#include <strings.h>

static bool is_public(const struct http_exchange *x)
{
    const struct http_options *o = &x->server->o;

    return o->is_public && o->is_public(x->request.method, x->request.path);
}

static unsigned refuse(atomic_ullong *count, unsigned status)
{
    if (count)
        atomic_fetch_add(count, 1);
    return status;
}

static unsigned check_room(struct http_exchange *x)
{
    unsigned status = http_conn_crowd(x->conn, &x->why);

    if (!status && atomic_load(&x->server->draining)) {
        (void)TERN_FAIL(&x->why, TERN_ERR_BUSY, "the server is shutting down");
        status = 503;
    }
    return status ? refuse(&x->server->totals.refused_full, status) : 0;
}

struct framing {
    unsigned n_host, n_length, n_encoding, n_odd;
};

static enum MHD_Result count_field(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
                                   const char *value, size_t value_size)
{
    struct framing *f = cls;

    f->n_host += strcasecmp(key, "Host") == 0;
    f->n_length += strcasecmp(key, "Content-Length") == 0;
    if (strcasecmp(key, "Transfer-Encoding") == 0) {
        f->n_encoding++;
        f->n_odd += !value || strcasecmp(value, "chunked") != 0;
    }
    f->n_odd += strlen(key) != key_size || (value && strlen(value) != value_size);
    return kind == MHD_HEADER_KIND || kind == MHD_GET_ARGUMENT_KIND ? MHD_YES : MHD_NO;
}

/* Two ways to read where a request ends are one too many, also when a proxy in front has chosen one. */
static unsigned check_framing(struct http_exchange *x)
{
    struct framing f = { 0 };

    MHD_get_connection_values_n(x->mhd, MHD_HEADER_KIND, count_field, &f);
    if (f.n_host > 1 || f.n_length > 1 || f.n_encoding > 1 || (f.n_length && f.n_encoding) || f.n_odd) {
        (void)TERN_FAIL(&x->why, TERN_ERR_FORMAT,
                        "Host, Content-Length and Transfer-Encoding may stand there once, the last two not "
                        "together, and an encoding is `chunked`");
        return 400;
    }
    memset(&f, 0, sizeof f);
    MHD_get_connection_values_n(x->mhd, MHD_GET_ARGUMENT_KIND, count_field, &f);
    if (x->request.path[0] != '/' || x->conn->bad_target || f.n_odd) {
        (void)TERN_FAIL(&x->why, TERN_ERR_FORMAT, "the target is a path from the root, without %%00 in it");
        return 400;
    }
    return 0;
}

static unsigned check_header_size(struct http_exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

    if (!info || info->header_size <= x->server->o.max_header)
        return 0;
    (void)TERN_FAIL(&x->why, TERN_ERR_LIMIT, "the header of the request has %zu bytes, more than %zu",
                    info->header_size, x->server->o.max_header);
    return refuse(&x->server->totals.refused_size, 431);
}

/* Does it bring a key of ours?  Then whose is known, too. */
static unsigned find_key(struct http_exchange *x)
{
    const char *authorization = http_header(x, "Authorization"), *key = http_header(x, "x-api-key");
    struct http_keys *keys = x->server->keys;

    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        key = authorization + 7 + strspn(authorization + 7, " ");
    x->has_key = key != NULL;
    x->key_valid = keys && key && http_keys_find(keys, key, strlen(key), &x->request.client);
    return 0;
}

static unsigned check_site(struct http_exchange *x)
{
    const char *origin = http_header(x, "Origin");
    struct http_sites sites = x->server->sites;

    sites.any_host = x->key_valid;
    switch (
        http_sites_judge(&sites, http_header(x, "Host"), origin, x->server->o.tls_cert != NULL, &x->why)) {
    case HTTP_OWN: return 0;
    case HTTP_GUEST: x->guest_origin = origin; return 0;
    case HTTP_REFUSED: break;
    }
    return refuse(&x->server->totals.refused_host, 403);
}

/* What a browser asks before it lets a guest's page do something. */
static unsigned check_preflight(struct http_exchange *x)
{
    const char *wanted = http_header(x, "Access-Control-Request-Headers");

    if (strcmp(x->method, "OPTIONS") != 0)
        return 0;
    http_reply_header(x, "Allow", "GET, HEAD, POST, OPTIONS");
    if (x->guest_origin) {
        http_reply_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        http_reply_header(x, "Access-Control-Max-Age", "600");
        if (wanted && strlen(wanted) <= 1024 &&
            strspn(wanted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") ==
                strlen(wanted))
            http_reply_header(x, "Access-Control-Allow-Headers", wanted);
        if (http_header(x, "Access-Control-Request-Private-Network"))
            http_reply_header(x, "Access-Control-Allow-Private-Network", "true");
    }
    return 204;
}

static unsigned check_key(struct http_exchange *x)
{
    if (!x->server->keys || x->key_valid || is_public(x))
        return 0;
    http_reply_header(x, "WWW-Authenticate", "Bearer realm=\"tern\"");
    if (x->has_key)
        (void)TERN_FAIL(&x->why, TERN_ERR_AUTH, "the API key is not one of this server's");
    else
        (void)TERN_FAIL(&x->why, TERN_ERR_AUTH,
                        "this server wants an API key: send it as `Authorization: Bearer KEY`");
    return refuse(&x->server->totals.refused_key, 401);
}

/* A form of a stranger's page can post text, but not JSON, without being asked for leave. */
static unsigned check_type(struct http_exchange *x)
{
    const char *type = http_header(x, "Content-Type"), *encoding = http_header(x, "Content-Encoding");
    size_t n = type ? strcspn(type, "; \t") : 0;

    if (encoding && strcasecmp(encoding, "identity") != 0) {
        (void)TERN_FAIL(&x->why, TERN_ERR_UNSUPPORTED,
                        "the body is compressed (Content-Encoding); send it as it is");
        http_reply_header(x, "Accept-Encoding", "identity"); /* RFC 9110, 12.5.3: why it is 415 */
        return 415;
    }
    if (strcmp(x->method, "POST") != 0 || !http_header(x, "Origin"))
        return 0;
    if (n == strlen("application/json") && strncasecmp(type, "application/json", n) == 0)
        return 0;
    (void)TERN_FAIL(&x->why, TERN_ERR_FORMAT, "what a page posts has the Content-Type application/json");
    return 415;
}

static unsigned check_length(struct http_exchange *x)
{
    const char *text = http_header(x, "Content-Length");
    size_t most = x->server->o.max_body, n = 0;

    for (; text && *text >= '0' && *text <= '9'; text++)
        if (n <= most)
            n = n * 10 + (size_t)(*text - '0');
    if (n <= most)
        return 0;
    (void)TERN_FAIL(&x->why, TERN_ERR_LIMIT, "the body of the request has more than %zu bytes", most);
    return refuse(&x->server->totals.refused_size, 413);
}

void http_check(struct http_exchange *x)
{
    static unsigned (*const checks[])(struct http_exchange *) = {
        check_room,      check_framing, check_header_size, find_key,     check_site,
        check_preflight, check_key,     check_type,        check_length,
    };

    for (size_t i = 0; i < sizeof checks / sizeof *checks && !x->refused; i++)
        x->refused = checks[i](x);
    if (x->refused == 429 || x->refused == 503) {
        http_reply_header(x, "Retry-After", "1");
        http_reply_header(x, "Connection", "close");
    }
    if (x->refused == 400)
        http_reply_header(x, "Connection", "close");
}
