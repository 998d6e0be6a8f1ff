/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ternary matrices as TL1 and TL2 (against an encoder that walks the loops of the programs that write them),
 * packed by Hugging Face, as floats, with rows of heads in another order, and files written in ranges.
 */
#include "kernels/kernels_scalar.h"
#include "kernels/pack.h"
#include "unit/kernel_inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int8_t *random_trits(size_t n)
{
    int8_t *w = malloc(n);
    for (size_t i = 0; i < n; i++)
        w[i] = (int8_t)(rnd() % 3) - 1;
    return w;
}

/* What the file holds is w: by rows, and by tiles of both layouts. */
static void check_holds(const struct tern_trits *from, const int8_t *w, float want)
{
    size_t n = from->m * from->k, bytes;
    int8_t *rows = malloc(n);
    float scale = -1;
    size_t cut = from->m / 3;
    assert_int_equal(tern_pack_rows(from, 0, cut, rows, &scale), TERN_PACK_OK);
    assert_int_equal(tern_pack_rows(from, cut, from->m, rows + cut * from->k, &scale), TERN_PACK_OK);
    assert_true(scale == want);
    assert_memory_equal(rows, w, n);
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        struct tern_packing p = { .from = *from, .layout = (enum tern_tile_layout)l };
        assert_true(tern_pack_bytes(p.layout, from->m, from->k, &bytes));
        p.tiles = aligned_alloc(64, bytes);
        assert_int_equal(tern_pack(&p, 0, tern_pack_tiles(from->m), &scale), TERN_PACK_OK);
        for (size_t i = 0; i < n; i++)
            rows[i] = (int8_t)tern_unpack_at(p.layout, p.tiles, from->k, i / from->k, i % from->k);
        assert_memory_equal(rows, w, n);
        free(p.tiles);
    }
    free(rows);
}

static enum tern_pack_result read_all(const struct tern_trits *from)
{
    int8_t *w = malloc(from->m * from->k);
    float scale = 42.0f;
    enum tern_pack_result r = tern_pack_rows(from, 0, from->m, w, &scale);
    if (r != TERN_PACK_OK)
        assert_true(scale == 42.0f);
    free(w);
    return r;
}

/* -- TL1 and TL2 --------------------------------------------------------------------------------- */

static unsigned pair_code(const int8_t *w)
{
    return (unsigned)(3 * w[0] + w[1] + 4);
}

static void loops_tl1(const struct tern_tl_tiles *t, const int8_t *w, uint8_t *out)
{
    size_t by = 256 / t->strip;
    for (size_t mb = 0; mb < t->m / t->bm; mb++)
        for (size_t kb = 0; kb < t->k / t->by; kb++)
            for (size_t rb = 0; rb < t->bm / t->strip; rb++)
                for (size_t q = 0; q < t->by / by; q++)
                    for (size_t rr = 0; rr < t->strip / 16; rr++)
                        for (size_t s = 0; s < by / 4; s++)
                            for (size_t l = 0; l < 16; l++) {
                                size_t m = mb * t->bm + rb * t->strip + rr * 16 + l;
                                const int8_t *x = w + m * t->k + kb * t->by + q * by + s * 4;
                                *out++ = (uint8_t)(pair_code(x) << 4 | pair_code(x + 2));
                            }
}

static int triple_value(const int8_t *w)
{
    return 9 * w[0] + 3 * w[1] + w[2];
}

static uint8_t *loops_tl2_index(const struct tern_tl_tiles *t, size_t k3, const int8_t *w, uint8_t *out)
{
    static const size_t perm[4] = { 0, 2, 1, 3 };
    for (size_t mb = 0; mb < t->m / t->bm; mb++)
        for (size_t kb = 0; kb < k3 / t->by; kb++)
            for (size_t rb = 0; rb < t->bm / 32; rb++)
                for (size_t q = 0; q < t->by / 6; q++)
                    for (size_t i = 0; i < 32; i++) {
                        size_t m = mb * t->bm + rb * 32 + perm[i / 8] * 8 + i % 8;
                        const int8_t *x = w + m * t->k + kb * t->by + q * 6;
                        *out++ = (uint8_t)(abs(triple_value(x)) << 4 | abs(triple_value(x + 3)));
                    }
    return out;
}

