/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline without layers for tests of the scheduler: it sends the wanted rows back as they came, keeps a
 * page table of its own, and can be told to misbehave.
 */
#ifndef TERN_TESTS_UNIT_FAKE_PIPE_H
#define TERN_TESTS_UNIT_FAKE_PIPE_H

#include "unit/unit.h"

#include "coordinator/pipe.h"
#include "engine/kv.h"

#include <math.h>
#include <string.h>

enum fault { NO_FAULT, FAIL_SEQUENCE, BAD_SCALE, WRONG_ROWS, WRONG_STEP, BREAK, TOO_MANY_TIMES };

struct fake {
    struct pipe pipe;
    struct tern_kv_table *kv;
    struct tern_step *steps[TERN_MAX_STEPS_IN_FLIGHT];
    bool out[TERN_MAX_STEPS_IN_FLIGHT]; /* taken */
    struct tern_step *line[TERN_MAX_STEPS_IN_FLIGHT];
    uint32_t n_line, most_line; /* in flight; the most there ever were */
    uint64_t sent, max_chunk, max_decode;
    enum fault fault;
    uint64_t fault_step; /* at which step */
    uint32_t fault_slot, fault_gen;
};

static struct tern_step *fake_take(struct pipe *p)
{
    struct fake *f = p->impl;

    for (uint32_t i = 0; i < p->max_in_flight; i++)
        if (!f->out[i]) {
            f->out[i] = true;
            return f->steps[i];
        }
    return NULL;
}

static void fake_give(struct pipe *p, struct tern_step *s)
{
    struct fake *f = p->impl;

    for (uint32_t i = 0; i < p->max_in_flight; i++)
        if (f->steps[i] == s) {
            assert_true(f->out[i]);
            f->out[i] = false;
            return;
        }
    fail_msg("a step that is not ours was given back");
}

/* What every stage would do: each operation and run must be possible. */
static enum tern_status fake_send(struct pipe *p, struct tern_step *s, struct tern_err *err)
{
    struct fake *f = p->impl;
    uint64_t decode = 0, prompt = 0;
    uint32_t a, b;

    (void)err;
    assert_ok(tern_step_check(s, &unit_err));
    assert_true(s->n_rows > 0 && s->n_rows <= p->max_rows);
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const struct tern_slot_op *o = &s->ops[i];

        if (o->kind == TERN_OP_OPEN)
            assert_ok(tern_kv_open(f->kv, o->slot, o->gen, &unit_err));
        else if (o->kind == TERN_OP_REWIND)
            assert_ok(tern_kv_rewind(f->kv, o->slot, o->gen, o->len, &unit_err));
        else
            assert_ok(tern_kv_free(f->kv, o->slot, o->gen, &unit_err));
    }
    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct tern_run *r = &s->runs[i];

        assert_ok(tern_kv_append(f->kv, r->slot, r->gen, r->pos, r->n, &a, &b, &unit_err));
        if (r->pos > 0 && r->n == 1)
            decode++;
        else
            prompt += r->n;
    }
    f->max_chunk = prompt > f->max_chunk ? prompt : f->max_chunk;
    f->max_decode = decode > f->max_decode ? decode : f->max_decode;
    s->step = ++f->sent;
    f->line[f->n_line++] = s;
    f->most_line = f->n_line > f->most_line ? f->n_line : f->most_line;
    return TERN_OK;
}

/* Keeps the wanted rows, which are the last of each run. */
static void compact(struct tern_step *s)
{
    uint32_t row = 0, n = 0;

    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct tern_run *r = &s->runs[i];

        for (uint32_t j = r->n - r->n_want; j < r->n; j++, n++)
            memmove(s->payload + (size_t)n * s->row_bytes, s->payload + (size_t)(row + j) * s->row_bytes,
                    s->row_bytes);
        row += r->n;
    }
    s->n_rows = n;
    s->n_runs = 0; /* results carry no runs */
    s->n_ops = 0;
}

static enum tern_status fake_recv(struct pipe *p, int timeout_ms, struct tern_step **out,
                                  struct tern_err *err)
{
    struct fake *f = p->impl;
    struct tern_step *s = f->line[0];
    const float bad = NAN;

    (void)timeout_ms;
    if (f->n_line == 0)
        return TERN_AGAIN;
    if (f->fault == BREAK && s->step >= f->fault_step)
        return TERN_FAIL(err, TERN_ERR_PEER, "worker b died");
    memmove(f->line, f->line + 1, --f->n_line * sizeof *f->line);
    for (uint32_t i = 0; i < s->n_runs && s->step >= f->fault_step && f->fault == FAIL_SEQUENCE; i++)
        if (s->runs[i].slot == f->fault_slot && s->runs[i].gen == f->fault_gen)
            tern_step_add_failed(s, f->fault_slot, f->fault_gen, TERN_FAILED_NUMERIC, 3);
    compact(s);
    s->n_times = f->fault == TOO_MANY_TIMES ? TERN_MAX_WORKERS : p->n_stages;
    for (uint32_t i = 0; i < s->n_times; i++)
        s->times[i] = (struct tern_stage_time){ 10, 1, 100 };
    if (s->step == f->fault_step && f->fault == BAD_SCALE && s->n_rows)
        memcpy(s->payload, &bad, sizeof bad);
    if (s->step == f->fault_step && f->fault == WRONG_ROWS)
        s->n_rows++;
    if (s->step == f->fault_step && f->fault == WRONG_STEP)
        s->step++;
    *out = s;
    return TERN_OK;
}

#endif
