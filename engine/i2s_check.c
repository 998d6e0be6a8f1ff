/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the layouts of I2_S apart: see i2s_check.h. */
#include "engine/i2s_check.h"

#include "engine/identity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS  8                   /* looked at, spread over those of the file ... */
#define MAX_WEIGHTS ((uint64_t)1 << 29) /* ... and of large ones fewer: they say the more */
#define PIECE_ROWS  32
#define N_LAYOUTS   3
/* The evidence of chance has a deviation of sqrt(2 pairs): so many of them are none. */
#define MANY_DEVIATIONS 12

enum { Q, K, V, O, GATE, UP, DOWN, N_MATRICES };

static const char *const names[N_MATRICES] = { "attn_q",   "attn_k", "attn_v",  "attn_output",
                                               "ffn_gate", "ffn_up", "ffn_down" };

/* Weights that are not zero, of every row and every column. */
struct counts {
    size_t m, k; /* 0: there is no such matrix in I2_S */
    double *rows, *columns;
};

struct counting {
    struct tern_trits trits;
    int8_t *values;    /* [threads][PIECE_ROWS][k] */
    uint32_t *columns; /* [threads][k] */
    double *rows;      /* [m] */
};

static void count_rows(void *arg, size_t first, size_t last, unsigned thread)
{
    struct counting *c = arg;
    const size_t k = c->trits.k;
    int8_t *w = c->values + thread * PIECE_ROWS * k;
    uint32_t *columns = c->columns + thread * k;

    for (size_t row = first; row < last; row += PIECE_ROWS) {
        size_t n = last - row < PIECE_ROWS ? last - row : PIECE_ROWS;
        float scale;

        if (tern_pack_rows(&c->trits, row, row + n, w, &scale) == TERN_PACK_BAD_CODE)
            continue; /* said elsewhere */
        for (size_t r = 0; r < n; r++) {
            uint32_t sum = 0;

            for (size_t i = 0; i < k; i++) {
                uint32_t one = w[r * k + i] != 0;

                columns[i] += one;
                sum += one;
            }
            c->rows[row + r] = sum;
        }
    }
}

static bool count(const struct tern_gguf *g, const struct tern_tensor *t, enum tern_i2s_layout layout,
                  struct tern_pool *pool, struct counts *out)
{
    const size_t m = (size_t)t->ne[1], k = (size_t)t->ne[0], threads = tern_pool_threads(pool);
    struct counting c = { .trits = {
                              .type = TERN_TYPE_I2_S, .i2s = layout, .src = t->data, .m = m, .k = k } };
    bool ok;

    c.values = malloc(threads * PIECE_ROWS * k);
    c.columns = calloc(threads * k, sizeof *c.columns);
    c.rows = calloc(m, sizeof *c.rows);
    out->columns = calloc(k, sizeof *out->columns);
    ok = c.values && c.columns && c.rows && out->columns;
    out->rows = c.rows;
    if (ok) {
        out->m = m;
        out->k = k;
        tern_pool_run(pool, count_rows, &c, m, PIECE_ROWS);
        for (size_t i = 0; i < threads * k; i++)
            out->columns[i % k] += c.columns[i];
    }
    free(c.values);
    free(c.columns);
    tern_gguf_release(g, t);
    return ok;
}

