/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters of a model, read from GGUF metadata with ranges checked, and what its architecture is made
 * of, as data: there is one forward pass (forward.h), which reads it.
 *
 * What a family has is a row of the table in arch_family.c; three things of it a file may say otherwise:
 *
 *   {a}.activation, a string: relu2, silu or gelu (by tanh).  The key is Tern's own, for files whose
 *   architecture is mislabelled (--override-kv bitnet-b1.58.activation=str:silu) and for folders, whose
 *   config.json says it.  Without it a bitnet-b1.58 of 24 or 26 layers and 32002 tokens counts as what it
 *   is, a 1bitLLM model under the wrong name, and gets SiLU.
 *   Norms on the input of each matrix, which the embedding models have: by their tensors.
 *   rope_freqs.weight: divisors of RoPE's frequencies.  Since every worker needs them they are
 *   hyper-parameters here, covered by tern_arch_hash, and part of every slice of a model.
 *
 * {a} is the prefix the file's keys have: the name of its architecture, or, where that was overridden, the
 * one that stands before block_count.
 *
 * gemma3: the embedding models' files name no sliding window, no soft caps and no scale of scores, and this
 * reads what they do not name as not there: every layer sees all positions before it, with one theta.  Files
 * that name a window or a cap are refused.
 */
#ifndef TERN_ENGINE_ARCH_H
#define TERN_ENGINE_ARCH_H

#include "engine/base/limits.h"
#include "engine/gguf.h"

#include <stdint.h>

/* Between gate and up of the FFN. */
enum tern_activation { TERN_RELU2, TERN_SILU, TERN_GELU };

/* Which elements of a head RoPE turns together: j and j + d/2, or 2j and 2j + 1. */
enum tern_rope { TERN_ROPE_NEOX, TERN_ROPE_NORM };

/* Norms beyond attn_norm, ffn_norm and output_norm, which all have; each a set of vectors of a layer.  No
 * model has both sub-norms and input norms: they take the same places before o and down. */
enum {
    TERN_SUB_NORMS = 1,  /* attn_sub_norm before o, ffn_sub_norm before down */
    TERN_QK_NORMS = 2,   /* attn_q_norm, attn_k_norm [head_dim], on each head before RoPE */
    TERN_POST_NORMS = 4, /* post_attention_norm, post_ffw_norm [n_embd] on what is added to the stream */
    TERN_INPUT_NORMS =
        8, /* attn_q_norm_in ... ffn_down_norm_in, on the input of each of the seven matrices */
};

/* What becomes of the rows of a text when it is embedded; TERN_POOL_NONE for models that write text.  The
 * numbers are those of {a}.pooling_type. */
enum tern_pooling { TERN_POOL_NONE, TERN_POOL_MEAN, TERN_POOL_CLS, TERN_POOL_LAST };

/* What all models of an architecture share. */
struct tern_arch_family {
    const char *name, *alias; /* alias may be NULL */
    enum tern_activation activation;
    enum tern_rope rope;
    unsigned norms;          /* TERN_SUB_NORMS | ... that every file has */
    unsigned optional_norms; /* that it has when the tensors are there */
    bool scaled_embd;        /* embeddings times sqrt(n_embd) */
};

/* NULL when unknown. */
const struct tern_arch_family *tern_arch_family_find(struct tern_str name);
/* "a (also called b), c and d", for sentences. */
void tern_arch_family_names(char *out, size_t cap);

/* "relu2", "silu", "gelu"; "neox", "norm". */
const char *tern_activation_name(enum tern_activation a);
const char *tern_rope_name(enum tern_rope r);

struct tern_arch {
    char name[32];       /* "bitnet-b1.58"; the alias "bitnet-25" is renamed to it */
    char key_prefix[32]; /* of its keys in the file */
    enum tern_activation activation;
    enum tern_rope rope;
    unsigned norms;   /* TERN_SUB_NORMS | ... */
    float embd_scale; /* embeddings are multiplied by it; 1 for most */
    enum tern_pooling pooling;
    uint32_t n_layers;
    uint32_t n_embd; /* hidden size */
    uint32_t n_ffn;
    uint32_t n_heads;    /* query heads */
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* even */
    uint32_t n_vocab;    /* rows of token_embd.weight, else of the token list; 0 when there is neither */
    uint32_t n_ctx_train;
    float rms_eps;
    double rope_theta;
    uint32_t n_rope_freqs;                   /* head_dim / 2, or 0: all ones */
    float rope_freqs[TERN_MAX_HEAD_DIM / 2]; /* the frequency of pair j is divided by entry j */
};

/* Reads and checks; a model of another architecture is TERN_ERR_UNSUPPORTED and the sentence names those that
 * work. */
enum tern_status tern_arch_read(const struct tern_gguf *g, struct tern_arch *out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Hash over every hyper-parameter that changes rows or logits; the same for a model and for a slice of it (so
 * n_vocab and n_ctx_train stay out, and pooling, which is done to rows that are finished). */
void tern_arch_hash(const struct tern_arch *a, uint8_t out[static TERN_HASH_BYTES]);

#endif
