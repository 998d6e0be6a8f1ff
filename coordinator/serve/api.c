/* SPDX-License-Identifier: Apache-2.0 */
/* Routes: which handler answers what, and the refusals of those that do not: see api.h. */
#include "coordinator/serve/api.h"

#include "coordinator/grammar.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/serve/api_impl.h"
#include "coordinator/serve/page/page.h"
#include "engine/identity.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOADING_S 2 /* after which whoever asked too early may ask again */

/* -- routes ---------------------------------------------------------------------------------------------- */

/* A path that ends with '/' stands for all that begin with it.  `own`: llama-server's and ours, where errors
 * have the number of the status for a code.  No handler: llama-server has such a route, and this is why there
 * is none here. */
static const struct route {
    const char *method, *path;
    api_handler *handler;
    bool own;
    const char *why;
} routes[] = {
    { "POST", "/v1/chat/completions", api_post_chat, false },
    { "POST", "/chat/completions", api_post_chat, false },
    { "POST", "/v1/completions", api_post_completions, false },
    { "POST", "/v1/embeddings", api_post_embeddings, false },
    { "GET", "/v1/models", api_get_models, false },
    { "GET", "/models", api_get_models, false },
    { "GET", "/v1/models/", api_get_model, false },
    { "GET", "/models/", api_get_model, false },
    { "POST", "/completion", api_post_completion, true },
    { "POST", "/completions", api_post_completion, true },
    { "POST", "/embedding", api_post_embedding, true },
    { "POST", "/embeddings", api_post_embedding, true },
    { "POST", "/tokenize", api_post_tokenize, true },
    { "POST", "/detokenize", api_post_detokenize, true },
    { "POST", "/apply-template", api_post_apply_template, true },
    { "GET", "/health", api_get_health, true },
    { "GET", "/v1/health", api_get_health, true },
    { "GET", "/props", api_get_props, true },
    { "GET", "/slots", api_get_slots, true },
    { "GET", "/metrics", api_get_metrics, true },
    { "GET", "/lora-adapters", api_get_adapters, true },
    { "GET", "/", api_get_page, true },
    { "GET", "/tern/cluster", api_get_cluster, true },
    { "GET", "/tern/events", api_get_events, true },
    { "POST", "/infill", NULL, true, "text is only added at the end" },
    { "POST", "/rerank", NULL, true, "the model ranks no documents" },
    { "POST", "/reranking", NULL, true, "the model ranks no documents" },
    { "POST", "/v1/rerank", NULL, false, "the model ranks no documents" },
    { "POST", "/v1/reranking", NULL, false, "the model ranks no documents" },
    { "POST", "/props", NULL, true, "settings do not change while the server runs" },
    { "POST", "/slots/", NULL, true, "what slots hold is neither saved nor erased by hand" },
    { "POST", "/lora-adapters", NULL, true, "there are no adapters" },
    { "POST", "/responses", NULL, false, "there is /v1/chat/completions" },
    { "POST", "/v1/responses", NULL, false, "there is /v1/chat/completions" },
    { "POST", "/v1/messages", NULL, false, "there is /v1/chat/completions" },
    { "POST", "/v1/messages/count_tokens", NULL, false, "there is /tokenize" },
    { "POST", "/chat/completions/input_tokens", NULL, false, "there is /tokenize" },
    { "POST", "/v1/chat/completions/input_tokens", NULL, false, "there is /tokenize" },
    { "POST", "/audio/transcriptions", NULL, false, "the model reads and writes text alone" },
    { "POST", "/v1/audio/transcriptions", NULL, false, "the model reads and writes text alone" },
};
#define N_ROUTES (sizeof routes / sizeof routes[0])

static bool is_path(const struct route *r, const char *path)
{
    const size_t n = strlen(r->path);

    if (n > 1 && r->path[n - 1] == '/')
        return strncmp(path, r->path, n) == 0 && path[n];
    return strcmp(path, r->path) == 0;
}

