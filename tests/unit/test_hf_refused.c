/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders with one thing wrong: each is refused with a sentence that says what.
 */
#include "unit/unit.h"

#include "unit/hf_family.h"

#include <sys/stat.h>

static void test_bad_shards(void **state)
{
    static const struct {
        const char *index, *part;
        enum tern_status status;
    } cases[] = {
        { "{}", "lists 0 tensors", TERN_ERR_FORMAT },
        { "{\"weight_map\":[]}", "lists 0 tensors", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":3}}", "not the name of a file", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "not the name of a file", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not the name of a file", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"..\"}}", "not the name of a file", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"\"}}", "not the name of a file", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}", "'a' is in m-1.safetensors, and it is not",
          TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"lm_head.weight\":\"m-1.safetensors\"}}", "holds 15 tensors", TERN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"config.json\"}}", "config.json", TERN_ERR_LIMIT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        hf_refuse(hf_make_shards(cases[i].index), cases[i].status, cases[i].part);
}

/* -- what is refused ------------------------------------------------------------------------------------- */

static void test_folders_that_are_none(void **state)
{
    struct hf_bed *b;
    char path[128];

    (void)state;
    hf_refuse(hf_bed_new(), TERN_ERR_FORMAT, "without a config.json");
    b = hf_bed_new();
    hf_bed_text(b, "config.json", hf_bitnet.config);
    hf_refuse(b, TERN_ERR_FORMAT, "no model.safetensors");
    b = hf_bed_new();
    hf_bed_text(b, "config.json", hf_bitnet.config);
    snprintf(path, sizeof path, "%s/model.safetensors", b->path);
    assert_int_equal(mkdir(path, 0700), 0);
    hf_refuse(b, TERN_ERR_USAGE, "is a directory");
    b = hf_bed_new();
    snprintf(path, sizeof path, "%s/config.json", b->path);
    assert_int_equal(mkdir(path, 0700), 0);
    hf_refuse(b, TERN_ERR_USAGE, "is a directory");
    b = hf_make(&hf_bitnet);
    hf_bed_text(b, "config.json", "");
    hf_refuse(b, TERN_ERR_FORMAT, "is empty");
    b = hf_make(&hf_bitnet);
    snprintf(path, sizeof path, "%s/config.json", b->path);
    assert_int_equal(truncate(path, 100 << 20), 0); /* sparse */
    hf_refuse(b, TERN_ERR_LIMIT, "104857600 bytes");
}

/* One more array in an otherwise good folder. */
static struct hf_bed *make_with(const struct hf_family *f, const char *name, const char *dtype, size_t elem,
                                size_t rows, size_t cols)
{
    struct hf_bed *b = hf_bed_new();

    hf_bed_text(b, "config.json", f->config);
    hf_add_ends(b, f);
    hf_add_layer(b, f, 0);
    hf_bed_add(b, name, dtype, elem, rows, cols, NULL);
    hf_bed_write(b, "model.safetensors");
    return b;
}

static void test_tensors_that_do_not_fit(void **state)
{
    struct hf_family f = hf_llama;
    struct hf_bed *b;
    struct tern_gguf *g;

    (void)state;
    hf_refuse(make_with(&f, "model.layers.1.mlp.up_proj.weight", "U8", 1, 6, 24), TERN_ERR_FORMAT,
              "has 6 packed rows; the configuration asks for 26");
    hf_refuse(make_with(&f, "model.layers.1.mlp.up_proj.weight", "U8", 1, 7, 24), TERN_ERR_FORMAT,
              "has no weight_scale");
    hf_refuse(make_with(&f, "model.layers.1.mlp.up_proj.weight", "U8", 1, 0, 24), TERN_ERR_FORMAT,
              "has 1 dimensions where a matrix has 2");
    hf_refuse(make_with(&f, "model.layers.1.mlp.up_proj.weight", "F8_E4M3", 1, 26, 24), TERN_ERR_UNSUPPORTED,
              "is F8_E4M3");
    hf_refuse(make_with(&f, "model.layers.1.self_attn.q_proj.weight", "BF16", 2, 20, 24), TERN_ERR_FORMAT,
              "has 20 rows where the configuration asks for 24");
    hf_refuse(make_with(&f, "score.weight", "U8", 1, 2, 24), TERN_ERR_UNSUPPORTED, "is U8");
    /* A bias keeps its meaning in its name. */
    b = make_with(&f, "model.layers.1.self_attn.q_proj.bias", "BF16", 2, 0, 24);
    g = hf_open_ok(b);
    assert_non_null(tern_gguf_tensor(g, "blk.1.attn_q.bias"));
    tern_gguf_close(&g);
    hf_bed_free(b);
    /* Two names of one tensor. */
    hf_refuse(make_with(&f, "layers.0.input_layernorm.weight", "F32", 4, 0, 24), TERN_ERR_FORMAT,
              "two tensors 'blk.0.attn_norm.weight'");
}

static void test_bad_scales(void **state)
{
    static const struct {
        uint8_t bf16[2];
        const char *part;
    } cases[] = { { { 0xc0, 0x7f }, "makes the scale nan" },
                  { { 0x80, 0x7f }, "makes the scale 0 " }, /* 1 / infinity */
                  { { 0x00, 0x00 }, "makes the scale inf" },
                  { { 0x80, 0xbf }, "makes the scale -1 " } };
    const struct hf_family *f = &hf_llama;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hf_bed *b = hf_bed_new();

        hf_bed_text(b, "config.json", f->config);
        hf_add_ends(b, f);
        hf_add_layer(b, f, 0);
        hf_bed_add(b, "model.layers.1.mlp.up_proj.weight", "U8", 1, 7, 24, NULL);
        hf_bed_add(b, "model.layers.1.mlp.up_proj.weight_scale", "BF16", 2, 0, 1, cases[i].bf16);
        hf_bed_write(b, "model.safetensors");
        hf_refuse(b, TERN_ERR_FORMAT, cases[i].part);
    }
}

