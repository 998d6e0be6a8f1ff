/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of a model whose residual stream has outlier channels like those of large models.
 *
 * Large models carry a few channels of the residual stream that are tens to hundreds of times larger than the
 * rest, in every layer and for every token; they are what makes coarse rounding of that stream hurt.  A small
 * model has none, so they are added: n new channels at random places among the old ones, so that blocks of
 * channels at layer boundaries hold both.
 *
 *   - Embedding: a new channel has the constant +c or -c for every token, c = factor times the root mean
 *     square of the old stream.  Layers only add to the stream, so the constant stays.
 *   - Rows of attn_output and ffn_down for a new channel are copies of a random old channel's: it also moves.
 *   - All norm weights of new channels are 0: no matrix and no head ever sees them.
 *   - They do enter the mean square of each RMSNorm.  Its weights are multiplied by what that takes away on
 *     the geometric mean, measured on text that the model writes itself.
 *
 * So nothing of the model is lost, but RMSNorm hardly follows the size of the single row any more.  What
 * comes behind a sub-norm does not care; the sharpness of attention and of the logits varies with it.  The
 * result is a working language model whose perplexity in f32 is near, but not equal to, the original's: for
 * the fable model and its validation text (context 256) 49.5 with factor 64, 47.4 with 16 and 46.0 with 8,
 * against 40.7.
 */
#include "lab/lab.h"

#include "engine/base/mem.h"
#include "engine/forward.h"
#include "engine/gguf_write.h"
#include "engine/model.h"
#include "engine/quant_row.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_ROWS 192 /* of the calibration text */

struct outliers {
    const struct tern_gguf *g;
    struct tern_arch arch;
    uint32_t n, n_new; /* channels before and after */
    int32_t *old_of;   /* [n_new]: the old channel at this place, -1 - source for a new one */
    float *value;      /* [n_new]: of a new channel */
    double *square;    /* [n_layers + 1][TEXT_ROWS]: sums of squares before each layer and at the end */
    double added;      /* sum of squares of the new channels */
};

/* -- the size of the residual stream ----------------------------------------------------------- */

static void need(enum tern_status st, const struct tern_err *err)
{
    if (st)
        lab_die("%s", err->text);
}

static struct tern_model *load(const struct outliers *o, const struct tern_kernels *kern,
                               struct tern_pool *pool, uint32_t first, uint32_t last, bool with_embd)
{
    const struct tern_model_options opts = { .first = first, .last = last, .with_embd = with_embd };
    struct tern_model *m;
    struct tern_err err;

    need(tern_model_load(o->g, &o->arch, kern, pool, &opts, &m, &err), &err);
    return m;
}

static int32_t pick(struct lab_rng *rng, const float *logits, uint32_t n)
{
    double top = -INFINITY, sum = 0, at;

    for (uint32_t i = 0; i < n; i++)
        top = fmax(top, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - top);
    at = sum * (double)(lab_rng_next(rng) >> 11) / 9007199254740992.0;
    for (uint32_t i = 0; i < n; i++) {
        at -= exp((double)logits[i] - top);
        if (at < 0)
            return (int32_t)i;
    }
    return (int32_t)n - 1;
}

