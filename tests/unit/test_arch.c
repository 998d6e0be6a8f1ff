/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters: the real model's, and files of metadata alone with one thing wrong at a time.
 */
#include "unit/unit.h"

#include "engine/arch.h"
#include "lab/lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys of a sound model; a test replaces, adds or drops one. */
static const struct entry {
    const char *key;
    double v; /* whole numbers are written as u32, others as f32 */
} sound[] = {
    { "block_count", 6 },           { "embedding_length", 256 },
    { "feed_forward_length", 768 }, { "context_length", 512 },
    { "attention.head_count", 4 },  { "attention.head_count_kv", 2 },
    { "rope.dimension_count", 64 }, { "attention.layer_norm_rms_epsilon", 1.0 / 1024 },
    { "rope.freq_base", 10000.5 },
};

/* One change: key NULL for none, v NAN to leave it out, text to write a string instead. */
struct change {
    const char *key;
    double v;
    const char *text;
};

static void put(struct tern_gguf_writer *w, const char *arch, const struct change *c)
{
    char key[96];

    if (isnan(c->v) && !c->text)
        return;
    snprintf(key, sizeof key, "%s.%s", arch, c->key);
    if (c->text)
        tern_gguf_put_string(w, key, c->text);
    else if (c->v == floor(c->v) && c->v >= 0 && c->v < 4294967296.0)
        tern_gguf_put_u32(w, key, (uint32_t)c->v);
    else
        tern_gguf_put_f32(w, key, (float)c->v);
}

/* What the keys begin with, where it is not the architecture's name. */
static const char *keys_of;
/* Not NULL: windows to write. */
static const struct tern_swa *put_swa;
static uint32_t n_swa_layers;

/* Writes the metadata with up to two changes and reads the architecture of it. */
static enum tern_status read_changed(const char *arch, const struct change *a, const struct change *b,
                                     struct tern_arch *out)
{
    const struct change *changes[2] = { a, b };
    char *bytes;
    size_t n;
    FILE *f = open_memstream(&bytes, &n);
    struct tern_gguf_writer *w = lab_writer_new(f, 32);
    struct tern_gguf *g;
    enum tern_status st;

    if (arch)
        tern_gguf_put_string(w, "general.architecture", arch);
    else
        arch = "bitnet-b1.58";
    if (keys_of)
        arch = keys_of;
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        struct change c = { sound[i].key, sound[i].v, NULL };

        for (int j = 0; j < 2; j++)
            if (changes[j] && strcmp(changes[j]->key, sound[i].key) == 0)
                c = *changes[j];
        put(w, arch, &c);
    }
    for (int j = 0; j < 2; j++) {
        bool is_sound = false;

        for (size_t i = 0; changes[j] && i < sizeof sound / sizeof sound[0]; i++)
            is_sound |= strcmp(changes[j]->key, sound[i].key) == 0;
        if (changes[j] && !is_sound)
            put(w, arch, changes[j]);
    }
    if (put_swa)
        tern_swa_put(put_swa, arch, n_swa_layers, w);
    tern_gguf_begin(w);
    lab_finish(&w);
    fclose(f);
    assert_ok(tern_gguf_parse("test.gguf", bytes, n, &g, &unit_err));
    memset(&unit_err, 0, sizeof unit_err);
    st = tern_arch_read(g, out, &unit_err);
    tern_gguf_close(&g);
    free(bytes);
    return st;
}

static void test_reads_fable(void **state)
{
    struct tern_gguf *g;
    struct tern_arch a;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_ok(tern_arch_read(g, &a, &unit_err));
    assert_string_equal(a.name, "bitnet-b1.58");
    assert_int_equal(a.n_layers, 6);
    assert_int_equal(a.n_embd, 256);
    assert_int_equal(a.n_ffn, 768);
    assert_int_equal(a.n_heads, 4);
    assert_int_equal(a.n_kv_heads, 2);
    assert_int_equal(a.head_dim, 64);
    assert_int_equal(a.n_vocab, 4096);
    assert_true(a.rope_theta == 10000.0);
    assert_true(a.rms_eps > 0.9e-5f && a.rms_eps < 1.1e-5f);
    tern_gguf_close(&g);
}

