/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders of each family become what a GGUF of the model would be: keys, names, shapes, views.
 */
#include "unit/unit.h"

#include "engine/arch.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"
#include "unit/hf_family.h"

#include <math.h>
#include <sys/stat.h>

/* -- looking --------------------------------------------------------------------------------------------- */

static void check_tensor(const struct tern_gguf *g, const char *name, uint32_t type, uint64_t ne0,
                         uint64_t ne1)
{
    const struct tern_tensor *t = tern_gguf_tensor(g, name);

    if (!t)
        fail_msg("no tensor '%s'", name);
    if (t->type != type || t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != 1 || t->ne[3] != 1)
        fail_msg("'%s' is of type %u and %llu x %llu", name, t->type, (unsigned long long)t->ne[0],
                 (unsigned long long)t->ne[1]);
    assert_true(t->map < g->n_maps && t->data >= g->maps[t->map].bytes &&
                t->data + t->bytes <= g->maps[t->map].bytes + g->maps[t->map].size);
}

static void check_matrices(const struct tern_gguf *g, uint32_t type)
{
    static const struct {
        const char *name;
        uint64_t ne0, ne1;
    } wanted[] = { { "attn_q", 24, 24 },      { "attn_k", 24, 12 },   { "attn_v", 24, 12 },
                   { "attn_output", 24, 24 }, { "ffn_gate", 24, 26 }, { "ffn_up", 24, 26 },
                   { "ffn_down", 26, 24 } };
    char name[64];

    for (unsigned l = 0; l < 2; l++)
        for (size_t i = 0; i < 7; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, wanted[i].name);
            check_tensor(g, name, type, wanted[i].ne0, wanted[i].ne1);
        }
}

static void check_u32(const struct tern_gguf *g, const char *key, uint64_t wanted)
{
    uint64_t v = 0;

    assert_ok(tern_gguf_u64(g, key, &v, &unit_err));
    assert_int_equal(v, wanted);
}

static void check_text(const struct tern_gguf *g, const char *key, const char *wanted)
{
    struct tern_str s = { "", 0 };

    assert_ok(tern_gguf_string(g, key, &s, &unit_err));
    if (!tern_str_is(s, wanted))
        fail_msg("%s is '%.*s'", key, TERN_STR_ARGS(s));
}

/* -- families -------------------------------------------------------------------------------------------- */

static void test_bitnet(void **state)
{
    struct hf_bed *b = hf_make(&hf_bitnet);
    struct tern_gguf *g = hf_open_ok(b);
    const struct tern_tensor *t;
    struct tern_arch a;
    double d = 0;

    (void)state;
    check_text(g, "general.architecture", "bitnet-b1.58");
    check_text(g, "general.name", strrchr(b->path, '/') + 1);
    check_u32(g, "general.file_type", 32);
    check_u32(g, "bitnet-b1.58.block_count", 2);
    check_u32(g, "bitnet-b1.58.vocab_size", 40);
    check_u32(g, "bitnet-b1.58.context_length", 512);
    check_u32(g, "bitnet-b1.58.attention.key_length", 6);
    assert_ok(tern_gguf_f64(g, "bitnet-b1.58.rope.freq_base", &d, &unit_err));
    assert_true(d == 500000);
    assert_null(tern_gguf_find(g, "bitnet-b1.58.activation"));
    assert_ok(tern_arch_read(g, &a, &unit_err));
    assert_int_equal(a.n_vocab, 40);
    assert_int_equal(a.n_kv_heads, 2);
    check_matrices(g, TERN_BF16);
    check_tensor(g, "token_embd.weight", TERN_BF16, 24, 40);
    check_tensor(g, "output_norm.weight", TERN_F32, 24, 1);
    check_tensor(g, "blk.1.attn_norm.weight", TERN_F32, 24, 1);
    check_tensor(g, "blk.1.ffn_norm.weight", TERN_F32, 24, 1);
    check_tensor(g, "blk.1.attn_sub_norm.weight", TERN_F32, 24, 1);
    check_tensor(g, "blk.1.ffn_sub_norm.weight", TERN_F32, 26, 1);
    assert_int_equal(g->n_tensors, 2 + 2 * 11); /* the tied head and inv_freq are not there */
    t = tern_gguf_tensor(g, "blk.0.attn_q.weight");
    assert_true(t->view.absmean && t->view.n_heads == 0 && !t->view.plus_one);
    assert_false(tern_gguf_tensor(g, "token_embd.weight")->view.absmean);
    assert_ok(tern_gguf_check(g, &unit_err));
    tern_gguf_close(&g);
    hf_bed_free(b);
}

