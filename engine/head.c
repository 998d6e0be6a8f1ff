/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the rows of the head that matter.
 *
 * The bound.  Row r of the head is w = s q + e, with int8 codes q, a scale s and an error e; x is t p + d,
 * with int16 codes p, a step t and an error d.  Let u = 2^-24 and k = n_embd.
 *
 *   <w, x> = s t <q, p> + s <q, d> + <e, x>, so by Cauchy-Schwarz
 *   |<w, x> - s t <q, p>| <= ||s q|| ||d|| + ||e|| ||x||.
 *
 * <q, p> is an exact integer.  The full head's logit L is `matvec`'s: each product passes one rounding in
 * each later step of its lane and in the folds, at most m = ceil(k / 16) + 4 factors (1 + δ), |δ| <= u, so
 * |L - <w, x>| <= m u / (1 - m u) * Σ|w_i x_i| <= 1.004 m u ||w|| ||x|| for all legal k.  The approximation
 * a = (float)<q, p> * (s * t) is rounded three times, and a +- b once more, b being the bound: at most
 * 5 u (||s q|| (||x|| + ||d||) + b) in all.  With error[r] >= ||e|| and norm[r] >= ||w||, ||s q||:
 *
 *   |L - a| <= error[r] ||x|| + norm[r] (||d|| + (m + 20) 1.004 u (||x|| + ||d||)) = b,
 *
 * where the two factors of x are computed in double and made larger by 2^-18, more than b's own roundings.
 * Results below the range of normal floats lose at most 2^-150 each, k of them in L, one times 2^31 in a:
 * TINY is more.  Nothing overflows while norm[r] (||x|| + ||d||) < 1e37, and no inf or NaN enters; otherwise
 * all logits are computed.
 *
 * So the k-th largest a - b outside the forced tokens is below their k-th best logit, the k rows that have it
 * are computed, the least of them is a better threshold T of the same kind, and every other row with a + b <
 * T is excluded.  Rows with a + b = T stay: ties go by id.
 *
 * STATISTICAL takes e and d for random: their products with x and q have deviations ||e|| ||x|| / √k and
 * ||s q|| ||d|| / √k, and SIGMAS of those stand where the norms stood.  No weight is clipped, so the errors
 * of a row are about uniform, and a weighted sum of uniform numbers passes z of its deviations with a
 * probability of at most exp(-z^2 / 2) whatever the weights are: an x of few large values does no harm.
 */
#include "engine/head.h"

#include "engine/forward.h"
#include "engine/head_impl.h"

#include <math.h>
#include <string.h>

#define TINY        1e-35f
#define SIGMAS      6.0 /* a sum of many is larger with a probability of 1e-9, any with one of 1.5e-8 */
#define ROWS_SERIAL 48  /* rows of the head that one thread computes sooner than it wakes another */
#define MIN_BYTES   ((size_t)128 << 10)

/* -- the bound ------------------------------------------------------------------------------------------- */

struct sums {
    double xx, dd; /* squared norms of x and of what its codes lose */
};

/* False when x is not finite or has no scale.  s comes in as zeros. */
static bool quantize16(const struct tern_head *h, const float *x, int16_t *p, float *step, struct sums *s)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to nearest even */
    float most = 0, inv;

    for (size_t i = 0; i < h->n_embd; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    *step = most / (float)h->levels;
    if (!(*step > 1e-30f))
        return false;
    inv = 1.0f / *step;
    for (size_t i = 0; i < h->n_embd; i++) {
        float c = (x[i] * inv + magic) - magic; /* |x * inv| < levels + 1/2 */
        double d = (double)x[i] - (double)c * (double)*step;

        p[i] = (int16_t)c;
        s->xx += (double)x[i] * (double)x[i];
        s->dd += d * d;
    }
    memset(p + h->n_embd, 0, (h->k_pad - h->n_embd) * sizeof *p);
    return true;
}

static bool quantize8(const struct tern_head *h, const float *x, int8_t *p, int32_t *sum, float *step,
                      struct sums *s)
{
    const float inv = h->m->kern->quantize(x, h->n_embd, h->k_pad, p, sum);

