/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: bind every tensor first, take memory for all of them at once, then fill it matrix by matrix with
 * all threads.
 */
#include "engine/model.h"

#include "engine/base/mem.h"
#include "engine/forward.h"
#include "engine/head.h"
#include "engine/model_impl.h"
#include "engine/ternary_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORM_ALIGN 64 /* bytes; each vector begins on a cache line */

/* What ternd holds besides weights, KV and scratch: code, libraries, heap, the queues of its links; and for
 * each thread the touched part of its stack.  Measured on a release build: 7.4 MB resident when idle, 2 to 3
 * MB of that not shared with other programs, 1 to 2 MB more at work; 10 KB a thread. */
#define FIXED_BYTES  ((size_t)6 << 20)
#define THREAD_BYTES ((size_t)16 << 10)

/* -- sizes ------------------------------------------------------------------------------------- */

static size_t norm_bytes(const struct tern_tensor *t)
{
    return tern_round_up((size_t)t->ne[0] * sizeof(float), NORM_ALIGN); /* ne0 <= TERN_MAX_FFN */
}

/* Adds what one layer takes; false when that does not fit a size_t. */
static bool add_layer(const struct tern_bound_layer *b, enum tern_tile_layout layout, size_t *tiles,
                      size_t *norms)
{
    size_t bytes;

    for (int i = 0; i < TERN_BIND_N_MATRICES; i++)
        if (!tern_pack_bytes(layout, (size_t)b->matrix[i]->ne[1], (size_t)b->matrix[i]->ne[0], &bytes) ||
            !tern_add_size(*tiles, bytes, tiles))
            return false;
    for (int i = 0; i < TERN_BIND_N_NORMS; i++)
        *norms += b->norm[i] ? norm_bytes(b->norm[i]) : 0;
    return true;
}

/* Binds all of a slice.  layers: room for last - first. */
static enum tern_status bind_all(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t first,
                                 uint32_t last, bool with_embd, struct tern_bound_layer *layers,
                                 struct tern_bound_ends *ends, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t l = first; !st && l < last; l++)
        st = tern_bind_layer(g, arch, l, &layers[l - first], err);
    if (!st && with_embd)
        st = tern_bind_ends(g, arch, ends, err);
    return st ? st : tern_bind_refuse_extras(g, arch, first, last, with_embd, err);
}

static enum tern_status check_slice(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t first,
                                    uint32_t last, struct tern_err *err)
{
    if (first > last || last > arch->n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: there are no layers %u to %u; the model has layers 0 to %u", g->name, first,
                         last, arch->n_layers - 1);
    return TERN_OK;
}

enum tern_status tern_model_need(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t first,
                                 uint32_t last, bool with_embd, enum tern_tile_layout layout, size_t max_rows,
                                 unsigned n_threads, struct tern_model_need *out, struct tern_err *err)
{
    struct tern_model_need need = { .fixed_bytes = FIXED_BYTES + n_threads * THREAD_BYTES };
    struct tern_bound_ends ends = { NULL, NULL, NULL };
    struct tern_bound_layer layer;
    enum tern_status st = check_slice(g, arch, first, last, err);

    for (uint32_t l = first; !st && l < last; l++) {
        st = tern_bind_layer(g, arch, l, &layer, err);
        if (!st && !add_layer(&layer, layout, &need.tiles_bytes, &need.norms_bytes))
            st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s: layers %u to %u do not fit this machine's address space",
                           g->name, first, last - 1);
    }
    if (!st && with_embd)
        st = tern_bind_ends(g, arch, &ends, err);
    if (!st)
        st = tern_bind_refuse_extras(g, arch, first, last, with_embd, err);
    if (st)
        return st;
    if (with_embd) {
        need.norms_bytes += norm_bytes(ends.norm);
        need.embd_bytes = ends.embd->bytes + (ends.head != ends.embd ? ends.head->bytes : 0);
        need.head_bytes = tern_head_copy_bytes(TERN_HEAD_AUTO, (enum tern_dtype)ends.head->type,
                                               arch->n_vocab, arch->n_embd);
    }
    for (uint32_t kv = 0; kv < TERN_N_KV_TYPES; kv++)
        need.kv_page_bytes[kv] =
            tern_kv_page_bytes((enum tern_kv_type)kv, last - first, arch->n_kv_heads, arch->head_dim);
    if (last > first)
        need.scratch_bytes = tern_scratch_bytes(arch, max_rows, n_threads);
    *out = need;
    return TERN_OK;
}

