/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF reader: a small file by hand, then the same file with one thing wrong at a time, then the real
 * model.
 */
#include "unit/unit.h"

#include "engine/base/limits.h"
#include "engine/gguf.h"

#include <stdlib.h>
#include <string.h>

/* A file under construction; copied to a heap block of its exact size before it is parsed. */
struct build {
    uint8_t at[65536];
    size_t n;
};

static void u32(struct build *b, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        b->at[b->n++] = (uint8_t)(v >> 8 * i);
}

static void u64(struct build *b, uint64_t v)
{
    u32(b, (uint32_t)v);
    u32(b, (uint32_t)(v >> 32));
}

static void str(struct build *b, const char *s)
{
    u64(b, strlen(s));
    memcpy(b->at + b->n, s, strlen(s));
    b->n += strlen(s);
}

static void key(struct build *b, const char *name, uint32_t type)
{
    str(b, name);
    u32(b, type);
}

static void header(struct build *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    b->n = 0;
    memcpy(b->at, "GGUF", 4);
    b->n = 4;
    u32(b, version);
    u64(b, n_tensors);
    u64(b, n_kv);
}

static void tensor(struct build *b, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                   uint64_t offset)
{
    str(b, name);
    u32(b, 2);
    u64(b, ne0);
    u64(b, ne1);
    u32(b, type);
    u64(b, offset);
}

static void pad(struct build *b, size_t to)
{
    while (b->n % to)
        b->at[b->n++] = 0;
}

static void data(struct build *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        b->at[b->n++] = (uint8_t)i;
}

/* The parsed file keeps *heap, which the caller frees after closing it. */
static enum tern_status parse(const struct build *b, struct tern_gguf **g, uint8_t **heap)
{
    *g = NULL;
    *heap = malloc(b->n ? b->n : 1);
    memcpy(*heap, b->at, b->n);
    return tern_gguf_parse("test.gguf", *heap, b->n, g, &unit_err);
}

static void refuse(const struct build *b, enum tern_status status, const char *words)
{
    struct tern_gguf *g;
    uint8_t *heap;

    memset(&unit_err, 0, sizeof unit_err);
    assert_int_equal(parse(b, &g, &heap), status);
    assert_null(g);
    assert_non_null(strstr(unit_err.text, "test.gguf"));
    if (!strstr(unit_err.text, words))
        fail_msg("'%s' does not say '%s'", unit_err.text, words);
    free(heap);
}

/* Every value type once, two tensors. */
static void whole(struct build *b, uint32_t version)
{
    header(b, version, 2, 16);
    key(b, "u8", TERN_GGUF_U8), b->at[b->n++] = 200;
    key(b, "i8", TERN_GGUF_I8), b->at[b->n++] = 0x80;
    key(b, "u16", TERN_GGUF_U16), b->at[b->n++] = 1, b->at[b->n++] = 0xff;
    key(b, "i16", TERN_GGUF_I16), b->at[b->n++] = 0xfe, b->at[b->n++] = 0xff;
    key(b, "u32", TERN_GGUF_U32), u32(b, 4000000000u);
    key(b, "i32", TERN_GGUF_I32), u32(b, (uint32_t)-5);
    key(b, "f32", TERN_GGUF_F32), u32(b, 0x3fc00000);
    key(b, "bool", TERN_GGUF_BOOL), b->at[b->n++] = 1;
    key(b, "string", TERN_GGUF_STRING), str(b, "hello");
    key(b, "u64", TERN_GGUF_U64), u64(b, UINT64_MAX);
    key(b, "i64", TERN_GGUF_I64), u64(b, (uint64_t)-7);
    key(b, "f64", TERN_GGUF_F64), u64(b, 0x4004000000000000u);
    key(b, "strings", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_STRING), u64(b, 3), str(b, "a"), str(b, ""),
        str(b, "ccc");
    key(b, "ints", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_I16), u64(b, 2), u32(b, 0xfffe0003);
    key(b, "floats", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_F32), u64(b, 1), u32(b, 0xbf800000);
    key(b, "empty", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_U32), u64(b, 0);
    tensor(b, "b.weight", 0, 4, 2, 0);
    tensor(b, "a.weight", 36, 128, 2, 32);
    pad(b, 32);
    data(b, 32 + 96);
}

