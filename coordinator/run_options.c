/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `tern run`: see run_options.h. */
#include "coordinator/run_options.h"

#include "coordinator/commands.h"
#include "coordinator/option_habits.h"
#include "engine/option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PROMPT "Once upon a time"

enum { OPT_LOGPROBS = ANSWER_OPT_LAST, OPT_LOGITS_OUT, OPT_DISPLAY, OPT_HELP };

/* clang-format off */
static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    ANSWER_LONG_OPTIONS,
    { "prompt", required_argument, NULL, 'p' },
    { "file", required_argument, NULL, 'f' },
    { "logprobs", required_argument, NULL, OPT_LOGPROBS },
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
    "                            (default: 128)\n";

static const char help_output[] =
    "      --json                one JSON object (several prompts: an array) on stdout instead of text\n"
    "      --logprobs K          with --json: log-probabilities of each token and of the K most probable\n"
    "      --logits-out FILE     raw f32 logits of every sampled position\n"
    "                            (several prompts: FILE.1, FILE.2, ...)\n"
    "  -h, --help                this text\n"
    "\n"
    "Examples\n"
    "  tern run -p \"Once upon a time\" -n 200 --seed 1\n"
    "  tern run -m model.gguf --local 2 -f prompt.txt --temp 0\n"
    "  tern run -m model.gguf --cluster cluster --key ~/.config/tern/key -p \"Once upon a time\"\n";

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

static enum tern_status text_option(struct run_options *o, int c, const char *arg, struct tern_err *err)
{
    uint32_t k;
    enum tern_status st;

    switch (c) {
    case 'p': return add_prompt(o, arg, strlen(arg), NULL, err);
    case 'f': return add_prompt_file(o, arg, err);
    case OPT_LOGPROBS:
        if (!(st = tern_option_u32("--logprobs", arg, 0, LOGPROBS_MAX_TOP, &k, err)))
            o->answer.gen.n_logprobs = (int)k;
        return st;
    case OPT_LOGITS_OUT: o->logits_out = arg; return TERN_OK;
    case OPT_DISPLAY: o->display_prompt = true; return TERN_OK;
    default: return TERN_END;
    }
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static void free_prompts(struct run_options *o)
{
    for (uint32_t i = 0; i < o->n_prompts; i++)
        free(o->prompts[i].owned);
    o->n_prompts = 0;
}

static enum tern_status finish(struct run_options *o, struct tern_err *err)
{
    enum tern_status st = engine_options_finish(&o->engine, err);
    struct stat sb;

    if (st)
        return st;
    if (o->answer.gen.n_logprobs >= 0 && !o->engine.json)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--logprobs shows in --json only; add --json");
    /* Where every logit is asked for anyway, a copy of the head would only take memory. */
    if (o->engine.head == TERN_HEAD_AUTO &&
        (o->answer.gen.n_logprobs >= 0 || o->logits_out || o->answer.gen.grammar ||
         (o->answer.gen.sample.top_k == 0 && o->answer.gen.sample.temperature > 0)))
        o->engine.head = TERN_HEAD_FULL;
    if ((st = answer_options_finish(&o->answer, err)))
        return st;
    if (o->n_prompts)
        return TERN_OK;
    if (fstat(STDIN_FILENO, &sb) == 0 && !S_ISCHR(sb.st_mode) && (st = add_prompt_file(o, "-", err)))
        return st;
    if (o->n_prompts && o->prompts[0].len)
        return TERN_OK;
    free_prompts(o);
    o->default_prompt = true;
    return add_prompt(o, DEFAULT_PROMPT, strlen(DEFAULT_PROMPT), NULL, err);
}

enum tern_status run_options_parse(int argc, char **argv, struct run_options *o, struct tern_err *err)
{
    enum tern_status st;
    int c;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    answer_options_default(&o->answer, 128);
    optind = 1;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS ANSWER_SHORT_OPTIONS "p:f:h", longs, NULL,
                            err)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            fputs(answer_options_help_length, stdout);
            fputs(answer_options_help_form, stdout);
            fputs(answer_options_help_sampling, stdout);
            engine_options_print_help(true);
            fputs(help_output, stdout);
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        st = engine_option(&o->engine, c, optarg, err);
        if (st == TERN_END)
            st = text_option(o, c, optarg, err);
        if (st == TERN_END)
            st = answer_option(&o->answer, c, optarg, err);
        TERN_BUG_IF(st == TERN_END);
        if (st)
            return st;
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%s' is not an option; a model goes behind -m, a prompt behind -p", argv[optind]);
    return finish(o, err);
}

void run_options_free(struct run_options *o)
{
    free_prompts(o);
    answer_options_free(&o->answer);
}
