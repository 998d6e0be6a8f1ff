/* SPDX-License-Identifier: Apache-2.0 */
/* llama-server's /tokenize, /detokenize and /apply-template: nothing here is computed by the model. */
#include "coordinator/serve/api_impl.h"

#include "engine/utf8.h"

#include <stdlib.h>

#define MAX_TOKENS ((size_t)1 << 18) /* of one /tokenize: each becomes a value of JSON */

/* -- tokenize -------------------------------------------------------------------------------------------- */

struct tokenize {
    bool add_special, parse_special, with_pieces;
};

/* A string, or an array of strings and ids as prompts have them. */
static enum tern_status encode(const struct api *a, const json_t *v, const struct tokenize *o,
                               struct tern_ids *out, struct api_fault *f)
{
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;

    for (size_t i = 0; i < n; i++) {
        const json_t *part = json_is_array(v) ? json_array_get(v, i) : v;
        enum tern_status st = TERN_OK;
        int64_t id;

        if (json_is_string(part)) {
            st = tern_tokenizer_encode(a->model.tok, json_string_value(part), json_string_length(part),
                                       o->add_special && i == 0, o->parse_special, out, &f->err);
        } else if (json_is_array(v) && api_is_whole(part, 0, (int64_t)a->model.n_vocab - 1, &id)) {
            if (!(st = tern_ids_reserve(out, 1, &f->err)))
                out->ids[out->n++] = (int32_t)id;
        } else {
            return API_REFUSE(f, "content",
                              "'content' must be a string, or an array of strings and token ids.");
        }
        if (st)
            return api_fault_take(f, "content");
        if (out->n > MAX_TOKENS)
            return API_REFUSE(f, "content", "'content' has more than %zu tokens.", MAX_TOKENS);
    }
    return TERN_OK;
}

/* A string, or a list of bytes where it is no UTF-8 by itself. */
static json_t *piece_json(const struct tern_tokenizer *tok, int32_t id)
{
    const struct tern_str piece = tern_tokenizer_piece(tok, id, true);

    if (tern_utf8_valid_prefix((const uint8_t *)piece.ptr, piece.len) == piece.len)
        return json_stringn(piece.ptr ? piece.ptr : "", piece.len);
    return api_token_bytes(tok, id);
}

static json_t *pieces_json(const struct tern_tokenizer *tok, const struct tern_ids *ids)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < ids->n; i++) {
        json_t *one = json_pack("{s:i, s:o}", "id", (int)ids->ids[i], "piece", piece_json(tok, ids->ids[i]));

        if (json_array_append_new(list, one)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static enum tern_status tokenize(const struct api *a, const struct http_request *r, json_t **out,
                                 struct api_fault *f)
{
    struct tokenize o = { false, true, false };
    struct tern_ids ids = { 0 };
    json_t *body = NULL;
    const json_t *content;
    enum tern_status st;

    if ((st = api_body_parse(r->body, r->n_body, &body, f)))
        return st;
    content = api_field(body, "content");
    if (!(st = api_get_bool(body, "add_special", &o.add_special, f)) &&
        !(st = api_get_bool(body, "parse_special", &o.parse_special, f)) &&
        !(st = api_get_bool(body, "with_pieces", &o.with_pieces, f)) && content)
        st = encode(a, content, &o, &ids, f);
    if (!st)
        *out = o.with_pieces ? pieces_json(a->model.tok, &ids) : api_ids_json(ids.ids, ids.n);
    free(ids.ids);
    json_decref(body);
    return st;
}

enum tern_status api_post_tokenize(struct api *a, struct http_exchange *x, const struct http_request *r,
                                   struct api_fault *f)
{
    json_t *tokens = NULL;
    enum tern_status st;

    api_body_begin(r->n_body);
    st = tokenize(a, r, &tokens, f);
    api_body_end(r->n_body);
    if (!st)
        api_reply_json(x, 200, json_pack("{s:o}", "tokens", tokens));
    return st;
}

/* -- detokenize ------------------------------------------------------------------------------------------ */

static enum tern_status read_ids(const struct api *a, const json_t *list, struct tern_ids *out,
                                 struct api_fault *f)
{
    const size_t n = json_array_size(list);

    if (tern_ids_reserve(out, n, &f->err))
        return api_fault_take(f, "tokens");
    for (size_t i = 0; i < n; i++) {
        int64_t id;

        if (!api_is_whole(json_array_get(list, i), 0, (int64_t)a->model.n_vocab - 1, &id))
            return API_REFUSE(f, "tokens", "'tokens' has in place %zu what is no token: there are 0 to %u.",
                              i, (unsigned)a->model.n_vocab - 1);
        out->ids[out->n++] = (int32_t)id;
    }
    return TERN_OK;
}

enum tern_status api_post_detokenize(struct api *a, struct http_exchange *x, const struct http_request *r,
                                     struct api_fault *f)
{
    struct tern_ids ids = { 0 };
    const json_t *list = NULL;
    json_t *body = NULL;
    enum tern_status st;

    if ((st = api_body_parse(r->body, r->n_body, &body, f)))
        return st;
    if (!(st = api_get_array(body, "tokens", &list, f)) && list)
        st = read_ids(a, list, &ids, f);
    if (!st)
        api_reply_json(x, 200,
                       json_pack("{s:o}", "content", api_ids_text(a->model.tok, ids.ids, ids.n, true)));
    free(ids.ids);
    json_decref(body);
    return st;
}

/* -- apply-template -------------------------------------------------------------------------------------- */

enum tern_status api_post_apply_template(struct api *a, struct http_exchange *x, const struct http_request *r,
                                         struct api_fault *f)
{
    struct tern_chat_prompt text = { 0 };
    json_t *body = NULL;
    enum tern_status st = api_body_parse(r->body, r->n_body, &body, f);

    if (st)
        return st;
    if (!(st = api_parse_unsupported(body, API_CHAT, f)) &&
        !(st = api_parse_messages(&a->model, body, &text, f)))
        api_reply_json(x, 200, json_pack("{s:s%}", "prompt", text.text ? text.text : "", text.n_text));
    tern_chat_prompt_free(&text);
    json_decref(body);
    return st;
}
