/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers slide, as bits and as metadata: see arch.h. */
#include "engine/arch.h"

#include "engine/gguf_write.h"

#include <stdio.h>

void tern_swa_set(struct tern_swa *s, uint32_t layer)
{
    s->layers[layer / 8] = (uint8_t)(s->layers[layer / 8] | 1u << layer % 8);
}

static bool slides_in(uint32_t pattern, uint32_t layer)
{
    return pattern == 0 || layer % pattern != pattern - 1;
}

void tern_swa_set_pattern(struct tern_swa *s, uint32_t n_layers, uint32_t n)
{
    for (uint32_t l = 0; l < n_layers; l++)
        if (slides_in(n, l))
            tern_swa_set(s, l);
}

/* The n that tern_swa_set_pattern makes these layers of; false when there is none. */
static bool find_pattern(const struct tern_swa *s, uint32_t n_layers, uint32_t *out)
{
    uint32_t n = 0;

    while (n < n_layers && tern_swa_slides(s, n))
        n++;
    n = n < n_layers ? n + 1 : 0; /* the first that sees all */
    for (uint32_t l = 0; l < n_layers; l++)
        if (tern_swa_slides(s, l) != slides_in(n, l))
            return false;
    *out = n;
    return true;
}

void tern_swa_put(const struct tern_swa *s, const char *arch, uint32_t n_layers, struct tern_gguf_writer *w)
{
    char key[96];
    uint32_t pattern;

    if (!s->window)
        return;
    snprintf(key, sizeof key, "%s.attention.sliding_window", arch);
    tern_gguf_put_u32(w, key, s->window);
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", arch);
    if (find_pattern(s, n_layers, &pattern)) {
        tern_gguf_put_u32(w, key, pattern);
    } else {
        bool list[TERN_MAX_LAYERS];

        for (uint32_t l = 0; l < n_layers; l++)
            list[l] = tern_swa_slides(s, l);
        tern_gguf_put_bools(w, key, list, n_layers);
    }
    snprintf(key, sizeof key, "%s.rope.freq_base_swa", arch);
    tern_gguf_put_f32(w, key, (float)s->rope_theta);
}
