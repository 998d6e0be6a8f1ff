/* SPDX-License-Identifier: Apache-2.0 */
/* Conversion of models, the plan of it: what is written for every tensor and key.  See convert.h. */
#include "engine/convert.h"

#include "engine/base/log.h"
#include "engine/chat_template.h"
#include "engine/convert_impl.h"
#include "engine/exact_scale.h"
#include "engine/identity.h"
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Weights of a matrix that a thread has on its hands at a time, more or less. */
#define PIECE_WEIGHTS ((size_t)1 << 18)
#define PIECE_BYTES   ((size_t)1 << 20)
/* I2_S packs so many weights together. */
#define I2S_BLOCK 128
#define TQ_BLOCK  256

/* -- tensors --------------------------------------------------------------------------------------------- */

static bool is_float(uint32_t type)
{
    return type == TERN_F32 || type == TERN_F16 || type == TERN_BF16;
}

static bool is_tq(uint32_t type)
{
    return type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0;
}

static bool is_end(struct tern_str name)
{
    return tern_str_is(name, "token_embd.weight") || tern_str_is(name, "output.weight");
}

/* The bytes alone say what the tensor is. */
static bool is_plain(const struct tern_tensor *t)
{
    const struct tern_tensor_view *v = &t->view;

    return t->type != TERN_TYPE_HF_PACKED && !v->absmean && !v->plus_one && !v->n_heads;
}

static bool is_wanted(const struct tern_conversion *c, const struct tern_tensor *t)
{
    int layer = tern_tensor_layer(t->name);

    if (!c->o.slice)
        return true;
    return layer < 0 ? !is_end(t->name) && !tern_str_is(t->name, "output_norm.weight")
                     : (uint32_t)layer >= c->o.first && (uint32_t)layer < c->o.last;
}

/* Rows of a piece: whole units of what ternary types are written in. */
static size_t rows_at_a_time(const struct convert_tensor *ct)
{
    size_t unit = tern_pack_file_unit(ct->type, TERN_I2S_A, ct->m, ct->k),
           rows = ct->k ? PIECE_WEIGHTS / ct->k : 1;

    unit = unit ? unit : 1; /* floats */
    return rows > unit ? rows / unit * unit : unit;
}

static enum tern_status plan_matrix(const struct tern_conversion *c, struct convert_tensor *ct,
                                    struct tern_err *err)
{
    const struct tern_tensor *t = ct->t;
    const char *name = c->g->name;

    if (t->ne[2] != 1 || t->ne[3] != 1)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%s' has three dimensions; Tern converts matrices", name, ct->name);
    if (!tern_ternary_type(t->type))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%s' is %s, which Tern cannot read as a ternary matrix", name, ct->name,
                         tern_gguf_type_name(t->type) ? tern_gguf_type_name(t->type) : "of a type unknown");
    ct->part = CONVERT_MATRIX;
    ct->type = c->o.type;
    if (is_tq(ct->type) && ct->k % TQ_BLOCK != 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: tensor '%s' has rows of %zu weights, and %s packs %d together; choose "
                         "--type i2_s",
                         name, ct->name, ct->k, tern_gguf_type_name(ct->type), TQ_BLOCK);
    if (ct->type == TERN_TYPE_I2_S && !tern_pack_file_unit(ct->type, TERN_I2S_A, ct->m, ct->k))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: tensor '%s' has %zu x %zu weights, and I2_S packs %d together; choose "
                         "--type f16",
                         name, ct->name, ct->k, ct->m, I2S_BLOCK);
    return TERN_OK;
}

static enum tern_status plan_table(const struct tern_conversion *c, struct convert_tensor *ct,
                                   struct tern_err *err)
{
    const struct tern_tensor *t = ct->t;
    size_t elems, bytes;

    ct->type = c->o.head != TERN_CONVERT_KEEP             ? c->o.head
               : c->o.bf16_to_f16 && t->type == TERN_BF16 ? TERN_F16
                                                          : t->type;
    if (ct->type == t->type)
        return TERN_OK; /* as it is */
    if (!tern_dtype_block(t->type, &elems, &bytes) || t->ne[2] != 1 || t->ne[3] != 1)
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "%s: tensor '%s' is %s; --head reads F32, F16, BF16, Q8_0, Q6_K, Q4_0, Q4_K and TQ2_0",
            c->g->name, ct->name,
            tern_gguf_type_name(t->type) ? tern_gguf_type_name(t->type) : "of a type unknown");
    if (!tern_dtype_block(ct->type, &elems, &bytes) || ct->k % elems != 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "%s: tensor '%s' has rows of %zu weights, and %s packs %zu together; choose another "
                         "--head",
                         c->g->name, ct->name, ct->k, tern_gguf_type_name(ct->type), elems);
    ct->part = CONVERT_TABLE;
    return TERN_OK;
}

