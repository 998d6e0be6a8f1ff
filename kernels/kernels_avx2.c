/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 level (AVX2, FMA, F16C): the ternary products; the float ops are those of kernels_lanes.h.
 */
#include "kernels/kernels_avx2.h"
#include "kernels/kernels_avx2_probe.h"
#include "kernels/kernels_impl.h"
#include "kernels/kernels_lanes.h"
#include "kernels/kernels_lanes_attend.h"
#include "kernels/kernels_lanes_largest.h"
#include "kernels/kernels_lanes_matvec.h"

#ifdef TERN_HAVE_LANES

/* Running sums of 16 bits: VPMADDUBSW saturates at no sum of two products of a ternary code. */
INLINE __m256i dot4(__m256i sum, __m256i code, __m256i q)
{
    return dot_16bit(sum, code, q);
}

INLINE __m256i add_sums(__m256i a, __m256i b)
{
    return _mm256_add_epi16(a, b);
}

INLINE __m256i quarter(__m256i sum)
{
    return _mm256_srai_epi16(sum, 2);
}

INLINE __m256i widen(__m256i dot, __m256i sum)
{
    return widen_16bit(dot, sum);
}

/* 64 times two products, 2 * 2 * 127 = 508, are at most 32512. */
#define MAX_STEPS 64
#include "kernels/kernels_x256_ternary.h"

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    init_rows(k);
    init_attend(k);
    init_largest(k);
    init_matvec(k);
    k->ternary[TERN_TILES_2BIT] = ternary_2bit;
    k->ternary[TERN_TILES_5TRIT] = ternary_5trit;
    k->probe_read = probe_read;
    k->probe_dot = probe_dot;
    k->probe_dot_macs = PROBE_CHAINS * 32;
    return true;
}

#else

bool tern_kernels_init_avx2(struct tern_kernels *k)
{
    (void)k;
    return false;
}

#endif
