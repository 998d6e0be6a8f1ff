/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every vector operation of Tern behind one table of function pointers.
 *
 * The scalar reference (kernels_ref.c) is the definition: every level returns the same bits for every op,
 * except that the bits of NaNs are outside the contract.  Integer results are exact.  A float reduction runs
 * in sixteen partial sums, lane i % 16 taking element i, starting at +0.0f, each step one fused multiply-add
 * (fmaf); the lanes are folded 8+8, 4+4, 2+2, 1+1 (lane j with lane j + 8, then j + 4, ...).  This fold is
 * written "fold16" below.  Where "fma" does not appear, every multiplication and addition rounds on its own.
 *
 * Kernels take shapes and row ranges, know nothing of threads, cannot fail, and do not allocate, lock, log or
 * keep globals.  Pointers need the alignment of their element type only, unless said otherwise.  Input
 * buffers may end directly at an unreadable page: no op reads outside the stated shapes.
 *
 * Thread: any; a table is immutable once filled.
 */
#ifndef TERN_KERNELS_KERNELS_H
#define TERN_KERNELS_KERNELS_H

#include "kernels/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Ternary tiles.  A tile is 16 rows (outputs) times k_pad columns; tile t covers rows 16 t .. 16 t + 15.  It
 * is made of groups of 64 bytes, byte r * 4 + j belonging to row r.  A code is the weight plus one (0, 1, 2);
 * padding columns and padding rows hold code 1 (weight zero).  So one 32-bit lane is one row, and
 * VPDPBUSD-style dot products of four columns need the same four activations in every lane: a broadcast.
 *
 * 2BIT: a group is 16 columns; a byte holds the columns j, j + 4, j + 8, j + 12 of the group in bits 1..0,
 * 3..2, 5..4, 7..6.
 *
 * 5TRIT (1.6 bits a weight): a group is 20 columns; a byte is c0 + 3 c1 + 9 c2 + 27 c3 + 81 c4, at most 242,
 * with ci the code of column j + 4 i of the group.
 */
enum tern_tile_layout { TERN_TILES_2BIT, TERN_TILES_5TRIT, TERN_N_TILE_LAYOUTS };
#define TERN_TILE_ROWS        16
#define TERN_TILE_COLS        16 /* columns of a group, 2BIT */
#define TERN_TILE_COLS_5TRIT  20
#define TERN_TILE_GROUP_BYTES 64

/* y[row][out] = ((float)dot / act_scale[row]) * scale, dot the exact sum of weight * activation in int32. */
struct tern_ternary {
    const uint8_t *tiles; /* [n_tiles][k_pad / group columns][64], 64-byte aligned */
    size_t k_pad;         /* multiple of the group's columns, at most TERN_TERNARY_MAX_K */
    size_t m;             /* outputs; the last tile may be padded */
    float scale;          /* one per matrix */
    const int8_t *q;      /* [n_rows][k_pad], each row q_stride bytes apart, values -127..127; padding zero */
    size_t q_stride;      /* bytes */
    const float *act_scale; /* [n_rows], from `quantize` */
    const int32_t *act_sum; /* [n_rows], sum of q */
    size_t n_rows;          /* 1 .. any */
    float *y;               /* [n_rows][m] */
    size_t y_stride;        /* floats */
};
#define TERN_TERNARY_MAX_K 131072

/* What the KV cache holds: halves, or int8 codes with one f32 scale a position and KV head. */
enum tern_kv_type { TERN_KV_F16, TERN_KV_INT8, TERN_N_KV_TYPES };