/* -- norms ------------------------------------------------------------------------------------- */

/* Decodes a norm to *at, moves *at on, and points *out to it. */
static enum tern_status load_norm(const struct tern_gguf *g, const struct tern_kernels *kern,
                                  const struct tern_tensor *t, uint8_t **at, const float **out,
                                  struct tern_err *err)
{
    float *w = (float *)(void *)*at;
    size_t n = (size_t)t->ne[0];

    tern_dequant_row((enum tern_dtype)t->type, t->data, n, w);
    for (size_t i = 0; t->view.plus_one && i < n; i++)
        w[i] += 1.0f;
    if (!kern->all_finite(w, n))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: tensor '%.*s' holds infinite or undefined numbers; the file is damaged",
                         g->name, TERN_STR_ARGS(t->name));
    *at += norm_bytes(t);
    *out = w;
    return TERN_OK;
}

static enum tern_status load_norms(struct tern_model *m, const struct tern_gguf *g,
                                   const struct tern_bound_layer *layers, const struct tern_bound_ends *ends,
                                   struct tern_err *err)
{
    uint8_t *at = (uint8_t *)m->norms;
    enum tern_status st = TERN_OK;

    for (uint32_t l = 0; !st && l < m->last - m->first; l++) {
        uint8_t *to = (uint8_t *)&m->layers[l];

        for (int i = 0; !st && i < TERN_BIND_N_NORMS; i++)
            if (layers[l].norm[i])
                st = load_norm(g, m->kern, layers[l].norm[i], &at,
                               (const float **)(void *)(to + tern_bind_norms[i].place), err);
    }
    if (!st && ends->norm)
        st = load_norm(g, m->kern, ends->norm, &at, &m->output_norm, err);
    return st;
}

/* -- ternary matrices -------------------------------------------------------------------------- */

static enum tern_status load_matrix(const struct tern_gguf *g, const struct tern_tensor *t,
                                    const struct tern_model_options *o, struct tern_pool *pool, uint8_t **at,
                                    struct tern_matrix *out, struct tern_err *err)
{
    size_t m = (size_t)t->ne[1], k = (size_t)t->ne[0], bytes;
    struct tern_ternary_source s;
    enum tern_status st = tern_ternary_open(g, t, pool, &s, err);

    TERN_BUG_IF(!tern_pack_bytes(o->layout, m, k, &bytes)); /* add_layer has asked */
    if (!st)
        st = tern_ternary_pack(&s, pool, o->layout, *at, &out->scale, err);
    if (st)
        return st;
    out->tiles = *at;
    out->m = m;
    out->k = k;
    out->k_pad = tern_pack_k_pad(o->layout, k);
    *at += bytes;
    tern_gguf_release(g, t);
    return TERN_OK;
}

/* What the matrix has as its own scale, times a tensor's. */
static enum tern_status multiply_scale(const struct tern_gguf *g, const struct tern_tensor *t, float *scale,
                                       struct tern_err *err)
{
    float f, product;

    memcpy(&f, t->data, sizeof f);
    product = *scale * f;
    if (!(f > 0) || !isfinite(product) || (*scale > 0 && product == 0))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: tensor '%.*s' is %g, which cannot scale a matrix of scale %g", g->name,
                         TERN_STR_ARGS(t->name), (double)f, (double)*scale);
    *scale = product;
    return TERN_OK;
}

static enum tern_status load_matrices(struct tern_model *m, const struct tern_gguf *g,
                                      const struct tern_bound_layer *layers,
                                      const struct tern_model_options *o, struct tern_pool *pool,
                                      struct tern_err *err)
{
    uint64_t done = 0, total = 0;
    uint8_t *at = m->tiles;
    enum tern_status st = TERN_OK;

