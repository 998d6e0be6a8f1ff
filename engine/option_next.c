/* SPDX-License-Identifier: Apache-2.0 */
/* The next option, and sentences for those there are not: see option_next.h. */
#include "engine/option_next.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_NAME 40 /* a longer word is no mistyped option */

static int plain(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

unsigned tern_option_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    const size_t most = (n > m ? n : m) / 3;
    unsigned rows[3][LONGEST_NAME + 1]; /* of a[0 .. i), of one and of two letters less */
    unsigned far;

    if (n == 0 || m == 0 || n > LONGEST_NAME || m > LONGEST_NAME)
        return UINT_MAX;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = rows[i % 3], *one = rows[(i + 2) % 3], *two = rows[(i + 1) % 3];

        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = one[j - 1] + (plain(a[i - 1]) != plain(b[j - 1]));

            best = one[j] + 1 < best ? one[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && plain(a[i - 1]) == plain(b[j - 2]) && plain(a[i - 2]) == plain(b[j - 1]) &&
                two[j - 2] + 1 < best)
                best = two[j - 2] + 1;
            now[j] = best;
        }
    }
    far = rows[n % 3][m];
    return far <= most ? far : UINT_MAX;
}

/* Whether `word`, n bytes, is among those of a list with blanks between them. */
static bool listed(const char *list, const char *word, size_t n)
{
    for (const char *p = list; *p;) {
        const size_t len = strcspn(p, " ");

        if (len == n && memcmp(p, word, n) == 0)
            return true;
        p += len + (p[len] == ' ');
    }
    return false;
}

static const struct option *own_long(const struct tern_option_table *t, const char *name, size_t n)
{
    for (const struct option *l = t->longs; l->name; l++)
        if (strlen(l->name) == n && memcmp(l->name, name, n) == 0)
            return l;
    return NULL;
}

/* The advice for a word of another program, without what stands behind its '='. */
static const char *advice_for(const struct tern_option_table *t, const char *word, size_t n)
{
    for (size_t i = 0; i < t->n_habits; i++) {
        const char *of = t->habits[i].commands;

        if (listed(t->habits[i].names, word, n) &&
            (!of || (t->command && listed(of, t->command, strlen(t->command)))))
            return t->habits[i].advice;
    }
    return NULL;
}

/* Part of an option's name, from '-' to '-'. */
static bool part_of(const char *name, const char *part)
{
    const size_t n = strlen(part);

    for (const char *p = name; n > 2 && (p = strstr(p, part)); p++)
        if ((p == name || p[-1] == '-') && (p[n] == '\0' || p[n] == '-'))
            return true;
    return false;
}

/* The option that was meant by `name`, without dashes, or NULL. */
static const char *meant(const struct tern_option_table *t, const char *name)
{
    const char *best = NULL;
    unsigned least = UINT_MAX;

    for (const struct option *l = t->longs; l->name; l++) {
        const unsigned far = tern_option_distance(name, l->name);

        if (far < least) {
            least = far;
            best = l->name;
        }
    }
    for (const struct option *l = t->longs; !best && l->name; l++)
        if (part_of(l->name, name))
            best = l->name;
    return best;
}

#define SEE_BYTES 64

/* "tern serve --help". */
static const char *see_help(const struct tern_option_table *t, char out[static SEE_BYTES])
{
    (void)snprintf(out, SEE_BYTES, "%s%s%.20s --help", t->program, t->command ? " " : "",
                   t->command ? t->command : "");
    return out;
}

/* A long option that is none, that several begin with, or that has a value and takes none. */
static void say_long(const struct tern_option_table *t, const char *word, const char *see,
                     struct tern_err *err)
{
    char name[LONGEST_NAME + 1];
    const size_t n = strcspn(word + 2, "=");
    const char *other, *first = NULL, *second = NULL;

    (void)snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name - 1, word + 2);
    for (const struct option *l = t->longs; l->name; l++) {
        if (strncmp(l->name, word + 2, n) != 0)
            continue;
        second = first ? l->name : NULL;
        first = first ? first : l->name;
        if (second)
            break;
    }
    if (n && second && !own_long(t, word + 2, n))
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "--%s may mean --%s or --%s; write it in full (%s)", name, first,
                        second, see);
    else if (n && first)
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "--%s takes no value; leave out what stands behind it (%s)",
                        first, see);
    else if ((other = meant(t, name)))
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "there is no option --%s; did you mean --%s? (%s)", name, other,
                        see);
    else
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "there is no option --%s; see %s", name, see);
}

static void say(const struct tern_option_table *t, int c, const char *word, struct tern_err *err)
{
    char buf[SEE_BYTES], letter[3];
    const char *advice, *see = see_help(t, buf);

    if (c == ':') {
        if (word[1] == '-')
            (void)TERN_FAIL(err, TERN_ERR_USAGE, "%.60s needs a value; see %s", word, see);
        else
            (void)TERN_FAIL(err, TERN_ERR_USAGE, "-%c needs a value; see %s", optopt, see);
        return;
    }
    if (word[1] == '-') {
        say_long(t, word, see, err);
        return;
    }
    (void)snprintf(letter, sizeof letter, "-%c", optopt);
    if ((advice = advice_for(t, letter, 2)))
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "%s: %s", letter, advice);
    else
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "there is no option %s; see %s", letter, see);
}

/* The word that getopt_long() will look at: it passes over those that are no options.  NULL: none. */
static const char *next_word(int argc, char **argv)
{
    for (int i = optind; i < argc; i++)
        if (argv[i][0] == '-' && argv[i][1])
            return strcmp(argv[i], "--") == 0 ? NULL : argv[i];
    return NULL;
}

/* What getopt_long() would take for something else: "-np 4" for -n p, "-model" for -m odel, "--api-key" for
 * the beginning of --api-key-file. */
static bool taken_wrongly(const struct tern_option_table *t, const char *word, struct tern_err *err)
{
    const size_t n = strcspn(word, "=");
    const bool two = word[1] == '-';
    const char *advice;

    if (n < 3 || (two && own_long(t, word + 2, n - 2)))
        return false;
    if ((advice = advice_for(t, word, n))) {
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "%.*s: %s", (int)n, word, advice);
        return true;
    }
    if (!two && n > 3 && own_long(t, word + 1, n - 1)) {
        (void)TERN_FAIL(err, TERN_ERR_USAGE, "%.*s: write it with two dashes, -%.*s", (int)n, word, (int)n,
                        word);
        return true;
    }
    return false;
}

int tern_option_next(int argc, char **argv, const struct tern_option_table *t, int *at, struct tern_err *err)
{
    const char *word = next_word(argc, argv);
    int c;

    opterr = 0;
    if (word && taken_wrongly(t, word, err))
        return '?';
    c = getopt_long(argc, argv, t->shorts, t->longs, at);
    if (c != '?' && c != ':')
        return c;
    say(t, c, word ? word : "-", err);
    return '?';
}
