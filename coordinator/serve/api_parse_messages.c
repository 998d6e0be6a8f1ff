/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation in OpenAI's form, rendered in the model's: see api_request.h. */
#include "coordinator/serve/api_request.h"

#include <stdio.h>
#include <string.h>

/* Appends a part of a content to the last message's text. */
static enum tern_status append(struct transcript *t, struct tern_str more, struct api_fault *f)
{
    struct tern_chat_message *m = &t->messages[t->n - 1];
    char *text = realloc((char *)(uintptr_t)m->content.ptr, m->content.len + more.len + 1);

    if (!text)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, "messages", "No memory for the messages.");
    if (more.len)
        memcpy(text + m->content.len, more.ptr, more.len);
    m->content = (struct tern_str){ text, m->content.len + more.len };
    text[m->content.len] = '\0';
    return TERN_OK;
}

/* {"type": "text", "text": "..."} */
static enum tern_status add_part(struct transcript *t, const json_t *part, const char *where,
                                 struct api_fault *f)
{
    const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "text");

    if (!json_is_object(part) || !json_is_string(type))
        return API_REFUSE(f, where, "'%s' must be an object with a string 'type'.", where);
    if (strcmp(json_string_value(type), "text") != 0)
        return API_UNSUPPORTED(f, where, "'%s' is of type '%.40s', and the model reads 'text' alone.", where,
                               json_string_value(type));
    if (!json_is_string(text))
        return API_REFUSE(f, where, "'%s' must have a string 'text'.", where);
    return append(t, (struct tern_str){ json_string_value(text), json_string_length(text) }, f);
}

static enum tern_status add_content(struct transcript *t, const json_t *v, size_t i, struct api_fault *f)
{
    char where[64];

    (void)snprintf(where, sizeof where, "messages[%zu].content", i);
    if (json_is_string(v))
        return append(t, (struct tern_str){ json_string_value(v), json_string_length(v) }, f);
    if (!json_is_array(v))
        return API_REFUSE(f, where, "'%s' must be a string or an array of parts, and is %s.", where,
                          v ? api_type_name(v) : "missing");
    for (size_t p = 0; p < json_array_size(v); p++) {
        char part[96];
        enum tern_status st;

        (void)snprintf(part, sizeof part, "%s[%zu]", where, p);
        if ((st = add_part(t, json_array_get(v, p), part, f)))
            return st;
    }
    return TERN_OK;
}

static enum tern_status role_of(const json_t *m, size_t i, enum tern_chat_role *out, struct api_fault *f)
{
    const json_t *role = json_object_get(m, "role");
    const char *name = json_string_value(role);
    char where[64];

    (void)snprintf(where, sizeof where, "messages[%zu].role", i);
    if (!name || strlen(name) != json_string_length(role))
        return API_REFUSE(f, where, "'%s' must be a string.", where);
    if (strcmp(name, "developer") == 0)
        name = "system";
    if (strcmp(name, "tool") == 0 || strcmp(name, "function") == 0)
        return API_UNSUPPORTED(f, where, "'%s' is '%s': tools are not supported.", where, name);
    if (!tern_chat_role_by_name(name, out))
        return API_REFUSE(f, where, "'%s' is '%.40s': there are system, developer, user and assistant.",
                          where, name);
    return TERN_OK;
}

static enum tern_status add_message(struct transcript *t, const json_t *m, size_t i, struct api_fault *f)
{
    enum tern_chat_role role;
    const json_t *calls = api_field(m, "tool_calls");
    enum tern_status st;
    char where[64];

    (void)snprintf(where, sizeof where, "messages[%zu]", i);
    if (!json_is_object(m))
        return API_REFUSE(f, where, "'%s' must be an object with 'role' and 'content'.", where);
    if (json_array_size(calls) || api_field(m, "function_call"))
        return API_UNSUPPORTED(f, where, "'%s' has tool calls: tools are not supported.", where);
    if ((st = role_of(m, i, &role, f)))
        return st;
    if (transcript_add(t, role, "", 0, &f->err))
        return api_fault_take(f, "messages");
    return add_content(t, json_object_get(m, "content"), i, f);
}

/* -- how it is rendered ---------------------------------------------------------------------------------- */

struct manner {
    bool ask;      /* for an answer: its beginning stands behind the messages */
    int continues; /* 1: the last message goes on, 0: it does not, -1: it does if it is the assistant's */
};

static bool is_of_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Is there such a word in the text?  In a template's, it may be a variable that it reads. */
static bool has_word(struct tern_str text, const char *word)
{
    const size_t n = strlen(word);

    for (size_t i = 0; n && i + n <= text.len; i++)
        if (memcmp(text.ptr + i, word, n) == 0 && (i == 0 || !is_of_word(text.ptr[i - 1])) &&
            (i + n == text.len || !is_of_word(text.ptr[i + n])))
            return true;
    return false;
}

