/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs become an answer: see api_answer.h. */
#include "coordinator/serve/api_answer.h"

#include "engine/base/log.h"
#include "engine/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define QUIET_NS    15000000000u /* without an event, after which a comment shows that we are here */
#define PROGRESS_NS 100000000u   /* between events about a prompt: small steps may be many more */

/* -- what comes ------------------------------------------------------------------------------------------ */

/* Keeps a piece for a whole answer. */
static bool keep(struct api_choice *c, const struct job_piece *p, size_t n_logprobs)
{
    http_text_add(&c->text, p->text, p->n_text);
    if (c->n_tokens + p->n_tokens > c->tokens_cap) {
        size_t cap = 2 * (c->n_tokens + p->n_tokens);
        struct generate_token *tokens = realloc(c->tokens, cap * sizeof *tokens);
        struct logprob *tops;

        if (!tokens)
            return false;
        c->tokens = tokens;
        if (n_logprobs) {
            if (!(tops = realloc(c->tops, cap * n_logprobs * sizeof *tops)))
                return false;
            c->tops = tops;
        }
        c->tokens_cap = cap;
    }
    if (p->n_tokens)
        memcpy(c->tokens + c->n_tokens, p->tokens, p->n_tokens * sizeof *c->tokens);
    if (p->n_tokens && n_logprobs)
        memcpy(c->tops + c->n_tokens * n_logprobs, p->tops, p->n_tokens * n_logprobs * sizeof *c->tops);
    c->n_tokens += p->n_tokens;
    return !c->text.failed;
}

/* How much of the prompt has been read, when that is more than was told a while ago, or all of it. */
static void tell_progress(struct api_answer *a, struct api_choice *c, const struct job_state *s, bool whole)
{
    const uint64_t now = tern_now_ns();

    if (!a->out || !a->r->return_progress || !s->started || (c->told && c->n_told >= s->n_prompt_done) ||
        (c->told && !whole && now - c->told_ns < PROGRESS_NS))
        return;
    c->told = true;
    c->told_ns = now;
    c->n_told = s->n_prompt_done;
    c->state = *s;
    a->form->progress(a, c, a->out);
}

static void on_waiting(void *user, uint32_t i, const struct job_state *state)
{
    struct api_answer *a = user;

    tell_progress(a, &a->choices[i], state, false);
}

static void on_piece(void *user, uint32_t i, const struct job_piece *p, const struct job_state *state)
{
    struct api_answer *a = user;
    struct api_choice *c = &a->choices[i];
    const int top = a->r->gen.n_logprobs;

    tell_progress(a, c, state, true);
    c->state = *state;
    c->n_bytes += p->n_text;
    c->has_new_line |= p->n_text && memchr(p->text, '\n', p->n_text);
    if (a->out) {
        a->form->piece(a, c, p, a->out);
        for (size_t b = 0; b < p->n_text; b++) /* code points: bytes that do not go on with one */
            c->n_chars += ((uint8_t)p->text[b] & 0xc0) != 0x80;
    } else if (!keep(c, p, top > 0 ? (size_t)top : 0)) {
        a->no_memory = true;
    }
}

static void on_end(void *user, uint32_t i, const struct job_state *state)
{
    struct api_answer *a = user;
    struct api_choice *c = &a->choices[i];

    c->state = *state;
    c->ended = true;
    if (a->fault.http)
        return;
    if (state->end == GENERATE_ERROR) {
        a->fault.err = state->err;
        (void)api_fault_failed(&a->fault);
    } else if (state->end == GENERATE_INTERRUPTED) {
        (void)api_fault_stopped(&a->fault);
    } else if (a->out) {
        a->form->finish(a, c, a->out);
    }
}

/* Tokens that stay when the context is full: -1 is the whole prompt; BOS is not counted. */
static uint32_t kept(const struct api_answer *a, int64_t n_keep, const int32_t *ids, uint32_t n)
{
    const bool bos = ids[0] == tern_tokenizer_bos(a->api->model.tok);

    return n_keep < 0 || n_keep + bos > n ? n : (uint32_t)n_keep + (n_keep > 0 && bos);
}

static void fill(void *user, uint32_t i, struct job_request *out)
{
    struct api_answer *a = user;
    const struct api_request *r = a->r;
    size_t n;

    out->kind = JOB_TEXT;
    out->ids = api_answer_prompt(a, &a->choices[i], &n);
    out->n_ids = (uint32_t)n;
    out->client = a->client;
    out->user = a->user;
    out->at_end = !r->stream;
    out->no_cache = r->no_cache;
    out->gen = r->gen;
    out->gen.sample.seed += i % r->n;
    out->gen.grammar = r->grammar;
    out->gen.grammar_vocab = r->grammar ? a->api->grammar_vocab : NULL;
    out->grammar = r->grammar;
    out->shift = a->api->o.shift;
    out->n_keep = kept(a, r->n_keep, out->ids, out->n_ids);
}

static const struct api_batch_calls calls = { fill, on_piece, on_waiting, on_end };

/* -- the answer ------------------------------------------------------------------------------------------ */

void api_answer_free(struct api_answer **ap)
{
    struct api_answer *a = *ap;

    if (!a)
        return;
    api_batch_end(&a->batch);
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++) {
        http_text_free(&a->choices[i].text);
        free(a->choices[i].tokens);
        free(a->choices[i].tops);
    }
    free(a->choices);
    api_request_free(&a->r);
    free(a);
    *ap = NULL;
}

