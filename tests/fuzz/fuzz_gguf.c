/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model file: container, hyper-parameters, ternary tensors of every type, and the whole model when it is
 * small.
 *
 * Properties: strings, arrays and tensors lie inside the bytes, none overlaps another; names and keys are
 * unique and found; sizes agree with types and shapes; a loaded model takes exactly the memory that was
 * predicted and holds nothing but ternary weights; every refusal has a sentence.
 */
#include "fuzz/fuzz.h"

#include "engine/base/limits.h"
#include "engine/model.h"
#include "engine/model_file.h"
#include "engine/ternary_source.h"

#include <math.h>
#include <string.h>

#define SMALL ((size_t)4 << 20) /* bytes of tiles; larger ones only take longer */

static struct tern_kernels kern;
static struct tern_pool *pool;

static void refused(enum tern_status st, const struct tern_err *err)
{
    FUZZ_CHECK(st >= TERN_ERR_USAGE && err->status == st && err->text[0] && !strchr(err->text, '\n'));
}

static void check_inside(const struct tern_gguf *g, const uint8_t *at, size_t n)
{
    FUZZ_CHECK(at >= g->bytes && n <= g->size && (size_t)(at - g->bytes) <= g->size - n);
}

static void check_metadata(const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct tern_gguf_kv *kv = &g->kv[i];
        struct tern_err err;
        struct tern_cursor c;
        struct tern_str s;
        char key[64];
        uint64_t u, n = 0;
        double d;
        bool b;

        check_inside(g, (const uint8_t *)kv->key.ptr, kv->key.len);
        check_inside(g, kv->data, kv->bytes);
        if (kv->elem_type == TERN_GGUF_STRING) {
            tern_cursor_init(&c, kv->data, kv->bytes);
            while (tern_gguf_next_string(&c, &s))
                n++;
            FUZZ_CHECK(n == kv->n && tern_cursor_left(&c) == 0);
        } else if (kv->n) {
            (void)tern_gguf_array_i64(kv, kv->n - 1);
            (void)tern_gguf_array_f64(kv, 0);
        }
        if (kv->key.len >= sizeof key || memchr(kv->key.ptr, 0, kv->key.len))
            continue;
        memcpy(key, kv->key.ptr, kv->key.len);
        key[kv->key.len] = '\0';
        FUZZ_CHECK(tern_gguf_find(g, key) == kv);
        FUZZ_CHECK(tern_gguf_u64(g, key, &u, &err) != TERN_END);
        FUZZ_CHECK(tern_gguf_f64(g, key, &d, &err) != TERN_END);
        FUZZ_CHECK(tern_gguf_bool(g, key, &b, &err) != TERN_END);
        FUZZ_CHECK(tern_gguf_string(g, key, &s, &err) != TERN_END);
    }
}

static void check_directory(const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];
        char name[TERN_MAX_TENSOR_NAME + 1];
        size_t bytes = 0;

        check_inside(g, t->data, t->bytes);
        FUZZ_CHECK(t->data > (const uint8_t *)t->name.ptr); /* behind the directory */
        FUZZ_CHECK((size_t)(t->data - g->bytes) % g->alignment == 0);
        FUZZ_CHECK(tern_gguf_tensor_bytes(t->type, t->ne, &bytes) && bytes == t->bytes && bytes > 0);
        FUZZ_CHECK(tern_gguf_type_name(t->type) != NULL && t->n_dims >= 1 && t->n_dims <= 4);
        for (size_t j = 0; j < i && i < 100; j++) {
            const struct tern_tensor *o = &g->tensors[j];

            FUZZ_CHECK(!tern_str_eq(o->name, t->name));
            FUZZ_CHECK(o->data + o->bytes <= t->data || t->data + t->bytes <= o->data);
        }
        if (memchr(t->name.ptr, 0, t->name.len))
            continue;
        memcpy(name, t->name.ptr, t->name.len);
        name[t->name.len] = '\0';
        FUZZ_CHECK(tern_gguf_tensor(g, name) == t);
    }
}