static void test_bitnet_packed(void **state)
{
    struct hf_family f = hf_bitnet;
    struct hf_bed *b;
    struct tern_gguf *g;

    (void)state;
    f.packed = true;
    f.config = "{\"architectures\":[\"BitNetForCausalLM\"],\"hidden_act\":\"relu2\"," HF_SHAPE
               ",\"tie_word_embeddings\":true,\"quantization_config\":{\"quant_method\":\"bitnet\","
               "\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}}";
    b = hf_make(&f);
    g = hf_open_ok(b);
    check_u32(g, "general.file_type", 40);
    check_matrices(g, TERN_TYPE_HF_PACKED); /* 26 rows in 7 of bytes */
    assert_int_equal(tern_gguf_tensor(g, "blk.0.ffn_up.weight")->bytes, 7 * 24);
    assert_true(tern_gguf_tensor(g, "blk.0.ffn_up.weight")->view.scale == 2.0f);
    assert_false(tern_gguf_tensor(g, "blk.0.ffn_up.weight")->view.absmean);
    tern_gguf_close(&g);
    hf_bed_free(b);
}

/* 1bitLLM: another class name, model_type "llama", SiLU, other names of the norms. */
static void test_1bitllm(void **state)
{
    struct hf_family f = hf_bitnet;
    struct hf_bed *b;
    struct tern_gguf *g;

    (void)state;
    f.config = "{\"architectures\":[\"BitnetForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
               "\"tie_word_embeddings\":true,\"rope_scaling\":null," HF_SHAPE "}";
    f.norms[2] = "self_attn.inner_attn_ln";
    f.norms[3] = "mlp.ffn_layernorm";
    b = hf_make(&f);
    g = hf_open_ok(b);
    check_text(g, "general.architecture", "bitnet");
    check_u32(g, "bitnet.feed_forward_length", 26);
    assert_null(tern_gguf_find(g, "bitnet.activation"));
    check_tensor(g, "blk.0.attn_sub_norm.weight", TERN_F32, 24, 1);
    assert_non_null(tern_gguf_tensor(g, "blk.0.ffn_sub_norm.weight"));
    assert_true(tern_gguf_tensor(g, "blk.1.ffn_down.weight")->view.absmean);
    tern_gguf_close(&g);
    hf_bed_free(b);
}

static void test_llama(void **state)
{
    struct hf_bed *b = hf_make(&hf_llama);
    struct tern_gguf *g = hf_open_ok(b);

    (void)state;
    check_text(g, "general.architecture", "llama");
    check_matrices(g, TERN_TYPE_HF_PACKED);
    check_tensor(g, "output.weight", TERN_BF16, 24, 40);
    assert_int_equal(tern_gguf_tensor(g, "blk.0.attn_q.weight")->view.n_heads, 4);
    assert_int_equal(tern_gguf_tensor(g, "blk.0.attn_k.weight")->view.n_heads, 2);
    assert_int_equal(tern_gguf_tensor(g, "blk.0.attn_v.weight")->view.n_heads, 0);
    assert_true(tern_gguf_tensor(g, "blk.0.attn_v.weight")->view.scale == 0.5f); /* divides */
    assert_null(tern_gguf_tensor(g, "rope_freqs.weight"));
    assert_int_equal(g->n_tensors, 3 + 2 * 9);
    tern_gguf_close(&g);
    hf_bed_free(b);
}

