/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From JSON schemas to GBNF.  Whatever matches the grammar is JSON, and valid by the schema; not all that is
 * valid matches.  What is understood:
 *
 *   any schema    true, {}; type (a name or several), nullable; enum, const; anyOf, oneOf (which is anyOf
 *                 here: that no two of them hold is not made sure); allOf of one schema, or of objects that
 *                 have no property in common; $ref to "#" or "#/..." within the schema, recursively
 *   object        properties (written in the schema's order), required, additionalProperties.  Absent it is
 *                 false, as in llama.cpp, unless there are no properties: then it is true.  Other properties
 *                 come behind those that are named, and their names have no escapes
 *   array         items, prefixItems (all of them are written), minItems, maxItems; behind prefixItems there
 *                 is nothing unless items says so
 *   string        minLength, maxLength; or pattern (grammar_schema_pattern.c); or format: date, time,
 *                 date-time, uuid, ipv4, email (others only describe)
 *   integer       minimum, maximum, exclusiveMinimum, exclusiveMaximum
 *   number        the same with bounds that are integers of at most 10^9
 *   boolean, null
 *
 * Between tokens there is nothing, one blank, or a new line with at most 20 blanks.  Keywords that only
 * describe, and those nobody knows, are ignored; those that mean something and are not in the list (not, if,
 * patternProperties, uniqueItems, multipleOf, ...) are refused with their place as a JSON pointer.
 */
#include "coordinator/grammar_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What any JSON is made of; \u escapes of surrogates come in pairs only. */
static const char json_rules[] =
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws (member (\",\" ws member)* ws)? \"}\"\n"
    "member ::= string \":\" ws value\n"
    "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "char ::= plain | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" unit)\n"
    "plain ::= [^\"\\\\\\x00-\\x1f\\x7f]\n"
    "unit ::= [0-9a-cefA-CEF] hex{3} | [dD] ([0-7] hex{2} | [89abAB] hex{2} \"\\\\u\" [dD] [c-fC-F] hex{2})\n"
    "hex ::= [0-9a-fA-F]\n"
    "byte ::= \"25\" [0-5] | \"2\" [0-4] [0-9] | \"1\" [0-9]{2} | [1-9]? [0-9]\n"
    "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15})\n"
    "number ::= integer (\".\" [0-9]{1,16})? ([eE] [-+]? [1-9] [0-9]?)?\n";

/* -- what stands beside what ----------------------------------------------------------------------------- */

static const char *const unsupported[] = { "not",
                                           "if",
                                           "then",
                                           "else",
                                           "dependentSchemas",
                                           "dependentRequired",
                                           "dependencies",
                                           "patternProperties",
                                           "propertyNames",
                                           "minProperties",
                                           "maxProperties",
                                           "unevaluatedItems",
                                           "contains",
                                           "minContains",
                                           "maxContains",
                                           "$dynamicRef",
                                           "$recursiveRef" };

/* Keywords that say something about a value, but type, nullable, enum and const. */
static const char *const assertions[] = { "properties",
                                          "required",
                                          "additionalProperties",
                                          "items",
                                          "prefixItems",
                                          "additionalItems",
                                          "minItems",
                                          "maxItems",
                                          "minLength",
                                          "maxLength",
                                          "pattern",
                                          "format",
                                          "minimum",
                                          "maximum",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum",
                                          "anyOf",
                                          "oneOf",
                                          "allOf",
                                          "$ref" };
#define N_OF(a) (sizeof(a) / sizeof(a)[0])

static void refuse_unsupported(struct schema_compiler *c, const json_t *s)
{
    const json_t *v;

    for (size_t i = 0; i < N_OF(unsupported); i++)
        if (json_object_get(s, unsupported[i]))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, unsupported[i], "this keyword is not supported");
    if ((v = json_object_get(s, "uniqueItems")) && !json_is_false(v))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, "uniqueItems", "this keyword is not supported");
    if ((v = json_object_get(s, "unevaluatedProperties")) && !json_is_false(v))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, "unevaluatedProperties", "only false is supported");
    if ((v = json_object_get(s, "multipleOf")) && !(json_is_integer(v) && json_integer_value(v) == 1))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, "multipleOf", "this keyword is not supported");
}

