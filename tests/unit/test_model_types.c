/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fable model in every type that ternary matrices have in files: the same tiles, and the same scales
 * where the type can hold them.
 */
#include "unit/lab_file.h"

#include "engine/model.h"
#include "engine/model_file.h"

#include <math.h>

#define FABLE TERN_SOURCE_DIR "/deploy/models/fable.gguf"

static struct tern_kernels kern;
static struct tern_pool *pool;

static int set_up(void **state)
{
    (void)state;
    tern_kernels_init(&kern, TERN_CPU_REF);
    return tern_pool_new(2, &pool, &unit_err) != TERN_OK;
}

static int tear_down(void **state)
{
    (void)state;
    tern_pool_free(&pool);
    return 0;
}

static struct tern_model *load(const struct tern_gguf *g, enum tern_tile_layout layout)
{
    struct tern_model_options o = { .layout = layout };
    struct tern_model *m = NULL;
    struct tern_arch arch;

    assert_ok(tern_arch_read(g, &arch, &unit_err));
    o.last = arch.n_layers;
    assert_ok(tern_model_load(g, &arch, &kern, pool, &o, &m, &unit_err));
    return m;
}

/* Tells the model in which tiles the lab has written it. */
static void tell_tiles(struct tern_gguf *g, uint32_t type, enum tern_i2s_layout layout)
{
    struct tern_file_options o = { .i2s_layout = layout };

    for (size_t i = 0; i < g->n_tensors && o.n_tl_tiles < TERN_MAX_TL_TILES; i++)
        if (g->tensors[i].type == type && (type == TERN_TYPE_TL1 || type == TERN_TYPE_TL2))
            assert_true(lab_tl_tiles(type, g->tensors[i].ne, &o.tl_tiles[o.n_tl_tiles++]));
    assert_ok(tern_model_file_set_options(g, &o, &unit_err));
}

static void test_every_type(void **state)
{
    static const struct {
        uint32_t type;
        enum tern_i2s_layout layout;
        bool exact; /* a scale of 32 bits */
    } kinds[] = {
        { TERN_TYPE_I2_S, TERN_I2S_A, true },   { TERN_TYPE_I2_S, TERN_I2S_B, true },
        { TERN_TYPE_I2_S, TERN_I2S_C, true },   { TERN_TYPE_TL1, TERN_I2S_A, true },
        { TERN_TYPE_TL2, TERN_I2S_A, true },    { TERN_F32, TERN_I2S_A, true },
        { TERN_TYPE_TQ1_0, TERN_I2S_A, false }, { TERN_TYPE_TQ2_0, TERN_I2S_A, false },
        { TERN_F16, TERN_I2S_A, false },        { TERN_BF16, TERN_I2S_A, false },
    };
    struct tern_gguf *fable = NULL;

    (void)state;
    assert_ok(tern_gguf_open(FABLE, &fable, &unit_err));
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
        struct tern_model *want = load(fable, (enum tern_tile_layout)l);

        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            struct lab_file f;
            struct tern_model *m;
            char *written;
            size_t n;
            FILE *stream = open_memstream(&written, &n);

            lab_write_retyped(fable, &(struct lab_retype){ kinds[i].type, kinds[i].layout, UINT32_MAX },
                              stream);
            fclose(stream);
            lab_file_take(&f, written, n);
            tell_tiles(f.g, kinds[i].type, kinds[i].layout);
            m = load(f.g, (enum tern_tile_layout)l);
            assert_int_equal(m->tiles_bytes, want->tiles_bytes);
            assert_memory_equal(m->tiles, want->tiles, m->tiles_bytes);
            for (uint32_t j = 0; j < m->last; j++) {
                float a = m->layers[j].down.scale, b = want->layers[j].down.scale;

                assert_true(kinds[i].exact ? a == b : fabsf(a - b) <= b / 256);
            }
            tern_model_free(&m);
            lab_file_free(&f);
        }
        tern_model_free(&want);
    }
    tern_gguf_close(&fable);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_type) };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
