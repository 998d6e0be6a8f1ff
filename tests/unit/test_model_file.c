/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model files: split ones, metadata from the command line, and the options about files.
 */
#include "unit/unit.h"

#include "engine/file_option.h"
#include "engine/gguf_write.h"
#include "engine/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tern_split_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void refused(enum tern_status st, enum tern_status want, const char *words)
{
    if (st != want || !strstr(unit_err.text, words) || strchr(unit_err.text, '\n'))
        fail_msg("wanted '%s', got %s: '%s'", words, tern_status_name(st), unit_err.text);
}

/* -- split files --------------------------------------------------------------------------------- */

#define ABSENT UINT32_MAX

/* One part as it is written; numbers that are ABSENT are left out. */
struct part {
    uint32_t no, count, n_tensors;
    const char *names[3]; /* its tensors, of 8 floats each */
};

static const struct part good[3] = { { 0, 3, 4, { "a", NULL, NULL } },
                                     { 1, 3, 4, { "b", "c", NULL } },
                                     { 2, 3, 4, { "d", NULL, NULL } } };

static void path_of(const char *prefix, unsigned no, unsigned count, char out[128])
{
    snprintf(out, 128, "%s/%s-%05u-of-%05u.gguf", folder, prefix, no, count);
}

static void write_part(const char *path, const struct part *p)
{
    struct tern_gguf_writer *w;
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_ok(tern_gguf_writer_new(f, path, 32, &w, &unit_err));
    if (p->no == 0)
        tern_gguf_put_string(w, "general.architecture", "bitnet");
    if (p->no != ABSENT)
        tern_gguf_put_u32(w, "split.no", p->no);
    if (p->count != ABSENT)
        tern_gguf_put_u32(w, "split.count", p->count);
    if (p->n_tensors != ABSENT)
        tern_gguf_put_u32(w, "split.tensors.count", p->n_tensors);
    for (size_t i = 0; i < 3 && p->names[i]; i++)
        tern_gguf_add_tensor(w, p->names[i], 0, 1, (uint64_t[]){ 8 });
    tern_gguf_begin(w);
    for (size_t i = 0; i < 3 && p->names[i]; i++) {
        float x[8];

        for (size_t j = 0; j < 8; j++)
            x[j] = (float)p->names[i][0];
        tern_gguf_write(w, x, sizeof x);
        tern_gguf_end_tensor(w);
    }
    assert_ok(tern_gguf_finish(&w, &unit_err));
    fclose(f);
}

static void write_parts(const struct part parts[3])
{
    char path[128];

    for (unsigned i = 0; i < 3; i++) {
        path_of("m", i + 1, 3, path);
        write_part(path, &parts[i]);
    }
}

static void remove_parts(void)
{
    char path[128];

    for (unsigned i = 0; i < 3; i++) {
        path_of("m", i + 1, 3, path);
        unlink(path);
    }
}

static void test_joins_parts(void **state)
{
    struct tern_gguf *g = NULL;
    struct tern_str arch;
    char path[128];

    (void)state;
    for (int says = 0; says < 2; says++) {
        struct part parts[3];

        memcpy(parts, good, sizeof parts);
        for (int i = 0; i < 3 && !says; i++)
            parts[i].n_tensors = ABSENT;
        write_parts(parts);
        path_of("m", 1, 3, path);
        assert_ok(tern_model_file_open(path, NULL, &g, &unit_err));
        assert_int_equal(g->n_maps, 3);
        assert_int_equal(g->n_tensors, 4);
        assert_int_equal(tern_gguf_file_bytes(g), g->maps[0].size + g->maps[1].size + g->maps[2].size);
        assert_ok(tern_gguf_string(g, "general.architecture", &arch, &unit_err));
        assert_true(tern_str_is(arch, "bitnet"));
        for (int i = 0; i < 4; i++) {
            const char name[2] = { (char)('a' + i), 0 };
            const struct tern_tensor *t = tern_gguf_tensor(g, name);
            float x;

            assert_non_null(t);
            memcpy(&x, t->data + 28, sizeof x);
            assert_true(x == (float)name[0] && t->bytes == 32);
            assert_int_equal(t->map, i == 0 ? 0 : i == 3 ? 2 : 1);
            assert_true(t->data > g->maps[t->map].bytes &&
                        t->data + t->bytes <= g->maps[t->map].bytes + g->maps[t->map].size);
            tern_gguf_release(g, t);
        }
        tern_gguf_release_all(g);
        assert_ok(tern_gguf_check(g, &unit_err));
        tern_gguf_close(&g);
        remove_parts();
    }
}

