/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compiled grammar: one automaton for each rule, whose edges read a class of characters, call another rule,
 * or do nothing.
 *
 * States are numbered so that edges that read nothing lead to higher numbers only (a cycle of empty edges is
 * one state; a cycle with a call in it is left recursion, which is refused).  So one sweep in ascending order
 * visits whatever can be reached without reading, each state once.
 *
 * Classes read bytes: a class is a root in a graph of at most four levels, whose edges are ranges of bytes.
 * Bytes that no edge of the grammar tells apart are one sort.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_MACHINE_H
#define TERN_COORDINATOR_GRAMMAR_MACHINE_H

#include "coordinator/grammar_rules.h"

#include <stdatomic.h>

#define GRAMMAR_MAX_STATES (1u << 17)
#define GRAMMAR_MAX_EDGES  (1u << 19)
#define GRAMMAR_MAX_POINTS (1u << 16) /* in the graph of bytes */

enum grammar_edge_kind { GRAMMAR_EMPTY, GRAMMAR_READ, GRAMMAR_CALL };

struct grammar_edge {
    uint8_t kind;
    bool skip;  /* CALL: the rule may be empty */
    bool tail;  /* CALL: nothing is left to do behind it, so that it need not be remembered */
    uint32_t a; /* READ: the point its bytes begin at; CALL: the rule's first state */
    uint32_t to;
};

enum {
    GRAMMAR_ENDS = 1,  /* the rule may be over here */
    GRAMMAR_READS = 2, /* has an edge that reads */
    GRAMMAR_MOVES = 4, /* has an edge at all */
};

struct grammar_bytes {
    uint8_t lo, hi; /* in ascending order within a point */
    uint32_t to;    /* point; 0: the character is complete */
};

struct grammar {
    atomic_uint holders;
    uint32_t n_states; /* this number is the state behind the whole text */
    uint32_t start;
    uint32_t *first;            /* [n_states + 2] edges of state i: first[i] .. first[i + 1] */
    struct grammar_edge *edges; /* of all states */
    uint8_t *flags;             /* [n_states + 1] */
    uint32_t *point;            /* [n_points + 1] the same for points */
    struct grammar_bytes *bytes;
    uint32_t n_points;
    uint32_t n_sorts;
    uint8_t sort[256];   /* of a byte */
    uint8_t sample[256]; /* [n_sorts] a byte of each */
};

/* Classes of the rules to points, root[i] that of class i. */
enum tern_status grammar_make_points(struct grammar *g, const struct grammar_rules *r, uint32_t *root,
                                     struct tern_err *err) TERN_MUST_CHECK;

/* The point behind a byte: 0 when the character is complete, GRAMMAR_NONE when there is none. */
static inline uint32_t grammar_next_point(const struct grammar *g, uint32_t point, uint8_t byte)
{
    for (uint32_t i = g->point[point]; i < g->point[point + 1]; i++)
        if (byte <= g->bytes[i].hi)
            return byte >= g->bytes[i].lo ? g->bytes[i].to : GRAMMAR_NONE;
    return GRAMMAR_NONE;
}

#endif
