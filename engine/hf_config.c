/* SPDX-License-Identifier: Apache-2.0 */
/* Reading config.json: see hf_config.h. */
#include "engine/hf_config.h"

#include "engine/hf_file.h"
#include "engine/hf_json.h"
#include "engine/hf_rope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One reading of a config.json. */
struct reading {
    const char *file;
    const json_t *root;
    struct tern_err *err;
};

/* -- which model ----------------------------------------------------------------------------------------- */

static const struct {
    enum tern_hf_family family;
    const char *model_type;
    const char *arch; /* of GGUF */
    enum tern_activation activation;
} families[] = {
    { TERN_HF_BITNET, "bitnet", "bitnet-b1.58", TERN_RELU2 },
    { TERN_HF_LLAMA, "llama", "llama", TERN_SILU },
    { TERN_HF_QWEN3, "qwen3", "qwen3", TERN_SILU },
    { TERN_HF_GEMMA3, "gemma3_text", "gemma3", TERN_GELU },
};

static const struct {
    const char *name;
    enum tern_hf_family family;
    bool has_head;
} classes[] = {
    { "BitNetForCausalLM", TERN_HF_BITNET, true }, { "BitnetForCausalLM", TERN_HF_BITNET, true },
    { "LlamaForCausalLM", TERN_HF_LLAMA, true },   { "Qwen3ForCausalLM", TERN_HF_QWEN3, true },
    { "Qwen3Model", TERN_HF_QWEN3, false },        { "Gemma3ForCausalLM", TERN_HF_GEMMA3, true },
    { "Gemma3TextModel", TERN_HF_GEMMA3, false },
};

/* The class of architectures[0] goes before model_type: 1bitLLM's models say "llama" there.  A class of
 * somebody's own with BitNet in its name is taken by its model_type. */
static enum tern_status read_family(const struct reading *r, struct tern_hf_config *c)
{
    const char *class = json_string_value(json_array_get(json_object_get(r->root, "architectures"), 0));
    const char *type = tern_hf_json_text(r->root, "model_type");
    size_t len = class ? strlen(class) : 0;

    for (size_t i = 0; class && i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(class, classes[i].name) == 0) {
            c->family = classes[i].family;
            c->has_head = classes[i].has_head;
            return TERN_OK;
        }
    for (size_t i = 0; type && i < sizeof families / sizeof families[0]; i++)
        if (strcmp(type, families[i].model_type) == 0 &&
            (!class || strstr(class, "BitNet") || strstr(class, "Bitnet"))) {
            c->family = families[i].family;
            c->has_head = len < 5 || strcmp(class + len - 5, "Model") != 0;
            return TERN_OK;
        }
    if (!class && !type)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: names neither architectures nor a model_type",
                         r->file);
    return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                     "%s: is a '%.60s' of model_type '%.40s'; Tern runs BitNetForCausalLM, LlamaForCausalLM, "
                     "Qwen3 and Gemma 3 text models",
                     r->file, class ? class : "model", type ? type : "none");
}

/* GELU by its tanh formula is another function than by erf, which "gelu" means. */
static enum tern_status read_activation(const struct reading *r, struct tern_hf_config *c)
{
    static const struct {
        const char *name;
        enum tern_activation activation;
    } known[] = { { "relu2", TERN_RELU2 }, { "relu_squared", TERN_RELU2 },     { "silu", TERN_SILU },
                  { "swish", TERN_SILU },  { "gelu_pytorch_tanh", TERN_GELU }, { "gelu_new", TERN_GELU } };
    const char *name = tern_hf_json_text(r->root, "hidden_activation");

    if (!name)
        name = tern_hf_json_text(r->root, "hidden_act");
    if (!name)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: does not name its activation (hidden_act)", r->file);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            c->activation = known[i].activation;
            c->arch = families[c->family].arch;
            if (c->family == TERN_HF_BITNET && c->activation == TERN_SILU)
                c->arch = "bitnet"; /* 1bitLLM's; the same but for this */
            else
                c->odd_activation = c->activation != families[c->family].activation;
            return TERN_OK;
        }
    return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                     "%s: its activation is '%.40s'; Tern computes relu2, silu and gelu_pytorch_tanh",
                     r->file, name);
}

