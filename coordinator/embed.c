/* SPDX-License-Identifier: Apache-2.0 */
/* From hidden rows to a vector: see embed.h. */
#include "coordinator/embed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "none", "mean", "cls", "last" };

const char *embed_pooling_name(enum tern_pooling pooling)
{
    return names[pooling];
}

bool embed_pooling_by_name(const char *name, enum tern_pooling *pooling)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *pooling = (enum tern_pooling)i;
            return true;
        }
    return false;
}

static void normalize(float *x, uint32_t n)
{
    double sum = 0, norm;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    norm = sqrt(sum);
    for (uint32_t i = 0; i < n && norm > 0; i++)
        x[i] = (float)((double)x[i] / norm);
}

static void on_hidden(struct seq *q, uint32_t pos, const float *row)
{
    struct embed *e = q->user;
    const bool last = pos + 1 == q->n_ids;
    float *out = e->out + (e->pooling == TERN_POOL_NONE ? (size_t)pos * e->n_embd : 0);
    struct tern_err err;

    if (!e->kern->all_finite(row, e->n_embd)) {
        (void)TERN_FAIL(&err, TERN_ERR_NUMERIC,
                        "the hidden row of position %u is not finite; the model file is damaged",
                        (unsigned)pos);
        seq_fail(q, &err);
        return;
    }
    if (e->pooling == TERN_POOL_MEAN) {
        for (uint32_t i = 0; i < e->n_embd; i++)
            e->sum[i] += (double)row[i];
        for (uint32_t i = 0; i < e->n_embd && last; i++)
            out[i] = (float)(e->sum[i] / (double)q->n_ids);
    } else {
        memcpy(out, row, e->n_embd * sizeof *out);
    }
    if (e->normalize && (last || e->pooling == TERN_POOL_NONE))
        normalize(out, e->n_embd);
    if (last)
        seq_finish(q);
}

enum tern_status embed_init(struct embed *e, const int32_t *ids, uint32_t n, uint32_t n_embd,
                            enum tern_pooling pooling, bool normalized, const struct tern_kernels *kern,
                            struct tern_err *err)
{
    enum tern_status st;

    memset(e, 0, sizeof *e);
    /* A row sees only those before it: the first token's needs no other. */
    if (pooling == TERN_POOL_CLS)
        n = 1;
    if ((st = seq_init(&e->seq, ids, n, n, err)))
        return st;
    e->kern = kern;
    e->pooling = pooling;
    e->normalize = normalized;
    e->n_embd = n_embd;
    e->n_rows = pooling == TERN_POOL_NONE ? n : 1;
    e->seq.want_from = pooling == TERN_POOL_LAST ? n - 1 : 0;
    e->seq.on_hidden = on_hidden;
    e->seq.user = e;
    e->out = calloc((size_t)e->n_rows * n_embd, sizeof *e->out);
    if (pooling == TERN_POOL_MEAN)
        e->sum = calloc(n_embd, sizeof *e->sum);
    if (e->out && (e->sum || pooling != TERN_POOL_MEAN))
        return TERN_OK;
    embed_fini(e);
    return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an embedding of %u tokens", (unsigned)n);
}

void embed_fini(struct embed *e)
{
    seq_fini(&e->seq);
    free(e->out);
    free(e->sum);
    memset(e, 0, sizeof *e);
}
