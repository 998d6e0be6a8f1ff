/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an assignment.  Everything in it was said by an authenticated coordinator, and is checked all the
 * same.
 */
#include "worker/worker_plan.h"

#include "engine/identity.h"
#include "engine/model.h"

#include <stdlib.h>
#include <string.h>

#define MIN_DEAD_AFTER_MS 100
#define MAX_DEAD_AFTER_MS 600000

static enum tern_status check_model(const Tern__Assign *a, const struct worker_file *f, struct tern_err *err)
{
    uint32_t n;

    if (a->arch_hash.len != TERN_HASH_BYTES || memcmp(a->arch_hash.data, f->arch_hash, TERN_HASH_BYTES) != 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "this worker's model file is of another model than the coordinator's: its "
                         "hyper-parameters differ; start it with --model and the same file");
    if (a->first_layer >= a->last_layer || a->last_layer > f->arch.n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE, "layers [%u, %u) were assigned; the model has %u",
                         a->first_layer, a->last_layer, f->arch.n_layers);
    if (a->first_layer < f->first || a->last_layer > f->last)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "layers %u-%u were assigned but this worker's file holds only layers %u-%u",
                         a->first_layer, a->last_layer - 1, f->first, f->last - 1);
    n = worker_file_count(f, a->first_layer, a->last_layer);
    if (a->n_tensors != n)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "layers %u-%u have %u tensors in the coordinator's model file and %u in this worker's; give "
            "both the same file",
            a->first_layer, a->last_layer - 1, a->n_tensors, n);
    return TERN_OK;
}

static enum tern_status check_shape(const Tern__Assign *a, struct tern_err *err)
{
    const struct {
        uint32_t value, max;
        const char *what;
    } limits[] = {
        { a->n_pages, (uint32_t)TERN_MAX_SLOTS * (TERN_MAX_CONTEXT / TERN_PAGE), "KV pages" },
        { a->n_slots, TERN_MAX_SLOTS, "sequence slots" },
        { a->max_positions, TERN_MAX_CONTEXT, "positions of context" },
        { a->max_rows, TERN_MAX_STEP_ROWS, "rows in a step" },
        { a->max_in_flight, TERN_MAX_STEPS_IN_FLIGHT, "steps in flight" },
    };

    if (!tern_boundary_valid(a->boundary))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "boundary format %u is not known to this worker",
                         a->boundary);
    if (!tern_kv_type_valid(a->kv))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "KV type %u is not known to this worker", a->kv);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].max)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "%u %s were assigned; 1 to %u are possible",
                             limits[i].value, limits[i].what, limits[i].max);
    if (a->stage >= TERN_MAX_WORKERS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "stage %u was assigned; %d are possible", a->stage,
                         TERN_MAX_WORKERS);
    if (a->dead_after_ms < MIN_DEAD_AFTER_MS || a->dead_after_ms > MAX_DEAD_AFTER_MS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a silence of %u ms was named as death; %d to %d are possible",
                         a->dead_after_ms, MIN_DEAD_AFTER_MS, MAX_DEAD_AFTER_MS);
    return TERN_OK;
}

static enum tern_status read_neighbours(const Tern__Assign *a, struct worker_plan *p, struct tern_err *err)
{
    size_t n = strlen(a->next_endpoint);

    if (a->upstream_key.len != TERN_KEY_BYTES)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the assignment names no upstream key");
    memcpy(p->upstream_key, a->upstream_key.data, TERN_KEY_BYTES);
    p->is_last = n == 0;
    if (n > TERN_MAX_ENDPOINT_BYTES || (a->next_key.len != 0) == p->is_last ||
        (!p->is_last && a->next_key.len != TERN_KEY_BYTES))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the assignment's next worker has no usable endpoint and key");
    memcpy(p->next_endpoint, a->next_endpoint, n + 1);
    if (!p->is_last)
        memcpy(p->next_key, a->next_key.data, TERN_KEY_BYTES);
    return TERN_OK;
}

/* Figures in MiB, rounded up. */
static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)((bytes >> 20) + ((bytes & 0xfffff) != 0));
}

static enum tern_status check_memory(const struct worker_plan *p, const struct worker_means *m,
                                     struct tern_err *err)
{
    struct tern_model_need need = { 0 };
    size_t kv, total;
    enum tern_status st = tern_model_need(m->file->gguf, &m->file->arch, p->first, p->last, false, m->layout,
                                          p->max_rows, m->threads, &need, err);

