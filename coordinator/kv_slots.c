/* SPDX-License-Identifier: Apache-2.0 */
/* What the KV slots hold: see kv_slots.h. */
#include "coordinator/kv_slots.h"

#include <stdlib.h>
#include <string.h>

enum tern_status kv_slots_init(struct kv_slots *k, uint32_t n_slots, uint32_t n_pages, uint32_t max_positions,
                               struct tern_err *err)
{
    enum tern_status st;

    memset(k, 0, sizeof *k);
    k->n = n_slots;
    k->n_pages = n_pages;
    if ((st = tern_kv_table_new(n_slots, n_pages, max_positions, &k->table, err)))
        return st;
    k->slots = calloc(n_slots, sizeof *k->slots);
    k->ids = calloc((size_t)n_slots * max_positions, sizeof *k->ids);
    k->seen = calloc(n_pages, sizeof *k->seen);
    if (!k->slots || !k->ids || !k->seen) {
        kv_slots_fini(k);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u sequences of %u positions",
                         (unsigned)n_slots, (unsigned)max_positions);
    }
    for (uint32_t i = 0; i < n_slots; i++)
        k->slots[i].ids = k->ids + (size_t)i * max_positions;
    return TERN_OK;
}

void kv_slots_fini(struct kv_slots *k)
{
    tern_kv_table_free(&k->table);
    free(k->slots);
    free(k->ids);
    free(k->seen);
    memset(k, 0, sizeof *k);
}

uint32_t kv_slots_pages_of(uint32_t positions)
{
    return positions / TERN_PAGE + (positions % TERN_PAGE != 0);
}

uint32_t kv_slots_length(const struct kv_slots *k, uint32_t i)
{
    uint32_t len = 0;

    if (k->slots[i].open)
        TERN_BUG_IF(!tern_kv_length(k->table, i, k->slots[i].gen, &len));
    return len;
}

uint32_t kv_slots_pages_live(struct kv_slots *k)
{
    uint32_t n = 0;

    k->n_counts++;
    for (uint32_t i = 0; i < k->n; i++) {
        const uint32_t *pages = tern_kv_pages(k->table, i);
        uint32_t n_pages = k->slots[i].q ? kv_slots_pages_of(kv_slots_length(k, i)) : 0;

        for (uint32_t p = 0; p < n_pages; p++) {
            n += k->seen[pages[p]] != k->n_counts;
            k->seen[pages[p]] = k->n_counts;
        }
    }
    return n;
}

/* -- operations ------------------------------------------------------------------------------------------ */

static struct tern_slot_op *add_op(struct kv_slots *k, struct tern_step *step, uint32_t kind, uint32_t i)
{
    struct tern_slot_op *op = &step->ops[step->n_ops];

    TERN_BUG_IF(step->n_ops >= TERN_MAX_STEP_OPS);
    step->n_ops++;
    *op = (struct tern_slot_op){ .kind = kind, .slot = i, .gen = k->slots[i].gen };
    return op;
}

static void begin(struct kv_slots *k, uint32_t i)
{
    k->slots[i].gen++;
    k->slots[i].open = true;
    k->slots[i].prefix = k->slots[i].bad = false;
}

enum tern_status kv_slots_open(struct kv_slots *k, struct tern_step *step, uint32_t i, struct tern_err *err)
{
    enum tern_status st = tern_kv_open(k->table, i, k->slots[i].gen + 1, err);

    if (st)
        return st;
    begin(k, i);
    add_op(k, step, TERN_OP_OPEN, i);
    return TERN_OK;
}

enum tern_status kv_slots_fork(struct kv_slots *k, struct tern_step *step, uint32_t i, uint32_t from,
                               uint32_t len, struct tern_err *err)
{
    uint32_t page_from, page_to;
    enum tern_status st = tern_kv_fork(k->table, i, k->slots[i].gen + 1, from, k->slots[from].gen, len,
                                       &page_from, &page_to, err);
    struct tern_slot_op *op;

    if (st)
        return st;
    begin(k, i);
    memcpy(k->slots[i].ids, k->slots[from].ids, len * sizeof *k->ids);
    op = add_op(k, step, TERN_OP_FORK, i);
    op->len = len;
    op->from_slot = from;
    op->from_gen = k->slots[from].gen;
    return TERN_OK;
}

