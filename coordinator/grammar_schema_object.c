/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects and arrays of a schema: see grammar_schema.h.
 *
 * Properties that may be left out would make exponentially many lists, were they written out: instead rule i
 * is "from property i on, none written so far" or "some", which need a comma.  Names of other properties must
 * be none of those that are named: a tree of these, with "anything else" at each branch.
 */
#include "coordinator/grammar_schema.h"

#include "coordinator/grammar_rules.h"
#include "engine/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct property {
    const char *name;
    uint32_t rule;
    bool required;
};

struct object {
    struct property *p; /* [n] */
    size_t n, cap;
    bool others;          /* may have other properties */
    uint32_t others_rule; /* what those are; GRAMMAR_NONE: anything */
};

/* -- names of other properties --------------------------------------------------------------------------- */

struct branch {
    size_t lo, hi, at; /* names with the first `at` bytes in common */
    uint32_t rule;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct property *)a)->name, ((const struct property *)b)->name);
}

/* A character as it stands in a class. */
static void put_class_char(struct schema_compiler *c, const char *ch, size_t len)
{
    if (len == 1 && strchr("]^-\\", *ch))
        schema_put(c, "\\x%02x", (unsigned)(uint8_t)*ch);
    else
        schema_put_quoted(c, ch, len);
}

/* "x3 ::= ( "a" x4 | "b" x5 | [^"\\...ab] plain* )?": behind a name, or the beginning of one, the rest of
 * another.  Names that need escapes are in nobody's way: others have none. */
static void put_branch(struct schema_compiler *c, const struct property *p, struct branch b,
                       struct branch *todo, size_t *n_todo)
{
    const bool ends = p[b.lo].name[b.at] == '\0';
    size_t n_children = 0, first = *n_todo;

    schema_put(c, "x%u ::= (", (unsigned)b.rule);
    for (size_t i = b.lo + ends, j; i < b.hi; i = j, n_children++) {
        size_t len;

        (void)tern_utf8_sequence((const uint8_t *)p[i].name + b.at, strlen(p[i].name + b.at), &len);
        for (j = i + 1; j < b.hi && strncmp(p[j].name + b.at, p[i].name + b.at, len) == 0;)
            j++;
        todo[*n_todo] = (struct branch){ i, j, b.at + len, c->n_names++ };
        schema_put(c, "\"");
        schema_put_quoted(c, p[i].name + b.at, len);
        schema_put(c, "\" x%u | ", (unsigned)todo[(*n_todo)++].rule);
    }
    schema_put(c, "[^\"\\\\\\x00-\\x1f\\x7f");
    for (size_t i = first; i < *n_todo; i++) {
        const char *ch = p[todo[i].lo].name + b.at;

        put_class_char(c, ch, todo[i].at - b.at);
    }
    schema_put(c, "] plain*)%s\n", ends ? "" : "?");
}

static bool is_spelled_plainly(const char *name)
{
    for (; *name; name++)
        if ((uint8_t)*name < 0x20 || *name == '"' || *name == '\\' || *name == 0x7f)
            return false;
    return true;
}

/* The rules of the tree, the first of which is `rule`. */
static void put_other_names(struct schema_compiler *c, const struct object *o, uint32_t rule)
{
    struct property *sorted = malloc((o->n + 1) * sizeof *sorted);
    size_t n_sorted = 0, n_todo = 0, total = 1;
    struct branch *todo;

    for (size_t i = 0; i < o->n; i++)
        total += strlen(o->p[i].name) + 1;
    todo = malloc(total * sizeof *todo);
    if (!sorted || !todo) {
        schema_refuse(c, TERN_ERR_MEMORY, NULL, "no memory");
    } else {
        for (size_t i = 0; i < o->n; i++)
            if (is_spelled_plainly(o->p[i].name))
                sorted[n_sorted++] = o->p[i];
        if (n_sorted) {
            qsort(sorted, n_sorted, sizeof *sorted, by_name);
            todo[n_todo++] = (struct branch){ 0, n_sorted, 0, rule };
        } else {
            schema_put(c, "x%u ::= plain*\n", (unsigned)rule);
        }
        for (size_t n = 0; n < n_todo && !c->failed; n++)
            put_branch(c, sorted, todo[n], todo, &n_todo);
    }
    free(sorted);
    free(todo);
}

