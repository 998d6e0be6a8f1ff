/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command line is answered with that has an option mistyped, or one of another program.
 */
#include "unit/unit.h"

#include "engine/option_next.h"

#include <limits.h>
#include <string.h>

static const struct option longs[] = {
    { "model", required_argument, NULL, 'm' },
    { "api-key-file", required_argument, NULL, 1001 },
    { "top-k", required_argument, NULL, 1002 },
    { "top-p", required_argument, NULL, 1003 },
    { "context-shift", no_argument, NULL, 1004 },
    { "quiet", no_argument, NULL, 'q' },
    { "json", no_argument, NULL, 1005 },
    { "n-predict", required_argument, NULL, 'n' },
    { NULL, 0, NULL, 0 },
};

static const struct tern_option_habit habits[] = {
    { "-ngl --gpu-layers", NULL, "leave it out" },
    { "-np -b", "serve chat", "write --parallel N" },
    { "--api-key", NULL, "put it into a file" },
    { "--json", NULL, "never said: the command has it" },
};

static struct tern_option_table table = { .program = "tern",
                                          .command = "serve",
                                          .shorts = ":m:n:q",
                                          .longs = longs,
                                          .habits = habits,
                                          .n_habits = sizeof habits / sizeof habits[0] };

/* Options of these words until one is wrong or there are no more; what was last returned.  words end with
 * NULL. */
static int take(const char *const *words, int *n_taken)
{
    char *argv[16] = { "serve" };
    int n = 1, c, taken = 0;

    for (; *words; words++)
        argv[n++] = (char *)(uintptr_t)*words;
    optind = 0; /* for glibc: also forget what is left of a word that was not read to its end */
    strcpy(unit_err.text, "untouched");
    while ((c = tern_option_next(n, argv, &table, NULL, &unit_err)) != -1 && c != '?')
        taken++;
    if (n_taken)
        *n_taken = taken;
    return c;
}
#define TAKE(...) take((const char *const[]){ __VA_ARGS__, NULL }, &taken)

static void test_good(void **state)
{
    int taken = 0;

    (void)state;
    assert_int_equal(TAKE("-q", "--model", "-np", "--top-k=3", "word", "--context", "-n4", "-qm", "x"), -1);
    assert_int_equal(taken, 7);
    assert_string_equal(unit_err.text, "untouched");
    /* behind -- there are no options; a value is none either */
    assert_int_equal(TAKE("-m", "--api-key", "--", "-ngl", "--nonsense"), -1);
    assert_int_equal(taken, 1);
    assert_int_equal(TAKE("--json"), -1); /* its own, whatever another program calls it */
    assert_int_equal(taken, 1);
}

static void test_wrong(void **state)
{
    static const struct {
        const char *word, *says;
    } cases[] = {
        { "-ngl", "-ngl: leave it out" },
        { "--gpu-layers=99", "--gpu-layers: leave it out" },
        { "-np", "-np: write --parallel N" },
        { "-b", "-b: write --parallel N" },
        { "--api-key", "--api-key: put it into a file" },
        { "--api-key=secret", "--api-key: put it into a file" },
        { "-model", "-model: write it with two dashes, --model" },
        { "--modle", "there is no option --modle; did you mean --model? (tern serve --help)" },
        { "--n_predict", "there is no option --n_predict; did you mean --n-predict? (tern serve --help)" },
        { "--contxt-shift",
          "there is no option --contxt-shift; did you mean --context-shift? (tern serve --help)" },
        { "--shift", "there is no option --shift; did you mean --context-shift? (tern serve --help)" },
        { "--no-such-option", "there is no option --no-such-option; see tern serve --help" },
        { "--to", "--to may mean --top-k or --top-p; write it in full (tern serve --help)" },
        { "--quiet=yes", "--quiet takes no value; leave out what stands behind it (tern serve --help)" },
        { "-x", "there is no option -x; see tern serve --help" },
        { "-qx", "there is no option -x; see tern serve --help" },
        { "-m", "-m needs a value; see tern serve --help" },
        { "-qn", "-n needs a value; see tern serve --help" },
        { "--top-k", "--top-k needs a value; see tern serve --help" },
        { "-\x1b[31m", "there is no option -?; see tern serve --help" },
        { "--=", "there is no option --; see tern serve --help" },
    };
    int taken;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(TAKE("word", cases[i].word), '?');
        assert_string_equal(unit_err.text, cases[i].says);
        assert_int_equal(unit_err.status, TERN_ERR_USAGE);
    }
}

/* What a key was is never said again, and long words do not run away. */
static void test_long_words(void **state)
{
    char word[600];
    int taken;

    (void)state;
    memset(word, 'a', sizeof word);
    memcpy(word, "--", 2);
    word[sizeof word - 1] = '\0';
    assert_int_equal(TAKE(word), '?');
    assert_true(strlen(unit_err.text) < 120);
    assert_int_equal(TAKE("--api-key=secret"), '?');
    assert_null(strstr(unit_err.text, "secret"));
}

static void test_other_commands(void **state)
{
    int taken;

    (void)state;
    table.command = "status";
    assert_int_equal(TAKE("-b"), '?');
    assert_string_equal(unit_err.text, "there is no option -b; see tern status --help");
    table.program = "ternd";
    table.command = NULL;
    assert_int_equal(TAKE("-b"), '?');
    assert_string_equal(unit_err.text, "there is no option -b; see ternd --help");
    assert_int_equal(TAKE("-ngl"), '?');
    assert_string_equal(unit_err.text, "-ngl: leave it out");
    table.program = "tern";
    table.command = "serve";
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(tern_option_distance("serve", "serve"), 0);
    assert_int_equal(tern_option_distance("serev", "serve"), 1);
    assert_int_equal(tern_option_distance("Ctx_Size", "ctx-size"), 0);
    assert_int_equal(tern_option_distance("inspct", "inspect"), 1);
    assert_int_equal(tern_option_distance("inspects", "inspect"), 1);
    assert_int_equal(tern_option_distance("run", "top"), UINT_MAX);
    assert_int_equal(tern_option_distance("", "a"), UINT_MAX);
    assert_int_equal(tern_option_distance("ab", "ba"), UINT_MAX); /* half of a word is too much */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_long_words), cmocka_unit_test(test_other_commands),
        cmocka_unit_test(test_distance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
