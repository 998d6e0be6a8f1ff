/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One body over HTTP: see pull.h.
 *
 * The token goes to the endpoint's own host, port and protocol and nowhere else: libcurl keeps credentials
 * from redirects to other places (since 7.83 also from other ports and protocols), and we never ask it not
 * to.  From https nothing leads to http.
 */
#include "coordinator/interrupt.h"
#include "coordinator/progress.h"
#include "coordinator/pull.h"
#include "engine/base/log.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_ENDPOINT "https://huggingface.co"
#define MAX_TOKEN        512
#define MAX_REDIRECTS    8
#define SLOW_BYTES       32    /* a second; less for timeout_s is a stall */
#define FIRST_WAIT_MS    500   /* before the second try, then twice as long each time, */
#define LONGEST_WAIT_MS  16000 /* up to this */
#define LONGEST_ASKED_S  120   /* a server's Retry-After counts up to this */

struct pull_http {
    struct pull_http_options o;
    CURL *curl;
    char endpoint[512];
    char token[MAX_TOKEN + 1]; /* empty: none */
    bool answered;             /* by anybody, ever: what cannot be reached now may come back */
};

/* -- opening --------------------------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 || strncmp(host, "127.", 4) == 0;
}

/* "https://HOST[:PORT][/PATH]", or http. */
static enum tern_status take_endpoint(struct pull_http *h, bool *loopback, struct tern_err *err)
{
    const char *given = getenv("HF_ENDPOINT");
    char *scheme = NULL, *host = NULL, *user = NULL, *query = NULL;
    CURLU *u = curl_url();
    bool ok;
    size_t n;

    if (!given || !*given)
        given = DEFAULT_ENDPOINT;
    ok = u && strlen(given) < sizeof h->endpoint && !strpbrk(given, "?# \t\r\n") &&
         curl_url_set(u, CURLUPART_URL, given, 0) == CURLUE_OK &&
         curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
         curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
         curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK &&
         (strcmp(scheme, "https") == 0 || strcmp(scheme, "http") == 0);
    if (ok) {
        *loopback = is_loopback(host);
        memcpy(h->endpoint, given, strlen(given) + 1);
        for (n = strlen(h->endpoint); n && h->endpoint[n - 1] == '/'; n--)
            h->endpoint[n - 1] = '\0';
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(query);
    curl_url_cleanup(u);
    return ok ? TERN_OK
              : TERN_FAIL(err, TERN_ERR_USAGE,
                          "HF_ENDPOINT: '%s' is not the address of a server, like " DEFAULT_ENDPOINT, given);
}

/* The first word of a file of one line; what is no file is no token. */
static void read_token(const char *path, char out[static MAX_TOKEN + 1])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n;

    if (fd < 0)
        return;
    n = read(fd, out, MAX_TOKEN);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
}

/* HF_TOKEN, $HF_TOKEN_PATH, $HF_HOME/token, ~/.cache/huggingface/token, in this order. */
static enum tern_status take_token(struct pull_http *h, struct tern_err *err)
{
    const char *token = getenv("HF_TOKEN"), *file = getenv("HF_TOKEN_PATH"), *hf = getenv("HF_HOME"),
               *home = getenv("HOME");
    char path[PATH_MAX];
    int n = 0;

    if (token && strlen(token) <= MAX_TOKEN) {
        memcpy(h->token, token, strlen(token) + 1);
    } else if (token) {
        return TERN_FAIL(err, TERN_ERR_USAGE, "HF_TOKEN has more than %d bytes; that is no token", MAX_TOKEN);
    } else {
        if (file && *file)
            n = snprintf(path, sizeof path, "%s", file);
        else if (hf && *hf)
            n = snprintf(path, sizeof path, "%s/token", hf);
        else if (home && *home)
            n = snprintf(path, sizeof path, "%s/.cache/huggingface/token", home);
        if (n > 0 && (size_t)n < sizeof path)
            read_token(path, h->token);
    }
    h->token[strcspn(h->token, " \t\r\n")] = '\0';
    for (const char *p = h->token; *p; p++)
        if (*p < 0x21 || *p > 0x7e)
            return TERN_FAIL(err, TERN_ERR_USAGE, "the token for %s has bytes that no token has",
                             h->endpoint);
    return TERN_OK;
}

