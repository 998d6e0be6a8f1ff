/* SPDX-License-Identifier: Apache-2.0 */
/* What is wanted and where it is kept: see pull.h. */
#include "coordinator/pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

/* Words of letters, digits and "-_.", parted by at most max_slashes of '/', none beginning with a dot. */
static bool words_ok(const char *text, unsigned max_slashes)
{
    bool fresh = true; /* a word begins here */
    unsigned slashes = 0;

    for (const char *p = text; *p; p++) {
        if (*p == '/') {
            if (fresh || ++slashes > max_slashes)
                return false;
            fresh = true;
        } else {
            if (!is_word_char(*p) || (fresh && *p == '.'))
                return false;
            fresh = false;
        }
    }
    return !fresh;
}

bool pull_path_ok(const char *path)
{
    size_t n = strlen(path);
    bool fresh = true;

    if (n == 0 || n > PULL_MAX_PATH)
        return false;
    for (size_t i = 0, from = 0; i < n; i++) {
        const unsigned char c = (unsigned char)path[i];

        if (c < 0x20 || c == 0x7f || c == '\\')
            return false;
        if (fresh && (c == '/' || c == '.'))
            return false;
        fresh = c == '/';
        if (fresh)
            from = i + 1;
        else if (i - from > 200) /* a name of the disk has at most 255 bytes */
            return false;
    }
    return !fresh;
}

static enum tern_status take_part(const char *what, const char *from, size_t n, char *out, size_t max,
                                  struct tern_err *err)
{
    if (n == 0 || n > max)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the %s has %zu bytes; 1 to %zu are possible", what, n, max);
    memcpy(out, from, n);
    out[n] = '\0';
    return TERN_OK;
}

enum tern_status pull_spec_parse(const char *text, const char *revision, struct pull_spec *out,
                                 struct tern_err *err)
{
    struct pull_spec s = { .revision = "main" };
    const char *colon = strchr(text, ':'), *end = colon ? colon : text + strlen(text);
    const char *at = memchr(text, '@', (size_t)(end - text));
    enum tern_status st;

    if (strstr(text, "://"))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%.100s' is an address: write ORG/NAME, or ORG/NAME:FILE, and the server into "
                         "HF_ENDPOINT if it is another one",
                         text);
    if ((st = take_part("name of the repository", text, (size_t)((at ? at : end) - text), s.repo,
                        PULL_MAX_REPO, err)) ||
        (st = at ? take_part("revision", at + 1, (size_t)(end - at - 1), s.revision, PULL_MAX_REVISION, err)
                 : TERN_OK) ||
        (st = colon ? take_part("name of the file", colon + 1, strlen(colon + 1), s.file, PULL_MAX_PATH, err)
                    : TERN_OK))
        return st;
    if (at && revision)
        return TERN_FAIL(err, TERN_ERR_USAGE, "--revision and REPO@REVISION exclude each other");
    if (revision &&
        (st = take_part("revision", revision, strlen(revision), s.revision, PULL_MAX_REVISION, err)))
        return st;
    if (!words_ok(s.repo, 1))
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "'%s' is not a repository: write ORG/NAME, as in microsoft/bitnet-b1.58-2B-4T-gguf",
                         s.repo);
    if (!words_ok(s.revision, 8))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not a revision: write a branch, a tag or a commit",
                         s.revision);
    if (*s.file && !pull_path_ok(s.file))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not the name of a file in a repository", s.file);
    *out = s;
    return TERN_OK;
}

/* The folder of all models. */
static int root_folder(char *out, size_t cap)
{
    const char *models = getenv("TERN_MODELS"), *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

    if (models && *models)
        return snprintf(out, cap, "%s", models);
    if (xdg && xdg[0] == '/')
        return snprintf(out, cap, "%s/tern/models", xdg);
    if (home && home[0] == '/')
        return snprintf(out, cap, "%s/.local/share/tern/models", home);
    return -1;
}

enum tern_status pull_folder(const struct pull_spec *spec, char *out, size_t cap, struct tern_err *err)
{
    char root[PATH_MAX], revision[PULL_MAX_REVISION + 2] = "";
    int n = root_folder(root, sizeof root);

    if (n < 0)
        return TERN_FAIL(err, TERN_ERR_USAGE,
                         "where are models kept? set TERN_MODELS to a folder; HOME is not set either");
    if (strcmp(spec->revision, "main") != 0)
        (void)snprintf(revision, sizeof revision, "@%s", spec->revision);
    for (char *p = revision; *p; p++)
        if (*p == '/')
            *p = '+';
    if ((size_t)n < sizeof root)
        n = snprintf(out, cap, "%s/%s%s", root, spec->repo, revision);
    if (n < 0 || (size_t)n >= cap)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the folder of models has a name of more than %zu bytes", cap);
    return TERN_OK;
}

bool pull_escape(const char *text, bool keep_slash, char *out, size_t cap)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    for (const char *p = text; *p; p++) {
        const unsigned char c = (unsigned char)*p;

        if (n + 4 > cap)
            return false;
        if (is_word_char(*p) || c == '~' || (keep_slash && c == '/')) {
            out[n++] = *p;
        } else {
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    if (n >= cap)
        return false;
    out[n] = '\0';
    return true;
}
