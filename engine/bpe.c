/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of merges and the merging: by scanning for short pieces, with a heap over a linked list for long
 * ones.  Both do the same merges in the same order.
 */
#include "engine/bpe.h"

#include "engine/base/limits.h"
#include "engine/heap64.h"

#include <stdlib.h>
#include <string.h>

#define SHORT_PIECE 32 /* up to here scanning all ranks for each merge beats the heap */

static uint64_t hash_pair(uint64_t seed, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) ^ seed;

    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 29;
}

static struct tern_merge *find_slot(const struct tern_merges *m, uint32_t left, uint32_t right)
{
    for (uint64_t at = hash_pair(m->seed, left, right);; at++) {
        struct tern_merge *slot = &m->slots[at & m->slot_mask];

        if (slot->rank == TERN_NO_RANK || (slot->left == left && slot->right == right))
            return slot;
    }
}

static uint32_t pair_rank(const struct tern_merges *m, uint32_t left, uint32_t right)
{
    return find_slot(m, left, right)->rank;
}

/* The token a side of a merge names.  Text outside the byte alphabet can not name a token that is in it. */
static uint32_t find_side(const struct tern_vocab *v, const char *bytes, size_t n, bool whole)
{
    uint32_t id = tern_vocab_find(v, bytes, n);

    return id != TERN_NO_TOKEN && !whole && (v->flags[id] & TERN_VOCAB_PLAIN) ? TERN_NO_TOKEN : id;
}

/* One line "left right", split at the first space past its first character. */
static enum tern_status add_merge(struct tern_merges *m, const struct tern_vocab *v,
                                  const struct tern_gguf *g, uint32_t rank, struct tern_str line,
                                  struct tern_err *err)
{
    char bytes[2 * TERN_MAX_TOKEN_BYTES];
    const char *space = line.len > 1 ? memchr(line.ptr + 1, ' ', line.len - 1) : NULL;
    size_t n_left, n_right;
    uint32_t left, right, both;
    struct tern_merge *slot;
    bool whole_left, whole_right;

    if (!space || space + 1 == line.ptr + line.len)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: merge %u is not two texts with a space between them",
                         g->name, rank);
    if (line.len > sizeof bytes)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: merge %u is %zu bytes long, at most %zu", g->name, rank,
                         line.len, sizeof bytes);
    n_left = tern_vocab_unmap(line.ptr, (size_t)(space - line.ptr), bytes, &whole_left);
    n_right =
        tern_vocab_unmap(space + 1, (size_t)(line.ptr + line.len - space - 1), bytes + n_left, &whole_right);
    left = find_side(v, bytes, n_left, whole_left);
    right = find_side(v, bytes + n_left, n_right, whole_right);
    both = find_side(v, bytes, n_left + n_right, whole_left && whole_right);
    if (left == TERN_NO_TOKEN || right == TERN_NO_TOKEN || both == TERN_NO_TOKEN)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: merge %u ('%.*s') %s, which is not in the vocabulary; the file is damaged",
                         g->name, rank, line.len < 60 ? (int)line.len : 60, line.ptr,
                         both == TERN_NO_TOKEN && left != TERN_NO_TOKEN && right != TERN_NO_TOKEN
                             ? "makes a token"
                             : "names a token");
    if (!(v->flags[left] & v->flags[right] & v->flags[both] & TERN_VOCAB_PLAIN))
        return TERN_OK;
    slot = find_slot(m, left, right);
    if (slot->rank != TERN_NO_RANK)
        return TERN_OK;
    *slot = (struct tern_merge){ left, right, rank };
    m->results[rank] = both;
    return TERN_OK;
}

enum tern_status tern_merges_load(struct tern_merges *m, const struct tern_vocab *v,
                                  const struct tern_gguf *g, struct tern_err *err)
{
    const struct tern_gguf_kv *kv;
    struct tern_cursor c;
    struct tern_str line;
    size_t n_slots = 16;
    enum tern_status st = tern_vocab_array(g, "tokenizer.ggml.merges", true, UINT64_MAX, &kv, err);

    memset(m, 0, sizeof *m);
    if (st)
        return st;
    if (!kv)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: there are no merges (tokenizer.ggml.merges)", g->name);
    if (kv->n > 4 * TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %llu merges, at most %d", g->name,
                         (unsigned long long)kv->n, 4 * TERN_MAX_VOCAB);
    m->n = (uint32_t)kv->n;
    while (n_slots < 2 * (size_t)m->n)
        n_slots *= 2;
    m->slots = malloc(n_slots * sizeof *m->slots);
    m->results = calloc((size_t)m->n + 1, sizeof *m->results);
    if (!m->slots || !m->results)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u merges", m->n);
    memset(m->slots, 0xff, n_slots * sizeof *m->slots);
    m->slot_mask = n_slots - 1;
    m->seed = tern_vocab_seed();
    tern_cursor_init(&c, kv->data, kv->bytes);
    for (uint32_t rank = 0; rank < m->n && st == TERN_OK; rank++)
        st = tern_gguf_next_string(&c, &line)
                 ? add_merge(m, v, g, rank, line, err)
                 : TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tokenizer.ggml.merges ends at merge %u of %u",
                             g->name, rank, m->n);
    return st;
}

