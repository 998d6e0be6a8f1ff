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

/* Row i of x, quantised into row i of an input. */
static void quantize_row(const struct pass *p, size_t input, size_t i, const float *x, size_t n)
{
    const struct tern_scratch *s = p->s;
    const struct codes *c = &s->in[input];

    c->act_scale[i] = p->kern->quantize(x, n, tern_pack_codes(n), c->q + i * s->code_stride, &c->act_sum[i]);
    if (c->act_scale[i] == 0.0f) { /* not finite: compute on zeros, for nobody */
        c->act_scale[i] = 1.0f;
        mark_dead(p, i);
    }
}

/* The same with a norm in between, where w is not NULL. */
static void norm_quantize(const struct pass *p, size_t i, const float *x, const float *w, size_t n,
                          unsigned thread)
{
    struct tern_scratch *s = p->s;
    float *normed = s->normed + thread * tern_round_up(s->wide, 16);

    if (w)
        p->kern->rmsnorm(x, w, n, p->m->arch.rms_eps, normed);
    quantize_row(p, 0, i, w ? normed : x, n);
}

/* Row i of x, normed, and once more for each matrix that has a norm of its own: in[0] == NULL for none. */
static void norm_inputs(const struct pass *p, size_t i, const float *x, const float *w,
                        const float *const in[MAX_INPUTS], unsigned thread)
{
    struct tern_scratch *s = p->s;
    size_t n = p->m->arch.n_embd;
    float *normed = s->normed + thread * tern_round_up(s->wide, 16), *again;

    if (!in[0]) {
        norm_quantize(p, i, x, w, n, thread);
        return;
    }
    again = s->renormed + thread * tern_round_up(n, 16);
    p->kern->rmsnorm(x, w, n, p->m->arch.rms_eps, normed);
    for (size_t j = 0; j < MAX_INPUTS && in[j]; j++) {
        p->kern->rmsnorm(normed, in[j], n, p->m->arch.rms_eps, again);
        quantize_row(p, j, i, again, n);
    }
}

/* What a branch has computed for row i, normed where w is not NULL, onto the residual stream. */
static void add_branch(const struct pass *p, size_t i, const float *w, float *x)
{
    size_t n = p->m->arch.n_embd;
    float *o = p->s->o + i * n;

    if (w)
        p->kern->rmsnorm(o, w, n, p->m->arch.rms_eps, o);
    p->kern->add(x, o, n);
}

/* -- passes over rows ------------------------------------------------------------------------------------ */

static void pass_attn_in(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    const struct tern_layer *l = p->layer;
    const float *const in[MAX_INPUTS] = { l->q_in, l->k_in, l->v_in };

    for (size_t i = first; i < last; i++)
        norm_inputs(p, i, p->x + p->s->live[i] * p->m->arch.n_embd, l->attn_norm, in, thread);
}