enum tern_status api_answer_begin(struct api *api, const struct api_form *form, struct api_request **r,
                                  uint64_t client, struct api_answer **out, struct api_fault *f)
{
    struct api_answer *a = calloc(1, sizeof *a);
    enum tern_status st;

    if (a) {
        a->r = *r;
        *r = NULL;
        a->n_choices = a->r->n * (uint32_t)a->r->prompts.n;
        a->choices = calloc(a->n_choices, sizeof *a->choices);
    }
    if (!a || !a->choices) {
        api_request_free(r);
        api_answer_free(&a);
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the answer.");
    }
    a->api = api;
    a->form = form;
    a->client = client;
    a->user = api_user(a->r->user);
    a->created = (int64_t)time(NULL);
    a->quiet_since = tern_now_ns();
    api_make_id(a->id, form->id_prefix);
    for (uint32_t i = 0; i < a->n_choices; i++)
        a->choices[i].index = i;
    if ((st = api_batch_begin(&a->batch, api->service, a->n_choices, &calls, a, f))) {
        api_answer_free(&a);
        return st;
    }
    *out = a;
    return TERN_OK;
}

static void begin_stream(struct api_answer *a, struct http_text *out)
{
    a->begun = true;
    for (uint32_t i = 0; a->form->begin && i < a->n_choices; i++)
        a->form->begin(a, &a->choices[i], out);
}

enum tern_status api_answer_turn(struct api_answer *a, int wait_ms, struct http_text *out)
{
    const size_t before = out ? out->len : 0;
    enum tern_status st;

    if (out && !a->begun) {
        begin_stream(a, out);
        return TERN_OK; /* the first event goes out at once */
    }
    a->out = out;
    st = api_batch_turn(&a->batch, wait_ms, &a->fault);
    a->out = NULL;
    if (st && st != TERN_END)
        return st;
    if (!a->fault.http && (a->no_memory || (out && out->failed)))
        (void)api_fault_set(&a->fault, TERN_ERR_MEMORY, NULL, NULL, "No memory for the answer.");
    if (a->fault.http)
        return a->fault.err.status;
    if (out && st == TERN_END && a->form->end)
        a->form->end(a, out);
    if (out && out->len == before && tern_now_ns() - a->quiet_since > QUIET_NS)
        http_text_addf(out, ": waiting\n\n");
    if (out && out->len > before)
        a->quiet_since = tern_now_ns();
    return st;
}

/* -- for forms ------------------------------------------------------------------------------------------- */

const int32_t *api_answer_prompt(const struct api_answer *a, const struct api_choice *c, size_t *n)
{
    const struct api_prompts *p = &a->r->prompts;
    const size_t i = c->index / a->r->n;

    *n = p->from[i + 1] - p->from[i];
    return p->ids.ids + p->from[i];
}

const char *api_answer_reason(const struct api_choice *c)
{
    return c->state.end == GENERATE_STOP ? "stop" : "length";
}

json_t *api_answer_usage(const struct api_answer *a)
{
    uint64_t prompt = 0, cached = 0, answer = 0;

    for (uint32_t i = 0; i < a->n_choices; i++) {
        const struct job_state *s = &a->choices[i].state;

        answer += s->n_tokens;
        if (i % a->r->n == 0) { /* a prompt counts once, however many answers it has */
            prompt += s->n_prompt;
            cached += s->n_cached;
        }
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)prompt, "completion_tokens",
                     (json_int_t)answer, "total_tokens", (json_int_t)(prompt + answer),
                     "prompt_tokens_details", "cached_tokens", (json_int_t)cached);
}

/* Of a sum of milliseconds and what was done in it, to the microsecond. */
static double thousandth(double v)
{
    return floor(v * 1e3 + 0.5) / 1e3;
}

static double each(double ms, double n)
{
    return n > 0 ? thousandth(ms / n) : 0;
}

static double per_second(double ms, double n)
{
    return ms > 0 ? thousandth(n * 1e3 / ms) : 0;
}

json_t *api_answer_timings(const struct job_state *s)
{
    const double n_prompt = s->n_prompt - s->n_cached, n = s->n_tokens;

    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:f}", "cache_n", (json_int_t)s->n_cached,
                     "prompt_n", (json_int_t)n_prompt, "prompt_ms", thousandth(s->prompt_ms),
                     "prompt_per_token_ms", each(s->prompt_ms, n_prompt), "prompt_per_second",
                     per_second(s->prompt_ms, n_prompt), "predicted_n", (json_int_t)s->n_tokens,
                     "predicted_ms", thousandth(s->answer_ms), "predicted_per_token_ms",
                     each(s->answer_ms, n), "predicted_per_second", per_second(s->answer_ms, n));
}

json_t *api_answer_progress(const struct job_state *s)
{
    return json_pack("{s:I, s:I, s:I, s:f}", "total", (json_int_t)s->n_prompt, "cache",
                     (json_int_t)s->n_cached, "processed", (json_int_t)s->n_prompt_done, "time_ms",
                     thousandth(s->prompt_ms));
}

void api_answer_send_progress(const struct api_answer *a, const struct api_choice *c, const char *object,
                              json_t *choices, struct http_text *out)
{
    json_t *chunk = api_answer_shell(a, object, choices);

    if (a->r->include_usage)
        (void)json_object_set_new(chunk, "usage", json_null());
    (void)json_object_set_new(chunk, "prompt_progress", api_answer_progress(&c->state));
    api_sse_json(out, chunk);
}

json_t *api_answer_shell(const struct api_answer *a, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", a->id, "object", object, "created",
                     (json_int_t)a->created, "model", a->api->model.name, "system_fingerprint",
                     a->api->fingerprint, "choices", choices);
}