static enum tern_status plan_tensor(const struct tern_conversion *c, const struct tern_tensor *t,
                                    struct convert_tensor *ct, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    memset(ct, 0, sizeof *ct);
    ct->t = t;
    if (t->name.len >= sizeof ct->name || memchr(t->name.ptr, '\0', t->name.len))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: the name of tensor '%.40s' cannot be written",
                         c->g->name, t->name.ptr);
    memcpy(ct->name, t->name.ptr, t->name.len);
    ct->part = CONVERT_RAW;
    ct->type = t->type;
    ct->m = (size_t)t->ne[1];
    ct->k = (size_t)t->ne[0];
    if (is_end(t->name)) {
        st = plan_table(c, ct, err);
    } else if (c->o.type == TERN_CONVERT_KEEP) {
        st = is_plain(t) ? TERN_OK
                         : TERN_FAIL(err, TERN_ERR_USAGE,
                                     "%s: tensor '%s' cannot stay as it is in a GGUF file; choose another "
                                     "--type",
                                     c->g->name, ct->name);
    } else if (t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1) {
        ct->part = is_float(t->type) ? CONVERT_VECTOR : CONVERT_RAW;
        ct->type = is_float(t->type) ? (uint32_t)TERN_F32 : t->type;
    } else if (tern_tensor_layer(t->name) >= 0 || t->type == TERN_TYPE_HF_PACKED) {
        st = plan_matrix(c, ct, err);
    }
    if (st)
        return st;
    if (ct->part == CONVERT_RAW) {
        ct->piece_rows = PIECE_BYTES;
        ct->n_pieces = t->bytes / PIECE_BYTES + (t->bytes % PIECE_BYTES != 0);
    } else {
        ct->piece_rows = rows_at_a_time(ct);
        ct->n_pieces = ct->m / ct->piece_rows + (ct->m % ct->piece_rows != 0);
    }
    ct->hashes = calloc(ct->n_pieces + 1, sizeof *ct->hashes);
    return ct->hashes ? TERN_OK : TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert %s", c->g->name);
}

static enum tern_status plan_tensors(struct tern_conversion *c, struct tern_err *err)
{
    uint32_t layers = 0;
    int before = -1;

    c->tensors = calloc(c->g->n_tensors + 1, sizeof *c->tensors);
    if (!c->tensors)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert %s", c->g->name);
    for (size_t i = 0; i < c->g->n_tensors; i++) {
        const struct tern_tensor *t = &c->g->tensors[i];
        enum tern_status st;

        if (!is_wanted(c, t))
            continue;
        if ((st = plan_tensor(c, t, &c->tensors[c->n], err))) {
            c->n++; /* so that free sees it */
            return st;
        }
        c->n++;
    }
    for (uint32_t l = c->o.first; c->o.slice && l < c->o.last; l++) {
        char name[64];

        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        layers += tern_gguf_tensor(c->g, name) != NULL;
        before = before < 0 && !tern_gguf_tensor(c->g, name) ? (int)l : before;
    }
    if (c->o.slice && layers != c->o.last - c->o.first)
        return TERN_FAIL(err, TERN_ERR_USAGE, "%s: there is no layer %d in it; it is a slice itself",
                         c->g->name, before);
    return TERN_OK;
}

/* -- metadata -------------------------------------------------------------------------------------------- */

static uint32_t file_type(uint32_t type)
{
    switch (type) {
    case TERN_TYPE_I2_S: return 40;
    case TERN_TYPE_TQ1_0: return 36;
    case TERN_TYPE_TQ2_0: return 37;
    case TERN_F16: return 1;
    default: return 0;
    }
}

bool tern_convert_drops(const struct tern_conversion *c, struct tern_str key)
{
    static const char *const ours[] = { "general.alignment", TERN_IDENTITY_KEY, TERN_EXACT_SCALE_KEY };

    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (tern_str_is(key, ours[i]))
            return true;
    if (c->o.type != TERN_CONVERT_KEEP && tern_str_is(key, "general.file_type"))
        return true;
    if ((c->replace_pre && tern_str_is(key, "tokenizer.ggml.pre")) ||
        (c->chat_template && tern_str_is(key, "tokenizer.chat_template")))
        return true;
    return key.len > 6 && memcmp(key.ptr, "split.", 6) == 0;
}

/* A file without a template, or with the placeholder of a converter, gets the one of the format that its
 * vocabulary shows, if it shows one. */
static void choose_template(struct tern_conversion *c, const struct tern_tokenizer *tok)
{
    struct tern_str text = { "", 0 };
    struct tern_chat_choice choice;
    enum tern_status st = tern_gguf_string(c->g, "tokenizer.chat_template", &text, NULL);

    if (st == TERN_OK && !tern_chat_template_is_placeholder(text))
        return;
    if (tern_chat_choose(c->g, tok, &choice, NULL) == TERN_OK && !choice.guessed)
        c->chat_template = tern_chat_template_jinja(choice.format);
}

/* Which pre-tokenizer goes into the file: none for what is no byte-level BPE. */
static enum tern_status choose_pre(struct tern_conversion *c, const struct tern_tokenizer *tok,
                                   struct tern_err *err)
{
    struct tern_str model = { "", 0 };

