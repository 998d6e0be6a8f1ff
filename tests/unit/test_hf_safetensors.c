/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors container: a file by hand, the same with one thing wrong at a time, every cut of it, and
 * every byte of it changed.
 */
#include "unit/unit.h"

#include "engine/base/limits.h"
#include "engine/hf_safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses header and n bytes of data from a heap block of the exact size, which *heap keeps alive. */
static enum tern_status parse(const char *header, size_t n, struct tern_safetensors *s, uint8_t **heap)
{
    size_t len = strlen(header), size = 8 + len + n;

    *heap = aligned_alloc(8, (size + 7) / 8 * 8);
    assert_non_null(*heap);
    for (int i = 0; i < 8; i++)
        (*heap)[i] = (uint8_t)((uint64_t)len >> 8 * i);
    memcpy(*heap + 8, header, len);
    memset(*heap + 8 + len, 7, n);
    return tern_safetensors_parse("made.safetensors", *heap, size, s, &unit_err);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
                           "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}} ";

static void test_good(void **state)
{
    struct tern_safetensors s;
    uint8_t *heap;

    (void)state;
    assert_ok(parse(good, 16, &s, &heap));
    assert_int_equal(s.n, 2);
    assert_string_equal(s.arrays[0].name, "a");
    assert_string_equal(s.arrays[0].dtype, "BF16");
    assert_int_equal(s.arrays[0].type, 30);
    assert_int_equal(s.arrays[0].n_dims, 2);
    assert_int_equal(s.arrays[0].shape[0], 2);
    assert_int_equal(s.arrays[0].shape[1], 3);
    assert_int_equal(s.arrays[0].shape[2], 1);
    assert_ptr_equal(s.arrays[0].data, heap + 8 + strlen(good));
    assert_int_equal(s.arrays[0].bytes, 12);
    assert_string_equal(s.arrays[1].name, "b");
    assert_int_equal(s.arrays[1].n_dims, 0);
    assert_int_equal(s.arrays[1].bytes, 4);
    tern_safetensors_free(&s);
    tern_safetensors_free(&s);
    free(heap);
}

/* header with 16 bytes of data is refused with a sentence that has `part` in it. */
static void refuse(const char *header, enum tern_status status, const char *part)
{
    struct tern_safetensors s = { .n = 77 };
    uint8_t *heap;

    if (parse(header, 16, &s, &heap) != status || !strstr(unit_err.text, part) ||
        !strstr(unit_err.text, "made.safetensors"))
        fail_msg("%s\ngave: %s", header, unit_err.text);
    assert_int_equal(s.n, 77);
    free(heap);
}

#define ONE(dtype, shape, offsets)                                                                           \
    "{\"x\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_refused(void **state)
{
    static const struct {
        const char *header;
        enum tern_status status;
        const char *part;
    } cases[] = {
        { "[]", TERN_ERR_FORMAT, "not an object" },
        { "{\"x\":3}", TERN_ERR_FORMAT, "has no dtype" },
        { "{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", TERN_ERR_FORMAT, "has no shape" },
        { "{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}", TERN_ERR_FORMAT, "where it lies" },
        { "{\"x\":1,\"x\":2}", TERN_ERR_FORMAT, "not valid JSON" },
        { "{\"x\":", TERN_ERR_FORMAT, "not valid JSON" },
        { "{\"\":{}}", TERN_ERR_FORMAT, "name of 0 bytes" },
        { "{\"\\u0000\":{}}", TERN_ERR_FORMAT, "not valid JSON" },
        { ONE("F4", "[4]", "[0,2]"), TERN_ERR_UNSUPPORTED, "dtype 'F4'" },
        { ONE("F32", "[1,1,1,1,1]", "[0,4]"), TERN_ERR_UNSUPPORTED, "5 dimensions" },
        { ONE("F32", "[0]", "[0,0]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[-1]", "[0,4]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[1.5]", "[0,6]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[1e300]", "[0,4]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[18446744073709551617]", "[0,4]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[\"1\"]", "[0,4]"), TERN_ERR_FORMAT, "positive whole number" },
        { ONE("F32", "[4294967296,4294967296]", "[0,4]"), TERN_ERR_FORMAT, "too large" },
        { ONE("F32", "[4503599627370496,1024]", "[0,4]"), TERN_ERR_FORMAT, "too large" },
        { ONE("F32", "[2]", "[0,4]"), TERN_ERR_FORMAT, "need 8" },
        { ONE("F32", "[1]", "[0,8]"), TERN_ERR_FORMAT, "need 4" },
        { ONE("F32", "[1]", "[4,0]"), TERN_ERR_FORMAT, "where it lies" },
        { ONE("F32", "[1]", "[-4,0]"), TERN_ERR_FORMAT, "where it lies" },
        { ONE("F32", "[1]", "[0,4,8]"), TERN_ERR_FORMAT, "where it lies" },
        { ONE("F32", "[1]", "[16,20]"), TERN_ERR_FORMAT, "ends at byte 20 of 16" },
        { ONE("F32", "[1]", "[9007199254740988,9007199254740992]"), TERN_ERR_FORMAT, "ends at byte" },
        { ONE("U8", "[4]", "[13,17]"), TERN_ERR_FORMAT, "ends at byte 17 of 16" },
        { "{\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
          "\"y\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[7,15]}}",
          TERN_ERR_FORMAT, "overlap" },
        { "{\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
          "\"y\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
          TERN_ERR_FORMAT, "overlap" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(cases[i].header, cases[i].status, cases[i].part);
}

/* Not every writer pads its header. */
static void test_misaligned(void **state)
{
    static const char header[] = "{\"x\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[1,5]}}     ";
    struct tern_safetensors s;
    uint8_t *heap;

    (void)state;
    assert_int_equal(strlen(header) % 2, 0);
    assert_ok(parse(header, 16, &s, &heap));
    assert_ptr_equal(s.arrays[0].data, heap + 8 + strlen(header) + 1);
    tern_safetensors_free(&s);
    free(heap);
}

static void test_lengths(void **state)
{
    static const struct {
        uint64_t n;
        enum tern_status status;
    } cases[] = { { 0, TERN_ERR_FORMAT },
                  { 1, TERN_ERR_FORMAT },
                  { 57, TERN_ERR_FORMAT },
                  { TERN_MAX_HF_HEADER, TERN_ERR_FORMAT },
                  { TERN_MAX_HF_HEADER + 1, TERN_ERR_LIMIT },
                  { UINT64_MAX, TERN_ERR_LIMIT },
                  { UINT64_MAX - 7, TERN_ERR_LIMIT } };
    struct tern_safetensors s;
    uint8_t *bytes = calloc(1, 64);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int b = 0; b < 8; b++)
            bytes[b] = (uint8_t)(cases[i].n >> 8 * b);
        assert_int_equal(tern_safetensors_parse("x", bytes, 64, &s, &unit_err), cases[i].status);
    }
    free(bytes);
}

/* A small header must not make us allocate for millions of objects; deep ones must not take the stack. */
static void test_nests(void **state)
{
    size_t n = 600000;
    char *header = malloc(2 * n + 8), *at = header;

    (void)state;
    at += sprintf(at, "{\"x\":[");
    for (size_t i = 0; i < n / 3; i++)
        at += sprintf(at, "{},");
    for (size_t i = 0; i < n / 6; i++)
        at += sprintf(at, "[],");
    sprintf(at, "1]}");
    refuse(header, TERN_ERR_LIMIT, "small parts");
    for (size_t i = 0; i < n; i++)
        header[i] = i % 5 ? ' ' : '[';
    header[n] = '\0';
    refuse(header, TERN_ERR_FORMAT, "not valid JSON");
    free(header);
}

/* Each either is refused with a sentence or gives arrays inside the bytes. */
static void test_cuts_and_changes(void **state)
{
    size_t size = 8 + strlen(good) + 16, n_good = 0;
    struct tern_safetensors s;

    (void)state;
    for (size_t i = 0; i < size + 64 * size; i++) {
        size_t n = i < size ? i : size;
        uint8_t *bytes = malloc(n + !n);
        enum tern_status st;
        uint8_t whole[512] = { (uint8_t)strlen(good), (uint8_t)(strlen(good) >> 8) };

        memcpy(whole + 8, good, strlen(good));
        if (i >= size)
            whole[i % size] = (uint8_t)(whole[i % size] + 1 + (i - size) / size);
        memcpy(bytes, whole, n);
        st = tern_safetensors_parse("x", bytes, n, &s, &unit_err);
        if (st) {
            assert_true(st >= TERN_ERR_USAGE && unit_err.text[0]);
        } else {
            n_good++;
            for (size_t a = 0; a < s.n; a++)
                assert_true(s.arrays[a].data >= bytes && s.arrays[a].data + s.arrays[a].bytes <= bytes + n);
            tern_safetensors_free(&s);
        }
        free(bytes);
    }
    assert_true(n_good > 64 * 16); /* at least all changes of the data */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_misaligned), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_nests),      cmocka_unit_test(test_cuts_and_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
