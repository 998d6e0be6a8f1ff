/* SPDX-License-Identifier: Apache-2.0 */
/* Refusals and their JSON: see api_fault.h. */
#include "coordinator/serve/api_fault.h"

#include "coordinator/json_out.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *type_of(unsigned http)
{
    switch (http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    default: return http >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* What somebody else found wrong. */
static const char *code_of(enum tern_status status, unsigned http)
{
    switch (status) {
    case TERN_ERR_BUSY: return "overloaded";
    case TERN_ERR_PEER: return "pipeline_unavailable";
    case TERN_ERR_MEMORY: return "out_of_memory";
    default: return http >= 500 ? "server_error" : "invalid_value";
    }
}

static unsigned http_of(enum tern_status status)
{
    switch (status) {
    case TERN_ERR_USAGE:
    case TERN_ERR_FORMAT:
    case TERN_ERR_UNSUPPORTED:
    case TERN_ERR_LIMIT: return 400;
    case TERN_ERR_BUSY:
    case TERN_ERR_PEER:
    case TERN_ERR_MEMORY: return 503;
    default: return 500;
    }
}

static void by_status(struct api_fault *f, enum tern_status status, const char *code, const char *param)
{
    f->http = http_of(status);
    f->type = type_of(f->http);
    f->code = code ? code : code_of(status, f->http);
    f->retry_after_s = f->http == 503 ? 1 : 0;
    f->n_prompt = f->n_ctx = 0;
    f->allow = NULL;
    (void)snprintf(f->param, sizeof f->param, "%s", param ? param : "");
}

enum tern_status api_fault_set(struct api_fault *f, enum tern_status status, const char *code,
                               const char *param, const char *fmt, ...)
{
    char text[TERN_ERR_TEXT_BYTES];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    by_status(f, status, code, param);
    return TERN_FAIL(&f->err, status, "%s", text);
}

enum tern_status api_fault_take(struct api_fault *f, const char *param)
{
    by_status(f, f->err.status, NULL, param);
    return f->err.status;
}

enum tern_status api_fault_failed(struct api_fault *f)
{
    (void)api_fault_take(f, NULL);
    if (f->err.status != TERN_ERR_PEER)
        return f->err.status;
    f->http = 500;
    f->type = type_of(f->http);
    f->code = "pipeline_failed";
    f->retry_after_s = 0;
    return f->err.status;
}

enum tern_status api_fault_stopped(struct api_fault *f)
{
    return api_fault_set(f, TERN_ERR_BUSY, "shutting_down", NULL,
                         "The answer was interrupted: the server is being stopped.");
}

void api_fault_http(struct api_fault *f, unsigned http, const char *message)
{
    enum tern_status status = http == 503 ? TERN_ERR_BUSY : TERN_ERR_USAGE;

    (void)api_fault_set(f, status, NULL, NULL, "%s", message);
    f->http = http;
    f->type = type_of(http);
    f->code = http == 401 ? "invalid_api_key" : http == 503 ? "unavailable" : NULL;
    f->retry_after_s = http == 503 || http == 429 ? 1 : 0;
}

json_t *api_fault_json(const struct api_fault *f, bool numeric_code)
{
    json_t *code = numeric_code ? json_integer((json_int_t)f->http)
                   : f->code    ? json_string(f->code)
                                : json_null();
    json_t *message = json_out_text((struct tern_str){ f->err.text, strlen(f->err.text) });
    json_t *e =
        json_pack("{s:o, s:s, s:o, s:o}", "message", message, "type", f->type, "param",
                  *f->param ? json_out_text((struct tern_str){ f->param, strlen(f->param) }) : json_null(),
                  "code", code);

    if (e && f->n_ctx &&
        (json_object_set_new(e, "n_prompt_tokens", json_integer(f->n_prompt)) ||
         json_object_set_new(e, "n_ctx", json_integer(f->n_ctx)))) {
        json_decref(e);
        return NULL;
    }
    return e ? json_pack("{s:o}", "error", e) : NULL;
}
