/* SPDX-License-Identifier: Apache-2.0 */
/* A body becomes a request: see api_request.h. */
#include "coordinator/serve/api_request.h"

#include "coordinator/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void api_prompts_free(struct api_prompts *p)
{
    free(p->ids.ids);
    free(p->from);
    memset(p, 0, sizeof *p);
}

void api_request_free(struct api_request **rp)
{
    struct api_request *r = *rp;

    if (!r)
        return;
    api_prompts_free(&r->prompts);
    if (r->grammar)
        grammar_drop(&r->grammar);
    json_decref(r->body);
    free(r);
    *rp = NULL;
}

/* -- the prompt ------------------------------------------------------------------------------------------ */

static enum tern_status parse_chat(const struct api_model *m, struct api_request *r, struct api_fault *f)
{
    struct tern_chat_prompt text = { 0 };
    enum tern_status st = api_parse_messages(m, r->body, &text, f);
    struct tern_str end;

    if (!st)
        st = api_check_text(m, text.n_text, "messages", f);
    if (!st && (st = tern_chat_encode(m->format, m->tok, &text, true, &r->prompts.ids, &f->err)))
        st = api_fault_take(f, "messages");
    tern_chat_prompt_free(&text);
    if (st || (st = api_prompts_close(m, &r->prompts, "messages", f)))
        return st;
    r->end_id = tern_chat_end_token(m->format, m->tok);
    if (r->end_id >= 0)
        r->gen.end_id = &r->end_id;
    end = tern_chat_end_text(m->format, m->tok);
    TERN_BUG_IF(end.len >= sizeof r->end_text);
    if (end.len) {
        memcpy(r->end_text, end.ptr, end.len);
        r->gen.stops[r->gen.n_stops++] = r->end_text;
    }
    return TERN_OK;
}

static enum tern_status parse_prompt(const struct api_model *m, struct api_request *r, struct api_fault *f)
{
    const json_t *v = api_field(r->body, "prompt");

    if (!v)
        return api_fault_set(f, TERN_ERR_USAGE, "missing_required_parameter", "prompt",
                             "'prompt' is missing: send a string, or an array of token ids.");
    return api_parse_prompts(m, v, "prompt", true, &r->prompts, f);
}

/* -- how many, how long ---------------------------------------------------------------------------------- */

static enum tern_status parse_length(const struct api_model *m, struct api_request *r, struct api_fault *f)
{
    /* The last one that is there counts: n_predict is llama-server's, and the more exact. */
    static const char *const names[] = { "max_tokens", "max_completion_tokens", "n_predict" };
    int64_t n = -1;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        enum tern_status st = api_get_whole(r->body, names[i], -1, INT32_MAX, &n, f);

        if (st)
            return st;
    }
    r->gen.n_predict = n < 0 ? UINT32_MAX : (uint32_t)n;
    if (m->max_tokens && r->gen.n_predict > m->max_tokens)
        r->gen.n_predict = m->max_tokens;
    return TERN_OK;
}

static enum tern_status parse_count(struct api_request *r, struct api_fault *f)
{
    int64_t n = 1, best = -1;
    enum tern_status st;

    if ((st = api_get_whole(r->body, "n", 1, API_MAX_CHOICES, &n, f)) ||
        (st = api_get_whole(r->body, "n_cmpl", 1, API_MAX_CHOICES, &n, f)) ||
        (st = api_get_whole(r->body, "best_of", 1, API_MAX_CHOICES, &best, f)))
        return st;
    if (best >= 0 && best != n)
        return API_UNSUPPORTED(f, "best_of", "'best_of' must be equal to 'n' (%lld): answers are not ranked.",
                               (long long)n);
    if ((uint64_t)n * r->prompts.n > API_MAX_CHOICES)
        return API_REFUSE(f, r->prompts.n > 1 ? "prompt" : "n",
                          "%zu prompts with %lld answers each: at most %d answers to one request.",
                          r->prompts.n, (long long)n, API_MAX_CHOICES);
    r->n = (uint32_t)n;
    return TERN_OK;
}

static enum tern_status parse_logprobs(struct api_request *r, struct api_fault *f)
{
    int64_t top = -1, probs = 0;
    bool want = false;
    enum tern_status st;

    if (r->kind == API_CHAT) {
        if ((st = api_get_bool(r->body, "logprobs", &want, f)) ||
            (st = api_get_whole(r->body, "top_logprobs", 0, API_MAX_TOP, &top, f)))
            return st;
        if (top >= 0 && !want)
            return API_REFUSE(f, "top_logprobs", "'top_logprobs' needs 'logprobs' to be true.");
        r->gen.n_logprobs = want ? (top < 0 ? 0 : (int)top) : -1;
    } else {
        if ((st = api_get_whole(r->body, "logprobs", 0, LOGPROBS_MAX_TOP, &top, f)))
            return st;
        r->gen.n_logprobs = (int)top;
    }
    if ((st = api_get_whole(r->body, "n_probs", 0, LOGPROBS_MAX_TOP, &probs, f)))
        return st;
    if (probs > 0)
        r->gen.n_logprobs = (int)probs;
    return TERN_OK;
}

/* A whole answer is in memory at once, and what it says of each token is far larger than the token; so is
 * what is kept of a stream until its end, which a context that is shifted does not bring. */
static enum tern_status check_logprobs(const struct api_model *m, const struct api_request *r,
                                       struct api_fault *f)
{
    const uint64_t each = 1 + (r->gen.n_logprobs > 0 ? (uint64_t)r->gen.n_logprobs : 0);
    uint64_t tokens = 0;

