/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is valid UTF-8, and the streaming filter: the same text however the stream is cut.
 */
#include "unit/unit.h"

#include "engine/tokenizer.h"
#include "engine/utf8.h"

#include <string.h>

#define FFFD "\xef\xbf\xbd"

static size_t feed_all(const char *text, size_t n, char *out)
{
    struct tern_utf8 u = { .n = 0 };
    size_t n_out = tern_utf8_feed(&u, text, n, out);

    return n_out + tern_utf8_flush(&u, out + n_out);
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char bytes[8], out[64];
        size_t n = tern_utf8_put(code, bytes), len;
        bool surrogate = code >= 0xd800 && code < 0xe000;

        assert_int_equal(n, code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);
        if (surrogate) {
            assert_int_equal(tern_utf8_sequence((uint8_t *)bytes, n, &len), 0);
            assert_int_equal(tern_utf8_valid_prefix((uint8_t *)bytes, n), 0);
            continue;
        }
        assert_int_equal(tern_utf8_sequence((uint8_t *)bytes, n, &len), code + 1);
        assert_int_equal(len, n);
        assert_int_equal(tern_utf8_valid_prefix((uint8_t *)bytes, n), n);
        assert_int_equal(feed_all(bytes, n, out), n);
        assert_memory_equal(out, bytes, n);
        for (size_t k = 1; k < n; k++) {
            assert_int_equal(tern_utf8_sequence((uint8_t *)bytes, k, &len), -1);
            assert_int_equal(len, k);
        }
    }
}

/* All sequences of up to three bytes: valid ones are exactly the encodings of code points. */
static void test_count_of_valid_sequences(void **state)
{
    size_t n_valid[4] = { 0 }, len;

    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        uint8_t p[3] = { (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };
        int32_t r = tern_utf8_sequence(p, 3, &len);

        if (r > 0)
            n_valid[len]++;
    }
    assert_int_equal(n_valid[1], 0x80u << 16);
    assert_int_equal(n_valid[2], (0x800u - 0x80u) << 8);
    assert_int_equal(n_valid[3], 0x10000 - 0x800 - 0x800);
}

static void test_replacements(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "a\xff"
          "b",
          "a" FFFD "b" },
        { "\xc0\x80", FFFD FFFD },                   /* overlong NUL */
        { "\xe0\x80\x80", FFFD FFFD FFFD },          /* overlong */
        { "\xf0\x80\x80\x80", FFFD FFFD FFFD FFFD }, /* overlong */
        { "\xed\xa0\x80", FFFD FFFD FFFD },          /* a surrogate */
        { "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD }, /* U+110000 */
        { "\xf5\x80", FFFD FFFD },
        { "\xe2\x82", FFFD }, /* cut off: one for what could have begun */
        { "\xf0\x9f\x98", FFFD },
        { "\xe2\x82"
          "A",
          FFFD "A" },
        { "\xe2\x82\xe2\x82\xac", FFFD "\xe2\x82\xac" },
        { "\xe2\xe2\x82\xac\x82", FFFD "\xe2\x82\xac" FFFD },
        { "\x80\xbf", FFFD FFFD },
        /* the Unicode standard's own example, table 3-8 */
        { "\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64",
          "a" FFFD FFFD FFFD "b" FFFD "c" FFFD FFFD "d" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[128];
        size_t n = feed_all(rows[i].in, strlen(rows[i].in), out);

        assert_int_equal(n, strlen(rows[i].out));
        assert_memory_equal(out, rows[i].out, n);
    }
}

/* Random mixtures, whole, in two parts at every place, and byte by byte: the same text, valid, within the
 * room. */
static void test_cut_at_every_byte(void **state)
{
    static const char *const bits[] = { "a",        "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xff",
                                        "\xe2\x82", "\xf0\x9f", "\x80",         "\xed\xa0\x80",     "\xc0",
                                        "xyz",      "\xf4\x8f" };
    uint64_t seed = 17;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        char text[64], whole[256], cut[256];
        size_t n = 0, n_whole;

        for (int k = 0; k < 10; k++) {
            const char *bit = bits[unit_random(&seed) % (sizeof bits / sizeof bits[0])];

            memcpy(text + n, bit, strlen(bit));
            n += strlen(bit);
            if (round % 3 == 0)
                text[n - 1] = (char)unit_random(&seed);
        }
        n_whole = feed_all(text, n, whole);
        assert_true(n_whole <= 3 * (n + 4));
        assert_int_equal(tern_utf8_valid_prefix((uint8_t *)whole, n_whole), n_whole);
        for (size_t at = 0; at <= n; at++) {
            struct tern_utf8 u = { .n = 0 };
            size_t n_cut = tern_utf8_feed(&u, text, at, cut);

            assert_int_equal(tern_utf8_valid_prefix((uint8_t *)cut, n_cut), n_cut);
            n_cut += tern_utf8_feed(&u, text + at, n - at, cut + n_cut);
            n_cut += tern_utf8_flush(&u, cut + n_cut);
            assert_int_equal(n_cut, n_whole);
            assert_memory_equal(cut, whole, n_whole);
            assert_int_equal(tern_utf8_flush(&u, cut), 0);
        }
        {
            struct tern_utf8 u = { .n = 0 };
            size_t n_cut = 0;

            for (size_t i = 0; i < n; i++)
                n_cut += tern_utf8_feed(&u, text + i, 1, cut + n_cut);
            n_cut += tern_utf8_flush(&u, cut + n_cut);
            assert_int_equal(n_cut, n_whole);
            assert_memory_equal(cut, whole, n_whole);
        }
    }
}

/* A complete character is never held back. */
static void test_nothing_waits_for_nothing(void **state)
{
    struct tern_utf8 u = { .n = 0 };
    char out[64];

    (void)state;
    assert_int_equal(tern_utf8_feed(&u, "a\xe2\x82", 3, out), 1);
    assert_int_equal(tern_utf8_feed(&u, "\xac", 1, out), 3);
    assert_memory_equal(out, "\xe2\x82\xac", 3);
    assert_int_equal(tern_utf8_feed(&u, "\xf0\x9f\x98", 3, out), 0);
    assert_int_equal(tern_utf8_feed(&u, "", 0, out), 0);
    assert_int_equal(tern_utf8_feed(&u, "\x80", 1, out), 4);
    assert_int_equal(tern_utf8_flush(&u, out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_count_of_valid_sequences),
        cmocka_unit_test(test_replacements),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_nothing_waits_for_nothing),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
