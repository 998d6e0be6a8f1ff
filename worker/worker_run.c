/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed set of step buffers that go round: free, filling, computing, going out.
 */
#include "worker/worker_run.h"

#include <stdlib.h>

enum tern_status worker_run_new(const struct tern_model *model, struct tern_pool *pool,
                                const struct worker_plan *plan, struct worker_run **out, struct tern_err *err)
{
    struct tern_stage_options so = { .boundary = plan->boundary,
                                     .kv = plan->kv,
                                     .n_pages = plan->n_pages,
                                     .n_slots = plan->n_slots,
                                     .max_positions = plan->max_positions,
                                     .max_rows = plan->max_rows,
                                     .index = plan->stage,
                                     .is_last = plan->is_last };
    struct worker_run *r = calloc(1, sizeof *r);
    enum tern_status st;

    if (!r)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an assignment");
    st = tern_stage_new(model, pool, &so, &r->stage, err);
    while (r->n_steps < plan->n_steps && !st) {
        st = tern_step_new(plan->max_rows, plan->row_bytes, &r->steps[r->n_steps], err);
        if (!st) {
            r->free[r->n_free++] = r->steps[r->n_steps];
            r->n_steps++;
        }
    }
    if (!st)
        st = tern_stage_start(r->stage, err);
    if (st) {
        worker_run_free(&r);
        return st;
    }
    *out = r;
    return TERN_OK;
}

void worker_run_free(struct worker_run **rp)
{
    struct worker_run *r = *rp;

    if (!r)
        return;
    tern_stage_free(&r->stage);
    for (uint32_t i = 0; i < r->n_steps; i++)
        tern_step_free(&r->steps[i]);
    free(r);
    *rp = NULL;
}

enum tern_status worker_run_take(struct worker_run *r, const struct worker_plan *plan,
                                 const struct worker_mail *m, const Tern__Header *h, struct tern_err *err)
{
    struct tern_step *s = r->filling;
    enum tern_status st;

    if (!s) {
        if (r->n_free == 0)
            return TERN_FAIL(err, TERN_ERR_STATE, "more than %u steps are in flight", r->n_steps - 1);
        s = r->free[--r->n_free];
        tern_step_clear(s);
        s->bytes_in = 0;
        r->filling = s;
    }
    st = tern_wire_get_step(h, m->payload, m->payload_len, plan->max_rows, s, err);
    if (st && st != TERN_AGAIN)
        return st;
    s->bytes_in += (uint32_t)(m->header_len + m->payload_len);
    if (st == TERN_AGAIN)
        return TERN_OK;
    s->t_in_ns = tern_now_ns();
    s->n_failed_in = s->n_failed;
    s->user = r; /* not NULL: the stage's word for "not run" */
    r->filling = NULL;
    TERN_BUG_IF(!tern_queue_push(tern_stage_in(r->stage), s));
    return TERN_OK;
}

enum tern_status worker_run_collect(struct worker_run *r, struct tern_err *err)
{
    struct tern_step *s;

    while ((s = tern_queue_pop(tern_stage_out(r->stage), 0)) != NULL) {
        if (!s->user) {
            if (!tern_stage_error(r->stage, err))
                return TERN_FAIL(err, TERN_ERR_STATE, "the compute thread has ended");
            return err->status;
        }
        if (s->n_failed > s->n_failed_in) {
            r->n_refused += s->n_failed - s->n_failed_in;
            r->refused = s->failed[s->n_failed - 1];
        }
        r->out[(r->out_head + r->n_out) % r->n_steps] = s;
        r->n_out++;
    }
    return TERN_OK;
}

bool worker_run_empty(const struct worker_run *r)
{
    return r->n_free + (r->filling != NULL) == r->n_steps;
}

bool worker_run_ended(struct worker_run *r)
{
    while (tern_queue_pop(tern_stage_out(r->stage), 0) != NULL)
        continue;
    return tern_stage_stopped(r->stage);
}
