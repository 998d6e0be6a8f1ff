/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings of a schema: lengths, formats, and regular expressions: see grammar_schema.h.
 *
 * Of ECMA-262's expressions: characters, . [a-z] [^a-z] \d \D \w \W \s \S \n \r \t \f \v \xNN \uNNNN
 * and escaped punctuation; (...) (?:...) |, * + ? {m} {m,} {m,n} and their lazy forms; ^ and $ at the ends
 * of the whole or of its alternatives, without which anything may stand there.  \D, \W and \S, and [^...]
 * with \d, \w or \s in it, stand for ASCII only, where all engines agree.  Quotes, backslashes and control
 * characters come as JSON's escapes.
 */
#include "coordinator/grammar_schema.h"

#include "coordinator/grammar_rules.h"
#include "engine/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 64  /* in each other */
#define MAX_RANGES 256 /* in a class */

struct pattern {
    struct schema_compiler *c;
    const char *at, *end;
    int depth;
};

struct class
{
    struct grammar_range r[MAX_RANGES];
    uint32_t n;
    bool negated, ascii; /* ascii: a negated one has nothing else */
};

static void bad(struct pattern *p, const char *what)
{
    schema_refuse(p->c, TERN_ERR_UNSUPPORTED, "pattern", what);
    p->at = p->end;
}

static bool next_is(const struct pattern *p, const char *text)
{
    const size_t n = strlen(text);

    return (size_t)(p->end - p->at) >= n && memcmp(p->at, text, n) == 0;
}

static bool take(struct pattern *p, const char *text)
{
    if (!next_is(p, text))
        return false;
    p->at += strlen(text);
    return true;
}

/* -- characters ------------------------------------------------------------------------------------------ */

/* How JSON writes what cannot stand in a string as it is, or NULL. */
static const char *escaped(uint32_t code)
{
    switch (code) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\f': return "\\f";
    case '\b': return "\\b";
    default: return NULL;
    }
}

static void put_char(struct pattern *p, uint32_t code)
{
    const char *e = escaped(code);
    char text[8];
    size_t n;

    if (e)
        n = (size_t)snprintf(text, sizeof text, "%s", e);
    else if (code < 0x20)
        n = (size_t)snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
    else
        n = tern_utf8_put(code, text);
    schema_put(p->c, "\"");
    schema_put_quoted(p->c, text, n);
    schema_put(p->c, "\"");
}

static void add_range(struct pattern *p, struct class *k, uint32_t lo, uint32_t hi)
{
    if (k->n == MAX_RANGES)
        bad(p, "a class with too many ranges");
    else if (lo > hi)
        bad(p, "a range goes from the lower character to the higher one");
    else
        k->r[k->n++] = (struct grammar_range){ lo, hi };
}

/* \d \w \s and their complements, in or outside a class. */
static void add_shorthand(struct pattern *p, struct class *k, char c)
{
    static const char *const sets[] = { "d09", "w09AZ__az", "s\t\r  " };
    const char lower = (char)(c | 0x20), *set = sets[lower == 'd' ? 0 : lower == 'w' ? 1 : 2] + 1;
    uint32_t from = 0;

    k->ascii = true;
    for (; *set; set += 2) {
        if (c == lower)
            add_range(p, k, (uint32_t)set[0], (uint32_t)set[1]);
        else if ((uint32_t)set[0] > from)
            add_range(p, k, from, (uint32_t)set[0] - 1);
        from = (uint32_t)set[1] + 1;
    }
    if (c != lower)
        add_range(p, k, from, 0x7e);
}

static uint32_t take_hex(struct pattern *p, int n)
{
    uint32_t v = 0;

    for (int i = 0; i < n; i++, p->at++) {
        const char *hit = p->at < p->end && *p->at ? strchr("0123456789abcdefABCDEF", *p->at) : NULL;

        if (!hit) {
            bad(p, "\\x takes 2 hexadecimal digits, and \\u 4");
            return 0;
        }
        v = v << 4 | (*hit <= '9' ? (uint32_t)(*hit - '0') : (uint32_t)((*hit | 0x20) - 'a' + 10));
    }
    if (v >= 0xd800 && v <= 0xdfff)
        bad(p, "escapes of surrogates are not supported; write the character");
    return v;
}

