/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a result: rows to the head and to their sequences, failures, figures.  See sched.h. */
#include "coordinator/sched_impl.h"

#include "engine/base/log.h"
#include "engine/forward.h"

static void stamp(struct seq *q, uint64_t now_ns)
{
    if (!q->t_first_ns)
        q->t_first_ns = now_ns;
    q->t_last_ns = now_ns;
}

static enum tern_status flush_home(struct sched *s, struct tern_err *err)
{
    struct tern_head_want want[SCHED_HEAD_ROWS] = { { 0 } };
    struct tern_head_row rows[SCHED_HEAD_ROWS];
    uint64_t t0 = tern_now_ns(), now;
    enum tern_status st;

    if (s->n_home == 0)
        return TERN_OK;
    for (uint32_t i = 0; i < s->n_home; i++) {
        struct seq *q = s->home_of[i].q;

        want[i].full = !q->want;
        if (q->want)
            q->want(q, s->home_of[i].pos, &want[i]);
    }
    tern_head_run(s->o.head, s->home, s->n_home, want, rows);
    now = tern_now_ns();
    s->stats.head_us += (now - t0) / 1000;
    if ((st = tern_model_check(s->o.model, err)))
        return st;
    for (uint32_t i = 0; i < s->n_home; i++) {
        struct seq *q = s->home_of[i].q;

        if (q->state != SEQ_LIVE)
            continue;
        stamp(q, now);
        q->on_logits(q, s->home_of[i].pos, &rows[i]);
    }
    s->n_home = 0;
    return TERN_OK;
}

static void fail_seq(struct seq *q, const struct tern_failed *why)
{
    struct tern_err e;

    switch (why->code) {
    case TERN_FAILED_NUMERIC:
        (void)TERN_FAIL(
            &e, TERN_ERR_NUMERIC,
            "a value became infinite or not a number in layer %u; the model file there is damaged",
            (unsigned)why->where);
        break;
    case TERN_FAILED_PAGES:
        (void)TERN_FAIL(&e, TERN_ERR_LIMIT, "stage %u has no room left for the sequence in its KV cache",
                        (unsigned)why->where);
        break;
    case TERN_FAILED_POSITION:
        (void)TERN_FAIL(&e, TERN_ERR_STATE, "stage %u lost track of the sequence's position",
                        (unsigned)why->where);
        break;
    default:
        (void)TERN_FAIL(&e, TERN_ERR_STATE, "stage %u gave up on the sequence with the unknown code %u",
                        (unsigned)why->where, (unsigned)why->code);
    }
    seq_fail(q, &e);
}

/* What workers gave up on is of no use to others. */
static void spoil_failed(struct sched *s, const struct tern_step *step)
{
    for (uint32_t i = 0; i < step->n_failed; i++) {
        const struct tern_failed *f = &step->failed[i];

        if (f->slot < s->kv.n && s->kv.slots[f->slot].gen == f->gen)
            kv_slots_spoil(&s->kv, f->slot);
    }
}

/* A sequence that has only just been given a prefix begins anew without one: it may be the prefix that
 * failed, and alone it would not have. */
static void take_failed(struct sched *s, struct flight_run *r, const struct tern_failed *why)
{
    struct seq *q = r->q;

    if (!q || q->state != SEQ_LIVE)
        return;
    if (!q->n_cached || q->t_first_ns || q->retried || q->gen != r->gen) {
        fail_seq(q, why);
        return;
    }
    sched_drop(s, q);
    q->retried = true;
    q->n_sent = q->n_cached = 0;
    q->state = SEQ_QUEUED;
    sched_queue_push_first(s, q);
}

/* The result must be what was asked for: the next step, all wanted rows, no more stages than there are. */
static enum tern_status check_home(const struct sched *s, const struct flight *f,
                                   const struct tern_step *step, struct tern_err *err)
{
    if (step->step != f->number)
        return TERN_FAIL(err, TERN_ERR_STATE, "the result of step %llu came where that of step %llu was due",
                         (unsigned long long)step->step, (unsigned long long)f->number);
    if (step->n_rows != f->n_want || step->row_bytes != s->o.pipe->row_bytes)
        return TERN_FAIL(err, TERN_ERR_STATE,
                         "step %llu came back with %u rows of %u bytes; %u of %u were asked for",
                         (unsigned long long)step->step, (unsigned)step->n_rows, (unsigned)step->row_bytes,
                         (unsigned)f->n_want, (unsigned)s->o.pipe->row_bytes);
    return TERN_OK;
}

static void count_home(struct sched *s, const struct tern_step *step)
{
    s->stats.steps++;
    s->stats.rows_home += step->n_rows;
    s->stats.bytes_home += step->bytes_in;
    for (uint32_t i = 0; i < step->n_times && i < s->stats.n_stages; i++) {
        s->stats.stages[i].compute_us += step->times[i].compute_us;
        s->stats.stages[i].queue_us += step->times[i].queue_us;
        s->stats.stages[i].bytes += step->times[i].bytes;
    }
}

