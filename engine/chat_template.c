/* SPDX-License-Identifier: Apache-2.0 */
/* The chat formats and how a model's is told: see chat_template.h. */
#include "engine/chat_template.h"

#include "engine/chat_format.h"

#include <stdio.h>
#include <string.h>

/* Jinja around what most templates are: a loop over messages, then the beginning of an answer. */
#define EACH(body, ask)                                                                                      \
    "{% for message in messages %}" body "{% endfor %}{% if add_generation_prompt %}{{ '" ask                \
    "' }}{% endif %}"
#define CONTENT "message['content']"
/* One that joins the system's words to the next user's: they are kept in ns.held, `sys` says how. */
#define EACH_JOINED(user, assistant, sys, alone)                                                             \
    "{{ bos_token }}{% set ns = namespace(held='', first=true) %}{% for message in messages %}"              \
    "{% if message['role'] == 'system' %}{% set ns.held = ns.held + " sys " %}"                              \
    "{% elif message['role'] == 'user' %}" user "{% set ns.held = '' %}{% set ns.first = false %}{% else %}" \
    "{% if ns.held %}" alone "{% set ns.held = '' %}{% endif %}" assistant "{% set ns.first = false %}"      \
    "{% endif %}{% endfor %}{% if ns.held %}" alone "{% endif %}"

/* In the order to show them.  Sources: the chat_template in the tokenizer_config.json of the models named;
 * for bitnet-fork the rule built into bitnet.cpp. */
