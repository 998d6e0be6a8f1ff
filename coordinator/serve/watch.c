/* SPDX-License-Identifier: Apache-2.0 */
/* What a service has seen of itself: see watch.h. */
#include "coordinator/serve/watch.h"

#include "engine/base/log.h"

#include <stdlib.h>
#include <string.h>

static uint64_t now_us(void)
{
    return tern_now_ns() / 1000;
}

/* -- life ------------------------------------------------------------------------------------------------ */

enum tern_status watch_init(struct watch *w, struct tern_err *err)
{
    memset(w, 0, sizeof *w);
    w->start_us = now_us();
    pthread_mutex_init(&w->lock, NULL);
    w->steps = calloc(WATCH_STEPS, sizeof *w->steps);
    if (w->steps)
        return TERN_OK;
    watch_fini(w);
    return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for figures");
}

void watch_fini(struct watch *w)
{
    pthread_mutex_destroy(&w->lock);
    free(w->steps);
    free(w->stages);
    free(w->hops);
    free(w->hop_bytes);
}

enum tern_status watch_open(struct watch *w, struct pipe *pipe, struct tern_err *err)
{
    const uint32_t n = pipe->n_stages;
    struct watch_stage *stages = calloc((size_t)WATCH_STEPS * n, sizeof *stages);
    struct watch_latency *hops = calloc(n + 1, sizeof *hops);
    uint64_t *bytes = calloc(n + 1, sizeof *bytes);

    if (!stages || !hops || !bytes) {
        free(stages);
        free(hops);
        free(bytes);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for figures of %u stages", (unsigned)n);
    }
    pthread_mutex_lock(&w->lock);
    free(w->stages);
    free(w->hops);
    free(w->hop_bytes);
    w->stages = stages;
    w->hops = hops;
    w->hop_bytes = bytes;
    w->n_stages = n;
    w->n_before += w->n_steps;
    w->n_steps = 0;
    w->bytes_home = 0;
    w->opened_us = now_us();
    w->pipe = pipe;
    pthread_mutex_unlock(&w->lock);
    return TERN_OK;
}

void watch_close(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; w->pipe && i < w->n_stages; i++) {
        struct pipe_stage_live live = { .suspect = false };

        if (w->pipe->live)
            w->pipe->live(w->pipe, i, &live);
        w->last[i] = (struct snapshot_stage){ .info = w->pipe->stages[i] };
        w->last[i].info.layout = NULL; /* is the session's */
        memcpy(w->last[i].live.endpoint, live.endpoint, sizeof live.endpoint);
        w->last[i].live.clock_within_us = live.clock_within_us; /* by which its figures were measured */
    }
    w->pipe = NULL;
    w->sched.n_in_flight = 0;
    w->n_slots = 0;
    w->counts.n_running = 0;
    pthread_mutex_unlock(&w->lock);
}

/* -- filling --------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(uint64_t us)
{
    uint32_t i = 0;

    while (i < SNAPSHOT_BUCKETS - 1 && us >= (uint64_t)1 << i)
        i++;
    return i;
}

void watch_latency_add(struct watch_latency *l, uint64_t us)
{
    l->us[l->n++ % WATCH_LAST] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    l->all.count[bucket_of(us)]++;
    l->all.n++;
    l->all.sum_us += us;
}

/* From the end of computing on one side to the last byte on the other; clocks are not exact. */
static void hop_add(struct watch_latency *l, uint64_t from_us, uint64_t to_us)
{
    if (from_us && to_us)
        watch_latency_add(l, to_us > from_us ? to_us - from_us : 0);
}

static void add_hops(struct watch *w, const struct sched_trace *t, const struct watch_stage *stages,
                     uint32_t bytes_home)
{
    uint64_t left_us = t->sent_us;

    for (uint32_t i = 0; i < w->n_stages; i++) {
        const struct watch_stage *s = &stages[i];

        hop_add(&w->hops[i], left_us, s->in_us);
        left_us = s->in_us ? s->in_us + s->queue_us + s->compute_us : 0;
        w->hop_bytes[i] += s->bytes;
    }
    hop_add(&w->hops[w->n_stages], left_us, t->home_us);
    w->hop_bytes[w->n_stages] += bytes_home;
}

