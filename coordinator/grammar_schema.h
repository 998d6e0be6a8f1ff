/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the compiler from JSON schemas to GBNF: grammar_schema.c says what it takes.
 *
 * Every schema becomes a rule r0, r1, ... of its own; those that are met while one is written wait in a list,
 * so nothing here recurses with the depth of a schema, and a schema that is referred to twice is written
 * once.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_SCHEMA_H
#define TERN_COORDINATOR_GRAMMAR_SCHEMA_H

#include "coordinator/grammar.h"

struct schema_place {
    const json_t *schema; /* what it says there */
    uint32_t parent;      /* place; its own number at the root */
    char step[48];        /* from there, as in a JSON pointer: "/properties/name" */
};

struct schema_compiler {
    const json_t *root;
    struct schema_place *places; /* of rule i; those before next are written */
    uint32_t n_places, cap_places, next;
    uint32_t *bucket; /* place + 1 by its schema; 2^n_bits of them, more than twice n_places */
    unsigned n_bits;
    json_t *made; /* array: schemas that were put together here */
    struct schema_text {
        char *ptr;
        size_t n, cap;
    } text[2];               /* the grammar; and the rules that go behind the one being written, */
    bool behind;             /* ... which is what is written to */
    uint32_t n_names;        /* of rules x0, x1, ... */
    enum tern_status failed; /* the first failure, after which nothing is written */
    struct tern_err *err;
};

/* Text at the end; "%s" and the like as printf's. */
void schema_put(struct schema_compiler *c, const char *fmt, ...) TERN_PRINTF(2, 3);
/* Characters as they stand in a GBNF text between quotes. */
void schema_put_quoted(struct schema_compiler *c, const char *text, size_t len);
/* A JSON value as a GBNF text. */
void schema_put_json(struct schema_compiler *c, const json_t *value);

/* A rule ends, and those that go behind it follow. */
void schema_end_rule(struct schema_compiler *c);

/* Notes that the schema at c->next cannot be done; key (may be NULL) is where in it. */
void schema_refuse(struct schema_compiler *c, enum tern_status status, const char *key, const char *what);

/* The rule of a schema that stands in the one at c->next, at /key/name (name may be NULL; key: the root). */
uint32_t schema_rule(struct schema_compiler *c, const json_t *schema, const char *key, const char *name);

/* What a reference stands for, or NULL, which is refused. */
const json_t *schema_resolve(struct schema_compiler *c, const json_t *ref);

/* An amount (minItems and the like): absent it is `other`. */
uint32_t schema_count(struct schema_compiler *c, const json_t *s, const char *key, uint32_t other);

/* Each writes what a value of this type may be, as one thing in parentheses or one name. */
void schema_put_object(struct schema_compiler *c, const json_t *s);
void schema_put_array(struct schema_compiler *c, const json_t *s);
void schema_put_string(struct schema_compiler *c, const json_t *s);
void schema_put_number(struct schema_compiler *c, const json_t *s, bool whole);

#endif
