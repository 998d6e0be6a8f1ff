/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary matrices of files: see ternary_source.h.
 */
#include "engine/ternary_source.h"

#include "engine/base/mem.h"
#include "engine/exact_scale.h"

#include <math.h>
#include <stdlib.h>

#define MAX_THREADS 256

/* -- types and shapes ---------------------------------------------------------------------------------- */

static bool is_float(uint32_t type)
{
    return type == TERN_F32 || type == TERN_F16 || type == TERN_BF16;
}

static bool is_tl(uint32_t type)
{
    return type == TERN_TYPE_TL1 || type == TERN_TYPE_TL2;
}

bool tern_ternary_type(uint32_t type)
{
    return type == TERN_TYPE_I2_S || type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0 || is_tl(type) ||
           type == TERN_TYPE_HF_PACKED || is_float(type);
}

/* Each layout of I2_S packs units of its own, which the size check of the directory does not know. */
static enum tern_status check_i2s_shape(const struct tern_gguf *g, const struct tern_tensor *t,
                                        enum tern_i2s_layout layout, struct tern_err *err)
{
    uint64_t n = t->ne[0] * t->ne[1]; /* the parser has seen that this fits */
    bool ok = layout == TERN_I2S_A ? n % 128 == 0 : layout == TERN_I2S_B ? n % 64 == 0 : t->ne[1] % 4 == 0;

    if (ok)
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_FORMAT,
                     "%s: tensor '%.*s' of %llu x %llu weights cannot be I2_S in layout %c, which needs %s",
                     g->name, TERN_STR_ARGS(t->name), (unsigned long long)t->ne[0],
                     (unsigned long long)t->ne[1], 'A' + (int)layout,
                     layout == TERN_I2S_A   ? "a multiple of 128 weights"
                     : layout == TERN_I2S_B ? "a multiple of 64 weights"
                                            : "a multiple of 4 rows");
}

/* -- the scale of floats ------------------------------------------------------------------------------- */

#define CHUNK ((size_t)1 << 16) /* weights that are summed on their own: part of what the scale is */

/* One look at all weights by all threads. */
struct look {
    const struct tern_trits *what;
    size_t n;
    double *sums;                                /* of chunks, or NULL: look for extremes */
    float least[MAX_THREADS], most[MAX_THREADS]; /* 0: none yet */
};

static void look_range(void *arg, size_t first, size_t last, unsigned thread)
{
    struct look *l = arg;
    size_t size = l->what->type == TERN_F32 ? 4 : 2;

    for (size_t i = first; i < last; i++) {
        const uint8_t *at = l->what->src + i * CHUNK * size;
        size_t n = l->n - i * CHUNK < CHUNK ? l->n - i * CHUNK : CHUNK;
        float least, most;

        if (l->sums) {
            l->sums[i] = tern_pack_sum(l->what->type, at, n);
            continue;
        }
        tern_pack_extremes(l->what->type, at, n, &least, &most);
        if (most == 0)
            continue;
        most = isfinite(most) ? most : INFINITY; /* a NaN too */
        if (l->most[thread] == 0 || least < l->least[thread])
            l->least[thread] = least;
        if (most > l->most[thread])
            l->most[thread] = most;
    }
}

static void look(struct look *l, struct tern_pool *pool)
{
    tern_pool_run(pool, look_range, l, (l->n + CHUNK - 1) / CHUNK, 8);
}

/* The magnitudes of all weights that are not 0 lie in [*least, *most]; both 0 when there are none. */
static void look_for_extremes(struct look *l, struct tern_pool *pool, float *least, float *most)
{
    *least = *most = 0;
    look(l, pool);
    for (unsigned i = 0; i < tern_pool_threads(pool); i++) {
        if (l->most[i] == 0)
            continue;
        if (*most == 0 || l->least[i] < *least)
            *least = l->least[i];
        if (l->most[i] > *most)
            *most = l->most[i];
    }
}

/* The sum of magnitudes: chunk by chunk, whoever has added up which. */
static enum tern_status add_up(struct look *l, struct tern_pool *pool, double *total, struct tern_err *err)
{
    size_t chunks = (l->n + CHUNK - 1) / CHUNK;

    l->sums = malloc(chunks * sizeof *l->sums);
    if (!l->sums)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to look at a matrix");
    look(l, pool);
    *total = 0;
    for (size_t i = 0; i < chunks; i++)
        *total += l->sums[i];
    free(l->sums);
    return TERN_OK;
}

static enum tern_status find_scale(struct tern_ternary_source *s, struct tern_pool *pool,
                                   struct tern_err *err)
{
    struct look l = { .what = &s->trits, .n = s->trits.m * s->trits.k };
    const char *type = tern_gguf_type_name(s->t->type);
    enum tern_status st = TERN_OK;
    double total = 0;

