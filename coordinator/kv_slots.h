/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the KV slots hold on every worker: a table of our own to which the same operations are applied, and
 * the ids whose KV is in each slot.
 *
 * Operations ride in steps and every worker applies them in order, those of a step before its rows.  So what
 * has been sent counts as computed: whoever comes later in the same pipeline finds it there.  A slot that
 * nobody is LIVE in keeps what it holds as a prefix for others, until its room is needed.
 *
 * Thread: the scheduler's.  No allocation after kv_slots_init.
 */
#ifndef TERN_COORDINATOR_KV_SLOTS_H
#define TERN_COORDINATOR_KV_SLOTS_H

#include "coordinator/seq.h"
#include "engine/kv.h"
#include "proto/step.h"

/* Fewer positions are not worth an operation. */
#define KV_PREFIX_LEAST 8

#define KV_NO_SLOT UINT32_MAX

struct kv_slot {
    struct seq *q;   /* LIVE in it; NULL: nobody */
    uint32_t gen;    /* last generation used */
    bool open;       /* on the workers; without q and `prefix` it is to be freed there */
    bool prefix;     /* nobody's, kept for others */
    bool shared;     /* others may have what it holds: while q is LIVE, and as a prefix */
    bool bad;        /* a worker gave up on it */
    uint64_t used;   /* when it was last of use, in ticks of kv_slots.clock */
    uint64_t opened; /* when q got it, in the same */
    int32_t *ids;    /* [max_positions] */
};

struct kv_slots {
    struct tern_kv_table *table;
    struct kv_slot *slots; /* [n] */
    uint32_t n, n_pages;
    uint64_t clock;
    int32_t *ids;
    uint64_t *seen; /* [n_pages] the last count that met the page */
    uint64_t n_counts;
};

enum tern_status kv_slots_init(struct kv_slots *k, uint32_t n_slots, uint32_t n_pages, uint32_t max_positions,
                               struct tern_err *err) TERN_MUST_CHECK;
void kv_slots_fini(struct kv_slots *k);

uint32_t kv_slots_pages_of(uint32_t positions);
/* Positions slot i holds; 0 when it is not open. */
uint32_t kv_slots_length(const struct kv_slots *k, uint32_t i);
/* Pages that sequences LIVE in their slots refer to. */
uint32_t kv_slots_pages_live(struct kv_slots *k);

/* Each applies one operation and adds it to the step, which must have room for it.  What they refuse is an
 * error of ours: the caller has looked. */
enum tern_status kv_slots_open(struct kv_slots *k, struct tern_step *step, uint32_t i,
                               struct tern_err *err) TERN_MUST_CHECK;
enum tern_status kv_slots_fork(struct kv_slots *k, struct tern_step *step, uint32_t i, uint32_t from,
                               uint32_t len, struct tern_err *err) TERN_MUST_CHECK;
enum tern_status kv_slots_rewind(struct kv_slots *k, struct tern_step *step, uint32_t i, uint32_t len,
                                 struct tern_err *err) TERN_MUST_CHECK;
enum tern_status kv_slots_free(struct kv_slots *k, struct tern_step *step, uint32_t i,
                               struct tern_err *err) TERN_MUST_CHECK;
/* n rows for ids, at the end of what slot i holds. */
enum tern_status kv_slots_append(struct kv_slots *k, uint32_t i, const int32_t *ids, uint32_t n,
                                 struct tern_err *err) TERN_MUST_CHECK;

/* Nobody is LIVE in slot i any more: it becomes a prefix if that is worth it, else it is to be freed.  A
 * prefix that another one begins with is not. */
void kv_slots_retire(struct kv_slots *k, uint32_t i, bool keep);
/* A worker gave up on what slot i holds. */
void kv_slots_spoil(struct kv_slots *k, uint32_t i);

/* The slot that begins with the most of ids [n], and *len of them: KV_NO_SLOT when none has
 * KV_PREFIX_LEAST. */
uint32_t kv_slots_match(const struct kv_slots *k, const int32_t *ids, uint32_t n, uint32_t *len);
/* The least recently used prefix but for `spare`; KV_NO_SLOT: none. */
uint32_t kv_slots_oldest(const struct kv_slots *k, uint32_t spare);
/* A slot that is not open on the workers. */
uint32_t kv_slots_unused(const struct kv_slots *k);

/* How many ids a and b begin with alike. */
uint32_t kv_ids_common(const int32_t *a, const int32_t *b, uint32_t n);

#endif
