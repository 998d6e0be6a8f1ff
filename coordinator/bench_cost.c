/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one token costs: bytes to read and multiply-adds, from the model as it lies in memory.
 */
#include "coordinator/bench.h"
#include "engine/kv.h"

#include <stdio.h>
#include <string.h>

static void name_of(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t n = strlen(base);

    if (n > 5 && strcmp(base + n - 5, ".gguf") == 0)
        n -= 5;
    n = n < cap ? n : cap - 1;
    memcpy(out, base, n);
    out[n] = '\0';
}

void bench_cost_of(const struct session *s, struct bench_cost *out)
{
    const struct tern_arch *a = &s->arch;
    const uint64_t d = a->n_embd, q = (uint64_t)a->n_heads * a->head_dim,
                   kv = (uint64_t)a->n_kv_heads * a->head_dim, layers = a->n_layers;

    memset(out, 0, sizeof *out);
    name_of(s->o->model, out->model, sizeof out->model);
    out->file_bytes = s->gguf->size;
    for (size_t i = 0; i < s->gguf->n_tensors; i++) {
        const uint64_t *ne = s->gguf->tensors[i].ne;

        out->params += ne[0] * ne[1] * ne[2] * ne[3];
    }
    out->ternary_macs = layers * (2 * d * q + 2 * d * kv + 3 * d * a->n_ffn);
    out->head_macs = d * a->n_vocab;
    for (uint32_t i = 0; i < s->pipe->n_stages; i++)
        out->layer_bytes += s->pipe->stages[i].weight_bytes;
    out->head_bytes = tern_head_bytes_read(s->head);
    out->kv_bytes = tern_kv_page_bytes(s->o->kv, a->n_layers, a->n_kv_heads, a->head_dim) / TERN_PAGE;
    out->window = a->swa.window;
    for (uint32_t l = 0; l < a->n_layers; l++)
        if (tern_swa_slides(&a->swa, l))
            out->kv_swa_bytes += out->kv_bytes / a->n_layers;
    out->layout = s->pipe->stages[0].layout ? s->pipe->stages[0].layout : "own"; /* a machine of a cluster */
    snprintf(out->head, sizeof out->head, "%s %s", tern_gguf_type_name(s->model->head->type),
             tern_head_mode_name(tern_head_mode(s->head)));
}
