/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens may come next: a walk over the vocabulary's tree with the automaton, which leaves out every
 * branch whose bytes the grammar does not allow.  Masks are remembered by the set they belong to.
 */
#include "coordinator/grammar_state.h"

#include <string.h>

static const uint64_t *nothing(const struct grammar_state *s)
{
    return s->masks + GRAMMAR_MASKS * s->v->n_words;
}

/* -- the walk -------------------------------------------------------------------------------------------- */

/* The sets along the branch to a node again, behind forgetting. */
static bool retrace(struct grammar_state *s, const struct grammar_leaf *nodes, uint32_t node)
{
    uint8_t bytes[TERN_MAX_TOKEN_BYTES];
    uint32_t depth = nodes[node].depth;

    for (uint32_t i = node; depth > 0;) /* upwards: the last node before it with one byte less in front */
        if (nodes[--i].depth == depth - 1)
            bytes[--depth] = nodes[i].byte;
    s->path[0] = s->now;
    for (; depth < nodes[node].depth; depth++) {
        s->path[depth + 1] = grammar_step(s, s->path[depth], s->g->sort[bytes[depth]]);
        if (s->path[depth + 1] >= GRAMMAR_DEAD)
            return false;
    }
    return true;
}

/* A step that was not known, and may have to forget what is. */
static uint32_t step(struct grammar_state *s, const struct grammar_leaf *nodes, uint32_t node)
{
    const uint8_t sort = s->g->sort[nodes[node].byte];
    uint32_t to = grammar_step(s, s->path[nodes[node].depth], sort);

    if (to != GRAMMAR_STUCK || s->stacks.trouble != GRAMMAR_FULL)
        return to;
    grammar_forget(s);
    return retrace(s, nodes, node) ? grammar_step(s, s->path[nodes[node].depth], sort) : GRAMMAR_STUCK;
}

/* False: stuck. */
static bool walk(struct grammar_state *s, const struct grammar_tree *t, uint64_t *restrict mask)
{
    const struct grammar_leaf *nodes = t->nodes;
    const uint32_t *const next = s->next;
    const size_t n_sorts = s->g->n_sorts;
    const uint8_t *const sort = s->g->sort;

    s->path[0] = s->now;
    for (uint32_t i = 0; i < t->n_nodes;) {
        const struct grammar_leaf *node = &nodes[i];
        uint32_t to = next[s->path[node->depth] * n_sorts + sort[node->byte]] - 2;

        if (to >= GRAMMAR_DEAD) {
            to = to == UINT32_MAX ? GRAMMAR_DEAD : step(s, nodes, i);
            if (to == GRAMMAR_STUCK)
                return false;
            if (to == GRAMMAR_DEAD) {
                i = node->end;
                continue;
            }
        }
        s->path[node->depth + 1] = to;
        for (uint32_t k = node->first; k < node[1].first; k++)
            mask[(uint32_t)t->ids[k] / 64] |= UINT64_C(1) << ((uint32_t)t->ids[k] % 64);
        i++;
    }
    return true;
}

/* -- plain characters ------------------------------------------------------------------------------------ */

/* Every byte from lo to hi leads from a set to the same one, which is not dead: *to, unless that is known
 * already. */
static bool all_lead(struct grammar_state *s, uint32_t set, unsigned lo, unsigned hi, uint32_t *to)
{
    for (unsigned b = lo; b <= hi; b++) {
        uint32_t t;

        if (b > lo && s->g->sort[b] == s->g->sort[b - 1])
            continue;
        t = grammar_step(s, set, s->g->sort[b]);
        if (t >= GRAMMAR_DEAD || (*to != GRAMMAR_NONE && t != *to))
            return false;
        *to = t;
    }
    return true;
}

/* Every sequence of a lead byte from lo to hi, a second one from lo2 to hi2, and n more. */
static bool sequences_lead(struct grammar_state *s, uint32_t set, const uint8_t range[5], uint32_t *to)
{
    for (unsigned b = range[0]; b <= range[1]; b++) {
        uint32_t at = GRAMMAR_NONE, behind = GRAMMAR_NONE;

        if (b > range[0] && s->g->sort[b] == s->g->sort[b - 1])
            continue;
        if (!all_lead(s, set, b, b, &at))
            return false;
        for (unsigned n = 0; n <= range[4]; n++) {
            const bool last = n == range[4];

            behind = last ? *to : GRAMMAR_NONE;
            if (!all_lead(s, at, n ? 0x80 : range[2], n ? 0xbf : range[3], &behind))
                return false;
            at = behind;
        }
        *to = behind;
    }
    return true;
}

/* All plain characters lead from a set to one and the same. */
static bool plain_leads(struct grammar_state *s, uint32_t set, uint32_t *to)
{
    static const uint8_t sequences[][5] = {
        { 0xc2, 0xdf, 0x80, 0xbf, 0 }, { 0xe0, 0xe0, 0xa0, 0xbf, 1 }, { 0xe1, 0xec, 0x80, 0xbf, 1 },
        { 0xed, 0xed, 0x80, 0x9f, 1 }, { 0xee, 0xef, 0x80, 0xbf, 1 }, { 0xf0, 0xf0, 0x90, 0xbf, 2 },
        { 0xf1, 0xf3, 0x80, 0xbf, 2 }, { 0xf4, 0xf4, 0x80, 0x8f, 2 },
    };

    *to = GRAMMAR_NONE;
    for (unsigned b = 0x20; b < 0x7f; b++)
        if (grammar_is_plain((uint8_t)b) && !all_lead(s, set, b, b, to))
            return false;
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++)
        if (!sequences_lead(s, set, sequences[i], to))
            return false;
    return true;
}

