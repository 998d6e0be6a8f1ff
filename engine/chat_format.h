/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chat format is made of: for chat_template.c, which has the table, and chat_render.c, which reads
 * it.
 */
#ifndef TERN_ENGINE_CHAT_FORMAT_H
#define TERN_ENGINE_CHAT_FORMAT_H

#include "engine/chat_template.h"

/* In the strings of a format a mark stands between two of these: MARK("<|im_end|>"); MARK_BOS and MARK_EOS
 * are the vocabulary's own. */
#define TERN_CHAT_DELIM '\1'
#define MARK(text)      "\1" text "\1"
#define MARK_BOS        MARK("bos")
#define MARK_EOS        MARK("eos")

struct tern_chat_format {
    const char *name, *what;
    const char *open[3], *close[3]; /* around what system, user and assistant say */
    const char *lead;   /* between open[assistant] and the answer, where the model makes it itself */
    bool system_inside; /* the system's words, with open and close, begin the next user's */
    bool trim;          /* white space goes from both ends of what anybody says */
    bool bos;           /* a text begins with BOS whatever the tokenizer's default is */
    const char *stop;   /* an answer ends in front of this text; NULL: none */
    const char *jinja;
};

#endif
