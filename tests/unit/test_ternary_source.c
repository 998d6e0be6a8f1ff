/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary matrices of every type opened, packed and read: scales, tiles, shapes, refusals.
 */
#include "unit/unit.h"

#include "engine/ternary_source.h"
#include "kernels/kernels_scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct tern_pool *pools[2]; /* of one thread, and of three */
static uint64_t seed = 20251122;

static int set_up(void **state)
{
    (void)state;
    return tern_pool_new(1, &pools[0], &unit_err) || tern_pool_new(3, &pools[1], &unit_err);
}

static int tear_down(void **state)
{
    (void)state;
    tern_pool_free(&pools[0]);
    tern_pool_free(&pools[1]);
    return 0;
}

/* A model of one tensor that lies nowhere but in memory. */
struct bed {
    struct tern_gguf g;
    struct tern_tensor t;
    struct tern_file_options o;
};

static void make_bed(struct bed *b, uint32_t type, size_t m, size_t k, const uint8_t *data, size_t bytes)
{
    memset(b, 0, sizeof *b);
    b->g.name = (char *)(uintptr_t) "test.gguf";
    b->g.options = &b->o;
    b->t = (struct tern_tensor){
        .name = { "m", 1 }, .type = type, .n_dims = 2, .ne = { k, m, 1, 1 }, .data = data, .bytes = bytes
    };
}

static void refused(struct bed *b, enum tern_status status, const char *words)
{
    struct tern_ternary_source s;
    uint8_t *tiles = NULL;
    int8_t *rows;
    size_t bytes;
    float scale = 42;
    enum tern_status st = tern_ternary_open(&b->g, &b->t, pools[1], &s, &unit_err);

    if (!st) {
        assert_true(tern_pack_bytes(TERN_TILES_2BIT, s.trits.m, s.trits.k, &bytes));
        tiles = aligned_alloc(64, bytes);
        st = tern_ternary_pack(&s, pools[1], TERN_TILES_2BIT, tiles, &scale, &unit_err);
        free(tiles);
        rows = malloc(s.trits.m * s.trits.k);
        assert_int_equal(tern_ternary_rows(&s, 0, s.trits.m, rows, &scale, &unit_err), st);
        free(rows);
    }
    if (st != status || !strstr(unit_err.text, words) || !strstr(unit_err.text, "test.gguf: tensor 'm'"))
        fail_msg("wanted '%s', got %s: '%s'", words, tern_status_name(st), unit_err.text);
}

/* With either pool: these weights and this scale, from tiles and from rows. */
static void holds(struct bed *b, const int8_t *w, float want)
{
    size_t m = (size_t)b->t.ne[1], k = (size_t)b->t.ne[0], bytes;
    int8_t *rows = malloc(m * k);

    for (int p = 0; p < 2; p++) {
        struct tern_ternary_source s;
        float scale = -1;
        uint8_t *tiles;

        assert_ok(tern_ternary_open(&b->g, &b->t, pools[p], &s, &unit_err));
        assert_true(tern_pack_bytes(TERN_TILES_5TRIT, m, k, &bytes));
        tiles = aligned_alloc(64, bytes);
        assert_ok(tern_ternary_pack(&s, pools[p], TERN_TILES_5TRIT, tiles, &scale, &unit_err));
        assert_true(scale == want);
        for (size_t i = 0; i < m * k; i++)
            rows[i] = (int8_t)tern_unpack_at(TERN_TILES_5TRIT, tiles, k, i / k, i % k);
        assert_memory_equal(rows, w, m * k);
        scale = -1;
        assert_ok(tern_ternary_rows(&s, 0, m, rows, &scale, &unit_err));
        assert_true(scale == want);
        assert_memory_equal(rows, w, m * k);
        free(tiles);
    }
    free(rows);
}

static int8_t *random_trits(size_t n)
{
    int8_t *w = malloc(n);

    for (size_t i = 0; i < n; i++)
        w[i] = (int8_t)(unit_random(&seed) % 3) - 1;
    return w;
}

/* -- floats -------------------------------------------------------------------------------------- */

static size_t put_float(uint32_t type, float f, uint8_t *p)
{
    uint16_t h = type == TERN_F16 ? f16_from_f32(f) : (uint16_t)(f32_bits(f) >> 16);

    memcpy(p, type == TERN_F32 ? (const void *)&f : &h, type == TERN_F32 ? 4 : 2);
    return type == TERN_F32 ? 4 : 2;
}

static float get_float(uint32_t type, const uint8_t *p)
{
    float f;

    if (type != TERN_F32)
        return type == TERN_F16 ? f32_from_f16(load_u16(p)) : f32_from_bf16(load_u16(p));
    memcpy(&f, p, sizeof f);
    return f;
}

