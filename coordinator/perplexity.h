/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Perplexity of a text by the method of llama.cpp's tool.
 *
 * The ids of the whole text, a leading BOS included, are cut into chunks of n_ctx; in each the first id is
 * replaced by BOS where the model wants one, the chunk is evaluated from an empty cache, and its second
 * half is scored: positions n_ctx/2 .. n_ctx-2 predict their successors.  Sums are in double and in order,
 * so the result is the same for every way of running.
 */
#ifndef TERN_COORDINATOR_PERPLEXITY_H
#define TERN_COORDINATOR_PERPLEXITY_H

#include "coordinator/session.h"

struct perplexity_chunk {
    struct seq seq;
    struct perplexity *all;
    double sum, sum_sq; /* of the negative log-likelihoods, natural log */
    uint32_t n;         /* scored so far */
};

struct perplexity {
    struct session *s;                   /* borrowed */
    uint32_t n_ctx, n_chunks, per_chunk; /* per_chunk: predictions */
    struct perplexity_chunk *chunks;
    int32_t *targets; /* [n_chunks][per_chunk] ids that were to be predicted */
    int32_t *tops;    /* [n_chunks][per_chunk] ids the model thought most likely */
    double *nll;      /* [n_chunks][per_chunk] */
    uint32_t n_done;  /* leading chunks that are complete */
};

/* ids [n]: the text.  max_chunks 0: all.  At least 2 * n_ctx ids; n_ctx at least 4.  Queues nothing yet. */
enum tern_status perplexity_new(struct session *s, const int32_t *ids, size_t n, uint32_t n_ctx,
                                uint32_t max_chunks, struct perplexity **out,
                                struct tern_err *err) TERN_MUST_CHECK;
void perplexity_free(struct perplexity **p);

/* Queues all chunks and runs until they are done; the session is connected.  on_chunk(arg, chunks done)
 * after each, in order. */
enum tern_status perplexity_run(struct perplexity *p, void (*on_chunk)(void *arg, const struct perplexity *p),
                                void *arg, struct tern_err *err) TERN_MUST_CHECK;

/* Over the first n chunks: exp of the mean, and its standard error. */
void perplexity_estimate(const struct perplexity *p, uint32_t n, double *ppl, double *error);

#endif
