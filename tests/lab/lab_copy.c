/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of a model: a slice of its layers, or the whole in other types.
 */
#include "lab/lab.h"

#include "engine/gguf_write.h"
#include "engine/identity.h"
#include "engine/quant_row.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

void lab_name(const struct tern_tensor *t, char out[256])
{
    memcpy(out, t->name.ptr, t->name.len); /* at most TERN_MAX_TENSOR_NAME */
    out[t->name.len] = '\0';
}

int8_t *lab_read_ternary(const struct tern_tensor *t, float *scale)
{
    size_t m = (size_t)t->ne[1], k = (size_t)t->ne[0], bytes;
    struct tern_packing p = { .from = { .type = t->type, .src = t->data, .m = m, .k = k } };
    int8_t *w;

    if (!tern_pack_bytes(p.layout, m, k, &bytes))
        lab_die("a matrix is too large");
    p.tiles = aligned_alloc(64, bytes);
    w = lab_alloc(m * k);
    if (!p.tiles || tern_pack(&p, 0, tern_pack_tiles(m), scale) != TERN_PACK_OK)
        lab_die("tensor '%.*s' is not a sound ternary matrix", TERN_STR_ARGS(t->name));
    for (size_t r = 0; r < m; r++)
        for (size_t c = 0; c < k; c++)
            w[r * k + c] = (int8_t)tern_unpack_at(p.layout, p.tiles, k, r, c);
    free(p.tiles);
    return w;
}

static void put_all_metadata(struct tern_gguf_writer *w, const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (!tern_str_is(g->kv[i].key, "general.alignment")) /* the writer says its own */
            tern_gguf_put_kv(w, &g->kv[i]);
}

/* -- slices ------------------------------------------------------------------------------------ */

static bool in_slice(const struct tern_tensor *t, uint32_t first, uint32_t last)
{
    int layer = tern_tensor_layer(t->name);

    if (layer < 0)
        return tern_str_is(t->name, "rope_freqs.weight");
    return layer >= (int)first && layer <= (int)last;
}

void lab_write_slice(const struct tern_gguf *g, uint32_t first, uint32_t last, FILE *f)
{
    struct tern_gguf_writer *w = lab_writer_new(f, (uint32_t)g->alignment);
    char name[256];

    put_all_metadata(w, g);
    for (size_t i = 0; i < g->n_tensors; i++)
        if (in_slice(&g->tensors[i], first, last)) {
            lab_name(&g->tensors[i], name);
            tern_gguf_add_tensor(w, name, g->tensors[i].type, g->tensors[i].n_dims, g->tensors[i].ne);
        }
    tern_gguf_begin(w);
    for (size_t i = 0; i < g->n_tensors; i++)
        if (in_slice(&g->tensors[i], first, last)) {
            tern_gguf_write(w, g->tensors[i].data, g->tensors[i].bytes);
            tern_gguf_end_tensor(w);
        }
    lab_finish(&w);
}

/* -- other types ------------------------------------------------------------------------------- */

static bool is_ternary(const struct tern_tensor *t)
{
    return t->type == TERN_TYPE_I2_S || t->type == TERN_TYPE_TQ1_0 || t->type == TERN_TYPE_TQ2_0;
}

static bool is_table(const struct tern_tensor *t)
{
    return tern_str_is(t->name, "token_embd.weight") || tern_str_is(t->name, "output.weight");
}

static uint32_t new_type(const struct tern_tensor *t, const struct lab_retype *to)
{
    if (is_ternary(t) && !is_table(t) && to->ternary != UINT32_MAX)
        return to->ternary;
    if (is_table(t) && to->embd != UINT32_MAX)
        return to->embd;
    return t->type;
}

bool lab_tl_tiles(uint32_t type, const uint64_t ne[4], struct tern_tl_tiles *out)
{
    *out =
        (struct tern_tl_tiles){ (uint32_t)ne[1], (uint32_t)ne[0], 32, type == TERN_TYPE_TL1 ? 64 : 96, 32 };
    return tern_tl_tiles_fit(type, out);
}

