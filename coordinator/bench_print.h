/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of `tern bench` on their way to stdout, whatever is measured: rows go out as they come, but for
 * --json, which gathers them.
 */
#ifndef TERN_COORDINATOR_BENCH_PRINT_H
#define TERN_COORDINATOR_BENCH_PRINT_H

#include "coordinator/bench.h"

#include <jansson.h>

struct bench_print {
    const struct bench_options *o;
    char machine[96];
    uint32_t n_rows;
    json_t *rows, *sessions;         /* JSON only */
    uint32_t n_lines;                /* of the table of limits */
    char lines[BENCH_MAX_LIST][160]; /* Markdown only: limits, one line a session */
    int table;                       /* Markdown of streams: 1 streams, 2 prompts; the last one printed */
};

#endif
