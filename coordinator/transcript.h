/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was said in a conversation, and its JSON file: an object with "messages" in the form of OpenAI's
 * chat API, an array of {"role", "content"}; a bare array is read too.
 */
#ifndef TERN_COORDINATOR_TRANSCRIPT_H
#define TERN_COORDINATOR_TRANSCRIPT_H

#include "engine/chat_template.h"

#define TRANSCRIPT_MAX_MESSAGES   65536
#define TRANSCRIPT_MAX_FILE_BYTES ((size_t)64 << 20)

/* A zeroed one is empty. */
struct transcript {
    struct tern_chat_message *messages; /* [n], contents owned */
    size_t n, cap;
};

void transcript_free(struct transcript *t);

enum tern_status transcript_add(struct transcript *t, enum tern_chat_role role, const char *text, size_t len,
                                struct tern_err *err) TERN_MUST_CHECK;
/* Forgets messages from n on. */
void transcript_cut(struct transcript *t, size_t n);
/* What the system says at the beginning, if it says something: NULL or its message. */
const struct tern_chat_message *transcript_system(const struct transcript *t);
/* Puts text there; without text nothing. */
enum tern_status transcript_set_system(struct transcript *t, const char *text, size_t len,
                                       struct tern_err *err) TERN_MUST_CHECK;

/* Writes beside the file and renames, readable by the user alone.  Bytes that are no UTF-8 become U+FFFD. */
enum tern_status transcript_save(const struct transcript *t, const char *path,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* Replaces *t; untouched after a failure. */
enum tern_status transcript_load(struct transcript *t, const char *path,
                                 struct tern_err *err) TERN_MUST_CHECK;
/* The same from bytes; `name` is for sentences. */
enum tern_status transcript_parse(struct transcript *t, const char *name, const char *text, size_t len,
                                  struct tern_err *err) TERN_MUST_CHECK;

#endif
