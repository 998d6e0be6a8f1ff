/* SPDX-License-Identifier: Apache-2.0 */
/* Which files a repository has, and which of them make a model: see pull.h. */
#include "coordinator/pull.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* -- the listing ----------------------------------------------------------------------------------------- */

/* At least 16 and at most 64 hex digits. */
static bool take_hex(const json_t *v, char out[static 65])
{
    const char *s = json_string_value(v);
    size_t n = s ? strlen(s) : 0;

    if (n < 16 || n > 64 || strspn(s, "0123456789abcdef") != n)
        return false;
    memcpy(out, s, n + 1);
    return true;
}

static bool take_size(const json_t *v, struct pull_entry *e)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    e->size = (uint64_t)json_integer_value(v);
    e->has_size = true;
    return true;
}

static enum tern_status take_entry(const json_t *v, struct pull_list *l, struct tern_err *err)
{
    const char *path = json_string_value(json_object_get(v, "rfilename"));
    const json_t *lfs = json_object_get(v, "lfs");
    struct pull_entry *e = &l->entries[l->n];

    if (!path)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the listing has an entry without a name");
    if (!pull_path_ok(path)) {
        l->n_refused += path[0] != '.' || path[1] == '.'; /* .gitattributes and the like are nobody's model */
        return TERN_OK;
    }
    memset(e, 0, sizeof *e);
    memcpy(e->path, path, strlen(path) + 1);
    (void)take_size(json_object_get(v, "size"), e);
    (void)take_hex(json_object_get(v, "blobId"), e->id);
    if (json_is_object(lfs)) {
        (void)take_size(json_object_get(lfs, "size"), e);
        e->is_sha256 = take_hex(json_object_get(lfs, "sha256"), e->id) && strlen(e->id) == 64;
        if (!e->is_sha256)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "the listing has no SHA-256 of the large file '%s'", path);
    }
    if (e->has_size && e->size > PULL_MAX_FILE)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the listing says that '%s' has %llu bytes; nobody has that",
                         path, (unsigned long long)e->size);
    l->n++;
    return TERN_OK;
}

enum tern_status pull_list_parse(const char *json, size_t len, struct pull_list *out, struct tern_err *err)
{
    struct pull_list l = { 0 };
    json_error_t why;
    json_t *root = json_loadb(json, len, 0, &why);
    const json_t *files = json_object_get(root, "siblings");
    enum tern_status st = TERN_OK;

    if (!root || !json_is_array(files))
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "the listing is not what this kind of server sends: %s",
                       root ? "no array \"siblings\"" : why.text);
    else if (!(l.entries = calloc(json_array_size(files) + 1, sizeof *l.entries)))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a listing of %zu files", json_array_size(files));
    for (size_t i = 0; !st && i < json_array_size(files); i++)
        st = take_entry(json_array_get(files, i), &l, err);
    if (!st)
        (void)take_hex(json_object_get(root, "sha"), l.commit);
    json_decref(root);
    if (st) {
        free(l.entries);
        return st;
    }
    *out = l;
    return TERN_OK;
}

void pull_list_fini(struct pull_list *l)
{
    free(l->entries);
    memset(l, 0, sizeof *l);
}

/* -- the choice ------------------------------------------------------------------------------------------ */

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);

    return n >= k && strcasecmp(s + n - k, end) == 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Of NAME-00002-of-00003.gguf: 2, and the bytes of NAME and those of "-of-00003.gguf" are the set's. */
static bool split_part(const char *path, unsigned *part, size_t *stem)
{
    const size_t n = strlen(path), tail = strlen("-00001-of-00001.gguf");
    const char *t;

    if (n <= tail || !ends_with(path, ".gguf"))
        return false;
    t = path + n - tail;
    if (t[0] != '-' || strspn(t + 1, "0123456789") != 5 || strncmp(t + 6, "-of-", 4) != 0 ||
        strspn(t + 10, "0123456789") != 5)
        return false;
    *part = (unsigned)strtoul(t + 1, NULL, 10);
    *stem = n - tail;
    return true;
}

static bool same_set(const char *a, const char *b)
{
    unsigned ia, ib;
    size_t na, nb;

    return split_part(a, &ia, &na) && split_part(b, &ib, &nb) && na == nb && strncmp(a, b, na) == 0 &&
           strcmp(a + na + 6, b + nb + 6) == 0;
}

