/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice between layouts: what is asked for is not measured, what was measured is remembered, and a
 * cache that is damaged, nonsense or in the way costs another measurement and nothing else.
 */
#include "unit/cache_folder.h"
#include "unit/unit.h"

#include "engine/layout_choice.h"
#include "engine/option.h"

#include <math.h>
#include <sodium.h>

#define KEY        32
#define RATES      (TERN_N_TILE_LAYOUTS * sizeof(double))
#define FILE_BYTES (KEY + RATES + 32)

static struct tern_kernels kern;
static struct tern_pool *pools[2]; /* of one thread, and of two */

static int set_up(void **state)
{
    (void)state;
    tern_kernels_init(&kern, tern_cpu_detect());
    return !make_cache() || tern_pool_new(1, &pools[0], &unit_err) || tern_pool_new(2, &pools[1], &unit_err);
}

static int tear_down(void **state)
{
    (void)state;
    remove_cache();
    tern_pool_free(&pools[0]);
    tern_pool_free(&pools[1]);
    return 0;
}

static struct tern_layout_choice choose(enum tern_layout_wish wish, unsigned pool)
{
    struct tern_layout_choice c;

    memset(&c, 0xff, sizeof c);
    tern_layout_choose(wish, &kern, pools[pool], &c);
    return c;
}

static struct tern_layout_choice measured(unsigned pool)
{
    struct tern_layout_choice c = choose(TERN_LAYOUT_AUTO, pool);

    assert_int_equal(c.source, TERN_LAYOUT_MEASURED);
    assert_true(isfinite(c.rate[0]) && c.rate[0] > 0 && isfinite(c.rate[1]) && c.rate[1] > 0);
    assert_int_equal(c.layout, c.rate[TERN_TILES_5TRIT] > 1.03 * c.rate[TERN_TILES_2BIT] ? TERN_TILES_5TRIT
                                                                                         : TERN_TILES_2BIT);
    return c;
}

static void read_cached(uint8_t bytes[FILE_BYTES])
{
    char path[400];
    FILE *f;

    assert_true(cached_file(path));
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, FILE_BYTES, f), FILE_BYTES);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

