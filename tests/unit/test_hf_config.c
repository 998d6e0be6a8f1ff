/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json: what each way of writing it means, and what is refused with which sentence.
 */
#include "unit/unit.h"

#include "engine/hf_config.h"
#include "engine/hf_names.h"
#include "engine/hf_shards.h"

#include <stdio.h>
#include <string.h>

#define CORE                                                                                                 \
    "\"hidden_size\":2560,\"intermediate_size\":6912,\"num_hidden_layers\":30,\"num_attention_heads\":20,"   \
    "\"num_key_value_heads\":5,\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-5,"
#define BITNET "{\"architectures\":[\"BitNetForCausalLM\"],\"hidden_act\":\"relu2\"," CORE
#define LLAMA  "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\"," CORE
#define GEMMA                                                                                                \
    "{\"architectures\":[\"Gemma3ForCausalLM\"],\"hidden_activation\":\"gelu_pytorch_tanh\","                \
    "\"head_dim\":128," CORE
#define THETA "\"rope_theta\":500000.0"

static struct tern_hf_config good(const char *text)
{
    struct tern_hf_config c;
    enum tern_status st = tern_hf_config_parse("config.json", text, strlen(text), &c, &unit_err);

    if (st)
        fail_msg("%s\ngave: %s", text, unit_err.text);
    return c;
}

static void refuse(const char *text, enum tern_status status, const char *part)
{
    struct tern_hf_config c;
    enum tern_status st = tern_hf_config_parse("config.json", text, strlen(text), &c, &unit_err);

    if (st != status || !strstr(unit_err.text, part) || !strstr(unit_err.text, "config.json"))
        fail_msg("%s\nwanted '%s', got %s: %s", text, part, tern_status_name(st), unit_err.text);
}

static void test_families(void **state)
{
    struct tern_hf_config c = good(BITNET THETA "}");

    (void)state;
    assert_int_equal(c.family, TERN_HF_BITNET);
    assert_string_equal(c.arch, "bitnet-b1.58");
    assert_true(c.has_head && c.may_be_tied && !c.must_be_tied && c.is_master && !c.multiplies &&
                c.is_causal);
    assert_int_equal(c.n_layers, 30);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.n_ctx, 4096);
    assert_true(c.rope_theta == 500000 && c.rope.factor == 0);
    c = good("{\"model_type\":\"bitnet\",\"hidden_act\":\"silu\"," CORE THETA "}");
    assert_string_equal(c.arch, "bitnet");
    assert_int_equal(c.activation, TERN_SILU);
    assert_false(c.odd_activation);
    c = good("{\"architectures\":[\"MyBitNetQwen3Model\"],\"model_type\":\"qwen3\",\"hidden_act\":\"silu\","
             "\"head_dim\":64," CORE THETA "}");
    assert_int_equal(c.family, TERN_HF_QWEN3);
    assert_false(c.has_head);
    assert_true(c.must_be_tied);
    assert_int_equal(c.head_dim, 64);
    c = good(GEMMA THETA ",\"rope_local_base_freq\":500000}");
    assert_true(c.must_be_tied && c.has_head);
    c = good(GEMMA THETA ",\"tie_word_embeddings\":false}");
    assert_false(c.may_be_tied);
    c = good(LLAMA THETA ",\"use_bidirectional_attention\":true}");
    assert_false(c.is_causal);
}

/* A llama with squared ReLU is one, whatever its architecture says. */
static void test_activations(void **state)
{
    struct tern_hf_config c =
        good("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"relu2\"," CORE THETA "}");

    (void)state;
    assert_true(c.odd_activation && c.activation == TERN_RELU2);
    c = good("{\"model_type\":\"bitnet\",\"hidden_act\":\"gelu_new\"," CORE THETA "}");
    assert_true(c.odd_activation && c.activation == TERN_GELU);
    assert_string_equal(c.arch, "bitnet-b1.58");
    refuse("{\"model_type\":\"bitnet\",\"hidden_act\":\"gelu\"," CORE THETA "}", TERN_ERR_UNSUPPORTED,
           "its activation is 'gelu'");
    refuse("{\"model_type\":\"bitnet\"," CORE THETA "}", TERN_ERR_FORMAT, "does not name its activation");
}

