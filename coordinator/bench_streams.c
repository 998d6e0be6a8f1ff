/* SPDX-License-Identifier: Apache-2.0 */
/* See bench_streams.h.  From top to bottom: one stream, one repetition, figures, the session. */
#include "coordinator/bench_streams.h"

#include "coordinator/interrupt.h"
#include "coordinator/sample.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TURN_MS       100 /* how long a signal may go unnoticed */
#define WARM_TOKENS   8
#define WARM_PROMPT   256
#define ALONE_TOKENS  16 /* of each stream before the prompt comes */
#define SPARE_TOKENS  64
#define CLOCKS_MS     1000
#define PROMPT_STREAM BENCH_MAX_STREAMS /* number of the sequence that is the prompt, for its ids */

struct stream {
    struct seq seq;
    struct streams *all;
    uint64_t last_ns;
    uint32_t n; /* tokens picked */
};

/* What a repetition goes through; the first is left when every stream has its second token. */
enum phase {
    PHASE_START,
    PHASE_ALONE, /* tests of a prompt: streams alone */
    PHASE_WINDOW,
    PHASE_STOP /* every stream ends with its next token */
};

struct values {
    double *v;
    uint32_t n, cap;
};

struct streams {
    const struct bench_options *o;
    struct session *s;
    struct sampler *sampler;
    struct bench_traces traces;
    const struct bench_streams_test *test;
    enum phase phase;
    uint64_t t0_ns, from_ns, to_ns; /* start of all; the window */
    uint64_t tokens, target, made;  /* made in this phase; which end it; made in the window */
    uint32_t n_ready;               /* streams with two tokens */
    struct values first, between, alone;
    struct stream streams[BENCH_MAX_STREAMS];
    struct stream prompt;
};

void bench_streams_name(const struct bench_streams_test *t, char out[64])
{
    if (t->n_prompt)
        snprintf(out, 64, "pp%u + s%u", (unsigned)t->n_prompt, (unsigned)t->n_streams);
    else
        snprintf(out, 64, "s%u tg%u", (unsigned)t->n_streams, (unsigned)t->n_gen);
}

/* -- one stream ------------------------------------------------------------------------------------------ */

static void add_value(struct values *x, double v)
{
    if (x->n < x->cap)
        x->v[x->n++] = v;
}

static void want(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    const struct stream *p = q->user;

    (void)pos;
    sampler_want(p->all->sampler, q->ids, q->n_ids, out);
}

static void enter(struct streams *a, enum phase phase, uint64_t now)
{
    if (a->phase == PHASE_WINDOW)
        a->made = a->tokens;
    a->phase = phase;
    a->tokens = 0;
    if (phase == PHASE_WINDOW)
        a->from_ns = now;
    if (phase == PHASE_STOP)
        a->to_ns = now;
}

/* A token of a stream: what it says about time, and whether the phase is over. */
static void count(struct streams *a, struct stream *p, uint64_t now)
{
    const double ms = (double)(now - (p->n ? p->last_ns : a->t0_ns)) / 1e6;

    if (p->n == 0)
        add_value(&a->first, ms);
    else if (a->phase == PHASE_ALONE)
        add_value(&a->alone, ms);
    else if (a->phase == PHASE_WINDOW || (a->phase == PHASE_STOP && a->test->n_prompt))
        add_value(&a->between, ms); /* the token behind the prompt has waited for it too */
    p->last_ns = now;
    a->tokens++;
    a->n_ready += ++p->n == 2;
    if (a->phase == PHASE_START && a->n_ready == a->test->n_streams)
        enter(a, a->test->n_prompt ? PHASE_ALONE : PHASE_WINDOW, now);
    else if (a->phase == PHASE_WINDOW && !a->test->n_prompt && a->tokens >= a->target)
        enter(a, PHASE_STOP, now);
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct stream *p = q->user;
    struct streams *a = p->all;
    struct tern_err err;
    int32_t id;

    (void)pos;
    if (sampler_pick(a->sampler, row, q->ids, q->n_ids, &id, &err)) {
        seq_fail(q, &err);
        return;
    }
    if (p == &a->prompt) {
        enter(a, PHASE_STOP, tern_now_ns());
        seq_finish(q);
        return;
    }
    count(a, p, tern_now_ns());
    if (a->phase != PHASE_STOP && q->n_ids == q->cap && !a->test->n_prompt)
        enter(a, PHASE_STOP, p->last_ns); /* ran ahead of the others */
    if (a->phase == PHASE_STOP || q->n_ids == q->cap)
        seq_finish(q);
    else
        seq_push(q, id);
}

