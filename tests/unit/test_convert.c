/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion of random models: no weight changes whatever the types, the shapes and the number of threads;
 * views are resolved; what was written wrongly is noticed.
 */
#include "engine/convert.h"

#include "engine/base/mem.h"
#include "engine/exact_scale.h"
#include "engine/identity.h"
#include "engine/synthetic.h"
#include "engine/ternary_source.h"
#include "unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint32_t ternary[] = { TERN_TYPE_I2_S, TERN_TYPE_TQ1_0, TERN_TYPE_TQ2_0 };

struct source {
    char *bytes;
    size_t n;
    struct tern_gguf *g;
};

/* k_odd: rows of which two are a block of I2_S. */
static struct source make(uint32_t type, enum tern_i2s_layout layout, bool k_odd)
{
    struct tern_synthetic s;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct source f;
    FILE *stream = open_memstream(&f.bytes, &f.n);

    assert_true(tern_synthetic_by_name("125m", &s));
    s.n_layers = 2;
    s.n_embd = 256;
    s.n_ffn = k_odd ? 1088 : 1024;
    s.n_heads = 4;
    s.n_kv_heads = 2;
    s.head_dim = 64;
    s.n_vocab = 700;
    s.ternary = type;
    s.layout = layout;
    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_ok(tern_synthetic_write(&s, stream, "a stream", pool, &kern, NULL, NULL, &unit_err));
    tern_pool_free(&pool);
    fclose(stream);
    assert_ok(tern_gguf_parse("made.gguf", f.bytes, f.n, &f.g, &unit_err));
    return f;
}

static void drop(struct source *f)
{
    tern_gguf_close(&f->g);
    free(f->bytes);
}

static struct tern_convert_options to(uint32_t type)
{
    return (struct tern_convert_options){ .type = type, .head = TERN_CONVERT_KEEP };
}

/* Converts g to a file at path; flip: a byte that is changed before the comparison, from the end. */
static enum tern_status convert(const struct tern_gguf *g, const struct tern_convert_options *o,
                                unsigned threads, char path[64], long flip)
{
    struct tern_conversion *c = NULL;
    struct tern_kernels kern;
    struct tern_pool *pool;
    enum tern_status st;
    FILE *f;
    int fd;

    strcpy(path, "/var/tmp/tern-test-convert-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    f = fdopen(fd, "w+b");
    assert_non_null(f);
    tern_kernels_init(&kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(threads, &pool, &unit_err));
    st = tern_convert_plan(g, o, &c, &unit_err);
    if (!st)
        st = tern_convert_write(c, f, path, pool, &kern, NULL, NULL, &unit_err);
    if (!st) {
        assert_int_equal(ftell(f), tern_convert_bytes(c));
        if (flip) {
            assert_int_equal(fseek(f, -flip, SEEK_END), 0);
            int byte = fgetc(f);
            assert_int_equal(fseek(f, -flip, SEEK_END), 0);
            fputc(byte ^ 1, f);
            fflush(f);
        }
        st = tern_convert_seal(c, path, fd, pool, NULL, NULL, &unit_err);
    }
    tern_convert_free(&c);
    tern_pool_free(&pool);
    fclose(f);
    return st;
}

/* -1, 0, +1 of a matrix. */
static int8_t *trits(const struct tern_gguf *g, const char *name, float *scale, size_t *n)
{
    const struct tern_tensor *t = tern_gguf_tensor(g, name);
    struct tern_ternary_source src;
    struct tern_pool *pool;
    int8_t *w;

    assert_non_null(t);
    *n = (size_t)(t->ne[0] * t->ne[1]);
    w = malloc(*n);
    assert_non_null(w);
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_ok(tern_ternary_open(g, t, pool, &src, &unit_err));
    assert_ok(tern_ternary_rows(&src, 0, (size_t)t->ne[1], w, scale, &unit_err));
    tern_pool_free(&pool);
    return w;
}

static void same_weights(const struct tern_gguf *a, const struct tern_gguf *b)
{
    static const char *const names[] = { "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.ffn_up.weight",
                                         "blk.1.ffn_down.weight" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        float sa, sb;
        size_t na, nb;
        int8_t *wa = trits(a, names[i], &sa, &na), *wb = trits(b, names[i], &sb, &nb);

        assert_int_equal(na, nb);
        assert_memory_equal(wa, wb, na);
        assert_true(sa == sb);
        free(wa);
        free(wb);
    }
}

/* Every pair of types, every layout of I2_S as a source, one to three threads. */
static void test_pairs(void **state)
{
    (void)state;
    for (int layout = TERN_I2S_A; layout <= TERN_I2S_C; layout++)
        for (size_t from = 0; from < 3; from++) {
            struct tern_file_options file = { .i2s_layout = (enum tern_i2s_layout)layout };
            struct source s;

            if (from > 0 && layout != TERN_I2S_A)
                continue;
            s = make(ternary[from], (enum tern_i2s_layout)layout, false);
            assert_ok(tern_model_file_set_options(s.g, &file, &unit_err));
            for (size_t i = 0; i < 3; i++) {
                struct tern_convert_options o = to(ternary[i]);
                struct tern_gguf *g = NULL;
                char path[64];

                assert_ok(convert(s.g, &o, 1 + (unsigned)i, path, 0));
                assert_ok(tern_gguf_open(path, &g, &unit_err));
                same_weights(s.g, g);
                tern_gguf_close(&g);
                unlink(path);
            }
            drop(&s);
        }
}

/* Rows that end inside a block. */
static void test_odd_rows(void **state)
{
    struct source s = make(TERN_TYPE_I2_S, TERN_I2S_A, true);
    struct tern_convert_options o = to(TERN_TYPE_I2_S);
    struct tern_gguf *g = NULL;
    char path[64];

    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        assert_ok(convert(s.g, &o, threads, path, 0));
        assert_ok(tern_gguf_open(path, &g, &unit_err));
        same_weights(s.g, g);
        tern_gguf_close(&g);
        unlink(path);
    }
    o.type = TERN_TYPE_TQ2_0;
    assert_int_equal(convert(s.g, &o, 1, path, 0), TERN_ERR_USAGE);
    assert_non_null(strstr(unit_err.text, "1088"));
    unlink(path);
    drop(&s);
}

