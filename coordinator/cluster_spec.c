/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a cluster file and sharing out layers.  Both are pure functions of their input but for
 * cluster_spec_read, which only fetches the text.
 */
#include "coordinator/cluster_spec.h"

#include "engine/base/cursor.h"
#include "proto/endpoint.h"
#include "proto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES 65536u /* 64 workers of a line of 400 bytes are 25 KiB; the rest is for comments */
#define MAX_WORDS      5u     /* one more than a line may have */

/* The line at hand, for sentences. */
struct place {
    const char *name;
    uint32_t line;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static uint32_t split_words(struct tern_str line, struct tern_str words[static MAX_WORDS])
{
    uint32_t n = 0;

    for (size_t i = 0; i < line.len && n < MAX_WORDS;) {
        size_t from;

        while (i < line.len && is_blank(line.ptr[i]))
            i++;
        from = i;
        while (i < line.len && !is_blank(line.ptr[i]))
            i++;
        if (i > from)
            words[n++] = (struct tern_str){ line.ptr + from, i - from };
    }
    return n;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

static enum tern_status parse_name(const struct place *at, struct tern_str w, struct cluster_member *m,
                                   struct tern_err *err)
{
    if (w.len > TERN_MAX_NAME_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT,
                         "%s:%u: the worker's name has %zu characters, at most %d are allowed", at->name,
                         at->line, w.len, TERN_MAX_NAME_BYTES);
    for (size_t i = 0; i < w.len; i++)
        if (!is_name_char(w.ptr[i]))
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s:%u: the name '%.*s' may only have letters, digits, '.', '_' and '-'",
                             at->name, at->line, (int)w.len, w.ptr);
    memcpy(m->name, w.ptr, w.len);
    m->name[w.len] = '\0';
    return TERN_OK;
}

/* Digits only, at most five, below or equal to max. */
static bool parse_number(struct tern_str w, uint32_t max, uint32_t *out)
{
    uint32_t v = 0;

    if (w.len == 0 || w.len > 5)
        return false;
    for (size_t i = 0; i < w.len; i++) {
        if (w.ptr[i] < '0' || w.ptr[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(w.ptr[i] - '0');
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

static enum tern_status parse_endpoint(const struct place *at, struct tern_str w, struct cluster_member *m,
                                       struct tern_err *err)
{
    if (w.len > TERN_MAX_ENDPOINT_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "%s:%u: the address has %zu characters, at most %d are allowed",
                         at->name, at->line, w.len, TERN_MAX_ENDPOINT_BYTES);
    if (!tern_endpoint_valid(w.ptr, w.len))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s:%u: '%.*s' is not an address such as tcp://10.0.0.7:7700",
                         at->name, at->line, (int)w.len, w.ptr);
    memcpy(m->endpoint, w.ptr, w.len);
    m->endpoint[w.len] = '\0';
    return TERN_OK;
}

static enum tern_status parse_layers(const struct place *at, struct tern_str w, struct cluster_member *m,
                                     struct tern_err *err)
{
    struct tern_str range = w;
    uint32_t first = 0, final = 0;
    const char *dash;
    bool ok;

    if (w.len < 7 || memcmp(w.ptr, "layers=", 7) != 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s:%u: '%.*s' is not understood; layers=a-b may follow the key", at->name, at->line,
                         (int)(w.len < 60 ? w.len : 60), w.ptr);
    range = (struct tern_str){ w.ptr + 7, w.len - 7 };
    dash = memchr(range.ptr, '-', range.len);
    if (dash) {
        size_t left = (size_t)(dash - range.ptr);

        ok = parse_number((struct tern_str){ range.ptr, left }, TERN_MAX_LAYERS - 1, &first) &&
             parse_number((struct tern_str){ dash + 1, range.len - left - 1 }, TERN_MAX_LAYERS - 1, &final);
    } else {
        ok = parse_number(range, TERN_MAX_LAYERS - 1, &first);
        final = first;
    }
    if (!ok || first > final)
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s:%u: '%.*s' is not a range such as layers=0-14 (first and last layer, from 0 to %d)", at->name,
            at->line, (int)(w.len < 60 ? w.len : 60), w.ptr, TERN_MAX_LAYERS - 1);
    m->has_layers = true;
    m->first = first;
    m->last = final + 1;
    return TERN_OK;
}

static enum tern_status parse_line(const struct place *at, struct tern_str line, struct cluster_member *m,
                                   struct tern_err *err)
{
    struct tern_str w[MAX_WORDS];
    uint32_t n = split_words(line, w);
    enum tern_status st;

    memset(m, 0, sizeof *m);
    m->line = at->line;
    if (n < 3 || n > 4)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s:%u: %u words; a line is: name tcp://host:port PUBLICKEY [layers=a-b]", at->name,
                         at->line, n);
    st = parse_name(at, w[0], m, err);
    if (st == TERN_OK)
        st = parse_endpoint(at, w[1], m, err);
    if (st)
        return st;
    if (!tern_key_from_z85(w[2].ptr, w[2].len, m->key))
        return TERN_FAIL(
            err, TERN_ERR_FORMAT,
            "%s:%u: the third word is not a public key of %d characters (tern keygen prints one)", at->name,
            at->line, TERN_Z85_CHARS);
    return n == 4 ? parse_layers(at, w[3], m, err) : TERN_OK;
}

/* What one member may not have in common with those before it. */
static enum tern_status check_unique(const char *name, const struct cluster_spec *spec,
                                     const struct cluster_member *m, struct tern_err *err)
{
    for (uint32_t i = 0; i < spec->n; i++) {
        const struct cluster_member *o = &spec->members[i];

        if (strcmp(o->name, m->name) == 0)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s:%u: the name '%s' is already in line %u", name,
                             m->line, m->name, o->line);
        if (strcmp(o->endpoint, m->endpoint) == 0)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s:%u: the address %s is already in line %u", name,
                             m->line, m->endpoint, o->line);
        if (memcmp(o->key, m->key, TERN_KEY_BYTES) == 0)
            return TERN_FAIL(
                err, TERN_ERR_FORMAT,
                "%s:%u: the key of '%s' is already that of '%s'; every worker needs a key of its own", name,
                m->line, m->name, o->name);
        if (o->has_layers != m->has_layers)
            return TERN_FAIL(
                err, TERN_ERR_FORMAT,
                "%s:%u: line %u says its layers and line %u does not; either all lines do or none does", name,
                m->line, o->has_layers ? o->line : m->line, o->has_layers ? m->line : o->line);
    }
    return TERN_OK;
}

