/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammars from anywhere: GBNF, and behind a zero byte what to say by it.
 *
 * What must hold: what the mask allows is accepted and nothing else; a text that is done cannot go on; saying
 * the same again gives the same masks, whatever was remembered and forgotten in between.
 */
#include "fuzz/fuzz.h"

#include "coordinator/grammar.h"
#include "engine/base/mem.h"
#include "vocab_writer.h"

#include <string.h>

#define MAX_SAID 24

/* 256 bytes, some longer tokens and an end; kept for the process. */
static const char *const longer[] = { "aa",        "ab",    "{\"", "\":", "\xc3\xa9",
                                      "\xc3\xa9z", "\xa9z", "  ",  "\n ", "1.5" };
#define N_LONGER (sizeof longer / sizeof longer[0])
#define N_VOCAB  (256 + N_LONGER + 1)

static struct tern_tokenizer *tok;
static struct grammar_vocab *vocab;

static void open_vocabulary(void)
{
    int32_t types[N_VOCAB];
    struct vocab_writer w;
    struct tern_gguf *g;

    vocab_begin_bytes(&w, "llama-bpe", types);
    for (size_t i = 0; i < N_LONGER; i++) {
        vocab_add_bytes(&w, longer[i], strlen(longer[i]));
        types[256 + i] = TERN_TOKEN_NORMAL;
    }
    vocab_add(&w, "</s>", 4);
    types[N_VOCAB - 1] = TERN_TOKEN_CONTROL;
    vocab_close(&w);
    vocab_i32s(&w, "tokenizer.ggml.token_type", types, N_VOCAB);
    vocab_u32(&w, "tokenizer.ggml.eos_token_id", N_VOCAB - 1);
    vocab_open(&w, "tokenizer.ggml.merges");
    vocab_close(&w);
    vocab_end(&w);
    FUZZ_CHECK(tern_gguf_parse("made", w.bytes, w.n, &g, NULL) == TERN_OK);
    FUZZ_CHECK(tern_tokenizer_new(g, NULL, &tok, NULL) == TERN_OK);
    FUZZ_CHECK(grammar_vocab_new(tok, N_VOCAB, &vocab, NULL) == TERN_OK);
    tern_gguf_close(&g);
    free(w.bytes);
}

static uint64_t hash_mask(const uint64_t *mask)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < (N_VOCAB + 63) / 64; i++)
        hash = (hash ^ mask[i]) * 0x9e3779b97f4a7c15u;
    return hash;
}

/* What is said: the n-th of what is allowed, for each byte.  Returns the masks. */
static uint64_t say(struct grammar_state *s, const uint8_t *what, size_t n)
{
    uint64_t hash = 1;

    for (size_t i = 0; i < n && i < MAX_SAID; i++) {
        uint64_t mask[(N_VOCAB + 63) / 64];
        int32_t allowed[N_VOCAB], n_allowed = 0;
        const bool whole = grammar_is_whole(s);

        memcpy(mask, grammar_mask(s), sizeof mask);
        hash = (hash ^ hash_mask(mask)) * 31;
        for (int32_t id = 0; id < (int32_t)N_VOCAB; id++)
            if (mask[id / 64] >> (id % 64) & 1)
                allowed[n_allowed++] = id;
            else if ((id ^ what[i]) % 16 == 0)
                FUZZ_CHECK(!grammar_accept(s, id));
        FUZZ_CHECK((mask[(N_VOCAB - 1) / 64] >> ((N_VOCAB - 1) % 64) & 1) == (n_allowed ? whole : 0));
        if (grammar_is_done(s))
            FUZZ_CHECK(n_allowed == 1 && allowed[0] == (int32_t)N_VOCAB - 1);
        if (!n_allowed || (n_allowed == 1 && whole))
            break;
        FUZZ_CHECK(grammar_accept(s, allowed[what[i] % (n_allowed - whole)]) ||
                   !strstr(grammar_why(s), "no token"));
    }
    return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const size_t len = zero ? (size_t)(zero - data) : size;
    const struct grammar *held;
    struct grammar_state *s;
    struct grammar *g;
    uint64_t first;

    if (!vocab)
        open_vocabulary();
    if (grammar_parse((const char *)data, len, &g, NULL))
        return 0;
    FUZZ_CHECK(grammar_state_new(g, vocab, &s, NULL) == TERN_OK);
    held = g;
    grammar_drop(&held);
    if (zero) {
        first = say(s, zero + 1, size - len - 1);
        grammar_restart(s);
        FUZZ_CHECK(say(s, zero + 1, size - len - 1) == first);
    }
    grammar_state_free(&s);
    return 0;
}
