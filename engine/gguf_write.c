/* SPDX-License-Identifier: Apache-2.0 */
/* Writing GGUF files: see gguf_write.h. */
#include "engine/gguf_write.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 24 /* magic, version, two counts */

struct bytes {
    uint8_t *at;
    size_t n, cap;
    bool failed; /* no memory */
};

struct tern_gguf_writer {
    FILE *f;
    const char *name;
    uint32_t alignment;
    struct bytes kv, records;
    uint64_t n_kv, n_tensors;
    uint64_t offset;     /* of the next tensor, in the data section */
    size_t *sizes;       /* [n_tensors] */
    uint64_t i_tensor;   /* being written */
    size_t written;      /* of that tensor */
    struct tern_err err; /* the first failure */
};

static void add(struct bytes *b, const void *p, size_t n)
{
    if (b->failed)
        return;
    if (n > b->cap - b->n) {
        size_t cap = (b->cap + n) * 2;
        uint8_t *at = realloc(b->at, cap);

        if (!at) {
            b->failed = true;
            return;
        }
        b->at = at;
        b->cap = cap;
    }
    if (n)
        memcpy(b->at + b->n, p, n);
    b->n += n;
}

static void add_u32(struct bytes *b, uint32_t v)
{
    const uint8_t p[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    add(b, p, sizeof p);
}

static void add_u64(struct bytes *b, uint64_t v)
{
    add_u32(b, (uint32_t)v);
    add_u32(b, (uint32_t)(v >> 32));
}

static void add_string(struct bytes *b, const char *s, size_t n)
{
    add_u64(b, n);
    add(b, s, n);
}

enum tern_status tern_gguf_writer_new(FILE *f, const char *name, uint32_t alignment,
                                      struct tern_gguf_writer **out, struct tern_err *err)
{
    struct tern_gguf_writer *w = calloc(1, sizeof *w);

    if (!w)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to write %s", name);
    w->f = f;
    w->name = name;
    w->alignment = alignment;
    if (alignment != 32)
        tern_gguf_put_u32(w, "general.alignment", alignment);
    *out = w;
    return TERN_OK;
}

void tern_gguf_writer_free(struct tern_gguf_writer **wp)
{
    struct tern_gguf_writer *w = *wp;

    if (w) {
        free(w->kv.at);
        free(w->records.at);
        free(w->sizes);
        free(w);
    }
    *wp = NULL;
}

enum tern_status tern_gguf_writer_status(const struct tern_gguf_writer *w, struct tern_err *err)
{
    if (w->err.status) {
        *err = w->err;
        return err->status;
    }
    if (w->kv.failed || w->records.failed)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the metadata of %s", w->name);
    return TERN_OK;
}

static void begin_kv(struct tern_gguf_writer *w, const char *key, uint32_t type)
{
    add_string(&w->kv, key, strlen(key));
    add_u32(&w->kv, type);
    w->n_kv++;
}

void tern_gguf_put_u32(struct tern_gguf_writer *w, const char *key, uint32_t v)
{
    begin_kv(w, key, TERN_GGUF_U32);
    add_u32(&w->kv, v);
}

void tern_gguf_put_f32(struct tern_gguf_writer *w, const char *key, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    begin_kv(w, key, TERN_GGUF_F32);
    add_u32(&w->kv, bits);
}

void tern_gguf_put_bool(struct tern_gguf_writer *w, const char *key, bool v)
{
    uint8_t b = v;

    begin_kv(w, key, TERN_GGUF_BOOL);
    add(&w->kv, &b, 1);
}

void tern_gguf_put_string(struct tern_gguf_writer *w, const char *key, const char *v)
{
    begin_kv(w, key, TERN_GGUF_STRING);
    add_string(&w->kv, v, strlen(v));
}

void tern_gguf_put_bools(struct tern_gguf_writer *w, const char *key, const bool *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_BOOL);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++) {
        uint8_t b = v[i];

        add(&w->kv, &b, 1);
    }
}

void tern_gguf_put_i32s(struct tern_gguf_writer *w, const char *key, const int32_t *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_I32);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++)
        add_u32(&w->kv, (uint32_t)v[i]);
}

void tern_gguf_put_f32s(struct tern_gguf_writer *w, const char *key, const float *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_F32);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &v[i], sizeof bits);
        add_u32(&w->kv, bits);
    }
}

void tern_gguf_put_strings(struct tern_gguf_writer *w, const char *key, char *const *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_STRING);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++)
        add_string(&w->kv, v[i], strlen(v[i]));
}