/* Options that stay the same for all requests. */
static void set_options(struct pull_http *h, bool plain)
{
    CURL *c = h->curl;
    const char *authorities = getenv("SSL_CERT_FILE"); /* OpenSSL's name for it, which others heed, too */
    const long timeout = (long)h->o.timeout_s;

    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "tern/" TERN_VERSION);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, plain ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, plain ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    if (authorities && *authorities)
        curl_easy_setopt(c, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, timeout);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, timeout);
    curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 262144L);
    if (*h->token) {
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, h->token);
    }
}

enum tern_status pull_http_open(const struct pull_http_options *o, struct pull_http **out,
                                struct tern_err *err)
{
    struct pull_http *h = calloc(1, sizeof *h);
    bool plain, loopback = false;
    enum tern_status st = TERN_OK;

    if (!h)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to load a file");
    h->o = *o;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(h->curl = curl_easy_init()))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "libcurl cannot start");
    if (st || (st = take_endpoint(h, &loopback, err)) || (st = take_token(h, err))) {
        pull_http_close(&h);
        return st;
    }
    plain = strncasecmp(h->endpoint, "http:", 5) == 0;
    if (plain && !loopback && *h->token) {
        fprintf(stderr, "tern pull: note: %s is no https, so the token is not sent\n", h->endpoint);
        memset(h->token, 0, sizeof h->token);
    }
    set_options(h, plain);
    *out = h;
    return TERN_OK;
}

void pull_http_close(struct pull_http **hp)
{
    struct pull_http *h = *hp;

    if (!h)
        return;
    curl_easy_cleanup(h->curl);
    explicit_bzero(h->token, sizeof h->token);
    free(h);
    curl_global_cleanup();
    *hp = NULL;
}

/* -- one try --------------------------------------------------------------------------------------------- */

struct attempt {
    struct pull_http *h;
    struct pull_sink *sink;
    struct progress *bar;
    const char *repo, *what;
    uint64_t from;         /* asked for */
    bool begun, has_range; /* the body has begun; Content-Range was read: */
    uint64_t first, total; /* what it says */
    char code[40];         /* X-Error-Code */
    enum tern_status st;   /* of our own objection, with err */
    struct tern_err *err;
};

static bool header_value(const char *line, size_t n, const char *name, char *out, size_t cap)
{
    const size_t k = strlen(name);

    if (n <= k || strncasecmp(line, name, k) != 0)
        return false;
    line += k;
    n -= k;
    while (n && (*line == ' ' || *line == '\t')) {
        line++;
        n--;
    }
    while (n && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' '))
        n--;
    n = n < cap ? n : cap - 1;
    memcpy(out, line, n);
    out[n] = '\0';
    return true;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct attempt *a = arg;
    char value[80], end;
    unsigned long long first, last, total;

    n *= size;
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) { /* of the next answer, behind a redirect */
        a->has_range = false;
        a->code[0] = '\0';
        a->h->answered = true;
    }
    (void)header_value(line, n, "X-Error-Code:", a->code, sizeof a->code);
    if (header_value(line, n, "Content-Range:", value, sizeof value) && value[0] == 'b' &&
        sscanf(value, "bytes %20llu-%20llu/%20llu%c", &first, &last, &total, &end) == 3) {
        a->has_range = true;
        a->first = first;
        a->total = total;
    }
    return n;
}

