/* SPDX-License-Identifier: Apache-2.0 */
/* How an answer is made, from the command line: see answer_options.h. */
#include "coordinator/answer_options.h"

#include "coordinator/commands.h"
#include "coordinator/grammar.h"
#include "engine/option.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char answer_options_help_length[] =
    "  -r, --stop TEXT           end in front of this text; up to 16 of them\n"
    "      --ignore-eos          never end by the model's own wish\n"
    "\n";

const char answer_options_help_form[] =
    "Form of the text (one of these)\n"
    "      --grammar TEXT        only what this grammar allows, in llama.cpp's notation (GBNF)\n"
    "      --grammar-file FILE   the same from a file\n"
    "      --json-schema JSON    only JSON that is valid by this schema; {} is any JSON\n"
    "      --json-schema-file FILE\n"
    "                            the same from a file\n"
    "\n";

const char answer_options_help_sampling[] =
    "Sampling, in this order\n"
    "      --logit-bias ID+V     add V to a token's logit; ID-V takes from it, ID-inf forbids the token;\n"
    "                            may be repeated\n"
    "      --repeat-penalty R    divide logits of seen tokens by R, multiply negative ones\n"
    "                            (default: 1, off)\n"
    "      --frequency-penalty F take F from a logit each time its token was seen (default: 0)\n"
    "      --presence-penalty F  take F from a logit if its token was seen (default: 0)\n"
    "      --repeat-last-n N     how many last tokens count as seen; 0: none, -1: all (default: 64)\n"
    "      --top-k K             keep the K best; 0: all (default: 40)\n"
    "      --top-p P             keep the best that together have probability P (default: 0.95)\n"
    "      --min-p P             keep those with P times the best one's probability (default: 0.05)\n"
    "      --temp T              divide logits by T; 0: always the best token (default: 0.8)\n"
    "  -s, --seed N              the same seed gives the same text on every machine\n"
    "                            (default: random, printed)\n"
    "\n";

void answer_options_default(struct answer_options *o, uint32_t n_predict)
{
    memset(o, 0, sizeof *o);
    sample_options_default(&o->gen.sample);
    o->gen.n_predict = n_predict;
    o->gen.n_logprobs = -1;
}

/* "15043-1.5", "2-inf": the first sign after the digits divides. */
static enum tern_status parse_bias(struct sample_options *s, const char *text, struct tern_err *err)
{
    size_t digits = strspn(text, "0123456789");
    char id_text[24];
    uint64_t id;
    double v = 0;
    enum tern_status st;

    if (digits == 0 || digits >= sizeof id_text || (text[digits] != '+' && text[digits] != '-') ||
        text[digits + 1] == '+' || text[digits + 1] == '-')
        return TERN_FAIL(err, TERN_ERR_USAGE, "--logit-bias: '%s' is not ID+VALUE, ID-VALUE or ID-inf", text);
    memcpy(id_text, text, digits);
    id_text[digits] = '\0';
    if ((st = tern_option_u64("--logit-bias", id_text, 0, TERN_MAX_VOCAB - 1, &id, err)))
        return st;
    if (strcmp(text + digits, "-inf") == 0)
        v = -INFINITY;
    else if ((st = cmd_parse_f64("--logit-bias", text + digits, -1e6, 1e6, &v, err)))
        return st;
    if (s->n_bias == SAMPLE_MAX_BIAS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "--logit-bias: more than %d tokens", SAMPLE_MAX_BIAS);
    s->bias[s->n_bias++] = (struct sample_bias){ (int32_t)id, (float)v };
    return TERN_OK;
}

static enum tern_status add_stop(struct generate_options *g, const char *text, struct tern_err *err)
{
    if (!*text || strlen(text) > GENERATE_MAX_STOP_BYTES)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--stop: the text must have 1 to %d bytes",
                         GENERATE_MAX_STOP_BYTES);
    if (g->n_stops == GENERATE_MAX_STOPS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "--stop: more than %d texts", GENERATE_MAX_STOPS);
    g->stops[g->n_stops++] = text;
    return TERN_OK;
}

static enum tern_status sample_option(struct answer_options *o, int c, const char *arg, struct tern_err *err)
{
    struct sample_options *s = &o->gen.sample;
    uint64_t v;
    enum tern_status st;

