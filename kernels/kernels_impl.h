/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of kernels/ share: the init function of each level.
 *
 * Each overwrites the ops its level does better and returns true, or returns false when this build does not
 * contain the level (another architecture).  They are called in the order of enum tern_cpu_level.
 */
#ifndef TERN_KERNELS_IMPL_H
#define TERN_KERNELS_IMPL_H

#include "kernels/kernels.h"

void tern_kernels_init_ref(struct tern_kernels *k);
bool tern_kernels_init_avx2(struct tern_kernels *k);
bool tern_kernels_init_avxvnni(struct tern_kernels *k);
bool tern_kernels_init_avx512(struct tern_kernels *k);
bool tern_kernels_init_avx512vbmi(struct tern_kernels *k);
bool tern_kernels_init_neon(struct tern_kernels *k);
bool tern_kernels_init_dotprod(struct tern_kernels *k);
bool tern_kernels_init_i8mm(struct tern_kernels *k);

#endif