static long status_of(const struct attempt *a)
{
    long status = 0;

    curl_easy_getinfo(a->h->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* The head of an answer with the body we asked for: does it fit what is there, and what was promised? */
static enum tern_status begin_body(struct attempt *a, long status)
{
    struct pull_sink *s = a->sink;
    curl_off_t length = -1;
    uint64_t whole;
    enum tern_status st;

    a->begun = true;
    curl_easy_getinfo(a->h->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (status == 206 && (!a->has_range || a->first != a->from || a->from == 0))
        return TERN_FAIL(a->err, TERN_ERR_FORMAT,
                         "%s: the server sends another part than was asked for; try again with --force",
                         a->what);
    if (status == 200 && s->have > 0) {
        if ((st = s->restart(s, a->err)))
            return st;
        s->have = 0;
    }
    whole = status == 206 ? a->total : length >= 0 ? (uint64_t)length : s->size;
    if (s->size != UINT64_MAX && whole != s->size)
        return TERN_FAIL(a->err, TERN_ERR_FORMAT,
                         "%s: the server sends %llu bytes and its listing says %llu; nothing was loaded",
                         a->what, (unsigned long long)whole, (unsigned long long)s->size);
    return TERN_OK;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct attempt *a = arg;
    struct pull_sink *s = a->sink;
    const uint64_t max = s->size != UINT64_MAX ? s->size : s->max;
    const long status = status_of(a);

    n *= size;
    if (status != 200 && status != 206)
        return n + 1; /* the text of an error, which nobody reads: libcurl's word for giving up */
    if (!a->begun)
        a->st = begin_body(a, status);
    if (!a->st && n > max - s->have)
        a->st = TERN_FAIL(a->err, TERN_ERR_LIMIT, "%s: the server sends more than %llu bytes; given up",
                          a->what, (unsigned long long)max);
    if (!a->st)
        a->st = s->put(s, bytes, n, a->err);
    if (a->st)
        return n + 1;
    s->have += n;
    return n;
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    struct attempt *a = arg;

    (void)total;
    (void)now;
    (void)up_total;
    (void)up_now;
    return !progress_update(a->bar, a->sink->have, a->sink->size == UINT64_MAX ? 0 : a->sink->size);
}

/* -- what became of it ----------------------------------------------------------------------------------- */

static enum tern_status fail_rights(const struct attempt *a, long status)
{
    const char *repo = a->repo;

    if (strcasecmp(a->code, "GatedRepo") == 0)
        return TERN_FAIL(a->err, TERN_ERR_AUTH,
                         "%s is gated: accept its conditions on its page at %s, then set HF_TOKEN to a token "
                         "of that account%s",
                         repo, a->h->endpoint, *a->h->token ? " (that of now may not read it)" : "");
    if (*a->h->token)
        return TERN_FAIL(a->err, TERN_ERR_AUTH,
                         "%s: the server refuses (%ld): it does not exist, or the token in use is not valid "
                         "or may not read it; HF_TOKEN must be one that may",
                         repo, status);
    return TERN_FAIL(a->err, TERN_ERR_AUTH,
                     "%s: the server refuses (%ld): it does not exist, or is private or gated and a token is "
                     "needed: set HF_TOKEN to one that may read it",
                     repo, status);
}

/* Which answers may be others in a moment. */
static bool may_pass(long status)
{
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

static enum tern_status judge_status(struct attempt *a, long status)
{
    struct pull_sink *s = a->sink;
    enum tern_status st;

    switch (status) {
    case 200:
    case 206:
        if (!a->begun && (st = begin_body(a, status))) /* an empty body */
            return st;
        if (s->size == UINT64_MAX || s->have == s->size)
            return TERN_OK;
        (void)TERN_FAIL(a->err, TERN_ERR_IO, "%s: the connection ended after %llu of %llu bytes", a->what,
                        (unsigned long long)s->have, (unsigned long long)s->size);
        return TERN_AGAIN;
    case 401:
    case 403: return fail_rights(a, status);
    case 404:
        return TERN_FAIL(a->err, TERN_ERR_USAGE, "%s: not found at %s (404); look at the spelling%s", a->what,
                         a->h->endpoint, s->size == UINT64_MAX ? "" : ", and at what there is with --list");
    case 416:
        if (s->have == 0)
            break;
        if ((st = s->restart(s, a->err)))
            return st;
        s->have = 0;
        (void)TERN_FAIL(a->err, TERN_ERR_IO, "%s: the server does not have the rest (416)", a->what);
        return TERN_AGAIN;
    default: break;
    }
    (void)TERN_FAIL(a->err, TERN_ERR_IO, "%s: %s answers with the status %ld", a->what, a->h->endpoint,
                    status);
    return may_pass(status) ? TERN_AGAIN : a->err->status;
}

static enum tern_status judge(struct attempt *a, CURLcode rc, const char *reason)
{
    const char *text = *reason ? reason : curl_easy_strerror(rc);

    switch (rc) {
    case CURLE_OK: return judge_status(a, status_of(a));
    case CURLE_WRITE_ERROR: return a->st ? a->st : judge_status(a, status_of(a));
    case CURLE_ABORTED_BY_CALLBACK: return interrupt_check(a->err);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return TERN_FAIL(a->err, TERN_ERR_FORMAT,
                         "%s: the server redirects to something that is not %s; not followed", a->what,
                         strncasecmp(a->h->endpoint, "http:", 5) == 0 ? "http" : "https");
    case CURLE_TOO_MANY_REDIRECTS:
        return TERN_FAIL(a->err, TERN_ERR_FORMAT, "%s: more than %d redirects; given up", a->what,
                         MAX_REDIRECTS);
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        (void)TERN_FAIL(a->err, TERN_ERR_IO, "%s: cannot reach %s: %s", a->what, a->h->endpoint, text);
        return a->h->answered ? TERN_AGAIN : TERN_ERR_IO;
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        (void)TERN_FAIL(a->err, TERN_ERR_IO, "%s: the connection broke: %s", a->what, text);
        return TERN_AGAIN;
    default: break; /* certificates among them */
    }
    return TERN_FAIL(a->err, TERN_ERR_IO, "%s: cannot load it from %s: %s", a->what, a->h->endpoint, text);
}

/* TERN_AGAIN, with err filled: it may be worth another try. */
static enum tern_status try_once(struct attempt *a, const char *url)
{
    CURL *c = a->h->curl;
    char reason[CURL_ERROR_SIZE] = "", range[32];
    enum tern_status st;
    CURLcode rc;

    if (a->sink->have && !a->sink->pinned) {
        if ((st = a->sink->restart(a->sink, a->err)))
            return st;
        a->sink->have = 0;
    }
    a->from = a->sink->have;
    a->begun = a->has_range = false;
    a->code[0] = '\0';
    a->st = TERN_OK;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, reason);
    (void)snprintf(range, sizeof range, "%llu-", (unsigned long long)a->from);
    curl_easy_setopt(c, CURLOPT_RANGE, a->from ? range : NULL);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, a);
    rc = curl_easy_perform(c);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, NULL);
    return judge(a, rc, reason);
}

/* False: interrupted. */
static bool wait_ms(uint64_t ms)
{
    const uint64_t end = tern_now_ms() + ms;

    while (tern_now_ms() < end) {
        const struct timespec look = { .tv_nsec = INTERRUPT_LOOK_MS * 1000000L };

        if (interrupt_signal())
            return false;
        nanosleep(&look, NULL);
    }
    return interrupt_signal() == 0;
}

static uint64_t wait_before(const struct pull_http *h, unsigned failures)
{
    curl_off_t asked = 0;
    uint64_t ms = FIRST_WAIT_MS;

    while (--failures && ms < LONGEST_WAIT_MS)
        ms *= 2;
    curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &asked);
    if (asked > LONGEST_ASKED_S)
        asked = LONGEST_ASKED_S;
    return asked > 0 && (uint64_t)asked * 1000 > ms ? (uint64_t)asked * 1000 : ms;
}

