/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading GBNF, llama.cpp's notation (grammars/README.md there):
 *
 *   name ::= alternatives              names of letters, digits, - and _; "root" is the whole
 *   "text" [a-z] [^\n] .  name  (...)  \n \r \t \\ \" \[ \] \xNN \uNNNN \UNNNNNNNN
 *   x* x+ x? x{m} x{m,} x{m,n} x{,n}   a text counts as one thing
 *   # to the end of the line
 *
 * A rule ends with its line, except inside parentheses, behind ::= and behind |.  Differences: a rule defined
 * twice, a range from high to low and an empty class are refused, and so are tokens (<think>, <[12]>).
 */
#include "coordinator/grammar.h"
#include "coordinator/grammar_rules.h"
#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    struct grammar_rules *r;
    const char *text, *at, *end;
    uint32_t depth; /* open parentheses */
    struct grammar_range *ranges;
    uint32_t n_ranges, cap_ranges; /* of the class being read */
    struct tern_err *err;
};

void grammar_place(const char *text, const char *at, uint32_t *line, uint32_t *column)
{
    *line = *column = 1;
    for (const char *c = text; c < at; c++) {
        if (*c == '\n') {
            ++*line;
            *column = 1;
        } else if (((uint8_t)*c & 0xc0) != 0x80) {
            ++*column;
        }
    }
}

static enum tern_status wrong(const struct reader *p, const char *at, enum tern_status status,
                              const char *what)
{
    uint32_t line, column;

    grammar_place(p->text, at, &line, &column);
    return TERN_FAIL(p->err, status, "grammar: line %u, column %u: %s", (unsigned)line, (unsigned)column,
                     what);
}

static enum tern_status bad(const struct reader *p, const char *what)
{
    return wrong(p, p->at, TERN_ERR_FORMAT, what);
}

static bool next_is(const struct reader *p, char c)
{
    return p->at < p->end && *p->at == c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '_';
}

/* Blanks and comments, and whole lines when they may end here. */
static void skip(struct reader *p, bool lines)
{
    for (; p->at < p->end; p->at++) {
        if (*p->at == '#')
            while (p->at < p->end && *p->at != '\n' && *p->at != '\r')
                p->at++;
        if (p->at == p->end)
            return;
        if (*p->at != ' ' && *p->at != '\t' && (!lines || (*p->at != '\n' && *p->at != '\r')))
            return;
    }
}

/* -- tree ------------------------------------------------------------------------------------------------ */

static enum tern_status add_node(struct reader *p, enum grammar_kind kind, uint32_t value, uint32_t first,
                                 uint32_t *out)
{
    struct grammar_rules *r = p->r;
    enum tern_status st = grammar_grow(&r->nodes, r->n_nodes, &r->cap_nodes, sizeof *r->nodes, p->err);

    if (st)
        return st;
    r->nodes[r->n_nodes] = (struct grammar_node){ kind, value, 0, first, GRAMMAR_NONE };
    *out = r->n_nodes++;
    return TERN_OK;
}

/* Behind the last child, or as the first one. */
static void append(struct reader *p, uint32_t parent, uint32_t *last, uint32_t node)
{
    if (*last == GRAMMAR_NONE)
        p->r->nodes[parent].first = node;
    else
        p->r->nodes[*last].next = node;
    *last = node;
}

static enum tern_status find_rule(struct reader *p, struct tern_str name, uint32_t *out)
{
    struct grammar_rules *r = p->r;
    uint32_t hash = 2166136261u, *bucket;
    enum tern_status st;

    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (uint8_t)name.ptr[i]) * 16777619u;
    bucket = &r->rule_bucket[(hash ^ hash >> 13) % (sizeof r->rule_bucket / sizeof r->rule_bucket[0])];
    for (uint32_t i = *bucket; i; i = r->rules[i - 1].next)
        if (tern_str_eq(r->rules[i - 1].name, name)) {
            *out = i - 1;
            return TERN_OK;
        }
    if ((st = grammar_grow(&r->rules, r->n_rules, &r->cap_rules, sizeof *r->rules, p->err)))
        return st;
    r->rules[r->n_rules] = (struct grammar_rule){ .name = name, .body = GRAMMAR_NONE, .next = *bucket };
    *out = r->n_rules;
    *bucket = ++r->n_rules;
    return TERN_OK;
}