/* Behind a backslash.  False: it was a shorthand, which is in *k. */
static bool take_escape(struct pattern *p, struct class *k, uint32_t *code)
{
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v";
    const char c = p->at < p->end ? *p->at++ : '\0';
    const char *hit = c ? strchr(from, c) : NULL;

    if (c && strchr("dDwWsS", c)) {
        add_shorthand(p, k, c);
        return false;
    }
    if (hit)
        *code = (uint32_t)to[hit - from];
    else if (c == 'x' || c == 'u')
        *code = take_hex(p, c == 'x' ? 2 : 4);
    else if (c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
        *code = (uint32_t)c;
    else
        bad(p, "this escape is not supported");
    return true;
}

static uint32_t take_code(struct pattern *p)
{
    size_t len;
    const int32_t code = tern_utf8_sequence((const uint8_t *)p->at, (size_t)(p->end - p->at), &len);

    p->at += len;
    return code > 0 ? (uint32_t)code - 1 : 0xfffd;
}

/* -- classes --------------------------------------------------------------------------------------------- */

static bool has(const struct class *k, uint32_t code)
{
    bool in = false;

    for (uint32_t i = 0; i < k->n && !in; i++)
        in = code >= k->r[i].lo && code <= k->r[i].hi;
    return k->negated ? !in && (!k->ascii || code < 0x80) : in;
}

/* As GBNF writes any character in a class. */
static void put_code(struct pattern *p, uint32_t code)
{
    schema_put(p->c, code < 0x80 ? "\\x%02x" : "\\U%08x", (unsigned)code);
}

/* A range without what JSON escapes, which is told by has(). */
static void put_plain_range(struct pattern *p, uint32_t lo, uint32_t hi)
{
    static const struct grammar_range plain[] = {
        { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, 0x7e }, { 0x80, 0xd7ff }, { 0xe000, GRAMMAR_MAX_CODE }
    };

    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        const uint32_t a = lo > plain[i].lo ? lo : plain[i].lo, b = hi < plain[i].hi ? hi : plain[i].hi;

        if (a > b)
            continue;
        put_code(p, a);
        schema_put(p->c, "-");
        put_code(p, b);
    }
}

static void put_class(struct pattern *p, struct class *k)
{
    static const char specials[] = "\"\\\n\r\t\f\b";

    schema_put(p->c, "([");
    if (k->negated) { /* GBNF takes what is left out in any order */
        schema_put(p->c, "^\\x00-\\x1f\\x22\\x5c\\x7f%s", k->ascii ? "\\U00000080-\\U0010ffff" : "");
        for (uint32_t i = 0; i < k->n; i++) {
            put_code(p, k->r[i].lo);
            schema_put(p->c, "-");
            put_code(p, k->r[i].hi);
        }
    } else {
        schema_put(p->c, "\\U0000d800"); /* nothing, so that the class is never empty */
        for (uint32_t i = 0; i < k->n; i++)
            put_plain_range(p, k->r[i].lo, k->r[i].hi);
    }
    schema_put(p->c, "]");
    for (const char *s = specials; *s; s++)
        if (has(k, (uint32_t)*s)) {
            schema_put(p->c, " | ");
            put_char(p, (uint32_t)*s);
        }
    schema_put(p->c, ")");
}

static void take_class(struct pattern *p)
{
    struct class k = { .n = 0 };

    k.negated = take(p, "^");
    while (p->at < p->end && *p->at != ']') {
        uint32_t lo = 0, hi;

        if (take(p, "\\") ? !take_escape(p, &k, &lo) : (lo = take_code(p), false))
            continue;
        hi = lo;
        if (p->end - p->at >= 2 && p->at[0] == '-' && p->at[1] != ']') {
            p->at++;
            if (take(p, "\\") ? !take_escape(p, &k, &hi) : (hi = take_code(p), false)) {
                bad(p, "a range that ends in a class");
                return;
            }
        }
        add_range(p, &k, lo, hi);
    }
    if (!take(p, "]"))
        bad(p, "a class without an end");
    else
        put_class(p, &k);
}

/* -- expressions ----------------------------------------------------------------------------------------- */

static void take_alternatives(struct pattern *p);

static void take_group(struct pattern *p)
{
    if (next_is(p, "?") && !take(p, "?:")) {
        bad(p, "of groups with ? only (?:...) is supported");
        return;
    }
    if (++p->depth > MAX_GROUPS) {
        bad(p, "groups are nested too deeply");
        return;
    }
    schema_put(p->c, "(");
    take_alternatives(p);
    schema_put(p->c, ")");
    p->depth--;
    if (!take(p, ")"))
        bad(p, "a parenthesis that is never closed");
}

static void take_atom(struct pattern *p)
{
    struct class k = { .n = 0 };
    uint32_t code = 0;

    if (take(p, "(")) {
        take_group(p);
    } else if (take(p, "[")) {
        take_class(p);
    } else if (take(p, ".")) {
        k.negated = true;
        add_range(p, &k, '\n', '\n');
        add_range(p, &k, '\r', '\r');
        add_range(p, &k, 0x2028, 0x2029);
        put_class(p, &k);
    } else if (take(p, "\\")) {
        if (take_escape(p, &k, &code))
            put_char(p, code);
        else
            put_class(p, &k);
    } else if (strchr("^$*+?{", *p->at)) {
        bad(p, *p->at == '^' || *p->at == '$' ? "^ and $ are supported at the ends only"
                                              : "there is nothing in front of it to repeat");
    } else {
        put_char(p, take_code(p));
    }
}

