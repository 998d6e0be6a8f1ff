/* SPDX-License-Identifier: Apache-2.0 */
/* A running service as JSON: see snapshot_json.h.  From top to bottom: the parts, each a function, and the
 * whole. */
#include "coordinator/serve/snapshot_json.h"

#include "coordinator/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_STEPS 1024
#define AT_ONCE   32

/* What is 0 because nobody knows it. */
static json_t *known(uint64_t v)
{
    return v ? json_integer((json_int_t)v) : json_null();
}

/* A share or a rate, to four digits; negative: not known. */
static json_t *real(double v)
{
    return v < 0 ? json_null() : json_out_number(nearbyint(v * 1e4) / 1e4);
}

static json_t *integer(uint64_t v)
{
    return json_integer((json_int_t)v);
}

/* Takes what packing made; a part that had no memory leaves none to the whole. */
static void put(json_t *o, const char *key, json_t *value)
{
    (void)json_object_set_new(o, key, value);
}

/* -- the parts ------------------------------------------------------------------------------------------- */

static json_t *model_json(const struct service *s)
{
    const struct session *e = service_session(s);
    json_t *o = json_object();

    put(o, "name", json_out_text((struct tern_str){ service_model_name(s), strlen(service_model_name(s)) }));
    put(o, "architecture", json_string(e->arch.name));
    put(o, "layers", integer(e->arch.n_layers));
    put(o, "embd", integer(e->arch.n_embd));
    put(o, "vocab", integer(e->arch.n_vocab));
    put(o, "ctx", integer(e->ctx));
    put(o, "ctx_train", known(e->arch.n_ctx_train));
    put(o, "file_bytes", integer(tern_gguf_file_bytes(e->gguf)));
    put(o, "wire", json_string(tern_boundary_name(e->o->wire)));
    put(o, "kv", json_string(tern_kv_type_name(e->o->kv)));
    return o;
}

/* Resident in this process. */
static uint64_t memory_bytes(void)
{
    unsigned long long all, resident;
    FILE *f = fopen("/proc/self/statm", "re");
    int n = f ? fscanf(f, "%llu %llu", &all, &resident) : 0;

    if (f)
        (void)fclose(f);
    return n == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static json_t *coordinator_json(const struct service *s, const struct snapshot *p)
{
    const struct session *e = service_session(s);
    json_t *o = json_object();

    put(o, "threads", integer(tern_pool_threads(e->pool)));
    put(o, "cpu", json_string(tern_cpu_name(e->kern.level)));
    put(o, "memory_bytes", known(memory_bytes()));
    put(o, "head_ms_per_step", real(p->head_ms_per_step));
    put(o, "idle_share", real(p->coordinator_idle_share));
    return o;
}

static json_t *stage_json(const struct snapshot_stage *g)
{
    json_t *o = json_object();

    put(o, "name", json_string(g->info.name));
    put(o, "endpoint", *g->live.endpoint ? json_string(g->live.endpoint) : json_null());
    put(o, "cpu", json_string(g->info.cpu));
    put(o, "threads", integer(g->info.threads));
    put(o, "layers", json_pack("[i, i]", (int)g->info.first, (int)g->info.last - 1));
    put(o, "weight_bytes", known(g->info.weight_bytes));
    put(o, "kv_bytes", known(g->info.kv_bytes));
    put(o, "memory_bytes", known(g->live.memory_bytes));
    put(o, "steps", integer(g->steps));
    put(o, "ms_per_step", real(g->ms_per_step));
    put(o, "tokens_per_s", real(g->tokens_per_s));
    put(o, "idle_share", real(g->idle_share));
    put(o, "queue_ms", g->steps ? real((double)g->queue_us / 1e3 / (double)g->steps) : json_null());
    put(o, "rejected", g->open ? integer(g->live.rejected) : json_null());
    put(o, "suspect", g->open ? json_boolean(g->live.suspect) : json_null());
    put(o, "silent_ms", g->open && *g->live.endpoint ? integer(g->live.silent_ms) : json_null());
    put(o, "round_trip_us", known(g->live.round_trip_us));
    put(o, "clock_within_us", g->open ? known(g->live.clock_within_us) : json_null());
    return o;
}

static json_t *hop_time(const struct snapshot_hop *h, uint32_t us)
{
    return snapshot_hop_knows(h, us) ? integer(us) : json_null();
}

static json_t *hops_json(const struct snapshot *p)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i <= p->n_stages && p->n_stages; i++) {
        const struct snapshot_hop *h = &p->hops[i];
        json_t *o = json_object();

        put(o, "from", json_string(i ? p->stages[i - 1].info.name : "coordinator"));
        put(o, "to", json_string(i < p->n_stages ? p->stages[i].info.name : "coordinator"));
        put(o, "bytes", integer(h->bytes));
        put(o, "bytes_per_s", real(h->bytes_per_s));
        put(o, "p50_us", hop_time(h, h->p50_us));
        put(o, "p99_us", hop_time(h, h->p99_us));
        put(o, "within_us", h->n > 0 ? known(h->within_us) : json_null());
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *scheduler_json(const struct snapshot *p)
{
    const struct sched_stats *s = &p->sched;
    json_t *o = json_object();

    put(o, "parallel", integer(p->parallel));
    put(o, "running", integer(p->n_running));
    put(o, "waiting", integer(p->n_waiting));
    put(o, "max_queue", integer(p->max_queue));
    put(o, "in_flight", integer(s->n_in_flight));
    put(o, "max_in_flight", integer(p->max_in_flight));
    put(o, "chunk", known(s->chunk));
    put(o, "share", known(s->share));
    put(o, "groups", known(s->groups));
    put(o, "pages",
        json_pack("{s:I, s:I, s:I}", "total", (json_int_t)s->pages, "free", (json_int_t)s->pages_free,
                  "cached", (json_int_t)s->pages_cached));
    put(o, "prefix",
        json_pack("{s:I, s:I, s:I, s:I}", "lookups", (json_int_t)s->prefix_lookups, "hits",
                  (json_int_t)s->prefix_hits, "tokens", (json_int_t)s->prefix_tokens, "evicted",
                  (json_int_t)s->prefix_evicted));
    return o;
}

static json_t *totals_json(const struct snapshot *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "jobs", (json_int_t)p->jobs, "ended",
                     (json_int_t)p->jobs_ended, "cancelled", (json_int_t)p->jobs_cancelled, "failed",
                     (json_int_t)p->jobs_failed, "refused", (json_int_t)p->refused, "reopened",
                     (json_int_t)p->reopened, "prompt_tokens", (json_int_t)p->prompt_tokens, "answer_tokens",
                     (json_int_t)p->answer_tokens, "steps", (json_int_t)p->steps);
}

