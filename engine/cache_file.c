/* SPDX-License-Identifier: Apache-2.0 */
/* See cache_file.h.  File: 32 bytes of key, the content, 32 bytes of BLAKE2b-256 over all that. */
#include "engine/cache_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY TERN_CACHE_KEY_BYTES
#define SUM 32

/* The folder of our caches; false when there is none or the user wants none.  By the XDG rules a relative
 * path is ignored. */
static bool cache_dir(char *dir, size_t cap)
{
    const char *off = getenv("TERN_NO_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;

    if (off && *off && strcmp(off, "0") != 0)
        return false;
    if (xdg && xdg[0] == '/')
        n = snprintf(dir, cap, "%s/tern", xdg);
    else if (home && home[0] == '/')
        n = snprintf(dir, cap, "%s/.cache/tern", home);
    else
        return false;
    return n > 0 && (size_t)n < cap;
}

static bool cache_path(const char *dir, const uint8_t *key, const char *suffix, char *path, size_t cap)
{
    char hex[33];
    int n;

    sodium_bin2hex(hex, sizeof hex, key, 16);
    n = snprintf(path, cap, "%s/%s%s", dir, hex, suffix);
    return n > 0 && (size_t)n < cap;
}

static bool read_whole(const char *path, uint8_t *buf, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat sb;
    size_t at = 0;

    if (fd < 0)
        return false;
    if (fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) && (uint64_t)sb.st_size == n)
        while (at < n) {
            ssize_t got = read(fd, buf + at, n - at);

            if (got <= 0)
                break;
            at += (size_t)got;
        }
    close(fd);
    return at == n;
}

bool tern_cache_load(const uint8_t key[static TERN_CACHE_KEY_BYTES], void *content, size_t n)
{
    uint8_t sum[SUM], *buf;
    char dir[PATH_MAX], path[PATH_MAX];
    bool ok = cache_dir(dir, sizeof dir) && cache_path(dir, key, "", path, sizeof path);

    if (!ok)
        return false;
    buf = malloc(KEY + n + SUM);
    if (!buf)
        return false;
    ok = read_whole(path, buf, KEY + n + SUM);
    if (ok) {
        crypto_generichash(sum, sizeof sum, buf, KEY + n, NULL, 0);
        ok = memcmp(sum, buf + KEY + n, SUM) == 0 && memcmp(key, buf, KEY) == 0;
    }
    if (ok)
        memcpy(content, buf + KEY, n);
    free(buf);
    return ok;
}

static bool write_whole(int fd, const uint8_t *buf, size_t n)
{
    size_t at = 0;

    while (at < n) {
        ssize_t put = write(fd, buf + at, n - at);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += (size_t)put;
    }
    return true;
}

/* Makes the folder and the one above it, as far as they are missing. */
static void make_dirs(char *dir)
{
    char *slash = strrchr(dir, '/');

    *slash = '\0';
    (void)mkdir(dir, 0700);
    *slash = '/';
    (void)mkdir(dir, 0700);
}

static void write_beside(const char *dir, const uint8_t *buf, size_t n)
{
    char path[PATH_MAX], temp[PATH_MAX];
    bool ok;
    int fd;

    if (!cache_path(dir, buf, "", path, sizeof path) || !cache_path(dir, buf, ".XXXXXX", temp, sizeof temp))
        return;
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return;
    ok = write_whole(fd, buf, n);
    ok = close(fd) == 0 && ok;
    if (!ok || rename(temp, path) != 0)
        (void)unlink(temp);
}

void tern_cache_store(const uint8_t key[static TERN_CACHE_KEY_BYTES], const void *content, size_t n)
{
    char dir[PATH_MAX];
    uint8_t *buf;

    if (!cache_dir(dir, sizeof dir))
        return;
    make_dirs(dir);
    buf = malloc(KEY + n + SUM);
    if (!buf)
        return;
    memcpy(buf, key, KEY);
    memcpy(buf + KEY, content, n);
    crypto_generichash(buf + KEY + n, SUM, buf, KEY + n, NULL, 0);
    write_beside(dir, buf, KEY + n + SUM);
    free(buf);
}
