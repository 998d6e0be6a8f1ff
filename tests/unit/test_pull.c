/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tern pull's names, folders and choice of files, without a server.
 */
#include "unit/unit.h"

#include "coordinator/pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_spec(void **state)
{
    struct pull_spec s, before;
    static const char *const bad[] = {
        "",      ":f",      "@r",       "a/b@",       "a/b:",     "a//b", "/a",
        "a/",    "a/b/c",   "..",       "a/..",       "a b",      "a/.b", "a/b:../x",
        "a/b:/", "a/b@x y", "a/b@../x", "a/b:x/../y", "a/b:x//y", "a%2f", "https://huggingface.co/a/b"
    };

    (void)state;
    assert_ok(pull_spec_parse("org/name", NULL, &s, &unit_err));
    assert_string_equal(s.repo, "org/name");
    assert_string_equal(s.revision, "main");
    assert_string_equal(s.file, "");
    assert_ok(pull_spec_parse("o/n@refs/pr/3:dir/a@b:c.gguf", NULL, &s, &unit_err));
    assert_string_equal(s.repo, "o/n");
    assert_string_equal(s.revision, "refs/pr/3");
    assert_string_equal(s.file, "dir/a@b:c.gguf");
    assert_ok(pull_spec_parse("o/n:f@g", "v1", &s, &unit_err));
    assert_string_equal(s.revision, "v1");
    assert_string_equal(s.file, "f@g");
    before = s;
    assert_int_equal(pull_spec_parse("o/n@a", "b", &s, &unit_err), TERN_ERR_USAGE);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (pull_spec_parse(bad[i], NULL, &s, &unit_err) != TERN_ERR_USAGE)
            fail_msg("'%s' is taken", bad[i]);
    assert_memory_equal(&before, &s, sizeof s);
}

