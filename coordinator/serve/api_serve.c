/* SPDX-License-Identifier: Apache-2.0 */
/* The routes that make text: parse, submit, and answer whole or as a stream: see api_answer.h. */
#include "coordinator/serve/api_answer.h"

#include "engine/base/log.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#define TURN_MS 100   /* a client that hangs up is noticed after that long */
#define LARGE   16384 /* log-probabilities, whose tree is some 16 MB */

static pthread_mutex_t large = PTHREAD_MUTEX_INITIALIZER;

/* -- a stream -------------------------------------------------------------------------------------------- */

static bool more(void *user, struct http_text *out)
{
    struct api_answer *a = user;
    json_t *error;

    switch (api_answer_turn(a, TURN_MS, out)) {
    case TERN_OK: return true;
    case TERN_END: return false;
    default: break;
    }
    error = api_fault_json(&a->fault, a->form->numeric_code);
    if (error)
        api_sse_json(out, error);
    return false;
}

static void done(void *user)
{
    struct api_answer *a = user;

    api_answer_free(&a);
}

/* -- a whole answer -------------------------------------------------------------------------------------- */

/* Of large ones one at a time is put together, and what it took goes back at once: each thread has a heap of
 * its own, which would keep it. */
static void reply_answer(struct http_exchange *x, struct api_answer *a)
{
    size_t n = 0;

    for (uint32_t i = 0; a->r->gen.n_logprobs >= 0 && i < a->n_choices; i++)
        n += a->choices[i].n_tokens * (1 + (size_t)a->r->gen.n_logprobs);
    if (n > LARGE)
        pthread_mutex_lock(&large);
    api_reply_json(x, 200, a->form->whole(a));
    if (n > LARGE) {
        (void)malloc_trim(0);
        pthread_mutex_unlock(&large);
    }
}

static void reply_whole(struct http_exchange *x, struct api_answer *a)
{
    uint64_t looked = 0;
    enum tern_status st;

    for (;;) {
        uint64_t now;

        if ((st = api_answer_turn(a, TURN_MS, NULL)))
            break;
        now = tern_now_ns();
        if (now - looked < TURN_MS * UINT64_C(500000))
            continue;
        looked = now;
        if (http_gone(x)) { /* nobody will read this; the jobs are cancelled with the answer */
            api_fault_http(&a->fault, 499, "The client has hung up.");
            break;
        }
    }
    if (a->fault.http)
        api_reply_fault(x, &a->fault, a->form->numeric_code);
    else
        reply_answer(x, a);
}

static enum tern_status answer(struct api *api, struct http_exchange *x, const struct http_request *h,
                               enum api_form_kind kind, const struct api_form *form, struct api_fault *f)
{
    struct api_request *r = NULL;
    struct api_answer *a = NULL;
    enum tern_status st;

    if ((st = api_request_parse(&api->model, kind, h->body, h->n_body, &r, f)) ||
        (st = api_answer_begin(api, form, &r, h->client, &a, f)))
        return st;
    if (a->r->stream) {
        const struct http_stream s = { more, done, a };

        http_reply_header(x, "Cache-Control", "no-cache");
        http_reply_header(x, "X-Accel-Buffering", "no"); /* for proxies that would collect events */
        http_stream(x, 200, API_SSE_TYPE, &s);
        return TERN_OK;
    }
    reply_whole(x, a);
    api_answer_free(&a);
    return TERN_OK;
}

enum tern_status api_post_chat(struct api *a, struct http_exchange *x, const struct http_request *r,
                               struct api_fault *f)
{
    return answer(a, x, r, API_CHAT, &api_form_chat, f);
}

enum tern_status api_post_completions(struct api *a, struct http_exchange *x, const struct http_request *r,
                                      struct api_fault *f)
{
    return answer(a, x, r, API_TEXT, &api_form_text, f);
}

enum tern_status api_post_completion(struct api *a, struct http_exchange *x, const struct http_request *r,
                                     struct api_fault *f)
{
    return answer(a, x, r, API_LLAMA, &api_form_llama, f);
}