/* -- numbers --------------------------------------------------------------------------------------------- */

/* fallback 0: the member must be there. */
static enum tern_status read_u32(const struct reading *r, const char *key, uint32_t fallback, uint32_t max,
                                 uint32_t *out)
{
    const json_t *value = tern_hf_json_get(r->root, key);
    uint64_t v = fallback;

    if (!value && fallback == 0)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: '%s' is missing", r->file, key);
    if (value && (!tern_hf_json_whole(value, max, &v) || v == 0))
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: '%s' is not a whole number from 1 to %u", r->file, key,
                         max);
    *out = (uint32_t)v;
    return TERN_OK;
}

static enum tern_status read_shape(const struct reading *r, struct tern_hf_config *c)
{
    const json_t *eps = tern_hf_json_get(r->root, "rms_norm_eps");
    bool derives = c->family == TERN_HF_BITNET || c->family == TERN_HF_LLAMA;
    uint32_t derived;
    enum tern_status st = read_u32(r, "num_hidden_layers", 0, TERN_MAX_LAYERS, &c->n_layers);

    if (!st)
        st = read_u32(r, "hidden_size", 0, TERN_MAX_EMBD, &c->n_embd);
    if (!st)
        st = read_u32(r, "intermediate_size", 0, TERN_MAX_FFN, &c->n_ffn);
    if (!st)
        st = read_u32(r, "num_attention_heads", 0, TERN_MAX_HEADS, &c->n_heads);
    if (!st)
        st = read_u32(r, "num_key_value_heads", c->n_heads, TERN_MAX_HEADS, &c->n_kv_heads);
    if (!st)
        st = read_u32(r, "max_position_embeddings", 0, TERN_MAX_CONTEXT, &c->n_ctx);
    if (st)
        return st;
    derived = derives && c->n_embd % c->n_heads == 0 ? c->n_embd / c->n_heads : 0;
    st = read_u32(r, "head_dim", derived, TERN_MAX_HEAD_DIM, &c->head_dim);
    if (st)
        return st;
    c->rms_eps = json_is_real(eps) ? json_real_value(eps) : 0;
    if (!((float)c->rms_eps > 0 && c->rms_eps <= 1))
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: 'rms_norm_eps' is missing or not from above 0 to 1",
                         r->file);
    return TERN_OK;
}

/* -- what is refused, and switches ----------------------------------------------------------------------- */

static enum tern_status refuse_extras(const struct reading *r, const struct tern_hf_config *c)
{
    static const char *const caps[] = { "attn_logit_softcapping", "final_logit_softcapping",
                                        "num_local_experts", "num_experts" };
    const json_t *v = tern_hf_json_get(r->root, "query_pre_attn_scalar");
    const json_t *partial = tern_hf_json_get(r->root, "partial_rotary_factor");

    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++)
        if (tern_hf_json_get(r->root, caps[i]))
            return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED, "%s: Tern cannot compute models with '%s'",
                             r->file, caps[i]);
    if (v && json_number_value(v) != (double)c->head_dim)
        return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                         "%s: 'query_pre_attn_scalar' is %g where heads have %u dimensions; Tern needs them "
                         "to be the same",
                         r->file, json_number_value(v), c->head_dim);
    if (partial && json_number_value(partial) != 1)
        return TERN_FAIL(
            r->err, TERN_ERR_UNSUPPORTED,
            "%s: RoPE turns a share of %g of each head ('partial_rotary_factor'); Tern turns all", r->file,
            json_number_value(partial));
    return TERN_OK;
}

/* Class defaults where the file is silent: Gemma's head is its embedding; the others' is, when the files hold
 * no other. */
static void read_ties(const struct reading *r, struct tern_hf_config *c)
{
    const json_t *tie = tern_hf_json_get(r->root, "tie_word_embeddings");

    c->must_be_tied = !c->has_head || json_is_true(tie) || (!tie && c->family == TERN_HF_GEMMA3);
    c->may_be_tied = c->must_be_tied || !tie;
}