/* Norms that lack one, of every type of floats. */
static void test_plus_one(void **state)
{
    struct source s = make(TERN_TYPE_I2_S, TERN_I2S_A, false);
    struct tern_convert_options o = to(TERN_TYPE_I2_S);
    const struct tern_tensor *t;
    struct tern_gguf *g = NULL;
    char path[64];
    float v;

    (void)state;
    for (size_t i = 0; i < s.g->n_tensors; i++)
        s.g->tensors[i].view.plus_one = tern_str_is(s.g->tensors[i].name, "blk.1.attn_norm.weight");
    assert_ok(convert(s.g, &o, 2, path, 0));
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    t = tern_gguf_tensor(g, "blk.1.attn_norm.weight");
    for (size_t i = 0; i < 256; i++) {
        memcpy(&v, t->data + 4 * i, 4);
        assert_true(t->type == TERN_F32 && v == 2);
    }
    memcpy(&v, tern_gguf_tensor(g, "blk.0.attn_norm.weight")->data, 4);
    assert_true(v == 1);
    tern_gguf_close(&g);
    unlink(path);
    drop(&s);
}

/* The hashes are those of the tensors, in the order of the directory. */
static void test_hashes(void **state)
{
    struct source s = make(TERN_TYPE_TQ1_0, TERN_I2S_A, false);
    struct tern_convert_options o = to(TERN_TYPE_TQ2_0);
    const struct tern_gguf_kv *kv;
    struct tern_identity *id = NULL;
    struct tern_gguf *g = NULL;
    struct tern_pool *pool;
    char path[64];

    (void)state;
    o.slice = true;
    o.first = 1;
    o.last = 2;
    assert_ok(convert(s.g, &o, 1, path, 0));
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_null(tern_gguf_tensor(g, "token_embd.weight"));
    assert_null(tern_gguf_tensor(g, "blk.0.attn_norm.weight"));
    kv = tern_gguf_find(g, TERN_IDENTITY_KEY);
    assert_non_null(kv);
    assert_int_equal(kv->n, g->n_tensors * TERN_HASH_BYTES);
    assert_ok(tern_pool_new(2, &pool, &unit_err));
    assert_ok(tern_identity_hash_bytes(g, pool, NULL, NULL, &id, &unit_err));
    for (size_t i = 0; i < id->n; i++)
        assert_memory_equal(kv->data + (size_t)(id->entries[i].tensor - g->tensors) * TERN_HASH_BYTES,
                            id->entries[i].hash, TERN_HASH_BYTES);
    tern_identity_free(&id);
    tern_pool_free(&pool);
    tern_gguf_close(&g);
    unlink(path);
    drop(&s);
}

