/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models: see synthetic.h.
 *
 * A matrix of K inputs has scale 1 / sqrt(0.6 K): with 60 % of the weights not zero, normed inputs give
 * outputs of deviation 1. Embeddings have deviation 3 / sqrt(n_embd), so that logits of a tied head have
 * deviation 3: peaked, not certain.  Norms are ones, or of deviation 0.1 around 1, as are factors of RoPE and
 * separate scales.
 *
 * A matrix is made in pieces of rows, each from a random state of its own, by all threads, and written in
 * order.
 */
#include "engine/synthetic.h"

#include "engine/arch.h"
#include "engine/base/mem.h"
#include "engine/gguf_write.h"
#include "engine/quant_row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- tokenizer ------------------------------------------------------------------------------------------- */

#define TEXT_BYTES 24 /* of one token, the end included */

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
static enum tern_status put_tokenizer(struct tern_gguf_writer *w, uint32_t n_vocab, struct tern_err *err)
{
    /* "\304\240" is the space of the byte alphabet. */
    static char *const merges[] = {
        "t h", "th e", "i n", "a n", "an d", "e r", "\304\240 the", "\304\240 and"
    };
    static const char *const merged[] = {
        "th", "the", "in", "an", "and", "er", "\304\240the", "\304\240and"
    };
    const uint32_t n_merges = sizeof merges / sizeof merges[0], bos = 256 + n_merges;
    char **text, (*store)[TEXT_BYTES];
    int32_t *types;
    enum tern_status st = TERN_OK;

    if (n_vocab < bos + 2)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "a vocabulary of %u tokens is too small; at least %u are needed", (unsigned)n_vocab,
                         (unsigned)bos + 2);
    text = calloc(n_vocab, sizeof *text);
    store = calloc(n_vocab, sizeof *store);
    types = calloc(n_vocab, sizeof *types);
    if (!text || !store || !types) {
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", (unsigned)n_vocab);
        goto end;
    }
    for (uint32_t i = 0; i < n_vocab; i++) {
        text[i] = store[i];
        types[i] = i == bos || i == bos + 1 ? 3 : 1;
        if (i < 256)
            byte_text(i, text[i]);
        else if (i < bos)
            snprintf(text[i], TEXT_BYTES, "%s", merged[i - 256]);
        else if (i < bos + 2)
            snprintf(text[i], TEXT_BYTES, "%s", i == bos ? "<|begin_of_text|>" : "<|end_of_text|>");
        else
            snprintf(text[i], TEXT_BYTES, "\xc4\xa0w%u", i);
    }
    tern_gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    tern_gguf_put_string(w, "tokenizer.ggml.pre", "llama-bpe");
    tern_gguf_put_strings(w, "tokenizer.ggml.tokens", text, n_vocab);
    tern_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, n_vocab);
    tern_gguf_put_strings(w, "tokenizer.ggml.merges", merges, n_merges);
    tern_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", bos);
    tern_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", bos + 1);
    tern_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
end:
    free(text);
    free(store);
    free(types);
    return st;
}

static void put_tokenizer_of(struct tern_gguf_writer *w, const struct tern_gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (g->kv[i].key.len > 10 && memcmp(g->kv[i].key.ptr, "tokenizer.", 10) == 0)
            tern_gguf_put_kv(w, &g->kv[i]);
}

/* -- metadata -------------------------------------------------------------------------------------------- */

static const char *arch_name(const struct tern_synthetic *s)
{
    return s->arch ? s->arch : "bitnet-b1.58";
}

/* The norms of its layers (arch.h).  An architecture that nobody knows looks like bitnet-b1.58. */
static unsigned norms_of(const struct tern_synthetic *s)
{
    const char *name = arch_name(s);
    const struct tern_arch_family *f = tern_arch_family_find((struct tern_str){ name, strlen(name) });

    if (!f)
        return TERN_SUB_NORMS;
    return f->norms | (s->no_input_norms ? 0 : f->optional_norms);
}

/* Keys that files of one architecture have and others lack. */
static void put_particulars(struct tern_gguf_writer *w, const struct tern_synthetic *s)
{
    char key[96];

    if (strcmp(arch_name(s), "bitnet") == 0) {
        tern_gguf_put_string(w, "bitnet.rope.scaling.type", "linear");
        tern_gguf_put_f32(w, "bitnet.rope.scaling.factor", 1.0f);
    }
    if (norms_of(s) & TERN_INPUT_NORMS) {
        snprintf(key, sizeof key, "%s.pooling_type", arch_name(s));
        tern_gguf_put_u32(w, key, TERN_POOL_LAST);
    }
}