static void test_rope(void **state)
{
    static const char llama3[] = "{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
                                 "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192";
    char text[2048];
    struct tern_hf_config c =
        good(LLAMA "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6}}");

    (void)state;
    assert_true(c.rope_theta == 1e6);
    c = good(LLAMA THETA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":1.0}}");
    assert_true(c.rope.factor == 0);
    snprintf(text, sizeof text, "%s%s,\"rope_scaling\":%s}}", LLAMA, THETA, llama3);
    c = good(text);
    assert_true(c.rope.factor == 32 && c.rope.low == 1 && c.rope.high == 4 && c.rope.n_original == 8192);
    refuse(LLAMA "\"x\":1}", TERN_ERR_FORMAT, "'rope_theta' is missing");
    refuse(LLAMA "\"rope_theta\":-1}", TERN_ERR_FORMAT, "'rope_theta' is missing or no positive");
    refuse(LLAMA THETA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", TERN_ERR_UNSUPPORTED,
           "RoPE scaling 'linear' with factor 2");
    refuse(LLAMA THETA ",\"rope_scaling\":{\"factor\":2}}", TERN_ERR_UNSUPPORTED, "'linear' with factor 2");
    refuse(LLAMA THETA ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", TERN_ERR_UNSUPPORTED,
           "RoPE scaling 'yarn'");
    refuse(LLAMA THETA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", TERN_ERR_FORMAT,
           "'llama3' lacks a number");
    refuse(LLAMA THETA ",\"partial_rotary_factor\":0.5}", TERN_ERR_UNSUPPORTED, "'partial_rotary_factor'");
}

/* How many of the 30 layers slide; the first of them, and whether the last does, to *first and *last. */
static uint32_t count_sliding(const struct tern_hf_config *c, uint32_t *first, bool *last)
{
    uint32_t n = 0;

    *first = TERN_MAX_LAYERS;
    for (uint32_t l = 0; l < TERN_MAX_LAYERS; l++)
        if (tern_swa_slides(&c->swa, l)) {
            *first = n == 0 ? l : *first;
            n++;
        }
    *last = tern_swa_slides(&c->swa, c->n_layers - 1);
    return n;
}

static void expect_window(const char *text, uint32_t window, uint32_t n, uint32_t first, bool last,
                          double theta, double theta_swa)
{
    struct tern_hf_config c = good(text);
    uint32_t at;
    bool end;

    if (c.swa.window != window || count_sliding(&c, &at, &end) != n || (n && (at != first || end != last)) ||
        c.rope_theta != theta || c.swa.rope_theta != theta_swa || c.n_ctx != 4096)
        fail_msg("%s\ngave a window of %u in %u layers, bases %g and %g", text, c.swa.window,
                 count_sliding(&c, &at, &end), c.rope_theta, c.swa.rope_theta);
}

#define FULL "\"full_attention\","
#define SLID "\"sliding_attention\","
#define FIVE SLID SLID SLID SLID SLID

static void test_windows(void **state)
{
    static const char two_bases[] = "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},"
                                    "\"sliding_attention\":{\"rope_theta\":7000}}}";
    char text[2048];

    (void)state;
    expect_window(GEMMA "\"rope_theta\":1e6,\"sliding_window\":512}", 512, 25, 0, false, 1e6, 10000);
    expect_window(GEMMA "\"rope_theta\":1e6,\"rope_local_base_freq\":5000.0,\"sliding_window\":512,"
                        "\"sliding_window_pattern\":2}",
                  512, 15, 0, false, 1e6, 5000);
    expect_window(GEMMA "\"rope_theta\":1e6,\"sliding_window\":512,\"_sliding_window_pattern\":4}", 512, 23,
                  0, true, 1e6, 10000);
    expect_window(GEMMA "\"rope_theta\":1e6,\"sliding_window\":512,\"sliding_window_pattern\":99}", 512, 30,
                  0, true, 10000, 10000); /* all layers slide, by their own base */
    expect_window(GEMMA "\"rope_theta\":1e6,\"sliding_window\":null}", 0, 0, 0, false, 1e6, 0);
    snprintf(text, sizeof text, "%s\"sliding_window\":512,\"layer_types\":[%s%s%s%s%s],%s", GEMMA,
             FULL FULL FIVE, FIVE FIVE, FIVE FULL FULL, FULL FULL FULL FULL, SLID "\"full_attention\"",
             two_bases);
    expect_window(text, 512, 21, 2, false, 1e6, 7000);
    expect_window(LLAMA THETA ",\"sliding_window\":512,\"use_sliding_window\":false}", 0, 0, 0, false, 500000,
                  0);
    expect_window(LLAMA THETA ",\"sliding_window\":512,\"use_sliding_window\":true}", 512, 30, 0, true,
                  500000, 500000);
    expect_window("{\"model_type\":\"qwen3\",\"hidden_act\":\"silu\",\"head_dim\":128," CORE THETA
                  ",\"sliding_window\":512,\"use_sliding_window\":true,\"max_window_layers\":20}",
                  512, 10, 20, true, 500000, 500000);
}

