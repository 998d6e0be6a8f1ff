/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts become vectors: OpenAI's /v1/embeddings and llama-server's /embedding.
 *
 * They are those of `tern embed`: special tokens in a text are text, the pooling is the model's unless the
 * request or the command line names one, the vector has length 1.
 */
#include "coordinator/serve/api_batch.h"
#include "coordinator/serve/api_impl.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FLOATS ((size_t)8 << 20) /* of one answer: 100 MB of text */
#define TURN_MS    100

struct embeddings {
    struct api *api;
    json_t *body;
    struct api_prompts prompts;
    struct http_text *vectors; /* [prompts.n], as JSON */
    enum tern_pooling pooling;
    bool normalize, base64, llama, no_cache;
    uint64_t client, user;
    uint64_t n_tokens;
    struct api_fault fault;
};

/* -- what is asked for ----------------------------------------------------------------------------------- */

static enum tern_status parse_pooling(struct embeddings *e, struct api_fault *f)
{
    struct tern_str name = { NULL, 0 };
    enum tern_status st = api_get_string(e->body, "pooling", &name, f);
    const bool chosen = name.ptr || e->api->o.pooling_given;

    if (st)
        return st;
    e->pooling = e->api->model.pooling;
    if (name.ptr && !embed_pooling_by_name(name.ptr, &e->pooling))
        return API_REFUSE(f, "pooling", "'pooling' is '%.*s': there are mean, last, cls and none.",
                          TERN_STR_ARGS(name));
    if (e->pooling != TERN_POOL_NONE || (chosen && e->llama))
        return TERN_OK;
    if (chosen)
        return API_UNSUPPORTED(f, "pooling",
                               "'pooling' is none, for which OpenAI's form has no place; use /embedding.");
    return API_UNSUPPORTED(f, "pooling",
                           "The model writes text and does not say how to pool its rows: send \"pooling\": "
                           "\"mean\" or \"last\", or serve with --pooling.");
}

static enum tern_status parse_encoding(struct embeddings *e, struct api_fault *f)
{
    struct tern_str format = { NULL, 0 };
    int64_t dimensions = e->api->model.n_embd, normalize = 2;
    struct tern_str user = { NULL, 0 };
    bool cache = true;
    enum tern_status st;

    if ((st = api_get_string(e->body, "encoding_format", &format, f)) ||
        (st = api_get_bool(e->body, "cache_prompt", &cache, f)) ||
        (st = api_get_whole(e->body, "dimensions", 1, INT32_MAX, &dimensions, f)) ||
        (st = api_get_whole(e->body, "embd_normalize", -1, INT32_MAX, &normalize, f)) ||
        (st = api_get_string(e->body, "user", &user, f)))
        return st;
    e->user = api_user(user);
    e->no_cache = !cache;
    e->base64 = format.ptr && tern_str_is(format, "base64");
    if (format.ptr && !e->base64 && !tern_str_is(format, "float"))
        return API_REFUSE(f, "encoding_format", "'encoding_format' is '%.*s': there are float and base64.",
                          TERN_STR_ARGS(format));
    if (dimensions != (int64_t)e->api->model.n_embd)
        return API_UNSUPPORTED(f, "dimensions", "'dimensions' is %lld, and the model's vectors have %u.",
                               (long long)dimensions, (unsigned)e->api->model.n_embd);
    if (normalize != 2 && normalize != -1)
        return API_UNSUPPORTED(f, "embd_normalize",
                               "'embd_normalize' is %lld: there are 2 (length 1) and -1 (as it is).",
                               (long long)normalize);
    e->normalize = normalize == 2 && e->pooling != TERN_POOL_NONE;
    return TERN_OK;
}

static enum tern_status parse(struct embeddings *e, const struct http_request *r, struct api_fault *f)
{
    const char *field = "input";
    const json_t *input;
    size_t rows;
    enum tern_status st = api_body_parse(r->body, r->n_body, &e->body, f);

    if (st)
        return st;
    input = api_field(e->body, field);
    if (!input) {
        input = api_field(e->body, "content");
        field = input ? "content" : field;
    }
    if (!input)
        return api_fault_set(f, TERN_ERR_USAGE, "missing_required_parameter", field,
                             "'input' is missing: send a string, an array of strings, or token ids.");
    if ((st = parse_pooling(e, f)) || (st = parse_encoding(e, f)) ||
        (st = api_parse_prompts(&e->api->model, input, field, false, &e->prompts, f)))
        return st;
    rows = e->pooling == TERN_POOL_NONE ? e->prompts.ids.n : e->prompts.n;
    if (rows > MAX_FLOATS / e->api->model.n_embd)
        return API_REFUSE(f, field,
                          "'%s' makes %zu vectors of %u numbers, which is more than one answer may "
                          "have; send less at a time.",
                          field, rows, (unsigned)e->api->model.n_embd);
    return TERN_OK;
}

/* -- jobs ------------------------------------------------------------------------------------------------ */

static void fill(void *user, uint32_t i, struct job_request *out)
{
    const struct embeddings *e = user;
    const size_t from = e->prompts.from[i];

    out->kind = JOB_EMBED;
    out->ids = e->prompts.ids.ids + from;
    out->n_ids = (uint32_t)(e->prompts.from[i + 1] - from);
    out->client = e->client;
    out->user = e->user;
    out->pooling = e->pooling;
    out->normalize = e->normalize;
    out->no_cache = e->no_cache;
}

