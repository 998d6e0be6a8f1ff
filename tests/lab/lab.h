/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making models for tests: synthetic ones of any shape, and changed copies of real ones.
 *
 * Everything is a pure function of its options and seed.  Files are streamed: memory goes with the largest
 * single matrix.
 */
#ifndef TERN_TESTS_LAB_LAB_H
#define TERN_TESTS_LAB_LAB_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/gguf_write.h"
#include "engine/synthetic.h"
#include "kernels/pack.h"

#include <stdint.h>
#include <stdio.h>

/* splitmix64: small, seedable, the same everywhere. */
struct lab_rng {
    uint64_t state;
};
uint64_t lab_rng_next(struct lab_rng *r);

/* -- synthetic models -------------------------------------------------------------------------- */

/* A valid small shape: 2 layers of 128, 4 heads, 2 KV heads of 32, ffn 256, vocabulary 320, I2_S, F16. */
struct tern_synthetic lab_shape_small(void);

void lab_write_synthetic(const struct tern_synthetic *shape, FILE *f);

/* -- changed copies ---------------------------------------------------------------------------- */

/* All metadata, the tensors of layers first..last (inclusive) and nothing else but RoPE factors. */
void lab_write_slice(const struct tern_gguf *g, uint32_t first, uint32_t last, FILE *f);

struct lab_retype {
    uint32_t ternary;            /* a ternary type, or F32, F16 or BF16; UINT32_MAX: as it is */
    enum tern_i2s_layout layout; /* to write */
    uint32_t embd;               /* UINT32_MAX: as it is; head too */
};
/* The same model in other types.  Sources in I2_S are of layout A. */
void lab_write_retyped(const struct tern_gguf *g, const struct lab_retype *to, FILE *f);

/* The tiles in which TL1 and TL2 are written: 32 rows in one strip, 64 or 96 columns.  False when the shape
 * cannot have them. */
bool lab_tl_tiles(uint32_t type, const uint64_t ne[4], struct tern_tl_tiles *out);

/* See lab_outliers.c. */
struct lab_outliers {
    uint64_t seed;
    uint32_t n;    /* channels added */
    double factor; /* times the residual stream's own size */
};
void lab_write_outliers(const struct tern_gguf *g, const struct lab_outliers *o, FILE *f);

/* -- shared ------------------------------------------------------------------------------------ */

/* What cannot be done ends the program: these are helpers for tests.  Prints "make_model: sentence" to stderr
 * and exits with 1. */
void lab_die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* malloc that does not fail. */
void *lab_alloc(size_t n);
struct tern_gguf_writer *lab_writer_new(FILE *f, uint32_t alignment);
void lab_finish(struct tern_gguf_writer **w);

/* A ternary tensor as m * k weights; the caller frees. */
int8_t *lab_read_ternary(const struct tern_tensor *t, float *scale);
/* The terminated name. */
void lab_name(const struct tern_tensor *t, char out[256]);

#endif
