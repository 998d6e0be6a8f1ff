/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests of one session: the same scheduler, pipeline, head and greedy sampler as `tern run`, with ids
 * that are fixed and no text.
 *
 * What has to be there before the clock starts (one token in front of tg tests, `depth` positions
 * otherwise) is computed first; then all sequences start together.  A token counts when it has been picked.
 */
#include "coordinator/bench.h"

#include "coordinator/interrupt.h"
#include "coordinator/sample.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_MS     100 /* how long a signal may go unnoticed */
#define WARM_TOKENS 8

_Static_assert((BENCH_MAX_REPS + 1) * BENCH_TAKE_PASSES <= BENCH_MAX_TAKES, "a take around every sample");

struct player {
    struct seq seq;
    struct sampler *sampler; /* borrowed */
    bool priming;            /* keep the token, the clock does not run yet */
    int32_t next;            /* token picked while priming */
    uint32_t left;           /* tokens to feed back */
};

struct run {
    const struct bench_options *o;
    struct session *s;
    struct sampler *sampler;
    struct player players[BENCH_MAX_SEQS];
};

void bench_test_name(const struct bench_test *t, char out[64])
{
    size_t n = 0;

    if (t->n_prompt)
        n += (size_t)snprintf(out + n, 64 - n, "pp%u%s", (unsigned)t->n_prompt, t->n_gen ? "+" : "");
    if (t->n_gen)
        n += (size_t)snprintf(out + n, 64 - n, "tg%u", (unsigned)t->n_gen);
    if (t->n_seqs > 1)
        n += (size_t)snprintf(out + n, 64 - n, " x %u seqs", (unsigned)t->n_seqs);
    if (t->depth)
        snprintf(out + n, 64 - n, " @ d%u", (unsigned)t->depth);
}

/* -- sequences ------------------------------------------------------------------------------------------- */

static void want(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    struct player *p = q->user;

    (void)pos;
    sampler_want(p->sampler, q->ids, q->n_ids, out);
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct player *p = q->user;
    struct tern_err err;
    int32_t id;

    (void)pos;
    if (sampler_pick(p->sampler, row, q->ids, q->n_ids, &id, &err)) {
        seq_fail(q, &err);
        return;
    }
    if (p->priming) {
        p->next = id;
    } else if (p->left == 0) {
        seq_finish(q);
    } else {
        p->left--;
        seq_push(q, id);
    }
}

int32_t bench_fixed_id(uint32_t n_vocab, uint32_t k, uint32_t i)
{
    uint64_t z = ((uint64_t)k << 32 | i) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (int32_t)((z ^ z >> 27) % n_vocab);
}

static enum tern_status player_begin(struct run *r, const struct bench_test *t, uint32_t k,
                                     struct tern_err *err)
{
    struct player *p = &r->players[k];
    const bool primed = t->depth || !t->n_prompt;
    const uint32_t n = t->depth ? t->depth : t->n_prompt ? t->n_prompt : 1;
    int32_t *ids = calloc(n, sizeof *ids);
    enum tern_status st;

    if (!ids)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a sequence of %u tokens", (unsigned)n);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = bench_fixed_id(r->s->arch.n_vocab, k, i);
    memset(p, 0, sizeof *p);
    st = seq_init(&p->seq, ids, n, n + (primed ? t->n_prompt : 0) + t->n_gen, err);
    free(ids);
    if (st)
        return st;
    p->seq.want = want;
    p->seq.on_logits = on_logits;
    p->seq.user = p;
    p->seq.no_cache = true; /* every repetition computes its prompt */
    p->sampler = r->sampler;
    p->priming = primed;
    p->left = t->n_gen;
    return sched_add(r->s->sched, &p->seq, err);
}

/* Lets a primed sequence go on. */
static void player_go(struct run *r, const struct bench_test *t, uint32_t k)
{
    struct player *p = &r->players[k];

    p->priming = false;
    if (!t->n_prompt) {
        p->left = t->n_gen - 1;
        seq_push(&p->seq, p->next);
        return;
    }
    for (uint32_t i = 0; i < t->n_prompt; i++)
        seq_push(&p->seq, bench_fixed_id(r->s->arch.n_vocab, k, t->depth + i));
    p->seq.want_from = p->seq.n_ids - 1;
}

/* Turns the scheduler until nothing is left to do. */
static enum tern_status turn(struct run *r, struct tern_err *err)
{
    enum tern_status st;

    for (;;) {
        if ((st = interrupt_check(err)))
            return st;
        tern_alloc_guard_begin("a token");
        st = sched_turn(r->s->sched, TURN_MS, err);
        tern_alloc_guard_end();
        if (st == TERN_END)
            return TERN_OK;
        if (st && st != TERN_AGAIN)
            return st;
    }
}

/* -- one repetition -------------------------------------------------------------------------------------- */

static enum tern_status play(struct run *r, const struct bench_test *t, double *per_second,
                             struct tern_err *err)
{
    uint64_t t0 = tern_now_ns(), t1;
    enum tern_status st = TERN_OK;