static uint8_t *loops_tl2_signs(const struct tern_tl_tiles *t, size_t k3, const int8_t *w, uint8_t *out)
{
    for (size_t mb = 0; mb < t->m / t->bm; mb++)
        for (size_t kb = 0; kb < k3 / t->by; kb++)
            for (size_t rb = 0; rb < t->bm / 32; rb++)
                for (size_t q = 0; q < t->by / 24; q++)
                    for (size_t c = 0; c < 16; c++, out += 2) {
                        uint16_t word = 0;
                        for (size_t i = 0; i < 16; i++) {
                            size_t m = mb * t->bm + rb * 32 + i % 2 * 16 + c;
                            const int8_t *x = w + m * t->k + kb * t->by + q * 24 + i / 2 * 3;
                            word |= (uint16_t)((triple_value(x) < 0) << (15 - i));
                        }
                        memcpy(out, &word, sizeof word);
                    }
    return out;
}

static uint8_t *loops_tl2_pairs(const struct tern_tl_tiles *t, size_t k3, const int8_t *w, uint8_t *out)
{
    static const size_t perm[4] = { 0, 2, 1, 3 };
    for (size_t mb = 0; mb < t->m / t->bm; mb++)
        for (size_t kb = 0; kb < (t->k - k3) / 32; kb++)
            for (size_t rb = 0; rb < t->bm / 32; rb++)
                for (size_t q = 0; q < 8; q++)
                    for (size_t i = 0; i < 32; i++) {
                        size_t m = mb * t->bm + rb * 32 + perm[i / 8] * 8 + i % 8;
                        const int8_t *x = w + m * t->k + k3 + kb * 32 + q * 4;
                        *out++ = (uint8_t)(pair_code(x) << 4 | pair_code(x + 2));
                    }
    return out;
}

static void encode(uint32_t type, const struct tern_tl_tiles *t, const int8_t *w, float scale, uint8_t *file,
                   size_t bytes)
{
    memset(file, 0, bytes + 32);
    memcpy(file + bytes, &scale, sizeof scale);
    if (type == TERN_TYPE_TL1) {
        loops_tl1(t, w, file);
        return;
    }
    size_t k3 = t->k - t->k % t->by;
    uint8_t *end = loops_tl2_pairs(t, k3, w, loops_tl2_signs(t, k3, w, loops_tl2_index(t, k3, w, file)));
    assert_true(end <= file + bytes);
}

static void tl_round_trip(uint32_t type, struct tern_tl_tiles t)
{
    size_t n = (size_t)t.m * t.k, bytes = 0;
    int8_t *w = random_trits(n);
    assert_true(tern_tl_tiles_fit(type, &t));
    assert_true(tern_tl_bytes(type, t.m, t.k, &bytes));
    uint8_t *want = malloc(bytes + 32), *file = malloc(bytes + 32);
    encode(type, &t, w, 0.75f, want, bytes);
    tern_tl_write(type, &t, w, 0.75f, file);
    assert_memory_equal(file, want, bytes + 32);
    struct tern_trits from = { .type = type, .tl = t, .src = want, .m = t.m, .k = t.k };
    check_holds(&from, w, 0.75f);
    free(want);
    free(file);
    free(w);
}

static void tl1_round_trips(void **unused)
{
    (void)unused;
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 32, 64, 32, 64, 32 });
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 64, 12, 64, 4, 64 });
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 48, 1376, 16, 32, 16 });
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 320, 2592, 160, 96, 32 });
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 128, 1536, 128, 64, 64 });
    tl_round_trip(TERN_TYPE_TL1, (struct tern_tl_tiles){ 160, 8640, 160, 64, 32 });
}

static void tl2_round_trips(void **unused)
{
    (void)unused;
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 32, 288, 32, 96, 32 });
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 64, 256, 64, 96, 32 });   /* 192 + 64 */
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 64, 1344, 32, 24, 32 });  /* nothing but triples */
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 64, 1328, 64, 48, 32 });  /* 1296 + 32 */
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 96, 1376, 96, 192, 32 }); /* 1344 + 32 */
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 320, 3200, 320, 96, 32 });
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 128, 4096, 128, 96, 32 });
    tl_round_trip(TERN_TYPE_TL2, (struct tern_tl_tiles){ 128, 1536, 128, 192, 32 });
}

