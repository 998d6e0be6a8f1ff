/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request being answered: its jobs, what has come of each, and the form in which it goes out, whole or as
 * a stream of events.
 *
 * Thread: the connection's.
 */
#ifndef TERN_COORDINATOR_SERVE_API_ANSWER_H
#define TERN_COORDINATOR_SERVE_API_ANSWER_H

#include "coordinator/serve/api_batch.h"
#include "coordinator/serve/api_impl.h"

struct api_answer;

/* Choice i is answer i % n to prompt i / n. */
struct api_choice {
    uint32_t index;
    bool ended, has_new_line, told;
    uint32_t n_told;         /* tokens of the prompt, in the last event about them, if one was sent */
    uint64_t told_ns;        /* ... and when that was */
    size_t n_bytes, n_chars; /* of text so far */
    size_t last_end;         /* of the last token passed on, in bytes, */
    size_t last_end_chars;   /* ... and in code points */
    struct job_state state;  /* once ended */
    /* Kept for a whole answer: */
    struct http_text text;
    struct generate_token *tokens; /* [n_tokens] */
    struct logprob *tops;          /* [n_tokens][n_logprobs] */
    size_t n_tokens, tokens_cap;
};

/* One form of answers.  Events go to out; functions that return JSON return NULL without memory. */
struct api_form {
    const char *id_prefix;
    void (*begin)(struct api_answer *a, struct api_choice *c, struct http_text *out); /* may be NULL */
    void (*piece)(struct api_answer *a, struct api_choice *c, const struct job_piece *p,
                  struct http_text *out);
    void (*progress)(struct api_answer *a, struct api_choice *c, struct http_text *out); /* of the prompt */
    void (*finish)(struct api_answer *a, struct api_choice *c, struct http_text *out);
    void (*end)(struct api_answer *a, struct http_text *out); /* may be NULL */
    json_t *(*whole)(struct api_answer *a);
    bool numeric_code; /* of errors */
};
extern const struct api_form api_form_chat, api_form_text, api_form_llama;

struct api_answer {
    struct api *api;
    const struct api_form *form;
    struct api_request *r; /* owned */
    struct api_batch batch;
    struct api_choice *choices; /* [n_choices] */
    uint32_t n_choices;
    uint64_t client, user;
    char id[64];
    int64_t created;
    struct http_text *out; /* of the turn under way, when streaming */
    bool begun, no_memory;
    struct api_fault fault; /* status set: what ended it too early */
    uint64_t quiet_since;   /* ns: the last event */
};

/* -- for forms ------------------------------------------------------------------------------------------- */

/* The prompt of a choice: ids [*n]. */
const int32_t *api_answer_prompt(const struct api_answer *a, const struct api_choice *c, size_t *n);
/* "stop", "length". */
const char *api_answer_reason(const struct api_choice *c);
/* {"prompt_tokens": ...} of all choices. */
json_t *api_answer_usage(const struct api_answer *a);
/* llama-server's figures of one choice. */
json_t *api_answer_timings(const struct job_state *s);
/* How far the prompt is, in llama-server's figures. */
json_t *api_answer_progress(const struct job_state *s);
/* An event of OpenAI's about that, with this object and these choices (taken). */
void api_answer_send_progress(const struct api_answer *a, const struct api_choice *c, const char *object,
                              json_t *choices, struct http_text *out);
/* The members all answers and events of OpenAI's have, with this object and these choices (taken). */
json_t *api_answer_shell(const struct api_answer *a, const char *object, json_t *choices);

/* Log-probabilities of tokens that end at c->last_end or later, in the three forms; NULL: none were asked
 * for, or no memory.  Moves c->last_end. */
struct api_tokens {
    const struct generate_token *tokens; /* [n] */
    const struct logprob *tops;
    size_t n;
    const char *text; /* what came with them, */
    size_t text_from; /* ... which begins at this byte of the answer */
};
json_t *api_logprobs_chat(struct api_answer *a, struct api_choice *c, struct api_tokens t);
json_t *api_logprobs_text(struct api_answer *a, struct api_choice *c, struct api_tokens t);
json_t *api_logprobs_llama(struct api_answer *a, struct api_choice *c, struct api_tokens t);

/* -- for routes ------------------------------------------------------------------------------------------ */

/* Submits the jobs of a request, which it takes in any case. */
enum tern_status api_answer_begin(struct api *api, const struct api_form *form, struct api_request **r,
                                  uint64_t client, struct api_answer **out,
                                  struct api_fault *f) TERN_MUST_CHECK;
/* Waits a while for more; with `out` events are appended.  TERN_END: that was all.  Fails as a->fault
 * says. */
enum tern_status api_answer_turn(struct api_answer *a, int wait_ms, struct http_text *out) TERN_MUST_CHECK;
void api_answer_free(struct api_answer **a);

#endif
