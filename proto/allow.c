/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/allow.h"

#include "engine/base/log.h"
#include "proto/keys.h"
#include "proto/wire_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 4096

static const struct tern_watched_kind kind = {
    .what = "the allow-list",
    .hint = "; it has a line `name role key` for each peer",
    .open = "can be written by others",
    .remedy = "chmod go-w",
    .forbidden = 022,
    .forbidden_of_root = 022,
    .max_bytes = (size_t)1 << 20,
};

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

/* What is on disk now. */
static enum tern_status load(struct tern_watched_file *w, const char *path, struct tern_allow_entry **entries,
                             size_t *n, struct tern_err *err)
{
    char *text = NULL;
    size_t len = 0;
    enum tern_status st = tern_watched_read(w, &kind, path, &text, &len, err);

    if (!st)
        st = tern_allow_parse(path, text, len, entries, n, err);
    free(text);
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
    st = load(&a.watched, path, &a.entries, &a.n, err);
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
    const enum tern_watched_news news = tern_watched_look(&a->watched, a->path);
    struct tern_allow_entry *entries = NULL;
    struct tern_err err;
    size_t n = 0;

    *changed = false;
    if (news == TERN_WATCHED_SAME)
        return;
    if (news == TERN_WATCHED_GONE) {
        *changed = replace(a, NULL, 0);
        if (tern_watched_refuse(&a->watched))
            tern_log(TERN_LOG_WARN, "allow.gone", "path=%s nobody may connect until it is there again",
                     a->path);
        return;
    }
    if (load(&a->watched, a->path, &entries, &n, &err)) {
        if (tern_watched_refuse(&a->watched))
            tern_log(TERN_LOG_WARN, "allow.refused", "%s; the old list stays in force", err.text);
        return;
    }
    tern_watched_accept(&a->watched);
    *changed = replace(a, entries, n);
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
