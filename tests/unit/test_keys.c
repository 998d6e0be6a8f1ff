/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/keys.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static char dir[64], path[128];

static int setup(void **state)
{
    struct tern_err err;

    (void)state;
    strcpy(dir, "/tmp/tern-keys-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/key", dir);
    return (int)tern_keys_init(&err);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static struct tern_key generate(void)
{
    struct tern_key key;
    struct tern_err err;

    assert_int_equal(tern_key_generate(&key, &err), TERN_OK);
    return key;
}

static void same_key(const struct tern_key *a, const struct tern_key *b)
{
    assert_memory_equal(a->public_key, b->public_key, TERN_KEY_BYTES);
    assert_memory_equal(a->secret_key, b->secret_key, TERN_KEY_BYTES);
}

/* Against libzmq's own coder, and the example of ZeroMQ's RFC 32. */
static void test_z85(void **state)
{
    uint8_t key[TERN_KEY_BYTES], back[TERN_KEY_BYTES];
    char ours[TERN_Z85_CHARS + 1], theirs[TERN_Z85_CHARS + 1];

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        randombytes_buf(key, sizeof key);
        if (i < 256)
            memset(key, (int)i, sizeof key);
        tern_key_to_z85(key, ours);
        assert_non_null(zmq_z85_encode(theirs, key, sizeof key));
        assert_string_equal(ours, theirs);
        assert_true(tern_key_from_z85(ours, TERN_Z85_CHARS, back));
        assert_memory_equal(key, back, sizeof key);
    }
    assert_true(tern_key_from_z85("HelloWorldHelloWorldHelloWorldHelloWorld", 40, back));
    assert_memory_equal(back, "\x86\x4f\xd2\x6f\xb5\x59\xf7\x5b", 8);
}

static void test_z85_refused(void **state)
{
    char text[TERN_Z85_CHARS + 2];
    uint8_t key[TERN_KEY_BYTES], before[TERN_KEY_BYTES];

    (void)state;
    memset(before, 0x77, sizeof before);
    memcpy(key, before, sizeof key);
    memset(text, 'a', sizeof text);
    for (size_t n = 0; n <= TERN_Z85_CHARS + 1; n++)
        assert_true(tern_key_from_z85(text, n, key) == (n == TERN_Z85_CHARS));
    memcpy(key, before, sizeof key);
    for (unsigned c = 0; c < 256; c++) {
        bool digit = c > 32 && c < 127 && !strchr("\"',;\\_`|~", (int)c);

        memset(text, 'a', sizeof text);
        text[17] = (char)c;
        assert_true(tern_key_from_z85(text, TERN_Z85_CHARS, key) == digit);
    }
    /* "%nSc0" is 2^32 - 1; the next one up does not fit 32 bits. */
    memset(text, '0', sizeof text);
    memcpy(text + 35, "%nSc0", 5);
    assert_true(tern_key_from_z85(text, TERN_Z85_CHARS, key));
    assert_memory_equal(key + 28, "\xff\xff\xff\xff", 4);
    memcpy(key, before, sizeof key);
    memcpy(text + 35, "%nSc1", 5);
    assert_false(tern_key_from_z85(text, TERN_Z85_CHARS, key));
    memcpy(text + 35, "#####", 5);
    assert_false(tern_key_from_z85(text, TERN_Z85_CHARS, key));
    assert_memory_equal(key, before, sizeof key);
}

static void test_save_and_load(void **state)
{
    struct tern_key key = generate(), other = generate(), back, copy;
    struct tern_err err;
    struct stat sb;

    (void)state;
    assert_memory_not_equal(key.public_key, other.public_key, TERN_KEY_BYTES);
    umask(0);
    assert_int_equal(tern_key_save(path, &key, &err), TERN_OK);
    umask(022);
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 07777, 0600);
    assert_int_equal(tern_key_load(path, &back, &err), TERN_OK);
    same_key(&key, &back);
    assert_int_equal(tern_key_copy(&back, &copy, &err), TERN_OK);
    same_key(&key, &copy);
    assert_ptr_not_equal(copy.secret_key, back.secret_key);

    /* Never over an existing file. */
    assert_int_equal(tern_key_save(path, &other, &err), TERN_ERR_IO);
    assert_non_null(strstr(err.text, "exists already"));
    tern_key_wipe(&back);
    assert_null(back.secret_key);
    assert_int_equal(tern_key_load(path, &back, &err), TERN_OK);
    same_key(&key, &back);
    unlink(path);
    /* Nor through a link that leads nowhere yet. */
    assert_int_equal(symlink("/tmp/tern-no-such-file", path), 0);
    assert_int_equal(tern_key_save(path, &other, &err), TERN_ERR_IO);
    tern_key_wipe(&key);
    tern_key_wipe(&other);
    tern_key_wipe(&back);
    tern_key_wipe(&copy);
}

/* What CURVE will do with the pair: the public half is derived from the secret one. */
static void test_pair_is_curve(void **state)
{
    struct tern_key key = generate();
    char secret[TERN_Z85_CHARS + 1], public[TERN_Z85_CHARS + 1], derived[TERN_Z85_CHARS + 1];

    (void)state;
    tern_key_to_z85(key.secret_key, secret);
    tern_key_to_z85(key.public_key, public);
    assert_int_equal(zmq_curve_public(derived, secret), 0);
    assert_string_equal(derived, public);
    tern_key_wipe(&key);
}