static enum tern_status put_metadata(struct tern_gguf_writer *w, const struct tern_synthetic *s,
                                     struct tern_err *err)
{
    const char *arch = arch_name(s);
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

    tern_gguf_put_string(w, "general.architecture", arch);
    snprintf(key, sizeof key, "synthetic%s%s", s->name ? " " : "", s->name ? s->name : "");
    tern_gguf_put_string(w, "general.name", key);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].name);
        tern_gguf_put_u32(w, key, keys[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    tern_gguf_put_f32(w, key, (float)s->rms_eps);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    tern_gguf_put_f32(w, key, (float)s->rope_theta);
    tern_swa_put(&s->swa, arch, s->n_layers, w);
    put_particulars(w, s);
    tern_gguf_put_u32(w, "general.quantization_version", 2);
    if (s->tokenizer)
        put_tokenizer_of(w, s->tokenizer);
    else if (!s->no_tokenizer)
        return put_tokenizer(w, s->n_vocab, err);
    return TERN_OK;
}

/* -- the tensors ----------------------------------------------------------------------------------------- */

enum part { NORM, MATRIX, TABLE, FACTORS };

struct tensor {
    char name[64];
    enum part part;
    uint64_t ne0, ne1;
    uint64_t id; /* the same in the whole model and in a slice of it */
};

typedef enum tern_status visitor(void *arg, const struct tensor *t, struct tern_err *err);

/* Behind "blk.N."; its place in this list is part of a tensor's id. */
struct part_of_layer {
    const char *name;
    enum part part;
    unsigned norms; /* not 0: only where the layer has these */
    uint64_t ne0, ne1;
};

static enum tern_status visit_layer(const struct tern_synthetic *s, uint32_t l, visitor *visit, void *arg,
                                    struct tern_err *err)
{
    const uint64_t d = s->n_embd, ffn = s->n_ffn, hd = s->head_dim, q = s->n_heads * hd,
                   kv = s->n_kv_heads * hd;
    const unsigned norms = norms_of(s);
    const struct part_of_layer parts[] = {
        { "attn_norm.weight", NORM, 0, d, 1 },
        { "attn_q.weight", MATRIX, 0, d, q },
        { "attn_k.weight", MATRIX, 0, d, kv },
        { "attn_v.weight", MATRIX, 0, d, kv },
        { "attn_sub_norm.weight", NORM, TERN_SUB_NORMS, q, 1 },
        { "attn_output.weight", MATRIX, 0, q, d },
        { "ffn_norm.weight", NORM, 0, d, 1 },
        { "ffn_gate.weight", MATRIX, 0, d, ffn },
        { "ffn_up.weight", MATRIX, 0, d, ffn },
        { "ffn_sub_norm.weight", NORM, TERN_SUB_NORMS, ffn, 1 },
        { "ffn_down.weight", MATRIX, 0, ffn, d },
        { "attn_q_norm.weight", NORM, TERN_QK_NORMS, hd, 1 },
        { "attn_k_norm.weight", NORM, TERN_QK_NORMS, hd, 1 },
        { "post_attention_norm.weight", NORM, TERN_POST_NORMS, d, 1 },
        { "post_ffw_norm.weight", NORM, TERN_POST_NORMS, d, 1 },
        { "attn_q_norm_in.weight", NORM, TERN_INPUT_NORMS, d, 1 },
        { "attn_k_norm_in.weight", NORM, TERN_INPUT_NORMS, d, 1 },
        { "attn_v_norm_in.weight", NORM, TERN_INPUT_NORMS, d, 1 },
        { "attn_output_norm_in.weight", NORM, TERN_INPUT_NORMS, q, 1 },
        { "ffn_gate_norm_in.weight", NORM, TERN_INPUT_NORMS, d, 1 },
        { "ffn_up_norm_in.weight", NORM, TERN_INPUT_NORMS, d, 1 },
        { "ffn_down_norm_in.weight", NORM, TERN_INPUT_NORMS, ffn, 1 },
        { "attn_q.scale", FACTORS, 0, 1, 1 },
        { "attn_k.scale", FACTORS, 0, 1, 1 },
        { "attn_v.scale", FACTORS, 0, 1, 1 },
        { "attn_output.scale", FACTORS, 0, 1, 1 },
        { "ffn_gate.scale", FACTORS, 0, 1, 1 },
        { "ffn_up.scale", FACTORS, 0, 1, 1 },
        { "ffn_down.scale", FACTORS, 0, 1, 1 },
    };
    enum tern_status st = TERN_OK;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && !st; i++) {
        const struct part_of_layer *p = &parts[i];
        struct tensor t = { .part = p->part, .ne0 = p->ne0, .ne1 = p->ne1 };

        if ((p->norms && !(p->norms & norms)) || (p->part == FACTORS && !s->scales))
            continue;
        snprintf(t.name, sizeof t.name, "blk.%u.%s", (unsigned)l, p->name);
        t.id = (uint64_t)(l + 1) << 8 | i;
        st = visit(arg, &t, err);
    }
    return st;
}