static bool line_is_empty(struct tern_str line)
{
    size_t i = 0;

    while (i < line.len && is_blank(line.ptr[i]))
        i++;
    return i == line.len || line.ptr[i] == '#';
}

/* Into *spec, which is the caller's own and may stay half filled. */
static enum tern_status parse_text(const char *name, const char *text, size_t len, struct cluster_spec *spec,
                                   struct tern_err *err)
{
    struct place at = { name, 0 };
    enum tern_status st;

    memset(spec, 0, sizeof *spec);
    for (size_t i = 0; i < len;) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - (text + i)) : len - i;
        struct tern_str line = { text + i, n };
        struct cluster_member m;

        at.line++;
        i += n + 1;
        if (memchr(line.ptr, '\0', line.len))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s:%u: a zero byte; this is not a text file", name,
                             at.line);
        if (line_is_empty(line))
            continue;
        st = parse_line(&at, line, &m, err);
        if (st == TERN_OK)
            st = check_unique(name, spec, &m, err);
        if (st)
            return st;
        if (spec->n == TERN_MAX_WORKERS)
            return TERN_FAIL(err, TERN_ERR_LIMIT, "%s:%u: more than %d workers", name, at.line,
                             TERN_MAX_WORKERS);
        spec->members[spec->n++] = m;
    }
    if (spec->n == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s names no worker; a line is: name tcp://host:port PUBLICKEY [layers=a-b]", name);
    return TERN_OK;
}

enum tern_status cluster_spec_parse(const char *name, const char *text, size_t len, struct cluster_spec *out,
                                    struct tern_err *err)
{
    struct cluster_spec *spec = malloc(sizeof *spec);
    enum tern_status st;

    if (!spec)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read %s", name);
    st = parse_text(name, text, len, spec, err);
    if (st == TERN_OK)
        *out = *spec;
    free(spec);
    return st;
}

enum tern_status cluster_spec_read(const char *path, struct cluster_spec *out, struct tern_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat sb;
    char *text = NULL;
    size_t n = 0;
    ssize_t got = 1;
    enum tern_status st = TERN_OK;

    if (fd < 0)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the cluster file '%s': %s", path,
                             strerror(errno));
    if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        st = TERN_FAIL(err, TERN_ERR_USAGE, "the cluster file '%s' is not a regular file", path);
    else if (!(text = malloc(MAX_FILE_BYTES + 1)))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to read '%s'", path);
    while (st == TERN_OK && got > 0 && n <= MAX_FILE_BYTES) {
        got = read(fd, text + n, MAX_FILE_BYTES + 1 - n);
        if (got < 0)
            st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot read the cluster file '%s': %s", path,
                               strerror(errno));
        else
            n += (size_t)got;
    }
    close(fd);
    if (st == TERN_OK && n > MAX_FILE_BYTES)
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "the cluster file '%s' is larger than %u bytes", path,
                       MAX_FILE_BYTES);
    if (st == TERN_OK)
        st = cluster_spec_parse(path, text, n, out, err);
    free(text);
    return st;
}

/* The file's own ranges: they must begin at 0, follow each other without gap or overlap, and end at
 * n_layers. */
static enum tern_status check_layers(const struct cluster_spec *spec, uint32_t n_layers, struct tern_err *err)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < spec->n; i++) {
        const struct cluster_member *m = &spec->members[i];

        if (m->first != next || m->last <= m->first)
            return TERN_FAIL(err, TERN_ERR_USAGE,
                             "worker '%s' (line %u of the cluster file) begins at layer %u, but layer %u is "
                             "the next one; workers "
                             "follow each other in the order of the layers",
                             m->name, m->line, m->first, next);
        next = m->last;
    }
    if (next != n_layers)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "the cluster file's layers end at %u, but the model has layers 0 to %u; change "
                         "layers= of the last "
                         "workers or leave all layers= away",
                         next - 1, n_layers - 1);
    return TERN_OK;
}

enum tern_status cluster_spec_plan(struct cluster_spec *spec, uint32_t n_layers, struct tern_err *err)
{
    uint32_t next = 0;

    if (spec->n == 0 || n_layers == 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "no workers, or a model without layers: there is nothing to share out");
    if (spec->n > n_layers)
        return TERN_FAIL(
            err, TERN_ERR_USAGE,
            "%u workers for a model of %u layers: each needs at least one layer, so use at most %u workers",
            spec->n, n_layers, n_layers);
    if (spec->members[0].has_layers)
        return check_layers(spec, n_layers, err);
    for (uint32_t i = 0; i < spec->n; i++) {
        struct cluster_member *m = &spec->members[i];

        m->first = next;
        m->last = next + n_layers / spec->n + (i < n_layers % spec->n ? 1 : 0);
        next = m->last;
    }
    return TERN_OK;
}
