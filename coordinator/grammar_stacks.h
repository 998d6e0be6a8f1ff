/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of stacks: where a parser goes on when the rule it is in is over, for all readings of a text at once.
 *
 * A pile is a set of stacks, kept as its possible top frames, each with the pile below it; frames with the
 * same state are one, equal piles are one.  So a pile has one number, however it came about, and piles of
 * exponentially many stacks stay small.
 *
 * No allocation after creation; what is full or takes too much work says so in `trouble` and returns
 * GRAMMAR_NONE.  Thread: the state's.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_STACKS_H
#define TERN_COORDINATOR_GRAMMAR_STACKS_H

#include "coordinator/grammar_rules.h"

enum grammar_trouble {
    GRAMMAR_FINE,
    GRAMMAR_FULL, /* no room: may help to forget what is not needed */
    GRAMMAR_WORK, /* one step would take too long */
};

struct grammar_frame {
    uint32_t back;  /* state to go on in */
    uint32_t below; /* pile; GRAMMAR_NONE below the bottom */
};

struct grammar_stacks {
    struct grammar_frame *frames; /* those of pile i, by ascending state: first[i] .. first[i + 1] */
    uint32_t *first;
    uint32_t n_piles;
    uint32_t *bucket;              /* pile + 1 by hash */
    uint32_t *moved;               /* [piles] for grammar_stacks_collect */
    struct grammar_frame *scratch; /* frames of the joins under way */
    uint32_t n_scratch;
    struct grammar_join {
        uint32_t a, b, joined;
    } * joins;     /* the last ones, by hash; a = b: none */
    uint64_t work; /* what is left of it */
    enum grammar_trouble trouble;
};

/* With one pile, number 0: a single stack of the frame (bottom, GRAMMAR_NONE). */
enum tern_status grammar_stacks_init(struct grammar_stacks *s, uint32_t bottom,
                                     struct tern_err *err) TERN_MUST_CHECK;
void grammar_stacks_fini(struct grammar_stacks *s);

/* A pile of many parts, which are put on the scratch one by one (false: trouble) and then made one. */
bool grammar_stacks_put_frame(struct grammar_stacks *s, uint32_t back, uint32_t below);
bool grammar_stacks_put_pile(struct grammar_stacks *s, uint32_t pile);
uint32_t grammar_stacks_make(struct grammar_stacks *s);

/* The stacks of both. */
uint32_t grammar_stacks_join(struct grammar_stacks *s, uint32_t a, uint32_t b);

/* Forgets all piles but those marked and what is below them; afterwards pile i is s->moved[i]. */
void grammar_stacks_unmark(struct grammar_stacks *s);
void grammar_stacks_mark(struct grammar_stacks *s, uint32_t pile);
void grammar_stacks_collect(struct grammar_stacks *s);

/* Takes n from the work that is left; false: there was not so much. */
static inline bool grammar_stacks_work(struct grammar_stacks *s, uint64_t n)
{
    if (s->work < n) {
        s->trouble = GRAMMAR_WORK;
        return false;
    }
    s->work -= n;
    return true;
}

#endif
