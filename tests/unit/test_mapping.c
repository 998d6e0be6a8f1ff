/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapped files that shrink under their reader.
 */
#include "unit/unit.h"

#include "engine/base/thread.h"
#include "engine/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE    4096u
#define N_PAGES 16u

/* cmocka puts handlers of its own around every test, so the guard goes in inside.  Twice does no harm. */
static void guard(void)
{
    assert_ok(tern_mapping_guard_install(&unit_err));
    assert_ok(tern_mapping_guard_install(&unit_err));
}

/* A file of N_PAGES pages, page i full of bytes i + 1.  path: at least 64 bytes. */
static void make_file(char *path)
{
    uint8_t page[PAGE];
    int fd;

    strcpy(path, "/tmp/tern_mapping_XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < N_PAGES; i++) {
        memset(page, (int)i + 1, sizeof page);
        assert_int_equal(write(fd, page, sizeof page), PAGE);
    }
    /* Older than any change the test makes: the kernel's clock for times of files ticks in milliseconds. */
    assert_int_equal(futimens(fd, (const struct timespec[2]){ { .tv_sec = 1 }, { .tv_sec = 1 } }), 0);
    close(fd);
}

static void test_reads_and_closes(void **state)
{
    struct tern_mapping m;
    char path[64];

    (void)state;
    guard();
    make_file(path);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    assert_int_equal(m.size, PAGE * N_PAGES);
    assert_int_equal(m.bytes[5 * PAGE], 6);
    assert_ok(tern_mapping_check(&m, &unit_err));
    tern_mapping_release(&m, 0, m.size);
    tern_mapping_release(&m, m.size, 1); /* nonsense is ignored */
    tern_mapping_release(&m, 0, m.size + 1);
    assert_int_equal(m.bytes[5 * PAGE], 6); /* comes back from the file */
    tern_mapping_close(&m);
    assert_null(m.bytes);
    tern_mapping_close(&m);
    unlink(path);
}

static void test_truncated_while_in_use(void **state)
{
    struct tern_mapping m;
    char path[64];
    unsigned sum = 0;

    (void)state;
    guard();
    make_file(path);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    assert_true(m.slot >= 0);
    assert_int_equal(m.bytes[9 * PAGE], 10);
    assert_int_equal(truncate(path, 4 * PAGE + 100), 0);
    for (unsigned i = 0; i < N_PAGES; i++)
        sum += m.bytes[i * PAGE + 200];
    assert_int_equal(sum, 1 + 2 + 3 + 4); /* the rest reads as zeros */
    assert_int_equal(tern_mapping_check(&m, &unit_err), TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, path));
    tern_mapping_close(&m);
    unlink(path);
}

/* Noticed by its size alone, before any lost page is touched. */
static void test_size_is_watched(void **state)
{
    struct tern_mapping m;
    char path[64];

    (void)state;
    guard();
    make_file(path);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    assert_ok(tern_mapping_check(&m, &unit_err));
    assert_int_equal(truncate(path, N_PAGES * PAGE - 1), 0);
    assert_int_equal(tern_mapping_check(&m, &unit_err), TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, "truncated"));
    tern_mapping_close(&m);
    unlink(path);
}

/* The same size, other bytes: the hashes taken from the file before say nothing about it any more. */
static void test_overwritten_in_place(void **state)
{
    /* File times advance by the kernel's tick only, and two writes can fall into one. */
    const struct timespec long_ago[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
    struct tern_mapping m;
    char path[64];
    int fd;

    (void)state;
    guard();
    make_file(path);
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 3 * PAGE), 1);
    close(fd);
    assert_int_equal(tern_mapping_check(&m, &unit_err), TERN_ERR_IO);
    assert_non_null(strstr(unit_err.text, "written to"));
    tern_mapping_close(&m);
    unlink(path);
}

static void *touch_all(void *arg)
{
    const struct tern_mapping *m = arg;
    uintptr_t sum = 0;

    for (unsigned round = 0; round < 50; round++)
        for (unsigned i = 0; i < N_PAGES; i++)
            sum += ((const volatile uint8_t *)m->bytes)[i * PAGE];
    return (void *)sum;
}

static void test_many_threads_meet_the_hole(void **state)
{
    pthread_t threads[4];
    struct tern_mapping m;
    char path[64];

    (void)state;
    guard();
    make_file(path);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    assert_int_equal(truncate(path, 1), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, touch_all, &m), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(tern_mapping_check(&m, &unit_err), TERN_ERR_IO);
    tern_mapping_close(&m);
    unlink(path);
}