/* -- objects --------------------------------------------------------------------------------------------- */

static void add_property(struct schema_compiler *c, struct object *o, const char *name, uint32_t rule,
                         bool required)
{
    if (o->n == o->cap) {
        struct property *p = realloc(o->p, (2 * o->cap + 16) * sizeof *p);

        if (!p) {
            schema_refuse(c, TERN_ERR_MEMORY, NULL, "no memory");
            return;
        }
        o->p = p;
        o->cap = 2 * o->cap + 16;
    }
    o->p[o->n++] = (struct property){ name, rule, required };
}

/* Names required, as the keys of an object; those that are not among the properties are added to them. */
static void read_properties(struct schema_compiler *c, const json_t *s, struct object *o)
{
    const json_t *properties = json_object_get(s, "properties"), *required = json_object_get(s, "required"),
                 *v;
    json_t *names = json_object(), *schema;
    const char *name;
    size_t i;

    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required)))
        schema_refuse(c, TERN_ERR_FORMAT, NULL, "properties is an object, and required a list of names");
    json_array_foreach(required, i, v)
    {
        if (!json_is_string(v) || json_object_set_new(names, json_string_value(v), json_true()))
            schema_refuse(c, TERN_ERR_FORMAT, "required", "must be a list of names");
    }
    json_object_foreach((json_t *)(uintptr_t)properties, name, schema)
    {
        add_property(c, o, name, schema_rule(c, schema, "properties", name), json_object_get(names, name));
    }
    json_array_foreach(required, i, v)
    {
        if (c->failed || json_object_get(properties, json_string_value(v)) ||
            !json_object_get(names, json_string_value(v)))
            continue;
        json_object_del(names, json_string_value(v)); /* once */
        if (json_is_false(json_object_get(s, "additionalProperties")))
            schema_refuse(c, TERN_ERR_FORMAT, "required", "names a property that there cannot be");
        add_property(c, o, json_string_value(v), o->others_rule, true);
    }
    json_decref(names);
}

static void read_others(struct schema_compiler *c, const json_t *s, struct object *o)
{
    const json_t *v = json_object_get(s, "additionalProperties");

    o->others = v ? !json_is_false(v) : !json_object_get(s, "properties");
    o->others_rule = GRAMMAR_NONE;
    if (json_is_object(v))
        o->others_rule = schema_rule(c, v, "additionalProperties", NULL);
    else if (v && !json_is_boolean(v))
        schema_refuse(c, TERN_ERR_FORMAT, "additionalProperties", "a schema is an object, true or false");
}

static void put_rule(struct schema_compiler *c, uint32_t rule)
{
    if (rule == GRAMMAR_NONE)
        schema_put(c, "value");
    else
        schema_put(c, "r%u", (unsigned)rule);
}

/* The name of a property with its value. */
static void put_member(struct schema_compiler *c, const struct property *p)
{
    json_t *name = json_string(p->name);

    if (!name) {
        schema_refuse(c, TERN_ERR_MEMORY, NULL, "no memory");
        return;
    }
    schema_put_json(c, name);
    schema_put(c, " \":\" ws ");
    put_rule(c, p->rule);
    json_decref(name);
}

/* The rules behind an object's own: 0 others' names, 1 one of the others; then two for each property and for
 * the end: none written yet, and some. */
static void put_lists(struct schema_compiler *c, const struct object *o, uint32_t base)
{
    bool none = true; /* it is possible that nothing was written in front of a property */

    if (o->others) {
        put_other_names(c, o, base);
        schema_put(c, "x%u ::= \"\\\"\" x%u \"\\\":\" ws ", (unsigned)base + 1, (unsigned)base);
        put_rule(c, o->others_rule);
        schema_put(c, "\n");
    }
    for (size_t i = 0; i < o->n && !c->failed; i++) {
        const unsigned at = base + 2 + 2 * (unsigned)i;

        if (none) {
            schema_put(c, "x%u ::= ", at);
            put_member(c, &o->p[i]);
            schema_put(c, o->p[i].required ? " x%u\n" : " x%u | x%u\n", at + 3, at + 2);
        }
        none = none && !o->p[i].required;
        if (i > 0) {
            schema_put(c, "x%u ::= (\",\" ws ", at + 1);
            put_member(c, &o->p[i]);
            schema_put(c, ")%s x%u\n", o->p[i].required ? "" : "?", at + 3);
        }
    }
    if (none)
        schema_put(c, o->others ? "x%u ::= (x%u (\",\" ws x%u)* ws)?\n" : "x%u ::= \"\"\n",
                   (unsigned)(base + 2 + 2 * o->n), (unsigned)base + 1, (unsigned)base + 1);
    if (o->n)
        schema_put(c, o->others ? "x%u ::= (\",\" ws x%u)* ws\n" : "x%u ::= ws\n",
                   (unsigned)(base + 3 + 2 * o->n), (unsigned)base + 1);
}

