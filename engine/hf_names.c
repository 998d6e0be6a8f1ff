/* SPDX-License-Identifier: Apache-2.0 */
/* Names of tensors: see hf_names.h. */
#include "engine/hf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *hf, *gguf;
} matrices[] = {
    [TERN_HF_Q] = { "self_attn.q_proj", "attn_q" },   [TERN_HF_K] = { "self_attn.k_proj", "attn_k" },
    [TERN_HF_V] = { "self_attn.v_proj", "attn_v" },   [TERN_HF_O] = { "self_attn.o_proj", "attn_output" },
    [TERN_HF_GATE] = { "mlp.gate_proj", "ffn_gate" }, [TERN_HF_UP] = { "mlp.up_proj", "ffn_up" },
    [TERN_HF_DOWN] = { "mlp.down_proj", "ffn_down" },
};

static const struct {
    const char *hf, *gguf;
} norms[] = {
    { "input_layernorm", "attn_norm" },
    { "self_attn.attn_sub_norm", "attn_sub_norm" },
    { "self_attn.inner_attn_ln", "attn_sub_norm" }, /* 1bitLLM */
    { "mlp.ffn_sub_norm", "ffn_sub_norm" },
    { "mlp.ffn_layernorm", "ffn_sub_norm" }, /* 1bitLLM */
    { "self_attn.q_norm", "attn_q_norm" },
    { "self_attn.k_norm", "attn_k_norm" },
    { "pre_feedforward_layernorm", "ffn_norm" },
    { "post_feedforward_layernorm", "post_ffw_norm" },
};

/* What is behind a prefix, or NULL. */
static const char *behind(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

static void set(struct tern_hf_place *p, enum tern_hf_part part, const char *layer, const char *name,
                const char *suffix)
{
    p->part = part;
    snprintf(p->name, sizeof p->name, "%s%s%s", layer, name, suffix);
}

static bool place_matrix(struct tern_hf_place *p, const char *layer, const char *rest)
{
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        const char *member = behind(rest, matrices[i].hf);

        if (!member)
            continue;
        p->matrix = (enum tern_hf_matrix)i;
        if (strcmp(member, ".weight") == 0)
            set(p, TERN_HF_MATRIX, layer, matrices[i].gguf, ".weight");
        else if (strcmp(member, ".weight_scale") == 0)
            p->part = TERN_HF_SCALE;
        else if (strcmp(member, ".norm.weight") == 0)
            set(p, TERN_HF_INPUT_NORM, layer, matrices[i].gguf, "_norm_in.weight");
        else if (strcmp(member, ".bias") == 0)
            set(p, TERN_HF_UNKNOWN, layer, matrices[i].gguf, ".bias");
        else
            return false;
        return true;
    }
    return false;
}

static bool place_norm(struct tern_hf_place *p, enum tern_hf_family family, const char *layer,
                       const char *rest)
{
    const char *post = family == TERN_HF_GEMMA3 ? "post_attention_norm" : "ffn_norm", *member;

    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
        if ((member = behind(rest, norms[i].hf)) && strcmp(member, ".weight") == 0) {
            set(p, TERN_HF_NORM, layer, norms[i].gguf, ".weight");
            return true;
        }
    if (strcmp(rest, "post_attention_layernorm.weight") != 0)
        return false;
    set(p, TERN_HF_NORM, layer, post, ".weight"); /* Gemma has four norms, the others two */
    return true;
}

/* rest: behind "layers.". */
static bool place_in_layer(struct tern_hf_place *p, enum tern_hf_family family, const char *rest)
{
    char layer[16];
    size_t n = strspn(rest, "0123456789");

    if (n == 0 || n > 4 || rest[n] != '.' || (rest[0] == '0' && n > 1))
        return false;
    snprintf(layer, sizeof layer, "blk.%.*s.", (int)n, rest);
    rest += n + 1;
    if (strcmp(rest, "self_attn.rotary_emb.inv_freq") == 0)
        p->part = TERN_HF_NOTHING;
    else if (!place_matrix(p, layer, rest) && !place_norm(p, family, layer, rest))
        set(p, TERN_HF_UNKNOWN, layer, rest, "");
    return true;
}

void tern_hf_place(enum tern_hf_family family, const char *name, struct tern_hf_place *out)
{
    const char *inner = behind(name, "model."), *rest;

    memset(out, 0, sizeof *out);
    inner = inner ? inner : name;
    rest = behind(inner, "layers.");
    if (rest && place_in_layer(out, family, rest))
        return;
    if (strcmp(inner, "embed_tokens.weight") == 0)
        set(out, TERN_HF_EMBEDDING, "", "token_embd.weight", "");
    else if (strcmp(inner, "norm.weight") == 0)
        set(out, TERN_HF_NORM, "", "output_norm.weight", "");
    else if (strcmp(inner, "lm_head.weight") == 0)
        set(out, TERN_HF_HEAD, "", "output.weight", "");
    else if (strcmp(inner, "rotary_emb.inv_freq") == 0)
        out->part = TERN_HF_NOTHING;
    else
        set(out, TERN_HF_UNKNOWN, "", name, "");
}

uint64_t tern_hf_matrix_rows(const struct tern_hf_config *c, enum tern_hf_matrix matrix)
{
    switch (matrix) {
    case TERN_HF_Q: return (uint64_t)c->n_heads * c->head_dim;
    case TERN_HF_K:
    case TERN_HF_V: return (uint64_t)c->n_kv_heads * c->head_dim;
    case TERN_HF_GATE:
    case TERN_HF_UP: return c->n_ffn;
    case TERN_HF_O:
    case TERN_HF_DOWN: return c->n_embd;
    }
    return 0;
}
