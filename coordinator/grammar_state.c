/* SPDX-License-Identifier: Apache-2.0 */
/* Sets and steps: see grammar_state.h. */
#include "coordinator/grammar_state.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_BYTES (512u << 10) /* of `next` */
#define MAX_SEEN    (1u << 13)
#define MAX_PARTS   (1u << 17)

/* -- the heap of states ---------------------------------------------------------------------------------- */

static void heap_push(struct grammar_state *s, uint32_t state)
{
    uint32_t i = s->n_heap++;

    for (; i > 0 && s->heap[(i - 1) / 2] > state; i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = state;
}

static uint32_t heap_pop(struct grammar_state *s)
{
    const uint32_t top = s->heap[0], last = s->heap[--s->n_heap];
    uint32_t i = 0;

    for (;;) {
        uint32_t c = 2 * i + 1;

        if (c >= s->n_heap)
            break;
        if (c + 1 < s->n_heap && s->heap[c + 1] < s->heap[c])
            c++;
        if (s->heap[c] >= last)
            break;
        s->heap[i] = s->heap[c];
        i = c;
    }
    s->heap[i] = last;
    return top;
}

/* -- a set in the making --------------------------------------------------------------------------------- */

static bool trouble(struct grammar_state *s, enum grammar_trouble why)
{
    s->stacks.trouble = why;
    return false;
}

/* A state is reached, with these stacks too: those of a pile, each with a frame more unless `back` is
 * GRAMMAR_NONE. */
static bool want(struct grammar_state *s, uint32_t state, uint32_t back, uint32_t pile)
{
    if (!(s->g->flags[state] & GRAMMAR_MOVES))
        return true;
    if (s->n_parts == s->max_parts)
        return trouble(s, GRAMMAR_WORK);
    if (!s->parts_of[state])
        heap_push(s, state);
    s->parts[s->n_parts] = (struct grammar_part){ back, pile, s->parts_of[state] };
    s->parts_of[state] = ++s->n_parts;
    return true;
}

/* All stacks a state was reached with: a pile, or GRAMMAR_NONE. */
static uint32_t pile_of(struct grammar_state *s, uint32_t state)
{
    const struct grammar_part *p = &s->parts[s->parts_of[state] - 1];
    bool fine = true;

    s->parts_of[state] = 0;
    if (!p->next && p->back == GRAMMAR_NONE)
        return p->pile;
    for (;; p = &s->parts[p->next - 1]) {
        fine = fine && (p->back == GRAMMAR_NONE ? grammar_stacks_put_pile(&s->stacks, p->pile)
                                                : grammar_stacks_put_frame(&s->stacks, p->back, p->pile));
        if (!p->next)
            break;
    }
    if (fine)
        return grammar_stacks_make(&s->stacks);
    s->stacks.n_scratch = 0;
    return GRAMMAR_NONE;
}

/* Something was read, and now it goes on here: noted once. */
static bool land(struct grammar_state *s, uint32_t state, uint32_t pile)
{
    uint32_t slot = (state * 2654435761u ^ pile * 2246822519u) % MAX_SEEN;

    for (; s->seen[slot].round == s->round; slot = (slot + 1) % MAX_SEEN)
        if (s->seen[slot].state == state && s->seen[slot].pile == pile)
            return true;
    if (s->n_seen == MAX_SEEN / 2)
        return trouble(s, GRAMMAR_WORK);
    s->seen[slot] = (struct grammar_pair){ state, pile, s->round };
    s->todo[s->n_todo++] = s->seen[slot];
    s->n_seen++;
    return true;
}

/* Within a character, or behind it. */
static bool move(struct grammar_state *s, uint32_t state, uint32_t point, uint32_t pile)
{
    if (point == GRAMMAR_NONE)
        return true;
    if (point == 0)
        return land(s, state, pile);
    if (s->n_partial == s->max_places)
        return trouble(s, GRAMMAR_WORK);
    s->partial[s->n_partial++] = (struct grammar_place){ state, point, pile };
    return true;
}

static bool read_byte(struct grammar_state *s, const struct grammar_set *set, uint8_t byte)
{
    const struct grammar *g = s->g;

    for (uint32_t p = set->first; p < set->first + set->n; p++) {
        const struct grammar_place at = s->places[p];

        if (!grammar_stacks_work(&s->stacks, 1))
            return false;
        if (at.point) {
            if (!move(s, at.state, grammar_next_point(g, at.point, byte), at.pile))
                return false;
            continue;
        }
        for (uint32_t i = g->first[at.state]; i < g->first[at.state + 1]; i++) {
            const struct grammar_edge *e = &g->edges[i];

            if (!grammar_stacks_work(&s->stacks, 1) ||
                (e->kind == GRAMMAR_READ && !move(s, e->to, grammar_next_point(g, e->a, byte), at.pile)))
                return false;
        }
    }
    return true;
}

/* Rules that are over return, as far down as they can. */
static bool return_from_rules(struct grammar_state *s, bool *whole)
{
    while (s->n_todo) {
        const struct grammar_pair at = s->todo[--s->n_todo];

        if (at.state == s->g->n_states) {
            *whole = true;
            continue;
        }
        if (!want(s, at.state, GRAMMAR_NONE, at.pile))
            return false;
        if (!(s->g->flags[at.state] & GRAMMAR_ENDS))
            continue;
        for (uint32_t i = s->stacks.first[at.pile]; i < s->stacks.first[at.pile + 1]; i++)
            if (!grammar_stacks_work(&s->stacks, 1) ||
                !land(s, s->stacks.frames[i].back, s->stacks.frames[i].below))
                return false;
    }
    return true;
}

static bool add_place(struct grammar_state *s, struct grammar_place p)
{
    if (s->n_places == s->max_places)
        return trouble(s, GRAMMAR_FULL);
    s->places[s->n_places++] = p;
    return true;
}

/* Whatever is reached without reading, in ascending order: see grammar_machine.h. */
static bool sweep(struct grammar_state *s)
{
    const struct grammar *g = s->g;

    while (s->n_heap) {
        const uint32_t state = heap_pop(s), pile = pile_of(s, state);

        if (pile == GRAMMAR_NONE)
            return false;
        for (uint32_t i = g->first[state]; i < g->first[state + 1]; i++) {
            const struct grammar_edge *e = &g->edges[i];

            if (!grammar_stacks_work(&s->stacks, 1) ||
                (e->kind == GRAMMAR_CALL && !want(s, e->a, e->tail ? GRAMMAR_NONE : e->to, pile)) ||
                ((e->kind == GRAMMAR_EMPTY || e->skip) && !want(s, e->to, GRAMMAR_NONE, pile)))
                return false;
        }
        if ((g->flags[state] & GRAMMAR_READS) && !add_place(s, (struct grammar_place){ state, 0, pile }))
            return false;
    }
    return true;
}

static bool before(const struct grammar_place *a, const struct grammar_place *b)
{
    return a->state != b->state ? a->state < b->state : a->point < b->point;
}

/* Shell's sort: the library's may allocate. */
static void sort_places(struct grammar_place *p, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint32_t i = gap; i < n; i++) {
            const struct grammar_place moving = p[i];
            uint32_t j = i;

            for (; j >= gap && before(&moving, &p[j - gap]); j -= gap)
                p[j] = p[j - gap];
            p[j] = moving;
        }
}

