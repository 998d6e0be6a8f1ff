/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a body asks for, checked: every field of OpenAI's and llama-server's forms that means something here.
 * API.md in this folder lists them.
 *
 * Parsing needs a vocabulary and a few numbers of the model and no running one.
 */
#ifndef TERN_COORDINATOR_SERVE_API_REQUEST_H
#define TERN_COORDINATOR_SERVE_API_REQUEST_H

#include "coordinator/generate.h"
#include "coordinator/serve/api_body.h"
#include "coordinator/serve/api_fault.h"
#include "coordinator/transcript.h"
#include "engine/arch.h"
#include "engine/chat_template.h"
#include "engine/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define API_MAX_PROMPTS  2048   /* of one request, as with OpenAI's embeddings */
#define API_MAX_CHOICES  128    /* of one request: prompts times n */
#define API_MAX_TOP      20     /* top_logprobs */
#define API_MAX_LOGPROBS 262144 /* of a whole answer, most probable ones included: 1 KB of memory each */
#define API_MAX_USER     512    /* bytes of `user` */
#define API_MAX_MESSAGES 8192
#define API_MAX_KWARGS   64 /* variables for a template */

struct grammar;

/* What parsing has to know of the model; everything is borrowed. */
struct api_model {
    const struct tern_tokenizer *tok;
    const struct tern_chat_format *format; /* NULL: no way to chat is known */
    struct tern_str template;              /* Jinja text that the format stands for; empty: its own */
    const char *name;
    uint32_t n_vocab, ctx, n_embd;
    size_t longest;      /* bytes of a text that one token may stand for, at most; 0: not known */
    uint32_t max_tokens; /* of one answer; 0: the context */
    uint32_t n_keep;     /* when the request does not say */
    bool shift;          /* an answer may be longer than the context */
    enum tern_pooling pooling;
};

/* Whose form: /v1/chat/completions, /v1/completions, llama-server's /completion. */
enum api_form_kind { API_CHAT, API_TEXT, API_LLAMA };

/* Prompts as ids, one behind the other: prompt i is ids[from[i] .. from[i + 1]). */
struct api_prompts {
    struct tern_ids ids;
    size_t *from; /* [n + 1] */
    size_t n;
};

struct api_request {
    enum api_form_kind kind;
    json_t *body; /* without the prompt; texts below are its */
    struct api_prompts prompts;
    uint32_t n; /* choices for each prompt */
    struct generate_options gen;
    int32_t end_id;        /* gen.end_id points here */
    uint32_t n_user_stops; /* those behind are the chat format's */
    char end_text[GENERATE_MAX_STOP_BYTES + 1];
    bool seed_given;
    bool stream, include_usage, echo, no_cache, return_tokens, timings_per_token, return_progress;
    const json_t *response_fields; /* LLAMA: paths, the body's; NULL or empty: everything */
    int64_t n_keep;                /* -1: the whole prompt */
    const struct grammar *grammar; /* owned */
    struct tern_str user;
};

/* body [n], NUL behind it.  *out to be freed with api_request_free. */
enum tern_status api_request_parse(const struct api_model *m, enum api_form_kind kind, const char *body,
                                   size_t n, struct api_request **out, struct api_fault *f) TERN_MUST_CHECK;
void api_request_free(struct api_request **r);

/* -- parts, also for routes without an answer ------------------------------------------------------------ */

/* A zeroed one is empty. */
void api_prompts_free(struct api_prompts *p);
/* A string, an array of ids, a mixed array, or an array of those: `field` of sentences.  parse_special:
 * control tokens in texts are recognised. */
enum tern_status api_parse_prompts(const struct api_model *m, const json_t *v, const char *field,
                                   bool parse_special, struct api_prompts *out,
                                   struct api_fault *f) TERN_MUST_CHECK;
/* A text of so many bytes has more tokens than the context, however it is cut: found out before it is
 * encoded. */
enum tern_status api_check_text(const struct api_model *m, size_t n_bytes, const char *field,
                                struct api_fault *f) TERN_MUST_CHECK;
/* Appends one prompt to out->ids that has been encoded there since the last one. */
enum tern_status api_prompts_close(const struct api_model *m, struct api_prompts *out, const char *field,
                                   struct api_fault *f) TERN_MUST_CHECK;

/* `messages`, rendered in the model's format: the answer's beginning behind them, or, when an assistant's
 * message is the last one, that message unfinished. */
enum tern_status api_parse_messages(const struct api_model *m, const json_t *body,
                                    struct tern_chat_prompt *out, struct api_fault *f) TERN_MUST_CHECK;

/* Sampling, lengths, stops and biases into r. */
enum tern_status api_parse_sampling(const struct api_model *m, const json_t *body, struct api_request *r,
                                    struct api_fault *f) TERN_MUST_CHECK;
enum tern_status api_parse_stops(const json_t *body, struct api_request *r,
                                 struct api_fault *f) TERN_MUST_CHECK;

/* response_format, json_schema, grammar. */
enum tern_status api_parse_format(const json_t *body, struct api_request *r,
                                  struct api_fault *f) TERN_MUST_CHECK;

/* Refuses what would have to change the answer and is not done here. */
enum tern_status api_parse_unsupported(const json_t *body, enum api_form_kind kind,
                                       struct api_fault *f) TERN_MUST_CHECK;

#endif