/* Floats of a llama are ordinary ones unless the configuration says that they are quantised as it runs. */
static void test_llama_floats(void **state)
{
    struct hf_family f = hf_llama;

    (void)state;
    f.packed = false;
    for (int i = 0; i < 3; i++) {
        static const char *const ends[] = {
            "}", ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"offline\"}}",
            ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"online\"}}"
        };
        char config[1024];
        struct hf_bed *b;
        struct tern_gguf *g;

        snprintf(config, sizeof config,
                 "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\",%s%s", HF_SHAPE, ends[i]);
        f.config = config;
        b = hf_make(&f);
        g = hf_open_ok(b);
        assert_int_equal(tern_gguf_tensor(g, "blk.0.attn_v.weight")->view.absmean, i == 2);
        assert_int_equal(tern_gguf_tensor(g, "blk.0.attn_k.weight")->view.n_heads, 2);
        assert_non_null(tern_gguf_tensor(g, "output.weight")); /* nobody says that it is tied */
        tern_gguf_close(&g);
        hf_bed_free(b);
    }
}

static void test_llama3_factors(void **state)
{
    struct hf_family f = hf_llama;
    struct hf_bed *b;
    struct tern_gguf *g;
    const struct tern_tensor *t;
    float v[3];

    (void)state;
    /* Waves of 2 pi, 499 and 39,600 positions: the first turns often in 1024, the last hardly ever. */
    f.config =
        HF_LLAMA_CONFIG ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":1024}}";
    b = hf_make(&f);
    g = hf_open_ok(b);
    t = tern_gguf_tensor(g, "rope_freqs.weight");
    assert_non_null(t);
    assert_int_equal(t->ne[0], 3);
    assert_int_equal(t->type, TERN_F32);
    memcpy(v, t->data, sizeof v);
    assert_true(v[0] == 1.0f && v[2] == 8.0f);
    /* 2.0534 turns, 0.3511 of the way from 1 to 4. */
    assert_true(fabsf(v[1] - 2.31360f) < 1e-4f);
    tern_gguf_release(g, t); /* lies in no file */
    tern_gguf_close(&g);
    hf_bed_free(b);
}

#define SMALL_HEADS                                                                                          \
    "\"hidden_size\":24,\"intermediate_size\":26,\"num_hidden_layers\":2,\"num_attention_heads\":4,"         \
    "\"num_key_value_heads\":2,\"head_dim\":6,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-6"

