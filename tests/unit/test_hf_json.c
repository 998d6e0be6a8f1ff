/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What JSON of strangers may take: every kind of small thing in great numbers, with as many blanks as make
 * it just allowed, while the bytes that the parser holds are counted; and texts of real kinds, which are
 * allowed.
 */
#include "unit/unit.h"

#include "engine/base/limits.h"
#include "engine/hf_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- counting -------------------------------------------------------------------------------------------- */

static size_t held, peak;

/* glibc keeps 8 bytes with each block, rounds to 16 and gives 32 at least. */
static size_t block_bytes(size_t n)
{
    size_t all = (n + 8 + 15) / 16 * 16;

    return all < 32 ? 32 : all;
}

static void *counted_malloc(size_t n)
{
    size_t *p = malloc(n + 16);

    if (!p)
        return NULL;
    p[0] = n;
    held += block_bytes(n);
    peak = held > peak ? held : peak;
    return p + 2;
}

static void counted_free(void *block)
{
    size_t *p = block;

    if (!p)
        return;
    held -= block_bytes(p[-2]);
    free(p - 2);
}

static int count(void **state)
{
    (void)state;
    json_set_alloc_funcs(counted_malloc, counted_free);
    return 0;
}

/* -- texts ----------------------------------------------------------------------------------------------- */

struct text {
    char *bytes;
    size_t n, room;
};

static void put(struct text *t, const char *format, unsigned i)
{
    int n;

    if (t->room - t->n < 256) {
        t->room = t->room ? 2 * t->room : 65536;
        t->bytes = realloc(t->bytes, t->room);
        assert_non_null(t->bytes);
    }
    n = snprintf(t->bytes + t->n, t->room - t->n, format, i, i, i);
    assert_in_range(n, 0, 255);
    t->n += (size_t)n;
}

static struct text make(const char *head, const char *unit, const char *tail, unsigned n)
{
    struct text t = { 0 };

    put(&t, head, 0);
    for (unsigned i = 0; i < n; i++)
        put(&t, unit, i);
    put(&t, tail, 0);
    return t;
}

/* Parses with counting; *out is what was held at most. */
static enum tern_status parse(const char *bytes, size_t n, size_t *out)
{
    json_t *root = NULL;
    enum tern_status st;

    peak = 0;
    st = tern_hf_json_parse("made.json", bytes, n, &root, &unit_err);
    json_decref(root);
    assert_int_equal(held, 0);
    *out = peak;
    return st;
}

static size_t allowed(size_t n)
{
    return n * TERN_HF_JSON_TIMES + TERN_HF_JSON_SMALL;
}

/* -- tests ----------------------------------------------------------------------------------------------- */

static const struct {
    const char *head, *unit, *tail;
} hostile[] = {
    { "{\"a\":[", "{},", "1]}" },
    { "{\"a\":[", "[],", "1]}" },
    { "{\"a\":[", "1,", "1]}" },
    { "{\"a\":[", "-1e1,", "1]}" },
    { "{\"a\":[", "\"\",", "1]}" },
    { "{\"a\":[", "null,", "1]}" },
    { "{\"a\":[", "[1],", "1]}" },
    { "{\"a\":[", "{\"\":{}},", "1]}" },
    { "{\"a\":[", "{\"a\":[1,2,3,4,5,6,7,8,9]},", "1]}" },
    { "{\"a\":[", "{\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6,\"7\":7,\"8\":8,\"9\":9},", "1]}" },
    { "{", "\"%x\":1,", "\"x\":1}" },
    { "{", "\"%x\":\"\",", "\"x\":1}" },
    { "{", "\"%x\":{},", "\"x\":1}" },
    { "{", "\"%0150x\":[],", "\"x\":1}" },
    { "{\"a\":[", "\"\\u0041\\\"\\\\%0100x\",", "1]}" },
};