static const struct tern_chat_format formats[] = {
    {
        .name = "bitnet",
        .what = "microsoft/bitnet-b1.58-2B-4T, as its publisher has it",
        .open = { "System: ", "User: ", "Assistant: " },
        .close = { MARK("<|eot_id|>"), MARK("<|eot_id|>"), MARK("<|eot_id|>") },
        .trim = true,
        .bos = true,
        .jinja = "{{ bos_token }}" EACH(
            "{{ message['role'] | capitalize + ': ' + " CONTENT " | trim + '<|eot_id|>' }}", "Assistant: "),
    },
    {
        .name = "bitnet-fork",
        .what = "the same model as bitnet.cpp talks to it",
        .open = { "System: ", "User: ", "" },
        .close = { "", MARK("<|eot_id|>") "Assistant: ", "" },
        .bos = true,
        .jinja = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
                 "{{ 'System: ' + " CONTENT " }}{% elif message['role'] == 'user' %}{{ 'User: ' + " CONTENT
                 " + '<|eot_id|>Assistant: ' }}{% else %}{{ " CONTENT " }}{% endif %}{% endfor %}",
    },
    {
        .name = "llama3",
        .what = "Llama-3 Instruct: HF1BitLLM/Llama3-8B-1.58-100B-tokens",
        .open = { MARK("<|start_header_id|>") "system" MARK("<|end_header_id|>") "\n\n",
                  MARK("<|start_header_id|>") "user" MARK("<|end_header_id|>") "\n\n",
                  MARK("<|start_header_id|>") "assistant" MARK("<|end_header_id|>") "\n\n" },
        .close = { MARK("<|eot_id|>"), MARK("<|eot_id|>"), MARK("<|eot_id|>") },
        .trim = true,
        .bos = true,
        .jinja = "{{ bos_token }}" EACH(
            "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + " //
            CONTENT " | trim + '<|eot_id|>' }}",
            "<|start_header_id|>assistant<|end_header_id|>\\n\\n"),
    },
    {
        .name = "falcon3",
        .what = "tiiuae/Falcon3-*-Instruct-1.58bit",
        .open = { MARK("<|system|>") "\n", MARK("<|user|>") "\n", MARK("<|assistant|>") "\n" },
        .close = { "\n", "\n", MARK_EOS "\n" },
        .jinja =
            EACH("{% if message['role'] == 'system' %}{{ '<|system|>\\n' + " CONTENT
                 " + '\\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + " CONTENT
                 " + '\\n' }}{% else %}{{ '<|assistant|>\\n' + " CONTENT " + eos_token + '\\n' }}{% endif %}",
                 "<|assistant|>\\n"),
    },
    {
        .name = "falcon",
        .what = "User: and Falcon: in plain text: Falcon-E where ChatML fails",
        .open = { "System: ", "User: ", "Falcon:" },
        .close = { "\n", "\n", "\n" },
        .lead = " ",
        .trim = true,
        .stop = "\nUser:",
        .jinja = EACH("{% if message['role'] == 'assistant' %}{{ 'Falcon: ' }}{% else %}"
                      "{{ message['role'] | capitalize + ': ' }}{% endif %}{{ " CONTENT " | trim + '\\n' }}",
                      "Falcon:"),
    },
    {
        .name = "chatml",
        .what = "ChatML: Qwen, Falcon-E Instruct and many more",
        .open = { MARK("<|im_start|>") "system\n", MARK("<|im_start|>") "user\n",
                  MARK("<|im_start|>") "assistant\n" },
        .close = { MARK("<|im_end|>") "\n", MARK("<|im_end|>") "\n", MARK("<|im_end|>") "\n" },
        .jinja = EACH("{{ '<|im_start|>' + message['role'] + '\\n' + " CONTENT " + '<|im_end|>\\n' }}",
                      "<|im_start|>assistant\\n"),
    },
    {
        .name = "zephyr",
        .what = "Zephyr, TinyLlama Chat",
        .open = { MARK("<|system|>") "\n", MARK("<|user|>") "\n", MARK("<|assistant|>") "\n" },
        .close = { MARK_EOS "\n", MARK_EOS "\n", MARK_EOS "\n" },
        .jinja = EACH("{% if message['role'] == 'system' %}{{ '<|system|>\\n' + " CONTENT
                      " + eos_token + '\\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + " CONTENT
                      " + eos_token + '\\n' }}{% else %}{{ '<|assistant|>\\n' + " CONTENT
                      " + eos_token + '\\n' }}{% endif %}",
                      "<|assistant|>\\n"),
    },
    {
        .name = "phi3",
        .what = "Phi-3 Instruct",
        .open = { MARK("<|system|>") "\n", MARK("<|user|>") "\n", MARK("<|assistant|>") "\n" },
        .close = { MARK("<|end|>") "\n", MARK("<|end|>") "\n", MARK("<|end|>") "\n" },
        .jinja =
            EACH("{{ '<|' + message['role'] + '|>\\n' + " CONTENT " + '<|end|>\\n' }}", "<|assistant|>\\n"),
    },
    {
        .name = "llama2",
        .what = "Llama-2 Chat",
        .open = { "<<SYS>>\n", MARK_BOS "[INST] ", "" },
        .close = { "\n<</SYS>>\n\n", " [/INST]", " " MARK_EOS },
        .lead = " ",
        .system_inside = true,
        .trim = true,
        .bos = true,
        .jinja = EACH_JOINED("{{ ('' if ns.first else bos_token) + '[INST] ' + ns.held + " CONTENT
                             " | trim + ' [/INST]' }}",
                             "{{ ' ' + " CONTENT " | trim + ' ' + eos_token }}",
                             "'<<SYS>>\\n' + " CONTENT " | trim + '\\n<</SYS>>\\n\\n'",
                             "{{ ('' if ns.first else bos_token) + '[INST] ' + ns.held + ' [/INST]' }}"),
    },
    {
        .name = "mistral",
        .what = "Mistral Instruct",
        .open = { "", "[INST] ", "" },
        .close = { "\n\n", " [/INST]", MARK_EOS },
        .system_inside = true,
        .bos = true,
        .jinja = EACH_JOINED("{{ '[INST] ' + ns.held + " CONTENT " + ' [/INST]' }}",
                             "{{ " CONTENT " + eos_token }}", CONTENT " + '\\n\\n'",
                             "{{ '[INST] ' + ns.held + ' [/INST]' }}"),
    },
    {
        .name = "gemma",
        .what = "Gemma",
        .open = { "", MARK("<start_of_turn>") "user\n", MARK("<start_of_turn>") "model\n" },
        .close = { "\n\n", MARK("<end_of_turn>") "\n", MARK("<end_of_turn>") "\n" },
        .system_inside = true,
        .trim = true,
        .bos = true,
        .jinja =
            EACH_JOINED("{{ '<start_of_turn>user\\n' + ns.held + " CONTENT " | trim + '<end_of_turn>\\n' }}",
                        "{{ '<start_of_turn>model\\n' + " CONTENT " | trim + '<end_of_turn>\\n' }}",
                        CONTENT " | trim + '\\n\\n'",
                        "{{ '<start_of_turn>user\\n' + ns.held + '<end_of_turn>\\n' }}") //
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    },
    {
        .name = "plain",
        .what = "no roles, a newline behind each message: base models",
        .open = { "", "", "" },
        .close = { "\n", "\n", "\n" },
        .jinja = "{% for message in messages %}{{ " CONTENT " + '\\n' }}{% endfor %}",
    },
};

#define N_FORMATS (sizeof formats / sizeof formats[0])