    switch (c) {
    case ANSWER_OPT_TEMP: return cmd_parse_f64("--temp", arg, -1e6, 1e6, &s->temperature, err);
    case ANSWER_OPT_TOP_K: return tern_option_u32("--top-k", arg, 0, INT32_MAX, &s->top_k, err);
    case ANSWER_OPT_TOP_P: return cmd_parse_f64("--top-p", arg, 0, 1, &s->top_p, err);
    case ANSWER_OPT_MIN_P: return cmd_parse_f64("--min-p", arg, 0, 1, &s->min_p, err);
    case ANSWER_OPT_REPEAT: return cmd_parse_f64("--repeat-penalty", arg, 0.01, 100, &s->repeat_penalty, err);
    case ANSWER_OPT_REPEAT_N:
        if (strcmp(arg, "-1") == 0) {
            s->repeat_last_n = -1;
            return TERN_OK;
        }
        if (!(st = tern_option_u64("--repeat-last-n", arg, 0, TERN_MAX_CONTEXT, &v, err)))
            s->repeat_last_n = (int64_t)v;
        return st;
    case ANSWER_OPT_FREQUENCY:
        return cmd_parse_f64("--frequency-penalty", arg, -100, 100, &s->frequency_penalty, err);
    case ANSWER_OPT_PRESENCE:
        return cmd_parse_f64("--presence-penalty", arg, -100, 100, &s->presence_penalty, err);
    case ANSWER_OPT_SEED:
    case 's':
        if (strcmp(arg, "-1") == 0)
            return TERN_OK;
        if (!(st = tern_option_u64("--seed", arg, 0, INT64_MAX, &v, err))) {
            s->seed = v;
            o->seed_given = true;
        }
        return st;
    case ANSWER_OPT_BIAS: return parse_bias(s, arg, err);
    default: return TERN_END;
    }
}

static enum tern_status length_option(struct answer_options *o, int c, const char *arg, struct tern_err *err)
{
    switch (c) {
    case 'n':
        if (strcmp(arg, "-1") == 0) {
            o->gen.n_predict = UINT32_MAX;
            return TERN_OK;
        }
        if (*arg == '-')
            return TERN_FAIL(err, TERN_ERR_USAGE, "-n: '%s' is less than -1, which is without limit", arg);
        return tern_option_u32("-n", arg, 0, TERN_MAX_CONTEXT, &o->gen.n_predict, err);
    case ANSWER_OPT_STOP:
    case 'r': return add_stop(&o->gen, arg, err);
    case ANSWER_OPT_IGNORE_EOS: o->gen.ignore_eos = true; return TERN_OK;
    default: return TERN_END;
    }
}

static uint32_t given_bit(int c)
{
    switch (c) {
    case 'n': return ANSWER_GIVEN_PREDICT;
    case 'r': return ANSWER_GIVEN(ANSWER_OPT_STOP);
    case 's': return ANSWER_GIVEN(ANSWER_OPT_SEED);
    default: return ANSWER_GIVEN(c);
    }
}

static enum tern_status set_grammar(struct answer_options *o, const char *text, size_t len, bool schema,
                                    struct tern_err *err)
{
    json_error_t where;
    const struct grammar *held;
    struct grammar *g;
    json_t *json;
    char *copy;
    enum tern_status st;

    if (o->gen.grammar)
        return TERN_FAIL(err, TERN_ERR_USAGE, "one grammar or JSON schema at a time");
    if (schema) {
        json = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
        if (!json)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "--json-schema: line %d, column %d: %s", where.line,
                             where.column, where.text);
        st = grammar_schema(json, &g, err);
        json_decref(json);
    } else {
        st = grammar_parse(text, len, &g, err);
    }
    if (st)
        return st;
    if (!(copy = strndup(text, len))) {
        held = g;
        grammar_drop(&held);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a grammar");
    }
    o->gen.grammar = g;
    o->form = copy;
    o->form_is_schema = schema;
    return TERN_OK;
}

static enum tern_status form_option(struct answer_options *o, int c, const char *arg, struct tern_err *err)
{
    const bool schema = c == ANSWER_OPT_SCHEMA || c == ANSWER_OPT_SCHEMA_FILE;
    enum tern_status st;
    size_t len;
    char *text;

    if (c == ANSWER_OPT_GRAMMAR || c == ANSWER_OPT_SCHEMA)
        return set_grammar(o, arg, strlen(arg), schema, err);
    if (c != ANSWER_OPT_GRAMMAR_FILE && c != ANSWER_OPT_SCHEMA_FILE)
        return TERN_END;
    if ((st = cmd_read_file(arg, GRAMMAR_MAX_BYTES, &text, &len, err)))
        return st;
    st = set_grammar(o, text, len, schema, err);
    free(text);
    return st;
}

enum tern_status answer_option(struct answer_options *o, int c, const char *arg, struct tern_err *err)
{
    enum tern_status st = length_option(o, c, arg, err);

    if (st == TERN_END)
        st = form_option(o, c, arg, err);
    if (st == TERN_END)
        st = sample_option(o, c, arg, err);
    if (!st)
        o->given |= given_bit(c);
    return st;
}

enum tern_status answer_options_finish(struct answer_options *o, struct tern_err *err)
{
    uint32_t seed;

    if (o->seed_given)
        return TERN_OK;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "no random seed from the system: %s", strerror(errno));
    o->gen.sample.seed = seed;
    return TERN_OK;
}

enum tern_status answer_options_bind(struct answer_options *o, const struct tern_tokenizer *tok,
                                     uint32_t n_vocab, struct tern_err *err)
{
    enum tern_status st = o->gen.grammar ? grammar_vocab_new(tok, n_vocab, &o->vocab, err) : TERN_OK;

    o->gen.grammar_vocab = o->vocab;
    return st;
}

void answer_options_free(struct answer_options *o)
{
    grammar_vocab_free(&o->vocab);
    grammar_drop(&o->gen.grammar);
    free(o->form);
    o->form = NULL;
}
