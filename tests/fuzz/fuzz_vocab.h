/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vocabulary of 256 bytes and some marks, for targets that need a tokenizer whose special tokens they know.
 */
#ifndef TERN_TESTS_FUZZ_FUZZ_VOCAB_H
#define TERN_TESTS_FUZZ_FUZZ_VOCAB_H

#include "fuzz/fuzz.h"
#include "vocab_writer.h"

#include <string.h>

enum { FUZZ_BOS = 256, FUZZ_EOS };

/* Ids from 256 on are the marks: BOS and EOS, control tokens, and then those of this type.  What is returned
 * belongs to the caller. */
static inline struct tern_tokenizer *fuzz_vocab_new(const char *pre, const char *const *marks, size_t n,
                                                    int32_t type)
{
    struct tern_tokenizer *made = NULL;
    struct vocab_writer w;
    struct tern_gguf *g;
    int32_t types[512];

    FUZZ_CHECK(n >= 2 && n <= 256);
    vocab_begin_bytes(&w, pre, types);
    for (size_t i = 0; i < n; i++) {
        vocab_add(&w, marks[i], strlen(marks[i]));
        types[256 + i] = i < 2 ? TERN_TOKEN_CONTROL : type;
    }
    vocab_close(&w);
    vocab_i32s(&w, "tokenizer.ggml.token_type", types, 256 + n);
    vocab_u32(&w, "tokenizer.ggml.bos_token_id", FUZZ_BOS);
    vocab_u32(&w, "tokenizer.ggml.eos_token_id", FUZZ_EOS);
    vocab_open(&w, "tokenizer.ggml.merges");
    vocab_close(&w);
    vocab_end(&w);
    FUZZ_CHECK(tern_gguf_parse("made", w.bytes, w.n, &g, NULL) == TERN_OK);
    FUZZ_CHECK(tern_tokenizer_new(g, NULL, &made, NULL) == TERN_OK);
    tern_gguf_close(&g);
    free(w.bytes);
    return made;
}

#endif
