/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling: see sample.h.  Candidates are a binary heap of ids over the adjusted logits; the order is total
 * (larger logit first, then lower id), so what comes off it does not depend on how it was built.
 */
#include "coordinator/sample.h"

#include "kernels/exact_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    struct sample_options o;
    struct sample_rng rng;
    double (*sum_exp)(const float *x, size_t n, float max);
    uint32_t n_vocab;
    float *logits; /* [n_vocab] after bias and penalties */
    int32_t *heap; /* [n_vocab] candidates that have not come off yet */
    uint32_t n_heap;
    int32_t *top;   /* [n_vocab] survivors in descending order */
    double *weight; /* [n_vocab] of the survivors */
    uint32_t n_top;
    int32_t *forced;         /* [n_vocab] what sampler_want says */
    uint32_t *count;         /* [n_vocab] occurrences in the window; all zero between calls */
    const uint64_t *allowed; /* mask of the next pick, or NULL */
};

void sample_options_default(struct sample_options *o)
{
    memset(o, 0, sizeof *o);
    o->temperature = 0.8;
    o->top_k = 40;
    o->top_p = 0.95;
    o->min_p = 0.05;
    o->repeat_penalty = 1.0;
    o->repeat_last_n = 64;
}

/* -- generator ------------------------------------------------------------------------------------------- */

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void sample_rng_seed(struct sample_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t sample_rng_next(struct sample_rng *r)
{
    uint64_t *s = r->s;
    uint64_t out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

/* [0, 1) in steps of 2^-53. */
static double uniform(struct sample_rng *r)
{
    return (double)(sample_rng_next(r) >> 11) * 0x1p-53;
}

/* e^x for x <= 0, 0 below the range of tern_exp. */
static double exp_below(double x)
{
    return x < -700.0 ? 0.0 : tern_exp(x);
}

/* -- life ------------------------------------------------------------------------------------------------ */

enum tern_status sampler_new(const struct sample_options *o, const struct tern_kernels *kern,
                             uint32_t n_vocab, struct sampler **out, struct tern_err *err)
{
    struct sampler *s;

    for (uint32_t i = 0; i < o->n_bias; i++)
        if (o->bias[i].id < 0 || (uint32_t)o->bias[i].id >= n_vocab)
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "--logit-bias: token %d is not in the vocabulary of %u tokens",
                             (int)o->bias[i].id, (unsigned)n_vocab);
    s = calloc(1, sizeof *s);
    if (s) {
        s->o = *o;
        s->sum_exp = kern->sum_exp;
        s->n_vocab = n_vocab;
        s->logits = calloc(n_vocab, sizeof *s->logits);
        s->heap = calloc(n_vocab, sizeof *s->heap);
        s->top = calloc(n_vocab, sizeof *s->top);
        s->weight = calloc(n_vocab, sizeof *s->weight);
        s->forced = calloc(n_vocab, sizeof *s->forced);
        s->count = calloc(n_vocab, sizeof *s->count);
        sample_rng_seed(&s->rng, o->seed);
    }
    if (!s || !s->logits || !s->heap || !s->top || !s->weight || !s->forced || !s->count) {
        sampler_free(&s);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to sample from %u tokens", (unsigned)n_vocab);
    }
    *out = s;
    return TERN_OK;
}

void sampler_free(struct sampler **s)
{
    if (*s) {
        free((*s)->logits);
        free((*s)->heap);
        free((*s)->top);
        free((*s)->weight);
        free((*s)->forced);
        free((*s)->count);
        free(*s);
    }
    *s = NULL;
}

uint32_t sampler_survivors(const struct sampler *s, const int32_t **ids)
{
    *ids = s->top;
    return s->n_top;
}

/* -- bias and penalties ---------------------------------------------------------------------------------- */

/* The tokens that count as seen: *history moves on to them; 0 when no penalty is on. */
static uint32_t window(const struct sampler *s, const int32_t **history, uint32_t n)
{
    const struct sample_options *o = &s->o;

    if (o->repeat_last_n == 0 || ((float)o->repeat_penalty == 1.0f && (float)o->frequency_penalty == 0.0f &&
                                  (float)o->presence_penalty == 0.0f))
        return 0;
    if (o->repeat_last_n < 0 || (uint64_t)o->repeat_last_n >= n)
        return n;
    *history += n - (uint32_t)o->repeat_last_n;
    return (uint32_t)o->repeat_last_n;
}

static bool is_token(const struct sampler *s, int32_t id)
{
    return id >= 0 && (uint32_t)id < s->n_vocab;
}

static void penalize(struct sampler *s, const int32_t *history, uint32_t n)
{
    const float repeat = (float)s->o.repeat_penalty, frequency = (float)s->o.frequency_penalty,
                presence = (float)s->o.presence_penalty;

    n = window(s, &history, n);
    for (uint32_t i = 0; i < n; i++)
        if (is_token(s, history[i]))
            s->count[history[i]]++;
    for (uint32_t i = 0; i < n; i++) {
        float *l;
        uint32_t c;

        if (!is_token(s, history[i]))
            continue;
        c = s->count[history[i]];
        if (c == 0)
            continue; /* an earlier occurrence has been here */
        s->count[history[i]] = 0;
        l = &s->logits[history[i]];
        *l = *l > 0.0f ? *l / repeat : *l * repeat;
        *l -= (float)c * frequency + presence;
    }
}

/* One more forced token, if it is one and new. */
static void force(struct sampler *s, int32_t id, struct tern_head_want *out)
{
    if (!is_token(s, id) || s->count[id])
        return;
    s->count[id] = 1;
    s->forced[out->n_forced++] = id;
}

void sampler_want(struct sampler *s, const int32_t *history, uint32_t n_history, struct tern_head_want *out)
{
    const struct sample_options *o = &s->o;
    uint32_t n = window(s, &history, n_history);

    *out = (struct tern_head_want){ .full = o->temperature > 0 && o->top_k == 0,
                                    .k = o->temperature > 0 ? o->top_k : 1,
                                    .forced = s->forced };
    if (out->full)
        return;
    for (uint32_t i = 0; i < o->n_bias; i++)
        force(s, o->bias[i].id, out);
    for (uint32_t i = 0; i < n; i++)
        force(s, history[i], out);
    for (uint32_t i = 0; i < out->n_forced; i++)
        s->count[s->forced[i]] = 0;
}

void sampler_allow(struct sampler *s, const uint64_t *mask)
{
    s->allowed = mask;
}

/* Tokens outside the mask become impossible, for all that follows. */
static void apply_mask(struct sampler *s, const struct tern_head_row *row)
{
    const uint64_t *mask = s->allowed;

    s->allowed = NULL;
    if (!mask)
        return;
    TERN_BUG_IF(!row->logits);
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (!(mask[i / 64] >> (i % 64) & 1))
            s->logits[i] = -INFINITY;
}

/* -- heap ------------------------------------------------------------------------------------------------ */

/* True when a comes before b. */
static bool before(const float *l, int32_t a, int32_t b)
{
    return l[a] > l[b] || (l[a] == l[b] && a < b);
}

static void sift_down(struct sampler *s, uint32_t i)
{
    int32_t *h = s->heap;
    int32_t moving = h[i];

    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && before(s->logits, h[child + 1], h[child]))
            child++;
        if (!before(s->logits, h[child], moving))
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = moving;
}