/* No plain character can come next. */
static bool plain_dies(struct grammar_state *s, uint32_t set)
{
    for (unsigned b = 0x20; b <= 0xf4; b++)
        if ((grammar_is_plain((uint8_t)b) || b >= 0xc2) &&
            grammar_step(s, set, s->g->sort[b]) != GRAMMAR_DEAD)
            return false;
    return true;
}

/* How many plain characters, whichever they are, can come next, and no more: at most GRAMMAR_PLAIN_CHARS,
 * which means any number that a token may have.  -1: it depends. */
static int count_plain(struct grammar_state *s)
{
    uint32_t set = s->now, to;
    int n = 0;

    for (; n < GRAMMAR_PLAIN_CHARS; n++) {
        if (!plain_leads(s, set, &to))
            return plain_dies(s, set) ? n : -1;
        if (to == set)
            return GRAMMAR_PLAIN_CHARS;
        set = to;
    }
    return n;
}

/* -- masks ----------------------------------------------------------------------------------------------- */

static bool make_mask(struct grammar_state *s, uint64_t *mask)
{
    const struct grammar_vocab *v = s->v;

    const int n = count_plain(s);

    memcpy(mask, v->plain + (n < 0 ? 0 : (size_t)n) * v->n_words, v->n_words * sizeof *mask);
    if (n < 0 && !walk(s, &v->trees[GRAMMAR_PLAIN], mask))
        return false;
    return walk(s, &v->trees[GRAMMAR_OTHER], mask);
}

/* The mask that was not used for the longest time. */
static uint32_t oldest(const struct grammar_state *s)
{
    uint32_t best = 0;

    for (uint32_t i = 0; i < GRAMMAR_MASKS; i++) {
        if (s->mask_set[i] == GRAMMAR_NONE)
            return i;
        if (s->mask_used[i] < s->mask_used[best])
            best = i;
    }
    return best;
}

static void set_ends(const struct grammar_state *s, uint64_t *mask)
{
    const bool whole = s->sets[s->now].whole;

    for (size_t i = 0; i < s->v->n_words && whole; i++)
        mask[i] |= s->v->ends[i];
    for (uint32_t i = 0; i < s->n_also_ends; i++) {
        const uint32_t id = (uint32_t)s->also_ends[i];
        const uint64_t bit = UINT64_C(1) << (id % 64);

        mask[id / 64] = whole ? mask[id / 64] | bit : mask[id / 64] & ~bit;
    }
}

const uint64_t *grammar_mask(struct grammar_state *s)
{
    uint32_t slot;
    uint64_t *mask;

    if (s->now >= GRAMMAR_DEAD)
        return nothing(s);
    if (s->sets[s->now].mask) {
        slot = s->sets[s->now].mask - 1;
        s->mask_used[slot] = ++s->n_used;
        return s->masks + slot * s->v->n_words;
    }
    slot = oldest(s);
    if (s->mask_set[slot] != GRAMMAR_NONE)
        s->sets[s->mask_set[slot]].mask = 0;
    s->mask_set[slot] = GRAMMAR_NONE;
    mask = s->masks + slot * s->v->n_words;
    s->stacks.work = GRAMMAR_STEP_WORK;
    if (!make_mask(s, mask)) {
        s->now = GRAMMAR_STUCK;
        return nothing(s);
    }
    set_ends(s, mask);
    s->sets[s->now].mask = slot + 1;
    s->mask_set[slot] = s->now;
    s->mask_used[slot] = ++s->n_used;
    return mask;
}

static bool is_end(const struct grammar_state *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->n_also_ends; i++)
        if ((uint32_t)s->also_ends[i] == id)
            return true;
    return (s->v->ends[id / 64] >> (id % 64) & 1) != 0;
}

bool grammar_accept(struct grammar_state *s, int32_t id)
{
    struct tern_str text;
    uint32_t to;

    if (id < 0 || (uint32_t)id >= s->v->n_vocab || s->now >= GRAMMAR_DEAD)
        return false;
    if (is_end(s, (uint32_t)id))
        return s->sets[s->now].whole;
    text = tern_tokenizer_piece(s->v->tok, id, false);
    s->stacks.work = GRAMMAR_STEP_WORK;
    if (text.len == 0 || (to = grammar_walk(s, (const uint8_t *)text.ptr, text.len)) == GRAMMAR_DEAD)
        return false;
    s->now = to;
    return to != GRAMMAR_STUCK;
}

void grammar_also_ends(struct grammar_state *s, int32_t id)
{
    if (id < 0 || (uint32_t)id >= s->v->n_vocab || is_end(s, (uint32_t)id))
        return;
    TERN_BUG_IF(s->n_also_ends == GRAMMAR_MAX_ENDS);
    s->also_ends[s->n_also_ends++] = id;
}

bool grammar_is_whole(const struct grammar_state *s)
{
    return s->now < GRAMMAR_DEAD && s->sets[s->now].whole;
}

bool grammar_is_done(const struct grammar_state *s)
{
    return grammar_is_whole(s) && s->sets[s->now].n == 0;
}

const char *grammar_why(const struct grammar_state *s)
{
    if (s->now == GRAMMAR_STUCK)
        return s->stacks.trouble == GRAMMAR_WORK
                   ? "it can be read in too many ways here; make it less ambiguous"
                   : "it is nested too deeply here, or has too many alternatives at one place";
    return "no token of this vocabulary can come next in it";
}