static struct tern_str take_name(struct reader *p)
{
    struct tern_str name = { p->at, 0 };

    while (p->at < p->end && is_name(*p->at))
        p->at++;
    name.len = (size_t)(p->at - name.ptr);
    return name;
}

/* -- characters ------------------------------------------------------------------------------------------ */

static enum tern_status take_hex(struct reader *p, int n, uint32_t *out)
{
    uint32_t v = 0;

    for (int i = 0; i < n; i++, p->at++) {
        char c = p->at < p->end ? *p->at : '\0';

        if (is_digit(c))
            v = v << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            v = v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return bad(p, "\\x takes 2 hexadecimal digits, \\u 4 and \\U 8");
    }
    if (v > GRAMMAR_MAX_CODE)
        return bad(p, "there are no characters above U+10FFFF");
    *out = v;
    return TERN_OK;
}

static enum tern_status take_escape(struct reader *p, uint32_t *out)
{
    static const char from[] = "nrt\\\"[]", to[] = "\n\r\t\\\"[]";
    char c = p->at < p->end ? *p->at : '\0';
    const char *hit = c ? strchr(from, c) : NULL;

    if (hit) {
        p->at++;
        *out = (uint32_t)(uint8_t)to[hit - from];
        return TERN_OK;
    }
    if (c != 'x' && c != 'u' && c != 'U')
        return bad(p, "no such escape; there are \\n \\r \\t \\\\ \\\" \\[ \\] \\xNN \\uNNNN \\UNNNNNNNN");
    p->at++;
    return take_hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
}

static enum tern_status take_char(struct reader *p, uint32_t *out)
{
    size_t len;
    int32_t code;

    if (next_is(p, '\\')) {
        p->at++;
        return take_escape(p, out);
    }
    code = tern_utf8_sequence((const uint8_t *)p->at, (size_t)(p->end - p->at), &len);
    if (code <= 0)
        return bad(p, "the text is not valid UTF-8");
    p->at += len;
    *out = (uint32_t)code - 1;
    return TERN_OK;
}

static enum tern_status add_char(struct reader *p, struct grammar_range range)
{
    enum tern_status st = grammar_grow(&p->ranges, p->n_ranges, &p->cap_ranges, sizeof *p->ranges, p->err);

    if (!st)
        p->ranges[p->n_ranges++] = range;
    return st;
}

/* The ranges read become a class, and that a node. */
static enum tern_status class_node(struct reader *p, bool negated, uint32_t *out)
{
    uint32_t class;
    enum tern_status st = grammar_add_class(p->r, p->ranges, p->n_ranges, negated, &class, p->err);

    p->n_ranges = 0;
    return st ? st : add_node(p, GRAMMAR_CLASS, class, GRAMMAR_NONE, out);
}

static enum tern_status take_text(struct reader *p, uint32_t *out)
{
    const char *open = p->at++;
    uint32_t last = GRAMMAR_NONE, node, code;
    enum tern_status st = add_node(p, GRAMMAR_SEQ, 0, GRAMMAR_NONE, out);

    while (!st && !next_is(p, '"')) {
        if (p->at == p->end)
            return wrong(p, open, TERN_ERR_FORMAT, "the text that begins here has no end");
        if ((st = take_char(p, &code)))
            return st;
        if (code >= 0xd800 && code <= 0xdfff)
            return bad(p, "a surrogate is not a character; write it as one \\UNNNNNNNN");
        p->n_ranges = 0;
        if ((st = add_char(p, (struct grammar_range){ code, code })) || (st = class_node(p, false, &node)))
            return st;
        append(p, *out, &last, node);
    }
    p->at++;
    return st;
}

static enum tern_status take_class(struct reader *p, uint32_t *out)
{
    const char *open = p->at++;
    bool negated = next_is(p, '^');
    struct grammar_range range;
    enum tern_status st;

