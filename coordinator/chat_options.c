/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `tern chat`: see chat_options.h. */
#include "coordinator/chat_options.h"

#include "coordinator/commands.h"
#include "coordinator/option_habits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_SYSTEM = ANSWER_OPT_LAST,
    OPT_SYSTEM_FILE,
    OPT_TEMPLATE,
    OPT_LOAD,
    OPT_NO_HISTORY,
    OPT_SERVER,
    OPT_API_KEY
};

/* clang-format off */
static const struct option longs[] = {
    ENGINE_LONG_OPTIONS,
    ANSWER_LONG_OPTIONS,
    { "prompt", required_argument, NULL, 'p' },
    { "file", required_argument, NULL, 'f' },
    { "system", required_argument, NULL, OPT_SYSTEM },
    { "system-prompt", required_argument, NULL, OPT_SYSTEM },
    { "system-file", required_argument, NULL, OPT_SYSTEM_FILE },
    { "chat-template", required_argument, NULL, OPT_TEMPLATE },
    { "load", required_argument, NULL, OPT_LOAD },
    { "no-history", no_argument, NULL, OPT_NO_HISTORY },
    { "server", required_argument, NULL, OPT_SERVER },
    { "api-key-file", required_argument, NULL, OPT_API_KEY },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 }
};
/* clang-format on */

static const char help[] =
    "tern chat: a conversation with a ternary language model.\n"
    "\n"
    "usage: tern chat [-m FILE] [--system TEXT] [options]\n"
    "       tern chat --server URL [--model NAME] [--system TEXT] [options]\n"
    "\n"
    "On a terminal: type, and read the answer as it is made.  A line that ends in \\ goes on in the next.\n"
    "Ctrl-C stops an answer; at the prompt Ctrl-D, or Ctrl-C twice, ends the program.  /help lists what\n"
    "else can be done.  From a pipe or file: each line is a message (or a command), answers go to stdout,\n"
    "everything else to stderr, and what cannot be done ends the program.\n"
    "\n"
    "Conversation\n"
    "  -p, --prompt TEXT         say this and end after the answer; several are said one by one\n"
    "  -f, --file FILE           the same from a file (- is stdin), one newline at its end dropped\n"
    "      --system TEXT         what the model is told first\n"
    "      --system-file FILE    the same from a file\n";

static const char help_more[] =
    "      --load FILE           go on with a conversation that /save wrote\n"
    "      --no-history          neither read nor write the lines typed before, which are kept in\n"
    "                            $XDG_STATE_HOME/tern/history, else ~/.local/state/tern/history\n"
    "      --server URL          let a server answer, such as http://127.0.0.1:8080: `tern serve` or any\n"
    "                            other with OpenAI's chat API.  It is told the options of sampling that\n"
    "                            are given; those of model and machine are its own\n"
    "      --model NAME          with --server: one of its models, if it has several\n"
    "      --api-key-file FILE   with --server: a line `key` or `name key`\n"
    "  -n, --n-predict N         tokens of an answer; -1: until it ends or the context is full\n"
    "                            (default: -1)\n";

static const char help_output[] =
    "      --json                one JSON object for each answer, a line each, instead of text\n"
    "  -h, --help                this text\n"
    "\n"
    "Examples\n"
    "  tern chat -m \"$(tern pull microsoft/bitnet-b1.58-2B-4T-gguf)\"\n"
    "  tern chat -m model.gguf --system \"Answer in one sentence.\" -p \"What is a tern?\"\n"
    "  tern chat --server http://127.0.0.1:8080\n";

static void print_help(void)
{
    fputs(help, stdout);
    tern_chat_format_help(stdout);
    fputs(help_more, stdout);
    fputs(answer_options_help_length, stdout);
    fputs(answer_options_help_form, stdout);
    fputs(answer_options_help_sampling, stdout);
    engine_options_print_help(true);
    fputs(help_output, stdout);
}

static enum tern_status add_message(struct chat_options *o, const char *text, size_t len, char *owned,
                                    struct tern_err *err)
{
    if (o->n_messages == CHAT_MAX_MESSAGES) {
        free(owned);
        return TERN_FAIL(err, TERN_ERR_LIMIT, "more than %d messages", CHAT_MAX_MESSAGES);
    }
    o->messages[o->n_messages++] = (struct chat_words){ text, len, owned };
    return TERN_OK;
}

/* Without the newline at the end. */
static enum tern_status read_words(const char *path, struct chat_words *out, struct tern_err *err)
{
    enum tern_status st = cmd_read_file(path, CHAT_MAX_MESSAGE_BYTES, &out->owned, &out->len, err);

    if (st)
        return st;
    out->text = out->owned;
    out->len -= out->len && out->text[out->len - 1] == '\n';
    return TERN_OK;
}

static enum tern_status find_format(const char *name, const struct tern_chat_format **out,
                                    struct tern_err *err)
{
    const struct tern_chat_format *f = tern_chat_format_by_name(name);
    char known[200] = "";
    size_t n = 0;

