/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step through a slice of layers, and the compute thread that runs one after another.
 *
 * The order within a step is part of the contract: slot operations, then all appends, then the layers, so
 * that every row of the batch sees final page lists.  Slot operations are applied even to sequences that
 * failed upstream: page tables must stay the same on every worker; only rows are skipped.
 */
#include "worker/stage.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/thread.h"
#include "engine/forward.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct tern_stage {
    const struct tern_model *model; /* borrowed */
    struct tern_pool *pool;         /* borrowed */
    struct tern_stage_options o;
    size_t n_embd, row_bytes;

    struct tern_kv_table *table;
    struct tern_kv_store store;
    struct tern_scratch *scratch;
    void *x_block; /* f32 [max_rows][n_embd] */
    size_t x_bytes;
    struct tern_row *rows; /* [max_rows] */
    uint64_t next_step;
    uint64_t last_us; /* that the last step took */

    struct tern_queue *in, *out;
    pthread_t thread;
    bool started;
    atomic_bool stop, stopped, gave_up;
    struct tern_err error; /* published by gave_up */
    atomic_uint_least64_t n_steps, busy_us;
};

/* -- birth and death ------------------------------------------------------------------------------------- */

static enum tern_status check_options(const struct tern_model *m, const struct tern_stage_options *o,
                                      struct tern_err *err)
{
    if (m->last <= m->first)
        return TERN_FAIL(err, TERN_ERR_USAGE, "a stage needs at least one layer");
    if (!tern_boundary_valid(o->boundary))
        return TERN_FAIL(err, TERN_ERR_USAGE, "boundary format %u is unknown", (unsigned)o->boundary);
    if (!tern_kv_type_valid(o->kv))
        return TERN_FAIL(err, TERN_ERR_USAGE, "KV type %u is unknown", (unsigned)o->kv);
    if (o->n_slots < 1 || o->n_slots > TERN_MAX_SLOTS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%u slots were asked for; 1 to %d are possible", o->n_slots,
                         TERN_MAX_SLOTS);
    if (o->max_positions < 1 || o->max_positions > TERN_MAX_CONTEXT)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a context of %u positions was asked for; 1 to %d are possible",
                         o->max_positions, TERN_MAX_CONTEXT);
    if (o->max_rows < 1 || o->max_rows > TERN_MAX_STEP_ROWS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "steps of %u rows were asked for; 1 to %d are possible",
                         o->max_rows, TERN_MAX_STEP_ROWS);
    if (o->n_pages < 1)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a KV cache without pages was asked for");
    return TERN_OK;
}

static void tell_soon(void *arg)
{
    const struct tern_stage *s = arg;

    if (s->last_us >= s->o.soon_us)
        s->o.soon(s->o.arg);
}

enum tern_status tern_stage_new(const struct tern_model *model, struct tern_pool *pool,
                                const struct tern_stage_options *o, struct tern_stage **out,
                                struct tern_err *err)
{
    const struct tern_arch *a = &model->arch;
    struct tern_stage *s;
    enum tern_status st = check_options(model, o, err);

