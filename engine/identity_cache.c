/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the hashes of a model's tensors are kept: one small file a model in $XDG_CACHE_HOME/tern or
 * ~/.cache/tern.
 *
 * File: 32 bytes of key (what the hashes belong to), n * 32 bytes of hashes, 32 bytes of BLAKE2b-256 over all
 * that.  Its name is the key's first half in hex, so a changed model finds no file rather than a stale one.
 * Written beside and renamed: readers see the old file or the new one.
 */
#include "engine/identity_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format_name[] = "tern tensor hashes 1";

static void hash_u64(crypto_generichash_state *h, uint64_t v)
{
    uint8_t b[8];

    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    crypto_generichash_update(h, b, sizeof b);
}

/* What the hashes belong to: this file, as it is now, with this directory. */
static void make_key(const struct tern_gguf *g, const struct tern_identity *id,
                     uint8_t key[static TERN_HASH_BYTES])
{
    const uint64_t file[] = { g->map.dev, g->map.ino, g->map.size, g->map.mtime_ns, g->map.ctime_ns, id->n };
    crypto_generichash_state h;

    crypto_generichash_init(&h, NULL, 0, TERN_HASH_BYTES);
    crypto_generichash_update(&h, (const unsigned char *)format_name, sizeof format_name);
    for (size_t i = 0; i < sizeof file / sizeof file[0]; i++)
        hash_u64(&h, file[i]);
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_tensor *t = id->entries[i].tensor;

        hash_u64(&h, t->name.len);
        crypto_generichash_update(&h, (const unsigned char *)t->name.ptr, t->name.len);
        hash_u64(&h, t->type);
        for (int d = 0; d < 4; d++)
            hash_u64(&h, t->ne[d]);
        hash_u64(&h, (uint64_t)(t->data - g->bytes));
    }
    crypto_generichash_final(&h, key, TERN_HASH_BYTES);
}

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

static size_t cache_bytes(const struct tern_identity *id)
{
    return (id->n + 2) * TERN_HASH_BYTES; /* n <= TERN_MAX_TENSORS */
}

bool tern_identity_cache_load(const struct tern_gguf *g, struct tern_identity *id)
{
    uint8_t key[TERN_HASH_BYTES], sum[TERN_HASH_BYTES], *buf;
    size_t n = cache_bytes(id);
    char dir[PATH_MAX], path[PATH_MAX];
    bool ok;

    if (!g->map.bytes || !cache_dir(dir, sizeof dir))
        return false;
    make_key(g, id, key);
    buf = malloc(n);
    if (!buf)
        return false;
    ok = cache_path(dir, key, "", path, sizeof path) && read_whole(path, buf, n);
    if (ok) {
        crypto_generichash(sum, sizeof sum, buf, n - sizeof sum, NULL, 0);
        ok = memcmp(sum, buf + n - sizeof sum, sizeof sum) == 0 && memcmp(key, buf, sizeof key) == 0;
    }
    for (size_t i = 0; ok && i < id->n; i++)
        memcpy(id->entries[i].hash, buf + (i + 1) * TERN_HASH_BYTES, TERN_HASH_BYTES);
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

/* A file that changed while it was hashed must not be remembered. */
static bool unchanged(const struct tern_mapping *m)
{
    struct stat sb;

    return fstat(m->fd, &sb) == 0 && (uint64_t)sb.st_size == m->size &&
           (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec == m->mtime_ns &&
           (uint64_t)sb.st_ctim.tv_sec * 1000000000u + (uint64_t)sb.st_ctim.tv_nsec == m->ctime_ns;
}

void tern_identity_cache_store(const struct tern_gguf *g, const struct tern_identity *id)
{
    size_t n = cache_bytes(id);
    char dir[PATH_MAX], path[PATH_MAX], temp[PATH_MAX];
    uint8_t *buf;
    bool ok;
    int fd;

    if (!g->map.bytes || !unchanged(&g->map) || !cache_dir(dir, sizeof dir))
        return;
    make_dirs(dir);
    buf = malloc(n);
    if (!buf)
        return;
    make_key(g, id, buf);
    for (size_t i = 0; i < id->n; i++)
        memcpy(buf + (i + 1) * TERN_HASH_BYTES, id->entries[i].hash, TERN_HASH_BYTES);
    crypto_generichash(buf + n - TERN_HASH_BYTES, TERN_HASH_BYTES, buf, n - TERN_HASH_BYTES, NULL, 0);
    if (cache_path(dir, buf, "", path, sizeof path) && cache_path(dir, buf, ".XXXXXX", temp, sizeof temp)) {
        fd = mkostemp(temp, O_CLOEXEC);
        if (fd >= 0) {
            ok = write_whole(fd, buf, n);
            ok = close(fd) == 0 && ok;
            if (!ok || rename(temp, path) != 0)
                (void)unlink(temp);
        }
    }
    free(buf);
}
