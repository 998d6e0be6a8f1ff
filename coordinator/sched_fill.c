/* SPDX-License-Identifier: Apache-2.0 */
/* What a step is made of: rows of answers, rows of prompts, and pages for both.  See sched.h. */
#include "coordinator/sched_impl.h"

#include "engine/base/mem.h"
#include "engine/forward.h"

#include <string.h>

bool sched_wants_rows(const struct seq *q)
{
    return q && q->state == SEQ_LIVE && !q->held && q->n_sent < q->n_ids;
}

bool sched_is_answering(const struct seq *q)
{
    return q && q->state == SEQ_LIVE && !q->held && q->n_ids > q->n_given && q->n_ids - q->n_sent <= 1;
}

/* And the workers' tables agree with n_sent. */
static bool has_rows(const struct seq *q)
{
    return sched_wants_rows(q) && !q->rewound;
}

/* -- how many -------------------------------------------------------------------------------------------- */

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

uint32_t sched_decode_share(struct sched *s)
{
    const uint32_t groups = step_tuner_groups(&s->tuner, s->n_answering);
    uint32_t ready = 0, away = 0, share, fair;

    for (uint32_t i = 0; i < s->kv.n; i++)
        ready += sched_is_answering(s->kv.slots[i].q) && sched_wants_rows(s->kv.slots[i].q);
    for (uint32_t i = 0; i < s->n_flights; i++)
        away += sched_flight(s, i)->n_decode > 0;
    s->stats.groups = groups;
    s->stats.share = ceil_div(s->n_answering, groups);
    if (ready == 0 || away >= groups)
        return 0;
    /* Those who are ready share the groups that are not away; none takes more than is fair, so that groups
     * of unequal size grow alike. */
    share = ceil_div(ready, groups - away);
    fair = s->stats.share < s->o.pipe->max_rows ? s->stats.share : s->o.pipe->max_rows;
    return share < fair ? share : fair;
}

/* Rows of prompts that wait to be sent, those of sequences that may get a slot with this step included. */
static uint32_t prompt_rest(struct sched *s)
{
    const struct seq *next = sched_next(s) ? s->queue : NULL;
    uint32_t rest = 0;

    for (uint32_t n = s->n_live; next && n < s->o.n_at_once; n++, next = next->next)
        rest += next->n_ids;
    for (uint32_t i = 0; i < s->kv.n; i++) {
        const struct seq *q = s->kv.slots[i].q;

        if (sched_wants_rows(q) && !sched_is_answering(q))
            rest += q->n_ids - q->n_sent;
    }
    return rest;
}

static bool has_chunk_away(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (sched_flight(s, i)->n_prompt)
            return true;
    return false;
}

/* May a chunk go out in a step of so many rows?  While answers are being made: if the stages are free. */
static bool is_time(struct sched *s, uint32_t n_rows, uint32_t largest)
{
    double free_us[TERN_MAX_WORKERS], work = 0, wait;
    const uint64_t now = sched_now_us(s);

    for (uint32_t i = 0; i < s->n_flights; i++)
        work += step_tuner_slowest(&s->tuner, sched_flight(s, i)->n_rows);
    if (s->n_answering == 0 || work <= 0)
        return step_tuner_keeps_busy(&s->tuner, largest, s->n_flights, work);
    /* The first of its size tells how long they take. */
    if (!step_tuner_knows(&s->tuner, n_rows) && has_chunk_away(s))
        return false;
    memcpy(free_us, s->free_us, sizeof free_us);
    wait = step_tuner_pass(&s->tuner, free_us, (double)now, n_rows) - step_tuner_slack(&s->tuner, n_rows);
    if (wait > 0)
        s->wake_us = now + (uint64_t)wait + 1;
    return wait <= 0;
}

/* Would rows of answers take the last step there is, while none of a prompt are on their way?  Where answers
 * alone fill all steps no other time comes; and those behind wait for this one chunk. */
