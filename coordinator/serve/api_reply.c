/* SPDX-License-Identifier: Apache-2.0 */
/* What all routes answer with: JSON, events, refusals, and the texts of tokens: see api_impl.h. */
#include "coordinator/serve/api_impl.h"

#include "coordinator/json_out.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fifteen digits: more than a log-probability means, and 0.8 stays 0.8. */
#define DUMP_FLAGS (JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15))

static const char no_memory[] =
    "{\"error\":{\"message\":\"No memory for the answer.\",\"type\":\"server_error\",\"param\":null,"
    "\"code\":null}}";

void api_reply_json(struct http_exchange *x, unsigned status, json_t *root)
{
    char *text = root ? json_dumps(root, DUMP_FLAGS) : NULL;

    json_decref(root);
    if (text)
        http_reply(x, status, API_JSON_TYPE, text, strlen(text));
    else
        http_reply(x, 500, API_JSON_TYPE, no_memory, sizeof no_memory - 1);
    free(text);
}

void api_reply_fault(struct http_exchange *x, const struct api_fault *f, bool numeric_code)
{
    char seconds[16];

    if (f->retry_after_s) {
        (void)snprintf(seconds, sizeof seconds, "%u", f->retry_after_s);
        http_reply_header(x, "Retry-After", seconds);
    }
    if (f->allow)
        http_reply_header(x, "Allow", f->allow);
    api_reply_json(x, f->http, api_fault_json(f, numeric_code));
}

static int append(const char *bytes, size_t n, void *out)
{
    http_text_add(out, bytes, n);
    return 0;
}

void api_sse_json(struct http_text *out, json_t *root)
{
    if (!root) {
        out->failed = true;
        return;
    }
    http_text_add(out, "data: ", 6);
    (void)json_dump_callback(root, append, out, DUMP_FLAGS);
    http_text_add(out, "\n\n", 2);
    json_decref(root);
}

void api_make_id(char *out, const char *prefix)
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t n = strlen(prefix);

    memcpy(out, prefix, n);
    for (size_t i = 0; i < 32; i++)
        out[n++] = letters[randombytes_uniform(sizeof letters - 1)];
    out[n] = '\0';
}

uint64_t api_user(struct tern_str user)
{
    uint64_t h = user.len ? UINT64_C(14695981039346656037) : 0;

    for (size_t i = 0; i < user.len; i++) { /* FNV-1a: nothing but the same for the same */
        h ^= (uint8_t)user.ptr[i];
        h *= UINT64_C(1099511628211);
    }
    return h;
}

/* -- tokens ---------------------------------------------------------------------------------------------- */

json_t *api_token_text(const struct tern_tokenizer *tok, int32_t id)
{
    return json_out_text(tern_tokenizer_piece(tok, id, true));
}

json_t *api_token_bytes(const struct tern_tokenizer *tok, int32_t id)
{
    const struct tern_str piece = tern_tokenizer_piece(tok, id, true);
    json_t *list = json_array();

    for (size_t i = 0; list && i < piece.len; i++)
        if (json_array_append_new(list, json_integer((uint8_t)piece.ptr[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

json_t *api_ids_text(const struct tern_tokenizer *tok, const int32_t *ids, size_t n, bool special)
{
    struct http_text all = { 0 };
    int32_t before = -1;
    json_t *v;

    for (size_t i = 0; i < n; i++) {
        struct tern_str piece = tern_tokenizer_piece_after(tok, before, ids[i], special);

        http_text_add(&all, piece.ptr, piece.len);
        before = ids[i];
    }
    v = all.failed ? NULL : json_out_text((struct tern_str){ all.ptr ? all.ptr : "", all.len });
    http_text_free(&all);
    return v;
}

json_t *api_ids_json(const int32_t *ids, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_integer(ids[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}
