/* SPDX-License-Identifier: Apache-2.0 */
/* What paths say of publishers' folders: see hf_path.h. */
#include "engine/hf_path.h"

#include "engine/hf_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHTS ".safetensors"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);

    return n > n_end && strcmp(text + n - n_end, end) == 0;
}

/* "a/b" of "a/b/c", "." of "c". */
static char *around(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

enum tern_status tern_hf_find_folder(const char *path, char **out, struct tern_err *err)
{
    struct stat sb;
    char *folder, *config = NULL;
    bool has_config;

    if (stat(path, &sb) != 0)
        return TERN_END;
    if (!S_ISDIR(sb.st_mode) &&
        (!S_ISREG(sb.st_mode) || (!ends_with(path, WEIGHTS) && !ends_with(path, ".json"))))
        return TERN_END;
    folder = S_ISDIR(sb.st_mode) ? strdup(path) : around(path);
    if (folder)
        config = tern_hf_path(folder, "config.json");
    if (!config) {
        free(folder);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to open %s", path);
    }
    has_config = S_ISDIR(sb.st_mode) || access(config, F_OK) == 0;
    free(config);
    if (!has_config) {
        free(folder);
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: not a model by itself, and no config.json beside it says what model it is of; "
                         "get all files of the Hugging Face folder, and name the folder",
                         path);
    }
    *out = folder;
    return TERN_OK;
}

enum tern_status tern_hf_check_file(const char *path, const struct tern_gguf *g, struct tern_err *err)
{
    struct stat sb;

    if (!ends_with(path, WEIGHTS))
        return TERN_OK;
    if (stat(path, &sb) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot look at %s: %s", path, strerror(errno));
    if (S_ISDIR(sb.st_mode))
        return TERN_OK;
    for (size_t i = 0; i < g->n_maps; i++)
        if (g->maps[i].dev == (uint64_t)sb.st_dev && g->maps[i].ino == (uint64_t)sb.st_ino)
            return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_USAGE,
                     "%s: does not belong to the model in its folder; name the folder to open that one",
                     path);
}

/* -- names ----------------------------------------------------------------------------------------------- */

/* The last part of *n bytes of a path, and *n what is before it, without the slash. */
static struct tern_str last_part(const char *path, size_t *n)
{
    size_t end = *n, at = end;

    while (at > 0 && path[at - 1] != '/')
        at--;
    *n = at > 0 ? at - 1 : 0;
    return (struct tern_str){ path + at, end - at };
}

/* "org/name" out of ".../models--org--name/snapshots/HASH". */
static bool name_of_cache(const char *path, char *out, size_t room)
{
    static const char mark[] = "models--";
    size_t n = strlen(path), n_mark = strlen(mark);
    struct tern_str part;
    const char *gap;

    (void)last_part(path, &n);
    part = last_part(path, &n);
    if (!tern_str_is(part, "snapshots"))
        return false;
    part = last_part(path, &n);
    if (part.len <= n_mark || memcmp(part.ptr, mark, n_mark) != 0)
        return false;
    part = (struct tern_str){ part.ptr + n_mark, part.len - n_mark };
    gap = memmem(part.ptr, part.len, "--", 2);
    if (gap)
        snprintf(out, room, "%.*s/%.*s", (int)(gap - part.ptr), part.ptr,
                 (int)(part.len - (size_t)(gap + 2 - part.ptr)), gap + 2);
    else
        snprintf(out, room, "%.*s", (int)part.len, part.ptr);
    return true;
}

/* "org/name", of letters and signs that such names have, with this name. */
static bool has_organisation(const char *text, struct tern_str name)
{
    static const char signs[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t n = strspn(text, signs);

    return n > 0 && text[0] != '.' && text[n] == '/' && strlen(text + n + 1) == name.len &&
           strspn(text + n + 1, signs) == name.len && memcmp(text + n + 1, name.ptr, name.len) == 0;
}

void tern_hf_model_name(const char *folder, const char *name_or_path, char *out, size_t room)
{
    char *real = realpath(folder, NULL);
    size_t n = real ? strlen(real) : 0;
    struct tern_str name = { "model", 5 };

    if (n > 1) /* not the root */
        name = last_part(real, &n);
    if (name_or_path && has_organisation(name_or_path, name))
        snprintf(out, room, "%s", name_or_path);
    else if (!real || !name_of_cache(real, out, room))
        snprintf(out, room, "%.*s", (int)name.len, name.ptr);
    free(real);
}