/* Beside `key` only what describes; `types`: and type and nullable. */
static void refuse_beside(struct schema_compiler *c, const json_t *s, const char *key, bool types)
{
    char what[80];

    snprintf(what, sizeof what, "cannot stand beside %s here", key);
    for (size_t i = 0; i < N_OF(assertions); i++)
        if (strcmp(assertions[i], key) != 0 && json_object_get(s, assertions[i]))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, assertions[i], what);
    for (size_t i = 0; i < 4; i++) {
        static const char *const others[] = { "enum", "const", "type", "nullable" };

        if (strcmp(others[i], key) != 0 && !(types && i >= 2) && json_object_get(s, others[i]))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, others[i], what);
    }
}

/* -- types ----------------------------------------------------------------------------------------------- */

enum { T_OBJECT = 1, T_ARRAY = 2, T_STRING = 4, T_NUMBER = 8, T_INTEGER = 16, T_BOOLEAN = 32, T_NULL = 64 };

static unsigned type_by_name(struct schema_compiler *c, const json_t *name)
{
    static const char *const names[] = {
        "object", "array", "string", "number", "integer", "boolean", "null"
    };
    const char *text = json_string_value(name);

    for (unsigned i = 0; text && i < N_OF(names); i++)
        if (strcmp(text, names[i]) == 0)
            return 1u << i;
    schema_refuse(c, TERN_ERR_FORMAT, "type",
                  "types are object, array, string, number, integer, boolean and null");
    return 0;
}

/* The types that keywords speak of, when type does not say any. */
static unsigned type_by_keywords(struct schema_compiler *c, const json_t *s)
{
    unsigned types = 0;

    for (size_t i = 0; i < 16; i++)
        if (json_object_get(s, assertions[i]))
            types |= i < 3 ? T_OBJECT : i < 8 ? T_ARRAY : i < 12 ? T_STRING : T_NUMBER;
    if (types & (types - 1))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, NULL, "keywords of several types without a type");
    return types;
}

/* 0: any. */
static unsigned types_of(struct schema_compiler *c, const json_t *s)
{
    const json_t *t = json_object_get(s, "type"), *one;
    unsigned types = 0;
    size_t i;

    if (json_is_array(t)) {
        json_array_foreach(t, i, one) types |= type_by_name(c, one);
        if (!json_array_size(t))
            schema_refuse(c, TERN_ERR_FORMAT, "type", "an empty list of types");
    } else if (t) {
        types = type_by_name(c, t);
    } else {
        types = type_by_keywords(c, s);
    }
    if (types && json_is_true(json_object_get(s, "nullable")))
        types |= T_NULL;
    return types;
}

static unsigned type_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return T_OBJECT;
    case JSON_ARRAY: return T_ARRAY;
    case JSON_STRING: return T_STRING;
    case JSON_INTEGER: return T_NUMBER | T_INTEGER;
    case JSON_REAL: return T_NUMBER;
    case JSON_NULL: return T_NULL;
    default: return T_BOOLEAN;
    }
}

/* " | " in front of all but the first. */
static void put_or(struct schema_compiler *c, unsigned *n)
{
    if ((*n)++)
        schema_put(c, " | ");
}

static void put_types(struct schema_compiler *c, const json_t *s, unsigned types)
{
    unsigned n = 0;

    for (unsigned t = 1; t <= T_NULL; t <<= 1) {
        if (!(types & t) || (t == T_INTEGER && (types & T_NUMBER)))
            continue;
        put_or(c, &n);
        switch (t) {
        case T_OBJECT: schema_put_object(c, s); break;
        case T_ARRAY: schema_put_array(c, s); break;
        case T_STRING: schema_put_string(c, s); break;
        case T_NUMBER: schema_put_number(c, s, false); break;
        case T_INTEGER: schema_put_number(c, s, true); break;
        case T_BOOLEAN: schema_put(c, "\"true\" | \"false\""); break;
        default: schema_put(c, "\"null\""); break;
        }
    }
}

