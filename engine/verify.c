/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a model file with a doubting eye: see verify.h. */
#include "engine/verify.h"

#include "engine/chat_template.h"
#include "engine/identity.h"
#include "engine/ternary_source.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_VALUES ((size_t)1 << 18)
#define SPAN         64 /* pieces between two looks at the progress bar */

struct checking {
    const struct tern_gguf *g;
    struct tern_pool *pool;
    struct tern_verify *v;
    bool (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t done, total;

    /* The tensor at hand. */
    const struct tern_tensor *t;
    struct tern_ternary_source src;
    size_t piece_rows, piece0, k;
    uint8_t *values;   /* [threads][piece_rows * k] trits, or [threads][k] floats */
    struct seen *seen; /* [threads] */
};

struct seen {
    uint64_t n[3];
    float scale;
    size_t row; /* the first bad one */
    enum tern_status status;
    struct tern_err err;
};

/* -- findings -------------------------------------------------------------------------------------------- */

static void find(struct tern_verify *v, bool broken, const char *text)
{
    v->n_broken += broken;
    if (v->n_findings == TERN_VERIFY_MAX_FINDINGS) {
        v->n_held_back++;
        return;
    }
    v->findings[v->n_findings].broken = broken;
    snprintf(v->findings[v->n_findings++].text, sizeof v->findings->text, "%s", text);
}

/* FIND(v, broken, "...", ...): a sentence, with what is hostile in it made harmless. */
#define FIND(v, broken, ...)                                                                                 \
    do {                                                                                                     \
        struct tern_err find_err;                                                                            \
        (void)TERN_FAIL(&find_err, TERN_ERR_FORMAT, __VA_ARGS__);                                            \
        find((v), (broken), find_err.text);                                                                  \
    } while (0)

/* -- numbers --------------------------------------------------------------------------------------------- */

static void count_trits(void *arg, size_t first, size_t last, unsigned thread)
{
    struct checking *c = arg;
    struct seen *s = &c->seen[thread];
    int8_t *w = (int8_t *)c->values + thread * c->piece_rows * c->k;
    const size_t m = c->src.trits.m;

    for (size_t i = first; i < last && !s->status; i++) {
        size_t row = (c->piece0 + i) * c->piece_rows, n = m - row < c->piece_rows ? m - row : c->piece_rows;
        uint64_t plus = 0, minus = 0;
        float scale = 0;

        s->status = tern_ternary_rows(&c->src, row, row + n, w, &scale, &s->err);
        if (!s->status && scale > 0 && s->scale > 0 && scale != s->scale)
            s->status =
                TERN_FAIL(&s->err, TERN_ERR_FORMAT, "%s: tensor '%.*s' has blocks of scales %g and %g",
                          c->g->name, TERN_STR_ARGS(c->t->name), (double)s->scale, (double)scale);
        if (s->status)
            return;
        for (size_t j = 0; j < n * c->k; j++) {
            plus += w[j] > 0;
            minus += w[j] < 0;
        }
        s->scale = scale > 0 ? scale : s->scale;
        s->n[0] += minus;
        s->n[1] += n * c->k - plus - minus;
        s->n[2] += plus;
    }
}

static void look_at_floats(void *arg, size_t first, size_t last, unsigned thread)
{
    struct checking *c = arg;
    struct seen *s = &c->seen[thread];
    float *x = (float *)(void *)c->values + thread * c->k;
    const size_t row_bytes = c->t->bytes / (size_t)(c->t->ne[1] * c->t->ne[2] * c->t->ne[3]);

    for (size_t i = first; i < last && !s->status; i++) {
        bool finite = true;

        tern_dequant_row((enum tern_dtype)c->t->type, c->t->data + (c->piece0 + i) * row_bytes, c->k, x);
        for (size_t j = 0; j < c->k; j++)
            finite &= isfinite(x[j]) != 0;
        if (!finite)
            s->status = TERN_FAIL(&s->err, TERN_ERR_FORMAT,
                                  "%s: tensor '%.*s' has values in row %zu that are not finite", c->g->name,
                                  TERN_STR_ARGS(c->t->name), c->piece0 + i);
    }
}

/* Runs `work` over n pieces. */
static enum tern_status run(struct checking *c, tern_pool_fn *work, size_t n, size_t span,
                            struct tern_err *err)
{
    const uint64_t before = c->done;