    if (!s->t->view.absmean) {
        float least, most;

        look_for_extremes(&l, pool, &least, &most);
        total = (double)most;
        s->trits.scale = most;
        if (least == most && isfinite(most))
            return TERN_OK;
        if (isfinite(most) && !tern_model_file_options(s->g)->quantize)
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s: tensor '%.*s' (%s) is not ternary: its weights are more than 0 and plus or "
                             "minus one number; --quantize makes them so",
                             s->g->name, TERN_STR_ARGS(s->t->name), type);
    }
    if (isfinite(total))
        st = add_up(&l, pool, &total, err);
    if (st)
        return st;
    if (!isfinite(total))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: tensor '%.*s' (%s) holds infinite or undefined numbers; the file is damaged",
                         s->g->name, TERN_STR_ARGS(s->t->name), type);
    tern_pack_absmean(s->t->type, total, l.n, &s->trits.absmean_s, &s->trits.scale);
    return TERN_OK;
}

/* -- opening ------------------------------------------------------------------------------------------- */

bool tern_ternary_tiles(const struct tern_gguf *g, const struct tern_tensor *t, struct tern_tl_tiles *out)
{
    const struct tern_file_options *o = tern_model_file_options(g);

    for (uint32_t i = 0; i < o->n_tl_tiles; i++)
        if (o->tl_tiles[i].m == t->ne[1] && o->tl_tiles[i].k == t->ne[0]) {
            *out = o->tl_tiles[i];
            return true;
        }
    return tern_tl_tiles_published(t->type, (size_t)t->ne[1], (size_t)t->ne[0], out);
}

static enum tern_status find_tiles(struct tern_ternary_source *s, struct tern_err *err)
{
    const struct tern_tensor *t = s->t;
    struct tern_tl_tiles *tl = &s->trits.tl;

    if (!tern_ternary_tiles(s->g, t, tl))
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "%s: tensor '%.*s' is %s, which no file says the tiles of, and none are published for "
            "%zu x %zu weights; give those it was written with: --tl-tiles %zux%zu=BM,BK,bm",
            s->g->name, TERN_STR_ARGS(t->name), tern_gguf_type_name(t->type), s->trits.m, s->trits.k,
            s->trits.m, s->trits.k);
    if (!tern_tl_tiles_fit(t->type, tl))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: tensor '%.*s' of %zu x %zu weights cannot be %s in tiles of %u,%u,%u; see "
                         "--tl-tiles",
                         s->g->name, TERN_STR_ARGS(t->name), s->trits.m, s->trits.k,
                         tern_gguf_type_name(t->type), tl->bm, tl->by, tl->strip);
    return TERN_OK;
}

/* What is true of a matrix of any type: two dimensions, the bytes that they take, whole heads. */
static enum tern_status check_shape(const struct tern_gguf *g, const struct tern_tensor *t,
                                    struct tern_err *err)
{
    size_t bytes = 0, n, m = (size_t)t->ne[1], k = (size_t)t->ne[0];
    bool known = t->ne[2] == 1 && t->ne[3] == 1 && m > 0 && k > 0 && tern_mul_size(m, k, &n);

    if (known && t->type == TERN_TYPE_HF_PACKED)
        known = tern_mul_size(m / 4 + (m % 4 != 0), k, &bytes);
    else if (known)
        known = tern_gguf_tensor_bytes(t->type, t->ne, &bytes);
    if (!known || bytes != t->bytes)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tensor '%.*s' of %zu bytes cannot be %zu x %zu weights",
                         g->name, TERN_STR_ARGS(t->name), t->bytes, m, k);
    if (t->view.n_heads != 0 && m % (2 * (size_t)t->view.n_heads) != 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tensor '%.*s' of %zu rows cannot have %u heads of pairs",
                         g->name, TERN_STR_ARGS(t->name), m, t->view.n_heads);
    return TERN_OK;
}

/* What a type asks for beyond that. */
static enum tern_status check_type(struct tern_ternary_source *s, struct tern_err *err)
{
    const struct tern_tensor *t = s->t;

    if (!tern_ternary_type(t->type))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: tensor '%.*s' is %s, which is no ternary matrix",
                         s->g->name, TERN_STR_ARGS(t->name), tern_gguf_type_name(t->type));
    if (t->type == TERN_TYPE_I2_S)
        return check_i2s_shape(s->g, t, s->trits.i2s, err);
    if (is_tl(t->type))
        return find_tiles(s, err);
    if (t->type == TERN_TYPE_HF_PACKED && (!isfinite(t->view.scale) || t->view.scale <= 0))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tensor '%.*s' has the scale %g, which is not positive",
                         s->g->name, TERN_STR_ARGS(t->name), (double)t->view.scale);
    return TERN_OK;
}