/* Variables of the template, as llama-server takes them.  One that nobody reads has no effect with either
 * server; what the model's template would have read, and a built-in format cannot, is refused. */
static enum tern_status parse_kwargs(const struct api_model *m, const json_t *body, struct manner *how,
                                     struct api_fault *f)
{
    const char *own = tern_chat_template_jinja(m->format), *key;
    const struct tern_str text = m->template.len ? m->template : (struct tern_str){ own, strlen(own) };
    const json_t *kwargs = NULL;
    enum tern_status st = api_get_object(body, "chat_template_kwargs", &kwargs, f);
    json_t *v;

    if (st || !kwargs)
        return st;
    if (json_object_size(kwargs) > API_MAX_KWARGS)
        return API_REFUSE(f, "chat_template_kwargs", "'chat_template_kwargs' has more than %d variables.",
                          API_MAX_KWARGS);
    if ((st = api_get_bool(kwargs, "add_generation_prompt", &how->ask, f))) {
        (void)strcpy(f->param, "chat_template_kwargs.add_generation_prompt");
        return st;
    }
    json_object_foreach((json_t *)(uintptr_t)kwargs, key, v)
    {
        if (json_is_null(v) || strcmp(key, "add_generation_prompt") == 0)
            continue;
        if (strcmp(key, "enable_thinking") == 0 && json_is_string(v))
            return API_REFUSE(
                f, "chat_template_kwargs.enable_thinking",
                "'chat_template_kwargs.enable_thinking' must be true or false, and is a string.");
        if (has_word(text, key))
            return API_UNSUPPORTED(
                f, "chat_template_kwargs",
                "'chat_template_kwargs' has '%.60s', which the model's template reads and the "
                "built-in format '%s' cannot.",
                key, tern_chat_format_name(m->format));
    }
    return TERN_OK;
}

static enum tern_status parse_manner(const struct api_model *m, const json_t *body, struct manner *how,
                                     struct api_fault *f)
{
    const bool said = json_is_true(api_field(body, "add_generation_prompt"));
    bool on = false;
    enum tern_status st;

    if ((st = api_get_bool(body, "add_generation_prompt", &how->ask, f)) ||
        (st = api_get_bool(body, "continue_final_message", &on, f)) || (st = parse_kwargs(m, body, how, f)))
        return st;
    if (api_field(body, "continue_final_message"))
        how->continues = on;
    if (on && said)
        return API_REFUSE(f, "continue_final_message",
                          "'continue_final_message' and 'add_generation_prompt' exclude each other.");
    return TERN_OK;
}

static enum tern_status render(const struct api_model *m, const struct transcript *t,
                               const struct manner *how, struct tern_chat_prompt *out, struct api_fault *f)
{
    const struct tern_chat_message *last = &t->messages[t->n - 1];
    const bool own = last->role == TERN_CHAT_ASSISTANT;
    const bool go_on = how->continues < 0 ? how->ask && own : how->continues > 0;

    if (go_on && !own)
        return API_REFUSE(f, "continue_final_message",
                          "'continue_final_message' is true, and the last message is not the assistant's.");
    if (tern_chat_render(m->format, t->messages, t->n - go_on, 0, how->ask || go_on, out, &f->err) ||
        (go_on && tern_chat_add_content(out, last->content.ptr, last->content.len, &f->err)))
        return api_fault_take(f, "messages");
    return TERN_OK;
}

enum tern_status api_parse_messages(const struct api_model *m, const json_t *body,
                                    struct tern_chat_prompt *out, struct api_fault *f)
{
    const json_t *messages = NULL;
    struct transcript t = { 0 };
    struct manner how = { true, -1 };
    enum tern_status st = api_get_array(body, "messages", &messages, f);
    size_t n = json_array_size(messages);

    if (st)
        return st;
    if (!m->format)
        return API_UNSUPPORTED(f, "messages",
                               "The model has a chat template that is like none known here; "
                               "name a format with --chat-template, or use /v1/completions.");
    if (!messages)
        return api_fault_set(f, TERN_ERR_USAGE, "missing_required_parameter", "messages",
                             "'messages' is missing: send an array of {\"role\", \"content\"}.");
    if (n == 0 || n > API_MAX_MESSAGES)
        return API_REFUSE(f, "messages", "'messages' has %zu entries: 1 to %d are possible.", n,
                          API_MAX_MESSAGES);
    if ((st = parse_manner(m, body, &how, f)))
        return st;
    for (size_t i = 0; !st && i < n; i++)
        st = add_message(&t, json_array_get(messages, i), i, f);
    if (!st)
        st = render(m, &t, &how, out, f);
    transcript_free(&t);
    return st;
}