    if (st)
        return st;
    if (!tern_mul_size(need.kv_page_bytes[p->kv], p->n_pages, &kv) ||
        !tern_add_size(kv, need.tiles_bytes, &total) || !tern_add_size(total, need.norms_bytes, &total) ||
        !tern_add_size(total, need.scratch_bytes, &total) ||
        !tern_add_size(total, need.fixed_bytes, &total) || !tern_add_size(total, p->steps_bytes, &total))
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a KV cache of %u pages does not fit the address space",
                         p->n_pages);
    if (m->memory_limit != 0 && total > m->memory_limit)
        return TERN_FAIL(
            err, TERN_ERR_MEMORY,
            "layers %u-%u need %llu MiB (weights %llu, KV cache %llu, %u steps in flight %llu) but --memory "
            "allows %llu MiB; assign fewer layers, a smaller context or fewer steps in flight, or raise the "
            "limit",
            p->first, p->last - 1, mib(total), mib(need.tiles_bytes + need.norms_bytes), mib(kv),
            p->n_steps - 1, mib(p->steps_bytes), (unsigned long long)(m->memory_limit >> 20));
    return TERN_OK;
}

enum tern_status worker_plan_read(const Tern__Assign *a, const struct worker_means *means,
                                  struct worker_plan *out, struct tern_err *err)
{
    struct worker_plan p = { .first = a->first_layer,
                             .last = a->last_layer,
                             .n_pages = a->n_pages,
                             .n_slots = a->n_slots,
                             .max_positions = a->max_positions,
                             .max_rows = a->max_rows,
                             .stage = a->stage,
                             .dead_after_ms = a->dead_after_ms,
                             .n_tensors = a->n_tensors };
    enum tern_status st = check_model(a, means->file, err);

    if (!st)
        st = check_shape(a, err);
    if (!st)
        st = read_neighbours(a, &p, err);
    if (st)
        return st;
    p.boundary = (enum tern_boundary)a->boundary;
    p.kv = (enum tern_kv_type)a->kv;
    p.row_bytes = (uint32_t)tern_boundary_row_bytes(p.boundary, means->file->arch.n_embd);
    p.n_steps = a->max_in_flight + 1;
    p.steps_bytes = p.n_steps * (sizeof(struct tern_step) + (size_t)p.max_rows * p.row_bytes);
    st = check_memory(&p, means, err);
    if (st)
        return st;
    p.expect = calloc(means->file->gguf->n_tensors, sizeof *p.expect);
    if (!p.expect)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the list of tensors");
    *out = p;
    return TERN_OK;
}

static enum tern_status add_entry(struct worker_plan *p, const Tern__Tensors__Entry *e,
                                  const struct worker_file *file, struct tern_err *err)
{
    const struct tern_tensor *t = tern_gguf_tensor(file->gguf, e->name);
    struct worker_expect *x;
    bool same;
    int layer;

    if (!t)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "the coordinator's model has a tensor '%s' that this worker's file lacks; give both the "
            "same file",
            e->name);
    layer = tern_tensor_layer(t->name);
    x = &p->expect[t - file->gguf->tensors];
    if (layer < 0 || (uint32_t)layer < p->first || (uint32_t)layer >= p->last || x->said ||
        e->hash.len != TERN_HASH_BYTES)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "tensor '%s' was listed twice, without a hash, or is outside layers %u-%u", e->name,
                         p->first, p->last - 1);
    same = e->type == t->type && e->n_ne == t->n_dims;
    for (size_t i = 0; same && i < e->n_ne; i++)
        same = e->ne[i] == t->ne[i];
    if (!same)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "tensor '%s' has another type or shape in this worker's model file than in the "
                         "coordinator's; give both the same file",
                         e->name);
    x->said = true;
    memcpy(x->hash, e->hash.data, TERN_HASH_BYTES);
    p->n_said++;
    return TERN_OK;
}

enum tern_status worker_plan_add(struct worker_plan *p, const Tern__Tensors *t,
                                 const struct worker_file *file, struct tern_err *err)
{
    for (size_t i = 0; i < t->n_entries; i++) {
        enum tern_status st = add_entry(p, t->entries[i], file, err);

        if (st)
            return st;
    }
    return p->n_said == p->n_tensors ? TERN_OK : TERN_AGAIN;
}

void worker_plan_fini(struct worker_plan *p)
{
    free(p->expect);
    memset(p, 0, sizeof *p);
}