/* TEXT_ROWS tokens drawn from the model itself at temperature 1, from BOS on. */
static void write_text(const struct outliers *o, const struct tern_kernels *kern, struct tern_pool *pool,
                       uint64_t seed, int32_t *ids)
{
    const struct tern_arch *a = &o->arch;
    struct tern_model *m = load(o, kern, pool, 0, a->n_layers, true);
    struct lab_rng rng = { seed };
    float *x = lab_alloc(a->n_embd * sizeof *x), *logits = lab_alloc(a->n_vocab * sizeof *logits);
    uint8_t *out =
        lab_alloc(tern_boundary_row_bytes(TERN_BOUNDARY_F32, a->n_embd)); /* the payload: nobody's here */
    uint32_t pages[TEXT_ROWS / TERN_PAGE + 1];
    struct tern_kv_store kv;
    struct tern_scratch *s;
    struct tern_err err;
    uint64_t bos = 0;

    if (tern_gguf_u64(o->g, "tokenizer.ggml.bos_token_id", &bos, &err) || bos >= a->n_vocab)
        bos = 0;
    for (uint32_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        pages[i] = i;
    need(tern_kv_store_new(TEXT_ROWS / TERN_PAGE + 1, a->n_layers, a->n_kv_heads, a->head_dim, &kv, &err),
         &err);
    need(tern_scratch_new(a, 1, tern_pool_threads(pool), &s, &err), &err);
    ids[0] = (int32_t)bos;
    for (uint32_t i = 0; i + 1 < TEXT_ROWS; i++) {
        struct tern_row row = { pages, i, 0 };

        tern_forward_embed(m, &ids[i], 1, x);
        tern_forward_layers(m, pool, s, &kv, TERN_BOUNDARY_F32, &row, 1, x, out);
        tern_forward_head(m, pool, x, 1, logits);
        ids[i + 1] = pick(&rng, logits, a->n_vocab);
    }
    tern_scratch_free(&s);
    tern_kv_store_free(&kv);
    tern_model_free(&m);
    free(out);
    free(x);
    free(logits);
}

static void note_squares(struct outliers *o, uint32_t boundary, const float *x)
{
    for (size_t r = 0; r < TEXT_ROWS; r++) {
        double ss = 0;

        for (size_t i = 0; i < o->n; i++)
            ss += (double)x[r * o->n + i] * (double)x[r * o->n + i];
        o->square[boundary * TEXT_ROWS + r] = ss;
    }
}

/* Layer by layer, so that the stream can be looked at in between. */
static void measure(struct outliers *o, uint64_t seed)
{
    const struct tern_arch *a = &o->arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_scratch *s;
    struct tern_err err;
    uint32_t pages[TEXT_ROWS / TERN_PAGE + 1];
    int32_t ids[TEXT_ROWS];
    float *x = lab_alloc((size_t)TEXT_ROWS * o->n * sizeof *x);
    uint8_t *out = lab_alloc(TEXT_ROWS * tern_boundary_row_bytes(TERN_BOUNDARY_F32, o->n));
    struct tern_model *m;

    tern_kernels_init(&kern, tern_cpu_detect());
    need(tern_pool_new(1, &pool, &err), &err);
    write_text(o, &kern, pool, seed, ids);
    m = load(o, &kern, pool, 0, 0, true);
    tern_forward_embed(m, ids, TEXT_ROWS, x);
    tern_model_free(&m);
    need(tern_scratch_new(a, TEXT_ROWS, 1, &s, &err), &err);
    for (uint32_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        pages[i] = i;
    o->square = lab_alloc((a->n_layers + 1) * TEXT_ROWS * sizeof *o->square);
    note_squares(o, 0, x);
    for (uint32_t l = 0; l < a->n_layers; l++) {
        struct tern_row rows[TEXT_ROWS];
        struct tern_kv_store kv;

        for (uint32_t r = 0; r < TEXT_ROWS; r++)
            rows[r] = (struct tern_row){ pages, r, 0 };
        m = load(o, &kern, pool, l, l + 1, false);
        need(tern_kv_store_new(TEXT_ROWS / TERN_PAGE + 1, 1, a->n_kv_heads, a->head_dim, &kv, &err), &err);
        tern_forward_layers(m, pool, s, &kv, TERN_BOUNDARY_F32, rows, TEXT_ROWS, x, out);
        note_squares(o, l + 1, x);
        tern_kv_store_free(&kv);
        tern_model_free(&m);
    }
    tern_scratch_free(&s);
    tern_pool_free(&pool);
    free(out);
    free(x);
}

/* What a norm in front of which the stream is as at boundaries [from, to] loses by the new channels. */
static float make_up(const struct outliers *o, uint32_t from, uint32_t to)
{
    double sum = 0, eps = (double)o->arch.rms_eps;
    size_t n = 0;

    for (uint32_t b = from; b <= to; b++)
        for (size_t r = 0; r < TEXT_ROWS; r++, n++) {
            double ss = o->square[b * TEXT_ROWS + r];

            sum += 0.5 * log(((ss + o->added) / o->n_new + eps) / (ss / o->n + eps));
        }
    return (float)exp(sum / (double)n);
}

/* -- the new channels -------------------------------------------------------------------------- */

static void choose(struct outliers *o, const struct lab_outliers *opts)
{
    struct lab_rng rng = { opts->seed ^ 0x6f75746c69657273u };
    double rms = 0;
    size_t n_rows = (size_t)(o->arch.n_layers + 1) * TEXT_ROWS;
    int32_t old = 0;

    for (size_t i = 0; i < n_rows; i++)
        rms += sqrt(o->square[i] / o->n) / (double)n_rows;
    o->old_of = lab_alloc(o->n_new * sizeof *o->old_of);
    o->value = lab_alloc(o->n_new * sizeof *o->value);
    memset(o->old_of, 0, o->n_new * sizeof *o->old_of);
    memset(o->value, 0, o->n_new * sizeof *o->value);
    for (uint32_t left = opts->n; left;) {
        uint64_t v = lab_rng_next(&rng);
        uint32_t at = (uint32_t)(v % o->n_new);

        if (o->value[at] != 0)
            continue;
        o->value[at] = (float)(v >> 63 ? -opts->factor * rms : opts->factor * rms);
        o->old_of[at] = -1 - (int32_t)(lab_rng_next(&rng) % o->n);
        o->added += (double)o->value[at] * (double)o->value[at];
        left--;
    }
    for (uint32_t i = 0; i < o->n_new; i++)
        if (o->value[i] == 0)
            o->old_of[i] = old++;
    fprintf(stderr, "residual stream: rms %.3g on average, %u channels of +-%.4g added\n", rms, opts->n,
            opts->factor * rms);
}

/* -- the file ---------------------------------------------------------------------------------- */

enum kind { OTHER, NORM_IN, MATRIX_IN, MATRIX_OUT, TABLE };

static enum kind kind_of(const struct tern_tensor *t)
{
    static const struct {
        const char *end;
        enum kind kind;
    } ends[] = {
        { ".attn_norm.weight", NORM_IN },      { ".ffn_norm.weight", NORM_IN },
        { "output_norm.weight", NORM_IN },     { ".attn_q.weight", MATRIX_IN },
        { ".attn_k.weight", MATRIX_IN },       { ".attn_v.weight", MATRIX_IN },
        { ".ffn_gate.weight", MATRIX_IN },     { ".ffn_up.weight", MATRIX_IN },
        { ".attn_output.weight", MATRIX_OUT }, { ".ffn_down.weight", MATRIX_OUT },
        { "token_embd.weight", TABLE },        { "output.weight", TABLE },
    };

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t n = strlen(ends[i].end);

        if (t->name.len >= n && memcmp(t->name.ptr + t->name.len - n, ends[i].end, n) == 0)
            return ends[i].kind;
    }
    return OTHER;
}

static void write_norm(const struct outliers *o, struct tern_gguf_writer *w, const struct tern_tensor *t)
{
    float *old = lab_alloc(o->n * sizeof *old), *x = lab_alloc(o->n_new * sizeof *x), factor;
    char name[256];
    int layer;

    lab_name(t, name);
    if (sscanf(name, "blk.%d.", &layer) != 1)
        factor = make_up(o, o->arch.n_layers, o->arch.n_layers);
    else if (strstr(name, "ffn"))
        factor = make_up(o, (uint32_t)layer, (uint32_t)layer + 1);
    else
        factor = make_up(o, (uint32_t)layer, (uint32_t)layer);
    tern_dequant_row((enum tern_dtype)t->type, t->data, o->n, old);
    for (uint32_t i = 0; i < o->n_new; i++)
        x[i] = o->old_of[i] < 0 ? 0.0f : old[o->old_of[i]] * factor;
    tern_gguf_write(w, x, o->n_new * sizeof *x);
    free(old);
    free(x);
}

static void write_matrix(const struct outliers *o, struct tern_gguf_writer *w, const struct tern_tensor *t,
                         const uint64_t ne[4])
{
    size_t k_old = (size_t)t->ne[0], k = (size_t)ne[0], m = (size_t)ne[1], bytes;
    bool new_inputs = k != k_old;
    int8_t *old, *x = lab_alloc(m * k);
    uint8_t *out;
    float scale;

    old = lab_read_ternary(t, &scale);
    for (size_t r = 0; r < m; r++) {
        int32_t from = new_inputs ? (int32_t)r : o->old_of[r];

        if (from < 0)
            from = -1 - from;
        for (size_t c = 0; c < k; c++) {
            int32_t column = new_inputs ? o->old_of[c] : (int32_t)c;

            x[r * k + c] = column < 0 ? 0 : old[(size_t)from * k_old + (size_t)column];
        }
    }
    if (!tern_gguf_tensor_bytes(TERN_TYPE_I2_S, ne, &bytes))
        lab_die("tensor '%.*s' cannot grow", TERN_STR_ARGS(t->name));
    out = lab_alloc(bytes);
    memset(out, 0, bytes);
    if (!tern_pack_file(TERN_TYPE_I2_S, TERN_I2S_A, x, m, k, scale, out))
        lab_die("tensor '%.*s' of %zu x %zu cannot be I2_S; add another number of channels",
                TERN_STR_ARGS(t->name), k, m);
    tern_gguf_write(w, out, bytes);
    free(old);
    free(x);
    free(out);
}

static void write_table(const struct outliers *o, struct tern_gguf_writer *w, const struct tern_tensor *t)
{
    bool is_head = tern_str_is(t->name, "output.weight");
    size_t row = t->bytes / (size_t)t->ne[1];
    float *old = lab_alloc(o->n * sizeof *old), *x = lab_alloc(o->n_new * sizeof *x);

    for (size_t r = 0; r < t->ne[1]; r++) {
        tern_dequant_row((enum tern_dtype)t->type, t->data + r * row, o->n, old);
        for (uint32_t i = 0; i < o->n_new; i++)
            x[i] = o->old_of[i] >= 0 ? old[o->old_of[i]] : is_head ? 0.0f : o->value[i];
        tern_gguf_write(w, x, o->n_new * sizeof *x);
    }
    free(old);
    free(x);
}

static void new_shape(const struct outliers *o, const struct tern_tensor *t, uint32_t *type, uint64_t ne[4])
{
    enum kind kind = kind_of(t);

    memcpy(ne, t->ne, 4 * sizeof *ne);
    *type = kind == OTHER ? t->type : kind == MATRIX_IN || kind == MATRIX_OUT ? TERN_TYPE_I2_S : TERN_F32;
    if (kind == MATRIX_OUT)
        ne[1] = o->n_new;
    else if (kind != OTHER)
        ne[0] = o->n_new;
}

static void put_metadata(const struct outliers *o, struct tern_gguf_writer *w)
{
    static const char *const ours[] = { "embedding_length", "attention.key_length",
                                        "attention.value_length" };
    char keys[3][96];

    for (int i = 0; i < 3; i++)
        snprintf(keys[i], sizeof keys[i], "%s.%s", o->arch.key_prefix, ours[i]);
    for (size_t i = 0; i < o->g->n_kv; i++) {
        const struct tern_gguf_kv *kv = &o->g->kv[i];

        if (!tern_str_is(kv->key, "general.alignment") && !tern_str_is(kv->key, keys[0]) &&
            !tern_str_is(kv->key, keys[1]) && !tern_str_is(kv->key, keys[2]))
            tern_gguf_put_kv(w, kv);
    }
    tern_gguf_put_u32(w, keys[0], o->n_new);
    tern_gguf_put_u32(w, keys[1], o->arch.head_dim);
    tern_gguf_put_u32(w, keys[2], o->arch.head_dim);
}

void lab_write_outliers(const struct tern_gguf *g, const struct lab_outliers *opts, FILE *f)
{
    struct outliers o = { .g = g };
    struct tern_gguf_writer *w = lab_writer_new(f, (uint32_t)g->alignment);
    struct tern_err err;
    uint64_t ne[4];
    uint32_t type;
    char name[256];

    need(tern_arch_read(g, &o.arch, &err), &err);
    o.n = o.arch.n_embd;
    o.n_new = o.n + opts->n;
    measure(&o, opts->seed);
    choose(&o, opts);
    put_metadata(&o, w);
    for (size_t i = 0; i < g->n_tensors; i++) {
        lab_name(&g->tensors[i], name);
        new_shape(&o, &g->tensors[i], &type, ne);
        tern_gguf_add_tensor(w, name, type, g->tensors[i].n_dims, ne);
    }
    tern_gguf_begin(w);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tern_tensor *t = &g->tensors[i];

        new_shape(&o, t, &type, ne);
        switch (kind_of(t)) {
        case NORM_IN: write_norm(&o, w, t); break;
        case MATRIX_IN:
        case MATRIX_OUT: write_matrix(&o, w, t, ne); break;
        case TABLE: write_table(&o, w, t); break;
        case OTHER: tern_gguf_write(w, t->data, t->bytes); break;
        }
        tern_gguf_end_tensor(w);
    }
    lab_finish(&w);
    free(o.old_of);
    free(o.value);
    free(o.square);
}
