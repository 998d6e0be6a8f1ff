/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models: random ternary weights with scales that keep activations near 1, and a vocabulary that is
 * small and whole.
 *
 * A matrix of K inputs has scale 1 / sqrt(0.6 K): with 60 % of the weights not zero, normed inputs give
 * outputs of deviation 1. Embeddings have deviation 3 / sqrt(n_embd), so that logits of a tied head have
 * deviation 3: peaked, not certain.
 */
#include "lab/lab.h"

#include "lab/gguf_write.h"
#include "lab/quant_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t lab_rng_next(struct lab_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float lab_rng_normal(struct lab_rng *r)
{
    int sum = 0;

    for (int i = 0; i < 3; i++) {
        uint64_t v = lab_rng_next(r);

        for (int j = 0; j < 4; j++)
            sum += (int)(v >> 16 * j & 0xffff);
    }
    return (float)sum / 65536.0f - 6.0f;
}

void lab_rng_ternary(struct lab_rng *r, int8_t *w, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = lab_rng_next(r);

        for (size_t j = i; j < n && j < i + 8; j++, v >>= 8) {
            unsigned b = v & 0xff;

            w[j] = b < 102 ? 0 : b < 179 ? 1 : -1;
        }
    }
}

struct lab_shape lab_shape_small(void)
{
    return (struct lab_shape){
        .n_layers = 2,
        .n_embd = 128,
        .n_ffn = 256,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .n_vocab = 320,
        .n_ctx = 512,
        .rope_theta = 10000.0,
        .rms_eps = 1e-5,
        .ternary = TERN_TYPE_I2_S,
        .layout = TERN_I2S_A,
        .embd = 1 /* F16 */,
        .norm = 0 /* F32 */,
        .seed = 1,
    };
}

/* -- tokenizer --------------------------------------------------------------------------------- */

/* A byte in the GPT-2 alphabet, as UTF-8. */
static void byte_text(unsigned byte, char out[3])
{
    unsigned cp = byte, shifted = 0;
    bool plain = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

    if (!plain) {
        for (unsigned b = 0; b < byte; b++)
            shifted += !((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae);
        cp = 0x100 + shifted;
    }
    if (cp < 0x80) {
        out[0] = (char)cp;
        out[1] = '\0';
    } else {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        out[2] = '\0';
    }
}

/* 256 byte tokens, a few merges, BOS, EOS, then words that no merge reaches. */
static void put_small_tokenizer(struct gguf_writer *w, uint32_t n_vocab)
{
    /* "\304\240" is the space of the byte alphabet. */
    static char *const merges[] = {
        "t h", "th e", "i n", "a n", "an d", "e r", "\304\240 the", "\304\240 and"
    };
    static const char *const merged[] = {
        "th", "the", "in", "an", "and", "er", "\304\240the", "\304\240and"
    };
    const uint32_t n_merges = sizeof merges / sizeof merges[0], bos = 256 + n_merges;
    char **text;
    int32_t *types;

    if (n_vocab < bos + 2)
        lab_die("a vocabulary of %u tokens is too small; at least %u are needed", n_vocab, bos + 2);
    text = lab_alloc(n_vocab * sizeof *text);
    types = lab_alloc(n_vocab * sizeof *types);
    for (uint32_t i = 0; i < n_vocab; i++) {
        text[i] = lab_alloc(24);
        types[i] = i == bos || i == bos + 1 ? 3 : 1;
        if (i < 256)
            byte_text(i, text[i]);
        else if (i < bos)
            snprintf(text[i], 24, "%s", merged[i - 256]);
        else if (i < bos + 2)
            snprintf(text[i], 24, "%s", i == bos ? "<|begin_of_text|>" : "<|end_of_text|>");
        else
            snprintf(text[i], 24, "\xc4\xa0w%u", i);
    }
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(w, "tokenizer.ggml.pre", "llama-bpe");
    gguf_put_strings(w, "tokenizer.ggml.tokens", text, n_vocab);
    gguf_put_i32s(w, "tokenizer.ggml.token_type", types, n_vocab);
    gguf_put_strings(w, "tokenizer.ggml.merges", merges, n_merges);
    gguf_put_u32(w, "tokenizer.ggml.bos_token_id", bos);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", bos + 1);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    for (uint32_t i = 0; i < n_vocab; i++)
        free(text[i]);
    free(text);
    free(types);
}

static void put_tokenizer_of(struct gguf_writer *w, const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (g->kv[i].key.len > 10 && memcmp(g->kv[i].key.ptr, "tokenizer.", 10) == 0)
            gguf_put_kv(w, &g->kv[i]);
}

/* -- metadata and directory -------------------------------------------------------------------- */

static void put_metadata(struct gguf_writer *w, const struct lab_shape *s)
{
    const char *arch = s->arch ? s->arch : "bitnet-b1.58";
    const struct {
        const char *name;
        uint32_t v;
    } keys[] = {
        { "vocab_size", s->n_vocab },
        { "context_length", s->n_ctx },
        { "embedding_length", s->n_embd },
        { "block_count", s->n_layers },
        { "feed_forward_length", s->n_ffn },
        { "rope.dimension_count", s->head_dim },
        { "attention.head_count", s->n_heads },
        { "attention.head_count_kv", s->n_kv_heads },
        { "attention.key_length", s->head_dim },
        { "attention.value_length", s->head_dim },
    };
    char key[96];

    gguf_put_string(w, "general.architecture", arch);
    gguf_put_string(w, "general.name", "synthetic");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].name);
        gguf_put_u32(w, key, keys[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_put_f32(w, key, (float)s->rms_eps);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    gguf_put_f32(w, key, (float)s->rope_theta);
    gguf_put_u32(w, "general.quantization_version", 2);
    if (s->tokenizer)
        put_tokenizer_of(w, s->tokenizer);
    else if (!s->no_tokenizer)
        put_small_tokenizer(w, s->n_vocab);
}

enum part { NORM, MATRIX, TABLE };

/* The tensors in file order.  Calls visit for each; layer names get their prefix here. */
static void
each_tensor(const struct lab_shape *s,
            void (*visit)(void *arg, const char *name, enum part part, uint64_t ne0, uint64_t ne1), void *arg)
{
    const uint64_t q = (uint64_t)s->n_heads * s->head_dim, kv = (uint64_t)s->n_kv_heads * s->head_dim;
    const struct {
        const char *name;
        enum part part;
        uint64_t ne0, ne1;
    } layer[] = {
        { "attn_norm", NORM, s->n_embd, 1 },
        { "attn_q", MATRIX, s->n_embd, q },
        { "attn_k", MATRIX, s->n_embd, kv },
        { "attn_v", MATRIX, s->n_embd, kv },
        { "attn_sub_norm", NORM, q, 1 },
        { "attn_output", MATRIX, q, s->n_embd },
        { "ffn_norm", NORM, s->n_embd, 1 },
        { "ffn_gate", MATRIX, s->n_embd, s->n_ffn },
        { "ffn_up", MATRIX, s->n_embd, s->n_ffn },
        { "ffn_sub_norm", NORM, s->n_ffn, 1 },
        { "ffn_down", MATRIX, s->n_ffn, s->n_embd },
    };

    visit(arg, "token_embd.weight", TABLE, s->n_embd, s->n_vocab);
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            char name[64];

            snprintf(name, sizeof name, "blk.%u.%s.weight", l, layer[i].name);
            visit(arg, name, layer[i].part, layer[i].ne0, layer[i].ne1);
        }
    visit(arg, "output_norm.weight", NORM, s->n_embd, 1);
    if (s->untied)
        visit(arg, "output.weight", TABLE, s->n_embd, s->n_vocab);
}

