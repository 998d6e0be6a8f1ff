/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting text into pieces before byte-pair merging: a list of regular expressions applied
 * one after another, each to every piece made so far.  Text between two matches is a piece of its own.
 *
 * Compiled expressions are immutable; what a match needs belongs to the call.
 */
#ifndef TERN_ENGINE_PRETOKENIZER_H
#define TERN_ENGINE_PRETOKENIZER_H

#include "engine/base/cursor.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TERN_PRETOK_MAX_EXPRS 4

/* What a name of tokenizer.ggml.pre stands for. */
struct tern_pretok_kind {
    const char *name;
    bool ignore_merges;                   /* a whole piece that is a token is not merged but taken */
    bool add_bos;                         /* default of tokenizer.ggml.add_bos_token */
    uint8_t exprs[TERN_PRETOK_MAX_EXPRS]; /* index + 1 into the table of expressions; 0 ends the list */
};

/* NULL when unknown. */
const struct tern_pretok_kind *tern_pretok_find(struct tern_str name);

/* "default, falcon, ...": all known names, for a sentence. */
void tern_pretok_list(char *out, size_t cap);

/* The lines of a help text about --pre NAME, with all names. */
void tern_pretok_help(FILE *f);

struct tern_pretok;

/* jit: false keeps to PCRE2's interpreter (tests; it is also what runs where the system forbids making code).
 */
enum tern_status tern_pretok_new(const struct tern_pretok_kind *kind, bool jit, struct tern_pretok **out,
                                 struct tern_err *err) TERN_MUST_CHECK;
void tern_pretok_free(struct tern_pretok **p);

/* Takes one piece, len >= 1; anything but TERN_OK ends the split with that status. */
typedef enum tern_status tern_pretok_emit(void *arg, const char *piece, size_t len, struct tern_err *err);

/* Gives every piece of text, in order and without gaps, to emit.  Bytes that belong to no valid UTF-8
 * sequence end the text before them and are pieces of one byte each.  Any number of calls may run at once. */
enum tern_status tern_pretok_split(const struct tern_pretok *p, const char *text, size_t len,
                                   tern_pretok_emit *emit, void *arg, struct tern_err *err) TERN_MUST_CHECK;

#endif