/* The places within characters come to the others, those that are alike joined. */
static bool add_partial(struct grammar_state *s, uint32_t first)
{
    if (!s->n_partial)
        return true;
    sort_places(s->partial, s->n_partial);
    for (uint32_t i = 0; i < s->n_partial; i++) {
        const struct grammar_place *p = &s->partial[i];
        struct grammar_place *last = s->n_places > first ? &s->places[s->n_places - 1] : NULL;

        if (i > 0 && last->state == p->state && last->point == p->point) {
            uint32_t joined = grammar_stacks_join(&s->stacks, last->pile, p->pile);

            if (joined == GRAMMAR_NONE)
                return false;
            last->pile = joined;
        } else if (!add_place(s, *p)) {
            return false;
        }
    }
    sort_places(s->places + first, s->n_places - first);
    return true;
}

/* The number of the set that the places from `first` on are, which may be an older one. */
static uint32_t intern(struct grammar_state *s, uint32_t first, bool whole)
{
    const uint32_t n = s->n_places - first;
    uint32_t hash = n * 2 + whole, slot;

    if (n == 0 && !whole)
        return GRAMMAR_DEAD;
    for (uint32_t i = first; i < s->n_places; i++)
        hash = ((hash * 16777619u ^ s->places[i].state) * 16777619u ^ s->places[i].point) * 16777619u ^
               s->places[i].pile;
    hash ^= hash >> 15;
    for (slot = hash % (2 * s->max_sets); s->bucket[slot]; slot = (slot + 1) % (2 * s->max_sets)) {
        const struct grammar_set *set = &s->sets[s->bucket[slot] - 1];

        if (set->n == n && set->whole == whole &&
            (n == 0 || memcmp(s->places + set->first, s->places + first, n * sizeof *s->places) == 0)) {
            s->n_places = first;
            return s->bucket[slot] - 1;
        }
    }
    if (s->n_sets == s->max_sets) {
        s->stacks.trouble = GRAMMAR_FULL;
        return GRAMMAR_STUCK;
    }
    s->sets[s->n_sets] = (struct grammar_set){ first, n, 0, whole };
    memset(s->next + (size_t)s->n_sets * s->g->n_sorts, 0, s->g->n_sorts * sizeof *s->next);
    s->bucket[slot] = ++s->n_sets;
    return s->n_sets - 1;
}

