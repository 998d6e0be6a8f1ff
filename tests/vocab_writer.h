/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes small GGUF files that hold nothing but a vocabulary, right or wrong ones, for tests and fuzzing.
 */
#ifndef TERN_TESTS_VOCAB_WRITER_H
#define TERN_TESTS_VOCAB_WRITER_H

#include "engine/gguf.h"
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct vocab_writer {
    uint8_t *bytes;
    size_t n, cap;
    uint64_t n_kv;
    size_t count_at; /* where the count of the open array of strings stands */
    uint64_t count;
};

static inline void vocab_put(struct vocab_writer *w, const void *p, size_t n)
{
    if (w->n + n > w->cap) {
        w->cap = 2 * (w->n + n) + 256;
        w->bytes = realloc(w->bytes, w->cap);
        if (!w->bytes)
            abort();
    }
    if (n > 0)
        memcpy(w->bytes + w->n, p, n);
    w->n += n;
}

/* Integers go out as this machine has them: little-endian, like GGUF. */
static inline void vocab_put_u32(struct vocab_writer *w, uint32_t v)
{
    vocab_put(w, &v, 4);
}

static inline void vocab_put_u64(struct vocab_writer *w, uint64_t v)
{
    vocab_put(w, &v, 8);
}

static inline void vocab_put_string(struct vocab_writer *w, const char *p, size_t n)
{
    vocab_put_u64(w, n);
    vocab_put(w, p, n);
}

static inline void vocab_begin(struct vocab_writer *w)
{
    memset(w, 0, sizeof *w);
    vocab_put(w, "GGUF", 4);
    vocab_put_u32(w, 3);
    vocab_put_u64(w, 0);
    vocab_put_u64(w, 0); /* n_kv: filled in by vocab_end */
}

static inline void vocab_key(struct vocab_writer *w, const char *key, uint32_t type)
{
    vocab_put_string(w, key, strlen(key));
    vocab_put_u32(w, type);
    w->n_kv++;
}

static inline void vocab_text(struct vocab_writer *w, const char *key, const char *text)
{
    vocab_key(w, key, TERN_GGUF_STRING);
    vocab_put_string(w, text, strlen(text));
}

static inline void vocab_u32(struct vocab_writer *w, const char *key, uint32_t v)
{
    vocab_key(w, key, TERN_GGUF_U32);
    vocab_put_u32(w, v);
}

static inline void vocab_bool(struct vocab_writer *w, const char *key, bool v)
{
    uint8_t byte = v;

    vocab_key(w, key, TERN_GGUF_BOOL);
    vocab_put(w, &byte, 1);
}

/* An array of strings: open it, add to it, close it. */
static inline void vocab_open(struct vocab_writer *w, const char *key)
{
    vocab_key(w, key, TERN_GGUF_ARRAY);
    vocab_put_u32(w, TERN_GGUF_STRING);
    w->count_at = w->n;
    w->count = 0;
    vocab_put_u64(w, 0);
}

static inline void vocab_add(struct vocab_writer *w, const char *p, size_t n)
{
    vocab_put_string(w, p, n);
    w->count++;
}

static inline void vocab_close(struct vocab_writer *w)
{
    memcpy(w->bytes + w->count_at, &w->count, 8);
}

static inline void vocab_i32s(struct vocab_writer *w, const char *key, const int32_t *v, size_t n)
{
    vocab_key(w, key, TERN_GGUF_ARRAY);
    vocab_put_u32(w, TERN_GGUF_I32);
    vocab_put_u64(w, n);
    vocab_put(w, v, 4 * n);
}

/* Bytes in the byte alphabet, by its definition; out: 2 * n bytes.  Returns how many. */
static inline size_t vocab_map(const char *p, size_t n, char *out)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned b = (uint8_t)p[i], code = b, next = 0x100;

        for (unsigned c = 0; c < 256; c++) {
            bool kept = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || c >= 0xae;

            if (c == b && !kept)
                code = next;
            next += !kept;
        }
        if (code < 0x80) {
            out[at++] = (char)code;
        } else {
            out[at++] = (char)(0xc0 | code >> 6);
            out[at++] = (char)(0x80 | (code & 0x3f));
        }
    }
    return at;
}

/* A token or one side of a merge, given as the bytes it prints. */
static inline void vocab_add_bytes(struct vocab_writer *w, const char *p, size_t n)
{
    char *text = malloc(2 * n + 1);

    if (!text)
        abort();
    vocab_add(w, text, vocab_map(p, n, text));
    free(text);
}

/* "left right" in the alphabet. */
static inline void vocab_add_merge(struct vocab_writer *w, const char *left, size_t n_left, const char *right,
                                   size_t n_right)
{
    char *text = malloc(2 * (n_left + n_right) + 1);
    size_t n;

    if (!text)
        abort();
    n = vocab_map(left, n_left, text);
    text[n++] = ' ';
    n += vocab_map(right, n_right, text + n);
    vocab_add(w, text, n);
    free(text);
}

/* Begins one of byte pairs whose first 256 tokens are the bytes; the array of tokens stays open.  types:
 * room for at least these 256.  pre: the pre-tokenizer, or NULL. */
static inline void vocab_begin_bytes(struct vocab_writer *w, const char *pre, int32_t *types)
{
    vocab_begin(w);
    vocab_text(w, "tokenizer.ggml.model", "gpt2");
    if (pre)
        vocab_text(w, "tokenizer.ggml.pre", pre);
    vocab_open(w, "tokenizer.ggml.tokens");
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;

        vocab_add_bytes(w, &byte, 1);
        types[b] = TERN_TOKEN_NORMAL;
    }
}

static inline void vocab_end(struct vocab_writer *w)
{
    memcpy(w->bytes + 16, &w->n_kv, 8);
}

#endif