/* One block of KV positions, seen by all rows, and of each row by the query heads that share its KV head. */
struct tern_attend {
    const float *q;  /* [n_rows] of [n_heads][head_dim], q_stride apart */
    size_t q_stride; /* floats */
    enum tern_kv_type type;
    const void *k, *v;              /* [n_pos][head_dim] f16 or int8; k after RoPE */
    const void *next_k;             /* K of the block that comes next, or NULL: a hint, nothing is read */
    const float *k_scale, *v_scale; /* [n_pos]; int8 only: an element is code times scale */
    size_t n_rows;
    size_t n_heads; /* query heads of this KV head */
    size_t head_dim;
    size_t n_pos;      /* 1 .. 32 (TERN_PAGE) */
    float score_scale; /* 1 / sqrt(head_dim) */
    float *max;        /* [n_rows][n_heads] running maximum; -INFINITY before the first block */
    float *sum;        /* [n_rows][n_heads] running sum of exp; 0 before the first block */
    float *acc; /* [n_rows] of [n_heads][head_dim] running weighted sum of v; 0 before the first block */
    size_t acc_stride; /* floats from one row's acc to the next */
};

/* Types a row of a plain matrix can have; the numbers are ggml's. */
enum tern_dtype {
    TERN_F32 = 0,
    TERN_F16 = 1,
    TERN_Q4_0 = 2,
    TERN_Q8_0 = 8,
    TERN_Q4_K = 12,
    TERN_Q6_K = 14,
    TERN_BF16 = 30,
    TERN_TQ2_0 = 35
};

/* Rows [first, last) of a plain matrix times n_x vectors: y[j * y_stride + r] = dot(row r, x_j). */
struct tern_matvec {
    const void *w; /* row 0 */
    size_t row_bytes;
    enum tern_dtype type;
    size_t k;        /* elements in a row; a multiple of the type's block */
    const float *x;  /* [n_x][k] */
    size_t x_stride; /* floats */
    size_t n_x;
    float *y;
    size_t y_stride; /* floats */
};

/*
 * A smaller copy of a plain matrix: rows of integer codes, each with one scale, whose products with quantised
 * vectors are exact integers (engine/head.h says what for).
 *
 * `screen`: int8 codes, rows [k_pad] bytes apart, times int16 vectors.  The caller sees to it that no sum can
 * leave 32 bits: |x| <= (2^31 - 1) / (127 * k), at most 32767.
 *
 * `screen4`: codes -7..7 plus 8, two a byte, rows [k_pad / 2] bytes apart, times int8 vectors of -127..127.
 * In each 32 bytes of 64 columns, byte j holds column j in its low nibble and column j + 32 in its high one.
 *
 * Padding is zero weights and zero activations.
 */
struct tern_screen {
    const void *w;        /* row 0, 64-byte aligned */
    size_t k_pad;         /* multiple of TERN_SCREEN_COLS, at most TERN_TERNARY_MAX_K */
    const int16_t *x;     /* screen: [n_x][k_pad], 32-byte aligned */
    const int8_t *x8;     /* screen4: the same */
    const int32_t *x_sum; /* screen4: [n_x] the sums of the vectors */
    size_t n_x;           /* 1 .. any */
    int32_t *y;           /* y[j * y_stride + r - row_first] */
    size_t y_stride;
};
#define TERN_SCREEN_COLS 64

/* What the encoding of a row has lost: w_i = (float)q_i * scale + e_i, e_i rounded once. */
struct tern_screen_row {
    float scale;
    float error_sq; /* fold16 of fma(e_i, e_i) */
    float norm_sq;  /* fold16 of fma(w_i, w_i) */
};

struct tern_kernels {
    enum tern_cpu_level level;

    /* -- BitLinear --------------------------------------------------------------------------------------- */

    /* Per-row absmax quantisation: mx = max(1e-5f, max |x_i|), s = 127.0f / mx, q_i = x_i *
     * s rounded to nearest even and clamped to -127..127.  Writes q[0..k_pad), zeros from k on, and *sum =
     * sum of q.  Returns s, or 0.0f when a value of x is not finite (q and *sum are then zero). */
    float (*quantize)(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum);

    /* Tiles [tile_first, tile_last) for all rows of t.  No intermediate may overflow for any codes 0..2 and q
     * -127..127. */
    void (*ternary[TERN_N_TILE_LAYOUTS])(const struct tern_ternary *t, size_t tile_first, size_t tile_last);

