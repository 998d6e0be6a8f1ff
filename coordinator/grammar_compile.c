/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules to one automaton: see grammar_machine.h.
 *
 * Every rule is written out with a state between any two things; then which rules may be empty is found, the
 * states are ordered so that nothing leads back without reading (Tarjan's components, of which a call inside
 * one is left recursion), and what the runtime asks of a state is noted.
 */
#include "coordinator/grammar.h"
#include "coordinator/grammar_machine.h"

#include <stdlib.h>
#include <string.h>

#define MAX_VISITS (1u << 21) /* of nodes while repetitions are written out */

struct raw_edge {
    uint32_t from, to, a; /* a: class or rule */
    enum grammar_edge_kind kind;
    uint32_t waiting; /* the next edge that waits for its rule to turn out empty, + 1 */
};

struct builder {
    const struct grammar_rules *r;
    struct grammar *g;
    const char *text;
    struct raw_edge *edges; /* sorted by `from` once all are there */
    uint32_t n_edges, cap_edges, n_states, n_visits;
    uint32_t *start, *end; /* [n_rules] */
    bool *empty;           /* [n_rules] may be */
    uint32_t *first;       /* [n_states + 1] edges of a state */
    uint32_t *component;   /* [n_states]; then the state's new number */
    uint32_t n_components;
    struct tern_err *err;
};

static enum tern_status no_memory(struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a grammar");
}

/* -- writing out ----------------------------------------------------------------------------------------- */

static enum tern_status new_state(struct builder *b, uint32_t *out)
{
    if (b->n_states == GRAMMAR_MAX_STATES)
        return TERN_FAIL(b->err, TERN_ERR_LIMIT,
                         "the grammar is too large: more than %u states when its repetitions are written out",
                         (unsigned)GRAMMAR_MAX_STATES);
    *out = b->n_states++;
    return TERN_OK;
}

static enum tern_status add_edge(struct builder *b, uint32_t from, enum grammar_edge_kind kind, uint32_t a,
                                 uint32_t to)
{
    enum tern_status st;

    if (b->n_edges == GRAMMAR_MAX_EDGES)
        return TERN_FAIL(b->err, TERN_ERR_LIMIT,
                         "the grammar is too large: more than %u edges when its repetitions are written out",
                         (unsigned)GRAMMAR_MAX_EDGES);
    if ((st = grammar_grow(&b->edges, b->n_edges, &b->cap_edges, sizeof *b->edges, b->err)))
        return st;
    b->edges[b->n_edges++] = (struct raw_edge){ from, to, a, kind, 0 };
    return TERN_OK;
}

static enum tern_status write_node(struct builder *b, uint32_t node, uint32_t from, uint32_t *to);

static enum tern_status write_repeat(struct builder *b, const struct grammar_node *n, uint32_t from,
                                     uint32_t *to)
{
    uint32_t at = from, end = 0;
    enum tern_status st;

    for (uint32_t i = 0; i < n->value; i++)
        if ((st = write_node(b, n->first, at, &at)))
            return st;
    if ((st = new_state(b, &end)) || (st = add_edge(b, at, GRAMMAR_EMPTY, 0, end)))
        return st;
    if (n->max == GRAMMAR_NONE) { /* a loop at the end */
        if ((st = write_node(b, n->first, end, &at)) || (st = add_edge(b, at, GRAMMAR_EMPTY, 0, end)))
            return st;
    } else {
        for (uint32_t i = n->value; i < n->max; i++)
            if ((st = write_node(b, n->first, at, &at)) || (st = add_edge(b, at, GRAMMAR_EMPTY, 0, end)))
                return st;
    }
    *to = end;
    return TERN_OK;
}

