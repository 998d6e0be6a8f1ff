/* SPDX-License-Identifier: Apache-2.0 */
/* The ops of the kernel table as cases: see bench_ops.h. */
#include "coordinator/bench_ops.h"

#include "engine/base/limits.h"
#include "engine/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SET_BYTES   ((size_t)256 << 20)
#define CACHE_BYTES ((size_t)192 << 10) /* what "from the caches" may take */
#define PIECE       ((size_t)256 << 10) /* about what one call from memory reads */
#define MAX_ROWS    128
#define WIDE        ((size_t)131072) /* floats of a row buffer: the largest vocabulary here */

struct bench_work {
    const struct tern_kernels *kern;
    uint8_t *set;      /* [SET_BYTES] codes that are legal in every layout, and finite in every type */
    size_t at, stride; /* where the next call reads, and how far the one after it; 0: the same again */
    size_t n, n2;
    struct tern_ternary ternary;
    enum tern_tile_layout layout;
    size_t n_tiles;
    struct tern_matvec matvec;
    struct tern_screen screen;
    size_t n_rows;
    struct tern_attend attend;
    float *x, *y, *z; /* [WIDE] */
    float *out;       /* [MAX_ROWS * outputs of a piece] */
    int8_t *q, *q2;   /* [WIDE]; q also holds MAX_ROWS rows of activations */
    uint16_t *half;   /* [WIDE] */
    float scale[MAX_ROWS];
    int32_t sum[MAX_ROWS];
    float max[64], total[64];
};

#define Q_BYTES   ((size_t)MAX_ROWS * 32768)
#define OUT_BYTES ((size_t)MAX_ROWS * 8192 * sizeof(float))

static const uint8_t *next_data(struct bench_work *w)
{
    const uint8_t *p = w->set + w->at;

    w->at += w->stride;
    if (w->at + w->stride > SET_BYTES)
        w->at = 0;
    return p;
}

/* -- data ------------------------------------------------------------------------------------------------ */

static void fill(struct bench_work *w)
{
    uint64_t state = 1;

    for (size_t i = 0; i < SET_BYTES; i += 8) {
        uint64_t z = state += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z ^= z >> 27;
        z &= ~(z >> 1 & 0x5555555555555555u); /* no pair of bits is 3 */
        memcpy(w->set + i, &z, sizeof z);
    }
    for (size_t i = 0; i < WIDE; i++) {
        w->x[i] = (float)(w->set[i] % 64) / 16.0f - 2.0f;
        w->z[i] = (float)(w->set[WIDE + i] % 64) / 64.0f - 0.5f;
        w->half[i] = 0x3c00;
    }
    for (size_t i = 0; i < Q_BYTES; i++)
        w->q[i] = (int8_t)(w->set[i] % 255 - 127);
    for (size_t i = 0; i < MAX_ROWS; i++)
        w->scale[i] = 1.0f;
}

enum tern_status bench_work_new(struct bench_work **out, struct tern_err *err)
{
    struct bench_work *w = calloc(1, sizeof *w);
    void *set = NULL;
    enum tern_status st;

    if (!w)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to measure kernels");
    if ((st = tern_block_new(SET_BYTES, "measuring kernels", &set, err))) {
        free(w);
        return st;
    }
    w->set = set;
    w->x = aligned_alloc(64, WIDE * sizeof(float));
    w->y = aligned_alloc(64, WIDE * sizeof(float));
    w->z = aligned_alloc(64, WIDE * sizeof(float));
    w->half = aligned_alloc(64, WIDE * sizeof(uint16_t));
    w->q = aligned_alloc(64, Q_BYTES);
    w->q2 = aligned_alloc(64, WIDE);
    w->out = aligned_alloc(64, OUT_BYTES);
    if (!w->x || !w->y || !w->z || !w->half || !w->q || !w->q2 || !w->out) {
        bench_work_free(&w);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to measure kernels");
    }
    fill(w);
    *out = w;
    return TERN_OK;
}

void bench_work_free(struct bench_work **wp)
{
    struct bench_work *w = *wp;

    if (w) {
        void *set = w->set;

        tern_block_free(&set, SET_BYTES);
        free(w->x);
        free(w->y);
        free(w->z);
        free(w->half);
        free(w->q);
        free(w->q2);
        free(w->out);
        free(w);
    }
    *wp = NULL;
}

/* -- ternary matrices ------------------------------------------------------------------------------------ */