    /* -- float rows -------------------------------------------------------------------------------------- */

    /* ss = fold16 of fma(x_i, x_i); r = 1.0f / sqrtf(ss / (float)n + eps); y_i = (x_i * r) * w_i.  y may be
     * x. */
    void (*rmsnorm)(const float *x, const float *w, size_t n, float eps, float *y);

    /* NEOX pairs (j, j + head_dim/2): a' = a*cos_j - b*sin_j, b' = a*sin_j + b*cos_j; cos_sin is
     * cos[head_dim/2] then sin[head_dim/2].  In place. */
    void (*rope_neox)(float *h, const float *cos_sin, size_t head_dim);

    /* The same of pairs (2j, 2j + 1); here cos_sin is cos_j at 2j and sin_j at 2j + 1. */
    void (*rope_norm)(float *h, const float *cos_sin, size_t head_dim);

    /* x_i += y_i. */
    void (*add)(float *x, const float *y, size_t n);

    /* y_i = (r * r) * up_i with r = gate_i > 0 ? gate_i : 0.  y may be gate. */
    void (*relu2_gate)(const float *gate, const float *up, size_t n, float *y);

    /* y_i = (g / (1.0f + tern_expf(-g))) * up_i with g = gate_i: SiLU.  y may be gate. */
    void (*silu_gate)(const float *gate, const float *up, size_t n, float *y);

    /* y_i = (g / (1.0f + tern_expf(-v))) * up_i with v = (1.5957691f * g) * fmaf(0.044715f, g * g, 1.0f):
     * GELU by tanh, since (1 + tanh(v / 2)) / 2 = 1 / (1 + e^-v).  Nothing cancels, and large |g| give g and
     * 0.  y may be gate. */
    void (*gelu_gate)(const float *gate, const float *up, size_t n, float *y);

    /* Round to nearest even, subnormals kept, overflow to infinity. */
    void (*f32_to_f16)(const float *x, size_t n, uint16_t *y);
    void (*f16_to_f32)(const uint16_t *x, size_t n, float *y);

    /* True when no element is NaN or infinite. */
    bool (*all_finite)(const float *x, size_t n);

    /*
     * One block of attention, folded into the running state.  For each head of each row: s_i =
     * fold16(fma(q, k_i)) * score_scale; bm = max s_i + 0.0f (no -0); p_i = tern_expf(s_i - bm); bl = p_0 +
     * p_1 + ... in order of i from +0.0f; b_d = fold over i in order of fmaf(p_i, v_i[d], b_d) from +0.0f.
     * int8 codes stand for k_i and v_i as (float)code, their scales are applied to what a position has one
     * of: s_i = (fold16(...) * k_scale_i) * score_scale, and p_i * v_scale_i takes the place of p_i in b_d.
     * Then m' = max(max, bm); a = tern_expf(max - m') (0 when max is -INFINITY); c = tern_expf(bm - m');
     * sum = fmaf(bl, c, sum * a); acc_d = fmaf(b_d, c, acc_d * a); max = m'.
     */
    void (*attend)(const struct tern_attend *a);

    /* Folds the state of later positions into one of earlier ones, both of n_heads heads: the last formulas
     * of `attend` (from m' on) with span_max for bm, span_sum for bl and span_acc for b. */
    void (*attend_merge)(size_t n_heads, size_t head_dim, const float *span_max, const float *span_sum,
                         const float *span_acc, float *max, float *sum, float *acc);

    /* out_d = acc_d / sum; n = head_dim. */
    void (*attend_finish)(const float *acc, float sum, size_t n, float *out);

    /* -- plain matrices ---------------------------------------------------------------------------------- */

    /* Each element w of the row is decoded as ggml defines its type (every product and sum rounded
     * to f32 on its own, in the order written in dequant.c); y = fold16 of fma(w_i, x_i). */
    void (*matvec)(const struct tern_matvec *m, size_t row_first, size_t row_last);