void tern_merges_free(struct tern_merges *m)
{
    free(m->results);
    free(m->slots);
    memset(m, 0, sizeof *m);
}

void tern_bpe_scratch_free(struct tern_bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    memset(s, 0, sizeof *s);
}

static size_t merge_short(const struct tern_merges *m, uint32_t *ids, size_t n)
{
    uint32_t ranks[SHORT_PIECE]; /* of the pair (i, i + 1) */

    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = pair_rank(m, ids[i], ids[i + 1]);
    for (;;) {
        uint32_t best = TERN_NO_RANK;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++)
            if (ranks[i] < best) {
                best = ranks[i];
                at = i;
            }
        if (best == TERN_NO_RANK)
            return n;
        ids[at] = m->results[best];
        n--;
        for (size_t i = at + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            ranks[i - 1] = ranks[i];
        }
        if (at + 1 < n)
            ranks[at] = pair_rank(m, ids[at], ids[at + 1]);
        if (at > 0)
            ranks[at - 1] = pair_rank(m, ids[at - 1], ids[at]);
    }
}

static enum tern_status reserve(struct tern_bpe_scratch *s, size_t n, struct tern_err *err)
{
    size_t cap = n + n / 4;

    if (n <= s->cap)
        return TERN_OK;
    tern_bpe_scratch_free(s);
    s->symbols = malloc(cap * sizeof *s->symbols);
    s->heap = malloc(2 * cap * sizeof *s->heap);
    if (!s->symbols || !s->heap)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to tokenize a word of %zu bytes", n);
    s->cap = cap;
    return TERN_OK;
}

/*
 * A heap entry is stale when the pair at its index has another rank by now.  A pair never comes back to an
 * index (its symbols only grow) and ranks are unique, so equal ranks mean that the entry is current.  Each
 * merge takes one entry and adds at most two: 2 n entries are enough.
 */
static void merge_long(const struct tern_merges *m, uint32_t *ids, size_t *n,
                       struct tern_bpe_scratch *scratch)
{
    struct tern_bpe_symbol *s = scratch->symbols;
    uint64_t *heap = scratch->heap;
    size_t n_heap = 0, n_out = 0;

    for (uint32_t i = 0; i < *n; i++) {
        bool last = i + 1 == *n;

        s[i] = (struct tern_bpe_symbol){ ids[i], i - 1, last ? UINT32_MAX : i + 1,
                                         last ? TERN_NO_RANK : pair_rank(m, ids[i], ids[i + 1]) };
        if (s[i].rank != TERN_NO_RANK)
            heap[n_heap++] = (uint64_t)s[i].rank << 32 | i;
    }
    tern_heap_build(heap, n_heap);
    while (n_heap > 0) {
        uint64_t entry = tern_heap_pop(heap, &n_heap);
        uint32_t rank = (uint32_t)(entry >> 32), at = (uint32_t)entry, gone = s[at].next, prev = s[at].prev;

        if (s[at].rank != rank)
            continue;
        s[at].id = m->results[rank];
        s[at].next = s[gone].next;
        s[at].rank = TERN_NO_RANK;
        s[gone].rank = TERN_NO_RANK;
        if (s[at].next != UINT32_MAX) {
            s[s[at].next].prev = at;
            s[at].rank = pair_rank(m, s[at].id, s[s[at].next].id);
            if (s[at].rank != TERN_NO_RANK)
                tern_heap_push(heap, &n_heap, (uint64_t)s[at].rank << 32 | at);
        }
        if (prev != UINT32_MAX) {
            s[prev].rank = pair_rank(m, s[prev].id, s[at].id);
            if (s[prev].rank != TERN_NO_RANK)
                tern_heap_push(heap, &n_heap, (uint64_t)s[prev].rank << 32 | prev);
        }
    }
    for (uint32_t i = 0; i != UINT32_MAX; i = s[i].next)
        ids[n_out++] = s[i].id;
    *n = n_out;
}

enum tern_status tern_bpe_merge(const struct tern_merges *m, uint32_t *ids, size_t *n,
                                struct tern_bpe_scratch *s, struct tern_err *err)
{
    enum tern_status st;

    TERN_BUG_IF(*n >= UINT32_MAX);
    if (*n <= SHORT_PIECE) {
        *n = merge_short(m, ids, *n);
        return TERN_OK;
    }
    st = reserve(s, *n, err);
    if (st == TERN_OK)
        merge_long(m, ids, n, s);
    return st;
}
