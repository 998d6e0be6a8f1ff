/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion of models, the data: each tensor in pieces of rows, a batch of which is made by all threads and
 * then written in order.  Hashes of the pieces stay behind for the comparison afterwards.
 */
#include "engine/convert.h"

#include "engine/base/mem.h"
#include "engine/convert_impl.h"
#include "engine/quant_row.h"
#include "kernels/kernels_scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How many pieces a thread has on its hands before they are written. */
#define BATCH_PER_THREAD 4
/* f16 rounds to eleven bits; what it rounds more than that is below its normal numbers. */
#define F16_ERROR (0x1p-11f * 1.001f)

/* What a thread has seen of the tensor at hand. */
struct seen {
    float scale; /* 0: no weights */
    enum tern_status status;
    struct tern_err err;
};

struct making {
    const struct tern_gguf *g;
    struct tern_gguf_writer *w;
    struct tern_pool *pool;
    const struct tern_kernels *kern;
    tern_convert_progress *progress;
    void *arg;
    uint64_t done, total;

    /* The tensor at hand. */
    struct convert_tensor *ct;
    struct tern_ternary_source src;
    size_t row_bytes, piece_bytes, values_bytes;
    size_t piece0; /* of the batch */
    uint8_t *out;  /* [batch][piece_bytes] */
    uint8_t *values;
    struct seen *seen; /* [threads] */
};

uint64_t tern_convert_hash(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h[4] = { n, 1, 2, 3 }, w[4];

    for (; n >= sizeof w; p += sizeof w, n -= sizeof w) {
        memcpy(w, p, sizeof w);
        for (int i = 0; i < 4; i++) {
            h[i] = (h[i] ^ w[i]) * 0x9e3779b97f4a7c15u;
            h[i] ^= h[i] >> 29;
        }
    }
    memset(w, 0, sizeof w);
    if (n)
        memcpy(w, p, n);
    for (int i = 0; i < 4; i++)
        h[0] = ((h[0] ^ w[i]) * 0x9e3779b97f4a7c15u ^ h[i] << 1) * 0xbf58476d1ce4e5b9u;
    return h[0] ^ h[0] >> 31;
}

size_t tern_convert_row_bytes(const struct convert_tensor *ct)
{
    const uint64_t row[4] = { ct->k, 1, 1, 1 };
    size_t bytes = 0;

    if (ct->part == CONVERT_RAW)
        return 1;
    if (ct->type == TERN_TYPE_I2_S)
        return ct->k / 4;
    TERN_BUG_IF(!tern_gguf_tensor_bytes(ct->type, row, &bytes)); /* the writer took the tensor */
    return bytes;
}

float tern_convert_scale(const struct convert_tensor *ct)
{
    /* Tern and others want one above zero in I2_S. */
    return ct->type == TERN_TYPE_I2_S && ct->scale == 0 ? 1 : ct->scale;
}

/* -- ternary matrices ------------------------------------------------------------------------------------ */

static void floats_f32(const int8_t *w, size_t n, float scale, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)w[i] * scale;
}

static void floats_f16(const int8_t *w, size_t n, float scale, uint16_t *out)
{
    const uint16_t one = f16_from_f32(scale);

    for (size_t i = 0; i < n; i++)
        out[i] = (uint16_t)((w[i] ? one : 0) | (w[i] < 0 ? 0x8000 : 0));
}

static enum tern_status check_scale(const struct making *m, float scale, struct tern_err *err)
{
    const uint32_t type = m->ct->type;
    float kept = f32_from_f16(f16_from_f32(scale));

    if (!isfinite(scale) || scale < 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tensor '%s' has scale %g; the file is damaged",
                         m->g->name, m->ct->name, (double)scale);
    if (type == TERN_F32 || type == TERN_TYPE_I2_S || fabsf(kept - scale) <= scale * F16_ERROR)
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                     "%s: tensor '%s' has scale %g, which %s would round too much; choose --type i2_s",
                     m->g->name, m->ct->name, (double)scale, tern_gguf_type_name(type));
}

static enum tern_status differing(const struct making *m, float a, float b, struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                     "%s: tensor '%s' has blocks of scales %g and %g; Tern needs one scale a matrix",
                     m->g->name, m->ct->name, (double)a, (double)b);
}

static enum tern_status make_weights(struct making *m, size_t piece, int8_t *w, uint8_t *out,
                                     struct seen *seen)
{
    struct convert_tensor *ct = m->ct;
    const size_t rows = tern_convert_piece_rows(ct, piece), first = piece * ct->piece_rows, n = rows * ct->k;
    float scale = 0;
    enum tern_status st = tern_ternary_rows(&m->src, first, first + rows, w, &scale, &seen->err);

