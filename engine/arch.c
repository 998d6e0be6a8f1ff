/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters: which keys they come from, their ranges, and what they must agree on.
 *
 * What Tern does not compute (a scaled RoPE, a sliding window, experts) is refused here: a model that loads
 * and then answers differently from what it was trained to is worse than one that does not load.
 */
#include "engine/arch.h"

#include "kernels/kernels.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static const char *const known[] = { "bitnet-b1.58", "bitnet-25" }; /* the first is the name of both */

/* A key of the architecture: "bitnet-b1.58.block_count". */
struct key {
    char text[96];
};

static struct key make_key(const struct tern_arch *a, const char *name)
{
    struct key k;

    snprintf(k.text, sizeof k.text, "%s.%s", a->key_prefix, name);
    return k;
}

static enum tern_status read_name(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    struct tern_str s;
    enum tern_status st = tern_gguf_string(g, "general.architecture", &s, err);

    if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: does not name its architecture (key general.architecture); it is no model",
                         g->name);
    if (st)
        return st;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (tern_str_is(s, known[i])) {
            snprintf(a->name, sizeof a->name, "%s", known[0]);
            a->activation = TERN_RELU2;
            a->rope = TERN_ROPE_NEOX;
            a->norms = TERN_SUB_NORMS;
            a->embd_scale = 1.0f;
            snprintf(a->key_prefix, sizeof a->key_prefix, "%s", known[i]);
            return TERN_OK;
        }
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                     "%s: its architecture is '%.*s'; Tern runs bitnet-b1.58 (also called bitnet-25)",
                     g->name, TERN_STR_ARGS(s));
}

/* A whole number in 1..max.  fallback 0: the key must be there. */
static enum tern_status read_u32(const struct tern_gguf *g, const struct tern_arch *a, const char *name,
                                 uint32_t fallback, uint32_t max, uint32_t *out, struct tern_err *err)
{
    struct key key = make_key(a, name);
    uint64_t v;
    enum tern_status st = tern_gguf_u64(g, key.text, &v, err);

    if (st == TERN_END && fallback != 0)
        v = fallback;
    else if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: metadata key '%s' is missing", g->name, key.text);
    else if (st)
        return st;
    if (v == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s is 0", g->name, key.text);
    if (v > max)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %s is %llu, at most %u is allowed", g->name, key.text,
                         (unsigned long long)v, max);
    *out = (uint32_t)v;
    return TERN_OK;
}

/* A finite number in (0, max].  fallback 0: the key must be there. */
static enum tern_status read_positive(const struct tern_gguf *g, const struct tern_arch *a, const char *name,
                                      double fallback, double max, double *out, struct tern_err *err)
{
    struct key key = make_key(a, name);
    double v;
    enum tern_status st = tern_gguf_f64(g, key.text, &v, err);

    if (st == TERN_END && fallback > 0)
        v = fallback;
    else if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: metadata key '%s' is missing", g->name, key.text);
    else if (st)
        return st;
    if (!(v > 0 && v <= max))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s is %g, which is not in the range from above 0 to %g",
                         g->name, key.text, v, max);
    *out = v;
    return TERN_OK;
}

/* attention.key_length, else rope.dimension_count, else embedding / heads; and all that are there must agree.
 * */
static enum tern_status read_head_dim(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    static const char *const sources[] = { "attention.key_length", "attention.value_length",
                                           "rope.dimension_count" };
    uint32_t derived = a->n_embd % a->n_heads == 0 ? a->n_embd / a->n_heads : 0;

    a->head_dim = 0;
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        struct key key = make_key(a, sources[i]);
        uint32_t dim;
        enum tern_status st;

        if (!tern_gguf_find(g, key.text))
            continue;
        st = read_u32(g, a, sources[i], 0, TERN_MAX_HEAD_DIM, &dim, err);
        if (st)
            return st;
        if (a->head_dim && dim != a->head_dim)
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s: %s is %u where a head has %u dimensions; Tern needs them to be the same",
                             g->name, key.text, dim, a->head_dim);
        a->head_dim = dim;
    }
    if (a->head_dim == 0)
        a->head_dim = derived;
    if (a->head_dim == 0 || a->head_dim > TERN_MAX_HEAD_DIM || a->head_dim % 2 != 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: a hidden size of %u and %u heads make heads of %u dimensions; an even number "
                         "up to %d is needed",
                         g->name, a->n_embd, a->n_heads, a->head_dim, TERN_MAX_HEAD_DIM);
    if ((uint64_t)a->n_heads * a->head_dim > TERN_TERNARY_MAX_K)
        return TERN_FAIL(err, TERN_ERR_LIMIT,
                         "%s: %u heads of %u dimensions are more than the %d inputs a matrix can have",
                         g->name, a->n_heads, a->head_dim, TERN_TERNARY_MAX_K);
    return TERN_OK;
}

static enum tern_status read_heads(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    enum tern_status st = read_u32(g, a, "attention.head_count", 0, TERN_MAX_HEADS, &a->n_heads, err);

    if (!st)
        st = read_u32(g, a, "attention.head_count_kv", a->n_heads, TERN_MAX_HEADS, &a->n_kv_heads, err);
    if (st)
        return st;
    if (a->n_heads % a->n_kv_heads != 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %u query heads cannot share %u key-value heads evenly",
                         g->name, a->n_heads, a->n_kv_heads);
    return read_head_dim(g, a, err);
}