static void test_split_of_one(void **state)
{
    const struct part one = { 0, 1, 1, { "a" } };
    struct tern_gguf *g = NULL;
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/any.gguf", folder);
    write_part(path, &one);
    assert_ok(tern_model_file_open(path, NULL, &g, &unit_err));
    assert_int_equal(g->n_tensors, 1);
    tern_gguf_close(&g);
    unlink(path);
}

static void test_parts_that_do_not_agree(void **state)
{
    static const struct {
        int which;
        struct part part;
        enum tern_status status;
        const char *words;
    } cases[] = {
        { 1, { 2, 3, 4, { "b", "c" } }, TERN_ERR_FORMAT, "-00002-of-00003.gguf: should be part 2 of 3" },
        { 1, { 1, 2, 4, { "b", "c" } }, TERN_ERR_FORMAT, "should be part 2 of 3" },
        { 1, { 1, ABSENT, 4, { "b", "c" } }, TERN_ERR_FORMAT, "should be part 2 of 3" },
        { 1, { ABSENT, 3, 4, { "b", "c" } }, TERN_ERR_FORMAT, "should be part 2 of 3" },
        { 2, { 2, 3, 5, { "d" } }, TERN_ERR_FORMAT, "not of one model" },
        { 2, { 2, 3, ABSENT, { "d" } }, TERN_ERR_FORMAT, "not of one model" },
        { 2, { 2, 3, 4, { "d", "e" } }, TERN_ERR_FORMAT, "have 5 tensors and should have 4" },
        { 2, { 2, 3, 4, { NULL } }, TERN_ERR_FORMAT, "have 3 tensors and should have 4" },
        { 2, { 2, 3, 4, { "a" } }, TERN_ERR_FORMAT, "two tensors 'a'" },
        { 0, { 3, 3, 4, { "a" } }, TERN_ERR_FORMAT, "part 4 of 3" },
        { 0, { 0, 60000, 4, { "a" } }, TERN_ERR_LIMIT, "60000 parts" },
        { 0, { 0, 4, 4, { "a" } }, TERN_ERR_USAGE, "-00001-of-00004.gguf" },
        { 0, { 1, 3, 4, { "a" } }, TERN_ERR_USAGE, "give the first one" },
    };
    struct tern_gguf *g = NULL;
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct part parts[3];

        memcpy(parts, good, sizeof parts);
        parts[cases[i].which] = cases[i].part;
        write_parts(parts);
        path_of("m", 1, 3, path);
        refused(tern_model_file_open(path, NULL, &g, &unit_err), cases[i].status, cases[i].words);
        assert_null(g);
    }
    write_parts(good);
    path_of("m", 2, 3, path);
    refused(tern_model_file_open(path, NULL, &g, &unit_err), TERN_ERR_USAGE, "is part 2 of 3");
    assert_null(g);
    remove_parts();
}

static void test_parts_missing_or_damaged(void **state)
{
    struct tern_gguf *g = NULL;
    char first[128], path[128];

    (void)state;
    path_of("m", 1, 3, first);
    for (unsigned no = 2; no <= 3; no++) {
        char words[32];

        write_parts(good);
        path_of("m", no, 3, path);
        snprintf(words, sizeof words, "m-%05u-of-00003.gguf", no);
        assert_int_equal(truncate(path, 100), 0);
        refused(tern_model_file_open(first, NULL, &g, &unit_err), TERN_ERR_FORMAT, words);
        unlink(path);
        refused(tern_model_file_open(first, NULL, &g, &unit_err), TERN_ERR_IO, words);
        assert_null(g);
    }
    remove_parts();
}

