/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/step.h"

#include "engine/base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FAILED (TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS)

enum tern_status tern_step_new(uint32_t max_rows, uint32_t row_bytes, struct tern_step **out,
                               struct tern_err *err)
{
    struct tern_step *s;
    void *payload;
    enum tern_status st;

    if (max_rows == 0 || max_rows > TERN_MAX_STEP_ROWS || row_bytes == 0 ||
        row_bytes > TERN_MAX_PAYLOAD_BYTES)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "a step of %u rows of %u bytes is not possible: 1 to %d rows of 1 to %d bytes",
                         max_rows, row_bytes, TERN_MAX_STEP_ROWS, TERN_MAX_PAYLOAD_BYTES);
    s = calloc(1, sizeof *s);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a step");
    st = tern_block_new((size_t)max_rows * row_bytes, "the rows of a step", &payload, err);
    if (st) {
        free(s);
        return st;
    }
    s->payload = payload;
    s->payload_cap = (size_t)max_rows * row_bytes;
    s->row_bytes = row_bytes;
    *out = s;
    return TERN_OK;
}

void tern_step_free(struct tern_step **s)
{
    void *payload;

    if (!*s)
        return;
    payload = (*s)->payload;
    tern_block_free(&payload, (*s)->payload_cap);
    free(*s);
    *s = NULL;
}

void tern_step_clear(struct tern_step *s)
{
    s->step = 0;
    s->n_ops = 0;
    s->n_runs = 0;
    s->n_failed = 0;
    s->n_times = 0;
    s->n_rows = 0;
    s->rows_in = 0;
    s->parts_in = 0;
    s->parts_out = 0;
    s->t_in_ns = 0;
    s->bytes_in = 0;
    s->user = NULL;
}

static bool has_failed(const struct tern_failed *f, uint32_t n, uint32_t slot, uint32_t gen)
{
    for (uint32_t i = 0; i < n; i++)
        if (f[i].slot == slot && f[i].gen == gen)
            return true;
    return false;
}

void tern_step_add_failed(struct tern_step *s, uint32_t slot, uint32_t gen, uint32_t code, uint32_t where)
{
    if (has_failed(s->failed, s->n_failed, slot, gen))
        return;
    /* Only sequences of the step's own ops and runs fail, whoever noted it (tern_step_check): they all
     * fit. */
    TERN_BUG_IF(s->n_failed >= MAX_FAILED);
    s->failed[s->n_failed++] = (struct tern_failed){ slot, gen, code, where };
}

static enum tern_status check_ops(const struct tern_step *s, struct tern_err *err)
{
    if (s->n_ops > TERN_MAX_STEP_OPS)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has %u slot operations, at most %d",
                         (unsigned long long)s->step, s->n_ops, TERN_MAX_STEP_OPS);
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const struct tern_slot_op *o = &s->ops[i];

        if (o->kind < TERN_OP_OPEN || o->kind > TERN_OP_FORK)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has a slot operation of kind %u",
                             (unsigned long long)s->step, o->kind);
        if (o->slot >= TERN_MAX_SLOTS || (o->kind == TERN_OP_FORK && o->from_slot >= TERN_MAX_SLOTS))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu operates on slot %u, there are %d",
                             (unsigned long long)s->step, o->slot >= TERN_MAX_SLOTS ? o->slot : o->from_slot,
                             TERN_MAX_SLOTS);
    }
    return TERN_OK;
}

static enum tern_status check_runs(const struct tern_step *s, struct tern_err *err)
{
    bool used[TERN_MAX_SLOTS] = { false };
    uint64_t rows = 0;

    if (s->n_runs > TERN_MAX_STEP_RUNS)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has %u runs, at most %d",
                         (unsigned long long)s->step, s->n_runs, TERN_MAX_STEP_RUNS);
    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct tern_run *r = &s->runs[i];

        if (r->slot >= TERN_MAX_SLOTS || used[r->slot])
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has rows for slot %u %s",
                             (unsigned long long)s->step, r->slot,
                             r->slot < TERN_MAX_SLOTS ? "twice" : "which cannot exist");
        used[r->slot] = true;
        if (r->n == 0 || r->n > s->n_rows || r->n_want > r->n)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has a run of %u of %u rows that wants %u",
                             (unsigned long long)s->step, r->n, s->n_rows, r->n_want);
        if (r->pos > TERN_MAX_CONTEXT || r->n > TERN_MAX_CONTEXT - r->pos)
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "step %llu has %u rows at position %u, past the last one there can be (%d)",
                             (unsigned long long)s->step, r->n, r->pos, TERN_MAX_CONTEXT);
        rows += r->n;
    }
    if (rows != s->n_rows)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu has %u rows, but its runs have %llu",
                         (unsigned long long)s->step, s->n_rows, (unsigned long long)rows);
    return TERN_OK;
}

enum tern_status tern_step_check_result(const struct tern_step *s, struct tern_err *err)
{
    if (s->n_failed > MAX_FAILED || s->n_times > TERN_MAX_WORKERS)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "step %llu has %u failed sequences and %u times, at most %d and %d",
                         (unsigned long long)s->step, s->n_failed, s->n_times, MAX_FAILED, TERN_MAX_WORKERS);
    for (uint32_t i = 0; i < s->n_failed; i++) {
        const struct tern_failed *f = &s->failed[i];

        if (f->code < TERN_FAILED_NUMERIC || f->code > TERN_FAILED_PAGES || f->slot >= TERN_MAX_SLOTS)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu says that slot %u failed with code %u",
                             (unsigned long long)s->step, f->slot, f->code);
        if (has_failed(s->failed, i, f->slot, f->gen))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu says twice that slot %u failed",
                             (unsigned long long)s->step, f->slot);
    }
    return TERN_OK;
}

/* A step can only fail sequences it has to do with; so its list never overflows (tern_step_add_failed). */
static bool is_of_step(const struct tern_step *s, const struct tern_failed *f)
{
    for (uint32_t i = 0; i < s->n_runs; i++)
        if (s->runs[i].slot == f->slot && s->runs[i].gen == f->gen)
            return true;
    for (uint32_t i = 0; i < s->n_ops; i++)
        if (s->ops[i].slot == f->slot && s->ops[i].gen == f->gen)
            return true;
    return false;
}

enum tern_status tern_step_check(const struct tern_step *s, struct tern_err *err)
{
    enum tern_status st = check_ops(s, err);

    if (!st)
        st = check_runs(s, err);
    if (!st)
        st = tern_step_check_result(s, err);
    for (uint32_t i = 0; !st && i < s->n_failed; i++)
        if (!is_of_step(s, &s->failed[i]))
            st =
                TERN_FAIL(err, TERN_ERR_FORMAT, "step %llu says that slot %u failed, which it does not touch",
                          (unsigned long long)s->step, s->failed[i].slot);
    return st;
}
