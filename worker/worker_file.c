/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layers a file holds.
 */
#include "worker/worker_file.h"

#include "engine/identity.h"

#include <string.h>

static enum tern_status find_layers(struct worker_file *f, struct tern_err *err)
{
    bool present[TERN_MAX_LAYERS] = { false };
    uint32_t n = f->arch.n_layers, i = 0;

    for (size_t t = 0; t < f->gguf->n_tensors; t++) {
        int layer = tern_tensor_layer(f->gguf->tensors[t].name);

        if (layer >= 0 && (uint32_t)layer < n)
            present[layer] = true;
    }
    while (i < n && !present[i])
        i++;
    f->first = i;
    while (i < n && present[i])
        i++;
    f->last = i;
    if (f->first == f->last)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: the file has no layers, so a worker has nothing to do with it", f->gguf->name);
    for (; i < n; i++)
        if (present[i])
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: layer %u is there but layer %u is not; a slice has no holes", f->gguf->name,
                             i, f->last);
    return TERN_OK;
}

enum tern_status worker_file_open(const char *path, const struct tern_file_options *o,
                                  struct worker_file *out, struct tern_err *err)
{
    struct worker_file f = { 0 };
    enum tern_status st = tern_model_file_open(path, o, &f.gguf, err);

    if (!st)
        st = tern_arch_read(f.gguf, &f.arch, err);
    if (!st)
        st = find_layers(&f, err);
    if (st) {
        worker_file_close(&f);
        return st;
    }
    tern_arch_hash(&f.arch, f.arch_hash);
    *out = f;
    return TERN_OK;
}

void worker_file_close(struct worker_file *f)
{
    if (f->gguf)
        tern_gguf_close(&f->gguf);
}

uint32_t worker_file_count(const struct worker_file *f, uint32_t first, uint32_t last)
{
    uint32_t n = 0;

    for (size_t t = 0; t < f->gguf->n_tensors; t++) {
        int layer = tern_tensor_layer(f->gguf->tensors[t].name);

        n += layer >= 0 && (uint32_t)layer >= first && (uint32_t)layer < last;
    }
    return n;
}
