/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic models as files: see synthetic_file.h. */
#include "coordinator/synthetic_file.h"

#include "coordinator/progress.h"
#include "engine/quant_row.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* -- options --------------------------------------------------------------------------------------------- */

enum tern_status synthetic_file_shape(const char *name, struct tern_synthetic *out, struct tern_err *err)
{
    char known[TERN_ERR_TEXT_BYTES] = "";

    if (tern_synthetic_by_name(name, out))
        return TERN_OK;
    for (size_t i = 0; tern_synthetic_name(i); i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 tern_synthetic_name(i));
    return TERN_FAIL(err, TERN_ERR_USAGE, "--synthetic: no shape is called '%.40s'; there are %s", name,
                     known);
}

enum tern_status synthetic_file_type(const char *name, uint32_t *out, struct tern_err *err)
{
    uint32_t type;

    if (!tern_quant_type_by_name(name, &type) ||
        (type != TERN_TYPE_I2_S && type != TERN_TYPE_TQ1_0 && type != TERN_TYPE_TQ2_0))
        return TERN_FAIL(err, TERN_ERR_USAGE, "--type: '%.40s' is not i2_s, tq1_0 or tq2_0", name);
    *out = type;
    return TERN_OK;
}

enum tern_status synthetic_file_embd(const char *name, uint32_t *out, struct tern_err *err)
{
    uint32_t type;
    size_t elems, bytes;

    if (!tern_quant_type_by_name(name, &type) || !tern_dtype_block(type, &elems, &bytes))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "--embd-type: '%.40s' is not f32, f16, bf16, q8_0, q6_k, q4_0 or q4_k", name);
    *out = type;
    return TERN_OK;
}

/* -- the file -------------------------------------------------------------------------------------------- */

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
            "another place, a smaller shape or a slice",
            (double)bytes / 1e6, folder, free_bytes / 1e6);
    return TERN_OK;
}

static enum tern_status write_to(const struct tern_synthetic *s, int fd, const char *path,
                                 const struct synthetic_file_options *o, struct tern_err *err)
{
    struct progress progress;
    struct tern_kernels kern;
    struct tern_pool *pool = NULL;
    FILE *f = fdopen(fd, "wb");
    enum tern_status st;

    if (!f) {
        close(fd);
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
    }
    tern_kernels_init(&kern, o->cpu);
    progress_begin(&progress, "writing the model", o->quiet);
    if (!(st = tern_pool_new(o->threads, &pool, err)))
        st = tern_synthetic_write(s, f, path, pool, &kern, progress_update, &progress, err);
    progress_end(&progress);
    tern_pool_free(&pool);
    if (fclose(f) != 0 && !st)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
    return st;
}

/* temp: a template for mkostemp, in the folder of what will be; gets the name of a whole file. */
static enum tern_status make_temp(const struct tern_synthetic *s, char *temp,
                                  const struct synthetic_file_options *o, struct tern_err *err)
{
    char folder[PATH_MAX];
    uint64_t bytes;
    enum tern_status st = tern_synthetic_bytes(s, &bytes, err);
    int fd;

    folder_of(temp, folder, sizeof folder);
    if (st || (st = check_room(folder, bytes, err)))
        return st;
    if (!o->quiet)
        fprintf(stderr, "writing %.1f MB to %s\n", (double)bytes / 1e6, folder);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write to '%s': %s", folder, strerror(errno));
    st = write_to(s, fd, temp, o, err);
    if (st)
        (void)unlink(temp);
    return st;
}

/* What open() would have given it; mkostemp makes files for their owner alone. */
static void usual_mode(const char *path)
{
    mode_t mask = umask(0);

    umask(mask);
    (void)chmod(path, 0666 & ~mask);
}

enum tern_status synthetic_file_write(const struct tern_synthetic *s, const char *path,
                                      const struct synthetic_file_options *o, struct tern_err *err)
{
    char temp[PATH_MAX];
    struct stat sb;
    enum tern_status st;

    if ((size_t)snprintf(temp, sizeof temp, "%s.XXXXXX", path) >= sizeof temp)
        return TERN_FAIL(err, TERN_ERR_USAGE, "-o: the path is too long");
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is there and is no regular file; name another", path);
    if (!o->force && access(path, F_OK) == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' exists; name another, or add --force to replace it",
                         path);
    if ((st = make_temp(s, temp, o, err)))
        return st;
    usual_mode(temp);
    if (rename(temp, path) != 0) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
        (void)unlink(temp);
    }
    return st;
}

enum tern_status synthetic_file_temporary(const struct tern_synthetic *s,
                                          const struct synthetic_file_options *o, char *path, size_t cap,
                                          struct tern_err *err)
{
    const char *dir = getenv("TMPDIR");
    char temp[PATH_MAX];
    enum tern_status st;

    if (!dir || dir[0] != '/')
        dir = "/var/tmp"; /* on a disk, where /tmp may be memory */
    if ((size_t)snprintf(temp, sizeof temp, "%s/tern-%s-XXXXXX", dir, s->name) >= sizeof temp ||
        strlen(temp) >= cap)
        return TERN_FAIL(err, TERN_ERR_USAGE, "TMPDIR is too long");
    if (!(st = make_temp(s, temp, o, err)))
        snprintf(path, cap, "%s", temp);
    return st;
}
