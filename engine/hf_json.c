/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from a publisher's folder: see hf_json.h. */
#include "engine/hf_json.h"

#include "engine/base/limits.h"
#include "engine/mapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_NESTS 262144 /* a safetensors header has three a tensor; each takes 300 bytes of memory */

/* Brackets in strings count too; nobody's names are full of them. */
static bool has_too_many_nests(const uint8_t *at, size_t n)
{
    size_t nests = 0;

    for (size_t i = 0; i < n; i++)
        nests += at[i] == '{' || at[i] == '[';
    return nests > MAX_NESTS;
}

static enum tern_status parse(const char *name, const void *bytes, size_t n, json_type root_type,
                              json_t **out, struct tern_err *err)
{
    json_error_t why;
    json_t *root;

    if (has_too_many_nests(bytes, n))
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its JSON has more than %d objects and arrays", name,
                         MAX_NESTS);
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

char *tern_hf_path(const char *folder, const char *file)
{
    char *path;

    return asprintf(&path, "%s/%s", folder, file) < 0 ? NULL : path;
}

static enum tern_status read_root(const char *folder, const char *file, json_type root_type, json_t **out,
                                  struct tern_err *err)
{
    char *path = tern_hf_path(folder, file);
    struct tern_mapping map;
    struct tern_err why;
    enum tern_status st;

    if (!path)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s", file);
    st = tern_mapping_open(path, &map, &why);
    free(path);
    if (st) {
        if (why.sys_errno == ENOENT)
            return TERN_END;
        if (err)
            *err = why;
        return st;
    }
    if (map.size > TERN_MAX_HF_JSON)
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s: has %zu bytes, at most %d are allowed", map.path, map.size,
                       TERN_MAX_HF_JSON);
    else
        st = parse(map.path, map.bytes, map.size, root_type, out, err);
    tern_mapping_close(&map);
    return st;
}

enum tern_status tern_hf_json_read(const char *folder, const char *file, json_t **out, struct tern_err *err)
{
    return read_root(folder, file, JSON_OBJECT, out, err);
}

enum tern_status tern_hf_json_read_array(const char *folder, const char *file, json_t **out,
                                         struct tern_err *err)
{
    return read_root(folder, file, JSON_ARRAY, out, err);
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
