/* SPDX-License-Identifier: Apache-2.0 */
/* Rules and classes of characters: see grammar_rules.h. */
#include "coordinator/grammar_rules.h"

#include <stdlib.h>
#include <string.h>

enum tern_status grammar_grow(void *items, uint32_t n, uint32_t *cap, size_t size, struct tern_err *err)
{
    uint32_t more = *cap ? *cap * 2 : 64;
    void *p;

    if (n < *cap)
        return TERN_OK;
    memcpy(&p, items, sizeof p);
    p = realloc(p, more * size);
    if (!p)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a grammar");
    memcpy(items, &p, sizeof p);
    *cap = more;
    return TERN_OK;
}

void grammar_rules_free(struct grammar_rules *r)
{
    free(r->nodes);
    free(r->rules);
    free(r->ranges);
    memset(r, 0, sizeof *r);
}

/* -- classes --------------------------------------------------------------------------------------------- */

static int by_lo(const void *a, const void *b)
{
    const struct grammar_range *x = a, *y = b;

    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Sorts and joins; returns how many are left. */
static uint32_t join(struct grammar_range *ranges, uint32_t n)
{
    uint32_t out = 0;

    if (n > 1)
        qsort(ranges, n, sizeof *ranges, by_lo);
    for (uint32_t i = 0; i < n; i++)
        if (out && ranges[i].lo <= ranges[out - 1].hi + 1)
            ranges[out - 1].hi = ranges[i].hi > ranges[out - 1].hi ? ranges[i].hi : ranges[out - 1].hi;
        else
            ranges[out++] = ranges[i];
    return out;
}

/* Cut where UTF-8 takes a byte more, and without surrogates. */
static enum tern_status put_range(struct grammar_rules *r, uint32_t lo, uint32_t hi, struct tern_err *err)
{
    static const struct grammar_range lengths[] = {
        { 0, 0x7f }, { 0x80, 0x7ff }, { 0x800, 0xd7ff }, { 0xe000, 0xffff }, { 0x10000, GRAMMAR_MAX_CODE }
    };
    enum tern_status st;

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const uint32_t from = lo > lengths[i].lo ? lo : lengths[i].lo;
        const uint32_t to = hi < lengths[i].hi ? hi : lengths[i].hi;

        if (from > to)
            continue;
        if ((st = grammar_grow(&r->ranges, r->n_ranges, &r->cap_ranges, sizeof *r->ranges, err)))
            return st;
        r->ranges[r->n_ranges++] = (struct grammar_range){ from, to };
    }
    return TERN_OK;
}

static enum tern_status put_ranges(struct grammar_rules *r, const struct grammar_range *ranges, uint32_t n,
                                   bool negated, struct tern_err *err)
{
    uint32_t from = 0;
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < n && !st; i++) {
        if (!negated)
            st = put_range(r, ranges[i].lo, ranges[i].hi, err);
        else if (ranges[i].lo > from)
            st = put_range(r, from, ranges[i].lo - 1, err);
        from = ranges[i].hi + 1;
    }
    if (negated && !st && from <= GRAMMAR_MAX_CODE)
        st = put_range(r, from, GRAMMAR_MAX_CODE, err);
    return st;
}

/* The class that the ranges behind the last class are, which may be an older one. */
static enum tern_status find_class(struct grammar_rules *r, uint32_t *out, struct tern_err *err)
{
    const uint32_t first = r->class_first[r->n_classes], n = r->n_ranges - first;
    uint32_t hash = 2166136261u, slot;

    for (uint32_t i = first; i < r->n_ranges; i++)
        hash = ((hash ^ r->ranges[i].lo) * 16777619u ^ r->ranges[i].hi) * 16777619u;
    hash ^= hash >> 15;
    for (slot = hash % (2 * GRAMMAR_MAX_CLASSES); r->class_bucket[slot];
         slot = (slot + 1) % (2 * GRAMMAR_MAX_CLASSES)) {
        const uint32_t c = r->class_bucket[slot] - 1, at = r->class_first[c];

        if (r->class_first[c + 1] - at == n &&
            (n == 0 || memcmp(r->ranges + at, r->ranges + first, n * sizeof *r->ranges) == 0)) {
            r->n_ranges = first;
            *out = c;
            return TERN_OK;
        }
    }
    if (r->n_classes == GRAMMAR_MAX_CLASSES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the grammar has more than %d different sets of characters",
                         GRAMMAR_MAX_CLASSES);
    *out = r->n_classes++;
    r->class_bucket[slot] = r->n_classes;
    r->class_first[r->n_classes] = r->n_ranges;
    return TERN_OK;
}

enum tern_status grammar_add_class(struct grammar_rules *r, struct grammar_range *ranges, uint32_t n,
                                   bool negated, uint32_t *out, struct tern_err *err)
{
    enum tern_status st = put_ranges(r, ranges, join(ranges, n), negated, err);

    return st ? st : find_class(r, out, err);
}
