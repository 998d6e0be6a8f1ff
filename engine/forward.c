/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer after the other, each a handful of passes over rows or over tiles of a matrix.
 *
 * A pass over rows does for one row at a time what needs the whole row (norm, quantise, RoPE, residual); a
 * pass over tiles is a ternary matrix times all rows.  The pool runs both; nothing here depends on how it
 * shares them.  Rows whose sequence is dead take no part: the live ones are gathered at the start of each
 * layer.
 */
#include "engine/forward_pass.h"

#include "engine/base/mem.h"
#include "kernels/exact_math.h"

#include <string.h>

/* Up to so many rows the FFN is bound by reading, and two threads read faster from two matrices than from
 * two halves of both; more rows are gated while their tiles' outputs are in the cache. */
#define FEW_ROWS 4

static void mark_dead(const struct pass *p, size_t i)
{
    struct tern_row *r = &p->rows[p->s->live[i]];

    if (!r->dead)
        r->dead = p->m->first + p->i_layer + 1;
}

/* Row i of x, normed and quantised into the codes of row i. */
static void norm_quantize(const struct pass *p, size_t i, const float *x, const float *w, size_t n,
                          unsigned thread)
{
    struct tern_scratch *s = p->s;
    float *normed = s->normed + thread * tern_round_up(s->wide, 16);

    p->kern->rmsnorm(x, w, n, p->m->arch.rms_eps, normed);
    s->act_scale[i] =
        p->kern->quantize(normed, n, tern_pack_codes(n), s->codes + i * s->code_stride, &s->act_sum[i]);
    if (s->act_scale[i] == 0.0f) { /* not finite: compute on zeros, for nobody */
        s->act_scale[i] = 1.0f;
        mark_dead(p, i);
    }
}

/* -- passes over rows ------------------------------------------------------------------------------------ */

static void pass_attn_in(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = p->m->arch.n_embd;

    for (size_t i = first; i < last; i++)
        norm_quantize(p, i, p->x + p->s->live[i] * n, p->layer->attn_norm, n, thread);
}

/* RoPE on q and k of a row; k and v go to the cache. */
static void pass_rope_store(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    const struct tern_arch *a = &p->m->arch;
    struct tern_scratch *s = p->s;
    size_t hd = a->head_dim, q_dim = a->n_heads * hd, kv_dim = a->n_kv_heads * hd;

    (void)thread;
    for (size_t i = first; i < last; i++) {
        const struct tern_row *r = &p->rows[s->live[i]];
        uint32_t page = r->pages[r->pos / TERN_PAGE];
        uint32_t at = r->pos % TERN_PAGE;

        for (uint32_t h = 0; h < a->n_heads; h++)
            p->kern->rope_neox(s->q + i * q_dim + h * hd, s->cos_sin + i * hd, hd);
        for (uint32_t h = 0; h < a->n_kv_heads; h++) {
            float *k = s->k + i * kv_dim + h * hd;

            p->kern->rope_neox(k, s->cos_sin + i * hd, hd);
            tern_kv_put(p->kv, p->kern, tern_kv_k(p->kv, page, p->i_layer, h), at, k);
            tern_kv_put(p->kv, p->kern, tern_kv_v(p->kv, page, p->i_layer, h), at,
                        s->v + i * kv_dim + h * hd);
        }
    }
}

static void pass_attn_out(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = (size_t)p->m->arch.n_heads * p->m->arch.head_dim;

    for (size_t i = first; i < last; i++)
        norm_quantize(p, i, p->s->att + i * n, p->layer->attn_sub_norm, n, thread);
}

static void pass_ffn_in(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = p->m->arch.n_embd;

    for (size_t i = first; i < last; i++) {
        float *x = p->x + p->s->live[i] * n;

        p->kern->add(x, p->s->o + i * n, n);
        norm_quantize(p, i, x, p->layer->ffn_norm, n, thread);
    }
}

static void pass_ffn_out(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = p->m->arch.n_ffn;

    for (size_t i = first; i < last; i++) {
        float *gate = p->s->gate + i * n;

        if (p->n_live <= FEW_ROWS)
            p->kern->relu2_gate(gate, p->s->up + i * n, n, gate);
        norm_quantize(p, i, gate, p->layer->ffn_sub_norm, n, thread);
    }
}