    /* Exact dot products of rows [row_first, row_last) of a screened copy with n_x vectors. */
    void (*screen)(const struct tern_screen *s, size_t row_first, size_t row_last);
    void (*screen4)(const struct tern_screen *s, size_t row_first, size_t row_last);

    /* One row into int8 codes [k_pad]: d = absmax / 127.0f, q_i = rne(w_i * (1.0f / d)), e_i =
     * fmaf((float)q_i, -d, w_i); d and q are 0 when absmax < 1e-30f.  A row that is not finite has d and q 0
     * and both sums +infinity. */
    void (*screen_row)(const float *w, size_t k, size_t k_pad, int8_t *q, struct tern_screen_row *out);
    /* The same into nibbles [k_pad / 2] with d = absmax / 7.0f. */
    void (*screen4_row)(const float *w, size_t k, size_t k_pad, uint8_t *q, struct tern_screen_row *out);

    /* -- sums over the vocabulary ------------------------------------------------------------------------ */

    /* Sixteen partial sums in double of (double)tern_expf(x_i - max), lane i % 16, folded as fold16 in
     * double. */
    double (*sum_exp)(const float *x, size_t n, float max);

    /* -- the residual stream at layer boundaries --------------------------------------------------------- */

    /* int8, blocks of `block` >= 1 elements (the last may be short): d = absmax / 127.0f, q_i = rne(x_i *
     * (1.0f / d)) clamped to -127..127; d and q are 0 when absmax < 1e-30f.  scales: [ceil(n / block)]. */
    void (*encode_i8)(const float *x, size_t n, size_t block, float *scales, int8_t *q);
    /* x_i = (float)q_i * d. */
    void (*decode_i8)(const float *scales, const int8_t *q, size_t n, size_t block, float *x);

    /* Two planes: hi as encode_i8; r_i = x_i - (float)hi_i * d (two roundings); lo_i = rne(r_i * (254.0f /
     * d)) clamped to -127..127. */
    void (*encode_i8x2)(const float *x, size_t n, size_t block, float *scales, int8_t *hi, int8_t *lo);
    /* x_i = (float)(254 * hi_i + lo_i) * (d / 254.0f). */
    void (*decode_i8x2)(const float *scales, const int8_t *hi, const int8_t *lo, size_t n, size_t block,
                        float *x);

    /* The places of the k elements of largest magnitude, ascending; of equal ones the first.  Magnitudes are
     * compared as bits, so a NaN is larger than infinity.  1 <= k <= n <= 65536. */
    void (*largest)(const float *x, size_t n, size_t k, uint16_t *places);

    /* -- the machine's limits, for benchmarks ------------------------------------------------------------ */

    /* Reads every byte of p once, with the level's widest loads; p is 64-byte aligned, bytes a multiple of
     * 4096.  Returns the exclusive or of all 32-bit words. */
    uint32_t (*probe_read)(const void *p, size_t bytes);

    /* n_steps times probe_dot_macs products of an unsigned and a signed byte, both 1, added up in 32 bits by
     * the fastest way this level has, from registers alone: the level's int8 peak.  Returns the sum, modulo
     * 2^32. */
    uint32_t (*probe_dot)(size_t n_steps);
    size_t probe_dot_macs;
};

/* Fills the table: the reference first, then each level that `level` stands on (tern_cpu_below) overwrites
 * what it does better.  A level that this build does not contain is skipped; k->level says which one was
 * reached.  Pure: no globals, no detection; so level must be one that tern_cpu_supports(), since even filling
 * in a level's ops runs its instructions. */
void tern_kernels_init(struct tern_kernels *k, enum tern_cpu_level level);

/* -- plain helpers, the same code for every level -------------------------------------------------------- */

/* Elements and bytes of one block of a type; false when the type is not one of enum tern_dtype. */
bool tern_dtype_block(uint32_t type, size_t *elems, size_t *bytes);

/* Decodes a row of n elements to f32 (embedding look-up).  n is a multiple of the type's block. */
void tern_dequant_row(enum tern_dtype type, const void *row, size_t n, float *y);

#endif
