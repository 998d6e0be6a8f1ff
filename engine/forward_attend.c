/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of all live rows over their pages, as forward.h defines it: pages folded within spans, spans
 * folded into the whole.
 *
 * A unit of work is a block of rows and one KV head.  Rows of one sequence at consecutive positions of one
 * page make a block, since they see the same pages but for the last, and with a window but for the first
 * two.  A block's rows begin in the same span: the state of that span is the whole.  Where units would be
 * too few or too unequal for the threads, blocks get fewer rows, down to one; and where one row is still
 * too much, each of its spans is a unit, and the spans are folded together afterwards.
 */
#include "engine/forward_pass.h"

#include <math.h>
#include <string.h>

/* Each thread shall find this many units, so that what is left over at the end is an eighth at most. */
#define UNITS_A_THREAD 8

/* -- states ---------------------------------------------------------------------------------------------- */

/* The running state of the rows of a block for one KV head, as in struct tern_attend. */
struct state {
    float *max, *sum, *acc;
    size_t acc_stride;
};

/* Where the whole of a block ends up: acc in place in s->att. */
static struct state whole_of(const struct pass *p, const struct attend_block *b, size_t head)
{
    const struct tern_arch *a = &p->m->arch;
    struct tern_scratch *s = p->s;
    size_t group = a->n_heads / a->n_kv_heads, at = (head * s->max_rows + b->first) * group;

    return (struct state){ s->att_max + at, s->att_sum + at,
                           s->att + (b->first * a->n_heads + head * group) * a->head_dim,
                           (size_t)a->n_heads * a->head_dim };
}

/* A state of n rows in memory of its own. */
static struct state state_at(const struct pass *p, float *memory, size_t n)
{
    const struct tern_arch *a = &p->m->arch;
    size_t group = a->n_heads / a->n_kv_heads;

    return (struct state){ memory, memory + n * group, memory + 2 * n * group, group * a->head_dim };
}

static void clear_state(const struct pass *p, struct state st, size_t n_rows)
{
    const struct tern_arch *a = &p->m->arch;
    size_t group = a->n_heads / a->n_kv_heads;

    for (size_t i = 0; i < n_rows * group; i++) {
        st.max[i] = -INFINITY;
        st.sum[i] = 0.0f;
    }
    for (size_t r = 0; r < n_rows; r++)
        memset(st.acc + r * st.acc_stride, 0, group * a->head_dim * sizeof(float));
}

static void merge_states(const struct pass *p, struct state span, struct state whole, size_t n_rows)
{
    const struct tern_arch *a = &p->m->arch;
    size_t group = a->n_heads / a->n_kv_heads;

    for (size_t r = 0; r < n_rows; r++)
        p->kern->attend_merge(group, a->head_dim, span.max + r * group, span.sum + r * group,
                              span.acc + r * span.acc_stride, whole.max + r * group, whole.sum + r * group,
                              whole.acc + r * whole.acc_stride);
}

static void finish_state(const struct pass *p, struct state st, size_t n_rows)
{
    const struct tern_arch *a = &p->m->arch;
    size_t hd = a->head_dim, group = a->n_heads / a->n_kv_heads;

    for (size_t i = 0; i < n_rows * group; i++) {
        float *acc = st.acc + i / group * st.acc_stride + i % group * hd;

        p->kern->attend_finish(acc, st.sum[i], hd, acc);
    }
}

/* -- spans ----------------------------------------------------------------------------------------------- */

/* The first position a row sees. */
static uint32_t first_seen(const struct pass *p, const struct tern_row *r)
{
    return p->window && r->pos >= p->window ? r->pos - p->window + 1 : 0;
}

/* How many. */
static size_t n_seen(const struct pass *p, const struct tern_row *r)
{
    return r->pos - first_seen(p, r) + (size_t)1;
}

static void set_page(const struct pass *p, struct tern_attend *t, const struct tern_row *r, size_t page,
                     uint32_t head)
{
    uint32_t here = r->pages[page];
    uint8_t *k = tern_kv_k(p->kv, here, p->i_layer, head), *v = tern_kv_v(p->kv, here, p->i_layer, head);

    t->k = k;
    t->v = v;
    t->k_scale = tern_kv_scales(p->kv, k);
    t->v_scale = tern_kv_scales(p->kv, v);
    t->next_k = page < r->pos / TERN_PAGE ? tern_kv_k(p->kv, r->pages[page + 1], p->i_layer, head) : NULL;
}

