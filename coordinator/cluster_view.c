/* SPDX-License-Identifier: Apache-2.0 */
/* /tern/cluster as data: see cluster_view.h. */
#include "coordinator/cluster_view.h"

#include "engine/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- words and numbers ----------------------------------------------------------------------------------- */

/* Control characters, and marks that turn the direction of writing. */
static bool is_odd(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

void cluster_view_clean(const char *text, char *out, size_t cap)
{
    const size_t n = strlen(text);
    size_t at = 0;

    for (size_t i = 0; i < n;) {
        size_t len = 1;
        const int32_t code = tern_utf8_sequence((const uint8_t *)text + i, n - i, &len);
        const bool odd = code <= 0 || is_odd((uint32_t)code - 1);

        if (at + (odd ? 1 : len) >= cap)
            break;
        if (odd)
            out[at++] = '?';
        else
            memcpy(out + at, text + i, len);
        at += odd ? 0 : len;
        i += len;
    }
    out[at] = '\0';
}

static void word(const json_t *o, const char *name, char *out, size_t cap)
{
    const char *text = json_string_value(json_object_get(o, name));

    cluster_view_clean(text ? text : "", out, cap);
}

/* For columns: nothing but printable ASCII. */
static void column(const json_t *o, const char *name, char *out, size_t cap)
{
    size_t n;

    word(o, name, out, cap);
    n = strlen(out);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)out[i] > 0x7e)
            out[i] = '?';
}

static double number_of(const json_t *v)
{
    const double x = json_is_number(v) ? json_number_value(v) : NAN;

    return fabs(x) < 1e18 ? x : NAN;
}

static double number(const json_t *o, const char *name)
{
    return number_of(json_object_get(o, name));
}

/* -- parts ----------------------------------------------------------------------------------------------- */

static void take_stage(const json_t *o, struct cluster_stage *s)
{
    const json_t *layers = json_object_get(o, "layers");

    column(o, "name", s->name, sizeof s->name);
    column(o, "endpoint", s->endpoint, sizeof s->endpoint);
    column(o, "cpu", s->cpu, sizeof s->cpu);
    s->first = number_of(json_array_get(layers, 0));
    s->last = number_of(json_array_get(layers, 1));
    s->threads = number(o, "threads");
    s->memory_bytes = number(o, "memory_bytes");
    s->steps = number(o, "steps");
    s->ms_per_step = number(o, "ms_per_step");
    s->tokens_per_s = number(o, "tokens_per_s");
    s->idle_share = number(o, "idle_share");
    s->queue_ms = number(o, "queue_ms");
    s->rejected = number(o, "rejected");
    s->silent_ms = number(o, "silent_ms");
    s->suspect = json_is_true(json_object_get(o, "suspect"));
    s->away = json_is_null(json_object_get(o, "suspect"));
}

static void take_coordinator(const json_t *o, struct cluster_stage *s)
{
    take_stage(o, s);
    strcpy(s->name, "coordinator");
    s->ms_per_step = number(o, "head_ms_per_step");
}

static void take_scheduler(const json_t *o, struct cluster_view *v)
{
    const json_t *pages = json_object_get(o, "pages"), *prefix = json_object_get(o, "prefix");

    v->parallel = number(o, "parallel");
    v->running = number(o, "running");
    v->waiting = number(o, "waiting");
    v->max_queue = number(o, "max_queue");
    v->in_flight = number(o, "in_flight");
    v->max_in_flight = number(o, "max_in_flight");
    v->chunk = number(o, "chunk");
    v->groups = number(o, "groups");
    v->pages = number(pages, "total");
    v->pages_free = number(pages, "free");
    v->pages_cached = number(pages, "cached");
    v->prefix_lookups = number(prefix, "lookups");
    v->prefix_hits = number(prefix, "hits");
    v->prefix_tokens = number(prefix, "tokens");
}

static void take_model(const json_t *o, struct cluster_view *v)
{
    word(o, "name", v->model, sizeof v->model);
    word(o, "architecture", v->architecture, sizeof v->architecture);
    word(o, "wire", v->wire, sizeof v->wire);
    word(o, "kv", v->kv, sizeof v->kv);
    v->layers = number(o, "layers");
    v->ctx = number(o, "ctx");
    v->file_bytes = number(o, "file_bytes");
}

static struct cluster_quantiles quantiles(const json_t *latency, const char *name)
{
    const json_t *o = json_object_get(latency, name);

    return (struct cluster_quantiles){ number(o, "p50"), number(o, "p99") };
}

