/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random grammars, their GBNF, and a recogniser by another hand: it follows the tree over all positions of a
 * whole text, and knows no states, stacks or bytes of classes.
 *
 * A rule begins with rules of higher numbers only, and has an alternative without any: so nothing is left
 * recursive, and whatever is begun can be ended.
 */
#ifndef TERN_TESTS_UNIT_GRAMMAR_REFERENCE_H
#define TERN_TESTS_UNIT_GRAMMAR_REFERENCE_H

#include "unit/unit.h"

#include "engine/utf8.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define REF_NODES 400
#define REF_RULES 5
#define REF_TEXT  63 /* code points: positions are bits */

enum ref_kind { REF_CLASS, REF_RULE, REF_SEQ, REF_ALT, REF_REPEAT };

struct ref_node {
    enum ref_kind kind;
    int value; /* class, or rule */
    int min, max;
    int child[4], n;
};

/* What characters there are: the class's GBNF and its ranges. */
static const struct ref_class {
    const char *gbnf;
    uint32_t ranges[4][2];
} ref_classes[] = {
    { "\"a\"", { { 'a', 'a' } } },
    { "[ab]", { { 'a', 'b' } } },
    { "[b-d]", { { 'b', 'd' } } },
    { "\"\\n\"", { { '\n', '\n' } } },
    { "[^a]", { { 0, 'a' - 1 }, { 'b', 0xd7ff }, { 0xe000, 0x10ffff } } },
    { ".", { { 0, 0xd7ff }, { 0xe000, 0x10ffff } } },
    { "[^\"\\\\\\x00-\\x1f\\x7f]",
      { { ' ', '!' }, { '#', '[' }, { ']', '~' }, { 0x80, 0xd7ff } } }, /* and all above: below */
    { "\"\\u00e9\"", { { 0xe9, 0xe9 } } },
    { "[\xc3\xa0-\xc3\xbf]", { { 0xe0, 0xff } } },
    { "[\\u0100-\\U00010FFF]", { { 0x100, 0xd7ff }, { 0xe000, 0x10fff } } },
    { "[^\\ud123\\U0010ffff]", { { 0, 0xd122 }, { 0xd124, 0xd7ff }, { 0xe000, 0x10fffe } } },
    { "[\\U0001F600-\\U0001F64F0-9]", { { 0x1f600, 0x1f64f }, { '0', '9' } } },
};
#define REF_CLASSES ((int)(sizeof ref_classes / sizeof ref_classes[0]))
#define REF_JSON    6 /* of these */

struct ref {
    struct ref_node nodes[REF_NODES];
    int n_nodes, rule[REF_RULES];
    uint64_t seed;
    /* the text */
    uint32_t text[REF_TEXT];
    int n;
    bool cut;        /* it ends within a character, */
    uint32_t lo, hi; /* ... which is one of these */
    bool open;       /* something could be read at its end */
    bool known[REF_RULES][REF_TEXT + 1];
    uint64_t ends[REF_RULES][REF_TEXT + 1];
};

static inline int ref_random(struct ref *r, int n)
{
    return (int)(unit_random(&r->seed) % (uint64_t)n);
}

/* -- making one ------------------------------------------------------------------------------------------ */

static inline int ref_add(struct ref *r, struct ref_node n)
{
    assert_true(r->n_nodes < REF_NODES);
    r->nodes[r->n_nodes] = n;
    return r->n_nodes++;
}

static inline int ref_class(struct ref *r)
{
    return ref_add(r, (struct ref_node){ .kind = REF_CLASS, .value = ref_random(r, REF_CLASSES) });
}

/* least: the lowest rule that may be named where nothing was read yet; REF_RULES: none. */
static inline int ref_make(struct ref *r, int depth, int least)
{
    const int kind = depth > 0 ? ref_random(r, 10) : 0;
    struct ref_node n = { .kind = REF_SEQ };

    if (kind < 3)
        return ref_class(r);
    if (kind < 5 && least < REF_RULES)
        return ref_add(
            r, (struct ref_node){ .kind = REF_RULE, .value = least + ref_random(r, REF_RULES - least) });
    if (kind < 6) { /* read something, then any rule */
        n.n = 2;
        n.child[0] = ref_class(r);
        n.child[1] = ref_make(r, depth - 1, 0);
    } else if (kind < 8) {
        n.kind = REF_ALT;
        n.n = 1 + ref_random(r, 3);
        for (int i = 0; i < n.n; i++)
            n.child[i] = ref_make(r, depth - 1, i == 0 ? REF_RULES : least);
    } else if (kind < 9) {
        n.kind = REF_REPEAT;
        n.min = ref_random(r, 3);
        n.max = ref_random(r, 2) ? -1 : n.min + ref_random(r, 3);
        n.n = 1;
        n.child[0] = ref_make(r, depth - 1, least);
    } else {
        n.n = ref_random(r, 4);
        for (int i = 0; i < n.n; i++)
            n.child[i] = ref_make(r, depth - 1, least);
    }
    return ref_add(r, n);
}

/* A rule that can always end: something without rules, or anything. */
static inline void ref_new(struct ref *r, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    for (int i = 0; i < REF_RULES; i++) {
        struct ref_node n = { .kind = REF_ALT, .n = 2 };

        n.child[0] = ref_class(r);
        n.child[1] = ref_make(r, 3, i + 1);
        r->rule[i] = ref_add(r, n);
    }
}