static void tl_published(void **unused)
{
    (void)unused;
    static const uint32_t shapes[][2] = { { 1536, 4096 }, { 1536, 1536 }, { 4096, 1536 },  { 3200, 8640 },
                                          { 3200, 3200 }, { 8640, 3200 }, { 14336, 4096 }, { 4096, 14336 },
                                          { 1024, 4096 }, { 4096, 4096 } };
    struct tern_tl_tiles t;
    size_t bytes;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (uint32_t type = TERN_TYPE_TL1; type <= TERN_TYPE_TL2; type++) {
            assert_true(tern_tl_tiles_published(type, shapes[i][0], shapes[i][1], &t));
            assert_true(t.m == shapes[i][0] && t.k == shapes[i][1] && tern_tl_tiles_fit(type, &t));
        }
    assert_true(tern_tl_tiles_published(TERN_TYPE_TL1, 3200, 3200, &t));
    assert_true(t.bm == 320 && t.by == 128 && t.strip == 64);
    assert_true(tern_tl_tiles_published(TERN_TYPE_TL2, 1536, 1536, &t));
    assert_true(t.bm == 128 && t.by == 192 && t.strip == 32);
    assert_false(tern_tl_tiles_published(TERN_TYPE_TL1, 2560, 2560, &t));
    assert_true(tern_tl_bytes(TERN_TYPE_TL1, 3200, 8640, &bytes) && bytes == 3200u * 8640 / 4);
    /* (8384 * 3200 / 3) * 5 / 8 + (256 * 3200 / 2) * 4 / 8, up to 32 */
    assert_true(tern_tl_bytes(TERN_TYPE_TL2, 3200, 8640, &bytes) && bytes == 5794144);
    assert_false(tern_tl_bytes(TERN_TYPE_TL2, 3200, 128, &bytes));
    assert_false(tern_tl_bytes(TERN_TYPE_TL1, UINT64_MAX / 2, 4, &bytes));
    assert_false(tern_tl_bytes(TERN_TYPE_TL1, 3, 3, &bytes));
}

static void tl_tiles_that_do_not_fit(void **unused)
{
    (void)unused;
    static const struct tern_tl_tiles one[] = {
        { 32, 64, 0, 64, 32 },     { 32, 64, 32, 0, 32 },
        { 32, 64, 32, 64, 0 },     { 32, 64, 64, 64, 32 },
        { 32, 64, 32, 48, 32 },    { 32, 64, 32, 64, 8 },
        { 128, 64, 128, 64, 128 }, { 96, 64, 48, 64, 32 },
        { 64, 60, 64, 60, 32 },    { 0, 64, 32, 64, 32 },
        { 32, 0, 32, 64, 32 },     { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX },
    };
    static const struct tern_tl_tiles two[] = {
        { 32, 288, 32, 96, 16 }, { 32, 288, 32, 64, 32 },       { 32, 208, 32, 96, 32 },
        { 32, 272, 32, 96, 32 }, { 32, 288, 64, 96, 32 },       { 48, 288, 48, 96, 32 },
        { 32, 288, 32, 0, 32 },  { 32, 960, 32, 960 + 24, 32 }, /* all pairs: more than is reserved */
    };
    for (size_t i = 0; i < sizeof one / sizeof one[0]; i++)
        assert_false(tern_tl_tiles_fit(TERN_TYPE_TL1, &one[i]));
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        assert_false(tern_tl_tiles_fit(TERN_TYPE_TL2, &two[i]));
}

static void tl_hostile(void **unused)
{
    (void)unused;
    struct tern_tl_tiles t = { 32, 320, 32, 96, 32 }; /* TL2: 288 columns of triples, 32 of pairs */
    struct tern_tl_tiles t1 = { 32, 320, 32, 64, 32 };
    size_t index = 32 * 288 / 6, signs = 32 * 288 / 24, pairs = 32 * 32 / 4, bytes = 0;
    int8_t w[32 * 320] = { 0 };
    uint8_t file[32 * 320 / 4 + 32];
    struct tern_trits from = { .type = TERN_TYPE_TL1, .tl = t1, .src = file, .m = 32, .k = 320 };
    for (unsigned byte = 0; byte < 256; byte++) {
        tern_tl_write(TERN_TYPE_TL1, &t1, w, 1.0f, file);
        file[byte * 7] = (uint8_t)byte;
        assert_int_equal(read_all(&from),
                         byte >> 4 > 8 || (byte & 15) > 8 ? TERN_PACK_BAD_CODE : TERN_PACK_OK);
    }
    from.type = TERN_TYPE_TL2;
    from.tl = t;
    for (unsigned byte = 0; byte < 256; byte++) {
        tern_tl_write(TERN_TYPE_TL2, &t, w, 1.0f, file);
        file[byte * 5 % index] = (uint8_t)byte;
        assert_int_equal(read_all(&from),
                         byte >> 4 > 13 || (byte & 15) > 13 ? TERN_PACK_BAD_CODE : TERN_PACK_OK);
        tern_tl_write(TERN_TYPE_TL2, &t, w, 1.0f, file);
        file[index + signs + byte * 3 % pairs] = (uint8_t)byte;
        assert_int_equal(read_all(&from),
                         byte >> 4 > 8 || (byte & 15) > 8 ? TERN_PACK_BAD_CODE : TERN_PACK_OK);
    }
    for (size_t i = 0; i < signs; i++) { /* a zero that is negative */
        tern_tl_write(TERN_TYPE_TL2, &t, w, 1.0f, file);
        file[index + i] |= (uint8_t)(1 << i % 8);
        assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
    }
    static const float scales[] = { -1.0f, INFINITY, NAN };
    assert_true(tern_tl_bytes(TERN_TYPE_TL2, 32, 320, &bytes));
    for (size_t i = 0; i < 3; i++) {
        tern_tl_write(TERN_TYPE_TL2, &t, w, scales[i], file);
        assert_memory_equal(file + bytes, &scales[i], sizeof scales[i]);
        assert_int_equal(read_all(&from), TERN_PACK_BAD_SCALE);
    }
}

