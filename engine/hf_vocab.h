/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A publisher's tokenizer on its way to tokenizer.* keys: what any of the files can say, in one struct.
 *
 * tokenizer.json (hf_vocab_json.c), SentencePiece's tokenizer.model (hf_vocab_spm.c) or a tiktoken list
 * (hf_vocab_tiktoken.c) say which tokens there are and how they merge; tokenizer_config.json and its
 * neighbours (hf_vocab_config.c) which of them begin and end a text.  All readers take bytes, which may be
 * anybody's: what they keep is bounded by the number of tokens the model has room for.
 */
#ifndef TERN_ENGINE_HF_VOCAB_H
#define TERN_ENGINE_HF_VOCAB_H

#include "engine/gguf_write.h"
#include "engine/tokenizer.h"

#include <jansson.h>

struct tern_hf_vocab {
    const char *name; /* what sentences call the file at work; borrowed */
    uint32_t n_room;  /* rows of the embedding */
    uint32_t n;       /* one more than the highest id so far */
    bool skipped;     /* an added token was left out */
    bool spm;         /* model "llama", else "gpt2" */
    const char *pre;  /* of gpt2; static */
    char **texts;     /* [n_room]; NULL where there is no token */
    int32_t *types;   /* [n_room] enum tern_token_type */
    float *scores;    /* [n_room] of spm */
    char **merges;    /* [n_merges] of gpt2: "left right" */
    size_t n_merges, cap_merges;
    int64_t bos, eos, eot, unknown, pad; /* -1: not said */
    int add_bos, add_eos, add_space;     /* -1: not said */
    char *chat_template;                 /* or NULL */
};

/* n_room: 1 to TERN_MAX_VOCAB.  tern_hf_vocab_free gives *v back, also after a failure. */
enum tern_status tern_hf_vocab_init(struct tern_hf_vocab *v, uint32_t n_room,
                                    struct tern_err *err) TERN_MUST_CHECK;
void tern_hf_vocab_free(struct tern_hf_vocab *v);

/* Token `id` has this text; one that is there already is replaced if `again`, else refused. */
enum tern_status tern_hf_vocab_set(struct tern_hf_vocab *v, uint64_t id, const char *text, size_t len,
                                   enum tern_token_type type, float score, bool again,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* An added token: special ones are control tokens, others user-defined.  One that the model has no room for
 * (a "<pad>" that nobody trained) is left out, with a line in the log for the first. */
enum tern_status tern_hf_vocab_add(struct tern_hf_vocab *v, uint64_t id, const char *text, bool special,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* The next merge, of two texts in the byte alphabet. */
enum tern_status tern_hf_vocab_merge(struct tern_hf_vocab *v, const char *left, size_t n_left,
                                     const char *right, size_t n_right, struct tern_err *err) TERN_MUST_CHECK;

/* The id of a text, control tokens first, or -1. */
int64_t tern_hf_vocab_find(const struct tern_hf_vocab *v, const char *text);

/* Writes the keys, with unused tokens where none is known. */
enum tern_status tern_hf_vocab_put(const struct tern_hf_vocab *v, struct tern_gguf_writer *w,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* -- readers: v->name says whose bytes they are --------------------------------------------------------- */

enum tern_status tern_hf_vocab_json(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                    struct tern_err *err) TERN_MUST_CHECK;
/* Sees by the first byte which of the two it is. */
enum tern_status tern_hf_vocab_model(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                     struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_hf_vocab_tiktoken(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                        struct tern_err *err) TERN_MUST_CHECK;
/* added_tokens.json of older folders: text to id.  What looks like "<pad>" is a control token. */
enum tern_status tern_hf_vocab_added(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                     struct tern_err *err) TERN_MUST_CHECK;
/* tokenizer_config.json */
enum tern_status tern_hf_vocab_config(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                      struct tern_err *err) TERN_MUST_CHECK;
/* generation_config.json or config.json: what they say of bos and eos and nobody else did. */
enum tern_status tern_hf_vocab_ids(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* Which pre-tokenizer the "pre_tokenizer" of a tokenizer.json stands for: a name of tern_pretok_find, or
 * "unknown", with a line in the log. */
const char *tern_hf_pre_name(const char *file, const json_t *pre);

#endif