    memset(c->seen, 0, tern_pool_threads(c->pool) * sizeof *c->seen);
    for (c->piece0 = 0; c->piece0 < n; c->piece0 += span) {
        size_t now = n - c->piece0 < span ? n - c->piece0 : span;

        tern_pool_run(c->pool, work, c, now, 1);
        tern_gguf_release(c->g, c->t);
        c->done = before + (uint64_t)((double)(c->piece0 + now) / (double)n * (double)c->t->bytes);
        if (c->progress && !c->progress(c->arg, c->done, c->total))
            return TERN_FAIL(err, TERN_END, "interrupted");
    }
    c->done = before + c->t->bytes;
    return TERN_OK;
}

/* What the threads have found, as findings and counts. */
static void join(struct checking *c, struct tern_verify_matrix *m)
{
    for (unsigned i = 0; i < tern_pool_threads(c->pool); i++) {
        const struct seen *s = &c->seen[i];

        if (s->status) {
            find(c->v, true, s->err.text);
            if (m)
                memset(m->n, 0, sizeof m->n);
            return;
        }
        if (!m)
            continue;
        if (s->scale > 0 && m->scale > 0 && s->scale != m->scale) {
            FIND(c->v, true,
                 "%s: tensor '%.*s' has blocks of scales %g and %g; Tern needs one scale a matrix",
                 c->g->name, TERN_STR_ARGS(c->t->name), (double)m->scale, (double)s->scale);
            return;
        }
        m->scale = s->scale > 0 ? s->scale : m->scale;
        for (int j = 0; j < 3; j++)
            m->n[j] += s->n[j];
    }
    if (m && m->n[0] + m->n[2] == 0)
        FIND(c->v, false, "%s: tensor '%.*s' is all zeros", c->g->name, TERN_STR_ARGS(c->t->name));
}

static enum tern_status check_matrix(struct checking *c, struct tern_err *err)
{
    struct tern_verify_matrix *m = &c->v->matrices[c->v->n_matrices++];
    const size_t threads = tern_pool_threads(c->pool), rows = (size_t)c->t->ne[1];
    struct tern_err why;
    enum tern_status st = tern_ternary_open(c->g, c->t, c->pool, &c->src, &why);

    m->tensor = c->t;
    if (st == TERN_ERR_MEMORY) {
        if (err)
            *err = why;
        return st;
    }
    if (st) {
        find(c->v, true, why.text);
        c->done += c->t->bytes;
        return TERN_OK;
    }
    c->k = (size_t)c->t->ne[0];
    c->piece_rows = PIECE_VALUES / c->k ? PIECE_VALUES / c->k : 1;
    c->piece_rows = c->piece_rows < rows ? c->piece_rows : rows;
    c->values = malloc(threads * c->piece_rows * c->k);
    if (!c->values)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to verify %s", c->g->name);
    st = run(c, count_trits, rows / c->piece_rows + (rows % c->piece_rows != 0), SPAN, err);
    free(c->values);
    if (!st)
        join(c, m);
    return st;
}

static enum tern_status check_floats(struct checking *c, struct tern_err *err)
{
    const size_t rows = (size_t)(c->t->ne[1] * c->t->ne[2] * c->t->ne[3]);
    enum tern_status st;

    c->k = (size_t)c->t->ne[0];
    c->values = malloc(tern_pool_threads(c->pool) * c->k * sizeof(float));
    if (!c->values)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to verify %s", c->g->name);
    st = run(c, look_at_floats, rows, PIECE_VALUES / c->k * SPAN + 1, err);
    free(c->values);
    c->v->n_values += c->k * rows;
    if (!st)
        join(c, NULL);
    return st;
}

static bool is_matrix(const struct tern_tensor *t)
{
    return tern_tensor_layer(t->name) >= 0 && t->ne[1] > 1 && t->ne[2] == 1 && t->ne[3] == 1 &&
           tern_ternary_type(t->type);
}

static enum tern_status check_tensors(struct checking *c, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    size_t elems, bytes;

    for (size_t i = 0; i < c->g->n_tensors && !st; i++) {
        c->t = &c->g->tensors[i];
        if (is_matrix(c->t))
            st = check_matrix(c, err);
        else if (tern_dtype_block(c->t->type, &elems, &bytes))
            st = check_floats(c, err);
    }
    return st;
}

/* -- the file as a whole --------------------------------------------------------------------------------- */

static enum tern_status check_hashes(struct checking *c, struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(c->g, TERN_IDENTITY_KEY);
    struct tern_identity *id = NULL;
    enum tern_status st;

    if (!kv)
        return TERN_OK;
    if (kv->type != TERN_GGUF_ARRAY || kv->elem_type != TERN_GGUF_U8 ||
        kv->n != c->g->n_tensors * TERN_HASH_BYTES) {
        FIND(c->v, true, "%s: %s is not the list of %zu hashes it should be", c->g->name, TERN_IDENTITY_KEY,
             c->g->n_tensors);
        return TERN_OK;
    }
    if ((st = tern_identity_hash_bytes(c->g, c->pool, c->progress, c->arg, &id, err)))
        return st;
    c->v->has_hashes = true;
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_tensor *t = id->entries[i].tensor;

        if (memcmp(kv->data + (size_t)(t - c->g->tensors) * TERN_HASH_BYTES, id->entries[i].hash,
                   TERN_HASH_BYTES) != 0)
            FIND(c->v, true, "%s: tensor '%.*s' is not what was written; the file is damaged, get it anew",
                 c->g->name, TERN_STR_ARGS(t->name));
    }
    tern_identity_free(&id);
    return TERN_OK;
}