/* -- packed by Hugging Face ---------------------------------------------------------------------- */

static void pack_hf(const int8_t *w, size_t m, size_t k, uint8_t *out)
{
    size_t quarter = (m + 3) / 4;
    memset(out, 0xff, quarter * k); /* rows that are missing hold anything */
    for (size_t r = 0; r < m; r++)
        for (size_t c = 0; c < k; c++) {
            uint8_t *b = out + r % quarter * k + c;
            unsigned shift = (unsigned)(2 * (r / quarter));
            *b = (uint8_t)((*b & ~(3u << shift)) | (unsigned)(w[r * k + c] + 1) << shift);
        }
}

static void hf_example(void **unused)
{
    (void)unused;
    static const uint8_t packed[8] = { 0x24, 0x49, 0x92, 0x24, 0x92, 0x24, 0x49, 0x92 };
    struct tern_trits from = { .type = TERN_TYPE_HF_PACKED, .src = packed, .m = 8, .k = 4, .scale = 0.5f };
    int8_t w[32];
    for (int i = 0; i < 32; i++)
        w[i] = (int8_t)((2 * (i / 4) + i % 4) % 3 - 1);
    check_holds(&from, w, 0.5f);
}

static void hf_round_trips(void **unused)
{
    (void)unused;
    static const size_t shapes[][2] = { { 1, 1 },    { 4, 3 },    { 5, 17 },     { 6, 1281 },
                                        { 7, 2560 }, { 33, 100 }, { 100, 8640 }, { 64, 1280 } };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t m = shapes[i][0], k = shapes[i][1], bytes = (m + 3) / 4 * k;
        int8_t *w = random_trits(m * k);
        uint8_t *file = malloc(bytes);
        struct tern_trits from = { .type = TERN_TYPE_HF_PACKED, .src = file, .m = m, .k = k, .scale = 2.0f };
        pack_hf(w, m, k, file);
        check_holds(&from, w, 2.0f);
        file[bytes - 1] |= 3; /* the last column of a row of the first quarter */
        assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
        pack_hf(w, m, k, file);
        static const float scales[] = { -1.0f, INFINITY, NAN };
        for (size_t s = 0; s < 3; s++) {
            from.scale = scales[s];
            assert_int_equal(read_all(&from), TERN_PACK_BAD_SCALE);
        }
        free(w);
        free(file);
    }
}

/* -- floats -------------------------------------------------------------------------------------- */

static size_t float_bytes(uint32_t type)
{
    return type == TERN_F32 ? 4 : 2;
}

/* As the type has it, to nearest; returns the value it became. */
static float put_float(uint32_t type, float f, uint8_t *p)
{
    uint32_t u = f32_bits(f);
    uint16_t h = type == TERN_F16 ? f16_from_f32(f) : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    memcpy(p, type == TERN_F32 ? (const void *)&f : &h, float_bytes(type));
    return type == TERN_F32 ? f : type == TERN_F16 ? f32_from_f16(h) : f32_from_bf16(h);
}

