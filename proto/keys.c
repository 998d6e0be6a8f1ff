/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key files: checked before they are read, parsed without leaving secrets on the stack or the heap.
 */
#include "proto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES 4096

static const char heading[] = "# tern key file: keep it secret, mode 0600\n";

enum tern_status tern_keys_init(struct tern_err *err)
{
    if (sodium_init() < 0)
        return TERN_FAIL(err, TERN_ERR_IO, "the system has no source of random numbers");
    return TERN_OK;
}

static enum tern_status new_secret(size_t n, uint8_t **out, struct tern_err *err)
{
    uint8_t *p = sodium_malloc(n);

    if (!p)
        return TERN_FAIL_SYS(err, TERN_ERR_MEMORY, errno, "no guarded memory for a key: %s", strerror(errno));
    *out = p;
    return TERN_OK;
}

enum tern_status tern_key_generate(struct tern_key *out, struct tern_err *err)
{
    struct tern_key key;
    enum tern_status st = new_secret(TERN_KEY_BYTES, &key.secret_key, err);

    if (st)
        return st;
    /* CURVE's keys are crypto_box's. */
    crypto_box_keypair(key.public_key, key.secret_key);
    *out = key;
    return TERN_OK;
}

enum tern_status tern_key_copy(const struct tern_key *key, struct tern_key *out, struct tern_err *err)
{
    struct tern_key copy = *key;
    enum tern_status st = new_secret(TERN_KEY_BYTES, &copy.secret_key, err);

    if (st)
        return st;
    memcpy(copy.secret_key, key->secret_key, TERN_KEY_BYTES);
    *out = copy;
    return TERN_OK;
}

void tern_key_wipe(struct tern_key *key)
{
    sodium_free(key->secret_key);
    memset(key, 0, sizeof *key);
}

/* A line's value when it begins with `word` and a blank. */
static const char *value_of(const char *line, size_t len, const char *word, size_t *value_len)
{
    size_t n = strlen(word);

    if (len <= n || memcmp(line, word, n) != 0 || line[n] != ' ')
        return NULL;
    *value_len = len - n - 1;
    return line + n + 1;
}

/* Fills the two halves of *key (secret_key is allocated already). */
static enum tern_status parse_lines(const char *name, const char *text, size_t len, struct tern_key *key,
                                    struct tern_err *err)
{
    bool has_public = false, has_secret = false;
    uint8_t derived[TERN_KEY_BYTES];
    unsigned no = 0;

    for (size_t at = 0; at < len;) {
        const char *line = text + at, *newline = memchr(line, '\n', len - at), *value;
        size_t n = newline ? (size_t)(newline - line) : len - at, value_len;

        at += n + 1;
        no++;
        while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' '))
            n--;
        if (n == 0 || line[0] == '#')
            continue;
        value = value_of(line, n, "public", &value_len);
        if (value && !has_public && tern_key_from_z85(value, value_len, key->public_key)) {
            has_public = true;
            continue;
        }
        value = value_of(line, n, "secret", &value_len);
        if (value && !has_secret && tern_key_from_z85(value, value_len, key->secret_key)) {
            has_secret = true;
            continue;
        }
        /* The line itself is not quoted: it may be half of a secret. */
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s, line %u: not a key file of tern; make one with: tern keygen -o FILE", name, no);
    }
    if (!has_public || !has_secret)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s has no %s key; make a key file with: tern keygen -o FILE",
                         name, has_public ? "secret" : "public");
    if (crypto_scalarmult_base(derived, key->secret_key) != 0 ||
        sodium_memcmp(derived, key->public_key, TERN_KEY_BYTES) != 0)
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s: its public key does not belong to its secret key; make a new one with: tern keygen -o FILE",
            name);
    return TERN_OK;
}

enum tern_status tern_key_parse(const char *name, const char *text, size_t len, struct tern_key *out,
                                struct tern_err *err)
{
    struct tern_key key;
    enum tern_status st = new_secret(TERN_KEY_BYTES, &key.secret_key, err);

    if (st)
        return st;
    st = parse_lines(name, text, len, &key, err);
    if (st) {
        tern_key_wipe(&key);
        return st;
    }
    *out = key;
    return TERN_OK;
}

/* /proc/self/fd/N and /dev/fd/N are links by nature: they lead to descriptors somebody gave us on purpose. */
static bool is_fd_path(const char *path)
{
    return strncmp(path, "/proc/self/fd/", 14) == 0 || strncmp(path, "/dev/fd/", 8) == 0;
}

