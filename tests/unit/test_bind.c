/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensors a model has, by its architecture: those that may be there, must be there, must not.
 */
#include "unit/lab_file.h"

#include "engine/gguf_write.h"
#include "engine/model.h"

#include <math.h>

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

static enum tern_status load(const struct tern_gguf *g, uint32_t first, uint32_t last, bool with_embd,
                             struct tern_model **out)
{
    const struct tern_model_options o = { .first = first, .last = last, .with_embd = with_embd };
    struct tern_arch arch;
    enum tern_status st;

    memset(&unit_err, 0, sizeof unit_err);
    *out = NULL;
    st = tern_arch_read(g, &arch, &unit_err);
    return st ? st : tern_model_load(g, &arch, &kern, pool, &o, out, &unit_err);
}

/* Refused with these words, and the file's name. */
static void refuse(const struct tern_gguf *g, enum tern_status status, const char *words)
{
    struct tern_model *m;
    enum tern_status st = load(g, 0, 2, true, &m);

    if (st != status || !strstr(unit_err.text, words) || !strstr(unit_err.text, "lab.gguf"))
        fail_msg("wanted '%s', got %s: '%s'", words, tern_status_name(st), unit_err.text);
    assert_null(m);
}

/* A copy of a model without the tensor `drop`, or with one more of n f32, or both. */
static struct lab_file changed(const struct lab_file *f, const char *drop, const char *name, const float *v,
                               uint64_t n_v)
{
    struct tern_gguf_writer *w;
    struct lab_file out;
    char *written, copy[256];
    size_t n;
    FILE *stream = open_memstream(&written, &n);

    w = lab_writer_new(stream, 32);
    for (size_t i = 0; i < f->g->n_kv; i++)
        tern_gguf_put_kv(w, &f->g->kv[i]);
    for (size_t i = 0; i < f->g->n_tensors; i++) {
        const struct tern_tensor *t = &f->g->tensors[i];

        lab_name(t, copy);
        if (strcmp(copy, drop) != 0)
            tern_gguf_add_tensor(w, copy, t->type, t->n_dims, t->ne);
    }
    if (name)
        tern_gguf_add_tensor(w, name, TERN_F32, 1, &n_v);
    tern_gguf_begin(w);
    for (size_t i = 0; i < f->g->n_tensors; i++)
        if (!tern_str_is(f->g->tensors[i].name, drop)) {
            tern_gguf_write(w, f->g->tensors[i].data, f->g->tensors[i].bytes);
            tern_gguf_end_tensor(w);
        }
    if (name) {
        tern_gguf_write(w, v, n_v * sizeof *v);
        tern_gguf_end_tensor(w);
    }
    lab_finish(&w);
    fclose(stream);
    lab_file_take(&out, written, n);
    return out;
}

/* A copy of the small model with one more tensor of 4 f32. */
static struct lab_file with_extra(const char *name, const float v[4])
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f = lab_file_new(&shape), out = changed(&f, "", name, v, 4);

    lab_file_free(&f);
    return out;
}

/* What any architecture may have besides. */
static void test_optional_tensors(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    static const float bad[] = { 0.0f, -1.0f, NAN, INFINITY };
    struct lab_file f, plain = lab_file_new(&shape);
    struct tern_model *m, *without;
    float scale, factor;

    (void)state;
    shape.scales = shape.rope_freqs = true;
    f = lab_file_new(&shape);
    assert_ok(load(plain.g, 0, 2, true, &without));
    assert_ok(load(f.g, 0, 2, true, &m));
    memcpy(&scale, tern_gguf_tensor(f.g, "blk.1.ffn_down.scale")->data, sizeof scale);
    assert_true(scale != 1.0f && m->layers[1].down.scale == without->layers[1].down.scale * scale);
    memcpy(&factor, tern_gguf_tensor(f.g, "rope_freqs.weight")->data, sizeof factor);
    assert_int_equal(m->arch.n_rope_freqs, 16);
    assert_true(m->arch.rope_freqs[0] == factor && factor != 1.0f);
    assert_int_equal(without->arch.n_rope_freqs, 0);
    tern_model_free(&m);
    tern_model_free(&without);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t *at = lab_file_data(&f, "blk.0.attn_output.scale");
        memcpy(&scale, at, sizeof scale);
        memcpy(at, &bad[i], sizeof scale);
        refuse(f.g, TERN_ERR_FORMAT, "'blk.0.attn_output.scale' is");
        memcpy(at, &scale, sizeof scale);
    }
    lab_file_free(&f);
    f = with_extra("blk.0.attn_q.scale", (const float[4]){ 1, 1, 1, 1 });
    refuse(f.g, TERN_ERR_UNSUPPORTED, "'blk.0.attn_q.scale' must be one number");
    lab_file_free(&f);
    lab_file_free(&plain);
}

