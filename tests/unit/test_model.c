/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading weights: every type gives the same tiles, slices are parts of the whole, predictions are exact, and
 * what cannot be right is refused with a sentence.
 */
#include "unit/lab_file.h"

#include "engine/gguf_write.h"
#include "engine/model.h"
#include "engine/model_file.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

static struct tern_kernels kern;
static struct tern_pool *pools[2];  /* of one thread, and of three */
static enum tern_tile_layout tiles; /* all tests run once for each */

static int set_up(void **state)
{
    (void)state;
    tern_kernels_init(&kern, TERN_CPU_REF);
    return tern_pool_new(1, &pools[0], &unit_err) || tern_pool_new(3, &pools[1], &unit_err);
}

static int tear_down(void **state)
{
    (void)state;
    tern_pool_free(&pools[0]);
    tern_pool_free(&pools[1]);
    return 0;
}

static enum tern_status load(const struct tern_gguf *g, uint32_t first, uint32_t last, bool with_embd,
                             enum tern_i2s_layout layout, struct tern_model **out)
{
    const struct tern_model_options o = { first, last, with_embd, tiles, NULL, NULL };
    const struct tern_file_options file = { .i2s_layout = layout };
    struct tern_arch arch;
    memset(&unit_err, 0, sizeof unit_err);
    *out = NULL;
    assert_ok(tern_model_file_set_options((struct tern_gguf *)(uintptr_t)g, &file, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    return tern_model_load(g, &arch, &kern, pools[1], &o, out, &unit_err);
}

/* Refused with these words, and the file's name. */
static void refuse(const struct tern_gguf *g, enum tern_i2s_layout layout, enum tern_status status,
                   const char *words)
{
    struct tern_model *m;
    enum tern_status st = load(g, 0, 2, true, layout, &m);

    if (st != status || !strstr(unit_err.text, words) || !strstr(unit_err.text, "lab.gguf"))
        fail_msg("wanted '%s', got %s: '%s'", words, tern_status_name(st), unit_err.text);
    assert_null(m);
}

static struct tern_synthetic wide_shape(void)
{
    struct tern_synthetic s = lab_shape_small();

    s.n_embd = 256; /* blocks of 256 for TQ types and K quants */
    s.head_dim = 64;
    s.n_ffn = 512;
    return s;
}

/* Weight (row, col) of a tensor in layout A, from the layout's definition (pack.h). */
static int weight_a(const struct tern_tensor *t, size_t row, size_t col)
{
    size_t e = row * (size_t)t->ne[0] + col, j = e % 128;

    return (t->data[e / 128 * 32 + j % 32] >> (6 - 2 * (j / 32)) & 3) - 1;
}

static void test_weights_are_those_of_the_file(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape);
    const struct tern_tensor *t = tern_gguf_tensor(f.g, "blk.1.ffn_down.weight");
    struct tern_model *m;
    const struct tern_matrix *down;
    float scale;

    (void)state;
    assert_ok(load(f.g, 0, 2, true, TERN_I2S_A, &m));
    down = &m->layers[1].down;
    assert_int_equal(down->m, 128);
    assert_int_equal(down->k, 256);
    assert_int_equal((uintptr_t)down->tiles % 64, 0);
    for (size_t r = 0; r < 128; r++)
        for (size_t c = 0; c < 256; c++)
            assert_int_equal(tern_unpack_at(tiles, down->tiles, down->k, r, c), weight_a(t, r, c));
    memcpy(&scale, t->data + 128 * 256 / 4, sizeof scale);
    assert_true(down->scale == scale && scale > 0);
    for (size_t i = 0; i < 128; i++)
        assert_true(m->layers[0].attn_norm[i] == 1.0f && m->output_norm[i] == 1.0f);
    assert_ptr_equal(m->embd, tern_gguf_tensor(f.g, "token_embd.weight"));
    assert_ptr_equal(m->head, m->embd);
    tern_model_free(&m);
    assert_null(m);
    tern_model_free(&m);
    lab_file_free(&f);
}

/* The same seed in every ternary type and layout: the same tiles. */
static void test_types_agree(void **state)
{
    static const struct {
        uint32_t type;
        enum tern_i2s_layout layout;
    } kinds[] = { { TERN_TYPE_I2_S, TERN_I2S_A },
                  { TERN_TYPE_I2_S, TERN_I2S_B },
                  { TERN_TYPE_I2_S, TERN_I2S_C },
                  { TERN_TYPE_TQ1_0, TERN_I2S_A },
                  { TERN_TYPE_TQ2_0, TERN_I2S_A } };
    struct tern_model *first = NULL, *m;

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct tern_synthetic shape = wide_shape();
        struct lab_file f;

        shape.ternary = kinds[i].type;
        shape.layout = kinds[i].layout;
        f = lab_file_new(&shape);
        assert_ok(load(f.g, 0, 2, false, kinds[i].layout, &m));
        if (!first) {
            first = m;
        } else {
            float a = first->layers[0].up.scale, b = m->layers[0].up.scale;

            assert_int_equal(m->tiles_bytes, first->tiles_bytes);
            assert_memory_equal(m->tiles, first->tiles, m->tiles_bytes);
            assert_true(kinds[i].type == TERN_TYPE_I2_S ? a == b
                                                        : fabsf(a - b) < a / 1024); /* f16 in TQ blocks */
            tern_model_free(&m);
        }
        lab_file_free(&f); /* without embedding a model outlives its file */
    }
    tern_model_free(&first);
}