    p->at += negated;
    p->n_ranges = 0;
    if (!negated && next_is(p, ']'))
        return bad(p, "an empty class matches nothing");
    while (!next_is(p, ']')) {
        if (p->at == p->end)
            return wrong(p, open, TERN_ERR_FORMAT, "the class that begins here has no end");
        if ((st = take_char(p, &range.lo)))
            return st;
        range.hi = range.lo;
        if (p->end - p->at >= 2 && p->at[0] == '-' && p->at[1] != ']') {
            p->at++;
            if ((st = take_char(p, &range.hi)))
                return st;
        }
        if (range.lo > range.hi)
            return bad(p, "a range goes from the lower character to the higher one");
        if ((st = add_char(p, range)))
            return st;
    }
    p->at++;
    return class_node(p, negated, out);
}

/* -- sequences ------------------------------------------------------------------------------------------- */

static enum tern_status take_alternatives(struct reader *p, uint32_t *out);

static enum tern_status take_group(struct reader *p, uint32_t *out)
{
    const char *open = p->at++;
    enum tern_status st;

    if (p->depth == GRAMMAR_MAX_NESTING)
        return wrong(p, open, TERN_ERR_LIMIT, "parentheses are nested too deeply (128 at most)");
    p->depth++;
    skip(p, true);
    if ((st = take_alternatives(p, out)))
        return st;
    p->depth--;
    if (!next_is(p, ')'))
        return p->at == p->end ? wrong(p, open, TERN_ERR_FORMAT, "this parenthesis is never closed")
                               : bad(p, "expected an element, | or )");
    p->at++;
    return TERN_OK;
}

static enum tern_status take_name_used(struct reader *p, uint32_t *out)
{
    uint32_t rule;
    enum tern_status st = find_rule(p, take_name(p), &rule);

    return st ? st : add_node(p, GRAMMAR_RULE, rule, GRAMMAR_NONE, out);
}

static enum tern_status take_any(struct reader *p, uint32_t *out)
{
    p->at++;
    p->n_ranges = 0;
    return class_node(p, true, out);
}

/* TERN_END: no element begins here. */
static enum tern_status take_element(struct reader *p, uint32_t *out)
{
    char c = p->at < p->end ? *p->at : '\0';

    switch (c) {
    case '"': return take_text(p, out);
    case '[': return take_class(p, out);
    case '(': return take_group(p, out);
    case '.': return take_any(p, out);
    case '<':
    case '!':
        return wrong(p, p->at, TERN_ERR_UNSUPPORTED, "tokens in a grammar are not supported; write text");
    case '*':
    case '+':
    case '?':
    case '{': return bad(p, "there is nothing in front of it to repeat");
    default: return is_name(c) ? take_name_used(p, out) : TERN_END;
    }
}

static enum tern_status take_number(struct reader *p, uint32_t *out)
{
    uint32_t v = 0;

    if (p->at == p->end || !is_digit(*p->at))
        return bad(p, "expected a number");
    for (; p->at < p->end && is_digit(*p->at); p->at++) {
        v = v * 10 + (uint32_t)(*p->at - '0');
        if (v > GRAMMAR_MAX_REPEAT)
            return wrong(p, p->at, TERN_ERR_LIMIT, "more than 65536 repetitions");
    }
    *out = v;
    return TERN_OK;
}

/* {m} {m,} {m,n} {,n}, from behind the brace. */
static enum tern_status take_counts(struct reader *p, uint32_t *min, uint32_t *max)
{
    enum tern_status st;

    skip(p, false);
    *min = 0;
    if (!next_is(p, ',') && (st = take_number(p, min)))
        return st;
    *max = *min;
    skip(p, false);
    if (next_is(p, ',')) {
        p->at++;
        skip(p, false);
        *max = GRAMMAR_NONE;
        if (!next_is(p, '}') && (st = take_number(p, max)))
            return st;
        skip(p, false);
    }
    if (!next_is(p, '}'))
        return bad(p, "expected , or }");
    if (*max < *min)
        return bad(p, "the second number is smaller than the first");
    p->at++;
    return TERN_OK;
}

