/* SPDX-License-Identifier: Apache-2.0 */
/* Answers out of events: see chat_answer_stream.h. */
#include "coordinator/chat_answer_stream.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static enum tern_status add_text(struct chat_answer_stream *a, const char *text, size_t n,
                                 struct tern_err *err)
{
    if (n == 0)
        return TERN_OK;
    if (n > CHAT_ANSWER_MAX_BYTES - a->n_text)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the server's answer has more than %zu bytes; given up",
                         CHAT_ANSWER_MAX_BYTES);
    if (a->n_text + n + 1 > a->cap) {
        const size_t cap = 2 * (a->n_text + n) + 1024;
        char *bigger = realloc(a->text, cap);

        if (!bigger)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the server's answer");
        a->text = bigger;
        a->cap = cap;
    }
    memcpy(a->text + a->n_text, text, n);
    a->n_text += n;
    a->text[a->n_text] = '\0';
    if (!a->on_text(a->user, text, n))
        return TERN_FAIL(err, TERN_END, "nobody reads the answer any more");
    return TERN_OK;
}

static bool take_count(const json_t *o, const char *name, uint32_t *out)
{
    const json_t *v = json_object_get(o, name);

    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return false;
    *out = (uint32_t)json_integer_value(v);
    return true;
}

static void take_usage(struct chat_answer_stream *a, const json_t *usage)
{
    uint32_t n_prompt, n_tokens;

    if (!take_count(usage, "prompt_tokens", &n_prompt) || !take_count(usage, "completion_tokens", &n_tokens))
        return;
    a->usage = true;
    a->n_prompt = n_prompt;
    a->n_tokens = n_tokens;
    a->cached_known =
        take_count(json_object_get(usage, "prompt_tokens_details"), "cached_tokens", &a->n_cached) &&
        a->n_cached <= n_prompt;
}

static enum tern_status take_error(const json_t *error, struct tern_err *err)
{
    const char *text = json_string_value(json_object_get(error, "message"));

    text = text ? text : json_string_value(error);
    return TERN_FAIL(err, TERN_ERR_PEER, "the server gives the answer up: %.200s",
                     text ? text : "it does not say why");
}

/* One chunk, or the whole: `part` is "delta" or "message". */
static enum tern_status take_object(struct chat_answer_stream *a, const json_t *root, const char *part,
                                    struct tern_err *err)
{
    const json_t *error = json_object_get(root, "error"), *choices = json_object_get(root, "choices");
    const json_t *choice = json_array_get(choices, 0);
    const json_t *content = json_object_get(json_object_get(choice, part), "content");
    const char *reason = json_string_value(json_object_get(choice, "finish_reason"));

    if (error && !json_is_null(error))
        return take_error(error, err);
    if (!json_is_array(choices))
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the server sends what is no answer of a chat");
    take_usage(a, json_object_get(root, "usage"));
    if (reason && !a->ended) {
        a->ended = true;
        a->limit = strcmp(reason, "length") == 0;
    }
    return add_text(a, json_string_value(content), json_string_length(content), err);
}

static enum tern_status take_json(struct chat_answer_stream *a, const char *text, size_t n, const char *part,
                                  struct tern_err *err)
{
    json_t *root = json_loadb(text, n, JSON_ALLOW_NUL, NULL);
    enum tern_status st;

    if (!root)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "the server sends an answer that is no JSON: '%.60s'",
                         n ? text : "");
    st = take_object(a, root, part, err);
    json_decref(root);
    return st;
}

static enum tern_status on_event(void *user, const char *data, size_t len, struct tern_err *err)
{
    struct chat_answer_stream *a = user;

    if (a->done)
        return TERN_OK;
    if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
        a->done = true;
        return TERN_OK;
    }
    return take_json(a, data, len, "delta", err);
}

enum tern_status chat_answer_stream_feed(struct chat_answer_stream *a, const char *bytes, size_t n,
                                         struct tern_err *err)
{
    a->events.event = on_event;
    a->events.user = a;
    return event_stream_feed(&a->events, bytes, n, err);
}

enum tern_status chat_answer_stream_whole(struct chat_answer_stream *a, const char *bytes, size_t n,
                                          struct tern_err *err)
{
    enum tern_status st = take_json(a, bytes, n, "message", err);

    a->done = true;
    return st;
}

void chat_answer_stream_free(struct chat_answer_stream *a)
{
    event_stream_free(&a->events);
    free(a->text);
    a->text = NULL;
    a->n_text = a->cap = 0;
}