/* Of the tokens in heap[] the possible ones; the best is heap[0]. */
static void heap_build(struct sampler *s)
{
    for (uint32_t i = s->n_heap / 2; i-- > 0;)
        sift_down(s, i);
}

static int32_t heap_pop(struct sampler *s)
{
    int32_t best = s->heap[0];

    s->heap[0] = s->heap[--s->n_heap];
    if (s->n_heap)
        sift_down(s, 0);
    return best;
}

/* -- filters --------------------------------------------------------------------------------------------- */

/* Takes candidates off the heap into top[] until top-k, top-p or min-p says stop.  top-p counts shares of
 * what top-k leaves.  Unless all tokens are there, top-k leaves fewer than all. */
static void filter(struct sampler *s, float max, bool all)
{
    const struct sample_options *o = &s->o;
    uint32_t limit = o->top_k && o->top_k < s->n_heap ? o->top_k : s->n_heap;
    const bool use_p = o->top_p < 1.0;
    double total = 0, cum = 0, floor_logit = -INFINITY;
    uint32_t n = 0;

    s->n_top = 0;
    if (o->min_p > 0)
        floor_logit = (double)max + (o->min_p >= 1.0 ? 0.0 : tern_ln(o->min_p));
    if (use_p && (limit < s->n_heap || !all)) {
        for (; n < limit; n++) {
            s->top[n] = heap_pop(s);
            total += exp_below((double)s->logits[s->top[n]] - (double)max);
        }
    } else if (use_p) {
        total = s->sum_exp(s->logits, s->n_vocab, max);
    }
    for (uint32_t i = 0; i < limit; i++) {
        double l;

        if (i >= n)
            s->top[i] = heap_pop(s);
        l = (double)s->logits[s->top[i]];
        if (i > 0 && l < floor_logit)
            return;
        s->n_top = i + 1;
        if (use_p) {
            cum += exp_below(l - (double)max);
            if (cum >= o->top_p * total)
                return;
        }
    }
}

