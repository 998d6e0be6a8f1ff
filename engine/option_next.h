/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next option of a command line, and for one that there is not a sentence that names the one that was
 * meant: getopt_long() for people who mistype, or come from another program.
 */
#ifndef TERN_ENGINE_OPTION_NEXT_H
#define TERN_ENGINE_OPTION_NEXT_H

#include "engine/base/status.h"

#include <getopt.h>
#include <stddef.h>

/* Options of other programs, and what to do instead.  A line that names an option the command has itself
 * says nothing of that one. */
struct tern_option_habit {
    const char *names;    /* as they are written, blanks between them: "-ngl --n-gpu-layers" */
    const char *commands; /* of these alone, blanks between them; NULL: of all */
    const char *advice;   /* goes on behind "-ngl: " */
};

struct tern_option_table {
    const char *program; /* whose --help tells more */
    const char *command; /* of that program, or NULL */
    const char *shorts;  /* for getopt_long(), ':' first */
    const struct option *longs;
    const struct tern_option_habit *habits;
    size_t n_habits;
};

/* What getopt_long() returns, with optarg and optind as there and *at (may be NULL) as its last argument,
 * but '?' for everything that is wrong: then err says what in one sentence.  Nothing is printed. */
int tern_option_next(int argc, char **argv, const struct tern_option_table *t, int *at, struct tern_err *err);

/* How many letters must be changed, put in, left out or swapped with their neighbour to make b of a, where
 * that is at most a third of them; else UINT_MAX.  Case does not count, and '_' is '-'. */
unsigned tern_option_distance(const char *a, const char *b);

#endif
