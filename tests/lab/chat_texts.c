/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every chat format's template and what the format makes of some conversations, as JSON: for a test that has
 * another hand render the template.
 *
 * An array of {name, template, texts: [{messages, ask, text}]}; BOS is written <B> and EOS <E>.
 */
#include "engine/chat_template.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define S(text)                                                                                              \
    {                                                                                                        \
        (text), sizeof(text) - 1                                                                             \
    }

static const struct tern_chat_message talk[] = {
    { TERN_CHAT_SYSTEM, S("Be nice\xc2\xa0 ") },      { TERN_CHAT_USER, S(" Hi\n") },
    { TERN_CHAT_ASSISTANT, S("Hello \n there\x1c") }, { TERN_CHAT_USER, S("More\xe2\x80\x83") },
    { TERN_CHAT_ASSISTANT, S("  Sure. ") },
};

static json_t *messages_json(const struct tern_chat_message *m, size_t n)
{
    json_t *a = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_pack("{s:s, s:s%}", "role", tern_chat_role_name(m[i].role), "content",
                                           m[i].content.ptr, m[i].content.len));
    return a;
}

static json_t *text_json(const struct tern_chat_format *f, const struct tern_chat_message *m, size_t n,
                         bool ask)
{
    struct tern_chat_prompt p = { 0 };
    struct tern_err err;
    char text[4096];
    size_t at = 0;

    if (tern_chat_render(f, m, n, 0, ask, &p, &err)) {
        fprintf(stderr, "chat_texts: %s\n", err.text);
        exit(1);
    }
    for (size_t i = 0; i < p.n_parts; i++) {
        const struct tern_chat_part *part = &p.parts[i];
        const char *mark = part->kind == TERN_CHAT_BOS ? "<B>" : part->kind == TERN_CHAT_EOS ? "<E>" : "";

        at +=
            (size_t)snprintf(text + at, sizeof text - at, "%s%.*s", mark, (int)part->len, p.text + part->at);
    }
    tern_chat_prompt_free(&p);
    return json_pack("{s:o, s:b, s:s%}", "messages", messages_json(m, n), "ask", ask, "text", text, at);
}

int main(void)
{
    const struct tern_chat_format *f;
    json_t *all = json_array();

    for (size_t i = 0; (f = tern_chat_format_at(i)); i++) {
        json_t *texts = json_array();

        for (size_t first = 0; first < 2; first++)
            for (size_t n = 1; first + n <= sizeof talk / sizeof talk[0]; n++)
                for (int ask = 0; ask < 2; ask++)
                    json_array_append_new(texts, text_json(f, talk + first, n, ask));
        json_array_append_new(all, json_pack("{s:s, s:s, s:o}", "name", tern_chat_format_name(f), "template",
                                             tern_chat_template_jinja(f), "texts", texts));
    }
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
    return 0;
}