static void take_quantifier(struct pattern *p)
{
    static const char digits[] = "0123456789";
    const char *open = p->at;

    if (take(p, "*") || take(p, "+") || take(p, "?")) {
        schema_put(p->c, "%c", *open);
    } else if (take(p, "{")) {
        const size_t m = strspn(p->at, digits), comma = m && p->at[m] == ',',
                     n = comma ? strspn(p->at + m + 1, digits) : 0;

        if (!m || p->at[m + comma + n] != '}') {
            bad(p, "expected {m}, {m,} or {m,n}");
            return;
        }
        if (m > 5 || n > 5 || (n && atoi(p->at) > atoi(p->at + m + 1))) {
            bad(p, "more than 99999 repetitions, or fewer than at least");
            return;
        }
        p->at += m + comma + n + 1;
        schema_put(p->c, "%.*s", (int)(p->at - open), open);
    } else {
        return;
    }
    (void)take(p, "?");
}

/* A sequence; one of the whole has anchors, or anything in their place. */
static void take_sequence(struct pattern *p)
{
    bool ends = false;

    if (p->depth == 0 && !take(p, "^"))
        schema_put(p->c, "char* ");
    while (p->at < p->end && *p->at != '|' && *p->at != ')') {
        if (p->depth == 0 && *p->at == '$' && (p->end - p->at == 1 || p->at[1] == '|')) {
            p->at++;
            ends = true;
            break;
        }
        take_atom(p);
        take_quantifier(p);
        schema_put(p->c, " ");
    }
    if (p->depth == 0 && !ends)
        schema_put(p->c, "char*");
}

static void take_alternatives(struct pattern *p)
{
    take_sequence(p);
    while (take(p, "|")) {
        schema_put(p->c, " | ");
        take_sequence(p);
    }
}

/* What the expression may match, in quotes, as JSON writes it. */
static void put_pattern(struct schema_compiler *c, const char *pattern, size_t len)
{
    struct pattern p = { .c = c, .at = pattern, .end = pattern + len };

    schema_put(c, "\"\\\"\" (");
    take_alternatives(&p);
    if (p.at < p.end)
        bad(&p, "a parenthesis that was never opened");
    schema_put(c, ") \"\\\"\"");
}

/* -- strings --------------------------------------------------------------------------------------------- */

#define DATE                                                                                                 \
    "[1-9] [0-9]{3} \"-\" ((\"0\" [13578] | \"1\" [02]) \"-\" (\"0\" [1-9] | [12] [0-9] | \"3\" [01]) | "    \
    "(\"0\" [469] | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") | "                                    \
    "\"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]))"
#define HOURS "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9]"
#define TIME  HOURS " \":\" [0-5] [0-9] (\".\" [0-9]{1,6})? (\"Z\" | [-+] " HOURS ")"

static const struct {
    const char *name, *rule;
} formats[] = {
    { "date", DATE },
    { "time", TIME },
    { "date-time", DATE " \"T\" " TIME },
    { "uuid", "hex{8} \"-\" hex{4} \"-\" hex{4} \"-\" hex{4} \"-\" hex{12}" },
    { "ipv4", "byte (\".\" byte){3}" },
    { "email", "[a-zA-Z0-9] [a-zA-Z0-9_+-]{0,30} (\".\" [a-zA-Z0-9_+-]{1,30})? \"@\" "
               "[a-zA-Z0-9] ([a-zA-Z0-9-]{0,30} [a-zA-Z0-9])? (\".\" [a-zA-Z] [a-zA-Z0-9]{1,20}){1,3}" },
};

static const char *format_of(const json_t *s)
{
    const char *name = json_string_value(json_object_get(s, "format"));

    for (size_t i = 0; name && i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(name, formats[i].name) == 0)
            return formats[i].rule;
    return NULL;
}

void schema_put_string(struct schema_compiler *c, const json_t *s)
{
    const uint32_t min = schema_count(c, s, "minLength", 0),
                   max = schema_count(c, s, "maxLength", GRAMMAR_NONE);
    const json_t *pattern = json_object_get(s, "pattern");
    const char *format = format_of(s);

    if (min > max)
        schema_refuse(c, TERN_ERR_FORMAT, "minLength", "is more than maxLength");
    if (pattern && !json_is_string(pattern))
        schema_refuse(c, TERN_ERR_FORMAT, "pattern", "must be a string");
    if ((pattern || format) && (min || max != GRAMMAR_NONE || (pattern && format)))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, pattern ? "pattern" : "format",
                      "cannot be combined with lengths or with each other");
    if (pattern && !c->failed)
        put_pattern(c, json_string_value(pattern), json_string_length(pattern));
    else if (format)
        schema_put(c, "\"\\\"\" %s \"\\\"\"", format);
    else if (max != GRAMMAR_NONE)
        schema_put(c, "\"\\\"\" char{%u,%u} \"\\\"\"", (unsigned)min, (unsigned)max);
    else if (min)
        schema_put(c, "\"\\\"\" char{%u,} \"\\\"\"", (unsigned)min);
    else
        schema_put(c, "string");
}