    if (inv == 0.0f)
        return false;
    *step = 1.0f / inv;
    for (size_t i = 0; i < h->n_embd; i++) {
        double d = (double)x[i] - (double)p[i] * (double)*step;

        s->xx += (double)x[i] * (double)x[i];
        s->dd += d * d;
    }
    return true;
}

/* Codes and bound of one row of x; false when it cannot be screened. */
static bool prepare(struct tern_head *h, const float *x, struct tern_head_query *q)
{
    const double k = (double)h->n_embd, u = 0x1p-24, up = 1.0 + 0x1p-18;
    const size_t at = (size_t)(q - h->queries);
    const bool rigorous = h->mode == TERN_HEAD_SCREENED;
    struct sums s = { 0, 0 };
    double norm, lost, share;

    if (!h->m->kern->all_finite(x, h->n_embd))
        return false;
    if (rigorous ? !quantize16(h, x, h->x16 + at * h->k_pad, &q->step, &s)
                 : !quantize8(h, x, (int8_t *)h->x16 + at * h->k_pad, &h->sums[at], &q->step, &s))
        return false;
    norm = sqrt(s.xx) * (1.0 + 1e-9);
    lost = sqrt(s.dd) * (1.0 + 1e-9);
    share = rigorous ? 1.0 : SIGMAS / sqrt(k);
    if (!((double)h->norm_max * (norm + lost) < 1e37))
        return false;
    q->by_error = (float)(share * norm * up);
    q->by_norm = (float)((share * lost + (ceil(k / 16) + 24) * 1.004 * u * (norm + lost)) * up);
    return true;
}

/* The bound of one row. */
static float bound(const struct tern_head *h, const struct tern_head_query *q, size_t r)
{
    return h->error[r] * q->by_error + h->norm[r] * q->by_norm + TINY;
}

/* -- approximate logits ---------------------------------------------------------------------------------- */

#define LANES 8

/* Logits of rows [r, r + n) from their exact products, and the largest bounds among them. */
static void approximate(const struct tern_head *h, struct tern_head_query *q, size_t r, size_t n,
                        const int32_t *dots)
{
    const float *scale = h->scale + r, *error = h->error + r, *norm = h->norm + r;
    const float step = q->step, by_error = q->by_error, by_norm = q->by_norm;
    float upper[LANES], lower[LANES], *approx = q->approx + r;

    for (size_t l = 0; l < LANES; l++)
        upper[l] = lower[l] = -INFINITY;
    for (size_t i = 0; i < n; i += LANES) {
        const size_t m = n - i < LANES ? n - i : LANES;

        for (size_t l = 0; l < m; l++) {
            float a = (float)dots[i + l] * (scale[i + l] * step);
            float b = error[i + l] * by_error + norm[i + l] * by_norm + TINY;

            approx[i + l] = a;
            upper[l] = a + b > upper[l] ? a + b : upper[l];
            lower[l] = a - b > lower[l] ? a - b : lower[l];
        }
    }
    for (size_t l = 1; l < LANES; l++) {
        upper[0] = upper[l] > upper[0] ? upper[l] : upper[0];
        lower[0] = lower[l] > lower[0] ? lower[l] : lower[0];
    }
    q->upper[r / TERN_HEAD_BLOCK] = upper[0];
    q->lower[r / TERN_HEAD_BLOCK] = lower[0];
}

static void screen_blocks(void *arg, size_t first, size_t last, unsigned thread)
{
    struct tern_head *h = arg;
    struct tern_screen s = { .w = h->codes,
                             .k_pad = h->k_pad,
                             .x = h->x16,
                             .x8 = (const int8_t *)h->x16,
                             .x_sum = h->sums,
                             .n_x = h->n_queries,
                             .y = h->dots + (size_t)thread * h->max_rows * TERN_HEAD_BLOCK,
                             .y_stride = TERN_HEAD_BLOCK };

    for (size_t b = first; b < last; b++) {
        size_t r = b * TERN_HEAD_BLOCK,
               n = h->n_vocab - r < TERN_HEAD_BLOCK ? h->n_vocab - r : TERN_HEAD_BLOCK;

        if (h->mode == TERN_HEAD_STATISTICAL)
            h->m->kern->screen4(&s, r, r + n);
        else
            h->m->kern->screen(&s, r, r + n);
        for (uint32_t i = 0; i < h->n_queries; i++)
            approximate(h, &h->queries[i], r, n, s.y + (size_t)i * TERN_HEAD_BLOCK);
    }
}

