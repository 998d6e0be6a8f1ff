/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of architectures: the only place that says what one is made of.
 */
#include "engine/arch.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct tern_arch_family families[] = {
    { "bitnet-b1.58", "bitnet-25", TERN_RELU2, TERN_ROPE_NEOX, TERN_SUB_NORMS, 0, false, 0, 0, 0, 0 },
    { "bitnet",       NULL,        TERN_SILU,  TERN_ROPE_NEOX, TERN_SUB_NORMS, 0, false, 0, 0, 0, 0 },
    { "llama",        NULL,        TERN_SILU,  TERN_ROPE_NORM, 0, 0, false, 0, 0, 0, 0 },
    { "qwen3",        NULL,        TERN_SILU,  TERN_ROPE_NEOX, TERN_QK_NORMS, TERN_INPUT_NORMS, false,
      0, 0, 0, 0 },
    { "gemma3",       NULL,        TERN_GELU,  TERN_ROPE_NEOX, TERN_QK_NORMS | TERN_POST_NORMS,
      TERN_INPUT_NORMS, true, 6, 10000, 512, 1e6 },
};
/* clang-format on */

#define N_FAMILIES (sizeof families / sizeof families[0])

const struct tern_arch_family *tern_arch_family_find(struct tern_str name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (tern_str_is(name, families[i].name) ||
            (families[i].alias && tern_str_is(name, families[i].alias)))
            return &families[i];
    return NULL;
}

void tern_arch_family_names(char *out, size_t cap)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < N_FAMILIES && used < cap; i++) {
        const struct tern_arch_family *f = &families[i];

        used += (size_t)snprintf(out + used, cap - used, "%s%s%s%s%s",
                                 i == 0               ? ""
                                 : i + 1 < N_FAMILIES ? ", "
                                                      : " and ",
                                 f->name, f->alias ? " (also called " : "", f->alias ? f->alias : "",
                                 f->alias ? ")" : "");
    }
}

const char *tern_activation_name(enum tern_activation a)
{
    static const char *const names[] = { [TERN_RELU2] = "relu2", [TERN_SILU] = "silu", [TERN_GELU] = "gelu" };

    return names[a];
}

const char *tern_rope_name(enum tern_rope r)
{
    return r == TERN_ROPE_NEOX ? "neox" : "norm";
}