/* -- overrides ----------------------------------------------------------------------------------- */

static struct tern_gguf *with_overrides(const char *const *texts, uint32_t n)
{
    static uint8_t bytes[4096] __attribute__((aligned(8)));
    struct tern_file_options o = { .n_overrides = n };
    struct tern_gguf_writer *w;
    struct tern_gguf *g = NULL;
    FILE *f = fmemopen(bytes, sizeof bytes, "wb");

    assert_ok(tern_gguf_writer_new(f, "test", 32, &w, &unit_err));
    tern_gguf_put_string(w, "general.architecture", "llama");
    tern_gguf_put_u32(w, "llama.block_count", 2);
    tern_gguf_put_i32s(w, "list", (int32_t[]){ 1, 2 }, 2);
    tern_gguf_begin(w);
    assert_ok(tern_gguf_finish(&w, &unit_err));
    fclose(f);
    assert_ok(tern_gguf_parse("test.gguf", bytes, sizeof bytes, &g, &unit_err));
    memcpy(o.overrides, texts, n * sizeof *texts);
    assert_ok(tern_model_file_set_options(g, &o, &unit_err));
    return g;
}

static void test_overrides(void **state)
{
    static const char *const texts[] = { "general.architecture=str:bitnet-b1.58",
                                         "llama.block_count=int:-7",
                                         "llama.rope.freq_base=float:5e5",
                                         "flag=bool:true",
                                         "empty=str:",
                                         "odd=str:a=b:c",
                                         "list=int:9223372036854775807",
                                         "flag=bool:false" };
    struct tern_gguf *g = with_overrides(texts, 8);
    struct tern_str s;
    uint64_t u;
    double d;
    bool b = true;

    (void)state;
    assert_int_equal(g->n_kv, 3 + 4);
    assert_ok(tern_gguf_string(g, "general.architecture", &s, &unit_err));
    assert_true(tern_str_is(s, "bitnet-b1.58"));
    assert_ok(tern_gguf_f64(g, "llama.block_count", &d, &unit_err));
    assert_true(d == -7);
    refused(tern_gguf_u64(g, "llama.block_count", &u, &unit_err), TERN_ERR_FORMAT, "negative");
    assert_ok(tern_gguf_f64(g, "llama.rope.freq_base", &d, &unit_err));
    assert_true(d == 5e5);
    assert_ok(tern_gguf_bool(g, "flag", &b, &unit_err));
    assert_false(b);
    assert_ok(tern_gguf_string(g, "empty", &s, &unit_err));
    assert_int_equal(s.len, 0);
    assert_ok(tern_gguf_string(g, "odd", &s, &unit_err));
    assert_true(tern_str_is(s, "a=b:c"));
    assert_ok(tern_gguf_u64(g, "list", &u, &unit_err));
    assert_true(u == INT64_MAX);
    /* Options that are set again come on top. */
    assert_ok(tern_model_file_set_options(
        g, &(struct tern_file_options){ .overrides = { "flag=bool:true" }, .n_overrides = 1 }, &unit_err));
    assert_ok(tern_gguf_bool(g, "flag", &b, &unit_err));
    assert_true(b && g->n_kv == 7);
    tern_gguf_close(&g);
}

static void test_wrong_overrides(void **state)
{
    static const char *const texts[] = {
        "",
        "key",
        "key=",
        "=int:1",
        "key=int",
        "key=int:",
        "key=int:x",
        "k=int:-",
        "k=int:1.5",
        "k=int: 1",
        "k=int:+1",
        "k=INT:1",
        "k=int:99999999999999999999",
        "k=float:",
        "k=float:x",
        "k=float:1x",
        "k=float:inf",
        "k=float:nan",
        "k=float: 1",
        "k=bool:1",
        "k=bool:",
        "k=bool:True",
        "k=arr:1",
        "k=u32:1",
        "k:int:1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct tern_file_options o = { 0 };

        refused(tern_file_option(&o, TERN_FILE_OPT_OVERRIDE, texts[i], &unit_err), TERN_ERR_USAGE,
                "--override-kv");
        assert_int_equal(o.n_overrides, 0);
    }
}