static bool is_last_chance(struct sched *s, uint32_t n_decode)
{
    return n_decode && s->n_flights + 1 >= s->max_flights && !has_chunk_away(s);
}

uint32_t sched_prompt_share(struct sched *s, uint32_t n_decode)
{
    const uint32_t rest = prompt_rest(s);
    uint32_t largest = 0, chunk;

    s->wake_us = 0;
    if (rest == 0)
        return 0;
    for (uint32_t i = 0; i < s->n_flights; i++)
        largest = sched_flight(s, i)->n_rows > largest ? sched_flight(s, i)->n_rows : largest;
    chunk = step_tuner_chunk(&s->tuner, rest, n_decode, largest, s->n_answering > 0);
    s->stats.chunk = chunk;
    largest = chunk + n_decode > largest ? chunk + n_decode : largest;
    return is_last_chance(s, n_decode) || is_time(s, chunk + n_decode, largest) ? chunk : 0;
}

/* -- whose ----------------------------------------------------------------------------------------------- */

static bool has_room(const struct sched *s, const struct plan *p)
{
    return p->n_runs < TERN_MAX_STEP_RUNS && p->n_rows < s->o.pipe->max_rows;
}

static void plan_run(struct plan *p, struct seq *q, uint32_t n)
{
    p->runs[p->n_runs].q = q;
    p->runs[p->n_runs++].n = n;
    p->n_rows += n;
}

/* One row of each, going on behind the one that was served last. */
static void plan_decode(struct sched *s, struct plan *p, uint32_t share)
{
    const uint32_t start = s->cursor;

    for (uint32_t k = 0; k < s->kv.n && share && has_room(s, p); k++) {
        const uint32_t i = (start + k) % s->kv.n;
        struct seq *q = s->kv.slots[i].q;

        if (!sched_is_answering(q) || !has_rows(q))
            continue;
        plan_run(p, q, 1);
        s->cursor = (i + 1) % s->kv.n;
        share--;
    }
    p->n_decode = p->n_rows;
}

static bool is_planned(const struct plan *p, const struct seq *q)
{
    for (uint32_t i = 0; i < p->n_runs; i++)
        if (p->runs[i].q == q)
            return true;
    return false;
}

/* The prompt that has its slot for the longest time, or the one with the fewest rows left, of those that are
 * not in the plan. */
static struct seq *find_prompt(const struct sched *s, const struct plan *p, bool oldest)
{
    struct seq *best = NULL;
    uint64_t least = 0;

    for (uint32_t i = 0; i < s->kv.n; i++) {
        struct seq *q = s->kv.slots[i].q;
        const uint64_t key = !q ? 0 : oldest ? s->kv.slots[i].opened : q->n_ids - q->n_sent;

        if (!has_rows(q) || sched_is_answering(q) || is_planned(p, q) || (best && key >= least))
            continue;
        best = q;
        least = key;
    }
    return best;
}

/* The oldest is sure of half of the rows, so that it ends; short ones go first with the rest, so that they do
 * not wait for the long. */
static void plan_prompts(struct sched *s, struct plan *p, uint32_t budget)
{
    struct seq *q = find_prompt(s, p, true);
    uint32_t first = p->n_runs, left;

    if (!q || !budget || !has_room(s, p))
        return;
    left = q->n_ids - q->n_sent;
    plan_run(p, q, left < ceil_div(budget, 2) ? left : ceil_div(budget, 2));
    p->n_prompt = p->runs[first].n;
    while (p->n_prompt < budget && has_room(s, p) && (q = find_prompt(s, p, false))) {
        const uint32_t n = q->n_ids - q->n_sent, room = budget - p->n_prompt;

        plan_run(p, q, n < room ? n : room);
        p->n_prompt += n < room ? n : room;
    }
    left -= p->runs[first].n;
    left = left < budget - p->n_prompt ? left : budget - p->n_prompt;
    p->runs[first].n += left;
    p->n_rows += left;
    p->n_prompt += left;
}

/* -- room ------------------------------------------------------------------------------------------------ */