    if (!st)
        st = check_scale(m, scale, &seen->err);
    if (!st && scale > 0 && seen->scale > 0 && scale != seen->scale)
        st = differing(m, seen->scale, scale, &seen->err);
    if (st)
        return st;
    if (scale > 0)
        seen->scale = scale;
    ct->hashes[piece] = tern_convert_hash(w, n);
    if (ct->type == TERN_F32)
        floats_f32(w, n, scale, (float *)(void *)out);
    else if (ct->type == TERN_F16)
        floats_f16(w, n, scale, (uint16_t *)(void *)out);
    else /* the plan has seen that the shape fits */
        tern_pack_file_rows(ct->type, TERN_I2S_A, w, rows, ct->k, scale, out);
    return TERN_OK;
}

/* -- embedding and head ---------------------------------------------------------------------------------- */

/* The halves of a type can take it: F16 itself, and block types with their scales in F16. */
static bool row_fits(uint32_t type, const float *x, size_t n)
{
    const float most = type == TERN_F32 || type == TERN_BF16 ? INFINITY : 65504.0f;
    bool fits = true;

    for (size_t i = 0; i < n; i++)
        fits &= isfinite(x[i]) && fabsf(x[i]) <= most;
    return fits;
}

static enum tern_status make_rows(struct making *m, size_t piece, float *x, uint8_t *out, struct seen *seen)
{
    struct convert_tensor *ct = m->ct;
    const size_t rows = tern_convert_piece_rows(ct, piece), from = ct->t->bytes / ct->m;

    for (size_t r = 0; r < rows; r++) {
        const size_t row = piece * ct->piece_rows + r;

        tern_dequant_row((enum tern_dtype)ct->t->type, ct->t->data + row * from, ct->k, x);
        if (!row_fits(ct->type, x, ct->k))
            return TERN_FAIL(&seen->err, TERN_ERR_UNSUPPORTED,
                             "%s: row %zu of tensor '%s' has values that %s cannot hold; choose --head %s",
                             m->g->name, row, ct->name, tern_gguf_type_name(ct->type),
                             ct->t->type == TERN_BF16 ? "bf16" : "f32");
        if (ct->type == TERN_F16)
            m->kern->f32_to_f16(x, ct->k, (uint16_t *)(void *)(out + r * m->row_bytes));
        else
            TERN_BUG_IF(!tern_quant_row(ct->type, x, ct->k, out + r * m->row_bytes));
    }
    ct->hashes[piece] = tern_convert_hash(out, rows * m->row_bytes);
    return TERN_OK;
}

static enum tern_status make_vector(struct making *m, uint8_t *out)
{
    struct convert_tensor *ct = m->ct;

    tern_dequant_row((enum tern_dtype)ct->t->type, ct->t->data, ct->k, (float *)(void *)out);
    for (size_t i = 0; ct->t->view.plus_one && i < ct->k; i++) {
        float v;

        memcpy(&v, out + 4 * i, sizeof v);
        v += 1.0f;
        memcpy(out + 4 * i, &v, sizeof v);
    }
    ct->hashes[0] = tern_convert_hash(out, ct->k * sizeof(float));
    return TERN_OK;
}

/* -- pieces ---------------------------------------------------------------------------------------------- */

static void make_pieces(void *arg, size_t first, size_t last, unsigned thread)
{
    struct making *m = arg;
    struct convert_tensor *ct = m->ct;
    struct seen *seen = &m->seen[thread];
    uint8_t *values = m->values + thread * m->values_bytes;

    for (size_t i = first; i < last && !seen->status; i++) {
        const size_t piece = m->piece0 + i;
        uint8_t *out = m->out + i * m->piece_bytes;

        switch (ct->part) {
        case CONVERT_MATRIX: seen->status = make_weights(m, piece, (int8_t *)values, out, seen); break;
        case CONVERT_TABLE: seen->status = make_rows(m, piece, (float *)(void *)values, out, seen); break;
        case CONVERT_VECTOR: seen->status = make_vector(m, out); break;
        case CONVERT_RAW:
            ct->hashes[piece] =
                tern_convert_hash(ct->t->data + piece * ct->piece_rows, tern_convert_piece_rows(ct, piece));
            break;
        }
    }
}

/* What the threads have found, put together. */
static enum tern_status join(struct making *m, struct tern_err *err)
{
    for (unsigned i = 0; i < tern_pool_threads(m->pool); i++) {
        const struct seen *s = &m->seen[i];

        if (s->status) {
            if (err)
                *err = s->err;
            return s->status;
        }
        if (s->scale > 0 && m->ct->scale > 0 && s->scale != m->ct->scale)
            return differing(m, m->ct->scale, s->scale, err);
        m->ct->scale = s->scale > 0 ? s->scale : m->ct->scale;
    }
    return TERN_OK;
}

static void write_pieces(struct making *m, size_t n)
{
    const struct convert_tensor *ct = m->ct;

    for (size_t i = 0; i < n; i++) {
        const size_t piece = m->piece0 + i, rows = tern_convert_piece_rows(ct, piece);
        const size_t bytes =
            ct->part == CONVERT_MATRIX && ct->type == TERN_TYPE_I2_S ? rows * ct->k / 4 : rows * m->row_bytes;

        tern_gguf_write(m->w,
                        ct->part == CONVERT_RAW ? ct->t->data + piece * ct->piece_rows
                                                : m->out + i * m->piece_bytes,
                        bytes);
        m->done += bytes;
    }
}

