/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary matrices of files: see ternary_source.h.
 */
#include "engine/ternary_source.h"

#include "engine/exact_scale.h"

#include <math.h>

#define MAX_THREADS 256

/* -- opening ------------------------------------------------------------------------------------------- */

bool tern_ternary_type(uint32_t type)
{
    return type == TERN_TYPE_I2_S || type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0;
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

enum tern_status tern_ternary_open(const struct tern_gguf *g, const struct tern_tensor *t,
                                   struct tern_pool *pool, struct tern_ternary_source *out,
                                   struct tern_err *err)
{
    const struct tern_file_options *o = tern_model_file_options(g);
    struct tern_ternary_source s = { .g = g,
                                     .t = t,
                                     .trits = { .type = t->type,
                                                .i2s = o->i2s_layout,
                                                .src = t->data,
                                                .m = (size_t)t->ne[1],
                                                .k = (size_t)t->ne[0] } };
    enum tern_status st;

    (void)pool;
    if (t->type == TERN_TYPE_I2_S && (st = check_i2s_shape(g, t, o->i2s_layout, err)))
        return st;
    *out = s;
    return TERN_OK;
}

/* -- reading ------------------------------------------------------------------------------------------- */

static enum tern_status refuse(const struct tern_ternary_source *s, enum tern_pack_result r,
                               struct tern_err *err)
{
    const char *why =
        r == TERN_PACK_BAD_CODE
            ? "holds codes that are no ternary weights; the file is damaged or of another layout"
        : r == TERN_PACK_SCALES ? "has blocks of different scales; Tern needs one scale a matrix"
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
    /* A TQ matrix without any weight is legal and zero; I2_S always states its scale. */
    if (!isfinite(*scale) || *scale < 0 || (*scale == 0 && p->what.from.type == TERN_TYPE_I2_S))
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

    if (r == TERN_PACK_OK)
        *scale = tern_exact_scale(s->g, s->t, *scale);
    return r == TERN_PACK_OK ? TERN_OK : refuse(s, r, err);
}
