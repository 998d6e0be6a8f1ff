/* SPDX-License-Identifier: Apache-2.0 */
/* Scales before they were rounded: see exact_scale.h. */
#include "engine/exact_scale.h"

#include "kernels/kernels_scalar.h"
#include "kernels/pack.h"

#include <math.h>
#include <string.h>

bool tern_exact_scale_type(uint32_t type)
{
    return type == TERN_TYPE_TQ1_0 || type == TERN_TYPE_TQ2_0 || type == TERN_F16;
}

float tern_exact_scale_noted(const struct tern_gguf *g, const struct tern_tensor *t)
{
    const struct tern_gguf_kv *kv;
    float scale;

    if (!tern_exact_scale_type(t->type) || t < g->tensors || t >= g->tensors + g->n_tensors)
        return 0;
    kv = tern_gguf_find(g, TERN_EXACT_SCALE_KEY);
    if (!kv || kv->type != TERN_GGUF_ARRAY || kv->elem_type != TERN_GGUF_F32 || kv->n != g->n_tensors)
        return 0;
    memcpy(&scale, kv->data + (size_t)(t - g->tensors) * sizeof scale, sizeof scale);
    return isfinite(scale) && scale > 0 ? scale : 0;
}

float tern_exact_scale(const struct tern_gguf *g, const struct tern_tensor *t, float found)
{
    float noted = tern_exact_scale_noted(g, t);

    return noted > 0 && f32_from_f16(f16_from_f32(noted)) == found ? noted : found;
}
