/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The definition of every op in kernels.h, in plain loops: what a vector level returns must equal this bit
 * for bit. Nothing here is clever; the order of each float operation is the point.
 */
#include "kernels/exact_math.h"
#include "kernels/exact_math_poly.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_scalar.h"

/* Elements of a matrix row decoded at a time; a multiple of every type's block. */
#define CHUNK 256
/* Vectors that share one decoding of a row. */
#define X_BLOCK 8

static float quantize(const float *x, size_t k, size_t k_pad, int8_t *q, int32_t *sum)
{
    uint32_t mx = absmax_bits(x, k, f32_bits(1e-5f));
    *sum = 0;
    if (mx >= 0x7f800000u) {
        memset(q, 0, k_pad);
        return 0.0f;
    }
    float s = 127.0f / f32_from_bits(mx);
    for (size_t i = 0; i < k; i++) {
        q[i] = round_i8(x[i] * s);
        *sum += q[i];
    }
    memset(q + k, 0, k_pad - k);
    return s;
}

/* Sixteen rows of one tile times one activation row: the sums of code * q. */
static void tile_dots(enum tern_tile_layout layout, const uint8_t *tile, const int8_t *q, size_t k_pad,
                      int32_t dot[TERN_TILE_ROWS])
{
    const int32_t base = layout == TERN_TILES_2BIT ? 4 : 3;
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    memset(dot, 0, TERN_TILE_ROWS * sizeof dot[0]);
    for (size_t c = 0; c < k_pad; c += cols, tile += TERN_TILE_GROUP_BYTES, q += cols) {
        for (size_t r = 0; r < TERN_TILE_ROWS; r++) {
            for (size_t j = 0; j < 4; j++) {
                int32_t b = tile[4 * r + j];
                for (size_t i = j; i < cols; i += 4, b /= base)
                    dot[r] += b % base * q[i];
            }
        }
    }
}

static void ternary_tiles(enum tern_tile_layout layout, const struct tern_ternary *t, size_t tile_first,
                          size_t tile_last)
{
    const size_t cols = layout == TERN_TILES_2BIT ? TERN_TILE_COLS : TERN_TILE_COLS_5TRIT;
    const size_t tile_bytes = t->k_pad / cols * TERN_TILE_GROUP_BYTES;
    for (size_t tile = tile_first; tile < tile_last; tile++) {
        size_t out = tile * TERN_TILE_ROWS;
        size_t n = t->m - out < TERN_TILE_ROWS ? t->m - out : TERN_TILE_ROWS;
        for (size_t row = 0; row < t->n_rows; row++) {
            int32_t dot[TERN_TILE_ROWS];
            tile_dots(layout, t->tiles + tile * tile_bytes, t->q + row * t->q_stride, t->k_pad, dot);
            float *y = t->y + row * t->y_stride + out;
            for (size_t r = 0; r < n; r++)
                y[r] = (float)(dot[r] - t->act_sum[row]) / t->act_scale[row] * t->scale;
        }
    }
}

static void ternary_2bit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    ternary_tiles(TERN_TILES_2BIT, t, tile_first, tile_last);
}

static void ternary_5trit(const struct tern_ternary *t, size_t tile_first, size_t tile_last)
{
    ternary_tiles(TERN_TILES_5TRIT, t, tile_first, tile_last);
}

static void fma_lanes(float lane[TERN_LANES], const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lane[i % TERN_LANES] = fmaf(a[i], b[i], lane[i % TERN_LANES]);
}

static void rmsnorm(const float *x, const float *w, size_t n, float eps, float *y)
{
    float lane[TERN_LANES] = { 0 };
    fma_lanes(lane, x, x, n);
    float r = 1.0f / sqrtf(fold16(lane) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

static void rope_neox(float *h, const float *cos_sin, size_t head_dim)
{
    size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j++) {
        float a = h[j], b = h[j + half], c = cos_sin[j], s = cos_sin[half + j];
        h[j] = a * c - b * s;
        h[j + half] = a * s + b * c;
    }
}

static void rope_norm(float *h, const float *cos_sin, size_t head_dim)
{
    for (size_t j = 0; j < head_dim; j += 2) {
        float a = h[j], b = h[j + 1], c = cos_sin[j], s = cos_sin[j + 1];
        h[j] = a * c - b * s;
        h[j + 1] = a * s + b * c;
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void relu2_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        float r = gate[i] > 0.0f ? gate[i] : 0.0f;
        y[i] = r * r * up[i];
    }
}

static void silu_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = gate[i] / (1.0f + tern_expf(-gate[i])) * up[i];
}