/* One head of q or k: its norm where w is not NULL, and RoPE. */
static void turn_head(const struct pass *p, size_t i, const float *w, float *h)
{
    size_t hd = p->m->arch.head_dim;

    if (w)
        p->kern->rmsnorm(h, w, hd, p->m->arch.rms_eps, h);
    p->rope(h, p->cos_sin + i * hd, hd);
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
            turn_head(p, i, p->layer->q_norm, s->q + i * q_dim + h * hd);
        for (uint32_t h = 0; h < a->n_kv_heads; h++) {
            float *k = s->k + i * kv_dim + h * hd;

            turn_head(p, i, p->layer->k_norm, k);
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
        norm_quantize(p, i, p->s->att + i * n, p->layer->o_in, n, thread);
}

static void pass_ffn_in(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    const struct tern_layer *l = p->layer;
    const float *const in[MAX_INPUTS] = { l->gate_in, l->up_in };

    for (size_t i = first; i < last; i++) {
        float *x = p->x + p->s->live[i] * p->m->arch.n_embd;

        add_branch(p, i, l->attn_post, x);
        norm_inputs(p, i, x, l->ffn_norm, in, thread);
    }
}

static void pass_ffn_out(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    size_t n = p->m->arch.n_ffn;

    for (size_t i = first; i < last; i++) {
        float *gate = p->s->gate + i * n;

        if (p->n_live <= FEW_ROWS)
            p->gate(gate, p->s->up + i * n, n, gate);
        norm_quantize(p, i, gate, p->layer->down_in, n, thread);
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

        add_branch(p, i, p->layer->ffn_post, x);
        if (!tern_boundary_round(p->boundary, p->kern, x, n, enc))
            mark_dead(p, i);
        else if (p->out && !p->rows[row].dead)
            memcpy(p->out + row * p->row_bytes, enc, p->row_bytes);
    }
}

/* -- passes over tiles ----------------------------------------------------------------------------------- */

/* Up to three matrices, their tiles counted through. */
struct matrices {
    const struct pass *p;
    unsigned n;
    struct tern_ternary t[3];
    size_t tiles[3];
    size_t done; /* tiles at the front that are left out */
};

/* input: which of s->in it is multiplied with. */
static void add_matrix(struct matrices *ms, const struct pass *p, const struct tern_matrix *w, size_t input,
                       float *y)
{
    const struct tern_scratch *s = p->s;
    const struct codes *c = &s->in[input];

    ms->tiles[ms->n] = tern_pack_tiles(w->m);
    ms->t[ms->n++] = (struct tern_ternary){ .tiles = w->tiles,
                                            .k_pad = w->k_pad,
                                            .m = w->m,
                                            .scale = w->scale,
                                            .q = c->q,
                                            .q_stride = s->code_stride,
                                            .act_scale = c->act_scale,
                                            .act_sum = c->act_sum,
                                            .n_rows = p->n_live,
                                            .y = y,
                                            .y_stride = w->m };
}

static void pass_tiles(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct matrices *ms = arg;
    const struct pass *p = ms->p;

    (void)thread;
    first += ms->done;
    last += ms->done;
    for (unsigned i = 0; i < ms->n && first < last; i++) {
        size_t n = ms->tiles[i], end = last < n ? last : n;

        if (first < end)
            p->kern->ternary[p->m->layout](&ms->t[i], first, end);
        first = first > n ? first - n : 0;
        last = last > n ? last - n : 0;
    }
}

/* The same tiles of gate and up, and what becomes of the two while they are in the cache: activation(gate) *
 * up, in gate's place. */
static void pass_gate_up(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct matrices *ms = arg;
    const struct pass *p = ms->p;
    const struct tern_ternary *gate = &ms->t[0], *up = &ms->t[1];

    (void)thread;
    for (size_t end; first < last; first = end) {
        size_t at = first * TERN_TILE_ROWS, n;

        end = last - first < GROUP_TILES ? last : first + GROUP_TILES;
        n = (end * TERN_TILE_ROWS < gate->m ? end * TERN_TILE_ROWS : gate->m) - at;
        p->kern->ternary[p->m->layout](gate, first, end);
        p->kern->ternary[p->m->layout](up, first, end);
        for (size_t i = 0; i < gate->n_rows; i++) {
            float *g = gate->y + i * gate->y_stride + at;

            p->gate(g, up->y + i * up->y_stride + at, n, g);
        }
    }
}

static void run_tiles(const struct pass *p, struct matrices *ms, tern_pool_fn *fn, size_t n)
{
    size_t group = GROUP_TILES * tern_pack_tile_bytes(p->m->layout, ms->t[0].k_pad) * p->n_live;

    tern_pool_run(p->pool, fn, ms, n, GROUP_TILES * (MIN_PIECE / group + 1));
}

static void run_matrices(const struct pass *p, struct matrices *ms)
{
    size_t total = 0;

    for (unsigned i = 0; i < ms->n; i++)
        total += ms->tiles[i];
    run_tiles(p, ms, pass_tiles, total);
}

/* The matrix behind which a layer is all but done. */
static void run_last_matrix(const struct pass *p, struct matrices *ms)
{
    const struct tern_scratch *s = p->s;
    size_t n = ms->tiles[0], most = n * 3 / 4;

    if (!p->out || !s->soon) {
        run_matrices(p, ms);
        return;
    }
    run_tiles(p, ms, pass_tiles, most);
    s->soon(s->soon_arg);
    ms->done = most;
    run_tiles(p, ms, pass_tiles, n - most);
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
    struct matrices ms = { .p = p };
    size_t q_dim = (size_t)a->n_heads * a->head_dim;
    size_t own = a->norms & TERN_INPUT_NORMS ? 1 : 0; /* each matrix has an input of its own */

    run_rows(p, pass_attn_in, 1, a->n_embd);
    ms.n = 0;
    add_matrix(&ms, p, &l->q, 0, s->q);
    add_matrix(&ms, p, &l->k, own, s->k);
    add_matrix(&ms, p, &l->v, 2 * own, s->v);
    run_matrices(p, &ms);
    run_rows(p, pass_rope_store, 1, q_dim);
    tern_pass_attention(p);
    run_rows(p, pass_attn_out, 1, q_dim);
    ms.n = 0;
    add_matrix(&ms, p, &l->o, 0, s->o);
    run_matrices(p, &ms);

    run_rows(p, pass_ffn_in, 1, a->n_embd);
    ms.n = 0;
    add_matrix(&ms, p, &l->gate, 0, s->gate);
    add_matrix(&ms, p, &l->up, own, s->up);
    if (p->n_live <= FEW_ROWS)
        run_matrices(p, &ms);
    else
        run_tiles(p, &ms, pass_gate_up, ms.tiles[0]);
    run_rows(p, pass_ffn_out, 1, a->n_ffn);
    ms.n = 0;
    add_matrix(&ms, p, &l->down, 0, s->o);
    run_last_matrix(p, &ms);
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

/* Angle of pair j at position p: p * theta^(-2j/head_dim), divided by the model's factor if there is one, in
 * double; the table is f32, in the order its op wants. */
static void fill_cos_sin(const struct tern_scratch *s, double theta, const struct tern_row *rows,
                         size_t n_live, float *out)
{
    const struct tern_arch *a = &s->arch;
    size_t half = a->head_dim / 2;
    bool in_turn = a->rope == TERN_ROPE_NORM;

    for (size_t j = 0; j < half; j++) {
        double freq = tern_pow(theta, -2.0 * (double)j / (double)a->head_dim);
        size_t at_cos = in_turn ? 2 * j : j, at_sin = in_turn ? 2 * j + 1 : half + j;

        if (a->n_rope_freqs)
            freq /= (double)a->rope_freqs[j];
        for (size_t i = 0; i < n_live; i++) {
            float *cs = out + i * 2 * half;
            double sn, cn;

            tern_sincos((double)rows[s->live[i]].pos * freq, &sn, &cn);
            cs[at_cos] = (float)cn;
            cs[at_sin] = (float)sn;
        }
    }
}

/* For the live rows, whose number has changed. */
static void fill_tables(struct pass *p, size_t n_live)
{
    struct tern_scratch *s = p->s;

    fill_cos_sin(s, s->arch.rope_theta, p->rows, n_live, s->cos_sin);
    if (s->cos_sin_swa)
        fill_cos_sin(s, s->arch.swa.rope_theta, p->rows, n_live, s->cos_sin_swa);
}

static void choose_layer(struct pass *p, uint32_t l)
{
    const struct tern_swa *swa = &p->m->arch.swa;
    bool slides = tern_swa_slides(swa, p->m->first + l);

    p->layer = &p->m->layers[l];
    p->i_layer = l;
    p->window = slides ? swa->window : 0;
    p->cos_sin = slides && p->s->cos_sin_swa ? p->s->cos_sin_swa : p->s->cos_sin;
}

static void choose_ops(struct pass *p)
{
    const struct tern_kernels *k = p->kern;

    switch (p->m->arch.activation) {
    case TERN_RELU2: p->gate = k->relu2_gate; break;
    case TERN_SILU: p->gate = k->silu_gate; break;
    case TERN_GELU: p->gate = k->gelu_gate; break;
    }
    p->rope = p->m->arch.rope == TERN_ROPE_NEOX ? k->rope_neox : k->rope_norm;
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
    choose_ops(&p);
    spread_death(rows, n);
    tern_pool_hold(pool);
    for (uint32_t l = 0; l < n_layers; l++) {
        size_t n_live = gather_live(s, rows, n);

        if (n_live == 0)
            break;
        if (n_live != p.n_live) { /* the first layer, or after a death */
            fill_tables(&p, n_live);
            p.n_pos = 0;
            for (size_t i = 0; i < n_live; i++)
                p.n_pos = rows[s->live[i]].pos >= p.n_pos ? rows[s->live[i]].pos + 1u : p.n_pos;
        }
        p.n_live = n_live;
        choose_layer(&p, l);
        p.out = l + 1 == n_layers ? out : NULL;
        layer_forward(&p);
        spread_death(rows, n);
    }
    tern_pool_release(pool);
}
