/* SPDX-License-Identifier: Apache-2.0 */
/* The form of /v1/completions: "text_completion", whole and in events. */
#include "coordinator/serve/api_openai.h"

/* The prompt as text, when it is to be repeated; else an empty one. */
static json_t *echo(const struct api_answer *a, const struct api_choice *c)
{
    size_t n;
    const int32_t *ids = api_answer_prompt(a, c, &n);
    const struct tern_tokenizer *tok = a->api->model.tok;

    if (!a->r->echo)
        return json_string("");
    if (n > 0 && ids[0] == tern_tokenizer_bos(tok)) { /* the tokenizer's, nobody wrote it */
        ids++;
        n--;
    }
    return api_ids_text(tok, ids, n, true);
}

static void send_text(struct api_answer *a, const struct api_choice *c, json_t *text, json_t *logprobs,
                      const char *reason, const struct job_state *s, struct http_text *out)
{
    json_t *choices = json_pack("[{s:o, s:i, s:o, s:s?}]", "text", text, "index", (int)c->index, "logprobs",
                                api_openai_null_or(logprobs), "finish_reason", reason);

    api_openai_event(a, "text_completion", choices, s, out);
}

static void begin(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    if (a->r->echo)
        send_text(a, c, echo(a, c), NULL, NULL, NULL, out);
}

static void piece(struct api_answer *a, struct api_choice *c, const struct job_piece *p,
                  struct http_text *out)
{
    const struct api_tokens t = { p->tokens, p->tops, p->n_tokens, p->text, c->n_bytes - p->n_text };
    json_t *logprobs = a->r->gen.n_logprobs < 0 ? NULL : api_logprobs_text(a, c, t);

    if (p->n_text > 0 || logprobs)
        send_text(a, c, json_stringn(p->text ? p->text : "", p->n_text), logprobs, NULL,
                  a->r->timings_per_token ? &c->state : NULL, out);
}

static void progress(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    json_t *choices =
        json_pack("[{s:s, s:i, s:n, s:n}]", "text", "", "index", (int)c->index, "logprobs", "finish_reason");

    api_answer_send_progress(a, c, "text_completion", choices, out);
}

static void finish(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    send_text(a, c, json_string(""), NULL, api_answer_reason(c),
              a->r->include_usage && a->n_choices == 1 ? NULL : &c->state, out);
}

static void end(struct api_answer *a, struct http_text *out)
{
    api_openai_end(a, "text_completion", out);
}

static json_t *whole_text(const struct api_answer *a, const struct api_choice *c)
{
    json_t *prompt = echo(a, c), *all;

    all = json_pack("s%+%", json_string_value(prompt), json_string_length(prompt),
                    c->text.ptr ? c->text.ptr : "", c->text.len);
    json_decref(prompt);
    return all;
}

static json_t *whole(struct api_answer *a)
{
    json_t *choices = json_array();

    for (uint32_t i = 0; i < a->n_choices; i++) {
        struct api_choice *c = &a->choices[i];
        const struct api_tokens t = { c->tokens, c->tops, c->n_tokens, c->text.ptr, 0 };
        json_t *logprobs = a->r->gen.n_logprobs < 0 ? NULL : api_logprobs_text(a, c, t);
        json_t *one = json_pack("{s:o, s:i, s:o, s:s}", "text", whole_text(a, c), "index", (int)i, "logprobs",
                                api_openai_null_or(logprobs), "finish_reason", api_answer_reason(c));

        (void)json_array_append_new(choices, one);
    }
    return api_openai_whole(a, "text_completion", choices);
}

const struct api_form api_form_text = { "cmpl-", begin, piece, progress, finish, end, whole, false };