/* A slot is clean again for the next file. */
static void test_damage_is_not_inherited(void **state)
{
    struct tern_mapping m[80];
    char path[64];

    (void)state;
    guard();
    make_file(path);
    for (int i = 0; i < 80; i++)
        assert_ok(tern_mapping_open(path, &m[i], &unit_err));
    assert_int_equal(m[79].slot, -1); /* the table is full: the size is still watched */
    for (int i = 0; i < 80; i++)
        assert_ok(tern_mapping_check(&m[i], &unit_err));
    for (int i = 0; i < 80; i++)
        tern_mapping_close(&m[i]);
    assert_ok(tern_mapping_open(path, &m[0], &unit_err));
    assert_true(m[0].slot >= 0);
    assert_ok(tern_mapping_check(&m[0], &unit_err));
    tern_mapping_close(&m[0]);
    unlink(path);
}

/* How a child ends that does `what`: the number of the signal, 0 when it lives. */
static int signal_of_child(void (*what)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = { 0, 0 };
        int null = open("/dev/null", O_WRONLY);

        dup2(null, 2); /* a sanitizer's report about what is meant to happen */
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGALRM, SIG_DFL);
        alarm(20);
        signal(SIGBUS, SIG_DFL);
        if (tern_mapping_guard_install(&unit_err) == TERN_OK)
            what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    return WEXITSTATUS(status) ? -1 : 0;
}

/* Threads that leave the program's signals to others keep those about themselves. */
static void *read_lost_pages(void *arg)
{
    const struct tern_mapping *m = arg;
    uintptr_t sum = 0;
    sigset_t mask;

    for (size_t i = 0; i < m->size; i += PAGE)
        sum += ((const volatile uint8_t *)m->bytes)[i];
    return pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGTERM) == 1 &&
                   sigismember(&mask, SIGBUS) == 0 && sum == 1
               ? arg
               : NULL;
}

static void test_thread_without_signals(void **state)
{
    struct tern_mapping m;
    char path[64];
    pthread_t thread;
    sigset_t before, after;
    void *result = NULL;

    (void)state;
    guard();
    make_file(path);
    assert_ok(tern_mapping_open(path, &m, &unit_err));
    assert_int_equal(truncate(path, PAGE), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(tern_thread_start(&thread, read_lost_pages, &m), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &m);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
    assert_int_equal(tern_mapping_check(&m, &unit_err), TERN_ERR_IO);
    tern_mapping_close(&m);
    unlink(path);
}

static void sigbus_elsewhere(void)
{
    char path[64];
    const volatile uint8_t *p;
    int fd;

    strcpy(path, "/tmp/tern_mapping_XXXXXX");
    fd = mkstemp(path);
    unlink(path);
    if (ftruncate(fd, PAGE) != 0)
        return;
    p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0); /* not a tern_mapping */
    if (p == MAP_FAILED || ftruncate(fd, 0) != 0)
        return;
    if (p[0] == 77)
        _exit(3);
}

static void sigbus_by_hand(void)
{
    raise(SIGBUS);
}

static void test_other_sigbus_still_kills(void **state)
{
    (void)state;
    assert_int_equal(signal_of_child(sigbus_elsewhere), SIGBUS);
    assert_int_equal(signal_of_child(sigbus_by_hand), SIGBUS);
}

static void test_refusals(void **state)
{
    struct tern_mapping m;
    char path[64], fifo[80];
    int fd;

    (void)state;
    strcpy(path, "/tmp/tern_mapping_XXXXXX");
    fd = mkstemp(path);
    close(fd);
    assert_int_equal(tern_mapping_open(path, &m, &unit_err), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "empty"));
    unlink(path);
    assert_int_equal(tern_mapping_open(path, &m, &unit_err), TERN_ERR_IO);
    assert_int_equal(unit_err.sys_errno, ENOENT);
    assert_int_equal(tern_mapping_open("/tmp", &m, &unit_err), TERN_ERR_USAGE);
    assert_int_equal(tern_mapping_open("/dev/zero", &m, &unit_err), TERN_ERR_USAGE);
    snprintf(fifo, sizeof fifo, "%s.fifo", path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(tern_mapping_open(fifo, &m, &unit_err), TERN_ERR_USAGE); /* and does not hang */
    unlink(fifo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_closes),
        cmocka_unit_test(test_truncated_while_in_use),
        cmocka_unit_test(test_size_is_watched),
        cmocka_unit_test(test_overwritten_in_place),
        cmocka_unit_test(test_many_threads_meet_the_hole),
        cmocka_unit_test(test_damage_is_not_inherited),
        cmocka_unit_test(test_other_sigbus_still_kills),
        cmocka_unit_test(test_thread_without_signals),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