static void test_slices_and_threads(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f;
    struct tern_model *whole, *part, *single;
    struct tern_arch arch;
    struct tern_model_options o = { .first = 0, .last = 3, .layout = tiles };
    size_t at = 0;

    (void)state;
    shape.n_layers = 3;
    f = lab_file_new(&shape);
    assert_ok(load(f.g, 0, 3, true, TERN_I2S_A, &whole));
    for (uint32_t l = 0; l < 3; l++) {
        assert_ok(load(f.g, l, l + 1, false, TERN_I2S_A, &part));
        assert_memory_equal(part->tiles, (uint8_t *)whole->tiles + at, part->tiles_bytes);
        assert_null(part->embd);
        assert_null(part->output_norm);
        at += part->tiles_bytes;
        tern_model_free(&part);
    }
    assert_int_equal(at, whole->tiles_bytes);
    assert_ok(tern_arch_read(f.g, &arch, &unit_err));
    assert_ok(tern_model_load(f.g, &arch, &kern, pools[0], &o, &single, &unit_err));
    assert_memory_equal(single->tiles, whole->tiles, whole->tiles_bytes);
    tern_model_free(&single);
    assert_ok(load(f.g, 0, 0, true, TERN_I2S_A, &part)); /* a coordinator of remote workers */
    assert_int_equal(part->tiles_bytes, 0);
    assert_non_null(part->output_norm);
    assert_ok(tern_model_check(part, &unit_err));
    tern_model_free(&part);
    assert_int_equal(load(f.g, 2, 4, false, TERN_I2S_A, &part), TERN_ERR_USAGE);
    assert_int_equal(load(f.g, 2, 1, false, TERN_I2S_A, &part), TERN_ERR_USAGE);
    tern_model_free(&whole);
    lab_file_free(&f);
}

static void test_slice_file(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file whole, slice;
    struct tern_model *a, *b;
    char *written;
    size_t n;
    FILE *stream;

    (void)state;
    shape.n_layers = 4;
    whole = lab_file_new(&shape);
    stream = open_memstream(&written, &n);
    lab_write_slice(whole.g, 1, 2, stream);
    fclose(stream);
    lab_file_take(&slice, written, n);
    assert_ok(load(whole.g, 1, 3, false, TERN_I2S_A, &a));
    assert_ok(load(slice.g, 1, 3, false, TERN_I2S_A, &b));
    assert_memory_equal(a->tiles, b->tiles, a->tiles_bytes);
    tern_model_free(&a);
    tern_model_free(&b);
    assert_int_equal(load(slice.g, 0, 2, false, TERN_I2S_A, &a), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "'blk.0.attn_norm.weight' is missing"));
    assert_int_equal(load(slice.g, 1, 3, true, TERN_I2S_A, &a), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "'token_embd.weight' is missing"));
    lab_file_free(&whole);
    lab_file_free(&slice);
}

