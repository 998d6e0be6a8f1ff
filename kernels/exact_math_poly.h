/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants of tern_expf, shared by the scalar definition and the vector levels.
 *
 * e^x = 2^n e^r with n = x log2(e) rounded to nearest even and |r| <= log(2) / 2.  e^r = 1 + (r + r^2 g(r));
 * g is the polynomial of degree 4 that interpolates (e^r - 1 - r) / r^2 in the Chebyshev nodes, its error
 * below 4e-9 of e^r.
 *
 *   t = fma(x, LOG2E, MAGIC);  n = t - MAGIC;  r = fma(n, -LN2_LO, fma(n, -LN2_HI, x))
 *   g = fma(fma(fma(fma(G4, r, G3), r, G2), r, G1), r, G0)
 *   y = (1 + fma(g, r * r, r)) * 2^n
 *
 * then 0 where x < EXPF_MIN and infinity where x > EXPF_MAX.
 *
 * And those of gelu_gate: 2 sqrt(2 / pi), and the share of the cube.
 */
#ifndef TERN_KERNELS_EXACT_MATH_POLY_H
#define TERN_KERNELS_EXACT_MATH_POLY_H

#define EXPF_MIN (-87.3f)
#define EXPF_MAX 88.0f

#define EXPF_LOG2E  0x1.715476p+0f
#define EXPF_LN2_HI 0x1.62e4p-1f /* 14 bits: n * LN2_HI is exact */
#define EXPF_LN2_LO 0x1.7f7d1cp-20f

/* 1.5 * 2^23: adding it leaves the nearest integer (ties to even) in the low bits of the sum. */
#define EXPF_MAGIC      12582912.0f
#define EXPF_MAGIC_BITS 0x4b400000

#define EXPF_G0 0x1p-1f
#define EXPF_G1 0x1.5554dcp-3f
#define EXPF_G2 0x1.55551ap-5f
#define EXPF_G3 0x1.120b6ep-7f
#define EXPF_G4 0x1.6d110ap-10f

#define GELU_SLOPE 1.5957691f
#define GELU_CUBIC 0.044715f

#endif