static void call_ternary(struct bench_work *w)
{
    w->ternary.tiles = next_data(w);
    w->kern->ternary[w->layout](&w->ternary, 0, w->n_tiles);
}

/* m x k for `rows` rows.  A call takes a piece of the tiles, as threads do. */
static void set_ternary(struct bench_work *w, struct bench_case *c, enum tern_tile_layout layout, size_t m,
                        size_t k, size_t rows, bool memory)
{
    const size_t tile = tern_pack_tile_bytes(layout, k), all = tern_pack_tiles(m),
                 want = (memory ? PIECE : CACHE_BYTES) / tile,
                 some = want < 1     ? 1
                        : want < 512 ? want
                                     : 512;

    w->layout = layout;
    w->n_tiles = some < all ? some : all;
    w->stride = memory ? w->n_tiles * tile : 0;
    w->ternary = (struct tern_ternary){ .k_pad = tern_pack_k_pad(layout, k),
                                        .m = w->n_tiles * TERN_TILE_ROWS,
                                        .scale = 1.0f,
                                        .q = w->q,
                                        .q_stride = tern_round_up(tern_pack_codes(k), 64),
                                        .act_scale = w->scale,
                                        .act_sum = w->sum,
                                        .n_rows = rows,
                                        .y = w->out,
                                        .y_stride = w->n_tiles * TERN_TILE_ROWS };
    c->call = call_ternary;
    c->product = true;
    c->memory = memory;
    c->bytes = (double)(w->n_tiles * tile);
    c->macs = (double)(w->n_tiles * TERN_TILE_ROWS) * (double)k * (double)rows;
    c->whole = (double)all / (double)w->n_tiles;
    snprintf(c->op, sizeof c->op, "ternary %s", tern_pack_layout_name(layout));
    snprintf(c->shape, sizeof c->shape, "%zux%zu x %zu", m, k, rows);
}

#define N_TERNARY 24 /* two layouts, two matrices, six ways */

static void ternary_case(struct bench_work *w, const struct tern_synthetic *s, uint32_t i,
                         struct bench_case *c)
{
    static const struct {
        size_t rows;
        bool memory;
    } ways[] = { { 1, true }, { 1, false }, { 4, true }, { 16, true }, { 64, true }, { MAX_ROWS, true } };
    const uint32_t way = i % 6, matrix = i / 6 % 2;
    const enum tern_tile_layout layout = i / 12 ? TERN_TILES_5TRIT : TERN_TILES_2BIT;

    set_ternary(w, c, layout, matrix ? s->n_embd : s->n_ffn, matrix ? s->n_ffn : s->n_embd, ways[way].rows,
                ways[way].memory);
}

/* -- plain matrices -------------------------------------------------------------------------------------- */

static void call_matvec(struct bench_work *w)
{
    w->matvec.w = next_data(w);
    w->kern->matvec(&w->matvec, 0, w->n_rows);
}

static const enum tern_dtype dtypes[] = { TERN_F32,  TERN_F16,  TERN_BF16, TERN_Q8_0,
                                          TERN_Q6_K, TERN_Q4_0, TERN_Q4_K, TERN_TQ2_0 };
#define N_MATVEC ((uint32_t)(sizeof dtypes / sizeof dtypes[0]))

static void matvec_case(struct bench_work *w, const struct tern_synthetic *s, uint32_t i,
                        struct bench_case *c)
{
    size_t elems = 1, bytes = 1, row;

    (void)tern_dtype_block(dtypes[i], &elems, &bytes);
    row = s->n_embd / elems * bytes;
    w->n_rows = PIECE / row;
    w->stride = w->n_rows * row;
    w->matvec = (struct tern_matvec){ .row_bytes = row,
                                      .type = dtypes[i],
                                      .k = s->n_embd / elems * elems,
                                      .x = w->x,
                                      .x_stride = s->n_embd,
                                      .n_x = 1,
                                      .y = w->out,
                                      .y_stride = w->n_rows };
    c->call = call_matvec;
    c->memory = true;
    c->bytes = (double)w->stride;
    c->macs = (double)w->n_rows * (double)w->matvec.k;
    c->whole = (double)s->n_vocab / (double)w->n_rows;
    snprintf(c->op, sizeof c->op, "matvec %s", tern_gguf_type_name(dtypes[i]));
    snprintf(c->shape, sizeof c->shape, "%ux%zu x 1", (unsigned)s->n_vocab, w->matvec.k);
}

/* -- screened copies of the head ------------------------------------------------------------------------- */

