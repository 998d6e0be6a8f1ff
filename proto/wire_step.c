/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps to messages and back.
 *
 * A payload larger than TERN_MAX_PAYLOAD_BYTES is cut at row boundaries into parts of equally many rows (the
 * last one may be smaller). Both sides know n_rows and row_bytes, so there is exactly one way to cut, and no
 * other is accepted.
 */
#include "proto/wire.h"

#include <string.h>

/* Step and Result, seen alike. */
struct part {
    uint64_t step;
    uint32_t part, n_parts, first_row, n_part_rows, n_rows;
    size_t n_ops, n_runs, n_failed, n_times;
    Tern__SlotOp **ops;
    Tern__Run **runs;
    Tern__Failed **failed;
    Tern__StageTime **times;
};

/* The generated structs of one header, with the pointer arrays protobuf-c wants. */
struct step_messages {
    Tern__SlotOp op[TERN_MAX_STEP_OPS], *ops[TERN_MAX_STEP_OPS];
    Tern__Run run[TERN_MAX_STEP_RUNS], *runs[TERN_MAX_STEP_RUNS];
    Tern__Failed fail[TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS],
        *failed[TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS];
    Tern__StageTime time[TERN_MAX_WORKERS], *times[TERN_MAX_WORKERS];
};

static uint32_t rows_per_part(uint32_t row_bytes)
{
    return TERN_MAX_PAYLOAD_BYTES / row_bytes;
}

static uint32_t count_parts(uint32_t n_rows, uint32_t row_bytes)
{
    uint32_t per = rows_per_part(row_bytes);

    return n_rows == 0 ? 1 : (n_rows - 1) / per + 1;
}

/* Rows of one part; part < count_parts(). */
static void cut(uint32_t n_rows, uint32_t row_bytes, uint32_t part, uint32_t *first, uint32_t *n)
{
    uint32_t per = rows_per_part(row_bytes);

    *first = part * per;
    *n = n_rows - *first < per ? n_rows - *first : per;
}

uint32_t tern_wire_step_parts(const struct tern_step *s)
{
    return count_parts(s->n_rows, s->row_bytes);
}

static void fill_messages(const struct tern_step *s, struct step_messages *m)
{
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const struct tern_slot_op *o = &s->ops[i];

        m->op[i] = (Tern__SlotOp)TERN__SLOT_OP__INIT;
        m->op[i].kind = o->kind;
        m->op[i].slot = o->slot;
        m->op[i].gen = o->gen;
        m->op[i].len = o->len;
        m->op[i].from_slot = o->from_slot;
        m->op[i].from_gen = o->from_gen;
        m->ops[i] = &m->op[i];
    }
    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct tern_run *r = &s->runs[i];

        m->run[i] = (Tern__Run)TERN__RUN__INIT;
        m->run[i].slot = r->slot;
        m->run[i].gen = r->gen;
        m->run[i].pos = r->pos;
        m->run[i].n = r->n;
        m->run[i].n_want = r->n_want;
        m->runs[i] = &m->run[i];
    }
    for (uint32_t i = 0; i < s->n_failed; i++) {
        const struct tern_failed *f = &s->failed[i];

        m->fail[i] = (Tern__Failed)TERN__FAILED__INIT;
        m->fail[i].slot = f->slot;
        m->fail[i].gen = f->gen;
        m->fail[i].code = f->code;
        m->fail[i].where = f->where;
        m->failed[i] = &m->fail[i];
    }
    for (uint32_t i = 0; i < s->n_times; i++) {
        const struct tern_stage_time *t = &s->times[i];

        m->time[i] = (Tern__StageTime)TERN__STAGE_TIME__INIT;
        m->time[i].compute_us = t->compute_us;
        m->time[i].queue_us = t->queue_us;
        m->time[i].bytes = t->bytes;
        m->time[i].t_in_us = t->t_in_us;
        m->times[i] = &m->time[i];
    }
}

