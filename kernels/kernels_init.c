/* SPDX-License-Identifier: Apache-2.0 */
/* The staircase: the reference first, then one level after another, each improving what it can. */
#include "kernels/kernels_impl.h"

/* False when this build does not contain the level. */
static bool init_level(struct tern_kernels *k, enum tern_cpu_level level)
{
    switch (level) {
    case TERN_CPU_REF: tern_kernels_init_ref(k); return true;
    case TERN_CPU_AVX2: return tern_kernels_init_avx2(k);
    case TERN_CPU_AVXVNNI: return tern_kernels_init_avxvnni(k);
    case TERN_CPU_AVX512: return tern_kernels_init_avx512(k);
    case TERN_CPU_AVX512VBMI: return tern_kernels_init_avx512vbmi(k);
    case TERN_CPU_NEON: return tern_kernels_init_neon(k);
    case TERN_CPU_DOTPROD: return tern_kernels_init_dotprod(k);
    case TERN_CPU_I8MM: return tern_kernels_init_i8mm(k);
    default: return false;
    }
}

void tern_kernels_init(struct tern_kernels *k, enum tern_cpu_level level)
{
    if (level != TERN_CPU_REF)
        tern_kernels_init(k, tern_cpu_below(level));
    if (init_level(k, level))
        k->level = level;
}