static void call_screen(struct bench_work *w)
{
    w->screen.w = next_data(w);
    w->kern->screen(&w->screen, 0, w->n_rows);
}

static void call_screen4(struct bench_work *w)
{
    w->screen.w = next_data(w);
    w->kern->screen4(&w->screen, 0, w->n_rows);
}

static void screen_case(struct bench_work *w, const struct tern_synthetic *s, uint32_t i,
                        struct bench_case *c)
{
    const size_t k = (s->n_embd + TERN_SCREEN_COLS - 1) / TERN_SCREEN_COLS * TERN_SCREEN_COLS,
                 row = i ? k / 2 : k;

    w->n_rows = PIECE / row;
    w->stride = w->n_rows * row;
    memset(w->y, 0, k * sizeof(int16_t)); /* no sum may wrap */
    w->screen = (struct tern_screen){ .k_pad = k,
                                      .x = (const int16_t *)(const void *)w->y,
                                      .x8 = w->q,
                                      .x_sum = w->sum,
                                      .n_x = 1,
                                      .y = (int32_t *)(void *)w->out,
                                      .y_stride = w->n_rows };
    c->call = i ? call_screen4 : call_screen;
    c->memory = true;
    c->bytes = (double)w->stride;
    c->macs = (double)w->n_rows * (double)k;
    c->whole = (double)s->n_vocab / (double)w->n_rows;
    snprintf(c->op, sizeof c->op, "screen%s", i ? "4" : "");
    snprintf(c->shape, sizeof c->shape, "%ux%zu x 1", (unsigned)s->n_vocab, k);
}

/* -- attention ------------------------------------------------------------------------------------------- */

static void call_attend(struct bench_work *w)
{
    w->attend.k = next_data(w);
    w->attend.v = (const uint8_t *)w->attend.k + w->stride / 2;
    w->kern->attend(&w->attend);
}

static void attend_case(struct bench_work *w, const struct tern_synthetic *s, uint32_t i,
                        struct bench_case *c)
{
    const size_t heads = s->n_heads / s->n_kv_heads, size = i ? 1 : sizeof(uint16_t);

    w->stride = 2 * (size_t)TERN_PAGE * s->head_dim * size;
    for (size_t h = 0; h < 64; h++) {
        w->max[h] = -INFINITY;
        w->total[h] = 0;
    }
    memset(w->out, 0, heads * s->head_dim * sizeof(float));
    w->attend = (struct tern_attend){ .q = w->z,
                                      .q_stride = heads * s->head_dim,
                                      .type = i ? TERN_KV_INT8 : TERN_KV_F16,
                                      .k_scale = w->scale,
                                      .v_scale = w->scale,
                                      .n_rows = 1,
                                      .n_heads = heads,
                                      .head_dim = s->head_dim,
                                      .n_pos = TERN_PAGE,
                                      .score_scale = 0.01f,
                                      .max = w->max,
                                      .sum = w->total,
                                      .acc = w->out };
    c->call = call_attend;
    c->memory = true;
    c->bytes = (double)w->stride;
    c->whole = 1;
    snprintf(c->op, sizeof c->op, "attend %s", i ? "int8" : "f16");
    snprintf(c->shape, sizeof c->shape, "32 pos x %u x %zu heads", (unsigned)s->head_dim, heads);
}

/* -- rows ------------------------------------------------------------------------------------------------ */

static void call_quantize(struct bench_work *w)
{
    (void)w->kern->quantize(w->x, w->n, w->n2, w->q2, w->sum);
}

static void call_rmsnorm(struct bench_work *w)
{
    w->kern->rmsnorm(w->x, w->z, w->n, 1e-5f, w->y);
}

static void call_rope(struct bench_work *w)
{
    w->kern->rope_neox(w->y, w->z, w->n);
}

static void call_rope_norm(struct bench_work *w)
{
    w->kern->rope_norm(w->y, w->z, w->n);
}

static void call_add(struct bench_work *w)
{
    w->kern->add(w->y, w->z, w->n);
}

static void call_gate(struct bench_work *w)
{
    w->kern->relu2_gate(w->x, w->z, w->n, w->y);
}

static void call_silu(struct bench_work *w)
{
    w->kern->silu_gate(w->x, w->z, w->n, w->y);
}

static void call_gelu(struct bench_work *w)
{
    w->kern->gelu_gate(w->x, w->z, w->n, w->y);
}

