/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From names in the file to places in the model: each refusal is one sentence that names the
 * file, the tensor, what was expected and what was found.
 */
#include "engine/model_impl.h"
#include "engine/ternary_source.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Behind "blk.N.", with ".weight" or, for a scale of its own, ".scale" behind. */
static const char *const matrix_names[TERN_BIND_N_MATRICES] = {
    [TERN_BIND_Q] = "attn_q",      [TERN_BIND_K] = "attn_k",      [TERN_BIND_V] = "attn_v",
    [TERN_BIND_O] = "attn_output", [TERN_BIND_GATE] = "ffn_gate", [TERN_BIND_UP] = "ffn_up",
    [TERN_BIND_DOWN] = "ffn_down",
};

#define PLACE(field) offsetof(struct tern_layer, field)

const struct tern_bind_norm tern_bind_norms[TERN_BIND_N_NORMS] = {
    { "attn_norm", 0, TERN_NORM_EMBD, PLACE(attn_norm) },
    { "attn_sub_norm", TERN_SUB_NORMS, TERN_NORM_HEADS, PLACE(o_in) },
    { "ffn_norm", 0, TERN_NORM_EMBD, PLACE(ffn_norm) },
    { "ffn_sub_norm", TERN_SUB_NORMS, TERN_NORM_FFN, PLACE(down_in) },
    { "attn_q_norm", TERN_QK_NORMS, TERN_NORM_HEAD, PLACE(q_norm) },
    { "attn_k_norm", TERN_QK_NORMS, TERN_NORM_HEAD, PLACE(k_norm) },
    { "post_attention_norm", TERN_POST_NORMS, TERN_NORM_EMBD, PLACE(attn_post) },
    { "post_ffw_norm", TERN_POST_NORMS, TERN_NORM_EMBD, PLACE(ffn_post) },
    { "attn_q_norm_in", TERN_INPUT_NORMS, TERN_NORM_EMBD, PLACE(q_in) },
    { "attn_k_norm_in", TERN_INPUT_NORMS, TERN_NORM_EMBD, PLACE(k_in) },
    { "attn_v_norm_in", TERN_INPUT_NORMS, TERN_NORM_EMBD, PLACE(v_in) },
    { "attn_output_norm_in", TERN_INPUT_NORMS, TERN_NORM_HEADS, PLACE(o_in) },
    { "ffn_gate_norm_in", TERN_INPUT_NORMS, TERN_NORM_EMBD, PLACE(gate_in) },
    { "ffn_up_norm_in", TERN_INPUT_NORMS, TERN_NORM_EMBD, PLACE(up_in) },
    { "ffn_down_norm_in", TERN_INPUT_NORMS, TERN_NORM_FFN, PLACE(down_in) },
};

/* ne0 = inputs, ne1 = outputs. */
static void matrix_shape(const struct tern_arch *a, enum tern_bind_matrix which, uint64_t *ne0, uint64_t *ne1)
{
    const uint64_t q = (uint64_t)a->n_heads * a->head_dim, kv = (uint64_t)a->n_kv_heads * a->head_dim;

    *ne0 = a->n_embd;
    *ne1 = a->n_ffn;
    switch (which) {
    case TERN_BIND_Q: *ne1 = q; break;
    case TERN_BIND_K:
    case TERN_BIND_V: *ne1 = kv; break;
    case TERN_BIND_O:
        *ne0 = q;
        *ne1 = a->n_embd;
        break;
    case TERN_BIND_DOWN:
        *ne0 = a->n_ffn;
        *ne1 = a->n_embd;
        break;
    default: break; /* gate and up */
    }
}

static uint64_t norm_length(const struct tern_arch *a, enum tern_norm_length which)
{
    switch (which) {
    case TERN_NORM_HEAD: return a->head_dim;
    case TERN_NORM_HEADS: return (uint64_t)a->n_heads * a->head_dim;
    case TERN_NORM_FFN: return a->n_ffn;
    default: return a->n_embd;
    }
}

static bool has_norm(const struct tern_arch *a, int which)
{
    unsigned norms = tern_bind_norms[which].norms;

    return norms == 0 || (a->norms & norms);
}

static enum tern_status find_shaped(const struct tern_gguf *g, const char *name, uint64_t ne0, uint64_t ne1,
                                    const struct tern_tensor **out, struct tern_err *err)
{
    const struct tern_tensor *t = tern_gguf_tensor(g, name);

    if (!t)
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s: tensor '%s' is missing; the file holds no such layer or only a slice of the model", g->name,
            name);
    if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != 1 || t->ne[3] != 1)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: tensor '%s' is %llu x %llu x %llu x %llu but the metadata asks for %llu x %llu",
                         g->name, name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                         (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], (unsigned long long)ne0,
                         (unsigned long long)ne1);
    *out = t;
    return TERN_OK;
}

static enum tern_status find_norm(const struct tern_gguf *g, const char *name, uint64_t n,
                                  const struct tern_tensor **out, struct tern_err *err)
{
    const struct tern_tensor *t = NULL;
    enum tern_status st = find_shaped(g, name, n, 1, &t, err);

    if (st)
        return st;
    if (t->type != TERN_F32 && t->type != TERN_F16 && t->type != TERN_BF16)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: tensor '%s' is %s; a norm must be F32, F16 or BF16",
                         g->name, name, tern_gguf_type_name(t->type));
    *out = t;
    return TERN_OK;
}