static enum tern_status begin(struct streams *a, struct stream *p, uint32_t number, uint32_t n, uint32_t cap,
                              struct tern_err *err)
{
    int32_t *ids = calloc(n, sizeof *ids);
    enum tern_status st;

    if (!ids)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a sequence of %u tokens", (unsigned)n);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = bench_fixed_id(a->s->arch.n_vocab, number, i);
    memset(p, 0, sizeof *p);
    st = seq_init(&p->seq, ids, n, cap, err);
    free(ids);
    if (st)
        return st;
    p->all = a;
    p->seq.want = want;
    p->seq.on_logits = on_logits;
    p->seq.user = p;
    p->seq.no_cache = true; /* the same ids again and again */
    return sched_add(a->s->sched, &p->seq, err);
}

/* Positions that a stream may take: some have begun long before others. */
static uint32_t stream_cap(const struct bench_options *o, const struct bench_streams_test *t)
{
    return o->stream_prompt + t->n_gen + t->n_gen / 4 + SPARE_TOKENS + t->n_streams * o->stream_prompt / 16 +
           (t->n_prompt ? ALONE_TOKENS + t->n_prompt / 4 : 0);
}

/* -- one repetition -------------------------------------------------------------------------------------- */

/* Turns the scheduler until nothing is left to do or the streams have been alone for long enough. */
static enum tern_status turn(struct streams *a, struct tern_err *err)
{
    enum tern_status st;

    for (;;) {
        if ((st = interrupt_check(err)))
            return st;
        if (a->phase == PHASE_ALONE && a->tokens >= (uint64_t)ALONE_TOKENS * a->test->n_streams)
            return TERN_OK;
        tern_alloc_guard_begin("a token");
        st = sched_turn(a->s->sched, TURN_MS, err);
        tern_alloc_guard_end();
        if (st == TERN_END)
            return TERN_OK;
        if (st && st != TERN_AGAIN)
            return st;
    }
}

static enum tern_status failure(const struct seq *q, struct tern_err *err)
{
    if (!q->failed)
        return TERN_OK;
    *err = q->err;
    return err->status;
}

static enum tern_status play(struct streams *a, struct tern_err *err)
{
    const struct bench_streams_test *t = a->test;
    const uint32_t cap = stream_cap(a->o, t);
    enum tern_status st = TERN_OK;

    a->traces.n = a->traces.lost = 0;
    a->n_ready = 0;
    a->target = (uint64_t)t->n_gen * t->n_streams;
    a->t0_ns = tern_now_ns();
    enter(a, t->n_streams ? PHASE_START : PHASE_ALONE, a->t0_ns);
    for (uint32_t k = 0; k < t->n_streams && !st; k++)
        st = begin(a, &a->streams[k], k, a->o->stream_prompt, cap, err);
    if (!st && t->n_streams)
        st = turn(a, err);
    if (!st && t->n_prompt) {
        enter(a, PHASE_WINDOW, tern_now_ns());
        if (!(st = begin(a, &a->prompt, PROMPT_STREAM, t->n_prompt, t->n_prompt, err)))
            st = turn(a, err);
    }
    for (uint32_t k = 0; k < t->n_streams && !st; k++)
        st = failure(&a->streams[k].seq, err);
    if (!st)
        st = failure(&a->prompt.seq, err);
    if (!st && (a->phase != PHASE_STOP || !a->from_ns || a->traces.lost))
        st = TERN_FAIL(err, TERN_ERR_STATE, "not all of %u streams were generating at once; give a larger -n",
                       (unsigned)t->n_streams);
    return st;
}

static void stream_end(struct streams *a, struct stream *p)
{
    if (p->seq.ids)
        sched_forget(a->s->sched, &p->seq);
    seq_fini(&p->seq);
    memset(p, 0, sizeof *p);
}

