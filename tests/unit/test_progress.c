/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line of a progress bar: it fits the terminal, or it could not be drawn over.
 */
#include "unit/unit.h"

#include "coordinator/progress.h"

#include <string.h>

static void is(unsigned cols, const char *what, double percent, double mb, const char *want)
{
    char line[PROGRESS_LINE];

    assert_int_equal(progress_line(line, cols, what, percent, mb), strlen(want));
    assert_string_equal(line, want);
}

static void test_lines(void **state)
{
    (void)state;
    is(80, "writing", 50, 1000, "writing [###############...............]  50 % of 1000 MB");
    is(80, "writing", 100, 7, "writing [##############################] 100 % of 7 MB");
    is(200, "writing", 0, 7, "writing [..............................]   0 % of 7 MB");
    is(40, "writing", 50, 1000, "writing [######......]  50 % of 1000 MB");
    is(32, "writing", 50, 1000, "writing [##..]  50 % of 1000 MB");
    is(31, "writing", 50, 1000, "writing  50 % of 1000 MB");
    is(20, "writing", 50, 1000, "ng  50 % of 1000 MB");
    is(20, "schr\303\266\303\266n", 50, 1000, "n  50 % of 1000 MB");
    is(3, "writing", 50, 1000, "  50 % of 1000 MB");
}

/* Names of any length, on terminals of any width that has room for the figures. */
static void test_fits(void **state)
{
    char name[400], line[PROGRESS_LINE];

    (void)state;
    for (size_t n = 0; n < sizeof name; n++) {
        memset(name, 'n', n);
        name[n] = '\0';
        for (unsigned cols = 22; cols < 400; cols++) {
            const size_t len = progress_line(line, cols, name, 44.4, 4975.2);

            assert_int_equal(len, strlen(line));
            assert_true(len < cols && len < PROGRESS_LINE);
            assert_non_null(strstr(line, " 44 % of 4975 MB"));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lines), cmocka_unit_test(test_fits) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