/* In file order. */
static enum tern_status each_tensor(const struct tern_synthetic *s, visitor *visit, void *arg,
                                    struct tern_err *err)
{
    const struct tensor embd = { "token_embd.weight", TABLE, s->n_embd, s->n_vocab, 0 },
                        norm = { "output_norm.weight", NORM, s->n_embd, 1, 1 },
                        head = { "output.weight", TABLE, s->n_embd, s->n_vocab, 2 },
                        freqs = { "rope_freqs.weight", FACTORS, s->head_dim / 2, 1, 3 };
    const uint32_t first = s->slice ? s->first : 0, last = s->slice ? s->last : s->n_layers;
    enum tern_status st = s->slice ? TERN_OK : visit(arg, &embd, err);

    if (!st && s->rope_freqs) /* in every slice too */
        st = visit(arg, &freqs, err);
    for (uint32_t l = first; l < last && !st; l++)
        st = visit_layer(s, l, visit, arg, err);
    if (!st && !s->slice)
        st = visit(arg, &norm, err);
    if (!st && !s->slice && s->untied)
        st = visit(arg, &head, err);
    return st;
}

/* -- random numbers -------------------------------------------------------------------------------------- */

/*
 * Weights come four at a time and normal numbers one at a time out of tables of TABLE_SIZE entries, picked by
 * twelve random bits each.  Entry 2 i + 1 is the negative of entry 2 i, so both sum to nothing.
 */
#define TABLE_BITS 12
#define TABLE_SIZE (1u << TABLE_BITS)
#define PICKS      5 /* out of 64 bits */

struct tables {
    int8_t weights[TABLE_SIZE][4]; /* 40 % zeros, the rest half -1 and half +1 */
    float normal[TABLE_SIZE];      /* deviation 1 */
};

/* splitmix64: small, seedable, the same everywhere. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void make_tables(struct tables *t)
{
    uint64_t state = 1;

    for (size_t i = 0; i < TABLE_SIZE; i += 2) {
        int sum = 0;

        for (int j = 0; j < 4; j++) {
            uint64_t v = next(&state) % 10;

            t->weights[i][j] = (int8_t)(v < 4 ? 0 : v < 7 ? 1 : -1);
            t->weights[i + 1][j] = (int8_t)-t->weights[i][j];
        }
        for (int j = 0; j < 12; j++) /* twelve uniform numbers, less six */
            sum += (int)(next(&state) & 0xffff);
        t->normal[i] = (float)sum / 65536.0f - 6.0f;
        t->normal[i + 1] = -t->normal[i];
    }
}

/* Room for SLACK more, which get written to. */
#define SLACK (4 * PICKS)

static void random_weights(const struct tables *t, uint64_t state, int8_t *w, size_t n)
{
    for (size_t i = 0; i < n; i += 4 * PICKS) {
        uint64_t v = next(&state);

        for (size_t j = 0; j < PICKS; j++, v >>= TABLE_BITS)
            memcpy(w + i + 4 * j, t->weights[v % TABLE_SIZE], 4);
    }
}

static void random_normal(const struct tables *t, uint64_t state, float deviation, float *x, size_t n)
{
    for (size_t i = 0; i < n; i += PICKS) {
        uint64_t v = next(&state);

        for (size_t j = 0; j < PICKS; j++, v >>= TABLE_BITS)
            x[i + j] = deviation * t->normal[v % TABLE_SIZE];
    }
}

/* -- data ------------------------------------------------------------------------------------------------ */

/* Rows that are made from one random state.  A whole number of I2_S blocks, however many columns. */
#define PIECE_ROWS 128

/* How many pieces a thread has on its hands before they are written. */
#define BATCH_PER_THREAD 4