static void test_reads_every_type(void **state)
{
    static const struct {
        const char *key;
        double v;
    } numbers[] = { { "u8", 200 },  { "i8", -128 }, { "u16", 65281 }, { "i16", -2 },
                    { "u32", 4e9 }, { "i32", -5 },  { "f32", 1.5 },   { "u64", 18446744073709551615.0 },
                    { "i64", -7 },  { "f64", 2.5 } };
    struct build *b = malloc(sizeof *b);
    struct tern_gguf *g;
    uint8_t *heap;

    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct tern_str s;
        struct tern_cursor c;
        double v;
        uint64_t u;
        bool flag = false;

        whole(b, version);
        assert_ok(parse(b, &g, &heap));
        assert_int_equal(g->version, version);
        assert_int_equal(g->n_kv, 16);
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            assert_ok(tern_gguf_f64(g, numbers[i].key, &v, &unit_err));
            assert_true(v == numbers[i].v);
        }
        assert_ok(tern_gguf_u64(g, "u64", &u, &unit_err));
        assert_true(u == UINT64_MAX);
        assert_ok(tern_gguf_u64(g, "u8", &u, &unit_err));
        assert_int_equal(u, 200);
        assert_int_equal(tern_gguf_u64(g, "i8", &u, &unit_err), TERN_ERR_FORMAT);  /* negative */
        assert_int_equal(tern_gguf_u64(g, "f32", &u, &unit_err), TERN_ERR_FORMAT); /* no integer */
        assert_int_equal(tern_gguf_u64(g, "none", &u, &unit_err), TERN_END);
        assert_ok(tern_gguf_bool(g, "bool", &flag, &unit_err));
        assert_true(flag);
        assert_int_equal(tern_gguf_bool(g, "u8", &flag, &unit_err), TERN_ERR_FORMAT);
        assert_ok(tern_gguf_string(g, "string", &s, &unit_err));
        assert_true(tern_str_is(s, "hello"));
        assert_int_equal(tern_gguf_string(g, "strings", &s, &unit_err), TERN_ERR_FORMAT);

        tern_cursor_init(&c, tern_gguf_find(g, "strings")->data, tern_gguf_find(g, "strings")->bytes);
        assert_true(tern_gguf_next_string(&c, &s) && tern_str_is(s, "a"));
        assert_true(tern_gguf_next_string(&c, &s) && tern_str_is(s, ""));
        assert_true(tern_gguf_next_string(&c, &s) && tern_str_is(s, "ccc"));
        assert_false(tern_gguf_next_string(&c, &s));
        assert_int_equal(tern_gguf_array_i64(tern_gguf_find(g, "ints"), 0), 3);
        assert_int_equal(tern_gguf_array_i64(tern_gguf_find(g, "ints"), 1), -2);
        assert_true(tern_gguf_array_f64(tern_gguf_find(g, "floats"), 0) == -1.0);
        assert_int_equal(tern_gguf_find(g, "empty")->n, 0);
        tern_gguf_close(&g);
        assert_null(g);
        free(heap);
    }
    free(b);
}

static void test_finds_tensors(void **state)
{
    struct build *b = malloc(sizeof *b);
    struct tern_gguf *g;
    const struct tern_tensor *t;
    uint8_t *heap;

    (void)state;
    whole(b, 3);
    assert_ok(parse(b, &g, &heap));
    t = tern_gguf_tensor(g, "a.weight");
    assert_non_null(t);
    assert_int_equal(t->bytes, 128 * 2 / 4 + 32);
    assert_ptr_equal(t->data + t->bytes, heap + b->n);
    assert_int_equal(t->ne[2] * t->ne[3], 1);
    t = tern_gguf_tensor(g, "b.weight");
    assert_int_equal(t->bytes, 32);
    assert_int_equal((size_t)(t->data - heap) % 32, 0);
    assert_null(tern_gguf_tensor(g, "a.weigh"));
    assert_null(tern_gguf_tensor(g, "a.weightt"));
    tern_gguf_close(&g);
    free(heap);
    free(b);
}