static void gelu_gate(const float *gate, const float *up, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        float g = gate[i], v = GELU_SLOPE * g * fmaf(GELU_CUBIC, g * g, 1.0f);
        y[i] = g / (1.0f + tern_expf(-v)) * up[i];
    }
}

static void f32_to_f16(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f16_from_f32(x[i]);
}

static void f16_to_f32(const uint16_t *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_from_f16(x[i]);
}

static bool all_finite(const float *x, size_t n)
{
    return absmax_bits(x, n, 0) < 0x7f800000u;
}

/* Element d of position pos of K or V, without the scale of int8. */
static float kv_at(const struct tern_attend *a, const void *kv, size_t pos, size_t d)
{
    size_t i = pos * a->head_dim + d;
    return a->type == TERN_KV_INT8 ? (float)((const int8_t *)kv)[i] : f32_from_f16(((const uint16_t *)kv)[i]);
}

/* What was and what comes are scaled by these when they are added up. */
struct step {
    float old, new;
};

/* Folds a block's or span's maximum and sum into a state. */
static struct step fold_in(float bm, float bl, float *state_max, float *sum)
{
    float max = bm > *state_max ? bm : *state_max;
    struct step f = { *state_max == -INFINITY ? 0.0f : tern_expf(*state_max - max), tern_expf(bm - max) };
    *state_max = max;
    *sum = fmaf(bl, f.new, *sum * f.old);
    return f;
}

/* State s = row * n_heads + head. */
static void attend_head(const struct tern_attend *a, const float *q, size_t s, float *acc)
{
    float p[32], bm = -INFINITY, bl = 0.0f;
    for (size_t i = 0; i < a->n_pos; i++) {
        float lane[TERN_LANES] = { 0 };
        for (size_t d = 0; d < a->head_dim; d++)
            lane[d % TERN_LANES] = fmaf(q[d], kv_at(a, a->k, i, d), lane[d % TERN_LANES]);
        p[i] = fold16(lane);
        if (a->type == TERN_KV_INT8)
            p[i] *= a->k_scale[i];
        p[i] *= a->score_scale;
        bm = p[i] > bm ? p[i] : bm;
    }
    bm += 0.0f;
    for (size_t i = 0; i < a->n_pos; i++) {
        p[i] = tern_expf(p[i] - bm);
        bl += p[i];
        if (a->type == TERN_KV_INT8)
            p[i] *= a->v_scale[i];
    }
    struct step f = fold_in(bm, bl, &a->max[s], &a->sum[s]);
    for (size_t d = 0; d < a->head_dim; d++) {
        float b = 0.0f;
        for (size_t i = 0; i < a->n_pos; i++)
            b = fmaf(p[i], kv_at(a, a->v, i, d), b);
        acc[d] = fmaf(b, f.new, acc[d] * f.old);
    }
}

static void attend(const struct tern_attend *a)
{
    for (size_t row = 0; row < a->n_rows; row++) {
        for (size_t h = 0; h < a->n_heads; h++)
            attend_head(a, a->q + row * a->q_stride + h * a->head_dim, row * a->n_heads + h,
                        a->acc + row * a->acc_stride + h * a->head_dim);
    }
}

static void attend_merge(size_t n_heads, size_t head_dim, const float *span_max, const float *span_sum,
                         const float *span_acc, float *max, float *sum, float *acc)
{
    for (size_t h = 0; h < n_heads; h++, acc += head_dim, span_acc += head_dim) {
        struct step f = fold_in(span_max[h], span_sum[h], &max[h], &sum[h]);
        for (size_t d = 0; d < head_dim; d++)
            acc[d] = fmaf(span_acc[d], f.new, acc[d] * f.old);
    }
}

static void attend_finish(const float *acc, float sum, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = acc[i] / sum;
}