static void master_weights(void **unused)
{
    (void)unused;
    static const uint32_t types[] = { TERN_F32, TERN_F16, TERN_BF16 };
    static const float scales[] = { 1.0f, 0.37f, 33.25f, 1e5f, 0.125f };
    static const size_t ks[] = { 1, 15, 100, 1280, 1543 };
    for (size_t t = 0; t < 3; t++)
        for (size_t s = 0; s < 5; s++) {
            size_t m = 20, k = ks[s];
            int8_t *w = malloc(m * k);
            uint8_t *file = malloc(m * k * float_bytes(types[t]));
            for (size_t i = 0; i < m * k; i++) {
                /* Halves of the step, and what is nearest to them, on both sides; zeros of both signs. */
                float want = i % 5 == 0 ? 0.5f : i % 5 == 1 ? -0.5f : i % 5 == 2 ? 0.0f * unit() : 3 * unit();
                float x = put_float(types[t], want / scales[s], file + i * float_bytes(types[t]));
                float q = rintf(x * scales[s]);
                w[i] = (int8_t)(q > 1 ? 1 : q < -1 ? -1 : q);
            }
            struct tern_trits from = {
                .type = types[t], .src = file, .m = m, .k = k, .absmean_s = scales[s], .scale = 1 / scales[s]
            };
            check_holds(&from, w, 1 / scales[s]);
            for (int bad = 0; bad < 3; bad++) {
                uint8_t *p = file + (m * k / 2) * float_bytes(types[t]), kept[4];
                memcpy(kept, p, float_bytes(types[t]));
                put_float(types[t], bad == 0 ? INFINITY : bad == 1 ? -INFINITY : NAN, p);
                assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
                memcpy(p, kept, float_bytes(types[t]));
            }
            assert_int_equal(read_all(&from), TERN_PACK_OK);
            free(w);
            free(file);
        }
}

/* All magnitudes of sixteen bits against the definition. */
static void every_half(void **unused)
{
    (void)unused;
    static uint16_t file[0x10000];
    static int8_t w[0x10000];
    static const float scales[] = { 1.0f, 0.4999f, 1e5f, 1e-20f, 777.77f };
    for (unsigned i = 0; i < 0x10000; i++)
        file[i] = (uint16_t)i;
    for (int type = 0; type < 2; type++)
        for (size_t s = 0; s < 5; s++) {
            size_t inf = type == 0 ? 0x7c00 : 0x7f80;
            for (int half = 0; half < 2; half++) {
                struct tern_trits from = { .type = type == 0 ? TERN_F16 : TERN_BF16,
                                           .src = (const uint8_t *)(file + half * 0x8000),
                                           .m = 1,
                                           .k = inf,
                                           .absmean_s = scales[s],
                                           .scale = 1 };
                float scale = 0;
                assert_int_equal(tern_pack_rows(&from, 0, 1, w, &scale), TERN_PACK_OK);
                for (size_t i = 0; i < inf; i++) {
                    uint16_t h = file[(size_t)half * 0x8000 + i];
                    float q = rintf((type == 0 ? f32_from_f16(h) : f32_from_bf16(h)) * scales[s]);
                    assert_int_equal(w[i], q > 1 ? 1 : q < -1 ? -1 : (int)q);
                }
                from.k = inf + 1;
                assert_int_equal(tern_pack_rows(&from, 0, 1, w, &scale), TERN_PACK_BAD_CODE);
            }
        }
}

static void exact_floats(void **unused)
{
    (void)unused;
    static const uint32_t types[] = { TERN_F32, TERN_F16, TERN_BF16 };
    for (size_t t = 0; t < 3; t++) {
        size_t m = 17, k = 1300, size = float_bytes(types[t]);
        int8_t *w = random_trits(m * k);
        uint8_t *file = malloc(m * k * size), *middle = file + 777 * size;
        struct tern_trits from = { .type = types[t], .src = file, .m = m, .k = k, .scale = 0.75f };
        w[777] = 1;
        for (size_t i = 0; i < m * k; i++)
            put_float(types[t], 0.75f * (float)w[i], file + i * size);
        check_holds(&from, w, 0.75f);
        static const float other[] = { 0.5f, -0.5f, 1.0f, -1.0f, INFINITY, NAN };
        for (size_t i = 0; i < 6; i++) {
            put_float(types[t], other[i], middle);
            assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
        }
        put_float(types[t], -0.0f, middle);
        assert_int_equal(read_all(&from), TERN_PACK_OK);
        from.scale = 0.75001f; /* which the short ones do not have */
        assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
        from.scale = 0;
        assert_int_equal(read_all(&from), TERN_PACK_BAD_CODE);
        memset(file, 0, m * k * size);
        assert_int_equal(read_all(&from), TERN_PACK_OK);
        free(w);
        free(file);
    }
}

