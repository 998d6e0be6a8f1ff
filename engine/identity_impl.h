/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of tensor hashes (cache_file.h), between identity.c and identity_cache.c.
 *
 * Hashes are in the order of the sorted list.  A cache is taken only if it was made for the same file
 * (device, inode, size, modification and change time), the same directory (names, types, shapes, places) and
 * its checksum is right.
 */
#ifndef TERN_ENGINE_IDENTITY_IMPL_H
#define TERN_ENGINE_IDENTITY_IMPL_H

#include "engine/identity.h"

#include <sodium.h>

/* Fills the entries' hashes; false when there is no cache that can be used. */
bool tern_identity_cache_load(const struct tern_gguf *g, struct tern_identity *id);

/* Writes the entries' hashes; failures are nobody's concern. */
void tern_identity_cache_store(const struct tern_gguf *g, const struct tern_identity *id);

/* Adds what else decides how a tensor's bytes become weights; nothing for most tensors. */
void tern_identity_hash_reading(crypto_generichash_state *h, const struct tern_gguf *g,
                                const struct tern_tensor *t);

#endif
