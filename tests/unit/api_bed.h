/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of request bodies share: a tiny vocabulary, and parsing that succeeds or is refused with a
 * field's name and a word.  Quotes in bodies are written as '.
 */
#ifndef TERN_TESTS_UNIT_API_BED_H
#define TERN_TESTS_UNIT_API_BED_H

#include "coordinator/serve/api_request.h"
#include "unit/made_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CTX 64

static struct api_model model;
static struct api_request *r;
static struct api_fault fault;

/* 256 bytes (id = byte), <s>, </s>, <|im_start|>, <|im_end|>, "ab". */
enum { BOS = 256, EOS, IM_START, IM_END, AB, N_VOCAB };

static inline struct tern_tokenizer *make_tokenizer(void)
{
    static struct made m;
    struct tern_tokenizer *t = NULL;

    made_begin(&m, "default");
    made_token(&m, "<s>", TERN_TOKEN_CONTROL);
    made_token(&m, "</s>", TERN_TOKEN_CONTROL);
    made_token(&m, "<|im_start|>", TERN_TOKEN_CONTROL);
    made_token(&m, "<|im_end|>", TERN_TOKEN_CONTROL);
    made_token(&m, "ab", TERN_TOKEN_NORMAL);
    assert_int_equal(m.n, N_VOCAB);
    made_merges(&m, (const char *const[]){ "a b", NULL });
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", BOS);
    vocab_u32(&m.w, "tokenizer.ggml.eos_token_id", EOS);
    vocab_bool(&m.w, "tokenizer.ggml.add_bos_token", true);
    assert_ok(made_load(&m, NULL, &t));
    return t;
}

static inline int set_up(void **state)
{
    (void)state;
    model = (struct api_model){ .tok = make_tokenizer(),
                                .format = tern_chat_format_by_name("chatml"),
                                .name = "tiny",
                                .n_vocab = N_VOCAB,
                                .ctx = CTX,
                                .n_embd = 8 };
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    api_request_free(&r);
    tern_tokenizer_free((struct tern_tokenizer **)(uintptr_t)&model.tok);
    return 0;
}

static inline size_t quoted(const char *body, char *out)
{
    size_t n = strlen(body);

    for (size_t i = 0; i <= n; i++)
        out[i] = body[i] == '\'' ? '"' : body[i];
    return n;
}

static inline enum tern_status parse(enum api_form_kind kind, const char *body)
{
    static char text[1 << 16];
    size_t n;

    assert_true(strlen(body) < sizeof text);
    n = quoted(body, text);
    api_request_free(&r);
    memset(&fault, 0, sizeof fault);
    return api_request_parse(&model, kind, text, n, &r, &fault);
}

static inline void take(enum api_form_kind kind, const char *body)
{
    if (parse(kind, body))
        fail_msg("%s: refused: %s (%s)", body, fault.err.text, fault.param);
}

/* A text request with these fields beside the prompt. */
static inline void text(const char *fields)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'prompt':'x'%s%s}", *fields ? "," : "", fields);
    take(API_TEXT, body);
}

/* A conversation of one word with these fields besides. */
static inline void chat(const char *fields)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'messages':[{'role':'user','content':'x'}],%s}", fields);
    take(API_CHAT, body);
}

static inline void refuse_kind(enum api_form_kind kind, const char *body, const char *param, const char *word)
{
    enum tern_status st = parse(kind, body);

    if (st < TERN_ERR_USAGE)
        fail_msg("%s: not refused", body);
    assert_null(r);
    assert_int_equal(fault.http, 400);
    if (strcmp(fault.param, param) != 0)
        fail_msg("%s: param is '%s', not '%s' (%s)", body, fault.param, param, fault.err.text);
    if (!strstr(fault.err.text, word))
        fail_msg("%s: '%s' does not say '%s'", body, fault.err.text, word);
}

static inline void refuse(const char *fields, const char *param, const char *word)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'prompt':'x',%s}", fields);
    refuse_kind(API_TEXT, body, param, word);
}

static inline void refuse_chat(const char *fields, const char *param, const char *word)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'messages':[{'role':'user','content':'x'}],%s}", fields);
    refuse_kind(API_CHAT, body, param, word);
}

#endif
