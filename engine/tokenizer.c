/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer: what the file says, put together, and asked about.
 */
#include "engine/base/log.h"
#include "engine/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#define TYPE(t) (1u << TERN_TOKEN_##t)

static enum tern_status check_model(const struct tern_gguf *g, bool *spm, struct tern_err *err)
{
    struct tern_str model;
    enum tern_status st = tern_gguf_string(g, "tokenizer.ggml.model", &model, err);

    if (st == TERN_END)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: has no tokenizer; a .gguf has tokenizer.ggml.model, a folder tokenizer.json or "
                         "tokenizer.model",
                         g->name);
    if (st)
        return st;
    *spm = tern_str_is(model, "llama");
    if (!*spm && !tern_str_is(model, "gpt2"))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: the tokenizer is of kind '%.*s'; 'gpt2' (byte-level BPE) and 'llama' "
                         "(SentencePiece with scores) are known",
                         g->name, model.len < 40 ? (int)model.len : 40, model.ptr);
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
            if (t->vocab.llama3)
                tern_log(TERN_LOG_INFO, "tokenizer",
                         "%s names no pre-tokenizer, but has Llama-3's vocabulary: taking llama-bpe, which "
                         "it was trained with (--pre default does as bitnet.cpp)",
                         g->name);
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

static enum tern_status load_bpe(struct tern_tokenizer *t, const struct tern_gguf *g, const char *pre,
                                 struct tern_err *err)
{
    enum tern_status st;

    if ((st = choose_pre(t, g, pre, err)) != TERN_OK ||
        (st = tern_merges_load(&t->merges, &t->vocab, g, err)) != TERN_OK)
        return st;
    return tern_pretok_new(t->kind, true, &t->pretok, err);
}

static enum tern_status load_spm(struct tern_tokenizer *t, const struct tern_gguf *g, const char *pre,
                                 struct tern_err *err)
{
    if (pre)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--pre: %s has a SentencePiece tokenizer, which works without a pre-tokenizer; "
                         "leave --pre out",
                         g->name);
    t->pre_source = "file";
    return tern_spm_load(&t->spm, &t->vocab, g, err);
}

static enum tern_status load(struct tern_tokenizer *t, const struct tern_gguf *g, bool spm, const char *pre,
                             struct tern_err *err)
{
    const unsigned specials = TYPE(USER) | TYPE(CONTROL) | TYPE(UNKNOWN);
    enum tern_status st;

    if ((st = tern_vocab_load(&t->vocab, g, spm, err)) != TERN_OK ||
        (st = (spm ? load_spm : load_bpe)(t, g, pre, err)) != TERN_OK ||
        (st = tern_special_build(&t->always, &t->vocab, TYPE(USER), err)) != TERN_OK ||
        (st = tern_special_build(&t->parsed, &t->vocab, specials, err)) != TERN_OK)
        return st;
    st = read_add(g, "tokenizer.ggml.add_bos_token", t->vocab.bos, spm || t->kind->add_bos, &t->add_bos, err);
    if (st == TERN_OK)
        st = read_add(g, "tokenizer.ggml.add_eos_token", t->vocab.eos, false, &t->add_eos, err);
    return st;
}

enum tern_status tern_tokenizer_new(const struct tern_gguf *g, const char *pre, struct tern_tokenizer **out,
                                    struct tern_err *err)
{
    struct tern_tokenizer *t;
    struct tern_err lost;
    bool spm = false;
    enum tern_status st = check_model(g, &spm, err);

    if (st)
        return st;
    t = calloc(1, sizeof *t);
    if (!t)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a tokenizer");
    st = load(t, g, spm, pre, err);
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
    tern_spm_free(&(*t)->spm);
    tern_special_free(&(*t)->always);
    tern_special_free(&(*t)->parsed);
    tern_pretok_free(&(*t)->pretok);
    free(*t);
    *t = NULL;
}

const char *tern_tokenizer_pre(const struct tern_tokenizer *t)
{
    return t->kind ? t->kind->name : "none";
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
    return id == TERN_NO_TOKEN || tern_tokenizer_type(t, (int32_t)id) == TERN_TOKEN_UNUSED ? -1 : (int32_t)id;
}

uint32_t tern_tokenizer_repaired(const struct tern_tokenizer *t)
{
    return t->vocab.n_repaired;
}