    if (st)
        return st;
    s = calloc(1, sizeof *s);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a stage");
    s->model = model;
    s->pool = pool;
    s->o = *o;
    s->n_embd = a->n_embd;
    s->row_bytes = tern_boundary_row_bytes(o->boundary, a->n_embd);
    s->x_bytes = (size_t)o->max_rows * a->n_embd * sizeof(float);
    s->next_step = 1;
    st = tern_kv_table_new(o->n_slots, o->n_pages, o->max_positions, &s->table, err);
    if (!st)
        st = tern_kv_store_new(o->kv, o->n_pages, model->last - model->first, a->n_kv_heads, a->head_dim,
                               &s->store, err);
    if (!st)
        st = tern_scratch_new(a, o->max_rows, tern_pool_threads(pool), &s->scratch, err);
    if (!st && o->soon)
        tern_scratch_on_soon(s->scratch, tell_soon, s);
    if (!st)
        st = tern_block_new(s->x_bytes, "the rows of a step", &s->x_block, err);
    if (!st)
        st = tern_queue_new(TERN_STAGE_STEPS, &s->in, err);
    if (!st)
        st = tern_queue_new(TERN_STAGE_STEPS, &s->out, err);
    if (!st) {
        s->rows = calloc(o->max_rows, sizeof *s->rows);
        if (!s->rows)
            st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the rows of a step");
    }
    if (st) {
        tern_stage_free(&s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

void tern_stage_free(struct tern_stage **sp)
{
    struct tern_stage *s = *sp;

    if (!s)
        return;
    if (s->started) {
        tern_stage_stop(s);
        pthread_join(s->thread, NULL);
    }
    tern_queue_free(&s->in);
    tern_queue_free(&s->out);
    free(s->rows);
    if (s->x_block)
        tern_block_free(&s->x_block, s->x_bytes);
    tern_scratch_free(&s->scratch);
    tern_kv_store_free(&s->store);
    tern_kv_table_free(&s->table);
    free(s);
    *sp = NULL;
}

/* -- one step -------------------------------------------------------------------------------------------- */

static bool is_failed(const struct tern_step *step, uint32_t slot, uint32_t gen)
{
    for (uint32_t i = 0; i < step->n_failed; i++)
        if (step->failed[i].slot == slot && step->failed[i].gen == gen)
            return true;
    return false;
}

/* Notes the failure for the coordinator and the stages behind, and keeps later steps in flight from going on
 * with the sequence. */
static void fail_sequence(struct tern_stage *s, struct tern_step *step, uint32_t slot, uint32_t gen,
                          uint32_t code, uint32_t where)
{
    tern_step_add_failed(step, slot, gen, code, where);
    tern_kv_fail(s->table, slot, gen);
}

static uint32_t fail_code(enum tern_status st)
{
    if (st == TERN_ERR_NUMERIC)
        return TERN_FAILED_NUMERIC;
    return st == TERN_ERR_LIMIT ? TERN_FAILED_PAGES : TERN_FAILED_POSITION;
}

/* A failed sequence must be one this step speaks of: so the list can never be too short for our own
 * findings. */
static bool failed_are_known(const struct tern_step *step)
{
    for (uint32_t i = 0; i < step->n_failed; i++) {
        const struct tern_failed *f = &step->failed[i];
        bool known = false;

        for (uint32_t j = 0; j < step->n_runs && !known; j++)
            known = step->runs[j].slot == f->slot && step->runs[j].gen == f->gen;
        for (uint32_t j = 0; j < step->n_ops && !known; j++)
            known = step->ops[j].slot == f->slot && step->ops[j].gen == f->gen;
        if (!known)
            return false;
    }
    return true;
}

/* What must hold for the stage as a whole. */
static enum tern_status check_step(const struct tern_stage *s, const struct tern_step *step,
                                   struct tern_err *err)
{
    enum tern_status st = tern_step_check(step, err);

    if (st)
        return st;
    if (step->step != s->next_step)
        return TERN_FAIL(err, TERN_ERR_STATE, "steps were lost: number %llu came where %llu was due",
                         (unsigned long long)step->step, (unsigned long long)s->next_step);
    if (step->n_rows > s->o.max_rows)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "step %llu has %u rows; the assignment allows %u",
                         (unsigned long long)step->step, step->n_rows, s->o.max_rows);
    if (step->row_bytes != s->row_bytes || (size_t)step->n_rows * step->row_bytes > step->payload_cap)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has rows of %u bytes; the boundary format has %zu",
                         (unsigned long long)step->step, step->row_bytes, s->row_bytes);
    if (step->n_times >= TERN_MAX_WORKERS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "step %llu has passed more than %d stages",
                         (unsigned long long)step->step, TERN_MAX_WORKERS);
    if (!failed_are_known(step))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "step %llu reports the failure of a sequence it does not contain",
                         (unsigned long long)step->step);
    return TERN_OK;
}

static enum tern_status apply_op(struct tern_stage *s, const struct tern_slot_op *op)
{
    uint32_t from = 0, to = 0;
    enum tern_status st = TERN_ERR_STATE;

    switch ((enum tern_slot_op_kind)op->kind) {
    case TERN_OP_OPEN: return tern_kv_open(s->table, op->slot, op->gen, NULL);
    case TERN_OP_FREE: return tern_kv_free(s->table, op->slot, op->gen, NULL);
    case TERN_OP_REWIND: return tern_kv_rewind(s->table, op->slot, op->gen, op->len, NULL);
    case TERN_OP_FORK:
        st =
            tern_kv_fork(s->table, op->slot, op->gen, op->from_slot, op->from_gen, op->len, &from, &to, NULL);
        if (st == TERN_OK && from != to)
            tern_kv_store_copy_page(&s->store, from, to);
        break;
    }
    return st;
}