/* -- exact logits ---------------------------------------------------------------------------------------- */

struct exact {
    const struct tern_head *h;
    const float *x;
};

static void compute_items(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct exact *e = arg;
    const struct tern_head *h = e->h;
    const struct tern_tensor *t = h->m->head;
    const size_t row_bytes = t->bytes / h->n_vocab;

    (void)thread;
    for (size_t i = first; i < last; i++) {
        const struct tern_head_item *item = &h->items[i];
        const struct tern_matvec mv = { .w = t->data + (size_t)item->id * row_bytes,
                                        .row_bytes = row_bytes,
                                        .type = (enum tern_dtype)t->type,
                                        .k = h->n_embd,
                                        .x = e->x + item->row * h->n_embd,
                                        .x_stride = h->n_embd,
                                        .n_x = 1,
                                        .y = item->to,
                                        .y_stride = 1 };

        h->m->kern->matvec(&mv, 0, 1);
    }
}

/* The first n items. */
static void compute(struct tern_head *h, const float *x, size_t n)
{
    struct exact e = { h, x };

    h->stats.recomputed += n;
    if (n <= ROWS_SERIAL)
        compute_items(&e, 0, n, 0);
    else
        tern_pool_run(h->pool, compute_items, &e, n, 16);
}

/* -- candidates ------------------------------------------------------------------------------------------ */

/* Puts v in the place of the least of a heap whose top is the least. */
static void replace_least(float *heap, int32_t *ids, uint32_t n, float v, int32_t id)
{
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (!(heap[child] < v))
            break;
        heap[i] = heap[child];
        ids[i] = ids[child];
        i = child;
    }
    heap[i] = v;
    ids[i] = id;
}

static void mark(struct tern_head *h, const struct tern_head_want *w, uint8_t value)
{
    for (uint32_t i = 0; i < w->n_forced; i++)
        h->forced[w->forced[i]] = value;
}

/* The k rows outside the forced ones whose lower bounds are the largest, to h->heap_ids. */
static void find_best(struct tern_head *h, const struct tern_head_query *q, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++) {
        h->heap[i] = -INFINITY;
        h->heap_ids[i] = -1;
    }
    for (size_t b = 0; b < h->n_blocks; b++) {
        const size_t first = b * TERN_HEAD_BLOCK,
                     last = h->n_vocab - first < TERN_HEAD_BLOCK ? h->n_vocab : first + TERN_HEAD_BLOCK;

        if (!(q->lower[b] > h->heap[0]))
            continue;
        for (size_t r = first; r < last; r++) {
            float low = q->approx[r] - bound(h, q, r);

            if (low > h->heap[0] && !h->forced[r])
                replace_least(h->heap, h->heap_ids, k, low, (int32_t)r);
        }
    }
}

/* Every row that may be among the k best, in ascending order, the forced ones with them. */
static void find_candidates(struct tern_head *h, struct tern_head_query *q)
{
    q->n = 0;
    for (size_t b = 0; b < h->n_blocks; b++) {
        const size_t first = b * TERN_HEAD_BLOCK,
                     last = h->n_vocab - first < TERN_HEAD_BLOCK ? h->n_vocab : first + TERN_HEAD_BLOCK;

        if (!(q->upper[b] >= q->threshold))
            continue;
        for (size_t r = first; r < last; r++) {
            if (!h->forced[r] && !(q->approx[r] + bound(h, q, r) >= q->threshold))
                continue;
            if (q->n == h->cap) {
                q->lost = true;
                return;
            }
            q->ids[q->n++] = (int32_t)r;
        }
    }
}

