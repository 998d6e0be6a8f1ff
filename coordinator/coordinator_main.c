/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern`: picks the subcommand.
 */
#include "coordinator/commands.h"
#include "coordinator/option_habits.h"
#include "engine/mapping.h"
#include "engine/option_next.h"
#include "kernels/cpu.h"
#include "proto/keys.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    { "run", cmd_run, "continue a text, on this machine or a cluster" },
    { "chat", cmd_chat, "talk with a model, in the terminal or over a pipe" },
    { "serve", cmd_serve, "answer over HTTP, as OpenAI's API and llama-server do" },
    { "status", cmd_status, "show the cluster behind a server" },
    { "top", cmd_top, "watch that cluster as it works" },
    { "perplexity", cmd_perplexity, "measure how well a model predicts a text" },
    { "embed", cmd_embed, "turn texts into vectors" },
    { "bench", cmd_bench, "measure how fast a model runs, against what the machine can do" },
    { "tokenize", cmd_tokenize, "show the tokens of a text" },
    { "inspect", cmd_inspect, "show a model file: metadata, tensors, memory" },
    { "convert", cmd_convert, "write a model as GGUF of another type, or a synthetic one" },
    { "pull", cmd_pull, "get a model from Hugging Face or a server like it" },
    { "keygen", cmd_keygen, "make a key for a coordinator or a worker" },
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *to)
{
    fputs("tern runs ternary (BitNet b1.58) language models, on one machine or over several.\n"
          "\n"
          "usage: tern COMMAND [options]\n"
          "\n",
          to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].what);
    fputs("\n"
          "  tern run -p \"Once upon a time\"    a tale by the small model that comes with Tern\n"
          "  tern serve                         the same model as a server and a page to write to\n"
          "\n"
          "`tern COMMAND --help` describes a command, `tern --version` prints the version.\n"
          "Workers are started with `ternd`.\n",
          to);
}

/* For a word that is no command: what was meant, if that can be guessed. */
static int unknown(const char *word)
{
    const char *advice = option_habit_command(word), *best = NULL;
    unsigned least = UINT_MAX;

    for (size_t i = 0; i < N_COMMANDS; i++) {
        const unsigned far = tern_option_distance(word, commands[i].name);

        if (far < least) {
            least = far;
            best = commands[i].name;
        }
    }
    if (advice)
        fprintf(stderr, "tern: there is no command '%.40s': %s\n", word, advice);
    else if (best)
        fprintf(stderr, "tern: there is no command '%.40s'; did you mean `tern %s`?\n", word, best);
    else if (word[0] == '-')
        fprintf(stderr, "tern: options go behind a command, as in `tern run %.40s`; see `tern --help`\n",
                word);
    else
        fprintf(stderr, "tern: there is no command '%.40s'; `tern --help` lists those there are\n", word);
    return EX_USAGE;
}

static int run(int argc, char **argv)
{
    struct tern_err err;

    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[0], commands[i].name) != 0)
            continue;
        if (tern_mapping_guard_install(&err) || tern_keys_init(&err))
            return cmd_fail(argv[0], &err);
        tern_cpu_set_float_mode();
        return commands[i].run(argc, argv);
    }
    return unknown(argv[0]);
}

int main(int argc, char **argv)
{
    static char help_option[] = "--help";

    if (argc < 2) {
        print_help(stderr);
        return EX_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2)
        return run(2, (char *[]){ argv[2], help_option, NULL });
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return EX_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("tern " TERN_VERSION);
        return EX_OK;
    }
    return run(argc - 1, argv + 1);
}