static enum tern_status check_layout(struct checking *c, const struct tern_arch *arch, struct tern_err *err)
{
    struct tern_i2s_check *i = &c->v->i2s;
    enum tern_i2s_layout read = tern_model_file_options(c->g)->i2s_layout;
    enum tern_status st = tern_i2s_check(c->g, arch, c->pool, i, err);

    if (!st && i->pairs && i->sure && i->likely != read)
        FIND(c->v, true,
             "%s: its I2_S matrices were read as layout %c, but rows and columns that belong together agree "
             "in layout %c (evidence %.0f against %.0f); add --i2s-layout %c",
             c->g->name, 'A' + (int)read, 'A' + (int)i->likely, i->evidence[i->likely], i->evidence[read],
             'A' + (int)i->likely);
    return st;
}

/* -- the tokenizer --------------------------------------------------------------------------------------- */

/* Special tokens that print something else than the file says: they were mended while loading. */
static void check_specials(struct checking *c, const struct tern_tokenizer *tok)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(c->g, "tokenizer.ggml.tokens");
    struct tern_cursor at;
    size_t n = 0;
    char example[80] = "";

    if (!kv || kv->type != TERN_GGUF_ARRAY || kv->elem_type != TERN_GGUF_STRING)
        return;
    tern_cursor_init(&at, kv->data, kv->bytes);
    for (uint64_t i = 0; i < kv->n && i < INT32_MAX; i++) {
        enum tern_token_type type = tern_tokenizer_type(tok, (int32_t)i);
        struct tern_str is = tern_tokenizer_piece(tok, (int32_t)i, true), was;

        if (!tern_gguf_next_string(&at, &was))
            return;
        if ((type != TERN_TOKEN_CONTROL && type != TERN_TOKEN_USER) || is.len >= was.len ||
            memcmp(was.ptr + was.len - is.len, is.ptr, is.len) != 0)
            continue;
        if (!n++)
            snprintf(example, sizeof example, "%.*s", (int)(was.len < 60 ? was.len : 60), was.ptr);
    }
    if (n)
        FIND(
            c->v, false,
            "%s: a converter has put BOS's text in front of %zu special tokens ('%s'); they are mended while "
            "loading",
            c->g->name, n, example);
}

static void check_tokenizer(struct checking *c, const struct tern_tokenizer *tok)
{
    struct tern_str model = { "", 0 }, text = { "", 0 };

    if (tern_gguf_string(c->g, "tokenizer.ggml.model", &model, NULL) == TERN_OK &&
        tern_str_is(model, "gpt2") && !tern_gguf_find(c->g, "tokenizer.ggml.pre"))
        FIND(c->v, false,
             "%s: tokenizer.ggml.pre is missing; Tern takes '%s' (--pre chooses, tern convert writes it)",
             c->g->name, tok ? tern_tokenizer_pre(tok) : "none");
    if (tern_gguf_string(c->g, "tokenizer.chat_template", &text, NULL) == TERN_OK &&
        tern_chat_template_is_placeholder(text))
        FIND(c->v, false,
             "%s: its chat template is a converter's placeholder, not what the model was trained with",
             c->g->name);
    if (tok)
        check_specials(c, tok);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static enum tern_status check_all(struct checking *c, const struct tern_arch *arch,
                                  const struct tern_tokenizer *tok, struct tern_err *err)
{
    enum tern_status st;

    c->v->matrices = calloc(c->g->n_tensors + 1, sizeof *c->v->matrices);
    c->v->findings = calloc(TERN_VERIFY_MAX_FINDINGS, sizeof *c->v->findings);
    c->seen = calloc(tern_pool_threads(c->pool), sizeof *c->seen);
    if (!c->v->matrices || !c->v->findings || !c->seen)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to verify %s", c->g->name);
    for (size_t i = 0; i < c->g->n_tensors; i++)
        c->total += c->g->tensors[i].bytes;
    st = check_tensors(c, err);
    if (!st)
        st = check_hashes(c, err);
    if (!st)
        st = check_layout(c, arch, err);
    if (!st)
        check_tokenizer(c, tok);
    return st ? st : tern_gguf_check(c->g, err);
}

enum tern_status tern_verify_file(const struct tern_gguf *g, const struct tern_arch *arch,
                                  const struct tern_tokenizer *tok, struct tern_pool *pool,
                                  bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                  struct tern_verify **out, struct tern_err *err)
{
    struct checking c = { .g = g, .pool = pool, .progress = progress, .arg = arg };
    enum tern_status st;

    c.v = calloc(1, sizeof *c.v);
    if (!c.v)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to verify %s", g->name);
    st = check_all(&c, arch, tok, err);
    free(c.seen);
    if (st)
        tern_verify_free(&c.v);
    else
        *out = c.v;
    return st;
}

void tern_verify_free(struct tern_verify **v)
{
    if (*v) {
        free((*v)->matrices);
        free((*v)->findings);
        free(*v);
    }
    *v = NULL;
}