static void call_to_f16(struct bench_work *w)
{
    w->kern->f32_to_f16(w->x, w->n, (uint16_t *)(void *)w->y);
}

static void call_from_f16(struct bench_work *w)
{
    w->kern->f16_to_f32(w->half, w->n, w->y);
}

static void call_finite(struct bench_work *w)
{
    w->sum[0] += w->kern->all_finite(w->x, w->n);
}

static void call_finish(struct bench_work *w)
{
    w->kern->attend_finish(w->x, 3.0f, w->n, w->y);
}

static void call_sum_exp(struct bench_work *w)
{
    w->max[0] = (float)w->kern->sum_exp(w->x, w->n, 2.0f);
}

static void call_encode(struct bench_work *w)
{
    w->kern->encode_i8(w->x, w->n, 32, w->y, w->q2);
}

static void call_decode(struct bench_work *w)
{
    w->kern->decode_i8(w->z, w->q, w->n, 32, w->y);
}

static void call_encode_x2(struct bench_work *w)
{
    w->kern->encode_i8x2(w->x, w->n, 32, w->y, w->q2, w->q2 + WIDE / 2);
}

static void call_decode_x2(struct bench_work *w)
{
    w->kern->decode_i8x2(w->z, w->q, w->q + WIDE, w->n, 32, w->y);
}

static void call_largest(struct bench_work *w)
{
    w->kern->largest(w->x, w->n, w->n / 64, (uint16_t *)(void *)w->q2);
}

enum width { EMBD, FFN, HEAD_DIM, VOCAB };

static const struct {
    const char *op;
    void (*call)(struct bench_work *w);
    enum width width;
    double bytes; /* read and written, of one element */
} rows[] = {
    { "quantize", call_quantize, EMBD, 5 },        { "quantize", call_quantize, FFN, 5 },
    { "rmsnorm", call_rmsnorm, EMBD, 12 },         { "rope_neox", call_rope, HEAD_DIM, 12 },
    { "rope_norm", call_rope_norm, HEAD_DIM, 12 }, { "add", call_add, EMBD, 12 },
    { "relu2_gate", call_gate, FFN, 12 },          { "silu_gate", call_silu, FFN, 12 },
    { "gelu_gate", call_gelu, FFN, 12 },           { "f32_to_f16", call_to_f16, HEAD_DIM, 6 },
    { "f16_to_f32", call_from_f16, EMBD, 6 },      { "all_finite", call_finite, EMBD, 4 },
    { "attend_finish", call_finish, HEAD_DIM, 8 }, { "sum_exp", call_sum_exp, VOCAB, 4 },
    { "encode_i8", call_encode, EMBD, 5 },         { "decode_i8", call_decode, EMBD, 5 },
    { "encode_i8x2", call_encode_x2, EMBD, 6 },    { "decode_i8x2", call_decode_x2, EMBD, 6 },
    { "largest", call_largest, EMBD, 4 },
};
#define N_ROWS ((uint32_t)(sizeof rows / sizeof rows[0]))

static void row_case(struct bench_work *w, const struct tern_synthetic *s, uint32_t i, struct bench_case *c)
{
    const size_t widths[] = { s->n_embd, s->n_ffn, s->head_dim, s->n_vocab };

    w->n = widths[rows[i].width];
    w->n2 = tern_pack_codes(w->n);
    memcpy(w->y, w->z, w->n * sizeof(float));
    c->call = rows[i].call;
    c->bytes = rows[i].bytes * (double)w->n;
    c->whole = 1;
    snprintf(c->op, sizeof c->op, "%s", rows[i].op);
    snprintf(c->shape, sizeof c->shape, "%zu", w->n);
}

/* -- all of them ----------------------------------------------------------------------------------------- */

bool bench_work_case(struct bench_work *w, const struct tern_kernels *kern, const struct tern_synthetic *s,
                     uint32_t i, struct bench_case *out)
{
    memset(out, 0, sizeof *out);
    w->kern = kern;
    w->at = w->stride = 0;
    if (i < N_TERNARY)
        ternary_case(w, s, i, out);
    else if ((i -= N_TERNARY) < N_MATVEC)
        matvec_case(w, s, i, out);
    else if ((i -= N_MATVEC) < 2)
        screen_case(w, s, i, out);
    else if ((i -= 2) < 2)
        attend_case(w, s, i, out);
    else if ((i -= 2) < N_ROWS)
        row_case(w, s, i, out);
    else
        return false;
    return true;
}