    if (tern_gguf_string(c->g, "tokenizer.ggml.model", &model, NULL) || !tern_str_is(model, "gpt2"))
        return c->o.pre
                   ? TERN_FAIL(err, TERN_ERR_USAGE, "--pre: %s has no byte-level BPE tokenizer", c->g->name)
                   : TERN_OK;
    if (!c->o.pre && tern_gguf_find(c->g, "tokenizer.ggml.pre"))
        return TERN_OK;
    snprintf(c->pre, sizeof c->pre, "%s", tern_tokenizer_pre(tok));
    c->replace_pre = true;
    return TERN_OK;
}

/* What is written of the tokenizer besides the file's own keys. */
static enum tern_status choose_tokenizer(struct tern_conversion *c, struct tern_err *err)
{
    struct tern_tokenizer *tok = NULL;
    struct tern_err why;
    enum tern_status st;

    if (!tern_gguf_find(c->g, "tokenizer.ggml.tokens"))
        return c->o.pre ? TERN_FAIL(err, TERN_ERR_USAGE, "--pre: %s has no tokenizer", c->g->name) : TERN_OK;
    if (tern_tokenizer_new(c->g, c->o.pre, &tok, &why)) {
        if (!c->o.pre)
            tern_log(TERN_LOG_WARN, "tokenizer", "copied as it is: %s", why.text);
        else if (err)
            *err = why;
        return c->o.pre ? why.status : TERN_OK;
    }
    st = choose_pre(c, tok, err);
    if (!st)
        choose_template(c, tok);
    tern_tokenizer_free(&tok);
    return st;
}

static void put_metadata(struct tern_gguf_writer *w, const struct tern_conversion *c)
{
    const struct tern_gguf *g = c->g;

    for (size_t i = 0; i < g->n_kv; i++)
        if (!tern_convert_drops(c, g->kv[i].key))
            tern_gguf_put_kv(w, &g->kv[i]);
    if (c->o.type != TERN_CONVERT_KEEP)
        tern_gguf_put_u32(w, "general.file_type", file_type(c->o.type));
    if (!tern_gguf_find(g, "general.quantization_version"))
        tern_gguf_put_u32(w, "general.quantization_version", 2);
    if (c->replace_pre)
        tern_gguf_put_string(w, "tokenizer.ggml.pre", c->pre);
    if (c->chat_template)
        tern_gguf_put_string(w, "tokenizer.chat_template", c->chat_template);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

enum tern_status tern_convert_writer(struct tern_conversion *c, FILE *f, const char *name,
                                     struct tern_gguf_writer **out, struct tern_err *err)
{
    struct tern_gguf_writer *w = NULL;
    enum tern_status st = tern_gguf_writer_new(f, name, 32, &w, err);

    if (!st) {
        put_metadata(w, c);
        if (tern_exact_scale_type(c->o.type) ||
            (c->o.type == TERN_CONVERT_KEEP && tern_gguf_find(c->g, TERN_EXACT_SCALE_KEY)))
            c->scales_at = tern_gguf_put_room(w, TERN_EXACT_SCALE_KEY, TERN_GGUF_F32, 4, c->n);
        c->hashes_at = tern_gguf_put_room(w, TERN_IDENTITY_KEY, TERN_GGUF_U8, 1, c->n * TERN_HASH_BYTES);
        for (size_t i = 0; i < c->n; i++)
            tern_gguf_add_tensor(w, c->tensors[i].name, c->tensors[i].type, c->tensors[i].t->n_dims,
                                 c->tensors[i].t->ne);
        st = tern_gguf_writer_status(w, err);
    }
    if (st)
        tern_gguf_writer_free(&w);
    else
        *out = w;
    return st;
}

enum tern_status tern_convert_plan(const struct tern_gguf *g, const struct tern_convert_options *o,
                                   struct tern_conversion **out, struct tern_err *err)
{
    struct tern_conversion *c = calloc(1, sizeof *c);
    struct tern_gguf_writer *w = NULL;
    enum tern_status st;

    if (!c)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert %s", g->name);
    c->g = g;
    c->o = *o;
    st = tern_arch_read(g, &c->arch, err);
    if (!st)
        st = choose_tokenizer(c, err);
    if (!st)
        st = plan_tensors(c, err);
    if (!st)
        st = tern_convert_writer(c, NULL, g->name, &w, err);
    if (!st)
        c->bytes = tern_gguf_writer_bytes(w);
    tern_gguf_writer_free(&w);
    if (st)
        tern_convert_free(&c);
    else
        *out = c;
    return st;
}

void tern_convert_free(struct tern_conversion **cp)
{
    struct tern_conversion *c = *cp;

    if (c) {
        for (size_t i = 0; c->tensors && i < c->n; i++)
            free(c->tensors[i].hashes);
        free(c->tensors);
        free(c);
    }
    *cp = NULL;
}

uint64_t tern_convert_bytes(const struct tern_conversion *c)
{
    return c->bytes;
}
