/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing the GGUF container: header, metadata records, tensor records, and the checks between them.
 *
 * Every count is compared with the bytes that are left before anything is allocated for it: a record has a
 * smallest size, so a file of n bytes cannot make us allocate more than a small multiple of n.
 */
#include "engine/gguf.h"

#include "engine/base/limits.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC             0x46554747u /* "GGUF" as a little-endian u32 */
#define DEFAULT_ALIGNMENT 32
#define MIN_ALIGNMENT     8     /* the format asks for a multiple of 8 */
#define MAX_KEY_BYTES     65535 /* the format's own limit */
#define MIN_KV_BYTES      13    /* key length, type, one byte of value */
#define MIN_TENSOR_BYTES  33    /* name length, one byte of name, dimensions, one dimension, type, offset */
#define NAME_BYTES        120   /* of the path, in sentences */

/* One parse: the file under construction, and where we are in it. */
struct parse {
    struct tern_gguf *g;
    struct tern_cursor c;
    struct tern_err *err;
};

static enum tern_status cut_short(struct parse *p, const char *where)
{
    return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                     "%s: the file ends inside %s (at byte %zu of %zu); get a whole copy of it", p->g->name,
                     where, tern_cursor_offset(&p->c), p->g->size);
}

/* -- metadata ---------------------------------------------------------------------------------- */

/* Bytes of a value of fixed size, 0 for strings, arrays and unknown types. */
static size_t fixed_bytes(uint32_t type)
{
    static const uint8_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

    return type < sizeof bytes ? bytes[type] : 0;
}

static enum tern_status skip_array(struct parse *p, struct tern_gguf_kv *kv)
{
    uint32_t elem;
    uint64_t n;
    size_t bytes;

    if (!tern_cursor_u32(&p->c, &elem) || !tern_cursor_u64(&p->c, &n))
        return cut_short(p, "an array's header");
    kv->elem_type = elem;
    kv->n = n;
    kv->data = p->c.at;
    if (elem == TERN_GGUF_STRING) {
        struct tern_str s;

        /* Each string takes at least 8 bytes, so a lying n ends at the end of the file. */
        for (uint64_t i = 0; i < n; i++)
            if (!tern_gguf_next_string(&p->c, &s))
                return cut_short(p, "an array of strings");
        return TERN_OK;
    }
    if (fixed_bytes(elem) == 0)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: metadata key '%.*s' is an array of type %u, which no array can hold",
                         p->g->name, TERN_STR_ARGS(kv->key), elem);
    if (!tern_mul_size((size_t)n, fixed_bytes(elem), &bytes) || !tern_cursor_skip(&p->c, bytes))
        return cut_short(p, "an array");
    return TERN_OK;
}

static enum tern_status read_kv(struct parse *p, struct tern_gguf_kv *kv)
{
    struct tern_str s;
    enum tern_status st = TERN_OK;

    if (!tern_gguf_next_string(&p->c, &kv->key) || !tern_cursor_u32(&p->c, &kv->type))
        return cut_short(p, "a metadata key");
    if (kv->key.len == 0 || kv->key.len > MAX_KEY_BYTES)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: a metadata key of %zu bytes, where 1 to %d are allowed", p->g->name,
                         kv->key.len, MAX_KEY_BYTES);
    kv->elem_type = kv->type;
    kv->n = 1;
    kv->data = p->c.at;
    if (kv->type == TERN_GGUF_STRING) {
        if (!tern_gguf_next_string(&p->c, &s))
            return cut_short(p, "a metadata string");
    } else if (kv->type == TERN_GGUF_ARRAY) {
        st = skip_array(p, kv);
    } else if (fixed_bytes(kv->type) == 0) {
        return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: metadata key '%.*s' has the unknown type %u",
                         p->g->name, TERN_STR_ARGS(kv->key), kv->type);
    } else if (!tern_cursor_skip(&p->c, fixed_bytes(kv->type))) {
        return cut_short(p, "a metadata value");
    }
    kv->bytes = (size_t)(p->c.at - kv->data);
    return st;
}

