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
 * Layers may slide: their rows see the last positions only, and RoPE may have a base of its own there.  The
 * keys are {a}.attention.sliding_window, how many positions; {a}.attention.sliding_window_pattern, n for
 * "every n-th layer sees all" (0: none does) or a list with true for each layer that slides;
 * {a}.rope.freq_base_swa.
 *
 * gemma3: the embedding models' files name no sliding window, no soft caps and no scale of scores.  Files
 * that name a cap are refused; caps and scales that are not named are not there.  A window that is not named
 * is: the published file has RoPE base 1000000, that of the layers of Gemma 3 which see all, so its other
 * layers have what all small Gemma 3 have, a window of 512 and base 10000 (sliding_window=int:0 says
 * otherwise).  With another base every layer sees all positions before it, with one theta.
 */
#ifndef TERN_ENGINE_ARCH_H
#define TERN_ENGINE_ARCH_H

#include "engine/base/limits.h"
#include "engine/gguf.h"

#include <stdbool.h>
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

/* Sliding windows of attention: row `pos` of a layer that slides sees positions above pos - window.  All
 * zeros when no layer slides; bits behind the last layer are 0. */
struct tern_swa {
    uint32_t window;                     /* positions, the row's own included */
    double rope_theta;                   /* of layers that slide */
    uint8_t layers[TERN_MAX_LAYERS / 8]; /* bit l % 8 of byte l / 8: layer l slides */
};

static inline bool tern_swa_slides(const struct tern_swa *s, uint32_t layer)
{
    return s->layers[layer / 8] >> layer % 8 & 1;
}
void tern_swa_set(struct tern_swa *s, uint32_t layer);
/* All layers but every n-th, layers n - 1, 2n - 1 ...; all when n is 0.  The others stay as they are. */
void tern_swa_set_pattern(struct tern_swa *s, uint32_t n_layers, uint32_t n);
/* Writes the three keys of an architecture's n_layers layers; nothing when no layer slides. */
struct tern_gguf_writer;
void tern_swa_put(const struct tern_swa *s, const char *arch, uint32_t n_layers, struct tern_gguf_writer *w);

/* What all models of an architecture share. */
struct tern_arch_family {
    const char *name, *alias; /* alias may be NULL */
    enum tern_activation activation;
    enum tern_rope rope;
    unsigned norms;          /* TERN_SUB_NORMS | ... that every file has */
    unsigned optional_norms; /* that it has when the tensors are there */
    bool scaled_embd;        /* embeddings times sqrt(n_embd) */
    /* Of files that name a window and no more: */
    uint32_t swa_pattern;  /* every so many layers one sees all; 0: none */
    double swa_rope_theta; /* 0: as in the other layers */
    /* Of files that name no window, where their RoPE base is this one: the window they have all the same. */
    uint32_t swa_window; /* 0: none */
    double swa_if_theta;
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
    uint32_t n_rope_freqs; /* head_dim / 2, or 0: all ones */
    float
        rope_freqs[TERN_MAX_HEAD_DIM / 2]; /* the frequency of pair j is divided by entry j, in all layers */
    struct tern_swa swa;
};

/* Whether layers differ in RoPE's base. */
static inline bool tern_arch_two_bases(const struct tern_arch *a)
{
    return a->swa.window && a->swa.rope_theta != a->rope_theta;
}

/* Reads and checks; a model of another architecture is TERN_ERR_UNSUPPORTED and the sentence names those that
 * work. */
enum tern_status tern_arch_read(const struct tern_gguf *g, struct tern_arch *out,
                                struct tern_err *err) TERN_MUST_CHECK;

/* Hash over every hyper-parameter that changes rows or logits; the same for a model and for a slice of it (so
 * n_vocab and n_ctx_train stay out, and pooling, which is done to rows that are finished). */
void tern_arch_hash(const struct tern_arch *a, uint8_t out[static TERN_HASH_BYTES]);

#endif
