/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel of every level this CPU has against computations in double precision.  That the levels agree
 * bit for bit is the business of tests/kernels.
 */
#include "kernels/pack.h"
#include "unit/kernel_inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REL 1e-5

/* |got - want| within REL of `size`: the largest magnitude that went into the result. */
static void close_to(double got, double want, double size)
{
    if (!(fabs(got - want) <= REL * size + 1e-37))
        fail_msg("got %.9g, want %.9g (size %g)", got, want, size);
}

/* Runs test(k) for every level of this machine. */
static void each_level(void (*test)(const struct tern_kernels *k))
{
    for (int l = TERN_CPU_REF; l < TERN_CPU_N_LEVELS; l++) {
        struct tern_kernels k;
        if (!tern_cpu_supports((enum tern_cpu_level)l))
            continue;
        tern_kernels_init(&k, (enum tern_cpu_level)l);
        test(&k);
    }
}

/* -- cpu ------------------------------------------------------------------------------------------------- */

static void cpu_names(void **unused)
{
    (void)unused;
    enum tern_cpu_level level;
    for (int l = 0; l < TERN_CPU_N_LEVELS; l++) {
        assert_true(tern_cpu_by_name(tern_cpu_name((enum tern_cpu_level)l), &level));
        assert_int_equal(level, l);
    }
    assert_false(tern_cpu_by_name("avx", &level));
    assert_false(tern_cpu_by_name("", &level));
    tern_cpu_set_float_mode();
    volatile float tiny = 0x1p-140f;
    assert_true(tiny * 0.5f == 0x1p-141f);
}

static void init_is_a_staircase(void **unused)
{
    (void)unused;
    struct tern_kernels k;
    for (int l = 0; l < TERN_CPU_N_LEVELS; l++) {
        if (!tern_cpu_supports((enum tern_cpu_level)l))
            continue;
        tern_kernels_init(&k, (enum tern_cpu_level)l);
        assert_int_equal(k.level, l);
    }
}

/* -- BitLinear ------------------------------------------------------------------------------------------- */

static void quantize_row(const struct tern_kernels *k, size_t n)
{
    size_t pad = tern_pack_k_pad(TERN_TILES_2BIT, n);
    float *x = malloc(n * sizeof *x);
    int8_t *q = malloc(pad);
    double mx = 1e-5;
    for (size_t i = 0; i < n; i++) {
        x[i] = unit() * 3.0f;
        mx = fmax(mx, fabs((double)x[i]));
    }
    int32_t sum, want_sum = 0;
    float s = k->quantize(x, n, pad, q, &sum);
    assert_true(s == (float)(127.0 / mx));
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i] * (127.0 / mx), want = nearbyint(v);
        if (fabs(fabs(v - floor(v)) - 0.5) > 1e-4)
            assert_int_equal(q[i], (int)want);
        assert_true(fabs(q[i] - v) < 0.5001);
        want_sum += q[i];
    }
    for (size_t i = n; i < pad; i++)
        assert_int_equal(q[i], 0);
    assert_int_equal(sum, want_sum);
    free(x);
    free(q);
}

static void quantize_level(const struct tern_kernels *k)
{
    static const size_t ns[] = { 1, 17, 100, 640, 2560, 6912, 8640 };
    for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++)
        quantize_row(k, ns[i]);
    float zeros[20] = { 0 }, bad[20] = { 1.0f };
    int8_t q[32];
    int32_t sum = 7;
    assert_true(k->quantize(zeros, 20, 32, q, &sum) == 12700000.0f);
    assert_int_equal(sum, 0);
    const float hostile[] = { INFINITY, -INFINITY, NAN };
    for (size_t i = 0; i < 3; i++) {
        bad[i + 16] = hostile[i];
        memset(q, 55, sizeof q);
        assert_true(k->quantize(bad, 20, 32, q, &sum) == 0.0f);
        assert_int_equal(sum, 0);
        for (size_t j = 0; j < 32; j++)
            assert_int_equal(q[j], 0);
        bad[i + 16] = 0.0f;
    }
}

static void quantize_test(void **unused)
{
    (void)unused;
    each_level(quantize_level);
}

