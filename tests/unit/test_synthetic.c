/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models: shapes against published figures, what is in the files, and that slices, threads and
 * types change nothing about the weights.
 */
#include "engine/synthetic.h"

#include "engine/arch.h"
#include "engine/gguf_write.h"
#include "engine/model.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

struct file {
    char *bytes;
    size_t n;
    struct tern_gguf *g;
};

static struct file write_file(const struct tern_synthetic *s, unsigned threads)
{
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct file f;
    uint64_t want;
    FILE *stream = open_memstream(&f.bytes, &f.n);

    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(threads, &pool, &unit_err));
    assert_ok(tern_synthetic_write(s, stream, "a stream", pool, &kern, NULL, NULL, &unit_err));
    tern_pool_free(&pool);
    fclose(stream);
    assert_ok(tern_synthetic_bytes(s, &want, &unit_err));
    assert_int_equal(want, f.n);
    assert_ok(tern_gguf_parse("made.gguf", f.bytes, f.n, &f.g, &unit_err));
    return f;
}

static void file_free(struct file *f)
{
    tern_gguf_close(&f->g);
    free(f->bytes);
}

static struct tern_synthetic small(void)
{
    struct tern_synthetic s;

    assert_true(tern_synthetic_by_name("125m", &s));
    s.n_layers = 2;
    s.n_embd = 256;
    s.n_ffn = 768;
    s.n_heads = 4;
    s.n_kv_heads = 2;
    s.n_vocab = 1000;
    return s;
}

/* Ternary weights and bytes of a model's tensors as published. */
static void test_published(void **state)
{
    static const struct {
        const char *name;
        uint64_t ternary, embedding;
    } want[] = {
        { "2b4t", 2084044800, 328335360 },       { "llama3-8b", 6979321856, 525336576 },
        { "falcon3-1b", 1132462080, 268435456 }, { "falcon3-3b", 2422210560, 402653184 },
        { "falcon3-7b", 6650068992, 402653184 }, { "falcon3-10b", 9500098560, 402653184 },
        { "falcon-e-1b", 1585446912, 67108864 }, { "falcon-e-3b", 2919235584, 67108864 },
        { "large", 679477248, 49155072 },        { "3b", 3221504000, 102406400 },
        { "embed-0.6b", 440401920, 155582464 },  { "embed-270m", 100270080, 167772160 },
    };
    struct tern_synthetic s;

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_true(tern_synthetic_by_name(want[i].name, &s));
        assert_int_equal(tern_synthetic_ternary(&s), want[i].ternary);
        assert_int_equal(tern_synthetic_embedding(&s), want[i].embedding);
    }
    assert_false(tern_synthetic_by_name("2B4T", &s));
    assert_false(tern_synthetic_by_name("", &s));
}

/* Every shape makes a directory that its types fit, whose size is near its name's, and that this engine would
 * load. */
static void test_all_shapes(void **state)
{
    size_t n = 0;

    (void)state;
    for (; tern_synthetic_name(n); n++) {
        struct tern_synthetic s;
        uint64_t bytes;

        assert_true(tern_synthetic_by_name(tern_synthetic_name(n), &s));
        assert_ok(tern_synthetic_bytes(&s, &bytes, &unit_err));
        assert_true(bytes > tern_synthetic_ternary(&s) / 4 + tern_synthetic_embedding(&s) * 2);
        assert_int_equal(s.n_heads % s.n_kv_heads, 0);
        assert_int_equal(s.head_dim % 2, 0);
        assert_true(s.n_vocab <= TERN_MAX_VOCAB && s.n_layers <= TERN_MAX_LAYERS);
    }
    assert_int_equal(n, 23);
    struct tern_synthetic s;
    assert_true(tern_synthetic_by_name("100b", &s));
    assert_true(tern_synthetic_ternary(&s) > 95e9 && tern_synthetic_ternary(&s) < 105e9);
}

/* A loaded model of the file: its matrix q of layer 0, and its scale. */
static void test_contents(void **state)
{
    struct tern_synthetic s = small();
    struct file f = write_file(&s, 1);
    struct tern_arch arch;
    struct tern_tensor const *t = tern_gguf_tensor(f.g, "blk.1.ffn_down.weight");
    size_t zeros = 0, plus = 0, n = 256 * 768;
    float scale;

    (void)state;
    assert_ok(tern_arch_read(f.g, &arch, &unit_err));
    assert_int_equal(arch.n_layers, 2);
    assert_int_equal(arch.n_vocab, 1000);
    assert_int_equal(tern_gguf_find(f.g, "tokenizer.ggml.tokens")->n, 1000);
    for (size_t i = 0; i < n; i++) {
        unsigned code = (unsigned)t->data[i / 128 * 32 + i % 32] >> (6 - 2 * (i % 128 / 32)) & 3;

        assert_true(code <= 2);
        zeros += code == 1;
        plus += code == 2;
    }
    assert_true(zeros > n * 38 / 100 && zeros < n * 42 / 100);
    assert_true(plus > n * 28 / 100 && plus < n * 32 / 100);
    memcpy(&scale, t->data + n / 4, sizeof scale);
    assert_true(scale > 0.0465f && scale < 0.0467f); /* 1 / sqrt(0.6 * 768) */
    file_free(&f);
}

