/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A grammar as it was written: rules that are trees of classes, rules, sequences, alternatives, repetitions.
 *
 * What grammar_gbnf.c reads and grammar_compile.c makes an automaton of.  Every array is bounded: a text of
 * GRAMMAR_MAX_BYTES has no more nodes than bytes.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_RULES_H
#define TERN_COORDINATOR_GRAMMAR_RULES_H

#include "engine/base/cursor.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define GRAMMAR_NONE        UINT32_MAX
#define GRAMMAR_MAX_NESTING 128   /* parentheses in each other */
#define GRAMMAR_MAX_CLASSES 8192  /* different sets of characters */
#define GRAMMAR_MAX_REPEAT  65536 /* a number in braces */
#define GRAMMAR_MAX_SUFFIX  8     /* repetitions of repetitions, as in x{2}{3}? */
#define GRAMMAR_MAX_CODE    0x10ffffu

enum grammar_kind {
    GRAMMAR_CLASS,  /* one code point out of class `value` */
    GRAMMAR_RULE,   /* what rule `value` is */
    GRAMMAR_SEQ,    /* the children one behind the other; none of them: nothing */
    GRAMMAR_ALT,    /* one of the children */
    GRAMMAR_REPEAT, /* the child, min to max times (GRAMMAR_NONE: without end) */
};

struct grammar_node {
    enum grammar_kind kind;
    uint32_t value;       /* class or rule; REPEAT: min */
    uint32_t max;         /* REPEAT */
    uint32_t first, next; /* child; sibling, or GRAMMAR_NONE */
};

struct grammar_range {
    uint32_t lo, hi; /* code points, both in it */
};

struct grammar_rule {
    struct tern_str name; /* in the text, where the rule is defined or else first named */
    uint32_t body;        /* node, or GRAMMAR_NONE while nobody has defined it */
    uint32_t next;        /* in its bucket */
};

struct grammar_rules {
    struct grammar_node *nodes;
    struct grammar_rule *rules;
    struct grammar_range *ranges; /* of all classes: sorted, each of one length in UTF-8 */
    uint32_t n_nodes, cap_nodes, n_rules, cap_rules, n_ranges, cap_ranges;
    uint32_t class_first[GRAMMAR_MAX_CLASSES + 1]; /* class i: ranges class_first[i] .. class_first[i + 1] */
    uint32_t n_classes;
    uint32_t class_bucket[2 * GRAMMAR_MAX_CLASSES]; /* class + 1 by its hash, 0: free */
    uint32_t rule_bucket[4096];                     /* the first rule + 1 */
};

/* Room for one more of size bytes behind the n there are. */
enum tern_status grammar_grow(void *items, uint32_t n, uint32_t *cap, size_t size,
                              struct tern_err *err) TERN_MUST_CHECK;

/* ranges [n] in any order, which is changed; the class with these code points, or without them. */
enum tern_status grammar_add_class(struct grammar_rules *r, struct grammar_range *ranges, uint32_t n,
                                   bool negated, uint32_t *out, struct tern_err *err) TERN_MUST_CHECK;

/* Where `at` stands in its text: lines and columns, in characters, count from 1. */
void grammar_place(const char *text, const char *at, uint32_t *line, uint32_t *column);

/* GBNF to rules; names stay in the text.  On failure, too, *r is to be freed. */
enum tern_status grammar_read(struct grammar_rules *r, const char *text, size_t len,
                              struct tern_err *err) TERN_MUST_CHECK;
void grammar_rules_free(struct grammar_rules *r);

#endif
