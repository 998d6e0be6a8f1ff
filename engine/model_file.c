/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kind of model a path is, and its options: see model_file.h.
 */
#include "engine/model_file.h"

#include "engine/gguf_override.h"
#include "engine/gguf_split.h"
#include "engine/hf.h"
#include "engine/hf_path.h"

#include <stdlib.h>

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

enum tern_status tern_model_file_open(const char *path, const struct tern_file_options *o,
                                      struct tern_gguf **out, struct tern_err *err)
{
    struct tern_gguf *g = NULL;
    char *folder = NULL;
    enum tern_status st = tern_hf_find_folder(path, &folder, err);

    if (!st) {
        st = tern_hf_open(folder, &g, err);
        if (!st)
            st = tern_hf_check_file(path, g, err);
        free(folder);
    } else if (st == TERN_END) {
        st = tern_gguf_open(path, &g, err);
        if (!st)
            st = tern_split_join(path, g, err);
    }
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