static enum tern_status open_checked(const char *path, int *out, struct tern_err *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (is_fd_path(path) ? 0 : O_NOFOLLOW));
    enum tern_status st = TERN_OK;
    struct stat sb;

    if (fd < 0 && errno == ENOENT)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno,
                             "there is no key file '%s'; make one with: tern keygen -o %s", path, path);
    if (fd < 0 && errno == ELOOP)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno,
                             "the key file '%s' is a symbolic link; name the file itself", path);
    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the key file '%s': %s", path,
                             strerror(errno));
    if (fstat(fd, &sb) != 0)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the key file '%s': %s", path,
                           strerror(errno));
    else if (!S_ISREG(sb.st_mode))
        st = TERN_FAIL(err, TERN_ERR_IO, "the key file '%s' is not a regular file", path);
    else if (sb.st_uid != geteuid())
        st = TERN_FAIL(
            err, TERN_ERR_IO,
            "the key file '%s' belongs to user %u, not to user %u who runs this; chown it or make an own one",
            path, (unsigned)sb.st_uid, (unsigned)geteuid());
    else if (sb.st_mode & 077)
        st = TERN_FAIL(err, TERN_ERR_IO, "the key file '%s' is open to others (mode %04o); run: chmod 600 %s",
                       path, (unsigned)(sb.st_mode & 07777), path);
    if (st) {
        close(fd);
        return st;
    }
    *out = fd;
    return TERN_OK;
}

/* Up to cap bytes. */
static enum tern_status read_all(int fd, const char *path, uint8_t *buf, size_t cap, size_t *len,
                                 struct tern_err *err)
{
    size_t n = 0;

    while (n < cap) {
        /* pread: a descriptor handed down by the parent shares its offset. */
        ssize_t got = pread(fd, buf + n, cap - n, (off_t)n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the key file '%s': %s", path,
                                 strerror(errno));
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n == cap)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "'%s' is too large for a key file (%d bytes at most)", path,
                         MAX_FILE_BYTES);
    *len = n;
    return TERN_OK;
}

enum tern_status tern_key_load(const char *path, struct tern_key *out, struct tern_err *err)
{
    uint8_t *text = NULL;
    size_t len = 0;
    int fd = -1;
    enum tern_status st = open_checked(path, &fd, err);

    if (st)
        return st;
    st = new_secret(MAX_FILE_BYTES + 1, &text, err);
    if (!st)
        st = read_all(fd, path, text, MAX_FILE_BYTES + 1, &len, err);
    if (!st)
        st = tern_key_parse(path, (const char *)text, len, out, err);
    sodium_free(text);
    close(fd);
    return st;
}

static bool write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, text, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        text += done;
        n -= (size_t)done;
    }
    return true;
}

enum tern_status tern_key_write(int fd, const struct tern_key *key, struct tern_err *err)
{
    char z85[TERN_Z85_CHARS + 1], *text;
    size_t cap = sizeof heading + 2 * (sizeof "public \n" + TERN_Z85_CHARS);
    uint8_t *buf = NULL;
    enum tern_status st = new_secret(cap, &buf, err);
    int n;

    if (st)
        return st;
    text = (char *)buf;
    tern_key_to_z85(key->public_key, z85);
    n = snprintf(text, cap, "%spublic %s\nsecret ", heading, z85);
    tern_key_to_z85(key->secret_key, text + n);
    n += TERN_Z85_CHARS;
    text[n++] = '\n';
    if (!write_all(fd, text, (size_t)n))
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write a key: %s", strerror(errno));
    sodium_free(buf);
    return st;
}

enum tern_status tern_key_save(const char *path, const struct tern_key *key, struct tern_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum tern_status st;

    if (fd < 0 && errno == EEXIST)
        return TERN_FAIL_SYS(
            err, TERN_ERR_IO, errno,
            "'%s' exists already and a key is never written over a file; choose another name", path);
    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make the key file '%s': %s%s", path,
                             strerror(errno),
                             errno == ENOENT ? "; make the folder first, for example with mkdir -p" : "");
    st = tern_key_write(fd, key, err);
    if (!st && fsync(fd) != 0)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
    if (close(fd) != 0 && !st)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
    /* Half a key is of no use, and would be in the way of the next try. */
    if (st)
        (void)unlink(path);
    return st;
}
