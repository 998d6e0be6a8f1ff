/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/allow.h"
#include "proto/keys.h"

#include "engine/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

/* Keys whose text is easy to make: any 40 digits of Z85 that fit. */
#define KEY_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define KEY_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char path[64];

static int setup(void **state)
{
    int fd;

    (void)state;
    strcpy(path, "/tmp/tern-allow-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    return close(fd);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static enum tern_status parse(const char *text, size_t len, struct tern_allow_entry **e, size_t *n,
                              struct tern_err *err)
{
    return tern_allow_parse("list", text, len, e, n, err);
}

static void test_parse(void **state)
{
    static const char text[] = "# comment\n\n"
                               "  den coordinator " KEY_A "  \r\n"
                               "\tw-1\tworker\t" KEY_B "\n"
                               "   # another one\n"
                               "caf\xc3\xa9 worker %nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0";
    struct tern_allow_entry *e = NULL;
    struct tern_err err;
    uint8_t key[TERN_KEY_BYTES];
    size_t n = 0;

    (void)state;
    if (parse(text, sizeof text - 1, &e, &n, &err))
        fail_msg("%s", err.text);
    assert_int_equal(n, 3);
    assert_string_equal(e[0].name, "den");
    assert_int_equal(e[0].role, TERN_ROLE_COORDINATOR);
    assert_true(tern_key_from_z85(KEY_A, 40, key));
    assert_memory_equal(e[0].key, key, sizeof key);
    assert_string_equal(e[1].name, "w-1");
    assert_int_equal(e[1].role, TERN_ROLE_WORKER);
    memset(key, 0xff, sizeof key);
    assert_memory_equal(e[2].key, key, sizeof key);
    free(e);
    e = NULL;
    assert_int_equal(parse("", 0, &e, &n, &err), TERN_OK);
    assert_int_equal(n, 0);
    assert_null(e);
}

static void test_parse_refused(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
    } bad[] = {
        { "den", 1 },
        { "den coordinator", 1 },
        { "\n\nden coordinator " KEY_A " more", 3 },
        { "den boss " KEY_A, 1 },
        { "den Coordinator " KEY_A, 1 },
        { "den coordinator aaa", 1 },
        { "den coordinator " KEY_A "a", 1 },
        { "den " KEY_A " coordinator", 1 },
        { "den worker ~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1 },
        { "de\x01n worker " KEY_A, 1 },
        { "d\xff worker " KEY_A, 1 },
        { "a worker " KEY_A "\nb worker " KEY_B "\nc coordinator " KEY_A "\n", 3 },
        { "0123456789012345678901234567890123456789012345678901234567890123 worker " KEY_A, 1 },
    };
    struct tern_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tern_allow_entry *e = NULL;
        char want[32];
        size_t n = 99;

        assert_int_equal(parse(bad[i].text, strlen(bad[i].text), &e, &n, &err), TERN_ERR_FORMAT);
        snprintf(want, sizeof want, "line %u", bad[i].line);
        if (!strstr(err.text, want))
            fail_msg("%zu: '%s' is not in: %s", i, want, err.text);
        assert_int_equal(n, 99);
        assert_null(e);
    }
    {
        static const char zero[] = "de\0n worker " KEY_A;
        struct tern_allow_entry *e;
        size_t n;

        assert_int_equal(parse(zero, sizeof zero - 1, &e, &n, &err), TERN_ERR_FORMAT);
    }
}

static void test_parse_many(void **state)
{
    char *text = malloc(5000 * 64);
    struct tern_allow_entry *e = NULL;
    struct tern_err err;
    size_t len = 0, n = 0;

    (void)state;
    assert_non_null(text);
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t key[TERN_KEY_BYTES] = { (uint8_t)i, (uint8_t)(i >> 8) };
        char z85[TERN_Z85_CHARS + 1];

        tern_key_to_z85(key, z85);
        len += (size_t)sprintf(text + len, "w%u worker %s\n", i, z85);
        if (i == 4095) {
            assert_int_equal(parse(text, len, &e, &n, &err), TERN_OK);
            assert_int_equal(n, 4096);
            free(e);
        }
    }
    assert_int_equal(parse(text, len, &e, &n, &err), TERN_ERR_LIMIT);
    free(text);
}

static void write_list(const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0644), 0);
}

static bool lists(const struct tern_allow *a, const char *z85)
{
    uint8_t key[TERN_KEY_BYTES];

    assert_true(tern_key_from_z85(z85, 40, key));
    return tern_allow_find(a, key) != NULL;
}

static bool refresh(struct tern_allow *a)
{
    bool changed;

    tern_allow_refresh(a, &changed);
    return changed;
}

