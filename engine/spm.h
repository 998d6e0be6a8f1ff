/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece's byte-pair encoding (tokenizer.ggml.model "llama"): of all adjacent symbols whose texts
 * together are a token, the pair whose token has the highest score is merged first, of equal ones the
 * leftmost, until none is left.  There are no merges and no pre-tokenizer, only scores.
 *
 * Texts are matched with spaces where SentencePiece writes U+2581, in tokens as in input.  What no token can
 * span is cut apart before merging, which changes nothing in the result and makes words of most texts; a
 * stretch of n bytes costs O(n log n).
 */
#ifndef TERN_ENGINE_SPM_H
#define TERN_ENGINE_SPM_H

#include "engine/vocab.h"

struct tern_spm {
    uint32_t *keys;  /* [n_vocab] the order of merging by score: least first */
    uint64_t *joins; /* [65536 / 64] a bit for every two bytes that stand side by side inside a token */
    bool add_space;  /* a text, and what follows a special token, gets a space in front */
    bool has_bytes;  /* a token for every byte: then no text becomes the unknown token */
};

/* Reads tokenizer.ggml.scores (absent: all equal) and tokenizer.ggml.add_space_prefix (absent: true).
 * tern_spm_free gives *s back, also after a failure; a zeroed one is legal. */
enum tern_status tern_spm_load(struct tern_spm *s, const struct tern_vocab *v, const struct tern_gguf *g,
                               struct tern_err *err) TERN_MUST_CHECK;
void tern_spm_free(struct tern_spm *s);

struct tern_spm_symbol {
    uint32_t at;         /* first byte */
    uint32_t prev, next; /* indexes; UINT32_MAX at the ends */
    uint32_t key;        /* of the pair that begins here, or UINT32_MAX */
    uint32_t order;      /* when it went into its left neighbour: the number of that merge */
};

/* Memory kept from stretch to stretch of one call; a zeroed one is empty. */
struct tern_spm_scratch {
    char *text; /* [text_cap] */
    size_t text_cap;
    struct tern_spm_symbol *symbols; /* [cap] */
    uint64_t *heap;                  /* [2 cap] key << 32 | index of the left symbol */
    size_t cap;
    struct tern_spm_word *words; /* a cache, or NULL */
};
void tern_spm_scratch_free(struct tern_spm_scratch *s);

/*
 * Appends the ids of text[0..len), len > 0, which begins at the start of the whole text or behind a special
 * token.  A character that is no token becomes the tokens of its bytes, or the unknown token where the
 * vocabulary lacks one of those; without an unknown token that fails with a sentence.
 */
enum tern_status tern_spm_encode(const struct tern_spm *s, const struct tern_vocab *v, const char *text,
                                 size_t len, struct tern_spm_scratch *scratch, struct tern_ids *out,
                                 struct tern_err *err) TERN_MUST_CHECK;

#endif