/* One row times at most X_BLOCK vectors from x on. */
static void matvec_row(const struct tern_matvec *m, const uint8_t *row, const float *x, size_t n_x, float *y)
{
    size_t elems, bytes;
    if (!tern_dtype_block(m->type, &elems, &bytes))
        return;
    float lane[X_BLOCK][TERN_LANES] = { { 0 } };
    for (size_t i = 0; i < m->k; i += CHUNK) {
        float w[CHUNK];
        size_t n = m->k - i < CHUNK ? m->k - i : CHUNK;
        tern_dequant_row(m->type, row + i / elems * bytes, n, w);
        for (size_t j = 0; j < n_x; j++)
            fma_lanes(lane[j], w, x + j * m->x_stride + i, n);
    }
    for (size_t j = 0; j < n_x; j++)
        y[j * m->y_stride] = fold16(lane[j]);
}

static void matvec(const struct tern_matvec *m, size_t row_first, size_t row_last)
{
    for (size_t r = row_first; r < row_last; r++) {
        for (size_t j = 0; j < m->n_x; j += X_BLOCK) {
            size_t n = m->n_x - j < X_BLOCK ? m->n_x - j : X_BLOCK;
            matvec_row(m, (const uint8_t *)m->w + r * m->row_bytes, m->x + j * m->x_stride, n,
                       m->y + j * m->y_stride + r);
        }
    }
}

static void screen(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    for (size_t r = row_first; r < row_last; r++) {
        const int8_t *w = (const int8_t *)s->w + r * s->k_pad;
        for (size_t j = 0; j < s->n_x; j++) {
            int32_t sum = 0;
            for (size_t i = 0; i < s->k_pad; i++)
                sum += w[i] * s->x[j * s->k_pad + i];
            s->y[j * s->y_stride + r - row_first] = sum;
        }
    }
}

static void screen4(const struct tern_screen *s, size_t row_first, size_t row_last)
{
    for (size_t r = row_first; r < row_last; r++) {
        const uint8_t *w = (const uint8_t *)s->w + r * s->k_pad / 2;
        for (size_t j = 0; j < s->n_x; j++) {
            const int8_t *x = s->x8 + j * s->k_pad;
            int32_t sum = 0;
            for (size_t i = 0; i < s->k_pad; i++)
                sum += (w[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) * x[i];
            s->y[j * s->y_stride + r - row_first] = sum - 8 * s->x_sum[j];
        }
    }
}

/* The code of one weight; what it loses is added to the lanes. */
static int8_t screen_code(float w, float d, float inv, float *error_sq)
{
    int8_t q = d == 0.0f ? 0 : round_i8(w * inv);
    float e = fmaf((float)q, -d, w);
    *error_sq = fmaf(e, e, *error_sq);
    return q;
}

/* Scale and squared norm; false when the row is not finite. */
static bool screen_scale(const float *w, size_t k, float levels, struct tern_screen_row *out)
{
    float lane[TERN_LANES] = { 0 };
    uint32_t bits = absmax_bits(w, k, 0);
    fma_lanes(lane, w, w, k);
    out->norm_sq = fold16(lane);
    out->scale = f32_from_bits(bits) < 1e-30f ? 0.0f : f32_from_bits(bits) / levels;
    if (bits < 0x7f800000u)
        return true;
    *out = (struct tern_screen_row){ 0.0f, INFINITY, INFINITY };
    return false;
}

static void screen_row(const float *w, size_t k, size_t k_pad, int8_t *q, struct tern_screen_row *out)
{
    float lane[TERN_LANES] = { 0 };
    memset(q, 0, k_pad);
    if (!screen_scale(w, k, 127.0f, out))
        return;
    float inv = 1.0f / out->scale;
    for (size_t i = 0; i < k; i++)
        q[i] = screen_code(w[i], out->scale, inv, &lane[i % TERN_LANES]);
    out->error_sq = fold16(lane);
}

static void screen4_row(const float *w, size_t k, size_t k_pad, uint8_t *q, struct tern_screen_row *out)
{
    float lane[TERN_LANES] = { 0 };
    memset(q, 0x88, k_pad / 2);
    if (!screen_scale(w, k, 7.0f, out))
        return;
    float inv = 1.0f / out->scale;
    for (size_t i = 0; i < k; i++) {
        int8_t c = screen_code(w[i], out->scale, inv, &lane[i % TERN_LANES]);
        /* 8 ^ (c + 8) turns the padding's 8 into c + 8. */
        q[i / 64 * 32 + i % 32] ^= (uint8_t)((8 ^ (c + 8)) << (i % 64 / 32 * 4));
    }
    out->error_sq = fold16(lane);
}

static double sum_exp(const float *x, size_t n, float max)
{
    double lane[TERN_LANES] = { 0 };
    for (size_t i = 0; i < n; i++)
        lane[i % TERN_LANES] += (double)tern_expf(x[i] - max);
    return fold16_f64(lane);
}

/* The scale of one block, 0 when it counts as all zero. */
static float block_scale(const float *x, size_t n)
{
    float mx = f32_from_bits(absmax_bits(x, n, 0));
    return mx < 1e-30f ? 0.0f : mx / 127.0f;
}

static void encode_i8(const float *x, size_t n, size_t block, float *scales, int8_t *q)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len), inv = d == 0.0f ? 0.0f : 1.0f / d;
        *scales++ = d;
        for (size_t i = b; i < b + len; i++)
            q[i] = d == 0.0f ? 0 : round_i8(x[i] * inv);
    }
}

