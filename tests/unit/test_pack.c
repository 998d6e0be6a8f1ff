/* SPDX-License-Identifier: Apache-2.0 */
/* Ternary types of files to tiles and back: hashes of what the writers of these files make, round trips,
 * hostile bytes. */
#include "kernels/pack.h"
#include "unit/kernel_inputs.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* The weights of which the hashes below were made. */
static void generate(int8_t *w, size_t n)
{
    uint64_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = (x * 1103515245 + 12345) % 0x80000000u;
        w[i] = (int8_t)((x >> 16) % 3) - 1;
    }
}

static void i2s_vectors(void **unused)
{
    (void)unused;
    static const struct {
        uint8_t first[16], last[4], sha[8];
    } want[3] = {
        { { 0xa6, 0x50, 0x22, 0x69, 0x58, 0x94, 0x04, 0x04, 0x28, 0x22, 0x46, 0x82, 0x16, 0x25, 0x85, 0xa0 },
          { 0x68, 0xa4, 0x66, 0x24 },
          { 0x16, 0x18, 0x29, 0xbe, 0x77, 0xb9, 0x51, 0x6c } },
        { { 0x8a, 0x44, 0x08, 0x4a, 0x65, 0x96, 0x20, 0x01, 0x08, 0x09, 0x42, 0xa1, 0x15, 0x29, 0xa1, 0xa8 },
          { 0x60, 0x94, 0x52, 0x58 },
          { 0xb8, 0x39, 0x1f, 0x02, 0x71, 0x44, 0xb0, 0x35 } },
        { { 0x86, 0x59, 0x1a, 0x6a, 0x55, 0xa0, 0x0a, 0x24, 0x29, 0x18, 0x44, 0xa4, 0x10, 0x15, 0xa0, 0x80 },
          { 0xa8, 0x10, 0x66, 0x94 },
          { 0x75, 0x72, 0xdc, 0x31, 0xcb, 0x76, 0x6b, 0xde } },
    };
    int8_t w[512];
    generate(w, 512);
    for (int layout = 0; layout < 3; layout++) {
        uint8_t file[160], sha[crypto_hash_sha256_BYTES];
        assert_true(tern_pack_file(TERN_TYPE_I2_S, (enum tern_i2s_layout)layout, w, 4, 128, 1.0f, file));
        assert_memory_equal(file, want[layout].first, 16);
        assert_memory_equal(file + 124, want[layout].last, 4);
        crypto_hash_sha256(sha, file, 132);
        assert_memory_equal(sha, want[layout].sha, 8);
    }
}

static void tq_vectors(void **unused)
{
    (void)unused;
    static const uint8_t tq1[54] = { 0xf4, 0x73, 0x41, 0xa7, 0x86, 0xd3, 0x0a, 0x0c, 0x4e, 0x41, 0x66,
                                     0xb4, 0x2e, 0x47, 0xba, 0xe4, 0x54, 0x05, 0x0a, 0x3f, 0xd5, 0x9d,
                                     0xb8, 0x29, 0x07, 0x37, 0x55, 0xdc, 0x7a, 0xc8, 0xd6, 0xbc, 0xf6,
                                     0x2a, 0x43, 0x92, 0xaa, 0x96, 0xc3, 0x67, 0xe9, 0x90, 0x2a, 0x42,
                                     0x9c, 0xab, 0x59, 0x75, 0xbb, 0xcb, 0x1a, 0x17, 0x00, 0x3c };
    static const uint8_t tq2_first[16] = { 0x9a, 0x05, 0x88, 0x69, 0x25, 0x16, 0x10, 0x10,
                                           0x28, 0x88, 0x91, 0x82, 0x94, 0x58, 0x52, 0x0a };
    static const uint8_t tq2_last[4] = { 0x92, 0x55, 0x00, 0x3c };
    int8_t w[256];
    generate(w, 256);
    uint8_t file[66];
    assert_true(tern_pack_file(TERN_TYPE_TQ1_0, TERN_I2S_A, w, 1, 256, 1.0f, file));
    assert_memory_equal(file, tq1, 54);
    assert_true(tern_pack_file(TERN_TYPE_TQ2_0, TERN_I2S_A, w, 1, 256, 1.0f, file));
    assert_memory_equal(file, tq2_first, 16);
    assert_memory_equal(file + 62, tq2_last, 4);
}

