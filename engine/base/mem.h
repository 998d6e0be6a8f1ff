/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: checked products, big aligned blocks, arenas, and the guard that proves that a token allocates
 * nothing.
 *
 * Three lifetimes, three allocators: the process (tern_block_*: weights, KV, scratch), a session or a
 * message (tern_arena: reset as a whole), and plain malloc for what is built once at start.
 */
#ifndef TERN_ENGINE_BASE_MEM_H
#define TERN_ENGINE_BASE_MEM_H

#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *out = a * b or a + b; false (and *out untouched) when that does not fit. */
static inline bool tern_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool tern_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* Rounds up to a multiple of a power of two.  The caller has checked that this cannot wrap. */
static inline size_t tern_round_up(size_t n, size_t pow2)
{
    return (n + pow2 - 1) & ~(pow2 - 1);
}

/* A large zeroed block straight from the system: page aligned, huge pages advised when it is large.  `what`
 * names the block in the error sentence ("the KV cache").  n = 0 is legal and gives NULL. */
enum tern_status tern_block_new(size_t n, const char *what, void **out, struct tern_err *err) TERN_MUST_CHECK;

/* Gives the block back and nulls the caller's pointer; n as in tern_block_new. */
void tern_block_free(void **block, size_t n);

/* Bytes of memory this process has resident now; 0 where the system does not say. */
size_t tern_memory_resident(void);

/* A bump allocator over one block.  Everything in it dies together. */
struct tern_arena {
    uint8_t *base;
    size_t size;
    size_t used;
};

enum tern_status tern_arena_init(struct tern_arena *a, size_t size, const char *what,
                                 struct tern_err *err) TERN_MUST_CHECK;
void tern_arena_fini(struct tern_arena *a);

/* n bytes aligned to 64, zeroed by nobody after the first use; NULL when the arena is full. */
void *tern_arena_alloc(struct tern_arena *a, size_t n);

static inline void tern_arena_reset(struct tern_arena *a)
{
    a->used = 0;
}

/*
 * The guard: between begin and end, an allocation by Tern's own code on this thread aborts the program with
 * the name given here.  It is live only in programs linked with engine/base/alloc_guard.c and the linker's
 * --wrap (dev and tsan presets); elsewhere it costs one thread-local store.  Guards nest.
 */
void tern_alloc_guard_begin(const char *what);
void tern_alloc_guard_end(void);

/* The guard's name on this thread, NULL outside. */
const char *tern_alloc_guard_name(void);

#endif
