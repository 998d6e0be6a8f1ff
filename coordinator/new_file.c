/* SPDX-License-Identifier: Apache-2.0 */
/* Files made beside their place: see new_file.h. */
#include "coordinator/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char pattern[] = "XXXXXX";

/* The folder of path. */
static void folder_of(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(out, cap, ".");
    else
        snprintf(out, cap, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static enum tern_status check_room(const char *folder, uint64_t bytes, struct tern_err *err)
{
    struct statvfs v;
    double free_bytes;

    if (statvfs(folder, &v) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to '%s': %s", folder, strerror(errno));
    free_bytes = (double)v.f_bavail * (double)v.f_frsize;
    if (free_bytes < (double)bytes)
        return TERN_FAIL(
            err, TERN_ERR_IO,
            "the model takes %.0f MB and the disk of '%s' has %.0f MB left; make room, or choose "
            "another place, a smaller model or a slice",
            (double)bytes / 1e6, folder, free_bytes / 1e6);
    return TERN_OK;
}

enum tern_status new_file_check(const char *path, bool force, struct tern_err *err)
{
    struct stat sb;

    if (strlen(path) + sizeof pattern + 1 > PATH_MAX)
        return TERN_FAIL(err, TERN_ERR_USAGE, "-o: the path is too long");
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is there and is no regular file; name another", path);
    if (!force && access(path, F_OK) == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' exists; name another, or add --force to replace it",
                         path);
    return TERN_OK;
}

enum tern_status new_file_open(struct new_file *n, const char *path, uint64_t bytes, bool quiet,
                               struct tern_err *err)
{
    const size_t len = strlen(path), tail = sizeof pattern - 1;
    const bool whole = len >= tail && strcmp(path + len - tail, pattern) == 0;
    char folder[PATH_MAX];
    enum tern_status st;
    int fd;

    if ((size_t)snprintf(n->temp, sizeof n->temp, "%s%s%s", path, whole ? "" : ".", whole ? "" : pattern) >=
        sizeof n->temp)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the path '%.60s...' is too long", path);
    folder_of(n->temp, folder, sizeof folder);
    if ((st = check_room(folder, bytes, err)))
        return st;
    if (!quiet)
        fprintf(stderr, "writing %.1f MB to %s\n", (double)bytes / 1e6, whole ? folder : path);
    fd = mkostemp(n->temp, O_CLOEXEC);
    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to '%s': %s", folder, strerror(errno));
    n->f = fdopen(fd, "wb");
    if (!n->f) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", n->temp, strerror(errno));
        close(fd);
        (void)unlink(n->temp);
    }
    return st;
}

enum tern_status new_file_close(struct new_file *n, struct tern_err *err)
{
    FILE *f = n->f;

    n->f = NULL;
    if (f && fclose(f) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", n->temp, strerror(errno));
    return TERN_OK;
}

/* What open() would have given it; mkostemp makes files for their owner alone. */
static void usual_mode(const char *path)
{
    mode_t mask = umask(0);

    umask(mask);
    (void)chmod(path, 0666 & ~mask);
}

enum tern_status new_file_rename(struct new_file *n, const char *path, struct tern_err *err)
{
    enum tern_status st;

    if (fflush(n->f) != 0 || fsync(fileno(n->f)) != 0) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", n->temp, strerror(errno));
        new_file_remove(n);
        return st;
    }
    if ((st = new_file_close(n, err))) {
        new_file_remove(n);
        return st;
    }
    usual_mode(n->temp);
    if (rename(n->temp, path) != 0) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
        new_file_remove(n);
    }
    return st;
}

void new_file_remove(struct new_file *n)
{
    if (n->f)
        fclose(n->f);
    n->f = NULL;
    (void)unlink(n->temp);
}
