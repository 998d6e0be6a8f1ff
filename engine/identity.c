/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of a model's tensors with their hashes, and the hash over it.
 */
#include "engine/identity.h"

#include "engine/base/mem.h"
#include "engine/exact_scale.h"
#include "engine/identity_impl.h"
#include "engine/model_file.h"
#include "engine/ternary_source.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 20) /* hashed between two looks at the progress bar */
#define SPAN  (CHUNK * 16)      /* given back at a time */

/* One hashing of all tensors, shared by the pool's threads. */
struct job {
    const struct tern_gguf *g;
    struct tern_identity_entry **by_size; /* largest first, so that the last ones to end are short */
    pthread_t caller;
    _Atomic uint64_t done;
    uint64_t total;
    bool (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    atomic_bool given_up;
    bool bytes_only; /* not how they are read */
};

void tern_identity_hash_reading(crypto_generichash_state *h, const struct tern_gguf *g,
                                const struct tern_tensor *t)
{
    const struct tern_tensor_view *v = &t->view;
    const struct tern_file_options *o = tern_model_file_options(g);
    enum tern_i2s_layout i2s = t->type == TERN_TYPE_I2_S ? o->i2s_layout : TERN_I2S_A;
    bool quantize = o->quantize && (t->type == TERN_F32 || t->type == TERN_F16 || t->type == TERN_BF16) &&
                    t->ne[1] > 1 && tern_tensor_layer(t->name) >= 0; /* what may be a ternary matrix */
    struct tern_tl_tiles tl = { 0 };
    char text[160];
    uint32_t scale;
    int n;

    if (t->type == TERN_TYPE_TL1 || t->type == TERN_TYPE_TL2)
        (void)tern_ternary_tiles(g, t, &tl); /* without them nothing is loaded */
    memcpy(&scale, &v->scale, sizeof scale);
    if (!v->absmean && !v->plus_one && scale == 0 && v->n_heads == 0 && i2s == TERN_I2S_A && !quantize &&
        tl.m == 0)
        return;
    n = snprintf(text, sizeof text,
                 "absmean=%d plus_one=%d scale=%08x heads=%u i2s=%d quantize=%d tiles=%u,%u,%u", v->absmean,
                 v->plus_one, scale, v->n_heads, (int)i2s, quantize, tl.bm, tl.by, tl.strip);
    crypto_generichash_update(h, (const unsigned char *)text, (size_t)n);
}

static void hash_exact_scale(crypto_generichash_state *h, const struct tern_gguf *g,
                             const struct tern_tensor *t)
{
    float scale = tern_exact_scale_noted(g, t);

    if (scale > 0)
        crypto_generichash_update(h, (const unsigned char *)&scale, sizeof scale);
}

static void hash_tensors(void *arg, size_t first, size_t last, unsigned thread)
{
    struct job *job = arg;
    bool reports = job->progress && pthread_equal(pthread_self(), job->caller);

    (void)thread;
    for (size_t i = first; i < last; i++) {
        const struct tern_tensor *t = job->by_size[i]->tensor;
        crypto_generichash_state h;
        size_t at = 0;

        crypto_generichash_init(&h, NULL, 0, TERN_HASH_BYTES);
        while (at < t->bytes && !atomic_load(&job->given_up)) {
            size_t n = t->bytes - at < CHUNK ? t->bytes - at : CHUNK;
            uint64_t done;

            crypto_generichash_update(&h, t->data + at, n);
            at += n;
            if (at % SPAN == 0)
                tern_gguf_release_part(job->g, t, at - SPAN, at);
            done = atomic_fetch_add(&job->done, n) + n;
            if (reports && !job->progress(job->arg, done, job->total))
                atomic_store(&job->given_up, true);
        }
        if (!job->bytes_only) {
            tern_identity_hash_reading(&h, job->g, t);
            hash_exact_scale(&h, job->g, t);
        }
        crypto_generichash_final(&h, job->by_size[i]->hash, TERN_HASH_BYTES);
        tern_gguf_release(job->g, t);
    }
}

static int larger_first(const void *a, const void *b)
{
    size_t x = (*(struct tern_identity_entry *const *)a)->tensor->bytes;
    size_t y = (*(struct tern_identity_entry *const *)b)->tensor->bytes;

    return (x < y) - (x > y);
}

static enum tern_status hash_all(struct job *job, struct tern_identity *id, struct tern_pool *pool,
                                 struct tern_err *err)
{
    job->by_size = malloc((id->n + 1) * sizeof *job->by_size);
    if (!job->by_size)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to hash %s", job->g->name);
    for (size_t i = 0; i < id->n; i++) {
        job->by_size[i] = &id->entries[i];
        job->total += id->entries[i].tensor->bytes;
    }
    qsort(job->by_size, id->n, sizeof *job->by_size, larger_first);
    job->caller = pthread_self();
    if (id->n > 0)
        tern_pool_run(pool, hash_tensors, job, id->n, 1);
    free(job->by_size);
    tern_gguf_release_all(job->g); /* with the pages that came along with neighbours */
    if (atomic_load(&job->given_up) || (job->progress && !job->progress(job->arg, job->total, job->total)))
        return TERN_FAIL(err, TERN_END, "%s: hashing was given up", job->g->name);
    return tern_gguf_check(job->g, err);
}

static void put_u32(crypto_generichash_state *h, uint32_t v)
{
    const uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    crypto_generichash_update(h, b, sizeof b);
}

/* Numbers little-endian, four bytes each but for the dimensions (two words of four bytes, low first, n_dims
 * of them). */
static void hash_list(const struct tern_arch *arch, struct tern_identity *id)
{
    uint8_t arch_hash[TERN_HASH_BYTES];
    crypto_generichash_state h;

    tern_arch_hash(arch, arch_hash);
    crypto_generichash_init(&h, NULL, 0, TERN_HASH_BYTES);
    crypto_generichash_update(&h, arch_hash, sizeof arch_hash);
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_tensor *t = id->entries[i].tensor;

        put_u32(&h, (uint32_t)t->name.len);
        crypto_generichash_update(&h, (const unsigned char *)t->name.ptr, t->name.len);
        put_u32(&h, t->type);
        put_u32(&h, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) {
            put_u32(&h, (uint32_t)t->ne[d]);
            put_u32(&h, (uint32_t)(t->ne[d] >> 32));
        }
        crypto_generichash_update(&h, id->entries[i].hash, TERN_HASH_BYTES);
    }
    crypto_generichash_final(&h, id->model_hash, TERN_HASH_BYTES);
}