static enum tern_status repetition(struct streams *a, const struct bench_streams_test *t,
                                   struct tern_err *err)
{
    enum tern_status st;

    a->test = t;
    a->from_ns = a->to_ns = 0;
    st = play(a, err);
    for (uint32_t k = 0; k < t->n_streams; k++)
        stream_end(a, &a->streams[k]);
    stream_end(a, &a->prompt);
    return st;
}

/* -- figures --------------------------------------------------------------------------------------------- */

static void figures_of_prompt(const struct streams *a, struct bench_streams_result *x)
{
    const struct bench_flow *f = &x->flow;

    x->ideal = f->chunks ? (double)f->chunks / (f->chunks + f->n_stages - 1) : 0;
    for (uint32_t i = 0; i < f->n_stages; i++) {
        x->trip_ms += f->stages[i].chunk_ms;
        x->chunk_ms = f->stages[i].chunk_ms > x->chunk_ms ? f->stages[i].chunk_ms : x->chunk_ms;
    }
    bench_trips_of(&a->traces, a->from_ns / 1000, a->to_ns / 1000, &x->trips);
    bench_spread_of(a->alone.v, a->alone.n, &x->alone);
    x->delay = x->between; /* all values less the same one: so are percentiles */
    if (x->delay.n) {
        x->delay.p50 -= x->alone.p50;
        x->delay.p95 -= x->alone.p50;
        x->delay.p99 -= x->alone.p50;
    }
}

static enum tern_status values_new(struct values *x, uint64_t cap, struct tern_err *err)
{
    x->n = 0;
    x->cap = (uint32_t)cap;
    x->v = calloc(cap + 1, sizeof *x->v);
    return x->v ? TERN_OK : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the times of tokens");
}

static void values_free(struct values *x)
{
    free(x->v);
    memset(x, 0, sizeof *x);
}

static enum tern_status room_for(struct streams *a, const struct bench_streams_test *t, uint32_t reps,
                                 struct tern_err *err)
{
    const uint64_t tokens = (uint64_t)t->n_streams * stream_cap(a->o, t);
    enum tern_status st;

    if (tokens * reps > UINT32_MAX / sizeof(double) || tokens + t->n_prompt > UINT32_MAX / 64)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "too many tokens to keep the times of: lower -n, -r or -d");
    if ((st = values_new(&a->first, (uint64_t)t->n_streams * reps, err)) ||
        (st = values_new(&a->between, tokens * reps, err)) ||
        (st = values_new(&a->alone, tokens * reps, err)))
        return st;
    return bench_traces_new((uint32_t)tokens + t->n_prompt + t->n_streams * a->o->stream_prompt + 64,
                            a->s->pipe->n_stages, &a->traces, err);
}

/* Keeps what was measured last. */
static void sample(struct streams *a, struct bench_streams_result *x)
{
    const struct bench_streams_test *t = a->test;
    const double seconds = (double)(a->to_ns - a->from_ns) / 1e9;
    const double tokens = (double)(t->n_prompt ? t->n_prompt : a->made);

    x->samples[x->n_samples++] = seconds > 0 ? tokens / seconds : 0;
    bench_flow_of(&a->traces, a->from_ns / 1000, a->to_ns / 1000, &x->flow);
}

static enum tern_status measure(struct streams *a, const struct bench_streams_test *t, uint32_t reps,
                                struct bench_streams_result *x, struct tern_err *err)
{
    struct bench_streams_test warm = *t;
    enum tern_status st;

    memset(x, 0, sizeof *x);
    x->test = *t;
    warm.n_gen = t->n_gen < WARM_TOKENS ? t->n_gen : WARM_TOKENS;
    warm.n_prompt = t->n_prompt < WARM_PROMPT ? t->n_prompt : WARM_PROMPT;
    if (!(st = room_for(a, t, reps, err)) && !(st = repetition(a, &warm, err))) {
        a->first.n = a->between.n = a->alone.n = 0;
        while (!st && x->n_samples < reps)
            if (!(st = repetition(a, t, err)))
                sample(a, x);
    }
    if (!st) {
        x->median = bench_range_of(x->samples, x->n_samples).median;
        bench_spread_of(a->first.v, a->first.n, &x->first);
        bench_spread_of(a->between.v, a->between.n, &x->between);
        if (t->n_prompt)
            figures_of_prompt(a, x);
    }
    values_free(&a->first);
    values_free(&a->between);
    values_free(&a->alone);
    bench_traces_free(&a->traces);
    return st;
}