/* Random weights of a file to tiles and back, tiles in two ranges. */
static void round_trip_to(enum tern_tile_layout layout, const struct tern_packing *source, const int8_t *w)
{
    struct tern_packing p = *source;
    size_t bytes, pad = tern_pack_k_pad(layout, p.from.k), n_tiles = tern_pack_tiles(p.from.m);
    size_t cut = n_tiles / 2;
    float scale[2] = { -1, -1 };
    assert_true(tern_pack_bytes(layout, p.from.m, p.from.k, &bytes));
    assert_int_equal(bytes, n_tiles * tern_pack_tile_bytes(layout, p.from.k));
    assert_int_equal(bytes, n_tiles * 64 * pad / (layout == TERN_TILES_2BIT ? 16 : 20));
    p.layout = layout;
    p.tiles = aligned_alloc(64, bytes + 64);
    memset(p.tiles, 0xff, bytes + 64);
    assert_int_equal(tern_pack(&p, 0, cut, &scale[0]), TERN_PACK_OK);
    assert_int_equal(tern_pack(&p, cut, n_tiles, &scale[1]), TERN_PACK_OK);
    assert_true(scale[1] == 0.75f && (cut == 0 || scale[0] == 0.75f));
    for (size_t r = 0; r < n_tiles * 16; r++) {
        for (size_t c = 0; c < pad; c++)
            assert_int_equal(tern_unpack_at(layout, p.tiles, p.from.k, r, c),
                             r < p.from.m && c < p.from.k ? w[r * p.from.k + c] : 0);
    }
    for (size_t i = 0; i < bytes && layout == TERN_TILES_5TRIT; i++)
        assert_true(p.tiles[i] <= 242);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(p.tiles[bytes + i], 0xff);
    free(p.tiles);
}

static void round_trip(uint32_t type, enum tern_i2s_layout i2s, size_t m, size_t k)
{
    int8_t *w = malloc(m * k);
    /* In blocks that end where the file does: an address sanitizer sees a byte too many. */
    size_t file_bytes = type == TERN_TYPE_TQ1_0   ? m * k / 256 * 54
                        : type == TERN_TYPE_TQ2_0 ? m * k / 256 * 66
                                                  : m * k / 4 + 32;
    uint8_t *file = malloc(file_bytes);
    struct tern_packing p = { .from = { .type = type, .i2s = i2s, .src = file, .m = m, .k = k } };
    for (size_t i = 0; i < m * k; i++)
        w[i] = (int8_t)(rnd() % 3) - 1;
    assert_true(tern_pack_file(type, i2s, w, m, k, 0.75f, file));
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++)
        round_trip_to((enum tern_tile_layout)l, &p, w);
    free(w);
    free(file);
}

static void round_trips(void **unused)
{
    (void)unused;
    round_trip(TERN_TYPE_I2_S, TERN_I2S_A, 20, 256);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_A, 18, 8640);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_A, 16, 8648);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_B, 33, 6912);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_B, 16, 100);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_C, 20, 2561);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_C, 4, 7);
    round_trip(TERN_TYPE_TQ1_0, TERN_I2S_A, 17, 2560);
    round_trip(TERN_TYPE_TQ2_0, TERN_I2S_A, 17, 2560);
    round_trip(TERN_TYPE_TQ1_0, TERN_I2S_A, 1, 256);
    round_trip(TERN_TYPE_TQ2_0, TERN_I2S_A, 50, 512);
    /* Either side of the columns that are opened at a time, and of whole groups of either layout. */
    round_trip(TERN_TYPE_I2_S, TERN_I2S_C, 4, 1);
    for (size_t k = 1270; k < 1310; k++)
        round_trip(TERN_TYPE_I2_S, TERN_I2S_C, 20, k);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_A, 128, 1293);
    round_trip(TERN_TYPE_I2_S, TERN_I2S_B, 64, 1259);
    round_trip(TERN_TYPE_TQ1_0, TERN_I2S_A, 16, 1280);
    round_trip(TERN_TYPE_TQ2_0, TERN_I2S_A, 15, 1536);
}

static enum tern_pack_result pack_once(uint32_t type, const uint8_t *file, float *scale)
{
    static _Alignas(64) uint8_t tiles[16 * 512];
    struct tern_packing p = { { .type = type, .src = file, .m = 2, .k = 512 }, TERN_TILES_2BIT, tiles };
    float other = *scale;
    enum tern_pack_result r = tern_pack(&p, 0, 1, scale);
    p.layout = TERN_TILES_5TRIT;
    assert_int_equal(tern_pack(&p, 0, 1, &other), r);
    assert_true(other == *scale);
    return r;
}

