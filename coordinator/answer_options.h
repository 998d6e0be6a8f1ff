/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options shared by the subcommands that let a model write: how long, where it ends, how tokens are drawn.
 *
 * Used as engine_options.h is: ANSWER_LONG_OPTIONS and ANSWER_SHORT_OPTIONS into the tables, every option to
 * answer_option().
 */
#ifndef TERN_COORDINATOR_ANSWER_OPTIONS_H
#define TERN_COORDINATOR_ANSWER_OPTIONS_H

#include "coordinator/engine_options.h"
#include "coordinator/generate.h"

enum {
    ANSWER_OPT_FIRST = ENGINE_OPT_LAST,
    ANSWER_OPT_TEMP = ANSWER_OPT_FIRST,
    ANSWER_OPT_TOP_K,
    ANSWER_OPT_TOP_P,
    ANSWER_OPT_MIN_P,
    ANSWER_OPT_REPEAT,
    ANSWER_OPT_REPEAT_N,
    ANSWER_OPT_FREQUENCY,
    ANSWER_OPT_PRESENCE,
    ANSWER_OPT_SEED,
    ANSWER_OPT_STOP,
    ANSWER_OPT_BIAS,
    ANSWER_OPT_IGNORE_EOS,
    ANSWER_OPT_GRAMMAR,
    ANSWER_OPT_GRAMMAR_FILE,
    ANSWER_OPT_SCHEMA,
    ANSWER_OPT_SCHEMA_FILE,
    ANSWER_OPT_LAST
};

/* clang-format off */
#define ANSWER_SHORT_OPTIONS "n:r:s:"
#define ANSWER_LONG_OPTIONS \
    { "n-predict", required_argument, NULL, 'n' }, { "predict", required_argument, NULL, 'n' }, \
    { "temp", required_argument, NULL, ANSWER_OPT_TEMP }, \
    { "temperature", required_argument, NULL, ANSWER_OPT_TEMP }, \
    { "top-k", required_argument, NULL, ANSWER_OPT_TOP_K }, \
    { "top-p", required_argument, NULL, ANSWER_OPT_TOP_P }, \
    { "min-p", required_argument, NULL, ANSWER_OPT_MIN_P }, \
    { "repeat-penalty", required_argument, NULL, ANSWER_OPT_REPEAT }, \
    { "repeat-last-n", required_argument, NULL, ANSWER_OPT_REPEAT_N }, \
    { "frequency-penalty", required_argument, NULL, ANSWER_OPT_FREQUENCY }, \
    { "presence-penalty", required_argument, NULL, ANSWER_OPT_PRESENCE }, \
    { "seed", required_argument, NULL, ANSWER_OPT_SEED }, \
    { "stop", required_argument, NULL, ANSWER_OPT_STOP }, \
    { "reverse-prompt", required_argument, NULL, ANSWER_OPT_STOP }, \
    { "logit-bias", required_argument, NULL, ANSWER_OPT_BIAS }, \
    { "ignore-eos", no_argument, NULL, ANSWER_OPT_IGNORE_EOS }, \
    { "grammar", required_argument, NULL, ANSWER_OPT_GRAMMAR }, \
    { "grammar-file", required_argument, NULL, ANSWER_OPT_GRAMMAR_FILE }, \
    { "json-schema", required_argument, NULL, ANSWER_OPT_SCHEMA }, \
    { "json-schema-file", required_argument, NULL, ANSWER_OPT_SCHEMA_FILE }
/* clang-format on */

/* Bits of `given`. */
#define ANSWER_GIVEN(opt)    (1u << ((opt)-ANSWER_OPT_FIRST))
#define ANSWER_GIVEN_PREDICT (1u << 31)

struct answer_options {
    struct generate_options gen; /* its grammar and grammar_vocab belong to this */
    struct grammar_vocab *vocab; /* ... as the latter */
    char *form;                  /* the text of the grammar or JSON schema, or NULL; owned */
    bool form_is_schema;
    bool seed_given;
    uint32_t given; /* which were on the command line, whatever their values */
};

/* The parts of --help that describe them; -n is for the command to describe, with its default. */
extern const char answer_options_help_length[], answer_options_help_form[], answer_options_help_sampling[];

/* No log-probabilities, sampling as sample_options_default says, n_predict tokens. */
void answer_options_default(struct answer_options *o, uint32_t n_predict);

/* Takes option c (getopt_long's return) with its argument.  TERN_END when it is not one of these. */
enum tern_status answer_option(struct answer_options *o, int c, const char *arg,
                               struct tern_err *err) TERN_MUST_CHECK;

/* Draws a seed when none was given. */
enum tern_status answer_options_finish(struct answer_options *o, struct tern_err *err) TERN_MUST_CHECK;

/* Once the model is known: what a grammar needs of its vocabulary.  tok is borrowed until
 * answer_options_free. */
enum tern_status answer_options_bind(struct answer_options *o, const struct tern_tokenizer *tok,
                                     uint32_t n_vocab, struct tern_err *err) TERN_MUST_CHECK;
void answer_options_free(struct answer_options *o);

#endif
