/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one answer stands in its grammar, and the steps from there, remembered.
 *
 * A set is all a parser may be in the midst of: states that read something next, each with the pile of stacks
 * to go on with behind its rule, and whether the text may be over.  Equal sets have one number, and what a
 * byte makes of a set is worked out once: a table that grows while it is used.  When it is full everything
 * but the set of now is forgotten.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_STATE_H
#define TERN_COORDINATOR_GRAMMAR_STATE_H

#include "coordinator/grammar.h"
#include "coordinator/grammar_machine.h"
#include "coordinator/grammar_stacks.h"
#include "coordinator/grammar_vocab.h"
#include "engine/base/limits.h"

#define GRAMMAR_MASKS     16                  /* remembered */
#define GRAMMAR_MAX_ENDS  4                   /* see grammar_also_ends */
#define GRAMMAR_STEP_WORK ((uint64_t)4 << 20) /* edges, frames and places looked at for one token */

/* What grammar_step returns beside sets. */
#define GRAMMAR_DEAD  (UINT32_MAX - 1) /* nothing matches */
#define GRAMMAR_STUCK UINT32_MAX       /* stacks.trouble says why */

struct grammar_place {
    uint32_t state;
    uint32_t point; /* not 0: within a character, behind which it goes on in `state` */
    uint32_t pile;
};

struct grammar_set {
    uint32_t first, n; /* places, by ascending state and point */
    uint32_t mask;     /* which of masks is its own, + 1; 0: none */
    bool whole;        /* the text may be over */
};

struct grammar_part {
    uint32_t back; /* GRAMMAR_NONE: all of a pile */
    uint32_t pile; /* else what is below this frame */
    uint32_t next; /* of the same state, + 1 */
};

struct grammar_pair {
    uint32_t state, pile, round;
};

struct grammar_state {
    const struct grammar *g;       /* held */
    const struct grammar_vocab *v; /* borrowed */
    struct grammar_stacks stacks;
    uint32_t now; /* set */

    struct grammar_set *sets;
    uint32_t n_sets, max_sets;
    uint32_t *next;   /* [max_sets][n_sorts] set + 2, 1: dead, 0: not known yet */
    uint32_t *bucket; /* [2 * max_sets] set + 1 by hash */
    struct grammar_place *places;
    uint32_t n_places, max_places;

    uint32_t *parts_of;         /* [n_states + 1] the last part + 1, during a step; else all 0 */
    struct grammar_part *parts; /* [max_parts] of the piles states get */
    uint32_t n_parts, max_parts;
    uint32_t *heap;                /* [n_states + 1] states to look at, the lowest first */
    struct grammar_place *partial; /* [max_places] places within characters, of the set being made */
    struct grammar_pair *seen;     /* by hash; of an earlier round: free */
    struct grammar_pair *todo;
    uint32_t n_heap, n_partial, n_seen, n_todo, round;

    uint64_t *masks; /* [GRAMMAR_MASKS + 1][n_words], the last one all zero */
    uint32_t mask_set[GRAMMAR_MASKS];
    uint64_t mask_used[GRAMMAR_MASKS], n_used; /* when */
    uint32_t path[TERN_MAX_TOKEN_BYTES + 1];   /* sets along a branch of the vocabulary */
    int32_t also_ends[GRAMMAR_MAX_ENDS];
    uint32_t n_also_ends;
};

/* The set behind a byte of this sort. */
uint32_t grammar_step(struct grammar_state *s, uint32_t set, uint8_t sort);

/* Forgets all sets but s->now. */
void grammar_forget(struct grammar_state *s);

/* From s->now, which is a set, over n bytes; forgets when it must. */
uint32_t grammar_walk(struct grammar_state *s, const uint8_t *bytes, size_t n);

#endif
