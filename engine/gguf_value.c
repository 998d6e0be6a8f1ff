/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed reading of GGUF metadata that the parser has already found to lie inside the file.
 */
#include "engine/gguf.h"

#include <string.h>

const struct tern_gguf_kv *tern_gguf_find(const struct tern_gguf *g, const char *key)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (tern_str_is(g->kv[i].key, key))
            return &g->kv[i];
    return NULL;
}

static const char *kind_name(uint32_t type)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };

    return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

static enum tern_status wrong_kind(const struct tern_gguf *g, const struct tern_gguf_kv *kv,
                                   const char *wanted, struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: metadata key '%.*s' is of type %s but must be %s", g->name,
                     TERN_STR_ARGS(kv->key), kind_name(kv->type), wanted);
}

/* The integer at p; false for other types.  A u64 beyond INT64_MAX shows up as negative. */
static bool load_int(uint32_t type, const uint8_t *p, int64_t *out)
{
    struct tern_cursor c;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    tern_cursor_init(&c, p, 8);
    switch (type) {
    case TERN_GGUF_U8: *out = tern_cursor_u8(&c, &u8) ? u8 : 0; return true;
    case TERN_GGUF_I8: *out = tern_cursor_u8(&c, &u8) ? (int8_t)u8 : 0; return true;
    case TERN_GGUF_U16: *out = tern_cursor_u16(&c, &u16) ? u16 : 0; return true;
    case TERN_GGUF_I16: *out = tern_cursor_u16(&c, &u16) ? (int16_t)u16 : 0; return true;
    case TERN_GGUF_U32: *out = tern_cursor_u32(&c, &u32) ? u32 : 0; return true;
    case TERN_GGUF_I32: *out = tern_cursor_u32(&c, &u32) ? (int32_t)u32 : 0; return true;
    case TERN_GGUF_U64:
    case TERN_GGUF_I64: *out = tern_cursor_u64(&c, &u64) ? (int64_t)u64 : 0; return true;
    default: return false;
    }
}

static bool load_float(uint32_t type, const uint8_t *p, double *out)
{
    struct tern_cursor c;
    float f = 0;
    int64_t i;

    tern_cursor_init(&c, p, 8);
    if (type == TERN_GGUF_F64)
        return tern_cursor_f64(&c, out);
    if (type == TERN_GGUF_F32) {
        if (tern_cursor_f32(&c, &f))
            *out = (double)f;
        return true;
    }
    if (!load_int(type, p, &i))
        return false;
    *out = type == TERN_GGUF_U64 ? (double)(uint64_t)i : (double)i;
    return true;
}

enum tern_status tern_gguf_u64(const struct tern_gguf *g, const char *key, uint64_t *out,
                               struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key);
    int64_t v;

    if (!kv)
        return TERN_END;
    if (!load_int(kv->type, kv->data, &v))
        return wrong_kind(g, kv, "a whole number", err);
    if (v < 0 && kv->type != TERN_GGUF_U64)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: metadata key '%s' is negative", g->name, key);
    *out = (uint64_t)v;
    return TERN_OK;
}

enum tern_status tern_gguf_f64(const struct tern_gguf *g, const char *key, double *out, struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key);

    if (!kv)
        return TERN_END;
    if (!load_float(kv->type, kv->data, out))
        return wrong_kind(g, kv, "a number", err);
    return TERN_OK;
}

enum tern_status tern_gguf_bool(const struct tern_gguf *g, const char *key, bool *out, struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key);

    if (!kv)
        return TERN_END;
    if (kv->type != TERN_GGUF_BOOL)
        return wrong_kind(g, kv, "true or false", err);
    if (kv->data[0] > 1)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: metadata key '%s' is neither true nor false", g->name,
                         key);
    *out = kv->data[0] == 1;
    return TERN_OK;
}

enum tern_status tern_gguf_string(const struct tern_gguf *g, const char *key, struct tern_str *out,
                                  struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key);
    struct tern_cursor c;

    if (!kv)
        return TERN_END;
    if (kv->type != TERN_GGUF_STRING)
        return wrong_kind(g, kv, "a string", err);
    tern_cursor_init(&c, kv->data, kv->bytes);
    TERN_BUG_IF(!tern_gguf_next_string(&c, out)); /* the parser has read it */
    return TERN_OK;
}

bool tern_gguf_next_string(struct tern_cursor *c, struct tern_str *out)
{
    uint64_t len;
    const uint8_t *p;

    if (!tern_cursor_u64(c, &len) || !tern_cursor_bytes(c, len, &p))
        return false;
    out->ptr = (const char *)p;
    out->len = (size_t)len;
    return true;
}

static const uint8_t *element(const struct tern_gguf_kv *kv, uint64_t i)
{
    TERN_BUG_IF(i >= kv->n);
    return kv->data + (size_t)i * (kv->bytes / (size_t)kv->n); /* numbers are all of one size */
}

int64_t tern_gguf_array_i64(const struct tern_gguf_kv *kv, uint64_t i)
{
    int64_t v = 0;

    (void)load_int(kv->elem_type, element(kv, i), &v);
    return v;
}

double tern_gguf_array_f64(const struct tern_gguf_kv *kv, uint64_t i)
{
    double v = 0;

    (void)load_float(kv->elem_type, element(kv, i), &v);
    return v;
}
