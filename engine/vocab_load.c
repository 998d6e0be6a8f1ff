/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the vocabulary out of a GGUF: every array is checked against the others, damage known from real
 * files is repaired, the rest is refused.
 */
#include "engine/base/limits.h"
#include "engine/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_DAMAGED 3 /* this many control tokens that repeat the BOS text are no accident */

/* While loading: texts as they stand in the file. */
struct texts {
    uint32_t n;
    struct tern_str *text; /* [n] borrowed from the file */
    uint8_t *type;         /* [n] */
};

enum tern_status tern_vocab_array(const struct tern_gguf *g, const char *key, bool strings, uint64_t n,
                                  const struct tern_gguf_kv **out, struct tern_err *err)
{
    const struct tern_gguf_kv *kv = tern_gguf_find(g, key);

    if (kv) {
        bool is_number = kv->elem_type != TERN_GGUF_STRING && kv->elem_type != TERN_GGUF_ARRAY &&
                         kv->elem_type != TERN_GGUF_BOOL;

        if (kv->type != TERN_GGUF_ARRAY || (strings ? kv->elem_type != TERN_GGUF_STRING : !is_number))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s is not an array of %s", g->name, key,
                             strings ? "strings" : "numbers");
        if (n != UINT64_MAX && kv->n != n)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s has %llu elements, but there are %llu tokens",
                             g->name, key, (unsigned long long)kv->n, (unsigned long long)n);
    }
    *out = kv;
    return TERN_OK;
}

static enum tern_status read_texts(struct texts *t, const struct tern_gguf *g, struct tern_err *err)
{
    const struct tern_gguf_kv *kv;
    struct tern_cursor c;
    enum tern_status st = tern_vocab_array(g, "tokenizer.ggml.tokens", true, UINT64_MAX, &kv, err);

    if (st)
        return st;
    if (!kv || kv->n == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: there is no vocabulary (tokenizer.ggml.tokens)", g->name);
    if (kv->n > TERN_MAX_VOCAB)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: %llu tokens, at most %d", g->name,
                         (unsigned long long)kv->n, TERN_MAX_VOCAB);
    t->n = (uint32_t)kv->n;
    t->text = malloc(t->n * sizeof *t->text);
    t->type = malloc(t->n);
    if (!t->text || !t->type)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", t->n);
    memset(t->type, TERN_TOKEN_NORMAL, t->n);
    tern_cursor_init(&c, kv->data, kv->bytes);
    for (uint32_t i = 0; i < t->n; i++) {
        if (!tern_gguf_next_string(&c, &t->text[i]))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tokenizer.ggml.tokens ends at token %u of %u",
                             g->name, i, t->n);
        if (t->text[i].len > TERN_MAX_TOKEN_BYTES)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: token %u is %zu bytes long, at most %d", g->name, i,
                             t->text[i].len, TERN_MAX_TOKEN_BYTES);
    }
    return TERN_OK;
}

static enum tern_status read_types(struct texts *t, const struct tern_gguf *g, struct tern_err *err)
{
    const struct tern_gguf_kv *kv;
    enum tern_status st = tern_vocab_array(g, "tokenizer.ggml.scores", false, t->n, &kv, err);

    if (st == TERN_OK) /* byte-level BPE has no use for scores, but an array of another length betrays a
                          broken file */
        st = tern_vocab_array(g, "tokenizer.ggml.token_type", false, t->n, &kv, err);
    if (st || !kv)
        return st;
    if (kv->elem_type == TERN_GGUF_F32 || kv->elem_type == TERN_GGUF_F64)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: tokenizer.ggml.token_type is not an array of integers",
                         g->name);
    for (uint32_t i = 0; i < t->n; i++) {
        int64_t type = tern_gguf_array_i64(kv, i);

        if (type < 0 || type > TERN_TOKEN_BYTE)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: token %u has type %lld, not one of 0 to %d", g->name,
                             i, (long long)type, TERN_TOKEN_BYTE);
        t->type[i] = type == 0 ? TERN_TOKEN_NORMAL : (uint8_t)type; /* 0: some writers' "undefined" */
    }
    return TERN_OK;
}

/* The id in `key`; without the key `missing`.  All ones is how some writers say none. */
static enum tern_status read_id(const struct tern_gguf *g, const char *key, uint32_t n_vocab, int32_t missing,
                                int32_t *out, struct tern_err *err)
{
    uint64_t id;
    enum tern_status st = tern_gguf_u64(g, key, &id, err);

    if (st == TERN_END) {
        *out = missing;
        return TERN_OK;
    }
    if (st)
        return st;
    if (id == UINT32_MAX) {
        *out = -1;
        return TERN_OK;
    }
    if (id >= n_vocab)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: %s is %llu, but there are only %u tokens", g->name, key,
                         (unsigned long long)id, n_vocab);
    *out = (int32_t)id;
    return TERN_OK;
}