    for (uint32_t k = 0; k < t->n_seqs && !st; k++)
        st = player_begin(r, t, k, err);
    if (st || (st = turn(r, err)))
        return st;
    if (t->depth || !t->n_prompt) {
        t0 = tern_now_ns();
        for (uint32_t k = 0; k < t->n_seqs; k++)
            if (!r->players[k].seq.failed)
                player_go(r, t, k);
        if ((st = turn(r, err)))
            return st;
    }
    t1 = tern_now_ns();
    for (uint32_t k = 0; k < t->n_seqs; k++)
        if (r->players[k].seq.failed) {
            *err = r->players[k].seq.err;
            return err->status;
        }
    *per_second = (double)t->n_seqs * (double)(t->n_prompt + t->n_gen) * 1e9 / (double)(t1 - t0);
    return TERN_OK;
}

static enum tern_status repetition(struct run *r, const struct bench_test *t, double *per_second,
                                   struct tern_err *err)
{
    enum tern_status st = play(r, t, per_second, err);

    for (uint32_t k = 0; k < t->n_seqs; k++) {
        if (r->players[k].seq.ids)
            sched_forget(r->s->sched, &r->players[k].seq);
        seq_fini(&r->players[k].seq);
    }
    return st;
}

/* -- figures --------------------------------------------------------------------------------------------- */

static void statistics(struct bench_result *x)
{
    double sum = 0, squares = 0;

    for (uint32_t i = 0; i < x->n_samples; i++)
        sum += x->samples[i];
    x->mean = sum / x->n_samples;
    for (uint32_t i = 0; i < x->n_samples; i++)
        squares += (x->samples[i] - x->mean) * (x->samples[i] - x->mean);
    x->deviation = x->n_samples > 1 ? sqrt(squares / (x->n_samples - 1)) : 0;
    x->median = bench_range_of(x->samples, x->n_samples).median;
}

/* Mean KV bytes that a decoded token reads: its own position and all before it, or those in the window. */
static double kv_read(const struct bench_cost *c, const struct bench_test *t)
{
    double before = t->depth + t->n_prompt + (t->depth || t->n_prompt ? 0 : 1);

    double n = before + ((double)t->n_gen + 1) / 2, seen = n < c->window ? n : c->window;

    return (double)(c->kv_bytes - c->kv_swa_bytes) * n + (double)c->kv_swa_bytes * seen;
}

/* The share of its limit that `rate` tokens per second are, the machine being able to read and multiply that
 * fast; -1 when there is no limit to compare with.  one_row: median of the same test with one sequence, or
 * 0. */
static double share_of(const struct bench_session *s, struct bench_result *x, double rate, double read,
                       double dot, double one_row)
{
    const struct bench_cost *c = &s->cost;
    const struct bench_test *t = &x->test;

    if (t->n_gen && !t->n_prompt && t->n_seqs == 1) {
        x->limit = "read";
        return x->bytes * rate / read;
    }
    if (dot <= 0)
        return -1;
    if (t->n_prompt && t->n_gen) {
        double ideal = t->n_prompt * (double)c->ternary_macs / dot + t->n_gen * x->bytes / read;

        x->limit = "both";
        return ideal * rate / (t->n_prompt + t->n_gen);
    }
    if (t->n_prompt) {
        x->limit = "int8";
        return (double)c->ternary_macs * rate / dot;
    }
    if (one_row > 0) {
        double rows = t->n_seqs * one_row, peak = dot / x->macs;

        x->limit = rows < peak ? "rows" : "int8";
        return rate / (rows < peak ? rows : peak);
    }
    return -1;
}

/* Each sample against what the machine could do just before and just after it: on a machine that others use
 * too, that changes from one second to the next. */
static void limits(const struct bench_session *s, struct bench_result *x, double one_row)
{
    const struct bench_cost *c = &s->cost;
    const struct bench_test *t = &x->test;
    const uint32_t take = BENCH_TAKE_PASSES;
    double shares[BENCH_MAX_REPS];

    x->limit = NULL;
    x->bytes = t->n_gen ? (double)(c->layer_bytes + c->head_bytes) / t->n_seqs + kv_read(c, t) : 0;
    x->macs = (double)(c->ternary_macs + (t->n_gen ? c->head_macs : 0));
    for (uint32_t i = 0; i < x->n_samples; i++)
        shares[i] = share_of(s, x, x->samples[i], bench_range_of(x->around.read + i * take, 2 * take).median,
                             bench_range_of(x->around.dot + i * take, 2 * take).median, one_row);
    x->share = bench_range_of(shares, x->n_samples).median;
}

/* -- the session ----------------------------------------------------------------------------------------- */

static enum tern_status measure(struct run *r, struct bench_probe *probe, const struct bench_test *t,
                                struct bench_session *s, struct bench_result *x, struct tern_err *err)
{
    const uint32_t chunk = r->o->engine.chunk ? r->o->engine.chunk : CHUNK_MOST;
    struct bench_test warm = *t;
    enum tern_status st;

