/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `tern run`: see run_options.h. */
#include "coordinator/run_options.h"

#include "coordinator/commands.h"
#include "engine/option.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PROMPT "Once upon a time"

enum {
    OPT_TEMP = ENGINE_OPT_LAST,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT,
    OPT_REPEAT_N,
    OPT_FREQUENCY,
    OPT_PRESENCE,
    OPT_SEED,
    OPT_STOP,
    OPT_BIAS,
    OPT_LOGPROBS,
    OPT_IGNORE_EOS,
    OPT_LOGITS_OUT,
    OPT_DISPLAY,
    OPT_HELP
};

/* clang-format off */
static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    { "prompt", required_argument, NULL, 'p' },
    { "file", required_argument, NULL, 'f' },
    { "n-predict", required_argument, NULL, 'n' },
    { "predict", required_argument, NULL, 'n' },
    { "temp", required_argument, NULL, OPT_TEMP },
    { "temperature", required_argument, NULL, OPT_TEMP },
    { "top-k", required_argument, NULL, OPT_TOP_K },
    { "top-p", required_argument, NULL, OPT_TOP_P },
    { "min-p", required_argument, NULL, OPT_MIN_P },
    { "repeat-penalty", required_argument, NULL, OPT_REPEAT },
    { "repeat-last-n", required_argument, NULL, OPT_REPEAT_N },
    { "frequency-penalty", required_argument, NULL, OPT_FREQUENCY },
    { "presence-penalty", required_argument, NULL, OPT_PRESENCE },
    { "seed", required_argument, NULL, OPT_SEED },
    { "stop", required_argument, NULL, OPT_STOP },
    { "reverse-prompt", required_argument, NULL, OPT_STOP },
    { "logit-bias", required_argument, NULL, OPT_BIAS },
    { "logprobs", required_argument, NULL, OPT_LOGPROBS },
    { "ignore-eos", no_argument, NULL, OPT_IGNORE_EOS },
    { "logits-out", required_argument, NULL, OPT_LOGITS_OUT },
    { "display-prompt", no_argument, NULL, OPT_DISPLAY },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 }
};
/* clang-format on */

static const char help[] =
    "tern run: continues a text with a ternary language model.\n"
    "\n"
    "usage: tern run [-m FILE] [-p PROMPT]... [options]\n"
    "\n"
    "The text goes to stdout and figures to stderr.  Without -p and -f the prompt is read from stdin if\n"
    "that is a pipe or file, and else is \"" DEFAULT_PROMPT "\".  The context (-c) is what the model was\n"
    "trained with, but at most 2048, unless given.\n"
    "\n"
    "Text\n"
    "  -p, --prompt TEXT         the prompt; several run together as one batch, printed in order\n"
    "  -f, --file FILE           prompt from a file (- is stdin), one newline at its end dropped;\n"
    "                            may be repeated\n"
    "      --display-prompt      print the prompt in front of the text\n"
    "  -n, --n-predict N         tokens to generate; -1: until the text ends or the context is full\n"
    "                            (default: 128)\n"
    "  -r, --stop TEXT           end in front of this text; up to 16 of them\n"
    "      --ignore-eos          never end by the model's own wish\n"
    "\n"
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

static const char help_output[] =
    "      --json                one JSON object (several prompts: an array) on stdout instead of text\n"
    "      --logprobs K          with --json: log-probabilities of each token and of the K most probable\n"
    "      --logits-out FILE     raw f32 logits of every sampled position\n"
    "                            (several prompts: FILE.1, FILE.2, ...)\n"
    "  -h, --help                this text\n";

/* -- single options -------------------------------------------------------------------------------------- */

static enum tern_status add_prompt(struct run_options *o, const char *text, size_t len, char *owned,
                                   struct tern_err *err)
{
    if (o->n_prompts == RUN_MAX_PROMPTS) {
        free(owned);
        return TERN_FAIL(err, TERN_ERR_LIMIT, "more than %d prompts", RUN_MAX_PROMPTS);
    }
    o->prompts[o->n_prompts++] = (struct run_prompt){ text, len, owned };
    return TERN_OK;
}

static enum tern_status add_prompt_file(struct run_options *o, const char *path, struct tern_err *err)
{
    char *text;
    size_t len;
    enum tern_status st = cmd_read_file(path, RUN_MAX_PROMPT_BYTES, &text, &len, err);

    if (st)
        return st;
    if (len && text[len - 1] == '\n')
        len--;
    return add_prompt(o, text, len, text, err);
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

static enum tern_status sample_option(struct run_options *o, int c, const char *arg, struct tern_err *err)
{
    struct sample_options *s = &o->gen.sample;
    uint64_t v;
    enum tern_status st;

