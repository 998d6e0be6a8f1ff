/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vocabularies of 256 byte tokens and whatever a test adds to them, loaded through the tokenizer's front
 * door.
 */
#ifndef TERN_TESTS_UNIT_MADE_VOCAB_H
#define TERN_TESTS_UNIT_MADE_VOCAB_H

#include "unit/unit.h"

#include "engine/tokenizer.h"
#include "vocab_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline enum tern_status load(const void *bytes, size_t n, const char *pre, struct tern_tokenizer **t)
{
    struct tern_gguf *g;
    enum tern_status st;

    assert_ok(tern_gguf_parse("test.gguf", bytes, n, &g, &unit_err));
    st = tern_tokenizer_new(g, pre, t, &unit_err);
    tern_gguf_close(&g);
    return st;
}

/* The ids of a text must be `want`: numbers with blanks between them. */
static inline void expect_ids(const struct tern_tokenizer *t, const char *text, size_t len, bool add,
                              bool parse, const char *want)
{
    struct tern_ids ids = { 0 };
    char *got, *at;

    assert_ok(tern_tokenizer_encode(t, text, len, add, parse, &ids, &unit_err));
    got = malloc(12 * ids.n + 1);
    assert_non_null(got);
    *(at = got) = '\0';
    for (size_t i = 0; i < ids.n; i++)
        at += sprintf(at, "%s%d", i ? " " : "", ids.ids[i]);
    if (strcmp(got, want) != 0)
        fail_msg("'%.*s' gives %s, not %s", (int)len, text ? text : "", got, want);
    free(got);
    free(ids.ids);
}

static inline void expect(const struct tern_tokenizer *t, const char *text, const char *want)
{
    expect_ids(t, text, strlen(text), false, false, want);
}

#define MADE_MAX_TOKENS (1 << 17)

/* 256 byte tokens, then what the test adds: types[256 + i] belongs to the i-th of them. */
struct made {
    struct vocab_writer w;
    int32_t types[MADE_MAX_TOKENS];
    size_t n;
};

static inline void made_begin(struct made *m, const char *pre)
{
    vocab_begin_bytes(&m->w, pre, m->types);
    m->n = 256;
}

static inline void made_token(struct made *m, const char *text, int32_t type)
{
    vocab_add(&m->w, text, strlen(text));
    m->types[m->n++] = type;
}

/* Ends the tokens; merges: pairs "l r", NULL at the end. */
static inline void made_merges(struct made *m, const char *const *merges)
{
    vocab_close(&m->w);
    vocab_i32s(&m->w, "tokenizer.ggml.token_type", m->types, m->n);
    vocab_open(&m->w, "tokenizer.ggml.merges");
    for (; merges && *merges; merges++)
        vocab_add(&m->w, *merges, strlen(*merges));
    vocab_close(&m->w);
}

static inline enum tern_status made_load(struct made *m, const char *pre, struct tern_tokenizer **t)
{
    enum tern_status st;

    vocab_end(&m->w);
    st = load(m->w.bytes, m->w.n, pre, t);
    free(m->w.bytes);
    return st;
}

#endif
