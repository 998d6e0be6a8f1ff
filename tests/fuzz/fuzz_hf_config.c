/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A config.json, and the metadata made of it.
 *
 * Properties: numbers are in their ranges; what is written is a GGUF that has one value for each key and can
 * be read back; factors of RoPE are from 1 to the largest; every refusal has a sentence.
 */
#include "fuzz/fuzz.h"

#include "engine/hf_config.h"
#include "engine/hf_metadata.h"
#include "engine/hf_rope.h"

#include <math.h>
#include <string.h>

static void refused(enum tern_status st, const struct tern_err *err)
{
    FUZZ_CHECK(st >= TERN_ERR_USAGE && err->status == st && err->text[0] && !strchr(err->text, '\n'));
}

static void check_config(const struct tern_hf_config *c)
{
    FUZZ_CHECK(c->n_layers - 1 < TERN_MAX_LAYERS && c->n_embd - 1 < TERN_MAX_EMBD);
    FUZZ_CHECK(c->n_ffn - 1 < TERN_MAX_FFN && c->n_heads - 1 < TERN_MAX_HEADS);
    FUZZ_CHECK(c->n_kv_heads - 1 < TERN_MAX_HEADS && c->head_dim - 1 < TERN_MAX_HEAD_DIM);
    FUZZ_CHECK(c->n_ctx - 1 < TERN_MAX_CONTEXT);
    FUZZ_CHECK(c->rope_theta > 0 && c->rope_theta <= 1e12 && (float)c->rms_eps > 0 && c->rms_eps <= 1);
    FUZZ_CHECK(c->swa.window <= TERN_MAX_CONTEXT && (c->swa.window == 0) == !(c->swa.rope_theta > 0));
    for (uint32_t l = 0; l < TERN_MAX_LAYERS; l++)
        FUZZ_CHECK(!tern_swa_slides(&c->swa, l) || (c->swa.window && l < c->n_layers));
    FUZZ_CHECK(c->arch && (c->may_be_tied || !c->must_be_tied));
}

static void check_factors(const struct tern_hf_config *c)
{
    float f[TERN_MAX_HEAD_DIM / 2];

    if (c->rope.factor == 0)
        return;
    tern_hf_rope_factors(c, f);
    for (uint32_t j = 0; j < c->head_dim / 2; j++)
        FUZZ_CHECK(f[j] >= 1 - 1e-6 && f[j] <= (float)c->rope.factor * (1 + 1e-6));
}

static void write_and_read(const struct tern_hf_config *c)
{
    char *bytes = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&bytes, &n);
    struct tern_gguf_writer *w = NULL;
    struct tern_gguf *g = NULL;
    struct tern_arch a;
    struct tern_err err;
    enum tern_status st;

    FUZZ_CHECK(f && tern_gguf_writer_new(f, "fuzz", 32, &w, &err) == TERN_OK);
    tern_hf_put_config(c, "fuzz", 32, 40, w);
    tern_gguf_begin(w);
    FUZZ_CHECK(tern_gguf_finish(&w, &err) == TERN_OK);
    fclose(f);
    FUZZ_CHECK(tern_gguf_parse("fuzz", bytes, n, &g, &err) == TERN_OK);
    st = tern_arch_read(g, &a, &err);
    if (st) {
        refused(st, &err);
    } else {
        FUZZ_CHECK(a.n_layers == c->n_layers && a.n_embd == c->n_embd && a.n_ffn == c->n_ffn);
        FUZZ_CHECK(a.n_heads == c->n_heads && a.n_kv_heads == c->n_kv_heads && a.head_dim == c->head_dim);
        FUZZ_CHECK(a.rms_eps == (float)c->rms_eps && a.rope_theta == (double)(float)c->rope_theta);
        FUZZ_CHECK(a.swa.window == c->swa.window && a.swa.rope_theta == (double)(float)c->swa.rope_theta);
        FUZZ_CHECK(memcmp(a.swa.layers, c->swa.layers, sizeof a.swa.layers) == 0);
    }
    tern_gguf_close(&g);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tern_hf_config c;
    struct tern_err err;
    enum tern_status st = tern_hf_config_parse("config.json", data, size, &c, &err);

    if (st) {
        refused(st, &err);
        return 0;
    }
    check_config(&c);
    check_factors(&c);
    write_and_read(&c);
    return 0;
}
