/* SPDX-License-Identifier: Apache-2.0 */
/* RoPE in config.json: see hf_rope.h. */
#include "engine/hf_rope.h"

#include "engine/hf_json.h"
#include "kernels/exact_math.h"

#include <stdio.h>
#include <string.h>

#define TWO_PI 6.283185307179586

struct reading {
    const char *file;
    const json_t *root;
    struct tern_hf_config *c;
    struct tern_err *err;
};

/* A number above 0; the fallback when it is absent, which may be 0 for none. */
static double positive(const json_t *object, const char *key, double fallback)
{
    const json_t *v = tern_hf_json_get(object, key);
    double d = json_number_value(v);

    return !v ? fallback : d > 0 && d <= 1e12 ? d : -1;
}

static enum tern_status read_llama3(const struct reading *r, const json_t *scaling, double factor)
{
    struct tern_hf_rope_factors f = {
        .factor = factor,
        .low = positive(scaling, "low_freq_factor", -1),
        .high = positive(scaling, "high_freq_factor", -1),
        .n_original = positive(scaling, "original_max_position_embeddings", -1),
    };

    if (f.factor < 1 || f.low < 0 || f.high <= f.low || f.n_original < 0)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT,
                         "%s: the RoPE scaling 'llama3' lacks a number, or has one that makes no sense",
                         r->file);
    r->c->rope = f;
    return TERN_OK;
}

/* scaling: an object with type and factor, or NULL. */
static enum tern_status read_scaling(const struct reading *r, const json_t *scaling)
{
    const char *type = tern_hf_json_text(scaling, "rope_type");
    double factor = positive(scaling, "factor", 1);

    if (!type)
        type = tern_hf_json_text(scaling, "type");
    if (!type)
        type = factor == 1 ? "default" : "linear";
    if (strcmp(type, "llama3") == 0)
        return read_llama3(r, scaling, factor);
    if (strcmp(type, "default") == 0 || (strcmp(type, "linear") == 0 && factor == 1))
        return TERN_OK;
    return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                     "%s: RoPE scaling '%.40s' with factor %g is not supported; none and llama3 are", r->file,
                     type, factor);
}

/* layer_types: a name for each layer. */
static enum tern_status read_types(const struct reading *r, const json_t *types)
{
    if (json_array_size(types) != r->c->n_layers)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: 'layer_types' is not a list of %u names, one a layer",
                         r->file, r->c->n_layers);
    for (uint32_t l = 0; l < r->c->n_layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));

        if (type && strcmp(type, "sliding_attention") == 0)
            tern_swa_set(&r->c->swa, l);
        else if (!type || strcmp(type, "full_attention") != 0)
            return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                             "%s: layer %u has attention of type '%.40s'; Tern knows full_attention and "
                             "sliding_attention",
                             r->file, (unsigned)l, type ? type : "");
    }
    return TERN_OK;
}

/* A whole number; the fallback when it is absent. */
static enum tern_status whole(const struct reading *r, const char *key, uint64_t fallback, uint64_t *out)
{
    const json_t *v = tern_hf_json_get(r->root, key);

    *out = fallback;
    if (v && !tern_hf_json_whole(v, UINT32_MAX, out))
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: '%s' is not a whole number", r->file, key);
    return TERN_OK;
}

/* What slides where there is no list: of Gemma all layers but every so many; of others, if asked for, those
 * from one on. */
static enum tern_status read_pattern(const struct reading *r)
{
    const char *key = "sliding_window_pattern";
    struct tern_hf_config *c = r->c;
    uint64_t n;
    enum tern_status st = TERN_OK;

    if (c->family == TERN_HF_GEMMA3) {
        key = tern_hf_json_get(r->root, key) ? key : "_sliding_window_pattern";
        st = whole(r, key, 6, &n);
        if (!st)
            tern_swa_set_pattern(&c->swa, c->n_layers, n > c->n_layers ? 0 : (uint32_t)n);
    } else if (tern_hf_json_is_true(r->root, "use_sliding_window")) {
        st = whole(r, "max_window_layers", c->family == TERN_HF_QWEN3 ? 28 : 0, &n);
        for (uint64_t l = st ? c->n_layers : n; l < c->n_layers; l++)
            tern_swa_set(&c->swa, (uint32_t)l);
    }
    return st;
}

