/* SPDX-License-Identifier: Apache-2.0 */
/* The form of /v1/chat/completions: "chat.completion" and "chat.completion.chunk". */
#include "coordinator/serve/api_answer.h"

static json_t *null_or(json_t *v)
{
    return v ? v : json_null();
}

/* -- events ---------------------------------------------------------------------------------------------- */

/* With a usage chunk at the end all others say that theirs is not there yet, as OpenAI has it. */
static void send(struct api_answer *a, json_t *choices, json_t *usage, const struct job_state *s,
                 struct http_text *out)
{
    json_t *chunk = api_answer_shell(a, "chat.completion.chunk", choices);

    if (a->r->include_usage)
        (void)json_object_set_new(chunk, "usage", null_or(usage));
    if (s)
        (void)json_object_set_new(chunk, "timings", api_answer_timings(s));
    api_sse_json(out, chunk);
}

static void send_delta(struct api_answer *a, const struct api_choice *c, json_t *delta, json_t *logprobs,
                       const char *reason, const struct job_state *s, struct http_text *out)
{
    json_t *choices = json_pack("[{s:i, s:o, s:o, s:s?}]", "index", (int)c->index, "delta", delta, "logprobs",
                                null_or(logprobs), "finish_reason", reason);

    send(a, choices, NULL, s, out);
}

static void begin(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    send_delta(a, c, json_pack("{s:s, s:s, s:n}", "role", "assistant", "content", "", "refusal"), NULL, NULL,
               NULL, out);
}

static void piece(struct api_answer *a, struct api_choice *c, const struct job_piece *p,
                  struct http_text *out)
{
    const struct api_tokens t = { p->tokens, p->tops, p->n_tokens, p->text, c->n_bytes - p->n_text };
    json_t *logprobs = api_logprobs_chat(a, c, t);

    if (p->n_text > 0 || logprobs)
        send_delta(a, c, json_pack("{s:s%}", "content", p->text ? p->text : "", p->n_text), logprobs, NULL,
                   a->r->timings_per_token ? &c->state : NULL, out);
}

static void progress(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    json_t *choices =
        json_pack("[{s:i, s:{}, s:n, s:n}]", "index", (int)c->index, "delta", "logprobs", "finish_reason");

    api_answer_send_progress(a, c, "chat.completion.chunk", choices, out);
}

static void finish(struct api_answer *a, struct api_choice *c, struct http_text *out)
{
    send_delta(a, c, json_object(), NULL, api_answer_reason(c),
               a->r->include_usage && a->n_choices == 1 ? NULL : &c->state, out);
}

static void end(struct api_answer *a, struct http_text *out)
{
    if (a->r->include_usage)
        send(a, json_array(), api_answer_usage(a), a->n_choices == 1 ? &a->choices[0].state : NULL, out);
    http_text_addf(out, "data: [DONE]\n\n");
}

/* -- whole ----------------------------------------------------------------------------------------------- */

static json_t *whole(struct api_answer *a)
{
    json_t *choices = json_array(), *root;

    for (uint32_t i = 0; i < a->n_choices; i++) {
        struct api_choice *c = &a->choices[i];
        const struct api_tokens t = { c->tokens, c->tops, c->n_tokens, c->text.ptr, 0 };
        json_t *logprobs = api_logprobs_chat(a, c, t);
        json_t *one =
            json_pack("{s:i, s:{s:s, s:s%, s:n}, s:o, s:s}", "index", (int)i, "message", "role", "assistant",
                      "content", c->text.ptr ? c->text.ptr : "", c->text.len, "refusal", "logprobs",
                      null_or(logprobs), "finish_reason", api_answer_reason(c));

        (void)json_array_append_new(choices, one);
    }
    root = api_answer_shell(a, "chat.completion", choices);
    (void)json_object_set_new(root, "usage", api_answer_usage(a));
    if (a->n_choices == 1)
        (void)json_object_set_new(root, "timings", api_answer_timings(&a->choices[0].state));
    return root;
}

const struct api_form api_form_chat = { "chatcmpl-", begin, piece, progress, finish, end, whole, false };