/* -- combinations ---------------------------------------------------------------------------------------- */

/* Values that are given, those of the right type. */
static void put_values(struct schema_compiler *c, const json_t *s, const json_t *values, const char *key)
{
    const json_t *v;
    unsigned types, n = 0;
    size_t i;

    refuse_beside(c, s, key, true);
    types = types_of(c, s);
    json_array_foreach(values, i, v)
    {
        if (types && !(type_of_value(v) & types))
            continue;
        put_or(c, &n);
        schema_put_json(c, v);
    }
    if (!n)
        schema_refuse(c, TERN_ERR_FORMAT, key, "there is no value of the type");
}

static void put_any_of(struct schema_compiler *c, const json_t *s, const char *key)
{
    const json_t *all = json_object_get(s, key), *one;
    unsigned n = 0;
    size_t i;

    refuse_beside(c, s, key, false);
    if (!json_is_array(all) || !json_array_size(all))
        schema_refuse(c, TERN_ERR_FORMAT, key, "must be a list of schemas");
    json_array_foreach(all, i, one)
    {
        char at[24];

        snprintf(at, sizeof at, "%zu", i);
        put_or(c, &n);
        schema_put(c, "r%u", (unsigned)schema_rule(c, one, key, at));
    }
}

/* Adds what an object schema says to another. */
static void merge_object(struct schema_compiler *c, json_t *into, const json_t *s)
{
    const char *key;
    json_t *v, *to = json_object_get(into, "properties");

    refuse_unsupported(c, s);
    json_object_foreach((json_t *)(uintptr_t)json_object_get(s, "properties"), key, v)
    {
        if (json_object_get(to, key))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, "allOf", "two of them say something about one property");
        else if (json_object_set(to, key, v))
            schema_refuse(c, TERN_ERR_MEMORY, NULL, "no memory");
    }
    if (json_is_array(json_object_get(s, "required")) &&
        json_array_extend(json_object_get(into, "required"), json_object_get(s, "required")))
        schema_refuse(c, TERN_ERR_MEMORY, NULL, "no memory");
    for (size_t i = 2; i < N_OF(assertions); i++)
        if (strcmp(assertions[i], "allOf") != 0 && json_object_get(s, assertions[i]))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, assertions[i], "cannot be combined by allOf");
    v = json_object_get(s, "type");
    if (json_object_get(s, "enum") || json_object_get(s, "const") || (v && type_by_name(c, v) != T_OBJECT))
        schema_refuse(c, TERN_ERR_UNSUPPORTED, "allOf", "only objects can be combined");
}

/* A schema without its references and allOf of one: what is meant in the end. */
static const json_t *follow(struct schema_compiler *c, const json_t *s)
{
    for (int hops = 0; s && !c->failed; hops++) {
        const json_t *all = json_object_get(s, "allOf"), *ref = json_object_get(s, "$ref");

        if (hops == 32) {
            schema_refuse(c, TERN_ERR_FORMAT, "allOf", "references that go in a circle, or too far");
            return NULL;
        }
        if (ref)
            s = schema_resolve(c, ref);
        else if (json_array_size(all) == 1)
            s = json_array_get(all, 0);
        else
            return s;
    }
    return s;
}