static void set_step(Tern__Step *t, const struct tern_step *s, struct step_messages *m)
{
    t->n_ops = s->n_ops;
    t->ops = m->ops;
    t->n_runs = s->n_runs;
    t->runs = m->runs;
    t->n_failed = s->n_failed;
    t->failed = m->failed;
    t->n_times = s->n_times;
    t->times = m->times;
}

enum tern_status tern_wire_put_step(const struct tern_step *s, bool result, uint64_t epoch, uint32_t layout,
                                    uint32_t part, uint8_t *out, size_t cap, size_t *len,
                                    const uint8_t **payload, size_t *payload_len, struct tern_err *err)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Step step = TERN__STEP__INIT;
    Tern__Result home = TERN__RESULT__INIT;
    struct step_messages m;
    uint32_t n_parts = tern_wire_step_parts(s), first, n;
    enum tern_status st;

    TERN_BUG_IF(part >= n_parts || s->n_ops > TERN_MAX_STEP_OPS || s->n_runs > TERN_MAX_STEP_RUNS ||
                s->n_failed > TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS || s->n_times > TERN_MAX_WORKERS);
    cut(s->n_rows, s->row_bytes, part, &first, &n);
    h.version = TERN_WIRE_VERSION;
    h.epoch = epoch;
    h.layout = layout;
    if (part == 0)
        fill_messages(s, &m);
    if (result) {
        h.body_case = TERN__HEADER__BODY_RESULT;
        h.result = &home;
        home.step = s->step;
        home.part = part;
        home.n_parts = n_parts;
        home.first_row = first;
        home.n_part_rows = n;
        home.n_rows = s->n_rows;
        if (part == 0) {
            home.n_failed = s->n_failed;
            home.failed = m.failed;
            home.n_times = s->n_times;
            home.times = m.times;
        }
    } else {
        h.body_case = TERN__HEADER__BODY_STEP;
        h.step = &step;
        step.step = s->step;
        step.part = part;
        step.n_parts = n_parts;
        step.first_row = first;
        step.n_part_rows = n;
        step.n_rows = s->n_rows;
        if (part == 0)
            set_step(&step, s, &m);
    }
    st = tern_wire_put(&h, out, cap, len, err);
    if (st)
        return st;
    *payload = n > 0 ? s->payload + (size_t)first * s->row_bytes : NULL;
    *payload_len = (size_t)n * s->row_bytes;
    return TERN_OK;
}

static bool see_part(const Tern__Header *h, struct part *p)
{
    memset(p, 0, sizeof *p);
    if (h->body_case == TERN__HEADER__BODY_STEP) {
        const Tern__Step *t = h->step;

        *p = (struct part){ t->step,   t->part,  t->n_parts, t->first_row, t->n_part_rows,
                            t->n_rows, t->n_ops, t->n_runs,  t->n_failed,  t->n_times,
                            t->ops,    t->runs,  t->failed,  t->times };
        return true;
    }
    if (h->body_case == TERN__HEADER__BODY_RESULT) {
        const Tern__Result *t = h->result;

        *p = (struct part){ .step = t->step,
                            .part = t->part,
                            .n_parts = t->n_parts,
                            .first_row = t->first_row,
                            .n_part_rows = t->n_part_rows,
                            .n_rows = t->n_rows,
                            .n_failed = t->n_failed,
                            .failed = t->failed,
                            .n_times = t->n_times,
                            .times = t->times };
        return true;
    }
    return false;
}