/* A list of the tensors in scope without their hashes. */
static enum tern_status list_new(const struct tern_gguf *g, enum tern_identity_scope scope,
                                 struct tern_identity **out, struct tern_err *err)
{
    struct tern_identity *id = calloc(1, sizeof *id);

    if (id)
        id->entries = calloc(g->n_tensors + 1, sizeof *id->entries);
    if (!id || !id->entries) {
        tern_identity_free(&id);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to hash %s", g->name);
    }
    /* Chooses libsodium's fastest BLAKE2b; any number of calls from any thread do no harm. */
    TERN_BUG_IF(sodium_init() < 0);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[g->by_name[i]];

        if (scope == TERN_IDENTITY_ALL || tern_tensor_layer(t->name) >= 0)
            id->entries[id->n++].tensor = t;
    }
    *out = id;
    return TERN_OK;
}

enum tern_status tern_identity_compute(const struct tern_gguf *g, const struct tern_arch *arch,
                                       enum tern_identity_scope scope, struct tern_pool *pool,
                                       bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                       struct tern_identity **out, struct tern_err *err)
{
    struct job job = { .g = g, .progress = progress, .arg = arg };
    struct tern_identity *id = NULL;
    enum tern_status st = list_new(g, scope, &id, err);

    if (st)
        return st;
    if (!tern_identity_cache_load(g, id)) {
        st = hash_all(&job, id, pool, err);
        if (!st)
            tern_identity_cache_store(g, id);
    }
    if (st) {
        tern_identity_free(&id);
        return st;
    }
    hash_list(arch, id);
    *out = id;
    return TERN_OK;
}

enum tern_status tern_identity_hash_bytes(const struct tern_gguf *g, struct tern_pool *pool,
                                          bool (*progress)(void *arg, uint64_t done, uint64_t total),
                                          void *arg, struct tern_identity **out, struct tern_err *err)
{
    struct job job = { .g = g, .progress = progress, .arg = arg, .bytes_only = true };
    struct tern_identity *id = NULL;
    enum tern_status st = list_new(g, TERN_IDENTITY_ALL, &id, err);

    if (!st && (st = hash_all(&job, id, pool, err)))
        tern_identity_free(&id);
    if (!st)
        *out = id;
    return st;
}

void tern_identity_free(struct tern_identity **id)
{
    if (!*id)
        return;
    free((*id)->entries);
    free(*id);
    *id = NULL;
}

const struct tern_identity_entry *tern_identity_find(const struct tern_identity *id, struct tern_str name)
{
    size_t lo = 0, hi = id->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct tern_str at = id->entries[mid].tensor->name;
        size_t common = at.len < name.len ? at.len : name.len;
        int c = common ? memcmp(at.ptr, name.ptr, common) : 0;

        if (c == 0 && at.len == name.len)
            return &id->entries[mid];
        if (c < 0 || (c == 0 && at.len < name.len))
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

int tern_tensor_layer(struct tern_str name)
{
    int layer = 0;
    size_t i = 4;

    if (name.len < 6 || memcmp(name.ptr, "blk.", 4) != 0)
        return -1;
    while (i < name.len && name.ptr[i] >= '0' && name.ptr[i] <= '9' && layer < 1000000)
        layer = layer * 10 + (name.ptr[i++] - '0');
    return i > 4 && i < name.len && name.ptr[i] == '.' ? layer : -1;
}