/* -- options ------------------------------------------------------------------------------------- */

static void test_tl_tiles(void **state)
{
    static const char *const wrong[] = { "",
                                         "1x2",
                                         "1x2=3,4",
                                         "1x2=3,4,5,6",
                                         "1x2=3,4,5:",
                                         "0x2=3,4,5",
                                         "1x2=3,4,-5",
                                         "1x2=3, 4,5",
                                         "1X2=3,4,5",
                                         "4294967296x2=3,4,5",
                                         "99999999999999999999x2=3,4,5",
                                         "1x2=3,4,5;1x2=3,4,5" };
    struct tern_file_options o = { 0 }, kept;
    const char *words[TERN_FILE_WORDS];
    struct tern_file_options again = { 0 };
    char many[1000] = "1x1=1,1,1";

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        refused(tern_file_option(&o, TERN_FILE_OPT_TL_TILES, wrong[i], &unit_err), TERN_ERR_USAGE,
                "--tl-tiles");
        assert_int_equal(o.n_tl_tiles + o.n_tl_words, 0);
    }
    assert_ok(
        tern_file_option(&o, TERN_FILE_OPT_TL_TILES, "1536x4096=256,128,32:4294967295x2=3,4,5", &unit_err));
    assert_ok(tern_file_option(&o, TERN_FILE_OPT_TL_TILES, "7x8=9,10,11", &unit_err));
    assert_ok(tern_file_option(&o, TERN_FILE_OPT_I2S, "C", &unit_err));
    assert_ok(tern_file_option(&o, TERN_FILE_OPT_OVERRIDE, "a=int:1", &unit_err));
    assert_false(o.quantize);
    assert_ok(tern_file_option(&o, TERN_FILE_OPT_QUANTIZE, NULL, &unit_err));
    assert_true(o.quantize);
    assert_int_equal(o.n_tl_tiles, 3);
    assert_true(o.tl_tiles[0].m == 1536 && o.tl_tiles[0].k == 4096 && o.tl_tiles[0].bm == 256 &&
                o.tl_tiles[0].by == 128 && o.tl_tiles[0].strip == 32);
    assert_true(o.tl_tiles[1].m == UINT32_MAX && o.tl_tiles[2].strip == 11);
    /* A child that gets the words has the same options. */
    assert_int_equal(tern_file_option_words(&o, words), 9);
    for (size_t i = 0; i < 8; i += 2) {
        int c = !strcmp(words[i], "--i2s-layout") ? TERN_FILE_OPT_I2S
                : !strcmp(words[i], "--tl-tiles") ? TERN_FILE_OPT_TL_TILES
                                                  : TERN_FILE_OPT_OVERRIDE;

        assert_ok(tern_file_option(&again, c, words[i + 1], &unit_err));
    }
    assert_string_equal(words[8], "--quantize");
    assert_ok(tern_file_option(&again, TERN_FILE_OPT_QUANTIZE, NULL, &unit_err));
    assert_memory_equal(&again, &o, sizeof o);
    for (int i = 1; i < 14; i++)
        strcat(many, ":1x1=1,1,1");
    kept = o;
    refused(tern_file_option(&o, TERN_FILE_OPT_TL_TILES, many, &unit_err), TERN_ERR_LIMIT, "at most 16");
    assert_memory_equal(&kept, &o, sizeof o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joins_parts),
        cmocka_unit_test(test_split_of_one),
        cmocka_unit_test(test_parts_that_do_not_agree),
        cmocka_unit_test(test_parts_missing_or_damaged),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_wrong_overrides),
        cmocka_unit_test(test_tl_tiles),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