void watch_step(struct watch *w, const struct sched_trace *t, const struct sched_stats *stats)
{
    const uint64_t at = w->n_steps % WATCH_STEPS;
    struct watch_stage *stages = w->stages + at * w->n_stages;
    struct watch_step *s = &w->steps[at];

    pthread_mutex_lock(&w->lock);
    *s = (struct watch_step){ .number = w->n_before + w->n_steps + 1,
                              .sent_us = t->sent_us,
                              .home_us = t->home_us,
                              .taken_us = t->taken_us,
                              .done_us = t->done_us,
                              .head_us = stats->head_us,
                              .embed_us = stats->embed_us,
                              .n_prompt = t->n_prompt,
                              .n_decode = t->n_decode,
                              .n_stages = w->n_stages,
                              .bytes_home = (uint32_t)(stats->bytes_home - w->bytes_home) };
    memset(stages, 0, w->n_stages * sizeof *stages);
    for (uint32_t i = 0; i < t->n_times && i < w->n_stages; i++)
        stages[i] = (struct watch_stage){ t->times[i].t_in_us, t->times[i].queue_us, t->times[i].compute_us,
                                          t->times[i].bytes };
    add_hops(w, t, stages, s->bytes_home);
    w->bytes_home = stats->bytes_home;
    w->sched = *stats;
    w->n_steps++;
    w->n_total++;
    pthread_mutex_unlock(&w->lock);
}

/* -- reading --------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static struct snapshot_quantiles quantiles(uint32_t *us, uint64_t n_seen)
{
    const uint32_t n = n_seen < WATCH_LAST ? (uint32_t)n_seen : WATCH_LAST;
    struct snapshot_quantiles q = { .n = n };

    if (n == 0)
        return q;
    qsort(us, n, sizeof *us, by_value);
    q.p50_us = us[(n - 1) / 2];
    q.p99_us = us[(uint32_t)((uint64_t)(n - 1) * 99 / 100)];
    return q;
}

/* The window's steps: the last *n, and how long it is. */
static uint64_t window_of(const struct watch *w, uint64_t now, uint64_t *n)
{
    const uint64_t there = w->n_steps < WATCH_STEPS ? w->n_steps : WATCH_STEPS;
    const struct watch_step *last = w->n_steps ? &w->steps[(w->n_steps - 1) % WATCH_STEPS] : NULL;
    /* What is being computed now has not been told yet. */
    const uint64_t end = w->sched.n_in_flight && last ? last->done_us : now;
    uint64_t from = end > WATCH_WINDOW_US ? end - WATCH_WINDOW_US : 0;

    from = from > w->opened_us ? from : w->opened_us;
    for (*n = 0; *n < there; ++*n) {
        const struct watch_step *s = &w->steps[(w->n_steps - 1 - *n) % WATCH_STEPS];

        if (s->done_us < from)
            return end - from;
    }
    if (there == WATCH_STEPS)
        from = w->steps[w->n_steps % WATCH_STEPS].sent_us;
    return end > from ? end - from : 0;
}

static double share_idle(uint64_t busy_us, uint64_t window_us)
{
    if (window_us < 1000)
        return -1;
    return busy_us < window_us ? 1 - (double)busy_us / (double)window_us : 0;
}

static double per_second(uint64_t n, uint64_t window_us)
{
    return window_us < 1000 ? 0 : (double)n * 1e6 / (double)window_us;
}