/* Cut anywhere, the file is refused with a sentence: no byte of it is superfluous. */
static void test_every_truncation(void **state)
{
    struct build *b = malloc(sizeof *b);
    size_t n;

    (void)state;
    whole(b, 3);
    n = b->n;
    for (b->n = 0; b->n < n; b->n++)
        refuse(b, TERN_ERR_FORMAT, b->n < 4 ? "not a GGUF file" : "get a whole copy");
    free(b);
}

static void test_headers(void **state)
{
    struct build *b = malloc(sizeof *b);

    (void)state;
    header(b, 1, 0, 0);
    refuse(b, TERN_ERR_UNSUPPORTED, "version 1");
    header(b, 4, 0, 0);
    refuse(b, TERN_ERR_UNSUPPORTED, "version 4");
    header(b, 0x03000000, 0, 0);
    refuse(b, TERN_ERR_UNSUPPORTED, "big-endian");
    header(b, 3, 0, 0);
    b->at[0] = 'X';
    refuse(b, TERN_ERR_FORMAT, "not a GGUF file");
    header(b, 3, 0, UINT64_MAX);
    refuse(b, TERN_ERR_LIMIT, "metadata keys");
    header(b, 3, 0, 60000); /* below the limit, but not in so few bytes */
    refuse(b, TERN_ERR_FORMAT, "get a whole copy");
    header(b, 3, UINT64_MAX, 0);
    refuse(b, TERN_ERR_LIMIT, "tensors");
    header(b, 3, 60000, 0);
    refuse(b, TERN_ERR_FORMAT, "get a whole copy");
    free(b);
}

static void test_metadata_refusals(void **state)
{
    struct build *b = malloc(sizeof *b);

    (void)state;
    header(b, 3, 0, 2);
    key(b, "twin", TERN_GGUF_U32), u32(b, 1);
    key(b, "twin", TERN_GGUF_U32), u32(b, 2);
    refuse(b, TERN_ERR_FORMAT, "'twin' appears twice");

    header(b, 3, 0, 1);
    key(b, "odd", 13), u64(b, 0);
    refuse(b, TERN_ERR_FORMAT, "unknown type 13");

    header(b, 3, 0, 1);
    key(b, "nested", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_ARRAY), u64(b, 0), u64(b, 0);
    refuse(b, TERN_ERR_FORMAT, "array of type 9");

    header(b, 3, 0, 1);
    key(b, "long", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_U64),
        u64(b, UINT64_MAX / 8 + 2); /* times 8 wraps to 8 */
    u64(b, 0);
    refuse(b, TERN_ERR_FORMAT, "get a whole copy");

    header(b, 3, 0, 1);
    key(b, "many", TERN_GGUF_ARRAY), u32(b, TERN_GGUF_STRING), u64(b, UINT64_MAX), u64(b, 0);
    refuse(b, TERN_ERR_FORMAT, "get a whole copy");

    header(b, 3, 0, 1);
    u64(b, UINT64_MAX), u64(b, 0), u64(b, 0);
    refuse(b, TERN_ERR_FORMAT, "get a whole copy");

    header(b, 3, 0, 1);
    key(b, "", TERN_GGUF_U32), u32(b, 1);
    refuse(b, TERN_ERR_FORMAT, "key of 0 bytes");

    for (uint32_t i = 0; i < 4; i++) {
        static const uint32_t wrong[] = { 0, 1, 24, 0x80000001u };

        header(b, 3, 0, 1);
        key(b, "general.alignment", TERN_GGUF_U32), u32(b, wrong[i]);
        refuse(b, TERN_ERR_FORMAT, "power of two");
    }
    header(b, 3, 0, 1);
    key(b, "general.alignment", TERN_GGUF_STRING), str(b, "32");
    refuse(b, TERN_ERR_FORMAT, "general.alignment");
    free(b);
}

