/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a repository on the disk: see pull.h.
 *
 * What is on its way is named after the content's own name (SHA-256 or git's), and the address has the
 * commit in it: so a part can only be continued by bytes of the same file, whatever the server has changed
 * meanwhile (no If-Range is needed), and what has no such name is begun afresh.  The SHA-256 is taken while
 * bytes come.
 */
#include "coordinator/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct place {
    char path[PATH_MAX];  /* of the whole file */
    char part[PATH_MAX];  /* on its way */
    char note[PATH_MAX];  /* of what was checked */
    char older[PATH_MAX]; /* pattern of parts of the same file, this one among them */
};

struct file_sink {
    struct pull_sink sink; /* first */
    const char *name;
    int fd;
    crypto_hash_sha256_state sha;
};

/* -- places ---------------------------------------------------------------------------------------------- */

static bool join(char out[static PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);

    return n > 0 && n < PATH_MAX;
}

static enum tern_status find_place(const struct pull_job *job, const struct pull_entry *e, struct place *p,
                                   struct tern_err *err)
{
    uint8_t hash[16];
    char hex[33], name[128];
    bool ok;

    crypto_generichash(hash, sizeof hash, (const uint8_t *)e->path, strlen(e->path), NULL, 0);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    ok = join(p->path, job->folder, e->path);
    (void)snprintf(name, sizeof name, ".pull/%s.%.16s.part", hex, *e->id ? e->id : "new");
    ok = ok && join(p->part, job->folder, name);
    (void)snprintf(name, sizeof name, ".pull/%s.whole", hex);
    ok = ok && join(p->note, job->folder, name);
    (void)snprintf(name, sizeof name, ".pull/%s.*.part", hex);
    ok = ok && join(p->older, job->folder, name);
    if (!ok)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its place has a name of more than %d bytes", e->path,
                         PATH_MAX);
    return TERN_OK;
}

/* The folders above path. */
static enum tern_status make_folders(char *path, struct tern_err *err)
{
    for (char *p = path + 1; (p = strchr(p, '/')) != NULL; p++) {
        int rc;

        *p = '\0';
        rc = mkdir(path, 0777);
        if (rc != 0 && errno != EEXIST) {
            enum tern_status st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot make the folder '%s': %s",
                                                path, strerror(errno));

            *p = '/';
            return st;
        }
        *p = '/';
    }
    return TERN_OK;
}

/* -- what is there already ------------------------------------------------------------------------------- */

/* What a note says of the file that was checked. */
static void describe(const struct pull_entry *e, const struct stat *sb, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s %lld %lld.%09ld\n", e->id, (long long)sb->st_size,
                   (long long)sb->st_mtim.tv_sec, sb->st_mtim.tv_nsec);
}

static void write_note(const struct place *p, const struct pull_entry *e)
{
    char text[160];
    struct stat sb;
    FILE *f;

    if (!*e->id || stat(p->path, &sb) != 0)
        return;
    describe(e, &sb, text, sizeof text);
    f = fopen(p->note, "w");
    if (!f)
        return; /* the file will be checked once more, that is all */
    fputs(text, f);
    fclose(f);
}

static bool has_note(const struct place *p, const struct pull_entry *e, const struct stat *sb)
{
    char text[160], noted[160] = "";
    FILE *f = *e->id ? fopen(p->note, "r") : NULL;

    if (!f)
        return false;
    if (!fgets(noted, sizeof noted, f))
        noted[0] = '\0';
    fclose(f);
    describe(e, sb, text, sizeof text);
    return strcmp(text, noted) == 0;
}

/* Takes n bytes of fd from its beginning into the hash. */
static bool hash_file(int fd, uint64_t n, crypto_hash_sha256_state *sha)
{
    static uint8_t buf[1 << 16];
    uint64_t at = 0;

    crypto_hash_sha256_init(sha);
    while (at < n) {
        ssize_t got = pread(fd, buf, sizeof buf < n - at ? sizeof buf : (size_t)(n - at), (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        crypto_hash_sha256_update(sha, buf, (size_t)got);
        at += (uint64_t)got;
    }
    return true;
}

static bool is_hash(crypto_hash_sha256_state *sha, const char *id)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof hash + 1];

    crypto_hash_sha256_final(sha, hash);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    return strcmp(hex, id) == 0;
}

/* The file is whole: as it was noted, or by its SHA-256, which is then noted. */
static bool is_whole(const struct place *p, const struct pull_entry *e)
{
    crypto_hash_sha256_state sha;
    struct stat sb;
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool whole = false;

    if (fd < 0)
        return false;
    if (fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) && e->has_size && (uint64_t)sb.st_size == e->size) {
        whole = has_note(p, e, &sb);
        if (!whole && e->is_sha256 && hash_file(fd, e->size, &sha) && is_hash(&sha, e->id)) {
            whole = true;
            write_note(p, e);
        }
    }
    close(fd);
    return whole;
}

/* -- loading --------------------------------------------------------------------------------------------- */

static enum tern_status fail_write(const struct file_sink *f, int no, struct tern_err *err)
{
    if (no == ENOSPC || no == EDQUOT)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, no,
                             "%s: the disk is full; make room (or set TERN_MODELS to another folder) and run "
                             "the same command again",
                             f->name);
    return TERN_FAIL_SYS(err, TERN_ERR_IO, no, "%s: cannot write what comes: %s", f->name, strerror(no));
}

static enum tern_status put(struct pull_sink *s, const void *bytes, size_t n, struct tern_err *err)
{
    struct file_sink *f = (struct file_sink *)s;
    const uint8_t *p = bytes;
    size_t at = 0;

