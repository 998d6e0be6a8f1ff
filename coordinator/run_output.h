/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tern run` says besides the text: figures on stderr, or one JSON object on stdout.
 */
#ifndef TERN_COORDINATOR_RUN_OUTPUT_H
#define TERN_COORDINATOR_RUN_OUTPUT_H

#include "coordinator/generate.h"
#include "coordinator/session.h"

/* wall_ns: from the first step to the end. */
void run_output_figures(const struct session *s, const struct generate *gens, uint32_t n, uint64_t wall_ns,
                        uint64_t seed);

/* One object for one prompt, else an array.  TERN_ERR_IO when stdout does not take it; a closed pipe is no
 * error. */
enum tern_status run_output_json(const struct session *s, const struct generate *gens, uint32_t n,
                                 uint64_t seed, struct tern_err *err) TERN_MUST_CHECK;

#endif
