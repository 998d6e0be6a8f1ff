/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity of a model: its hyper-parameters and the sorted list of (tensor name, type, shape, BLAKE2b-256
 * of the data).
 *
 * Coordinator and workers each compute the list from their own file, so that a slice of a model is recognised
 * as part of it and no path or weight ever comes from the net.  Lists are cached by device, inode, size and
 * modification time in $XDG_CACHE_HOME/tern (or ~/.cache/tern); a cache that cannot be read or written costs
 * time and nothing else, and TERN_NO_CACHE=1 in the environment switches it off.
 */
#ifndef TERN_ENGINE_IDENTITY_H
#define TERN_ENGINE_IDENTITY_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/pool.h"

/*
 * `tern convert` writes the BLAKE2b-256 of every tensor's bytes into its files, slices too, under this key:
 * an array of u8, 32 for each tensor of the file in the order of its directory.  With it
 * `tern inspect --verify` finds bytes that changed since.  Nothing else believes it: were identities taken
 * from there, a damaged slice would pass for whole.
 */
#define TERN_IDENTITY_KEY "tern.tensors.blake2b_256"

struct tern_identity_entry {
    const struct tern_tensor *tensor; /* borrowed from the file */
    uint8_t hash[TERN_HASH_BYTES];    /* of the tensor's bytes */
};

struct tern_identity {
    size_t n;
    struct tern_identity_entry *entries; /* sorted by tensor name, bytewise */
    /* Over the arch hash, then of each entry: name length and name, type, n_dims, ne, hash.  The model's only
     * when all tensors were hashed. */
    uint8_t model_hash[TERN_HASH_BYTES];
};

/* Which tensors: workers hold layers, so those are all that coordinator and workers compare; the embedding
 * may be larger than they. */
enum tern_identity_scope { TERN_IDENTITY_ALL, TERN_IDENTITY_LAYERS };

/* Hashes the tensors of g in scope (or takes the cache's word), with all threads of the pool.  `progress`
 * may be NULL; it is called on the calling thread with bytes done and in all, and when it answers false the
 * hashing is given up with TERN_END. */
enum tern_status tern_identity_compute(const struct tern_gguf *g, const struct tern_arch *arch,
                                       enum tern_identity_scope scope, struct tern_pool *pool,
                                       bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                       struct tern_identity **out, struct tern_err *err) TERN_MUST_CHECK;
/* The list of all tensors with hashes of their bytes alone, whatever options say about reading them; no model
 * hash, no cache. */
enum tern_status tern_identity_hash_bytes(const struct tern_gguf *g, struct tern_pool *pool,
                                          bool (*progress)(void *arg, uint64_t done, uint64_t total),
                                          void *arg, struct tern_identity **out,
                                          struct tern_err *err) TERN_MUST_CHECK;
void tern_identity_free(struct tern_identity **id);

/* NULL when the list has no such tensor. */
const struct tern_identity_entry *tern_identity_find(const struct tern_identity *id, struct tern_str name);

/* The layer a tensor belongs to ("blk.17.attn_q.weight" is 17), or -1. */
int tern_tensor_layer(struct tern_str name);

#endif