/* m rows of weights w, n_rows rows of codes q: every output against sums in 64 bits. */
static void ternary_case(const struct tern_kernels *k, enum tern_tile_layout layout, const int8_t *w,
                         size_t m, size_t n, const int8_t *codes, size_t n_rows)
{
    size_t pad = tern_pack_codes(n), bytes, blocks = m * n / 4 + 32;
    assert_int_equal(n % 256, 0);
    assert_true(tern_pack_bytes(layout, m, n, &bytes));
    uint8_t *file = malloc(blocks), *tiles = aligned_alloc(64, bytes);
    int8_t *q = calloc(n_rows, pad);
    float scale, *y = malloc(n_rows * m * sizeof *y), act_scale[8];
    int32_t act_sum[8];
    assert_true(tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_A, w, m, n, 1.0f, file));
    struct tern_packing p = { { .type = TERN_TYPE_I2_S, .src = file, .m = m, .k = n }, layout, tiles };
    assert_int_equal(tern_pack(&p, 0, tern_pack_tiles(m), &scale), TERN_PACK_OK);
    for (size_t r = 0; r < n_rows; r++) {
        act_scale[r] = 1.0f;
        act_sum[r] = 0;
        memcpy(q + r * pad, codes + r * n, n);
        for (size_t i = 0; i < n; i++)
            act_sum[r] += q[r * pad + i];
    }
    struct tern_ternary t = { .tiles = tiles,
                              .k_pad = tern_pack_k_pad(layout, n),
                              .m = m,
                              .scale = scale,
                              .q = q,
                              .q_stride = pad,
                              .act_scale = act_scale,
                              .act_sum = act_sum,
                              .n_rows = n_rows,
                              .y = y,
                              .y_stride = m };
    k->ternary[layout](&t, 0, tern_pack_tiles(m));
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t o = 0; o < m; o++) {
            int64_t want = 0;
            for (size_t i = 0; i < n; i++)
                want += (int64_t)w[o * n + i] * q[r * pad + i];
            assert_true(y[r * m + o] == (float)want);
        }
    }
    /* With scales: ((float)dot / act_scale) * scale, in that order. */
    float exact = y[0];
    act_scale[0] = 3.7f;
    t.scale = 0.031f;
    k->ternary[layout](&t, 0, 1);
    float quotient = exact / 3.7f;
    assert_true(y[0] == quotient * 0.031f);
    free(file);
    free(tiles);
    free(q);
    free(y);
}

static void ternary_layout(const struct tern_kernels *k, enum tern_tile_layout layout)
{
    static const size_t ns[] = { 256, 2560, 4096, 14336 };
    for (size_t c = 0; c < 4; c++) {
        size_t n = ns[c], m = 20;
        int8_t *w = malloc(m * n), *q = malloc(5 * n);
        /* Where sums of 16 bits would overflow: all weights +1, all activations 127, and every other
         * extreme. */
        static const int extreme[4][2] = { { 1, 127 }, { 1, -127 }, { -1, 127 }, { -1, -127 } };
        for (size_t e = 0; e < 4; e++) {
            memset(w, extreme[e][0], m * n);
            memset(q, extreme[e][1], 5 * n);
            ternary_case(k, layout, w, m, n, q, 5);
            ternary_case(k, layout, w, m, n, q, 1);
        }
        for (size_t i = 0; i < m * n; i++)
            w[i] = (int8_t)(rnd() % 3) - 1;
        for (size_t i = 0; i < 5 * n; i++)
            q[i] = (int8_t)((int)(rnd() % 255) - 127);
        ternary_case(k, layout, w, m, n, q, 5);
        free(w);
        free(q);
    }
}

static void ternary_level(const struct tern_kernels *k)
{
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++)
        ternary_layout(k, (enum tern_tile_layout)l);
}

static void ternary_test(void **unused)
{
    (void)unused;
    each_level(ternary_level);
}

/* -- float rows ------------------------------------------------------------------------------------------ */

#define N 2567

static float ax[N], bx[N], yx[N];

static void fill_rows(void)
{
    for (size_t i = 0; i < N; i++) {
        ax[i] = unit() * 4.0f;
        bx[i] = unit();
    }
}

