/* SPDX-License-Identifier: Apache-2.0 */
/* The form of /v1/chat/completions: "chat.completion" and "chat.completion.chunk". */
#include "coordinator/serve/api_openai.h"

/* -- events ---------------------------------------------------------------------------------------------- */

static void send_delta(struct api_answer *a, const struct api_choice *c, json_t *delta, json_t *logprobs,
                       const char *reason, const struct job_state *s, struct http_text *out)
{
    json_t *choices = json_pack("[{s:i, s:o, s:o, s:s?}]", "index", (int)c->index, "delta", delta, "logprobs",
                                api_openai_null_or(logprobs), "finish_reason", reason);

    api_openai_event(a, "chat.completion.chunk", choices, s, out);
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
    api_openai_end(a, "chat.completion.chunk", out);
}

/* -- whole ----------------------------------------------------------------------------------------------- */

static json_t *whole(struct api_answer *a)
{
    json_t *choices = json_array();

    for (uint32_t i = 0; i < a->n_choices; i++) {
        struct api_choice *c = &a->choices[i];
        const struct api_tokens t = { c->tokens, c->tops, c->n_tokens, c->text.ptr, 0 };
        json_t *logprobs = api_logprobs_chat(a, c, t);
        json_t *one =
            json_pack("{s:i, s:{s:s, s:s%, s:n}, s:o, s:s}", "index", (int)i, "message", "role", "assistant",
                      "content", c->text.ptr ? c->text.ptr : "", c->text.len, "refusal", "logprobs",
                      api_openai_null_or(logprobs), "finish_reason", api_answer_reason(c));

        (void)json_array_append_new(choices, one);
    }
    return api_openai_whole(a, "chat.completion", choices);
}

const struct api_form api_form_chat = { "chatcmpl-", begin, piece, progress, finish, end, whole, false };