static void test_need_is_exact(void **state)
{
    (void)state;
    for (uint32_t untied = 0; untied < 2; untied++)
        for (uint32_t first = 0; first < 2; first++) {
            struct tern_synthetic shape = lab_shape_small();
            struct lab_file f;
            struct tern_arch arch;
            struct tern_model_need need;
            struct tern_model *m;

            shape.untied = untied;
            shape.n_ffn = 260; /* padded tiles, and norms that end within a cache line */
            shape.n_embd = 192;
            shape.n_vocab = 300;
            shape.ternary = TERN_TYPE_I2_S;
            shape.layout = TERN_I2S_C;
            f = lab_file_new(&shape);
            assert_ok(tern_arch_read(f.g, &arch, &unit_err));
            assert_ok(tern_model_need(f.g, &arch, first, 2, true, tiles, 64, 2, &need, &unit_err));
            assert_ok(load(f.g, first, 2, true, TERN_I2S_C, &m));
            assert_int_equal(need.tiles_bytes, m->tiles_bytes);
            assert_int_equal(need.norms_bytes, m->norms_bytes);
            assert_int_equal(need.embd_bytes, (1 + untied) * 300 * 192 * 2);
            assert_int_equal(need.kv_page_bytes[TERN_KV_F16],
                             (2 - first) * 32 * 2 * 32 * 2 *
                                 2); /* layers, positions, heads, dims, K+V, f16 */
            assert_true(need.scratch_bytes > 0 && need.fixed_bytes > 0);
            assert_int_equal(m->head != m->embd, untied);
            tern_model_free(&m);
            assert_int_equal(tern_model_need(f.g, &arch, 1, 3, false, tiles, 1, 1, &need, &unit_err),
                             TERN_ERR_USAGE);
            lab_file_free(&f);
        }
}

static void test_norm_and_table_types(void **state)
{
    static const uint32_t norms[] = { TERN_F32, TERN_F16, TERN_BF16 };
    static const uint32_t tables[] = { TERN_F32,  TERN_F16,  TERN_BF16, TERN_Q8_0,
                                       TERN_Q6_K, TERN_Q4_0, TERN_Q4_K, TERN_TQ2_0 };
    float x[256], exact[256];

    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        struct tern_synthetic shape = wide_shape();
        struct lab_file f;
        struct tern_model *m;
        double error = 0, size = 0;

        shape.embd = tables[i];
        shape.norm = norms[i % 3];
        f = lab_file_new(&shape);
        assert_ok(load(f.g, 0, 2, true, TERN_I2S_A, &m));
        for (size_t j = 0; j < 512; j++)
            assert_true(m->layers[1].down_in[j] == 1.0f);
        tern_dequant_row((enum tern_dtype)tables[i], m->embd->data, 256, x);
        if (i == 0)
            memcpy(exact, x, sizeof exact);
        for (size_t j = 0; j < 256; j++) {
            error += ((double)x[j] - (double)exact[j]) * ((double)x[j] - (double)exact[j]);
            size += (double)exact[j] * (double)exact[j];
        }
        /* The same numbers, as well as the type can hold them: three values hold them badly. */
        assert_true(error < size * (tables[i] == TERN_TQ2_0 ? 0.6 : 0.02));
        tern_model_free(&m);
        lab_file_free(&f);
    }
}

/* -- refusals ---------------------------------------------------------------------------------- */

static void test_bad_scales(void **state)
{
    static const float scales[] = { 0.0f, -0.0f, -1.0f, NAN, INFINITY, -INFINITY };
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape);
    uint8_t *at = lab_file_data(&f, "blk.1.attn_k.weight") + 128 * 64 / 4;

    (void)state;
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        memcpy(at, &scales[i], sizeof scales[i]);
        refuse(f.g, TERN_I2S_A, TERN_ERR_FORMAT,
               "'blk.1.attn_k.weight' (I2_S) has a scale that is not a positive number");
    }
    lab_file_free(&f);
}

