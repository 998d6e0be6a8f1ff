/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of code points to bytes of UTF-8: see grammar_machine.h.  Equal points are one, so all classes
 * share what they have in common (any continuation byte, say).
 */
#include "coordinator/grammar_machine.h"

#include <stdlib.h>
#include <string.h>

struct maker {
    struct grammar *g;
    uint32_t *bucket; /* [N_BUCKETS] point + 1 */
    uint32_t cap_points, n_bytes, cap_bytes;
    uint32_t any[4]; /* [left] the point before that many continuation bytes whatever they are, or 0 */
    struct tern_err *err;
};

#define N_BUCKETS (2 * GRAMMAR_MAX_POINTS)

/* A point of these edges, which may be there already.  Number 0 is the end and has none. */
static enum tern_status intern(struct maker *m, const struct grammar_bytes *edges, uint32_t n, uint32_t *out)
{
    struct grammar *g = m->g;
    uint32_t hash = n, slot;
    enum tern_status st;

    for (uint32_t i = 0; i < n; i++)
        hash = ((hash * 16777619u ^ edges[i].to) * 16777619u ^ edges[i].lo) * 16777619u ^ edges[i].hi;
    hash ^= hash >> 16;
    for (slot = hash % N_BUCKETS; m->bucket[slot]; slot = (slot + 1) % N_BUCKETS) {
        const uint32_t p = m->bucket[slot] - 1, at = g->point[p];
        uint32_t i = 0;

        if (g->point[p + 1] - at != n)
            continue;
        while (i < n && g->bytes[at + i].lo == edges[i].lo && g->bytes[at + i].hi == edges[i].hi &&
               g->bytes[at + i].to == edges[i].to)
            i++;
        if (i == n) {
            *out = p;
            return TERN_OK;
        }
    }
    if (g->n_points == GRAMMAR_MAX_POINTS)
        return TERN_FAIL(m->err, TERN_ERR_LIMIT,
                         "the grammar's classes of characters are too many or too ragged");
    if ((st = grammar_grow(&g->point, g->n_points + 1, &m->cap_points, sizeof *g->point, m->err)))
        return st;
    for (uint32_t i = 0; i < n; i++) {
        if ((st = grammar_grow(&g->bytes, m->n_bytes, &m->cap_bytes, sizeof *g->bytes, m->err)))
            return st;
        g->bytes[m->n_bytes++] = edges[i];
    }
    *out = g->n_points++;
    g->point[g->n_points] = m->n_bytes;
    m->bucket[slot] = g->n_points;
    return TERN_OK;
}

static void put_edge(struct grammar_bytes *edges, uint32_t *n, uint8_t byte, uint32_t to)
{
    if (*n && edges[*n - 1].to == to && edges[*n - 1].hi + 1 == byte)
        edges[*n - 1].hi = byte;
    else
        edges[(*n)++] = (struct grammar_bytes){ byte, byte, to };
}

/* The first range that does not end below lo. */
static const struct grammar_range *range_at(const struct grammar_range *r, const struct grammar_range *end,
                                            uint32_t lo)
{
    while (r < end && r->hi < lo)
        r++;
    return r;
}

/* What may stand in `left` continuation bytes, which stand for the code points from base on. */
static enum tern_status continuation(struct maker *m, const struct grammar_range *r,
                                     const struct grammar_range *end, uint32_t base, int left, uint32_t *out)
{
    const uint32_t step = 1u << (6 * (left - 1));
    const bool whole = r->lo <= base && r->hi >= base + 64 * step - 1;
    struct grammar_bytes edges[64];
    uint32_t n = 0;
    enum tern_status st;

    if (whole && m->any[left]) {
        *out = m->any[left];
        return TERN_OK;
    }
    for (uint32_t d = 0; d < 64; d++) {
        const uint32_t lo = base + d * step, hi = lo + step - 1;
        uint32_t to = 0;

        r = range_at(r, end, lo);
        if (r == end || r->lo > hi)
            continue;
        if (left > 1 && (st = continuation(m, r, end, lo, left - 1, &to)))
            return st;
        put_edge(edges, &n, (uint8_t)(0x80 | d), to);
    }
    if (!(st = intern(m, edges, n, out)) && whole)
        m->any[left] = *out;
    return st;
}

/* The lead bytes from .. to, of sequences with `left` more bytes for code points from `least` on. */
static enum tern_status lead(struct maker *m, const struct grammar_range *r, const struct grammar_range *end,
                             int left, struct grammar_range of, uint32_t least, struct grammar_bytes *edges,
                             uint32_t *n)
{
    for (uint32_t b = of.lo; b <= of.hi; b++) {
        const uint32_t lo = (b & (0x3fu >> left)) << (6 * left), hi = lo + (1u << (6 * left)) - 1;
        uint32_t point;
        enum tern_status st;

        r = range_at(r, end, lo > least ? lo : least);
        if (r == end || r->lo > hi)
            continue;
        if ((st = continuation(m, r, end, lo, left, &point)))
            return st;
        put_edge(edges, n, (uint8_t)b, point);
    }
    return TERN_OK;
}

static enum tern_status class_point(struct maker *m, const struct grammar_range *r,
                                    const struct grammar_range *end, uint32_t *out)
{
    struct grammar_bytes edges[256];
    uint32_t n = 0;
    enum tern_status st;

    for (const struct grammar_range *a = r; a < end && a->hi < 0x80; a++) {
        if (n && edges[n - 1].hi + 1u == a->lo)
            edges[n - 1].hi = (uint8_t)a->hi;
        else
            edges[n++] = (struct grammar_bytes){ (uint8_t)a->lo, (uint8_t)a->hi, 0 };
    }
    if ((st = lead(m, r, end, 1, (struct grammar_range){ 0xc2, 0xdf }, 0x80, edges, &n)) ||
        (st = lead(m, r, end, 2, (struct grammar_range){ 0xe0, 0xef }, 0x800, edges, &n)) ||
        (st = lead(m, r, end, 3, (struct grammar_range){ 0xf0, 0xf4 }, 0x10000, edges, &n)))
        return st;
    return intern(m, edges, n, out);
}

/* Bytes between which no edge begins or ends are of one sort. */
static void sort_bytes(struct grammar *g)
{
    bool cut[257] = { true };

    for (uint32_t i = 0; i < g->point[g->n_points]; i++)
        cut[g->bytes[i].lo] = cut[g->bytes[i].hi + 1] = true;
    for (unsigned b = 0; b < 256; b++) {
        if (cut[b])
            g->sample[g->n_sorts++] = (uint8_t)b;
        g->sort[b] = (uint8_t)(g->n_sorts - 1);
    }
}

enum tern_status grammar_make_points(struct grammar *g, const struct grammar_rules *r, uint32_t *root,
                                     struct tern_err *err)
{
    struct maker m = { .g = g, .err = err };
    enum tern_status st = grammar_grow(&g->point, 1, &m.cap_points, sizeof *g->point, err);

    m.bucket = calloc(N_BUCKETS, sizeof *m.bucket);
    if (!st && !m.bucket)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a grammar");
    if (!st) {
        g->point[0] = g->point[1] = 0; /* number 0: a character's end */
        g->n_points = 1;
    }
    for (uint32_t c = 0; c < r->n_classes && !st; c++)
        st = class_point(&m, r->ranges + r->class_first[c], r->ranges + r->class_first[c + 1], &root[c]);
    if (!st)
        sort_bytes(g);
    free(m.bucket);
    return st;
}
