/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole model in this process: one stage with its compute thread, fed from our own queues.  No socket and
 * no serialisation, but the same steps, the same checks and the same rounding as on the way through workers.
 */
#include "coordinator/pipe.h"
#include "coordinator/pipe_steps.h"
#include "coordinator/progress.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "worker/stage.h"

#include <stdio.h>
#include <stdlib.h>

/* One computing, one waiting: the stage never idles while the scheduler prepares the next chunk of a
 * prompt. */
#define LOCAL_IN_FLIGHT 2u

struct local {
    struct pipe pipe;
    struct pipe_steps steps;
    struct tern_model *model;
    struct tern_stage *stage;
    uint64_t next_step;
    struct tern_err broken; /* status not TERN_OK: final */
    /* The scheduler's step->user while the stage has the step, by number. */
    void *users[TERN_MAX_STEPS_IN_FLIGHT];
};

static struct tern_step *local_take(struct pipe *p)
{
    return pipe_steps_take(&((struct local *)p->impl)->steps);
}

static void local_give(struct pipe *p, struct tern_step *s)
{
    pipe_steps_give(&((struct local *)p->impl)->steps, s);
}

static enum tern_status fail_broken(const struct local *l, struct tern_err *err)
{
    if (err)
        *err = l->broken;
    return l->broken.status;
}

static enum tern_status local_send(struct pipe *p, struct tern_step *s, struct tern_err *err)
{
    struct local *l = p->impl;

    if (l->broken.status) {
        local_give(p, s);
        return fail_broken(l, err);
    }
    s->step = l->next_step++;
    s->t_in_ns = tern_now_ns();
    s->bytes_in = 0;
    l->users[s->step % TERN_MAX_STEPS_IN_FLIGHT] = s->user;
    s->user = l; /* any value but NULL, which is the stage's word for "not run" */
    TERN_BUG_IF(!tern_queue_push(tern_stage_in(l->stage), s));
    return TERN_OK;
}

static enum tern_status local_recv(struct pipe *p, int timeout_ms, struct tern_step **out,
                                   struct tern_err *err)
{
    struct local *l = p->impl;
    struct tern_step *s;

    if (l->broken.status)
        return fail_broken(l, err);
    s = tern_queue_pop(tern_stage_out(l->stage), timeout_ms);
    if (!s)
        return TERN_AGAIN;
    if (!s->user) {
        local_give(p, s);
        if (!tern_stage_error(l->stage, &l->broken))
            (void)TERN_FAIL(&l->broken, TERN_ERR_STATE, "the compute thread has ended");
        return fail_broken(l, err);
    }
    s->user = l->users[s->step % TERN_MAX_STEPS_IN_FLIGHT];
    *out = s;
    return TERN_OK;
}

/* One process, one clock. */
static void local_live(struct pipe *p, uint32_t i, struct pipe_stage_live *out)
{
    const struct local *l = p->impl;

    (void)i;
    *out = (struct pipe_stage_live){ .memory_bytes = tern_memory_resident(),
                                     .steps = tern_stage_steps(l->stage),
                                     .busy_us = tern_stage_busy_us(l->stage) };
}

static void local_close(struct pipe *p)
{
    struct local *l = p->impl;

    tern_stage_free(&l->stage);
    tern_model_free(&l->model);
    pipe_steps_fini(&l->steps);
    free(l);
}

static void fill_info(struct local *l, const struct pipe_options *o)
{
    struct pipe *p = &l->pipe;
    struct pipe_stage_info *s = &p->stages[0];

    p->n_stages = 1;
    p->max_in_flight = o->max_in_flight ? o->max_in_flight : LOCAL_IN_FLIGHT;
    if (p->max_in_flight > TERN_MAX_STEPS_IN_FLIGHT)
        p->max_in_flight = TERN_MAX_STEPS_IN_FLIGHT;
    p->max_rows = o->max_rows;
    p->row_bytes = (uint32_t)tern_boundary_row_bytes(o->boundary, o->arch->n_embd);
    p->take = local_take;
    p->give = local_give;
    p->send = local_send;
    p->recv = local_recv;
    p->live = local_live;
    p->close = local_close;
    p->impl = l;
    snprintf(s->name, sizeof s->name, "local");
    snprintf(s->cpu, sizeof s->cpu, "%s", tern_cpu_name(o->kern->level));
    s->layout = tern_pack_layout_name(o->layout);
    s->first = 0;
    s->last = o->arch->n_layers;
    s->threads = tern_pool_threads(o->pool);
}

static enum tern_status load(struct local *l, const struct pipe_options *o, struct tern_err *err)
{
    struct progress bar;
    struct tern_model_options mo = {
        .first = 0,
        .last = o->arch->n_layers,
        .with_embd = false,
        .layout = o->layout,
        .progress = progress_update,
        .progress_arg = &bar,
    };
    enum tern_status st;

    progress_begin(&bar, "loading the model", o->quiet);
    st = tern_model_load(o->gguf, o->arch, o->kern, o->pool, &mo, &l->model, err);
    progress_end(&bar);
    return st;
}

enum tern_status pipe_local_open(const struct pipe_options *o, struct pipe **out, struct tern_err *err)
{
    struct tern_stage_options so = {
        .boundary = o->boundary,
        .kv = o->kv,
        .n_pages = o->n_pages,
        .n_slots = o->n_slots,
        .max_positions = o->max_positions,
        .max_rows = o->max_rows,
        .index = 0,
        .is_last = true,
    };
    struct local *l = calloc(1, sizeof *l);
    enum tern_status st;

    if (!l)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a pipeline");
    l->next_step = 1;
    fill_info(l, o);
    st = load(l, o, err);
    if (st == TERN_OK)
        st = tern_stage_new(l->model, o->pool, &so, &l->stage, err);
    if (st == TERN_OK)
        st = pipe_steps_init(&l->steps, l->pipe.max_in_flight, o->max_rows, l->pipe.row_bytes, err);
    if (st == TERN_OK)
        st = tern_stage_start(l->stage, err);
    if (st) {
        local_close(&l->pipe);
        return st;
    }
    l->pipe.fd = tern_queue_fd(tern_stage_out(l->stage));
    l->pipe.stages[0].weight_bytes = l->model->tiles_bytes + l->model->norms_bytes;
    l->pipe.stages[0].kv_bytes = tern_stage_kv_bytes(l->stage);
    *out = &l->pipe;
    return TERN_OK;
}