/* One row, decoded: to its sequence when that wants it as it is, else into the queue of the head. */
static enum tern_status take_row(struct sched *s, struct seq *q, uint32_t pos, const uint8_t *row,
                                 struct tern_err *err)
{
    const struct tern_model *m = s->o.model;
    float *x = s->home + (size_t)s->n_home * m->arch.n_embd;
    struct tern_err e;

    if (!tern_boundary_decode(s->o.boundary, m->kern, row, m->arch.n_embd, x)) {
        (void)TERN_FAIL(&e, TERN_ERR_NUMERIC, "the last worker sent back a row that is not finite");
        seq_fail(q, &e);
    } else if (q->on_hidden) {
        tern_forward_norm(m, x, 1);
        stamp(q, tern_now_ns());
        q->on_hidden(q, pos, x);
    } else {
        s->home_of[s->n_home].q = q;
        s->home_of[s->n_home++].pos = pos;
    }
    return s->n_home == SCHED_HEAD_ROWS ? flush_home(s, err) : TERN_OK;
}

static enum tern_status hand_out(struct sched *s, struct flight *f, const struct tern_step *step,
                                 struct tern_err *err)
{
    const uint8_t *row = step->payload;
    enum tern_status st;

    spoil_failed(s, step);
    for (uint32_t r = 0; r < f->n_runs; r++) {
        struct flight_run *run = &f->runs[r];

        for (uint32_t i = 0; i < step->n_failed; i++)
            if (step->failed[i].slot == run->slot && step->failed[i].gen == run->gen)
                take_failed(s, run, &step->failed[i]);
        for (uint32_t i = 0; i < run->n_want; i++, row += step->row_bytes) {
            if (!run->q || run->q->state != SEQ_LIVE)
                continue;
            if ((st = take_row(s, run->q, run->pos + run->n - run->n_want + i, row, err)))
                return st;
        }
    }
    return flush_home(s, err);
}

void sched_foresee(struct sched *s, const struct flight *f)
{
    (void)step_tuner_pass(&s->tuner, s->free_us, (double)f->sent_us, f->n_rows);
}

/* When each stage was through with the step that has come home, and from there what is still on its way. */
static void foresee_all(struct sched *s, const struct tern_step *step, uint64_t home_us)
{
    const double hop = s->tuner.link / (s->stats.n_stages + 1);
    double us = (double)home_us;

    for (uint32_t i = s->stats.n_stages; i-- > 0;) {
        us -= hop;
        s->free_us[i] = us;
        if (i < step->n_times)
            us -= (double)step->times[i].compute_us + (double)step->times[i].queue_us;
    }
    for (uint32_t i = 1; i < s->n_flights; i++)
        sched_foresee(s, sched_flight(s, i));
}

/* What the step took, for those after it and for who wants to know. */
static void note_step(struct sched *s, const struct flight *f, const struct tern_step *step,
                      uint64_t taken_us)
{
    const uint64_t done_us = sched_now_us(s), in_us = step->t_in_ns / 1000;
    /* It may have waited for us: the pipe says when it came. */
    const bool waited_for_us = s->o.pipe->remote && in_us > f->sent_us && in_us < taken_us;
    const uint64_t home_us = waited_for_us ? in_us : taken_us;
    const uint32_t n_times = step->n_times < s->stats.n_stages ? step->n_times : s->stats.n_stages;
    uint64_t stages[TERN_MAX_WORKERS], waited = 0;
    struct sched_trace trace = { .number = f->number,
                                 .sent_us = f->sent_us,
                                 .home_us = home_us,
                                 .taken_us = taken_us,
                                 .done_us = done_us,
                                 .n_prompt = f->n_prompt,
                                 .n_decode = f->n_decode,
                                 .n_times = n_times,
                                 .times = step->times };
    struct tuner_sample sample = { .n_rows = f->n_rows, .n_want = f->n_prompt ? 0 : f->n_want };

    for (uint32_t i = 0; i < n_times; i++) {
        stages[i] = step->times[i].compute_us;
        waited += step->times[i].queue_us;
    }
    sample.stages = n_times == s->stats.n_stages ? stages : NULL;
    sample.waited = waited;
    sample.away = home_us - f->sent_us;
    sample.home = done_us - taken_us + f->fill_us;
    step_tuner_note(&s->tuner, &sample);
    foresee_all(s, step, home_us);
    if (s->o.on_step)
        s->o.on_step(s->o.on_step_user, &trace);
}

enum tern_status sched_take_home(struct sched *s, struct tern_step *step, struct tern_err *err)
{
    const uint64_t taken_us = sched_now_us(s);
    struct flight *f = sched_flight(s, 0);
    enum tern_status st = check_home(s, f, step, err);

    if (st)
        return st;
    count_home(s, step);
    st = hand_out(s, f, step, err);
    if (!st)
        note_step(s, f, step, taken_us);
    return st;
}
