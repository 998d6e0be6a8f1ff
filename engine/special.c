/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trie of special tokens and the order in which overlapping ones win.
 */
#include "engine/special.h"

#include "engine/base/limits.h"
#include "engine/heap64.h"

#include <stdlib.h>
#include <string.h>

/* A key of the heap of candidates: least first means longest first, then the lower id, then further left. */
#define AT_BITS 32
#define ID_BITS 20
_Static_assert(TERN_MAX_VOCAB <= 1 << ID_BITS, "an id must fit into a key");
_Static_assert(TERN_MAX_SPECIAL_BYTES <= 255, "a depth must fit into a node and a key");

static uint64_t make_key(uint32_t len, uint32_t id, uint32_t at)
{
    return (uint64_t)(TERN_MAX_SPECIAL_BYTES - len) << (AT_BITS + ID_BITS) | (uint64_t)id << AT_BITS | at;
}

static int compare_texts(const void *a, const void *b, void *arg)
{
    const struct tern_vocab *v = arg;
    uint32_t ia = *(const uint32_t *)a, ib = *(const uint32_t *)b;
    struct tern_str ta = tern_vocab_text(v, ia), tb = tern_vocab_text(v, ib);
    int order = memcmp(ta.ptr, tb.ptr, ta.len < tb.len ? ta.len : tb.len);

    if (order == 0 && ta.len != tb.len)
        order = ta.len < tb.len ? -1 : 1;
    return order ? order : ia < ib ? -1 : ia > ib;
}

/* The ids of the mask, sorted by text.  Equal texts: the lowest id alone. */
static enum tern_status collect(const struct tern_vocab *v, unsigned types, uint32_t **out, size_t *n_out,
                                size_t *n_bytes, struct tern_err *err)
{
    uint32_t *ids = malloc(v->n * sizeof *ids);
    size_t n = 0, kept = 0, total = 0;

    if (!ids)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the special tokens");
    for (uint32_t id = 0; id < v->n; id++) {
        struct tern_str text = tern_vocab_text(v, id);

        if (!(types >> (v->flags[id] & TERN_VOCAB_TYPE) & 1) || text.len == 0)
            continue;
        total += text.len;
        if (text.len > TERN_MAX_SPECIAL_BYTES || total > TERN_MAX_SPECIAL_TOTAL) {
            free(ids);
            return TERN_FAIL(
                err, TERN_ERR_LIMIT,
                "special token %u is too long: at most %d bytes each and %d bytes for all of them", id,
                TERN_MAX_SPECIAL_BYTES, TERN_MAX_SPECIAL_TOTAL);
        }
        ids[n++] = id;
    }
    qsort_r(ids, n, sizeof *ids, compare_texts, (void *)(uintptr_t)v);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || !tern_str_eq(tern_vocab_text(v, ids[kept - 1]), tern_vocab_text(v, ids[i])))
            ids[kept++] = ids[i];
    *out = ids;
    *n_out = kept;
    *n_bytes = total;
    return TERN_OK;
}

/*
 * Breadth first: the node array is also the queue.  While it waits, a node's `child` is its first id in the
 * sorted list; its ids reach to where its text stops being a prefix.
 */
static void grow(struct tern_special *s, const struct tern_vocab *v, const uint32_t *ids, size_t n)
{
    s->nodes[0] = (struct tern_special_node){ .id = TERN_NO_TOKEN };
    s->n_nodes = 1;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct tern_special_node *node = &s->nodes[i];
        size_t at = node->child, depth = node->depth;
        struct tern_str first = tern_vocab_text(v, ids[at]);

        if (first.len == depth) { /* the shortest text sorts first */
            node->id = ids[at];
            at++;
        }
        node->child = (uint32_t)s->n_nodes;
        while (at < n) {
            struct tern_str text = tern_vocab_text(v, ids[at]);
            uint8_t byte;

            if (text.len <= depth || memcmp(text.ptr, first.ptr, depth) != 0)
                break;
            byte = (uint8_t)text.ptr[depth];
            s->nodes[s->n_nodes++] = (struct tern_special_node){
                .child = (uint32_t)at, .byte = byte, .depth = (uint8_t)(depth + 1), .id = TERN_NO_TOKEN
            };
            node->n_children++;
            for (at++; at < n; at++) {
                text = tern_vocab_text(v, ids[at]);
                if (text.len <= depth || memcmp(text.ptr, first.ptr, depth) != 0 ||
                    (uint8_t)text.ptr[depth] != byte)
                    break;
            }
        }
    }
}

enum tern_status tern_special_build(struct tern_special *s, const struct tern_vocab *v, unsigned types,
                                    struct tern_err *err)
{
    uint32_t *ids = NULL;
    size_t n = 0, n_bytes = 0;
    enum tern_status st = collect(v, types, &ids, &n, &n_bytes, err);

    memset(s, 0, sizeof *s);
    if (st)
        return st;
    if (n > 0) {
        s->nodes = malloc((n_bytes + 1) * sizeof *s->nodes);
        if (!s->nodes) {
            free(ids);
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu special tokens", n);
        }
        grow(s, v, ids, n);
        for (uint32_t i = 0; i < s->nodes[0].n_children; i++)
            s->first[s->nodes[s->nodes[0].child + i].byte] = s->nodes[0].child + i;
    }
    free(ids);
    return TERN_OK;
}