static enum tern_status write_alternatives(struct builder *b, const struct grammar_node *n, uint32_t from,
                                           uint32_t *to)
{
    uint32_t end = 0, at;
    enum tern_status st = new_state(b, &end);

    for (uint32_t c = n->first; c != GRAMMAR_NONE && !st; c = b->r->nodes[c].next)
        if (!(st = write_node(b, c, from, &at)))
            st = add_edge(b, at, GRAMMAR_EMPTY, 0, end);
    *to = end;
    return st;
}

/* From a state on, to the state behind. */
static enum tern_status write_node(struct builder *b, uint32_t node, uint32_t from, uint32_t *to)
{
    const struct grammar_node *n = &b->r->nodes[node];
    uint32_t next = 0;
    enum tern_status st;

    if (b->n_visits++ == MAX_VISITS)
        return TERN_FAIL(b->err, TERN_ERR_LIMIT, "the grammar is too large: its repetitions repeat too much");
    switch (n->kind) {
    case GRAMMAR_CLASS:
    case GRAMMAR_RULE:
        if ((st = new_state(b, &next)))
            return st;
        *to = next;
        return add_edge(b, from, n->kind == GRAMMAR_CLASS ? GRAMMAR_READ : GRAMMAR_CALL, n->value, next);
    case GRAMMAR_SEQ:
        for (uint32_t c = n->first; c != GRAMMAR_NONE; c = b->r->nodes[c].next)
            if ((st = write_node(b, c, from, &from)))
                return st;
        *to = from;
        return TERN_OK;
    case GRAMMAR_ALT: return write_alternatives(b, n, from, to);
    case GRAMMAR_REPEAT: return write_repeat(b, n, from, to);
    }
    return TERN_OK;
}

static enum tern_status write_rules(struct builder *b)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < b->r->n_rules && !st; i++) {
        uint32_t at;

        if ((st = new_state(b, &b->start[i])) || (st = new_state(b, &b->end[i])) ||
            (st = write_node(b, b->r->rules[i].body, b->start[i], &at)))
            return st;
        st = add_edge(b, at, GRAMMAR_EMPTY, 0, b->end[i]);
    }
    return st;
}

/* Edges in order of the state they leave, and which those are. */
static enum tern_status sort_edges(struct builder *b)
{
    struct raw_edge *sorted = malloc((b->n_edges + 1) * sizeof *sorted);
    uint32_t sum = 0;

    b->first = calloc(b->n_states + 1, sizeof *b->first);
    if (!sorted || !b->first) {
        free(sorted);
        return no_memory(b->err);
    }
    for (uint32_t i = 0; i < b->n_edges; i++)
        b->first[b->edges[i].from]++;
    for (uint32_t s = 0; s <= b->n_states; s++) {
        uint32_t n = b->first[s];

        b->first[s] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < b->n_edges; i++)
        sorted[b->first[b->edges[i].from]++] = b->edges[i];
    for (uint32_t s = b->n_states; s > 0; s--)
        b->first[s] = b->first[s - 1];
    b->first[0] = 0;
    free(b->edges);
    b->edges = sorted;
    return TERN_OK;
}

/* -- rules that may be empty ----------------------------------------------------------------------------- */

struct spread {
    bool *seen;     /* [n_states] reached from its rule's start without reading */
    uint32_t *todo; /* [n_states], each at most once */
    uint32_t n_todo;
    uint32_t *waiting; /* [n_rules] calls of it that were reached, + 1 */
};

static void reach(struct spread *s, uint32_t state)
{
    if (!s->seen[state]) {
        s->seen[state] = true;
        s->todo[s->n_todo++] = state;
    }
}

static void spread_from(struct builder *b, struct spread *s, const bool *is_end, const uint32_t *rule_of_end,
                        uint32_t state)
{
    for (uint32_t i = b->first[state]; i < b->first[state + 1]; i++) {
        struct raw_edge *e = &b->edges[i];

        if (e->kind == GRAMMAR_EMPTY || (e->kind == GRAMMAR_CALL && b->empty[e->a])) {
            reach(s, e->to);
        } else if (e->kind == GRAMMAR_CALL) {
            e->waiting = s->waiting[e->a];
            s->waiting[e->a] = i + 1;
        }
    }
    if (is_end[state]) {
        const uint32_t rule = rule_of_end[state];

        b->empty[rule] = true;
        for (uint32_t i = s->waiting[rule]; i; i = b->edges[i - 1].waiting)
            reach(s, b->edges[i - 1].to);
    }
}