/* The operators behind an element, which wrap it one by one. */
static enum tern_status take_repeats(struct reader *p, uint32_t *node)
{
    for (int n = 0;; n++) {
        char c = p->at < p->end ? *p->at : '\0';
        uint32_t min = c == '+', max = c == '?' ? 1 : GRAMMAR_NONE;
        enum tern_status st = TERN_OK;

        if (c != '*' && c != '+' && c != '?' && c != '{')
            return TERN_OK;
        if (n == GRAMMAR_MAX_SUFFIX)
            return wrong(p, p->at, TERN_ERR_LIMIT, "more than 8 repetitions of each other");
        p->at++;
        if ((c == '{' && (st = take_counts(p, &min, &max))) ||
            (st = add_node(p, GRAMMAR_REPEAT, min, *node, node)))
            return st;
        p->r->nodes[*node].max = max;
        skip(p, p->depth > 0);
    }
}

static enum tern_status take_sequence(struct reader *p, uint32_t *out)
{
    uint32_t last = GRAMMAR_NONE, node;
    enum tern_status st = add_node(p, GRAMMAR_SEQ, 0, GRAMMAR_NONE, out);

    while (!st) {
        if ((st = take_element(p, &node)))
            return st == TERN_END ? TERN_OK : st;
        skip(p, p->depth > 0);
        if ((st = take_repeats(p, &node)))
            return st;
        append(p, *out, &last, node);
    }
    return st;
}

static enum tern_status take_alternatives(struct reader *p, uint32_t *out)
{
    uint32_t last = GRAMMAR_NONE, node;
    enum tern_status st = add_node(p, GRAMMAR_ALT, 0, GRAMMAR_NONE, out);

    while (!st && !(st = take_sequence(p, &node))) {
        append(p, *out, &last, node);
        if (!next_is(p, '|'))
            break;
        p->at++;
        skip(p, true);
    }
    return st;
}

/* -- rules ----------------------------------------------------------------------------------------------- */

static enum tern_status take_rule(struct reader *p)
{
    const char *at = p->at;
    struct tern_str name = take_name(p);
    uint32_t rule, body;
    enum tern_status st;

    if (name.len == 0)
        return bad(p, next_is(p, '|') ? "a rule goes on in the next line behind | or in parentheses only"
                                      : "expected the name of a rule");
    skip(p, false);
    if (p->end - p->at < 3 || memcmp(p->at, "::=", 3) != 0)
        return bad(p, "expected ::= behind the rule's name");
    p->at += 3;
    skip(p, true);
    if ((st = find_rule(p, name, &rule)))
        return st;
    if (p->r->rules[rule].body != GRAMMAR_NONE)
        return wrong(p, at, TERN_ERR_FORMAT, "this rule is defined already");
    if ((st = take_alternatives(p, &body)))
        return st;
    p->r->rules[rule].body = body;
    p->r->rules[rule].name = name;
    if (p->at < p->end && *p->at != '\n' && *p->at != '\r')
        return bad(p, *p->at == ')' ? "no parenthesis is open" : "expected an element, | or the line's end");
    return TERN_OK;
}

/* What is named must be defined. */
static enum tern_status finish(struct reader *p)
{
    const struct tern_str root = { "root", 4 };
    uint32_t rule;
    enum tern_status st;

    for (uint32_t i = 0; i < p->r->n_rules; i++) {
        const struct grammar_rule *r = &p->r->rules[i];
        uint32_t line, column;

        if (r->body != GRAMMAR_NONE)
            continue;
        grammar_place(p->text, r->name.ptr, &line, &column);
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "grammar: line %u, column %u: the rule '%.*s' is not defined", (unsigned)line,
                         (unsigned)column, TERN_STR_ARGS(r->name));
    }
    if ((st = find_rule(p, root, &rule)))
        return st;
    if (p->r->rules[rule].body == GRAMMAR_NONE)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "grammar: there is no rule 'root', which is what the whole text must be");
    return TERN_OK;
}

enum tern_status grammar_read(struct grammar_rules *r, const char *text, size_t len, struct tern_err *err)
{
    struct reader p = { .r = r, .text = text, .at = text, .end = text + len, .err = err };
    enum tern_status st = TERN_OK;

    memset(r, 0, sizeof *r);
    if (len > GRAMMAR_MAX_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "grammar: %zu bytes, at most %zu", len, GRAMMAR_MAX_BYTES);
    skip(&p, true);
    while (!st && p.at < p.end) {
        st = take_rule(&p);
        skip(&p, true);
    }
    if (!st)
        st = finish(&p);
    free(p.ranges);
    return st;
}