struct making {
    const struct tern_synthetic *s;
    struct tern_gguf_writer *w;
    struct tern_pool *pool;
    const struct tern_kernels *kern;
    struct tables *tables;
    bool (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t done, total;

    /* The tensor being made. */
    const struct tensor *t;
    uint32_t type;
    float scale;         /* of weights; deviation of a table, and of norms and factors around 1 */
    size_t row_bytes;    /* in the file; of an I2_S row a quarter of its columns, which may not be whole */
    size_t piece_bytes;  /* of a whole piece */
    uint64_t piece0;     /* of the batch */
    uint8_t *out;        /* [batch][piece_bytes] */
    size_t values_bytes; /* a thread's share of `values` */
    uint8_t *values;     /* [threads] int8 or f32, PIECE_ROWS of them or one */
};

static uint64_t piece_state(const struct making *m, uint64_t piece)
{
    uint64_t state = m->s->seed ^ m->t->id << 40 ^ piece;

    return next(&state);
}

static size_t piece_rows(const struct making *m, uint64_t piece)
{
    uint64_t left = m->t->ne1 - piece * PIECE_ROWS;

    return left < PIECE_ROWS ? (size_t)left : PIECE_ROWS;
}

static void make_weights(struct making *m, uint64_t piece, int8_t *w, uint8_t *out)
{
    const size_t rows = piece_rows(m, piece), k = (size_t)m->t->ne0;

    random_weights(m->tables, piece_state(m, piece), w, rows * k);
    /* The directory took the shape, so the whole fits the type; PIECE_ROWS is a multiple of any unit. */
    TERN_BUG_IF(tern_pack_file_unit(m->type, m->s->layout, (size_t)m->t->ne1, k) == 0);
    tern_pack_file_rows(m->type, m->s->layout, w, rows, k, m->scale, out);
}

static void make_rows(struct making *m, uint64_t piece, float *x, uint8_t *out)
{
    const size_t rows = piece_rows(m, piece), n = (size_t)m->t->ne0;
    uint64_t state = piece_state(m, piece);

    for (size_t r = 0; r < rows; r++, out += m->row_bytes) {
        if (m->scale > 0)
            random_normal(m->tables, next(&state), m->scale, x, n);
        else
            memset(x, 0, n * sizeof *x);
        for (size_t i = 0; m->t->part != TABLE && i < n; i++)
            x[i] += 1.0f;
        if (m->type == TERN_F16)
            m->kern->f32_to_f16(x, n, (uint16_t *)(void *)out);
        else
            TERN_BUG_IF(!tern_quant_row(m->type, x, n, out));
    }
}

static void make_pieces(void *arg, size_t first, size_t last, unsigned thread)
{
    struct making *m = arg;
    uint8_t *values = m->values + thread * m->values_bytes;

    for (size_t i = first; i < last; i++) {
        uint8_t *out = m->out + i * m->piece_bytes;

        if (m->t->part == MATRIX)
            make_weights(m, m->piece0 + i, (int8_t *)values, out);
        else
            make_rows(m, m->piece0 + i, (float *)(void *)values, out);
    }
}

static void write_pieces(struct making *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const size_t rows = piece_rows(m, m->piece0 + i);
        const size_t bytes = m->type == TERN_TYPE_I2_S ? rows * (size_t)m->t->ne0 / 4 : rows * m->row_bytes;

        tern_gguf_write(m->w, m->out + i * m->piece_bytes, bytes);
        m->done += bytes;
    }
}

static void write_tail(struct making *m)
{
    uint8_t tail[TERN_PACK_TAIL_BYTES];
    size_t n = m->t->part == MATRIX ? tern_pack_file_tail(m->type, m->scale, tail) : 0;

    tern_gguf_write(m->w, tail, n);
    m->done += n;
}

static enum tern_status make_batches(struct making *m, size_t batch, struct tern_err *err)
{
    const uint64_t n = (m->t->ne1 + PIECE_ROWS - 1) / PIECE_ROWS;
    enum tern_status st;

    for (m->piece0 = 0; m->piece0 < n; m->piece0 += batch) {
        size_t now = n - m->piece0 < batch ? (size_t)(n - m->piece0) : batch;

        tern_pool_run(m->pool, make_pieces, m, now, 1);
        write_pieces(m, now);
        if ((st = tern_gguf_writer_status(m->w, err)))
            return st;
        if (m->progress && !m->progress(m->arg, m->done, m->total))
            return TERN_FAIL(err, TERN_END, "interrupted");
    }
    write_tail(m);
    tern_gguf_end_tensor(m->w);
    return TERN_OK;
}

static uint32_t type_of(const struct tern_synthetic *s, enum part part)
{
    switch (part) {
    case NORM: return s->norm;
    case MATRIX: return s->ternary;
    case TABLE: return s->embd;
    default: return TERN_F32;
    }
}