/* A model in one file, or the first part of one in several. */
static bool is_model_gguf(const char *path)
{
    unsigned part;
    size_t stem;

    return ends_with(path, ".gguf") && !strcasestr(path, "mmproj") &&
           (!split_part(path, &part, &stem) || part == 1);
}

/* Marks the entry and, of a model in several files, all of them.  Returns the first of these. */
static size_t choose_set(struct pull_list *l, size_t i)
{
    size_t first = i, stem;
    unsigned part;

    l->entries[i].chosen = true;
    for (size_t k = 0; k < l->n; k++)
        if (same_set(l->entries[i].path, l->entries[k].path)) {
            l->entries[k].chosen = true;
            if (split_part(l->entries[k].path, &part, &stem) && part == 1)
                first = k;
        }
    return first;
}

/* What engine/hf.h reads, and what says how an embedding model pools. */
static bool is_folder_file(const char *path)
{
    static const char *const patterns[] = {
        "config.json",
        "generation_config.json",
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template*",
        "modules.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "1_Pooling/config.json",
    };

    if (fnmatch("consolidated*", path, 0) == 0) /* the same weights once more, under other names */
        return false;
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (fnmatch(patterns[i], path, FNM_PATHNAME) == 0)
            return true;
    return false;
}

static enum tern_status choose_named(struct pull_list *l, const struct pull_spec *spec, size_t *main,
                                     struct tern_err *err)
{
    size_t n = 0, first = SIZE_MAX;
    bool one_set = true;

    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->entries[i].path, spec->file) == 0) {
            *main = choose_set(l, i);
            return TERN_OK;
        }
    for (size_t i = 0; i < l->n; i++)
        if (fnmatch(spec->file, l->entries[i].path, 0) == 0) {
            first = first == SIZE_MAX ? i : first;
            one_set &= i == first || same_set(l->entries[first].path, l->entries[i].path);
            l->entries[i].chosen = true;
            n++;
        }
    if (n == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s has no file '%s'; see what there is with --list",
                         spec->repo, spec->file);
    *main = one_set ? choose_set(l, first) : SIZE_MAX;
    return TERN_OK;
}

static enum tern_status fail_many(const struct pull_list *l, const struct pull_spec *spec,
                                  struct tern_err *err)
{
    char names[200] = "";
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        if (is_model_gguf(l->entries[i].path) && n < sizeof names) {
            int put = snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", l->entries[i].path);

            n += put > 0 ? (size_t)put : 0;
        }
    return TERN_FAIL(err, TERN_ERR_USAGE, "%s has several models; name one as %s:FILE: %s%s", spec->repo,
                     spec->repo, names, n >= sizeof names ? "..." : "");
}

enum tern_status pull_list_choose(struct pull_list *l, const struct pull_spec *spec, size_t *main,
                                  struct tern_err *err)
{
    size_t n_gguf = 0, n_i2s = 0, n_weights = 0, gguf = 0, i2s = 0, config = SIZE_MAX;

    if (*spec->file)
        return choose_named(l, spec, main, err);
    for (size_t i = 0; i < l->n; i++) {
        const char *path = l->entries[i].path;

        if (is_model_gguf(path)) {
            gguf = i;
            n_gguf++;
            if (strcasestr(base_name(path), "i2_s")) {
                i2s = i;
                n_i2s++;
            }
        }
        n_weights += !strchr(path, '/') && ends_with(path, ".safetensors");
        if (strcmp(path, "config.json") == 0)
            config = i;
    }
    if (n_gguf == 1 || n_i2s == 1) {
        *main = choose_set(l, n_gguf == 1 ? gguf : i2s);
        return TERN_OK;
    }
    if (n_weights == 0 || config == SIZE_MAX)
        return n_gguf ? fail_many(l, spec, err)
                      : TERN_FAIL(err, TERN_ERR_USAGE,
                                  "%s has neither a .gguf nor .safetensors with a config.json; see what "
                                  "there is with --list",
                                  spec->repo);
    for (size_t i = 0; i < l->n; i++)
        l->entries[i].chosen = is_folder_file(l->entries[i].path);
    *main = SIZE_MAX;
    return TERN_OK;
}
