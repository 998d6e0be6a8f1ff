/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server: libmicrohttpd with a thread for each connection, and what it does not do by itself.
 *
 * Before a handler sees a request, its size, its Host and Origin (against DNS rebinding), its key and its
 * clock have been checked.  A connection that has not sent a whole request in time is closed, however slowly
 * it goes on; one that hangs up is noticed while its answer is being computed.  Handlers run on the
 * connection's own thread and may block.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_SERVER_H
#define TERN_COORDINATOR_SERVE_HTTP_SERVER_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_exchange; /* one request and its answer */
struct http_server;

/* A growing string for answers. */
struct http_text {
    char *ptr; /* [len], owned */
    size_t len, cap;
    bool failed; /* no memory: everything after that is dropped */
};
void http_text_add(struct http_text *t, const void *data, size_t len);
void http_text_addf(struct http_text *t, const char *fmt, ...) TERN_PRINTF(2, 3);
void http_text_free(struct http_text *t);

struct http_request {
    const char *method, *path; /* path without the query */
    const char *body;          /* [n_body], NUL behind it */
    size_t n_body;
    uint64_t client;  /* a hash of the key's name, or of the address without one */
    const char *peer; /* "192.0.2.7", for the log */
};

/* Header or query argument by name, NULL: not there.  The request's until it ends. */
const char *http_header(const struct http_exchange *x, const char *name);
const char *http_argument(const struct http_exchange *x, const char *name);

/* Has the client hung up?  Costs a system call. */
bool http_gone(const struct http_exchange *x);

/* The whole answer.  Copies. */
void http_reply(struct http_exchange *x, unsigned status, const char *type, const char *body, size_t len);
/* One more header, before http_reply or http_stream; name is a constant, value is copied. */
void http_reply_header(struct http_exchange *x, const char *name, const char *value);

/* An answer in pieces as they come (chunked). */
struct http_stream {
    /* Appends what there is, waiting some 100 ms at most for more: false when that was the end.  Called again
     * and again from the connection's thread, until the client is gone. */
    bool (*more)(void *user, struct http_text *out);
    /* Once, when the answer is through or the client gone. */
    void (*done)(void *user);
    void *user;
};
void http_stream(struct http_exchange *x, unsigned status, const char *type, const struct http_stream *s);

struct http_options {
    const char *host;               /* an address to bind */
    uint16_t port;                  /* 0: any */
    const char *api_key_file;       /* lines "[name] key"; NULL: everybody may */
    const char *tls_cert, *tls_key; /* PEM files; both or neither */
    const char *const *hosts;       /* [n_hosts] further names that may stand in Host and Origin ("*": any) */
    uint32_t n_hosts;
    const char *const *origins; /* [n_origins] pages from elsewhere that may call us ("*": any) */
    uint32_t n_origins;
    uint32_t max_connections, max_per_client;
    size_t max_body, max_header;
    uint32_t header_timeout_ms, body_timeout_ms, idle_timeout_ms, send_timeout_ms;
    /* Whether a path may be had without a key (the page, /health): NULL: none. */
    bool (*is_public)(const char *method, const char *path);
    /* Answers a request: exactly one of http_reply and http_stream is called. */
    void (*handle)(void *user, struct http_exchange *x, const struct http_request *r);
    /* An error of the server's own (404 has handle): writes body and type in the form of the house. */
    void (*error)(void *user, unsigned status, const char *message, struct http_text *body,
                  const char **type);
    void *user;
};

enum tern_status http_server_open(const struct http_options *o, struct http_server **out,
                                  struct tern_err *err) TERN_MUST_CHECK;
/* "http://127.0.0.1:8080". */
const char *http_server_url(const struct http_server *s);
/* No new requests; those under way may go on. */
void http_server_drain(struct http_server *s);
uint32_t http_server_busy(const struct http_server *s); /* requests under way */
void http_server_close(struct http_server **s);

struct http_counts {
    uint64_t connections, requests, refused_key, refused_host, refused_size, refused_full, timeouts, gone;
    uint64_t bytes_in, bytes_out;
    uint32_t open;
};
void http_server_counts(const struct http_server *s, struct http_counts *out);

#endif
