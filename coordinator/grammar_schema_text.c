/* SPDX-License-Identifier: Apache-2.0 */
/* What the compiler of schemas writes, and the places it has been at: see grammar_schema.h. */
#include "coordinator/grammar_schema.h"

#include "coordinator/grammar_rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- text ------------------------------------------------------------------------------------------------ */

static void fail(struct schema_compiler *c, enum tern_status st)
{
    if (!c->failed)
        c->failed = st;
}

/* Room for n bytes at the end of what is written to, or NULL. */
static char *room(struct schema_compiler *c, size_t n)
{
    struct schema_text *t = &c->text[c->behind];
    char *p;

    if (c->failed)
        return NULL;
    if (c->text[0].n + c->text[1].n + n > GRAMMAR_MAX_BYTES) {
        fail(c, TERN_FAIL(c->err, TERN_ERR_LIMIT, "JSON schema: more than %zu bytes as a grammar",
                          GRAMMAR_MAX_BYTES));
        return NULL;
    }
    if (t->n + n > t->cap) {
        p = realloc(t->ptr, 2 * (t->n + n) + 1024);
        if (!p) {
            fail(c, TERN_FAIL(c->err, TERN_ERR_MEMORY, "no memory for the grammar of a schema"));
            return NULL;
        }
        t->ptr = p;
        t->cap = 2 * (t->n + n) + 1024;
    }
    return t->ptr + t->n;
}

void schema_put(struct schema_compiler *c, const char *fmt, ...)
{
    va_list args;
    char *at;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !(at = room(c, (size_t)n + 1)))
        return;
    va_start(args, fmt);
    c->text[c->behind].n += (size_t)vsnprintf(at, (size_t)n + 1, fmt, args);
    va_end(args);
}

void schema_put_quoted(struct schema_compiler *c, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const uint8_t b = (uint8_t)text[i];
        char *at;

        if (b == '"' || b == '\\')
            schema_put(c, "\\%c", b);
        else if (b < 0x20 || b == 0x7f)
            schema_put(c, "\\x%02x", b);
        else if ((at = room(c, 2))) {
            *at = (char)b;
            c->text[c->behind].n++;
        }
    }
}

/* A rule ends, and those that go behind it follow. */
void schema_end_rule(struct schema_compiler *c)
{
    struct schema_text *behind = &c->text[1];
    const size_t n = behind->n;
    char *at;

    schema_put(c, "\n");
    behind->n = 0;
    if (n && (at = room(c, n))) {
        memcpy(at, behind->ptr, n);
        c->text[0].n += n;
    }
}

/* With as few digits as say the same numbers: 0.1 stays 0.1.  NULL: no memory. */
static char *shortest(const json_t *value)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    char *text = json_dumps(value, flags | JSON_REAL_PRECISION(15));
    json_t *back = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;

    if (text && !json_equal(back, value)) {
        free(text);
        text = json_dumps(value, flags | JSON_REAL_PRECISION(17));
    }
    json_decref(back);
    return text;
}

void schema_put_json(struct schema_compiler *c, const json_t *value)
{
    char *text = shortest(value);

    if (!text) {
        fail(c, TERN_FAIL(c->err, TERN_ERR_MEMORY, "no memory for the grammar of a schema"));
        return;
    }
    schema_put(c, "\"");
    schema_put_quoted(c, text, strlen(text));
    schema_put(c, "\"");
    free(text);
}

/* -- places ---------------------------------------------------------------------------------------------- */

/* The JSON pointer of a place; what does not fit is left out at the front. */
static void pointer_to(const struct schema_compiler *c, uint32_t place, char *out, size_t cap)
{
    size_t at = cap - 1;

    out[at] = '\0';
    for (uint32_t p = place; p != c->places[p].parent; p = c->places[p].parent) {
        size_t n = strlen(c->places[p].step);

        if (n + 4 > at) {
            memcpy(out + at - 3, "...", 3);
            at -= 3;
            break;
        }
        memcpy(out + at - n, c->places[p].step, n);
        at -= n;
    }
    memmove(out, out + at, cap - at);
}

void schema_refuse(struct schema_compiler *c, enum tern_status status, const char *key, const char *what)
{
    char at[161];

    pointer_to(c, c->next, at, sizeof at);
    if (!c->failed)
        fail(c,
             TERN_FAIL(c->err, status, "JSON schema: #%s%s%s: %s", at, key ? "/" : "", key ? key : "", what));
}