    for (uint32_t l = 0; l < m->last - m->first; l++)
        for (int i = 0; i < TERN_BIND_N_MATRICES; i++)
            total += layers[l].matrix[i]->bytes;
    for (uint32_t l = 0; l < m->last - m->first; l++) {
        struct tern_layer *to = &m->layers[l];
        struct tern_matrix *const place[TERN_BIND_N_MATRICES] = {
            [TERN_BIND_Q] = &to->q,       [TERN_BIND_K] = &to->k,       [TERN_BIND_V] = &to->v,
            [TERN_BIND_O] = &to->o,       [TERN_BIND_GATE] = &to->gate, [TERN_BIND_UP] = &to->up,
            [TERN_BIND_DOWN] = &to->down,
        };

        for (int i = 0; i < TERN_BIND_N_MATRICES; i++) {
            st = load_matrix(g, layers[l].matrix[i], o, pool, &at, place[i], err);
            if (!st && layers[l].scale[i])
                st = multiply_scale(g, layers[l].scale[i], &place[i]->scale, err);
            if (st)
                return st;
            done += layers[l].matrix[i]->bytes;
            if (o->progress && !o->progress(o->progress_arg, done, total))
                return TERN_FAIL(err, TERN_END, "%s: loading was given up", g->name);
        }
    }
    return TERN_OK;
}

/* -- the model --------------------------------------------------------------------------------- */

/* Memory for everything that is ours. */
static enum tern_status take_memory(struct tern_model *m, const struct tern_gguf *g,
                                    const struct tern_bound_layer *layers, const struct tern_bound_ends *ends,
                                    struct tern_err *err)
{
    size_t n = m->last - m->first, tiles = 0, norms = ends->norm ? norm_bytes(ends->norm) : 0;
    void *block;
    enum tern_status st;

    for (size_t l = 0; l < n; l++)
        if (!add_layer(&layers[l], m->layout, &tiles, &norms))
            return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its layers do not fit this machine's address space",
                             g->name);
    m->layers = calloc(n + 1, sizeof *m->layers);
    if (!m->layers)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the layers of %s", g->name);
    st = tern_block_new(tiles, "the model's weights", &m->tiles, err);
    if (st)
        return st;
    m->tiles_bytes = tiles;
    st = tern_block_new(norms, "the model's norms", &block, err);
    if (st)
        return st;
    m->norms = block;
    m->norms_bytes = norms;
    return TERN_OK;
}

static enum tern_status fill(struct tern_model *m, const struct tern_gguf *g,
                             const struct tern_model_options *o, struct tern_pool *pool,
                             struct tern_bound_layer *layers, struct tern_err *err)
{
    struct tern_bound_ends ends = { NULL, NULL, NULL };
    enum tern_status st = bind_all(g, &m->arch, o->first, o->last, o->with_embd, layers, &ends, err);

    if (!st)
        st = take_memory(m, g, layers, &ends, err);
    if (!st)
        st = load_norms(m, g, layers, &ends, err);
    if (!st)
        st = load_matrices(m, g, layers, o, pool, err);
    if (o->with_embd) {
        m->embd = ends.embd;
        m->head = ends.head;
        m->file = g;
    }
    return st;
}

enum tern_status tern_model_load(const struct tern_gguf *g, const struct tern_arch *arch,
                                 const struct tern_kernels *kern, struct tern_pool *pool,
                                 const struct tern_model_options *o, struct tern_model **out,
                                 struct tern_err *err)
{
    struct tern_bound_layer *layers;
    struct tern_model *m;
    struct tern_err lost;
    enum tern_status st = check_slice(g, arch, o->first, o->last, err);

    if (st)
        return st;
    m = calloc(1, sizeof *m);
    layers = calloc(o->last - o->first + 1, sizeof *layers);
    if (!m || !layers) {
        free(m);
        free(layers);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to load %s", g->name);
    }
    m->arch = *arch;
    m->kern = kern;
    m->layout = o->layout;
    m->first = o->first;
    m->last = o->last;
    st = fill(m, g, o, pool, layers, err);
    free(layers);
    /* Once more for all: reading a tensor brings pages of its neighbours back, and edges were left.  What is
     * needed yet comes again. */
    tern_gguf_release_all(g);
    /* A file that shrinks while it is read looks damaged; say what really happened. */
    if (tern_gguf_check(g, &lost)) {
        st = lost.status;
        if (err)
            *err = lost;
    }
    if (st) {
        tern_model_free(&m);
        return st;
    }
    *out = m;
    return TERN_OK;
}

void tern_model_free(struct tern_model **mp)
{
    struct tern_model *m = *mp;
    void *norms;

    if (!m)
        return;
    norms = m->norms;
    tern_block_free(&norms, m->norms_bytes);
    tern_block_free(&m->tiles, m->tiles_bytes);
    free(m->layers);
    free(m);
    *mp = NULL;
}

enum tern_status tern_model_check(const struct tern_model *model, struct tern_err *err)
{
    return model->file ? tern_gguf_check(model->file, err) : TERN_OK;
}
