/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a forward pass: one block, cut up. */
#include "engine/base/mem.h"
#include "engine/forward_pass.h"

#include <stdlib.h>

/* Queries (rows times heads of a KV head) of a block in attention: enough to share the decoding of K, V. */
#define ATTEND_QUERIES 128
/* States of spans a thread: at least eight times what UNITS_A_THREAD in forward_attend.c can ask for. */
#define SPLIT_STATES 64

static size_t max3(size_t a, size_t b, size_t c)
{
    size_t m = a > b ? a : b;
    return m > c ? m : c;
}

/* Places one array behind the others at a multiple of 64 bytes. */
static void *place(uint8_t *base, size_t *used, size_t bytes)
{
    size_t at = tern_round_up(*used, 64);

    *used = at + bytes;
    return base ? base + at : NULL;
}

/* Sizes are bounded by limits.h: 512 rows of 131072 elements fit a size_t on 64-bit machines with room. */
static size_t layout(struct tern_scratch *s, uint8_t *base)
{
    const struct tern_arch *a = &s->arch;
    size_t rows = s->max_rows, q_dim = (size_t)a->n_heads * a->head_dim,
           kv_dim = (size_t)a->n_kv_heads * a->head_dim;
    size_t group = a->n_heads / a->n_kv_heads, used = 0;
    bool input_norms = a->norms & TERN_INPUT_NORMS;

    s->wide = max3(a->n_embd, q_dim, a->n_ffn);
    s->code_stride = tern_round_up(tern_pack_codes(s->wide), 64);
    s->block_rows = ATTEND_QUERIES / group < 1 ? 1 : ATTEND_QUERIES / group;
    s->block_rows = s->block_rows < TERN_PAGE ? s->block_rows : TERN_PAGE;
    s->span_stride = tern_round_up(s->block_rows * group * (a->head_dim + 2), 16);
    s->split_stride = tern_round_up(group * (a->head_dim + 2), 16);
    s->n_split = s->n_threads > 1 ? (size_t)SPLIT_STATES * s->n_threads : 0;
    s->encoded_stride = tern_round_up(4 * (size_t)a->n_embd, 64);
    s->live = place(base, &used, rows * sizeof *s->live);
    s->cos_sin = place(base, &used, rows * a->head_dim * sizeof(float));
    if (tern_arch_two_bases(a))
        s->cos_sin_swa = place(base, &used, rows * a->head_dim * sizeof(float));
    s->q = place(base, &used, rows * q_dim * sizeof(float));
    s->k = place(base, &used, rows * kv_dim * sizeof(float));
    s->v = place(base, &used, rows * kv_dim * sizeof(float));
    s->att = place(base, &used, rows * q_dim * sizeof(float));
    s->gate = place(base, &used, rows * a->n_ffn * sizeof(float));
    s->up = place(base, &used, rows * a->n_ffn * sizeof(float));
    s->o = place(base, &used, rows * a->n_embd * sizeof(float));
    for (size_t i = 0; i < (input_norms ? MAX_INPUTS : 1); i++) {
        s->in[i].q = place(base, &used, rows * s->code_stride);
        s->in[i].act_scale = place(base, &used, rows * sizeof(float));
        s->in[i].act_sum = place(base, &used, rows * sizeof(int32_t));
    }
    s->normed = place(base, &used, s->n_threads * tern_round_up(s->wide, 16) * sizeof(float));
    if (input_norms)
        s->renormed = place(base, &used, s->n_threads * tern_round_up(a->n_embd, 16) * sizeof(float));
    s->span = place(base, &used, s->n_threads * s->span_stride * sizeof(float));
    s->blocks = place(base, &used, rows * sizeof *s->blocks);
    s->att_max = place(base, &used, rows * a->n_heads * sizeof(float));
    s->att_sum = place(base, &used, rows * a->n_heads * sizeof(float));
    s->split = place(base, &used, s->n_split * s->split_stride * sizeof(float));
    s->encoded = place(base, &used, s->n_threads * s->encoded_stride);
    return used;
}

size_t tern_scratch_bytes(const struct tern_arch *arch, size_t max_rows, unsigned n_threads)
{
    struct tern_scratch s = { .arch = *arch, .max_rows = max_rows, .n_threads = n_threads };

    return layout(&s, NULL);
}

enum tern_status tern_scratch_new(const struct tern_arch *arch, size_t max_rows, unsigned n_threads,
                                  struct tern_scratch **out, struct tern_err *err)
{
    struct tern_scratch *s;
    enum tern_status st;

    if (max_rows < 1 || max_rows > TERN_MAX_STEP_ROWS)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%zu rows a step were asked for; 1 to %d are possible",
                         max_rows, TERN_MAX_STEP_ROWS);
    s = calloc(1, sizeof *s);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the scratch of a forward pass");
    s->arch = *arch;
    s->max_rows = max_rows;
    s->n_threads = n_threads;
    s->bytes = layout(s, NULL);
    st = tern_block_new(s->bytes, "the scratch of a forward pass", &s->block, err);
    if (st) {
        free(s);
        return st;
    }
    layout(s, s->block);
    *out = s;
    return TERN_OK;
}

void tern_scratch_on_soon(struct tern_scratch *s, void (*soon)(void *arg), void *arg)
{
    s->soon = soon;
    s->soon_arg = arg;
}

void tern_scratch_free(struct tern_scratch **sp)
{
    if (!*sp)
        return;
    tern_block_free(&(*sp)->block, (*sp)->bytes);
    free(*sp);
    *sp = NULL;
}