/* -- the session ----------------------------------------------------------------------------------------- */

static void on_step(void *user, const struct sched_trace *t)
{
    struct streams *a = user;

    bench_traces_add(&a->traces, t);
}

static void need(const struct bench_options *o, const struct bench_streams_test *t, struct session_room *room)
{
    const uint32_t n = t->n_streams + (t->n_prompt > 0), cap = stream_cap(o, t);

    room->n_at_once = n > room->n_at_once ? n : room->n_at_once;
    room->max_len = cap > room->max_len ? cap : room->max_len;
    room->max_len = t->n_prompt > room->max_len ? t->n_prompt : room->max_len;
}

/* Workers' clocks are known by their heartbeats, of which the first ones take a moment. */
static void wait_for_clocks(struct pipe *pipe)
{
    const uint64_t until = tern_now_ns() + CLOCKS_MS * UINT64_C(1000000);
    struct pipe_stage_live live;

    for (uint32_t i = 0; pipe->remote && i < pipe->n_stages;) {
        pipe->live(pipe, i, &live);
        if (live.clock_within_us)
            i++;
        else if (tern_now_ns() > until || interrupt_signal())
            return; /* then shares of stages are not known */
        else
            nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
}

/* Room for all tests. */
static enum tern_status open_all(struct streams *a, struct tern_err *err)
{
    struct session_room room = { .on_step = on_step, .on_step_user = a };
    struct sample_options greedy;
    enum tern_status st;

    for (uint32_t i = 0; i < a->o->n_stream_tests; i++)
        need(a->o, &a->o->stream_tests[i], &room);
    sample_options_default(&greedy);
    greedy.temperature = 0;
    if ((st = session_open(&a->o->engine, &a->s, err)) || (st = session_connect(a->s, &room, err)))
        return st;
    wait_for_clocks(a->s->pipe);
    return sampler_new(&greedy, &a->s->kern, a->s->arch.n_vocab, &a->sampler, err);
}

static void close_all(struct streams *a)
{
    session_close(&a->s); /* the scheduler holds pointers to the sequences */
    sampler_free(&a->sampler);
}

static enum tern_status all_tests(struct streams *a, const struct bench_streams_sink *sink,
                                  struct bench_streams_session *out, struct tern_err *err)
{
    struct bench_streams_result *x = calloc(1, sizeof *x);
    enum tern_status st = TERN_OK;

    if (!x)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the results");
    out->threads = a->o->engine.threads;
    out->workers = a->s->pipe->remote ? a->s->pipe->n_stages : 0;
    out->n_stages = a->s->pipe->n_stages;
    out->level = tern_cpu_name(a->s->kern.level);
    for (uint32_t i = 0; i < out->n_stages; i++)
        out->layers[i] = a->s->pipe->stages[i].last - a->s->pipe->stages[i].first;
    out->split = a->s->split;
    bench_cost_of(a->s, &out->cost);
    if (a->o->shape)
        snprintf(out->cost.model, sizeof out->cost.model, "%s", a->o->shape);
    for (uint32_t i = 0; i < a->o->n_stream_tests && !st; i++)
        if (!(st = measure(a, &a->o->stream_tests[i], a->o->reps, x, err)))
            st = sink->row(sink->arg, out, x, err);
    free(x);
    return st;
}

enum tern_status bench_streams_run(const struct bench_options *o, const struct bench_streams_sink *sink,
                                   struct bench_streams_session *out, struct tern_err *err)
{
    struct streams *a = calloc(1, sizeof *a);
    enum tern_status st;

    memset(out, 0, sizeof *out);
    if (!a)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to start");
    a->o = o;
    if (!(st = open_all(a, err)))
        st = all_tests(a, sink, out, err);
    close_all(a);
    free(a);
    return st;
}