/* Whose form errors of a path have: llama-server's, unless the path is one of OpenAI's, or under /v1/ and
 * nobody's; and OpenAI's where none is known. */
static bool has_numeric_code(const char *path)
{
    for (size_t i = 0; path && i < N_ROUTES; i++)
        if (is_path(&routes[i], path))
            return routes[i].own;
    return path && strncmp(path, "/v1/", 4) != 0;
}

/* TERN_OK with *out; else 404, 501, or 405 with what would be allowed. */
static enum tern_status find(const char *method, const char *path, const struct route **out,
                             struct api_fault *f)
{
    const struct route *other = NULL;
    char text[200];

    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!is_path(&routes[i], path))
            continue;
        if (strcmp(method, routes[i].method) == 0) {
            *out = &routes[i];
            if (routes[i].handler)
                return TERN_OK;
            (void)snprintf(text, sizeof text, "%s is not supported: %s.", routes[i].path, routes[i].why);
            api_fault_http(f, 501, text);
            return TERN_ERR_UNSUPPORTED;
        }
        if (!other || !other->handler)
            other = &routes[i];
    }
    if (other) {
        (void)snprintf(text, sizeof text, "%s is asked for with %s, not with %.20s.", other->path,
                       other->method, method);
        api_fault_http(f, 405, text);
        f->allow = other->method[0] == 'G' ? "GET, HEAD" : other->method;
    } else {
        (void)snprintf(text, sizeof text, "There is nothing at %.100s.", path);
        api_fault_http(f, 404, text);
    }
    return TERN_ERR_USAGE;
}

/* llama-server's words, which its clients look for. */
static enum tern_status refuse_early(struct api_fault *f)
{
    (void)api_fault_set(f, TERN_ERR_BUSY, "model_loading", NULL, "Loading model");
    f->retry_after_s = LOADING_S;
    return TERN_ERR_BUSY;
}

void api_handle(void *user, struct http_exchange *x, const struct http_request *r)
{
    struct api *a = user;
    const struct route *route = NULL;
    struct api_fault f;
    enum tern_status st;

    memset(&f, 0, sizeof f);
    st = find(r->method, r->path, &route, &f);
    if (!atomic_load(&a->begun) && !(route && route->handler == api_get_page))
        st = refuse_early(&f);
    if (!st)
        st = route->handler(a, x, r, &f);
    if (st)
        api_reply_fault(x, &f, has_numeric_code(r->path));
}

bool api_is_public(const char *method, const char *path)
{
    return strcmp(method, "GET") == 0 &&
           (strcmp(path, "/") == 0 || strcmp(path, "/health") == 0 || strcmp(path, "/v1/health") == 0 ||
            strcmp(path, "/v1/models") == 0 || strcmp(path, "/models") == 0);
}

void api_error(void *user, unsigned status, const char *path, const char *message, struct http_text *body,
               const char **type)
{
    struct api_fault f;
    json_t *root;
    char *text;

    (void)user;
    memset(&f, 0, sizeof f);
    api_fault_http(&f, status, message);
    root = api_fault_json(&f, has_numeric_code(path));
    text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (text)
        http_text_add(body, text, strlen(text));
    free(text);
    json_decref(root);
    *type = API_JSON_TYPE;
}

/* -- life ------------------------------------------------------------------------------------------------ */

/* Hex digits of a hash of two pieces; out [2 * 8 + 1]. */
static void hash_hex(const void *one, size_t n_one, const void *two, size_t n_two, char *out)
{
    crypto_generichash_state h;
    uint8_t hash[crypto_generichash_BYTES];

    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    crypto_generichash_update(&h, one, n_one);
    crypto_generichash_update(&h, two, n_two);
    crypto_generichash_final(&h, hash, sizeof hash);
    sodium_bin2hex(out, 17, hash, 8);
}

static bool go_on(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return interrupt_signal() == 0;
}

