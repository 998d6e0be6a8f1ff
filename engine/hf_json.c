/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from a publisher's folder: see hf_json.h. */
#include "engine/hf_json.h"

#include "engine/base/limits.h"
#include "engine/hf_file.h"

/*
 * What jansson (2.14) takes to parse a text, from above: what a node of each kind takes with malloc's own
 * share, and a table twice its size while it grows.  Text is held once for each string, and the longest token
 * up to three times by the lexer's buffer.  What is behind an error counts too, but is never parsed.
 */
static size_t estimate(const uint8_t *at, size_t n)
{
    enum { OBJECT = 224, ARRAY = 128, STRING = 88, NUMBER = 32, MEMBER = 48, ELEMENT = 24 };
    size_t all = 0, token = 0, longest = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        size_t here = token + 1, step = 1;

        if (at[i] == '"') {
            all += in_string ? 0 : STRING;
            in_string = !in_string;
            here = 0;
        } else if (in_string) {
            step += at[i] == '\\';
            all += step;
            here = token + step;
        } else {
            switch (at[i]) {
            case '{':
                all += OBJECT;
                here = 0;
                break;
            case '[':
                all += ARRAY;
                here = 0;
                break;
            case ':':
                all += MEMBER;
                here = 0;
                break;
            case ',':
                all += ELEMENT;
                here = 0;
                break;
            case ' ':
            case '\t':
            case '\n':
            case '\r':
            case '}':
            case ']': here = 0; break;
            default: all += token == 0 ? NUMBER : 0; break;
            }
        }
        i += step - 1;
        token = here;
        longest = token > longest ? token : longest;
    }
    return all + 3 * longest;
}

static enum tern_status parse(const char *name, const void *bytes, size_t n, json_type root_type,
                              json_t **out, struct tern_err *err)
{
    size_t takes = estimate(bytes, n), may_take = TERN_HF_JSON_SMALL + n * TERN_HF_JSON_TIMES;
    json_error_t why;
    json_t *root;

    if (may_take > TERN_MAX_HF_MEMORY)
        may_take = TERN_MAX_HF_MEMORY;
    if (takes > may_take)
        return TERN_FAIL(err, TERN_ERR_LIMIT,
                         "%s: its JSON of %zu bytes has so many small parts that it would take %zu bytes of "
                         "memory; at most %zu are allowed",
                         name, n, takes, may_take);
    root = json_loadb(bytes, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);
    if (!root)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: not valid JSON (line %d, column %d: %s)", name, why.line,
                         why.column, why.text);
    if (json_typeof(root) != root_type) {
        json_decref(root);
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: its JSON is not an %s", name,
                         root_type == JSON_OBJECT ? "object" : "array");
    }
    *out = root;
    return TERN_OK;
}

enum tern_status tern_hf_json_parse(const char *name, const void *bytes, size_t n, json_t **out,
                                    struct tern_err *err)
{
    return parse(name, bytes, n, JSON_OBJECT, out, err);
}

struct root {
    json_type type;
    json_t *json;
};

static enum tern_status read_root(void *user, const char *name, const void *bytes, size_t n,
                                  struct tern_err *err)
{
    struct root *r = user;

    return parse(name, bytes, n, r->type, &r->json, err);
}

static enum tern_status read_file(const char *folder, const char *file, json_type type, json_t **out,
                                  struct tern_err *err)
{
    struct root r = { .type = type };
    enum tern_status st = tern_hf_file_read(folder, file, TERN_MAX_HF_JSON, read_root, &r, err);

    if (st)
        json_decref(r.json);
    else
        *out = r.json;
    return st;
}

enum tern_status tern_hf_json_read(const char *folder, const char *file, json_t **out, struct tern_err *err)
{
    return read_file(folder, file, JSON_OBJECT, out, err);
}

enum tern_status tern_hf_json_read_array(const char *folder, const char *file, json_t **out,
                                         struct tern_err *err)
{
    return read_file(folder, file, JSON_ARRAY, out, err);
}

bool tern_hf_json_whole(const json_t *value, uint64_t max, uint64_t *out)
{
    double v = json_is_real(value) ? json_real_value(value) : -1;

    if (!(v >= 0 && v <= 9007199254740992.0) || v != (double)(uint64_t)v || (uint64_t)v > max)
        return false;
    *out = (uint64_t)v;
    return true;
}

const json_t *tern_hf_json_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

bool tern_hf_json_is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

const char *tern_hf_json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}