static enum tern_status find_empty(struct builder *b)
{
    const uint32_t n = b->n_states;
    struct spread s = { calloc(n, sizeof *s.seen), calloc(n, sizeof *s.todo), 0,
                        calloc(b->r->n_rules, sizeof *s.waiting) };
    bool *is_end = calloc(n, sizeof *is_end);
    uint32_t *rule_of_end = calloc(n, sizeof *rule_of_end);
    enum tern_status st = TERN_OK;

    if (!s.seen || !s.todo || !s.waiting || !is_end || !rule_of_end) {
        st = no_memory(b->err);
    } else {
        for (uint32_t i = 0; i < b->r->n_rules; i++) {
            is_end[b->end[i]] = true;
            rule_of_end[b->end[i]] = i;
            reach(&s, b->start[i]);
        }
        while (s.n_todo)
            spread_from(b, &s, is_end, rule_of_end, s.todo[--s.n_todo]);
    }
    free(s.seen);
    free(s.todo);
    free(s.waiting);
    free(is_end);
    free(rule_of_end);
    return st;
}

/* -- order ----------------------------------------------------------------------------------------------- */

/* What can be reached from state by its half-edge k (two for each edge: where a call begins, and where it
 * comes back to), or GRAMMAR_NONE. */
static uint32_t successor(const struct builder *b, uint32_t k)
{
    const struct raw_edge *e = &b->edges[k / 2];

    if (e->kind == GRAMMAR_READ || (e->kind == GRAMMAR_EMPTY && k % 2))
        return GRAMMAR_NONE;
    if (e->kind == GRAMMAR_EMPTY)
        return e->to;
    if (k % 2 == 0)
        return b->start[e->a];
    return b->empty[e->a] ? e->to : GRAMMAR_NONE;
}

struct walk {
    uint32_t *at;           /* [n_states] the next half-edge to look at */
    uint32_t *index, *low;  /* [n_states] Tarjan's; index 0: not seen yet */
    uint32_t *path, n_path; /* from the root down to here */
    uint32_t *open, n_open; /* seen, but their component is not complete */
    uint32_t n_seen;
};

static void enter(const struct builder *b, struct walk *w, uint32_t state)
{
    w->index[state] = w->low[state] = ++w->n_seen;
    w->at[state] = 2 * b->first[state];
    w->path[w->n_path++] = state;
    w->open[w->n_open++] = state;
}

/* All successors of the path's last state are done. */
static void leave(struct builder *b, struct walk *w)
{
    const uint32_t state = w->path[--w->n_path];

    if (w->n_path && w->low[state] < w->low[w->path[w->n_path - 1]])
        w->low[w->path[w->n_path - 1]] = w->low[state];
    if (w->low[state] != w->index[state])
        return;
    for (;;) {
        const uint32_t s = w->open[--w->n_open];

        b->component[s] = b->n_components;
        if (s == state)
            break;
    }
    b->n_components++;
}

static void walk_from(struct builder *b, struct walk *w, uint32_t root)
{
    enter(b, w, root);
    while (w->n_path) {
        const uint32_t state = w->path[w->n_path - 1];
        uint32_t next;

        if (w->at[state] == 2 * b->first[state + 1]) {
            leave(b, w);
            continue;
        }
        next = successor(b, w->at[state]++);
        if (next == GRAMMAR_NONE)
            continue;
        if (!w->index[next])
            enter(b, w, next);
        else if (b->component[next] == GRAMMAR_NONE && w->index[next] < w->low[state])
            w->low[state] = w->index[next];
    }
}