static void test_heads_that_lack(void **state)
{
    struct hf_family f = hf_llama;

    (void)state;
    f.head = false;
    hf_refuse(hf_make(&f), TERN_ERR_FORMAT, "there is no lm_head.weight");
    f = hf_bitnet;
    f.prefix = "transformer.";
    hf_refuse(hf_make(&f), TERN_ERR_FORMAT, "'model.embed_tokens.weight' is missing");
}

/* Headers that fit one by one do not fit together. */
static void test_large_headers(void **state)
{
    static const char *const headers[] = {
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"
    };
    static const char *const names[] = { "a.safetensors", "b.safetensors" };
    const size_t n = 5 << 20;
    char *bytes = malloc(8 + n + 1);
    struct hf_bed *b = hf_bed_new();

    (void)state;
    assert_non_null(bytes);
    hf_bed_text(b, "config.json", hf_bitnet.config);
    hf_bed_text(b, "model.safetensors.index.json",
                "{\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}}");
    for (size_t i = 0; i < 2; i++) {
        for (int j = 0; j < 8; j++)
            bytes[j] = (char)((uint64_t)n >> 8 * j);
        memset(bytes + 8, ' ', n + 1);
        memcpy(bytes + 8, headers[i], strlen(headers[i]));
        hf_bed_bytes(b, names[i], bytes, 8 + n + 1);
    }
    free(bytes);
    hf_refuse(b, TERN_ERR_LIMIT, "the headers of its files");
}

/* -- files cut and changed ------------------------------------------------------------------------------- */

static unsigned n_opened, n_refused;

/* Whatever the folder holds now: a sentence, or tensors inside the files. */
static void open_any(const struct hf_bed *b)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = tern_hf_open(b->path, &g, &unit_err);

    if (st) {
        assert_true(st >= TERN_ERR_USAGE && unit_err.text[0] && !strchr(unit_err.text, '\n'));
        n_refused++;
        return;
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];

        if (t->map < g->n_maps) /* else of the metadata */
            assert_true(t->data > g->maps[t->map].bytes &&
                        t->data + t->bytes <= g->maps[t->map].bytes + g->maps[t->map].size);
    }
    tern_gguf_close(&g);
    n_opened++;
}

/* The file cut at 100 places, then with 400 single bytes of its first `head` changed. */
static void damage(struct hf_bed *b, const char *file, size_t head)
{
    char path[512];
    uint8_t *bytes = malloc(262144);
    size_t n;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", b->path, file);
    f = fopen(path, "rb");
    assert_true(f && bytes);
    n = fread(bytes, 1, 262144, f);
    fclose(f);
    assert_true(n > 100 && n < 262144);
    head = head < n ? head : n;
    for (size_t i = 0; i < 100; i++) {
        hf_bed_bytes(b, file, bytes, n * i / 100);
        open_any(b);
    }
    for (size_t i = 0; i < 400; i++) {
        size_t at = (size_t)(unit_random(&b->seed) % head);
        uint8_t was = bytes[at];

        bytes[at] = (uint8_t)(i % 2 ? was ^ 1 << unit_random(&b->seed) % 8 : "0123456789{}[],:\"-.e"[i % 21]);
        hf_bed_bytes(b, file, bytes, n);
        open_any(b);
        bytes[at] = was;
    }
    hf_bed_bytes(b, file, bytes, n);
    open_any(b);
    free(bytes);
}

static void test_damaged(void **state)
{
    struct hf_bed *b = hf_make(&hf_llama);

    (void)state;
    damage(b, "config.json", SIZE_MAX);
    damage(b, "model.safetensors", 4096);
    hf_bed_free(b);
    b = hf_make_shards(NULL);
    damage(b, "model.safetensors.index.json", SIZE_MAX);
    damage(b, "m-2.safetensors", 2048);
    hf_bed_free(b);
    assert_true(n_opened > 20 && n_refused > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_shards),
        cmocka_unit_test(test_folders_that_are_none),
        cmocka_unit_test(test_tensors_that_do_not_fit),
        cmocka_unit_test(test_bad_scales),
        cmocka_unit_test(test_heads_that_lack),
        cmocka_unit_test(test_large_headers),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
