/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.json: byte-level BPE as it is, and SentencePiece's BPE, whose merges become scores again (a
 * token's score is the rank of the first merge that makes it, negative), which merges in the same order.
 */
#include "engine/base/limits.h"
#include "engine/base/log.h"
#include "engine/hf_json.h"
#include "engine/hf_vocab.h"
#include "engine/vocab.h"

#include <string.h>

#define MAX_AROUND 16 /* parts of a template: each may be looked for in the whole vocabulary */

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));

    return type ? type : "";
}

/* Whether a step of this type stands in a "Sequence" (its steps under `list`) or alone. */
static const json_t *find_step(const json_t *root, const char *list, const char *type)
{
    const json_t *steps = json_object_get(root, list), *step;
    size_t i;

    if (strcmp(type_of(root), type) == 0)
        return root;
    json_array_foreach(steps, i, step) if (strcmp(type_of(step), type) == 0) return step;
    return NULL;
}

/* -- tokens ------------------------------------------------------------------------------------------- */

static bool is_byte_name(const char *s)
{
    return strlen(s) == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>' &&
           strspn(s + 3, "0123456789ABCDEF") == 2;
}

static enum tern_status read_vocab(struct tern_hf_vocab *v, const json_t *model, struct tern_err *err)
{
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    json_t *vocab = json_object_get(model, "vocab"), *value;
    float last = -(float)json_array_size(json_object_get(model, "merges"));
    const char *text;
    enum tern_status st = TERN_OK;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: model.vocab is not an object of tokens", v->name);
    json_object_foreach(vocab, text, value)
    {
        enum tern_token_type type = TERN_TOKEN_NORMAL;
        uint64_t id;

        if (!tern_hf_json_whole(value, UINT32_MAX, &id))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: token '%.60s' has no number in model.vocab", v->name,
                             text);
        if (v->spm && unknown && strcmp(text, unknown) == 0) {
            type = TERN_TOKEN_UNKNOWN;
            v->unknown = (int64_t)id;
        } else if (v->spm && is_byte_name(text)) {
            type = TERN_TOKEN_BYTE;
        }
        st = tern_hf_vocab_set(v, id, text, strlen(text), type, type == TERN_TOKEN_NORMAL ? last : 0, false,
                               err);
        if (st)
            break;
    }
    return st;
}

static enum tern_status read_added(struct tern_hf_vocab *v, const json_t *root, struct tern_err *err)
{
    const json_t *added = json_object_get(root, "added_tokens"), *token;
    enum tern_status st = TERN_OK;
    size_t i;

    json_array_foreach(added, i, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        uint64_t id;

        if (!text || !tern_hf_json_whole(json_object_get(token, "id"), UINT32_MAX, &id))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: added token %zu has no content or no id", v->name, i);
        st = tern_hf_vocab_add(v, id, text, json_is_true(json_object_get(token, "special")), err);
        if (st)
            break;
    }
    return st;
}

/* -- merges ------------------------------------------------------------------------------------------- */

/* A merge of SPM: what it makes gets this rank if no earlier one makes it. */
static enum tern_status score_merge(struct tern_hf_vocab *v, const json_t *vocab, size_t rank,
                                    struct tern_str left, struct tern_str right, struct tern_err *err)
{
    char text[2 * TERN_MAX_TOKEN_BYTES + 1];
    uint64_t id;
    size_t n = left.len + right.len;

    if (left.len > TERN_MAX_TOKEN_BYTES || right.len > TERN_MAX_TOKEN_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: merge %zu is too long", v->name, rank);
    memcpy(text, left.ptr, left.len);
    memcpy(text + left.len, right.ptr, right.len);
    text[n] = '\0';
    if (!tern_hf_json_whole(json_object_get(vocab, text), UINT32_MAX, &id) || id >= v->n)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: merge %zu makes '%.60s', which is no token", v->name,
                         rank, text);
    if (v->types[id] == TERN_TOKEN_NORMAL && -(float)rank > v->scores[id])
        v->scores[id] = -(float)rank;
    return TERN_OK;
}

/* "left right", cut at the first space past its first byte, or ["left", "right"]. */
static bool take_merge(const json_t *merge, struct tern_str *left, struct tern_str *right)
{
    const char *l = json_string_value(json_is_array(merge) ? json_array_get(merge, 0) : merge);
    const char *r = json_string_value(json_is_array(merge) ? json_array_get(merge, 1) : merge), *space;

    if (!l || !r || !*l || !*r)
        return false;
    if (json_is_array(merge)) {
        *left = (struct tern_str){ l, strlen(l) };
        *right = (struct tern_str){ r, strlen(r) };
        return json_array_size(merge) == 2;
    }
    space = strchr(l + 1, ' ');
    if (!space || !space[1])
        return false;
    *left = (struct tern_str){ l, (size_t)(space - l) };
    *right = (struct tern_str){ space + 1, strlen(space + 1) };
    return true;
}

static enum tern_status read_merges(struct tern_hf_vocab *v, const json_t *model, struct tern_err *err)
{
    const json_t *merges = json_object_get(model, "merges"), *merge, *vocab = json_object_get(model, "vocab");
    enum tern_status st = TERN_OK;
    size_t i;