enum tern_status tern_ternary_open(const struct tern_gguf *g, const struct tern_tensor *t,
                                   struct tern_pool *pool, struct tern_ternary_source *out,
                                   struct tern_err *err)
{
    struct tern_ternary_source s = { .g = g,
                                     .t = t,
                                     .trits = { .type = t->type,
                                                .i2s = tern_model_file_options(g)->i2s_layout,
                                                .src = t->data,
                                                .m = (size_t)t->ne[1],
                                                .k = (size_t)t->ne[0],
                                                .n_heads = t->view.n_heads,
                                                .scale = t->view.scale } };
    enum tern_status st = check_type(&s, err);

    if (!st)
        st = check_shape(g, t, err);
    if (!st && is_float(t->type))
        st = find_scale(&s, pool, err);
    if (!st)
        *out = s;
    return st;
}

/* -- reading ------------------------------------------------------------------------------------------- */

static enum tern_status refuse(const struct tern_ternary_source *s, enum tern_pack_result r,
                               struct tern_err *err)
{
    const char *why =
        r == TERN_PACK_BAD_CODE
            ? "holds codes that are no ternary weights; the file is damaged or of another layout"
        : r == TERN_PACK_SCALES ? "has blocks of different scales: it was made of weights that were not "
                                  "ternary, and Tern has one "
                                  "scale a matrix; convert the model from its publisher's files"
                                : "has a scale that is not a positive number; the file is damaged";

    return TERN_FAIL(err, r == TERN_PACK_SCALES ? TERN_ERR_UNSUPPORTED : TERN_ERR_FORMAT,
                     "%s: tensor '%.*s' (%s) %s", s->g->name, TERN_STR_ARGS(s->t->name),
                     tern_gguf_type_name(s->t->type), why);
}

/* One matrix being repacked by all threads.  Each thread writes its own entry only. */
struct packing {
    struct tern_packing what;
    struct {
        enum tern_pack_result result;
        float scale; /* 0: no block with weights seen */
    } seen[MAX_THREADS];
};

static void pack_range(void *arg, size_t first, size_t last, unsigned thread)
{
    struct packing *p = arg;
    float scale = 0;
    enum tern_pack_result r;

    if (p->seen[thread].result != TERN_PACK_OK)
        return;
    r = tern_pack(&p->what, first, last, &scale);
    if (r == TERN_PACK_OK && scale != 0 && p->seen[thread].scale != 0 && scale != p->seen[thread].scale)
        r = TERN_PACK_SCALES;
    if (r == TERN_PACK_OK && scale != 0)
        p->seen[thread].scale = scale;
    p->seen[thread].result = r;
}

/* Types that state a scale state one above zero, whatever the weights. */
static bool states_scale(const struct tern_trits *t)
{
    return t->type == TERN_TYPE_I2_S || is_tl(t->type);
}

/* Gathers what the threads have seen: one result, one scale. */
static enum tern_pack_result join(const struct packing *p, unsigned n_threads, float *scale)
{
    *scale = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        if (p->seen[i].result != TERN_PACK_OK)
            return p->seen[i].result;
        if (p->seen[i].scale == 0)
            continue;
        if (*scale != 0 && *scale != p->seen[i].scale)
            return TERN_PACK_SCALES;
        *scale = p->seen[i].scale;
    }
    /* A matrix without any weight is legal and zero. */
    if (!isfinite(*scale) || *scale < 0 || (*scale == 0 && states_scale(&p->what.from)))
        return TERN_PACK_BAD_SCALE;
    return TERN_PACK_OK;
}

enum tern_status tern_ternary_pack(const struct tern_ternary_source *s, struct tern_pool *pool,
                                   enum tern_tile_layout layout, uint8_t *tiles, float *scale,
                                   struct tern_err *err)
{
    struct packing p = { .what = { .from = s->trits, .layout = layout, .tiles = tiles } };
    enum tern_pack_result r;

    tern_pool_run(pool, pack_range, &p, tern_pack_tiles(s->trits.m), 8);
    r = join(&p, tern_pool_threads(pool), scale);
    if (r == TERN_PACK_OK)
        *scale = tern_exact_scale(s->g, s->t, *scale);
    return r == TERN_PACK_OK ? TERN_OK : refuse(s, r, err);
}

enum tern_status tern_ternary_rows(const struct tern_ternary_source *s, size_t first, size_t last, int8_t *w,
                                   float *scale, struct tern_err *err)
{
    enum tern_pack_result r = tern_pack_rows(&s->trits, first, last, w, scale);

    if (r == TERN_PACK_OK && *scale == 0 && states_scale(&s->trits))
        r = TERN_PACK_BAD_SCALE;
    if (r == TERN_PACK_OK)
        *scale = tern_exact_scale(s->g, s->t, *scale);
    return r == TERN_PACK_OK ? TERN_OK : refuse(s, r, err);
}