static uint32_t pages_needed(const struct sched *s, const struct plan *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_runs; i++)
        n += tern_kv_pages_needed(s->kv.table, p->runs[i].q->slot, p->runs[i].q->gen, p->runs[i].n);
    return n;
}

/* Prefixes go until there are pages for all rows.  The LIVE ones fit without them; only if more slots have to
 * go than the step has room for operations, rows are left for the next one. */
static enum tern_status make_pages(struct sched *s, struct tern_step *step, struct plan *p,
                                   struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    while (!st && pages_needed(s, p) > tern_kv_pages_free(s->kv.table))
        st = sched_evict(s, step, KV_NO_SLOT, err);
    if (st != TERN_END)
        return st;
    while ((step->n_ops >= TERN_MAX_STEP_OPS || sched_has_slots_to_free(s)) &&
           pages_needed(s, p) > tern_kv_pages_free(s->kv.table))
        p->n_rows -= p->runs[--p->n_runs].n;
    return TERN_OK;
}

/* -- rows ------------------------------------------------------------------------------------------------ */

/* Embeds the next n rows of q into the step.  An embedding that is not finite fails the sequence and sends
 * nothing. */
static enum tern_status add_run(struct sched *s, struct tern_step *step, struct flight *f, struct seq *q,
                                uint32_t n, struct tern_err *err)
{
    const struct tern_model *m = s->o.model;
    const uint32_t n_embd = m->arch.n_embd, pos = q->n_sent, end = pos + n;
    const bool decode = sched_is_answering(q);
    float *x = s->x + (size_t)step->n_rows * n_embd;
    uint32_t want;
    enum tern_status st;

    tern_forward_embed(m, q->ids + pos, n, x);
    if (!m->kern->all_finite(x, (size_t)n * n_embd)) {
        struct tern_err e;

        (void)TERN_FAIL(&e, TERN_ERR_NUMERIC,
                        "the embedding of a token is not finite; the model file is damaged");
        seq_fail(q, &e);
        return TERN_OK;
    }
    if ((st = kv_slots_append(&s->kv, q->slot, q->ids + pos, n, err)))
        return st;
    for (uint32_t i = 0; i < n; i++)
        tern_boundary_encode(s->o.boundary, m->kern, x + (size_t)i * n_embd, n_embd,
                             step->payload + (size_t)(step->n_rows + i) * step->row_bytes);
    want = end <= q->want_from ? 0 : end - (q->want_from > pos ? q->want_from : pos);
    step->runs[step->n_runs++] = (struct tern_run){ q->slot, q->gen, pos, n, want };
    step->n_rows += n;
    f->runs[f->n_runs++] = (struct flight_run){ q, q->slot, q->gen, pos, n, want };
    f->n_want += want;
    f->n_decode += decode ? n : 0;
    f->n_prompt += decode ? 0 : n;
    q->n_sent = end;
    return TERN_OK;
}

enum tern_status sched_fill(struct sched *s, struct tern_step *step, struct flight *f, uint32_t n_decode,
                            uint32_t n_prompt, struct tern_err *err)
{
    struct plan *p = &s->plan;
    enum tern_status st;

    p->n_runs = p->n_rows = p->n_decode = p->n_prompt = 0;
    /* A prompt has its run too, or it waited as long as so many answers are made. */
    if (n_prompt && n_decode >= TERN_MAX_STEP_RUNS)
        n_decode = TERN_MAX_STEP_RUNS - 1;
    plan_decode(s, p, n_decode);
    if (n_prompt > s->o.pipe->max_rows - p->n_rows)
        n_prompt = s->o.pipe->max_rows - p->n_rows;
    plan_prompts(s, p, n_prompt);
    st = make_pages(s, step, p, err);
    for (uint32_t i = 0; i < p->n_runs && !st; i++)
        st = add_run(s, step, f, p->runs[i].q, p->runs[i].n, err);
    f->n_rows = step->n_rows;
    return st;
}
