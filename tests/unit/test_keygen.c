/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern keygen`, called as the command line calls it.
 */
#include "coordinator/commands.h"
#include "proto/allow.h"
#include "proto/keys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static char dir[64], path[128], out_path[128], out[4096];

static int setup(void **state)
{
    struct tern_err err;

    (void)state;
    strcpy(dir, "/tmp/tern-keygen-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/key", dir);
    snprintf(out_path, sizeof out_path, "%s/stdout", dir);
    return (int)tern_keys_init(&err);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(out_path);
    return rmdir(dir);
}

/* Runs `tern keygen ARGS...` (up to a NULL); what it wrote to stdout is in `out`. */
static int keygen(const char *const *args)
{
    char *argv[12] = { (char *)"keygen" };
    int argc = 1, fd = open(out_path, O_RDWR | O_CREAT | O_TRUNC, 0600), saved = dup(STDOUT_FILENO), rc;
    ssize_t n;

    assert_true(fd >= 0 && saved >= 0);
    for (; *args; args++)
        argv[argc++] = (char *)*args;
    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    rc = cmd_keygen(argc, argv);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    n = pread(fd, out, sizeof out - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    close(saved);
    return rc;
}
#define KEYGEN(...) keygen((const char *const[]){ __VA_ARGS__, NULL })

static void test_make_and_show(void **state)
{
    char made[256], z85[TERN_Z85_CHARS + 1];
    struct tern_key key;
    struct tern_err err;

    (void)state;
    assert_int_equal(KEYGEN("-o", path), EX_OK);
    strcpy(made, out);
    assert_int_equal(tern_key_load(path, &key, &err), TERN_OK);
    tern_key_to_z85(key.public_key, z85);
    tern_key_wipe(&key);
    assert_int_equal(strlen(made), TERN_Z85_CHARS + 1);
    assert_memory_equal(made, z85, TERN_Z85_CHARS);
    assert_int_equal(KEYGEN("--show", path), EX_OK);
    assert_string_equal(out, made);
    assert_int_equal(KEYGEN(path), EX_IOERR);
    assert_string_equal(out, "");
    assert_int_equal(KEYGEN("--show", path, "--json"), EX_OK);
    assert_non_null(strstr(out, z85));
}

/* The line is one a daemon takes. */
static void test_line(void **state)
{
    struct tern_allow_entry *e = NULL;
    struct tern_err err;
    size_t n = 0;

    (void)state;
    assert_int_equal(KEYGEN(path, "--name", "w-1"), EX_OK);
    assert_int_equal(tern_allow_parse("out", out, strlen(out), &e, &n, &err), TERN_OK);
    assert_int_equal(n, 1);
    assert_string_equal(e[0].name, "w-1");
    assert_int_equal(e[0].role, TERN_ROLE_WORKER);
    free(e);
    assert_int_equal(KEYGEN("--show", path, "--name", "den", "--role", "coordinator"), EX_OK);
    assert_int_equal(tern_allow_parse("out", out, strlen(out), &e, &n, &err), TERN_OK);
    assert_string_equal(e[0].name, "den");
    assert_int_equal(e[0].role, TERN_ROLE_COORDINATOR);
    free(e);
}

static void test_refused(void **state)
{
    char name[TERN_MAX_NAME_BYTES + 2];

    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(KEYGEN("-o"), EX_USAGE);
    assert_int_equal(KEYGEN("--nonsense", path), EX_USAGE);
    assert_int_equal(KEYGEN(path, path), EX_USAGE);
    assert_int_equal(KEYGEN("-o", path, "--show", path), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--role", "worker"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", "x", "--role", "boss"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", "a b"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", ""), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", "#a"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", "a\nb worker"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", "\xff"), EX_USAGE);
    assert_int_equal(KEYGEN(path, "--name", name), EX_USAGE);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(KEYGEN("--show", path), EX_IOERR);
    assert_int_equal(KEYGEN("--help"), EX_OK);
    assert_non_null(strstr(out, "--show"));
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = { IN_DIR(test_make_and_show), IN_DIR(test_line), IN_DIR(test_refused) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