static enum tern_status refuse_left_recursion(const struct builder *b)
{
    for (uint32_t i = 0; i < b->n_edges; i++) {
        const struct raw_edge *e = &b->edges[i];
        uint32_t line, column;

        if (e->kind != GRAMMAR_CALL || b->component[e->from] != b->component[b->start[e->a]])
            continue;
        grammar_place(b->text, b->r->rules[e->a].name.ptr, &line, &column);
        return TERN_FAIL(b->err, TERN_ERR_UNSUPPORTED,
                         "grammar: line %u, column %u: the rule '%.*s' begins with itself (left recursion); "
                         "write it with * or with the recursion at the end",
                         (unsigned)line, (unsigned)column, TERN_STR_ARGS(b->r->rules[e->a].name));
    }
    return TERN_OK;
}

static enum tern_status order(struct builder *b)
{
    const uint32_t n = b->n_states;
    uint32_t *all = calloc((size_t)n * 5, sizeof *all);
    struct walk w;
    enum tern_status st;

    b->component = malloc(n * sizeof *b->component);
    if (!all || !b->component) {
        free(all);
        return no_memory(b->err);
    }
    w = (struct walk){ .at = all,
                       .index = all + n,
                       .low = all + 2 * (size_t)n,
                       .path = all + 3 * (size_t)n,
                       .open = all + 4 * (size_t)n };
    for (uint32_t s = 0; s < n; s++)
        b->component[s] = GRAMMAR_NONE;
    for (uint32_t s = 0; s < n; s++)
        if (!w.index[s])
            walk_from(b, &w, s);
    free(all);
    if ((st = refuse_left_recursion(b)))
        return st;
    for (uint32_t s = 0; s < n; s++) /* components were numbered from the ends to the beginnings */
        b->component[s] = b->n_components - 1 - b->component[s];
    return TERN_OK;
}

/* -- the automaton --------------------------------------------------------------------------------------- */

/* What a raw edge becomes; false: nothing. */
static bool convert(const struct builder *b, const struct raw_edge *e, const uint32_t *root,
                    struct grammar_edge *out)
{
    const uint32_t from = b->component[e->from], to = b->component[e->to];

    *out = (struct grammar_edge){ .kind = (uint8_t)e->kind, .to = to };
    if (e->kind == GRAMMAR_READ)
        out->a = root[e->a];
    if (e->kind == GRAMMAR_CALL) {
        out->a = b->component[b->start[e->a]];
        out->skip = b->empty[e->a] && to != from;
    }
    return e->kind != GRAMMAR_EMPTY || to != from;
}

static enum tern_status make_edges(struct builder *b, const uint32_t *root)
{
    struct grammar *g = b->g;
    uint32_t sum = 0;
    struct grammar_edge e;

    g->n_states = b->n_components;
    g->first = calloc((size_t)g->n_states + 2, sizeof *g->first);
    g->flags = calloc((size_t)g->n_states + 1, sizeof *g->flags);
    g->edges = malloc((b->n_edges + 1) * sizeof *g->edges);
    if (!g->first || !g->flags || !g->edges)
        return no_memory(b->err);
    for (uint32_t i = 0; i < b->n_edges; i++)
        if (convert(b, &b->edges[i], root, &e))
            g->first[b->component[b->edges[i].from]]++;
    for (uint32_t s = 0; s < g->n_states + 2; s++) {
        uint32_t n = g->first[s];

        g->first[s] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < b->n_edges; i++)
        if (convert(b, &b->edges[i], root, &e))
            g->edges[g->first[b->component[b->edges[i].from]]++] = e;
    for (uint32_t s = g->n_states + 1; s > 0; s--)
        g->first[s] = g->first[s - 1];
    g->first[0] = 0;
    return TERN_OK;
}

/* Empty edges lead to higher numbers, so one sweep downwards sees what is behind a state before the state. */
static enum tern_status make_flags(struct builder *b)
{
    struct grammar *g = b->g;
    bool *over = calloc((size_t)g->n_states + 1, sizeof *over); /* nothing is left but the rule's end */

