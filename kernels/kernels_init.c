/* SPDX-License-Identifier: Apache-2.0 */
/* The staircase: the reference first, then one level after another, each improving what it can. */
#include "kernels/kernels_impl.h"

void tern_kernels_init(struct tern_kernels *k, enum tern_cpu_level level)
{
    tern_kernels_init_ref(k);
    k->level = TERN_CPU_REF;

    if (level < TERN_CPU_AVX2 || !tern_kernels_init_avx2(k))
        return;
    k->level = TERN_CPU_AVX2;

    if (level < TERN_CPU_AVX512 || !tern_kernels_init_avx512(k))
        return;
    k->level = TERN_CPU_AVX512;
}
