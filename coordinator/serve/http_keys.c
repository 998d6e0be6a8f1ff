/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/http_keys.h"

#include "engine/base/log.h"
#include "engine/base/watched_file.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_KEY 16 /* shorter ones are worth a warning */

/* Root may hand a secret to a service through its group. */
static const struct tern_watched_kind kind = {
    .what = "the file of API keys",
    .hint = "",
    .open = "is open to others",
    .remedy = "chmod 600",
    .forbidden = 077,
    .forbidden_of_root = 037,
    .max_bytes = (size_t)1 << 19,
};

struct http_keys {
    pthread_mutex_t lock;
    char *path;
    uint8_t salt[HTTP_KEY_DIGEST_BYTES];
    struct http_key *list; /* [n] */
    size_t n;
    struct tern_watched_file watched;
};

_Static_assert(HTTP_KEY_DIGEST_BYTES == crypto_generichash_BYTES, "one length of digests");

static void digest_of(const uint8_t salt[static HTTP_KEY_DIGEST_BYTES], const char *text, size_t len,
                      uint8_t out[static HTTP_KEY_DIGEST_BYTES])
{
    crypto_generichash(out, HTTP_KEY_DIGEST_BYTES, (const uint8_t *)text, len, salt, HTTP_KEY_DIGEST_BYTES);
}

static uint64_t number_of(const uint8_t digest[static HTTP_KEY_DIGEST_BYTES])
{
    uint64_t n;

    memcpy(&n, digest, sizeof n);
    return n;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f)
            return false;
    return true;
}

/* A piece of a line between blanks. */
struct word {
    const char *at;
    size_t len;
};

/* Words of a line, at most 3 are counted. */
static unsigned split(const char *line, size_t len, struct word words[static 2])
{
    unsigned n = 0;

    for (size_t i = 0; i < len;) {
        size_t begin;

        while (i < len && is_blank(line[i]))
            i++;
        for (begin = i; i < len && !is_blank(line[i]);)
            i++;
        if (i == begin)
            break;
        if (n == 2)
            return 3;
        words[n++] = (struct word){ line + begin, i - begin };
    }
    return n;
}

static enum tern_status parse_line(const char *path, unsigned no, const struct word *words, unsigned n_words,
                                   const uint8_t *salt, struct http_key *out, struct tern_err *err)
{
    struct word name = { "", 0 }, key = words[0];
    uint8_t digest[HTTP_KEY_DIGEST_BYTES];

    if (n_words == 2) {
        name = words[0];
        key = words[1];
    }
    /* The line is not quoted: it is a secret. */
    if (n_words > 2)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a line is `key` or `name key`", path, no);
    if (name.len > HTTP_MAX_KEY_NAME || !is_printable(name.at, name.len))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a name is at most %d characters of ASCII", path,
                         no, HTTP_MAX_KEY_NAME);
    if (key.len > HTTP_MAX_KEY_BYTES || !is_printable(key.at, key.len))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a key is at most %d characters of ASCII", path,
                         no, HTTP_MAX_KEY_BYTES);
    digest_of(salt, key.at, key.len, out->digest);
    out->client = number_of(out->digest);
    if (name.len) {
        digest_of(salt, name.at, name.len, digest);
        out->client = number_of(digest);
    }
    out->line = no;
    out->is_short = key.len < SHORT_KEY;
    return TERN_OK;
}

static void warn_of_short(const char *path, const struct http_key *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].is_short)
            tern_log(TERN_LOG_WARN, "keys.short",
                     "%s, line %u: a key of less than %d characters can be guessed; one that cannot: openssl "
                     "rand -hex 24",
                     path, list[i].line, SHORT_KEY);
}

static bool has(const struct http_key *list, size_t n, const struct http_key *key)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(list[i].digest, key->digest, sizeof key->digest) == 0)
            return true;
    return false;
}

static void free_list(struct http_key *list, size_t n)
{
    if (list)
        sodium_memzero(list, n * sizeof *list);
    free(list);
}

