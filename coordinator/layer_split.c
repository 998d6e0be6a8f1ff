/* SPDX-License-Identifier: Apache-2.0 */
/* Layers by the time of one: see layer_split.h. */
#include "coordinator/layer_split.h"

#include "coordinator/interrupt.h"
#include "coordinator/sample.h"
#include "engine/base/mem.h"

#include <stdlib.h>

#define TURN_MS       100 /* how long a signal may go unnoticed */
#define PROMPT_TOKENS 4
#define WARM_TOKENS   8  /* of each sequence before steps count */
#define COUNT_TOKENS  16 /* of each, on average, while they do */
#define LEAST_STREAMS 8  /* where so many are going to run */
#define STAGE_STREAMS 3  /* for each worker, so that all of them have work */

void layer_split_best(const double *layer_ms, uint32_t n, uint32_t n_layers, uint32_t *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = 1;
    for (uint32_t left = n_layers - n; left; left--) { /* one more to whoever would have the least to do */
        uint32_t best = 0;

        for (uint32_t i = 1; i < n; i++)
            if ((out[i] + 1) * layer_ms[i] < (out[best] + 1) * layer_ms[best])
                best = i;
        out[best]++;
    }
}

void layer_times_add(void *user, const struct sched_trace *t)
{
    struct layer_times *x = user;

    if (!x->counting || t->n_prompt || !t->n_decode)
        return;
    for (uint32_t i = 0; i < t->n_times && i < TERN_MAX_WORKERS; i++)
        x->stage_us[i] += t->times[i].compute_us;
    x->head_us += t->done_us - t->home_us;
    x->steps++;
}

uint32_t layer_split_streams(uint32_t n_at_once, uint32_t n_workers)
{
    const uint32_t most =
        n_workers * STAGE_STREAMS > LEAST_STREAMS ? n_workers * STAGE_STREAMS : LEAST_STREAMS;

    return n_at_once < most ? n_at_once : most;
}

uint32_t layer_split_positions(uint32_t n_streams)
{
    return PROMPT_TOKENS + 2 * (WARM_TOKENS + COUNT_TOKENS) + n_streams;
}

/* -- sequences that generate ----------------------------------------------------------------------------- */

struct run {
    struct layer_times *times;
    struct sampler *sampler; /* NULL without a head */
    struct seq *seqs;        /* [n] */
    uint32_t n, n_warm;
    uint32_t counted; /* tokens */
    bool stop;        /* every sequence ends with its next token */
};

static void count(struct run *r, const struct seq *q)
{
    if (r->times->counting)
        r->counted++;
    if (q->n_ids == PROMPT_TOKENS + WARM_TOKENS && ++r->n_warm == r->n)
        r->times->counting = true;
    if (r->counted >= r->n * COUNT_TOKENS || q->n_ids == q->cap) {
        r->times->counting = false;
        r->stop = true;
    }
}

static void next(struct run *r, struct seq *q, int32_t id)
{
    count(r, q);
    if (r->stop)
        seq_finish(q);
    else
        seq_push(q, id);
}

static void want(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    const struct run *r = q->user;

    (void)pos;
    sampler_want(r->sampler, q->ids, q->n_ids, out);
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct run *r = q->user;
    struct tern_err err;
    int32_t id;

    (void)pos;
    if (sampler_pick(r->sampler, row, q->ids, q->n_ids, &id, &err))
        seq_fail(q, &err);
    else
        next(r, q, id);
}

static void on_hidden(struct seq *q, uint32_t pos, const float *row)
{
    (void)pos;
    (void)row;
    next(q->user, q, q->ids[0]);
}

static enum tern_status begin(struct run *r, struct sched *sched, uint32_t number, uint32_t n_vocab,
                              struct tern_err *err)
{
    struct seq *q = &r->seqs[number];
    int32_t ids[PROMPT_TOKENS];
    enum tern_status st;

    for (uint32_t i = 0; i < PROMPT_TOKENS; i++)
        ids[i] = (int32_t)((number * PROMPT_TOKENS + i) % n_vocab);
    if ((st = seq_init(q, ids, PROMPT_TOKENS, layer_split_positions(r->n), err)))
        return st;
    q->want = r->sampler ? want : NULL;
    q->on_logits = r->sampler ? on_logits : NULL;
    q->on_hidden = r->sampler ? NULL : on_hidden;
    q->user = r;
    q->no_cache = true;
    return sched_add(sched, q, err);
}

static enum tern_status turns(struct run *r, struct sched *sched, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    while (!st || st == TERN_AGAIN) {
        if ((st = interrupt_check(err)))
            return st;
        tern_alloc_guard_begin("a token");
        st = sched_turn(sched, TURN_MS, err);
        tern_alloc_guard_end();
    }
    if (st != TERN_END)
        return st;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->seqs[i].failed) {
            *err = r->seqs[i].err;
            return err->status;
        }
    return TERN_OK;
}

static enum tern_status play(struct run *r, struct sched *sched, uint32_t n_vocab, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; i < r->n && !st; i++)
        st = begin(r, sched, i, n_vocab, err);
    if (!st)
        st = turns(r, sched, err);
    if (!st && !r->times->steps)
        st = TERN_FAIL(err, TERN_ERR_STATE,
                       "--split measured: the workers' steps could not be measured; name the layers of each");
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->seqs[i].ids)
            sched_forget(sched, &r->seqs[i]);
        seq_fini(&r->seqs[i]);
    }
    return st;
}

/* -- the split ------------------------------------------------------------------------------------------- */

enum tern_status layer_split_measure(struct sched *sched, const struct pipe *pipe, bool head,
                                     const struct tern_kernels *kern, uint32_t n_vocab, uint32_t n_streams,
                                     struct layer_times *times, struct layer_split *out, struct tern_err *err)
{
    struct run r = { .times = times, .n = n_streams };
    struct sample_options greedy;
    enum tern_status st = TERN_OK;

    sample_options_default(&greedy);
    greedy.temperature = 0;
    if (head && (st = sampler_new(&greedy, kern, n_vocab, &r.sampler, err)))
        return st;
    r.seqs = calloc(n_streams, sizeof *r.seqs);
    st =
        r.seqs ? play(&r, sched, n_vocab, err) : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to measure with");
    free(r.seqs);
    if (r.sampler)
        sampler_free(&r.sampler);
    if (st)
        return st;
    out->n = pipe->n_stages;
    out->measured = true;
    out->head_ms = (double)times->head_us / 1e3 / times->steps;
    for (uint32_t i = 0; i < out->n; i++) {
        const struct pipe_stage_info *w = &pipe->stages[i];

        out->layer_ms[i] = (double)times->stage_us[i] / 1e3 / times->steps / (w->last - w->first);
    }
    layer_split_best(out->layer_ms, out->n, pipe->stages[out->n - 1].last, out->layers);
    return TERN_OK;
}