enum tern_status pull_http_fetch(struct pull_http *h, const char *path, const char *repo, const char *what,
                                 struct pull_sink *sink, struct tern_err *err)
{
    struct tern_err local;
    struct progress bar;
    struct attempt a = { .h = h, .sink = sink, .bar = &bar, .repo = repo, .what = what, .err = &local };
    char url[PULL_MAX_URL], label[96];
    unsigned failures = 0;
    enum tern_status st;
    int n = snprintf(url, sizeof url, "%s%s", h->endpoint, path);

    if (n < 0 || (size_t)n >= sizeof url)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its address has more than %zu bytes", what, sizeof url);
    (void)snprintf(label, sizeof label, "loading %.80s", what);
    progress_begin(&bar, label, h->o.quiet);
    for (;;) {
        const uint64_t before = sink->have;

        st = try_once(&a, url);
        failures = sink->have > before ? 1 : failures + 1;
        if (st != TERN_AGAIN)
            break;
        if (failures > h->o.retries) {
            st = local.status;
            break;
        }
        progress_end(&bar);
        if (!h->o.quiet)
            fprintf(stderr, "tern pull: %s; trying again (%u of %u)\n", local.text, failures, h->o.retries);
        if (!wait_ms(wait_before(h, failures))) {
            st = interrupt_check(&local);
            break;
        }
    }
    progress_end(&bar);
    if (st && err)
        *err = local;
    return st;
}