    switch (c) {
    case OPT_TEMP: return cmd_parse_f64("--temp", arg, -1e6, 1e6, &s->temperature, err);
    case OPT_TOP_K: return tern_option_u32("--top-k", arg, 0, INT32_MAX, &s->top_k, err);
    case OPT_TOP_P: return cmd_parse_f64("--top-p", arg, 0, 1, &s->top_p, err);
    case OPT_MIN_P: return cmd_parse_f64("--min-p", arg, 0, 1, &s->min_p, err);
    case OPT_REPEAT: return cmd_parse_f64("--repeat-penalty", arg, 0.01, 100, &s->repeat_penalty, err);
    case OPT_REPEAT_N:
        if (strcmp(arg, "-1") == 0) {
            s->repeat_last_n = -1;
            return TERN_OK;
        }
        if (!(st = tern_option_u64("--repeat-last-n", arg, 0, TERN_MAX_CONTEXT, &v, err)))
            s->repeat_last_n = (int64_t)v;
        return st;
    case OPT_FREQUENCY:
        return cmd_parse_f64("--frequency-penalty", arg, -100, 100, &s->frequency_penalty, err);
    case OPT_PRESENCE: return cmd_parse_f64("--presence-penalty", arg, -100, 100, &s->presence_penalty, err);
    case OPT_SEED:
    case 's':
        if (strcmp(arg, "-1") == 0)
            return TERN_OK;
        if (!(st = tern_option_u64("--seed", arg, 0, INT64_MAX, &v, err))) {
            s->seed = v;
            o->seed_given = true;
        }
        return st;
    case OPT_BIAS: return parse_bias(s, arg, err);
    default: return TERN_END;
    }
}

static enum tern_status text_option(struct run_options *o, int c, const char *arg, struct tern_err *err)
{
    uint32_t k;
    enum tern_status st;

    switch (c) {
    case 'p': return add_prompt(o, arg, strlen(arg), NULL, err);
    case 'f': return add_prompt_file(o, arg, err);
    case 'n':
        if (strcmp(arg, "-1") == 0) {
            o->gen.n_predict = UINT32_MAX;
            return TERN_OK;
        }
        return tern_option_u32("-n", arg, 0, TERN_MAX_CONTEXT, &o->gen.n_predict, err);
    case OPT_STOP:
    case 'r': return add_stop(&o->gen, arg, err);
    case OPT_LOGPROBS:
        if (!(st = tern_option_u32("--logprobs", arg, 0, LOGPROBS_MAX_TOP, &k, err)))
            o->gen.n_logprobs = (int)k;
        return st;
    case OPT_IGNORE_EOS: o->gen.ignore_eos = true; return TERN_OK;
    case OPT_LOGITS_OUT: o->logits_out = arg; return TERN_OK;
    case OPT_DISPLAY: o->display_prompt = true; return TERN_OK;
    default: return TERN_END;
    }
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static enum tern_status finish(struct run_options *o, struct tern_err *err)
{
    enum tern_status st = engine_options_finish(&o->engine, err);
    struct stat sb;
    uint32_t seed;

    if (st)
        return st;
    if (o->gen.n_logprobs >= 0 && !o->engine.json)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--logprobs shows in --json only; add --json");
    /* Where every logit is asked for anyway, a copy of the head would only take memory. */
    if (o->engine.head == TERN_HEAD_AUTO && (o->gen.n_logprobs >= 0 || o->logits_out ||
                                             (o->gen.sample.top_k == 0 && o->gen.sample.temperature > 0)))
        o->engine.head = TERN_HEAD_FULL;
    if (!o->seed_given) {
        if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "no random seed from the system: %s",
                                 strerror(errno));
        o->gen.sample.seed = seed;
    }
    if (o->n_prompts)
        return TERN_OK;
    if (fstat(STDIN_FILENO, &sb) == 0 && !S_ISCHR(sb.st_mode) && (st = add_prompt_file(o, "-", err)))
        return st;
    if (o->n_prompts && o->prompts[0].len)
        return TERN_OK;
    run_options_free(o);
    o->default_prompt = true;
    return add_prompt(o, DEFAULT_PROMPT, strlen(DEFAULT_PROMPT), NULL, err);
}

enum tern_status run_options_parse(int argc, char **argv, struct run_options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    sample_options_default(&o->gen.sample);
    o->gen.n_predict = 128;
    o->gen.n_logprobs = -1;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":" ENGINE_SHORT_OPTIONS "p:f:n:r:s:h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            engine_options_print_help(true);
            fputs(help_output, stdout);
            return TERN_END;
        }
        if (c == '?' || c == ':')
            return engine_option_unknown(c, argv, err);
        st = engine_option(&o->engine, c, optarg, err);
        if (st == TERN_END)
            st = text_option(o, c, optarg, err);
        if (st == TERN_END)
            st = sample_option(o, c, optarg, err);
        TERN_BUG_IF(st == TERN_END);
        if (st)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not an option; a prompt goes behind -p", argv[optind]);
    return finish(o, err);
}

void run_options_free(struct run_options *o)
{
    for (uint32_t i = 0; i < o->n_prompts; i++)
        free(o->prompts[i].owned);
    o->n_prompts = 0;
}