/* Positions [from, to) of the page that t has. */
static void set_part(struct tern_attend *t, size_t from, size_t to)
{
    size_t bytes = from * t->head_dim * (t->type == TERN_KV_INT8 ? sizeof(int8_t) : sizeof(uint16_t));

    t->k = (const uint8_t *)t->k + bytes;
    t->v = (const uint8_t *)t->v + bytes;
    if (t->type == TERN_KV_INT8) {
        t->k_scale += from;
        t->v_scale += from;
    }
    t->n_pos = to - from;
}

/* A page that rows of a block see different parts of: the last, and the first ones of a window. */
static void fold_edge(const struct pass *p, const struct attend_block *b, size_t page,
                      const struct tern_attend *whole)
{
    for (size_t r = 0; r < b->n_rows; r++) {
        const struct tern_row *row = &p->rows[p->s->live[b->first + r]];
        size_t begin = page * TERN_PAGE, first = first_seen(p, row), end = begin + TERN_PAGE;
        struct tern_attend t = *whole;

        first = first > begin ? first : begin;
        end = row->pos < end ? row->pos + 1u : end;
        if (first >= end)
            continue;
        t.n_rows = 1;
        t.q += r * t.q_stride;
        t.max += r * t.n_heads;
        t.sum += r * t.n_heads;
        t.acc += r * t.acc_stride;
        set_part(&t, first - begin, end - begin);
        p->kern->attend(&t);
    }
}

/* The pages of one span, folded from a fresh state. */
static void fold_span(const struct pass *p, const struct attend_block *b, size_t head, size_t span,
                      struct state st)
{
    const struct tern_arch *a = &p->m->arch;
    size_t hd = a->head_dim, group = a->n_heads / a->n_kv_heads;
    const struct tern_row *row = &p->rows[p->s->live[b->first]];
    size_t page = span * TERN_SPAN_PAGES, end = page + TERN_SPAN_PAGES, last = row->pos / TERN_PAGE;
    size_t first = first_seen(p, row); /* that any row sees; and that all see: */
    size_t all = first_seen(p, &p->rows[p->s->live[b->first + b->n_rows - 1]]);
    struct tern_attend t = { .q = p->s->q + (b->first * a->n_heads + head * group) * hd,
                             .q_stride = (size_t)a->n_heads * hd,
                             .type = p->kv->type,
                             .n_rows = b->n_rows,
                             .n_heads = group,
                             .head_dim = hd,
                             .n_pos = TERN_PAGE,
                             .score_scale = 1.0f / sqrtf((float)hd),
                             .max = st.max,
                             .sum = st.sum,
                             .acc = st.acc,
                             .acc_stride = st.acc_stride };

    clear_state(p, st, b->n_rows);
    for (page = first / TERN_PAGE > page ? first / TERN_PAGE : page; page < end && page <= last; page++) {
        set_page(p, &t, row, page, (uint32_t)head);
        if (page < last && all <= page * TERN_PAGE)
            p->kern->attend(&t);
        else
            fold_edge(p, b, page, &t);
    }
}

/* -- units ----------------------------------------------------------------------------------------------- */

/* One run over the units: all blocks, or of those that are split some spans. */
struct turn {
    const struct pass *p;
    size_t n_blocks;
    size_t span, n_spans; /* of split blocks: [span, span + n_spans) of their own */
};

/* Spans of a block that are units of their own in this turn; 0: it takes no part, or is not split. */
static size_t split_spans(const struct turn *t, const struct attend_block *b)
{
    size_t n = b->split ? b->n_spans : 0;

    if (n <= t->span)
        return 0;
    return n - t->span < t->n_spans ? n - t->span : t->n_spans;
}

static size_t units_of(const struct turn *t, const struct attend_block *b)
{
    size_t a_head = b->split ? split_spans(t, b) : t->span == 0;

    return a_head * t->p->m->arch.n_kv_heads;
}

/* Memory for the state of one of a split block's spans. */
static struct state split_state(const struct turn *t, const struct attend_block *b, size_t head, size_t span)
{
    size_t n = split_spans(t, b);

    return state_at(
        t->p, t->p->s->split + (b->split_first + head * n + (span - t->span)) * t->p->s->split_stride, 1);
}

static void whole_unit(const struct pass *p, const struct attend_block *b, size_t head, unsigned thread)
{
    struct state whole = whole_of(p, b, head);
    struct state st = state_at(p, p->s->span + thread * p->s->span_stride, b->n_rows);

    fold_span(p, b, head, b->span, whole);
    for (size_t i = 1; i < b->n_spans; i++) {
        fold_span(p, b, head, b->span + i, st);
        merge_states(p, st, whole, b->n_rows);
    }
    finish_state(p, whole, b->n_rows);
}