static float scale_of(const struct tern_synthetic *s, enum part part, size_t k)
{
    switch (part) {
    case NORM: return s->varied_norms ? 0.1f : 0.0f;
    case MATRIX: return 1.0f / sqrtf(0.6f * (float)k);
    case TABLE: return 3.0f / sqrtf((float)k);
    default: return 0.1f; /* the largest of twelve uniform numbers, less six, still leaves it positive */
    }
}

static enum tern_status produce(void *arg, const struct tensor *t, struct tern_err *err)
{
    struct making *m = arg;
    const uint64_t row[4] = { t->ne0, 1, 1, 1 };
    const size_t k = (size_t)t->ne0, threads = tern_pool_threads(m->pool),
                 pieces = (size_t)((t->ne1 + PIECE_ROWS - 1) / PIECE_ROWS), most = threads * BATCH_PER_THREAD,
                 batch = pieces < most ? pieces : most,
                 rows = t->ne1 < PIECE_ROWS ? (size_t)t->ne1 : PIECE_ROWS;
    enum tern_status st;

    m->t = t;
    m->type = type_of(m->s, t->part);
    m->scale = scale_of(m->s, t->part, k);
    if (m->type == TERN_TYPE_I2_S)
        m->piece_bytes = rows * k / 4;
    else if (tern_gguf_tensor_bytes(m->type, row, &m->row_bytes))
        m->piece_bytes = rows * m->row_bytes;
    m->values_bytes = tern_round_up(t->part == MATRIX ? rows * k + SLACK : (k + SLACK) * sizeof(float), 64);
    m->out = malloc(batch * m->piece_bytes);
    m->values = malloc(threads * m->values_bytes);
    if (!m->out || !m->values)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to make tensor %s", t->name);
    else
        st = make_batches(m, batch, err);
    free(m->out);
    free(m->values);
    return st;
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static enum tern_status announce(void *arg, const struct tensor *t, struct tern_err *err)
{
    const struct making *m = arg;
    const uint64_t ne[2] = { t->ne0, t->ne1 };
    const uint32_t type = type_of(m->s, t->part);
    const bool ternary = type == TERN_TYPE_I2_S || type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0;
    size_t elems, bytes;

    if (t->part == MATRIX ? !ternary : !tern_dtype_block(type, &elems, &bytes))
        return TERN_FAIL(err, TERN_ERR_USAGE, "tensor %s cannot be of type %s", t->name,
                         tern_gguf_type_name(type) ? tern_gguf_type_name(type) : "that number");
    if (m->s->layout == TERN_I2S_C && type == TERN_TYPE_I2_S && t->ne1 % 4 != 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "tensor %s has %llu rows: layout C takes four at a time",
                         t->name, (unsigned long long)t->ne1);
    tern_gguf_add_tensor(m->w, t->name, type, t->part == NORM || t->part == FACTORS ? 1 : 2, ne);
    return tern_gguf_writer_status(m->w, err);
}

static enum tern_status open_writer(struct making *m, FILE *f, const char *name, struct tern_err *err)
{
    enum tern_status st = tern_gguf_writer_new(f, name, 32, &m->w, err);

    if (!st && !(st = put_metadata(m->w, m->s, err)))
        st = each_tensor(m->s, announce, m, err);
    if (!st)
        m->total = tern_gguf_writer_bytes(m->w);
    return st;
}

enum tern_status tern_synthetic_bytes(const struct tern_synthetic *s, uint64_t *out, struct tern_err *err)
{
    struct making m = { .s = s };
    enum tern_status st = open_writer(&m, NULL, "the model", err);

    if (!st)
        *out = m.total;
    tern_gguf_writer_free(&m.w);
    return st;
}

enum tern_status tern_synthetic_write(const struct tern_synthetic *s, FILE *f, const char *name,
                                      struct tern_pool *pool, const struct tern_kernels *kern,
                                      bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                      struct tern_err *err)
{
    struct making m = { .s = s, .pool = pool, .kern = kern, .progress = progress, .arg = arg };
    enum tern_status st;

    m.tables = malloc(sizeof *m.tables);
    if (!m.tables)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to make a model");
    make_tables(m.tables);
    if (!(st = open_writer(&m, f, name, err))) {
        tern_gguf_begin(m.w);
        st = each_tensor(s, produce, &m, err);
    }
    if (!st)
        st = tern_gguf_finish(&m.w, err);
    tern_gguf_writer_free(&m.w);
    free(m.tables);
    return st;
}