static int order(struct tern_str a, struct tern_str b)
{
    int c = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int by_key(const void *a, const void *b)
{
    return order(((const struct tern_gguf_kv *)a)->key, ((const struct tern_gguf_kv *)b)->key);
}

static enum tern_status refuse_twin_keys(struct parse *p)
{
    const struct tern_gguf *g = p->g;
    struct tern_gguf_kv *sorted;
    enum tern_status st = TERN_OK;

    if (g->n_kv < 2)
        return TERN_OK;
    sorted = malloc(g->n_kv * sizeof *sorted);
    if (!sorted)
        return TERN_FAIL(p->err, TERN_ERR_MEMORY, "%s: no memory for its metadata", g->name);
    memcpy(sorted, g->kv, g->n_kv * sizeof *sorted);
    qsort(sorted, g->n_kv, sizeof *sorted, by_key);
    for (size_t i = 1; !st && i < g->n_kv; i++)
        if (tern_str_eq(sorted[i - 1].key, sorted[i].key))
            st = TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: metadata key '%.*s' appears twice", g->name,
                           TERN_STR_ARGS(sorted[i].key));
    free(sorted);
    return st;
}

static enum tern_status read_metadata(struct parse *p, uint64_t n)
{
    struct tern_gguf *g = p->g;
    enum tern_status st;

    if (n > TERN_MAX_KEYS)
        return TERN_FAIL(p->err, TERN_ERR_LIMIT, "%s: announces %llu metadata keys, at most %d are allowed",
                         g->name, (unsigned long long)n, TERN_MAX_KEYS);
    if (n > tern_cursor_left(&p->c) / MIN_KV_BYTES)
        return cut_short(p, "the metadata it announces");
    g->kv = calloc((size_t)n + 1, sizeof *g->kv);
    if (!g->kv)
        return TERN_FAIL(p->err, TERN_ERR_MEMORY, "%s: no memory for its metadata", g->name);
    for (g->n_kv = 0; g->n_kv < n; g->n_kv++) {
        st = read_kv(p, &g->kv[g->n_kv]);
        if (st)
            return st;
    }
    return refuse_twin_keys(p);
}

static enum tern_status read_alignment(struct parse *p)
{
    struct tern_gguf *g = p->g;
    enum tern_status st;

    g->alignment = DEFAULT_ALIGNMENT;
    st = tern_gguf_u64(g, "general.alignment", &g->alignment, p->err);
    if (st && st != TERN_END)
        return st;
    if (g->alignment < MIN_ALIGNMENT || (g->alignment & (g->alignment - 1)) != 0)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: general.alignment is %llu, which is not a power of two from %d on", g->name,
                         (unsigned long long)g->alignment, MIN_ALIGNMENT);
    return TERN_OK;
}

/* -- tensors ----------------------------------------------------------------------------------- */

/* The record alone; data is left NULL and *offset is relative to the data section. */
static enum tern_status read_tensor(struct parse *p, struct tern_tensor *t, uint64_t *offset)
{
    const char *file = p->g->name;

    if (!tern_gguf_next_string(&p->c, &t->name) || !tern_cursor_u32(&p->c, &t->n_dims))
        return cut_short(p, "a tensor's record");
    if (t->name.len == 0 || t->name.len > TERN_MAX_TENSOR_NAME)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: a tensor's name of %zu bytes, where 1 to %d are allowed", file, t->name.len,
                         TERN_MAX_TENSOR_NAME);
    if (t->n_dims < 1 || t->n_dims > 4)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.*s' has %u dimensions, where 1 to 4 are allowed", file,
                         TERN_STR_ARGS(t->name), t->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d < t->n_dims && !tern_cursor_u64(&p->c, &t->ne[d]))
            return cut_short(p, "a tensor's record");
        if (t->ne[d] == 0)
            return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.*s' has a dimension of 0", file,
                             TERN_STR_ARGS(t->name));
    }
    if (!tern_cursor_u32(&p->c, &t->type) || !tern_cursor_u64(&p->c, offset))
        return cut_short(p, "a tensor's record");
    return TERN_OK;
}

static enum tern_status size_tensor(struct parse *p, struct tern_tensor *t)
{
    static const uint64_t some[4] = { 256, 16, 1, 1 };
    const char *file = p->g->name, *type = tern_gguf_type_name(t->type);
    size_t unused;