static void test_alias_and_defaults(void **state)
{
    const struct change no_rope = { "rope.dimension_count", NAN, NULL },
                        no_kv = { "attention.head_count_kv", NAN, NULL };
    const struct change no_theta = { "rope.freq_base", NAN, NULL },
                        key_length = { "attention.key_length", 32, NULL };
    const struct change linear = { "rope.scaling.type", 0, "linear" },
                        one = { "rope.scaling.factor", 1, NULL };
    struct tern_arch a;

    (void)state;
    assert_ok(read_changed("bitnet-25", NULL, NULL, &a));
    assert_string_equal(a.name, "bitnet-b1.58");
    assert_string_equal(a.key_prefix, "bitnet-25");
    assert_int_equal(a.n_vocab, 0); /* neither tensor nor token list */
    assert_true(a.rms_eps == 1.0f / 1024);
    assert_ok(read_changed("bitnet-b1.58", &no_rope, &no_kv, &a));
    assert_int_equal(a.head_dim, 64);
    assert_int_equal(a.n_kv_heads, 4);
    assert_ok(read_changed("bitnet-b1.58", &no_rope, &key_length, &a));
    assert_int_equal(a.head_dim, 32); /* need not be embedding / heads */
    assert_ok(read_changed("bitnet-b1.58", &no_theta, NULL, &a));
    assert_true(a.rope_theta == 10000.0);
    assert_ok(read_changed("bitnet-b1.58", &linear, &one, &a));
}