/* False when the type cannot have the shape. */
static bool pack_as(uint32_t type, enum tern_i2s_layout layout, const int8_t *w, const uint64_t ne[4],
                    float scale, uint8_t *out)
{
    size_t m = (size_t)ne[1], k = (size_t)ne[0], bytes, elems;
    struct tern_tl_tiles tiles;
    float *x;

    if (type == TERN_TYPE_TL1 || type == TERN_TYPE_TL2) {
        if (!lab_tl_tiles(type, ne, &tiles))
            return false;
        tern_tl_write(type, &tiles, w, scale, out);
        return true;
    }
    if (type == TERN_TYPE_TQ2_0 || !tern_dtype_block(type, &elems, &bytes)) /* of tables one too */
        return tern_pack_file(type, layout, w, m, k, scale, out);
    x = lab_alloc(k * sizeof *x);
    for (size_t r = 0; elems == 1 && r < m; r++, w += k, out += k * bytes) {
        for (size_t c = 0; c < k; c++)
            x[c] = scale * (float)w[c];
        if (!tern_quant_row(type, x, k, out))
            elems = 0;
    }
    free(x);
    return elems == 1;
}

static void rewrite_ternary(struct tern_gguf_writer *w, const struct tern_tensor *t, uint32_t type,
                            enum tern_i2s_layout layout)
{
    size_t bytes;
    float scale;
    int8_t *weights = lab_read_ternary(t, &scale);
    uint8_t *out;

    if (!tern_gguf_tensor_bytes(type, t->ne, &bytes))
        lab_die("tensor '%.*s' cannot be of type %u", TERN_STR_ARGS(t->name), type);
    out = lab_alloc(bytes);
    memset(out, 0, bytes);
    if (!pack_as(type, layout, weights, t->ne, scale, out))
        lab_die("tensor '%.*s' cannot be packed as type %u", TERN_STR_ARGS(t->name), type);
    tern_gguf_write(w, out, bytes);
    free(out);
    free(weights);
}

static void rewrite_table(struct tern_gguf_writer *w, const struct tern_tensor *t, uint32_t type)
{
    const uint64_t row[4] = { t->ne[0], 1, 1, 1 };
    size_t from = t->bytes / (size_t)t->ne[1], to, n = (size_t)t->ne[0], elems, block;
    float *x = lab_alloc(n * sizeof *x);
    void *out;

    if (!tern_gguf_tensor_bytes(type, row, &to) || !tern_dtype_block(t->type, &elems, &block))
        lab_die("tensor '%.*s' cannot be turned into type %u", TERN_STR_ARGS(t->name), type);
    out = lab_alloc(to);
    for (size_t r = 0; r < t->ne[1]; r++) {
        tern_dequant_row((enum tern_dtype)t->type, t->data + r * from, n, x);
        if (!tern_quant_row(type, x, n, out))
            lab_die("type %u cannot be written as rows", type);
        tern_gguf_write(w, out, to);
    }
    free(x);
    free(out);
}

void lab_write_retyped(const struct tern_gguf *g, const struct lab_retype *to, FILE *f)
{
    struct tern_gguf_writer *w = lab_writer_new(f, (uint32_t)g->alignment);
    char name[256];

    put_all_metadata(w, g);
    for (size_t i = 0; i < g->n_tensors; i++) {
        lab_name(&g->tensors[i], name);
        tern_gguf_add_tensor(w, name, new_type(&g->tensors[i], to), g->tensors[i].n_dims, g->tensors[i].ne);
    }
    tern_gguf_begin(w);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];
        uint32_t type = new_type(t, to);

        if (is_ternary(t) && !is_table(t) && to->ternary != UINT32_MAX)
            rewrite_ternary(w, t, type, to->layout);
        else if (is_table(t) && type != t->type)
            rewrite_table(w, t, type);
        else
            tern_gguf_write(w, t->data, t->bytes);
        tern_gguf_end_tensor(w);
    }
    lab_finish(&w);
}