/* Without filters nothing needs an order: candidates stay in order of id. */
static void keep_all(struct sampler *s)
{
    memcpy(s->top, s->heap, s->n_heap * sizeof *s->heap);
    s->n_top = s->n_heap;
}

static int32_t draw(struct sampler *s, float max)
{
    const double u = uniform(&s->rng);
    double total = 0, cum = 0;

    for (uint32_t i = 0; i < s->n_top; i++) {
        s->weight[i] = exp_below(((double)s->logits[s->top[i]] - (double)max) / s->o.temperature);
        total += s->weight[i];
    }
    for (uint32_t i = 0; i + 1 < s->n_top; i++) {
        cum += s->weight[i];
        if (u * total < cum)
            return s->top[i];
    }
    /* Rounding may leave u * total just past the last sum: the last possible one, then. */
    for (uint32_t i = s->n_top; i-- > 0;)
        if (s->weight[i] > 0)
            return s->top[i];
    return s->top[0];
}

/* -- the whole ------------------------------------------------------------------------------------------- */

/* Copies the logits and looks at each. */
static enum tern_status take_logits(struct sampler *s, const struct tern_head_row *row, struct tern_err *err)
{
    const uint32_t n = row->logits ? s->n_vocab : row->n;
    const float *values = row->logits ? row->logits : row->values;

    for (uint32_t i = 0; i < n; i++)
        if (!(values[i] < INFINITY))
            return TERN_FAIL(err, TERN_ERR_NUMERIC,
                             "the logit of token %u is not finite; the model file is damaged",
                             row->logits ? (unsigned)i : (unsigned)row->ids[i]);
    if (row->logits)
        memcpy(s->logits, values, n * sizeof *values);
    for (uint32_t i = 0; !row->logits && i < n; i++)
        s->logits[row->ids[i]] = values[i];
    return TERN_OK;
}

/* The possible ones among the tokens that are there, in order of id, to heap[]; returns the best, or -1. */
static int32_t list_possible(struct sampler *s, const struct tern_head_row *row)
{
    const uint32_t n = row->logits ? s->n_vocab : row->n;
    int32_t best = -1;

    s->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = row->logits ? (int32_t)i : row->ids[i];

        if (!(s->logits[id] > -INFINITY))
            continue;
        s->heap[s->n_heap++] = id;
        if (best < 0 || s->logits[id] > s->logits[best])
            best = id;
    }
    return best;
}

enum tern_status sampler_pick(struct sampler *s, const struct tern_head_row *row, const int32_t *history,
                              uint32_t n_history, int32_t *id, struct tern_err *err)
{
    const struct sample_options *o = &s->o;
    enum tern_status st = take_logits(s, row, err);
    int32_t best;

    if (st) {
        s->allowed = NULL;
        return st;
    }
    for (uint32_t i = 0; i < o->n_bias; i++)
        s->logits[o->bias[i].id] += o->bias[i].value;
    penalize(s, history, n_history);
    apply_mask(s, row);
    best = list_possible(s, row);
    if (best < 0 || !(s->logits[best] < INFINITY))
        return TERN_FAIL(err, TERN_ERR_NUMERIC, "no token can be drawn: bias, penalties and grammar leave %s",
                         best < 0 ? "none" : "infinite logits");
    if (o->temperature <= 0) {
        s->n_top = 0;
        *id = best;
        return TERN_OK;
    }
    if (o->top_k == 0 && o->top_p >= 1.0 && o->min_p <= 0) {
        keep_all(s);
    } else {
        heap_build(s);
        filter(s, s->logits[best], row->logits != NULL);
    }
    *id = draw(s, s->logits[best]);
    return TERN_OK;
}