/* The end of a layer: residual, and the rounding at its boundary. */
static void pass_boundary(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = p->m->arch.n_embd;

    for (size_t i = first; i < last; i++) {
        size_t row = p->s->live[i];
        float *x = p->x + row * n;
        uint8_t *enc = p->s->encoded + thread * p->s->encoded_stride;

        p->kern->add(x, p->s->o + i * n, n);
        if (!tern_boundary_round(p->boundary, p->kern, x, n, enc))
            mark_dead(p, i);
        else if (p->out && !p->rows[row].dead)
            memcpy(p->out + row * p->row_bytes, enc, p->row_bytes);
    }
}

/* -- passes over tiles ----------------------------------------------------------------------------------- */

/* Up to three matrices with the same input, their tiles counted through. */
struct matrices {
    const struct tern_kernels *kern;
    enum tern_tile_layout layout;
    unsigned n;
    struct tern_ternary t[3];
    size_t tiles[3];
};

static void add_matrix(struct matrices *ms, const struct pass *p, const struct tern_matrix *w, float *y)
{
    const struct tern_scratch *s = p->s;

    ms->kern = p->kern;
    ms->layout = p->m->layout;
    ms->tiles[ms->n] = tern_pack_tiles(w->m);
    ms->t[ms->n++] = (struct tern_ternary){ .tiles = w->tiles,
                                            .k_pad = w->k_pad,
                                            .m = w->m,
                                            .scale = w->scale,
                                            .q = s->codes,
                                            .q_stride = s->code_stride,
                                            .act_scale = s->act_scale,
                                            .act_sum = s->act_sum,
                                            .n_rows = p->n_live,
                                            .y = y,
                                            .y_stride = w->m };
}

static void pass_tiles(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct matrices *ms = arg;

    (void)thread;
    for (unsigned i = 0; i < ms->n && first < last; i++) {
        size_t n = ms->tiles[i], end = last < n ? last : n;

        if (first < end)
            ms->kern->ternary[ms->layout](&ms->t[i], first, end);
        first = first > n ? first - n : 0;
        last = last > n ? last - n : 0;
    }
}

/* The same tiles of gate and up, and what becomes of the two while they are in the cache: relu(gate)^2 * up,
 * in gate's place. */
static void pass_gate_up(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct matrices *ms = arg;
    const struct tern_ternary *gate = &ms->t[0], *up = &ms->t[1];

    (void)thread;
    for (size_t end; first < last; first = end) {
        size_t at = first * TERN_TILE_ROWS, n;

        end = last - first < GROUP_TILES ? last : first + GROUP_TILES;
        n = (end * TERN_TILE_ROWS < gate->m ? end * TERN_TILE_ROWS : gate->m) - at;
        ms->kern->ternary[ms->layout](gate, first, end);
        ms->kern->ternary[ms->layout](up, first, end);
        for (size_t i = 0; i < gate->n_rows; i++) {
            float *g = gate->y + i * gate->y_stride + at;

            ms->kern->relu2_gate(g, up->y + i * up->y_stride + at, n, g);
        }
    }
}

static void run_tiles(const struct pass *p, struct matrices *ms, tern_pool_fn *fn, size_t n)
{
    size_t group = GROUP_TILES * tern_pack_tile_bytes(ms->layout, ms->t[0].k_pad) * p->n_live;

    tern_pool_run(p->pool, fn, ms, n, GROUP_TILES * (MIN_PIECE / group + 1));
}

static void run_matrices(const struct pass *p, struct matrices *ms)
{
    size_t total = 0;

    for (unsigned i = 0; i < ms->n; i++)
        total += ms->tiles[i];
    run_tiles(p, ms, pass_tiles, total);
}

/* cost: of one unit, in elements touched. */
static void run_rows(struct pass *p, tern_pool_fn *fn, size_t per_row, size_t cost)
{
    tern_pool_run(p->pool, fn, p, p->n_live * per_row, MIN_PIECE / 16 / cost + 1);
}

/* -- the walk -------------------------------------------------------------------------------------------- */