    if (!json_is_array(merges))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: model.merges is not an array", v->name);
    if (json_array_size(merges) > 4 * TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %zu merges, at most %d", v->name, json_array_size(merges),
                         4 * TERN_MAX_VOCAB);
    json_array_foreach(merges, i, merge)
    {
        struct tern_str left, right;

        if (!take_merge(merge, &left, &right))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: merge %zu is not two texts", v->name, i);
        st = v->spm ? score_merge(v, vocab, i, left, right, err)
                    : tern_hf_vocab_merge(v, left.ptr, left.len, right.ptr, right.len, err);
        if (st)
            break;
    }
    return st;
}

/* -- around the model --------------------------------------------------------------------------------- */

/* Whether a text gets a space in front: the normaliser prepends it, or the pre-tokenizer does. */
static int reads_space(const json_t *normalizer, const json_t *pre)
{
    const json_t *mark = find_step(pre, "pretokenizers", "Metaspace");
    const char *scheme = json_string_value(json_object_get(mark, "prepend_scheme"));

    if (find_step(normalizer, "normalizers", "Prepend"))
        return 1;
    if (!mark)
        return 0;
    return scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(mark, "add_prefix_space"));
}

/* The id of a special token of a template; its own list of ids says which, else its text. */
static int64_t template_token(const struct tern_hf_vocab *v, const json_t *template, const json_t *item)
{
    const char *text = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
    const json_t *known = text ? json_object_get(json_object_get(template, "special_tokens"), text) : NULL;
    const json_t *ids = json_object_get(known, "ids");
    uint64_t id;

    if (json_array_size(ids) == 1 && tern_hf_json_whole(json_array_get(ids, 0), UINT32_MAX, &id) && id < v->n)
        return (int64_t)id;
    return text ? tern_hf_vocab_find(v, text) : -1;
}

/* "single": special tokens before and behind the sequence are what the model wants around a text.  Byte-level
 * BPE without a template wants none, whatever is the custom of its pre-tokenizer. */
static enum tern_status read_template(struct tern_hf_vocab *v, const json_t *post, struct tern_err *err)
{
    const json_t *template = find_step(post, "processors", "TemplateProcessing");
    const json_t *items = json_object_get(template, "single"), *item;
    bool behind = false;
    size_t i;

    if (!json_is_array(items) && v->spm)
        return TERN_OK;
    if (json_array_size(items) > MAX_AROUND)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %zu parts around a text, at most %d", v->name,
                         json_array_size(items), MAX_AROUND);
    v->add_bos = v->add_eos = 0;
    json_array_foreach(items, i, item)
    {
        int64_t id = template_token(v, template, item);

        if (json_object_get(item, "Sequence"))
            behind = true;
        if (id < 0)
            continue;
        if (behind) {
            v->eos = id;
            v->add_eos = 1;
        } else {
            v->bos = id;
            v->add_bos = 1;
        }
    }
    return TERN_OK;
}

static bool has_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && *text;
}

static enum tern_status read_kind(struct tern_hf_vocab *v, const json_t *root, struct tern_err *err)
{
    const json_t *model = json_object_get(root, "model"), *pre = json_object_get(root, "pre_tokenizer");
    const json_t *normalizer = json_object_get(root, "normalizer");
    const char *type = type_of(model);
    bool bytes = find_step(pre, "pretokenizers", "ByteLevel") != NULL ||
                 find_step(json_object_get(root, "decoder"), "decoders", "ByteLevel") != NULL;

    if (*type && strcmp(type, "BPE") != 0)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: the tokenizer is of type '%.40s'; BPE is known",
                         v->name, type);
    if (has_text(model, "end_of_word_suffix") || has_text(model, "continuing_subword_prefix"))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: tokens that mark the ends of words are not known",
                         v->name);
    v->spm = !bytes;
    if (v->spm && !json_is_true(json_object_get(model, "byte_fallback")))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: neither byte-level BPE nor SentencePiece's with byte fallback", v->name);
    if (v->spm) {
        v->add_space = reads_space(normalizer, pre);
        return TERN_OK;
    }
    v->pre = tern_hf_pre_name(v->name, pre);
    if (*type_of(normalizer) && strcmp(type_of(normalizer), "NFC") != 0)
        tern_log(TERN_LOG_WARN, "tokenizer", "%s: texts are not normalised by '%.40s'", v->name,
                 type_of(normalizer));
    return TERN_OK;
}

enum tern_status tern_hf_vocab_json(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                    struct tern_err *err)
{
    json_t *root;
    const json_t *model;
    enum tern_status st = tern_hf_json_parse(v->name, bytes, n, &root, err);

    if (st)
        return st;
    model = json_object_get(root, "model");
    if ((st = read_kind(v, root, err)) == TERN_OK && (st = read_vocab(v, model, err)) == TERN_OK &&
        (st = read_merges(v, model, err)) == TERN_OK && (st = read_added(v, root, err)) == TERN_OK)
        st = read_template(v, json_object_get(root, "post_processor"), err);
    json_decref(root);
    return st;
}
