/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays become tensors: see hf_tensors.h. */
#include "engine/hf_tensors.h"

#include "engine/hf_names.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct making {
    const char *folder;
    const struct tern_hf_config *c;
    const struct tern_hf_shards *s;
    struct tern_hf_tensors *out;
    struct tern_err *err;
};

static bool is_float(uint32_t type)
{
    return type == TERN_F32 || type == TERN_F16 || type == TERN_BF16;
}

/* -- packed matrices ------------------------------------------------------------------------------------- */

/* The one number of NAME_scale, for NAME.weight, and what a weight of 1 stands for by it. */
static enum tern_status read_scale(const struct making *m, const struct tern_hf_array *a, float *out)
{
    char name[TERN_MAX_TENSOR_NAME + 16];
    const struct tern_hf_array *s;
    float v;

    snprintf(name, sizeof name, "%s_scale", a->name);
    s = tern_hf_shards_find(m->s, name);
    if (!s)
        return TERN_FAIL(m->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' is packed but has no weight_scale",
                         m->folder, a->name);
    if (!is_float(s->type) || s->bytes != s->elem_bytes)
        return TERN_FAIL(m->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' is not one number of BF16, F16 or F32",
                         m->folder, name);
    tern_dequant_row((enum tern_dtype)s->type, s->data, 1, &v);
    if (!m->c->multiplies)
        v = 1.0f / v;
    if (!(v > 0 && isfinite(v)))
        return TERN_FAIL(m->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.80s' makes the scale %g of its matrix, which is no positive number",
                         m->folder, name, (double)v);
    *out = v;
    return TERN_OK;
}

/* Four rows lie in each row of bytes; the last of them may be short. */
static enum tern_status unpack_shape(const struct making *m, const struct tern_hf_array *a,
                                     enum tern_hf_matrix matrix, struct tern_tensor *t)
{
    uint64_t rows = tern_hf_matrix_rows(m->c, matrix);

    if (a->shape[0] != (rows + 3) / 4)
        return TERN_FAIL(m->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.80s' has %llu packed rows; the configuration asks for %llu rows, "
                         "four in one",
                         m->folder, a->name, (unsigned long long)a->shape[0], (unsigned long long)rows);
    t->type = TERN_TYPE_HF_PACKED;
    t->ne[1] = rows;
    return read_scale(m, a, &t->view.scale);
}

static enum tern_status view_matrix(const struct making *m, const struct tern_hf_array *a,
                                    enum tern_hf_matrix matrix, struct tern_tensor *t)
{
    char scale[TERN_MAX_TENSOR_NAME + 16];

    if (a->n_dims != 2)
        return TERN_FAIL(m->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' has %u dimensions where a matrix has 2",
                         m->folder, a->name, a->n_dims);
    /* GGUFs of this family have rows of q and k in another order, for another form of the same RoPE. */
    if (m->c->family == TERN_HF_LLAMA && matrix == TERN_HF_Q)
        t->view.n_heads = m->c->n_heads;
    if (m->c->family == TERN_HF_LLAMA && matrix == TERN_HF_K)
        t->view.n_heads = m->c->n_kv_heads;
    if (t->view.n_heads && t->ne[1] != tern_hf_matrix_rows(m->c, matrix) && strcmp(a->dtype, "U8") != 0)
        return TERN_FAIL(m->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.80s' has %llu rows where the configuration asks for %llu", m->folder,
                         a->name, (unsigned long long)t->ne[1],
                         (unsigned long long)tern_hf_matrix_rows(m->c, matrix));
    if (strcmp(a->dtype, "U8") == 0)
        return unpack_shape(m, a, matrix, t);
    snprintf(scale, sizeof scale, "%s_scale", a->name);
    if (tern_hf_shards_find(m->s, scale))
        return TERN_FAIL(m->err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.80s' is %s and has a weight_scale; Tern knows that of packed U8 only",
                         m->folder, a->name, a->dtype);
    t->view.absmean = is_float(t->type) && (m->c->is_master || m->out->has_input_norms);
    return TERN_OK;
}

/* -- all ------------------------------------------------------------------------------------------------- */

