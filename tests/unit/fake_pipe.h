/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline without layers for tests of the scheduler: it sends the wanted rows back as they came, keeps a
 * page table of its own, and can be told to misbehave.
 *
 * It can be told to remember: then its pages hold a mark of every row, and a wanted row comes back as one
 * that follows from all rows before it, as they stand in its pages.  And it has a clock that goes on only as
 * stages compute and links delay.
 */
#ifndef TERN_TESTS_UNIT_FAKE_PIPE_H
#define TERN_TESTS_UNIT_FAKE_PIPE_H

#include "unit/unit.h"

#include "coordinator/pipe.h"
#include "engine/kv.h"

#include <math.h>
#include <string.h>

enum fault { NO_FAULT, FAIL_SEQUENCE, FAIL_KV, BAD_SCALE, WRONG_ROWS, WRONG_STEP, BREAK, TOO_MANY_TIMES };

static uint64_t fake_clock_us; /* what time it is */

/* What a stage takes for a step of so many rows, and the delay of the link in front of it. */
struct fake_stage {
    uint32_t step_us, row_us, delay_us;
    uint64_t free_us; /* it has done what it has so far */
    uint32_t doubles; /* positions behind which a row takes twice as long; 0: all alike */
    uint32_t uneven;  /* percent that a step takes longer or shorter, at most */
    uint64_t rng;
};

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

    uint64_t *marks; /* [n_pages][TERN_PAGE], or NULL: it does not remember */
    void (*row_of)(uint64_t history, uint8_t *row);
    void (*on_send)(struct fake *f, const struct tern_step *s); /* looks at each step, or NULL */
    struct fake_stage stages[TERN_MAX_WORKERS];
    uint32_t home_delay_us; /* of the last link */
    bool times_out;         /* else each result is waited for */
    bool fresh;             /* nobody has looked at the last result yet */
};

static uint64_t fake_now_us(void)
{
    return fake_clock_us;
}

/* 64-bit FNV-1a. */
static inline uint64_t fake_mark(uint64_t h, const void *data, size_t n)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#define FAKE_MARK_0 0xcbf29ce484222325u

static inline void fake_copy_page(struct fake *f, uint32_t from, uint32_t to)
{
    if (f->marks && from != to)
        memcpy(f->marks + (size_t)to * TERN_PAGE, f->marks + (size_t)from * TERN_PAGE,
               TERN_PAGE * sizeof *f->marks);
}

/* Row `at` of the step is position pos of the slot. */
static inline void fake_remember(struct fake *f, struct tern_step *s, const struct tern_run *r, uint32_t at,
                                 uint32_t pos)
{
    const uint32_t *pages = tern_kv_pages(f->kv, r->slot);
    uint8_t *row = s->payload + (size_t)at * s->row_bytes;
    uint64_t history = FAKE_MARK_0;

    f->marks[(size_t)pages[pos / TERN_PAGE] * TERN_PAGE + pos % TERN_PAGE] =
        fake_mark(FAKE_MARK_0, row, s->row_bytes);
    if (pos + r->n_want < r->pos + r->n)
        return;
    for (uint32_t i = 0; i <= pos; i++)
        history = fake_mark(history, &f->marks[(size_t)pages[i / TERN_PAGE] * TERN_PAGE + i % TERN_PAGE],
                            sizeof *f->marks);
    f->row_of(history, row);
}

static inline uint32_t fake_compute_us(struct fake_stage *g, const struct tern_step *s)
{
    uint64_t us = g->step_us + (uint64_t)g->row_us * s->n_rows;

    for (uint32_t i = 0; i < s->n_runs && g->doubles; i++)
        us += (uint64_t)g->row_us * s->runs[i].n * s->runs[i].pos / g->doubles;
    if (g->uneven)
        us = us * (100 - g->uneven + unit_random(&g->rng) % (2 * g->uneven + 1)) / 100;
    return (uint32_t)us;
}

/* When each stage has it and what it takes; t_in_ns becomes when the result is back. */
static inline void fake_travel(struct fake *f, struct tern_step *s)
{
    uint64_t now = fake_clock_us;

    for (uint32_t i = 0; i < f->pipe.n_stages; i++) {
        struct fake_stage *g = &f->stages[i];
        const uint32_t us = fake_compute_us(g, s);
        const uint64_t in = now + g->delay_us, start = in > g->free_us ? in : g->free_us;

        s->times[i] = (struct tern_stage_time){ us, (uint32_t)(start - in), 100, in };
        now = g->free_us = start + us;
    }
    s->t_in_ns = (now + f->home_delay_us) * 1000;
}

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

