/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of `tern`, and what they share.
 *
 * Each gets argv with argv[0] the subcommand's name, parses its options with getopt_long, writes results to
 * stdout and everything else to stderr, and returns an exit code (sysexits.h).  An unknown option prints
 * one sentence and the way to --help; --help prints to stdout.
 */
#ifndef TERN_COORDINATOR_COMMANDS_H
#define TERN_COORDINATOR_COMMANDS_H

#include "engine/base/status.h"

#include <stddef.h>

int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_keygen(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);

/* Prints "tern COMMAND: sentence" to stderr and returns the exit code of the status. */
int cmd_fail(const char *command, const struct tern_err *err);
/* The same for what a signal may have ended (interrupt.h): then 128 + signal, and no sentence about it. */
int cmd_fail_or_end(const char *command, const struct tern_err *err);

/* A real from the command line, with the option's name in the sentence ("--temp: ...").  No trailing junk,
 * range inclusive.  Whole numbers: engine/option.h. */
enum tern_status cmd_parse_f64(const char *option, const char *text, double min, double max, double *out,
                               struct tern_err *err) TERN_MUST_CHECK;

/* Sends what was printed on its way.  A reader who went away is no failure: SIGPIPE is ignored, and the next
 * command of the pipe knows best. */
enum tern_status cmd_flush(struct tern_err *err) TERN_MUST_CHECK;

/* Reads a whole file (or stdin for "-") of at most max bytes into malloc'ed memory, terminated by a zero
 * byte that is not counted. */
enum tern_status cmd_read_file(const char *path, size_t max, char **out, size_t *len,
                               struct tern_err *err) TERN_MUST_CHECK;

#endif
