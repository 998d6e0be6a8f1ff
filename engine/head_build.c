/* SPDX-License-Identifier: Apache-2.0 */
/* Making a head: memory, and the encoding of all rows by all threads. */
#include "engine/base/mem.h"
#include "engine/head_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_PIECE ((size_t)256 << 10) /* bytes of the head that are worth a piece of their own */

static const char *const names[] = { "auto", "full", "screened", "statistical" };

const char *tern_head_mode_name(enum tern_head_mode mode)
{
    return names[mode];
}

bool tern_head_mode_by_name(const char *name, enum tern_head_mode *mode)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *mode = (enum tern_head_mode)i;
            return true;
        }
    return false;
}

enum tern_head_mode tern_head_mode_for(enum tern_head_mode mode, enum tern_dtype type)
{
    size_t elems = 1, bytes = 0;

    if (mode != TERN_HEAD_AUTO)
        return mode;
    if (!tern_dtype_block(type, &elems, &bytes))
        return TERN_HEAD_FULL;
    return bytes * 8 > elems * 6 ? TERN_HEAD_SCREENED : TERN_HEAD_FULL;
}

static size_t padded(size_t n_embd)
{
    return tern_round_up(n_embd, TERN_SCREEN_COLS);
}

static size_t row_bytes(enum tern_head_mode mode, size_t n_embd)
{
    return mode == TERN_HEAD_STATISTICAL ? padded(n_embd) / 2 : padded(n_embd);
}

size_t tern_head_copy_bytes(enum tern_head_mode mode, enum tern_dtype type, size_t n_vocab, size_t n_embd)
{
    mode = tern_head_mode_for(mode, type);
    if (mode == TERN_HEAD_FULL)
        return 0;
    return n_vocab * row_bytes(mode, n_embd) + 3 * tern_round_up(n_vocab * sizeof(float), 64);
}

/* -- encoding -------------------------------------------------------------------------------------------- */

struct encode {
    struct tern_head *h;
    float *rows; /* [n_threads][k_pad] decoded */
};

/* Upper bounds of the norms.  What the kernel returns was summed with at most n_embd / 16 + 4 roundings a
 * term, each term and e_i itself rounded once; squares below 2^-126 lose at most 2^-150 each.  All of this is
 * below one part in 2^23 for each rounding. */
static bool note_row(struct tern_head *h, size_t r, const struct tern_screen_row *row)
{
    const double k = (double)h->n_embd, slack = 1.0 + (k / 16 + 32) * 0x1p-23;

    h->scale[r] = row->scale;
    h->error[r] = (float)(sqrt((double)row->error_sq + k * 0x1p-148) * slack);
    h->norm[r] = (float)((sqrt((double)row->norm_sq + k * 0x1p-148) + (double)h->error[r]) * slack);
    return h->norm[r] < INFINITY && h->error[r] < INFINITY;
}

static void encode_rows(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct encode *e = arg;
    struct tern_head *h = e->h;
    const struct tern_kernels *kern = h->m->kern;
    const struct tern_tensor *t = h->m->head;
    const size_t file_bytes = t->bytes / h->n_vocab, bytes = row_bytes(h->mode, h->n_embd);
    float *w = e->rows + thread * h->k_pad;
    bool sound = true;

    for (size_t r = first; r < last; r++) {
        const uint8_t *from = t->data + r * file_bytes;
        struct tern_screen_row row;

        if (t->type == TERN_F16 && (uintptr_t)from % sizeof(uint16_t) == 0) /* but for some folders */
            kern->f16_to_f32((const uint16_t *)(const void *)from, h->n_embd, w);
        else
            tern_dequant_row((enum tern_dtype)t->type, from, h->n_embd, w);
        if (h->mode == TERN_HEAD_STATISTICAL)
            kern->screen4_row(w, h->n_embd, h->k_pad, h->codes + r * bytes, &row);
        else
            kern->screen_row(w, h->n_embd, h->k_pad, (int8_t *)h->codes + r * bytes, &row);
        sound &= note_row(h, r, &row);
    }
    if (!sound)
        __atomic_store_n(&h->sound, false, __ATOMIC_RELAXED);
}

enum tern_status tern_head_encode(struct tern_head *h, struct tern_err *err)
{
    const size_t bytes = tern_pool_threads(h->pool) * h->k_pad * sizeof(float);
    struct encode e = { .h = h };
    void *rows;
    enum tern_status st = tern_block_new(bytes, "rows of the head", &rows, err);

    if (st)
        return st;
    e.rows = rows;
    h->sound = true;
    tern_pool_run(h->pool, encode_rows, &e, h->n_vocab, MIN_PIECE / (h->m->head->bytes / h->n_vocab) + 1);
    tern_block_free(&rows, bytes);
    for (size_t r = 0; r < h->n_vocab; r++)
        h->norm_max = h->norm[r] > h->norm_max ? h->norm[r] : h->norm_max;
    return tern_model_check(h->m, err);
}