static void layer_forward(struct pass *p)
{
    const struct tern_arch *a = &p->m->arch;
    const struct tern_layer *l = p->layer;
    struct tern_scratch *s = p->s;
    struct matrices ms;
    size_t q_dim = (size_t)a->n_heads * a->head_dim;

    run_rows(p, pass_attn_in, 1, a->n_embd);
    ms.n = 0;
    add_matrix(&ms, p, &l->q, s->q);
    add_matrix(&ms, p, &l->k, s->k);
    add_matrix(&ms, p, &l->v, s->v);
    run_matrices(p, &ms);
    run_rows(p, pass_rope_store, 1, q_dim);
    tern_pass_attention(p);
    run_rows(p, pass_attn_out, 1, q_dim);
    ms.n = 0;
    add_matrix(&ms, p, &l->o, s->o);
    run_matrices(p, &ms);

    run_rows(p, pass_ffn_in, 1, a->n_embd);
    ms.n = 0;
    add_matrix(&ms, p, &l->gate, s->gate);
    add_matrix(&ms, p, &l->up, s->up);
    if (p->n_live <= FEW_ROWS)
        run_matrices(p, &ms);
    else
        run_tiles(p, &ms, pass_gate_up, ms.tiles[0]);
    run_rows(p, pass_ffn_out, 1, a->n_ffn);
    ms.n = 0;
    add_matrix(&ms, p, &l->down, s->o);
    run_matrices(p, &ms);
    run_rows(p, pass_boundary, 1, a->n_embd);
}

/* A dead row takes the later rows of its sequence with it: they have read its K and V. */
static void spread_death(struct tern_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].dead)
            for (size_t j = i + 1; j < n; j++)
                if (rows[j].pages == rows[i].pages && !rows[j].dead)
                    rows[j].dead = rows[i].dead;
}

static size_t gather_live(struct tern_scratch *s, const struct tern_row *rows, size_t n)
{
    size_t n_live = 0;

    for (size_t i = 0; i < n; i++)
        if (!rows[i].dead)
            s->live[n_live++] = i;
    return n_live;
}

/* Angle of pair j at position p: p * theta^(-2j/head_dim), in double; the table is f32. */
static void fill_cos_sin(struct tern_scratch *s, const struct tern_row *rows, size_t n_live)
{
    size_t half = s->arch.head_dim / 2;

    for (size_t j = 0; j < half; j++) {
        double freq = tern_pow(s->arch.rope_theta, -2.0 * (double)j / (double)s->arch.head_dim);

        for (size_t i = 0; i < n_live; i++) {
            float *cs = s->cos_sin + i * 2 * half;
            double sn, cn;

            tern_sincos((double)rows[s->live[i]].pos * freq, &sn, &cn);
            cs[j] = (float)cn;
            cs[half + j] = (float)sn;
        }
    }
}

void tern_forward_layers(const struct tern_model *m, struct tern_pool *pool, struct tern_scratch *s,
                         struct tern_kv_store *kv, enum tern_boundary boundary, struct tern_row *rows,
                         size_t n, float *x, uint8_t *out)
{
    struct pass p = { .m = m,
                      .kern = m->kern,
                      .s = s,
                      .kv = kv,
                      .pool = pool,
                      .boundary = boundary,
                      .rows = rows,
                      .x = x,
                      .row_bytes = tern_boundary_row_bytes(boundary, m->arch.n_embd) };
    uint32_t n_layers = m->last - m->first;

    TERN_BUG_IF(n > s->max_rows || tern_pool_threads(pool) > s->n_threads);
    spread_death(rows, n);
    tern_pool_hold(pool);
    for (uint32_t l = 0; l < n_layers; l++) {
        size_t n_live = gather_live(s, rows, n);

        if (n_live == 0)
            break;
        if (n_live != p.n_live) { /* the first layer, or after a death */
            fill_cos_sin(s, rows, n_live);
            p.n_pos = 0;
            for (size_t i = 0; i < n_live; i++)
                p.n_pos = rows[s->live[i]].pos >= p.n_pos ? rows[s->live[i]].pos + 1u : p.n_pos;
        }
        p.n_live = n_live;
        p.layer = &m->layers[l];
        p.i_layer = l;
        p.out = l + 1 == n_layers ? out : NULL;
        layer_forward(&p);
        spread_death(rows, n);
    }
    tern_pool_release(pool);
}
