/* SPDX-License-Identifier: Apache-2.0 */
/* Files that say who may do what: see watched_file.h. */
#include "engine/base/watched_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEV, INO, SIZE, MTIME, CTIME };

static uint64_t in_ns(struct timespec t)
{
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void version_of(const struct stat *sb, uint64_t version[static 5])
{
    version[DEV] = (uint64_t)sb->st_dev;
    version[INO] = (uint64_t)sb->st_ino;
    version[SIZE] = (uint64_t)sb->st_size;
    version[MTIME] = in_ns(sb->st_mtim);
    version[CTIME] = in_ns(sb->st_ctim);
}

/* A file changed in this very second may change again without its times changing: such a version must not be
 * known again. */
static bool is_fresh(const uint64_t version[static 5])
{
    struct timespec now;
    uint64_t t;

    clock_gettime(CLOCK_REALTIME, &now);
    t = in_ns(now);
    return (t > version[CTIME] ? t - version[CTIME] : version[CTIME] - t) < 1000000000u;
}

enum tern_watched_news tern_watched_look(struct tern_watched_file *w, const char *path)
{
    uint64_t version[5];
    struct stat sb;

    if (stat(path, &sb) == 0) {
        version_of(&sb, version);
        return memcmp(version, w->version, sizeof version) == 0 ? TERN_WATCHED_SAME : TERN_WATCHED_CHANGED;
    }
    if (errno != ENOENT && errno != ENOTDIR)
        return TERN_WATCHED_CHANGED;
    memset(w->version, 0xff, sizeof w->version); /* no file's */
    return TERN_WATCHED_GONE;
}

static enum tern_status check(const struct tern_watched_kind *k, const char *path, const struct stat *sb,
                              struct tern_err *err)
{
    const unsigned forbidden = sb->st_uid == 0 && geteuid() != 0 ? k->forbidden_of_root : k->forbidden;

    if (!S_ISREG(sb->st_mode))
        return TERN_FAIL(err, TERN_ERR_IO, "%s '%s' is not a regular file", k->what, path);
    if (sb->st_uid != geteuid() && sb->st_uid != 0)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "%s '%s' belongs to user %u, not to root or to user %u who runs this", k->what, path,
                         (unsigned)sb->st_uid, (unsigned)geteuid());
    if (sb->st_mode & forbidden)
        return TERN_FAIL(err, TERN_ERR_IO, "%s '%s' %s (mode %04o); run: %s %s", k->what, path, k->open,
                         (unsigned)(sb->st_mode & 07777), k->remedy, path);
    return TERN_OK;
}

/* At most one byte more than the limit is asked for, whatever fstat said. */
static enum tern_status read_text(const struct tern_watched_kind *k, int fd, const char *path, char **out,
                                  size_t *len, struct tern_err *err)
{
    char *text = malloc(k->max_bytes + 1);
    enum tern_status st = TERN_OK;
    size_t n = 0;

    if (!text)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s '%s'", k->what, path);
    while (n <= k->max_bytes && !st) {
        ssize_t got = pread(fd, text + n, k->max_bytes + 1 - n, (off_t)n);

        if (got == 0)
            break;
        if (got > 0)
            n += (size_t)got;
        else if (errno != EINTR)
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read %s '%s': %s", k->what, path,
                               strerror(errno));
    }
    if (!st && n > k->max_bytes)
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s '%s' is larger than %zu bytes", k->what, path, k->max_bytes);
    if (st) {
        explicit_bzero(text, n < k->max_bytes ? n : k->max_bytes);
        free(text);
        return st;
    }
    *out = text;
    *len = n;
    return TERN_OK;
}

enum tern_status tern_watched_read(struct tern_watched_file *w, const struct tern_watched_kind *kind,
                                   const char *path, char **text, size_t *len, struct tern_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    enum tern_status st;
    struct stat sb;

    memset(w->version, 0, sizeof w->version);
    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read %s '%s': %s%s", kind->what, path,
                             strerror(errno), kind->hint);
    if (fstat(fd, &sb) != 0) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read %s '%s': %s", kind->what, path,
                           strerror(errno));
    } else {
        version_of(&sb, w->version);
        st = check(kind, path, &sb, err);
        /* What fails here may do better the next time. */
        if (!st && (st = read_text(kind, fd, path, text, len, err)) && st != TERN_ERR_LIMIT)
            w->version[MTIME] = 0;
        if (is_fresh(w->version))
            w->version[MTIME] = 0;
    }
    close(fd);
    return st;
}

bool tern_watched_refuse(struct tern_watched_file *w)
{
    const bool said = w->refused && w->refused_ctime == w->version[CTIME];

    w->refused = true;
    w->refused_ctime = w->version[CTIME];
    return !said;
}

void tern_watched_accept(struct tern_watched_file *w)
{
    w->refused = false;
}