static void test_paths(void **state)
{
    char longest[PULL_MAX_PATH + 2];
    static const char *const good[] = { "a", "a.b", "a/b/c", "a b", "-x", "\xc3\xa9", "a..b" };
    static const char *const bad[] = { "",     "/",      "/a",   "a/",   "a//b", ".",    "..",     ".a",
                                       "a/..", "a/../b", "a/.b", "a\\b", "a\nb", "\x7f", "\x1b[0m" };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(pull_path_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (pull_path_ok(bad[i]))
            fail_msg("'%s' is taken", bad[i]);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    for (size_t i = 100; i < sizeof longest - 1; i += 101)
        longest[i] = '/';
    assert_false(pull_path_ok(longest));
    longest[PULL_MAX_PATH] = '\0';
    assert_true(pull_path_ok(longest));
    longest[100] = longest[201] = 'x'; /* 302 bytes without a slash */
    assert_false(pull_path_ok(longest));
}

static void test_folder(void **state)
{
    struct pull_spec s;
    char out[PATH_MAX], tight[24] = "x";

    (void)state;
    assert_ok(pull_spec_parse("o/n@refs/pr/3", NULL, &s, &unit_err));
    setenv("TERN_MODELS", "/m", 1);
    assert_ok(pull_folder(&s, out, sizeof out, &unit_err));
    assert_string_equal(out, "/m/o/n@refs+pr+3");
    assert_ok(pull_spec_parse("o/n", NULL, &s, &unit_err));
    unsetenv("TERN_MODELS");
    setenv("XDG_DATA_HOME", "relative", 1);
    setenv("HOME", "/h", 1);
    assert_ok(pull_folder(&s, out, sizeof out, &unit_err));
    assert_string_equal(out, "/h/.local/share/tern/models/o/n");
    assert_int_equal(pull_folder(&s, tight, sizeof tight, &unit_err), TERN_ERR_LIMIT);
    setenv("XDG_DATA_HOME", "/d", 1);
    assert_ok(pull_folder(&s, out, sizeof out, &unit_err));
    assert_string_equal(out, "/d/tern/models/o/n");
    unsetenv("XDG_DATA_HOME");
    unsetenv("HOME");
    assert_int_equal(pull_folder(&s, out, sizeof out, &unit_err), TERN_ERR_USAGE);
}

static void test_escape(void **state)
{
    char out[16];

    (void)state;
    assert_true(pull_escape("a/b c%", true, out, sizeof out));
    assert_string_equal(out, "a/b%20c%25");
    assert_true(pull_escape("a/b?", false, out, sizeof out));
    assert_string_equal(out, "a%2Fb%3F");
    assert_true(pull_escape("", false, out, 1));
    assert_false(pull_escape("abcdefghijklmnop", false, out, sizeof out));
}

static struct pull_list l;

/* Parses a listing of these names, parted by spaces, and chooses; "" when that is refused. */
static const char *chosen(const char *names, const char *spec_text, const char **main)
{
    static char out[512], json[2048], copy[512];
    struct pull_spec spec;
    size_t n = 0, at = 0, model = 0;

    pull_list_fini(&l);
    snprintf(copy, sizeof copy, "%s", names);
    n += (size_t)snprintf(json, sizeof json, "{\"siblings\":[");
    for (char *w = strtok(copy, " "), *comma = ""; w; w = strtok(NULL, " "), comma = ",")
        n += (size_t)snprintf(json + n, sizeof json - n, "%s{\"rfilename\":\"%s\",\"size\":1}", comma, w);
    n += (size_t)snprintf(json + n, sizeof json - n, "]}");
    assert_ok(pull_list_parse(json, n, &l, &unit_err));
    assert_ok(pull_spec_parse(spec_text, NULL, &spec, &unit_err));
    out[0] = '\0';
    *main = "";
    if (pull_list_choose(&l, &spec, &model, &unit_err))
        return out;
    for (size_t i = 0; i < l.n; i++)
        if (l.entries[i].chosen)
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", at ? " " : "", l.entries[i].path);
    *main = model == SIZE_MAX ? "folder" : l.entries[model].path;
    return out;
}

static void test_choice(void **state)
{
    static const struct {
        const char *names, *spec, *chosen, *main;
    } cases[] = {
        { "README.md m.gguf", "o/n", "m.gguf", "m.gguf" },
        { "a.gguf mmproj-a.gguf", "o/n", "a.gguf", "a.gguf" },
        { "a-q4.gguf ggml-model-I2_S.gguf", "o/n", "ggml-model-I2_S.gguf", "ggml-model-I2_S.gguf" },
        { "a.gguf b.gguf", "o/n", "", "" },
        { "a-i2_s.gguf b-i2_s.gguf", "o/n", "", "" },
        { "a.gguf b.gguf", "o/n:b.gguf", "b.gguf", "b.gguf" },
        { "a.gguf b.gguf", "o/n:?.gguf", "a.gguf b.gguf", "folder" },
        { "m-00002-of-00002.gguf m-00001-of-00002.gguf", "o/n", "m-00002-of-00002.gguf m-00001-of-00002.gguf",
          "m-00001-of-00002.gguf" },
        { "m-00001-of-00002.gguf m-00002-of-00002.gguf n-00001-of-00002.gguf", "o/n:m-00002-of-00002.gguf",
          "m-00001-of-00002.gguf m-00002-of-00002.gguf", "m-00001-of-00002.gguf" },
        { "m-00001-of-00002.gguf m-00002-of-00002.gguf m-00001-of-00003.gguf", "o/n", "", "" },
        { "config.json model.safetensors x.bin tokenizer.model original/model.safetensors", "o/n",
          "config.json model.safetensors tokenizer.model", "folder" },
        { "config.json consolidated.safetensors model.safetensors", "o/n", "config.json model.safetensors",
          "folder" },
        { "a.gguf b.gguf config.json model.safetensors", "o/n", "config.json model.safetensors", "folder" },
        { "model.safetensors", "o/n", "", "" },
        { "config.json pytorch_model.bin", "o/n", "", "" },
        { "a", "o/n:b*", "", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *main, *got = chosen(cases[i].names, cases[i].spec, &main);

        if (strcmp(got, cases[i].chosen) != 0 || strcmp(main, cases[i].main) != 0)
            fail_msg("of '%s', %s is '%s' and its model '%s'", cases[i].names, cases[i].spec, got, main);
    }
    pull_list_fini(&l);
}

static void test_listing(void **state)
{
    static const char good[] =
        "{\"sha\":\"0123456789abcdef0123\",\"siblings\":[{\"rfilename\":\"a\",\"size\":7,\"blobId\":"
        "\"00112233445566778899aabbccddeeff00112233\"},{\"rfilename\":\"../b\"},{\"rfilename\":\".git\"},"
        "{\"rfilename\":\"c\",\"size\":1,\"lfs\":{\"size\":9,\"sha256\":"
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}},{\"rfilename\":\"d\","
        "\"size\":-1,\"blobId\":\"no\"}]}";
    static const char *const bad[] = { "",
                                       "{",
                                       "[]",
                                       "{}",
                                       "{\"siblings\":{}}",
                                       "{\"siblings\":[1]}",
                                       "{\"siblings\":[{\"rfilename\":\"a\",\"lfs\":{}}]}",
                                       "{\"siblings\":[{\"rfilename\":\"a\",\"size\":4398046511105}]}" };

    (void)state;
    assert_ok(pull_list_parse(good, strlen(good), &l, &unit_err));
    assert_int_equal(l.n, 3);
    assert_int_equal(l.n_refused, 1);
    assert_string_equal(l.commit, "0123456789abcdef0123");
    assert_true(l.entries[0].has_size && l.entries[0].size == 7 && !l.entries[0].is_sha256);
    assert_int_equal(strlen(l.entries[0].id), 40);
    assert_true(l.entries[1].size == 9 && l.entries[1].is_sha256);
    assert_true(!l.entries[2].has_size && l.entries[2].id[0] == '\0');
    pull_list_fini(&l);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (pull_list_parse(bad[i], strlen(bad[i]), &l, &unit_err) == TERN_OK)
            fail_msg("'%s' is taken", bad[i]);
    assert_null(l.entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec),   cmocka_unit_test(test_paths),  cmocka_unit_test(test_folder),
        cmocka_unit_test(test_escape), cmocka_unit_test(test_choice), cmocka_unit_test(test_listing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
