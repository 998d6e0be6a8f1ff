/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shapes of published models, and of the sizes that are customary for speed tests.
 *
 * Sources: the models' configuration files; for 125m to 100b the sizes of bitnet.cpp's generator of dummy
 * models (utils/generate-dummy-bitnet-model.py), which have as many KV heads as heads and the vocabulary and
 * architecture of 1bitLLM's models.
 */
#include "engine/synthetic.h"

#include "kernels/kernels.h"

#include <string.h>

struct shape {
    const char *name;
    uint32_t layers, embd, ffn, heads, kv_heads, head_dim, vocab, ctx;
    double theta, eps;
    bool untied;
    const char *arch;
    uint32_t window; /* of layers that slide: all but every sixth, with a base of 10000 */
};

/* clang-format off */
static const struct shape shapes[] = {
    { "2b4t",        30, 2560,  6912, 20,  5, 128, 128256,  4096,  500000, 1e-5, false, "bitnet-b1.58", 0 },
    { "llama3-8b",   32, 4096, 14336, 32,  8, 128, 128256,  8192,  500000, 1e-5, true,  "llama", 0 },
    { "falcon3-1b",  18, 2048,  8192,  8,  4, 256, 131072,  8192, 1000042, 1e-6, true,  "llama", 0 },
    { "falcon3-3b",  22, 3072,  9216, 12,  4, 256, 131072, 32768, 1000042, 1e-6, true,  "llama", 0 },
    { "falcon3-7b",  28, 3072, 23040, 12,  4, 256, 131072, 32768, 1000042, 1e-6, true,  "llama", 0 },
    { "falcon3-10b", 40, 3072, 23040, 12,  4, 256, 131072, 32768, 1000042, 1e-6, true,  "llama", 0 },
    { "falcon-e-1b", 24, 2048,  9216, 16,  2, 128,  32768,  4096, 1000042, 1e-6, true,  "llama", 0 },
    { "falcon-e-3b", 32, 2048, 13312, 16,  2, 128,  32768,  4096, 1000042, 1e-6, true,  "llama", 0 },
    { "large",       24, 1536,  4096, 16, 16,  96,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "3b",          26, 3200,  8640, 32, 32, 100,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "embed-0.6b",  28, 1024,  3072, 16,  8, 128, 151936, 32768, 1000000, 1e-6, false, "qwen3", 0 },
    { "embed-270m",  18,  640,  2048,  4,  1, 256, 262144, 32768, 1000000, 1e-6, false, "gemma3", 512 },
    { "125m",        11,  768,  3072, 12, 12,  64,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "350m",        24, 1024,  3072, 16, 16,  64,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "1b",          24, 2048,  3584, 32, 32,  64,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "1.5b",        28, 1536,  9216, 32, 32,  48,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "2.7b",        24, 3072,  7680, 32, 32,  96,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "3.8b",        24, 3840,  8192, 32, 32, 120,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "7b",          32, 4096, 12032, 32, 32, 128,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "13b",         40, 5120, 13824, 40, 40, 128,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "30b",         60, 6656, 16384, 52, 52, 128,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "70b",         80, 8192, 24576, 64, 64, 128,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
    { "100b",        72, 8192, 45568, 64, 64, 128,  32002,  2048,   10000, 1e-5, false, "bitnet", 0 },
};
/* clang-format on */

#define N_SHAPES (sizeof shapes / sizeof shapes[0])

const char *tern_synthetic_name(size_t i)
{
    return i < N_SHAPES ? shapes[i].name : NULL;
}

bool tern_synthetic_by_name(const char *name, struct tern_synthetic *out)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];

        if (strcmp(s->name, name) != 0)
            continue;
        *out = (struct tern_synthetic){ .name = s->name,
                                        .n_layers = s->layers,
                                        .n_embd = s->embd,
                                        .n_ffn = s->ffn,
                                        .n_heads = s->heads,
                                        .n_kv_heads = s->kv_heads,
                                        .head_dim = s->head_dim,
                                        .n_vocab = s->vocab,
                                        .n_ctx = s->ctx,
                                        .rope_theta = s->theta,
                                        .rms_eps = s->eps,
                                        .untied = s->untied,
                                        .ternary = TERN_TYPE_I2_S,
                                        .layout = TERN_I2S_A,
                                        .embd = TERN_F16,
                                        .norm = TERN_F32,
                                        .seed = 1,
                                        .arch = s->arch };
        if (s->window) {
            out->swa = (struct tern_swa){ .window = s->window, .rope_theta = 10000 };
            tern_swa_set_pattern(&out->swa, TERN_MAX_LAYERS, 6);
        }
        return true;
    }
    return false;
}

uint64_t tern_synthetic_ternary(const struct tern_synthetic *s)
{
    const uint64_t q = (uint64_t)s->n_heads * s->head_dim, kv = (uint64_t)s->n_kv_heads * s->head_dim;

    return s->n_layers * (uint64_t)s->n_embd * (2 * q + 2 * kv + 3 * (uint64_t)s->n_ffn);
}

uint64_t tern_synthetic_embedding(const struct tern_synthetic *s)
{
    return (uint64_t)s->n_vocab * s->n_embd;
}
