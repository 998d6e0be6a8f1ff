/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From names in the file to places in the model: each refusal is one sentence that names the
 * file, the tensor, what was expected and what was found.
 */
#include "engine/model_impl.h"
#include "engine/ternary_source.h"

#include <stdio.h>
#include <string.h>

static const char *const matrix_names[TERN_BIND_N_MATRICES] = {
    [TERN_BIND_Q] = "attn_q.weight",      [TERN_BIND_K] = "attn_k.weight",
    [TERN_BIND_V] = "attn_v.weight",      [TERN_BIND_O] = "attn_output.weight",
    [TERN_BIND_GATE] = "ffn_gate.weight", [TERN_BIND_UP] = "ffn_up.weight",
    [TERN_BIND_DOWN] = "ffn_down.weight",
};

static const char *const norm_names[TERN_BIND_N_NORMS] = {
    [TERN_BIND_ATTN_NORM] = "attn_norm.weight",
    [TERN_BIND_ATTN_SUB_NORM] = "attn_sub_norm.weight",
    [TERN_BIND_FFN_NORM] = "ffn_norm.weight",
    [TERN_BIND_FFN_SUB_NORM] = "ffn_sub_norm.weight",
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

static uint64_t norm_length(const struct tern_arch *a, enum tern_bind_norm which)
{
    switch (which) {
    case TERN_BIND_ATTN_SUB_NORM: return (uint64_t)a->n_heads * a->head_dim;
    case TERN_BIND_FFN_SUB_NORM: return a->n_ffn;
    default: return a->n_embd;
    }
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
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "%s: tensor '%s' is %s; embedding and head can be F32, F16, BF16, Q8_0, Q6_K, Q4_0 or Q4_K",
            g->name, name, tern_gguf_type_name(t->type));
    *out = t;
    return TERN_OK;
}

enum tern_status tern_bind_layer(const struct tern_gguf *g, const struct tern_arch *arch, uint32_t layer,
                                 struct tern_bound_layer *out, struct tern_err *err)
{
    struct tern_bound_layer b;
    char name[64];
    enum tern_status st = TERN_OK;

    for (int i = 0; !st && i < TERN_BIND_N_NORMS; i++) {
        snprintf(name, sizeof name, "blk.%u.%s", layer, norm_names[i]);
        st = find_norm(g, name, norm_length(arch, i), &b.norm[i], err);
    }
    for (int i = 0; !st && i < TERN_BIND_N_MATRICES; i++) {
        uint64_t ne0, ne1;

        matrix_shape(arch, i, &ne0, &ne1);
        snprintf(name, sizeof name, "blk.%u.%s", layer, matrix_names[i]);
        st = find_matrix(g, name, ne0, ne1, &b.matrix[i], err);
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

/* Frequency factors of all ones change nothing; some converters write them. */
static bool is_all_ones(const struct tern_tensor *t)
{
    static const uint8_t one[4] = { 0x00, 0x00, 0x80, 0x3f };

    if (t->type != TERN_F32)
        return false;
    for (size_t at = 0; at < t->bytes; at += sizeof one)
        if (memcmp(t->data + at, one, sizeof one) != 0)
            return false;
    return true;
}

static bool known_in_layer(struct tern_str name)
{
    const char *dot = memchr(name.ptr + 4, '.', name.len - 4); /* behind "blk.N" */
    struct tern_str rest = { dot + 1, name.len - (size_t)(dot + 1 - name.ptr) };

    for (int i = 0; i < TERN_BIND_N_MATRICES; i++)
        if (tern_str_is(rest, matrix_names[i]))
            return true;
    for (int i = 0; i < TERN_BIND_N_NORMS; i++)
        if (tern_str_is(rest, norm_names[i]))
            return true;
    return false;
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
        if (layer >= 0 && (layer < (int)first || layer >= (int)last || known_in_layer(t->name)))
            continue;
        if (layer < 0) {
            bool is_rope = tern_str_is(t->name, "rope_freqs.weight");

            if (is_rope
                    ? is_all_ones(t)
                    : !with_embd || tern_str_is(t->name, "token_embd.weight") ||
                          tern_str_is(t->name, "output.weight") || tern_str_is(t->name, "output_norm.weight"))
                continue;
        }
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.*s' is not part of a %s model that Tern can compute; ignoring it "
                         "would give wrong answers",
                         g->name, TERN_STR_ARGS(t->name), arch->name);
    }
    return TERN_OK;
}