struct making {
    const struct lab_shape *s;
    struct gguf_writer *w;
    struct lab_rng rng;
};

static void announce(void *arg, const char *name, enum part part, uint64_t ne0, uint64_t ne1)
{
    struct making *m = arg;
    const uint64_t ne[2] = { ne0, ne1 };
    uint32_t type = part == NORM ? m->s->norm : part == MATRIX ? m->s->ternary : m->s->embd;

    gguf_add_tensor(m->w, name, type, part == NORM ? 1 : 2, ne);
}

/* -- data -------------------------------------------------------------------------------------- */

static void write_rows(struct making *m, uint32_t type, uint64_t ne0, uint64_t ne1, float deviation)
{
    const uint64_t row[4] = { ne0, 1, 1, 1 };
    float *x = lab_alloc((size_t)ne0 * sizeof *x);
    size_t bytes;
    void *out;

    if (!tern_gguf_tensor_bytes(type, row, &bytes))
        lab_die("rows of %llu elements cannot be of type %u", (unsigned long long)ne0, type);
    out = lab_alloc(bytes);
    for (uint64_t r = 0; r < ne1; r++) {
        for (uint64_t i = 0; i < ne0; i++)
            x[i] = deviation > 0 ? deviation * lab_rng_normal(&m->rng) : 1.0f;
        if (!quant_row(type, x, (size_t)ne0, out))
            lab_die("type %u cannot be written as rows", type);
        gguf_write(m->w, out, bytes);
    }
    free(x);
    free(out);
}

static void write_matrix(struct making *m, uint64_t ne0, uint64_t ne1)
{
    const uint64_t ne[4] = { ne0, ne1, 1, 1 };
    int8_t *weights = lab_alloc((size_t)(ne0 * ne1));
    size_t bytes;
    uint8_t *out;

    if (!tern_gguf_tensor_bytes(m->s->ternary, ne, &bytes))
        lab_die("a matrix of %llu x %llu cannot be of type %u", (unsigned long long)ne0,
                (unsigned long long)ne1, m->s->ternary);
    out = lab_alloc(bytes);
    memset(out, 0, bytes);
    lab_rng_ternary(&m->rng, weights, (size_t)(ne0 * ne1));
    if (!tern_pack_file(m->s->ternary, m->s->layout, weights, (size_t)ne1, (size_t)ne0,
                        1.0f / sqrtf(0.6f * (float)ne0), out))
        lab_die("a matrix of %llu x %llu cannot be packed as type %u, layout %c", (unsigned long long)ne0,
                (unsigned long long)ne1, m->s->ternary, 'A' + (int)m->s->layout);
    gguf_write(m->w, out, bytes);
    free(weights);
    free(out);
}

static void produce(void *arg, const char *name, enum part part, uint64_t ne0, uint64_t ne1)
{
    struct making *m = arg;

    (void)name;
    if (part == MATRIX)
        write_matrix(m, ne0, ne1);
    else
        write_rows(m, part == NORM ? m->s->norm : m->s->embd, ne0, ne1,
                   part == NORM ? 0 : 3.0f / sqrtf((float)ne0));
    gguf_end_tensor(m->w);
}

void lab_write_synthetic(const struct lab_shape *shape, FILE *f)
{
    struct making m = { .s = shape, .w = gguf_writer_new(f, 32), .rng = { shape->seed } };

    put_metadata(m.w, shape);
    each_tensor(shape, announce, &m);
    gguf_begin(m.w);
    each_tensor(shape, produce, &m);
    gguf_finish(&m.w);
}
