/* SPDX-License-Identifier: Apache-2.0 */
/* See bench_flow.h. */
#include "coordinator/bench_flow.h"

#include <stdlib.h>
#include <string.h>

enum tern_status bench_traces_new(uint32_t cap, uint32_t n_stages, struct bench_traces *out,
                                  struct tern_err *err)
{
    memset(out, 0, sizeof *out);
    out->cap = cap;
    out->n_stages = n_stages;
    out->steps = calloc(cap, sizeof *out->steps);
    out->visits = calloc((size_t)cap * n_stages, sizeof *out->visits);
    if (out->steps && out->visits)
        return TERN_OK;
    bench_traces_free(out);
    return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the times of %u steps", (unsigned)cap);
}

void bench_traces_free(struct bench_traces *t)
{
    free(t->steps);
    free(t->visits);
    memset(t, 0, sizeof *t);
}

void bench_traces_add(struct bench_traces *t, const struct sched_trace *s)
{
    struct bench_visit *v;

    if (t->n == t->cap) {
        t->lost++;
        return;
    }
    v = t->visits + (size_t)t->n * t->n_stages;
    memset(v, 0, t->n_stages * sizeof *v);
    for (uint32_t i = 0; i < s->n_times && i < t->n_stages; i++) {
        const struct tern_stage_time *x = &s->times[i];

        v[i] = (struct bench_visit){ x->t_in_us, x->t_in_us + x->queue_us,
                                     x->t_in_us + x->queue_us + x->compute_us };
    }
    t->steps[t->n++] = (struct bench_step){ s->sent_us, s->home_us, s->done_us, s->n_prompt, s->n_decode };
}

/* -- a stretch of time ----------------------------------------------------------------------------------- */

struct stretch {
    uint64_t from, to;
};

/* How much of [a, b) lies in the stretch. */
static double inside(const struct stretch *w, uint64_t a, uint64_t b)
{
    a = a > w->from ? a : w->from;
    b = b < w->to ? b : w->to;
    return b > a ? (double)(b - a) : 0;
}

static double mean(double sum, double n)
{
    return n > 0 ? sum / n : 0;
}

/* Steps pass a stage in order, so what it had to do is a union of spans that begin in order. */
static void stage_flow(const struct bench_traces *t, uint32_t i, const struct stretch *w,
                       struct bench_stage_flow *out)
{
    double busy = 0, covered = 0, ms[2] = { 0, 0 }, n[2] = { 0, 0 };
    uint64_t done = 0;
    bool known = t->n > 0;

    for (uint32_t k = 0; k < t->n; k++) {
        const struct bench_visit *v = &t->visits[(size_t)k * t->n_stages + i];
        const int chunk = t->steps[k].n_prompt > 0;

        known = known && (v->in_us || t->steps[k].done_us <= w->from || t->steps[k].sent_us >= w->to);
        if (t->steps[k].sent_us >= w->from && t->steps[k].sent_us < w->to &&
            t->steps[k].n_prompt + t->steps[k].n_decode > 0) {
            ms[chunk] += (double)(v->end_us - v->start_us) / 1e3;
            n[chunk]++;
        }
        /* A clock read through a link is a little off: nobody computes two steps at once. */
        busy += inside(w, v->start_us > done ? v->start_us : done, v->end_us);
        covered += inside(w, v->in_us > done ? v->in_us : done, v->end_us);
        done = v->end_us > done ? v->end_us : done;
    }
    out->idle = known ? 1 - busy / (double)(w->to - w->from) : -1;
    out->empty = known ? 1 - covered / (double)(w->to - w->from) : -1;
    out->step_ms = mean(ms[0], n[0]);
    out->chunk_ms = mean(ms[1], n[1]);
}

void bench_flow_of(const struct bench_traces *t, uint64_t from_us, uint64_t to_us, struct bench_flow *out)
{
    const struct stretch w = { from_us, to_us > from_us ? to_us : from_us + 1 };
    const double span = (double)(w.to - w.from);
    double head_us = 0, decodes = 0;
    uint64_t done = 0; /* one step after the other goes through the head, too */
    bool known = true;

    memset(out, 0, sizeof *out);
    out->seconds = span / 1e6;
    out->n_stages = t->n_stages;
    for (uint32_t k = 0; k < t->n; k++) {
        const struct bench_step *s = &t->steps[k];
        const uint64_t begun = s->home_us > done ? s->home_us : done;

        done = s->done_us > done ? s->done_us : done;
        out->in_flight += inside(&w, s->sent_us, s->done_us) / span;
        out->head += inside(&w, begun, s->done_us) / span;
        if (s->sent_us < w.from || s->sent_us >= w.to)
            continue;
        out->steps++;
        if (s->n_prompt) {
            out->chunks++;
            out->chunk_rows += s->n_prompt;
        }
        if (s->n_decode) {
            decodes++;
            out->rows += s->n_decode;
            head_us += (double)(done - begun);
        }
    }
    out->rows = mean(out->rows, decodes);
    out->head_ms = mean(head_us / 1e3, decodes);
    out->chunk_rows = mean(out->chunk_rows, out->chunks);
    for (uint32_t i = 0; i < t->n_stages; i++) {
        stage_flow(t, i, &w, &out->stages[i]);
        known = known && out->stages[i].idle >= 0;
        out->busy += (1 - out->stages[i].idle) / t->n_stages;
        if (out->stages[i].idle < out->stages[out->busiest].idle)
            out->busiest = i;
    }
    out->busy = known ? out->busy : -1;
}

/* -- figures --------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The smallest value that at least share of all do not exceed. */
static double percentile(const double *v, uint32_t n, uint32_t percent)
{
    return v[((uint64_t)n * percent + 99) / 100 - 1];
}

void bench_spread_of(double *v, uint32_t n, struct bench_spread *out)
{
    *out = (struct bench_spread){ .n = n };
    if (n == 0)
        return;
    qsort(v, n, sizeof *v, compare);
    out->p50 = percentile(v, n, 50);
    out->p95 = percentile(v, n, 95);
    out->p99 = percentile(v, n, 99);
}

void bench_trips_of(const struct bench_traces *t, uint64_t from_us, uint64_t to_us, struct bench_spread *out)
{
    double *v = calloc((size_t)t->n + 1, sizeof *v);
    uint32_t n = 0;

    for (uint32_t k = 0; v && k < t->n; k++) {
        const struct bench_visit *visits = &t->visits[(size_t)k * t->n_stages];

        if (!t->steps[k].n_prompt || t->steps[k].sent_us < from_us || t->steps[k].sent_us >= to_us)
            continue;
        for (uint32_t i = 0; i < t->n_stages; i++)
            v[n] += (double)(visits[i].end_us - visits[i].start_us) / 1e3;
        n++;
    }
    bench_spread_of(v, n, out);
    free(v);
}