    if (f) {
        *out = f;
        return TERN_OK;
    }
    for (size_t i = 0; (f = tern_chat_format_at(i)) && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", tern_chat_format_name(f));
    return TERN_FAIL(err, TERN_ERR_USAGE, "--chat-template: '%.40s' is none of %s", name, known);
}

static enum tern_status chat_option(struct chat_options *o, int c, const char *arg, struct tern_err *err)
{
    struct chat_words w = { NULL, 0, NULL };
    enum tern_status st;

    switch (c) {
    case 'p': return add_message(o, arg, strlen(arg), NULL, err);
    case 'f': return (st = read_words(arg, &w, err)) ? st : add_message(o, w.text, w.len, w.owned, err);
    case OPT_SYSTEM:
        free(o->system.owned);
        o->system = (struct chat_words){ arg, strlen(arg), NULL };
        return TERN_OK;
    case OPT_SYSTEM_FILE:
        if ((st = read_words(arg, &w, err)))
            return st;
        free(o->system.owned);
        o->system = w;
        return TERN_OK;
    case OPT_TEMPLATE: return find_format(arg, &o->format, err);
    case OPT_LOAD: o->load = arg; return TERN_OK;
    case OPT_NO_HISTORY: o->no_history = true; return TERN_OK;
    case OPT_SERVER: o->server = arg; return TERN_OK;
    case OPT_API_KEY: o->api_key_file = arg; return TERN_OK;
    default: return TERN_END;
    }
}

/* What a server decides by itself. */
struct machine_option {
    char name[32]; /* the first such option given, as it was written; empty: none */
    bool model;    /* --model was, which a server understands as well */
};

static void note_machine_option(struct machine_option *m, int c, int at)
{
    if (c == 'q' || c == ENGINE_OPT_JSON || c == ENGINE_OPT_VERBOSE)
        return;
    if (c == 'm' && at >= 0)
        m->model = true;
    else if (!*m->name && at >= 0)
        (void)snprintf(m->name, sizeof m->name, "--%s", longs[at].name);
    else if (!*m->name)
        (void)snprintf(m->name, sizeof m->name, "-%c", c);
}

static enum tern_status finish_with_server(struct chat_options *o, const struct machine_option *m,
                                           struct tern_err *err)
{
    if (*m->name)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s and --server exclude each other: model and machine are the server's", m->name);
    if (o->engine.quiet && o->engine.verbose)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--quiet and --verbose exclude each other");
    o->server_model = m->model ? o->engine.model : NULL;
    return TERN_OK;
}

static enum tern_status finish(struct chat_options *o, const struct machine_option *m, struct tern_err *err)
{
    const struct sample_options *s = &o->answer.gen.sample;
    enum tern_status st;

    if (o->server)
        return finish_with_server(o, m, err);
    if (o->api_key_file)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--api-key-file goes with --server URL");
    if ((st = engine_options_finish(&o->engine, err)))
        return st;
    /* Every logit is asked for anyway. */
    if (o->engine.head == TERN_HEAD_AUTO && (o->answer.gen.grammar || (s->top_k == 0 && s->temperature > 0)))
        o->engine.head = TERN_HEAD_FULL;
    return answer_options_finish(&o->answer, err);
}

static enum tern_status take_option(struct chat_options *o, struct machine_option *m, int c, int at,
                                    struct tern_err *err)
{
    enum tern_status st = engine_option(&o->engine, c, optarg, err);

    if (st != TERN_END || c == OPT_TEMPLATE)
        note_machine_option(m, c, at);
    if (st == TERN_END)
        st = answer_option(&o->answer, c, optarg, err);
    if (st == TERN_END)
        st = chat_option(o, c, optarg, err);
    TERN_BUG_IF(st == TERN_END);
    return st;
}

enum tern_status chat_options_parse(int argc, char **argv, struct chat_options *o, struct tern_err *err)
{
    struct machine_option machine = { 0 };
    enum tern_status st;
    int c, at = -1;

    memset(o, 0, sizeof *o);
    engine_options_default(&o->engine);
    answer_options_default(&o->answer, UINT32_MAX);
    optind = 1;
    while ((c = option_next(argc, argv, ":" ENGINE_SHORT_OPTIONS ANSWER_SHORT_OPTIONS "p:f:h", longs, &at,
                            err)) != -1) {
        if (c == 'h') {
            print_help();
            return TERN_END;
        }
        if (c == '?')
            return TERN_ERR_USAGE;
        if ((st = take_option(o, &machine, c, at, err)))
            return st;
        at = -1; /* a short option leaves it alone */
    }
    if (optind < argc)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%s' is not an option; a model goes behind -m, a message behind -p", argv[optind]);
    return finish(o, &machine, err);
}

void chat_options_free(struct chat_options *o)
{
    for (uint32_t i = 0; i < o->n_messages; i++)
        free(o->messages[i].owned);
    free(o->system.owned);
    o->n_messages = 0;
    o->system.owned = NULL;
    answer_options_free(&o->answer);
}