static void rows_level(const struct tern_kernels *k)
{
    fill_rows();
    double ss = 0;
    for (size_t i = 0; i < N; i++)
        ss += (double)ax[i] * ax[i];
    k->rmsnorm(ax, bx, N, 1e-5f, yx);
    for (size_t i = 0; i < N; i++)
        close_to(yx[i], ax[i] / sqrt(ss / N + 1e-5) * bx[i], fabs((double)yx[i]));
    k->relu2_gate(ax, bx, N, yx);
    for (size_t i = 0; i < N; i++)
        close_to(yx[i], ax[i] > 0 ? (double)ax[i] * ax[i] * bx[i] : 0.0, fabs((double)yx[i]));
    k->silu_gate(ax, bx, N, yx);
    for (size_t i = 0; i < N; i++)
        close_to(yx[i], ax[i] / (1.0 + exp(-(double)ax[i])) * bx[i], fabs((double)yx[i]));
    k->gelu_gate(ax, bx, N, yx);
    for (size_t i = 0; i < N; i++) {
        double g = ax[i], t = tanh(sqrt(2.0 / acos(-1.0)) * g * (1.0 + 0.044715 * g * g));

        close_to(yx[i], 0.5 * g * (1.0 + t) * bx[i], fabs((double)ax[i] * bx[i]));
    }
    memcpy(yx, ax, sizeof yx);
    k->add(yx, bx, N);
    for (size_t i = 0; i < N; i++)
        assert_true(yx[i] == (float)((double)ax[i] + bx[i]));
    float cs[100], h[100];
    for (size_t j = 0; j < 50; j++) {
        cs[j] = (float)cos((double)j);
        cs[50 + j] = (float)sin((double)j);
    }
    memcpy(h, ax, sizeof h);
    k->rope_neox(h, cs, 100);
    for (size_t j = 0; j < 50; j++) {
        close_to(h[j], ax[j] * cos((double)j) - ax[j + 50] * sin((double)j), 4);
        close_to(h[j + 50], ax[j] * sin((double)j) + ax[j + 50] * cos((double)j), 4);
    }
    for (size_t j = 0; j < 50; j++) {
        cs[2 * j] = (float)cos((double)j);
        cs[2 * j + 1] = (float)sin((double)j);
    }
    memcpy(h, ax, sizeof h);
    k->rope_norm(h, cs, 100);
    for (size_t j = 0; j < 50; j++) {
        close_to(h[2 * j], ax[2 * j] * cos((double)j) - ax[2 * j + 1] * sin((double)j), 4);
        close_to(h[2 * j + 1], ax[2 * j] * sin((double)j) + ax[2 * j + 1] * cos((double)j), 4);
    }
    double want = 0;
    for (size_t i = 0; i < N; i++)
        want += exp((double)ax[i] - 4.0);
    close_to(k->sum_exp(ax, N, 4.0f), want, want);
    assert_true(k->all_finite(ax, N));
    ax[N - 1] = INFINITY;
    assert_false(k->all_finite(ax, N));
    ax[N - 1] = NAN;
    assert_false(k->all_finite(ax, N));
    assert_true(k->all_finite(ax, N - 1));
}

static void rows_test(void **unused)
{
    (void)unused;
    each_level(rows_level);
}

static void halves_level(const struct tern_kernels *k)
{
    /* Every half is decoded to its value and encoded to itself; a float between two halves goes to the
     * nearer, a tie to the even one. */
    for (uint32_t u = 0; u < 0x7c00; u++) {
        uint16_t h[2] = { (uint16_t)u, (uint16_t)(u | 0x8000u) }, back[2];
        float f[2];
        k->f16_to_f32(h, 2, f);
        double want = u < 0x400 ? ldexp(u, -24) : ldexp(1024 + (u & 0x3ff), (int)(u >> 10) - 25);
        assert_true(f[0] == want && f[1] == -want);
        k->f32_to_f16(f, 2, back);
        assert_true(back[0] == h[0] && back[1] == h[1]);
        double step = u < 0x400 ? 0x1p-24 : ldexp(1, (int)(u >> 10) - 25);
        float around[3] = { (float)(want + step * 0.5), (float)(want + step * 0.49),
                            (float)(want + step * 0.51) };
        uint16_t got[3];
        k->f32_to_f16(around, 3, got);
        assert_int_equal(got[0], u + (u & 1));
        assert_int_equal(got[1], u);
        assert_int_equal(got[2], u + 1);
    }
    const float big[4] = { 65504.0f, 65519.996f, 65520.0f, -1e30f };
    uint16_t got[4];
    k->f32_to_f16(big, 4, got);
    assert_true(got[0] == 0x7bff && got[1] == 0x7bff && got[2] == 0x7c00 && got[3] == 0xfc00);
}