static void apply_ops(struct tern_stage *s, struct tern_step *step)
{
    for (uint32_t i = 0; i < step->n_ops; i++) {
        const struct tern_slot_op *op = &step->ops[i];
        enum tern_status st = apply_op(s, op);

        if (st)
            fail_sequence(s, step, op->slot, op->gen, fail_code(st), s->o.index);
    }
}

/* Decodes a run's rows into x and makes room for them.  False when its sequence has failed, before or now;
 * the table then is as it was.  Rows are decoded first, so that bad ones never lengthen a sequence. */
static bool admit_run(struct tern_stage *s, struct tern_step *step, const struct tern_run *run, uint32_t row,
                      float *x)
{
    uint32_t from = 0, to = 0;
    enum tern_status st;

    if (is_failed(step, run->slot, run->gen)) {
        tern_kv_fail(s->table, run->slot, run->gen);
        return false;
    }
    for (uint32_t i = row; i < row + run->n; i++) {
        if (!tern_boundary_decode(s->o.boundary, s->model->kern, step->payload + i * s->row_bytes, s->n_embd,
                                  x + i * s->n_embd)) {
            fail_sequence(s, step, run->slot, run->gen, TERN_FAILED_NUMERIC, s->model->first);
            return false;
        }
    }
    st = tern_kv_append(s->table, run->slot, run->gen, run->pos, run->n, &from, &to, NULL);
    if (st) {
        fail_sequence(s, step, run->slot, run->gen, fail_code(st), s->o.index);
        return false;
    }
    if (from != to)
        tern_kv_store_copy_page(&s->store, from, to);
    return true;
}

/* Only after all appends: page lists of a slot stay put until that slot changes. */
static void build_rows(struct tern_stage *s, const struct tern_step *step, const bool *live)
{
    struct tern_row *r = s->rows;

    for (uint32_t i = 0; i < step->n_runs; i++) {
        const struct tern_run *run = &step->runs[i];
        const uint32_t *pages = live[i] ? tern_kv_pages(s->table, run->slot) : NULL;

        for (uint32_t j = 0; j < run->n; j++, r++)
            *r = (struct tern_row){ .pages = pages, .pos = run->pos + j, .dead = live[i] ? 0 : UINT32_MAX };
    }
}

/* A run in which a row died in a layer: the whole run is taken back, so that the sequence is as long here as
 * on the stages behind. */
static bool run_survived(struct tern_stage *s, struct tern_step *step, const struct tern_run *run,
                         uint32_t row)
{
    for (uint32_t i = row; i < row + run->n; i++) {
        if (s->rows[i].dead) {
            enum tern_status st = tern_kv_rewind(s->table, run->slot, run->gen, run->pos, NULL);

            TERN_BUG_IF(st != TERN_OK);
            fail_sequence(s, step, run->slot, run->gen, TERN_FAILED_NUMERIC, s->rows[i].dead - 1);
            return false;
        }
    }
    return true;
}

/* The payload holds the encoded rows of all that lived.  Failed runs become zeros, which decode to zeros in
 * every format; behind the last stage the wanted rows move together. */
static void finish_rows(struct tern_stage *s, struct tern_step *step, const bool *live)
{
    uint32_t row = 0, n_out = 0;

    for (uint32_t i = 0; i < step->n_runs; i++) {
        const struct tern_run *run = &step->runs[i];
        uint32_t n = s->o.is_last ? run->n_want : run->n;
        uint8_t *from = step->payload + (row + run->n - n) * s->row_bytes;
        uint8_t *to = step->payload + n_out * s->row_bytes;

        if (!live[i])
            memset(to, 0, n * s->row_bytes);
        else if (to != from)
            memmove(to, from, n * s->row_bytes);
        row += run->n;
        n_out += n;
    }
    step->n_rows = n_out;
}

static void compute(struct tern_stage *s, struct tern_step *step)
{
    bool live[TERN_MAX_STEP_RUNS];
    float *x = s->x_block;
    uint32_t row = 0;

    apply_ops(s, step);
    for (uint32_t i = 0; i < step->n_runs; row += step->runs[i++].n)
        live[i] = admit_run(s, step, &step->runs[i], row, x);
    build_rows(s, step, live);
    if (step->n_rows > 0)
        tern_forward_layers(s->model, s->pool, s->scratch, &s->store, s->o.boundary, s->rows, step->n_rows, x,
                            step->payload);
    row = 0;
    for (uint32_t i = 0; i < step->n_runs; row += step->runs[i++].n)
        live[i] = live[i] && run_survived(s, step, &step->runs[i], row);
    finish_rows(s, step, live);
}