/* Each architecture needs the norms it has, and refuses those it has not. */
static void test_norms_of_architectures(void **state)
{
    static const struct {
        const char *arch;
        bool no_input_norms;
        size_t n_tensors; /* of two layers, embedding and last norm */
        const char *foreign;
    } cases[] = {
        { "bitnet-b1.58", false, 2 * 11 + 2, "blk.0.attn_q_norm.weight" },
        { "bitnet", false, 2 * 11 + 2, "blk.1.post_ffw_norm.weight" },
        { "llama", false, 2 * 9 + 2, "blk.0.ffn_sub_norm.weight" },
        { "qwen3", false, 2 * 18 + 2, "blk.1.post_attention_norm.weight" },
        { "qwen3", true, 2 * 11 + 2, "blk.1.attn_sub_norm.weight" },
        { "gemma3", false, 2 * 20 + 2, "blk.1.attn_sub_norm.weight" },
        { "gemma3", true, 2 * 13 + 2, "blk.0.ffn_sub_norm.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tern_synthetic shape = lab_shape_small();
        const float ones[128] = { 1 };
        struct lab_file f, bad;
        struct tern_model *m;

        shape.arch = cases[i].arch;
        shape.no_input_norms = cases[i].no_input_norms;
        f = lab_file_new(&shape);
        assert_int_equal(f.g->n_tensors, cases[i].n_tensors);
        assert_ok(load(f.g, 0, 2, true, &m));
        tern_model_free(&m);
        bad = changed(&f, "blk.1.ffn_norm.weight", NULL, NULL, 0);
        refuse(bad.g, TERN_ERR_FORMAT, "'blk.1.ffn_norm.weight' is missing");
        lab_file_free(&bad);
        bad = changed(&f, "", cases[i].foreign, ones, 128);
        refuse(bad.g, TERN_ERR_UNSUPPORTED, cases[i].foreign);
        lab_file_free(&bad);
        lab_file_free(&f);
    }
}

static void test_unknown_tensors(void **state)
{
    static const char *const names[] = {
        "blk.0.attn_q.bias",
        "blk.0.attn_q_norm.weight",
        "blk.1.attn_q.weight.2",
        "output.bias",
    };
    const float v[4] = { 1, 1, 1, 2 };
    struct lab_file f;
    struct tern_model *m;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        f = with_extra(names[i], v);
        refuse(f.g, TERN_ERR_UNSUPPORTED, names[i]);
        lab_file_free(&f);
    }
    f = with_extra("blk.1.attn_q.bias", v); /* not a matter of layer 0 */
    assert_ok(load(f.g, 0, 1, false, &m));
    tern_model_free(&m);
    lab_file_free(&f);
    f = with_extra("blk.2.attn_q.weight", v);
    refuse(f.g, TERN_ERR_FORMAT, "of layer 2 but the model has 2 layers");
    lab_file_free(&f);
}

/* Factors of RoPE that nothing can be divided by, or of the wrong number. */
static void test_rope_freqs(void **state)
{
    static const float bad[] = { 0.0f, -1.0f, NAN, INFINITY, 1e-30f };
    const float four[4] = { 1, 2, 3, 4 }, ones[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file plain = lab_file_new(&shape), f;
    struct tern_model *m;
    float v[16];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy(v, ones, sizeof v);
        v[7] = bad[i];
        f = changed(&plain, "", "rope_freqs.weight", v, 16);
        refuse(f.g, TERN_ERR_FORMAT, "entry 7 of rope_freqs.weight is");
        lab_file_free(&f);
    }
    f = with_extra("rope_freqs.weight", four);
    refuse(f.g, TERN_ERR_FORMAT, "rope_freqs.weight must be 16 numbers");
    lab_file_free(&f);
    f = changed(&plain, "", "rope_freqs.weight", ones, 16); /* dividing by one changes nothing */
    assert_ok(load(f.g, 0, 2, true, &m));
    assert_int_equal(m->arch.n_rope_freqs, 0);
    tern_model_free(&m);
    lab_file_free(&f);
    lab_file_free(&plain);
}

/* Norms that are stored as what they are above one. */
static void test_plus_one(void **state)
{
    struct tern_synthetic shape = lab_shape_small();
    struct lab_file f;
    struct tern_model *m;

    (void)state;
    shape.varied_norms = true;
    shape.norm = TERN_F16;
    f = lab_file_new(&shape);
    for (size_t i = 0; i < f.g->n_tensors; i++)
        f.g->tensors[i].view.plus_one = tern_str_is(f.g->tensors[i].name, "blk.1.ffn_norm.weight") ||
                                        tern_str_is(f.g->tensors[i].name, "output_norm.weight");
    assert_ok(load(f.g, 0, 2, true, &m));
    for (size_t i = 0; i < 128; i++) {
        float stored[2];

        kern.f16_to_f32((const uint16_t *)(void *)lab_file_data(&f, "blk.1.ffn_norm.weight") + i, 1,
                        &stored[0]);
        kern.f16_to_f32((const uint16_t *)(void *)lab_file_data(&f, "output_norm.weight") + i, 1, &stored[1]);
        assert_true(m->layers[1].ffn_norm[i] == stored[0] + 1.0f && m->output_norm[i] == stored[1] + 1.0f);
        assert_true(m->layers[0].ffn_norm[i] < 1.7f);
    }
    tern_model_free(&m);
    lab_file_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optional_tensors), cmocka_unit_test(test_norms_of_architectures),
        cmocka_unit_test(test_unknown_tensors),  cmocka_unit_test(test_rope_freqs),
        cmocka_unit_test(test_plus_one),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
