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

/* Which kinds of layers there are. */
static void count_layers(const struct reading *r, uint32_t *n_full, uint32_t *n_sliding)
{
    const json_t *types = tern_hf_json_get(r->root, "layer_types");
    uint64_t pattern = r->c->family == TERN_HF_GEMMA3 ? 6 : 0;

    *n_full = *n_sliding = 0;
    if (!tern_hf_json_get(r->root, "sliding_window")) {
        *n_full = r->c->n_layers;
        return;
    }
    if (json_is_array(types)) {
        for (size_t i = 0; i < json_array_size(types); i++) {
            const char *type = json_string_value(json_array_get(types, i));

            *(type && strcmp(type, "sliding_attention") == 0 ? n_sliding : n_full) += 1;
        }
        return;
    }
    if (tern_hf_json_get(r->root, "sliding_window_pattern"))
        (void)tern_hf_json_whole(tern_hf_json_get(r->root, "sliding_window_pattern"), UINT32_MAX, &pattern);
    if (r->c->family == TERN_HF_GEMMA3 && pattern > 0)
        *n_full = r->c->n_layers / (uint32_t)pattern;
    else if (!tern_hf_json_is_true(r->root, "use_sliding_window"))
        *n_full = r->c->n_layers;
    *n_sliding = r->c->n_layers - *n_full;
}

/* Gemma's layers that slide have a base of their own. */
static enum tern_status read_base(const struct reading *r, const json_t *full, const json_t *sliding,
                                  uint32_t n_full, uint32_t n_sliding)
{
    double base = positive(r->root, "rope_theta", 0), local;

    base = positive(full, "rope_theta", base);
    local = base;
    if (r->c->family == TERN_HF_GEMMA3)
        local = positive(r->root, "rope_local_base_freq", full == sliding ? 10000 : base);
    if (full != sliding)
        local = positive(sliding, "rope_theta", local);
    if ((n_full && base <= 0) || (n_sliding && local <= 0))
        return TERN_FAIL(r->err, TERN_ERR_FORMAT, "%s: 'rope_theta' is missing or no positive number",
                         r->file);
    if (n_full && n_sliding && base != local)
        return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                         "%s: RoPE has the base %g in some layers and %g in others; Tern has one for all",
                         r->file, base, local);
    r->c->rope_theta = n_full ? base : local;
    return TERN_OK;
}

enum tern_status tern_hf_read_rope(const char *file, const json_t *config, struct tern_hf_config *c,
                                   struct tern_err *err)
{
    const struct reading r = { .file = file, .root = config, .c = c, .err = err };
    const json_t *full = tern_hf_json_get(config, "rope_parameters"), *sliding;
    uint32_t n_full, n_sliding;
    uint64_t window = 0;
    enum tern_status st;

    if (!full)
        full = tern_hf_json_get(config, "rope_scaling");
    sliding = full;
    if (tern_hf_json_get(full, "full_attention") || tern_hf_json_get(full, "sliding_attention")) {
        sliding = tern_hf_json_get(full, "sliding_attention");
        full = tern_hf_json_get(full, "full_attention");
    }
    count_layers(&r, &n_full, &n_sliding);
    st = read_base(&r, full, sliding, n_full, n_sliding);
    if (!st && n_full)
        st = read_scaling(&r, full);
    if (!st && n_sliding && (sliding != full || !n_full))
        st = read_scaling(&r, sliding);
    if (st || !n_sliding)
        return st;
    if (!tern_hf_json_whole(tern_hf_json_get(config, "sliding_window"), UINT32_MAX, &window) || window == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: 'sliding_window' is not a positive whole number", file);
    c->n_ctx = window < c->n_ctx ? (uint32_t)window : c->n_ctx;
    return TERN_OK;
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
