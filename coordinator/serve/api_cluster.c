/* SPDX-License-Identifier: Apache-2.0 */
/* The live picture of the cluster: once at /tern/cluster, again and again at /tern/events. */
#include "coordinator/serve/api_impl.h"

#include "coordinator/serve/snapshot_json.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PERIOD_MS 250
#define LOOK_MS   50 /* between two looks at the clock: a client that hangs up is noticed in between */

/* since=N.  False: there is none; a wrong one is refused. */
static enum tern_status since_of(struct http_exchange *x, bool *given, uint64_t *out, struct api_fault *f)
{
    const char *text = http_argument(x, "since");
    char *end;

    *given = text != NULL;
    *out = 0;
    if (!text)
        return TERN_OK;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (!*text || *end || errno || *text == '-')
        return API_REFUSE(f, "since", "'since' must be the number of a step.");
    return TERN_OK;
}

enum tern_status api_get_cluster(struct api *a, struct http_exchange *x, const struct http_request *r,
                                 struct api_fault *f)
{
    bool steps;
    uint64_t since;
    char *text;
    size_t len;
    enum tern_status st = since_of(x, &steps, &since, f);

    (void)r;
    if (st)
        return st;
    if (snapshot_json(a->service, steps, since, &text, &len, &f->err))
        return api_fault_take(f, NULL);
    http_reply_header(x, "Cache-Control", "no-store");
    http_reply(x, 200, API_JSON_TYPE, text, len);
    free(text);
    return TERN_OK;
}

/* -- events ---------------------------------------------------------------------------------------------- */

struct events {
    struct service *service;
    uint64_t since, next_ms;
};

/* The greatest number of a step in the object: from there the next event goes on. */
static uint64_t last_step(const char *text, size_t len, uint64_t before)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    const json_t *steps = json_object_get(root, "steps");
    const json_t *last = json_array_get(steps, json_array_size(steps) - 1);
    const json_t *n = json_object_get(last, "n");
    const uint64_t found = json_is_integer(n) ? (uint64_t)json_integer_value(n) : before;

    json_decref(root);
    return found;
}

static bool more(void *user, struct http_text *out)
{
    struct events *e = user;
    const uint64_t now = tern_now_ms();
    struct tern_err err;
    char *text;
    size_t len;

    if (service_draining(e->service)) /* nobody waits for a picture */
        return false;
    if (now < e->next_ms) {
        const uint64_t left = e->next_ms - now < LOOK_MS ? e->next_ms - now : LOOK_MS;

        nanosleep(&(struct timespec){ .tv_nsec = (long)left * 1000000 }, NULL);
        return true;
    }
    e->next_ms = now + PERIOD_MS;
    if (snapshot_json(e->service, true, e->since, &text, &len, &err))
        return false;
    e->since = last_step(text, len, e->since);
    http_text_add(out, "data: ", 6);
    http_text_add(out, text, len);
    http_text_add(out, "\n\n", 2);
    free(text);
    return true;
}

static void done(void *user)
{
    free(user);
}

enum tern_status api_get_events(struct api *a, struct http_exchange *x, const struct http_request *r,
                                struct api_fault *f)
{
    struct events *e = calloc(1, sizeof *e);
    struct http_stream s = { more, done, e };
    bool given;
    enum tern_status st;

    (void)r;
    if (!e)
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the events.");
    if ((st = since_of(x, &given, &e->since, f))) {
        free(e);
        return st;
    }
    e->service = a->service;
    http_reply_header(x, "Cache-Control", "no-cache");
    http_reply_header(x, "X-Accel-Buffering", "no");
    http_stream(x, 200, API_SSE_TYPE, &s);
    return TERN_OK;
}
