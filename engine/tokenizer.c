/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer: what the file says, put together, and the way of a text through it.
 *
 * encode: cut out special tokens (special.c), cut the rest into pieces (pretokenizer.c), a piece to the
 * tokens of its bytes, those merged (bpe.c).  decode: a token's bytes stand ready in the vocabulary
 * (vocab.c).
 */
#include "engine/tokenizer.h"

#include "engine/base/limits.h"
#include "engine/bpe.h"
#include "engine/pretokenizer.h"
#include "engine/special.h"
#include "engine/vocab.h"

#include <stdlib.h>
#include <string.h>

#define TYPE(t) (1u << TERN_TOKEN_##t)

struct tern_tokenizer {
    struct tern_vocab vocab;
    struct tern_merges merges;
    struct tern_special always; /* user-defined tokens */
    struct tern_special parsed; /* and control and unknown ones */
    const struct tern_pretok_kind *kind;
    struct tern_pretok *pretok;
    const char *pre_source;
    bool add_bos, add_eos;
};

static enum tern_status check_model(const struct tern_gguf *g, struct tern_err *err)
{
    struct tern_str model;
    enum tern_status st = tern_gguf_string(g, "tokenizer.ggml.model", &model, err);

    if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the file has no tokenizer (tokenizer.ggml.model)",
                         g->name);
    if (st)
        return st;
    if (!tern_str_is(model, "gpt2"))
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "%s: the tokenizer is of kind '%.*s'; this version knows 'gpt2' (byte-level BPE) alone", g->name,
            model.len < 40 ? (int)model.len : 40, model.ptr);
    return TERN_OK;
}

/* Which pre-tokenizer: the caller's word, else the file's, else by the looks of the vocabulary. */
static enum tern_status choose_pre(struct tern_tokenizer *t, const struct tern_gguf *g, const char *pre,
                                   struct tern_err *err)
{
    struct tern_str name = { pre, pre ? strlen(pre) : 0 };
    enum tern_status st = TERN_OK;
    char known[160];

    t->pre_source = "override";
    if (!pre) {
        t->pre_source = "file";
        st = tern_gguf_string(g, "tokenizer.ggml.pre", &name, err);
        if (st == TERN_END) {
            t->pre_source = "guessed";
            name.ptr = t->vocab.llama3 ? "llama-bpe" : "default";
            name.len = strlen(name.ptr);
        } else if (st) {
            return st;
        }
    }
    t->kind = tern_pretok_find(name);
    if (t->kind)
        return TERN_OK;
    tern_pretok_list(known, sizeof known);
    if (pre)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--pre: '%.*s' is not a known pre-tokenizer: %s",
                         name.len < 40 ? (int)name.len : 40, name.ptr, known);
    return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                     "%s: the pre-tokenizer '%.*s' is not known; name one that fits with --pre: %s", g->name,
                     name.len < 40 ? (int)name.len : 40, name.ptr, known);
}