/* Fills up with blanks to the shortest that is allowed. */
static void fill_up(struct text *t, size_t *took)
{
    size_t low = t->n, high = 4 * t->n;

    t->bytes = realloc(t->bytes, high);
    assert_non_null(t->bytes);
    memset(t->bytes + t->n, ' ', high - t->n);
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (parse(t->bytes, mid, took) == TERN_OK)
            high = mid;
        else
            low = mid + 1;
    }
    t->n = low;
}

/* Whatever is allowed stays within what is said; and just over it, nothing is taken at all. */
static void test_bound(void **state)
{
    static const unsigned ns[] = { 3, 31, 300, 1100, 4200 };
    size_t n_refused = 0, took;

    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++)
        for (size_t j = 0; j < sizeof ns / sizeof ns[0]; j++) {
            struct text t = make(hostile[i].head, hostile[i].unit, hostile[i].tail, ns[j]);

            if (parse(t.bytes, t.n, &took)) {
                n_refused++;
                assert_int_equal(unit_err.status, TERN_ERR_LIMIT);
                assert_non_null(strstr(unit_err.text, "made.json"));
                assert_int_equal(took, 0);
                fill_up(&t, &took);
                assert_int_equal(parse(t.bytes, t.n - 1, &took), TERN_ERR_LIMIT);
            }
            assert_ok(parse(t.bytes, t.n, &took));
            assert_in_range(took, 1, allowed(t.n));
            free(t.bytes);
        }
    assert_in_range(n_refused, 8, 40); /* the bound is reached, and not always */
}

/* A long token and a deep one: the lexer's buffer and the names that wait for their values. */
static void test_long(void **state)
{
    struct text t;
    size_t took;

    (void)state;
    t = make("{\"a\":\"", "%0200x", "\"}", 5000);
    assert_ok(parse(t.bytes, t.n, &took));
    assert_in_range(took, t.n, 5 * t.n);
    free(t.bytes);
    t = make("", "{\"%0200x\":", "1", 2000); /* nothing closes it */
    assert_int_equal(parse(t.bytes, t.n, &took), TERN_ERR_FORMAT);
    assert_in_range(took, t.n, allowed(t.n));
    free(t.bytes);
    t = make("", "{\"%0200x\":", "1", 3000); /* deeper than the parser goes */
    assert_int_equal(parse(t.bytes, t.n, &took), TERN_ERR_FORMAT);
    free(t.bytes);
}

/* A file that may be large is still not allowed 32 times its size. */
static void test_ceiling(void **state)
{
    struct text t = make("{\"a\":[", "{},           ", "1]}", 2400000);
    size_t took;

    (void)state;
    assert_in_range(t.n, TERN_MAX_HF_MEMORY / TERN_HF_JSON_TIMES, TERN_MAX_HF_TOKENIZER);
    assert_int_equal(parse(t.bytes, t.n, &took), TERN_ERR_LIMIT);
    assert_int_equal(took, 0);
    assert_non_null(strstr(unit_err.text, "at most 536870912 are allowed"));
    free(t.bytes);
}

/* Texts as publishers have them, without a single blank. */
static void test_real(void **state)
{
    static const struct {
        const char *head, *unit, *tail;
    } real[] = {
        { "{\"merges\":[", "[\"\xe2\x96\x81%04x\",\"%03x\"],", "[\"a\",\"b\"]]}" },
        { "{\"merges\":[", "\"%x %x\",", "\"a b\"]}" },
        { "{\"vocab\":{", "\"%x\":%u,", "\"x\":1}}" },
        { "{\"added_tokens\":[",
          "{\"id\":%u,\"content\":\"%x\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
          "\"normalized\":false,\"special\":true},",
          "{}]}" },
        { "{", "\"l.%u.weight_scale\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[%u,%u]},",
          "\"a\":{}}" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof real / sizeof real[0]; i++) {
        struct text t = make(real[i].head, real[i].unit, real[i].tail, 20000);
        size_t took;

        assert_ok(parse(t.bytes, t.n, &took));
        assert_in_range(took, t.n, allowed(t.n));
        free(t.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_real),
    };

    return cmocka_run_group_tests(tests, count, NULL);
}