static inline int ref_print(const struct ref *r, int node, char *out)
{
    const struct ref_node *n = &r->nodes[node];
    int len = 0;

    switch (n->kind) {
    case REF_CLASS: return sprintf(out, "%s ", ref_classes[n->value].gbnf);
    case REF_RULE: return n->value ? sprintf(out, "r%d ", n->value) : sprintf(out, "root ");
    default: break;
    }
    len += sprintf(out + len, "(");
    for (int i = 0; i < n->n; i++) {
        if (i > 0 && n->kind == REF_ALT)
            len += sprintf(out + len, "| ");
        len += ref_print(r, n->child[i], out + len);
    }
    len += sprintf(out + len, ")");
    if (n->kind == REF_REPEAT)
        len += n->max < 0         ? sprintf(out + len, n->min ? "{%d,}" : "*", n->min)
               : n->min == n->max ? sprintf(out + len, "{%d}", n->min)
                                  : sprintf(out + len, "{%d,%d}", n->min, n->max);
    return len + sprintf(out + len, " ");
}

static inline void ref_gbnf(const struct ref *r, char *out)
{
    for (int i = 0; i < REF_RULES; i++) {
        out += i ? sprintf(out, "r%d ::= ", i) : sprintf(out, "root ::= ");
        out += ref_print(r, r->rule[i], out);
        out += sprintf(out, "\n");
    }
}

/* -- following one --------------------------------------------------------------------------------------- */

static inline bool ref_has(int class, uint32_t lo, uint32_t hi)
{
    for (int i = 0; i < 4; i++) {
        const uint32_t *range = ref_classes[class].ranges[i];

        if (range[1] && lo <= range[1] && hi >= range[0])
            return true;
    }
    return class == REF_JSON && hi >= 0xe000;
}

/* Where a node can end that begins at i: a bit for each position. */
static inline uint64_t ref_ends(struct ref *r, int node, int i)
{
    const struct ref_node *n = &r->nodes[node];
    uint64_t from = UINT64_C(1) << i, out = 0;

    if (n->kind == REF_CLASS) {
        if (i < r->n)
            return ref_has(n->value, r->text[i], r->text[i]) ? UINT64_C(2) << i : 0;
        r->open |= r->cut ? r->lo <= r->hi && ref_has(n->value, r->lo, r->hi) : true;
        return 0;
    }
    if (n->kind == REF_RULE) {
        if (!r->known[n->value][i]) {
            r->ends[n->value][i] = ref_ends(r, r->rule[n->value], i);
            r->known[n->value][i] = true;
        }
        return r->ends[n->value][i];
    }
    if (n->kind == REF_ALT) {
        for (int c = 0; c < n->n; c++)
            out |= ref_ends(r, n->child[c], i);
        return out;
    }
    for (int c = 0; n->kind == REF_SEQ ? c < n->n : n->max < 0 ? c <= n->min + r->n + 1 : c <= n->max; c++) {
        uint64_t to = 0;

        if (n->kind == REF_REPEAT && c >= n->min)
            out |= from;
        if (n->kind == REF_REPEAT && c == n->max)
            break;
        for (int p = i; p <= r->n; p++)
            if (from >> p & 1)
                to |= ref_ends(r, n->child[n->kind == REF_SEQ ? c : 0], p);
        from = to;
    }
    return n->kind == REF_SEQ ? from : out;
}

/* The characters that a beginning of a sequence can become. */
static inline void ref_cut(struct ref *r, const uint8_t *b, size_t n)
{
    const int left = b[0] >= 0xf0 ? 3 : b[0] >= 0xe0 ? 2 : 1;
    uint32_t v = b[0] & (0x3f >> left);
    const uint32_t least = left == 1 ? 0x80 : left == 2 ? 0x800 : 0x10000;

    for (size_t i = 1; i < n; i++)
        v = v << 6 | (b[i] & 0x3f);
    r->lo = v << 6 * (left - (int)n + 1);
    r->hi = r->lo + (1u << 6 * (left - (int)n + 1)) - 1;
    r->lo = r->lo < least ? least : r->lo;
    r->hi = r->hi > 0x10ffff ? 0x10ffff : r->hi;
    if (r->hi >= 0xd800 && r->hi <= 0xdfff)
        r->hi = 0xd7ff;
    r->cut = true;
}

/* The text can become a word: true; *whole: it is one.  Longer ones than REF_TEXT: false. */
static inline bool ref_match(struct ref *r, const uint8_t *text, size_t len, bool *whole)
{
    uint64_t ends;

    r->n = 0;
    r->cut = r->open = false;
    memset(r->known, 0, sizeof r->known);
    for (size_t at = 0, n; at < len; at += n) {
        const int32_t code = tern_utf8_sequence(text + at, len - at, &n);

        *whole = false;
        if (code == 0 || r->n == REF_TEXT)
            return false;
        if (code < 0)
            ref_cut(r, text + at, n);
        else
            r->text[r->n++] = (uint32_t)code - 1;
    }
    ends = ref_ends(r, r->rule[0], 0);
    *whole = !r->cut && (ends >> r->n & 1);
    return *whole || r->open;
}

#endif