static void refused(const char *sentence_part)
{
    struct tern_key key;
    struct tern_err err;

    assert_int_not_equal(tern_key_load(path, &key, &err), TERN_OK);
    if (!strstr(err.text, sentence_part))
        fail_msg("'%s' is not in: %s", sentence_part, err.text);
    assert_non_null(strstr(err.text, path));
}

static void test_file_checks(void **state)
{
    struct tern_key key = generate();
    struct tern_err err;
    char target[160];

    (void)state;
    refused("tern keygen -o");
    assert_int_equal(tern_key_save(path, &key, &err), TERN_OK);
    for (unsigned bits = 1; bits < 0100; bits <<= 1) {
        char want[160];

        assert_int_equal(chmod(path, 0600 | bits), 0);
        snprintf(want, sizeof want, "chmod 600 %s", path);
        refused(want);
    }
    assert_int_equal(chmod(path, 0400), 0);
    tern_key_wipe(&key);
    assert_int_equal(tern_key_load(path, &key, &err), TERN_OK);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 0), 0);
        refused("belongs to user 12345");
    }
    snprintf(target, sizeof target, "%s.real", path);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(target, path), 0);
    refused("symbolic link");
    unlink(path);
    unlink(target);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused("not a regular file");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refused("not a regular file");
    rmdir(path);
    tern_key_wipe(&key);
}

/* A key in memory, handed over as /proc/self/fd/N: the file offset of the giver does not matter. */
static void test_memory_file(void **state)
{
    struct tern_key key = generate(), back;
    int fd = memfd_create("key", MFD_CLOEXEC);
    char name[64];
    struct tern_err err;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(tern_key_write(fd, &key, &err), TERN_OK);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(tern_key_load(name, &back, &err), TERN_ERR_IO);
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(tern_key_load(name, &back, &err), TERN_OK);
    same_key(&key, &back);
    tern_key_wipe(&back);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    assert_int_equal(tern_key_load(name, &back, &err), TERN_OK);
    tern_key_wipe(&back);
    tern_key_wipe(&key);
    close(fd);
}

static void write_file(const char *text, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), (ssize_t)n);
    close(fd);
}

static void test_contents(void **state)
{
    struct tern_key key = generate(), other = generate(), back;
    char pub[TERN_Z85_CHARS + 1], sec[TERN_Z85_CHARS + 1], wrong[TERN_Z85_CHARS + 1], text[8192];
    struct tern_err err;
    size_t n;

    (void)state;
    tern_key_to_z85(key.public_key, pub);
    tern_key_to_z85(key.secret_key, sec);
    tern_key_to_z85(other.public_key, wrong);

    /* As people edit it: another order, Windows line ends, no last newline. */
    n = (size_t)snprintf(text, sizeof text, "\r\n# mine\r\nsecret %s\r\n\r\npublic %s", sec, pub);
    write_file(text, n);
    assert_int_equal(tern_key_load(path, &back, &err), TERN_OK);
    same_key(&key, &back);
    tern_key_wipe(&back);

    n = (size_t)snprintf(text, sizeof text, "public %s\nsecret %s\n", pub, sec);
    for (size_t cut = 0; cut + 1 < n; cut++)
        assert_int_not_equal(tern_key_parse("k", text, cut, &back, &err), TERN_OK);
    assert_int_equal(tern_key_parse("k", text, n, &back, &err), TERN_OK);
    tern_key_wipe(&back);

    n = (size_t)snprintf(text, sizeof text, "public %s\nsecret %s\n", wrong, sec);
    write_file(text, n);
    refused("does not belong");
    n = (size_t)snprintf(text, sizeof text, "public %s\npublic %s\nsecret %s\n", pub, pub, sec);
    write_file(text, n);
    refused("line 2");
    n = (size_t)snprintf(text, sizeof text, "public %s\nsecret %s\nextra\n", pub, sec);
    write_file(text, n);
    refused("line 3");
    assert_null(strstr(err.text, sec));
    n = (size_t)snprintf(text, sizeof text, "public %s\n", pub);
    write_file(text, n);
    refused("no secret key");
    write_file("", 0);
    refused("no public key");
    memset(text, '#', sizeof text);
    write_file(text, sizeof text);
    refused("too large");
    write_file("-----BEGIN OPENSSH PRIVATE KEY-----\n", 36);
    refused("line 1");
    /* Secrets never stand in a sentence. */
    n = (size_t)snprintf(text, sizeof text, "public %s\nsecret %.39s\n", pub, sec);
    assert_int_not_equal(tern_key_parse("k", text, n, &back, &err), TERN_OK);
    assert_null(strstr(err.text, "secret "));
    tern_key_wipe(&key);
    tern_key_wipe(&other);
}

static void test_no_place_to_write(void **state)
{
    struct tern_key key = generate();
    struct tern_err err;

    (void)state;
    assert_int_equal(tern_key_save("/nonexistent/dir/key", &key, &err), TERN_ERR_IO);
    /* A device without room: the half-written file would have been removed. */
    {
        int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(tern_key_write(fd, &key, &err), TERN_ERR_IO);
        close(fd);
    }
    tern_key_wipe(&key);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_DIR(test_z85),           IN_DIR(test_z85_refused),       IN_DIR(test_save_and_load),
        IN_DIR(test_pair_is_curve), IN_DIR(test_file_checks),       IN_DIR(test_memory_file),
        IN_DIR(test_contents),      IN_DIR(test_no_place_to_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