    while (at < n) {
        ssize_t did = pwrite(f->fd, p + at, n - at, (off_t)(s->have + at));

        if (did < 0 && errno == EINTR)
            continue;
        if (did <= 0)
            return fail_write(f, did < 0 ? errno : ENOSPC, err);
        at += (size_t)did;
    }
    crypto_hash_sha256_update(&f->sha, p, n);
    return TERN_OK;
}

static enum tern_status restart(struct pull_sink *s, struct tern_err *err)
{
    struct file_sink *f = (struct file_sink *)s;

    if (ftruncate(f->fd, 0) != 0)
        return fail_write(f, errno, err);
    crypto_hash_sha256_init(&f->sha);
    return TERN_OK;
}

/* Parts of what the file was before. */
static void remove_older(const struct place *p)
{
    glob_t found;

    if (glob(p->older, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            if (strcmp(found.gl_pathv[i], p->part) != 0)
                (void)unlink(found.gl_pathv[i]);
        globfree(&found);
    }
}

static enum tern_status check_room(const struct file_sink *f, const char *part, struct tern_err *err)
{
    struct statvfs v;
    uint64_t room, need;

    if (f->sink.size == UINT64_MAX || fstatvfs(f->fd, &v) != 0)
        return TERN_OK;
    room = (uint64_t)v.f_bavail * v.f_frsize;
    need = f->sink.size - f->sink.have;
    if (need > room)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "%s: %.0f MB are to be loaded and the disk has room for %.0f; make room, or set "
                         "TERN_MODELS to another folder (now: %.150s)",
                         f->name, (double)need / 1e6, (double)room / 1e6, part);
    return TERN_OK;
}

/* Opens the part, ours alone, and takes in what it has. */
static enum tern_status open_part(const struct place *p, const struct pull_entry *e, struct file_sink *f,
                                  struct tern_err *err)
{
    struct stat sb;

    f->fd = open(p->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (f->fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", p->part, strerror(errno));
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
        return TERN_FAIL(err, TERN_ERR_BUSY, "%s: another tern pull is loading it; wait for that one",
                         e->path);
    if (fstat(f->fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_IO, "'%s' is not a regular file; remove it", p->part);
    f->sink.have = *e->id && sb.st_size > 0 ? (uint64_t)sb.st_size : 0;
    if (f->sink.have > f->sink.size || !hash_file(f->fd, f->sink.have, &f->sha))
        f->sink.have = 0;
    return f->sink.have == 0 ? restart(&f->sink, err) : check_room(f, p->part, err);
}

/* The part is whole: checked, under its name, noted. */
static enum tern_status settle(const struct place *p, const struct pull_entry *e, struct file_sink *f,
                               struct tern_err *err)
{
    if (e->is_sha256 && !is_hash(&f->sha, e->id)) {
        (void)unlink(p->part);
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: what came does not have the SHA-256 of the listing, %.12s...; it was removed: "
                         "run the same command again",
                         e->path, e->id);
    }
    if (fsync(f->fd) != 0)
        return fail_write(f, errno, err);
    if (rename(p->part, p->path) != 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot name '%s': %s", p->path, strerror(errno));
    write_note(p, e);
    return TERN_OK;
}

static enum tern_status load_part(const struct pull_job *job, const struct pull_entry *e, struct file_sink *f,
                                  struct tern_err *err)
{
    char path[PULL_MAX_URL], revision[3 * PULL_MAX_REVISION + 1], file[3 * PULL_MAX_PATH + 1];

    if (f->sink.have == f->sink.size)
        return TERN_OK;
    if (!pull_escape(job->revision, false, revision, sizeof revision) ||
        !pull_escape(e->path, true, file, sizeof file) ||
        (size_t)snprintf(path, sizeof path, "/%s/resolve/%s/%s", job->spec->repo, revision, file) >=
            sizeof path)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s: its address is too long", e->path);
    return pull_http_fetch(job->http, path, job->spec->repo, e->path, &f->sink, err);
}

static void say_kept(const struct pull_job *job, const struct pull_entry *e, const struct file_sink *f)
{
    if (!job->quiet && *e->id && f->sink.have)
        fprintf(stderr, "tern pull: %s: %.1f of %.1f MB are kept; the same command goes on from there\n",
                e->path, (double)f->sink.have / 1e6, (double)e->size / 1e6);
}

enum tern_status pull_file_load(const struct pull_job *job, const struct pull_entry *e, bool *fresh,
                                struct tern_err *err)
{
    struct file_sink f = { .name = e->path, .fd = -1 };
    struct place p;
    enum tern_status st;

    if ((st = find_place(job, e, &p, err)))
        return st;
    *fresh = job->force || !is_whole(&p, e);
    if (!*fresh)
        return TERN_OK;
    f.sink.size = e->has_size ? e->size : UINT64_MAX;
    f.sink.max = PULL_MAX_FILE;
    f.sink.pinned = *e->id != '\0';
    f.sink.put = put;
    f.sink.restart = restart;
    if ((st = make_folders(p.part, err)) || (st = make_folders(p.path, err)))
        return st;
    remove_older(&p);
    if (!(st = open_part(&p, e, &f, err)) && !(st = check_room(&f, p.part, err))) {
        st = load_part(job, e, &f, err);
        if (st)
            say_kept(job, e, &f);
        else
            st = settle(&p, e, &f, err);
    }
    if (f.fd >= 0)
        close(f.fd);
    return st;
}
