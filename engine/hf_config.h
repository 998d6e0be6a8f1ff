/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What config.json says of a model, with ranges checked: the shape, and which of the families that Tern
 * computes it is.
 *
 * Whatever would change the mathematics and is not one of these fields (a scaled RoPE of another kind, soft
 * caps, an activation nobody knows) is refused, not ignored.
 */
#ifndef TERN_ENGINE_HF_CONFIG_H
#define TERN_ENGINE_HF_CONFIG_H

#include "engine/arch.h"
#include "engine/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tern_hf_family { TERN_HF_BITNET, TERN_HF_LLAMA, TERN_HF_QWEN3, TERN_HF_GEMMA3 };

/* Frequency factors of Llama-3.1; factor 0: none. */
struct tern_hf_rope_factors {
    double factor, low, high; /* low_freq_factor, high_freq_factor */
    double n_original;        /* original_max_position_embeddings */
};

struct tern_hf_config {
    enum tern_hf_family family;
    const char *arch; /* general.architecture of GGUF */
    enum tern_activation activation;
    bool odd_activation; /* not the one that goes with arch */
    bool has_head;       /* a language model; false: it ends with the last norm, and embeds */
    bool may_be_tied;    /* the head is the embedding unless the files hold one */
    bool must_be_tied;   /* the head is the embedding, whatever the files hold */
    bool is_master;      /* matrices of floats are master weights, still to be quantised */
    bool multiplies;     /* weight_scale is what 1 stands for; otherwise its reciprocal is */
    bool is_causal;
    uint32_t n_layers, n_embd, n_ffn, n_heads, n_kv_heads, head_dim, n_ctx;
    double rope_theta, rms_eps;
    char name_or_path[128]; /* "_name_or_path" as it is; empty when absent or longer */
    struct tern_hf_rope_factors rope;
    struct tern_swa swa;
};

/* config.json.  name: what sentences call it. */
enum tern_status tern_hf_config_parse(const char *name, const void *bytes, size_t n,
                                      struct tern_hf_config *out, struct tern_err *err) TERN_MUST_CHECK;

/* That of a folder. */
enum tern_status tern_hf_config_read(const char *folder, struct tern_hf_config *out,
                                     struct tern_err *err) TERN_MUST_CHECK;

#endif
