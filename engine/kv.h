/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paged KV cache: which pages a sequence has (the table), and the pages themselves (the store).
 *
 * A page holds TERN_PAGE positions of every layer of the slice.  A sequence lives in a slot, named (slot,
 * generation); pages may be shared by reference among slots with a common prefix.  The table is a pure
 * function of the operations applied to it, in order: every worker and the coordinator apply the same ones,
 * so tables are the same everywhere and hold page numbers only. The store is a worker's memory.
 *
 * No allocation after creation.  Thread: one at a time (the compute thread; the coordinator's own copy: its
 * loop).
 */
#ifndef TERN_ENGINE_KV_H
#define TERN_ENGINE_KV_H

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tern_kv_table;

enum tern_status tern_kv_table_new(uint32_t n_slots, uint32_t n_pages, uint32_t max_positions,
                                   struct tern_kv_table **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_kv_table_free(struct tern_kv_table **t);

/* All fail with TERN_ERR_STATE (unknown slot or generation, wrong length) or TERN_ERR_LIMIT (no pages, too
 * long), a sentence, and the table unchanged. */

/* Opens an empty sequence; the slot must be free and generation greater than any that slot has had. */
enum tern_status tern_kv_open(struct tern_kv_table *t, uint32_t slot, uint32_t gen,
                              struct tern_err *err) TERN_MUST_CHECK;
/* Gives the slot and its references back. */
enum tern_status tern_kv_free(struct tern_kv_table *t, uint32_t slot, uint32_t gen,
                              struct tern_err *err) TERN_MUST_CHECK;
/* Cuts the sequence to len positions, len <= its length. */
enum tern_status tern_kv_rewind(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t len,
                                struct tern_err *err) TERN_MUST_CHECK;
/* Opens `slot` as a copy of the first len positions of from_slot: whole pages by reference, the rest by
 * copying one page, which the caller does in its store: *copy_from and *copy_to are page numbers, equal
 * when there is nothing to copy. */
enum tern_status tern_kv_fork(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t from_slot,
                              uint32_t from_gen, uint32_t len, uint32_t *copy_from, uint32_t *copy_to,
                              struct tern_err *err) TERN_MUST_CHECK;
/* Makes room for n more positions starting at pos, which must be the current length, and advances the
 * length.  A page shared with another slot that would be written is replaced by a copy: *copy_from,
 * *copy_to as in fork. */
enum tern_status tern_kv_append(struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t pos,
                                uint32_t n, uint32_t *copy_from, uint32_t *copy_to,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Free pages that tern_kv_append of n rows takes; 0 when there is no such live sequence. */
uint32_t tern_kv_pages_needed(const struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t n);

/* Marks a sequence failed: later appends to it answer TERN_ERR_NUMERIC until it is freed.  No-op when there
 * is no such sequence. */
void tern_kv_fail(struct tern_kv_table *t, uint32_t slot, uint32_t gen);

/* Everything free again; generations are forgotten. */
void tern_kv_reset(struct tern_kv_table *t);

/* False when there is no such live sequence. */
bool tern_kv_length(const struct tern_kv_table *t, uint32_t slot, uint32_t gen, uint32_t *len);
uint32_t tern_kv_pages_free(const struct tern_kv_table *t);
/* Pages of a live slot in order of position: [ceil(length / TERN_PAGE)].  The array is the slot's own and
 * stays where it is for the table's life; its contents change with the slot's operations only. */
const uint32_t *tern_kv_pages(const struct tern_kv_table *t, uint32_t slot);

/* -- store ----------------------------------------------------------------------------------------------- */

/* Halves, or int8 codes with one f32 scale a position and head (encode_i8).  Which of them changes the text a
 * little, so it is the same for all workers. */
#define TERN_KV_DEFAULT TERN_KV_F16
/* "f16", "int8". */
const char *tern_kv_type_name(enum tern_kv_type type);
bool tern_kv_type_by_name(const char *name, enum tern_kv_type *out);
bool tern_kv_type_valid(uint32_t type);

/* For page p, layer l (0-based in the slice), KV head h, one behind the other: K [TERN_PAGE][head_dim] (k
 * after RoPE), with int8 its scales f32 [TERN_PAGE], then V and its scales. */
struct tern_kv_store {
    uint8_t *data;
    size_t bytes;
    size_t plane_bytes; /* K of one page, layer and head, with its scales */
    enum tern_kv_type type;
    uint32_t n_pages, n_layers, n_kv_heads, head_dim;
};

/* Bytes of one page; 0 when they do not fit a size_t. */
size_t tern_kv_page_bytes(enum tern_kv_type type, uint32_t n_layers, uint32_t n_kv_heads, uint32_t head_dim);

enum tern_status tern_kv_store_new(enum tern_kv_type type, uint32_t n_pages, uint32_t n_layers,
                                   uint32_t n_kv_heads, uint32_t head_dim, struct tern_kv_store *out,
                                   struct tern_err *err) TERN_MUST_CHECK;
void tern_kv_store_free(struct tern_kv_store *s);
void tern_kv_store_copy_page(struct tern_kv_store *s, uint32_t from, uint32_t to);

/* K or V of a page, and its scales. */
static inline uint8_t *tern_kv_k(const struct tern_kv_store *s, uint32_t page, uint32_t layer, uint32_t head)
{
    return s->data + (((size_t)page * s->n_layers + layer) * s->n_kv_heads + head) * 2 * s->plane_bytes;
}
static inline uint8_t *tern_kv_v(const struct tern_kv_store *s, uint32_t page, uint32_t layer, uint32_t head)
{
    return tern_kv_k(s, page, layer, head) + s->plane_bytes;
}
static inline float *tern_kv_scales(const struct tern_kv_store *s, uint8_t *plane)
{
    return s->type == TERN_KV_INT8 ? (float *)(void *)(plane + (size_t)TERN_PAGE * s->head_dim) : NULL;
}

/* Writes one position (0 .. TERN_PAGE - 1) of K or V: x [head_dim]. */
void tern_kv_put(const struct tern_kv_store *s, const struct tern_kernels *kern, uint8_t *plane, uint32_t pos,
                 const float *x);

#endif