/* Logits of the k rows found by find_best for each query give the thresholds. */
static void find_thresholds(struct tern_head *h, const float *x, const struct tern_head_want *want)
{
    size_t n = 0;

    for (uint32_t i = 0; i < h->n_queries; i++) {
        struct tern_head_query *q = &h->queries[i];
        const struct tern_head_want *w = &want[q->row];

        mark(h, w, 1);
        find_best(h, q, w->k);
        mark(h, w, 0);
        for (uint32_t j = 0; j < w->k; j++, n++)
            h->items[n] = (struct tern_head_item){ q->row, h->heap_ids[j], &q->values[j] };
    }
    compute(h, x, n);
    for (uint32_t i = 0; i < h->n_queries; i++) {
        struct tern_head_query *q = &h->queries[i];

        q->threshold = q->values[0];
        for (uint32_t j = 1; j < want[q->row].k; j++)
            q->threshold = q->values[j] < q->threshold ? q->values[j] : q->threshold;
    }
}

static void find_all(struct tern_head *h, const float *x, const struct tern_head_want *want)
{
    size_t n = 0;

    for (uint32_t i = 0; i < h->n_queries; i++) {
        struct tern_head_query *q = &h->queries[i];

        q->lost = false;
        mark(h, &want[q->row], 1);
        for (uint32_t j = 0; j < want[q->row].n_forced; j++)
            q->upper[want[q->row].forced[j] / TERN_HEAD_BLOCK] = INFINITY; /* to be looked into */
        find_candidates(h, q);
        mark(h, &want[q->row], 0);
        for (uint32_t j = 0; j < q->n && !q->lost; j++)
            h->items[n++] = (struct tern_head_item){ q->row, q->ids[j], &q->values[j] };
    }
    compute(h, x, n);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

/* All logits of rows [i, i + n). */
static void run_full(struct tern_head *h, const float *x, uint32_t i, uint32_t n, struct tern_head_row *out)
{
    tern_forward_logits(h->m, h->pool, x + i * h->n_embd, n, h->logits + (size_t)i * h->n_vocab);
    for (uint32_t j = i; j < i + n; j++)
        out[j] = (struct tern_head_row){ .logits = h->logits + (size_t)j * h->n_vocab };
}

/* Makes a query of row i; false when it needs all logits. */
static bool add_query(struct tern_head *h, const float *x, uint32_t i, const struct tern_head_want *w)
{
    struct tern_head_query *q = &h->queries[h->n_queries];

    if (h->mode == TERN_HEAD_FULL || w->full) {
        h->stats.full++;
        return false;
    }
    /* Half the room is for what the bound cannot exclude. */
    if (!h->sound || w->k == 0 || (uint64_t)w->k + w->n_forced > h->cap / 2 ||
        !prepare(h, x + i * h->n_embd, q)) {
        h->stats.fallback++;
        return false;
    }
    q->row = i;
    q->approx = h->logits + (size_t)i * h->n_vocab;
    h->n_queries++;
    return true;
}

void tern_head_run(struct tern_head *h, float *x, uint32_t n, const struct tern_head_want *want,
                   struct tern_head_row *out)
{
    const size_t block_bytes = TERN_HEAD_BLOCK * h->k_pad;

    h->n_queries = 0;
    h->stats.rows += n;
    tern_forward_norm(h->m, x, n);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (struct tern_head_row){ .n = add_query(h, x, i, &want[i]) };
    if (h->n_queries) {
        tern_pool_run(h->pool, screen_blocks, h, h->n_blocks, MIN_BYTES / block_bytes + 1);
        find_thresholds(h, x, want);
        find_all(h, x, want);
    }
    for (uint32_t i = 0; i < h->n_queries; i++) {
        const struct tern_head_query *q = &h->queries[i];

        if (q->lost) {
            h->stats.fallback++;
            out[q->row].n = 0;
            continue;
        }
        h->stats.screened++;
        out[q->row] = (struct tern_head_row){ NULL, q->ids, q->values, q->n };
    }
    for (uint32_t i = 0, end; i < n; i = end + 1) { /* neighbours share the reading of the head */
        for (end = i; end < n && out[end].n == 0; end++)
            continue;
        if (end > i)
            run_full(h, x, i, end - i, out);
    }
}
