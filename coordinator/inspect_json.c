/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern inspect --json`: one object on stdout.
 *
 * Strings of the file that are not UTF-8 get U+FFFD; numbers that are not finite become null.  Arrays show
 * their type, their length, and their values when they are short.
 */
#include "coordinator/inspect.h"
#include "coordinator/json_out.h"

#include <stdio.h>
#include <string.h>

#define MAX_ELEMENTS 64 /* of an array that is shown whole */

static json_t *bytes(uint64_t n)
{
    return json_integer((json_int_t)n); /* of a file: below 2^63 */
}

static json_t *element(const struct tern_gguf_kv *kv, uint64_t i)
{
    int64_t v;

    switch (kv->elem_type) {
    case TERN_GGUF_BOOL: return json_boolean(kv->data[i] != 0);
    case TERN_GGUF_F32:
    case TERN_GGUF_F64: return json_out_number(tern_gguf_array_f64(kv, i));
    default:
        v = tern_gguf_array_i64(kv, i);
        return kv->elem_type == TERN_GGUF_U64 && v < 0 ? json_out_number((double)(uint64_t)v)
                                                       : json_integer(v);
    }
}

static json_t *value(const struct tern_gguf_kv *kv)
{
    struct tern_cursor c;
    struct tern_str s = { "", 0 };
    json_t *list, *o;

    tern_cursor_init(&c, kv->data, kv->bytes);
    if (kv->type == TERN_GGUF_STRING)
        return tern_gguf_next_string(&c, &s) ? json_out_text(s) : NULL;
    if (kv->type != TERN_GGUF_ARRAY)
        return element(kv, 0);
    o = json_pack("{s:s, s:o}", "array_of", inspect_kind(kv->elem_type), "n", bytes(kv->n));
    if (kv->n > MAX_ELEMENTS)
        return o;
    list = json_array();
    for (uint64_t i = 0; i < kv->n; i++)
        json_array_append_new(list, kv->elem_type != TERN_GGUF_STRING ? element(kv, i)
                                    : tern_gguf_next_string(&c, &s)   ? json_out_text(s)
                                                                      : json_null());
    json_object_set_new(o, "values", list);
    return o;
}

/* A list and not an object: keys of a file need not be UTF-8, nor fit what a reader allows. */
static json_t *metadata(const struct tern_gguf *g)
{
    json_t *list = json_array();

    for (size_t i = 0; i < g->n_kv; i++)
        json_array_append_new(list, json_pack("{s:o, s:s, s:o}", "key", json_out_text(g->kv[i].key), "type",
                                              inspect_kind(g->kv[i].type), "value", value(&g->kv[i])));
    return list;
}

/* null when no layer slides. */
static json_t *swa(const struct tern_arch *a)
{
    json_t *list;

    if (!a->swa.window)
        return json_null();
    list = json_array();
    for (uint32_t l = 0; l < a->n_layers; l++)
        if (tern_swa_slides(&a->swa, l))
            json_array_append_new(list, json_integer((json_int_t)l));
    return json_pack("{s:i, s:o, s:o}", "window", (int)a->swa.window, "rope_theta",
                     json_out_number(a->swa.rope_theta), "layers", list);
}

static json_t *arch(const struct tern_arch *a)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o}", "name",
                     a->name, "activation", tern_activation_name(a->activation), "rope",
                     tern_rope_name(a->rope), "n_layers", (int)a->n_layers, "n_embd", (int)a->n_embd, "n_ffn",
                     (int)a->n_ffn, "n_heads", (int)a->n_heads, "n_kv_heads", (int)a->n_kv_heads, "head_dim",
                     (int)a->head_dim, "n_vocab", (int)a->n_vocab, "n_ctx_train", (int)a->n_ctx_train,
                     "rms_eps", json_out_number((double)a->rms_eps), "rope_theta",
                     json_out_number(a->rope_theta), "sliding_window", swa(a));
}

static json_t *tokenizer(const struct inspect *in)
{
    const struct tern_tokenizer *t = in->tokenizer;
    struct tern_str model = { "", 0 };
    enum tern_status st = tern_gguf_string(in->g, "tokenizer.ggml.model", &model, NULL);

    return json_pack("{s:o, s:s, s:s, s:i, s:i, s:i, s:b}", "model",
                     st == TERN_OK ? json_out_text(model) : json_null(), "pre", tern_tokenizer_pre(t),
                     "pre_source", tern_tokenizer_pre_source(t), "n_vocab", (int)tern_tokenizer_n_vocab(t),
                     "bos", (int)tern_tokenizer_bos(t), "eos", (int)tern_tokenizer_eos(t), "add_bos",
                     tern_tokenizer_add_bos(t));
}

static json_t *tensors(const struct inspect *in)
{
    struct inspect_type types[64];
    size_t n = inspect_types(in->g, types, sizeof types / sizeof types[0]);
    json_t *o = json_object(), *by_type = json_object(), *list;

    for (size_t i = 0; i < n; i++)
        json_object_set_new(by_type, tern_gguf_type_name(types[i].type),
                            json_pack("{s:o, s:o}", "n", bytes(types[i].n), "bytes", bytes(types[i].bytes)));
    json_object_set_new(o, "n", bytes(in->g->n_tensors));
    json_object_set_new(o, "types", by_type);
    if (!in->list_tensors)
        return o;
    list = json_array();
    for (size_t i = 0; i < in->g->n_tensors; i++) {
        const struct tern_tensor *t = &in->g->tensors[i];
        json_t *shape = json_array();

        for (uint32_t d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, bytes(t->ne[d]));
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:o}", "name", json_out_text(t->name), "type",
                                              tern_gguf_type_name(t->type), "shape", shape, "bytes",
                                              bytes(t->bytes)));
    }
    json_object_set_new(o, "list", list);
    return o;
}

static json_t *memory(const struct inspect *in, const struct inspect_memory *m)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tiles_bytes",
                     bytes(m->need.tiles_bytes), "norms_bytes", bytes(m->need.norms_bytes), "embd_bytes",
                     bytes(m->need.embd_bytes), "head_bytes", bytes(m->need.head_bytes),
                     "head_statistical_bytes", bytes(m->statistical_bytes), "kv_bytes",
                     bytes(m->kv_bytes[in->kv]), "scratch_bytes", bytes(m->need.scratch_bytes), "rows_bytes",
                     bytes(m->rows_bytes), "fixed_bytes", bytes(m->need.fixed_bytes), "total_bytes",
                     bytes(m->total_bytes));
}

static json_t *all_memory(const struct inspect *in)
{
    json_t *o = in->has_worker ? memory(in, &in->worker) : json_object();

    if (in->has_worker) {
        json_t *by_layout = json_object(), *by_kv = json_object();

        for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++)
            json_object_set_new(by_layout, tern_pack_layout_name((enum tern_tile_layout)l),
                                bytes(in->worker.tiles_bytes[l]));
        for (int t = 0; t < TERN_N_KV_TYPES; t++)
            json_object_set_new(by_kv, tern_kv_type_name((enum tern_kv_type)t),
                                bytes(in->worker.kv_bytes[t]));
        json_object_set_new(o, "first_layer", json_integer(in->first));
        json_object_set_new(o, "last_layer", json_integer(in->last - 1));
        json_object_set_new(o, "layout", json_string(tern_pack_layout_name(in->layout)));
        json_object_set_new(o, "tiles_bytes_by_layout", by_layout);
        json_object_set_new(o, "kv", json_string(tern_kv_type_name(in->kv)));
        json_object_set_new(o, "kv_bytes_by_type", by_kv);
        json_object_set_new(o, "kv_page_bytes", bytes(in->worker.need.kv_page_bytes[in->kv]));
    }
    json_object_set_new(o, "ctx", json_integer(in->ctx));
    json_object_set_new(o, "rows", json_integer(in->rows));
    json_object_set_new(o, "threads", json_integer(in->threads));
    if (in->has_coordinator)
        json_object_set_new(o, "coordinator", memory(in, &in->coordinator));
    return o;
}

static json_t *sentence(const struct tern_err *err)
{
    struct tern_str s = { err->text, strlen(err->text) };

    return json_out_text(s);
}

enum tern_status inspect_print_json(const struct inspect *in, struct tern_err *err)
{
    struct tern_str path = { in->path, strlen(in->path) };
    json_t *o = json_pack("{s:o, s:o, s:i, s:o, s:o, s:o}", "file", json_out_text(path), "size_bytes",
                          bytes(tern_gguf_file_bytes(in->g)), "version", (int)in->g->version, "alignment",
                          bytes(in->g->alignment), "metadata", metadata(in->g), "tensors", tensors(in));
    char hex[2 * TERN_HASH_BYTES + 1];

    if (!o)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to describe %s", in->path);
    if (in->has_hash) {
        for (size_t i = 0; i < sizeof in->hash; i++)
            snprintf(hex + 2 * i, 3, "%02x", in->hash[i]);
        json_object_set_new(o, "model_hash", json_string(hex));
    }
    if (in->arch_status)
        json_object_set_new(o, "architecture_error", sentence(&in->arch_err));
    else
        json_object_set_new(o, "architecture", arch(&in->arch));
    if (in->tokenizer)
        json_object_set_new(o, "tokenizer", tokenizer(in));
    else if (in->tokenizer_status)
        json_object_set_new(o, "tokenizer_error", sentence(&in->tokenizer_err));
    if (in->memory_status)
        json_object_set_new(o, "memory_error", sentence(&in->memory_err));
    if (in->has_worker || in->has_coordinator)
        json_object_set_new(o, "memory", all_memory(in));
    if (in->verify)
        json_object_set_new(o, "verification", inspect_json_verify(in->verify));
    return json_out_print(&o, 17, err);
}
