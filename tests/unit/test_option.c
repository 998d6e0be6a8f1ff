/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options that both programs take: what is accepted, what is refused with which sentence.
 */
#include "unit/unit.h"

#include "engine/option.h"

#include <stdlib.h>
#include <string.h>

static void test_whole_numbers(void **state)
{
    static const char *const bad[] = {
        "", " 1", "+1", "-1", "0x10", "1 ", "1.0", "ten", "0", "101", "18446744073709551616"
    };
    uint64_t v = 7;
    uint32_t w = 7;

    (void)state;
    assert_ok(tern_option_u64("-n", "100", 1, 100, &v, &unit_err));
    assert_int_equal(v, 100);
    assert_ok(tern_option_u32("-n", "4294967295", 1, UINT32_MAX, &w, &unit_err));
    assert_int_equal(w, UINT32_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(tern_option_u64("-n", bad[i], 1, 100, &v, &unit_err), TERN_ERR_USAGE);
        assert_int_equal(v, 100);
    }
    assert_int_equal(tern_option_u32("-n", "x", 1, 9, &w, &unit_err), TERN_ERR_USAGE);
    assert_string_equal(unit_err.text, "-n: 'x' is not a whole number from 1 to 9");
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "1", 1 },     { "1073741824", 1u << 30 }, { "500M", 500ull << 20 }, { "2G", 2ull << 30 },
        { "3k", 3072 }, { "2GiB", 2ull << 30 },     { "1TB", 1ull << 40 },
    };
    static const char *const bad[] = {
        "", "0", "0G", "G", "-1G", "2X", "2GG", "1.5G", "9223372036854775808K"
    };
    uint64_t v = 0;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_ok(tern_option_bytes("--memory", good[i].text, &v, &unit_err));
        assert_int_equal(v, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tern_option_bytes("--memory", bad[i], &v, &unit_err), TERN_ERR_USAGE);
}

static void test_levels_and_layouts(void **state)
{
    enum tern_cpu_level level = tern_cpu_detect();
    enum tern_i2s_layout layout = TERN_I2S_A;

    (void)state;
    assert_ok(tern_option_cpu("ref", &level, &unit_err));
    assert_int_equal(level, TERN_CPU_REF);
    assert_int_equal(tern_option_cpu("sse", &level, &unit_err), TERN_ERR_USAGE);
    assert_ok(tern_option_i2s("b", &layout, &unit_err));
    assert_int_equal(layout, TERN_I2S_B);
    assert_int_equal(tern_option_i2s("D", &layout, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(tern_option_i2s("", &layout, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(tern_option_i2s("AB", &layout, &unit_err), TERN_ERR_USAGE);
}

static void test_layers_and_kv(void **state)
{
    static const char *const bad[] = {
        "",    "-", "3-", "-3", "3-4-5", "a", "1 - 2", "0x1", " 1", "4-2", "8", "0-8", "99999999999999999999",
        "3--4"
    };
    uint32_t first = 77, last = 77;
    enum tern_kv_type kv = TERN_KV_F16;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tern_option_layers(bad[i], "it", 8, &first, &last, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(first, 77);
    assert_int_equal(last, 77);
    assert_ok(tern_option_layers("0-7", "it", 8, &first, &last, &unit_err));
    assert_int_equal(first, 0);
    assert_int_equal(last, 8);
    assert_ok(tern_option_layers("3", "it", 8, &first, &last, &unit_err));
    assert_int_equal(first, 3);
    assert_int_equal(last, 4);
    assert_int_equal(tern_option_kv("f32", &kv, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(kv, TERN_KV_F16);
    assert_ok(tern_option_kv("int8", &kv, &unit_err));
    assert_int_equal(kv, TERN_KV_INT8);
}

static void test_defaults(void **state)
{
    char path[64], small[4];

    (void)state;
    assert_int_equal(setenv("TERN_MODEL", "/somewhere/model.gguf", 1), 0);
    assert_ok(tern_option_default_model("-m", path, sizeof path, &unit_err));
    assert_string_equal(path, "/somewhere/model.gguf");
    assert_int_equal(tern_option_default_model("-m", small, sizeof small, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(unsetenv("TERN_MODEL"), 0);
    assert_true(tern_option_default_threads() >= 1 && tern_option_default_threads() <= TERN_MAX_THREADS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_numbers),      cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_levels_and_layouts), cmocka_unit_test(test_layers_and_kv),
        cmocka_unit_test(test_defaults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
