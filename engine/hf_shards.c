/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors files of a folder: see hf_shards.h. */
#include "engine/hf_shards.h"

#include "engine/base/limits.h"
#include "engine/hf_file.h"
#include "engine/hf_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONE_FILE "model.safetensors"
#define INDEX    "model.safetensors.index.json"

bool tern_hf_is_plain_name(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n <= 255 && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Maps and parses one more file; maps and files have room for it.  TERN_END when it does not exist. */
static enum tern_status add_file(struct tern_hf_shards *s, const char *folder, const char *file,
                                 struct tern_err *err)
{
    char *path = tern_hf_path(folder, file);
    struct tern_mapping *map = &s->maps[s->n_maps];
    struct tern_safetensors *f = &s->files[s->n_maps];
    struct tern_err why, lost;
    enum tern_status st;

    if (!path)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s", file);
    st = tern_mapping_open(path, map, &why);
    free(path);
    if (st) {
        if (why.sys_errno == ENOENT)
            return TERN_END;
    } else {
        st = tern_safetensors_parse(map->path, map->bytes, map->size, f, &why);
        /* A file that shrinks while we read it looks malformed; say what really happened. */
        if (tern_mapping_check(map, &lost)) {
            st = lost.status;
            why = lost;
        }
        s->n_maps++;
    }
    if (st && err)
        *err = why;
    return st;
}

static enum tern_status make_room(struct tern_hf_shards *s, size_t n, struct tern_err *err)
{
    s->maps = calloc(n, sizeof *s->maps);
    s->files = calloc(n, sizeof *s->files);
    return s->maps && s->files ? TERN_OK
                               : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a folder of %zu files", n);
}

/* -- the index ------------------------------------------------------------------------------------------- */

struct listed {
    const char *tensor, *file;
};

static int by_file(const void *a, const void *b)
{
    return strcmp(((const struct listed *)a)->file, ((const struct listed *)b)->file);
}

/* What the index says, sorted by file. */
static enum tern_status read_weight_map(const char *folder, const json_t *index, struct listed **out,
                                        size_t *n_out, struct tern_err *err)
{
    json_t *map = json_object_get(index, "weight_map"), *file;
    size_t n = json_object_size(map), i = 0;
    struct listed *listed;
    const char *tensor;

    if (n == 0 || n > TERN_MAX_TENSORS)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s/%s: its weight_map lists %zu tensors, where 1 to %d are "
                         "allowed",
                         folder, INDEX, n, TERN_MAX_TENSORS);
    listed = calloc(n, sizeof *listed);
    if (!listed)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %s", INDEX);
    json_object_foreach(map, tensor, file)
    {
        listed[i].tensor = tensor;
        listed[i].file = json_string_value(file);
        if (!listed[i].file || !tern_hf_is_plain_name(listed[i].file)) {
            free(listed);
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s/%s: the file of tensor '%.80s' is not the name of a file in the same folder",
                             folder, INDEX, tensor);
        }
        i++;
    }
    qsort(listed, n, sizeof *listed, by_file);
    *out = listed;
    *n_out = n;
    return TERN_OK;
}

/* The shard just added holds the n tensors that the index lists for it, and no other. */
static enum tern_status check_shard(const char *folder, const struct tern_safetensors *f,
                                    const struct listed *l, size_t n, struct tern_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!json_object_get(f->header, l[i].tensor))
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: the index says that tensor '%.80s' is in %.80s, and it "
                             "is not; get all files of the folder again",
                             folder, l[i].tensor, l[i].file);
    if (f->n != n)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: %.80s holds %zu tensors, and %s lists %zu; get all files of "
                         "the folder again",
                         folder, l->file, f->n, INDEX, n);
    return TERN_OK;
}

/* Headers are kept until all are read, so together they may take what one may. */
static enum tern_status check_headers(const struct tern_hf_shards *s, const char *folder,
                                      struct tern_err *err)
{
    size_t all = 0;

    for (size_t i = 0; i < s->n_maps; i++)
        all += s->files[i].header_bytes;
    if (all > TERN_MAX_HF_HEADER)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: the headers of its files have more than %d bytes", folder,
                         TERN_MAX_HF_HEADER);
    return TERN_OK;
}