const struct tern_chat_format *tern_chat_format_by_name(const char *name)
{
    if (strcmp(name, "none") == 0)
        name = "plain";
    for (size_t i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const struct tern_chat_format *tern_chat_format_at(size_t i)
{
    return i < N_FORMATS ? &formats[i] : NULL;
}

const char *tern_chat_format_name(const struct tern_chat_format *f)
{
    return f->name;
}

void tern_chat_format_help(FILE *f)
{
    fputs("      --chat-template NAME  how the model is talked to (default: told by the file):\n", f);
    for (size_t i = 0; i < N_FORMATS; i++)
        fprintf(f, "%28s%-11s %s\n", "", formats[i].name, formats[i].what);
}

const char *tern_chat_template_jinja(const struct tern_chat_format *f)
{
    return f->jinja;
}

/* -- detection ------------------------------------------------------------------------------------------- */

static bool has(struct tern_str text, const char *what)
{
    return text.len && memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

/* Zephyr's users end with EOS, Falcon3's with a newline alone: looked for between "<|user|>" and the end of
 * the expression it stands in. */
static bool user_ends_with_eos(struct tern_str text)
{
    const char *user = memmem(text.ptr, text.len, "<|user|>", 8), *end;
    struct tern_str rest;

    if (!user)
        return false;
    rest = (struct tern_str){ user, text.len - (size_t)(user - text.ptr) };
    end = memmem(rest.ptr, rest.len, "}}", 2);
    if (end)
        rest.len = (size_t)(end - rest.ptr);
    return has(rest, "eos_token") || has(rest, "</s>") || has(rest, "<|endoftext|>");
}

bool tern_chat_template_is_placeholder(struct tern_str text)
{
    return has(text, "BITNET");
}

/* bitnet.cpp's own order, with a finer look where it takes two formats for one. */
static const char *detect(struct tern_str text)
{
    const bool assistant = has(text, "<|assistant|>"), user = has(text, "<|user|>");

    if (has(text, "<|im_start|>"))
        return "chatml";
    if (has(text, "[INST]"))
        return has(text, "<<SYS>>") ? "llama2" : "mistral";
    if (assistant && has(text, "<|end|>"))
        return "phi3";
    if (assistant && user)
        return user_ends_with_eos(text) ? "zephyr" : "falcon3";
    if (user)
        return "zephyr";
    if (has(text, "<start_of_turn>"))
        return "gemma";
    if (has(text, "<|start_header_id|>") && has(text, "<|end_header_id|>"))
        return "llama3";
    if (tern_chat_template_is_placeholder(text))
        return "bitnet";
    if (has(text, "<|eot_id|>Assistant: "))
        return "bitnet-fork";
    if (has(text, "<|eot_id|>") && has(text, "Assistant: "))
        return "bitnet";
    if (has(text, "Falcon:"))
        return "falcon";
    return NULL;
}

const struct tern_chat_format *tern_chat_format_detect(struct tern_str text)
{
    const char *name = detect(text);

    if (!name && tern_str_is(text, tern_chat_format_by_name("plain")->jinja))
        name = "plain";
    return name ? tern_chat_format_by_name(name) : NULL;
}

static bool has_token(const struct tern_tokenizer *t, const char *text)
{
    return t && tern_tokenizer_find(t, text) >= 0;
}

/* Smaller vocabularies may have borrowed the names of Llama-3's marks, as that of the fable model has; what
 * was trained with them has all 128256 tokens. */
#define LLAMA3_TOKENS 128000

/* Without a template. */
static void choose_by_vocabulary(const struct tern_gguf *g, const struct tern_tokenizer *t,
                                 struct tern_chat_choice *out)
{
    struct tern_str arch = { "", 0 };
    const char *name = "plain";

    if (tern_gguf_string(g, "general.architecture", &arch, NULL))
        arch.len = 0;
    if (t && tern_tokenizer_n_vocab(t) >= LLAMA3_TOKENS && has_token(t, "<|start_header_id|>") &&
        has_token(t, "<|eot_id|>"))
        name = arch.len >= 6 && memcmp(arch.ptr, "bitnet", 6) == 0 ? "bitnet" : "llama3";
    else if (has_token(t, "<|im_start|>"))
        name = "chatml";
    out->format = tern_chat_format_by_name(name);
    out->guessed = strcmp(name, "plain") == 0;
    out->text = (struct tern_str){ NULL, 0 };
    out->why = out->guessed ? "for the file has no chat template" : "by the tokens of the vocabulary";
}

enum tern_status tern_chat_choose(const struct tern_gguf *g, const struct tern_tokenizer *t,
                                  struct tern_chat_choice *out, struct tern_err *err)
{
    struct tern_str text = { "", 0 };
    const struct tern_chat_format *f;
    enum tern_status st = tern_gguf_string(g, "tokenizer.chat_template", &text, err);

    if (st && st != TERN_END)
        return st;
    if (st == TERN_END || text.len == 0) {
        choose_by_vocabulary(g, t, out);
        return TERN_OK;
    }
    f = tern_chat_format_detect(text);
    if (!f)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED,
                         "%s: the chat template is of no format that is known here; name one that fits with "
                         "--chat-template",
                         g->name);
    out->format = f;
    out->guessed = false;
    out->text = tern_chat_template_is_placeholder(text) ? (struct tern_str){ NULL, 0 } : text;
    out->why = tern_chat_template_is_placeholder(text) ? "for the file's template is bitnet.cpp's placeholder"
                                                       : "by the file's chat template";
    return TERN_OK;
}
