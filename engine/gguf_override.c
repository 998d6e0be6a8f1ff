/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata from the command line: see gguf_override.h. */
#include "engine/gguf_override.h"

#include "engine/base/limits.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEY_BYTES   255
#define MAX_VALUE_BYTES 65535

/* One text in parts. */
struct override {
    struct tern_str key;
    uint32_t type;     /* of enum tern_gguf_type */
    uint8_t number[8]; /* the value but for strings */
    struct tern_str string;
};

static bool parse_int(const char *text, struct override *o)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    memcpy(o->number, &(int64_t){ v }, sizeof o->number);
    return ((text[0] >= '0' && text[0] <= '9') || text[0] == '-') && errno == 0 && *end == '\0' &&
           end[-1] != '-';
}

static bool parse_float(const char *text, struct override *o)
{
    char *end;
    double v = strtod(text, &end);

    memcpy(o->number, &v, sizeof o->number);
    return *text != '\0' && (unsigned char)*text > ' ' && *end == '\0' && isfinite(v);
}

static bool parse_bool(const char *text, struct override *o)
{
    o->number[0] = strcmp(text, "true") == 0;
    return o->number[0] || strcmp(text, "false") == 0;
}

static bool parse_string(const char *text, struct override *o)
{
    o->string = (struct tern_str){ text, strlen(text) };
    return o->string.len <= MAX_VALUE_BYTES;
}

static enum tern_status parse(const char *text, struct override *out, struct tern_err *err)
{
    static const struct {
        const char *name;
        uint32_t type;
        bool (*parse)(const char *text, struct override *o);
    } types[] = { { "int:", TERN_GGUF_I64, parse_int },
                  { "float:", TERN_GGUF_F64, parse_float },
                  { "bool:", TERN_GGUF_BOOL, parse_bool },
                  { "str:", TERN_GGUF_STRING, parse_string } };
    struct override o = { .key = { text, strcspn(text, "=") } };
    const char *type = text + o.key.len + 1;

    if (text[o.key.len] == '=' && o.key.len > 0 && o.key.len <= MAX_KEY_BYTES)
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
            size_t n = strlen(types[i].name);

            o.type = types[i].type;
            if (strncmp(type, types[i].name, n) == 0 && types[i].parse(type + n, &o)) {
                *out = o;
                return TERN_OK;
            }
        }
    return TERN_FAIL(
        err, TERN_ERR_USAGE,
        "--override-kv: '%.120s' is not KEY=TYPE:VALUE with TYPE int, float, bool (true or false) "
        "or str, such as bitnet.rope.freq_base=float:500000",
        text);
}

enum tern_status tern_override_check(const char *text, struct tern_err *err)
{
    struct override o;

    return parse(text, &o, err);
}

/* The record of that name, or a new one at the end; NULL without memory. */
static struct tern_gguf_kv *place(struct tern_gguf *g, struct tern_str key)
{
    struct tern_gguf_kv *kv;

    for (size_t i = 0; i < g->n_kv; i++)
        if (tern_str_eq(g->kv[i].key, key))
            return &g->kv[i];
    kv = realloc(g->kv, (g->n_kv + 1) * sizeof *kv);
    if (!kv)
        return NULL;
    g->kv = kv;
    memset(&kv[g->n_kv], 0, sizeof *kv);
    return &kv[g->n_kv++];
}

/* Where the bytes of a value live: as long as g. */
static uint8_t *keep(struct tern_gguf *g, size_t bytes)
{
    struct tern_gguf_kept *k = malloc(sizeof *k + bytes);

    if (!k)
        return NULL;
    k->next = g->kept;
    g->kept = k;
    return k->bytes;
}

static enum tern_status apply(struct tern_gguf *g, const struct override *o, struct tern_err *err)
{
    const uint64_t len = o->string.len;
    size_t bytes = o->type == TERN_GGUF_STRING ? sizeof len + (size_t)len : o->type == TERN_GGUF_BOOL ? 1 : 8;
    uint8_t *value = keep(g, bytes);
    struct tern_gguf_kv *kv = value ? place(g, o->key) : NULL;

    if (!kv)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "%s: no memory for its metadata", g->name);
    if (o->type == TERN_GGUF_STRING) {
        memcpy(value, &len, sizeof len);
        memcpy(value + sizeof len, o->string.ptr, o->string.len);
    } else {
        memcpy(value, o->number, bytes);
    }
    *kv = (struct tern_gguf_kv){
        .key = o->key, .type = o->type, .elem_type = o->type, .n = 1, .data = value, .bytes = bytes
    };
    return TERN_OK;
}

enum tern_status tern_override_apply(struct tern_gguf *g, const char *const *texts, uint32_t n,
                                     struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0; !st && i < n; i++) {
        struct override o;

        st = parse(texts[i], &o, err);
        if (!st)
            st = apply(g, &o, err);
    }
    return st;
}
