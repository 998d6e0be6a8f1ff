/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-parameters: which keys they come from, their ranges, and what they must agree on.
 *
 * What Tern does not compute (a scaled RoPE, soft caps, experts) is refused here: a model that loads and then
 * answers differently from what it was trained to is worse than one that does not load.
 */
#include "engine/arch.h"

#include "engine/base/log.h"
#include "kernels/kernels.h"

#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Factors of RoPE frequencies: at the longest context no angle leaves the range of tern_sincos. */
#define MIN_ROPE_FREQ 0.001
#define MAX_ROPE_FREQ 1e6

/* A key of the architecture: "bitnet-b1.58.block_count". */
struct key {
    char text[96];
};

/* Under the file's prefix, or the architecture's own name where the key (an override) exists there alone. */
static struct key make_key(const struct tern_gguf *g, const struct tern_arch *a, const char *name)
{
    struct key k, own;

    snprintf(k.text, sizeof k.text, "%s.%s", a->key_prefix, name);
    snprintf(own.text, sizeof own.text, "%s.%s", a->name, name);
    return !tern_gguf_find(g, k.text) && tern_gguf_find(g, own.text) ? own : k;
}

/* The prefix of the file's keys: `name`, or another that has a block_count. */
static void find_prefix(const struct tern_gguf *g, struct tern_str name, struct tern_arch *a)
{
    static const char tail[] = ".block_count";
    const size_t n_tail = sizeof tail - 1;

    snprintf(a->key_prefix, sizeof a->key_prefix, "%.*s", TERN_STR_ARGS(name));
    if (tern_gguf_find(g, make_key(g, a, "block_count").text))
        return;
    for (size_t i = 0; i < g->n_kv; i++) {
        struct tern_str key = g->kv[i].key;

        if (key.len > n_tail && key.len - n_tail < sizeof a->key_prefix &&
            memcmp(key.ptr + key.len - n_tail, tail, n_tail) == 0) {
            key.len -= n_tail;
            snprintf(a->key_prefix, sizeof a->key_prefix, "%.*s", TERN_STR_ARGS(key));
            return;
        }
    }
}

static enum tern_status read_family(const struct tern_gguf *g, struct tern_arch *a,
                                    const struct tern_arch_family **out, struct tern_err *err)
{
    const struct tern_arch_family *f;
    struct tern_str s;
    char names[160];
    enum tern_status st = tern_gguf_string(g, "general.architecture", &s, err);

    if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: does not name its architecture (key general.architecture); it is no model",
                         g->name);
    if (st)
        return st;
    f = tern_arch_family_find(s);
    if (!f) {
        tern_arch_family_names(names, sizeof names);
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: its architecture is '%.*s'; Tern runs %s", g->name,
                         TERN_STR_ARGS(s), names);
    }
    snprintf(a->name, sizeof a->name, "%s", f->name);
    find_prefix(g, s, a);
    a->activation = f->activation;
    a->rope = f->rope;
    *out = f;
    return TERN_OK;
}

/* A whole number in 1..max.  fallback 0: the key must be there. */
static enum tern_status read_u32(const struct tern_gguf *g, const struct tern_arch *a, const char *name,
                                 uint32_t fallback, uint32_t max, uint32_t *out, struct tern_err *err)
{
    struct key key = make_key(g, a, name);
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
    struct key key = make_key(g, a, name);
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
        struct key key = make_key(g, a, sources[i]);
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
    struct key type_key = make_key(g, a, "rope.scaling.type"),
               factor_key = make_key(g, a, "rope.scaling.factor");
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

/* Keys that change the mathematics unless they are 0, or the number that changes nothing. */
static enum tern_status refuse_extras(const struct tern_gguf *g, const struct tern_arch *a,
                                      struct tern_err *err)
{
    const struct {
        const char *name;
        double neutral;
    } extras[] = {
        { "rope.scale_linear", 1 }, /* of older files */
        { "attn_logit_softcapping", 0 },
        { "final_logit_softcapping", 0 },
        { "expert_count", 0 },
        { "attention.scale", 1 / sqrt((double)a->head_dim) },
        { "embedding_scale", (double)a->embd_scale },
        { "residual_scale", 1 },
        { "logit_scale", 1 },
    };
    struct key key;
    bool causal = true;
    enum tern_status st;

    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        double v = 0;

        key = make_key(g, a, extras[i].name);
        st = tern_gguf_f64(g, key.text, &v, err);
        if (st && st != TERN_END)
            return st;
        if (v != 0 && !(fabs(v - extras[i].neutral) <= 1e-6 * extras[i].neutral))
            return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                             "%s: %s is %g; Tern cannot compute models that need it", g->name, key.text, v);
    }
    key = make_key(g, a, "attention.causal");
    st = tern_gguf_bool(g, key.text, &causal, err);
    if (st && st != TERN_END)
        return st;
    if (!causal)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: attention is not causal; Tern computes models whose attention is", g->name);
    return TERN_OK;
}

