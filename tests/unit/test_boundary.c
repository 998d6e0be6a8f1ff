/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boundary formats: sizes, error bounds, odd lengths, hostile rows, and the same bytes at every level.
 */
#include "unit/unit.h"

#include "engine/boundary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const enum tern_boundary all[] = { TERN_BOUNDARY_F32,    TERN_BOUNDARY_F16,     TERN_BOUNDARY_INT8,
                                          TERN_BOUNDARY_INT8X2, TERN_BOUNDARY_INT8_64, TERN_BOUNDARY_INT8_ROW,
                                          TERN_BOUNDARY_INT8_32 };
/* Largest error relative to the largest magnitude of the row, from the formats' resolution. */
static const double bound[] = { 0,
                                1.0 / 2048,
                                0.5 / 127 * 1.0001,
                                0.5 / 127 / 254 * 1.02,
                                0.5 / 127 * 1.0001,
                                0.5 / 127 * 1.0001,
                                0.5 / 127 * 1.0001 };

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double u = (double)(unit_random(&seed) >> 11) / 9007199254740992.0 - 0.5;

        x[i] = (float)(u * (i % 37 == 5 ? 300.0 : 3.0)); /* some outlier channels */
    }
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        enum tern_boundary b;

        assert_true(tern_boundary_by_name(tern_boundary_name(all[i]), &b));
        assert_int_equal(b, all[i]);
        assert_true(tern_boundary_valid((uint32_t)all[i]));
    }
    assert_false(tern_boundary_valid(0));
    assert_false(tern_boundary_valid(8));
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_F32, 2560), 10240);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_F16, 2560), 5120);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8, 2560), 40 * 6 + 2560 + 80 * 4);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8_32, 2560), 2560 + 80 * 4);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8X2, 2560), 5120 + 80 * 4);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8_64, 2560), 2560 + 40 * 4);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8_ROW, 2560), 2560 + 4);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8_32, 33), 33 + 8);
    assert_int_equal(tern_boundary_row_bytes(TERN_BOUNDARY_INT8, 65), 2 * 6 + 65 + 12);
}

static void test_round_trip(void **state)
{
    static const size_t lengths[] = { 1, 31, 32, 33, 64, 100, 256, 2560, 8640, 20000 };

    (void)state;
    for (int level = TERN_CPU_REF; level < TERN_CPU_N_LEVELS; level++) {
        struct tern_kernels k, ref;

        if (!tern_cpu_supports((enum tern_cpu_level)level))
            continue;
        tern_kernels_init(&k, (enum tern_cpu_level)level);
        tern_kernels_init(&ref, TERN_CPU_REF);
        for (size_t f = 0; f < sizeof all / sizeof all[0]; f++)
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                size_t n = lengths[l], bytes = tern_boundary_row_bytes(all[f], n);
                float *x = malloc(n * 4), *y = malloc(n * 4), *z = malloc(n * 4), top = 0;
                uint8_t *row = malloc(bytes + 1), *row_ref = malloc(bytes);

                fill(x, n, 77 + n);
                row[bytes] = 0xa5;
                tern_boundary_encode(all[f], &k, x, n, row);
                tern_boundary_encode(all[f], &ref, x, n, row_ref);
                assert_int_equal(row[bytes], 0xa5);
                assert_memory_equal(row, row_ref, bytes);
                assert_true(tern_boundary_decode(all[f], &k, row, n, y));
                assert_true(tern_boundary_decode(all[f], &ref, row, n, z));
                assert_memory_equal(y, z, n * 4);
                for (size_t i = 0; i < n; i++)
                    top = fmaxf(top, fabsf(x[i]));
                for (size_t i = 0; i < n; i++)
                    assert_true(fabs((double)x[i] - (double)y[i]) <= bound[f] * (double)top);
                free(x);
                free(y);
                free(z);
                free(row);
                free(row_ref);
            }
    }
}