static enum tern_status refuse_rope_scaling(const struct tern_gguf *g, const struct tern_arch *a,
                                            struct tern_err *err)
{
    struct key type_key = make_key(a, "rope.scaling.type"), factor_key = make_key(a, "rope.scaling.factor");
    struct tern_str type = { "none", 4 };
    double factor = 0;
    enum tern_status st = tern_gguf_string(g, type_key.text, &type, err);

    if (st && st != TERN_END)
        return st;
    st = tern_gguf_f64(g, factor_key.text, &factor, err);
    if (st && st != TERN_END)
        return st;
    /* Without a type a factor would mean linear scaling; without a factor a type other than "none" means
     * nothing we know. */
    if (st == TERN_END && tern_str_is(type, "none"))
        return TERN_OK;
    if (st == TERN_OK && (factor == 1.0 || (factor == 0.0 && tern_str_is(type, "none"))))
        return TERN_OK;
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                     "%s: RoPE scaling '%.*s' with factor %g is not supported; only none, or factor 1, is",
                     g->name, TERN_STR_ARGS(type), factor);
}

/* Keys that change the mathematics when they are not 0. */
static enum tern_status refuse_extras(const struct tern_gguf *g, const struct tern_arch *a,
                                      struct tern_err *err)
{
    static const char *const extras[] = { "attention.sliding_window", "attn_logit_softcapping",
                                          "final_logit_softcapping", "expert_count", "pooling_type" };
    struct key key;
    bool causal = true;
    enum tern_status st;

    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        double v = 0;

        key = make_key(a, extras[i]);
        st = tern_gguf_f64(g, key.text, &v, err);
        if (st && st != TERN_END)
            return st;
        if (v != 0)
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s: %s is %g; Tern cannot compute models that need it", g->name, key.text, v);
    }
    key = make_key(a, "attention.causal");
    st = tern_gguf_bool(g, key.text, &causal, err);
    if (st && st != TERN_END)
        return st;
    if (!causal)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: attention is not causal, so the model does not generate text", g->name);
    return TERN_OK;
}

/* Rows of the embedding, else the length of the token list, else 0. */
static enum tern_status read_vocab(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    const struct tern_tensor *embd = tern_gguf_tensor(g, "token_embd.weight");
    const struct tern_gguf_kv *tokens = tern_gguf_find(g, "tokenizer.ggml.tokens");
    uint64_t listed = tokens && tokens->type == TERN_GGUF_ARRAY ? tokens->n : 0;
    uint64_t n = embd ? embd->ne[1] : listed;

    if (n > TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: a vocabulary of %llu tokens, at most %d are allowed",
                         g->name, (unsigned long long)n, TERN_MAX_VOCAB);
    if (listed > n)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: lists %llu tokens but token_embd.weight has only %llu rows", g->name,
                         (unsigned long long)listed, (unsigned long long)n);
    a->n_vocab = (uint32_t)n;
    return TERN_OK;
}

enum tern_status tern_arch_read(const struct tern_gguf *g, struct tern_arch *out, struct tern_err *err)
{
    struct tern_arch a = { .n_layers = 0 };
    double eps = 0;
    enum tern_status st = read_name(g, &a, err);

    if (!st)
        st = read_u32(g, &a, "block_count", 0, TERN_MAX_LAYERS, &a.n_layers, err);
    if (!st)
        st = read_u32(g, &a, "embedding_length", 0, TERN_MAX_EMBD, &a.n_embd, err);
    if (!st)
        st = read_u32(g, &a, "feed_forward_length", 0, TERN_MAX_FFN, &a.n_ffn, err);
    if (!st)
        st = read_u32(g, &a, "context_length", 0, TERN_MAX_CONTEXT, &a.n_ctx_train, err);
    if (!st)
        st = read_heads(g, &a, err);
    if (!st)
        st = read_positive(g, &a, "attention.layer_norm_rms_epsilon", 0, 1.0, &eps, err);
    if (!st)
        st = read_positive(g, &a, "rope.freq_base", 10000.0, 1e12, &a.rope_theta, err);
    if (!st)
        st = refuse_rope_scaling(g, &a, err);
    if (!st)
        st = refuse_extras(g, &a, err);
    if (!st)
        st = read_vocab(g, &a, err);
    if (st)
        return st;
    a.rms_eps = (float)eps;
    if (!(a.rms_eps > 0))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the RMS epsilon %g is 0 in single precision", g->name,
                         eps);
    *out = a;
    return TERN_OK;
}

void tern_arch_hash(const struct tern_arch *a, uint8_t out[static TERN_HASH_BYTES])
{
    char text[256];
    uint32_t eps;
    uint64_t theta;
    int n;

    memcpy(&eps, &a->rms_eps, sizeof eps);
    memcpy(&theta, &a->rope_theta, sizeof theta);
    /* As text, so that byte order and padding play no part. */
    n = snprintf(text, sizeof text,
                 "%s layers=%u embd=%u ffn=%u heads=%u kv_heads=%u head_dim=%u eps=%08x theta=%016llx",
                 a->name, a->n_layers, a->n_embd, a->n_ffn, a->n_heads, a->n_kv_heads, a->head_dim, eps,
                 (unsigned long long)theta);
    TERN_BUG_IF(n < 0 || n >= (int)sizeof text);
    TERN_BUG_IF(crypto_generichash(out, TERN_HASH_BYTES, (const unsigned char *)text, (size_t)n, NULL, 0) !=
                0);
}
