/* SPDX-License-Identifier: Apache-2.0 */
/* Requests over libcurl: see http_client.h. */
#include "coordinator/http_client.h"

#include "coordinator/commands.h"
#include "coordinator/interrupt.h"

#include <ctype.h>
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_KEY_FILE ((size_t)1 << 19)
#define MAX_KEY      1024
#define MAX_URL      2048
#define CONNECT_S    10L
#define MAX_SAID     160 /* bytes of a server's own words in a sentence */

struct http_client {
    struct http_client_options o;
    CURL *curl;
    CURLM *multi;
    struct curl_slist *headers; /* of a POST */
    char server[HTTP_CLIENT_MAX_SERVER];
    char reason[CURL_ERROR_SIZE];
};

/* -- opening --------------------------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 || strncmp(host, "127.", 4) == 0;
}

/* Without slashes and "/v1" at the end. */
static void trim(char *server)
{
    size_t n = strlen(server);

    while (n && server[n - 1] == '/')
        n--;
    if (n > 3 && memcmp(server + n - 3, "/v1", 3) == 0)
        n -= 3;
    while (n && server[n - 1] == '/')
        n--;
    server[n] = '\0';
}

static enum tern_status take_server(struct http_client *c, const char *given, bool *plain, bool *near,
                                    struct tern_err *err)
{
    char *scheme = NULL, *host = NULL, *user = NULL;
    CURLU *u = curl_url();
    const int n = snprintf(c->server, sizeof c->server, "%s%s", strstr(given, "://") ? "" : "http://", given);
    bool ok = u && *given && n > 0 && (size_t)n < sizeof c->server && !strpbrk(given, "?# \t\r\n") &&
              curl_url_set(u, CURLUPART_URL, c->server, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

    if (ok) {
        *plain = strcmp(scheme, "http") == 0;
        *near = is_loopback(host);
        trim(c->server);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(u);
    return ok ? TERN_OK
              : TERN_FAIL(err, TERN_ERR_USAGE,
                          "'%.100s' is not the address of a server, like " HTTP_CLIENT_DEFAULT, given);
}

/* The last word of the first line that has one and is no comment, as `tern serve` reads such files. */
static enum tern_status find_key(const char *path, char *text, char out[static MAX_KEY + 1],
                                 struct tern_err *err)
{
    char *rest = NULL, *words = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *last = NULL;

        if (line[strspn(line, " \t\r")] == '#')
            continue;
        for (char *w = strtok_r(line, " \t\r", &words); w; w = strtok_r(NULL, " \t\r", &words))
            last = w;
        if (!last)
            continue;
        if (strlen(last) > MAX_KEY)
            break;
        for (const char *p = last; *p; p++)
            if (*p <= 0x20 || *p >= 0x7f)
                return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: its key has bytes that no key has", path);
        memcpy(out, last, strlen(last) + 1);
        return TERN_OK;
    }
    return TERN_FAIL(err, TERN_ERR_FORMAT,
                     "%s has no key of at most %d characters; a line is `key` or `name key`", path, MAX_KEY);
}

static enum tern_status take_key(struct http_client *c, bool exposed, struct tern_err *err)
{
    char key[MAX_KEY + 1], *text;
    size_t len;
    enum tern_status st;

    if (!c->o.api_key_file)
        return TERN_OK;
    if ((st = cmd_read_file(c->o.api_key_file, MAX_KEY_FILE, &text, &len, err)))
        return st;
    st = find_key(c->o.api_key_file, text, key, err);
    explicit_bzero(text, len);
    free(text);
    if (st)
        return st;
    if (exposed)
        fprintf(stderr, "tern %s: note: %s is no https: key and texts travel unencrypted\n", c->o.command,
                c->server);
    curl_easy_setopt(c->curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
    curl_easy_setopt(c->curl, CURLOPT_XOAUTH2_BEARER, key);
    explicit_bzero(key, sizeof key);
    return TERN_OK;
}

static void set_options(struct http_client *c, bool near)
{
    const char *authorities = getenv("SSL_CERT_FILE"); /* OpenSSL's name for it, which others heed, too */

    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_USERAGENT, "tern/" TERN_VERSION);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYHOST, 2L);
    if (authorities && *authorities)
        curl_easy_setopt(c->curl, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_TIME, (long)c->o.silence_s);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->reason);
    if (near)
        curl_easy_setopt(c->curl, CURLOPT_PROXY, ""); /* this machine is reached without one */
}

