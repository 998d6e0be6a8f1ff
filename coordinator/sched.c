/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler: see sched.h.  Its life, and one turn of it. */
#include "coordinator/sched_impl.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <limits.h>
#include <stdlib.h>

/* -- life ------------------------------------------------------------------------------------------------ */

static enum tern_status blocks_new(struct sched *s, struct tern_err *err)
{
    const size_t n_embd = s->o.model->arch.n_embd;
    void *p;
    enum tern_status st;

    s->x_bytes = s->o.pipe->max_rows * n_embd * sizeof(float);
    s->home_bytes = SCHED_HEAD_ROWS * n_embd * sizeof(float);
    if ((st = tern_block_new(s->x_bytes, "rows to send", &p, err)))
        return st;
    s->x = p;
    if ((st = tern_block_new(s->home_bytes, "rows that come home", &p, err)))
        return st;
    s->home = p;
    return TERN_OK;
}

enum tern_status sched_new(const struct sched_options *o, struct sched **out, struct tern_err *err)
{
    struct sched *s = calloc(1, sizeof *s);
    enum tern_status st;

    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the scheduler");
    s->o = *o;
    if (!s->o.n_at_once || s->o.n_at_once > o->n_slots)
        s->o.n_at_once = o->n_slots;
    s->queue_end = &s->queue;
    s->max_flights =
        o->pipe->max_in_flight < TERN_MAX_STEPS_IN_FLIGHT ? o->pipe->max_in_flight : TERN_MAX_STEPS_IN_FLIGHT;
    s->stats.n_stages = o->pipe->n_stages;
    s->stats.pages = s->stats.pages_free = o->n_pages;
    step_tuner_init(&s->tuner, o->pipe->n_stages, o->pipe->remote, s->max_flights, o->pipe->max_rows,
                    o->chunk);
    if (!(st = kv_slots_init(&s->kv, o->n_slots, o->n_pages, o->max_positions, err)))
        st = blocks_new(s, err);
    if (st) {
        sched_free(&s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

void sched_free(struct sched **sp)
{
    struct sched *s = *sp;

    if (!s)
        return;
    kv_slots_fini(&s->kv);
    tern_block_free((void **)&s->x, s->x_bytes);
    tern_block_free((void **)&s->home, s->home_bytes);
    free(s);
    *sp = NULL;
}

const struct sched_stats *sched_stats(const struct sched *s)
{
    return &s->stats;
}

uint64_t sched_now_us(const struct sched *s)
{
    return s->o.now_us ? s->o.now_us() : tern_now_ns() / 1000;
}

struct flight *sched_flight(struct sched *s, uint32_t i)
{
    return &s->flights[(s->first_flight + i) % TERN_MAX_STEPS_IN_FLIGHT];
}

enum tern_status sched_add(struct sched *s, struct seq *q, struct tern_err *err)
{
    TERN_BUG_IF(!s->o.head && !q->on_hidden);
    if (q->n_ids > q->max_len || q->max_len > s->o.max_positions ||
        kv_slots_pages_of(q->max_len) > s->o.n_pages)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a sequence of %u tokens does not fit a context of %u",
                         (unsigned)(q->n_ids > q->max_len ? q->n_ids : q->max_len),
                         (unsigned)s->o.max_positions);
    q->state = SEQ_QUEUED;
    q->retried = false;
    q->passed = 0;
    sched_queue_push(s, q);
    return TERN_OK;
}

void sched_drop(struct sched *s, struct seq *q)
{
    for (uint32_t i = 0; i < s->kv.n; i++)
        if (s->kv.slots[i].q == q)
            kv_slots_retire(&s->kv, i, !q->failed);
    for (uint32_t i = 0; i < s->n_flights; i++)
        for (uint32_t r = 0; r < sched_flight(s, i)->n_runs; r++)
            if (sched_flight(s, i)->runs[r].q == q)
                sched_flight(s, i)->runs[r].q = NULL;
}

void sched_forget(struct sched *s, struct seq *q)
{
    sched_queue_remove(s, q);
    sched_drop(s, q);
    q->state = SEQ_ENDED;
}

/* -- turns ----------------------------------------------------------------------------------------------- */

static void count_now(struct sched *s)
{
    struct sched_stats *st = &s->stats;

    sched_settle(s);
    st->n_live = s->n_live;
    st->n_in_flight = s->n_flights;
    st->pages_free = tern_kv_pages_free(s->kv.table);
    st->pages_cached = st->pages - st->pages_free - kv_slots_pages_live(&s->kv);
}

/* Operations first, as the workers apply them, then rows. */
static enum tern_status fill(struct sched *s, struct tern_step *step, struct flight *f, uint32_t n_decode,
                             uint32_t n_prompt, struct tern_err *err)
{
    enum tern_status st = sched_tidy(s, step, err);

    if (!st && n_prompt)
        st = sched_admit(s, step, err);
    if (!st)
        st = sched_fill(s, step, f, n_decode, n_prompt, err);
    return st ? st : tern_model_check(s->o.model, err);
}

/* Fills and sends one step; TERN_END when there is nothing to send now. */
static enum tern_status send_one(struct sched *s, struct tern_err *err)
{
    struct pipe *pipe = s->o.pipe;
    const uint64_t t0 = sched_now_us(s);
    struct flight *f = sched_flight(s, s->n_flights);
    uint32_t n_decode, n_prompt;
    struct tern_step *step;
    enum tern_status st;

    s->wake_us = 0; /* with all steps under way time alone changes nothing */
    if (s->n_flights >= s->max_flights)
        return TERN_END;
    sched_settle(s);
    n_decode = sched_decode_share(s);
    n_prompt = sched_prompt_share(s, n_decode);
    if (n_decode + n_prompt == 0 && (s->n_flights || !sched_has_slots_to_free(s)))
        return TERN_END;
    if (!(step = pipe->take(pipe)))
        return TERN_END;
    tern_step_clear(step);
    *f = (struct flight){ .number = s->sent + 1 };
    if ((st = fill(s, step, f, n_decode, n_prompt, err))) {
        pipe->give(pipe, step);
        return st;
    }
    if (step->n_ops + step->n_runs == 0) {
        pipe->give(pipe, step);
        return s->plan.n_runs ? TERN_OK : TERN_END; /* every embedding failed, or there was no room */
    }
    f->sent_us = sched_now_us(s);
    f->fill_us = f->sent_us - t0;
    s->stats.embed_us += f->fill_us;
    s->stats.rows += f->n_rows;
    s->stats.prompt_rows += f->n_prompt;
    s->stats.decode_rows += f->n_decode;
    s->sent++;
    s->n_flights++;
    sched_foresee(s, f);
    return pipe->send(pipe, step, err);
}

static enum tern_status receive(struct sched *s, int timeout_ms, struct tern_err *err)
{
    struct pipe *pipe = s->o.pipe;
    struct tern_step *step = NULL;
    enum tern_status st = pipe->recv(pipe, timeout_ms, &step, err);

    if (st)
        return st;
    st = sched_take_home(s, step, err);
    s->first_flight = (s->first_flight + 1) % TERN_MAX_STEPS_IN_FLIGHT;
    s->n_flights--;
    pipe->give(pipe, step);
    return st;
}

int sched_wait_ms(const struct sched *s, int most_ms)
{
    const uint64_t now = sched_now_us(s);
    const uint64_t wake_ms = s->wake_us > now ? (s->wake_us - now + 999) / 1000 : 1;

    if (!s->wake_us || wake_ms > INT_MAX || (most_ms >= 0 && (uint64_t)most_ms < wake_ms))
        return most_ms;
    return (int)wake_ms;
}

/* What is left of timeout_ms since t0, or less when there is something to send sooner. */
static int until_wake(const struct sched *s, uint64_t t0, int timeout_ms)
{
    const uint64_t gone_ms = (sched_now_us(s) - t0) / 1000;

    if (timeout_ms >= 0)
        timeout_ms = gone_ms < (uint64_t)timeout_ms ? timeout_ms - (int)gone_ms : 0;
    return sched_wait_ms(s, timeout_ms);
}

enum tern_status sched_turn(struct sched *s, int timeout_ms, struct tern_err *err)
{
    const uint64_t t0 = sched_now_us(s);
    enum tern_status st;
    int wait;

    do {
        while (!(st = send_one(s, err)))
            ;
        wait = until_wake(s, t0, timeout_ms);
        if (st == TERN_END && s->n_flights)
            st = receive(s, wait, err);
    } while (st == TERN_AGAIN && wait > 0 && s->wake_us);
    count_now(s);
    return st;
}
