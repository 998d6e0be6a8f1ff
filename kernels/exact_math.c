/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementary functions from add, multiply, divide and fmaf alone.
 *
 * The double functions use no FMA: sums and products whose rounding error matters are carried as an
 * unevaluated sum of two doubles (T. J. Dekker, "A floating-point technique for extending the available
 * precision", 1971).  Series are Taylor's: on the reduced ranges used here the first term left out is below
 * 2^-56 of the result.
 */
#include "kernels/exact_math.h"

#include "kernels/exact_math_poly.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 1.5 * 2^52: adding it rounds to the nearest integer. */
#define ROUND_MAGIC 6755399441055744.0

/* log(2) in 21 + 53 bits: n * LN2_HI is exact for |n| < 2^32. */
#define LN2_HI 0x1.62e42p-1
#define LN2_LO 0x1.fdf473de6af28p-22
#define LOG2E  0x1.71547652b82fep+0

/* pi/2 in four parts of 23 bits, so that n times a part is exact for |n| < 2^30, and a last one of 53. */
static const double pio2[5] = { 0x1.921fb4p+0, 0x1.4442dp-24, 0x1.846988p-48, 0x1.8cc514p-72,
                                0x1.80dc1cd129025p-95 };
#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define SINCOS_MAX  1073741824.0

struct dd {
    double hi, lo;
};

static struct dd two_sum(double a, double b)
{
    double s = a + b;
    double t = s - a;
    return (struct dd){ s, (a - (s - t)) + (b - t) };
}

/* The two halves of a double, 26 bits each. */
static struct dd split(double a)
{
    double c = 134217729.0 * a;
    double hi = c - (c - a);
    return (struct dd){ hi, a - hi };
}

static struct dd two_prod(double a, double b)
{
    double p = a * b;
    struct dd x = split(a), y = split(b);
    return (struct dd){ p, ((x.hi * y.hi - p) + x.hi * y.lo + x.lo * y.hi) + x.lo * y.lo };
}

static double from_bits(uint64_t u)
{
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

static uint64_t to_bits(double d)
{
    uint64_t u;
    memcpy(&u, &d, sizeof u);
    return u;
}

/* 2^n for -1022 <= n <= 1023. */
static double pow2i(int n)
{
    return from_bits((uint64_t)(n + 1023) << 52);
}

/* c[0] + x (c[1] + x (c[2] + ...)) */
static double horner(const double *c, size_t n, double x)
{
    double y = c[n - 1];
    for (size_t i = n - 1; i-- > 0;)
        y = y * x + c[i];
    return y;
}

float tern_expf(float x)
{
    if (x < EXPF_MIN)
        return 0.0f;
    if (x > EXPF_MAX)
        return INFINITY;
    float t = fmaf(x, EXPF_LOG2E, EXPF_MAGIC);
    float n = t - EXPF_MAGIC;
    float r = fmaf(n, -EXPF_LN2_HI, x);
    r = fmaf(n, -EXPF_LN2_LO, r);
    float g = fmaf(EXPF_G4, r, EXPF_G3);
    g = fmaf(g, r, EXPF_G2);
    g = fmaf(g, r, EXPF_G1);
    g = fmaf(g, r, EXPF_G0);
    float y = 1.0f + fmaf(g, r * r, r);
    uint32_t u;
    memcpy(&u, &t, sizeof u);
    u = (u - (uint32_t)EXPF_MAGIC_BITS + 127u) << 23;
    float scale;
    memcpy(&scale, &u, sizeof scale);
    return y * scale;
}

double tern_exp(double x)
{
    /* 1/2! .. 1/14! */
    static const double c[] = { 1.0 / 2,
                                1.0 / 6,
                                1.0 / 24,
                                1.0 / 120,
                                1.0 / 720,
                                1.0 / 5040,
                                1.0 / 40320,
                                1.0 / 362880,
                                1.0 / 3628800.0,
                                1.0 / 39916800.0,
                                1.0 / 479001600.0,
                                1.0 / 6227020800.0,
                                1.0 / 87178291200.0 };
    if (!(x == x))
        return x;
    if (x > 709.782712893384)
        return INFINITY;
    if (x < -745.2)
        return 0.0;
    double n = (x * LOG2E + ROUND_MAGIC) - ROUND_MAGIC;
    double r = (x - n * LN2_HI) - n * LN2_LO;
    double y = 1.0 + (r + r * r * horner(c, sizeof c / sizeof c[0], r));
    int k = (int)n;
    /* In two steps, since 2^k itself may lie outside the normal range. */
    return y * pow2i(k / 2) * pow2i(k - k / 2);
}

/* log(x) as hi + lo for finite x > 0.  With x = 2^e m, m in [sqrt(1/2), sqrt(2)), f = m - 1, s = f / (2 + f):
 * log(m) = 2 s + 2 s^3 (1/3 + s^2 / 5 + s^4 / 7 + ...). */
static struct dd log_dd(double x)
{
    static const double c[] = { 1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                                1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23 };
    int e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t u = to_bits(x);
    e += (int)(u >> 52) - 1023;
    double m = from_bits((u & 0xfffffffffffffu) | 0x3ff0000000000000u);
    if (m >= 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        e++;
    }
    double f = m - 1.0;
    struct dd d = two_sum(2.0, f);
    double s = f / d.hi;
    struct dd p = two_prod(s, d.hi);
    double s_lo = (((f - p.hi) - p.lo) - s * d.lo) / d.hi;
    double z = s * s;
    double tail = 2.0 * (s_lo + s * z * horner(c, sizeof c / sizeof c[0], z));
    struct dd a = two_sum((double)e * LN2_HI, 2.0 * s);
    return two_sum(a.hi, a.lo + (tail + (double)e * LN2_LO));
}

double tern_ln(double x)
{
    if (!(x == x) || x < 0.0)
        return from_bits(0x7ff8000000000000u);
    if (x == 0.0)
        return -INFINITY;
    if (x == INFINITY)
        return x;
    return log_dd(x).hi;
}

double tern_pow(double base, double exponent)
{
    if (!(base > 0.0) || base == INFINITY || !(exponent - exponent == 0.0))
        return exponent == 0.0 ? 1.0 : from_bits(0x7ff8000000000000u);
    struct dd l = log_dd(base);
    double p_hi = exponent * l.hi;
    /* Outside this range the result is 0 or infinity whatever its last bits; and the split cannot overflow
     * inside. */
    if (!(p_hi > -750.0 && p_hi < 710.0))
        return p_hi > 0.0 ? INFINITY : 0.0;
    if (exponent > 0x1p900 || exponent < -0x1p900)
        return tern_exp(p_hi);
    struct dd p = two_prod(exponent, l.hi);
    double y = tern_exp(p.hi);
    return y == INFINITY ? y : y + y * (p.lo + exponent * l.lo);
}

/* sin and cos of r = hi + lo, |r| <= pi/4. */
static void sincos_small(struct dd r, double *sin, double *cos)
{
    /* -1/3!, 1/5!, ...  and  1/4!, -1/6!, ... */
    static const double sc[] = { -1.0 / 6,
                                 1.0 / 120,
                                 -1.0 / 5040,
                                 1.0 / 362880,
                                 -1.0 / 39916800.0,
                                 1.0 / 6227020800.0,
                                 -1.0 / 1307674368000.0,
                                 1.0 / 355687428096000.0 };
    static const double cc[] = { 1.0 / 24,
                                 -1.0 / 720,
                                 1.0 / 40320,
                                 -1.0 / 3628800,
                                 1.0 / 479001600.0,
                                 -1.0 / 87178291200.0,
                                 1.0 / 20922789888000.0,
                                 -1.0 / 6402373705728000.0 };
    double h = r.hi, z = h * h, half = 0.5 * z;
    *sin = h + (h * z * horner(sc, sizeof sc / sizeof sc[0], z) + r.lo * (1.0 - half));
    double w = 1.0 - half;
    *cos = w + (((1.0 - w) - half) + (z * z * horner(cc, sizeof cc / sizeof cc[0], z) - h * r.lo));
}

void tern_sincos(double x, double *sin, double *cos)
{
    if (!(x < SINCOS_MAX && x > -SINCOS_MAX)) {
        *sin = *cos = from_bits(0x7ff8000000000000u);
        return;
    }
    double n = (x * TWO_OVER_PI + ROUND_MAGIC) - ROUND_MAGIC;
    struct dd r = { x - n * pio2[0], 0.0 };
    for (size_t i = 1; i < 4; i++) {
        struct dd t = two_sum(r.hi, -(n * pio2[i]));
        r.hi = t.hi;
        r.lo += t.lo;
    }
    r = two_sum(r.hi, r.lo - n * pio2[4]);
    double s, c;
    sincos_small(r, &s, &c);
    int64_t quadrant = (int64_t)n & 3;
    double swap = s;
    if (quadrant & 1) {
        s = c;
        c = swap;
    }
    *sin = quadrant & 2 ? -s : s;
    *cos = quadrant == 1 || quadrant == 2 ? -c : c;
}