/* -- life ------------------------------------------------------------------------------------------------ */

/* Room for bytes in a block that begins at base, from *at on; NULL while the block's size is being counted.
 */
static void *take(uint8_t *base, size_t *at, size_t bytes)
{
    void *p = base ? base + *at : NULL;

    *at += tern_round_up(bytes, 64);
    return p;
}

/* Lays out what queries need; without memory it only counts. */
static size_t lay_out(struct tern_head *h, uint8_t *base)
{
    const size_t rows = h->max_rows, v = h->n_vocab;
    size_t at = 0;

    h->logits = take(base, &at, rows * v * sizeof(float));
    if (h->mode == TERN_HEAD_FULL)
        return at;
    h->x16 = take(base, &at, rows * h->k_pad * sizeof(int16_t));
    h->sums = take(base, &at, rows * sizeof(int32_t));
    h->dots = take(base, &at, tern_pool_threads(h->pool) * rows * TERN_HEAD_BLOCK * sizeof(int32_t));
    h->forced = take(base, &at, v);
    h->heap = take(base, &at, h->cap * sizeof(float));
    h->heap_ids = take(base, &at, h->cap * sizeof(int32_t));
    h->items = take(base, &at, rows * h->cap * sizeof *h->items);
    h->queries = take(base, &at, rows * sizeof *h->queries);
    for (size_t i = 0; i < rows; i++) {
        struct tern_head_query q = { .upper = take(base, &at, h->n_blocks * sizeof(float)),
                                     .lower = take(base, &at, h->n_blocks * sizeof(float)),
                                     .ids = take(base, &at, h->cap * sizeof(int32_t)),
                                     .values = take(base, &at, h->cap * sizeof(float)) };

        if (base)
            h->queries[i] = q;
    }
    return at;
}

static enum tern_status make_copy(struct tern_head *h, struct tern_err *err)
{
    size_t at = 0;
    enum tern_status st = tern_block_new(
        h->copy_bytes, "the screened copy of the head (--head full needs none)", &h->copy, err);

    if (st)
        return st;
    h->scale = take(h->copy, &at, h->n_vocab * sizeof(float));
    h->error = take(h->copy, &at, h->n_vocab * sizeof(float));
    h->norm = take(h->copy, &at, h->n_vocab * sizeof(float));
    h->codes = (uint8_t *)h->copy + at;
    return tern_head_encode(h, err);
}

enum tern_status tern_head_new(const struct tern_model *model, struct tern_pool *pool,
                               enum tern_head_mode mode, uint32_t max_rows, struct tern_head **out,
                               struct tern_err *err)
{
    const enum tern_dtype type = (enum tern_dtype)model->head->type;
    struct tern_head *h = calloc(1, sizeof *h);
    uint64_t levels;
    enum tern_status st;

    if (!h)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the head");
    h->m = model;
    h->pool = pool;
    h->mode = tern_head_mode_for(mode, type);
    h->max_rows = max_rows;
    h->n_vocab = model->arch.n_vocab;
    h->n_embd = model->arch.n_embd;
    h->k_pad = padded(h->n_embd);
    h->cap = h->n_vocab / 8;
    h->n_blocks = (h->n_vocab + TERN_HEAD_BLOCK - 1) / TERN_HEAD_BLOCK;
    levels = (uint64_t)INT32_MAX / (127 * (uint64_t)h->n_embd);
    h->levels = levels < 32767 ? (int32_t)levels : 32767;
    h->copy_bytes = tern_head_copy_bytes(h->mode, type, h->n_vocab, h->n_embd);
    h->room_bytes = lay_out(h, NULL);
    st = tern_block_new(h->room_bytes, "logits", &h->room, err);
    if (!st) {
        (void)lay_out(h, h->room);
        st = h->mode == TERN_HEAD_FULL ? TERN_OK : make_copy(h, err);
    }
    if (st) {
        tern_head_free(&h);
        return st;
    }
    *out = h;
    return TERN_OK;
}

void tern_head_free(struct tern_head **hp)
{
    struct tern_head *h = *hp;

    if (!h)
        return;
    tern_block_free(&h->copy, h->copy_bytes);
    tern_block_free(&h->room, h->room_bytes);
    free(h);
    *hp = NULL;
}

enum tern_head_mode tern_head_mode(const struct tern_head *h)
{
    return h->mode;
}

const struct tern_head_stats *tern_head_stats(const struct tern_head *h)
{
    return &h->stats;
}

size_t tern_head_bytes_read(const struct tern_head *h)
{
    return h->mode == TERN_HEAD_FULL ? h->m->head->bytes : h->copy_bytes;
}
