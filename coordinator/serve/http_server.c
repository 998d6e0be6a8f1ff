/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, draining and closing: libmicrohttpd's daemon, and what stands around it.
 */
#include "coordinator/serve/http_impl.h"
#include "coordinator/serve/http_tls.h"
#include "engine/base/log.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 65536
#define MAX_LIST        1024
/* Beyond our own limits, so that those too many hear why. */
#define SPARE_CONNECTIONS 32
#define SPARE_FILES       64
#define TLS_PRIORITIES    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

static void log_mhd(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    size_t n;

    (void)cls;
    vsnprintf(line, sizeof line, fmt, ap);
    n = strlen(line);
    while (n > 0 && line[n - 1] == '\n')
        line[--n] = '\0';
    tern_log(TERN_LOG_DEBUG, "http.library", "%s", line);
}

static void set_defaults(struct http_options *o)
{
    o->max_connections = o->max_connections ? o->max_connections : 256;
    if (o->max_connections > MAX_CONNECTIONS)
        o->max_connections = MAX_CONNECTIONS;
    if (!o->max_per_client || o->max_per_client > o->max_connections)
        o->max_per_client = o->max_connections;
    o->max_body = o->max_body ? o->max_body : (size_t)4 << 20;
    o->max_header = o->max_header ? o->max_header : (size_t)16 << 10;
    o->header_timeout_ms = o->header_timeout_ms ? o->header_timeout_ms : 10000;
    o->body_timeout_ms = o->body_timeout_ms ? o->body_timeout_ms : 30000;
    o->idle_timeout_ms = o->idle_timeout_ms ? o->idle_timeout_ms : 60000;
    o->send_timeout_ms = o->send_timeout_ms ? o->send_timeout_ms : 30000;
}

static enum tern_status check_options(const struct http_options *o, struct tern_err *err)
{
    if (!o->tls_cert != !o->tls_key)
        return TERN_FAIL(err, TERN_ERR_USAGE, "TLS wants both a certificate and its key");
    if (o->tls_cert && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "this machine's libmicrohttpd was built without TLS");
    return TERN_OK;
}

/* A connection is a descriptor: the soft limit of a shell is often 1024.  Where the hard one is too low,
 * fewer connections are better than an accept that fails. */
static void fit_files(struct http_options *o)
{
    rlim_t want = o->max_connections + SPARE_CONNECTIONS + SPARE_FILES;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= want)
        return;
    o->max_connections = limit.rlim_cur > 2 * (SPARE_CONNECTIONS + SPARE_FILES)
                             ? (uint32_t)(limit.rlim_cur - SPARE_CONNECTIONS - SPARE_FILES)
                             : SPARE_CONNECTIONS;
    tern_log(TERN_LOG_WARN, "http.files",
             "%llu files may be open, so %u connections; raise it with ulimit -n",
             (unsigned long long)limit.rlim_cur, o->max_connections);
}

static enum tern_status start_daemon(struct http_server *s, const struct http_tls *tls, struct tern_err *err)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG | (tls->cert ? MHD_USE_TLS : 0);
    struct MHD_OptionItem with_tls[] = {
        { MHD_OPTION_HTTPS_MEM_CERT, 0, tls->cert },
        { MHD_OPTION_HTTPS_MEM_KEY, 0, tls->key },
        { MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES },
        { MHD_OPTION_END, 0, NULL },
    };
    struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };
    struct MHD_OptionItem items[] = {
        { MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)log_mhd, NULL },
        { MHD_OPTION_LISTEN_SOCKET, s->listen_fd, NULL },
        { MHD_OPTION_CONNECTION_LIMIT, (intptr_t)(s->o.max_connections + SPARE_CONNECTIONS), NULL },
        /* Half of it is libmicrohttpd's buffer for reading, at first. */
        { MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)(2 * s->o.max_header + 32768), NULL },
        { MHD_OPTION_CONNECTION_TIMEOUT, 0, NULL }, /* the watchdog's */
        { MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL },
        { MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)http_conn_notify, s },
        { MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)http_exchange_target, s },
        { MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)http_exchange_end, s },
        { MHD_OPTION_ARRAY, 0, tls->cert ? with_tls : none },
        { MHD_OPTION_END, 0, NULL },
    };

    s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, http_exchange_step, s, MHD_OPTION_ARRAY, items,
                              MHD_OPTION_END);
    if (s->mhd)
        return TERN_OK;
    s->listen_fd = -1; /* closed already, depending on how far it came */
    return TERN_FAIL(err, TERN_ERR_IO, "libmicrohttpd could not start the server at %s", s->url);
}