/* Everything about a part that can be known before its content is looked at. */
static enum tern_status check_part(const struct part *p, size_t payload_len, uint32_t max_rows,
                                   const struct tern_step *s, struct tern_err *err)
{
    uint32_t first, n;

    if (p->part != s->parts_in || (p->part > 0 && (p->step != s->step || p->n_rows != s->n_rows)))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "refused message: part %u of step %llu came when part %u of step %llu was due",
                         p->part, (unsigned long long)p->step, s->parts_in,
                         (unsigned long long)(s->parts_in > 0 ? s->step : p->step));
    if (p->n_rows > max_rows || (size_t)p->n_rows * s->row_bytes > s->payload_cap)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "refused message: step %llu has %u rows, at most %u were agreed",
                         (unsigned long long)p->step, p->n_rows, max_rows);
    if (p->n_parts != count_parts(p->n_rows, s->row_bytes) || p->part >= p->n_parts)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: part %u of %u of a step of %u rows", p->part,
                         p->n_parts, p->n_rows);
    cut(p->n_rows, s->row_bytes, p->part, &first, &n);
    if (p->first_row != first || p->n_part_rows != n || payload_len != (size_t)n * s->row_bytes)
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "refused message: part %u of step %llu has rows [%u, %u + %u) in %zu bytes; [%u, %u + %u) of "
            "%u bytes each were due",
            p->part, (unsigned long long)p->step, p->first_row, p->first_row, p->n_part_rows, payload_len,
            first, first, n, s->row_bytes);
    if (p->part > 0 && (p->n_ops | p->n_runs | p->n_failed | p->n_times) != 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: part %u of step %llu carries more than rows",
                         p->part, (unsigned long long)p->step);
    if (p->n_ops > TERN_MAX_STEP_OPS || p->n_runs > TERN_MAX_STEP_RUNS ||
        p->n_failed > TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS || p->n_times > TERN_MAX_WORKERS)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: step %llu has too many entries",
                         (unsigned long long)p->step);
    return TERN_OK;
}

/* Part 0; counts were checked. */
static void take_head(const struct part *p, struct tern_step *s)
{
    s->step = p->step;
    s->n_rows = p->n_rows;
    s->n_ops = (uint32_t)p->n_ops;
    for (size_t i = 0; i < p->n_ops; i++) {
        const Tern__SlotOp *o = p->ops[i];

        s->ops[i] = (struct tern_slot_op){ o->kind, o->slot, o->gen, o->len, o->from_slot, o->from_gen };
    }
    s->n_runs = (uint32_t)p->n_runs;
    for (size_t i = 0; i < p->n_runs; i++) {
        const Tern__Run *r = p->runs[i];

        s->runs[i] = (struct tern_run){ r->slot, r->gen, r->pos, r->n, r->n_want };
    }
    s->n_failed = (uint32_t)p->n_failed;
    for (size_t i = 0; i < p->n_failed; i++) {
        const Tern__Failed *f = p->failed[i];

        s->failed[i] = (struct tern_failed){ f->slot, f->gen, f->code, f->where };
    }
    s->n_times = (uint32_t)p->n_times;
    for (size_t i = 0; i < p->n_times; i++) {
        const Tern__StageTime *t = p->times[i];

        s->times[i] = (struct tern_stage_time){ t->compute_us, t->queue_us, t->bytes, t->t_in_us };
    }
}

enum tern_status tern_wire_get_step(const Tern__Header *h, const void *payload, size_t payload_len,
                                    uint32_t max_rows, struct tern_step *s, struct tern_err *err)
{
    struct part p;
    enum tern_status st;

    if (!see_part(h, &p))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: rows came with %s",
                         tern_wire_body_name(h->body_case));
    st = check_part(&p, payload_len, max_rows, s, err);
    if (st)
        return st;
    if (p.part == 0) {
        take_head(&p, s);
        st = h->body_case == TERN__HEADER__BODY_STEP ? tern_step_check(s, err)
                                                     : tern_step_check_result(s, err);
        if (st) {
            tern_step_clear(s);
            return st;
        }
    }
    if (payload_len > 0)
        memcpy(s->payload + (size_t)p.first_row * s->row_bytes, payload, payload_len);
    s->rows_in += p.n_part_rows;
    s->parts_in++;
    return s->parts_in == p.n_parts ? TERN_OK : TERN_AGAIN;
}