static void write_cached(const uint8_t *bytes, size_t n)
{
    char path[400];
    FILE *f;

    assert_true(cached_file(path));
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Puts these rates into the cache, with a right sum. */
static void plant(double two_bit, double five_trit)
{
    const double rates[TERN_N_TILE_LAYOUTS] = { two_bit, five_trit };
    uint8_t bytes[FILE_BYTES];

    read_cached(bytes);
    memcpy(bytes + KEY, rates, RATES);
    crypto_generichash(bytes + KEY + RATES, 32, bytes, KEY + RATES, NULL, 0);
    write_cached(bytes, sizeof bytes);
}

static void test_asked_for(void **state)
{
    char path[400];
    struct tern_layout_choice c = choose(TERN_LAYOUT_5TRIT, 0);

    (void)state;
    empty_cache();
    assert_int_equal(c.layout, TERN_TILES_5TRIT);
    assert_int_equal(c.source, TERN_LAYOUT_ASKED);
    c = choose(TERN_LAYOUT_2BIT, 0);
    assert_int_equal(c.layout, TERN_TILES_2BIT);
    assert_true(c.source == TERN_LAYOUT_ASKED && c.rate[0] == 0 && c.rate[1] == 0);
    assert_false(cached_file(path));
}

static void test_remembered(void **state)
{
    struct tern_layout_choice a, b;

    (void)state;
    empty_cache();
    a = measured(0);
    b = choose(TERN_LAYOUT_AUTO, 0);
    assert_int_equal(b.source, TERN_LAYOUT_CACHED);
    assert_int_equal(b.layout, a.layout);
    assert_memory_equal(a.rate, b.rate, sizeof a.rate);
    (void)measured(1); /* with other threads it is another question */
    assert_int_equal(choose(TERN_LAYOUT_AUTO, 1).source, TERN_LAYOUT_CACHED);
    assert_int_equal(choose(TERN_LAYOUT_AUTO, 0).source, TERN_LAYOUT_CACHED);
    if (kern.level != TERN_CPU_REF) {
        tern_kernels_init(&kern, TERN_CPU_REF); /* and at another level */
        (void)measured(0);
        tern_kernels_init(&kern, tern_cpu_detect());
    }
}

static void test_rates_decide(void **state)
{
    static const struct {
        double two_bit, five_trit;
        enum tern_tile_layout want;
    } cases[] = { { 1e10, 2e10, TERN_TILES_5TRIT },
                  { 1e10, 1.04e10, TERN_TILES_5TRIT },
                  { 1e10, 1.02e10, TERN_TILES_2BIT },
                  { 1e10, 1e9, TERN_TILES_2BIT } };

    (void)state;
    empty_cache();
    (void)measured(0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tern_layout_choice c;

        plant(cases[i].two_bit, cases[i].five_trit);
        c = choose(TERN_LAYOUT_AUTO, 0);
        assert_int_equal(c.source, TERN_LAYOUT_CACHED);
        assert_int_equal(c.layout, cases[i].want);
        assert_true(c.rate[TERN_TILES_5TRIT] == cases[i].five_trit);
    }
}

static void test_damaged_cache(void **state)
{
    static const double nonsense[] = { 0, -1e10, INFINITY, NAN };
    uint8_t bytes[FILE_BYTES];

    (void)state;
    empty_cache();
    (void)measured(0);
    read_cached(bytes);
    bytes[KEY + 3] ^= 1; /* under the sum */
    write_cached(bytes, sizeof bytes);
    (void)measured(0);
    read_cached(bytes);
    bytes[0] ^= 1; /* of something else, with a right sum */
    crypto_generichash(bytes + KEY + RATES, 32, bytes, KEY + RATES, NULL, 0);
    write_cached(bytes, sizeof bytes);
    (void)measured(0);
    write_cached(bytes, sizeof bytes - 1);
    (void)measured(0);
    write_cached(bytes, 0);
    (void)measured(0);
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        plant(nonsense[i], 1e10);
        (void)measured(0);
        plant(1e10, nonsense[i]);
        (void)measured(0);
    }
    assert_int_equal(choose(TERN_LAYOUT_AUTO, 0).source, TERN_LAYOUT_CACHED); /* mended each time */
}

static void test_no_cache(void **state)
{
    char path[400];

    (void)state;
    empty_cache();
    setenv("TERN_NO_CACHE", "1", 1);
    (void)measured(0);
    (void)measured(0);
    assert_false(cached_file(path));
    unsetenv("TERN_NO_CACHE");
    setenv("XDG_CACHE_HOME", "/proc/nowhere", 1); /* cannot be written */
    (void)measured(0);
    (void)measured(0);
    setenv("XDG_CACHE_HOME", cache, 1);
    assert_false(cached_file(path));
}

static void test_option(void **state)
{
    enum tern_layout_wish wish = TERN_LAYOUT_5TRIT;

    (void)state;
    assert_ok(tern_option_layout("auto", &wish, &unit_err));
    assert_int_equal(wish, TERN_LAYOUT_AUTO);
    assert_ok(tern_option_layout("1.6bit", &wish, &unit_err));
    assert_int_equal(wish, TERN_LAYOUT_5TRIT);
    assert_ok(tern_option_layout("2bit", &wish, &unit_err));
    assert_int_equal(wish, TERN_LAYOUT_2BIT);
    assert_int_equal(tern_option_layout("3bit", &wish, &unit_err), TERN_ERR_USAGE);
    assert_string_equal(unit_err.text, "--layout: '3bit' is not auto, 2bit or 1.6bit");
    assert_int_equal(tern_option_layout("", &wish, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(wish, TERN_LAYOUT_2BIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked_for),    cmocka_unit_test(test_remembered),
        cmocka_unit_test(test_rates_decide), cmocka_unit_test(test_damaged_cache),
        cmocka_unit_test(test_no_cache),     cmocka_unit_test(test_option),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