    if (!type)
        return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.*s' has type id %u, which Tern does not know", file,
                         TERN_STR_ARGS(t->name), t->type);
    if (tern_gguf_is_mxfp4(p->g, t))
        return TERN_FAIL(
            p->err, TERN_ERR_UNSUPPORTED,
            "%s: tensor '%.*s' has type MXFP4 (id %u, which is TL2 in files of bitnet.cpp alone); "
            "it is not ternary, and Tern cannot read it",
            file, TERN_STR_ARGS(t->name), t->type);
    if (!tern_gguf_tensor_bytes(t->type, some, &unused))
        return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED,
                         "%s: tensor '%.*s' has type %s (id %u), which Tern cannot read; convert the model "
                         "to I2_S, TQ1_0 or TQ2_0",
                         file, TERN_STR_ARGS(t->name), type, t->type);
    if (!tern_gguf_tensor_bytes(t->type, t->ne, &t->bytes))
        return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                         "%s: tensor '%.*s' cannot have the shape %llu x %llu x %llu x %llu in type %s", file,
                         TERN_STR_ARGS(t->name), (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                         (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], type);
    return TERN_OK;
}

/* The data section begins at the next multiple of the alignment behind the directory; offsets count from
 * there. */
static enum tern_status place_tensors(struct parse *p, const uint64_t *offsets)
{
    struct tern_gguf *g = p->g;
    size_t at = tern_cursor_offset(&p->c), pad = (size_t)(-at & (g->alignment - 1)), room;

    if (g->n_tensors == 0)
        return TERN_OK;
    if (pad > tern_cursor_left(&p->c))
        return cut_short(p, "the padding before its tensors");
    room = tern_cursor_left(&p->c) - pad;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct tern_tensor *t = &g->tensors[i];

        if (offsets[i] % g->alignment != 0)
            return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                             "%s: tensor '%.*s' begins at offset %llu, which is no multiple of %llu", g->name,
                             TERN_STR_ARGS(t->name), (unsigned long long)offsets[i],
                             (unsigned long long)g->alignment);
        if (offsets[i] > room || t->bytes > room - (size_t)offsets[i])
            return TERN_FAIL(p->err, TERN_ERR_FORMAT,
                             "%s: tensor '%.*s' (offset %llu, %zu bytes) ends behind the file's end; get a "
                             "whole copy of it",
                             g->name, TERN_STR_ARGS(t->name), (unsigned long long)offsets[i], t->bytes);
        t->data = p->c.at + pad + (size_t)offsets[i];
    }
    return TERN_OK;
}