static enum tern_status add_listed(struct tern_hf_shards *s, const char *folder, const struct listed *l,
                                   size_t n, struct tern_err *err)
{
    size_t n_files = 1, n_here;
    enum tern_status st;

    for (size_t i = 1; i < n; i++)
        n_files += strcmp(l[i - 1].file, l[i].file) != 0;
    if (n_files > TERN_MAX_HF_SHARDS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: is split into %zu files, at most %d are allowed", folder,
                         n_files, TERN_MAX_HF_SHARDS);
    st = make_room(s, n_files, err);
    for (size_t i = 0; !st && i < n; i += n_here) {
        for (n_here = 1; i + n_here < n && strcmp(l[i].file, l[i + n_here].file) == 0;)
            n_here++;
        st = add_file(s, folder, l[i].file, err);
        if (st == TERN_END)
            st = TERN_FAIL(err, TERN_ERR_IO, "%s: %.80s, which %s names, is missing; download it too", folder,
                           l[i].file, INDEX);
        if (!st)
            st = check_headers(s, folder, err);
        if (!st)
            st = check_shard(folder, &s->files[s->n_maps - 1], l + i, n_here, err);
    }
    return st;
}

static enum tern_status open_index(struct tern_hf_shards *s, const char *folder, struct tern_err *err)
{
    struct listed *listed = NULL;
    json_t *index = NULL;
    size_t n = 0;
    enum tern_status st = tern_hf_json_read(folder, INDEX, &index, err);

    if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: has no %s and no %s; other files of weights, such as .bin, cannot be read",
                         folder, ONE_FILE, INDEX);
    if (!st)
        st = read_weight_map(folder, index, &listed, &n, err);
    if (!st)
        st = add_listed(s, folder, listed, n, err);
    free(listed);
    json_decref(index);
    return st;
}

/* -- all together ---------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tern_hf_array *)a)->name, ((const struct tern_hf_array *)b)->name);
}

static enum tern_status gather(struct tern_hf_shards *s, const char *folder, struct tern_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n_maps; i++)
        n += s->files[i].n; /* 256 files of 65536 tensors */
    if (n > TERN_MAX_TENSORS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: has %zu tensors, at most %d are allowed", folder, n,
                         TERN_MAX_TENSORS);
    s->arrays = calloc(n + 1, sizeof *s->arrays);
    if (!s->arrays)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "%s: no memory for its tensor directory", folder);
    for (size_t i = 0; i < s->n_maps; i++)
        for (size_t j = 0; j < s->files[i].n; j++) {
            s->arrays[s->n] = s->files[i].arrays[j];
            s->arrays[s->n++].map = (uint32_t)i;
        }
    qsort(s->arrays, s->n, sizeof *s->arrays, by_name);
    return TERN_OK;
}

enum tern_status tern_hf_shards_open(const char *folder, struct tern_hf_shards *out, struct tern_err *err)
{
    struct tern_hf_shards s = { .n = 0 };
    enum tern_status st = make_room(&s, 1, err);

    if (!st)
        st = add_file(&s, folder, ONE_FILE, err);
    if (st == TERN_END) {
        tern_hf_shards_close(&s);
        st = open_index(&s, folder, err);
    }
    if (!st)
        st = gather(&s, folder, err);
    if (st)
        tern_hf_shards_close(&s);
    else
        *out = s;
    return st;
}

void tern_hf_shards_give_maps(struct tern_hf_shards *s)
{
    s->maps = NULL;
}

void tern_hf_shards_close(struct tern_hf_shards *s)
{
    for (size_t i = 0; i < s->n_maps; i++) {
        tern_safetensors_free(&s->files[i]);
        if (s->maps)
            tern_mapping_close(&s->maps[i]);
    }
    free(s->maps);
    free(s->files);
    free(s->arrays);
    memset(s, 0, sizeof *s);
}

const struct tern_hf_array *tern_hf_shards_find(const struct tern_hf_shards *s, const char *name)
{
    const struct tern_hf_array key = { .name = name };

    return s->n ? bsearch(&key, s->arrays, s->n, sizeof *s->arrays, by_name) : NULL;
}