static void halves_test(void **unused)
{
    (void)unused;
    each_level(halves_level);
}

/* -- attention ------------------------------------------------------------------------------------------- */

#define DIM   96
#define HEADS 5
#define POS   75

static void attend_level(const struct tern_kernels *k)
{
    static float q[HEADS * DIM], kf[POS * DIM], vf[POS * DIM], acc[HEADS * DIM], out[DIM];
    static uint16_t kh[POS * DIM], vh[POS * DIM];
    float max[HEADS], sum[HEADS], scale = 1.0f / sqrtf(DIM);
    for (size_t i = 0; i < HEADS * DIM; i++)
        q[i] = unit() * 3.0f;
    for (size_t i = 0; i < POS * DIM; i++) {
        kf[i] = unit() * 2.0f;
        vf[i] = unit();
    }
    k->f32_to_f16(kf, POS * DIM, kh);
    k->f32_to_f16(vf, POS * DIM, vh);
    k->f16_to_f32(kh, POS * DIM, kf);
    k->f16_to_f32(vh, POS * DIM, vf);
    memset(acc, 0, sizeof acc);
    for (size_t h = 0; h < HEADS; h++) {
        max[h] = -INFINITY;
        sum[h] = 0;
    }
    for (size_t p = 0; p < POS; p += 32) {
        struct tern_attend a = { .q = q,
                                 .k = kh + p * DIM,
                                 .v = vh + p * DIM,
                                 .n_rows = 1,
                                 .n_heads = HEADS,
                                 .head_dim = DIM,
                                 .n_pos = POS - p < 32 ? POS - p : 32,
                                 .score_scale = scale,
                                 .max = max,
                                 .sum = sum,
                                 .acc = acc };
        k->attend(&a);
    }
    for (size_t h = 0; h < HEADS; h++) {
        double score[POS], top = -1e300, total = 0;
        for (size_t p = 0; p < POS; p++) {
            score[p] = 0;
            for (size_t d = 0; d < DIM; d++)
                score[p] += (double)q[h * DIM + d] * kf[p * DIM + d];
            score[p] /= sqrt(DIM);
            top = fmax(top, score[p]);
        }
        for (size_t p = 0; p < POS; p++)
            total += score[p] = exp(score[p] - top);
        k->attend_finish(acc + h * DIM, sum[h], DIM, out);
        for (size_t d = 0; d < DIM; d++) {
            double want = 0;
            for (size_t p = 0; p < POS; p++)
                want += score[p] / total * vf[p * DIM + d];
            close_to(out[d], want, 1.0);
        }
    }
}

static void attend_test(void **unused)
{
    (void)unused;
    each_level(attend_level);
}

/* -- plain matrices -------------------------------------------------------------------------------------- */

static void block_types(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t type;
        size_t elems, bytes;
    } want[] = { { 0, 1, 4 },   { 1, 1, 2 },      { 30, 1, 2 },    { 8, 32, 34 },
                 { 2, 32, 18 }, { 12, 256, 144 }, { 14, 256, 210 } };
    size_t elems = 99, bytes = 99;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_true(tern_dtype_block(want[i].type, &elems, &bytes));
        assert_true(elems == want[i].elems && bytes == want[i].bytes);
    }
    elems = bytes = 99;
    const uint32_t unknown[] = { 3, 4, 13, 15, 34, 36, 39, 0xffffffffu };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_false(tern_dtype_block(unknown[i], &elems, &bytes));
    assert_true(elems == 99 && bytes == 99);
}