static void on_piece(void *user, uint32_t i, const struct job_piece *p, const struct job_state *state)
{
    (void)user;
    (void)i;
    (void)p;
    (void)state;
}

/* Floats as they lie in memory: little-endian, like the machines Tern runs on. */
static void add_base64(struct http_text *out, const float *x, size_t n)
{
    const size_t cap = sodium_base64_encoded_len(n * sizeof *x, sodium_base64_VARIANT_ORIGINAL);
    char *text = malloc(cap);

    if (!text) {
        out->failed = true;
        return;
    }
    sodium_bin2base64(text, cap, (const uint8_t *)x, n * sizeof *x, sodium_base64_VARIANT_ORIGINAL);
    http_text_add(out, "\"", 1);
    http_text_add(out, text, strlen(text));
    http_text_add(out, "\"", 1);
    free(text);
}

/* Nine digits: read back they are the same float. */
static void add_row(struct http_text *out, const float *x, size_t n)
{
    http_text_add(out, "[", 1);
    for (size_t i = 0; i < n; i++)
        http_text_addf(out, "%s%.9g", i ? "," : "", (double)x[i]);
    http_text_add(out, "]", 1);
}

static void on_end(void *user, uint32_t i, const struct job_state *s)
{
    struct embeddings *e = user;
    const size_t width = e->api->model.n_embd;
    struct http_text *out = &e->vectors[i];

    if (s->end != GENERATE_STOP) {
        if (!e->fault.http && s->end == GENERATE_ERROR) {
            e->fault.err = s->err;
            (void)api_fault_failed(&e->fault);
        } else if (!e->fault.http) {
            (void)api_fault_stopped(&e->fault);
        }
        return;
    }
    e->n_tokens += s->n_prompt;
    if (e->base64) {
        add_base64(out, s->embedding, width * s->n_rows);
        return;
    }
    if (e->llama)
        http_text_add(out, "[", 1);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        if (r)
            http_text_add(out, ",", 1);
        add_row(out, s->embedding + r * width, width);
    }
    if (e->llama)
        http_text_add(out, "]", 1);
}

static const struct api_batch_calls calls = { fill, on_piece, NULL, on_end };

static enum tern_status run(struct embeddings *e, struct http_exchange *x, struct api_fault *f)
{
    struct api_batch b;
    enum tern_status st = api_batch_begin(&b, e->api->service, (uint32_t)e->prompts.n, &calls, e, f);

    while (!st) {
        st = api_batch_turn(&b, TURN_MS, f);
        if (!st && http_gone(x)) {
            api_fault_http(f, 499, "The client has hung up.");
            st = TERN_ERR_PEER;
        } else if (e->fault.http) {
            *f = e->fault;
            st = f->err.status;
        }
    }
    api_batch_end(&b);
    return st == TERN_END ? TERN_OK : st;
}

/* -- the answer ------------------------------------------------------------------------------------------ */

static void reply(struct embeddings *e, struct http_exchange *x)
{
    struct http_text all = { 0 };

    if (!e->llama)
        http_text_addf(&all, "{\"object\":\"list\",\"model\":%s,\"data\":", e->api->name_json);
    for (size_t i = 0; i < e->prompts.n; i++) {
        http_text_addf(&all, "%s{%s\"index\":%zu,\"embedding\":", i ? "," : "[",
                       e->llama ? "" : "\"object\":\"embedding\",", i);
        http_text_add(&all, e->vectors[i].ptr, e->vectors[i].len);
        http_text_add(&all, "}", 1);
        all.failed |= e->vectors[i].failed;
        http_text_free(&e->vectors[i]);
    }
    http_text_add(&all, "]", 1);
    if (!e->llama)
        http_text_addf(&all, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                       (unsigned long long)e->n_tokens, (unsigned long long)e->n_tokens);
    if (all.failed)
        api_reply_json(x, 500, NULL);
    else
        http_reply(x, 200, API_JSON_TYPE, all.ptr, all.len);
    http_text_free(&all);
}

/* Only its ids are needed from there on. */
static enum tern_status parse_all(struct embeddings *e, const struct http_request *r, struct api_fault *f)
{
    enum tern_status st;

    e->client = r->client;
    api_body_begin(r->n_body);
    st = parse(e, r, f);
    json_decref(e->body);
    e->body = NULL;
    api_body_end(r->n_body);
    return st;
}

static enum tern_status embeddings(struct api *a, struct http_exchange *x, const struct http_request *r,
                                   bool llama, struct api_fault *f)
{
    struct embeddings e = { .api = a, .llama = llama };
    enum tern_status st = parse_all(&e, r, f);

    if (!st) {
        e.vectors = calloc(e.prompts.n, sizeof *e.vectors);
        st = e.vectors ? run(&e, x, f)
                       : api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the answer.");
    }
    if (!st)
        reply(&e, x);
    for (size_t i = 0; e.vectors && i < e.prompts.n; i++)
        http_text_free(&e.vectors[i]);
    free(e.vectors);
    api_prompts_free(&e.prompts);
    return st;
}

enum tern_status api_post_embeddings(struct api *a, struct http_exchange *x, const struct http_request *r,
                                     struct api_fault *f)
{
    return embeddings(a, x, r, false, f);
}

enum tern_status api_post_embedding(struct api *a, struct http_exchange *x, const struct http_request *r,
                                    struct api_fault *f)
{
    return embeddings(a, x, r, true, f);
}