/* No code 3 in two bits; no byte above the largest five trits. */
static void check_tiles(enum tern_tile_layout layout, const uint8_t *tiles, size_t m, size_t k)
{
    size_t bytes;

    FUZZ_CHECK(tern_pack_bytes(layout, m, k, &bytes));
    for (size_t i = 0; i < bytes; i++)
        FUZZ_CHECK(layout == TERN_TILES_2BIT ? (tiles[i] & tiles[i] >> 1 & 0x55) == 0 : tiles[i] <= 242);
}

/* The weights of both layouts of tiles are those of the rows. */
static void check_same(const struct tern_ternary_source *s, const uint8_t *two, const uint8_t *five,
                       const int8_t *w)
{
    size_t m = s->trits.m, k = s->trits.k;

    for (size_t r = 0; r < m; r++)
        for (size_t c = 0; c < k; c++)
            FUZZ_CHECK(tern_unpack_at(TERN_TILES_2BIT, two, k, r, c) == w[r * k + c] &&
                       tern_unpack_at(TERN_TILES_5TRIT, five, k, r, c) == w[r * k + c]);
}

static void pack_opened(const struct tern_ternary_source *s)
{
    size_t m = s->trits.m, k = s->trits.k, bytes, fewer;
    float scale = -1, again = -1, rows = -1;
    struct tern_err err;
    enum tern_status st;
    uint8_t *two, *five;
    int8_t *w;

    if (!tern_pack_bytes(TERN_TILES_2BIT, m, k, &bytes) || !tern_pack_bytes(TERN_TILES_5TRIT, m, k, &fewer) ||
        bytes > SMALL || fewer > SMALL)
        return;
    two = aligned_alloc(64, bytes);
    five = aligned_alloc(64, fewer);
    w = malloc(m * k);
    FUZZ_CHECK(two && five && w);
    st = tern_ternary_pack(s, pool, TERN_TILES_2BIT, two, &scale, &err);
    if (st)
        refused(st, &err);
    FUZZ_CHECK(tern_ternary_pack(s, pool, TERN_TILES_5TRIT, five, &again, &err) == st);
    if (!st) {
        FUZZ_CHECK(isfinite(scale) && scale >= 0 && scale == again);
        FUZZ_CHECK(tern_ternary_rows(s, 0, m, w, &rows, &err) == TERN_OK && rows == scale);
        check_tiles(TERN_TILES_2BIT, two, m, k);
        check_tiles(TERN_TILES_5TRIT, five, m, k);
        check_same(s, two, five, w);
    }
    free(two);
    free(five);
    free(w);
}

/* Tiles for a shape that nobody has published: the first of some that fit. */
static void choose_tiles(const struct tern_tensor *t, struct tern_file_options *o)
{
    static const uint32_t bms[] = { 32, 64, 16 }, bys[] = { 64, 96, 32, 24 };

    for (uint32_t i = 0; i < 12; i++) {
        struct tern_tl_tiles tl = { (uint32_t)t->ne[1], (uint32_t)t->ne[0], bms[i / 4], bys[i % 4],
                                    bms[i / 4] < 32 ? 16 : 32 };

        if (t->ne[0] <= UINT32_MAX && t->ne[1] <= UINT32_MAX && tern_tl_tiles_fit(t->type, &tl)) {
            o->tl_tiles[0] = tl;
            o->n_tl_tiles = 1;
            return;
        }
    }
}

