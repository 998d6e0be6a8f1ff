/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a request is not answered as it wanted: a status of HTTP, OpenAI's words for it, and a sentence.
 *
 *   {"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}
 *
 * The form is OpenAI's on all routes.  `code` is what each kind of client expects there: a word or null on
 * OpenAI's routes, the number of the status on llama-server's own (api.c knows which are whose); `type` has
 * llama-server's names, which are OpenAI's where both have one.
 */
#ifndef TERN_COORDINATOR_SERVE_API_FAULT_H
#define TERN_COORDINATOR_SERVE_API_FAULT_H

#include "engine/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct api_fault {
    struct tern_err err;      /* its status and sentence */
    unsigned http;            /* 400, 404, ... */
    const char *type, *code;  /* code NULL: null */
    char param[80];           /* "messages[2].content"; empty: null */
    uint32_t n_prompt, n_ctx; /* of a prompt that is too long */
    unsigned retry_after_s;   /* 0: no such header */
    const char *allow;        /* of 405: the methods there are */
};

/* Fills f and returns `status`.  code may be NULL, param too. */
enum tern_status api_fault_set(struct api_fault *f, enum tern_status status, const char *code,
                               const char *param, const char *fmt, ...) TERN_PRINTF(5, 6);

/* A value of a wrong type or out of range: 400. */
#define API_REFUSE(f, param, ...) api_fault_set((f), TERN_ERR_USAGE, "invalid_value", (param), __VA_ARGS__)
/* Something that is known and not done here: 400. */
#define API_UNSUPPORTED(f, param, ...)                                                                       \
    api_fault_set((f), TERN_ERR_UNSUPPORTED, "unsupported_parameter", (param), __VA_ARGS__)

/* f->err has been filled by somebody else: the rest by its status.  Returns that. */
enum tern_status api_fault_take(struct api_fault *f, const char *param);

/* The same of a request that had been taken in: what broke the pipeline under it is a failure of ours, 500,
 * and says nothing about the next one. */
enum tern_status api_fault_failed(struct api_fault *f);
/* It was broken off because the server ends: 503. */
enum tern_status api_fault_stopped(struct api_fault *f);

/* The members for a status of HTTP that no parser chose: 404, 413, 503, ... */
void api_fault_http(struct api_fault *f, unsigned http, const char *message);

/* The object above; numeric_code: as llama-server's own routes have it.  NULL: no memory. */
json_t *api_fault_json(const struct api_fault *f, bool numeric_code);

#endif
