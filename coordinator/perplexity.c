/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity: see perplexity.h. */
#include "coordinator/perplexity.h"

#include "coordinator/interrupt.h"
#include "coordinator/logprobs.h"
#include "engine/base/mem.h"
#include "kernels/exact_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TURN_MS 100 /* how long a signal may go unnoticed */

/* Ties go to the lower id. */
static int32_t argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct perplexity_chunk *c = q->user;
    const struct perplexity *p = c->all;
    const size_t at = (size_t)(c - p->chunks) * p->per_chunk + (pos - q->want_from);
    const float *logits = row->logits;
    struct tern_err err;
    double norm = INFINITY, nll = INFINITY;

    if (logprobs_norm(&p->s->kern, logits, p->s->arch.n_vocab, &norm))
        nll = norm - (double)logits[p->targets[at]];
    if (!(nll < INFINITY)) {
        (void)TERN_FAIL(&err, TERN_ERR_NUMERIC,
                        "the logits of position %u are not finite; the model file is damaged", (unsigned)pos);
        seq_fail(q, &err);
        return;
    }
    p->nll[at] = nll;
    p->tops[at] = argmax(logits, p->s->arch.n_vocab);
    c->sum += nll;
    c->sum_sq += nll * nll;
    if (++c->n == p->per_chunk)
        seq_finish(q);
}

static enum tern_status chunk_init(struct perplexity *p, uint32_t i, const int32_t *ids, struct tern_err *err)
{
    struct perplexity_chunk *c = &p->chunks[i];
    const uint32_t half = p->n_ctx / 2;
    const int32_t bos = tern_tokenizer_bos(p->s->tok);
    /* The last id is predicted but predicts nothing: it is not sent. */
    enum tern_status st = seq_init(&c->seq, ids, p->n_ctx - 1, p->n_ctx - 1, err);

    if (st)
        return st;
    if (tern_tokenizer_add_bos(p->s->tok) && bos >= 0)
        c->seq.ids[0] = bos;
    c->seq.want_from = half;
    c->seq.on_logits = on_logits;
    c->seq.user = c;
    c->all = p;
    memcpy(p->targets + (size_t)i * p->per_chunk, ids + half + 1, p->per_chunk * sizeof *ids);
    return TERN_OK;
}

enum tern_status perplexity_new(struct session *s, const int32_t *ids, size_t n, uint32_t n_ctx,
                                uint32_t max_chunks, struct perplexity **out, struct tern_err *err)
{
    struct perplexity *p;
    size_t n_chunks = n / n_ctx;
    enum tern_status st = TERN_OK;

    if (n < 2 * (size_t)n_ctx)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "the text has %zu tokens and at least %zu are needed, two chunks of %u; give a longer text or a "
            "smaller -c",
            n, 2 * (size_t)n_ctx, (unsigned)n_ctx);
    if (max_chunks && n_chunks > max_chunks)
        n_chunks = max_chunks;
    p = calloc(1, sizeof *p);
    if (!p)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to score a text");
    p->s = s;
    p->n_ctx = n_ctx;
    p->n_chunks = (uint32_t)n_chunks;
    p->per_chunk = n_ctx - 1 - n_ctx / 2;
    p->chunks = calloc(n_chunks, sizeof *p->chunks);
    p->targets = calloc(n_chunks * p->per_chunk, sizeof *p->targets);
    p->tops = calloc(n_chunks * p->per_chunk, sizeof *p->tops);
    p->nll = calloc(n_chunks * p->per_chunk, sizeof *p->nll);
    if (!p->chunks || !p->targets || !p->tops || !p->nll)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to score %zu chunks", n_chunks);
    for (uint32_t i = 0; i < p->n_chunks && !st; i++)
        st = chunk_init(p, i, ids + (size_t)i * n_ctx, err);
    if (st)
        perplexity_free(&p);
    else
        *out = p;
    return st;
}

void perplexity_free(struct perplexity **pp)
{
    struct perplexity *p = *pp;

    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_chunks && p->chunks; i++)
        seq_fini(&p->chunks[i].seq);
    free(p->chunks);
    free(p->targets);
    free(p->tops);
    free(p->nll);
    free(p);
    *pp = NULL;
}

enum tern_status perplexity_run(struct perplexity *p, void (*on_chunk)(void *arg, const struct perplexity *p),
                                void *arg, struct tern_err *err)
{
    struct sched *sched = p->s->sched;
    enum tern_status st;

    for (uint32_t i = 0; i < p->n_chunks; i++)
        if ((st = sched_add(sched, &p->chunks[i].seq, err)))
            return st;
    while (p->n_done < p->n_chunks) {
        const struct seq *q;

        if ((st = interrupt_check(err)))
            return st;
        tern_alloc_guard_begin("a scored step");
        st = sched_turn(sched, TURN_MS, err);
        tern_alloc_guard_end();
        if (st && st != TERN_AGAIN && st != TERN_END)
            return st;
        while (p->n_done < p->n_chunks && (q = &p->chunks[p->n_done].seq)->state == SEQ_ENDED) {
            if (q->failed)
                return TERN_FAIL(err, q->err.status, "chunk %u: %.300s", (unsigned)p->n_done + 1,
                                 q->err.text);
            p->n_done++;
            if (on_chunk)
                on_chunk(arg, p);
        }
        TERN_BUG_IF(st == TERN_END && p->n_done < p->n_chunks);
    }
    return TERN_OK;
}

void perplexity_estimate(const struct perplexity *p, uint32_t n, double *ppl, double *error)
{
    const double count = (double)n * p->per_chunk;
    double sum = 0, sum_sq = 0, mean, variance;

    for (uint32_t i = 0; i < n; i++) {
        sum += p->chunks[i].sum;
        sum_sq += p->chunks[i].sum_sq;
    }
    mean = sum / count;
    variance = sum_sq / count - mean * mean;
    *ppl = tern_exp(mean);
    *error = variance > 0 && count > 1 ? *ppl * sqrt(variance / (count - 1)) : 0;
}
