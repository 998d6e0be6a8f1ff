/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/pipe_steps.h"

#include <string.h>

enum tern_status pipe_steps_init(struct pipe_steps *ps, uint32_t n, uint32_t max_rows, uint32_t row_bytes,
                                 struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    TERN_BUG_IF(n == 0 || n > TERN_MAX_STEPS_IN_FLIGHT);
    memset(ps, 0, sizeof *ps);
    while (ps->n < n && st == TERN_OK) {
        st = tern_step_new(max_rows, row_bytes, &ps->all[ps->n], err);
        if (st == TERN_OK) {
            ps->free[ps->n_free++] = ps->all[ps->n];
            ps->n++;
        }
    }
    if (st)
        pipe_steps_fini(ps);
    return st;
}

void pipe_steps_fini(struct pipe_steps *ps)
{
    while (ps->n > 0)
        tern_step_free(&ps->all[--ps->n]);
    ps->n_free = 0;
}

struct tern_step *pipe_steps_take(struct pipe_steps *ps)
{
    struct tern_step *s;

    if (ps->n_free == 0)
        return NULL;
    s = ps->free[--ps->n_free];
    tern_step_clear(s);
    s->user = NULL;
    return s;
}

void pipe_steps_give(struct pipe_steps *ps, struct tern_step *s)
{
    TERN_BUG_IF(ps->n_free == ps->n);
    ps->free[ps->n_free++] = s;
}