static void decode_i8(const float *scales, const int8_t *q, size_t n, size_t block, float *x)
{
    for (size_t b = 0; b < n; b += block) {
        float d = *scales++;
        for (size_t i = b; i < n && i < b + block; i++)
            x[i] = (float)q[i] * d;
    }
}

static void encode_i8x2(const float *x, size_t n, size_t block, float *scales, int8_t *hi, int8_t *lo)
{
    for (size_t b = 0; b < n; b += block) {
        size_t len = n - b < block ? n - b : block;
        float d = block_scale(x + b, len);
        float inv = d == 0.0f ? 0.0f : 1.0f / d, inv_lo = d == 0.0f ? 0.0f : 254.0f / d;
        *scales++ = d;
        for (size_t i = b; i < b + len; i++) {
            hi[i] = d == 0.0f ? 0 : round_i8(x[i] * inv);
            lo[i] = d == 0.0f ? 0 : round_i8((x[i] - (float)hi[i] * d) * inv_lo);
        }
    }
}

static void decode_i8x2(const float *scales, const int8_t *hi, const int8_t *lo, size_t n, size_t block,
                        float *x)
{
    for (size_t b = 0; b < n; b += block) {
        float step = *scales++ / 254.0f;
        for (size_t i = b; i < n && i < b + block; i++)
            x[i] = (float)(254 * hi[i] + lo[i]) * step;
    }
}

static uint32_t probe_read(const void *p, size_t bytes)
{
    uint32_t x = 0, word;
    for (size_t i = 0; i < bytes; i += sizeof word) {
        memcpy(&word, (const uint8_t *)p + i, sizeof word);
        x ^= word;
    }
    return x;
}

static uint32_t probe_dot(size_t n_steps)
{
    /* Read at every step, so that the compiler cannot multiply once for all. */
    volatile const uint8_t code = 1;
    volatile const int8_t q = 1;
    uint32_t sum = 0;
    for (size_t i = 0; i < n_steps; i++)
        sum += (uint32_t)(code * q);
    return sum;
}

void tern_kernels_init_ref(struct tern_kernels *k)
{
    *k = (struct tern_kernels){
        .level = TERN_CPU_REF,
        .quantize = quantize,
        .ternary = { ternary_2bit, ternary_5trit },
        .rmsnorm = rmsnorm,
        .rope_neox = rope_neox,
        .rope_norm = rope_norm,
        .add = add,
        .relu2_gate = relu2_gate,
        .silu_gate = silu_gate,
        .gelu_gate = gelu_gate,
        .f32_to_f16 = f32_to_f16,
        .f16_to_f32 = f16_to_f32,
        .all_finite = all_finite,
        .attend = attend,
        .attend_merge = attend_merge,
        .attend_finish = attend_finish,
        .matvec = matvec,
        .screen = screen,
        .screen4 = screen4,
        .screen_row = screen_row,
        .screen4_row = screen4_row,
        .sum_exp = sum_exp,
        .encode_i8 = encode_i8,
        .decode_i8 = decode_i8,
        .encode_i8x2 = encode_i8x2,
        .decode_i8x2 = decode_i8x2,
        .largest = largest_scalar,
        .probe_read = probe_read,
        .probe_dot = probe_dot,
        .probe_dot_macs = 1,
    };
}