static int index_by_name(const void *a, const void *b, void *tensors)
{
    const struct tern_tensor *t = tensors;

    return order(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static int index_by_place(const void *a, const void *b, void *tensors)
{
    const struct tern_tensor *x = (const struct tern_tensor *)tensors + *(const uint32_t *)a;
    const struct tern_tensor *y = (const struct tern_tensor *)tensors + *(const uint32_t *)b;

    return (x->data > y->data) - (x->data < y->data);
}

/* Tensors that share bytes would let a small file stand for a huge model; no writer makes them.  Leaves
 * by_name sorted. */
static enum tern_status refuse_overlaps_and_twins(struct parse *p)
{
    struct tern_gguf *g = p->g;

    g->by_name = malloc((g->n_tensors + 1) * sizeof *g->by_name);
    if (!g->by_name)
        return TERN_FAIL(p->err, TERN_ERR_MEMORY, "%s: no memory for its tensor directory", g->name);
    for (size_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = (uint32_t)i;
    qsort_r(g->by_name, g->n_tensors, sizeof *g->by_name, index_by_place, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct tern_tensor *a = &g->tensors[g->by_name[i - 1]], *b = &g->tensors[g->by_name[i]];

        if (a->bytes > (size_t)(b->data - a->data))
            return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensors '%.*s' and '%.*s' overlap", g->name,
                             TERN_STR_ARGS(a->name), TERN_STR_ARGS(b->name));
    }
    qsort_r(g->by_name, g->n_tensors, sizeof *g->by_name, index_by_name, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct tern_tensor *a = &g->tensors[g->by_name[i - 1]], *b = &g->tensors[g->by_name[i]];

        if (tern_str_eq(a->name, b->name))
            return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: tensor '%.*s' appears twice", g->name,
                             TERN_STR_ARGS(a->name));
    }
    return TERN_OK;
}

static enum tern_status read_tensors(struct parse *p, uint64_t n)
{
    struct tern_gguf *g = p->g;
    uint64_t *offsets;
    enum tern_status st = TERN_OK;

    if (n > TERN_MAX_TENSORS)
        return TERN_FAIL(p->err, TERN_ERR_LIMIT, "%s: announces %llu tensors, at most %d are allowed",
                         g->name, (unsigned long long)n, TERN_MAX_TENSORS);
    if (n > tern_cursor_left(&p->c) / MIN_TENSOR_BYTES)
        return cut_short(p, "the tensor directory it announces");
    offsets = calloc((size_t)n + 1, sizeof *offsets);
    g->tensors = calloc((size_t)n + 1, sizeof *g->tensors);
    if (!offsets || !g->tensors)
        st = TERN_FAIL(p->err, TERN_ERR_MEMORY, "%s: no memory for its tensor directory", g->name);
    while (!st && g->n_tensors < n) {
        struct tern_tensor *t = &g->tensors[g->n_tensors];

        st = read_tensor(p, t, &offsets[g->n_tensors]);
        if (!st)
            st = size_tensor(p, t);
        g->n_tensors++;
    }
    if (!st)
        st = place_tensors(p, offsets);
    free(offsets);
    return st ? st : refuse_overlaps_and_twins(p);
}

/* -- header ------------------------------------------------------------------------------------ */

static enum tern_status read_header(struct parse *p, uint64_t *n_tensors, uint64_t *n_kv)
{
    struct tern_gguf *g = p->g;
    uint32_t magic;

    if (!tern_cursor_u32(&p->c, &magic) || magic != MAGIC)
        return TERN_FAIL(p->err, TERN_ERR_FORMAT, "%s: not a GGUF file (it does not begin with \"GGUF\")",
                         g->name);
    if (!tern_cursor_u32(&p->c, &g->version))
        return cut_short(p, "its header");
    if (g->version == 0x02000000 || g->version == 0x03000000)
        return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED,
                         "%s: a big-endian GGUF file; convert it to little-endian", g->name);
    if (g->version != 2 && g->version != 3)
        return TERN_FAIL(p->err, TERN_ERR_UNSUPPORTED, "%s: GGUF version %u; versions 2 and 3 can be read",
                         g->name, g->version);
    if (!tern_cursor_u64(&p->c, n_tensors) || !tern_cursor_u64(&p->c, n_kv))
        return cut_short(p, "its header");
    return TERN_OK;
}

/* The end of a long path says more than its beginning. */
static char *short_name(const char *name)
{
    size_t n = strlen(name);
    char *s;

    if (n <= NAME_BYTES)
        return strdup(name);
    if (asprintf(&s, "...%s", name + n - NAME_BYTES) < 0)
        return NULL;
    return s;
}

static enum tern_status parse_all(struct tern_gguf *g, struct tern_err *err)
{
    struct parse p = { .g = g, .err = err };
    uint64_t n_tensors = 0, n_kv = 0;
    enum tern_status st;

    tern_cursor_init(&p.c, g->bytes, g->size);
    st = read_header(&p, &n_tensors, &n_kv);
    if (!st)
        st = read_metadata(&p, n_kv);
    if (!st)
        st = read_alignment(&p);
    if (!st)
        st = read_tensors(&p, n_tensors);
    return st;
}

/* -- exported ---------------------------------------------------------------------------------- */

enum tern_status tern_gguf_parse(const char *name, const void *bytes, size_t size, struct tern_gguf **out,
                                 struct tern_err *err)
{
    struct tern_gguf *g = calloc(1, sizeof *g);
    enum tern_status st;

    if (g)
        g->name = short_name(name);
    if (!g || !g->name) {
        free(g);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read a model file");
    }
    g->bytes = bytes;
    g->size = size;
    st = parse_all(g, err);
    if (st) {
        tern_gguf_close(&g);
        return st;
    }
    *out = g;
    return TERN_OK;
}