/* The source's rows lie in order, so what was read of it can be given back as we go: all large types. */
static void give_back(const struct making *m, size_t piece0, size_t piece1)
{
    const struct convert_tensor *ct = m->ct;
    const uint32_t type = ct->t->type;
    const size_t row = ct->part == CONVERT_RAW ? 1 : ct->t->bytes / ct->m;
    const size_t from = piece0 * ct->piece_rows * row, to = piece1 * ct->piece_rows * row;

    if (ct->part == CONVERT_MATRIX &&
        (ct->t->view.n_heads || (type != TERN_F32 && type != TERN_F16 && type != TERN_BF16)))
        return;
    tern_gguf_release_part(m->g, ct->t, from, to < ct->t->bytes ? to : ct->t->bytes);
}

static enum tern_status make_batches(struct making *m, size_t batch, struct tern_err *err)
{
    struct convert_tensor *ct = m->ct;
    enum tern_status st;

    for (m->piece0 = 0; m->piece0 < ct->n_pieces; m->piece0 += batch) {
        size_t now = ct->n_pieces - m->piece0 < batch ? ct->n_pieces - m->piece0 : batch;

        tern_pool_run(m->pool, make_pieces, m, now, 1);
        if ((st = join(m, err)))
            return st;
        write_pieces(m, now);
        give_back(m, m->piece0, m->piece0 + now);
        if ((st = tern_gguf_writer_status(m->w, err)))
            return st;
        if (m->progress && !m->progress(m->arg, m->done, m->total))
            return TERN_FAIL(err, TERN_END, "interrupted");
    }
    return TERN_OK;
}

static enum tern_status end_tensor(struct making *m, struct tern_err *err)
{
    struct convert_tensor *ct = m->ct;

    if (ct->part == CONVERT_MATRIX) {
        uint8_t tail[TERN_PACK_TAIL_BYTES];
        size_t n = tern_pack_file_tail(ct->type, tern_convert_scale(ct), tail);

        tern_gguf_write(m->w, tail, n);
        m->done += n;
    }
    tern_gguf_end_tensor(m->w);
    tern_gguf_release(m->g, ct->t);
    return tern_gguf_writer_status(m->w, err);
}

static enum tern_status convert_tensor(struct making *m, struct tern_err *err)
{
    struct convert_tensor *ct = m->ct;
    const size_t threads = tern_pool_threads(m->pool), most = threads * BATCH_PER_THREAD,
                 batch = ct->n_pieces < most ? ct->n_pieces : most,
                 rows = ct->m < ct->piece_rows ? ct->m : ct->piece_rows;
    enum tern_status st = TERN_OK;

    m->row_bytes = tern_convert_row_bytes(ct);
    m->piece_bytes = ct->part == CONVERT_RAW ? 0
                     : ct->part == CONVERT_MATRIX && ct->type == TERN_TYPE_I2_S
                         ? rows * ct->k / 4
                         : tern_round_up(rows * m->row_bytes, 64);
    m->values_bytes = ct->part == CONVERT_MATRIX  ? tern_round_up(rows * ct->k, 64)
                      : ct->part == CONVERT_TABLE ? tern_round_up(ct->k * sizeof(float), 64)
                                                  : 0;
    memset(m->seen, 0, threads * sizeof *m->seen);
    ct->scale = 0;
    m->out = malloc(batch * m->piece_bytes + 1);
    m->values = malloc(threads * m->values_bytes + 1);
    if (!m->out || !m->values)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert tensor '%s'", ct->name);
    if (!st && ct->part == CONVERT_MATRIX)
        st = tern_ternary_open(m->g, ct->t, m->pool, &m->src, err);
    if (!st)
        st = make_batches(m, batch, err);
    if (!st)
        st = end_tensor(m, err);
    free(m->out);
    free(m->values);
    return st;
}

enum tern_status tern_convert_write(struct tern_conversion *c, FILE *f, const char *name,
                                    struct tern_pool *pool, const struct tern_kernels *kern,
                                    tern_convert_progress *progress, void *arg, struct tern_err *err)
{
    struct making m = {
        .g = c->g, .pool = pool, .kern = kern, .progress = progress, .arg = arg, .total = c->bytes
    };
    enum tern_status st = tern_convert_writer(c, f, name, &m.w, err);

    m.seen = calloc(tern_pool_threads(pool), sizeof *m.seen);
    if (!st && !m.seen)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to convert %s", c->g->name);
    if (!st)
        tern_gguf_begin(m.w);
    for (size_t i = 0; i < c->n && !st; i++) {
        m.ct = &c->tensors[i];
        st = convert_tensor(&m, err);
    }
    if (!st)
        st = tern_gguf_check(c->g, err); /* what was read was the file that we opened */
    if (!st)
        st = tern_gguf_finish(&m.w, err);
    tern_gguf_writer_free(&m.w);
    free(m.seen);
    return st;
}