static bool grow_places(struct schema_compiler *c)
{
    const uint32_t n = c->n_places;
    uint32_t *bucket;

    if (grammar_grow(&c->places, n, &c->cap_places, sizeof *c->places, c->err)) {
        fail(c, TERN_ERR_MEMORY);
        return false;
    }
    if (c->bucket && ((size_t)2 << c->n_bits) > 4 * ((size_t)n + 1))
        return true;
    c->n_bits++;
    bucket = calloc((size_t)1 << c->n_bits, sizeof *bucket);
    if (!bucket) {
        fail(c, TERN_FAIL(c->err, TERN_ERR_MEMORY, "no memory for the grammar of a schema"));
        return false;
    }
    free(c->bucket);
    c->bucket = bucket;
    for (uint32_t i = 0; i < n; i++) {
        size_t slot = ((uintptr_t)c->places[i].schema * 0x9e3779b97f4a7c15u) >> (64 - c->n_bits);

        while (bucket[slot])
            slot = (slot + 1) & (((size_t)1 << c->n_bits) - 1);
        bucket[slot] = i + 1;
    }
    return true;
}

static uint32_t add_place(struct schema_compiler *c, const json_t *schema, uint32_t parent, const char *step)
{
    size_t slot;

    if (c->failed || !grow_places(c))
        return 0;
    slot = ((uintptr_t)schema * 0x9e3779b97f4a7c15u) >> (64 - c->n_bits);
    for (; c->bucket[slot]; slot = (slot + 1) & (((size_t)1 << c->n_bits) - 1))
        if (c->places[c->bucket[slot] - 1].schema == schema)
            return c->bucket[slot] - 1;
    c->places[c->n_places] = (struct schema_place){ schema, parent, "" };
    snprintf(c->places[c->n_places].step, sizeof c->places[0].step, "%s", step);
    c->bucket[slot] = ++c->n_places;
    return c->n_places - 1;
}

uint32_t schema_rule(struct schema_compiler *c, const json_t *schema, const char *key, const char *name)
{
    char step[160];

    if (!key)
        return add_place(c, schema, 0, "");
    snprintf(step, sizeof step, "/%s%s%s", key, name ? "/" : "", name ? name : "");
    return add_place(c, schema, c->next, step);
}

uint32_t schema_count(struct schema_compiler *c, const json_t *s, const char *key, uint32_t other)
{
    const json_t *v = json_object_get(s, key);

    if (!v)
        return other;
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        schema_refuse(c, TERN_ERR_FORMAT, key, "must be an integer of at least 0");
        return 0;
    }
    if (json_integer_value(v) > GRAMMAR_MAX_REPEAT) {
        schema_refuse(c, TERN_ERR_LIMIT, key, "at most 65536");
        return 0;
    }
    return (uint32_t)json_integer_value(v);
}

/* -- references ------------------------------------------------------------------------------------------ */

/* One step of a pointer, with ~1, ~0 and %41 made what they stand for.  False: too long, or malformed. */
static bool take_step(const char **at, char *out, size_t cap)
{
    size_t n = 0;

    for (; **at && **at != '/'; ++*at) {
        char ch = **at;

        if (ch == '%') {
            unsigned v;

            if (!strchr("0123456789abcdefABCDEF", (*at)[1] ? (*at)[1] : '.') ||
                sscanf(*at + 1, "%2x", &v) != 1 || v == 0 || !(*at)[2])
                return false;
            ch = (char)v;
            *at += 2;
        }
        if (ch == '~') {
            if ((*at)[1] != '0' && (*at)[1] != '1')
                return false;
            ch = *++*at == '0' ? '~' : '/';
        }
        if (n + 1 == cap)
            return false;
        out[n++] = ch;
    }
    out[n] = '\0';
    return true;
}

/* What a reference stands for, or NULL, which is refused. */
const json_t *schema_resolve(struct schema_compiler *c, const json_t *ref)
{
    const char *text = json_string_value(ref), *at = text;
    const json_t *to = c->root;
    char step[1024];

    if (!text || *at++ != '#' || (*at && *at != '/')) {
        schema_refuse(c, TERN_ERR_UNSUPPORTED, "$ref",
                      "only references within the schema, \"#/...\", can be followed");
        return NULL;
    }
    while (to && *at++ == '/') {
        if (!take_step(&at, step, sizeof step))
            to = NULL;
        else if (json_is_array(to))
            to = *step && strspn(step, "0123456789") == strlen(step)
                     ? json_array_get(to, strtoul(step, NULL, 10))
                     : NULL;
        else
            to = json_object_get(to, step);
    }
    if (!to)
        schema_refuse(c, TERN_ERR_FORMAT, "$ref", "there is nothing at this place of the schema");
    return to;
}
