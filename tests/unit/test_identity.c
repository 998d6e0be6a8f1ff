/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes of tensors, the hash of a model, slices, and a cache that can be stale, damaged or in the way.
 */
#include "unit/cache_folder.h"
#include "unit/lab_file.h"

#include "engine/identity.h"
#include "engine/model_file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#define FABLE TERN_SOURCE_DIR "/deploy/models/fable.gguf"

static struct tern_pool *pool;
static enum tern_identity_scope scope = TERN_IDENTITY_ALL;

static int set_up(void **state)
{
    (void)state;
    if (!make_cache() || sodium_init() < 0)
        return 1;
    return tern_pool_new(3, &pool, &unit_err) != TERN_OK;
}

static int tear_down(void **state)
{
    (void)state;
    remove_cache();
    tern_pool_free(&pool);
    return 0;
}

struct seen {
    unsigned calls, give_up_at; /* 0: never */
    uint64_t last, total;
};

static bool on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct seen *s = arg;

    s->calls++;
    s->last = done;
    s->total = total;
    return s->give_up_at == 0 || s->calls < s->give_up_at;
}

static struct tern_identity *identify(const struct tern_gguf *g, struct seen *seen)
{
    struct tern_identity *id = NULL;
    struct tern_arch arch;

    memset(seen, 0, sizeof *seen);
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_ok(tern_identity_compute(g, &arch, scope, pool, on_progress, seen, &id, &unit_err));
    return id;
}

static void test_hashes_are_blake2b(void **state)
{
    struct tern_gguf *g;
    struct tern_identity *id;
    struct seen seen;
    uint64_t total = 0;

    (void)state;
    empty_cache();
    assert_ok(tern_gguf_open(FABLE, &g, &unit_err));
    id = identify(g, &seen);
    assert_int_equal(id->n, g->n_tensors);
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_tensor *t = id->entries[i].tensor;
        uint8_t expected[TERN_HASH_BYTES];

        crypto_generichash(expected, sizeof expected, t->data, t->bytes, NULL, 0);
        assert_memory_equal(id->entries[i].hash, expected, sizeof expected);
        assert_ptr_equal(tern_identity_find(id, t->name), &id->entries[i]);
        total += t->bytes;
    }
    assert_null(tern_identity_find(id, (struct tern_str){ "blk.0.attn_q.weigh", 18 }));
    assert_null(tern_identity_find(id, (struct tern_str){ "zzz", 3 }));
    assert_null(tern_identity_find(id, (struct tern_str){ "", 0 }));
    assert_true(seen.calls > 0 && seen.last == total && seen.total == total);
    tern_identity_free(&id);
    assert_null(id);
    tern_identity_free(&id);
    tern_gguf_close(&g);
}

/* What coordinator and workers compare: not the embedding, and not from the cache of the whole list. */
static void test_layers_alone(void **state)
{
    struct tern_gguf *g;
    struct tern_identity *all, *id;
    struct seen seen;
    uint64_t total = 0;
    size_t n = 0;

    (void)state;
    empty_cache();
    assert_ok(tern_gguf_open(FABLE, &g, &unit_err));
    all = identify(g, &seen);
    scope = TERN_IDENTITY_LAYERS;
    id = identify(g, &seen);
    for (size_t i = 0; i < all->n; i++) {
        const struct tern_identity_entry *e = tern_identity_find(id, all->entries[i].tensor->name);

        assert_int_equal(e != NULL, tern_tensor_layer(all->entries[i].tensor->name) >= 0);
        if (!e)
            continue;
        assert_memory_equal(e->hash, all->entries[i].hash, TERN_HASH_BYTES);
        total += e->tensor->bytes;
        n++;
    }
    assert_true(n == id->n && n > 0 && n < all->n);
    assert_true(seen.calls > 0 && seen.total == total);
    tern_identity_free(&id);
    id = identify(g, &seen);
    assert_int_equal(seen.calls, 0); /* remembered */
    assert_int_equal(id->n, n);
    scope = TERN_IDENTITY_ALL;
    tern_identity_free(&id);
    tern_identity_free(&all);
    tern_gguf_close(&g);
}

