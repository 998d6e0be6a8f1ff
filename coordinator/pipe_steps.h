/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The free steps of a pipeline: allocated once, lent to the scheduler one by one.
 *
 * Thread: the scheduler's.
 */
#ifndef TERN_COORDINATOR_PIPE_STEPS_H
#define TERN_COORDINATOR_PIPE_STEPS_H

#include "proto/step.h"

struct pipe_steps {
    uint32_t n; /* made in all */
    uint32_t n_free;
    struct tern_step *all[TERN_MAX_STEPS_IN_FLIGHT];
    struct tern_step *free[TERN_MAX_STEPS_IN_FLIGHT];
};

/* n steps with room for max_rows rows of row_bytes each. */
enum tern_status pipe_steps_init(struct pipe_steps *ps, uint32_t n, uint32_t max_rows, uint32_t row_bytes,
                                 struct tern_err *err) TERN_MUST_CHECK;
void pipe_steps_fini(struct pipe_steps *ps);

/* Cleared; NULL when all are out. */
struct tern_step *pipe_steps_take(struct pipe_steps *ps);
void pipe_steps_give(struct pipe_steps *ps, struct tern_step *s);

#endif