/* One tensor, alone or beside a sound one, that cannot stand. */
static void test_tensor_refusals(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t ne0, ne1, offset;
        enum tern_status status;
        const char *words;
    } cases[] = {
        { 0, 8, 4, 0, TERN_ERR_FORMAT, "overlap" },
        { 0, 8, 1, 16, TERN_ERR_FORMAT, "no multiple of 32" },
        { 0, 8, 1, 1u << 20, TERN_ERR_FORMAT, "behind the file's end" },
        { 0, 8, 1, UINT64_MAX - 31, TERN_ERR_FORMAT, "behind the file's end" },
        { 0, 1u << 20, 1, 32, TERN_ERR_FORMAT, "behind the file's end" },
        { 0, 0, 1, 32, TERN_ERR_FORMAT, "dimension of 0" },
        { 0, UINT64_MAX, 2, 32, TERN_ERR_FORMAT, "shape" },
        { 0, 1u << 31, 1ull << 31, 32, TERN_ERR_FORMAT, "shape" },
        { 8, 33, 1, 32, TERN_ERR_FORMAT, "shape" },
        { 36, 3, 3, 32, TERN_ERR_FORMAT, "shape" },
        { 36, 1ull << 33, 1ull << 33, 32, TERN_ERR_FORMAT, "shape" },
        { 4, 32, 1, 32, TERN_ERR_UNSUPPORTED, "type id 4" },
        { 77, 32, 1, 32, TERN_ERR_UNSUPPORTED, "type id 77" },
        { UINT32_MAX, 32, 1, 32, TERN_ERR_UNSUPPORTED, "type id 4294967295" },
        { 38, 3, 3, 32, TERN_ERR_FORMAT, "in type TL1" },
        { 39, 128, 16, 32, TERN_ERR_FORMAT, "in type TL2" },
        { 39, 256, 3, 32, TERN_ERR_FORMAT, "in type TL2" },
        { 39, 1ull << 33, 1ull << 33, 32, TERN_ERR_FORMAT, "in type TL2" },
        { 1000, 128, 16, 32, TERN_ERR_UNSUPPORTED, "HF packed" },
    };
    struct build *b = malloc(sizeof *b);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        header(b, 3, 2, 0);
        tensor(b, "sound", 0, 8, 1, 0);
        tensor(b, "case", cases[i].type, cases[i].ne0, cases[i].ne1, cases[i].offset);
        pad(b, 32);
        data(b, 256);
        refuse(b, cases[i].status, cases[i].words);
        assert_non_null(strstr(unit_err.text, "case"));
    }
    header(b, 3, 2, 0);
    tensor(b, "twin", 0, 8, 1, 0);
    tensor(b, "twin", 0, 8, 1, 32);
    pad(b, 32);
    data(b, 64);
    refuse(b, TERN_ERR_FORMAT, "'twin' appears twice");

    for (uint32_t dims = 0; dims < 7; dims += 5) { /* 0 and 5 */
        header(b, 3, 1, 0);
        str(b, "odd"), u32(b, dims);
        for (int d = 0; d < 5; d++)
            u64(b, 1);
        u32(b, 0), u64(b, 0), u64(b, 0);
        refuse(b, TERN_ERR_FORMAT, "dimensions");
    }
    free(b);
}

static void test_tensor_names(void **state)
{
    struct build *b = malloc(sizeof *b);
    char name[TERN_MAX_TENSOR_NAME + 2];
    struct tern_gguf *g;
    uint8_t *heap;

    (void)state;
    memset(name, 'n', sizeof name);
    for (size_t n = TERN_MAX_TENSOR_NAME; n <= TERN_MAX_TENSOR_NAME + 1; n++) {
        name[n] = '\0';
        header(b, 3, 1, 0);
        tensor(b, name, 0, 8, 1, 0);
        pad(b, 32);
        data(b, 32);
        if (n <= TERN_MAX_TENSOR_NAME) {
            assert_ok(parse(b, &g, &heap));
            assert_non_null(tern_gguf_tensor(g, name));
            tern_gguf_close(&g);
            free(heap);
            name[n] = 'n';
        } else {
            refuse(b, TERN_ERR_FORMAT, "256 bytes");
        }
    }
    free(b);
}

