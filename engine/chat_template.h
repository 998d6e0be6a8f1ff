/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a conversation becomes the text a model was trained on.
 *
 * A format is data: what stands before and behind each role's words.  Which one a model wants is told by
 * its chat template, of which only the looks are used: no template from a file is ever run.
 *
 * A rendered conversation is a list of parts, not one string, because nobody's words may become control
 * tokens: marks (<|im_end|>) are looked up in the vocabulary, all else is encoded as plain text.  What a
 * model generates begins at a cut, across which no token reaches; so the ids of a conversation are a prefix
 * of those of the same conversation gone on, and a KV cache can be kept between turns.
 *
 * Thread: any; formats are constants.
 */
#ifndef TERN_ENGINE_CHAT_TEMPLATE_H
#define TERN_ENGINE_CHAT_TEMPLATE_H

#include "engine/tokenizer.h"

#include <stdio.h>

struct tern_chat_format;

/* "chatml", "llama3", ...: NULL when there is none of that name. */
const struct tern_chat_format *tern_chat_format_by_name(const char *name);
const char *tern_chat_format_name(const struct tern_chat_format *f);
/* Format i of those there are, in the order to show them; NULL behind the last. */
const struct tern_chat_format *tern_chat_format_at(size_t i);
/* The lines of a help text about --chat-template NAME, with all names. */
void tern_chat_format_help(FILE *f);
/* A template in the manner of Hugging Face (Jinja over messages, bos_token, eos_token and
 * add_generation_prompt) that renders the same text as this format, and by whose looks it is detected
 * again. */
const char *tern_chat_template_jinja(const struct tern_chat_format *f);

/* By the looks of a template's text; NULL when it is like none. */
const struct tern_chat_format *tern_chat_format_detect(struct tern_str text);
/* True for the text that bitnet.cpp's converter puts where a template should be. */
bool tern_chat_template_is_placeholder(struct tern_str text);

struct tern_chat_choice {
    const struct tern_chat_format *format;
    const char *why;      /* half a sentence: "by the file's chat template" */
    bool guessed;         /* nothing in the file says how to talk to the model */
    struct tern_str text; /* the file's template, borrowed from g; empty: none, or none that says anything */
};

/* The format of a model: by tokenizer.chat_template, else by the vocabulary (t may be NULL: then not), else
 * "plain", guessed.  TERN_ERR_UNSUPPORTED when there is a template that is like none. */
enum tern_status tern_chat_choose(const struct tern_gguf *g, const struct tern_tokenizer *t,
                                  struct tern_chat_choice *out, struct tern_err *err) TERN_MUST_CHECK;

/* -- conversations --------------------------------------------------------------------------------------- */

enum tern_chat_role { TERN_CHAT_SYSTEM, TERN_CHAT_USER, TERN_CHAT_ASSISTANT };

/* "system", "user", "assistant". */
const char *tern_chat_role_name(enum tern_chat_role role);
bool tern_chat_role_by_name(const char *name, enum tern_chat_role *out);

struct tern_chat_message {
    enum tern_chat_role role;
    struct tern_str content; /* any bytes */
};

enum tern_chat_part_kind {
    TERN_CHAT_TEXT,    /* the format's own words */
    TERN_CHAT_CONTENT, /* somebody else's */
    TERN_CHAT_MARK,    /* a token by its text; plain text where the vocabulary has no such special token */
    TERN_CHAT_BOS,     /* the vocabulary's, if it has one; no text */
    TERN_CHAT_EOS,
    TERN_CHAT_CUT /* no token reaches across */
};

struct tern_chat_part {
    enum tern_chat_part_kind kind;
    size_t at, len; /* in text */
};

struct tern_chat_prompt {
    char *text; /* [n_text], all parts one behind the other */
    size_t n_text, text_cap;
    struct tern_chat_part *parts; /* [n_parts] */
    size_t n_parts, parts_cap;
};

/*
 * Appends messages [from, n) to *out, with the beginning of an answer behind them if `ask`.  from = 0: the
 * whole conversation with the beginning of a text.  Else messages before `from` have been rendered (and the
 * last of them, an assistant's, generated): first comes what closes that one.
 */
enum tern_status tern_chat_render(const struct tern_chat_format *f, const struct tern_chat_message *messages,
                                  size_t n, size_t from, bool ask, struct tern_chat_prompt *out,
                                  struct tern_err *err) TERN_MUST_CHECK;
/* More of somebody's words at the end of *out: for what a caller knows of an answer but never sent. */
enum tern_status tern_chat_add_content(struct tern_chat_prompt *out, const char *text, size_t len,
                                       struct tern_err *err) TERN_MUST_CHECK;
void tern_chat_prompt_free(struct tern_chat_prompt *p);

/* Appends the ids of a prompt.  `first`: it begins a text (from = 0), so BOS comes first where the format
 * or the model wants it, once.  After a failure out->n is what it was. */
enum tern_status tern_chat_encode(const struct tern_chat_format *f, const struct tern_tokenizer *t,
                                  const struct tern_chat_prompt *p, bool first, struct tern_ids *out,
                                  struct tern_err *err) TERN_MUST_CHECK;

/* Where an answer ends besides the end-of-generation tokens: the token that closes it in this format (-1:
 * none in this vocabulary), and a text in front of which it ends (empty: none). */
int32_t tern_chat_end_token(const struct tern_chat_format *f, const struct tern_tokenizer *t);
struct tern_str tern_chat_end_text(const struct tern_chat_format *f, const struct tern_tokenizer *t);

#endif
