/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementary functions with one definition for all machines: libm's differ between CPUs and versions in the
 * last bits.
 *
 * Built from add, multiply, divide, sqrt and fmaf only, in a fixed order, so the same input gives the same
 * bits everywhere.  Thread: any.  No state.
 */
#ifndef TERN_KERNELS_EXACT_MATH_H
#define TERN_KERNELS_EXACT_MATH_H

/* e^x in f32 for x <= 88: relative error below 2e-7; 0 for x < -87.3; infinity for x > 88; NaN for NaN.  The
 * vector levels repeat this sequence of operations bit for bit (its constants are in exact_math_poly.h). */
float tern_expf(float x);

/* Double precision, relative error below 1e-15 over the ranges Tern uses (|x| < 700 for exp, normal positive
 * x for the logarithm, |x| < 2^30 for sin and cos; NaN beyond).  No FMA. */
double tern_exp(double x);
double tern_ln(double x);
double tern_pow(double base, double exponent); /* base > 0 */
void tern_sincos(double x, double *sin, double *cos);

#endif
