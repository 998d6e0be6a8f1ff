/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model in any form that Tern reads, written anew as one GGUF: ternary matrices in the type asked for, what
 * views say (model_file.h) resolved, metadata corrected.
 *
 * Streaming: a tensor passes through in pieces of rows, made by all threads of a pool and written in order; a
 * few megabytes a thread are in memory besides what is mapped, which is given back piece by piece.
 *
 * What becomes of what:
 *   - matrices of layers: -1, 0, +1 and one scale, or (F16, F32) the product of both;
 *   - embedding and head: their type or the one asked for;
 *   - vectors of floats (norms, scales): F32, with what their view adds;
 *   - anything else: as it is, and so is metadata but for general.file_type, general.alignment, split.* and
 *     hashes of an earlier conversion.
 *
 * Order of calls: plan, write, seal, free.  Thread: one; the pool's take part.
 */
#ifndef TERN_ENGINE_CONVERT_H
#define TERN_ENGINE_CONVERT_H

#include "engine/gguf.h"
#include "engine/pool.h"
#include "kernels/kernels.h"

#include <stdio.h>

#define TERN_CONVERT_KEEP UINT32_MAX

struct tern_convert_options {
    uint32_t type;        /* of ternary matrices: TERN_TYPE_I2_S, _TQ1_0, _TQ2_0, TERN_F16 or TERN_F32 */
    uint32_t head;        /* of embedding and head: enum tern_dtype, or TERN_CONVERT_KEEP */
    bool bf16_to_f16;     /* with TERN_CONVERT_KEEP: BF16 becomes F16, what GGUF files of models have */
    const char *pre;      /* tokenizer.ggml.pre to write; NULL: the file's, else what its tokenizer chooses */
    bool slice;           /* layers [first, last) alone, for workers */
    uint32_t first, last; /* below the model's layers */
};

struct tern_conversion;

/* Bytes done and in all; false gives up with TERN_END. */
typedef bool tern_convert_progress(void *arg, uint64_t done, uint64_t total);

/* Decides about every tensor.  g and the strings of o are borrowed until free.  Refuses what the types asked
 * for cannot hold; that floats are not ternary shows while writing. */
enum tern_status tern_convert_plan(const struct tern_gguf *g, const struct tern_convert_options *o,
                                   struct tern_conversion **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_convert_free(struct tern_conversion **c);

/* Of the file to be written. */
uint64_t tern_convert_bytes(const struct tern_conversion *c);

/* Writes to f, which stays open, from its beginning; `name` is what sentences call it. */
enum tern_status tern_convert_write(struct tern_conversion *c, FILE *f, const char *name,
                                    struct tern_pool *pool, const struct tern_kernels *kern,
                                    tern_convert_progress *progress, void *arg,
                                    struct tern_err *err) TERN_MUST_CHECK;

/* Opens what was written under `path` and compares it with what was read: metadata, names and shapes, every
 * ternary value and scale, the bytes of all else.  Before that puts exact scales (exact_scale.h) and after it
 * the tensors' hashes (identity.h) into the room left for them, through fd. */
enum tern_status tern_convert_seal(struct tern_conversion *c, const char *path, int fd,
                                   struct tern_pool *pool, tern_convert_progress *progress, void *arg,
                                   struct tern_err *err) TERN_MUST_CHECK;

#endif