/* Stops threads and frees whatever there is already. */
static void destroy(struct http_server *s)
{
    if (s->mhd)
        MHD_stop_daemon(s->mhd);
    if (s->watching) {
        pthread_mutex_lock(&s->lock);
        s->ended = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->watchdog, NULL);
    }
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    http_keys_close(&s->keys);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static enum tern_status start_watchdog(struct http_server *s, struct tern_err *err)
{
    int no = pthread_create(&s->watchdog, NULL, http_conn_watch, s);

    if (no)
        return TERN_FAIL_SYS(err, TERN_ERR_MEMORY, no, "cannot start a thread: %s", strerror(no));
    s->watching = true;
    return TERN_OK;
}

static enum tern_status fill(struct http_server *s, struct tern_err *err)
{
    struct http_tls tls = { .cert = NULL };
    enum tern_status st = check_options(&s->o, err);

    if (!st)
        st = http_sites_check(&s->sites, err);
    if (!st && s->o.api_key_file)
        st = http_keys_open(s->o.api_key_file, &s->keys, err);
    if (!st && s->o.tls_cert)
        st = http_tls_load(s->o.tls_cert, s->o.tls_key, &tls, err);
    if (!st)
        st = http_listen(&s->o, &s->listen_fd, s->url, sizeof s->url, err);
    if (!st)
        st = start_watchdog(s, err);
    if (!st)
        st = start_daemon(s, &tls, err);
    http_tls_wipe(&tls);
    return st;
}

enum tern_status http_server_open(const struct http_options *o, struct http_server **out,
                                  struct tern_err *err)
{
    struct http_server *s;
    pthread_condattr_t attr;
    enum tern_status st;

    if (sodium_init() < 0)
        return TERN_FAIL(err, TERN_ERR_IO, "the system has no source of random numbers");
    s = calloc(1, sizeof *s);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the HTTP server");
    s->o = *o;
    s->sites = (struct http_sites){ o->hosts, o->n_hosts, o->origins, o->n_origins };
    s->listen_fd = -1;
    set_defaults(&s->o);
    fit_files(&s->o);
    randombytes_buf(s->hash_key, sizeof s->hash_key);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    st = fill(s, err);
    if (st) {
        destroy(s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

const char *http_server_url(const struct http_server *s)
{
    return s->url;
}

void http_server_drain(struct http_server *s)
{
    if (atomic_exchange(&s->draining, true))
        return;
    /* Connections that nobody accepts any more are refused rather than left waiting.  The descriptor stays
     * until libmicrohttpd has stopped. */
    if (MHD_quiesce_daemon(s->mhd) != MHD_INVALID_SOCKET)
        (void)shutdown(s->listen_fd, SHUT_RDWR);
    http_conn_cut(s, false);
}

uint32_t http_server_busy(const struct http_server *s)
{
    return atomic_load(&s->n_busy);
}

void http_server_close(struct http_server **s)
{
    if (!*s)
        return;
    http_server_drain(*s);
    atomic_store(&(*s)->closing, true);
    http_conn_cut(*s, true);
    destroy(*s);
    *s = NULL;
}

void http_server_counts(const struct http_server *s, struct http_counts *out)
{
    const struct http_totals *t = &s->totals;
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&s->lock;

    *out = (struct http_counts){
        .connections = atomic_load(&t->connections),
        .requests = atomic_load(&t->requests),
        .refused_key = atomic_load(&t->refused_key),
        .refused_host = atomic_load(&t->refused_host),
        .refused_size = atomic_load(&t->refused_size),
        .refused_full = atomic_load(&t->refused_full),
        .timeouts = atomic_load(&t->timeouts),
        .gone = atomic_load(&t->gone),
        .bytes_in = atomic_load(&t->bytes_in),
        .bytes_out = atomic_load(&t->bytes_out),
    };
    pthread_mutex_lock(lock);
    out->open = s->n_open;
    pthread_mutex_unlock(lock);
}

void http_exchange_counts(const struct http_exchange *x, struct http_counts *out)
{
    http_server_counts(x->server, out);
}
