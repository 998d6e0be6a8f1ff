/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to an inference server, for commands that are its clients: `tern status`, `tern top`, `tern chat
 * --server`.
 *
 * One connection that is kept, no redirects, certificates always checked.  A signal (interrupt.h) or the
 * caller's own wish ends a request by closing the connection, which is how a server learns of it.  The server
 * is a stranger: what it sends is bounded before it is stored.
 *
 * Thread: one.
 */
#ifndef TERN_COORDINATOR_HTTP_CLIENT_H
#define TERN_COORDINATOR_HTTP_CLIENT_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define HTTP_CLIENT_MAX_BODY    ((size_t)8 << 20)
#define HTTP_CLIENT_MAX_SERVER  512
#define HTTP_CLIENT_DEFAULT     "http://127.0.0.1:8080"
#define HTTP_CLIENT_ENVIRONMENT "TERN_SERVER"

struct http_client;

struct http_client_options {
    const char *command; /* "status", for a note on stderr */
    const char *server;  /* "http://HOST:PORT", https, or without either; a "/v1" at its end is dropped */
    const char *api_key_file; /* its first key is sent (lines `key` or `name key`), or NULL */
    unsigned silence_s;       /* without a byte from the server: given up */
    /* Asked every 50 ms while a request is under way: false ends it with TERN_END.  NULL: nobody asks. */
    bool (*go_on)(void *user);
    void *user;
};

enum tern_status http_client_open(const struct http_client_options *o, struct http_client **out,
                                  struct tern_err *err) TERN_MUST_CHECK;
void http_client_close(struct http_client **c);
/* "http://127.0.0.1:8080" */
const char *http_client_server(const struct http_client *c);

struct http_client_answer {
    long status;   /* 0: none came */
    char type[64]; /* "text/event-stream", without parameters, in small letters; empty: not said */
    char *body;    /* [len] and a NUL behind it, owned; what `take` did not get */
    size_t len;
};
void http_client_answer_free(struct http_client_answer *a);

/* body NULL: GET, else POST of JSON.  Bodies of 2xx answers of the type `type` go to `take` as they come (its
 * failure ends the request and is returned), if there is one; all others into *out, at most
 * HTTP_CLIENT_MAX_BODY of them.  TERN_OK with any status; TERN_END: a signal, or go_on said so, *err says it;
 * TERN_ERR_PEER: it cannot be reached, or broke off. */
struct http_client_request {
    const char *path; /* "/tern/cluster" */
    const char *body; /* NUL-terminated */
    const char *type;
    enum tern_status (*take)(void *user, const char *bytes, size_t n, struct tern_err *err);
    void *user;
};
enum tern_status http_client_ask(struct http_client *c, const struct http_client_request *r,
                                 struct http_client_answer *out, struct tern_err *err) TERN_MUST_CHECK;

/* An answer that is not 2xx, as a sentence: what the server says of it (OpenAI's form of errors), or its
 * status. */
enum tern_status http_client_refusal(const struct http_client *c, const struct http_client_answer *a,
                                     struct tern_err *err) TERN_MUST_CHECK;

#endif