/* -- what the family leaves open ------------------------------------------------------------------------- */

/* Whether a layer has norms on the inputs of its matrices.  One such tensor is enough: then all must be
 * there, or binding says which is missing. */
static bool has_input_norms(const struct tern_gguf *g)
{
    static const char tail[] = "_norm_in.weight";
    const size_t n_tail = sizeof tail - 1;

    for (size_t i = 0; i < g->n_tensors; i++) {
        struct tern_str name = g->tensors[i].name;

        if (name.len > n_tail && memcmp(name.ptr + name.len - n_tail, tail, n_tail) == 0)
            return true;
    }
    return false;
}

/* A 1bitLLM model that its converter has called bitnet-b1.58. */
static enum tern_status is_mislabelled(const struct tern_gguf *g, const struct tern_arch *a, bool *out,
                                       struct tern_err *err)
{
    uint64_t n_vocab = a->n_vocab;
    enum tern_status st = tern_gguf_u64(g, make_key(g, a, "vocab_size").text, &n_vocab, err);

    if (st && st != TERN_END)
        return st;
    *out =
        strcmp(a->name, "bitnet-b1.58") == 0 && (a->n_layers == 24 || a->n_layers == 26) && n_vocab == 32002;
    return TERN_OK;
}

static enum tern_status read_activation(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    struct key key = make_key(g, a, "activation");
    struct tern_str s;
    bool mislabelled;
    enum tern_status st = tern_gguf_string(g, key.text, &s, err);

    if (st == TERN_OK) {
        for (int i = TERN_RELU2; i <= TERN_GELU; i++)
            if (tern_str_is(s, tern_activation_name((enum tern_activation)i))) {
                a->activation = (enum tern_activation)i;
                return TERN_OK;
            }
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "%s: %s is '%.*s'; Tern knows relu2, silu and gelu",
                         g->name, key.text, TERN_STR_ARGS(s));
    }
    if (st != TERN_END || (st = is_mislabelled(g, a, &mislabelled, err)))
        return st;
    if (mislabelled) {
        a->activation = TERN_SILU;
        tern_log(
            TERN_LOG_INFO, "activation",
            "model=%s activation=silu: %u layers and 32002 tokens are those of 1bitLLM's models, whatever "
            "the architecture is called; key=%s can say otherwise",
            g->name, a->n_layers, key.text);
    }
    return TERN_OK;
}

static enum tern_status read_pooling(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    struct key key = make_key(g, a, "pooling_type");
    uint64_t v = a->norms & TERN_INPUT_NORMS ? TERN_POOL_MEAN : TERN_POOL_NONE;
    enum tern_status st = tern_gguf_u64(g, key.text, &v, err);

    if (st && st != TERN_END)
        return st;
    if (v > TERN_POOL_LAST)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: %s is %llu; Tern pools in the ways 0 to 3 (none, mean, first, last)", g->name,
                         key.text, (unsigned long long)v);
    a->pooling = (enum tern_pooling)v;
    return TERN_OK;
}