/* More than one chunk of those that are summed on their own, and an end in the middle of one. */
static void test_master_weights(void **state)
{
    static const uint32_t types[] = { TERN_F32, TERN_F16, TERN_BF16 };
    const size_t m = 70, k = 2002, n = m * k;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        size_t size = types[i] == TERN_F32 ? 4 : 2;
        uint8_t *file = malloc(n * size);
        int8_t *w = malloc(n);
        long double sum = 0;
        struct bed b;
        float s, scale;

        for (size_t e = 0; e < n; e++) {
            put_float(types[i], (float)((double)(unit_random(&seed) % 200001) / 1e6 - 0.1), file + e * size);
            sum += (long double)fabsf(get_float(types[i], file + e * size));
        }
        s = 1.0f / (float)(sum / (long double)n);
        for (size_t e = 0; e < n; e++) {
            float q = rintf(get_float(types[i], file + e * size) * s);

            w[e] = (int8_t)(q > 1 ? 1 : q < -1 ? -1 : q);
        }
        scale = types[i] == TERN_F16 ? f32_from_f16(f16_from_f32(1 / s)) : 1 / s;
        make_bed(&b, types[i], m, k, file, n * size);
        refused(&b, TERN_ERR_UNSUPPORTED, "--quantize");
        b.o.quantize = true;
        holds(&b, w, scale);
        b.o.quantize = false;
        b.t.view.absmean = true;
        holds(&b, w, scale);
        put_float(types[i], NAN, file + (n - 1) * size);
        refused(&b, TERN_ERR_FORMAT, "infinite or undefined");
        b.t.view.absmean = false;
        refused(&b, TERN_ERR_FORMAT, "infinite or undefined");
        put_float(types[i], -INFINITY, file + (n - 1) * size);
        refused(&b, TERN_ERR_FORMAT, "infinite or undefined");
        b.o.quantize = true;
        refused(&b, TERN_ERR_FORMAT, "infinite or undefined");
        free(file);
        free(w);
    }
}

static void test_ternary_floats(void **state)
{
    static const uint32_t types[] = { TERN_F32, TERN_F16, TERN_BF16 };
    const size_t m = 70, k = 2002, n = m * k;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        size_t size = types[i] == TERN_F32 ? 4 : 2;
        uint8_t *file = malloc(n * size);
        int8_t *w = random_trits(n);
        struct bed b;

        for (size_t e = 0; e < n; e++)
            put_float(types[i], 0.375f * (float)w[e], file + e * size);
        make_bed(&b, types[i], m, k, file, n * size);
        holds(&b, w, 0.375f);
        b.o.quantize = true; /* nothing to do */
        holds(&b, w, 0.375f);
        b.o.quantize = false;
        put_float(types[i], 0.25f, file + (n - 1) * size);
        refused(&b, TERN_ERR_UNSUPPORTED, "not ternary");
        memset(file, 0, n * size);
        memset(w, 0, n);
        holds(&b, w, 0);
        b.t.view.absmean = true; /* max(mean, 1e-5) */
        holds(&b, w, types[i] == TERN_F16 ? f32_from_f16(f16_from_f32(1e-5f)) : 1 / (1 / 1e-5f));
        free(file);
        free(w);
    }
}

/* -- types with a place for the scale ------------------------------------------------------------ */

static void test_tl(void **state)
{
    static const uint32_t types[] = { TERN_TYPE_TL1, TERN_TYPE_TL2 };
    const size_t m = 64, k = 320;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tern_tl_tiles t = { (uint32_t)m, (uint32_t)k, 64, i == 0 ? 64 : 96, 32 };
        int8_t *w = random_trits(m * k);
        static const float scales[] = { 0, -1, INFINITY, NAN };
        size_t at = 0;
        uint8_t *file;
        struct bed b;

        assert_true(tern_tl_bytes(types[i], m, k, &at));
        file = malloc(at + 32);
        tern_tl_write(types[i], &t, w, 0.5f, file);
        make_bed(&b, types[i], m, k, file, at + 32);
        refused(&b, TERN_ERR_UNSUPPORTED, "--tl-tiles 64x320=BM,BK,bm");
        b.o.tl_tiles[1] = t;
        b.o.n_tl_tiles = 2;
        holds(&b, w, 0.5f);
        b.o.tl_tiles[1].bm = 48;
        refused(&b, TERN_ERR_USAGE, "in tiles of 48,");
        b.o.tl_tiles[1] = t;
        for (size_t s = 0; s < 4; s++) {
            memcpy(file + at, &scales[s], sizeof scales[s]);
            refused(&b, TERN_ERR_FORMAT, "has a scale that is not");
        }
        file[0] = 0xff;
        refused(&b, TERN_ERR_FORMAT, "no ternary weights");
        free(file);
        free(w);
    }
}