/* A matrix that is left as it was trained is none that Tern multiplies with.  (Heads are, and are listed.) */
static enum tern_status refuse_unconverted(const struct reading *r, const json_t *q)
{
    static const char *const parts[] = { "layers", "self_attn", "mlp", "_proj" };
    const json_t *list = tern_hf_json_get(q, "modules_to_not_convert");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));

        for (size_t j = 0; name && j < sizeof parts / sizeof parts[0]; j++)
            if (strstr(name, parts[j]))
                return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                                 "%s: its matrices '%.80s' are not ternary (modules_to_not_convert); Tern "
                                 "computes models whose matrices all are",
                                 r->file, name);
    }
    return TERN_OK;
}

/* Weights of floats are to be quantised when the model is one that is quantised as it runs; a folder of
 * ordinary floats is for its user to decide about. */
static enum tern_status read_quantization(const struct reading *r, struct tern_hf_config *c)
{
    const json_t *q = tern_hf_json_get(r->root, "quantization_config");
    const char *method = tern_hf_json_text(q, "quant_method"), *mode, *linear;

    c->is_master = c->family == TERN_HF_BITNET || tern_hf_json_is_true(r->root, "is_bitnet_config");
    if (!q)
        return TERN_OK;
    if (!method || strcmp(method, "bitnet") != 0)
        return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                         "%s: its weights are quantised by the method '%.40s'; Tern reads bitnet", r->file,
                         method ? method : "none");
    if (tern_hf_json_is_true(q, "use_rms_norm"))
        return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                         "%s: 'use_rms_norm' of its quantization_config is true, which Tern does not compute",
                         r->file);
    mode = tern_hf_json_text(q, "quantization_mode");
    linear = tern_hf_json_text(q, "linear_class");
    c->is_master = !mode || strcmp(mode, "offline") != 0;
    c->multiplies = linear && strcmp(linear, "autobitlinear") == 0;
    return refuse_unconverted(r, q);
}

/* Whatever it is worth: hf_path.h. */
static void read_name(const struct reading *r, struct tern_hf_config *c)
{
    const char *name = tern_hf_json_text(r->root, "_name_or_path");

    if (name && strlen(name) < sizeof c->name_or_path)
        strcpy(c->name_or_path, name);
}

/* -- exported -------------------------------------------------------------------------------------------- */

static enum tern_status read_config(const struct reading *r, struct tern_hf_config *out)
{
    struct tern_hf_config c = { .n_layers = 0 };
    enum tern_status st = read_family(r, &c);

    if (!st)
        st = read_activation(r, &c);
    if (!st)
        st = read_shape(r, &c);
    if (!st)
        st = refuse_extras(r, &c);
    if (!st)
        st = tern_hf_read_rope(r->file, r->root, &c, r->err);
    if (!st)
        st = read_quantization(r, &c);
    if (st)
        return st;
    read_ties(r, &c);
    read_name(r, &c);
    c.is_causal = !tern_hf_json_is_true(r->root, "use_bidirectional_attention") &&
                  !json_is_false(json_object_get(r->root, "is_causal"));
    *out = c;
    return TERN_OK;
}

enum tern_status tern_hf_config_parse(const char *name, const void *bytes, size_t n,
                                      struct tern_hf_config *out, struct tern_err *err)
{
    json_t *root = NULL;
    enum tern_status st = tern_hf_json_parse(name, bytes, n, &root, err);
    struct reading r = { .file = name, .root = root, .err = err };

    if (!st)
        st = read_config(&r, out);
    json_decref(root);
    return st;
}

enum tern_status tern_hf_config_read(const char *folder, struct tern_hf_config *out, struct tern_err *err)
{
    char *path = tern_hf_path(folder, "config.json");
    json_t *root = NULL;
    struct reading r = { .file = path, .err = err };
    enum tern_status st;

    if (!path)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s", folder);
    st = tern_hf_json_read(folder, "config.json", &root, err);
    if (st == TERN_END)
        st = TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s: is a folder without a config.json, so no Hugging Face model; name a .gguf file, or "
            "a folder with config.json and model.safetensors",
            folder);
    r.root = root;
    if (!st)
        st = read_config(&r, out);
    json_decref(root);
    free(path);
    return st;
}
