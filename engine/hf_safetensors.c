/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading safetensors: see hf_safetensors.h.
 *
 * The header's length is limited before its JSON is read, which bounds all memory this takes.
 */
#include "engine/hf_safetensors.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/base/mem.h"
#include "engine/gguf.h"
#include "engine/hf_json.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t type; /* of ggml */
    size_t bytes;
} dtypes[] = {
    { "F32", 0, 4 },
    { "F16", 1, 2 },
    { "BF16", 30, 2 },
    { "U8", TERN_HF_NO_TYPE, 1 },
    { "I8", 24, 1 },
    { "I16", 25, 2 },
    { "I32", 26, 4 },
    { "I64", 27, 8 },
    { "F64", 28, 8 },
    { "BOOL", TERN_HF_NO_TYPE, 1 },
    { "U16", TERN_HF_NO_TYPE, 2 },
    { "U32", TERN_HF_NO_TYPE, 4 },
    { "U64", TERN_HF_NO_TYPE, 8 },
    { "F8_E4M3", TERN_HF_NO_TYPE, 1 },
    { "F8_E5M2", TERN_HF_NO_TYPE, 1 },
};

struct parse {
    const char *file;
    const uint8_t *data; /* behind the header */
    size_t size;         /* of the data */
    struct tern_err *err;
};

static enum tern_status read_dtype(const struct parse *p, const json_t *record, struct tern_hf_array *a)
{
    const char *name = tern_hf_json_text(record, "dtype");

    if (!name)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' has no dtype", p->file, a->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            a->dtype = dtypes[i].name;
            a->type = dtypes[i].type;
            a->elem_bytes = dtypes[i].bytes;
            return TERN_OK;
        }
    return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED, "%s: tensor '%.80s' has the dtype '%.20s'; Tern reads %s",
                     p->file, a->name, name, "BF16, F16, F32, and U8 of packed ternary weights");
}

/* Shape, and the bytes that follow from it. */
static enum tern_status read_shape(const struct parse *p, const json_t *record, struct tern_hf_array *a)
{
    const json_t *shape = json_object_get(record, "shape");
    size_t n = json_array_size(shape);

    if (!json_is_array(shape))
        return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' has no shape", p->file, a->name);
    if (n > 4)
        return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.80s' has %zu dimensions, at most 4 are allowed", p->file, a->name, n);
    a->n_dims = (uint32_t)n;
    a->bytes = a->elem_bytes;
    for (size_t d = 0; d < 4; d++) {
        a->shape[d] = 1;
        if (d >= n)
            continue;
        if (!tern_hf_json_whole(json_array_get(shape, d), UINT64_MAX, &a->shape[d]) || a->shape[d] == 0)
            return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                             "%s: tensor '%.80s' has a dimension that is no positive whole number", p->file,
                             a->name);
        if (!tern_mul_size(a->bytes, (size_t)a->shape[d], &a->bytes))
            return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' is too large for any memory",
                             p->file, a->name);
    }
    return TERN_OK;
}

static enum tern_status read_place(const struct parse *p, const json_t *record, struct tern_hf_array *a)
{
    const json_t *offsets = json_object_get(record, "data_offsets");
    uint64_t begin, end;

    if (json_array_size(offsets) != 2 || !tern_hf_json_whole(json_array_get(offsets, 0), SIZE_MAX, &begin) ||
        !tern_hf_json_whole(json_array_get(offsets, 1), SIZE_MAX, &end) || begin > end)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.80s' does not say where it lies", p->file,
                         a->name);
    if (end > p->size)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.80s' ends at byte %llu of %zu bytes of data; get a whole copy of the "
                         "file",
                         p->file, a->name, (unsigned long long)end, p->size);
    if (end - begin != a->bytes)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.80s' takes %llu bytes where its shape and dtype %s need %zu", p->file,
                         a->name, (unsigned long long)(end - begin), a->dtype, a->bytes);
    a->data = p->data + begin;
    return TERN_OK;
}

static enum tern_status read_array(const struct parse *p, const char *name, const json_t *record,
                                   struct tern_hf_array *a)
{
    size_t n = strlen(name);
    enum tern_status st;

    if (n == 0 || n > TERN_MAX_TENSOR_NAME)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: a tensor's name of %zu bytes, where 1 to %d are allowed", p->file, n,
                         TERN_MAX_TENSOR_NAME);
    a->name = name;
    st = read_dtype(p, record, a);
    if (!st)
        st = read_shape(p, record, a);
    return st ? st : read_place(p, record, a);
}

static int by_place(const void *a, const void *b)
{
    const struct tern_hf_array *x = a, *y = b;

    return (x->data > y->data) - (x->data < y->data);
}

static enum tern_status read_arrays(const struct parse *p, json_t *header, struct tern_safetensors *s)
{
    size_t n = json_object_size(header);
    const char *name;
    json_t *record;
    enum tern_status st;

    if (n > TERN_MAX_TENSORS)
        return TERN_FAIL(p->err, TERN_ERR_LIMIT, "%s: has %zu tensors, at most %d are allowed", p->file, n,
                         TERN_MAX_TENSORS);
    s->arrays = calloc(n + 1, sizeof *s->arrays);
    if (!s->arrays)
        return TERN_FAIL(p->err, TERN_ERR_MEMORY, "%s: no memory for its tensor directory", p->file);
    json_object_foreach(header, name, record)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        st = read_array(p, name, record, &s->arrays[s->n]);
        if (st)
            return st;
        s->n++;
    }
    qsort(s->arrays, s->n, sizeof *s->arrays, by_place);
    for (size_t i = 1; i < s->n; i++)
        if (s->arrays[i - 1].bytes > (size_t)(s->arrays[i].data - s->arrays[i - 1].data))
            return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensors '%.80s' and '%.80s' overlap", p->file,
                             s->arrays[i - 1].name, s->arrays[i].name);
    return TERN_OK;
}

enum tern_status tern_safetensors_parse(const char *name, const void *bytes, size_t size,
                                        struct tern_safetensors *out, struct tern_err *err)
{
    struct tern_safetensors s = { .n = 0 };
    struct parse p = { .file = name, .err = err };
    struct tern_cursor c;
    uint64_t n = 0;
    const uint8_t *text;
    json_t *header = NULL;
    enum tern_status st;

    tern_cursor_init(&c, bytes, size);
    if (!tern_cursor_u64(&c, &n) || n < 2)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: not a safetensors file (it has no header)", name);
    if (n > TERN_MAX_HF_HEADER)
        return TERN_FAIL(err, TERN_ERR_LIMIT,
                         "%s: announces a header of %llu bytes, at most %d are allowed; it may not be a "
                         "safetensors file",
                         name, (unsigned long long)n, TERN_MAX_HF_HEADER);
    if (!tern_cursor_bytes(&c, n, &text))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the file ends inside its header; get a whole copy of it",
                         name);
    st = tern_hf_json_parse(name, text, (size_t)n, &header, err);
    if (st)
        return st;
    p.data = c.at;
    p.size = tern_cursor_left(&c);
    s.header = header;
    s.header_bytes = (size_t)n;
    st = read_arrays(&p, header, &s);
    if (st)
        tern_safetensors_free(&s);
    else
        *out = s;
    return st;
}

void tern_safetensors_free(struct tern_safetensors *s)
{
    json_decref(s->header);
    free(s->arrays);
    memset(s, 0, sizeof *s);
}