/* The window, and which layers slide; *n_sliding: how many. */
static enum tern_status read_window(const struct reading *r, uint32_t *n_sliding)
{
    const json_t *window = tern_hf_json_get(r->root, "sliding_window");
    const json_t *types = tern_hf_json_get(r->root, "layer_types");
    struct tern_swa *swa = &r->c->swa;
    uint64_t v = 0;
    enum tern_status st = TERN_OK;

    if (types)
        st = read_types(r, types);
    else if (window)
        st = read_pattern(r);
    *n_sliding = 0;
    for (uint32_t l = 0; l < r->c->n_layers; l++)
        *n_sliding += tern_swa_slides(swa, l);
    if (st || *n_sliding == 0)
        return st;
    if (!tern_hf_json_whole(window, UINT32_MAX, &v) || v == 0)
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: 'sliding_window' is not a positive whole number",
                         r->file);
    swa->window = v < TERN_MAX_CONTEXT ? (uint32_t)v : TERN_MAX_CONTEXT;
    return TERN_OK;
}

/* Gemma's layers that slide have a base of their own. */
static enum tern_status read_bases(const struct reading *r, const json_t *full, const json_t *sliding,
                                   uint32_t n_sliding)
{
    struct tern_hf_config *c = r->c;
    double base = positive(full, "rope_theta", positive(r->root, "rope_theta", 0)), local = base;

    if (c->family == TERN_HF_GEMMA3)
        local = positive(r->root, "rope_local_base_freq", full == sliding ? 10000 : base);
    if (full != sliding)
        local = positive(sliding, "rope_theta", local);
    if ((n_sliding < c->n_layers && base <= 0) || (n_sliding && local <= 0))
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: 'rope_theta' is missing or no positive number",
                         r->file);
    c->rope_theta = n_sliding < c->n_layers ? base : local;
    c->swa.rope_theta = n_sliding ? local : 0;
    return TERN_OK;
}

enum tern_status tern_hf_read_rope(const char *file, const json_t *config, struct tern_hf_config *c,
                                   struct tern_err *err)
{
    const struct reading r = { .file = file, .root = config, .c = c, .err = err };
    const json_t *full = tern_hf_json_get(config, "rope_parameters"), *sliding;
    uint32_t n_sliding;
    enum tern_status st;

    if (!full)
        full = tern_hf_json_get(config, "rope_scaling");
    sliding = full;
    if (tern_hf_json_get(full, "full_attention") || tern_hf_json_get(full, "sliding_attention")) {
        sliding = tern_hf_json_get(full, "sliding_attention");
        full = tern_hf_json_get(full, "full_attention");
    }
    st = read_window(&r, &n_sliding);
    if (!st)
        st = read_bases(&r, full, sliding, n_sliding);
    if (!st && n_sliding < c->n_layers)
        st = read_scaling(&r, full);
    if (!st && n_sliding && (sliding != full || n_sliding == c->n_layers))
        st = read_scaling(&r, sliding);
    /* Factors are for all layers, and Gemma's rope_scaling for those that do not slide. */
    if (!st && c->rope.factor > 0 && n_sliding && n_sliding < c->n_layers &&
        (sliding != full || c->family == TERN_HF_GEMMA3))
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: RoPE scaling 'llama3' is not supported in models of which some layers slide",
                         file);
    return st;
}

/* Long waves are slowed down by the factor, short ones not at all, those between by something between. */
void tern_hf_rope_factors(const struct tern_hf_config *c, float *out)
{
    const struct tern_hf_rope_factors *f = &c->rope;

    for (uint32_t j = 0; j < c->head_dim / 2; j++) {
        double freq = tern_pow(c->rope_theta, -2.0 * (double)j / (double)c->head_dim);
        double turns = f->n_original * freq / TWO_PI; /* in the original context */
        double smooth = (turns - f->low) / (f->high - f->low);

        if (turns > f->high)
            out[j] = 1.0f;
        else if (turns < f->low)
            out[j] = (float)f->factor;
        else
            out[j] = (float)(1.0 / ((1.0 - smooth) / f->factor + smooth));
    }
}
