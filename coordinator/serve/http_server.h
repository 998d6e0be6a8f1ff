/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server: libmicrohttpd with a thread for each connection, and what it does not do by itself.
 *
 * Before a handler sees a request, its size, its Host and Origin (against DNS rebinding), its key and its
 * clock have been checked.  A connection that has not sent a whole request in time is closed, however slowly
 * it goes on; one that hangs up is noticed while its answer is being computed.  Handlers run on the
 * connection's own thread and may block.
 *
 * What has gone wrong before a handler is answered here, in the form of `error`: 400 (framing, target), 401,
 * 403 (Host, Origin), 408, 413, 415, 429, 431, 503; libmicrohttpd answers what is not HTTP at all.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_SERVER_H
#define TERN_COORDINATOR_SERVE_HTTP_SERVER_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_exchange; /* one request and its answer */
struct http_server;

/* A growing string for answers.  Zeroed it is empty. */
struct http_text {
    char *ptr; /* [len] and a NUL behind it, owned; NULL while empty */
    size_t len, cap;
    bool failed; /* no memory: everything after that is dropped */
};
void http_text_add(struct http_text *t, const void *data, size_t len);
void http_text_addf(struct http_text *t, const char *fmt, ...) TERN_PRINTF(2, 3);
void http_text_free(struct http_text *t);

struct http_request {
    const char *method; /* "GET" for HEAD too: its body is left out behind the handler's back */
    const char *path;   /* begins with '/', without the query, percent-decoded, no NUL in it */
    const char *body;   /* [n_body], NUL behind it */
    size_t n_body;
    uint64_t client;  /* a hash of the key's name, or of the address without one */
    const char *peer; /* "192.0.2.7", for the log */
};

/* Header or query argument by name, NULL: not there ("" for an argument without '=').  The request's until
 * it ends. */
const char *http_header(const struct http_exchange *x, const char *name);
const char *http_argument(const struct http_exchange *x, const char *name);

/* Has the client hung up, or is the server being closed?  Costs a system call; a handler that computes for
 * long asks every 100 ms or so.  A client that has shut down its sending half counts as gone: whoever wants
 * an answer keeps the connection open. */
bool http_gone(const struct http_exchange *x);

/* The whole answer.  Copies. */
void http_reply(struct http_exchange *x, unsigned status, const char *type, const char *body, size_t len);
/* The whole answer without a copy, for bytes that live as long as the program. */
void http_reply_static(struct http_exchange *x, unsigned status, const char *type, const char *body,
                       size_t len);
/* One more header, before http_reply or http_stream; name is a constant, value is copied.  At most 16.  Those
 * that every answer has (nosniff, no-referrer, CORP same-origin, Cache-Control: no-store) give way to it. */
void http_reply_header(struct http_exchange *x, const char *name, const char *value);
/* An error in the form of the house. */
void http_reply_error(struct http_exchange *x, unsigned status, const char *message);

/* An answer in pieces as they come (chunked; to an HTTP/1.0 client until the connection closes). */
struct http_stream {
    /* Appends what there is, waiting some 100 ms at most for more: false when that was the end.  Called again
     * and again from the connection's thread, until the client is gone.  What did not fit into memory
     * (out->failed) breaks the connection off. */
    bool (*more)(void *user, struct http_text *out);
    /* Exactly once, whatever becomes of the answer: when it is through, the client gone, or if it could not
     * even be begun.  From the connection's thread. */
    void (*done)(void *user);
    void *user;
};
void http_stream(struct http_exchange *x, unsigned status, const char *type, const struct http_stream *s);

/* Borrowed until the server is closed.  0 stands for the value in parentheses. */
struct http_options {
    const char *host;               /* an address or a name of this machine to bind */
    uint16_t port;                  /* 0: any */
    const char *api_key_file;       /* lines "key" or "name key"; NULL: everybody may */
    const char *tls_cert, *tls_key; /* PEM files; both or neither */
    const char *const *hosts;       /* [n_hosts] further names of ours, in Host and Origin ("*": any Host) */
    uint32_t n_hosts;
    const char *const *origins; /* [n_origins] pages from elsewhere that may call us ("*": any) */
    uint32_t n_origins;
    uint32_t max_connections;   /* (256) */
    uint32_t max_per_client;    /* of one address, or one /64 of IPv6 (max_connections) */
    size_t max_body;            /* (4 MiB) */
    size_t max_header;          /* (16 KiB) request line and all fields */
    uint32_t header_timeout_ms; /* (10 s) to a complete header, the TLS handshake included */
    uint32_t body_timeout_ms;   /* (30 s) from there to the end of the body */
    uint32_t idle_timeout_ms;   /* (60 s) between two requests */
    uint32_t send_timeout_ms;   /* (30 s) in which a client has not taken one byte more */
    /* Whether a path may be had without a key (the page, /health): NULL: none.  method as in http_request. */
    bool (*is_public)(const char *method, const char *path);
    /* Answers a request: exactly one of http_reply and http_stream is called. */
    void (*handle)(void *user, struct http_exchange *x, const struct http_request *r);
    /* An error of the server's own (404 has handle): writes body and type in the form of the house.  path as
     * in http_request, NULL: none had come.  From any thread.  NULL: plain text. */
    void (*error)(void *user, unsigned status, const char *path, const char *message, struct http_text *body,
                  const char **type);
    void *user;
};

enum tern_status http_server_open(const struct http_options *o, struct http_server **out,
                                  struct tern_err *err) TERN_MUST_CHECK;
/* "http://127.0.0.1:8080": where it can be reached from this machine. */
const char *http_server_url(const struct http_server *s);
/* No new connections and no new requests (503); those under way may go on. */
void http_server_drain(struct http_server *s);
uint32_t http_server_busy(const struct http_server *s); /* requests under way */
/* Breaks off what is under way, waits for handlers to return (http_gone tells them), frees everything. */
void http_server_close(struct http_server **s);

struct http_counts {
    uint64_t connections, requests;
    uint64_t refused_key;         /* 401 */
    uint64_t refused_host;        /* 403: Host or Origin */
    uint64_t refused_size;        /* 413, 431 */
    uint64_t refused_full;        /* 429, 503 */
    uint64_t timeouts;            /* connections cut while a header, a body or a reader was awaited */
    uint64_t gone;                /* requests whose client did not wait for the whole answer */
    uint64_t bytes_in, bytes_out; /* bodies */
    uint32_t open;                /* connections now */
};
/* Any thread. */
void http_server_counts(const struct http_server *s, struct http_counts *out);
/* Of the server that a request came to. */
void http_exchange_counts(const struct http_exchange *x, struct http_counts *out);

#endif