    memset(x, 0, sizeof *x);
    x->test = *t;
    x->threads = s->threads;
    x->workers = s->workers;
    warm.n_prompt = t->n_prompt < chunk ? t->n_prompt : chunk;
    warm.n_gen = t->n_gen < WARM_TOKENS ? t->n_gen : WARM_TOKENS;
    warm.depth = t->depth < chunk ? t->depth : chunk;
    if ((st = repetition(r, &warm, &x->samples[0], err)))
        return st;
    bench_probe_take(probe, &r->s->kern, r->s->pool, &x->around);
    for (uint32_t i = 0; i < r->o->reps; i++) {
        if ((st = repetition(r, t, &x->samples[i], err)))
            return st;
        x->n_samples++;
        bench_probe_take(probe, &r->s->kern, r->s->pool, &x->around);
    }
    statistics(x);
    bench_takes_add(&s->takes, &x->around);
    return TERN_OK;
}

/* The median of the test t with one sequence, which bench_options puts in front of its batches. */
static double find_one_row(const struct bench_options *o, uint32_t i, const double *medians)
{
    for (uint32_t j = 0; j < i; j++)
        if (o->tests[j].n_seqs == 1 && o->tests[j].n_prompt == o->tests[i].n_prompt &&
            o->tests[j].n_gen == o->tests[i].n_gen && o->tests[j].depth == o->tests[i].depth)
            return medians[j];
    return 0;
}

static enum tern_status all_tests(struct run *r, struct bench_probe *probe, const struct bench_sink *sink,
                                  struct bench_session *s, struct tern_err *err)
{
    struct bench_result *x = calloc(1, sizeof *x);
    double *medians = calloc(r->o->n_tests, sizeof *medians);
    enum tern_status st = TERN_OK;

    if (!x || !medians)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the results");
    for (uint32_t i = 0; i < r->o->n_tests && !st; i++) {
        if ((st = measure(r, probe, &r->o->tests[i], s, x, err)))
            break;
        medians[i] = x->median;
        limits(s, x, find_one_row(r->o, i, medians));
        if (r->o->engine.cluster) /* other machines: their limits are not ours */
            x->share = -1;
        st = sink->row(sink->arg, s, x, err);
    }
    free(medians);
    free(x);
    return st;
}

/* Positions and sequences that the tests need at most. */
static void needs(const struct bench_options *o, uint32_t *max_len, uint32_t *n_seqs)
{
    *max_len = *n_seqs = 1;
    for (uint32_t i = 0; i < o->n_tests; i++) {
        const struct bench_test *t = &o->tests[i];
        uint32_t len = t->depth + t->n_prompt + t->n_gen + 1;

        *max_len = len > *max_len ? len : *max_len;
        *n_seqs = t->n_seqs > *n_seqs ? t->n_seqs : *n_seqs;
    }
}

static enum tern_status open_run(struct run *r, struct bench_session *out, struct tern_err *err)
{
    static const struct bench_test one = { .n_prompt = 1, .n_seqs = 1 };
    struct sample_options greedy;
    const uint64_t t0 = tern_now_ns();
    uint32_t max_len, n_seqs;
    double rate;
    enum tern_status st;

    needs(r->o, &max_len, &n_seqs);
    sample_options_default(&greedy);
    greedy.temperature = 0;
    if ((st = session_open(&r->o->engine, &r->s, err)) ||
        (st =
             session_connect(r->s, &(struct session_room){ .n_at_once = n_seqs, .max_len = max_len }, err)) ||
        (st = sampler_new(&greedy, &r->s->kern, r->s->arch.n_vocab, &r->sampler, err)))
        return st;
    out->load_ms = (double)(tern_now_ns() - t0) / 1e6;
    if ((st = repetition(r, &one, &rate, err)))
        return st;
    out->first_ms = (double)(tern_now_ns() - t0) / 1e6;
    out->threads = r->o->engine.threads;
    out->workers = r->s->pipe->remote ? r->s->pipe->n_stages : 0;
    out->level = tern_cpu_name(r->s->kern.level);
    bench_cost_of(r->s, &out->cost);
    if (r->o->shape)
        snprintf(out->cost.model, sizeof out->cost.model, "%s", r->o->shape);
    return TERN_OK;
}

enum tern_status bench_run(const struct bench_options *o, struct bench_probe *probe,
                           const struct bench_sink *sink, struct bench_session *out, struct tern_err *err)
{
    struct run *r = calloc(1, sizeof *r);
    enum tern_status st;

    memset(out, 0, sizeof *out);
    if (!r)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to start");
    r->o = o;
    if (!(st = open_run(r, out, err)))
        st = all_tests(r, probe, sink, out, err);
    session_close(&r->s); /* the scheduler holds pointers to the sequences */
    sampler_free(&r->sampler);
    free(r);
    return st;
}