uint64_t tern_gguf_put_room(struct tern_gguf_writer *w, const char *key, uint32_t elem_type, size_t size,
                            size_t n)
{
    static const uint8_t zeros[256];

    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, elem_type);
    add_u64(&w->kv, n);
    for (size_t left = n * size, part; left; left -= part) {
        part = left < sizeof zeros ? left : sizeof zeros;
        add(&w->kv, zeros, part);
    }
    return HEAD_BYTES + w->kv.n - n * size;
}

void tern_gguf_put_kv(struct tern_gguf_writer *w, const struct tern_gguf_kv *kv)
{
    add_string(&w->kv, kv->key.ptr, kv->key.len);
    add_u32(&w->kv, kv->type);
    if (kv->type == TERN_GGUF_ARRAY) {
        add_u32(&w->kv, kv->elem_type);
        add_u64(&w->kv, kv->n);
    }
    add(&w->kv, kv->data, kv->bytes);
    w->n_kv++;
}

void tern_gguf_add_tensor(struct tern_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                          const uint64_t *ne)
{
    uint64_t full[4] = { 1, 1, 1, 1 };
    size_t bytes, *sizes;

    if (w->err.status)
        return;
    add_string(&w->records, name, strlen(name));
    add_u32(&w->records, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        full[d] = ne[d];
        add_u64(&w->records, ne[d]);
    }
    if (!tern_gguf_tensor_bytes(type, full, &bytes)) {
        (void)TERN_FAIL(&w->err, TERN_ERR_USAGE, "tensor %s of %llu x %llu cannot be of type %s", name,
                        (unsigned long long)full[0], (unsigned long long)full[1],
                        tern_gguf_type_name(type) ? tern_gguf_type_name(type) : "that number");
        return;
    }
    add_u32(&w->records, type);
    add_u64(&w->records, w->offset);
    w->offset += tern_round_up(bytes, w->alignment);
    sizes = realloc(w->sizes, (size_t)(w->n_tensors + 1) * sizeof *w->sizes);
    if (!sizes) {
        w->records.failed = true;
        return;
    }
    w->sizes = sizes;
    w->sizes[w->n_tensors++] = bytes;
}

uint64_t tern_gguf_writer_bytes(const struct tern_gguf_writer *w)
{
    return tern_round_up(HEAD_BYTES + w->kv.n + w->records.n, w->alignment) + w->offset;
}

static bool has_failed(const struct tern_gguf_writer *w)
{
    return w->err.status || w->kv.failed || w->records.failed;
}

static void put(struct tern_gguf_writer *w, const void *p, size_t n)
{
    if (!n || has_failed(w))
        return;
    errno = 0;
    if (fwrite(p, 1, n, w->f) != n)
        (void)TERN_FAIL_SYS(&w->err, TERN_ERR_IO, errno, "cannot write %s: %s", w->name,
                            errno ? strerror(errno) : "the disk is full");
}

static void pad(struct tern_gguf_writer *w, size_t n)
{
    static const uint8_t zeros[256];

    while (n) {
        size_t part = n < sizeof zeros ? n : sizeof zeros;

        put(w, zeros, part);
        n -= part;
    }
}

void tern_gguf_begin(struct tern_gguf_writer *w)
{
    struct bytes head = { NULL, 0, 0, false };
    size_t n = HEAD_BYTES + w->kv.n + w->records.n;

    add(&head, "GGUF", 4);
    add_u32(&head, 3);
    add_u64(&head, w->n_tensors);
    add_u64(&head, w->n_kv);
    w->kv.failed |= head.failed;
    put(w, head.at, head.n);
    put(w, w->kv.at, w->kv.n);
    put(w, w->records.at, w->records.n);
    pad(w, tern_round_up(n, w->alignment) - n);
    free(head.at);
}

void tern_gguf_write(struct tern_gguf_writer *w, const void *bytes, size_t n)
{
    put(w, bytes, n);
    w->written += n;
}

void tern_gguf_end_tensor(struct tern_gguf_writer *w)
{
    size_t size;

    if (has_failed(w))
        return;
    TERN_BUG_IF(w->i_tensor >= w->n_tensors || w->written != w->sizes[w->i_tensor]);
    size = w->sizes[w->i_tensor++];
    pad(w, tern_round_up(size, w->alignment) - size);
    w->written = 0;
}

enum tern_status tern_gguf_finish(struct tern_gguf_writer **wp, struct tern_err *err)
{
    struct tern_gguf_writer *w = *wp;
    enum tern_status st;

    TERN_BUG_IF(!has_failed(w) && w->i_tensor != w->n_tensors);
    if (!has_failed(w) && fflush(w->f) != 0)
        (void)TERN_FAIL_SYS(&w->err, TERN_ERR_IO, errno, "cannot write %s: %s", w->name, strerror(errno));
    st = tern_gguf_writer_status(w, err);
    tern_gguf_writer_free(wp);
    return st;
}