static void hostile_i2s(void **unused)
{
    (void)unused;
    int8_t w[1024];
    uint8_t file[288];
    float scale = 42.0f;
    generate(w, 1024);
    for (size_t at = 0; at < 1024; at += 31) {
        tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_A, w, 2, 512, 1.0f, file);
        file[at / 128 * 32 + at % 32] |= (uint8_t)(3 << (6 - 2 * (at % 128 / 32)));
        assert_int_equal(pack_once(TERN_TYPE_I2_S, file, &scale), TERN_PACK_BAD_CODE);
        assert_true(scale == 42.0f);
    }
    const float bad[] = { -1.0f, INFINITY, -INFINITY, NAN };
    for (size_t i = 0; i < 4; i++) {
        tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_A, w, 2, 512, bad[i], file);
        assert_int_equal(pack_once(TERN_TYPE_I2_S, file, &scale), TERN_PACK_BAD_SCALE);
        assert_true(scale == 42.0f);
    }
    assert_false(tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_A, w, 3, 33, 1.0f, file));
    assert_false(tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_C, w, 3, 128, 1.0f, file));
    assert_false(tern_pack_file(TERN_TYPE_TQ1_0, TERN_I2S_A, w, 2, 128, 1.0f, file));
    assert_false(tern_pack_file(38, TERN_I2S_A, w, 2, 256, 1.0f, file));
    size_t bytes = 1;
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        assert_false(tern_pack_bytes((enum tern_tile_layout)l, SIZE_MAX / 2, 4096, &bytes));
        assert_false(tern_pack_bytes((enum tern_tile_layout)l, 1, SIZE_MAX, &bytes));
    }
    assert_true(bytes == 1 && tern_pack_bytes(TERN_TILES_2BIT, 17, 17, &bytes) && bytes == 2 * 4 * 32);
    assert_true(tern_pack_bytes(TERN_TILES_5TRIT, 17, 17, &bytes) && bytes == 2 * 64);
    for (size_t k = 1; k < 1000; k++)
        assert_true(tern_pack_codes(k) >= tern_pack_k_pad(TERN_TILES_2BIT, k) &&
                    tern_pack_codes(k) >= tern_pack_k_pad(TERN_TILES_5TRIT, k) &&
                    tern_pack_codes(k) < k + 80);
}

/* Four blocks of one type: bytes of codes, offset of the scale. */
static void hostile_tq(uint32_t type, size_t qs)
{
    int8_t w[1024];
    uint8_t file[4 * 66];
    float scale = 42.0f;
    size_t block = qs + 2;
    generate(w, 1024);
    tern_pack_file(type, TERN_I2S_A, w, 2, 512, 0.5f, file);
    put_f16(file + 2 * block + qs, 0.25f);
    assert_int_equal(pack_once(type, file, &scale), TERN_PACK_SCALES);
    const float bad[] = { -0.5f, INFINITY, NAN };
    for (size_t i = 0; i < 3; i++) {
        put_f16(file + 2 * block + qs, bad[i]);
        assert_int_equal(pack_once(type, file, &scale), TERN_PACK_BAD_SCALE);
    }
    assert_true(scale == 42.0f);
    /* A block whose scale is 0 is all zero; one without weights may have any scale. */
    put_f16(file + 2 * block + qs, 0.0f);
    assert_int_equal(pack_once(type, file, &scale), TERN_PACK_OK);
    assert_true(scale == 0.5f);
    memset(w, 0, 256);
    tern_pack_file(type, TERN_I2S_A, w, 2, 512, 0.5f, file);
    put_f16(file + qs, 7.0f);
    assert_int_equal(pack_once(type, file, &scale), TERN_PACK_OK);
    assert_true(scale == 0.5f);
    memset(w, 0, sizeof w);
    tern_pack_file(type, TERN_I2S_A, w, 2, 512, 0.5f, file);
    assert_int_equal(pack_once(type, file, &scale), TERN_PACK_OK);
    assert_true(scale == 0.0f);
    /* Bytes no encoder writes. */
    unsigned refused = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        tern_pack_file(type, TERN_I2S_A, w, 2, 512, 0.5f, file);
        file[block + 3] = (uint8_t)byte;
        refused += pack_once(type, file, &scale) == TERN_PACK_BAD_CODE;
    }
    assert_int_equal(refused, type == TERN_TYPE_TQ1_0 ? 256 - 243 : 256 - 81);
}

static void hostile_tqs(void **unused)
{
    (void)unused;
    hostile_tq(TERN_TYPE_TQ1_0, 52);
    hostile_tq(TERN_TYPE_TQ2_0, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(i2s_vectors), cmocka_unit_test(tq_vectors),  cmocka_unit_test(round_trips),
        cmocka_unit_test(hostile_i2s), cmocka_unit_test(hostile_tqs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
