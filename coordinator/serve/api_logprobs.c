/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities in the forms of chat, of completions and of llama-server: see api_answer.h. */
#include "coordinator/serve/api_answer.h"

#include <math.h>

/* OpenAI's number for "not possible at all"; JSON has no infinity. */
static json_t *value(double v)
{
    return json_real(isfinite(v) ? v : -9999.0);
}

/* Does a token print something that stands in the answer?  One that ends a text does not, nor does one that
 * prints a stop string. */
static bool is_shown(const struct api_answer *a, const struct api_choice *c, const struct generate_token *t)
{
    const struct api_model *m = &a->api->model;

    if (tern_tokenizer_is_eog(m->tok, t->id) || (a->r->gen.end_id && t->id == a->r->end_id))
        return false;
    return c->last_end < c->n_bytes || t->end <= c->last_end;
}

/* {"token", "logprob", "bytes"}; llama-server has "id" besides. */
static json_t *one(const struct api_answer *a, int32_t id, double logprob)
{
    const struct tern_tokenizer *tok = a->api->model.tok;

    return json_pack("{s:i, s:o, s:o, s:o}", "id", (int)id, "token", api_token_text(tok, id), "bytes",
                     api_token_bytes(tok, id), "logprob", value(logprob));
}

static json_t *chat_list(struct api_answer *a, struct api_choice *c, struct api_tokens t)
{
    const size_t width = (size_t)a->r->gen.n_logprobs;
    json_t *list = json_array();

    for (size_t i = 0; list && i < t.n; i++) {
        const struct generate_token *token = &t.tokens[i];
        json_t *entry, *tops;

        if (is_shown(a, c, token)) {
            entry = one(a, token->id, token->logprob);
            tops = json_array();
            for (size_t k = 0; k < token->n_top; k++)
                (void)json_array_append_new(tops,
                                            one(a, t.tops[i * width + k].id, t.tops[i * width + k].value));
            if (json_object_set_new(entry, "top_logprobs", tops) || json_array_append_new(list, entry)) {
                json_decref(list);
                return NULL;
            }
        }
        c->last_end = token->end;
    }
    return list;
}

json_t *api_logprobs_llama(struct api_answer *a, struct api_choice *c, struct api_tokens t)
{
    return a->r->gen.n_logprobs >= 0 ? chat_list(a, c, t) : NULL;
}

json_t *api_logprobs_chat(struct api_answer *a, struct api_choice *c, struct api_tokens t)
{
    if (a->r->gen.n_logprobs < 0)
        return NULL;
    return json_pack("{s:o, s:n}", "content", chat_list(a, c, t), "refusal");
}

/* -- completions ----------------------------------------------------------------------------------------- */

/* {" the": -0.3, ...}: of tokens with one text, the more probable. */
static json_t *top_map(const struct api_answer *a, const struct logprob *tops, size_t n)
{
    json_t *map = json_object();

    for (size_t k = 0; map && k < n; k++) {
        json_t *text = api_token_text(a->api->model.tok, tops[k].id);
        const char *key = json_string_value(text);

        if (key && !json_object_get(map, key))
            (void)json_object_set_new(map, key, value(tops[k].value));
        json_decref(text);
    }
    return map;
}

/* text [n]: what stands before c->n_bytes, of which `at` bytes are n_chars code points. */
struct place {
    const char *text;
    size_t from, at, n_chars;
};

static size_t chars_until(struct place *p, size_t end, size_t limit)
{
    end = end < limit ? end : limit;
    for (; p->at < end; p->at++)
        p->n_chars += ((uint8_t)p->text[p->at - p->from] & 0xc0) != 0x80;
    return p->n_chars;
}

json_t *api_logprobs_text(struct api_answer *a, struct api_choice *c, struct api_tokens t)
{
    const size_t width = a->r->gen.n_logprobs > 0 ? (size_t)a->r->gen.n_logprobs : 0;
    json_t *tokens = json_array(), *logprobs = json_array(), *offsets = json_array(), *tops = json_array();
    struct place place = { t.text, t.text_from, t.text_from, c->n_chars };

    for (size_t i = 0; i < t.n; i++) {
        const struct generate_token *token = &t.tokens[i];

        if (is_shown(a, c, token)) {
            (void)json_array_append_new(tokens, api_token_text(a->api->model.tok, token->id));
            (void)json_array_append_new(logprobs, value(token->logprob));
            (void)json_array_append_new(offsets, json_integer((json_int_t)c->last_end_chars));
            (void)json_array_append_new(tops, top_map(a, t.tops + i * width, token->n_top));
        }
        c->last_end = token->end;
        c->last_end_chars = chars_until(&place, token->end, c->n_bytes);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs",
                     tops, "text_offset", offsets);
}