static void test_not_finite_is_refused(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct tern_kernels k;
    float x[96], y[96];
    uint8_t row[96 * 4];

    (void)state;
    tern_kernels_init(&k, tern_cpu_detect());
    for (size_t f = 0; f < sizeof all / sizeof all[0]; f++)
        for (size_t b = 0; b < 3; b++) {
            fill(x, 96, 5);
            x[70] = bad[b];
            tern_boundary_encode(all[f], &k, x, 96, row);
            assert_false(tern_boundary_decode(all[f], &k, row, 96, y));
        }
    /* Bytes no encoder writes: every pattern must decode or be refused, never trap. */
    for (size_t f = 0; f < sizeof all / sizeof all[0]; f++) {
        uint64_t rng = 99;

        for (int turn = 0; turn < 2000; turn++) {
            for (size_t i = 0; i < sizeof row; i++)
                row[i] = (uint8_t)unit_random(&rng);
            if (tern_boundary_decode(all[f], &k, row, 96, y))
                for (size_t i = 0; i < 96; i++)
                    assert_true(isfinite(y[i]));
        }
    }
}

/* The largest elements come through exactly, and the rest as finely as if they were not there. */
/* Rounding in place is encoding and decoding, whatever is in the row. */
static void test_round_in_place(void **state)
{
    static const size_t sizes[] = { 1, 33, 64, 65, 288, 2560 };
    static float x[2560], y[2560];
    static uint8_t row[4 * 2560], other[4 * 2560];

    (void)state;
    for (int level = 0; level < TERN_CPU_N_LEVELS; level++) {
        struct tern_kernels k;

        if (!tern_cpu_supports((enum tern_cpu_level)level))
            continue;
        tern_kernels_init(&k, (enum tern_cpu_level)level);
        for (size_t f = 0; f < sizeof all / sizeof all[0]; f++) {
            for (size_t i = 0; i < 3 * sizeof sizes / sizeof sizes[0]; i++) {
                size_t n = sizes[i / 3], bytes = tern_boundary_row_bytes(all[f], n);
                bool ok;

                fill(x, n, i + 1);
                if (i % 3 == 1)
                    x[n / 2] = INFINITY;
                if (i % 3 == 2)
                    memset(x, 0, n * sizeof *x);
                tern_boundary_encode(all[f], &k, x, n, row);
                ok = tern_boundary_decode(all[f], &k, row, n, y);
                assert_int_equal(tern_boundary_round(all[f], &k, x, n, other), ok);
                assert_int_equal(ok, i % 3 != 1);
                assert_memory_equal(row, other, bytes);
                if (ok)
                    assert_memory_equal(x, y, n * sizeof *x);
            }
        }
    }
}

static void test_outliers_are_exact(void **state)
{
    static const size_t spots[] = { 3, 4, 700, 2559 };
    struct tern_kernels k;
    static float x[2560], y[2560];
    static uint8_t row[4 * 2560];
    size_t n_out = 40;

    (void)state;
    tern_kernels_init(&k, tern_cpu_detect());
    for (size_t i = 0; i < 2560; i++)
        x[i] = (float)((int)(i * 7919 % 2001) - 1000) / 1000.0f;
    for (size_t i = 0; i < 4; i++)
        x[spots[i]] = (i % 2 ? -1.0f : 1.0f) * (12345.678f + (float)i);
    tern_boundary_encode(TERN_BOUNDARY_INT8, &k, x, 2560, row);
    assert_true(tern_boundary_decode(TERN_BOUNDARY_INT8, &k, row, 2560, y));
    for (size_t i = 0; i < 4; i++)
        assert_true(y[spots[i]] == x[spots[i]]);
    for (size_t i = 0; i < 2560; i++)
        assert_true(fabsf(y[i] - x[i]) <= 0.5f / 127 * 1.0001f);
    /* Equal magnitudes: the first ones are taken, whatever their sign. */
    for (size_t i = 0; i < 2560; i++)
        x[i] = i % 2 ? -2.0f : 2.0f;
    tern_boundary_encode(TERN_BOUNDARY_INT8, &k, x, 2560, row);
    for (uint16_t i = 0; i < n_out; i++) {
        uint16_t place;

        memcpy(&place, row + 4 * n_out + 2 * i, 2);
        assert_int_equal(place, i);
    }
    /* Places out of order or out of range are refused. */
    row[4 * n_out] = 1;
    assert_false(tern_boundary_decode(TERN_BOUNDARY_INT8, &k, row, 2560, y));
    row[4 * n_out] = 0;
    assert_true(tern_boundary_decode(TERN_BOUNDARY_INT8, &k, row, 2560, y));
    row[4 * n_out + 2 * 39 + 1] = 0x0a; /* 2599 */
    assert_false(tern_boundary_decode(TERN_BOUNDARY_INT8, &k, row, 2560, y));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),          cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_not_finite_is_refused),
        cmocka_unit_test(test_round_in_place), cmocka_unit_test(test_outliers_are_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