enum tern_status http_keys_parse(const char *path, const char *text, size_t len,
                                 const uint8_t salt[static HTTP_KEY_DIGEST_BYTES], struct http_key **out,
                                 size_t *n, struct tern_err *err)
{
    struct http_key *list = calloc(HTTP_MAX_KEYS, sizeof *list);
    enum tern_status st = TERN_OK;
    size_t count = 0;
    unsigned no = 0;

    if (!list)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the keys of %s", path);
    for (size_t at = 0; at < len && !st;) {
        const char *line = text + at, *newline = memchr(line, '\n', len - at);
        size_t line_len = newline ? (size_t)(newline - line) : len - at;
        struct word words[2];
        unsigned n_words = split(line, line_len, words);

        at += line_len + 1;
        no++;
        if (n_words == 0 || words[0].at[0] == '#')
            continue;
        if (count == HTTP_MAX_KEYS) {
            st = TERN_FAIL(err, TERN_ERR_LIMIT, "%s has more than %d keys", path, HTTP_MAX_KEYS);
            break;
        }
        st = parse_line(path, no, words, n_words, salt, &list[count], err);
        if (!st && has(list, count, &list[count]))
            st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %u: a key of an earlier line; each has one line",
                           path, no);
        count++;
    }
    if (!st && count == 0)
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s has no key; add a line `key` or `name key`", path);
    if (st) {
        free_list(list, HTTP_MAX_KEYS);
        return st;
    }
    *out = list;
    *n = count;
    return TERN_OK;
}

/* What is on disk now. */
static enum tern_status load(struct http_keys *k, struct http_key **list, size_t *n, struct tern_err *err)
{
    char *text = NULL;
    size_t len = 0;
    enum tern_status st = tern_watched_read(&k->watched, &kind, k->path, &text, &len, err);

    if (st)
        return st;
    st = http_keys_parse(k->path, text, len, k->salt, list, n, err);
    sodium_memzero(text, len);
    free(text);
    return st;
}

enum tern_status http_keys_open(const char *path, struct http_keys **out, struct tern_err *err)
{
    struct http_keys *k;
    enum tern_status st;

    if (sodium_init() < 0)
        return TERN_FAIL(err, TERN_ERR_IO, "the system has no source of random numbers");
    k = calloc(1, sizeof *k);
    if (k)
        k->path = strdup(path);
    if (!k || !k->path) {
        free(k);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the keys of %s", path);
    }
    randombytes_buf(k->salt, sizeof k->salt);
    st = load(k, &k->list, &k->n, err);
    if (st) {
        free(k->path);
        free(k);
        return st;
    }
    pthread_mutex_init(&k->lock, NULL);
    warn_of_short(path, k->list, k->n);
    *out = k;
    return TERN_OK;
}

void http_keys_close(struct http_keys **k)
{
    if (!*k)
        return;
    pthread_mutex_destroy(&(*k)->lock);
    free_list((*k)->list, (*k)->list ? HTTP_MAX_KEYS : 0);
    free((*k)->path);
    sodium_memzero(*k, sizeof **k);
    free(*k);
    *k = NULL;
}

static void replace(struct http_keys *k, struct http_key *list, size_t n)
{
    free_list(k->list, k->list ? HTTP_MAX_KEYS : 0);
    k->list = list;
    k->n = n;
}

/* Looks whether the file has changed; under the lock. */
static void refresh(struct http_keys *k)
{
    const enum tern_watched_news news = tern_watched_look(&k->watched, k->path);
    struct http_key *list = NULL;
    struct tern_err err;
    size_t n = 0;

    if (news == TERN_WATCHED_SAME)
        return;
    if (news == TERN_WATCHED_GONE) {
        replace(k, NULL, 0);
        if (tern_watched_refuse(&k->watched))
            tern_log(TERN_LOG_WARN, "keys.gone", "path=%s nobody may use the server until it is there again",
                     k->path);
        return;
    }
    if (load(k, &list, &n, &err)) {
        if (tern_watched_refuse(&k->watched))
            tern_log(TERN_LOG_WARN, "keys.refused", "%s; the old keys stay in force", err.text);
        return;
    }
    tern_watched_accept(&k->watched);
    if (n != k->n || memcmp(list, k->list, n * sizeof *list) != 0) {
        tern_log(TERN_LOG_INFO, "keys.read", "path=%s keys=%zu", k->path, n);
        warn_of_short(k->path, list, n);
    }
    replace(k, list, n);
}

bool http_keys_find(struct http_keys *k, const char *key, size_t len, uint64_t *client)
{
    uint8_t digest[HTTP_KEY_DIGEST_BYTES];
    uint64_t who = 0;
    bool found = false;

    if (len == 0 || len > HTTP_MAX_KEY_BYTES)
        return false;
    pthread_mutex_lock(&k->lock);
    refresh(k);
    digest_of(k->salt, key, len, digest);
    for (size_t i = 0; i < k->n; i++)
        if (sodium_memcmp(digest, k->list[i].digest, sizeof digest) == 0) {
            who = k->list[i].client;
            found = true;
        }
    pthread_mutex_unlock(&k->lock);
    sodium_memzero(digest, sizeof digest);
    if (found)
        *client = who;
    return found;
}