/* The same array, its dimensions in GGUF's order. */
static struct tern_tensor plain_tensor(const struct tern_hf_array *a)
{
    struct tern_tensor t = { .type = a->type,
                             .n_dims = a->n_dims ? a->n_dims : 1,
                             .ne = { 1, 1, 1, 1 },
                             .data = a->data,
                             .bytes = a->bytes,
                             .map = a->map };

    for (uint32_t d = 0; d < a->n_dims; d++)
        t.ne[d] = a->shape[a->n_dims - 1 - d];
    return t;
}

static enum tern_status add(struct making *m, const struct tern_hf_array *a, const struct tern_hf_place *p)
{
    struct tern_hf_tensors *out = m->out;
    struct tern_tensor t = plain_tensor(a);
    size_t n = strlen(p->name);
    enum tern_status st = TERN_OK;

    if (p->part == TERN_HF_MATRIX)
        st = view_matrix(m, a, p->matrix, &t);
    else if (t.type == TERN_HF_NO_TYPE)
        st = TERN_FAIL(m->err, TERN_ERR_UNSUPPORTED, "%s: tensor '%.80s' is %s, which Tern cannot read there",
                       m->folder, a->name, a->dtype);
    if (st)
        return st;
    if (t.type == TERN_HF_NO_TYPE)
        return TERN_FAIL(m->err, TERN_ERR_UNSUPPORTED,
                         "%s: matrix '%.80s' is %s; Tern reads U8 (packed), BF16, F16 and F32", m->folder,
                         a->name, a->dtype);
    t.view.plus_one = p->part == TERN_HF_NORM && m->c->family == TERN_HF_GEMMA3;
    if (p->part == TERN_HF_MATRIX && out->matrix_type == TERN_HF_NO_TYPE)
        out->matrix_type = t.type;
    memcpy(out->names + out->names_bytes, p->name, n);
    out->names_bytes += n;
    t.name.len = n;
    out->tensors[out->n++] = t;
    return TERN_OK;
}

/* Nobody but BitNet puts a norm before each matrix. */
static bool has_input_norms(const struct making *m)
{
    struct tern_hf_place p = { .part = TERN_HF_NOTHING };

    for (size_t i = 0; p.part != TERN_HF_INPUT_NORM && i < m->s->n; i++)
        tern_hf_place(m->c->family, m->s->arrays[i].name, &p);
    return p.part == TERN_HF_INPUT_NORM;
}

static enum tern_status add_all(struct making *m, bool *has_head)
{
    struct tern_hf_place p;
    enum tern_status st = TERN_OK;

    for (size_t i = 0; !st && i < m->s->n; i++) {
        tern_hf_place(m->c->family, m->s->arrays[i].name, &p);
        if (p.part == TERN_HF_SCALE || p.part == TERN_HF_NOTHING ||
            (p.part == TERN_HF_HEAD && m->c->must_be_tied))
            continue;
        *has_head |= p.part == TERN_HF_HEAD;
        st = add(m, &m->s->arrays[i], &p);
    }
    return st;
}

enum tern_status tern_hf_tensors_make(const char *name, const struct tern_hf_config *c,
                                      const struct tern_hf_shards *s, struct tern_hf_tensors *out,
                                      struct tern_err *err)
{
    struct tern_hf_tensors t = { .matrix_type = TERN_HF_NO_TYPE };
    struct making m = { .folder = name, .c = c, .s = s, .out = &t, .err = err };
    bool has_head = false;
    enum tern_status st;

    t.tensors = calloc(s->n + 1, sizeof *t.tensors);
    t.names = calloc(s->n + 1, TERN_MAX_TENSOR_NAME);
    t.has_input_norms = has_input_norms(&m);
    if (!t.tensors || !t.names)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "%s: no memory for its tensor directory", name);
    else
        st = add_all(&m, &has_head);
    if (!st && !has_head && !c->may_be_tied)
        st = TERN_FAIL(err, TERN_ERR_FORMAT,
                       "%s: 'tie_word_embeddings' is false, but there is no lm_head.weight; get all files of "
                       "the folder",
                       name);
    if (st)
        tern_hf_tensors_free(&t);
    else
        *out = t;
    return st;
}

void tern_hf_tensors_free(struct tern_hf_tensors *t)
{
    free(t->tensors);
    free(t->names);
    memset(t, 0, sizeof *t);
}
