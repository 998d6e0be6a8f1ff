/* SPDX-License-Identifier: Apache-2.0 */
#include "lab/gguf_write.h"

#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    uint8_t *at;
    size_t n, cap;
};

struct gguf_writer {
    FILE *f;
    uint32_t alignment;
    struct bytes kv, records;
    uint64_t n_kv, n_tensors;
    uint64_t offset;   /* of the next tensor, in the data section */
    size_t *sizes;     /* [n_tensors] */
    uint64_t i_tensor; /* being written */
    size_t written;    /* of that tensor */
};

void lab_die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "make_model: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

void *lab_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (!p)
        lab_die("no memory for %zu bytes", n);
    return p;
}

static void add(struct bytes *b, const void *p, size_t n)
{
    if (n > b->cap - b->n) {
        b->cap = (b->cap + n) * 2;
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            lab_die("no memory for %zu bytes", b->cap);
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

struct gguf_writer *gguf_writer_new(FILE *f, uint32_t alignment)
{
    struct gguf_writer *w = lab_alloc(sizeof *w);

    memset(w, 0, sizeof *w);
    w->f = f;
    w->alignment = alignment;
    return w;
}

static void begin_kv(struct gguf_writer *w, const char *key, uint32_t type)
{
    add_string(&w->kv, key, strlen(key));
    add_u32(&w->kv, type);
    w->n_kv++;
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    begin_kv(w, key, TERN_GGUF_U32);
    add_u32(&w->kv, v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    begin_kv(w, key, TERN_GGUF_F32);
    add_u32(&w->kv, bits);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    uint8_t b = v;

    begin_kv(w, key, TERN_GGUF_BOOL);
    add(&w->kv, &b, 1);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *v)
{
    begin_kv(w, key, TERN_GGUF_STRING);
    add_string(&w->kv, v, strlen(v));
}

void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_I32);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++)
        add_u32(&w->kv, (uint32_t)v[i]);
}

void gguf_put_strings(struct gguf_writer *w, const char *key, char *const *v, uint64_t n)
{
    begin_kv(w, key, TERN_GGUF_ARRAY);
    add_u32(&w->kv, TERN_GGUF_STRING);
    add_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++)
        add_string(&w->kv, v[i], strlen(v[i]));
}

void gguf_put_kv(struct gguf_writer *w, const struct tern_gguf_kv *kv)
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

void gguf_add_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *ne)
{
    uint64_t full[4] = { 1, 1, 1, 1 };
    size_t bytes;

    add_string(&w->records, name, strlen(name));
    add_u32(&w->records, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        full[d] = ne[d];
        add_u64(&w->records, ne[d]);
    }
    if (!tern_gguf_tensor_bytes(type, full, &bytes))
        lab_die("tensor %s of %llu x %llu cannot be of type %u", name, (unsigned long long)full[0],
                (unsigned long long)full[1], type);
    add_u32(&w->records, type);
    add_u64(&w->records, w->offset);
    w->offset += tern_round_up(bytes, w->alignment);
    w->sizes = realloc(w->sizes, (size_t)(w->n_tensors + 1) * sizeof *w->sizes);
    if (!w->sizes)
        lab_die("no memory for the directory");
    w->sizes[w->n_tensors++] = bytes;
}

static void put(struct gguf_writer *w, const void *p, size_t n)
{
    if (n && fwrite(p, 1, n, w->f) != n)
        lab_die("cannot write the model (is the disk full?)");
}

static void pad(struct gguf_writer *w, size_t n)
{
    static const uint8_t zeros[256];

    while (n) {
        size_t part = n < sizeof zeros ? n : sizeof zeros;

        put(w, zeros, part);
        n -= part;
    }
}

void gguf_begin(struct gguf_writer *w)
{
    struct bytes head = { NULL, 0, 0 };
    size_t n;

    if (w->alignment != 32) {
        begin_kv(w, "general.alignment", TERN_GGUF_U32);
        add_u32(&w->kv, w->alignment);
    }
    add(&head, "GGUF", 4);
    add_u32(&head, 3);
    add_u64(&head, w->n_tensors);
    add_u64(&head, w->n_kv);
    put(w, head.at, head.n);
    put(w, w->kv.at, w->kv.n);
    put(w, w->records.at, w->records.n);
    n = head.n + w->kv.n + w->records.n;
    pad(w, tern_round_up(n, w->alignment) - n);
    free(head.at);
}

void gguf_write(struct gguf_writer *w, const void *bytes, size_t n)
{
    put(w, bytes, n);
    w->written += n;
}

void gguf_end_tensor(struct gguf_writer *w)
{
    size_t size;

    if (w->i_tensor >= w->n_tensors || w->written != w->sizes[w->i_tensor])
        lab_die("tensor %llu of %llu: %zu bytes written, which is not its size",
                (unsigned long long)w->i_tensor, (unsigned long long)w->n_tensors, w->written);
    size = w->sizes[w->i_tensor++];
    pad(w, tern_round_up(size, w->alignment) - size);
    w->written = 0;
}

void gguf_finish(struct gguf_writer **wp)
{
    struct gguf_writer *w = *wp;

    if (w->i_tensor != w->n_tensors)
        lab_die("%llu tensors of %llu were written", (unsigned long long)w->i_tensor,
                (unsigned long long)w->n_tensors);
    if (fflush(w->f) != 0)
        lab_die("cannot write the model (is the disk full?)");
    free(w->kv.at);
    free(w->records.at);
    free(w->sizes);
    free(w);
    *wp = NULL;
}