    if ((r->stream && !m->shift) || r->gen.n_logprobs < 0)
        return TERN_OK;
    for (size_t i = 0; i < r->prompts.n; i++) {
        const uint64_t room = m->ctx - (r->prompts.from[i + 1] - r->prompts.from[i]) + 1;

        tokens += m->shift || r->gen.n_predict < room ? r->gen.n_predict : room;
    }
    if (tokens * r->n * each <= API_MAX_LOGPROBS)
        return TERN_OK;
    return API_REFUSE(f, "logprobs",
                      "%llu log-probabilities for each of up to %llu tokens: one answer may have %d in all; "
                      "lower 'max_tokens'%s.",
                      (unsigned long long)each, (unsigned long long)(tokens * r->n), API_MAX_LOGPROBS,
                      m->shift ? "" : ", or ask for a stream");
}

/* -- the rest -------------------------------------------------------------------------------------------- */

static enum tern_status parse_stream(struct api_request *r, struct api_fault *f)
{
    const json_t *options = NULL;
    enum tern_status st;

    if ((st = api_get_bool(r->body, "stream", &r->stream, f)) ||
        (st = api_get_object(r->body, "stream_options", &options, f)))
        return st;
    if (!options)
        return TERN_OK;
    if (!r->stream)
        return API_REFUSE(f, "stream_options", "'stream_options' needs 'stream' to be true.");
    if ((st = api_get_bool(options, "include_usage", &r->include_usage, f)))
        (void)strcpy(f->param, "stream_options.include_usage");
    return st;
}

static enum tern_status parse_response_fields(struct api_request *r, struct api_fault *f)
{
    const json_t *list = NULL;
    enum tern_status st = api_get_array(r->body, "response_fields", &list, f);

    for (size_t i = 0; !st && i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            st = API_REFUSE(f, "response_fields",
                            "'response_fields' has %s in it: its elements are names of fields, as strings.",
                            api_type_name(json_array_get(list, i)));
    r->response_fields = list;
    return st;
}

static enum tern_status parse_switches(const struct api_model *m, struct api_request *r, struct api_fault *f)
{
    bool cache = true;
    enum tern_status st;

    r->n_keep = m->n_keep;
    if ((st = api_get_bool(r->body, "cache_prompt", &cache, f)) ||
        (st = api_get_bool(r->body, "return_tokens", &r->return_tokens, f)) ||
        (st = api_get_bool(r->body, "timings_per_token", &r->timings_per_token, f)) ||
        (st = api_get_bool(r->body, "return_progress", &r->return_progress, f)) ||
        (st = r->kind == API_LLAMA ? parse_response_fields(r, f) : TERN_OK) ||
        (st = api_get_whole(r->body, "n_keep", -1, INT32_MAX, &r->n_keep, f)) ||
        (st = api_get_string(r->body, "user", &r->user, f)))
        return st;
    r->no_cache = !cache;
    if (r->user.len > API_MAX_USER)
        return API_REFUSE(f, "user", "'user' has %zu bytes: at most %d.", r->user.len, API_MAX_USER);
    if (r->kind != API_TEXT)
        return TERN_OK;
    if ((st = api_get_bool(r->body, "echo", &r->echo, f)))
        return st;
    if (r->echo && r->gen.n_logprobs >= 0)
        return API_UNSUPPORTED(f, "echo",
                               "'echo' together with 'logprobs' is not supported: the prompt's own "
                               "log-probabilities are not computed.");
    return TERN_OK;
}

static enum tern_status draw_seed(struct api_request *r, struct api_fault *f)
{
    uint32_t seed;

    if (r->seed_given)
        return TERN_OK;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        (void)TERN_FAIL_SYS(&f->err, TERN_ERR_IO, errno, "No random seed from the system: %s.",
                            strerror(errno));
        return api_fault_take(f, NULL);
    }
    r->gen.sample.seed = seed;
    return TERN_OK;
}

static enum tern_status parse_all(const struct api_model *m, struct api_request *r, struct api_fault *f)
{
    enum tern_status st;

    if ((st = api_parse_unsupported(r->body, r->kind, f)) || (st = api_parse_sampling(m, r->body, r, f)) ||
        (st = api_parse_stops(r->body, r, f)) || (st = parse_length(m, r, f)) ||
        (st = parse_logprobs(r, f)) || (st = parse_stream(r, f)) || (st = parse_switches(m, r, f)) ||
        (st = api_parse_format(r->body, r, f)))
        return st;
    if ((st = r->kind == API_CHAT ? parse_chat(m, r, f) : parse_prompt(m, r, f)) ||
        (st = parse_count(r, f)) || (st = check_logprobs(m, r, f)))
        return st;
    return draw_seed(r, f);
}

enum tern_status api_request_parse(const struct api_model *m, enum api_form_kind kind, const char *body,
                                   size_t n, struct api_request **out, struct api_fault *f)
{
    struct api_request *r = calloc(1, sizeof *r);
    enum tern_status st;

    if (!r)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the request.");
    r->kind = kind;
    r->gen.n_logprobs = -1;
    r->gen.ctx = m->ctx;
    sample_options_default(&r->gen.sample);
    api_body_begin(n);
    if (!(st = api_body_parse(body, n, &r->body, f)) && !(st = parse_all(m, r, f))) {
        (void)json_object_del(r->body, "prompt");
        (void)json_object_del(r->body, "messages");
        *out = r;
    } else {
        api_request_free(&r);
    }
    api_body_end(n);
    return st;
}
