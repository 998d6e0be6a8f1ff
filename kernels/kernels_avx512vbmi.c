/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 VBMI level: five trits a byte, taken apart by one permutation of bytes.
 */
#include "kernels/kernels_avx512.h"
#include "kernels/kernels_avx512_tiles.h"
#include "kernels/kernels_impl.h"

#ifdef TERN_HAVE_LANES

TERNARY(ternary_5trit, TRITS_PERMUTE)

bool tern_kernels_init_avx512vbmi(struct tern_kernels *k)
{
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    return true;
}

#else

bool tern_kernels_init_avx512vbmi(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