enum tern_status http_client_open(const struct http_client_options *o, struct http_client **out,
                                  struct tern_err *err)
{
    struct http_client *c = calloc(1, sizeof *c);
    bool plain = false, near = false;
    enum tern_status st = TERN_OK;

    if (!c)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to ask a server");
    c->o = *o;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(c->curl = curl_easy_init()) ||
        !(c->multi = curl_multi_init()) ||
        !(c->headers = curl_slist_append(NULL, "Content-Type: application/json")) ||
        !curl_slist_append(c->headers, "Expect:"))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "libcurl cannot start");
    if (st || (st = take_server(c, o->server, &plain, &near, err)) ||
        (st = take_key(c, plain && !near, err))) {
        http_client_close(&c);
        return st;
    }
    set_options(c, near);
    *out = c;
    return TERN_OK;
}

void http_client_close(struct http_client **cp)
{
    struct http_client *c = *cp;

    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    free(c);
    curl_global_cleanup();
    *cp = NULL;
}

const char *http_client_server(const struct http_client *c)
{
    return c->server;
}

void http_client_answer_free(struct http_client_answer *a)
{
    free(a->body);
    memset(a, 0, sizeof *a);
}

/* -- one request ----------------------------------------------------------------------------------------- */

struct exchange {
    struct http_client *c;
    const struct http_client_request *r;
    struct http_client_answer *out;
    size_t cap;
    bool begun, taken; /* the body has begun, and goes to r->take */
    enum tern_status st;
    struct tern_err *err; /* of our own objection */
};

static void begin_body(struct exchange *e)
{
    const char *type = NULL;
    size_t n;

    e->begun = true;
    curl_easy_getinfo(e->c->curl, CURLINFO_RESPONSE_CODE, &e->out->status);
    curl_easy_getinfo(e->c->curl, CURLINFO_CONTENT_TYPE, &type);
    n = type ? strcspn(type, "; \t") : 0;
    n = n < sizeof e->out->type ? n : sizeof e->out->type - 1;
    for (size_t i = 0; i < n; i++)
        e->out->type[i] = (char)tolower((unsigned char)type[i]);
    e->out->type[n] = '\0';
    e->taken = e->r->take && e->out->status / 100 == 2 && strcmp(e->out->type, e->r->type) == 0;
}

static enum tern_status keep(struct exchange *e, const char *bytes, size_t n)
{
    struct http_client_answer *a = e->out;

    if (n > HTTP_CLIENT_MAX_BODY - a->len)
        return TERN_FAIL(e->err, TERN_ERR_LIMIT, "%s answers with more than %zu bytes; given up",
                         e->c->server, HTTP_CLIENT_MAX_BODY);
    if (a->len + n + 1 > e->cap) {
        const size_t cap = 2 * (a->len + n) + 4096;
        char *bigger = realloc(a->body, cap);

        if (!bigger)
            return TERN_FAIL(e->err, TERN_ERR_MEMORY, "no memory for the answer of %s", e->c->server);
        a->body = bigger;
        e->cap = cap;
    }
    memcpy(a->body + a->len, bytes, n);
    a->len += n;
    a->body[a->len] = '\0';
    return TERN_OK;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct exchange *e = arg;

    n *= size;
    if (!e->begun)
        begin_body(e);
    e->st = e->taken ? e->r->take(e->r->user, bytes, n, e->err) : keep(e, bytes, n);
    return e->st ? n + 1 : n;
}

/* Until it is through, given up, or somebody wishes so: then TERN_END. */
static enum tern_status drive(struct http_client *c, CURLcode *rc, struct tern_err *err)
{
    CURLMsg *message;
    int running = 1, left;

    *rc = CURLE_FAILED_INIT;
    for (;;) {
        if (curl_multi_perform(c->multi, &running) != CURLM_OK)
            return TERN_FAIL(err, TERN_ERR_PEER, "%s: libcurl does not get on", c->server);
        if (!running)
            break;
        if (interrupt_signal())
            return interrupt_check(err);
        if (c->o.go_on && !c->o.go_on(c->o.user))
            return TERN_FAIL(err, TERN_END, "the answer of %s is not awaited any more", c->server);
        (void)curl_multi_poll(c->multi, NULL, 0, INTERRUPT_LOOK_MS, NULL);
    }
    while ((message = curl_multi_info_read(c->multi, &left)))
        if (message->msg == CURLMSG_DONE)
            *rc = message->data.result;
    return TERN_OK;
}

