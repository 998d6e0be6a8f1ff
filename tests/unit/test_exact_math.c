/* SPDX-License-Identifier: Apache-2.0 */
/* The elementary functions against libm, in the limits that exact_math.h states. */
#include "kernels/exact_math.h"
#include "unit/kernel_inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void exact_math(void **unused)
{
    (void)unused;
    double worst = 0;
    for (double x = -87.3; x <= 88.0; x += 0.000917) {
        double want = exp((double)(float)x);
        worst = fmax(worst, fabs((double)tern_expf((float)x) - want) / want);
    }
    assert_true(worst < 2e-7);
    assert_true(tern_expf(0.0f) == 1.0f && tern_expf(-88.0f) == 0.0f && tern_expf(-INFINITY) == 0.0f);
    assert_true(tern_expf(89.0f) == INFINITY && isnan(tern_expf(NAN)));
    worst = 0;
    for (double x = -700; x < 700; x += 0.0137)
        worst = fmax(worst, fabs(tern_exp(x) / exp(x) - 1));
    assert_true(worst < 1e-15);
    assert_true(tern_exp(-800) == 0.0 && tern_exp(800) == INFINITY && isnan(tern_exp(NAN)) &&
                tern_exp(0) == 1.0);
    worst = 0;
    for (int e = -1022; e < 1024; e += 3) {
        for (int i = 0; i < 40; i++) {
            double x = ldexp(1.0 + (double)(rnd() % 1000000) / 1e6, e), want = log(x);
            worst = fmax(worst, fabs(tern_ln(x) - want) / fabs(want));
        }
    }
    for (double x = 0.7; x < 1.5; x += 1.37e-5)
        worst = fmax(worst, fabs(tern_ln(x) - log(x)) / fabs(log(x)));
    assert_true(worst < 1e-15);
    assert_true(tern_ln(1.0) == 0.0 && tern_ln(0.0) == -INFINITY && isnan(tern_ln(-1.0)));
    assert_true(isnan(tern_ln(NAN)) && tern_ln(INFINITY) == INFINITY);
    worst = 0;
    for (int i = 0; i < 20000; i++) {
        double b = exp(40.0 * (double)unit()), p = 15.0 * (double)unit(), want = (double)powl(b, p);
        worst = fmax(worst, fabs(tern_pow(b, p) / want - 1));
    }
    assert_true(worst < 1e-15);
    assert_true(tern_pow(500000.0, 0.0) == 1.0 && isnan(tern_pow(-1.0, 0.5)) && isnan(tern_pow(2.0, NAN)));
}

static void sines(void **unused)
{
    (void)unused;
    double worst = 0;
    for (int i = 0; i < 200000; i++) {
        double x = ldexp((double)unit(), (int)(rnd() % 31)), s, c;
        tern_sincos(x, &s, &c);
        worst = fmax(worst, fabs((double)(s - sinl(x)) / (double)sinl(x)));
        worst = fmax(worst, fabs((double)(c - cosl(x)) / (double)cosl(x)));
    }
    /* Beside multiples of pi/2, where almost everything cancels. */
    for (int n = 1; n < 200000; n += 7) {
        double x = n * 1.5707963267948966, s, c;
        tern_sincos(x, &s, &c);
        worst = fmax(worst, fabs((double)(s - sinl(x)) / (double)sinl(x)));
        worst = fmax(worst, fabs((double)(c - cosl(x)) / (double)cosl(x)));
    }
    assert_true(worst < 1e-15);
    double s = 5, c = 5;
    tern_sincos(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
    const double outside[] = { INFINITY, -INFINITY, NAN, 1e300, 0x1p30 };
    for (size_t i = 0; i < 5; i++) {
        tern_sincos(outside[i], &s, &c);
        assert_true(isnan(s) && isnan(c));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_math),
        cmocka_unit_test(sines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
