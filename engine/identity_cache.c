/* SPDX-License-Identifier: Apache-2.0 */
/* The hashes of a model's tensors in a cache file: what they belong to is its key. */
#include "engine/cache_file.h"
#include "engine/identity_impl.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char format_name[] = "tern tensor hashes 2";

static void hash_u64(crypto_generichash_state *h, uint64_t v)
{
    uint8_t b[8];

    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    crypto_generichash_update(h, b, sizeof b);
}

/* What the hashes belong to: this file, as it is now, with this directory. */
static void make_key(const struct tern_gguf *g, const struct tern_identity *id,
                     uint8_t key[static TERN_HASH_BYTES])
{
    crypto_generichash_state h;

    crypto_generichash_init(&h, NULL, 0, TERN_HASH_BYTES);
    crypto_generichash_update(&h, (const unsigned char *)format_name, sizeof format_name);
    for (size_t i = 0; i < g->n_maps; i++) {
        const struct tern_mapping *m = &g->maps[i];
        const uint64_t file[] = { m->dev, m->ino, m->size, m->mtime_ns, m->ctime_ns };

        for (size_t j = 0; j < sizeof file / sizeof file[0]; j++)
            hash_u64(&h, file[j]);
    }
    hash_u64(&h, id->n);
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_tensor *t = id->entries[i].tensor;

        hash_u64(&h, t->name.len);
        crypto_generichash_update(&h, (const unsigned char *)t->name.ptr, t->name.len);
        hash_u64(&h, t->type);
        for (int d = 0; d < 4; d++)
            hash_u64(&h, t->ne[d]);
        hash_u64(&h, t->map);
        tern_identity_hash_reading(&h, g, t);
        if (t->map < g->n_maps)
            hash_u64(&h, (uint64_t)(t->data - g->maps[t->map].bytes));
        else /* made from metadata, and small */
            crypto_generichash_update(&h, t->data, t->bytes);
    }
    crypto_generichash_final(&h, key, TERN_HASH_BYTES);
}

bool tern_identity_cache_load(const struct tern_gguf *g, struct tern_identity *id)
{
    size_t n = id->n * TERN_HASH_BYTES; /* n <= TERN_MAX_TENSORS */
    uint8_t key[TERN_HASH_BYTES], *buf;
    bool ok;

    if (g->n_maps == 0)
        return false;
    buf = malloc(n + 1);
    if (!buf)
        return false;
    make_key(g, id, key);
    ok = tern_cache_load(key, buf, n);
    for (size_t i = 0; ok && i < id->n; i++)
        memcpy(id->entries[i].hash, buf + i * TERN_HASH_BYTES, TERN_HASH_BYTES);
    free(buf);
    return ok;
}

/* A file that changed while it was hashed must not be remembered. */
static bool unchanged(const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_maps; i++) {
        const struct tern_mapping *m = &g->maps[i];
        struct stat sb;

        if (fstat(m->fd, &sb) != 0 || (uint64_t)sb.st_size != m->size ||
            (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec != m->mtime_ns ||
            (uint64_t)sb.st_ctim.tv_sec * 1000000000u + (uint64_t)sb.st_ctim.tv_nsec != m->ctime_ns)
            return false;
    }
    return g->n_maps > 0;
}

void tern_identity_cache_store(const struct tern_gguf *g, const struct tern_identity *id)
{
    uint8_t key[TERN_HASH_BYTES], *buf;

    if (!unchanged(g))
        return;
    buf = malloc(id->n * TERN_HASH_BYTES + 1);
    if (!buf)
        return;
    for (size_t i = 0; i < id->n; i++)
        memcpy(buf + i * TERN_HASH_BYTES, id->entries[i].hash, TERN_HASH_BYTES);
    make_key(g, id, key);
    tern_cache_store(key, buf, id->n * TERN_HASH_BYTES);
    free(buf);
}