/* The second time nothing is hashed; a damaged cache is as good as none. */
static void test_cache(void **state)
{
    static const char *const damages[] = { "none", "flip", "cut", "grow", "empty" };
    struct tern_gguf *g;
    struct tern_identity *first, *id;
    struct seen seen;
    char path[400];

    (void)state;
    empty_cache();
    assert_ok(tern_gguf_open(FABLE, &g, &unit_err));
    first = identify(g, &seen);
    assert_true(seen.calls > 0);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        struct stat sb;
        uint8_t byte;
        int fd;

        assert_true(cached_file(path));
        assert_int_equal(stat(path, &sb), 0);
        assert_int_equal(sb.st_mode & 077, 0);
        assert_int_equal(sb.st_size, (first->n + 2) * TERN_HASH_BYTES);
        fd = open(path, O_RDWR);
        if (strcmp(damages[i], "flip") == 0) {
            assert_int_equal(pread(fd, &byte, 1, 100), 1);
            byte ^= 1;
            assert_int_equal(pwrite(fd, &byte, 1, 100), 1);
        }
        if (strcmp(damages[i], "cut") == 0)
            assert_int_equal(ftruncate(fd, sb.st_size - 1), 0);
        if (strcmp(damages[i], "grow") == 0)
            assert_int_equal(ftruncate(fd, sb.st_size + 32), 0);
        if (strcmp(damages[i], "empty") == 0)
            assert_int_equal(ftruncate(fd, 0), 0);
        close(fd);
        id = identify(g, &seen);
        assert_int_equal(seen.calls > 0, i > 0); /* only the sound one spared the work */
        assert_memory_equal(id->model_hash, first->model_hash, TERN_HASH_BYTES);
        for (size_t t = 0; t < id->n; t++)
            assert_memory_equal(id->entries[t].hash, first->entries[t].hash, TERN_HASH_BYTES);
        tern_identity_free(&id);
    }
    tern_identity_free(&first);
    tern_gguf_close(&g);
}

static void test_cache_switched_off(void **state)
{
    struct tern_gguf *g;
    struct tern_identity *id;
    struct seen seen;
    char path[400];

    (void)state;
    empty_cache();
    setenv("TERN_NO_CACHE", "1", 1);
    assert_ok(tern_gguf_open(FABLE, &g, &unit_err));
    id = identify(g, &seen);
    assert_false(cached_file(path));
    tern_identity_free(&id);
    unsetenv("TERN_NO_CACHE");
    setenv("XDG_CACHE_HOME", "/proc/nowhere", 1); /* cannot be written: costs time and nothing else */
    id = identify(g, &seen);
    assert_true(seen.calls > 0);
    tern_identity_free(&id);
    setenv("XDG_CACHE_HOME", cache, 1);
    tern_gguf_close(&g);
}