    if (!over)
        return no_memory(b->err);
    for (uint32_t i = 0; i < b->r->n_rules; i++)
        g->flags[b->component[b->end[i]]] |= GRAMMAR_ENDS;
    for (uint32_t s = g->n_states; s-- > 0;) {
        over[s] = true;
        for (uint32_t i = g->first[s]; i < g->first[s + 1]; i++) {
            struct grammar_edge *e = &g->edges[i];

            g->flags[s] |= e->kind == GRAMMAR_READ ? GRAMMAR_READS | GRAMMAR_MOVES : GRAMMAR_MOVES;
            if (e->kind == GRAMMAR_EMPTY || e->skip)
                g->flags[s] |= g->flags[e->to] & GRAMMAR_ENDS;
            over[s] &= e->kind == GRAMMAR_EMPTY && over[e->to];
        }
    }
    for (uint32_t i = 0; i < g->first[g->n_states]; i++)
        g->edges[i].tail = g->edges[i].kind == GRAMMAR_CALL && over[g->edges[i].to] &&
                           (g->flags[g->edges[i].to] & GRAMMAR_ENDS);
    free(over);
    return TERN_OK;
}

static enum tern_status compile(struct builder *b)
{
    const struct tern_str root = { "root", 4 };
    uint32_t *roots = calloc(b->r->n_classes + 1, sizeof *roots);
    enum tern_status st;

    b->start = calloc(b->r->n_rules, sizeof *b->start);
    b->end = calloc(b->r->n_rules, sizeof *b->end);
    b->empty = calloc(b->r->n_rules, sizeof *b->empty);
    if (!roots || !b->start || !b->end || !b->empty)
        st = no_memory(b->err);
    else if (!(st = grammar_make_points(b->g, b->r, roots, b->err)) && !(st = write_rules(b)) &&
             !(st = sort_edges(b)) && !(st = find_empty(b)) && !(st = order(b)) &&
             !(st = make_edges(b, roots)))
        st = make_flags(b);
    for (uint32_t i = 0; i < b->r->n_rules && !st; i++)
        if (tern_str_eq(b->r->rules[i].name, root))
            b->g->start = b->component[b->start[i]];
    free(roots);
    return st;
}

enum tern_status grammar_parse(const char *text, size_t len, struct grammar **out, struct tern_err *err)
{
    struct grammar_rules *r = calloc(1, sizeof *r);
    struct builder b = { .r = r, .text = text, .err = err };
    const struct grammar *made;
    enum tern_status st;

    if (!r || !(b.g = calloc(1, sizeof *b.g))) {
        free(r);
        return no_memory(err);
    }
    atomic_init(&b.g->holders, 1);
    if (!(st = grammar_read(r, text, len, err)))
        st = compile(&b);
    grammar_rules_free(r);
    free(r);
    free(b.edges);
    free(b.start);
    free(b.end);
    free(b.empty);
    free(b.first);
    free(b.component);
    made = b.g;
    if (st)
        grammar_drop(&made);
    else
        *out = b.g;
    return st;
}

/* -- holders --------------------------------------------------------------------------------------------- */

const struct grammar *grammar_hold(const struct grammar *g)
{
    /* The count is what changes about a grammar that does not change. */
    atomic_fetch_add_explicit(&((struct grammar *)(uintptr_t)g)->holders, 1, memory_order_relaxed);
    return g;
}

void grammar_drop(const struct grammar **g)
{
    struct grammar *last = (struct grammar *)(uintptr_t)*g;

    *g = NULL;
    if (!last || atomic_fetch_sub_explicit(&last->holders, 1, memory_order_acq_rel) != 1)
        return;
    free(last->first);
    free(last->edges);
    free(last->flags);
    free(last->point);
    free(last->bytes);
    free(last);
}