static bool starts_with(struct tern_str s, struct tern_str prefix)
{
    return s.len >= prefix.len && memcmp(s.ptr, prefix.ptr, prefix.len) == 0;
}

/* Takes the BOS text off tokens that a converter prefixed with it; returns off how many. */
static uint32_t repair(struct texts *t, int32_t bos)
{
    struct tern_str prefix, half;
    uint32_t n_damaged = 0, n_repaired = 0;

    if (bos < 0 || t->text[bos].len < 3)
        return 0;
    prefix = t->text[bos];
    half = prefix;
    half.len /= 2;
    if (half.len >= 3 && half.ptr[0] == '<' && half.ptr[half.len - 1] == '>' && prefix.len == 2 * half.len &&
        memcmp(half.ptr, half.ptr + half.len, half.len) == 0) {
        prefix = half;
        n_damaged = MIN_DAMAGED;
    } else {
        for (uint32_t i = 0; i < t->n; i++)
            if (t->type[i] == TERN_TOKEN_CONTROL && t->text[i].len > prefix.len + 2 &&
                starts_with(t->text[i], prefix) && memcmp(t->text[i].ptr + prefix.len, "<|", 2) == 0)
                n_damaged++;
    }
    if (n_damaged < MIN_DAMAGED)
        return 0;
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->type[i] == TERN_TOKEN_NORMAL || t->text[i].len <= prefix.len ||
            !starts_with(t->text[i], prefix))
            continue;
        t->text[i].ptr += prefix.len;
        t->text[i].len -= prefix.len;
        n_repaired++;
    }
    return n_repaired;
}

/* Takes "[PADi]" at place i, which a converter fills vocabularies up with, for what it is: as user-defined
 * tokens they would be found in texts.  Returns how many were not unused before. */
static uint32_t repair_padding(struct texts *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        char name[16];

        if (t->type[i] != TERN_TOKEN_USER || t->text[i].len < 6 || t->text[i].ptr[0] != '[')
            continue;
        snprintf(name, sizeof name, "[PAD%u]", i);
        if (!tern_str_is(t->text[i], name))
            continue;
        t->type[i] = TERN_TOKEN_UNUSED;
        n++;
    }
    return n;
}

/* Ends generation by its text. */
static bool is_eog_text(struct tern_str s)
{
    static const char *const texts[] = { "<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
                                         "<|endoftext|>", "<|eom_id|>", "<EOT>" };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (tern_str_is(s, texts[i]))
            return true;
    return false;
}

/* The special ids, and the end-of-generation set in bit TERN_VOCAB_EOG of the types. */
static enum tern_status read_specials(struct tern_vocab *v, struct texts *t, const struct tern_gguf *g,
                                      struct tern_err *err)
{
    static const char *const ends[] = { "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                        "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
                                        "tokenizer.ggml.fim_sep_token_id" };
    /* GPT-2's defaults are 11 for both; a vocabulary whose 11 is an ordinary token has none.  SentencePiece's
     * are 1 and 2. */
    int32_t bpe = t->n > 11 && t->type[11] == TERN_TOKEN_CONTROL ? 11 : -1, last = (int32_t)t->n - 1;
    int32_t bos = !v->spm ? bpe : last >= 1 ? 1 : -1, eos = !v->spm ? bpe : last >= 2 ? 2 : -1;
    enum tern_status st = read_id(g, "tokenizer.ggml.bos_token_id", t->n, bos, &v->bos, err);

    if (st == TERN_OK)
        st = read_id(g, "tokenizer.ggml.eos_token_id", t->n, eos, &v->eos, err);
    if (st == TERN_OK)
        st = read_id(g, "tokenizer.ggml.unknown_token_id", t->n, v->spm ? 0 : -1, &v->unknown, err);
    if (st)
        return st;
    v->n_repaired = repair(t, v->bos) + repair_padding(t);
    for (uint32_t i = 0; i < t->n; i++)
        if (is_eog_text(t->text[i]))
            t->type[i] = TERN_TOKEN_CONTROL | TERN_VOCAB_EOG;
    if (v->eos >= 0)
        t->type[v->eos] |= TERN_VOCAB_EOG;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int32_t id = -1;

        if ((st = read_id(g, ends[i], t->n, -1, &id, err)) != TERN_OK)
            return st;
        if (id >= 0)
            t->type[id] |= TERN_VOCAB_EOG;
    }
    v->llama3 = t->n == 128256 && tern_str_is(t->text[128000], "<|begin_of_text|>");
    return TERN_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "<0x0A>" to its byte, or -1. */
