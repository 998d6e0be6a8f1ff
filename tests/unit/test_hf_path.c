/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths into publishers' folders: any file of one means the folder, and what the model is called follows from
 * where the folder lies.
 */
#include "unit/hf_family.h"

#include "engine/hf_path.h"

#include <sys/stat.h>

static void opens(const char *path, bool wanted, enum tern_status why, const char *words)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = tern_model_file_open(path, NULL, &g, &unit_err);

    if (wanted && st)
        fail_msg("%s: %s", path, unit_err.text);
    if (!wanted && (st != why || !strstr(unit_err.text, words) || !strstr(unit_err.text, path)))
        fail_msg("%s: wanted '%s', got %s: '%s'", path, words, tern_status_name(st), unit_err.text);
    if (wanted)
        assert_in_range(g->n_tensors, 2 + 2 * 11, 2 + 2 * 11 + 1); /* the shards have one more */
    tern_gguf_close(&g);
}

static void test_files(void **state)
{
    static const char *const good[] = {
        "", "/", "/config.json", "/model.safetensors", "/tokenizer_config.json", "//config.json"
    };
    struct hf_bed *b = hf_make(&hf_bitnet);
    char path[256], back[4096];

    (void)state;
    hf_bed_text(b, "tokenizer_config.json", "{}");
    hf_bed_text(b, "adapter.safetensors", "{}");
    hf_bed_text(b, "model.bin", "weights");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(path, sizeof path, "%s%s", b->path, good[i]);
        opens(path, true, TERN_OK, "");
    }
    snprintf(path, sizeof path, "%s/adapter.safetensors", b->path);
    opens(path, false, TERN_ERR_USAGE, "name the folder");
    snprintf(path, sizeof path, "%s/model.bin", b->path);
    opens(path, false, TERN_ERR_FORMAT, "not a GGUF file");
    snprintf(path, sizeof path, "%s/none.safetensors", b->path);
    opens(path, false, TERN_ERR_IO, "No such file");
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(b->path), 0);
    opens("config.json", true, TERN_OK, "");
    opens(".", true, TERN_OK, "");
    assert_int_equal(chdir(back), 0);
    hf_bed_unlink(b, "config.json");
    snprintf(path, sizeof path, "%s/model.safetensors", b->path);
    opens(path, false, TERN_ERR_FORMAT, "no config.json beside it");
    hf_bed_free(b);
}

static void test_shards(void **state)
{
    static const char *const good[] = { "/m-1.safetensors", "/m-2.safetensors",
                                        "/model.safetensors.index.json" };
    struct hf_bed *b = hf_make_shards(NULL);
    char path[256];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(path, sizeof path, "%s%s", b->path, good[i]);
        opens(path, true, TERN_OK, "");
    }
    hf_bed_free(b);
}

/* The cache has links from snapshots to blobs. */
static void test_cache(void **state)
{
    static const struct hf_family *const f = &hf_bitnet;
    struct hf_bed *b = hf_make(f);
    char at[256], to[300], from[300];
    struct tern_gguf *g = NULL;
    struct tern_str name;

    (void)state;
    snprintf(at, sizeof at, "%s/models--org--name--x", b->path);
    assert_int_equal(mkdir(at, 0700), 0);
    strcat(at, "/snapshots");
    assert_int_equal(mkdir(at, 0700), 0);
    strcat(at, "/0123abc");
    assert_int_equal(mkdir(at, 0700), 0);
    for (int i = 0; i < 2; i++) {
        const char *const files[] = { "config.json", "model.safetensors" };

        snprintf(from, sizeof from, "../../../%s", files[i]);
        snprintf(to, sizeof to, "%s/%s", at, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    opens(at, true, TERN_OK, "");
    opens(to, true, TERN_OK, "");
    assert_ok(tern_model_file_open(to, NULL, &g, &unit_err));
    assert_ok(tern_gguf_string(g, "general.name", &name, &unit_err));
    assert_true(tern_str_is(name, "org/name--x"));
    tern_gguf_close(&g);
    hf_bed_free(b);
}

static void test_names(void **state)
{
    static const struct {
        const char *folder, *says, *wanted;
    } cases[] = {
        { "tiny-1.58", NULL, "tiny-1.58" },
        { "tiny-1.58", "", "tiny-1.58" },
        { "tiny-1.58", "org/tiny-1.58", "org/tiny-1.58" },
        { "tiny-1.58", "meta-llama/Meta-Llama-3-8B-Instruct", "tiny-1.58" },
        { "tiny-1.58", "/data/tiny-1.58", "tiny-1.58" },
        { "tiny-1.58", "../tiny-1.58", "tiny-1.58" },
        { "tiny-1.58", "a/b/tiny-1.58", "tiny-1.58" },
        { "tiny-1.58", "tiny-1.58/", "tiny-1.58" },
        { "tiny-1.58", "o\x1brg/tiny-1.58", "tiny-1.58" },
        { "models--gpt/snapshots/12", "a/12", "a/12" },
        { "models--gpt/snapshots/13", NULL, "gpt" },
        { "models--/snapshots/13", NULL, "13" },
        { "models--a--b/snapshot/13", NULL, "13" },
        { "models--a--b/snapshots", NULL, "snapshots" },
        { "models--a--b", NULL, "models--a--b" },
        { "not/there", NULL, NULL },
    };
    struct hf_bed *b = hf_bed_new();
    char path[256], name[256], small[4];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", b->path, cases[i].folder);
        for (char *p = path + strlen(b->path) + 1; cases[i].wanted && p; p = strchr(p, '/')) {
            if (*p == '/') {
                *p = '\0';
                (void)mkdir(path, 0700);
                *p++ = '/';
            }
        }
        if (cases[i].wanted)
            (void)mkdir(path, 0700);
        tern_hf_model_name(path, cases[i].says, name, sizeof name);
        assert_string_equal(name, cases[i].wanted ? cases[i].wanted : "model");
    }
    tern_hf_model_name("/", NULL, name, sizeof name);
    assert_string_equal(name, "model");
    tern_hf_model_name(b->path, NULL, small, sizeof small);
    assert_string_equal(small, "ter");
    hf_bed_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