/* Any tensor that may be a ternary matrix, whether a model wants it or not. */
static void pack(struct tern_gguf *g, const struct tern_tensor *t)
{
    int ways = t->type == TERN_TYPE_I2_S ? 3 : t->type <= TERN_F16 || t->type == TERN_BF16 ? 2 : 1;

    if (!tern_ternary_type(t->type))
        return;
    for (int way = 0; way < ways; way++) {
        struct tern_file_options o = { .i2s_layout = ways == 3 ? (enum tern_i2s_layout)way : TERN_I2S_A,
                                       .quantize = ways == 2 && way == 1 };
        struct tern_ternary_source s;
        struct tern_err err;
        enum tern_status st;

        choose_tiles(t, &o);
        FUZZ_CHECK(tern_model_file_set_options(g, &o, &err) == TERN_OK);
        st = tern_ternary_open(g, t, pool, &s, &err);
        if (st)
            refused(st, &err);
        else
            pack_opened(&s);
    }
}

static void load(const struct tern_gguf *g, const struct tern_arch *a, uint32_t first, bool with_embd,
                 enum tern_i2s_layout i2s, enum tern_tile_layout layout)
{
    const struct tern_model_options o = {
        .first = first, .last = a->n_layers, .with_embd = with_embd, .layout = layout
    };
    const struct tern_file_options file = { .i2s_layout = i2s };
    struct tern_model_need need;
    struct tern_model *m = NULL;
    struct tern_err err, err2;
    enum tern_status st = tern_model_need(g, a, o.first, o.last, with_embd, layout, 1, 1, &need, &err), st2;

    if (st) {
        refused(st, &err);
    } else if (need.tiles_bytes > SMALL || need.norms_bytes > SMALL) {
        return;
    }
    FUZZ_CHECK(tern_model_file_set_options((struct tern_gguf *)(uintptr_t)g, &file, &err2) == TERN_OK);
    st2 = tern_model_load(g, a, &kern, pool, &o, &m, &err2);
    FUZZ_CHECK(!st || st2); /* what cannot be predicted does not load */
    if (st2) {
        refused(st2, &err2);
        return;
    }
    FUZZ_CHECK(m->tiles_bytes == need.tiles_bytes && m->norms_bytes == need.norms_bytes);
    for (uint32_t l = 0; l < o.last - first; l++) {
        FUZZ_CHECK(kern.all_finite(m->layers[l].attn_norm, a->n_embd));
        FUZZ_CHECK(isfinite(m->layers[l].down.scale) && m->layers[l].down.scale >= 0);
        check_tiles(layout, m->layers[l].down.tiles, m->layers[l].down.m, m->layers[l].down.k);
    }
    tern_model_free(&m);
}

static void run(const uint8_t *bytes, size_t size)
{
    struct tern_gguf *g = NULL;
    struct tern_arch a;
    struct tern_err err;
    enum tern_status st = tern_gguf_parse("fuzz.gguf", bytes, size, &g, &err);

    if (st) {
        refused(st, &err);
        return;
    }
    check_metadata(g);
    check_directory(g);
    for (size_t i = 0; i < g->n_tensors; i++)
        pack(g, &g->tensors[i]);
    st = tern_arch_read(g, &a, &err);
    if (st) {
        refused(st, &err);
    } else {
        FUZZ_CHECK(a.n_heads % a.n_kv_heads == 0 && a.head_dim % 2 == 0 && a.n_layers <= TERN_MAX_LAYERS);
        load(g, &a, 0, true, TERN_I2S_A, TERN_TILES_2BIT);
        load(g, &a, a.n_layers / 2, false, TERN_I2S_B, TERN_TILES_5TRIT);
        load(g, &a, 0, false, TERN_I2S_C, TERN_TILES_2BIT);
    }
    tern_gguf_close(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A heap block of the exact size, and aligned as a mapping is. */
    uint8_t *bytes = malloc(size);

    if (!pool) {
        struct tern_err err;

        tern_kernels_init(&kern, TERN_CPU_REF);
        FUZZ_CHECK(tern_pool_new(1, &pool, &err) == TERN_OK);
    }
    FUZZ_CHECK(bytes || size == 0);
    if (size)
        memcpy(bytes, data, size);
    run(bytes, size);
    free(bytes);
    return 0;
}