/* Each element from the formulas of ggml's block types, written per element and not per block. */
static double element(enum tern_dtype type, const uint8_t *b, size_t e, const float d[2])
{
    if (type == TERN_Q8_0)
        return (double)(int8_t)b[2 + e] * d[0];
    if (type == TERN_Q4_0)
        return ((e < 16 ? b[2 + e] & 15 : b[2 + e - 16] >> 4) - 8.0) * d[0];
    if (type == TERN_Q4_K) {
        const uint8_t *s = b + 4;
        size_t j = e / 32;
        unsigned sc = j < 4 ? s[j] & 63u : (s[j + 4] & 15u) | (unsigned)(s[j - 4] >> 6) << 4;
        unsigned mn = j < 4 ? s[j + 4] & 63u : (unsigned)(s[j + 4] >> 4) | (unsigned)(s[j] >> 6) << 4;
        uint8_t byte = b[16 + e / 64 * 32 + e % 32];
        unsigned q = e % 64 < 32 ? byte & 15u : byte >> 4;
        return (double)d[0] * sc * q - (double)d[1] * mn;
    }
    size_t half = e / 128, r = e % 128, g = r / 32, l = r % 32;
    if (type == TERN_TQ2_0)
        return ((b[32 * half + l] >> (2 * g) & 3) - 1.0) * d[0];
    uint8_t low = b[64 * half + g % 2 * 32 + l];
    unsigned q = (g < 2 ? low & 15u : low >> 4) | (unsigned)(b[128 + 32 * half + l] >> (2 * g) & 3) << 4;
    return (double)d[0] * (int8_t)b[192 + 8 * half + 2 * g + l / 16] * ((int)q - 32);
}

/* Of d in a block. */
static size_t scale_at(enum tern_dtype type)
{
    return type == TERN_Q6_K ? 208 : type == TERN_TQ2_0 ? 64 : 0;
}

static void decode_blocks(void **unused)
{
    (void)unused;
    static const enum tern_dtype types[] = { TERN_Q8_0, TERN_Q4_0, TERN_Q4_K, TERN_Q6_K, TERN_TQ2_0 };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        size_t elems, bytes;
        tern_dtype_block(types[t], &elems, &bytes);
        for (int round = 0; round < 50; round++) {
            uint8_t b[2 * 210];
            float y[512], d[2] = { 0.5f * (float)(1 + rnd() % 9), 0.25f * (float)(rnd() % 9) };
            for (size_t i = 0; i < 2 * bytes; i++)
                b[i] = (uint8_t)rnd();
            for (size_t i = 0; i < 2; i++) {
                put_f16(b + i * bytes + scale_at(types[t]), d[0]);
                if (types[t] == TERN_Q4_K)
                    put_f16(b + i * bytes + 2, d[1]);
            }
            tern_dequant_row(types[t], b, 2 * elems, y);
            /* Scales of few bits: every product is exact, so the decoding must be too. */
            for (size_t e = 0; e < 2 * elems; e++)
                assert_true(y[e] == element(types[t], b + e / elems * bytes, e % elems, d));
        }
    }
    const float f[3] = { 1.5f, -2.0f, 0x1p-140f };
    const uint16_t h[3] = { 0x3c00, 0xc000, 0x0001 }, bf[3] = { 0x3f80, 0xc000, 0x0001 };
    float y[3];
    tern_dequant_row(TERN_F32, f, 3, y);
    assert_memory_equal(f, y, sizeof f);
    tern_dequant_row(TERN_F16, h, 3, y);
    assert_true(y[0] == 1.0f && y[1] == -2.0f && y[2] == 0x1p-24f);
    tern_dequant_row(TERN_BF16, bf, 3, y);
    assert_true(y[0] == 1.0f && y[1] == -2.0f && y[2] == 0x1p-133f);
}