/* -- rows of heads ------------------------------------------------------------------------------- */

static void heads(void **unused)
{
    (void)unused;
    size_t n_heads = 3, d = 20, k = 256, m = n_heads * d;
    int8_t *w = random_trits(m * k), *want = malloc(m * k);
    for (size_t h = 0; h < n_heads; h++)
        for (size_t j = 0; j < d / 2; j++) {
            memcpy(want + (h * d + 2 * j) * k, w + (h * d + j) * k, k);
            memcpy(want + (h * d + 2 * j + 1) * k, w + (h * d + j + d / 2) * k, k);
        }
    uint8_t *file = malloc(m * k * 2 + 32);
    struct tern_trits from = {
        .type = TERN_TYPE_HF_PACKED, .src = file, .m = m, .k = k, .n_heads = n_heads, .scale = 1.0f
    };
    pack_hf(w, m, k, file);
    check_holds(&from, want, 1.0f);
    from.type = TERN_BF16;
    for (size_t i = 0; i < m * k; i++)
        put_float(TERN_BF16, (float)w[i], file + 2 * i);
    check_holds(&from, want, 1.0f);
    for (int l = 0; l < 3; l++) {
        from.type = TERN_TYPE_I2_S;
        from.i2s = (enum tern_i2s_layout)l;
        assert_true(tern_pack_file(from.type, from.i2s, w, m, k, 1.0f, file));
        check_holds(&from, want, 1.0f);
    }
    free(file);
    free(want);
    free(w);
}

/* -- files in ranges of rows --------------------------------------------------------------------- */

static void check_ranges(uint32_t type, enum tern_i2s_layout i2s, size_t m, size_t k)
{
    size_t unit = tern_pack_file_unit(type, i2s, m, k), all = tern_pack_file_offset(type, k, m);
    int8_t *w = random_trits(m * k);
    uint8_t *want = malloc(all + 32), *file = malloc(all + 32);
    uint8_t tail[TERN_PACK_TAIL_BYTES];
    assert_true(unit > 0 && unit <= 128);
    assert_true(tern_pack_file(type, i2s, w, m, k, 0.75f, want));
    for (size_t row = 0; row < m;) {
        size_t end = row + unit * (1 + rnd() % 3);
        end = end < m ? end : m;
        tern_pack_file_rows(type, i2s, w + row * k, end - row, k, 0.75f,
                            file + tern_pack_file_offset(type, k, row));
        row = end;
    }
    size_t n = tern_pack_file_tail(type, 0.75f, tail);
    assert_int_equal(n, type == TERN_TYPE_I2_S ? 32 : 0);
    memcpy(file + all, tail, n);
    assert_memory_equal(file, want, all + n);
    struct tern_trits from = { .type = type, .i2s = i2s, .src = file, .m = m, .k = k };
    check_holds(&from, w, 0.75f);
    free(w);
    free(want);
    free(file);
}

static void ranges(void **unused)
{
    (void)unused;
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_A, 20, 8640); /* rows that begin in the middle of a block */
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_A, 256, 100);
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_A, 96, 100); /* the last range is shorter than a unit */
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_A, 384, 1);
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_A, 100, 2560);
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_B, 208, 100);
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_B, 33, 6912);
    check_ranges(TERN_TYPE_I2_S, TERN_I2S_C, 36, 101);
    check_ranges(TERN_TYPE_TQ1_0, TERN_I2S_A, 17, 768);
    check_ranges(TERN_TYPE_TQ2_0, TERN_I2S_A, 17, 768);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_A, 7, 100), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_B, 7, 8), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_C, 7, 128), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_TQ1_0, TERN_I2S_A, 7, 128), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_TL1, TERN_I2S_A, 32, 256), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_A, 9, 8640), 0);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_A, 8, 8640), 2);
    assert_int_equal(tern_pack_file_unit(TERN_TYPE_I2_S, TERN_I2S_A, 8, 2560), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tl1_round_trips), cmocka_unit_test(tl2_round_trips),
        cmocka_unit_test(tl_published),    cmocka_unit_test(tl_tiles_that_do_not_fit),
        cmocka_unit_test(tl_hostile),      cmocka_unit_test(hf_example),
        cmocka_unit_test(hf_round_trips),  cmocka_unit_test(master_weights),
        cmocka_unit_test(every_half),      cmocka_unit_test(exact_floats),
        cmocka_unit_test(heads),           cmocka_unit_test(ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