static void take_figures(const json_t *root, struct cluster_view *v)
{
    const json_t *rates = json_object_get(root, "rates"), *totals = json_object_get(root, "totals"),
                 *latency = json_object_get(root, "latency");

    v->prompt_per_s = number(rates, "prompt_per_s");
    v->answer_per_s = number(rates, "answer_per_s");
    v->jobs = number(totals, "jobs");
    v->ended = number(totals, "ended");
    v->cancelled = number(totals, "cancelled");
    v->failed = number(totals, "failed");
    v->refused = number(totals, "refused");
    v->reopened = number(totals, "reopened");
    v->prompt_tokens = number(totals, "prompt_tokens");
    v->answer_tokens = number(totals, "answer_tokens");
    v->first_token_ms = quantiles(latency, "first_token_ms");
    v->between_tokens_ms = quantiles(latency, "between_tokens_ms");
    v->queued_ms = quantiles(latency, "queued_ms");
}

static void take_slot(const json_t *o, struct cluster_slot *s)
{
    s->slot = number(o, "slot");
    s->job = number(o, "job");
    s->prompt = number(o, "prompt");
    s->prompt_done = number(o, "prompt_done");
    s->cached = number(o, "cached");
    s->tokens = number(o, "tokens");
    s->ctx = number(o, "ctx");
    s->seconds = number(o, "seconds");
    s->prompting = json_is_true(json_object_get(o, "prompting"));
}

static uint32_t count(const json_t *list, uint32_t most)
{
    const size_t n = json_array_size(list);

    return n < most ? (uint32_t)n : most;
}

static void take_lists(const json_t *root, struct cluster_view *v)
{
    const json_t *stages = json_object_get(root, "stages"), *hops = json_object_get(root, "hops"),
                 *slots = json_object_get(root, "slots");

    v->n_stages = count(stages, TERN_MAX_WORKERS);
    for (uint32_t i = 0; i < v->n_stages; i++)
        take_stage(json_array_get(stages, i), &v->stages[i]);
    v->n_hops = count(hops, TERN_MAX_WORKERS + 1);
    for (uint32_t i = 0; i < v->n_hops; i++) {
        const json_t *o = json_array_get(hops, i);

        v->hops[i] = (struct cluster_hop){ number(o, "bytes"), number(o, "bytes_per_s"), number(o, "p50_us"),
                                           number(o, "p99_us"), number(o, "within_us") };
    }
    v->n_slots = count(slots, TERN_MAX_SLOTS);
    for (uint32_t i = 0; i < v->n_slots; i++)
        take_slot(json_array_get(slots, i), &v->slots[i]);
}

/* -- the whole ------------------------------------------------------------------------------------------- */

enum tern_status cluster_view_parse(const char *server, const char *text, size_t len,
                                    struct cluster_view *out, json_t **root_out, struct tern_err *err)
{
    json_t *root = json_loadb(text, len, 0, NULL);

    if (!json_is_object(json_object_get(root, "scheduler")) ||
        !json_is_array(json_object_get(root, "stages")) ||
        !json_is_string(json_object_get(root, "version"))) {
        json_decref(root);
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s answers, but is no `tern serve`", server);
    }
    memset(out, 0, sizeof *out);
    word(root, "version", out->version, sizeof out->version);
    out->ready = json_is_true(json_object_get(root, "ready"));
    word(root, "why", out->why, sizeof out->why);
    out->uptime_s = number(root, "uptime_s");
    out->now_us = number(root, "now_us");
    take_model(json_object_get(root, "model"), out);
    take_coordinator(json_object_get(root, "coordinator"), &out->coordinator);
    take_scheduler(json_object_get(root, "scheduler"), out);
    take_figures(root, out);
    take_lists(root, out);
    if (root_out)
        *root_out = root;
    else
        json_decref(root);
    return TERN_OK;
}

enum tern_status cluster_view_fetch(struct http_client *c, const char *path, struct cluster_view *out,
                                    json_t **root, struct tern_err *err)
{
    const struct http_client_request r = { .path = path };
    struct http_client_answer a = { 0 };
    enum tern_status st = http_client_ask(c, &r, &a, err);

    if (st)
        return st;
    if (a.status == 200)
        st = cluster_view_parse(http_client_server(c), a.body ? a.body : "", a.len, out, root, err);
    else if (a.status == 401 || a.status == 403 || a.status == 429 || a.status >= 500)
        st = http_client_refusal(c, &a, err);
    else
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s answers, but is no `tern serve` (status %ld at %s)",
                       http_client_server(c), a.status, path);
    http_client_answer_free(&a);
    return st;
}

const char *cluster_view_server(const char *given)
{
    const char *named = getenv(HTTP_CLIENT_ENVIRONMENT);

    if (given)
        return given;
    return named && *named ? named : HTTP_CLIENT_DEFAULT;
}
