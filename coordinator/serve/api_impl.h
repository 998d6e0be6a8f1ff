/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the API share. */
#ifndef TERN_COORDINATOR_SERVE_API_IMPL_H
#define TERN_COORDINATOR_SERVE_API_IMPL_H

#include "coordinator/serve/api.h"
#include "coordinator/serve/api_fault.h"
#include "coordinator/serve/api_request.h"

#include <jansson.h>
#include <stdatomic.h>

#define API_JSON_TYPE "application/json; charset=utf-8"
#define API_SSE_TYPE  "text/event-stream; charset=utf-8"

struct grammar_vocab;

struct api {
    struct api_options o;
    char etag[24];     /* of the page */
    atomic_bool begun; /* everything below is there, and changes no more */
    struct service *service;
    struct api_model model;
    char *name, *name_json; /* the model's, in UTF-8 and as a string of JSON; owned */
    struct grammar_vocab *grammar_vocab;
    int64_t started;      /* seconds since 1970 */
    char fingerprint[32]; /* "tern-0123456789abcdef": model and arithmetic */
};

/* A route's handler: answers, or fills f and returns what failed. */
typedef enum tern_status api_handler(struct api *a, struct http_exchange *x, const struct http_request *r,
                                     struct api_fault *f);

api_handler api_post_chat, api_post_completions, api_post_completion;        /* api_serve.c */
api_handler api_post_embeddings, api_post_embedding;                         /* api_embed.c */
api_handler api_post_tokenize, api_post_detokenize, api_post_apply_template; /* api_tokens.c */
api_handler api_get_models, api_get_health, api_get_props, api_get_slots;    /* api_info.c */
api_handler api_get_model;                                                   /* /v1/models/{id} */
api_handler api_get_metrics, api_get_adapters;                               /* api_info.c, too */
api_handler api_get_cluster, api_get_events;                                 /* api_cluster.c */
api_handler api_get_page;                                                    /* api_page.c */

/* -- answers --------------------------------------------------------------------------------------------- */

/* Takes *root; NULL: no memory, which is said. */
void api_reply_json(struct http_exchange *x, unsigned status, json_t *root);
void api_reply_fault(struct http_exchange *x, const struct api_fault *f, bool numeric_code);
/* Appends an event of SSE ("data: {...}"); takes root. */
void api_sse_json(struct http_text *out, json_t *root);

/* "chatcmpl-" and 32 letters that nobody can guess; out [64]. */
void api_make_id(char *out, const char *prefix);
/* For fairness: a client's user as a number; 0 without one. */
uint64_t api_user(struct tern_str user);
/* The bytes of a token as numbers. */
json_t *api_token_bytes(const struct tern_tokenizer *tok, int32_t id);
json_t *api_token_text(const struct tern_tokenizer *tok, int32_t id);
/* What ids print, control tokens included. */
json_t *api_ids_text(const struct tern_tokenizer *tok, const int32_t *ids, size_t n, bool special);
/* An array of ids. */
json_t *api_ids_json(const int32_t *ids, size_t n);
/* The settings of /completion's answers and /props; r NULL: the defaults. */
json_t *api_settings(const struct api *a, const struct api_request *r);

#endif