/* The coordinator's own share of the last n steps. */
static void fill_coordinator(const struct watch *w, uint64_t n, uint64_t window, struct snapshot *out)
{
    const struct watch_step *first, *last;
    uint64_t head, embed;

    out->coordinator_idle_share = w->pipe ? share_idle(0, window) : -1;
    if (n < 2)
        return;
    first = &w->steps[(w->n_steps - n) % WATCH_STEPS];
    last = &w->steps[(w->n_steps - 1) % WATCH_STEPS];
    head = last->head_us - first->head_us;
    embed = last->embed_us - first->embed_us;
    out->head_ms_per_step = (double)head / 1e3 / (double)(n - 1);
    out->coordinator_idle_share = share_idle(head + embed, window);
}

/* Stages, hops and rates out of the window; called with the lock held. */
static void fill_window(const struct watch *w, struct snapshot *out)
{
    uint64_t n, window = window_of(w, out->now_us, &n);
    uint64_t prompt = 0, decode = 0, home = 0;
    uint64_t busy[TERN_MAX_WORKERS] = { 0 }, bytes[TERN_MAX_WORKERS] = { 0 };

    for (uint64_t k = 0; k < n; k++) {
        const uint64_t at = (w->n_steps - 1 - k) % WATCH_STEPS;
        const struct watch_step *s = &w->steps[at];

        prompt += s->n_prompt;
        decode += s->n_decode;
        home += s->bytes_home;
        for (uint32_t i = 0; i < w->n_stages; i++) {
            busy[i] += w->stages[at * w->n_stages + i].compute_us;
            bytes[i] += w->stages[at * w->n_stages + i].bytes;
        }
    }
    for (uint32_t i = 0; i < w->n_stages; i++) {
        struct snapshot_stage *s = &out->stages[i];

        s->ms_per_step = n ? (double)busy[i] / 1e3 / (double)n : 0;
        s->tokens_per_s = per_second(prompt + decode, window);
        s->idle_share = share_idle(busy[i], window);
        out->hops[i].bytes_per_s = per_second(bytes[i], window);
    }
    out->hops[w->n_stages].bytes_per_s = per_second(home, window);
    out->prompt_per_s = per_second(prompt, window);
    out->answer_per_s = per_second(decode, window);
    fill_coordinator(w, n, window, out);
}

static void fill_counts(const struct watch *w, struct snapshot *out)
{
    const struct watch_counts *c = &w->counts;

    out->jobs = c->jobs;
    out->jobs_ended = c->ended;
    out->jobs_cancelled = c->cancelled;
    out->jobs_failed = c->failed;
    out->refused = c->refused;
    out->reopened = c->reopened;
    out->prompt_tokens = c->prompt_tokens;
    out->answer_tokens = c->answer_tokens;
    out->n_waiting = c->n_waiting;
    out->n_running = c->n_running;
    out->first_token = w->first_token.all;
    out->between_tokens = w->between_tokens.all;
    out->queued = w->queued.all;
    out->steps = w->n_total;
}

/* What the pipeline itself tells; called with the lock held, so that it stays open. */
static void fill_stages(const struct watch *w, struct snapshot *out)
{
    out->n_stages = w->n_stages;
    out->sched = w->sched;
    for (uint32_t i = 0; i < w->n_stages; i++) {
        struct snapshot_stage *s = &out->stages[i];

        if (!w->pipe)
            *s = w->last[i];
        s->open = w->pipe != NULL;
        s->steps = w->n_steps;
        s->compute_us = w->sched.stages[i].compute_us;
        s->queue_us = w->sched.stages[i].queue_us;
        if (w->pipe)
            s->info = w->pipe->stages[i];
        if (w->pipe && w->pipe->live)
            w->pipe->live(w->pipe, i, &s->live);
    }
    for (uint32_t i = 0; i <= w->n_stages && w->hops; i++) {
        const uint64_t from = i ? out->stages[i - 1].live.clock_within_us : 0,
                       to = i < w->n_stages ? out->stages[i].live.clock_within_us : 0;

        out->hops[i].bytes = w->hop_bytes[i];
        out->hops[i].n = w->hops[i].n;
        out->hops[i].within_us = from + to < UINT32_MAX ? (uint32_t)(from + to) : UINT32_MAX;
    }
    out->max_in_flight = w->pipe ? w->pipe->max_in_flight : 0;
}

