/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_config.json and its neighbours: which tokens begin, end and fill up a text, what is added to the
 * vocabulary, and the chat template.
 */
#include "engine/hf_json.h"
#include "engine/hf_vocab.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEMPLATE 1048576 /* bytes of a chat template; real ones have some thousand */

/* "bos_token": its text, or an object with the text in "content". */
static const char *token_text(const json_t *config, const char *key)
{
    const json_t *token = json_object_get(config, key);

    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

static void find_token(const struct tern_hf_vocab *v, const json_t *config, const char *key, int64_t *id)
{
    const char *text = token_text(config, key);

    if (text && *id < 0)
        *id = tern_hf_vocab_find(v, text);
}

static void read_flag(const json_t *config, const char *key, int *flag)
{
    const json_t *value = json_object_get(config, key);

    if (json_is_boolean(value))
        *flag = json_is_true(value);
}

/* "added_tokens_decoder": id to token. */
static enum tern_status add_tokens(struct tern_hf_vocab *v, const json_t *config, struct tern_err *err)
{
    const json_t *all = json_object_get(config, "added_tokens_decoder");
    const char *key;
    json_t *token;
    enum tern_status st = TERN_OK;

    json_object_foreach((json_t *)(uintptr_t)all, key, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        char *end;
        unsigned long long id = strtoull(key, &end, 10);

        if (!text || *end || *key < '0' || *key > '9')
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: '%.20s' in added_tokens_decoder is not the number of a token with content",
                             v->name, key);
        st = tern_hf_vocab_add(v, id, text, json_is_true(json_object_get(token, "special")), err);
        if (st)
            break;
    }
    return st;
}

/* A text, or a list of {name, template} of which "default" is meant, else the first. */
static enum tern_status read_template(struct tern_hf_vocab *v, const json_t *value, struct tern_err *err)
{
    const char *text = json_string_value(value), *first = NULL;
    const json_t *entry;
    size_t i;

    json_array_foreach(value, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *here = json_string_value(json_object_get(entry, "template"));

        first = first ? first : here;
        if (here && name && strcmp(name, "default") == 0)
            text = here;
    }
    text = text ? text : first;
    if (!text || v->chat_template)
        return TERN_OK;
    if (strlen(text) > MAX_TEMPLATE)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: the chat template has %zu bytes, at most %d", v->name,
                         strlen(text), MAX_TEMPLATE);
    v->chat_template = strdup(text);
    return v->chat_template ? TERN_OK : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a chat template");
}

enum tern_status tern_hf_vocab_config(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                      struct tern_err *err)
{
    json_t *config;
    enum tern_status st = tern_hf_json_parse(v->name, bytes, n, &config, err);

    if (st)
        return st;
    if ((st = add_tokens(v, config, err)) == TERN_OK)
        st = read_template(v, json_object_get(config, "chat_template"), err);
    if (st == TERN_OK) {
        find_token(v, config, "bos_token", &v->bos);
        find_token(v, config, "eos_token", &v->eos);
        if (v->spm) /* byte-level BPE knows all bytes; its publishers name any token here */
            find_token(v, config, "unk_token", &v->unknown);
        find_token(v, config, "pad_token", &v->pad);
        read_flag(config, "add_bos_token", &v->add_bos);
        read_flag(config, "add_eos_token", &v->add_eos);
        if (v->spm)
            read_flag(config, "add_prefix_space", &v->add_space);
    }
    json_decref(config);
    return st;
}

enum tern_status tern_hf_vocab_added(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                     struct tern_err *err)
{
    json_t *root, *value;
    const char *text;
    enum tern_status st = tern_hf_json_parse(v->name, bytes, n, &root, err);

    if (st)
        return st;
    json_object_foreach(root, text, value)
    {
        size_t len = strlen(text);
        uint64_t id;

        if (tern_hf_json_whole(value, UINT32_MAX, &id))
            st = tern_hf_vocab_add(v, id, text, len > 2 && text[0] == '<' && text[len - 1] == '>', err);
        else
            st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s: '%.60s' has no number", v->name, text);
        if (st)
            break;
    }
    json_decref(root);
    return st;
}

static void read_id(const struct tern_hf_vocab *v, const json_t *value, int64_t *out)
{
    uint64_t id;

    if (*out < 0 && tern_hf_json_whole(value, UINT32_MAX, &id) && id < v->n)
        *out = (int64_t)id;
}

enum tern_status tern_hf_vocab_ids(struct tern_hf_vocab *v, const void *bytes, size_t n, struct tern_err *err)
{
    json_t *config;
    const json_t *eos;
    enum tern_status st = tern_hf_json_parse(v->name, bytes, n, &config, err);

    if (st)
        return st;
    read_id(v, json_object_get(config, "bos_token_id"), &v->bos);
    read_id(v, json_object_get(config, "pad_token_id"), &v->pad);
    eos = json_object_get(config, "eos_token_id");
    if (json_is_array(eos)) { /* any of them ends an answer */
        read_id(v, json_array_get(eos, 0), &v->eos);
        for (size_t i = json_array_size(eos); i-- > 0 && v->eot < 0;) {
            read_id(v, json_array_get(eos, i), &v->eot);
            v->eot = v->eot == v->eos ? -1 : v->eot;
        }
    } else {
        int64_t id = -1;

        read_id(v, eos, &v->eos);
        read_id(v, eos, &id);
        /* Another than the tokenizer's: it ends an answer too, if it is a token for such things. */
        if (v->eot < 0 && id >= 0 && id != v->eos && v->types[id] == TERN_TOKEN_CONTROL)
            v->eot = id;
    }
    json_decref(config);
    return TERN_OK;
}
