/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/allow.h"

#include "engine/base/log.h"
#include "proto/keys.h"
#include "proto/wire_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILE_BYTES ((size_t)1 << 20)
#define MAX_ENTRIES    4096

/* A piece of a line between blanks. */
struct word {
    const char *at;
    size_t len;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Words of a line, at most max + 1 are counted. */
static unsigned split(const char *line, size_t len, struct word *words, unsigned max)
{
    unsigned n = 0;
    size_t i = 0;

    for (;;) {
        size_t begin;

        while (i < len && is_blank(line[i]))
            i++;
        if (i == len)
            return n;
        if (n == max)
            return n + 1;
        begin = i;
        while (i < len && !is_blank(line[i]))
            i++;
        words[n++] = (struct word){ line + begin, i - begin };
    }
}

static bool word_is(struct word w, const char *z)
{
    return w.len == strlen(z) && memcmp(w.at, z, w.len) == 0;
}

static enum tern_status parse_entry(const char *name, unsigned no, const struct word words[static 3],
                                    unsigned n_words, struct tern_allow_entry *e, struct tern_err *err)
{
    memset(e, 0, sizeof *e);
    if (n_words != 3)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a line is `name role key`", name, no);
    if (words[0].len > TERN_MAX_NAME_BYTES ||
        !tern_wire_text_valid((const uint8_t *)words[0].at, words[0].len))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a name is at most %d bytes of plain UTF-8 text",
                         name, no, TERN_MAX_NAME_BYTES);
    memcpy(e->name, words[0].at, words[0].len);
    if (word_is(words[1], "coordinator"))
        e->role = TERN_ROLE_COORDINATOR;
    else if (word_is(words[1], "worker"))
        e->role = TERN_ROLE_WORKER;
    else
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s, line %u: the role of '%s' is neither 'coordinator' nor 'worker'", name, no,
                         e->name);
    if (!tern_key_from_z85(words[2].at, words[2].len, e->key))
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s, line %u: the key of '%s' is not %d characters of Z85, as tern keygen prints them", name, no,
            e->name, TERN_Z85_CHARS);
    return TERN_OK;
}

static const struct tern_allow_entry *find(const struct tern_allow_entry *entries, size_t n,
                                           const uint8_t key[static TERN_KEY_BYTES])
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(entries[i].key, key, TERN_KEY_BYTES) == 0)
            return &entries[i];
    return NULL;
}

static enum tern_status grow(struct tern_allow_entry **list, size_t n, size_t *cap, const char *name,
                             struct tern_err *err)
{
    size_t more = *cap ? *cap * 2 : 16;
    struct tern_allow_entry *bigger;

    if (n < *cap)
        return TERN_OK;
    if (n >= MAX_ENTRIES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s has more than %d entries", name, MAX_ENTRIES);
    bigger = realloc(*list, more * sizeof **list);
    if (!bigger)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the list of %s", name);
    *list = bigger;
    *cap = more;
    return TERN_OK;
}

enum tern_status tern_allow_parse(const char *name, const char *text, size_t len,
                                  struct tern_allow_entry **entries, size_t *n, struct tern_err *err)
{
    struct tern_allow_entry *list = NULL;
    size_t count = 0, cap = 0;
    enum tern_status st = TERN_OK;
    unsigned no = 0;

    for (size_t at = 0; at < len && !st;) {
        const char *line = text + at, *newline = memchr(line, '\n', len - at);
        size_t line_len = newline ? (size_t)(newline - line) : len - at;
        struct word words[3];
        unsigned n_words = split(line, line_len, words, 3);
        const struct tern_allow_entry *twin;

        at += line_len + 1;
        no++;
        if (n_words == 0 || words[0].at[0] == '#')
            continue;
        st = grow(&list, count, &cap, name, err);
        if (!st)
            st = parse_entry(name, no, words, n_words, &list[count], err);
        if (st)
            break;
        twin = find(list, count, list[count].key);
        if (twin)
            st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: '%s' has the key of '%s'; a key has one line",
                           name, no, list[count].name, twin->name);
        count++;
    }
    if (st) {
        free(list);
        return st;
    }
    *entries = list;
    *n = count;
    return TERN_OK;
}

static uint64_t mtime_ns(const struct stat *sb)
{
    return (uint64_t)sb->st_mtim.tv_sec * 1000000000u + (uint64_t)sb->st_mtim.tv_nsec;
}

static void stamp_of(const struct stat *sb, uint64_t stamp[static 4])
{
    stamp[0] = (uint64_t)sb->st_dev;
    stamp[1] = (uint64_t)sb->st_ino;
    stamp[2] = (uint64_t)sb->st_size;
    stamp[3] = mtime_ns(sb);
}

/* A file written in this very second may be written again without its time changing: its stamp must not
 * match the next time. */
static bool is_fresh(const struct stat *sb)
{
    struct timespec now;
    uint64_t t, m = mtime_ns(sb);

    clock_gettime(CLOCK_REALTIME, &now);
    t = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return (t > m ? t - m : m - t) < 1000000000u;
}