static void matvec_level(const struct tern_kernels *k)
{
    static const enum tern_dtype types[] = { TERN_F32,  TERN_F16,  TERN_BF16, TERN_Q8_0,
                                             TERN_Q4_0, TERN_Q4_K, TERN_Q6_K, TERN_TQ2_0 };
    enum { K = 768, ROWS = 9, X = 3 };
    static uint8_t w[ROWS * K * 4];
    static float x[X * K], y[X * ROWS], row[K];
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        size_t elems, bytes;
        tern_dtype_block(types[t], &elems, &bytes);
        size_t row_bytes = K / elems * bytes;
        for (size_t i = 0; i < sizeof w; i++)
            w[i] = (uint8_t)rnd();
        for (size_t b = 0; elems > 1 && b < ROWS * row_bytes; b += bytes) {
            put_f16(w + b + scale_at(types[t]), unit());
            if (types[t] == TERN_Q4_K)
                put_f16(w + b + 2, unit());
        }
        for (size_t i = 0; elems == 1 && i < (size_t)ROWS * K; i++) {
            float f = unit();
            memcpy(w + i * bytes, (uint8_t *)&f + (bytes == 2 ? 2 : 0), bytes);
            if (types[t] == TERN_F16)
                put_f16(w + 2 * i, f);
        }
        for (size_t i = 0; i < X * K; i++)
            x[i] = unit();
        struct tern_matvec m = { w, row_bytes, types[t], K, x, K, X, y, ROWS };
        k->matvec(&m, 0, ROWS);
        for (size_t r = 0; r < ROWS; r++) {
            tern_dequant_row(types[t], w + r * row_bytes, K, row);
            for (size_t j = 0; j < X; j++) {
                double want = 0, size = 0;
                for (size_t i = 0; i < K; i++) {
                    want += (double)row[i] * x[j * K + i];
                    size += fabs((double)row[i] * x[j * K + i]);
                }
                close_to(y[j * ROWS + r], want, size);
            }
        }
    }
}

static void matvec_test(void **unused)
{
    (void)unused;
    each_level(matvec_level);
}

/* -- the residual stream at layer boundaries ------------------------------------------------------------- */

static void boundary_level(const struct tern_kernels *k)
{
    static float scales[N], back[N];
    static int8_t hi[N], lo[N];
    static const size_t blocks[] = { 32, 64, N };
    fill_rows();
    for (size_t b = 0; b < 3; b++) {
        for (int planes = 1; planes <= 2; planes++) {
            if (planes == 1) {
                k->encode_i8(ax, N, blocks[b], scales, hi);
                k->decode_i8(scales, hi, N, blocks[b], back);
            } else {
                k->encode_i8x2(ax, N, blocks[b], scales, hi, lo);
                k->decode_i8x2(scales, hi, lo, N, blocks[b], back);
            }
            for (size_t i = 0; i < N; i++) {
                double d = scales[i / blocks[b]], v = ax[i] / d;
                double unit_of = planes == 1 ? d : d / 254;
                assert_true(fabs((double)back[i] - ax[i]) <= 0.51 * unit_of);
                if (fabs(fabs(v - floor(v)) - 0.5) > 1e-4)
                    assert_int_equal(hi[i], (int)nearbyint(v));
            }
            double mx = 0;
            for (size_t i = 0; i < blocks[b] && i < N; i++)
                mx = fmax(mx, fabs((double)ax[i]));
            close_to(scales[0], mx / 127, mx / 127);
        }
    }
    /* A silent block, and one with values from which no code can be made: no crash, a scale that gives them
     * away. */
    float x[64] = { 0 };
    x[33] = INFINITY;
    k->encode_i8x2(x, 64, 32, scales, hi, lo);
    assert_true(scales[0] == 0.0f && hi[5] == 0 && lo[5] == 0);
    assert_false(isfinite(scales[1]));
    x[33] = NAN;
    k->encode_i8(x, 64, 32, scales, hi);
    assert_false(isfinite(scales[1]));
}

static void boundary_test(void **unused)
{
    (void)unused;
    each_level(boundary_level);
}

int main(void)
{
    tern_cpu_set_float_mode();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_names),     cmocka_unit_test(init_is_a_staircase),
        cmocka_unit_test(quantize_test), cmocka_unit_test(ternary_test),
        cmocka_unit_test(rows_test),     cmocka_unit_test(halves_test),
        cmocka_unit_test(attend_test),   cmocka_unit_test(block_types),
        cmocka_unit_test(decode_blocks), cmocka_unit_test(matvec_test),
        cmocka_unit_test(boundary_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