static void turn_units(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct turn *t = arg;
    const struct pass *p = t->p;
    const struct attend_block *b = p->s->blocks;

    for (size_t unit = first; unit < last; unit++) {
        size_t i, n;

        while (unit - b->unit >= units_of(t, b)) /* units of a block follow those of the one before */
            b++;
        i = unit - b->unit;
        n = split_spans(t, b);
        if (n == 0)
            whole_unit(p, b, i, thread);
        else if (t->span + i % n == 0)
            fold_span(p, b, i / n, b->span, whole_of(p, b, i / n));
        else
            fold_span(p, b, i / n, b->span + t->span + i % n, split_state(t, b, i / n, t->span + i % n));
    }
}

/* Folds the spans of this turn into the wholes of split blocks, a unit for each block and KV head. */
static void merge_units(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct turn *t = arg;
    const struct pass *p = t->p;

    (void)thread;
    for (size_t unit = first; unit < last; unit++) {
        const struct attend_block *b = &p->s->blocks[unit / p->m->arch.n_kv_heads];
        size_t head = unit % p->m->arch.n_kv_heads, n = split_spans(t, b);
        struct state whole = whole_of(p, b, head);

        for (size_t span = t->span ? t->span : 1; span < t->span + n; span++)
            merge_states(p, split_state(t, b, head, span), whole, 1);
        if (n > 0 && t->span + n == b->n_spans)
            finish_state(p, whole, 1);
    }
}

/* -- the pass -------------------------------------------------------------------------------------------- */

/* Whether `next` may be row n of a block that begins with `first`. */
static bool follows(const struct pass *p, const struct tern_row *next, const struct tern_row *first, size_t n)
{
    return next->pages == first->pages && next->pos == first->pos + n && next->pos % TERN_PAGE != 0 &&
           first_seen(p, next) / TERN_SPAN == first_seen(p, first) / TERN_SPAN;
}

/* Cuts the live rows into blocks; returns their number.  *n_split: how many of them are split. */
static size_t make_blocks(const struct pass *p, size_t budget, size_t *n_split)
{
    const struct tern_scratch *s = p->s;
    size_t n = 0;

    *n_split = 0;
    for (size_t i = 0; i < p->n_live; n++) {
        struct attend_block *b = &s->blocks[n];
        const struct tern_row *r = &p->rows[s->live[i]];
        size_t most = budget / n_seen(p, r);

        *b = (struct attend_block){ .first = i, .span = first_seen(p, r) / TERN_SPAN };
        b->n_spans = r->pos / TERN_SPAN + 1 - b->span;
        b->split = most == 0 && b->n_spans > 1;
        *n_split += b->split;
        do {
            b->n_rows++;
            i++;
        } while (i < p->n_live && b->n_rows < most && b->n_rows < s->block_rows &&
                 follows(p, &p->rows[s->live[i]], r, b->n_rows));
    }
    return n;
}

void tern_pass_attention(struct pass *p)
{
    const struct tern_arch *a = &p->m->arch;
    unsigned threads = tern_pool_threads(p->pool);
    size_t total = 0, n_split, most_spans = 0, budget = SIZE_MAX;
    struct turn t = { .p = p };

    for (size_t i = 0; i < p->n_live; i++)
        total += n_seen(p, &p->rows[p->s->live[i]]) * a->n_kv_heads;
    if (threads > 1)
        budget = total / (threads * UNITS_A_THREAD);
    t.n_blocks = make_blocks(p, budget, &n_split);
    /* Fewer than threads * UNITS_A_THREAD units can be above the budget, so this is 8 at least. */
    t.n_spans = n_split ? p->s->n_split / (n_split * a->n_kv_heads) : 1;
    do {
        size_t n_units = 0, n_states = 0, cost = 2 * (size_t)a->head_dim * (a->n_heads / a->n_kv_heads);

        for (size_t i = 0; i < t.n_blocks; i++) {
            struct attend_block *b = &p->s->blocks[i];
            size_t spans = b->split ? b->n_spans : 0;

            b->unit = n_units;
            b->split_first = n_states;
            n_units += units_of(&t, b);
            n_states += split_spans(&t, b) * a->n_kv_heads;
            most_spans = spans > most_spans ? spans : most_spans;
        }
        cost *= t.span == 0 ? total / n_units : TERN_SPAN; /* of one unit, in elements */
        tern_pool_run(p->pool, turn_units, &t, n_units, MIN_PIECE / 8 / (cost + 1) + 1);
        if (n_split)
            tern_pool_run(p->pool, merge_units, &t, t.n_blocks * a->n_kv_heads, 1);
        t.span += t.n_spans;
    } while (t.span < most_spans);
}