static void test_bad_codes(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape);

    (void)state;
    lab_file_data(&f, "blk.0.ffn_up.weight")[5000] |= 0x0c; /* code 3 */
    refuse(f.g, TERN_I2S_A, TERN_ERR_FORMAT, "'blk.0.ffn_up.weight' (I2_S) holds codes");
    lab_file_free(&f);
}

static void test_tq_scales_differ(void **state)
{
    struct tern_synthetic shape = wide_shape();
    struct lab_file f;

    (void)state;
    shape.ternary = TERN_TYPE_TQ2_0;
    f = lab_file_new(&shape);
    lab_file_data(&f, "blk.0.attn_v.weight")[66 * 77 + 64] ^= 1; /* lowest bit of one block's scale */
    refuse(f.g, TERN_I2S_A, TERN_ERR_UNSUPPORTED,
           "'blk.0.attn_v.weight' (TQ2_0) has blocks of different scales");
    lab_file_free(&f);
    f = lab_file_new(&shape);
    lab_file_data(&f, "blk.0.attn_v.weight")[65] = 0x7c; /* infinity */
    refuse(f.g, TERN_I2S_A, TERN_ERR_FORMAT, "not a positive number");
    lab_file_free(&f);
}

static void test_bad_norms(void **state)
{
    const float bad[] = { NAN, INFINITY };
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape);

    (void)state;
    for (int i = 0; i < 2; i++) {
        memcpy(lab_file_data(&f, "blk.1.attn_sub_norm.weight") + 4 * 100, &bad[i], sizeof bad[i]);
        refuse(f.g, TERN_I2S_A, TERN_ERR_FORMAT, "'blk.1.attn_sub_norm.weight' holds infinite or undefined");
    }
    lab_file_free(&f);
}

static void test_layouts_have_their_shapes(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f;

    (void)state;
    shape.n_ffn = 258; /* 128 * 258 weights: a multiple of 128, but 258 rows are no multiple of 4 */
    f = lab_file_new(&shape);
    refuse(f.g, TERN_I2S_C, TERN_ERR_FORMAT, "layout C");
    lab_file_free(&f);
    shape.n_ffn = 260;
    shape.n_embd = 100;
    shape.layout = TERN_I2S_C;
    f = lab_file_new(&shape);
    refuse(f.g, TERN_I2S_A, TERN_ERR_FORMAT, "a multiple of 128 weights");
    refuse(f.g, TERN_I2S_B, TERN_ERR_FORMAT, "a multiple of 64 weights");
    lab_file_free(&f);
}

/* Other hyper-parameters than the tensors were made for. */
static void test_shapes_must_agree(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape);
    const struct tern_model_options o = { .first = 0, .last = 2, .with_embd = true };
    struct tern_arch sound, a;
    struct tern_model *m = NULL;

    (void)state;
    assert_ok(tern_arch_read(f.g, &sound, &unit_err));
#define DISAGREES(field, value, words)                                                                       \
    a = sound;                                                                                               \
    a.field = value;                                                                                         \
    assert_int_equal(tern_model_load(f.g, &a, &kern, pools[0], &o, &m, &unit_err), TERN_ERR_FORMAT);         \
    assert_non_null(strstr(unit_err.text, words))
    DISAGREES(n_ffn, 512, "'blk.0.ffn_sub_norm.weight' is 256 x 1 x 1 x 1 but the metadata asks for 512 x 1");
    DISAGREES(n_kv_heads, 4, "'blk.0.attn_k.weight' is 128 x 64");
    DISAGREES(n_vocab, 321, "'token_embd.weight' is 128 x 320");
    assert_null(m);
    lab_file_free(&f);
}

/* -- files ------------------------------------------------------------------------------------- */

/* Kilobytes of a file that are resident in this process. */
static long resident_kb(const char *path)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[600];
    bool inside = false;
    long kb, sum = 0;

    while (fgets(line, sizeof line, f)) {
        if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
            inside = strstr(line, path) != NULL;
        else if (inside && sscanf(line, "Rss: %ld kB", &kb) == 1)
            sum += kb;
    }
    fclose(f);
    return sum;
}

