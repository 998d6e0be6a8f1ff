/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What those who know llama.cpp, llama-server or Ollama type out of habit, and what it is called here.
 */
#ifndef TERN_COORDINATOR_OPTION_HABITS_H
#define TERN_COORDINATOR_OPTION_HABITS_H

#include "engine/base/status.h"

#include <getopt.h>

/* getopt_long() for the command argv[0], but '?' for all that is wrong, with a sentence in err
 * (TERN_ERR_USAGE) that says what was meant, or what is to be done instead. */
int option_next(int argc, char **argv, const char *shorts, const struct option *longs, int *at,
                struct tern_err *err);

/* What to do instead of `tern WORD`, a word that is no command: a part of a sentence, or NULL. */
const char *option_habit_command(const char *word);

#endif