/* n r^2 for two statistics; 0 when one of them does not vary. */
static double evidence(const double *x, const double *y, size_t n)
{
    double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;

    for (size_t i = 0; i < n; i++) {
        mx += x[i] / (double)n;
        my += y[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? (double)n * xy * xy / (xx * yy) : 0;
}

/* -- one layer ------------------------------------------------------------------------------------------- */

enum { ATTN_NORM, ATTN_SUB_NORM, FFN_NORM, FFN_SUB_NORM, N_NORMS };

struct layer {
    struct counts c[N_MATRICES];
    double *norm[N_NORMS]; /* magnitudes; NULL: there is none */
    size_t n_norm[N_NORMS];
};

static void layer_free(struct layer *l)
{
    for (int i = 0; i < N_MATRICES; i++) {
        free(l->c[i].rows);
        free(l->c[i].columns);
    }
    for (int i = 0; i < N_NORMS; i++)
        free(l->norm[i]);
}

static bool fits(const struct tern_tensor *t, enum tern_i2s_layout layout)
{
    uint64_t n = t->ne[0] * t->ne[1];

    return layout == TERN_I2S_A ? n % 128 == 0 : layout == TERN_I2S_B ? n % 64 == 0 : t->ne[1] % 4 == 0;
}

static bool take_norm(const struct tern_tensor *t, double **out, size_t *n)
{
    float *v = malloc((size_t)t->ne[0] * sizeof *v);
    double *x = malloc((size_t)t->ne[0] * sizeof *x);

    if (v && x) {
        tern_dequant_row((enum tern_dtype)t->type, t->data, (size_t)t->ne[0], v);
        for (size_t i = 0; i < t->ne[0]; i++)
            x[i] = isfinite(v[i]) ? fabs((double)v[i] + (t->view.plus_one ? 1 : 0)) : 0;
        *out = x;
        *n = (size_t)t->ne[0];
        x = NULL;
    }
    free(v);
    free(x);
    return *out != NULL;
}

/* False: no memory.  *fit: the shapes allow the layout. */
static bool take_layer(const struct tern_gguf *g, uint32_t layer, enum tern_i2s_layout layout,
                       struct tern_pool *pool, struct layer *out, bool *fit)
{
    static const char *const norms[N_NORMS] = { "attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm" };
    bool ok = true;

    for (int i = 0; i < N_MATRICES && ok; i++) {
        char name[64];
        const struct tern_tensor *t;

        snprintf(name, sizeof name, "blk.%u.%s.weight", (unsigned)layer, names[i]);
        t = tern_gguf_tensor(g, name);
        if (!t || t->type != TERN_TYPE_I2_S)
            continue;
        if (!fits(t, layout))
            *fit = false;
        else
            ok = count(g, t, layout, pool, &out->c[i]);
    }
    for (int i = 0; i < N_NORMS && ok; i++) {
        char name[64];
        const struct tern_tensor *t;

        snprintf(name, sizeof name, "blk.%u.%s.weight", (unsigned)layer, norms[i]);
        t = tern_gguf_tensor(g, name);
        if (t && t->ne[1] == 1 && (t->type == TERN_F32 || t->type == TERN_F16 || t->type == TERN_BF16))
            ok = take_norm(t, &out->norm[i], &out->n_norm[i]);
    }
    return ok;
}

/* Adds a pair of statistics of n elements, when both are there. */
static void add(const double *x, size_t nx, const double *y, size_t ny, double *sum, size_t *pairs)
{
    if (!x || !y || nx != ny || nx == 0)
        return;
    *sum += evidence(x, y, nx);
    ++*pairs;
}

static void add_layer(const struct layer *l, double *sum, size_t *pairs)
{
    const struct counts *down = &l->c[DOWN];

    for (int i = GATE; i <= UP; i++) {
        add(down->columns, down->k, l->c[i].rows, l->c[i].m, sum, pairs);
        add(l->c[i].columns, l->c[i].k, l->norm[FFN_NORM], l->n_norm[FFN_NORM], sum, pairs);
    }
    add(down->columns, down->k, l->norm[FFN_SUB_NORM], l->n_norm[FFN_SUB_NORM], sum, pairs);
    add(l->c[O].columns, l->c[O].k, l->norm[ATTN_SUB_NORM], l->n_norm[ATTN_SUB_NORM], sum, pairs);
    for (int i = Q; i <= V; i++)
        add(l->c[i].columns, l->c[i].k, l->norm[ATTN_NORM], l->n_norm[ATTN_NORM], sum, pairs);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

/* Which layers: [first, last) in steps. */
struct span {
    uint32_t first, last, step;
};

static struct span choose_layers(const struct tern_gguf *g, const struct tern_arch *arch)
{
    const uint64_t each = (uint64_t)arch->n_embd * arch->n_ffn * 3, many = MAX_WEIGHTS / (each ? each : 1);
    const uint32_t most = many < 1 ? 1 : many < MAX_LAYERS ? (uint32_t)many : MAX_LAYERS;
    struct span s = { UINT32_MAX, 0, 1 };

    for (size_t i = 0; i < g->n_tensors; i++) {
        int layer = tern_tensor_layer(g->tensors[i].name);

        if (layer < 0 || (uint32_t)layer >= arch->n_layers)
            continue;
        s.first = (uint32_t)layer < s.first ? (uint32_t)layer : s.first;
        s.last = (uint32_t)layer >= s.last ? (uint32_t)layer + 1 : s.last;
    }
    if (s.last > s.first)
        s.step = (s.last - s.first + most - 1) / most;
    return s;
}

static bool look(const struct tern_gguf *g, struct span s, enum tern_i2s_layout layout,
                 struct tern_pool *pool, double *sum, size_t *pairs)
{
    bool ok = true, fit = true;

    *sum = 0;
    *pairs = 0;
    for (uint32_t i = s.first; i < s.last && ok && fit; i += s.step) {
        struct layer l = { 0 };

        ok = take_layer(g, i, layout, pool, &l, &fit);
        if (ok && fit)
            add_layer(&l, sum, pairs);
        layer_free(&l);
    }
    if (!fit)
        *sum = -1;
    return ok;
}

enum tern_status tern_i2s_check(const struct tern_gguf *g, const struct tern_arch *arch,
                                struct tern_pool *pool, struct tern_i2s_check *out, struct tern_err *err)
{
    const struct span layers = choose_layers(g, arch);
    struct tern_i2s_check c = { 0 };
    double second = 0;

    for (int l = 0; l < N_LAYOUTS; l++) {
        size_t pairs;

        if (!look(g, layers, (enum tern_i2s_layout)l, pool, &c.evidence[l], &pairs))
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to tell the layout of %s", g->name);
        c.pairs = pairs > c.pairs ? pairs : c.pairs;
        if (c.evidence[l] > c.evidence[c.likely])
            c.likely = (enum tern_i2s_layout)l;
    }
    for (int l = 0; l < N_LAYOUTS; l++)
        if (l != (int)c.likely && c.evidence[l] > second)
            second = c.evidence[l];
    /* B leaves a quarter of A's columns in place, so the wrong one keeps some of the right one's evidence. */
    c.sure = c.evidence[c.likely] > 2 * second &&
             c.evidence[c.likely] - second > MANY_DEVIATIONS * sqrt(2.0 * (double)c.pairs);
    *out = c;
    return TERN_OK;
}