enum tern_status tern_gguf_open(const char *path, struct tern_gguf **out, struct tern_err *err)
{
    struct tern_mapping map, *maps = malloc(sizeof *maps);
    struct tern_gguf *g = NULL;
    struct tern_err lost;
    enum tern_status st;

    if (!maps)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read a model file");
    st = tern_mapping_open(path, &map, err);
    if (st) {
        free(maps);
        return st;
    }
    st = tern_gguf_parse(path, map.bytes, map.size, &g, err);
    /* A file that shrinks while we read it looks malformed; say what really happened. */
    if (tern_mapping_check(&map, &lost)) {
        st = lost.status;
        if (err)
            *err = lost;
    }
    if (st) {
        tern_gguf_close(&g);
        tern_mapping_close(&map);
        free(maps);
        return st;
    }
    *maps = map;
    g->maps = maps;
    g->n_maps = 1;
    *out = g;
    return TERN_OK;
}

void tern_gguf_close(struct tern_gguf **gp)
{
    struct tern_gguf *g = *gp;

    if (!g)
        return;
    for (size_t i = 0; i < g->n_maps; i++)
        tern_mapping_close(&g->maps[i]);
    free(g->maps);
    while (g->kept) {
        struct tern_gguf_kept *next = g->kept->next;

        free(g->kept);
        g->kept = next;
    }
    free(g->options);
    free(g->owned);
    free(g->by_name);
    free(g->tensors);
    free(g->kv);
    free(g->name);
    free(g);
    *gp = NULL;
}

enum tern_status tern_gguf_check(const struct tern_gguf *g, struct tern_err *err)
{
    for (size_t i = 0; i < g->n_maps; i++) {
        enum tern_status st = tern_mapping_check(&g->maps[i], err);

        if (st)
            return st;
    }
    return TERN_OK;
}

void tern_gguf_release_part(const struct tern_gguf *g, const struct tern_tensor *t, size_t from, size_t to)
{
    if (t->map < g->n_maps && from < to && to <= t->bytes)
        tern_mapping_release(&g->maps[t->map], (size_t)(t->data - g->maps[t->map].bytes) + from, to - from);
}

void tern_gguf_release(const struct tern_gguf *g, const struct tern_tensor *t)
{
    tern_gguf_release_part(g, t, 0, t->bytes);
}

void tern_gguf_release_all(const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_maps; i++)
        tern_mapping_release(&g->maps[i], 0, g->maps[i].size);
}

uint64_t tern_gguf_file_bytes(const struct tern_gguf *g)
{
    uint64_t all = 0;

    for (size_t i = 0; i < g->n_maps; i++)
        all += g->maps[i].size;
    return g->n_maps ? all : g->size;
}

enum tern_status tern_gguf_adopt(struct tern_gguf *g, struct tern_tensor *tensors, size_t n,
                                 struct tern_mapping *maps, size_t n_maps, struct tern_err *err)
{
    uint32_t *by_name = malloc((n + 1) * sizeof *by_name);

    if (!by_name)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the tensors of %s", g->name);
    for (size_t i = 0; i < n; i++)
        by_name[i] = (uint32_t)i;
    qsort_r(by_name, n, sizeof *by_name, index_by_name, tensors);
    for (size_t i = 1; i < n; i++) {
        struct tern_str name = tensors[by_name[i]].name;

        if (order(tensors[by_name[i - 1]].name, name) == 0) {
            enum tern_status st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s: there are two tensors '%.*s'", g->name,
                                            TERN_STR_ARGS(name));
            free(by_name);
            return st;
        }
    }
    free(g->by_name);
    free(g->tensors);
    g->by_name = by_name;
    g->tensors = tensors;
    g->n_tensors = n;
    if (maps != g->maps) {
        for (size_t i = 0; i < g->n_maps; i++)
            tern_mapping_close(&g->maps[i]);
        free(g->maps);
    }
    g->maps = maps;
    g->n_maps = n_maps;
    return TERN_OK;
}

const struct tern_tensor *tern_gguf_tensor(const struct tern_gguf *g, const char *name)
{
    struct tern_str wanted = { name, strlen(name) };
    size_t lo = 0, hi = g->n_tensors;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct tern_tensor *t = &g->tensors[g->by_name[mid]];
        int c = order(t->name, wanted);

        if (c == 0)
            return t;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
