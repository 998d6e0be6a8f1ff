/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What OpenAI's two forms of answers have in common: the members around the choices.  `object` says which
 * form it is ("chat.completion.chunk").  Thread and memory as in api_answer.h.
 */
#ifndef TERN_COORDINATOR_SERVE_API_OPENAI_H
#define TERN_COORDINATOR_SERVE_API_OPENAI_H

#include "coordinator/serve/api_answer.h"

/* v itself, which may be NULL: then JSON's null. */
json_t *api_openai_null_or(json_t *v);

/* An event with these choices (taken), with the timings of one of them that has ended, or NULL. */
void api_openai_event(struct api_answer *a, const char *object, json_t *choices, const struct job_state *s,
                      struct http_text *out);

/* The last events: the usage if it was asked for, and OpenAI's own mark of the end. */
void api_openai_end(struct api_answer *a, const char *object, struct http_text *out);

/* A whole answer of these choices (taken). */
json_t *api_openai_whole(const struct api_answer *a, const char *object, json_t *choices);

#endif
