/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts in all their forms become token ids: see api_request.h. */
#include "coordinator/serve/api_request.h"

#include <stdio.h>
#include <stdlib.h>

static enum tern_status too_long(const struct api_model *m, size_t n, const char *at_least, const char *field,
                                 struct api_fault *f)
{
    (void)api_fault_set(f, TERN_ERR_LIMIT, "context_length_exceeded", field,
                        "'%s' has %s%zu tokens and the context %u: shorten it, or serve with a larger -c.",
                        field, at_least, n, (unsigned)m->ctx);
    f->type = "exceed_context_size_error";
    f->n_prompt = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    f->n_ctx = m->ctx;
    return TERN_ERR_LIMIT;
}

enum tern_status api_check_text(const struct api_model *m, size_t n_bytes, const char *field,
                                struct api_fault *f)
{
    const size_t n = m->longest ? n_bytes / m->longest : 0;

    return n > m->ctx ? too_long(m, n, "at least ", field, f) : TERN_OK;
}

enum tern_status api_prompts_close(const struct api_model *m, struct api_prompts *out, const char *field,
                                   struct api_fault *f)
{
    const size_t first = out->n ? out->from[out->n] : 0, n = out->ids.n - first;
    size_t *from;

    if (n == 0)
        return API_REFUSE(f, field, "'%s' is empty: there must be at least one token.", field);
    if (n > m->ctx)
        return too_long(m, n, "", field, f);
    for (size_t i = first; i < out->ids.n; i++)
        if (out->ids.ids[i] < 0 || (uint32_t)out->ids.ids[i] >= m->n_vocab)
            return API_REFUSE(f, field, "'%s' has the token %ld, and the model has %u of them.", field,
                              (long)out->ids.ids[i], (unsigned)m->n_vocab);
    from = realloc(out->from, (out->n + 2) * sizeof *from);
    if (!from)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for %zu prompts.", out->n + 1);
    out->from = from;
    from[0] = 0;
    from[++out->n] = out->ids.n;
    return TERN_OK;
}

static enum tern_status add_text(const struct api_model *m, const json_t *v, const char *field, bool special,
                                 bool parse_special, struct api_prompts *out, struct api_fault *f)
{
    const size_t len = json_string_length(v);
    enum tern_status st = api_check_text(m, len, field, f);

    if (!st &&
        tern_tokenizer_encode(m->tok, json_string_value(v), len, special, parse_special, &out->ids, &f->err))
        st = api_fault_take(f, field);
    return st;
}

/* Ids as they are; texts between them encoded, with what belongs around a text if it is the first part. */
static enum tern_status add_mixed(const struct api_model *m, const json_t *v, const char *field,
                                  bool parse_special, struct api_prompts *out, struct api_fault *f)
{
    const size_t n = json_array_size(v);

    if (tern_ids_reserve(&out->ids, n, &f->err))
        return api_fault_take(f, field);
    for (size_t i = 0; i < n; i++) {
        const json_t *part = json_array_get(v, i);
        enum tern_status st;
        int64_t id;

        if (json_is_string(part)) {
            if ((st = add_text(m, part, field, i == 0, parse_special, out, f)) ||
                (tern_ids_reserve(&out->ids, n - i, &f->err) && (st = api_fault_take(f, field))))
                return st;
        } else if (api_is_whole(part, 0, (int64_t)m->n_vocab - 1, &id)) {
            out->ids.ids[out->ids.n++] = (int32_t)id;
        } else if (json_is_number(part)) {
            return API_REFUSE(f, field, "'%s' has %.17g in place %zu, which is no token: there are 0 to %u.",
                              field, json_number_value(part), i, (unsigned)m->n_vocab - 1);
        } else {
            return API_REFUSE(f, field, "'%s' has %s in place %zu: expected a string or a token id.", field,
                              api_type_name(part), i);
        }
    }
    return TERN_OK;
}

static enum tern_status add_one(const struct api_model *m, const json_t *v, const char *field,
                                bool parse_special, struct api_prompts *out, struct api_fault *f)
{
    const json_t *text = json_is_object(v) ? api_field(v, "prompt_string") : v;
    enum tern_status st;

    if (json_is_object(v) && api_field(v, "multimodal_data"))
        return API_UNSUPPORTED(f, field, "'%s' has multimodal data, which the model cannot read.", field);
    if (json_is_string(text))
        st = add_text(m, text, field, true, parse_special, out, f);
    else if (json_is_array(text))
        st = add_mixed(m, text, field, parse_special, out, f);
    else
        return API_REFUSE(f, field, "'%s' must be a string, an array of token ids, or an array of those.",
                          field);
    return st ? st : api_prompts_close(m, out, field, f);
}

enum tern_status api_parse_prompts(const struct api_model *m, const json_t *v, const char *field,
                                   bool parse_special, struct api_prompts *out, struct api_fault *f)
{
    const size_t n = json_array_size(v);
    bool many = n > 0;

    /* An array with a number in it is one prompt. */
    for (size_t i = 0; i < n && many; i++)
        many = !json_is_number(json_array_get(v, i));
    if (!many)
        return add_one(m, v, field, parse_special, out, f);
    if (n > API_MAX_PROMPTS)
        return API_REFUSE(f, field, "'%s' has %zu entries: at most %d.", field, n, API_MAX_PROMPTS);
    for (size_t i = 0; i < n; i++) {
        char name[64];
        enum tern_status st;

        (void)snprintf(name, sizeof name, "%.40s[%zu]", field, i);
        if ((st = add_one(m, json_array_get(v, i), name, parse_special, out, f)))
            return st;
    }
    return TERN_OK;
}
