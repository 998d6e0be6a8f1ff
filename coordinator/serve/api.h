/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tern serve` says over HTTP: OpenAI's routes, llama-server's own, and the picture of the cluster.
 * API.md beside this file is the reference for users.
 *
 * It is there before the model is: until api_begin every route but the page answers that it is being loaded,
 * with 503 in llama-server's words.
 *
 * Thread: any number of connections at once; api_new, api_begin and api_free from one.
 */
#ifndef TERN_COORDINATOR_SERVE_API_H
#define TERN_COORDINATOR_SERVE_API_H

#include "coordinator/serve/http_server.h"
#include "coordinator/serve/service.h"

struct api;

struct api_options {
    bool page;           /* serve the page at / */
    bool shift;          /* a full context forgets its oldest half, instead of ending the answer */
    uint32_t n_keep;     /* ... but not the first so many tokens, unless a request says otherwise */
    uint32_t max_tokens; /* of one answer; 0: the context */
    bool pooling_given;  /* of embeddings; else what the model says */
    enum tern_pooling pooling;
};

enum tern_status api_new(const struct api_options *o, struct api **out, struct tern_err *err) TERN_MUST_CHECK;
/* The model is there: from now on it answers.  Once; the service is borrowed.  Hashes the model for the
 * fingerprint of answers, which takes a while for a large one seen for the first time; a signal ends it with
 * TERN_END (interrupt.h). */
enum tern_status api_begin(struct api *a, struct service *service, struct tern_err *err) TERN_MUST_CHECK;
void api_free(struct api **a);

/* For http_options; user is the struct api. */
void api_handle(void *user, struct http_exchange *x, const struct http_request *r);
bool api_is_public(const char *method, const char *path);
void api_error(void *user, unsigned status, const char *path, const char *message, struct http_text *body,
               const char **type);

#endif