static void begin(struct grammar_state *s)
{
    s->stacks.trouble = GRAMMAR_FINE;
    s->n_partial = s->n_seen = s->n_todo = s->n_parts = 0;
    if (++s->round == 0) { /* all pairs look like those of a round to come */
        memset(s->seen, 0, MAX_SEEN * sizeof *s->seen);
        s->round = 1;
    }
}

/* From what has landed to a set. */
static uint32_t finish(struct grammar_state *s)
{
    const uint32_t first = s->n_places;
    bool whole = false;
    uint32_t set = GRAMMAR_STUCK;

    if (return_from_rules(s, &whole) && sweep(s) && add_partial(s, first))
        set = intern(s, first, whole);
    if (set == GRAMMAR_STUCK || set == GRAMMAR_DEAD)
        s->n_places = first;
    while (s->n_heap)
        s->parts_of[s->heap[--s->n_heap]] = 0;
    return set;
}

uint32_t grammar_step(struct grammar_state *s, uint32_t set, uint8_t sort)
{
    uint32_t *known = &s->next[(size_t)set * s->g->n_sorts + sort], to;

    if (*known)
        return *known == 1 ? GRAMMAR_DEAD : *known - 2;
    begin(s);
    if (!read_byte(s, &s->sets[set], s->g->sample[sort]))
        return GRAMMAR_STUCK;
    to = finish(s);
    if (to != GRAMMAR_STUCK)
        *known = to == GRAMMAR_DEAD ? 1 : to + 2;
    return to;
}

/* -- forgetting ------------------------------------------------------------------------------------------ */

void grammar_forget(struct grammar_state *s)
{
    struct grammar_set set = s->sets[s->now];

    memmove(s->places, s->places + set.first, set.n * sizeof *s->places);
    s->n_places = set.n;
    grammar_stacks_unmark(&s->stacks);
    for (uint32_t i = 0; i < set.n; i++)
        grammar_stacks_mark(&s->stacks, s->places[i].pile);
    grammar_stacks_collect(&s->stacks);
    for (uint32_t i = 0; i < set.n; i++)
        s->places[i].pile = s->stacks.moved[s->places[i].pile];
    for (uint32_t i = 0; i < GRAMMAR_MASKS; i++)
        s->mask_set[i] = set.mask == i + 1 ? 0 : GRAMMAR_NONE;
    memset(s->bucket, 0, 2 * (size_t)s->max_sets * sizeof *s->bucket);
    s->n_sets = 0;
    s->now = intern(s, 0, set.whole);
    s->sets[s->now].mask = set.mask;
}

