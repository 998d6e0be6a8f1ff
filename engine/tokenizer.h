/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to ids and back: byte-level BPE (tokenizer.ggml.model "gpt2") and SentencePiece's BPE ("llama").
 *
 * Owns copies of the vocabulary: the file may be closed.  Immutable after loading; encode and decode may run
 * on any thread at once (matching data are made per call).
 *
 * Text is bytes, whatever they are: invalid UTF-8 in the input is documented behaviour, never an error.  Each
 * byte that is not part of a valid sequence is encoded by its byte token.  So what encode made of any bytes
 * decodes to the same bytes.  Where the vocabulary lacks the token of a byte (Falcon's has none for 28,
 * control characters and bytes that UTF-8 hardly has), the unknown token stands for it (SentencePiece: for
 * the character), or without one U+FFFD; only a vocabulary that cannot even say that makes encode fail, with
 * a sentence.
 *
 * Two things of SentencePiece's make a difference: the space that its models have in front of a text and
 * behind every special token, which tern_tokenizer_piece_after leaves out again; and U+2581, which is how its
 * models write a space and comes back as one.  No text is normalised (NFC, NFKC) in any other way.
 */
#ifndef TERN_ENGINE_TOKENIZER_H
#define TERN_ENGINE_TOKENIZER_H

#include "engine/base/cursor.h"
#include "engine/base/status.h"
#include "engine/gguf.h"

#include <stdbool.h>
#include <stdint.h>

struct tern_tokenizer;

enum tern_token_type {
    TERN_TOKEN_NORMAL = 1,
    TERN_TOKEN_UNKNOWN,
    TERN_TOKEN_CONTROL,
    TERN_TOKEN_USER,
    TERN_TOKEN_UNUSED,
    TERN_TOKEN_BYTE
};

/* pre: override of tokenizer.ggml.pre, or NULL for the file's (a missing key on a Llama-3 vocabulary is
 * taken as "llama-bpe", with a line in the log; on any other as "default"); with SentencePiece, which has no
 * pre-tokenizer, an override is refused.  Special tokens damaged by known converters are repaired; whatever
 * else contradicts itself is refused. */
enum tern_status tern_tokenizer_new(const struct tern_gguf *g, const char *pre, struct tern_tokenizer **out,
                                    struct tern_err *err) TERN_MUST_CHECK;
void tern_tokenizer_free(struct tern_tokenizer **t);

/* The pre-tokenizer in use ("llama-bpe"; "none" with SentencePiece) and whether it was named by the file,
 * guessed, or overridden ("file", "guessed", "override"): for `tern inspect`. */
const char *tern_tokenizer_pre(const struct tern_tokenizer *t);
const char *tern_tokenizer_pre_source(const struct tern_tokenizer *t);

uint32_t tern_tokenizer_n_vocab(const struct tern_tokenizer *t);
int32_t tern_tokenizer_bos(const struct tern_tokenizer *t); /* -1 when there is none */
int32_t tern_tokenizer_eos(const struct tern_tokenizer *t);
bool tern_tokenizer_add_bos(const struct tern_tokenizer *t);
bool tern_tokenizer_is_eog(const struct tern_tokenizer *t, int32_t id);
enum tern_token_type tern_tokenizer_type(const struct tern_tokenizer *t, int32_t id);

/* The token with exactly this text ("<|im_end|>"), or -1: first among control, user-defined and unknown
 * tokens, then among those that print it.  Of twins the lowest id. */
int32_t tern_tokenizer_find(const struct tern_tokenizer *t, const char *text);

/* How many tokens were repaired on loading: special ones whose text a converter had put BOS's text in front
 * of, and padding ("[PADi]" at place i) that it had made user-defined tokens. */
uint32_t tern_tokenizer_repaired(const struct tern_tokenizer *t);

struct tern_ids {
    int32_t *ids; /* grown by the callee with realloc; the caller frees */
    size_t n, cap;
};

/* Makes room for `more` ids behind the n there are. */
enum tern_status tern_ids_reserve(struct tern_ids *out, size_t more, struct tern_err *err) TERN_MUST_CHECK;

/* Appends the ids of text.  add_special: BOS first and EOS last if the model wants them.  parse_special:
 * control tokens in the text are recognised (user-defined ones always are); without it no text can make a
 * control token.  After a failure out->n is what it was. */
enum tern_status tern_tokenizer_encode(const struct tern_tokenizer *t, const char *text, size_t len,
                                       bool add_special, bool parse_special, struct tern_ids *out,
                                       struct tern_err *err) TERN_MUST_CHECK;

/* The bytes a token prints: borrowed from the tokenizer.  Control, unknown and unused tokens print nothing
 * unless `special`.  An id outside the vocabulary prints nothing. */
struct tern_str tern_tokenizer_piece(const struct tern_tokenizer *t, int32_t id, bool special);

/* The same of a token that stands behind `before` in a whole text (-1: in front): without the space that
 * encode puts there when the model wants one.  The pieces of encode's ids are the text again. */
struct tern_str tern_tokenizer_piece_after(const struct tern_tokenizer *t, int32_t before, int32_t id,
                                           bool special);

/* Streaming UTF-8: hold back an incomplete tail, replace what can never become valid by U+FFFD. */
struct tern_utf8 {
    uint8_t held[4];
    unsigned n;
};
/* Feeds n bytes; writes at most 3 * (n + 4) bytes of valid UTF-8 to out and returns how many.  A zero
 * tern_utf8 is a fresh stream. */
size_t tern_utf8_feed(struct tern_utf8 *u, const char *bytes, size_t n, char *out);
/* The end of the stream: what is still held becomes U+FFFD (at most 3 bytes each held byte). */
size_t tern_utf8_flush(struct tern_utf8 *u, char *out);

#endif