enum tern_status kv_slots_rewind(struct kv_slots *k, struct tern_step *step, uint32_t i, uint32_t len,
                                 struct tern_err *err)
{
    enum tern_status st = tern_kv_rewind(k->table, i, k->slots[i].gen, len, err);

    if (st)
        return st;
    add_op(k, step, TERN_OP_REWIND, i)->len = len;
    return TERN_OK;
}

enum tern_status kv_slots_free(struct kv_slots *k, struct tern_step *step, uint32_t i, struct tern_err *err)
{
    enum tern_status st = tern_kv_free(k->table, i, k->slots[i].gen, err);

    if (st)
        return st;
    add_op(k, step, TERN_OP_FREE, i);
    k->slots[i].open = k->slots[i].prefix = false;
    return TERN_OK;
}

enum tern_status kv_slots_append(struct kv_slots *k, uint32_t i, const int32_t *ids, uint32_t n,
                                 struct tern_err *err)
{
    const uint32_t pos = kv_slots_length(k, i);
    uint32_t from, to;
    enum tern_status st = tern_kv_append(k->table, i, k->slots[i].gen, pos, n, &from, &to, err);

    if (!st)
        memcpy(k->slots[i].ids + pos, ids, n * sizeof *ids);
    return st;
}

/* -- prefixes -------------------------------------------------------------------------------------------- */

uint32_t kv_ids_common(const int32_t *a, const int32_t *b, uint32_t n)
{
    uint32_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static bool is_of_use(const struct kv_slot *s)
{
    return s->open && s->shared && !s->bad && (s->q || s->prefix);
}

void kv_slots_retire(struct kv_slots *k, uint32_t i, bool keep)
{
    struct kv_slot *s = &k->slots[i];
    const uint32_t len = kv_slots_length(k, i);

    s->q = NULL;
    s->prefix = keep && s->shared && !s->bad && len >= KV_PREFIX_LEAST;
    s->used = ++k->clock;
    for (uint32_t j = 0; j < k->n && s->prefix; j++) {
        struct kv_slot *other = &k->slots[j];
        const uint32_t n = kv_slots_length(k, j);

        if (j == i || !is_of_use(other))
            continue;
        if (len <= n && kv_ids_common(s->ids, other->ids, len) == len) {
            s->prefix = false;
            other->used = k->clock;
        } else if (other->prefix && n < len && kv_ids_common(s->ids, other->ids, n) == n) {
            other->prefix = false;
        }
    }
}

void kv_slots_spoil(struct kv_slots *k, uint32_t i)
{
    k->slots[i].bad = true;
    k->slots[i].prefix = false;
}

/* Of two slots that begin alike the one that can be taken with the least loss. */
static bool is_better(const struct kv_slots *k, uint32_t i, uint32_t than)
{
    if (k->slots[i].prefix != k->slots[than].prefix)
        return k->slots[i].prefix;
    return kv_slots_length(k, i) < kv_slots_length(k, than);
}

uint32_t kv_slots_match(const struct kv_slots *k, const int32_t *ids, uint32_t n, uint32_t *len)
{
    uint32_t best = KV_NO_SLOT;

    *len = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        uint32_t have, common;

        if (!is_of_use(&k->slots[i]))
            continue;
        have = kv_slots_length(k, i);
        common = kv_ids_common(k->slots[i].ids, ids, have < n ? have : n);
        if (common < KV_PREFIX_LEAST || common < *len ||
            (common == *len && best != KV_NO_SLOT && !is_better(k, i, best)))
            continue;
        best = i;
        *len = common;
    }
    return best;
}

uint32_t kv_slots_oldest(const struct kv_slots *k, uint32_t spare)
{
    uint32_t best = KV_NO_SLOT;

    for (uint32_t i = 0; i < k->n; i++)
        if (k->slots[i].prefix && i != spare &&
            (best == KV_NO_SLOT || k->slots[i].used < k->slots[best].used))
            best = i;
    return best;
}

uint32_t kv_slots_unused(const struct kv_slots *k)
{
    for (uint32_t i = 0; i < k->n; i++)
        if (!k->slots[i].open)
            return i;
    return KV_NO_SLOT;
}