/* Of everything that decides over the bits of an answer: weights, rounding between layers, the KV's numbers,
 * the head, how a text becomes ids, and this program. */
static enum tern_status make_fingerprint(struct api *a, struct tern_err *err)
{
    const struct session *s = service_session(a->service);
    struct tern_identity *id;
    char rest[256];
    enum tern_status st =
        tern_identity_compute(s->gguf, &s->arch, TERN_IDENTITY_ALL, s->pool, go_on, NULL, &id, err);

    if (st)
        return st;
    (void)snprintf(rest, sizeof rest, "%s|%s|%s|%d|%s|%s|%d", TERN_VERSION, tern_boundary_name(s->o->wire),
                   tern_kv_type_name(s->o->kv), s->o->head == TERN_HEAD_STATISTICAL,
                   tern_tokenizer_pre(s->tok), a->model.format ? tern_chat_format_name(a->model.format) : "",
                   TERN_PAGE);
    memcpy(a->fingerprint, "tern-", 5);
    hash_hex(id->model_hash, sizeof id->model_hash, rest, strlen(rest), a->fingerprint + 5);
    tern_identity_free(&id);
    return TERN_OK;
}

static void make_etag(struct api *a)
{
    a->etag[0] = '"';
    hash_hex(tern_page, tern_page_len, tern_page_csp, strlen(tern_page_csp), a->etag + 1);
    strcat(a->etag, "\"");
}

/* Bytes of a text that one token may stand for: its own, or those of a character that has none. */
static size_t longest_token(const struct tern_tokenizer *tok, uint32_t n_vocab)
{
    size_t longest = 4;

    for (uint32_t i = 0; i < n_vocab; i++) {
        const size_t n = tern_tokenizer_piece(tok, (int32_t)i, true).len;

        longest = n > longest ? n : longest;
    }
    return longest;
}

static enum tern_status name_model(struct api *a, struct tern_err *err)
{
    const char *name = service_model_name(a->service);
    json_t *text = json_out_text((struct tern_str){ name, strlen(name) });

    if (text) {
        a->name = strdup(json_string_value(text));
        a->name_json = json_dumps(text, JSON_ENCODE_ANY);
    }
    json_decref(text);
    if (!a->name || !a->name_json)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the server's interface");
    a->model.name = a->name;
    return TERN_OK;
}

enum tern_status api_new(const struct api_options *o, struct api **out, struct tern_err *err)
{
    struct api *a = calloc(1, sizeof *a);

    if (!a)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the server's interface");
    a->o = *o;
    atomic_init(&a->begun, false);
    make_etag(a);
    *out = a;
    return TERN_OK;
}

enum tern_status api_begin(struct api *a, struct service *service, struct tern_err *err)
{
    const struct session *s = service_session(service);
    enum tern_status st;

    a->service = service;
    a->started = (int64_t)time(NULL);
    a->model = (struct api_model){ .tok = s->tok,
                                   .format = service_chat(service)->format,
                                   .template = service_chat(service)->text,
                                   .n_vocab = s->arch.n_vocab,
                                   .n_embd = s->arch.n_embd,
                                   .ctx = service_ctx(service),
                                   .longest = longest_token(s->tok, s->arch.n_vocab),
                                   .max_tokens = a->o.max_tokens,
                                   .n_keep = a->o.n_keep,
                                   .shift = a->o.shift,
                                   .pooling = a->o.pooling_given ? a->o.pooling : s->arch.pooling };
    if ((st = name_model(a, err)) || (st = make_fingerprint(a, err)) ||
        (st = grammar_vocab_new(s->tok, s->arch.n_vocab, &a->grammar_vocab, err)))
        return st;
    atomic_store(&a->begun, true);
    return TERN_OK;
}

void api_free(struct api **ap)
{
    struct api *a = *ap;

    if (!a)
        return;
    if (a->grammar_vocab)
        grammar_vocab_free(&a->grammar_vocab);
    free(a->name);
    free(a->name_json);
    free(a);
    *ap = NULL;
}