static void test_published_tiles(void **state)
{
    struct tern_tl_tiles t;
    int8_t *w = random_trits(1024 * 4096);
    uint8_t *file = malloc(1024 * 4096 / 4 + 32);
    struct bed b;
    size_t at = 0;

    (void)state;
    assert_true(tern_tl_tiles_published(TERN_TYPE_TL2, 1024, 4096, &t));
    tern_tl_write(TERN_TYPE_TL2, &t, w, 0.5f, file);
    assert_true(tern_tl_bytes(TERN_TYPE_TL2, 1024, 4096, &at));
    make_bed(&b, TERN_TYPE_TL2, 1024, 4096, file, at + 32);
    holds(&b, w, 0.5f);
    free(file);
    free(w);
}

static void test_hf_packed(void **state)
{
    static const float scales[] = { 0, -1, INFINITY, NAN };
    int8_t w[10 * 7];
    uint8_t file[3 * 7];
    struct bed b;

    (void)state;
    memset(file, 0x55, sizeof file); /* zeros */
    memset(w, 0, sizeof w);
    file[1 * 7 + 2] = 0x59; /* row 1 + 3, column 2, is 1 */
    w[4 * 7 + 2] = 1;
    make_bed(&b, TERN_TYPE_HF_PACKED, 10, 7, file, sizeof file);
    b.t.view.scale = 1.5f;
    holds(&b, w, 1.5f);
    for (size_t i = 0; i < 4; i++) {
        b.t.view.scale = scales[i];
        refused(&b, TERN_ERR_FORMAT, "not positive");
    }
    b.t.view.scale = 1.5f;
    file[0] = 0x57;
    refused(&b, TERN_ERR_FORMAT, "no ternary weights");
    file[0] = 0x55;
    b.t.bytes--;
    refused(&b, TERN_ERR_FORMAT, "cannot be 10 x 7 weights");
    b.t.bytes = 14;
    b.t.ne[1] = 8;
    b.t.view.n_heads = 3;
    refused(&b, TERN_ERR_FORMAT, "3 heads");
    b.t.view.n_heads = 2; /* rows 0 2 1 3, 4 6 5 7; the 1 is in row 1 + 2 of the file: 0x59 is its byte */
    memset(w, 0, sizeof w);
    file[1 * 7 + 2] = 0x55;
    file[0 * 7 + 2] = 0x59; /* row 0 + 2 */
    w[1 * 7 + 2] = 1;
    holds(&b, w, 1.5f);
}

static void test_refusals(void **state)
{
    static uint8_t file[4 * 256 * 4];
    struct bed b;

    (void)state;
    make_bed(&b, 8, 4, 256, file, 4 * 256 / 32 * 34);
    refused(&b, TERN_ERR_UNSUPPORTED, "Q8_0, which is no ternary matrix");
    make_bed(&b, TERN_F32, 2, 256, file, 4 * 256 * 4);
    refused(&b, TERN_ERR_FORMAT, "cannot be 2 x 256");
    b.t.ne[2] = 2;
    refused(&b, TERN_ERR_FORMAT, "cannot be");
    make_bed(&b, TERN_TYPE_HF_PACKED, SIZE_MAX, SIZE_MAX, file, 1);
    b.t.view.scale = 1;
    refused(&b, TERN_ERR_FORMAT, "cannot be");
}

/* Blocks that differ in scale are refused; those without weights may have any. */
static void test_tq_scales(void **state)
{
    const size_t m = 40, k = 512;
    int8_t *w = random_trits(m * k);
    uint8_t *file = malloc(m * 2 * 66);
    struct bed b;
    uint16_t half;

    (void)state;
    memset(w + 256, 0, 256);
    assert_true(tern_pack_file(TERN_TYPE_TQ2_0, TERN_I2S_A, w, m, k, 0.5f, file));
    half = f16_from_f32(7.0f);
    memcpy(file + 66 + 64, &half, sizeof half);
    make_bed(&b, TERN_TYPE_TQ2_0, m, k, file, m * 2 * 66);
    holds(&b, w, 0.5f);
    for (size_t block = 2; block < 2 * m; block += 13) {
        uint16_t kept;

        memcpy(&kept, file + block * 66 + 64, sizeof kept);
        memcpy(file + block * 66 + 64, &half, sizeof half);
        refused(&b, TERN_ERR_UNSUPPORTED, "blocks of different scales");
        memcpy(file + block * 66 + 64, &kept, sizeof kept);
    }
    free(file);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_master_weights),
        cmocka_unit_test(test_ternary_floats),
        cmocka_unit_test(test_tl),
        cmocka_unit_test(test_published_tiles),
        cmocka_unit_test(test_hf_packed),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tq_scales),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
