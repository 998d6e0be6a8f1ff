/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion of models, the comparison afterwards: the new file is opened like any other and read back, and
 * what it gives is held against the hashes of what was put in.
 */
#include "engine/convert.h"

#include "engine/base/mem.h"
#include "engine/convert_impl.h"
#include "engine/identity.h"
#include "kernels/kernels_scalar.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPAN 64 /* pieces read between two times the file's pages are given back */

struct reading {
    const struct tern_gguf *g; /* the new file */
    const struct tern_tensor *t;
    const struct convert_tensor *ct;
    struct tern_ternary_source src;
    size_t row_bytes, values_bytes;
    uint8_t *values; /* [threads] of a piece of a matrix */
    size_t piece0;
    atomic_bool differs;
};

/* Floats that are 0, one or -one (given as bits) as -1, 0, +1; false when they hold anything else. */
static bool trits_of_f32(const uint32_t *v, size_t n, uint32_t one, int8_t *w)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t minus = v[i] >> 31, any = v[i] != 0;

        bad |= any ? (v[i] & 0x7fffffffu) ^ one : 0;
        w[i] = (int8_t)(any - 2 * minus);
    }
    return bad == 0;
}

static bool trits_of_f16(const uint16_t *v, size_t n, uint16_t one, int8_t *w)
{
    uint16_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t minus = v[i] >> 15, any = v[i] != 0;

        bad |= (uint16_t)(any ? (v[i] & 0x7fff) ^ one : 0);
        w[i] = (int8_t)(any - 2 * minus);
    }
    return bad == 0;
}

static bool trits_of(const struct reading *r, const uint8_t *rows, size_t n, int8_t *w)
{
    const float one = tern_convert_scale(r->ct);
    uint32_t bits;

    memcpy(&bits, &one, sizeof bits);
    return r->ct->type == TERN_F32
               ? trits_of_f32((const uint32_t *)(const void *)rows, n, bits, w)
               : trits_of_f16((const uint16_t *)(const void *)rows, n, f16_from_f32(one), w);
}

static bool matrix_piece_is_same(const struct reading *r, size_t piece, int8_t *w)
{
    const struct convert_tensor *ct = r->ct;
    const size_t first = piece * ct->piece_rows, rows = tern_convert_piece_rows(ct, piece);
    float scale = 0;

    if (ct->type == TERN_F32 || ct->type == TERN_F16) {
        if (!trits_of(r, r->t->data + first * r->row_bytes, rows * ct->k, w))
            return false;
    } else if (tern_ternary_rows(&r->src, first, first + rows, w, &scale, NULL) ||
               (scale != tern_convert_scale(ct) && (scale != 0 || ct->type == TERN_TYPE_I2_S))) {
        return false;
    }
    return tern_convert_hash(w, rows * ct->k) == ct->hashes[piece];
}

static void read_pieces(void *arg, size_t first, size_t last, unsigned thread)
{
    struct reading *r = arg;
    const struct convert_tensor *ct = r->ct;

    for (size_t i = first; i < last && !atomic_load(&r->differs); i++) {
        const size_t piece = r->piece0 + i, at = piece * ct->piece_rows * r->row_bytes;
        bool same;

        if (ct->part == CONVERT_MATRIX)
            same = matrix_piece_is_same(r, piece, (int8_t *)(r->values + thread * r->values_bytes));
        else
            same = tern_convert_hash(r->t->data + at, tern_convert_piece_rows(ct, piece) * r->row_bytes) ==
                   ct->hashes[piece];
        if (!same)
            atomic_store(&r->differs, true);
    }
}

static enum tern_status differs(const struct tern_gguf *g, const char *what, const char *name,
                                struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_IO,
                     "%s: %s '%s' reads back other than it was written; the disk or the memory is faulty",
                     g->name, what, name);
}

static enum tern_status check_tensor(const struct tern_gguf *g, const struct tern_tensor *t,
                                     const struct convert_tensor *ct, struct tern_pool *pool,
                                     struct tern_err *err)
{
    struct reading r = { .g = g, .t = t, .ct = ct, .row_bytes = tern_convert_row_bytes(ct) };
    const size_t rows = ct->m < ct->piece_rows ? ct->m : ct->piece_rows;
    enum tern_status st = TERN_OK;

    if (!tern_str_is(t->name, ct->name) || t->type != ct->type || t->n_dims != ct->t->n_dims ||
        memcmp(t->ne, ct->t->ne, sizeof t->ne) != 0)
        return differs(g, "tensor", ct->name, err);
    if (ct->part == CONVERT_MATRIX) {
        r.values_bytes = tern_round_up(rows * ct->k, 64);
        r.values = malloc(tern_pool_threads(pool) * r.values_bytes + 1);
        if (!r.values)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read '%s' back", ct->name);
        if (ct->type != TERN_F32 && ct->type != TERN_F16)
            st = tern_ternary_open(g, t, pool, &r.src, err);
    }
    for (; !st && r.piece0 < ct->n_pieces; r.piece0 += SPAN) {
        const size_t now = ct->n_pieces - r.piece0 < SPAN ? ct->n_pieces - r.piece0 : SPAN;

        tern_pool_run(pool, read_pieces, &r, now, 1);
        if (atomic_load(&r.differs))
            st = differs(g, "tensor", ct->name, err);
        tern_gguf_release(g, t); /* a table may be larger than all memory we want to take */
    }
    free(r.values);
    return st;
}

