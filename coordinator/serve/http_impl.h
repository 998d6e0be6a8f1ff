/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the HTTP server share: the server, its connections, and one request on one of them.
 *
 * A connection belongs to its own thread, except for `phase`, `since_ms`, `acked` and `cut`, which the
 * watchdog reads: those, the list of connections and the count of them are under the server's lock.  A
 * descriptor is shut down under that lock and only while its connection is in the list; libmicrohttpd tells
 * of the end before it closes one, so never is somebody else's cut.
 */
#ifndef TERN_COORDINATOR_SERVE_HTTP_IMPL_H
#define TERN_COORDINATOR_SERVE_HTTP_IMPL_H

#include "coordinator/serve/http_keys.h"
#include "coordinator/serve/http_origin.h"
#include "coordinator/serve/http_server.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#define HTTP_MAX_HEADERS 16
#define HTTP_PEER_BYTES  INET6_ADDRSTRLEN
#define HTTP_ROUTE_BYTES 64 /* that tell a path from others, with a NUL */

/* What a connection is waiting for, and with it, how long it may. */
enum http_phase {
    HTTP_WAITING, /* for a request to begin */
    HTTP_HEADER,  /* its first line is there */
    HTTP_BODY,
    HTTP_WORK,   /* for us */
    HTTP_SENDING /* for the client to take something */
};

struct http_conn {
    struct http_server *server;
    struct http_conn *prev, *next;
    int fd;
    char peer[HTTP_PEER_BYTES];
    uint8_t address[16];          /* of whom to count: an IPv4 address, or 64 bits of an IPv6 one */
    enum http_phase phase;        /* under the lock, like the next six */
    uint64_t since_ms;            /* when the phase began, or something was last taken in SENDING */
    uint64_t acked;               /* bytes the client had taken then */
    bool used;                    /* has had a request */
    bool crowded;                 /* beyond a limit when it came */
    bool cut;                     /* shut down by us */
    char route[HTTP_ROUTE_BYTES]; /* where the request under way goes, as far as it fits; "": not known yet */
    bool bad_target;              /* the connection's thread: "%00" in the line that was just read */
};

struct http_totals {
    atomic_ullong connections, requests, refused_key, refused_host, refused_size, refused_full, timeouts,
        gone, bytes_in, bytes_out;
};

struct http_server {
    struct http_options o; /* with defaults filled in */
    struct http_sites sites;
    struct http_keys *keys; /* NULL: everybody may */
    struct MHD_Daemon *mhd;
    int listen_fd; /* ours, also while libmicrohttpd accepts from it */
    char url[320];
    uint64_t hash_key[2]; /* for the addresses of clients */

    pthread_mutex_t lock;
    pthread_cond_t wake; /* there is a connection, or the end */
    struct http_conn *conns;
    uint32_t n_open;
    bool ended; /* under the lock: the watchdog shall return */
    pthread_t watchdog;
    bool watching;

    atomic_bool draining, closing;
    atomic_uint n_busy;
    struct http_totals totals;
};

struct http_exchange {
    struct http_server *server;
    struct http_conn *conn;
    struct MHD_Connection *mhd;
    const char *method; /* as it came */
    struct http_request request;
    char *path; /* for the log, also after libmicrohttpd's is gone */
    struct http_text body;
    uint64_t begun_ms;

    unsigned refused; /* before the handler: the status, and why */
    struct tern_err why;
    bool early; /* answered before its body was read */
    bool has_key, key_valid;
    const char *guest_origin; /* goes into the CORS headers */

    struct {
        const char *name;
        char *value;
    } headers[HTTP_MAX_HEADERS];
    unsigned n_headers;
    unsigned status; /* 0: no answer yet */
    struct MHD_Response *response;
    struct http_stream stream;
    bool streaming, stream_ended, was_gone;
    struct http_text piece; /* of the stream, */
    size_t piece_at;        /* sent so far */
    uint64_t sent;
};

/* http_conn.c */
void http_conn_notify(void *server, struct MHD_Connection *mhd, void **context,
                      enum MHD_ConnectionNotificationCode code);
struct http_conn *http_conn_of(struct MHD_Connection *mhd);
void http_conn_phase(struct http_conn *c, enum http_phase phase);
bool http_conn_hung_up(const struct http_conn *c);
/* 0, or 429 or 503 when it is one too many; *err says why. */
unsigned http_conn_crowd(struct http_conn *c, struct tern_err *err);
/* The first line of a request has come: the phase is HTTP_HEADER, and where it goes is known. */
void http_conn_target(struct http_conn *c, const char *target);
/* A last word before the end, where libmicrohttpd takes no answer any more.  mhd is NULL for the watchdog,
 * who has the lock and cannot say it through TLS: that belongs to the connection's thread. */
void http_conn_farewell(struct http_conn *c, struct MHD_Connection *mhd, unsigned status,
                        const char *message);
/* Reads what a client still sends, for a second at most, so that it sees the answer and no reset. */
void http_conn_linger(struct http_conn *c);
void *http_conn_watch(void *server);
/* Ends those that wait for a request, or all. */
void http_conn_cut(struct http_server *s, bool all);

/* http_exchange.c: callbacks of libmicrohttpd */
enum MHD_Result http_exchange_step(void *server, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data, size_t *n_data,
                                   void **context);
void http_exchange_end(void *server, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode code);
void *http_exchange_target(void *server, const char *target, struct MHD_Connection *mhd);

/* http_check.c: sets x->refused and x->why, or the client. */
void http_check(struct http_exchange *x);

/* http_reply.c */
void http_reply_build_error(const struct http_server *s, unsigned status, const char *path,
                            const char *message, struct http_text *body, const char **type);
void http_reply_free(struct http_exchange *x);

/* http_listen.c: a listening socket at o->host and o->port, and its URL. */
enum tern_status http_listen(const struct http_options *o, int *fd, char *url, size_t url_bytes,
                             struct tern_err *err) TERN_MUST_CHECK;

#endif
