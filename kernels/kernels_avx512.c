/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels_impl.h"
bool tern_kernels_init_avx512(struct tern_kernels *k)
{
    (void)k;
    return false;
}
