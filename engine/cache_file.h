/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files that save work: what a key stands for, in $XDG_CACHE_HOME/tern or ~/.cache/tern.
 *
 * A file is the key, the content, and a hash over both; its name is the key's first half in hex.  So whoever
 * puts all that matters into the key finds no file rather than a stale one, and a damaged file is no file.
 * Written beside and renamed: readers see the old file or the new one.  A cache that cannot be read or
 * written costs time and nothing else, and TERN_NO_CACHE=1 in the environment switches it off.
 */
#ifndef TERN_ENGINE_CACHE_FILE_H
#define TERN_ENGINE_CACHE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TERN_CACHE_KEY_BYTES 32

/* Fills content with the n bytes stored under the key; false, and content untouched, when there are none. */
bool tern_cache_load(const uint8_t key[static TERN_CACHE_KEY_BYTES], void *content, size_t n);

/* Stores them, if that can be done. */
void tern_cache_store(const uint8_t key[static TERN_CACHE_KEY_BYTES], const void *content, size_t n);

#endif