static enum tern_status read_rope_freqs(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    const struct tern_tensor *t = tern_gguf_tensor(g, "rope_freqs.weight");
    uint32_t n = a->head_dim / 2;
    bool ones = true;

    if (!t)
        return TERN_OK;
    if ((t->type != TERN_F32 && t->type != TERN_F16 && t->type != TERN_BF16) || t->ne[0] != n ||
        t->ne[1] != 1 || t->ne[2] != 1 || t->ne[3] != 1)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: rope_freqs.weight must be %u numbers of type F32, F16 or BF16", g->name, n);
    tern_dequant_row((enum tern_dtype)t->type, t->data, n, a->rope_freqs);
    for (uint32_t i = 0; i < n; i++) {
        if (!(a->rope_freqs[i] >= MIN_ROPE_FREQ && a->rope_freqs[i] <= MAX_ROPE_FREQ))
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: entry %u of rope_freqs.weight is %g; %g to %g can divide a frequency",
                             g->name, i, (double)a->rope_freqs[i], MIN_ROPE_FREQ, MAX_ROPE_FREQ);
        ones = ones && a->rope_freqs[i] == 1.0f;
    }
    if (ones) /* some converters write them */
        memset(a->rope_freqs, 0, sizeof a->rope_freqs);
    a->n_rope_freqs = ones ? 0 : n;
    return TERN_OK;
}

/* Which layers slide: every one of a list, or all but every n-th. */
static enum tern_status read_pattern(const struct tern_gguf *g, const struct tern_arch *a, uint32_t n,
                                     struct tern_swa *s, struct tern_err *err)
{
    struct key key = make_key(g, a, "attention.sliding_window_pattern");
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key.text);
    uint64_t v = n;
    enum tern_status st;

    if (!kv || kv->type != TERN_GGUF_ARRAY) {
        st = tern_gguf_u64(g, key.text, &v, err);
        if (st && st != TERN_END)
            return st;
        tern_swa_set_pattern(s, a->n_layers, v > TERN_MAX_LAYERS ? 0 : (uint32_t)v);
        return TERN_OK;
    }
    if (kv->elem_type != TERN_GGUF_BOOL || kv->n != a->n_layers)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: %s is neither a number nor a list of true and false for each of the %u layers",
                         g->name, key.text, a->n_layers);
    for (uint32_t l = 0; l < a->n_layers; l++)
        if (kv->data[l])
            tern_swa_set(s, l);
    return TERN_OK;
}

static enum tern_status read_swa(const struct tern_gguf *g, const struct tern_arch_family *f,
                                 struct tern_arch *a, struct tern_err *err)
{
    double theta = f->swa_rope_theta > 0 ? f->swa_rope_theta : a->rope_theta;
    struct tern_swa s = { .window = 0 };
    uint64_t window = 0;
    enum tern_status st = tern_gguf_u64(g, make_key(g, a, "attention.sliding_window").text, &window, err);

    if (st && st != TERN_END)
        return st;
    if (st == TERN_END && f->swa_window > 0 && a->rope_theta == f->swa_if_theta) {
        window = f->swa_window;
        tern_log(TERN_LOG_INFO, "sliding_window",
                 "model=%s window=%u: the file names none, and its RoPE base is that of models which have it",
                 g->name, f->swa_window);
    }
    if (window == 0)
        return TERN_OK;
    s.window = window < TERN_MAX_CONTEXT ? (uint32_t)window : TERN_MAX_CONTEXT;
    st = read_positive(g, a, "rope.freq_base_swa", theta, 1e12, &s.rope_theta, err);
    if (!st)
        st = read_pattern(g, a, f->swa_pattern, &s, err);
    for (uint32_t l = 0; l < a->n_layers && !st; l++)
        if (tern_swa_slides(&s, l)) {
            a->swa = s;
            break;
        }
    return st;
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

static enum tern_status read_sizes(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    enum tern_status st = read_u32(g, a, "block_count", 0, TERN_MAX_LAYERS, &a->n_layers, err);

    if (!st)
        st = read_u32(g, a, "embedding_length", 0, TERN_MAX_EMBD, &a->n_embd, err);
    if (!st)
        st = read_u32(g, a, "feed_forward_length", 0, TERN_MAX_FFN, &a->n_ffn, err);
    if (!st)
        st = read_u32(g, a, "context_length", 0, TERN_MAX_CONTEXT, &a->n_ctx_train, err);
    if (!st)
        st = read_heads(g, a, err);
    return st ? st : read_vocab(g, a, err);
}

static enum tern_status read_numbers(const struct tern_gguf *g, struct tern_arch *a, struct tern_err *err)
{
    double eps = 0;
    enum tern_status st = read_positive(g, a, "attention.layer_norm_rms_epsilon", 0, 1.0, &eps, err);