static void put_all_of(struct schema_compiler *c, const json_t *s)
{
    const json_t *all = json_object_get(s, "allOf"), *one;
    json_t *sum;
    size_t i;

    if (json_array_size(all) == 1) {
        refuse_beside(c, s, "allOf", false);
        schema_put(c, "r%u", (unsigned)schema_rule(c, json_array_get(all, 0), "allOf", "0"));
        return;
    }
    if (!json_array_size(all)) {
        schema_refuse(c, TERN_ERR_FORMAT, "allOf", "must be a list of schemas");
        return;
    }
    sum = json_pack("{s:s, s:{}, s:[]}", "type", "object", "properties", "required");
    if (!sum || json_array_append_new(c->made, sum)) { /* which has taken it, or let it go */
        schema_refuse(c, TERN_ERR_MEMORY, "allOf", "no memory to combine them");
        return;
    }
    merge_object(c, sum, s);
    json_array_foreach(all, i, one)
    {
        one = follow(c, one);
        if (one && !json_is_object(one))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, "allOf", "only objects can be combined");
        if (!c->failed && json_object_get(one, "allOf"))
            schema_refuse(c, TERN_ERR_UNSUPPORTED, "allOf", "one in the other cannot be combined");
        if (!c->failed)
            merge_object(c, sum, one);
    }
    if (!c->failed)
        schema_put_object(c, sum);
}

static void put_reference(struct schema_compiler *c, const json_t *s)
{
    const json_t *to = schema_resolve(c, json_object_get(s, "$ref"));

    refuse_beside(c, s, "$ref", false);
    if (to)
        schema_put(c, "r%u", (unsigned)schema_rule(c, to, "$ref", NULL));
}

/* The right side of a schema's rule. */
static void put_schema(struct schema_compiler *c, const json_t *s)
{
    const json_t *one = json_object_get(s, "const");
    unsigned types;

    refuse_unsupported(c, s);
    if (json_object_get(s, "$ref")) {
        put_reference(c, s);
    } else if (json_object_get(s, "anyOf") || json_object_get(s, "oneOf")) {
        put_any_of(c, s, json_object_get(s, "anyOf") ? "anyOf" : "oneOf");
    } else if (json_object_get(s, "allOf")) {
        put_all_of(c, s);
    } else if (json_object_get(s, "enum")) {
        put_values(c, s, json_object_get(s, "enum"), "enum");
    } else if (one) {
        json_t *values = json_pack("[O]", one);

        put_values(c, s, values, "const");
        json_decref(values);
    } else if (!(types = types_of(c, s))) {
        schema_put(c, "value");
    } else {
        put_types(c, s, types);
    }
}

static void compile(struct schema_compiler *c)
{
    (void)schema_rule(c, c->root, NULL, NULL);
    schema_put(c, "root ::= r0\n");
    for (; c->next < c->n_places && !c->failed; c->next++) {
        const json_t *s = c->places[c->next].schema;

        schema_put(c, "r%u ::= ", (unsigned)c->next);
        if (json_is_object(s))
            put_schema(c, s);
        else if (json_is_true(s))
            schema_put(c, "value");
        else
            schema_refuse(c, TERN_ERR_FORMAT, NULL,
                          json_is_false(s) ? "false matches nothing" : "a schema is an object, or true");
        schema_end_rule(c);
    }
    schema_put(c, "%s", json_rules);
}

enum tern_status grammar_schema_text(const json_t *schema, char **out, struct tern_err *err)
{
    struct schema_compiler c = { .root = schema, .made = json_array(), .err = err };

    if (!c.made)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the grammar of a schema");
    compile(&c);
    json_decref(c.made);
    free(c.places);
    free(c.bucket);
    free(c.text[1].ptr);
    if (c.failed)
        free(c.text[0].ptr);
    else
        *out = c.text[0].ptr;
    return c.failed;
}

enum tern_status grammar_schema(const json_t *schema, struct grammar **out, struct tern_err *err)
{
    char *text;
    enum tern_status st = grammar_schema_text(schema, &text, err);

    if (st)
        return st;
    st = grammar_parse(text, strlen(text), out, err);
    if (st == TERN_ERR_UNSUPPORTED) /* the only thing that can be wrong with a grammar made here */
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "JSON schema: it refers to itself with nothing in between");
    free(text);
    return st;
}

enum tern_status grammar_json_object(struct grammar **out, struct tern_err *err)
{
    static const char root[] = "root ::= object\n";
    char text[sizeof root + sizeof json_rules];

    snprintf(text, sizeof text, "%s%s", root, json_rules);
    return grammar_parse(text, strlen(text), out, err);
}