static void test_refresh(void **state)
{
    struct tern_allow a;
    struct tern_err err;

    (void)state;
    write_list("a worker " KEY_A "\n");
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_OK);
    assert_true(lists(&a, KEY_A) && !lists(&a, KEY_B));
    assert_false(refresh(&a));

    /* Same length, same inode, very likely the same tick of the clock. */
    for (unsigned i = 0; i < 50; i++) {
        write_list("a worker " KEY_B "\n");
        assert_true(refresh(&a));
        assert_true(lists(&a, KEY_B) && !lists(&a, KEY_A));
        write_list("a worker " KEY_A "\n");
        assert_true(refresh(&a));
        assert_false(refresh(&a));
    }
    /* A comment more is no other list. */
    write_list("# hello\na worker " KEY_A "\n");
    assert_false(refresh(&a));
    /* Another role is. */
    write_list("a coordinator " KEY_A "\n");
    assert_true(refresh(&a));
    assert_int_equal(a.entries[0].role, TERN_ROLE_COORDINATOR);

    /* Half understood is not understood: the old list stays. */
    write_list("a coordinator " KEY_A "\nb wor");
    assert_false(refresh(&a));
    assert_false(refresh(&a));
    assert_true(lists(&a, KEY_A) && a.watched.refused);
    write_list("a coordinator " KEY_A "\nb worker " KEY_B "\n");
    assert_true(refresh(&a));
    assert_true(lists(&a, KEY_B) && !a.watched.refused);

    /* Open to others: refused; mended by chmod, which does not touch the file's time. */
    write_list("b worker " KEY_B "\n");
    assert_int_equal(chmod(path, 0666), 0);
    assert_false(refresh(&a));
    assert_true(lists(&a, KEY_A));
    assert_int_equal(chmod(path, 0644), 0);
    assert_true(refresh(&a));
    assert_false(lists(&a, KEY_A));

    /* Gone: nobody. */
    unlink(path);
    assert_true(refresh(&a));
    assert_false(refresh(&a));
    assert_false(lists(&a, KEY_B));
    write_list("b worker " KEY_B "\n");
    assert_true(refresh(&a));
    assert_true(lists(&a, KEY_B));
    tern_allow_close(&a);
    assert_null(a.entries);
}

/* An old file is not read again; its replacement (by rename, as editors do) is. */
static void test_old_file(void **state)
{
    static const struct timespec long_ago[2] = { { 1000000000, 5 }, { 1000000000, 5 } };
    char other[80];
    struct tern_allow a;
    struct tern_err err;

    (void)state;
    write_list("a worker " KEY_A "\n");
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    usleep(1100000); /* in its first second a file may change unseen, so that it is always read again */
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_OK);
    assert_true(a.watched.version[3] == UINT64_C(1000000000000000005));
    assert_false(refresh(&a));
    snprintf(other, sizeof other, "%s.new", path);
    assert_int_equal(rename(path, other), 0);
    write_list("a worker " KEY_B "\n");
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    assert_true(refresh(&a));
    assert_true(lists(&a, KEY_B));
    unlink(other);

    /* Written over in place by a tool that keeps the time. */
    usleep(1100000);
    assert_false(refresh(&a));
    assert_int_not_equal(a.watched.version[3], 0);
    write_list("a worker " KEY_A "\n");
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    assert_true(refresh(&a));
    assert_true(lists(&a, KEY_A));
    tern_allow_close(&a);
}

/* What cannot be looked at is not gone: the old list stays, and is read again when it can be. */
static void test_out_of_sight(void **state)
{
    struct tern_allow a;
    struct tern_err err;

    (void)state;
    write_list("a worker " KEY_A "\n");
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_OK);
    unlink(path);
    assert_int_equal(symlink(path, path), 0);
    assert_false(refresh(&a));
    assert_true(lists(&a, KEY_A) && a.watched.refused);
    assert_false(tern_watched_refuse(&a.watched)); /* it was said */
    assert_false(refresh(&a));
    unlink(path);
    assert_true(refresh(&a));
    assert_false(lists(&a, KEY_A));
    assert_false(tern_watched_refuse(&a.watched));
    write_list("a worker " KEY_B "\n");
    assert_true(refresh(&a));
    assert_true(lists(&a, KEY_B) && !a.watched.refused);
    tern_allow_close(&a);
}

static void test_open_refused(void **state)
{
    struct tern_allow a;
    struct tern_err err;
    char want[128], *deep;

    (void)state;
    write_list("a worker " KEY_A "\n");
    assert_int_equal(chmod(path, 0620), 0);
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_IO);
    snprintf(want, sizeof want, "chmod go-w %s", path);
    assert_non_null(strstr(err.text, want));
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_IO);
    assert_int_equal(chmod(path, 0640), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 0), 0);
        assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_IO);
        assert_non_null(strstr(err.text, "12345"));
        assert_int_equal(chown(path, 0, 0), 0);
    }
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_OK);
    tern_allow_close(&a);
    unlink(path);
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_IO);
    assert_int_equal(tern_allow_open("/tmp", &a, &err), TERN_ERR_IO);
    assert_int_equal(tern_allow_open("/dev/zero", &a, &err), TERN_ERR_IO);
    deep = malloc(5001);
    assert_non_null(deep);
    memset(deep, 'x', 5000);
    deep[5000] = '\0';
    assert_int_equal(tern_allow_open(deep, &a, &err), TERN_ERR_USAGE);
    free(deep);
}

static void test_too_large(void **state)
{
    struct tern_allow a;
    struct tern_err err;

    (void)state;
    write_list("a worker " KEY_A "\n");
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    assert_int_equal(tern_allow_open(path, &a, &err), TERN_ERR_LIMIT);
}

int main(void)
{
#define IN_FILE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_FILE(test_parse),     IN_FILE(test_parse_refused), IN_FILE(test_parse_many),
        IN_FILE(test_refresh),   IN_FILE(test_old_file),      IN_FILE(test_open_refused),
        IN_FILE(test_too_large), IN_FILE(test_out_of_sight),
    };

    tern_log_set_level(TERN_LOG_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
