/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VPDPBUSD as a statement: unsigned times signed bytes, four products added to each 32-bit lane of a sum.
 *
 * Included after kernels_avx512.h.
 */
#ifndef TERN_KERNELS_AVX512_DOT_H
#define TERN_KERNELS_AVX512_DOT_H

#include "kernels/kernels.h"

#ifdef TERN_HAVE_LANES

/* sum += w * x.  The empty statement keeps each sum in one register: without it gcc 12 lets sums wander and
 * spends a third of a loop's instructions on moves. */
#ifdef TERN_SIMDE
#define DOT(sum, w, x) ((sum) = _mm512_dpbusd_epi32(sum, w, x))
#else
#define DOT(sum, w, x)                                                                                       \
    do {                                                                                                     \
        (sum) = _mm512_dpbusd_epi32(sum, w, x);                                                              \
        __asm__("" : "+v"(sum));                                                                             \
    } while (0)
#endif

#endif
#endif