/* The hash of a model in memory. */
static void model_hash(const struct tern_gguf *g, uint8_t hash[TERN_HASH_BYTES])
{
    struct tern_identity *id = NULL;
    struct tern_arch arch;
    struct tern_pool *pool;

    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_ok(tern_pool_new(1, &pool, &unit_err));
    assert_ok(tern_identity_compute(g, &arch, TERN_IDENTITY_ALL, pool, NULL, NULL, &id, &unit_err));
    memcpy(hash, id->model_hash, TERN_HASH_BYTES);
    tern_identity_free(&id);
    tern_pool_free(&pool);
}

/* A noted scale is believed only where it rounds to the one in the blocks, and is part of the identity. */
static void test_exact_scales(void **state)
{
    struct source s = make(TERN_TYPE_I2_S, TERN_I2S_A, false);
    struct tern_convert_options o = to(TERN_TYPE_TQ2_0);
    const char name[] = "blk.1.ffn_up.weight";
    const float wrong[] = { 5, -1, 0, NAN, INFINITY };
    float exact, found, scale;
    uint8_t before[TERN_HASH_BYTES], after[TERN_HASH_BYTES], *noted;
    const struct tern_gguf_kv *kv;
    struct tern_gguf *g = NULL;
    void *bytes;
    char path[64];
    size_t n, size;
    FILE *f;

    (void)state;
    free(trits(s.g, name, &exact, &n));
    assert_ok(convert(s.g, &o, 1, path, 0));
    f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = (size_t)ftell(f);
    rewind(f);
    bytes = malloc(size);
    assert_int_equal(fread(bytes, 1, size, f), size);
    fclose(f);
    unlink(path);
    assert_ok(tern_gguf_parse("made.gguf", bytes, size, &g, &unit_err));
    kv = tern_gguf_find(g, TERN_EXACT_SCALE_KEY);
    assert_true(kv && kv->n == g->n_tensors);
    noted = (uint8_t *)bytes + (kv->data - (const uint8_t *)bytes) +
            4 * (size_t)(tern_gguf_tensor(g, name) - g->tensors);
    free(trits(g, name, &scale, &n));
    assert_true(scale == exact);
    model_hash(g, before);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(noted, &wrong[i], 4);
        free(trits(g, name, &found, &n));
        assert_true(found != exact && found > exact * 0.9995f && found < exact * 1.0005f);
    }
    memcpy(noted, &exact, 4);
    noted[0] ^= 1; /* its last bit */
    model_hash(g, after);
    assert_memory_not_equal(before, after, sizeof before);
    tern_gguf_close(&g);
    free(bytes);
    drop(&s);
}

/* A bit that changed on its way to the disk: in a matrix of each type, and in the last norm. */
static void test_comparison(void **state)
{
    struct source s = make(TERN_TYPE_I2_S, TERN_I2S_A, false);
    static const uint32_t types[] = { TERN_TYPE_I2_S, TERN_TYPE_TQ1_0, TERN_TYPE_TQ2_0, TERN_F16, TERN_F32 };

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        struct tern_convert_options o = to(types[i]);
        char path[64];

        assert_int_equal(convert(s.g, &o, 2, path, 5000), TERN_ERR_IO);
        assert_non_null(strstr(unit_err.text, "blk.1.ffn_down.weight"));
        unlink(path);
        assert_int_equal(convert(s.g, &o, 2, path, 2), TERN_ERR_IO);
        assert_non_null(strstr(unit_err.text, "output_norm.weight"));
        unlink(path);
    }
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),  cmocka_unit_test(test_odd_rows),     cmocka_unit_test(test_plus_one),
        cmocka_unit_test(test_hashes), cmocka_unit_test(test_exact_scales), cmocka_unit_test(test_comparison),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