/* A flag of the file or its default; refuses one that asks for a token the file does not have. */
static enum tern_status read_add(const struct tern_gguf *g, const char *key, int32_t id, bool missing,
                                 bool *out, struct tern_err *err)
{
    enum tern_status st = tern_gguf_bool(g, key, out, err);

    if (st == TERN_END) {
        *out = missing && id >= 0;
        return TERN_OK;
    }
    if (st)
        return st;
    if (*out && id < 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s is set, but no such token is named", g->name, key);
    return TERN_OK;
}

static enum tern_status load(struct tern_tokenizer *t, const struct tern_gguf *g, const char *pre,
                             struct tern_err *err)
{
    const unsigned specials = TYPE(USER) | TYPE(CONTROL) | TYPE(UNKNOWN);
    enum tern_status st;

    if ((st = tern_vocab_load(&t->vocab, g, err)) != TERN_OK ||
        (st = choose_pre(t, g, pre, err)) != TERN_OK ||
        (st = tern_merges_load(&t->merges, &t->vocab, g, err)) != TERN_OK ||
        (st = tern_special_build(&t->always, &t->vocab, TYPE(USER), err)) != TERN_OK ||
        (st = tern_special_build(&t->parsed, &t->vocab, specials, err)) != TERN_OK ||
        (st = tern_pretok_new(t->kind, true, &t->pretok, err)) != TERN_OK)
        return st;
    st = read_add(g, "tokenizer.ggml.add_bos_token", t->vocab.bos, t->kind->add_bos, &t->add_bos, err);
    if (st == TERN_OK)
        st = read_add(g, "tokenizer.ggml.add_eos_token", t->vocab.eos, false, &t->add_eos, err);
    return st;
}

enum tern_status tern_tokenizer_new(const struct tern_gguf *g, const char *pre, struct tern_tokenizer **out,
                                    struct tern_err *err)
{
    struct tern_tokenizer *t;
    struct tern_err lost;
    enum tern_status st = check_model(g, err);

    if (st)
        return st;
    t = calloc(1, sizeof *t);
    if (!t)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a tokenizer");
    st = load(t, g, pre, err);
    if (tern_gguf_check(g, &lost)) { /* what was read may have been zeros */
        st = lost.status;
        if (err)
            *err = lost;
    }
    if (st) {
        tern_tokenizer_free(&t);
        return st;
    }
    *out = t;
    return TERN_OK;
}

void tern_tokenizer_free(struct tern_tokenizer **t)
{
    if (!*t)
        return;
    tern_vocab_free(&(*t)->vocab);
    tern_merges_free(&(*t)->merges);
    tern_special_free(&(*t)->always);
    tern_special_free(&(*t)->parsed);
    tern_pretok_free(&(*t)->pretok);
    free(*t);
    *t = NULL;
}

const char *tern_tokenizer_pre(const struct tern_tokenizer *t)
{
    return t->kind->name;
}

const char *tern_tokenizer_pre_source(const struct tern_tokenizer *t)
{
    return t->pre_source;
}

uint32_t tern_tokenizer_n_vocab(const struct tern_tokenizer *t)
{
    return t->vocab.n;
}

int32_t tern_tokenizer_bos(const struct tern_tokenizer *t)
{
    return t->vocab.bos;
}

int32_t tern_tokenizer_eos(const struct tern_tokenizer *t)
{
    return t->vocab.eos;
}

bool tern_tokenizer_add_bos(const struct tern_tokenizer *t)
{
    return t->add_bos;
}

static bool is_id(const struct tern_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n;
}

bool tern_tokenizer_is_eog(const struct tern_tokenizer *t, int32_t id)
{
    return is_id(t, id) && (t->vocab.flags[id] & TERN_VOCAB_EOG);
}

enum tern_token_type tern_tokenizer_type(const struct tern_tokenizer *t, int32_t id)
{
    return is_id(t, id) ? (enum tern_token_type)(t->vocab.flags[id] & TERN_VOCAB_TYPE) : TERN_TOKEN_UNUSED;
}

int32_t tern_tokenizer_find(const struct tern_tokenizer *t, const char *text)
{
    const unsigned specials = TYPE(USER) | TYPE(CONTROL) | TYPE(UNKNOWN);
    struct tern_str want = { text, strlen(text) };
    uint32_t id;

    if (want.len == 0)
        return -1;
    for (id = 0; id < t->vocab.n; id++)
        if (specials >> (t->vocab.flags[id] & TERN_VOCAB_TYPE) & 1 &&
            tern_str_eq(tern_vocab_text(&t->vocab, id), want))
            return (int32_t)id;
    id = tern_vocab_find(&t->vocab, want.ptr, want.len);
    return id == TERN_NO_TOKEN ? -1 : (int32_t)id;
}

struct tern_str tern_tokenizer_piece(const struct tern_tokenizer *t, int32_t id, bool special)
{
    static const struct tern_str nothing = { "", 0 };

    switch (tern_tokenizer_type(t, id)) {
    case TERN_TOKEN_UNKNOWN:
    case TERN_TOKEN_CONTROL:
    case TERN_TOKEN_UNUSED:
        return special && is_id(t, id) ? tern_vocab_text(&t->vocab, (uint32_t)id) : nothing;
    default: return tern_vocab_text(&t->vocab, (uint32_t)id);
    }
}

/* One call of encode. */
struct encoder {
    const struct tern_tokenizer *t;
    struct tern_ids *out;
    uint32_t *ids; /* [cap] of the piece at work */
    size_t cap;
    struct tern_bpe_scratch scratch;
};

static enum tern_status reserve_ids(struct tern_ids *out, size_t more, struct tern_err *err)
{
    size_t cap = out->cap;
    int32_t *bigger;

    if (more <= cap - out->n)
        return TERN_OK;
    while (cap - out->n < more)
        cap = cap ? cap * 2 : 256; /* TERN_MAX_TEXT_BYTES: can not wrap */
    bigger = realloc(out->ids, cap * sizeof *bigger);
    if (!bigger)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu tokens", cap);
    out->ids = bigger;
    out->cap = cap;
    return TERN_OK;
}

static enum tern_status append_id(struct tern_ids *out, uint32_t id, struct tern_err *err)
{
    enum tern_status st = reserve_ids(out, 1, err);

    if (st == TERN_OK)
        out->ids[out->n++] = (int32_t)id;
    return st;
}

static enum tern_status reserve_piece(struct encoder *e, size_t n, struct tern_err *err)
{
    size_t cap = n < 1024 ? 1024 : n;

    if (n <= e->cap)
        return TERN_OK;
    free(e->ids);
    e->cap = 0;
    e->ids = malloc(cap * sizeof *e->ids);
    if (!e->ids)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to tokenize a word of %zu bytes", n);
    e->cap = cap;
    return TERN_OK;
}

/* A byte without a token: the unknown token if the vocabulary has one. */
static enum tern_status append_unknown(struct encoder *e, uint8_t byte, struct tern_err *err)
{
    int32_t unknown = e->t->vocab.unknown;

    if (unknown < 0)
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "the vocabulary has neither a token for the byte 0x%02x of the text nor an unknown token", byte);
    return append_id(e->out, (uint32_t)unknown, err);
}

