/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every maker of models for tests needs: an end with a sentence, random numbers, small synthetic models.
 */
#include "lab/lab.h"

#include <stdarg.h>
#include <stdlib.h>

void lab_die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "make_model: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

void *lab_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (!p)
        lab_die("no memory for %zu bytes", n);
    return p;
}

uint64_t lab_rng_next(struct lab_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct tern_gguf_writer *lab_writer_new(FILE *f, uint32_t alignment)
{
    struct tern_gguf_writer *w;
    struct tern_err err;

    if (tern_gguf_writer_new(f, "the model", alignment, &w, &err))
        lab_die("%s", err.text);
    return w;
}

void lab_finish(struct tern_gguf_writer **w)
{
    struct tern_err err;

    if (tern_gguf_finish(w, &err))
        lab_die("%s", err.text);
}

struct tern_synthetic lab_shape_small(void)
{
    return (struct tern_synthetic){
        .n_layers = 2,
        .n_embd = 128,
        .n_ffn = 256,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .n_vocab = 320,
        .n_ctx = 512,
        .rope_theta = 10000.0,
        .rms_eps = 1e-5,
        .ternary = TERN_TYPE_I2_S,
        .layout = TERN_I2S_A,
        .embd = TERN_F16,
        .norm = TERN_F32,
        .seed = 1,
    };
}

void lab_write_synthetic(const struct tern_synthetic *shape, FILE *f)
{
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_err err;

    tern_kernels_init(&kern, TERN_CPU_REF);
    if (tern_pool_new(1, &pool, &err) ||
        tern_synthetic_write(shape, f, "the model", pool, &kern, NULL, NULL, &err))
        lab_die("%s", err.text);
    tern_pool_free(&pool);
}