    if (!st)
        st = read_positive(g, a, "rope.freq_base", 10000.0, 1e12, &a->rope_theta, err);
    if (st)
        return st;
    a->rms_eps = (float)eps;
    if (!(a->rms_eps > 0))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the RMS epsilon %g is 0 in single precision", g->name,
                         eps);
    return TERN_OK;
}

enum tern_status tern_arch_read(const struct tern_gguf *g, struct tern_arch *out, struct tern_err *err)
{
    struct tern_arch a = { .n_layers = 0 };
    const struct tern_arch_family *f = NULL;
    enum tern_status st = read_family(g, &a, &f, err);

    if (!st)
        st = read_sizes(g, &a, err);
    if (!st)
        st = read_numbers(g, &a, err);
    if (st)
        return st;
    a.norms = f->norms | (has_input_norms(g) ? f->optional_norms : 0);
    a.embd_scale = f->scaled_embd ? sqrtf((float)a.n_embd) : 1.0f;
    st = refuse_rope_scaling(g, &a, err);
    if (!st)
        st = refuse_extras(g, &a, err);
    if (!st)
        st = read_activation(g, &a, err);
    if (!st)
        st = read_pooling(g, &a, err);
    if (!st)
        st = read_rope_freqs(g, &a, err);
    if (!st)
        st = read_swa(g, f, &a, err);
    if (!st)
        *out = a;
    return st;
}

/* As text, so that byte order and padding play no part. */
static void hash_text(crypto_generichash_state *h, const char *fmt, ...) TERN_PRINTF(2, 3);

static void hash_text(crypto_generichash_state *h, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    TERN_BUG_IF(n < 0 || n >= (int)sizeof text);
    crypto_generichash_update(h, (const unsigned char *)text, (size_t)n);
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

void tern_arch_hash(const struct tern_arch *a, uint8_t out[static TERN_HASH_BYTES])
{
    crypto_generichash_state h;
    uint64_t theta;

    memcpy(&theta, &a->rope_theta, sizeof theta);
    TERN_BUG_IF(crypto_generichash_init(&h, NULL, 0, TERN_HASH_BYTES) != 0);
    hash_text(&h, "%s layers=%u embd=%u ffn=%u heads=%u kv_heads=%u head_dim=%u eps=%08x theta=%016llx",
              a->name, a->n_layers, a->n_embd, a->n_ffn, a->n_heads, a->n_kv_heads, a->head_dim,
              bits_of(a->rms_eps), (unsigned long long)theta);
    hash_text(&h, " act=%s rope=%s norms=%x embd_scale=%08x", tern_activation_name(a->activation),
              tern_rope_name(a->rope), a->norms, bits_of(a->embd_scale));
    for (uint32_t i = 0; i < a->n_rope_freqs; i++)
        hash_text(&h, " freq=%08x", bits_of(a->rope_freqs[i]));
    if (a->swa.window) {
        memcpy(&theta, &a->swa.rope_theta, sizeof theta);
        hash_text(&h, " window=%u theta=%016llx layers=", a->swa.window, (unsigned long long)theta);
        for (size_t i = 0; i < sizeof a->swa.layers; i++)
            hash_text(&h, "%02x", a->swa.layers[i]);
    }
    crypto_generichash_final(&h, out, TERN_HASH_BYTES);
}