uint32_t grammar_walk(struct grammar_state *s, const uint8_t *bytes, size_t n)
{
    for (int tries = 0;; tries++) {
        uint32_t set = s->now;

        for (size_t i = 0; i < n && set < GRAMMAR_DEAD; i++)
            set = grammar_step(s, set, s->g->sort[bytes[i]]);
        if (set != GRAMMAR_STUCK || s->stacks.trouble != GRAMMAR_FULL || tries > 0)
            return set;
        grammar_forget(s);
    }
}

/* -- life ------------------------------------------------------------------------------------------------ */

static void forget_all(struct grammar_state *s)
{
    s->n_sets = s->n_places = 0;
    memset(s->bucket, 0, 2 * (size_t)s->max_sets * sizeof *s->bucket);
    for (uint32_t i = 0; i < GRAMMAR_MASKS; i++)
        s->mask_set[i] = GRAMMAR_NONE;
    grammar_stacks_unmark(&s->stacks);
    grammar_stacks_collect(&s->stacks);
}

void grammar_restart(struct grammar_state *s)
{
    for (int tries = 0; tries < 2; tries++) {
        s->stacks.work = GRAMMAR_STEP_WORK;
        begin(s);
        s->now = land(s, s->g->start, 0) ? finish(s) : GRAMMAR_STUCK;
        if (s->now != GRAMMAR_STUCK || s->stacks.trouble != GRAMMAR_FULL)
            return;
        forget_all(s);
    }
}

static bool make_room(struct grammar_state *s)
{
    const struct grammar *g = s->g;
    const uint32_t fit = TABLE_BYTES / (g->n_sorts * (uint32_t)sizeof *s->next);

    s->max_sets = fit < 4096 ? fit : 4096;
    s->max_places = g->n_states < 4096 ? 16384 : g->n_states < 32768 ? 4 * g->n_states : 131072;
    s->sets = calloc(s->max_sets, sizeof *s->sets);
    s->next = calloc((size_t)s->max_sets * g->n_sorts, sizeof *s->next);
    s->bucket = calloc(2 * (size_t)s->max_sets, sizeof *s->bucket);
    s->places = calloc(s->max_places, sizeof *s->places);
    s->partial = calloc(s->max_places, sizeof *s->partial);
    s->max_parts = g->first[g->n_states] < MAX_PARTS / 2 ? 2 * g->first[g->n_states] + MAX_SEEN : MAX_PARTS;
    s->parts = malloc(s->max_parts * sizeof *s->parts);
    s->parts_of = calloc((size_t)g->n_states + 1, sizeof *s->parts_of);
    s->heap = malloc(((size_t)g->n_states + 1) * sizeof *s->heap);
    s->seen = calloc(MAX_SEEN, sizeof *s->seen);
    s->todo = calloc(MAX_SEEN, sizeof *s->todo);
    s->masks = calloc((GRAMMAR_MASKS + 1) * s->v->n_words, sizeof *s->masks);
    if (!s->sets || !s->next || !s->bucket || !s->places || !s->partial || !s->parts || !s->parts_of ||
        !s->heap || !s->seen || !s->todo || !s->masks)
        return false;
    return true;
}

enum tern_status grammar_state_new(const struct grammar *g, const struct grammar_vocab *v,
                                   struct grammar_state **out, struct tern_err *err)
{
    struct grammar_state *s = calloc(1, sizeof *s);
    enum tern_status st;

    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an answer's grammar");
    s->g = grammar_hold(g);
    s->v = v;
    if ((st = grammar_stacks_init(&s->stacks, g->n_states, err))) {
        grammar_state_free(&s);
        return st;
    }
    if (!make_room(s)) {
        grammar_state_free(&s);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an answer's grammar");
    }
    forget_all(s);
    grammar_restart(s);
    *out = s;
    return TERN_OK;
}

void grammar_state_free(struct grammar_state **s)
{
    if (*s) {
        grammar_drop(&(*s)->g);
        grammar_stacks_fini(&(*s)->stacks);
        free((*s)->sets);
        free((*s)->next);
        free((*s)->bucket);
        free((*s)->places);
        free((*s)->partial);
        free((*s)->parts);
        free((*s)->parts_of);
        free((*s)->heap);
        free((*s)->seen);
        free((*s)->todo);
        free((*s)->masks);
        free(*s);
    }
    *s = NULL;
}
