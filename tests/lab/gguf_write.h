/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing GGUF files, for tests: metadata first, then the directory, then the data streamed tensor by tensor.
 *
 * Order of calls: new, put_*, add_tensor for every tensor, begin, then for each tensor in the order they were
 * added any number of write calls and one end_tensor, then finish.  The layout is what the strictest readers
 * want: tensors tightly packed in record order, each start padded.  What cannot be done ends
 * the program with a sentence: these are helpers for tests.
 */
#ifndef TERN_TESTS_LAB_GGUF_WRITE_H
#define TERN_TESTS_LAB_GGUF_WRITE_H

#include "engine/gguf.h"

#include <stdio.h>

struct gguf_writer;

/* Prints "make_model: sentence" to stderr and exits with 1. */
void lab_die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* malloc that does not fail. */
void *lab_alloc(size_t n);

/* f is written from its current position, which must be the file's beginning; it stays open. */
struct gguf_writer *gguf_writer_new(FILE *f, uint32_t alignment);

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *v);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n);
void gguf_put_strings(struct gguf_writer *w, const char *key, char *const *v, uint64_t n);
/* A record of another file, byte for byte. */
void gguf_put_kv(struct gguf_writer *w, const struct tern_gguf_kv *kv);

/* The size follows from type and shape. */
void gguf_add_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *ne);

void gguf_begin(struct gguf_writer *w);
void gguf_write(struct gguf_writer *w, const void *bytes, size_t n);
void gguf_end_tensor(struct gguf_writer *w);
/* Flushes f and frees the writer. */
void gguf_finish(struct gguf_writer **w);

#endif
