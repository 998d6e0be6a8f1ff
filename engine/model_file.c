/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kind of model a path is, and its options: see model_file.h.
 */
#include "engine/model_file.h"

#include "engine/gguf_override.h"
#include "engine/gguf_split.h"
#include "engine/hf.h"

#include <stdlib.h>
#include <string.h>

static const struct tern_file_options defaults;

enum tern_status tern_model_file_set_options(struct tern_gguf *g, const struct tern_file_options *o,
                                             struct tern_err *err)
{
    struct tern_file_options *copy = malloc(sizeof *copy);

    if (!copy)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read a model file");
    *copy = o ? *o : defaults;
    free(g->options);
    g->options = copy;
    return tern_override_apply(g, copy->overrides, copy->n_overrides, err);
}

static bool ends_with(const char *path, const char *end)
{
    const size_t n = strlen(path), n_end = strlen(end);

    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

/* A .gguf; somebody who names a file of a folder is told so. */
static enum tern_status open_gguf(const char *path, struct tern_gguf **out, struct tern_err *err)
{
    enum tern_status st = tern_gguf_open(path, out, err);

    if (st == TERN_ERR_FORMAT && (ends_with(path, ".safetensors") || ends_with(path, ".json")))
        return TERN_FAIL(err, st, "%s: a file of a Hugging Face folder; name the folder instead", path);
    return st;
}

enum tern_status tern_model_file_open(const char *path, const struct tern_file_options *o,
                                      struct tern_gguf **out, struct tern_err *err)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = tern_hf_is_folder(path) ? tern_hf_open(path, &g, err) : open_gguf(path, &g, err);

    if (!st)
        st = tern_split_join(path, g, err);
    if (!st)
        st = tern_model_file_set_options(g, o, err);
    if (st)
        tern_gguf_close(&g);
    else
        *out = g;
    return st;
}

const struct tern_file_options *tern_model_file_options(const struct tern_gguf *g)
{
    return g->options ? g->options : &defaults;
}