static void test_refusals(void **state)
{
    static const struct {
        struct change a, b;
        enum tern_status status;
        const char *words;
    } cases[] = {
        { { "block_count", 0, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "block_count is 0" },
        { { "block_count", 513, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "513" },
        { { "block_count", NAN, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "missing" },
        { { "block_count", 0, "six" }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "type string" },
        { { "block_count", 6.5, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "whole number" },
        { { "embedding_length", 32769, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "embedding_length" },
        { { "feed_forward_length", 131073, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "feed_forward_length" },
        { { "context_length", 4294967295.0, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "context_length" },
        { { "attention.head_count", 0, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "head_count" },
        { { "attention.head_count", 513, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "head_count" },
        { { "attention.head_count_kv", 3, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "evenly" },
        { { "attention.head_count_kv", 8, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "evenly" },
        { { "rope.dimension_count", 63, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "even number" },
        { { "rope.dimension_count", 514, NULL }, { NULL, 0, NULL }, TERN_ERR_LIMIT, "dimension_count" },
        { { "attention.key_length", 32, NULL },
          { NULL, 0, NULL },
          TERN_ERR_UNSUPPORTED,
          "rope.dimension_count is 64" },
        { { "attention.value_length", 32, NULL }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "64" },
        { { "rope.dimension_count", NAN, NULL },
          { "embedding_length", 258, NULL },
          TERN_ERR_FORMAT,
          "even number" },
        { { "attention.head_count", 512, NULL },
          { "rope.dimension_count", 512, NULL },
          TERN_ERR_LIMIT,
          "131072" },
        { { "attention.layer_norm_rms_epsilon", NAN, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "missing" },
        { { "attention.layer_norm_rms_epsilon", 0, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "epsilon" },
        { { "attention.layer_norm_rms_epsilon", -1e-5, NULL },
          { NULL, 0, NULL },
          TERN_ERR_FORMAT,
          "epsilon" },
        { { "attention.layer_norm_rms_epsilon", INFINITY, NULL },
          { NULL, 0, NULL },
          TERN_ERR_FORMAT,
          "epsilon" },
        { { "rope.freq_base", 0, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "freq_base" },
        { { "rope.freq_base", INFINITY, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "freq_base" },
        { { "rope.scaling.type", 0, "yarn" },
          { "rope.scaling.factor", 4, NULL },
          TERN_ERR_UNSUPPORTED,
          "yarn" },
        { { "rope.scaling.type", 0, "linear" }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "linear" },
        { { "rope.scaling.factor", 2, NULL }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "factor 2" },
        { { "attention.sliding_window", 1.5, NULL }, { NULL, 0, NULL }, TERN_ERR_FORMAT, "whole number" },
        { { "rope.scale_linear", 4, NULL }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "scale_linear is 4" },
        { { "attention.sliding_window", 128, NULL },
          { "attention.sliding_window_pattern", 0, "two" },
          TERN_ERR_FORMAT,
          "sliding_window_pattern" },
        { { "attention.sliding_window", 128, NULL },
          { "rope.freq_base_swa", 0, NULL },
          TERN_ERR_FORMAT,
          "freq_base_swa" },
        { { "attention.scale", 0.25, NULL }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "attention.scale" },
        { { "expert_count", 8, NULL }, { NULL, 0, NULL }, TERN_ERR_UNSUPPORTED, "expert_count" },
    };
    struct tern_arch a = { .n_layers = 77 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum tern_status st =
            read_changed("bitnet-b1.58", &cases[i].a, cases[i].b.key ? &cases[i].b : NULL, &a);

        if (st != cases[i].status || !strstr(unit_err.text, cases[i].words) ||
            !strstr(unit_err.text, "test.gguf"))
            fail_msg("case %zu (%s): %s: '%s'", i, cases[i].a.key, tern_status_name(st), unit_err.text);
        assert_int_equal(a.n_layers, 77); /* outputs untouched */
    }
}

static void test_families(void **state)
{
    static const struct {
        const char *name;
        enum tern_activation activation;
        enum tern_rope rope;
        unsigned norms;
        float embd_scale;
    } want[] = {
        { "bitnet-b1.58", TERN_RELU2, TERN_ROPE_NEOX, TERN_SUB_NORMS, 1 },
        { "bitnet-25", TERN_RELU2, TERN_ROPE_NEOX, TERN_SUB_NORMS, 1 },
        { "bitnet", TERN_SILU, TERN_ROPE_NEOX, TERN_SUB_NORMS, 1 },
        { "llama", TERN_SILU, TERN_ROPE_NORM, 0, 1 },
        { "qwen3", TERN_SILU, TERN_ROPE_NEOX, TERN_QK_NORMS, 1 },
        { "gemma3", TERN_GELU, TERN_ROPE_NEOX, TERN_QK_NORMS | TERN_POST_NORMS, 16 },
    };
    const struct change silu = { "activation", 0, "silu" }, odd = { "activation", 0, "swish" };
    const struct change last = { "pooling_type", 3, NULL }, rank = { "pooling_type", 4, NULL };
    struct tern_arch a;

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_ok(read_changed(want[i].name, NULL, NULL, &a));
        assert_int_equal(a.activation, want[i].activation);
        assert_int_equal(a.rope, want[i].rope);
        assert_int_equal(a.norms, want[i].norms);
        assert_true(a.embd_scale == want[i].embd_scale);
        assert_int_equal(a.pooling, TERN_POOL_NONE);
        assert_int_equal(a.n_rope_freqs, 0);
        assert_ok(read_changed(want[i].name, &silu, &last, &a));
        assert_int_equal(a.activation, TERN_SILU);
        assert_int_equal(a.pooling, TERN_POOL_LAST);
    }
    assert_int_equal(read_changed("bitnet", &odd, NULL, &a), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(unit_err.text, "bitnet.activation is 'swish'; Tern knows relu2, silu and gelu"));
    assert_int_equal(read_changed("qwen3", &rank, NULL, &a), TERN_ERR_UNSUPPORTED);
    assert_int_equal(read_changed("falcon", NULL, NULL, &a), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(unit_err.text, "'falcon'"));
    assert_non_null(
        strstr(unit_err.text, "bitnet-b1.58 (also called bitnet-25), bitnet, llama, qwen3 and gemma3"));
    assert_int_equal(read_changed(NULL, NULL, NULL, &a), TERN_ERR_FORMAT);
}

/* 1bitLLM's models under the name that makes them something else. */
static void test_mislabelled(void **state)
{
    const struct change layers[] = { { "block_count", 24, NULL }, { "block_count", 26, NULL } };
    const struct change vocab = { "vocab_size", 32002, NULL }, other = { "vocab_size", 32000, NULL };
    struct tern_arch a;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_ok(read_changed("bitnet-b1.58", &layers[i], &vocab, &a));
        assert_int_equal(a.activation, TERN_SILU);
        assert_ok(read_changed("bitnet-b1.58", &layers[i], &other, &a));
        assert_int_equal(a.activation, TERN_RELU2);
    }
    assert_ok(read_changed("bitnet-b1.58", NULL, &vocab, &a));
    assert_int_equal(a.activation, TERN_RELU2);
}

/* general.architecture says another name than the keys begin with, as after an override. */
static void test_prefix(void **state)
{
    struct tern_arch a;

    (void)state;
    keys_of = "bitnet-b1.58";
    assert_ok(read_changed("bitnet", NULL, NULL, &a));
    keys_of = NULL;
    assert_string_equal(a.name, "bitnet");
    assert_string_equal(a.key_prefix, "bitnet-b1.58");
    assert_int_equal(a.activation, TERN_SILU);
    assert_int_equal(a.n_ffn, 768);
}

/* Whether exactly the layers of a text of the six slide: 's', and 'f' for those that see all. */
static bool slide(const struct tern_arch *a, const char *layers)
{
    for (uint32_t l = 0; l < TERN_MAX_LAYERS; l++)
        if (tern_swa_slides(&a->swa, l) != (l < 6 && layers[l] == 's'))
            return false;
    return true;
}

static void test_windows(void **state)
{
    static const struct tern_swa none;
    const struct change window = { "attention.sliding_window", 128, NULL },
                        no_window = { "attention.sliding_window", 0, NULL },
                        wide = { "attention.sliding_window", 4294967295.0, NULL };
    struct change pattern = { "attention.sliding_window_pattern", 2, NULL };
    const struct change theta = { "rope.freq_base_swa", 5000, NULL }, base = { "rope.freq_base", 1e6, NULL };
    struct tern_arch a;

    (void)state;
    assert_ok(read_changed("gemma3", &window, NULL, &a));
    assert_int_equal(a.swa.window, 128);
    assert_true(a.swa.rope_theta == 10000 && a.rope_theta == 10000.5 && tern_arch_two_bases(&a));
    assert_true(slide(&a, "sssssf"));
    assert_ok(read_changed("gemma3", &window, &theta, &a));
    assert_true(a.swa.rope_theta == 5000);
    assert_ok(read_changed("gemma3", &window, &pattern, &a));
    assert_true(slide(&a, "sfsfsf"));
    assert_ok(read_changed("llama", &window, NULL, &a));
    assert_true(slide(&a, "ssssss") && !tern_arch_two_bases(&a));
    assert_ok(read_changed("llama", &wide, NULL, &a));
    assert_int_equal(a.swa.window, TERN_MAX_CONTEXT);
    pattern.v = 0;
    assert_ok(read_changed("gemma3", &window, &pattern, &a));
    assert_true(slide(&a, "ssssss"));
    pattern.v = 1; /* every layer sees all */
    assert_ok(read_changed("gemma3", &window, &pattern, &a));
    assert_memory_equal(&a.swa, &none, sizeof none);
    assert_ok(read_changed("gemma3", &no_window, &theta, &a));
    assert_memory_equal(&a.swa, &none, sizeof none);
    assert_false(tern_arch_two_bases(&a));
    /* What the published file does not name. */
    assert_ok(read_changed("gemma3", &base, NULL, &a));
    assert_int_equal(a.swa.window, 512);
    assert_true(a.swa.rope_theta == 10000 && a.rope_theta == 1e6 && slide(&a, "sssssf"));
    assert_ok(read_changed("gemma3", &base, &no_window, &a));
    assert_memory_equal(&a.swa, &none, sizeof none);
    assert_ok(read_changed("llama", &base, NULL, &a));
    assert_memory_equal(&a.swa, &none, sizeof none);
}

/* Reads what tern_swa_put writes for layers that slide as a text says, of a file of n_layers layers. */
static enum tern_status read_put(const char *layers, uint32_t n_put, double n_layers, struct tern_arch *out)
{
    struct tern_swa s = { .window = 77, .rope_theta = 5000 };
    enum tern_status st;

    for (uint32_t l = 0; l < n_put; l++)
        if (layers[l] == 's')
            tern_swa_set(&s, l);
    put_swa = &s;
    n_swa_layers = n_put;
    st = read_changed("gemma3", &(struct change){ "block_count", n_layers, NULL }, NULL, out);
    put_swa = NULL;
    return st;
}

/* Any list of layers comes back as it was written; a list of another length is refused. */
static void test_window_lists(void **state)
{
    static const char *const lists[] = { "sssssf", "ssssss", "sfsfsf", "ssfssf", "sssfss",
                                         "fsssss", "ffssff", "fffffs", "ssffss" };
    struct tern_arch a;

    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        assert_ok(read_put(lists[i], 6, 6, &a));
        if (a.swa.window != 77 || a.swa.rope_theta != 5000 || !slide(&a, lists[i]))
            fail_msg("%s came back otherwise", lists[i]);
    }
    assert_int_equal(read_put("ffssff", 6, 5, &a), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "for each of the 5 layers"));
    assert_int_equal(read_put("ffssff", 6, 7, &a), TERN_ERR_FORMAT);
}

static void test_hash(void **state)
{
    struct tern_arch a = { .name = "bitnet-b1.58",
                           .n_layers = 1,
                           .n_embd = 2,
                           .n_ffn = 3,
                           .n_heads = 4,
                           .n_kv_heads = 5,
                           .head_dim = 6,
                           .n_vocab = 7,
                           .n_ctx_train = 8,
                           .rms_eps = 1e-5f,
                           .rope_theta = 1e4 };
    uint8_t first[TERN_HASH_BYTES], other[TERN_HASH_BYTES];
    struct tern_arch b;

    (void)state;
    tern_arch_hash(&a, first);
#define DIFFERS(field, value)                                                                                \
    b = a;                                                                                                   \
    b.field = value;                                                                                         \
    tern_arch_hash(&b, other);                                                                               \
    assert_memory_not_equal(first, other, sizeof first)
    DIFFERS(n_layers, 9);
    DIFFERS(n_embd, 9);
    DIFFERS(n_ffn, 9);
    DIFFERS(n_heads, 9);
    DIFFERS(n_kv_heads, 9);
    DIFFERS(head_dim, 9);
    DIFFERS(rms_eps, 2e-5f);
    DIFFERS(rope_theta, 10000.0000000001);
    DIFFERS(activation, TERN_GELU);
    DIFFERS(rope, TERN_ROPE_NORM);
    DIFFERS(norms, TERN_QK_NORMS);
    DIFFERS(embd_scale, 2);
    DIFFERS(n_rope_freqs, 3);
    DIFFERS(swa.window, 3);
    a.swa = (struct tern_swa){ .window = 3, .rope_theta = 5000, .layers = { 1 } };
    tern_arch_hash(&a, first);
    DIFFERS(swa.window, 4);
    DIFFERS(swa.rope_theta, 6000);
    DIFFERS(swa.layers[0], 3);
    DIFFERS(swa.layers[TERN_MAX_LAYERS / 8 - 1], 128);
    b = a;
    b.n_vocab = b.n_ctx_train = 0;
    snprintf(b.key_prefix, sizeof b.key_prefix, "bitnet-25");
    tern_arch_hash(&b, other);
    assert_memory_equal(first, other, sizeof first); /* a slice, or the other spelling, is the same model */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_fable),  cmocka_unit_test(test_alias_and_defaults),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_families),
        cmocka_unit_test(test_mislabelled),  cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_hash),         cmocka_unit_test(test_windows),
        cmocka_unit_test(test_window_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
