/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer must look like: a context-free grammar over code points, and which tokens may come next.
 *
 * Written as GBNF (llama.cpp's notation) or made from a JSON schema.  A compiled grammar never changes and is
 * shared; a state is where one answer stands in it.  Tokens are told from their bytes: one may end inside a
 * UTF-8 sequence, of which the next one brings the rest.
 *
 * Grammars come from strangers: length, rules, nesting and the work of one step are bounded.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_H
#define TERN_COORDINATOR_GRAMMAR_H

#include "engine/base/status.h"
#include "engine/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_MAX_BYTES ((size_t)256 << 10) /* of the text, and of what a schema becomes */

struct grammar;
struct grammar_state;
struct grammar_vocab; /* the tokens of a vocabulary by their bytes: made once for a model */

/* tok is borrowed, by states too.  n_vocab: how many logits there are, which may be more than tok has. */
enum tern_status grammar_vocab_new(const struct tern_tokenizer *tok, uint32_t n_vocab,
                                   struct grammar_vocab **out, struct tern_err *err) TERN_MUST_CHECK;
void grammar_vocab_free(struct grammar_vocab **v);

/* From GBNF with a rule "root".  TERN_ERR_FORMAT with line and column. */
enum tern_status grammar_parse(const char *text, size_t len, struct grammar **out,
                               struct tern_err *err) TERN_MUST_CHECK;
/* Any JSON value that is an object: response_format json_object. */
enum tern_status grammar_json_object(struct grammar **out, struct tern_err *err) TERN_MUST_CHECK;
/* From a JSON schema; what is not in the subset (grammar_schema.c lists it) is refused, with its place. */
enum tern_status grammar_schema(const json_t *schema, struct grammar **out,
                                struct tern_err *err) TERN_MUST_CHECK;
/* The same as GBNF, to be freed by the caller. */
enum tern_status grammar_schema_text(const json_t *schema, char **out, struct tern_err *err) TERN_MUST_CHECK;

/* One more holder, and one less: any thread. */
const struct grammar *grammar_hold(const struct grammar *g);
void grammar_drop(const struct grammar **g);

/* A state at the beginning.  Holds g; v is borrowed.  Thread: one at a time per state.  No allocation after
 * creation. */
enum tern_status grammar_state_new(const struct grammar *g, const struct grammar_vocab *v,
                                   struct grammar_state **out, struct tern_err *err) TERN_MUST_CHECK;
void grammar_state_free(struct grammar_state **s);

/* At the beginning again. */
void grammar_restart(struct grammar_state *s);
/* This token counts as an end-of-text token, too (at most 4 of them).  Before the first mask. */
void grammar_also_ends(struct grammar_state *s, int32_t id);

/* Which tokens may come next: bit id % 64 of word id / 64; the state's until the next call.  End-of-text
 * tokens may come when the text so far is whole; tokens that print nothing never.  All zero: nothing can
 * come, and grammar_why says why if the text is not whole. */
const uint64_t *grammar_mask(struct grammar_state *s);
/* Goes on by a token of the mask; an end-of-text token changes nothing.  False when it is not allowed, which
 * changes nothing, or too much work, after which nothing is allowed. */
bool grammar_accept(struct grammar_state *s, int32_t id);
/* The text so far is whole ... */
bool grammar_is_whole(const struct grammar_state *s);
/* ... and nothing can come behind it. */
bool grammar_is_done(const struct grammar_state *s);
/* The end of a sentence about the grammar: why nothing can come next. */
const char *grammar_why(const struct grammar_state *s);

#endif