static enum tern_status judge(struct exchange *e, CURLcode rc)
{
    struct http_client *c = e->c;
    const char *text = *c->reason ? c->reason : curl_easy_strerror(rc);
    long no = 0;

    if (e->st)
        return e->st;
    if (rc == CURLE_COULDNT_CONNECT && curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &no) == CURLE_OK && no)
        text = strerror((int)no); /* libcurl's own words are three times as many and say less */
    switch (rc) {
    case CURLE_OK:
        if (!e->begun)
            begin_body(e);
        return TERN_OK;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return TERN_FAIL(e->err, TERN_ERR_PEER, "cannot reach %s (is it running there?): %s", c->server,
                         text);
    case CURLE_OPERATION_TIMEDOUT:
        return TERN_FAIL(e->err, TERN_ERR_PEER, "%s does not answer any more: %s", c->server, text);
    case CURLE_PEER_FAILED_VERIFICATION:
        return TERN_FAIL(e->err, TERN_ERR_AUTH,
                         "%s: its certificate is not trusted: %s (SSL_CERT_FILE names further authorities)",
                         c->server, text);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return TERN_FAIL(e->err, TERN_ERR_FORMAT, "%s does not speak HTTP: %s", c->server, text);
    default: return TERN_FAIL(e->err, TERN_ERR_PEER, "%s broke off: %s", c->server, text);
    }
}

enum tern_status http_client_ask(struct http_client *c, const struct http_client_request *r,
                                 struct http_client_answer *out, struct tern_err *err)
{
    struct http_client_answer answer = { 0 };
    struct tern_err own;
    struct exchange e = { .c = c, .r = r, .out = &answer, .err = err ? err : &own };
    char url[MAX_URL];
    CURLcode rc;
    enum tern_status st;

    if ((size_t)snprintf(url, sizeof url, "%s%s", c->server, r->path) >= sizeof url)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the address '%.100s' is too long", url);
    c->reason[0] = '\0';
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, NULL);
    if (r->body) {
        curl_easy_setopt(c->curl, CURLOPT_POST, 1L);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->body));
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, r->body);
        curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    }
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &e);
    if (curl_multi_add_handle(c->multi, c->curl) != CURLM_OK)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "libcurl takes no request");
    st = drive(c, &rc, e.err);
    curl_multi_remove_handle(c->multi, c->curl); /* closes a connection in mid-answer */
    if (!st)
        st = judge(&e, rc);
    if (st) {
        http_client_answer_free(&answer);
        return st;
    }
    *out = answer;
    return TERN_OK;
}

/* -- refusals -------------------------------------------------------------------------------------------- */

/* error.message, error (a text), message: whatever there is, or "". */
static void said(const struct http_client_answer *a, char out[static MAX_SAID])
{
    json_t *root = a->len ? json_loadb(a->body, a->len, JSON_ALLOW_NUL, NULL) : NULL;
    const json_t *error = json_object_get(root, "error");
    const char *text = json_string_value(json_object_get(error, "message"));

    if (!text)
        text = json_string_value(error);
    if (!text)
        text = json_string_value(json_object_get(root, "message"));
    (void)snprintf(out, MAX_SAID, "%s", text ? text : "");
    json_decref(root);
}

enum tern_status http_client_refusal(const struct http_client *c, const struct http_client_answer *a,
                                     struct tern_err *err)
{
    char text[MAX_SAID];
    const bool key = c->o.api_key_file != NULL;

    said(a, text);
    switch (a->status) {
    case 401:
        return TERN_FAIL(err, TERN_ERR_AUTH, "%s wants %s key: %s names the file that has it (401)",
                         c->server, key ? "another" : "a", "--api-key-file");
    case 429:
    case 503:
        return TERN_FAIL(err, TERN_ERR_BUSY, "%s is not ready (%ld)%s%s", c->server, a->status,
                         *text ? ": " : "; try again later", text);
    default:
        return TERN_FAIL(err, a->status == 403 ? TERN_ERR_AUTH : TERN_ERR_PEER, "%s refuses (%ld)%s%s",
                         c->server, a->status, *text ? ": " : "", text);
    }
}