static enum tern_status check_file(const char *path, const struct stat *sb, struct tern_err *err)
{
    if (!S_ISREG(sb->st_mode))
        return TERN_FAIL(err, TERN_ERR_IO, "the allow-list '%s' is not a regular file", path);
    if (sb->st_uid != geteuid() && sb->st_uid != 0)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "the allow-list '%s' belongs to user %u, not to root or to user %u who runs this",
                         path, (unsigned)sb->st_uid, (unsigned)geteuid());
    if (sb->st_mode & 022)
        return TERN_FAIL(err, TERN_ERR_IO,
                         "the allow-list '%s' can be written by others (mode %04o); run: chmod go-w %s", path,
                         (unsigned)(sb->st_mode & 07777), path);
    if ((uint64_t)sb->st_size > MAX_FILE_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the allow-list '%s' is larger than %zu bytes", path,
                         MAX_FILE_BYTES);
    return TERN_OK;
}

/* At most one byte more than the limit is asked for, whatever fstat said. */
static enum tern_status read_text(int fd, const char *path, char **out, size_t *len, struct tern_err *err)
{
    char *text = malloc(MAX_FILE_BYTES + 1);
    size_t n = 0;

    if (!text)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read the allow-list '%s'", path);
    while (n <= MAX_FILE_BYTES) {
        ssize_t got = pread(fd, text + n, MAX_FILE_BYTES + 1 - n, (off_t)n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            enum tern_status st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno,
                                                "cannot read the allow-list '%s': %s", path, strerror(errno));
            free(text);
            return st;
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n > MAX_FILE_BYTES) {
        free(text);
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the allow-list '%s' is larger than %zu bytes", path,
                         MAX_FILE_BYTES);
    }
    *out = text;
    *len = n;
    return TERN_OK;
}

/* What is on disk now; *stamp is set whenever the file could be looked at. */
static enum tern_status load(const char *path, struct tern_allow_entry **entries, size_t *n,
                             uint64_t stamp[static 4], struct tern_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat sb;
    char *text = NULL;
    size_t len = 0;
    enum tern_status st;

    if (fd < 0)
        return TERN_FAIL_SYS(
            err, TERN_ERR_IO, errno,
            "cannot read the allow-list '%s': %s; it has a line `name role key` for each peer", path,
            strerror(errno));
    if (fstat(fd, &sb) != 0) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the allow-list '%s': %s", path,
                           strerror(errno));
    } else {
        stamp_of(&sb, stamp);
        if (is_fresh(&sb))
            stamp[3] = 0;
        st = check_file(path, &sb, err);
    }
    if (!st)
        st = read_text(fd, path, &text, &len, err);
    if (!st)
        st = tern_allow_parse(path, text, len, entries, n, err);
    free(text);
    close(fd);
    return st;
}

/* Legal, since a line may come later, but hardly ever what is meant. */
static void warn_if_empty(const struct tern_allow *a)
{
    if (a->n == 0)
        tern_log(TERN_LOG_WARN, "allow.empty",
                 "nobody may connect; add a line `NAME coordinator PUBLICKEY` to %s", a->path);
}

enum tern_status tern_allow_open(const char *path, struct tern_allow *out, struct tern_err *err)
{
    struct tern_allow a = { .entries = NULL };
    enum tern_status st;

    if (strlen(path) >= sizeof a.path)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the path of the allow-list is longer than %zu bytes",
                         sizeof a.path - 1);
    memcpy(a.path, path, strlen(path) + 1);
    st = load(path, &a.entries, &a.n, a.stamp, err);
    if (st)
        return st;
    *out = a;
    warn_if_empty(out);
    return TERN_OK;
}

void tern_allow_close(struct tern_allow *a)
{
    free(a->entries);
    memset(a, 0, sizeof *a);
}

/* Takes the new list over; true when it says something else than the old one. */
static bool replace(struct tern_allow *a, struct tern_allow_entry *entries, size_t n)
{
    bool same = n == a->n && (n == 0 || memcmp(entries, a->entries, n * sizeof *entries) == 0);

    free(a->entries);
    a->entries = entries;
    a->n = n;
    return !same;
}

void tern_allow_refresh(struct tern_allow *a, bool *changed)
{
    struct tern_allow_entry *entries = NULL;
    uint64_t stamp[4] = { 0 }, now[4];
    struct tern_err err;
    struct stat sb;
    bool gone = stat(a->path, &sb) != 0 && (errno == ENOENT || errno == ENOTDIR);
    size_t n = 0;

    *changed = false;
    if (gone) {
        *changed = replace(a, NULL, 0);
        if (!a->complained || a->stamp[1] != 0)
            tern_log(TERN_LOG_WARN, "allow.gone", "path=%s nobody may connect until it is there again",
                     a->path);
        memset(a->stamp, 0, sizeof a->stamp);
        a->complained = true;
        return;
    }
    /* A version that was refused is tried again: chmod leaves the stamp as it is. */
    stamp_of(&sb, now);
    if (!a->complained && memcmp(now, a->stamp, sizeof now) == 0)
        return;
    if (load(a->path, &entries, &n, stamp, &err)) {
        bool same = a->complained && memcmp(stamp, a->stamp, 3 * sizeof stamp[0]) == 0;

        if (!same)
            tern_log(TERN_LOG_WARN, "allow.refused", "%s; the old list stays in force", err.text);
        memcpy(a->stamp, stamp, sizeof stamp);
        a->complained = true;
        return;
    }
    *changed = replace(a, entries, n);
    memcpy(a->stamp, stamp, sizeof stamp);
    a->complained = false;
    if (*changed) {
        tern_log(TERN_LOG_INFO, "allow.read", "path=%s entries=%zu", a->path, n);
        warn_if_empty(a);
    }
}

const struct tern_allow_entry *tern_allow_find(const struct tern_allow *a,
                                               const uint8_t key[static TERN_KEY_BYTES])
{
    return find(a->entries, a->n, key);
}