static uint32_t clamp_u32(uint64_t v)
{
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

enum tern_status tern_stage_run(struct tern_stage *s, struct tern_step *step, struct tern_err *err)
{
    uint64_t in_us = step->t_in_ns / 1000, start_us = tern_now_ns() / 1000, us;
    enum tern_status st = check_step(s, step, err);

    if (st)
        return st;
    tern_alloc_guard_begin("stage step");
    compute(s, step);
    tern_alloc_guard_end();
    s->next_step++;
    /* Differences of whole microseconds: the end is their sum, exactly. */
    us = tern_now_ns() / 1000 - start_us;
    s->last_us = us;
    step->times[step->n_times++] = (struct tern_stage_time){
        .compute_us = clamp_u32(us),
        .queue_us = in_us && in_us < start_us ? clamp_u32(start_us - in_us) : 0,
        .bytes = step->bytes_in,
        .t_in_us = in_us,
    };
    atomic_fetch_add_explicit(&s->n_steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->busy_us, us, memory_order_relaxed);
    return TERN_OK;
}

/* -- the compute thread ---------------------------------------------------------------------------------- */

/* NULL: there will be none any more. */
static struct tern_step *next_step(struct tern_stage *s, bool broken)
{
    if (s->o.await && !broken)
        s->o.await(s->o.arg);
    return tern_queue_pop(s->in, -1);
}

static void *compute_main(void *arg)
{
    struct tern_stage *s = arg;
    struct tern_step *step;
    bool broken = false;

    tern_thread_set_kind(TERN_THREAD_PLAIN);
    tern_cpu_set_float_mode();
    while ((step = next_step(s, broken)) != NULL) {
        bool skip = broken || atomic_load(&s->stop);

        if (skip || tern_stage_run(s, step, &s->error) != TERN_OK) {
            step->user = NULL;
            step->n_rows = 0;
            if (!skip)
                atomic_store(&s->gave_up, true);
            broken = true;
        } else if (s->o.on_run && s->o.on_run(s->o.arg, step)) {
            continue;
        }
        TERN_BUG_IF(!tern_queue_push(s->out, step));
    }
    atomic_store(&s->stopped, true);
    tern_queue_close(s->out);
    return NULL;
}

enum tern_status tern_stage_start(struct tern_stage *s, struct tern_err *err)
{
    int rc;

    TERN_BUG_IF(s->started);
    rc = pthread_create(&s->thread, NULL, compute_main, s);
    if (rc)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, rc, "cannot start the compute thread: %s", strerror(rc));
    s->started = true;
    return TERN_OK;
}

void tern_stage_stop(struct tern_stage *s)
{
    atomic_store(&s->stop, true);
    if (!s->started) {
        atomic_store(&s->stopped, true);
        tern_queue_close(s->out);
    }
    tern_queue_close(s->in);
}

bool tern_stage_stopped(const struct tern_stage *s)
{
    return atomic_load(&s->stopped);
}

struct tern_queue *tern_stage_in(struct tern_stage *s)
{
    return s->in;
}

struct tern_queue *tern_stage_out(struct tern_stage *s)
{
    return s->out;
}

bool tern_stage_error(struct tern_stage *s, struct tern_err *err)
{
    if (!atomic_load(&s->gave_up))
        return false;
    if (err)
        *err = s->error;
    return true;
}

size_t tern_stage_kv_bytes(const struct tern_stage *s)
{
    return s->store.bytes;
}

size_t tern_stage_scratch_bytes(const struct tern_stage *s)
{
    return s->x_bytes + s->o.max_rows * sizeof *s->rows +
           tern_scratch_bytes(&s->model->arch, s->o.max_rows, tern_pool_threads(s->pool));
}

uint64_t tern_stage_steps(const struct tern_stage *s)
{
    return atomic_load_explicit(&s->n_steps, memory_order_relaxed);
}

uint64_t tern_stage_busy_us(const struct tern_stage *s)
{
    return atomic_load_explicit(&s->busy_us, memory_order_relaxed);
}