static void assert_same_tensors(const struct tern_gguf *a, const struct tern_gguf *b)
{
    for (size_t i = 0; i < a->n_tensors; i++) {
        char name[256];
        const struct tern_tensor *x = &a->tensors[i], *y;

        snprintf(name, sizeof name, "%.*s", TERN_STR_ARGS(x->name));
        y = tern_gguf_tensor(b, name);
        assert_non_null(y);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
}

static void test_slices_and_threads(void **state)
{
    struct tern_synthetic s = small(), slice = s;
    struct file whole = write_file(&s, 1), shared = write_file(&s, 3), part;

    (void)state;
    assert_int_equal(whole.n, shared.n);
    assert_memory_equal(whole.bytes, shared.bytes, whole.n);
    slice.slice = true;
    slice.first = 1;
    slice.last = 2;
    part = write_file(&slice, 2);
    assert_int_equal(part.g->n_tensors, 11);
    assert_same_tensors(part.g, whole.g);
    s.seed = 7;
    file_free(&shared);
    shared = write_file(&s, 1);
    assert_memory_not_equal(tern_gguf_tensor(whole.g, "blk.0.attn_q.weight")->data,
                            tern_gguf_tensor(shared.g, "blk.0.attn_q.weight")->data, 64);
    file_free(&whole);
    file_free(&shared);
    file_free(&part);
}

/* The tiles of layer 0's gate matrix. */
static uint8_t *tiles_of(const struct file *f, size_t *bytes)
{
    const struct tern_model_options o = { .last = 1 };
    struct tern_kernels kern;
    struct tern_arch arch;
    struct tern_pool *pool;
    struct tern_model *m;
    uint8_t *copy;

    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_arch_read(f->g, &arch, &unit_err));
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_ok(tern_model_load(f->g, &arch, &kern, pool, &o, &m, &unit_err));
    *bytes = m->tiles_bytes;
    copy = malloc(*bytes);
    memcpy(copy, m->tiles, *bytes);
    tern_model_free(&m);
    tern_pool_free(&pool);
    return copy;
}

static void test_types(void **state)
{
    static const uint32_t types[] = { TERN_TYPE_I2_S, TERN_TYPE_TQ1_0, TERN_TYPE_TQ2_0 };
    uint8_t *first = NULL;
    size_t first_bytes = 0;

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct tern_synthetic s = small();
        struct file f;
        size_t bytes;
        uint8_t *tiles;

        s.ternary = types[i];
        f = write_file(&s, 2);
        tiles = tiles_of(&f, &bytes);
        if (!first) {
            first = tiles;
            first_bytes = bytes;
        } else {
            assert_int_equal(bytes, first_bytes);
            assert_memory_equal(tiles, first, bytes);
            free(tiles);
        }
        file_free(&f);
    }
    free(first);
}

/* A stream that is full: the first failure is reported, and nothing crashes on the way. */
static void test_full(void **state)
{
    struct tern_synthetic s = small();
    struct tern_kernels kern;
    struct tern_pool *pool;
    FILE *f = fopen("/dev/full", "wb");

    (void)state;
    if (!f) {
        print_message("skipped: /dev/full is not there\n");
        skip();
    }
    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_int_equal(tern_synthetic_write(&s, f, "/dev/full", pool, &kern, NULL, NULL, &unit_err),
                     TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, "/dev/full"));
    fclose(f);
    tern_pool_free(&pool);
}

static void test_refusals(void **state)
{
    struct tern_synthetic s = small();
    uint64_t bytes;

    (void)state;
    s.n_embd = 200; /* no multiple of 256 */
    s.ternary = TERN_TYPE_TQ2_0;
    assert_int_equal(tern_synthetic_bytes(&s, &bytes, &unit_err), TERN_ERR_USAGE);
    s = small();
    s.embd = TERN_TYPE_I2_S;
    assert_int_equal(tern_synthetic_bytes(&s, &bytes, &unit_err), TERN_ERR_USAGE);
    s = small();
    s.ternary = TERN_F16;
    assert_int_equal(tern_synthetic_bytes(&s, &bytes, &unit_err), TERN_ERR_USAGE);
    s = small();
    s.n_vocab = 100;
    assert_int_equal(tern_synthetic_bytes(&s, &bytes, &unit_err), TERN_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published), cmocka_unit_test(test_all_shapes),
        cmocka_unit_test(test_contents),  cmocka_unit_test(test_slices_and_threads),
        cmocka_unit_test(test_types),     cmocka_unit_test(test_full),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