/* Half a list is no list, in memory or in the cache. */
static void test_given_up(void **state)
{
    struct tern_gguf *g;
    struct tern_identity *id = NULL;
    struct tern_arch arch;
    struct seen seen = { .give_up_at = 1 };
    char path[400];

    (void)state;
    empty_cache();
    assert_ok(tern_gguf_open(FABLE, &g, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_int_equal(tern_identity_compute(g, &arch, scope, pool, on_progress, &seen, &id, &unit_err),
                     TERN_END);
    assert_null(id);
    assert_false(cached_file(path));
    tern_gguf_close(&g);
}

/* A model file that is rewritten in place is another file to the cache. */
static void test_cache_sees_a_changed_file(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    uint8_t hash[TERN_HASH_BYTES];
    char path[64] = "/tmp/tern_identity_XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    empty_cache();
    assert_true(fd >= 0);
    for (int round = 0; round < 2; round++) {
        FILE *f = fdopen(dup(fd), "r+");
        struct tern_gguf *g;
        struct tern_identity *id;
        struct seen seen;

        rewind(f);
        shape.seed = 1 + (uint64_t)round;
        lab_write_synthetic(&shape, f); /* the same size, the same directory */
        fclose(f);
        if (round == 1)
            usleep(20000); /* beyond the clock tick of time stamps */
        futimens(fd, NULL);
        assert_ok(tern_gguf_open(path, &g, &unit_err));
        id = identify(g, &seen);
        assert_true(seen.calls > 0);
        if (round == 0)
            memcpy(hash, id->model_hash, sizeof hash);
        else
            assert_memory_not_equal(hash, id->model_hash, sizeof hash);
        tern_identity_free(&id);
        tern_gguf_close(&g);
    }
    close(fd);
    unlink(path);
    empty_cache();
}

/* Every tensor of a slice is in the whole model's list, with the same hash. */
static void test_slice_is_part_of_the_model(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file whole, slice;
    struct tern_identity *a, *b;
    struct tern_arch arch_a, arch_b;
    uint8_t hash_a[TERN_HASH_BYTES], hash_b[TERN_HASH_BYTES];
    struct seen seen;
    char *written;
    size_t n;
    FILE *f;

    (void)state;
    shape.n_layers = 3;
    whole = lab_file_new(&shape);
    f = open_memstream(&written, &n);
    lab_write_slice(whole.g, 1, 2, f);
    fclose(f);
    lab_file_take(&slice, written, n);
    a = identify(whole.g, &seen);
    b = identify(slice.g, &seen);
    assert_int_equal(b->n, 22);
    for (size_t i = 0; i < b->n; i++) {
        const struct tern_identity_entry *e = tern_identity_find(a, b->entries[i].tensor->name);

        assert_non_null(e);
        assert_memory_equal(e->hash, b->entries[i].hash, TERN_HASH_BYTES);
    }
    assert_memory_not_equal(a->model_hash, b->model_hash, TERN_HASH_BYTES);
    assert_ok(tern_arch_read(whole.g, &arch_a, &unit_err));
    assert_ok(tern_arch_read(slice.g, &arch_b, &unit_err));
    tern_arch_hash(&arch_a, hash_a);
    tern_arch_hash(&arch_b, hash_b);
    assert_memory_equal(hash_a, hash_b, TERN_HASH_BYTES);
    tern_identity_free(&a);
    tern_identity_free(&b);
    lab_file_free(&whole);
    lab_file_free(&slice);
}

/* The same bytes that options say to read otherwise are another model, if it is of them that the options
 * speak. */
static void test_options_are_part_of_it(void **state)
{
    static const struct {
        uint32_t type;
        bool layout, tiles, quantize; /* matter */
    } cases[] = { { TERN_TYPE_I2_S, true, false, false },
                  { TERN_TYPE_TL1, false, true, false },
                  { TERN_F32, false, false, true } };
    const struct tern_file_options options[3] = {
        { .i2s_layout = TERN_I2S_B },
        { .tl_tiles = { { 256, 128, 64, 64, 32 } }, .n_tl_tiles = 1 },
        { .quantize = true },
    };
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file plain = lab_file_new(&shape);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const bool matters[3] = { cases[i].layout, cases[i].tiles, cases[i].quantize };
        struct tern_identity *a, *b;
        struct lab_file f;
        struct seen seen;
        char *written;
        size_t n;
        FILE *stream = open_memstream(&written, &n);

        lab_write_retyped(plain.g, &(struct lab_retype){ cases[i].type, TERN_I2S_A, UINT32_MAX }, stream);
        fclose(stream);
        lab_file_take(&f, written, n);
        a = identify(f.g, &seen);
        for (size_t j = 0; j < 3; j++) {
            assert_ok(tern_model_file_set_options(f.g, &options[j], &unit_err));
            b = identify(f.g, &seen);
            assert_int_equal(memcmp(a->model_hash, b->model_hash, TERN_HASH_BYTES) != 0, matters[j]);
            tern_identity_free(&b);
        }
        tern_identity_free(&a);
        lab_file_free(&f);
    }
    lab_file_free(&plain);
}

static int layer_of(const char *name)
{
    return tern_tensor_layer((struct tern_str){ name, strlen(name) });
}

static void test_layers_of_names(void **state)
{
    (void)state;
    assert_int_equal(layer_of("blk.17.attn_q.weight"), 17);
    assert_int_equal(layer_of("blk.0.x"), 0);
    assert_int_equal(layer_of("blk.511.x"), 511);
    assert_int_equal(layer_of("blk..x"), -1);
    assert_int_equal(layer_of("blk.5"), -1);
    assert_int_equal(layer_of("blk.-1.x"), -1);
    assert_int_equal(layer_of("blk.5x.y"), -1);
    assert_int_equal(layer_of("blk.99999999999999999999.x"), -1);
    assert_int_equal(layer_of("token_embd.weight"), -1);
    assert_int_equal(layer_of(""), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes_are_blake2b),
        cmocka_unit_test(test_layers_alone),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_cache_switched_off),
        cmocka_unit_test(test_cache_sees_a_changed_file),
        cmocka_unit_test(test_slice_is_part_of_the_model),
        cmocka_unit_test(test_options_are_part_of_it),
        cmocka_unit_test(test_layers_of_names),
        cmocka_unit_test(test_given_up),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