static enum tern_status check_metadata(const struct tern_conversion *c, const struct tern_gguf *g,
                                       struct tern_err *err)
{
    size_t at = 0;

    for (size_t i = 0; i < c->g->n_kv; i++) {
        const struct tern_gguf_kv *was = &c->g->kv[i], *is = &g->kv[at];
        char key[64];

        if (tern_convert_drops(c, was->key))
            continue;
        snprintf(key, sizeof key, "%.*s", TERN_STR_ARGS(was->key));
        if (at++ >= g->n_kv || is->key.len != was->key.len || is->type != was->type ||
            memcmp(is->key.ptr, was->key.ptr, was->key.len) != 0 || is->n != was->n ||
            is->bytes != was->bytes || memcmp(is->data, was->data, was->bytes) != 0)
            return differs(g, "key", key, err);
    }
    return TERN_OK;
}

static enum tern_status check_all(const struct tern_conversion *c, const struct tern_gguf *g,
                                  struct tern_pool *pool, tern_convert_progress *progress, void *arg,
                                  struct tern_err *err)
{
    enum tern_status st = check_metadata(c, g, err);
    uint64_t done = 0;

    if (!st && g->n_tensors != c->n)
        st = differs(g, "the directory of", g->name, err);
    for (size_t i = 0; i < c->n && !st; i++) {
        st = check_tensor(g, &g->tensors[i], &c->tensors[i], pool, err);
        done += g->tensors[i].bytes;
        if (!st && progress && !progress(arg, done, 2 * c->bytes))
            st = TERN_FAIL(err, TERN_END, "interrupted");
    }
    return st ? st : tern_gguf_check(g, err);
}

/* The second half of the progress: hashes follow the comparison. */
struct second_half {
    tern_convert_progress *progress;
    void *arg;
};

static bool report_second(void *arg, uint64_t done, uint64_t total)
{
    const struct second_half *h = arg;

    return !h->progress || h->progress(h->arg, total + done, 2 * total);
}

static enum tern_status put_hashes(const struct tern_conversion *c, const struct tern_gguf *g, int fd,
                                   struct tern_pool *pool, tern_convert_progress *progress, void *arg,
                                   struct tern_err *err)
{
    struct second_half half = { progress, arg };
    struct tern_identity *id = NULL;
    enum tern_status st = tern_identity_hash_bytes(g, pool, report_second, &half, &id, err);
    uint8_t *hashes = st ? NULL : malloc(c->n * TERN_HASH_BYTES + 1);
    size_t n = c->n * TERN_HASH_BYTES;

    if (st)
        return st;
    if (!hashes) {
        tern_identity_free(&id);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to hash %s", g->name);
    }
    for (size_t i = 0; i < id->n; i++)
        memcpy(hashes + (size_t)(id->entries[i].tensor - g->tensors) * TERN_HASH_BYTES, id->entries[i].hash,
               TERN_HASH_BYTES);
    errno = 0;
    if (pwrite(fd, hashes, n, (off_t)c->hashes_at) != (ssize_t)n)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write %s: %s", g->name,
                           errno ? strerror(errno) : "the disk is full");
    tern_identity_free(&id);
    free(hashes);
    return st;
}

/* Scales before the type rounded them. */
static enum tern_status put_scales(const struct tern_conversion *c, const char *path, int fd,
                                   struct tern_err *err)
{
    float *scales = c->scales_at ? malloc((c->n + 1) * sizeof *scales) : NULL;
    const size_t n = c->n * sizeof *scales;
    enum tern_status st = TERN_OK;

    if (!c->scales_at)
        return TERN_OK;
    if (!scales)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert %s", c->g->name);
    for (size_t i = 0; i < c->n; i++)
        scales[i] = c->tensors[i].part == CONVERT_MATRIX ? c->tensors[i].scale : 0;
    errno = 0;
    if (pwrite(fd, scales, n, (off_t)c->scales_at) != (ssize_t)n)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write %s: %s", path,
                           errno ? strerror(errno) : "the disk is full");
    free(scales);
    return st;
}

enum tern_status tern_convert_seal(struct tern_conversion *c, const char *path, int fd,
                                   struct tern_pool *pool, tern_convert_progress *progress, void *arg,
                                   struct tern_err *err)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = put_scales(c, path, fd, err);

    if (!st)
        st = tern_gguf_open(path, &g, err);
    if (st)
        return st;
    st = check_all(c, g, pool, progress, arg, err);
    if (!st)
        st = put_hashes(c, g, fd, pool, progress, arg, err);
    tern_gguf_close(&g);
    return st;
}