static int byte_name(struct tern_str s)
{
    if (s.len != 6 || memcmp(s.ptr, "<0x", 3) != 0 || s.ptr[5] != '>' || hex(s.ptr[3]) < 0 ||
        hex(s.ptr[4]) < 0)
        return -1;
    return hex(s.ptr[3]) * 16 + hex(s.ptr[4]);
}

/* Writes what a token of this text prints to out; *plain: text can become it. */
static size_t print_text(const struct tern_vocab *v, struct tern_str s, unsigned type, char *out, bool *plain)
{
    bool whole;

    *plain = false;
    if (v->spm && (type == TERN_TOKEN_NORMAL || type == TERN_TOKEN_UNUSED)) {
        *plain = s.len > 0 && !memchr(s.ptr, ' ', s.len);
        return tern_vocab_spaces(s.ptr, s.len, out);
    }
    if (type == TERN_TOKEN_NORMAL) {
        size_t n = tern_vocab_unmap(s.ptr, s.len, out, &whole);

        *plain = whole && s.len > 0;
        return n;
    }
    if (type == TERN_TOKEN_BYTE) {
        *out = (char)byte_name(s);
        return 1;
    }
    if (s.len > 0)
        memcpy(out, s.ptr, s.len);
    return s.len;
}

/* Writes what each token prints into v. */
static enum tern_status store(struct tern_vocab *v, const struct texts *t, const struct tern_gguf *g,
                              struct tern_err *err)
{
    size_t total = 0;
    uint32_t at = 0;

    for (uint32_t i = 0; i < t->n; i++)
        total += t->text[i].len;
    if (total > UINT32_MAX)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: the texts of the tokens take %zu bytes, at most 4 GiB",
                         g->name, total);
    v->n = t->n;
    v->flags = malloc(t->n);
    v->offsets = malloc(((size_t)t->n + 1) * sizeof *v->offsets);
    v->bytes = malloc(total + 1);
    if (!v->flags || !v->offsets || !v->bytes)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", t->n);
    for (uint32_t i = 0; i < t->n; i++) {
        unsigned type = t->type[i] & TERN_VOCAB_TYPE;
        size_t n;
        bool plain;

        if (type == TERN_TOKEN_BYTE && byte_name(t->text[i]) < 0)
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: token %u has the type of a byte, but its text is not <0xHH>", g->name, i);
        v->offsets[i] = at;
        n = print_text(v, t->text[i], type, v->bytes + at, &plain);
        at += (uint32_t)n;
        v->flags[i] = (uint8_t)(t->type[i] | (plain ? TERN_VOCAB_PLAIN : 0));
        if (plain && n > v->max_plain)
            v->max_plain = (uint32_t)n;
    }
    v->offsets[t->n] = at;
    return TERN_OK;
}

/* A byte's token is the plain one, else one of type byte; with SPM the other way round. */
static void find_byte_ids(struct tern_vocab *v)
{
    for (int b = 0; b < 256; b++)
        v->byte_ids[b] = TERN_NO_TOKEN;
    for (unsigned turn = 0; turn < 2; turn++)
        for (uint32_t id = 0; id < v->n; id++) {
            struct tern_str text = tern_vocab_text(v, id);
            bool plain = (v->flags[id] & TERN_VOCAB_PLAIN) != 0;
            bool byte = (v->flags[id] & TERN_VOCAB_TYPE) == TERN_TOKEN_BYTE;

            if (text.len == 1 && ((turn == 0) != v->spm ? plain : byte) &&
                v->byte_ids[(uint8_t)text.ptr[0]] == TERN_NO_TOKEN)
                v->byte_ids[(uint8_t)text.ptr[0]] = id;
        }
}

enum tern_status tern_vocab_load(struct tern_vocab *v, const struct tern_gguf *g, bool spm,
                                 struct tern_err *err)
{
    struct texts t = { 0 };
    enum tern_status st = read_texts(&t, g, err);

    memset(v, 0, sizeof *v);
    v->spm = spm;
    if (st == TERN_OK)
        st = read_types(&t, g, err);
    if (spm && st == TERN_OK && !tern_gguf_find(g, "tokenizer.ggml.token_type"))
        for (uint32_t i = 0; i < t.n; i++)
            if (byte_name(t.text[i]) >= 0) /* without types the name alone tells */
                t.type[i] = TERN_TOKEN_BYTE;
    if (st == TERN_OK)
        st = read_specials(v, &t, g, err);
    if (st == TERN_OK)
        st = store(v, &t, g, err);
    free(t.text);
    free(t.type);
    if (st == TERN_OK)
        st = tern_vocab_index(v, err);
    if (st == TERN_OK)
        find_byte_ids(v);
    return st;
}