static void test_bad_windows(void **state)
{
    char text[2048];

    (void)state;
    refuse(GEMMA "\"rope_theta\":10000,\"sliding_window\":-1}", TERN_ERR_FORMAT, "'sliding_window'");
    refuse(GEMMA "\"rope_theta\":10000,\"sliding_window\":0}", TERN_ERR_FORMAT, "'sliding_window'");
    refuse(GEMMA "\"rope_theta\":10000,\"sliding_window\":512,\"sliding_window_pattern\":\"6\"}",
           TERN_ERR_FORMAT, "'sliding_window_pattern' is not a whole number");
    refuse(GEMMA "\"rope_theta\":10000,\"sliding_window\":512,\"layer_types\":[\"full_attention\"]}",
           TERN_ERR_FORMAT, "'layer_types' is not a list of 30 names");
    refuse(GEMMA "\"sliding_window\":512,\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},"
                 "\"sliding_attention\":{\"rope_theta\":-7}}}",
           TERN_ERR_FORMAT, "'rope_theta' is missing");
    refuse(GEMMA "\"rope_theta\":1e6,\"sliding_window\":512,\"rope_scaling\":{\"rope_type\":\"llama3\","
                 "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                 "\"original_max_position_embeddings\":8192}}",
           TERN_ERR_UNSUPPORTED, "of which some layers slide");
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "%s%s,\"layer_types\":[%s%s%s%s]}", LLAMA, THETA, FIVE FIVE FIVE,
                 FIVE FIVE, SLID SLID SLID SLID, i == 0 ? "\"chunked_attention\"" : "\"sliding_attention\"");
        if (i == 0)
            refuse(text, TERN_ERR_UNSUPPORTED, "layer 29 has attention of type 'chunked_attention'");
        else
            refuse(text, TERN_ERR_FORMAT, "'sliding_window' is not a positive whole number");
    }
}

static void test_quantization(void **state)
{
    struct tern_hf_config c = good(LLAMA THETA "}");

    (void)state;
    assert_false(c.is_master);
    c = good(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\"}}");
    assert_true(c.is_master && !c.multiplies);
    c = good(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\","
                         "\"modules_to_not_convert\":[\"lm_head\",\"model.embed_tokens\"]}}");
    assert_true(c.is_master);
    refuse(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\","
                       "\"modules_to_not_convert\":[\"lm_head\",\"model.layers.0.mlp\"]}}",
           TERN_ERR_UNSUPPORTED, "'model.layers.0.mlp' are not ternary");
    refuse(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\","
                       "\"modules_to_not_convert\":[\"o_proj\"]}}",
           TERN_ERR_UNSUPPORTED, "'o_proj' are not ternary");
    c = good(BITNET THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":"
                          "\"autobitlinear\",\"quantization_mode\":\"offline\"}}");
    assert_true(!c.is_master && c.multiplies);
    refuse(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"gptq\"}}", TERN_ERR_UNSUPPORTED,
           "by the method 'gptq'");
    refuse(LLAMA THETA ",\"quantization_config\":7}", TERN_ERR_UNSUPPORTED, "by the method 'none'");
    refuse(LLAMA THETA ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"use_rms_norm\":true}}",
           TERN_ERR_UNSUPPORTED, "'use_rms_norm'");
}