/* What a stage does with an operation; only after FAIL_KV may one be impossible. */
static inline void fake_op(struct fake *f, struct tern_step *s, const struct tern_slot_op *o)
{
    uint32_t from = 0, to = 0;
    enum tern_status st;

    if (o->kind == TERN_OP_OPEN)
        st = tern_kv_open(f->kv, o->slot, o->gen, &unit_err);
    else if (o->kind == TERN_OP_REWIND)
        st = tern_kv_rewind(f->kv, o->slot, o->gen, o->len, &unit_err);
    else if (o->kind == TERN_OP_FORK)
        st = tern_kv_fork(f->kv, o->slot, o->gen, o->from_slot, o->from_gen, o->len, &from, &to, &unit_err);
    else
        st = tern_kv_free(f->kv, o->slot, o->gen, &unit_err);
    if (st && f->fault == FAIL_KV)
        tern_step_add_failed(s, o->slot, o->gen, TERN_FAILED_POSITION, 1);
    else
        assert_ok(st);
    fake_copy_page(f, from, to);
}

static inline void fake_run(struct fake *f, struct tern_step *s, const struct tern_run *r, uint32_t row)
{
    uint32_t from = 0, to = 0;
    enum tern_status st = tern_kv_append(f->kv, r->slot, r->gen, r->pos, r->n, &from, &to, &unit_err);

    if (st && f->fault == FAIL_KV) {
        tern_step_add_failed(s, r->slot, r->gen,
                             st == TERN_ERR_NUMERIC ? TERN_FAILED_NUMERIC : TERN_FAILED_POSITION, 1);
        return;
    }
    assert_ok(st);
    fake_copy_page(f, from, to);
    for (uint32_t j = 0; f->marks && j < r->n; j++)
        fake_remember(f, s, r, row + j, r->pos + j);
}

static enum tern_status fake_send(struct pipe *p, struct tern_step *s, struct tern_err *err)
{
    struct fake *f = p->impl;
    uint64_t decode = 0, prompt = 0;

    (void)err;
    assert_ok(tern_step_check(s, &unit_err));
    assert_true(s->n_rows + s->n_ops > 0 && s->n_rows <= p->max_rows);
    if (f->on_send)
        f->on_send(f, s);
    for (uint32_t i = 0; i < s->n_ops; i++)
        fake_op(f, s, &s->ops[i]);
    if (f->fault == FAIL_KV && f->sent + 1 == f->fault_step)
        tern_kv_fail(f->kv, f->fault_slot, f->fault_gen);
    for (uint32_t i = 0, row = 0; i < s->n_runs; row += s->runs[i++].n) {
        const struct tern_run *r = &s->runs[i];

        fake_run(f, s, r, row);
        if (r->pos > 0 && r->n == 1)
            decode++;
        else
            prompt += r->n;
    }
    fake_travel(f, s);
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

    if (f->n_line == 0)
        return TERN_AGAIN;
    if (timeout_ms >= 0 && f->times_out && s->t_in_ns / 1000 > fake_clock_us + (uint64_t)timeout_ms * 1000) {
        fake_clock_us += (uint64_t)timeout_ms * 1000;
        return TERN_AGAIN;
    }
    if (f->fault == BREAK && s->step >= f->fault_step)
        return TERN_FAIL(err, TERN_ERR_PEER, "worker b died");
    memmove(f->line, f->line + 1, --f->n_line * sizeof *f->line);
    for (uint32_t i = 0; i < s->n_runs && s->step >= f->fault_step && f->fault == FAIL_SEQUENCE; i++)
        if (s->runs[i].slot == f->fault_slot && s->runs[i].gen == f->fault_gen)
            tern_step_add_failed(s, f->fault_slot, f->fault_gen, TERN_FAILED_NUMERIC, 3);
    compact(s);
    s->n_times = f->fault == TOO_MANY_TIMES ? TERN_MAX_WORKERS : p->n_stages;
    for (uint32_t i = p->n_stages; i < s->n_times; i++)
        s->times[i] = (struct tern_stage_time){ 10, 1, 100, 0 };
    if (s->t_in_ns / 1000 > fake_clock_us)
        fake_clock_us = s->t_in_ns / 1000;
    f->fresh = true;
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
