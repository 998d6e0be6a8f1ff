/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options about model files (struct tern_file_options) on a command line: the same for every command that
 * opens one, and for workers.
 *
 * A program puts TERN_FILE_LONG_OPTIONS into its getopt_long table and hands every option to
 * tern_file_option(), which says whether it was one of these.
 */
#ifndef TERN_ENGINE_FILE_OPTION_H
#define TERN_ENGINE_FILE_OPTION_H

#include "engine/model_file.h"

#include <getopt.h>

enum {
    TERN_FILE_OPT_FIRST = 800,
    TERN_FILE_OPT_I2S = TERN_FILE_OPT_FIRST,
    TERN_FILE_OPT_TL_TILES,
    TERN_FILE_OPT_OVERRIDE,
    TERN_FILE_OPT_QUANTIZE
};

/* clang-format off */
#define TERN_FILE_LONG_OPTIONS \
    { "i2s-layout", required_argument, NULL, TERN_FILE_OPT_I2S }, \
    { "tl-tiles", required_argument, NULL, TERN_FILE_OPT_TL_TILES }, \
    { "override-kv", required_argument, NULL, TERN_FILE_OPT_OVERRIDE }, \
    { "quantize", no_argument, NULL, TERN_FILE_OPT_QUANTIZE }
/* clang-format on */

/* What --help of `tern` says of -m: what a model may be. */
#define TERN_FILE_HELP_MODEL                                                                                 \
    "  -m, --model FILE          GGUF file, first part of a split one, or Hugging Face folder (default:\n"   \
    "                            $TERN_MODEL, else the fable model)\n"

/* The part of --help that describes them: lines of at most 100 columns. */
extern const char tern_file_option_help[];

/* Takes option c (getopt_long's return) with its argument, which is borrowed.  TERN_END when it is not one of
 * these. */
enum tern_status tern_file_option(struct tern_file_options *o, int c, const char *arg,
                                  struct tern_err *err) TERN_MUST_CHECK;

/* The same options as words of a command line, for a worker that we start; borrowed from o.  Returns how
 * many. */
#define TERN_FILE_WORDS (3 + 2 * TERN_MAX_TL_TILES + 2 * TERN_MAX_OVERRIDES)
size_t tern_file_option_words(const struct tern_file_options *o, const char *words[static TERN_FILE_WORDS]);

#endif