void tern_special_free(struct tern_special *s)
{
    free(s->nodes);
    memset(s, 0, sizeof *s);
}

/* The longest candidate that begins at text[0] and takes at most len bytes, or TERN_NO_TOKEN. */
static uint32_t longest(const struct tern_special *s, const char *text, size_t len, uint32_t *n)
{
    const struct tern_special_node *node = &s->nodes[s->first[(uint8_t)text[0]]];
    uint32_t id = TERN_NO_TOKEN;

    while (node != s->nodes) {
        const struct tern_special_node *child = s->nodes + node->child, *end = child + node->n_children;

        if (node->id != TERN_NO_TOKEN) {
            id = node->id;
            *n = node->depth;
        }
        if (node->depth == len)
            break;
        while (child < end && child->byte != (uint8_t)text[node->depth])
            child++;
        if (child == end)
            break;
        node = child;
    }
    return id;
}

/* The candidates of every position, the longest of each. */
static enum tern_status list_candidates(const struct tern_special *s, const char *text, size_t len,
                                        uint64_t **out, size_t *n_out, struct tern_err *err)
{
    uint64_t *keys = NULL;
    size_t n = 0, cap = 0;

    for (size_t at = 0; at < len; at++) {
        uint32_t n_bytes = 0, id;

        if (s->first[(uint8_t)text[at]] == 0)
            continue;
        id = longest(s, text + at, len - at, &n_bytes);
        if (id == TERN_NO_TOKEN)
            continue;
        if (n == cap) {
            uint64_t *bigger = realloc(keys, (cap = cap ? 2 * cap : 64) * sizeof *keys);

            if (!bigger) {
                free(keys);
                return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu special tokens in the text", n);
            }
            keys = bigger;
        }
        keys[n++] = make_key(n_bytes, id, (uint32_t)at);
    }
    *out = keys;
    *n_out = n;
    return TERN_OK;
}

/*
 * Accepts candidates in the rule's order; fills cuts (room for one a candidate) and returns how many.  taken:
 * [len] zeros.
 *
 * Those accepted before are at least as long, so one that overlaps covers this one's first or last byte.  Its
 * first: nothing can begin here any more.  Its last: a shorter candidate may, and comes back into the heap.
 * That at least halves the room left at the position, so it comes back at most log2(TERN_MAX_SPECIAL_BYTES)
 * times.
 */
static size_t accept(const struct tern_special *s, const char *text, uint64_t *keys, size_t n, uint8_t *taken,
                     struct tern_special_cut *cuts)
{
    size_t n_cuts = 0;

    tern_heap_build(keys, n);
    while (n > 0) {
        uint64_t key = tern_heap_pop(keys, &n);
        uint32_t at = (uint32_t)key, id = (uint32_t)(key >> AT_BITS) & ((1u << ID_BITS) - 1);
        uint32_t len = TERN_MAX_SPECIAL_BYTES - (uint32_t)(key >> (AT_BITS + ID_BITS)), room = 1;

        if (taken[at])
            continue;
        if (taken[at + len - 1]) {
            while (!taken[at + room])
                room++;
            id = longest(s, text + at, room, &len);
            if (id != TERN_NO_TOKEN)
                tern_heap_push(keys, &n, make_key(len, id, at));
            continue;
        }
        memset(taken + at, 1, len);
        cuts[n_cuts++] = (struct tern_special_cut){ at, len, id };
    }
    return n_cuts;
}

/* Back into the order of the text: places are distinct, so a heap of them sorts. */
static void sort_cuts(struct tern_special_cut *cuts, struct tern_special_cut *sorted, uint64_t *keys,
                      size_t n)
{
    size_t left = n;

    for (size_t i = 0; i < n; i++)
        keys[i] = (uint64_t)cuts[i].at << 32 | i;
    tern_heap_build(keys, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = cuts[(uint32_t)tern_heap_pop(keys, &left)];
}

enum tern_status tern_special_find(const struct tern_special *s, const char *text, size_t len,
                                   struct tern_special_cut **cuts, size_t *n, struct tern_err *err)
{
    uint64_t *keys = NULL;
    struct tern_special_cut *found, *sorted;
    uint8_t *taken;
    size_t n_keys = 0, n_cuts;
    enum tern_status st = s->nodes ? list_candidates(s, text, len, &keys, &n_keys, err) : TERN_OK;

    if (st)
        return st;
    *cuts = NULL;
    *n = 0;
    if (n_keys == 0)
        return TERN_OK;
    found = malloc(n_keys * sizeof *found);
    sorted = malloc(n_keys * sizeof *sorted);
    taken = calloc(len, 1);
    if (!found || !sorted || !taken) {
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu special tokens in the text", n_keys);
        free(sorted);
    } else {
        n_cuts = accept(s, text, keys, n_keys, taken, found);
        sort_cuts(found, sorted, keys, n_cuts);
        *cuts = sorted;
        *n = n_cuts;
    }
    free(keys);
    free(found);
    free(taken);
    return st;
}
