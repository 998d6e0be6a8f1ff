/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary: id to bytes, bytes to id, kinds of tokens.
 *
 * Texts of normal tokens are turned into the bytes they print, from the byte alphabet (BPE) or by writing a
 * space for U+2581 (SPM); texts of added tokens stay literal.  "Plain" tokens are those that text can become
 * by merging: normal ones, of BPE those that lie wholly in the alphabet, of SPM those without a space as such
 * (which no text can have there), and unused ones too (on the way to another).  A control, unknown or
 * user-defined token is never plain, so merging can not forge one.
 */
#ifndef TERN_ENGINE_VOCAB_H
#define TERN_ENGINE_VOCAB_H

#include "engine/gguf.h"
#include "engine/tokenizer.h"

#define TERN_NO_TOKEN  UINT32_MAX
#define TERN_SPM_SPACE "\xe2\x96\x81" /* U+2581 */

enum { TERN_VOCAB_TYPE = 0x07, TERN_VOCAB_PLAIN = 0x10, TERN_VOCAB_EOG = 0x20 };

struct tern_vocab {
    uint32_t n;
    uint32_t max_plain; /* bytes of the longest plain token */
    uint8_t *flags;     /* [n] enum tern_token_type | TERN_VOCAB_* */
    uint32_t *offsets;  /* [n + 1] into bytes */
    char *bytes;
    uint32_t *slots; /* open addressing: id + 1, 0 is empty */
    uint32_t slot_mask;
    uint64_t seed;             /* of the hash: a file can not be made to collide */
    uint32_t byte_ids[256];    /* the token of one byte, or TERN_NO_TOKEN */
    int32_t bos, eos, unknown; /* -1 when there is none */
    uint32_t n_repaired;       /* tokens whose text or type a converter had damaged */
    bool spm;                  /* SentencePiece, not byte-level BPE */
    bool llama3;               /* laid out as Llama-3's */
};

/* Fills *v, which tern_vocab_free gives back (also after a failure; a zeroed one is legal). */
enum tern_status tern_vocab_load(struct tern_vocab *v, const struct tern_gguf *g, bool spm,
                                 struct tern_err *err) TERN_MUST_CHECK;
void tern_vocab_free(struct tern_vocab *v);

static inline struct tern_str tern_vocab_text(const struct tern_vocab *v, uint32_t id)
{
    struct tern_str s = { v->bytes + v->offsets[id], v->offsets[id + 1] - v->offsets[id] };
    return s;
}

/* Builds the slots: the last step of tern_vocab_load. */
enum tern_status tern_vocab_index(struct tern_vocab *v, struct tern_err *err) TERN_MUST_CHECK;

/* The token with these bytes, plain ones first, or TERN_NO_TOKEN. */
uint32_t tern_vocab_find(const struct tern_vocab *v, const char *bytes, size_t len);

/* The same, but only a plain token. */
uint32_t tern_vocab_find_plain(const struct tern_vocab *v, const char *bytes, size_t len);

/* Text in the byte alphabet to bytes (at most as many).  Whatever is not in the alphabet stays as it is and
 * makes *whole false.  Returns the number of bytes. */
size_t tern_vocab_unmap(const char *text, size_t len, char *out, bool *whole);

/* Bytes to the byte alphabet; out: 2 * len bytes.  Returns how many. */
size_t tern_vocab_map(const char *bytes, size_t len, char *out);

/* U+2581 in text to spaces; out: len bytes.  Returns the number of bytes. */
size_t tern_vocab_spaces(const char *text, size_t len, char *out);

/* An array of `key` with n elements: NULL and TERN_OK when the key is absent.  `strings`: of strings, else of
 * numbers. */
enum tern_status tern_vocab_array(const struct tern_gguf *g, const char *key, bool strings, uint64_t n,
                                  const struct tern_gguf_kv **out, struct tern_err *err) TERN_MUST_CHECK;

/* 64 bits that whoever wrote the file could not know. */
uint64_t tern_vocab_seed(void);

#endif