static enum tern_status find_matrix(const struct tern_gguf *g, const char *name, uint64_t ne0, uint64_t ne1,
                                    const struct tern_tensor **out, struct tern_err *err)
{
    const struct tern_tensor *t = NULL;
    enum tern_status st = find_shaped(g, name, ne0, ne1, &t, err);

    if (st)
        return st;
    if (!tern_ternary_type(t->type))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%s' is %s; a ternary matrix must be I2_S, TQ1_0, TQ2_0, TL1, TL2, or "
                         "ternary F32, F16 or BF16",
                         g->name, name, tern_gguf_type_name(t->type));
    *out = t;
    return TERN_OK;
}

static enum tern_status find_table(const struct tern_gguf *g, const char *name, const struct tern_arch *a,
                                   const struct tern_tensor **out, struct tern_err *err)
{
    const struct tern_tensor *t = NULL;
    size_t elems, bytes;
    enum tern_status st = find_shaped(g, name, a->n_embd, a->n_vocab, &t, err);

    if (st)
        return st;
    if (!tern_dtype_block(t->type, &elems, &bytes))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%s' is %s; embedding and head can be F32, F16, BF16, Q8_0, Q6_K, Q4_0, "
                         "Q4_K or TQ2_0",
                         g->name, name, tern_gguf_type_name(t->type));
    *out = t;
    return TERN_OK;
}

/* A scale of its own; *out is NULL when there is none. */
static enum tern_status find_scale(const struct tern_gguf *g, const char *name,
                                   const struct tern_tensor **out, struct tern_err *err)
{
    const struct tern_tensor *t = tern_gguf_tensor(g, name);

    if (t && (t->type != TERN_F32 || t->bytes != sizeof(float)))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: tensor '%s' must be one number of type F32", g->name,
                         name);
    *out = t;
    return TERN_OK;
}

enum tern_status tern_bind_layer(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t layer,
                                 struct tern_bound_layer *out, struct tern_err *err)
{
    struct tern_bound_layer b = { .norm = { NULL } };
    char name[64];
    enum tern_status st = TERN_OK;

    for (int i = 0; !st && i < TERN_BIND_N_NORMS; i++) {
        if (!has_norm(arch, i))
            continue;
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, tern_bind_norms[i].name);
        st = find_norm(g, name, norm_length(arch, tern_bind_norms[i].length), &b.norm[i], err);
    }
    for (int i = 0; !st && i < TERN_BIND_N_MATRICES; i++) {
        uint64_t ne0, ne1;

        matrix_shape(arch, i, &ne0, &ne1);
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, matrix_names[i]);
        st = find_matrix(g, name, ne0, ne1, &b.matrix[i], err);
        snprintf(name, sizeof name, "blk.%u.%s.scale", layer, matrix_names[i]);
        if (!st)
            st = find_scale(g, name, &b.scale[i], err);
    }
    if (!st)
        *out = b;
    return st;
}

enum tern_status tern_bind_ends(const struct tern_gguf *g, const struct tern_arch *arch,
                                struct tern_bound_ends *out, struct tern_err *err)
{
    struct tern_bound_ends b;
    enum tern_status st = find_table(g, "token_embd.weight", arch, &b.embd, err);

    b.head = b.embd;
    if (!st && tern_gguf_tensor(g, "output.weight"))
        st = find_table(g, "output.weight", arch, &b.head, err);
    if (!st)
        st = find_norm(g, "output_norm.weight", arch->n_embd, &b.norm, err);
    if (!st)
        *out = b;
    return st;
}

/* Whether name is stem and tail. */
static bool is_joined(struct tern_str name, const char *stem, const char *tail)
{
    size_t n = strlen(stem);

    return name.len > n && memcmp(name.ptr, stem, n) == 0 &&
           tern_str_is((struct tern_str){ name.ptr + n, name.len - n }, tail);
}

static bool known_in_layer(const struct tern_arch *a, struct tern_str name)
{
    const char *dot = memchr(name.ptr + 4, '.', name.len - 4); /* behind "blk.N" */
    struct tern_str rest = { dot + 1, name.len - (size_t)(dot + 1 - name.ptr) };

    for (int i = 0; i < TERN_BIND_N_MATRICES; i++)
        if (is_joined(rest, matrix_names[i], ".weight") || is_joined(rest, matrix_names[i], ".scale"))
            return true;
    for (int i = 0; i < TERN_BIND_N_NORMS; i++)
        if (has_norm(a, i) && is_joined(rest, tern_bind_norms[i].name, ".weight"))
            return true;
    return false;
}

/* Tensors of no layer.  RoPE's factors have been read with the hyper-parameters. */
static bool known_outside(struct tern_str name)
{
    return tern_str_is(name, "token_embd.weight") || tern_str_is(name, "output.weight") ||
           tern_str_is(name, "output_norm.weight") || tern_str_is(name, "rope_freqs.weight");
}

enum tern_status tern_bind_refuse_extras(const struct tern_gguf *g, const struct tern_arch *arch,
                                         uint32_t first, uint32_t last, bool with_embd, struct tern_err *err)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];
        int layer = tern_tensor_layer(t->name);

        if (layer >= (int)arch->n_layers)
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: tensor '%.*s' is of layer %d but the model has %u layers", g->name,
                             TERN_STR_ARGS(t->name), layer, arch->n_layers);
        if (layer >= 0 ? layer < (int)first || layer >= (int)last || known_in_layer(arch, t->name)
                       : !with_embd || known_outside(t->name))
            continue;
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.*s' is not part of a %s model that Tern can compute; ignoring it "
                         "would give wrong answers",
                         g->name, TERN_STR_ARGS(t->name), arch->name);
    }
    return TERN_OK;
}
