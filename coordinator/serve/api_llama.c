/* SPDX-License-Identifier: Apache-2.0 */
/* The form of llama-server's own /completion, whole and in events. */
#include "coordinator/serve/api_answer.h"

#include <string.h>

static json_t *token_ids(const struct generate_token *tokens, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_integer(tokens[i].id))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* Stops of the chat format do not occur here: all texts are the user's. */
static const char *stop_type(const struct job_state *s)
{
    if (s->end == GENERATE_STOP)
        return s->stop >= 0 ? "word" : "eos";
    return "limit";
}

static json_t * final(struct api_answer *a, struct api_choice *c, const char *text, size_t len,
                      json_t *tokens)
{
    const struct job_state *s = &c->state;
    size_t n;
    const int32_t *ids = api_answer_prompt(a, c, &n);
    json_t *root = json_pack(
        "{s:i, s:s%, s:o, s:i, s:b, s:s, s:I, s:I, s:o, s:o}", "index", (int)c->index, "content", text, len,
        "tokens", tokens, "id_slot", s->slot, "stop", 1, "model", a->api->model.name, "tokens_predicted",
        (json_int_t)s->n_tokens, "tokens_evaluated", (json_int_t)s->n_prompt, "generation_settings",
        api_settings(a->api, a->r), "prompt", api_ids_text(a->api->model.tok, ids, n, true));
    json_t *more = json_pack("{s:b, s:b, s:s, s:s, s:I, s:o}", "has_new_line", c->has_new_line, "truncated",
                             s->shifted || s->end == GENERATE_CONTEXT, "stop_type", stop_type(s),
                             "stopping_word", s->stop >= 0 ? a->r->gen.stops[s->stop] : "", "tokens_cached",
                             (json_int_t)s->n_cached, "timings", api_answer_timings(s));

    (void)json_object_update(root, more);
    json_decref(more);
    return root;
}

/* The member at a path such as "timings/predicted_ms"; NULL: there is none. */
static json_t *member(json_t *o, const char *path)
{
    char key[64];

    for (;;) {
        const size_t n = strcspn(path, "/");

        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        o = json_object_get(o, key);
        if (!o || !path[n])
            return o;
        path += n + 1;
    }
}

/* What response_fields names of an answer (taken), each under its whole path, as llama-server has it. */
static json_t *selected(const struct api_answer *a, json_t *all)
{
    const json_t *fields = a->r->response_fields;
    json_t *some;

    if (!all || json_array_size(fields) == 0)
        return all;
    some = json_object();
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const char *path = json_string_value(json_array_get(fields, i));

        (void)json_object_set(some, path, member(all, path));
    }
    json_decref(all);
    return some;
}

/* -- events ---------------------------------------------------------------------------------------------- */

static json_t *event_of(const struct api_choice *c, const char *text, size_t len, json_t *tokens)
{
    const struct job_state *s = &c->state;

    return json_pack("{s:i, s:s%, s:o, s:b, s:i, s:I, s:I}", "index", (int)c->index, "content", text, len,
                     "tokens", tokens, "stop", 0, "id_slot", s->slot, "tokens_predicted",
                     (json_int_t)s->n_tokens, "tokens_evaluated", (json_int_t)s->n_prompt);
}

static void piece(struct api_answer *a, struct api_choice *c, const struct job_piece *p,
                  struct http_text *out)
{
    const struct api_tokens t = { p->tokens, p->tops, p->n_tokens, p->text, c->n_bytes - p->n_text };
    json_t *logprobs = api_logprobs_llama(a, c, t);
    json_t *event = event_of(c, p->text ? p->text : "", p->n_text, token_ids(p->tokens, p->n_tokens));

    if (logprobs)
        (void)json_object_set_new(event, "completion_probabilities", logprobs);
    if (a->r->timings_per_token)
        (void)json_object_set_new(event, "timings", api_answer_timings(&c->state));
    api_sse_json(out, event);
}

static void progress(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    json_t *event = event_of(c, "", 0, json_array());

    (void)a;
    (void)json_object_set_new(event, "prompt_progress", api_answer_progress(&c->state));
    api_sse_json(out, event);
}

static void finish(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    api_sse_json(out, selected(a, final(a, c, "", 0, json_array())));
}

/* -- whole ----------------------------------------------------------------------------------------------- */

static json_t *whole_one(struct api_answer *a, struct api_choice *c)
{
    const struct api_tokens t = { c->tokens, c->tops, c->n_tokens, c->text.ptr, 0 };
    json_t *tokens = a->r->return_tokens ? token_ids(c->tokens, c->n_tokens) : json_array();
    json_t *root = final(a, c, c->text.ptr ? c->text.ptr : "", c->text.len, tokens);

    if (a->r->gen.n_logprobs >= 0)
        (void)json_object_set_new(root, "completion_probabilities", api_logprobs_llama(a, c, t));
    return selected(a, root);
}

/* One object, or an array where there are several prompts or answers. */
static json_t *whole(struct api_answer *a)
{
    json_t *list;

    if (a->n_choices == 1)
        return whole_one(a, &a->choices[0]);
    list = json_array();
    for (uint32_t i = 0; i < a->n_choices; i++)
        (void)json_array_append_new(list, whole_one(a, &a->choices[i]));
    return list;
}

const struct api_form api_form_llama = { "cmpl-", NULL, piece, progress, finish, NULL, whole, true };