/* One id, two types: who made the file, and of what, says which. */
static void test_tells_mxfp4_from_tl2(void **state)
{
    static const struct {
        const char *arch;
        int file_type; /* 0: not in the file */
        bool mxfp4;
    } cases[] = {
        { "llama", 39, false },        { "llama", 0, false }, { "bitnet", 1, false },
        { "bitnet-b1.58", 38, false }, { NULL, 0, false },    { NULL, 39, false },
        { "llama", 38, true },         { "llama", 7, true },  { "gpt-oss", 0, true },
        { "gpt-oss", 38, true },       { NULL, 38, true },
    };
    struct build *b = malloc(sizeof *b);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tern_gguf *g;
        uint8_t *heap;

        header(b, 3, 1, (cases[i].arch != NULL) + (cases[i].file_type != 0));
        if (cases[i].arch)
            str(b, "general.architecture"), u32(b, TERN_GGUF_STRING), str(b, cases[i].arch);
        if (cases[i].file_type)
            str(b, "general.file_type"), u32(b, TERN_GGUF_U32), u32(b, (uint32_t)cases[i].file_type);
        tensor(b, "case", 39, 256, 32, 0);
        pad(b, 32);
        data(b, 4352); /* 256 * 32 / 32 blocks of 17 bytes; TL2 has 2080 */
        if (cases[i].mxfp4) {
            refuse(b, TERN_ERR_UNSUPPORTED, "MXFP4");
            continue;
        }
        assert_ok(parse(b, &g, &heap));
        assert_int_equal(g->tensors[0].bytes, 2080);
        tern_gguf_close(&g);
        free(heap);
    }
    free(b);
}

static void test_sizes(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t ne[4];
        size_t bytes;
    } cases[] = {
        { 0, { 3, 5, 1, 1 }, 60 },
        { 1, { 3, 5, 2, 2 }, 120 },
        { 2, { 64, 3, 1, 1 }, 108 },
        { 8, { 64, 3, 1, 1 }, 204 },
        { 12, { 512, 2, 1, 1 }, 576 },
        { 14, { 256, 2, 1, 1 }, 420 },
        { 30, { 7, 1, 1, 1 }, 14 },
        { 34, { 256, 3, 1, 1 }, 162 },
        { 35, { 256, 3, 1, 1 }, 198 },
        { 36, { 2560, 640, 1, 1 }, 409632 },
        { 38, { 8640, 3200, 1, 1 }, 6912032 },
        { 39, { 8640, 3200, 1, 1 }, 5794176 },
    };
    const uint64_t stacked[4] = { 128, 2, 2, 1 };
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(tern_gguf_tensor_bytes(cases[i].type, cases[i].ne, &n));
        assert_int_equal(n, cases[i].bytes);
        assert_non_null(tern_gguf_type_name(cases[i].type));
    }
    for (uint32_t type = 36; type < 40; type++)
        assert_false(tern_gguf_tensor_bytes(type, stacked, &n));
    assert_false(tern_gguf_tensor_bytes(1000, cases[0].ne, &n));
    assert_string_equal(tern_gguf_type_name(1000), "HF packed");
    assert_null(tern_gguf_type_name(5));
    assert_string_equal(tern_gguf_type_name(36), "I2_S");
}

static void test_opens_fable(void **state)
{
    struct tern_gguf *g;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_int_equal(g->n_tensors, 2 + 6 * 11);
    assert_non_null(tern_gguf_tensor(g, "blk.5.ffn_down.weight"));
    for (size_t i = 1; i < g->n_tensors; i++) {
        struct tern_str a = g->tensors[g->by_name[i - 1]].name, b = g->tensors[g->by_name[i]].name;

        assert_true(memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len) <= 0);
    }
    tern_gguf_close(&g);
}

static void test_refuses_what_is_no_file(void **state)
{
    struct tern_gguf *g = NULL;
    char path[1200];

    (void)state;
    assert_int_equal(tern_gguf_open("/nonexistent/model.gguf", &g, &unit_err), TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, "/nonexistent/model.gguf"));
    assert_int_equal(tern_gguf_open(TERN_SOURCE_DIR, &g, &unit_err), TERN_ERR_USAGE);
    assert_non_null(strstr(unit_err.text, "directory"));
    assert_int_equal(tern_gguf_open("/dev/null", &g, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(tern_gguf_open(TERN_SOURCE_DIR "/README.md", &g, &unit_err), TERN_ERR_FORMAT);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(tern_gguf_open(path, &g, &unit_err), TERN_ERR_IO);
    assert_null(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_type),
        cmocka_unit_test(test_finds_tensors),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_metadata_refusals),
        cmocka_unit_test(test_tensor_refusals),
        cmocka_unit_test(test_tensor_names),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_tells_mxfp4_from_tl2),
        cmocka_unit_test(test_opens_fable),
        cmocka_unit_test(test_refuses_what_is_no_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
