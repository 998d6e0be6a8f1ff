/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern run`, as data.
 */
#ifndef TERN_COORDINATOR_RUN_OPTIONS_H
#define TERN_COORDINATOR_RUN_OPTIONS_H

#include "coordinator/answer_options.h"

#define RUN_MAX_PROMPTS      256
#define RUN_MAX_PROMPT_BYTES ((size_t)64 << 20)

struct run_prompt {
    const char *text;
    size_t len;
    char *owned; /* what to free, or NULL */
};

struct run_options {
    struct engine_options engine;
    struct answer_options answer;
    uint32_t n_prompts;
    struct run_prompt prompts[RUN_MAX_PROMPTS];
    bool default_prompt;    /* nobody gave one */
    bool display_prompt;    /* print the prompt in front of the text */
    const char *logits_out; /* file, or NULL */
};

/* Parses and checks argv, reads prompt files, draws a seed when none was given.  TERN_END: --help was
 * printed. */
enum tern_status run_options_parse(int argc, char **argv, struct run_options *o,
                                   struct tern_err *err) TERN_MUST_CHECK;
void run_options_free(struct run_options *o);

#endif