void schema_put_object(struct schema_compiler *c, const json_t *s)
{
    struct object o = { 0 };
    uint32_t base;

    read_others(c, s, &o);
    read_properties(c, s, &o);
    if (!c->failed) {
        base = c->n_names;
        c->n_names += 4 + 2 * (uint32_t)o.n;
        schema_put(c, "\"{\" ws x%u \"}\"", (unsigned)base + 2);
        c->behind = true;
        put_lists(c, &o, base);
        c->behind = false;
    }
    free(o.p);
}

/* -- arrays ---------------------------------------------------------------------------------------------- */

/* min to max more items, each behind a comma unless it is the first. */
static void put_items(struct schema_compiler *c, uint32_t rule, uint32_t min, uint32_t max, bool first)
{
    if (max == 0)
        return;
    if (first) {
        schema_put(c, " (");
        put_rule(c, rule);
        put_items(c, rule, min ? min - 1 : 0, max == GRAMMAR_NONE ? max : max - 1, false);
        schema_put(c, " ws)%s", min ? "" : "?");
        return;
    }
    schema_put(c, " (\",\" ws ");
    put_rule(c, rule);
    if (max == GRAMMAR_NONE)
        schema_put(c, "){%u,}", (unsigned)min);
    else
        schema_put(c, "){%u,%u}", (unsigned)min, (unsigned)max);
}

/* What the items behind the first ones are; false: there are none. */
static bool read_items(struct schema_compiler *c, const json_t *s, bool prefixed, const char *key,
                       uint32_t *rule)
{
    const json_t *items = json_object_get(s, key);

    *rule = GRAMMAR_NONE;
    if (!items)
        return !prefixed;
    if (json_is_false(items))
        return false;
    if (json_is_object(items))
        *rule = schema_rule(c, items, key, NULL);
    else if (!json_is_true(items))
        schema_refuse(c, TERN_ERR_FORMAT, key, "a schema is an object, true or false");
    return true;
}

void schema_put_array(struct schema_compiler *c, const json_t *s)
{
    const bool old = json_is_array(json_object_get(s, "items")); /* as before 2020-12 */
    const json_t *prefix = json_object_get(s, old ? "items" : "prefixItems"), *one;
    const uint32_t min = schema_count(c, s, "minItems", 0),
                   most = schema_count(c, s, "maxItems", GRAMMAR_NONE);
    uint32_t n = 0, max = most, rule;
    const bool more = read_items(c, s, prefix != NULL, old ? "additionalItems" : "items", &rule);
    size_t i;

    if (prefix && !json_is_array(prefix))
        schema_refuse(c, TERN_ERR_FORMAT, "prefixItems", "must be a list of schemas");
    schema_put(c, "\"[\" ws");
    json_array_foreach(prefix, i, one)
    {
        char at[24];

        if (n == most)
            break;
        snprintf(at, sizeof at, "%zu", i);
        schema_put(c, "%s r%u", n ? " \",\" ws" : "",
                   (unsigned)schema_rule(c, one, old ? "items" : "prefixItems", at));
        n++;
    }
    max = !more ? n : most;
    if (min > max)
        schema_refuse(c, TERN_ERR_FORMAT, "minItems", "is more than there can be");
    if (!c->failed)
        put_items(c, rule, min > n ? min - n : 0, max == GRAMMAR_NONE ? max : max - n, n == 0);
    schema_put(c, "%s \"]\"", n ? " ws" : "");
}
