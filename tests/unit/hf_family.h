/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders of small models, by family, for tests.
 */
#ifndef TERN_TESTS_UNIT_HF_FAMILY_H
#define TERN_TESTS_UNIT_HF_FAMILY_H

#include "unit/hf_bed.h"

#include "engine/hf.h"
#include "engine/model_file.h"

/* Four heads of 6, two of keys; a hidden size of 24, 26 in the FFN. */
#define HF_SHAPE                                                                                             \
    "\"hidden_size\":24,\"intermediate_size\":26,\"num_hidden_layers\":2,\"num_attention_heads\":4,"         \
    "\"num_key_value_heads\":2,\"head_dim\":6,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"        \
    "\"rope_theta\":500000.0"

static const struct {
    const char *name;
    size_t rows, cols;
} hf_matrices[] = { { "self_attn.q_proj", 24, 24 }, { "self_attn.k_proj", 12, 24 },
                    { "self_attn.v_proj", 12, 24 }, { "self_attn.o_proj", 24, 24 },
                    { "mlp.gate_proj", 26, 24 },    { "mlp.up_proj", 26, 24 },
                    { "mlp.down_proj", 24, 26 } };

struct hf_family {
    const char *config, *prefix;
    const char *norms[8]; /* of a layer */
    bool packed, input_norms, head;
};

/* The arrays of one layer. */
static inline void hf_add_layer(struct hf_bed *b, const struct hf_family *f, unsigned layer)
{
    static const uint8_t two[2] = { 0x00, 0x40 }; /* BF16 */
    char name[128];

    for (size_t i = 0; i < 7; i++) {
        size_t rows = hf_matrices[i].rows, cols = hf_matrices[i].cols;

        snprintf(name, sizeof name, "%slayers.%u.%s.weight", f->prefix, layer, hf_matrices[i].name);
        hf_bed_add(b, name, f->packed ? "U8" : "BF16", f->packed ? 1 : 2, f->packed ? (rows + 3) / 4 : rows,
                   cols, NULL);
        snprintf(name, sizeof name, "%slayers.%u.%s.weight_scale", f->prefix, layer, hf_matrices[i].name);
        if (f->packed)
            hf_bed_add(b, name, "BF16", 2, 0, 1, two);
        snprintf(name, sizeof name, "%slayers.%u.%s.norm.weight", f->prefix, layer, hf_matrices[i].name);
        if (f->input_norms)
            hf_bed_add(b, name, "F16", 2, 0, cols, NULL);
    }
    for (size_t i = 0; i < 8 && f->norms[i]; i++) {
        bool of_head = strstr(f->norms[i], "q_norm") || strstr(f->norms[i], "k_norm");
        size_t n = strstr(f->norms[i], "ffn_") ? 26 : of_head ? 6 : 24;

        snprintf(name, sizeof name, "%slayers.%u.%s.weight", f->prefix, layer, f->norms[i]);
        hf_bed_add(b, name, "F32", 4, 0, n, NULL);
    }
    snprintf(name, sizeof name, "%slayers.%u.self_attn.rotary_emb.inv_freq", f->prefix, layer);
    hf_bed_add(b, name, "F32", 4, 0, 2, NULL);
}

static inline void hf_add_ends(struct hf_bed *b, const struct hf_family *f)
{
    char name[128];

    snprintf(name, sizeof name, "%sembed_tokens.weight", f->prefix);
    hf_bed_add(b, name, "BF16", 2, 40, 24, NULL);
    snprintf(name, sizeof name, "%snorm.weight", f->prefix);
    hf_bed_add(b, name, "F32", 4, 0, 24, NULL);
    if (f->head)
        hf_bed_add(b, "lm_head.weight", "BF16", 2, 40, 24, NULL);
}

static inline struct hf_bed *hf_make(const struct hf_family *f)
{
    struct hf_bed *b = hf_bed_new();

    hf_bed_text(b, "config.json", f->config);
    hf_add_ends(b, f);
    hf_add_layer(b, f, 0);
    hf_add_layer(b, f, 1);
    hf_bed_write(b, "model.safetensors");
    return b;
}

static const struct hf_family hf_bitnet = {
    .config = "{\"architectures\":[\"BitNetForCausalLM\"],\"model_type\":\"bitnet\",\"hidden_act\":\"relu2\","
              "\"tie_word_embeddings\":true," HF_SHAPE "}",
    .prefix = "model.",
    .norms = { "input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm" },
    .head = true,
};

#define HF_LLAMA_CONFIG                                                                                      \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\",\""          \
    "tie_word_embeddings\":false," HF_SHAPE ",\"quantization_config\":{\"quant_method\":\"bitnet\","         \
    "\"modules_to_not_convert\":[\"lm_head\"]}"

static const struct hf_family hf_llama = {
    .config = HF_LLAMA_CONFIG "}",
    .prefix = "model.",
    .norms = { "input_layernorm", "post_attention_layernorm" },
    .packed = true,
    .head = true,
};

static inline struct hf_bed *hf_make_shards(const char *index)
{
    struct hf_bed *b = hf_bed_new();
    const struct hf_family *f = &hf_bitnet;
    char text[16384], *at = text;

    hf_bed_text(b, "config.json", f->config);
    at += sprintf(at, "{\"weight_map\":{\"__\":\"m-2.safetensors\"");
    for (int i = 1; i <= 2; i++) {
        if (i == 1)
            hf_add_ends(b, f);
        else
            hf_bed_add(b, "__", "F32", 4, 0, 1, NULL);
        hf_add_layer(b, f, (unsigned)i - 1);
        /* Every key of the header. */
        for (const char *p = b->header; (p = strstr(p, "\":{\"dtype")); p++) {
            const char *begin = p;

            while (begin[-1] != '"')
                begin--;
            if (strncmp(begin, "__", 2) != 0)
                at += sprintf(at, ",\"%.*s\":\"m-%d.safetensors\"", (int)(p - begin), begin, i);
        }
        hf_bed_write(b, i == 1 ? "m-1.safetensors" : "m-2.safetensors");
    }
    sprintf(at, "}}");
    hf_bed_text(b, "model.safetensors.index.json", index ? index : text);
    return b;
}

static inline struct tern_gguf *hf_open_ok(const struct hf_bed *b)
{
    struct tern_gguf *g = NULL;

    assert_ok(tern_model_file_open(b->path, NULL, &g, &unit_err));
    return g;
}

/* Opening is refused with a sentence that has `part` in it; the folder goes. */
static inline void hf_refuse(struct hf_bed *b, enum tern_status status, const char *part)
{
    struct tern_gguf *g = NULL;
    enum tern_status st = tern_hf_open(b->path, &g, &unit_err);

    if (st != status || !strstr(unit_err.text, part))
        fail_msg("wanted '%s', got %s: %s", part, tern_status_name(st), unit_err.text);
    assert_null(g);
    hf_bed_free(b);
}

#endif