static void test_refused(void **state)
{
    (void)state;
    refuse("{}", TERN_ERR_FORMAT, "neither architectures nor a model_type");
    refuse("[]", TERN_ERR_FORMAT, "not an object");
    refuse("{\"hidden_act\":\"silu\",\"hidden_act\":\"relu2\"}", TERN_ERR_FORMAT, "not valid JSON");
    refuse("{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"}", TERN_ERR_UNSUPPORTED,
           "is a 'MistralForCausalLM' of model_type 'mistral'");
    refuse("{\"architectures\":[\"LlamaForSequenceClassification\"],\"model_type\":\"llama\"}",
           TERN_ERR_UNSUPPORTED, "LlamaForSequenceClassification");
    refuse("{\"architectures\":\"LlamaForCausalLM\"}", TERN_ERR_FORMAT, "neither architectures");
    refuse("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\"}", TERN_ERR_FORMAT,
           "'num_hidden_layers' is missing");
    refuse("{\"model_type\":\"qwen3\",\"hidden_act\":\"silu\"," CORE THETA "}", TERN_ERR_FORMAT,
           "'head_dim' is missing");
    refuse(LLAMA THETA ",\"head_dim\":0}", TERN_ERR_FORMAT, "'head_dim' is not a whole number from 1 to 512");
    refuse(LLAMA THETA ",\"head_dim\":1e9}", TERN_ERR_FORMAT, "'head_dim' is not a whole number");
    refuse(LLAMA THETA ",\"head_dim\":\"128\"}", TERN_ERR_FORMAT, "'head_dim' is not a whole number");
    refuse(LLAMA THETA ",\"num_experts\":8}", TERN_ERR_UNSUPPORTED, "'num_experts'");
    refuse(GEMMA THETA ",\"final_logit_softcapping\":30.0}", TERN_ERR_UNSUPPORTED, "softcapping");
    refuse(GEMMA THETA ",\"query_pre_attn_scalar\":256}", TERN_ERR_UNSUPPORTED,
           "'query_pre_attn_scalar' is 256");
}

/* -- names ----------------------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    static const struct {
        const char *hf, *gguf;
        enum tern_hf_part part;
    } cases[] = {
        { "model.layers.12.self_attn.o_proj.weight", "blk.12.attn_output.weight", TERN_HF_MATRIX },
        { "layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", TERN_HF_MATRIX },
        { "model.layers.3.mlp.gate_proj.weight_scale", "", TERN_HF_SCALE },
        { "layers.3.mlp.gate_proj.norm.weight", "blk.3.ffn_gate_norm_in.weight", TERN_HF_INPUT_NORM },
        { "model.layers.3.mlp.gate_proj.bias", "blk.3.ffn_gate.bias", TERN_HF_UNKNOWN },
        { "model.layers.3.mlp.gate_proj.qweight", "blk.3.mlp.gate_proj.qweight", TERN_HF_UNKNOWN },
        { "model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight", TERN_HF_NORM },
        { "model.layers.3.post_attention_layernorm.bias", "blk.3.post_attention_layernorm.bias",
          TERN_HF_UNKNOWN },
        { "model.layers.3.self_attn.rotary_emb.inv_freq", "", TERN_HF_NOTHING },
        { "model.layers.00.mlp.up_proj.weight", "model.layers.00.mlp.up_proj.weight", TERN_HF_UNKNOWN },
        { "model.layers.99999999999.mlp.up_proj.weight", "model.layers.99999999999.mlp.up_proj.weight",
          TERN_HF_UNKNOWN },
        { "model.layers.", "model.layers.", TERN_HF_UNKNOWN },
        { "model.norm.weight", "output_norm.weight", TERN_HF_NORM },
        { "lm_head.weight", "output.weight", TERN_HF_HEAD },
        { "embed_tokens.weight", "token_embd.weight", TERN_HF_EMBEDDING },
        { "token_embd.weight", "token_embd.weight", TERN_HF_UNKNOWN },
    };
    struct tern_hf_place p;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tern_hf_place(TERN_HF_QWEN3, cases[i].hf, &p);
        assert_string_equal(p.name, cases[i].gguf);
        assert_int_equal(p.part, cases[i].part);
    }
    tern_hf_place(TERN_HF_GEMMA3, "layers.3.post_attention_layernorm.weight", &p);
    assert_string_equal(p.name, "blk.3.post_attention_norm.weight");
    assert_true(tern_hf_is_plain_name("model-00001-of-00002.safetensors"));
    assert_false(tern_hf_is_plain_name("a/b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),    cmocka_unit_test(test_activations),
        cmocka_unit_test(test_rope),        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_bad_windows), cmocka_unit_test(test_quantization),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