static enum tern_status encode_piece(void *arg, const char *piece, size_t len, struct tern_err *err)
{
    struct encoder *e = arg;
    const struct tern_vocab *v = &e->t->vocab;
    size_t n = len, at = 0;
    uint32_t whole = e->t->kind->ignore_merges ? tern_vocab_find_plain(v, piece, len) : TERN_NO_TOKEN;
    enum tern_status st;

    if (whole != TERN_NO_TOKEN)
        return append_id(e->out, whole, err);
    if (len > TERN_MAX_PIECE_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a word of %zu bytes without a break in the text; at most %d",
                         len, TERN_MAX_PIECE_BYTES);
    if ((st = reserve_piece(e, len, err)) != TERN_OK || (st = reserve_ids(e->out, len, err)) != TERN_OK)
        return st;
    for (size_t i = 0; i < len; i++)
        e->ids[i] = v->byte_ids[(uint8_t)piece[i]];
    if ((st = tern_bpe_merge(&e->t->merges, e->ids, &n, &e->scratch, err)) != TERN_OK)
        return st;
    /* Bytes without a token never merge: walk along the piece to know which byte each of them is. */
    for (size_t i = 0; i < n; i++) {
        if (e->ids[i] != TERN_NO_TOKEN) {
            at += tern_vocab_text(v, e->ids[i]).len;
            e->out->ids[e->out->n++] = (int32_t)e->ids[i];
        } else if ((st = append_unknown(e, (uint8_t)piece[at++], err)) != TERN_OK) {
            return st;
        }
    }
    return TERN_OK;
}

/* The text between the special tokens, and those. */
static enum tern_status encode_text(struct encoder *e, const char *text, size_t len,
                                    const struct tern_special_cut *cuts, size_t n_cuts, struct tern_err *err)
{
    size_t at = 0;
    enum tern_status st;

    for (size_t i = 0; i < n_cuts; i++) {
        st = tern_pretok_split(e->t->pretok, text + at, cuts[i].at - at, encode_piece, e, err);
        if (st == TERN_OK)
            st = append_id(e->out, cuts[i].id, err);
        if (st)
            return st;
        at = (size_t)cuts[i].at + cuts[i].len;
    }
    return tern_pretok_split(e->t->pretok, text + at, len - at, encode_piece, e, err);
}

enum tern_status tern_tokenizer_encode(const struct tern_tokenizer *t, const char *text, size_t len,
                                       bool add_special, bool parse_special, struct tern_ids *out,
                                       struct tern_err *err)
{
    struct encoder e = { .t = t, .out = out };
    struct tern_special_cut *cuts = NULL;
    size_t n_before = out->n, n_cuts = 0;
    enum tern_status st;

    if (len > TERN_MAX_TEXT_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a text of %zu bytes; at most %d can be tokenized at once", len,
                         TERN_MAX_TEXT_BYTES);
    if (len == 0)
        text = "";
    st = tern_special_find(parse_special ? &t->parsed : &t->always, text, len, &cuts, &n_cuts, err);
    if (st == TERN_OK && add_special && t->add_bos)
        st = append_id(out, (uint32_t)t->vocab.bos, err);
    if (st == TERN_OK)
        st = encode_text(&e, text, len, cuts, n_cuts, err);
    if (st == TERN_OK && add_special && t->add_eos)
        st = append_id(out, (uint32_t)t->vocab.eos, err);
    if (st)
        out->n = n_before;
    free(cuts);
    free(e.ids);
    tern_bpe_scratch_free(&e.scratch);
    return st;
}