static void copy_latencies(struct watch *w, const struct watch_latency *l, uint32_t us[WATCH_LAST],
                           uint64_t *n)
{
    pthread_mutex_lock(&w->lock);
    memcpy(us, l->us, sizeof l->us);
    *n = l->n;
    pthread_mutex_unlock(&w->lock);
}

void watch_snapshot(struct watch *w, struct snapshot *out)
{
    uint32_t us[WATCH_LAST];
    uint64_t n;

    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&w->lock);
    out->now_us = now_us();
    out->uptime_us = out->now_us - w->start_us;
    fill_counts(w, out);
    fill_stages(w, out);
    if (w->stages)
        fill_window(w, out);
    pthread_mutex_unlock(&w->lock);
    /* Sorting needs no lock. */
    for (uint32_t i = 0; i <= out->n_stages && out->n_stages; i++) {
        struct snapshot_quantiles q;

        pthread_mutex_lock(&w->lock);
        n = 0;
        if (i <= w->n_stages) {
            memcpy(us, w->hops[i].us, sizeof us);
            n = w->hops[i].n;
        }
        pthread_mutex_unlock(&w->lock);
        q = quantiles(us, n);
        out->hops[i].p50_us = q.p50_us;
        out->hops[i].p99_us = q.p99_us;
    }
    copy_latencies(w, &w->first_token, us, &n);
    out->first_token_last = quantiles(us, n);
    copy_latencies(w, &w->between_tokens, us, &n);
    out->between_tokens_last = quantiles(us, n);
    copy_latencies(w, &w->queued, us, &n);
    out->queued_last = quantiles(us, n);
}

static void fill_step(const struct watch *w, uint64_t at, struct snapshot_step *out)
{
    const struct watch_step *s = &w->steps[at];

    out->number = s->number;
    out->sent_us = s->sent_us;
    out->home_us = s->home_us;
    out->taken_us = s->taken_us;
    out->done_us = s->done_us;
    out->n_prompt = s->n_prompt;
    out->n_decode = s->n_decode;
    out->n_stages = s->n_stages;
    for (uint32_t i = 0; i < s->n_stages; i++) {
        const struct watch_stage *g = &w->stages[at * w->n_stages + i];

        out->stages[i].in_us = g->in_us;
        out->stages[i].start_us = g->in_us ? g->in_us + g->queue_us : 0;
        out->stages[i].end_us = g->in_us ? out->stages[i].start_us + g->compute_us : 0;
        out->stages[i].bytes = g->bytes;
    }
}

uint32_t watch_traces(struct watch *w, uint64_t since, struct snapshot_step *out, uint32_t max)
{
    uint64_t there, skip;
    uint32_t n = 0;

    pthread_mutex_lock(&w->lock);
    there = w->n_steps < WATCH_STEPS ? w->n_steps : WATCH_STEPS;
    skip = since > w->n_before ? since - w->n_before : 0; /* steps of this pipeline already known */
    if (skip > w->n_steps)
        skip = 0; /* known from another service */
    skip = skip > w->n_steps - there ? skip : w->n_steps - there;
    for (uint64_t i = skip; i < w->n_steps && n < max; i++)
        fill_step(w, i % WATCH_STEPS, &out[n++]);
    pthread_mutex_unlock(&w->lock);
    return n;
}

uint32_t watch_slots(struct watch *w, struct snapshot_slot *out, uint32_t max)
{
    uint32_t n;

    pthread_mutex_lock(&w->lock);
    n = w->n_slots < max ? w->n_slots : max;
    memcpy(out, w->slots, n * sizeof *out);
    pthread_mutex_unlock(&w->lock);
    return n;
}
