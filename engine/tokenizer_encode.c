/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a text through the tokenizer, and of an id to what it prints.
 *
 * encode: cut out special tokens (special.c); what is left goes to spm.c, or is cut into pieces
 * (pretokenizer.c), a piece to the tokens of its bytes, those merged (bpe.c).  decode: a token's bytes stand
 * ready in the vocabulary (vocab.c).
 */
#include "engine/base/limits.h"
#include "engine/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

struct tern_str tern_tokenizer_piece(const struct tern_tokenizer *t, int32_t id, bool special)
{
    static const struct tern_str nothing = { "", 0 };

    switch (tern_tokenizer_type(t, id)) {
    case TERN_TOKEN_UNKNOWN:
    case TERN_TOKEN_CONTROL:
    case TERN_TOKEN_UNUSED:
        if (!special || id < 0 || (uint32_t)id >= t->vocab.n)
            return nothing;
        return tern_vocab_text(&t->vocab, (uint32_t)id);
    default: return tern_vocab_text(&t->vocab, (uint32_t)id);
    }
}

/* Whether encode began anew behind this token.  An unknown one may also stand for a character. */
static bool is_cut(const struct tern_tokenizer *t, int32_t id)
{
    enum tern_token_type type = tern_tokenizer_type(t, id);

    return id < 0 || type == TERN_TOKEN_CONTROL || type == TERN_TOKEN_USER ||
           (type == TERN_TOKEN_UNKNOWN && t->spm.has_bytes);
}

struct tern_str tern_tokenizer_piece_after(const struct tern_tokenizer *t, int32_t before, int32_t id,
                                           bool special)
{
    struct tern_str s = tern_tokenizer_piece(t, id, special);
    enum tern_token_type type = tern_tokenizer_type(t, id);

    if (t->vocab.spm && t->spm.add_space && is_cut(t, before) && s.len > 0 && s.ptr[0] == ' ' &&
        (type == TERN_TOKEN_NORMAL || type == TERN_TOKEN_BYTE)) {
        s.ptr++;
        s.len--;
    }
    return s;
}

/* One call of encode. */
struct encoder {
    const struct tern_tokenizer *t;
    struct tern_ids *out;
    uint32_t *ids; /* [cap] of the piece at work */
    size_t cap;
    struct tern_bpe_scratch scratch;
    struct tern_spm_scratch spm;
};

enum tern_status tern_ids_reserve(struct tern_ids *out, size_t more, struct tern_err *err)
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
    enum tern_status st = tern_ids_reserve(out, 1, err);

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

/* A byte without a token: the unknown token if the vocabulary has one, else U+FFFD's (some vocabularies lack
 * the bytes that valid UTF-8 never has). */
static enum tern_status append_unknown(struct encoder *e, uint8_t byte, struct tern_err *err)
{
    const struct tern_vocab *v = &e->t->vocab;
    uint32_t ids[3] = { v->byte_ids[0xef], v->byte_ids[0xbf], v->byte_ids[0xbd] };
    size_t n = 3;
    enum tern_status st;

    if (v->unknown >= 0)
        return append_id(e->out, (uint32_t)v->unknown, err);
    if (ids[0] == TERN_NO_TOKEN || ids[1] == TERN_NO_TOKEN || ids[2] == TERN_NO_TOKEN)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "the vocabulary has neither a token for the byte 0x%02x of the text nor an unknown "
                         "token nor those of U+FFFD",
                         byte);
    st = tern_bpe_merge(&e->t->merges, ids, &n, &e->scratch, err);
    for (size_t i = 0; i < n && st == TERN_OK; i++)
        st = append_id(e->out, ids[i], err);
    return st;
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
    if ((st = reserve_piece(e, len, err)) != TERN_OK || (st = tern_ids_reserve(e->out, len, err)) != TERN_OK)
        return st;
    for (size_t i = 0; i < len; i++)
        e->ids[i] = v->byte_ids[(uint8_t)piece[i]];
    if ((st = tern_bpe_merge(&e->t->merges, e->ids, &n, &e->scratch, err)) != TERN_OK)
        return st;
    /* Bytes without a token never merge: walk along the piece to know which byte each of them is. */
    for (size_t i = 0; i < n; i++) {
        if (e->ids[i] != TERN_NO_TOKEN) {
            at += tern_vocab_text(v, e->ids[i]).len;
            if ((st = append_id(e->out, e->ids[i], err)) != TERN_OK)
                return st;
        } else if ((st = append_unknown(e, (uint8_t)piece[at++], err)) != TERN_OK) {
            return st;
        }
    }
    return TERN_OK;
}

static enum tern_status encode_part(struct encoder *e, const char *text, size_t len, struct tern_err *err)
{
    if (len == 0)
        return TERN_OK;
    if (e->t->vocab.spm)
        return tern_spm_encode(&e->t->spm, &e->t->vocab, text, len, &e->spm, e->out, err);
    return tern_pretok_split(e->t->pretok, text, len, encode_piece, e, err);
}

/* The text between the special tokens, and those. */
static enum tern_status encode_text(struct encoder *e, const char *text, size_t len,
                                    const struct tern_special_cut *cuts, size_t n_cuts, struct tern_err *err)
{
    size_t at = 0;
    enum tern_status st;

    for (size_t i = 0; i < n_cuts; i++) {
        st = encode_part(e, text + at, cuts[i].at - at, err);
        if (st == TERN_OK)
            st = append_id(e->out, cuts[i].id, err);
        if (st)
            return st;
        at = (size_t)cuts[i].at + cuts[i].len;
    }
    return encode_part(e, text + at, len - at, err);
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
    tern_spm_scratch_free(&e.spm);
    return st;
}