static void test_releases_the_files_pages(void **state)
{
    struct tern_synthetic shape = wide_shape();
    char path[64] = "/tmp/tern_model_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "wb");
    struct tern_gguf *g;
    struct tern_model *m;

    (void)state;
    shape.n_layers = 16;
    lab_write_synthetic(&shape, f);
    fclose(f);
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_true(g->size > 2000000);
    assert_ok(load(g, 0, 16, false, TERN_I2S_A, &m));
    if (resident_kb(path) > 128)
        fail_msg("%ld kB of the file stay resident", resident_kb(path));
    tern_model_free(&m);
    tern_gguf_close(&g);
    unlink(path);
}

static bool on_progress_truncate(void *arg, uint64_t done, uint64_t total)
{
    if (done * 2 > total)
        assert_int_equal(truncate(arg, 8192), 0);
    return true;
}

static bool on_progress_enough(void *arg, uint64_t done, uint64_t total)
{
    (*(unsigned *)arg)++;
    return done * 2 < total;
}

static void test_given_up(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    char path[64] = "/tmp/tern_model_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "wb");
    unsigned calls = 0;
    struct tern_model_options o = { .last = 2, .progress = on_progress_enough, .progress_arg = &calls };
    struct tern_gguf *g;
    struct tern_arch arch;
    struct tern_model *m = NULL;

    (void)state;
    lab_write_synthetic(&shape, f);
    fclose(f);
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_int_equal(tern_model_load(g, &arch, &kern, pools[1], &o, &m, &unit_err), TERN_END);
    assert_null(m);
    assert_in_range(calls, 2, 13); /* of 14 matrices */
    tern_gguf_close(&g);
    unlink(path);
}

static void test_truncated_while_loading(void **state)
{
    struct tern_synthetic shape = wide_shape();
    char path[64] = "/tmp/tern_model_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "wb");
    struct tern_model_options o = {
        .last = 2, .with_embd = true, .progress = on_progress_truncate, .progress_arg = path
    };
    struct tern_gguf *g;
    struct tern_arch arch;
    struct tern_model *m = NULL;

    (void)state;
    assert_ok(tern_mapping_guard_install(&unit_err));
    lab_write_synthetic(&shape, f);
    fclose(f);
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_int_equal(tern_model_load(g, &arch, &kern, pools[1], &o, &m, &unit_err), TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, "truncated"));
    assert_null(m);
    tern_gguf_close(&g);
    unlink(path);
}

static void test_truncated_after_loading(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    char path[64] = "/tmp/tern_model_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "wb");
    struct tern_gguf *g;
    struct tern_model *m;

    (void)state;
    assert_ok(tern_mapping_guard_install(&unit_err));
    lab_write_synthetic(&shape, f);
    fclose(f);
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_ok(load(g, 0, 2, true, TERN_I2S_A, &m));
    assert_ok(tern_model_check(m, &unit_err));
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(tern_model_check(m, &unit_err), TERN_ERR_IO);
    tern_model_free(&m);
    tern_gguf_close(&g);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_are_those_of_the_file),
        cmocka_unit_test(test_types_agree),
        cmocka_unit_test(test_slices_and_threads),
        cmocka_unit_test(test_slice_file),
        cmocka_unit_test(test_need_is_exact),
        cmocka_unit_test(test_norm_and_table_types),
        cmocka_unit_test(test_bad_scales),
        cmocka_unit_test(test_bad_codes),
        cmocka_unit_test(test_tq_scales_differ),
        cmocka_unit_test(test_bad_norms),
        cmocka_unit_test(test_layouts_have_their_shapes),
        cmocka_unit_test(test_shapes_must_agree),
        cmocka_unit_test(test_releases_the_files_pages),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_truncated_while_loading),
        cmocka_unit_test(test_truncated_after_loading),
    };

    int failed = 0;

    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        tiles = (enum tern_tile_layout)l;
        failed += cmocka_run_group_tests_name(tern_pack_layout_name(tiles), tests, set_up, tear_down);
    }
    return failed;
}
