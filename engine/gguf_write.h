/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing GGUF files: metadata first, then the directory, then the data streamed tensor by tensor.
 *
 * Order of calls: new, put_*, add_tensor for every tensor, begin, then for each tensor in the order they were
 * added any number of write calls and one end_tensor, then finish.  The layout is what the strictest readers
 * want: tensors tightly packed in record order, each start padded.
 *
 * The first failure (no memory, the disk is full, a shape that its type cannot have) is kept: later calls do
 * nothing, and finish reports it.  Whoever writes much asks tern_gguf_writer_status now and then.
 *
 * Memory: metadata and directory.  Thread: one at a time.
 */
#ifndef TERN_ENGINE_GGUF_WRITE_H
#define TERN_ENGINE_GGUF_WRITE_H

#include "engine/gguf.h"

#include <stdio.h>

struct tern_gguf_writer;

/* f is written from its current position, which must be the file's beginning; it stays open.  `name` is what
 * sentences call the file; borrowed, as is f.  alignment: a power of two. */
enum tern_status tern_gguf_writer_new(FILE *f, const char *name, uint32_t alignment,
                                      struct tern_gguf_writer **out, struct tern_err *err) TERN_MUST_CHECK;
/* Without finishing. */
void tern_gguf_writer_free(struct tern_gguf_writer **w);

void tern_gguf_put_u32(struct tern_gguf_writer *w, const char *key, uint32_t v);
void tern_gguf_put_f32(struct tern_gguf_writer *w, const char *key, float v);
void tern_gguf_put_bool(struct tern_gguf_writer *w, const char *key, bool v);
void tern_gguf_put_string(struct tern_gguf_writer *w, const char *key, const char *v);
void tern_gguf_put_bools(struct tern_gguf_writer *w, const char *key, const bool *v, uint64_t n);
void tern_gguf_put_i32s(struct tern_gguf_writer *w, const char *key, const int32_t *v, uint64_t n);
void tern_gguf_put_f32s(struct tern_gguf_writer *w, const char *key, const float *v, uint64_t n);
void tern_gguf_put_strings(struct tern_gguf_writer *w, const char *key, char *const *v, uint64_t n);
/* An array of n zeros of an element type of `size` bytes, for those who fill it in later: returns where in
 * the file its first byte will be. */
uint64_t tern_gguf_put_room(struct tern_gguf_writer *w, const char *key, uint32_t elem_type, size_t size,
                            size_t n);
/* A record of another file, byte for byte. */
void tern_gguf_put_kv(struct tern_gguf_writer *w, const struct tern_gguf_kv *kv);

/* The size follows from type and shape. */
void tern_gguf_add_tensor(struct tern_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                          const uint64_t *ne);

/* Bytes of the whole file, known once all tensors are added. */
uint64_t tern_gguf_writer_bytes(const struct tern_gguf_writer *w);

void tern_gguf_begin(struct tern_gguf_writer *w);
void tern_gguf_write(struct tern_gguf_writer *w, const void *bytes, size_t n);
void tern_gguf_end_tensor(struct tern_gguf_writer *w);

/* The first failure so far. */
enum tern_status tern_gguf_writer_status(const struct tern_gguf_writer *w,
                                         struct tern_err *err) TERN_MUST_CHECK;
/* Flushes f and frees the writer, in any case. */
enum tern_status tern_gguf_finish(struct tern_gguf_writer **w, struct tern_err *err) TERN_MUST_CHECK;

#endif