static void test_qwen3(void **state)
{
    const struct hf_family f = {
        .config = "{\"architectures\":[\"Qwen3Model\"],\"model_type\":\"qwen3\",\"hidden_act\":\"silu\","
                  "\"tie_word_embeddings\":false,\"rope_theta\":1000000,\"sliding_"
                  "window\":null,\"use_sliding_window\":false," SMALL_HEADS "}",
        .prefix = "",
        .norms = { "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm" },
        .input_norms = true,
    };
    struct hf_bed *b = hf_make(&f);
    struct tern_gguf *g = hf_open_ok(b);

    (void)state;
    check_text(g, "general.architecture", "qwen3");
    check_u32(g, "qwen3.pooling_type", TERN_POOL_LAST);
    check_matrices(g, TERN_BF16);
    check_tensor(g, "blk.0.attn_q_norm.weight", TERN_F32, 6, 1);
    check_tensor(g, "blk.0.attn_k_norm.weight", TERN_F32, 6, 1);
    check_tensor(g, "blk.0.attn_q_norm_in.weight", TERN_F16, 24, 1);
    check_tensor(g, "blk.0.attn_output_norm_in.weight", TERN_F16, 24, 1);
    check_tensor(g, "blk.0.ffn_gate_norm_in.weight", TERN_F16, 24, 1);
    check_tensor(g, "blk.1.ffn_down_norm_in.weight", TERN_F16, 26, 1);
    assert_true(tern_gguf_tensor(g, "blk.1.ffn_down.weight")->view.absmean);
    assert_int_equal(tern_gguf_tensor(g, "blk.1.attn_q.weight")->view.n_heads, 0);
    assert_int_equal(g->n_tensors, 2 + 2 * (7 + 7 + 4));
    tern_gguf_close(&g);
    /* As sentence-transformers say it. */
    hf_bed_text(b, "modules.json",
                "[{\"type\":\"sentence_transformers.models.Transformer\",\"path\":\"\"},"
                "{\"type\":\"sentence_transformers.models.Pooling\",\"path\":\"pool\"},"
                "{\"type\":\"sentence_transformers.models.Normalize\",\"path\":\"2_Normalize\"}]");
    {
        char path[128];

        snprintf(path, sizeof path, "%s/pool", b->path);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    hf_bed_text(b, "pool/config.json",
                "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":false}");
    g = hf_open_ok(b);
    check_u32(g, "qwen3.pooling_type", TERN_POOL_MEAN);
    tern_gguf_close(&g);
    hf_bed_text(b, "pool/config.json", "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}");
    hf_refuse(b, TERN_ERR_UNSUPPORTED, "exactly one of the poolings");
}

static void test_gemma3(void **state)
{
    const struct hf_family f = {
        .config = "{\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\","
                  "\"hidden_activation\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":6,"
                  "\"rope_theta\":1000000,\"rope_local_base_freq\":5000,\"sliding_window\":128,"
                  "\"layer_types\":[\"full_attention\",\"sliding_attention\"],"
                  "\"attn_logit_softcapping\":null," SMALL_HEADS "}",
        .prefix = "",
        .norms = { "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                   "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm" },
        .input_norms = true,
    };
    struct hf_bed *b = hf_make(&f);
    struct tern_gguf *g = hf_open_ok(b);
    static const char *const native[] = { "attn_norm",     "post_attention_norm", "ffn_norm",
                                          "post_ffw_norm", "attn_q_norm",         "attn_k_norm" };
    struct tern_arch arch;
    char name[64];

    (void)state;
    check_text(g, "general.architecture", "gemma3");
    assert_ok(tern_arch_read(g, &arch, &unit_err));
    assert_true(arch.rope_theta == 1e6 && arch.swa.rope_theta == 5000 && arch.swa.window == 128);
    assert_true(!tern_swa_slides(&arch.swa, 0) && tern_swa_slides(&arch.swa, 1));
    check_u32(g, "gemma3.pooling_type", TERN_POOL_LAST);
    assert_true(tern_gguf_tensor(g, "blk.0.ffn_up.weight")->view.absmean); /* for its norms */
    for (size_t i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "blk.1.%s.weight", native[i]);
        check_tensor(g, name, TERN_F32, i < 4 ? 24 : 6, 1);
        assert_true(tern_gguf_tensor(g, name)->view.plus_one);
    }
    assert_true(tern_gguf_tensor(g, "output_norm.weight")->view.plus_one);
    assert_false(tern_gguf_tensor(g, "blk.0.attn_q_norm_in.weight")->view.plus_one);
    assert_false(tern_gguf_tensor(g, "token_embd.weight")->view.plus_one);
    assert_int_equal(g->n_tensors, 2 + 2 * (7 + 7 + 6));
    tern_gguf_close(&g);
    hf_bed_free(b);
}

/* -- several files -------------------------------------------------------------------------------------- */

static void test_shards(void **state)
{
    struct hf_bed *b = hf_make_shards(NULL);
    struct tern_gguf *g = hf_open_ok(b);

    (void)state;
    assert_int_equal(g->n_maps, 2);
    check_matrices(g, TERN_BF16);
    assert_true(tern_gguf_tensor(g, "blk.0.attn_q.weight")->map !=
                tern_gguf_tensor(g, "blk.1.attn_q.weight")->map);
    check_tensor(g, "__", TERN_F32, 1, 1); /* unknown: under its own name, for binding to refuse */
    assert_ok(tern_gguf_check(g, &unit_err));
    tern_gguf_close(&g);
    hf_bed_unlink(b, "m-2.safetensors");
    hf_refuse(b, TERN_ERR_IO, "m-2.safetensors, which model.safetensors.index.json names, is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bitnet),       cmocka_unit_test(test_bitnet_packed),
        cmocka_unit_test(test_1bitllm),      cmocka_unit_test(test_llama),
        cmocka_unit_test(test_llama_floats), cmocka_unit_test(test_llama3_factors),
        cmocka_unit_test(test_qwen3),        cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_shards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