static json_t *quantiles_json(const struct snapshot_quantiles *q)
{
    json_t *o = json_object();

    put(o, "p50", q->n ? real(q->p50_us / 1e3) : json_null());
    put(o, "p99", q->n ? real(q->p99_us / 1e3) : json_null());
    return o;
}

static json_t *latency_json(const struct snapshot *p)
{
    json_t *o = json_object();

    put(o, "first_token_ms", quantiles_json(&p->first_token_last));
    put(o, "between_tokens_ms", quantiles_json(&p->between_tokens_last));
    put(o, "queued_ms", quantiles_json(&p->queued_last));
    return o;
}

static json_t *slots_json(struct service *s)
{
    struct snapshot_slot slots[TERN_MAX_SLOTS];
    const uint32_t n = service_slots(s, slots, TERN_MAX_SLOTS);
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++) {
        const struct snapshot_slot *t = &slots[i];
        json_t *o = json_object();

        put(o, "slot", integer(t->slot));
        put(o, "job", integer(t->job));
        put(o, "prompting", json_boolean(t->prompting));
        put(o, "prompt", integer(t->n_prompt));
        put(o, "prompt_done", integer(t->n_prompt_done));
        put(o, "cached", integer(t->n_cached));
        put(o, "tokens", integer(t->n_tokens));
        put(o, "ctx", integer(t->n_ctx));
        put(o, "seconds", real(t->seconds));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *step_json(const struct snapshot_step *t)
{
    json_t *o = json_object(), *stages = json_array();

    put(o, "n", integer(t->number));
    put(o, "sent", integer(t->sent_us));
    put(o, "home", integer(t->home_us));
    put(o, "taken", integer(t->taken_us));
    put(o, "done", integer(t->done_us));
    put(o, "prompt", integer(t->n_prompt));
    put(o, "decode", integer(t->n_decode));
    for (uint32_t i = 0; i < t->n_stages; i++) {
        json_t *g = json_array();

        (void)json_array_append_new(g, known(t->stages[i].in_us));
        (void)json_array_append_new(g, known(t->stages[i].start_us));
        (void)json_array_append_new(g, known(t->stages[i].end_us));
        (void)json_array_append_new(g, integer(t->stages[i].bytes));
        (void)json_array_append_new(stages, g);
    }
    put(o, "stages", stages);
    return o;
}

/* NULL: no memory.  By and by, for a step has room for as many stages as there may be. */
static json_t *steps_json(struct service *s, uint64_t since)
{
    struct snapshot_step *steps = malloc(AT_ONCE * sizeof *steps);
    json_t *list = steps ? json_array() : NULL;
    uint32_t n = AT_ONCE;

    while (list && n == AT_ONCE && json_array_size(list) < MAX_STEPS) {
        n = service_traces(s, since, steps, AT_ONCE);
        for (uint32_t i = 0; i < n; i++)
            (void)json_array_append_new(list, step_json(&steps[i]));
        since = n ? steps[n - 1].number : since;
    }
    free(steps);
    return list;
}

/* -- the whole ------------------------------------------------------------------------------------------- */

static json_t *whole_json(struct service *s, const struct snapshot *p)
{
    json_t *o = json_object(), *stages = json_array();

    put(o, "version", json_string(TERN_VERSION));
    put(o, "uptime_s", real((double)p->uptime_us / 1e6));
    put(o, "now_us", integer(p->now_us));
    put(o, "ready", json_boolean(p->ready));
    put(o, "why", p->ready ? json_null() : json_string(p->why));
    put(o, "model", model_json(s));
    put(o, "coordinator", coordinator_json(s, p));
    for (uint32_t i = 0; i < p->n_stages; i++)
        (void)json_array_append_new(stages, stage_json(&p->stages[i]));
    put(o, "stages", stages);
    put(o, "hops", hops_json(p));
    put(o, "scheduler", scheduler_json(p));
    put(o, "rates",
        json_pack("{s:o, s:o}", "prompt_per_s", real(p->prompt_per_s), "answer_per_s",
                  real(p->answer_per_s)));
    put(o, "totals", totals_json(p));
    put(o, "latency", latency_json(p));
    put(o, "slots", slots_json(s));
    return o;
}

enum tern_status snapshot_json(struct service *s, bool steps, uint64_t since, char **out, size_t *len,
                               struct tern_err *err)
{
    struct snapshot *p = malloc(sizeof *p);
    json_t *o = NULL;
    char *text = NULL;

    if (p) {
        service_snapshot(s, p);
        o = whole_json(s, p);
        if (steps)
            put(o, "steps", steps_json(s, since));
        text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(12));
    }
    json_decref(o);
    free(p);
    if (!text)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to describe the service");
    *out = text;
    *len = strlen(text);
    return TERN_OK;
}
