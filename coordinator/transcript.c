/* SPDX-License-Identifier: Apache-2.0 */
/* What was said, in memory and as JSON: see transcript.h. */
#include "coordinator/transcript.h"

#include "coordinator/commands.h"
#include "coordinator/json_out.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void transcript_cut(struct transcript *t, size_t n)
{
    while (t->n > n)
        free((char *)(uintptr_t)t->messages[--t->n].content.ptr);
}

void transcript_free(struct transcript *t)
{
    transcript_cut(t, 0);
    free(t->messages);
    memset(t, 0, sizeof *t);
}

/* Room for one more, and a copy of its text. */
static enum tern_status make_room(struct transcript *t, const char *text, size_t len, char **copy,
                                  struct tern_err *err)
{
    if (t->n == TRANSCRIPT_MAX_MESSAGES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a conversation of more than %d messages",
                         TRANSCRIPT_MAX_MESSAGES);
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 32;
        struct tern_chat_message *bigger = realloc(t->messages, cap * sizeof *bigger);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %zu messages", cap);
        t->messages = bigger;
        t->cap = cap;
    }
    *copy = malloc(len + 1);
    if (!*copy)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a message of %zu bytes", len);
    if (len)
        memcpy(*copy, text, len);
    (*copy)[len] = '\0';
    return TERN_OK;
}

enum tern_status transcript_add(struct transcript *t, enum tern_chat_role role, const char *text, size_t len,
                                struct tern_err *err)
{
    char *copy;
    enum tern_status st = make_room(t, text, len, &copy, err);

    if (!st)
        t->messages[t->n++] = (struct tern_chat_message){ role, { copy, len } };
    return st;
}

const struct tern_chat_message *transcript_system(const struct transcript *t)
{
    return t->n && t->messages[0].role == TERN_CHAT_SYSTEM ? &t->messages[0] : NULL;
}

enum tern_status transcript_set_system(struct transcript *t, const char *text, size_t len,
                                       struct tern_err *err)
{
    char *copy = NULL;
    enum tern_status st = len ? make_room(t, text, len, &copy, err) : TERN_OK;

    if (st)
        return st;
    if (transcript_system(t)) {
        free((char *)(uintptr_t)t->messages[0].content.ptr);
        memmove(t->messages, t->messages + 1, --t->n * sizeof *t->messages);
    }
    if (copy) {
        memmove(t->messages + 1, t->messages, t->n++ * sizeof *t->messages);
        t->messages[0] = (struct tern_chat_message){ TERN_CHAT_SYSTEM, { copy, len } };
    }
    return TERN_OK;
}

/* -- JSON ------------------------------------------------------------------------------------------------ */

static json_t *whole_json(const struct transcript *t)
{
    json_t *messages = json_array(), *o = json_pack("{s:o}", "messages", messages);

    for (size_t i = 0; o && i < t->n; i++) {
        const struct tern_chat_message *m = &t->messages[i];
        json_t *one = json_pack("{s:s, s:o}", "role", tern_chat_role_name(m->role), "content",
                                json_out_text(m->content));

        if (!one || json_array_append_new(messages, one)) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

enum tern_status transcript_save(const struct transcript *t, const char *path, struct tern_err *err)
{
    enum tern_status st = TERN_OK;
    char beside[PATH_MAX];
    struct stat sb;
    json_t *o;
    int fd;

    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return TERN_FAIL(err, TERN_ERR_IO, "'%s' is there and is no regular file; name another", path);
    if ((size_t)snprintf(beside, sizeof beside, "%s.XXXXXX", path) >= sizeof beside)
        return TERN_FAIL(err, TERN_ERR_USAGE, "the file's name is longer than %zu bytes", sizeof beside - 8);
    if (!(o = whole_json(t)))
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to write a conversation of %zu messages", t->n);
    fd = mkstemp(beside);
    if (fd < 0)
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
    else if ((json_dumpfd(o, fd, JSON_INDENT(2)) | (write(fd, "\n", 1) != 1) | close(fd)) ||
             rename(beside, path)) {
        st = TERN_FAIL_SYS(err, TERN_ERR_IO, errno, "cannot write '%s': %s", path, strerror(errno));
        (void)unlink(beside);
    }
    json_decref(o);
    return st;
}

static enum tern_status add_json(struct transcript *t, const char *name, const json_t *one, size_t i,
                                 struct tern_err *err)
{
    const json_t *role = json_object_get(one, "role"), *content = json_object_get(one, "content");
    enum tern_chat_role r;

    if (!json_is_string(role) || !json_is_string(content))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: message %zu is not an object with the strings \"role\" and \"content\"", name,
                         i + 1);
    if (strlen(json_string_value(role)) != json_string_length(role) ||
        !tern_chat_role_by_name(json_string_value(role), &r))
        return TERN_FAIL(err, TERN_ERR_FORMAT,
                         "%s: message %zu has the role '%.40s'; there are system, user and assistant", name,
                         i + 1, json_string_value(role));
    return transcript_add(t, r, json_string_value(content), json_string_length(content), err);
}

enum tern_status transcript_parse(struct transcript *t, const char *name, const char *text, size_t len,
                                  struct tern_err *err)
{
    struct transcript fresh = { 0 };
    enum tern_status st = TERN_OK;
    json_error_t why;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    const json_t *messages = json_is_array(o) ? o : json_object_get(o, "messages");

    if (!o)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s, line %d: not JSON: %s", name, why.line, why.text);
    if (!json_is_array(messages))
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s: there is no array \"messages\"", name);
    for (size_t i = 0; !st && i < json_array_size(messages); i++)
        st = add_json(&fresh, name, json_array_get(messages, i), i, err);
    json_decref(o);
    if (st) {
        transcript_free(&fresh);
        return st;
    }
    transcript_free(t);
    *t = fresh;
    return TERN_OK;
}

enum tern_status transcript_load(struct transcript *t, const char *path, struct tern_err *err)
{
    char *text;
    size_t len;
    enum tern_status st = cmd_read_file(path, TRANSCRIPT_MAX_FILE_BYTES, &text, &len, err);

    if (st)
        return st;
    st = transcript_parse(t, path, text, len, err);
    free(text);
    return st;
}
