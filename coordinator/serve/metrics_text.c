/* SPDX-License-Identifier: Apache-2.0 */
/* The families of metrics: see metrics_text.h. */
#include "coordinator/serve/metrics_text.h"

#include "engine/utf8.h"

#include <string.h>

#define US 1e-6 /* seconds */

/* -- the format ------------------------------------------------------------------------------------------ */

static void family(struct http_text *out, const char *name, const char *type, const char *what)
{
    http_text_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, what, name, type);
}

/* A label's value in quotes: backslash, quote and newline are escaped, what is no UTF-8 is replaced. */
static void quoted(struct http_text *out, const char *text)
{
    const size_t n = strlen(text);

    http_text_add(out, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t len = 1;

        if (text[i] == '\n')
            http_text_add(out, "\\n", 2);
        else if (text[i] == '"' || text[i] == '\\')
            http_text_addf(out, "\\%c", text[i]);
        else if (tern_utf8_sequence((const uint8_t *)text + i, n - i, &len) > 0)
            http_text_add(out, text + i, len);
        else
            http_text_add(out, "\xef\xbf\xbd", 3);
        i += len ? len : 1;
    }
    http_text_add(out, "\"", 1);
}

static void whole(struct http_text *out, const char *name, const char *type, const char *what, uint64_t v)
{
    family(out, name, type, what);
    http_text_addf(out, "%s %llu\n", name, (unsigned long long)v);
}

static void real(struct http_text *out, const char *name, const char *type, const char *what, double v)
{
    family(out, name, type, what);
    http_text_addf(out, "%s %.9g\n", name, v);
}

/* Buckets are cumulated here; the last one counts everything. */
static void histogram(struct http_text *out, const char *name, const char *what,
                      const struct snapshot_histogram *h)
{
    uint64_t sum = 0;

    family(out, name, "histogram", what);
    for (unsigned i = 0; i < SNAPSHOT_BUCKETS; i++) {
        sum += h->count[i];
        http_text_addf(out, "%s_bucket{le=\"", name);
        if (i + 1 < SNAPSHOT_BUCKETS)
            http_text_addf(out, "%.9g", (double)(1ull << i) * US);
        http_text_addf(out, "%s\"} %llu\n", i + 1 < SNAPSHOT_BUCKETS ? "" : "+Inf", (unsigned long long)sum);
    }
    http_text_addf(out, "%s_sum %.9g\n%s_count %llu\n", name, (double)h->sum_us * US, name,
                   (unsigned long long)sum);
}

/* -- the service ----------------------------------------------------------------------------------------- */

static void service_families(const struct snapshot *p, const char *model, struct http_text *out)
{
    const struct {
        const char *outcome;
        uint64_t n;
    } ends[] = { { "ended", p->jobs_ended },
                 { "cancelled", p->jobs_cancelled },
                 { "failed", p->jobs_failed },
                 { "refused", p->refused } };

    family(out, "tern_build_info", "gauge", "Version of the server and model it answers with.");
    http_text_addf(out, "tern_build_info{version=\"%s\",model=", TERN_VERSION);
    quoted(out, model);
    http_text_addf(out, "} 1\n");
    real(out, "tern_uptime_seconds", "gauge", "Since the server was started.", (double)p->uptime_us * US);
    whole(out, "tern_ready", "gauge", "1 when requests are taken.", p->ready);
    family(out, "tern_tokens_total", "counter", "Tokens of prompts (computed or cached) and of answers.");
    http_text_addf(out,
                   "tern_tokens_total{kind=\"prompt\"} %llu\ntern_tokens_total{kind=\"generated\"} %llu\n",
                   (unsigned long long)p->prompt_tokens, (unsigned long long)p->answer_tokens);
    family(out, "tern_tokens_per_second", "gauge", "Tokens of the last seconds.");
    http_text_addf(out,
                   "tern_tokens_per_second{kind=\"prompt\"} %.9g\n"
                   "tern_tokens_per_second{kind=\"generated\"} %.9g\n",
                   p->prompt_per_s, p->answer_per_s);
    whole(out, "tern_jobs_total", "counter", "Sequences that were asked for and taken.", p->jobs);
    family(out, "tern_jobs_done_total", "counter", "Sequences by what became of them.");
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        http_text_addf(out, "tern_jobs_done_total{outcome=\"%s\"} %llu\n", ends[i].outcome,
                       (unsigned long long)ends[i].n);
    whole(out, "tern_pipeline_reopened_total", "counter", "Times the pipeline broke and was opened again.",
          p->reopened);
    whole(out, "tern_jobs_running", "gauge", "Sequences that are being computed.", p->n_running);
    whole(out, "tern_jobs_waiting", "gauge", "Sequences in the queue.", p->n_waiting);
    whole(out, "tern_jobs_running_limit", "gauge", "Sequences computed at once at most.", p->parallel);
    whole(out, "tern_jobs_waiting_limit", "gauge", "Room of the queue.", p->max_queue);
    histogram(out, "tern_queue_seconds", "From a job's arrival to its slot.", &p->queued);
    histogram(out, "tern_first_token_seconds", "From a job's arrival to the first token of its answer.",
              &p->first_token);
    histogram(out, "tern_between_tokens_seconds", "From one token of an answer to the next.",
              &p->between_tokens);
}

static void scheduler_families(const struct snapshot *p, struct http_text *out)
{
    const struct sched_stats *s = &p->sched;

    whole(out, "tern_steps_total", "counter", "Steps that have come home through the whole pipeline.",
          p->steps);
    whole(out, "tern_steps_in_flight", "gauge", "Steps on their way now.", s->n_in_flight);
    whole(out, "tern_steps_in_flight_limit", "gauge", "Steps on their way at most.", p->max_in_flight);
    family(out, "tern_rows_total", "counter", "Rows sent through the layers since the pipeline was opened.");
    http_text_addf(out, "tern_rows_total{kind=\"prompt\"} %llu\ntern_rows_total{kind=\"decode\"} %llu\n",
                   (unsigned long long)s->prompt_rows, (unsigned long long)s->decode_rows);
    if (s->chunk)
        whole(out, "tern_chunk_rows", "gauge", "Rows of prompts in one step now.", s->chunk);
    whole(out, "tern_kv_pages", "gauge", "Pages of the KV cache.", s->pages);
    whole(out, "tern_kv_pages_free", "gauge", "Pages that hold nothing.", s->pages_free);
    whole(out, "tern_kv_pages_cached", "gauge", "Pages that hold beginnings nobody computes with now.",
          s->pages_cached);
    whole(out, "tern_prefix_lookups_total", "counter", "Sequences that looked for a cached beginning.",
          s->prefix_lookups);
    whole(out, "tern_prefix_hits_total", "counter", "Sequences that found one.", s->prefix_hits);
    whole(out, "tern_prefix_tokens_total", "counter", "Tokens that were not computed again.",
          s->prefix_tokens);
    whole(out, "tern_prefix_evicted_total", "counter", "Cached beginnings given up for room.",
          s->prefix_evicted);
    real(out, "tern_head_seconds_total", "counter", "Time of the output head since the pipeline was opened.",
         (double)s->head_us * US);
    if (p->coordinator_idle_share >= 0)
        real(out, "tern_coordinator_idle_ratio", "gauge",
             "Share of the last seconds in which the coordinator's head had nothing to do.",
             p->coordinator_idle_share);
}

/* -- stages and hops ------------------------------------------------------------------------------------- */

static double compute_of(const struct snapshot_stage *g)
{
    return (double)g->compute_us * US;
}

static double queue_of(const struct snapshot_stage *g)
{
    return (double)g->queue_us * US;
}

static double steps_of(const struct snapshot_stage *g)
{
    return (double)g->steps;
}

static double idle_of(const struct snapshot_stage *g)
{
    return g->idle_share; /* negative: not known */
}

static double memory_of(const struct snapshot_stage *g)
{
    return g->live.memory_bytes ? (double)g->live.memory_bytes : -1;
}

static double weights_of(const struct snapshot_stage *g)
{
    return g->info.weight_bytes ? (double)g->info.weight_bytes : -1;
}

static double kv_of(const struct snapshot_stage *g)
{
    return g->info.kv_bytes ? (double)g->info.kv_bytes : -1;
}

static double rejected_of(const struct snapshot_stage *g)
{
    return g->open ? (double)g->live.rejected : -1;
}

static double suspect_of(const struct snapshot_stage *g)
{
    return g->open ? g->live.suspect : -1;
}

static double silent_of(const struct snapshot_stage *g)
{
    return g->open && *g->live.endpoint ? g->live.silent_ms / 1e3 : -1;
}

static double round_trip_of(const struct snapshot_stage *g)
{
    return g->live.round_trip_us ? g->live.round_trip_us * US : -1;
}

/* What is negative is not known, and left out. */
static const struct {
    const char *name, *type, *what;
    double (*of)(const struct snapshot_stage *g);
} stage_families[] = {
    { "tern_stage_compute_seconds_total", "counter", "Time a stage computed.", compute_of },
    { "tern_stage_queue_seconds_total", "counter", "Time steps waited at a stage.", queue_of },
    { "tern_stage_steps_total", "counter", "Steps a stage computed.", steps_of },
    { "tern_stage_idle_ratio", "gauge", "Share of the last seconds without work.", idle_of },
    { "tern_stage_memory_bytes", "gauge", "Resident in a stage's process.", memory_of },
    { "tern_stage_weight_bytes", "gauge", "Weights of a stage.", weights_of },
    { "tern_stage_kv_bytes", "gauge", "KV cache of a stage.", kv_of },
    { "tern_stage_rejected_total", "counter", "Connections and messages a worker refused.", rejected_of },
    { "tern_stage_suspect", "gauge", "1 while a worker is silent for too long.", suspect_of },
    { "tern_stage_silent_seconds", "gauge", "Since anything came from a worker.", silent_of },
    { "tern_stage_round_trip_seconds", "gauge", "Shortest heartbeat of late.", round_trip_of },
};

static void stage_labels(const struct snapshot *p, uint32_t i, struct http_text *out)
{
    http_text_addf(out, "{stage=\"%u\",worker=", (unsigned)i);
    quoted(out, p->stages[i].info.name);
    http_text_add(out, "} ", 2);
}

static void stages(const struct snapshot *p, struct http_text *out)
{
    for (size_t f = 0; p->n_stages && f < sizeof stage_families / sizeof stage_families[0]; f++) {
        family(out, stage_families[f].name, stage_families[f].type, stage_families[f].what);
        for (uint32_t i = 0; i < p->n_stages; i++) {
            const double v = stage_families[f].of(&p->stages[i]);

            if (v < 0)
                continue;
            http_text_addf(out, "%s", stage_families[f].name);
            stage_labels(p, i, out);
            http_text_addf(out, "%.15g\n", v);
        }
    }
}

/* NAME{hop="0",from="coordinator",to="NAME" */
static void hop_begin(const struct snapshot *p, uint32_t i, const char *name, struct http_text *out)
{
    http_text_addf(out, "%s{hop=\"%u\",from=", name, (unsigned)i);
    quoted(out, i ? p->stages[i - 1].info.name : "coordinator");
    http_text_addf(out, ",to=");
    quoted(out, i < p->n_stages ? p->stages[i].info.name : "coordinator");
}

/* What the clocks cannot tell is left out, as /tern/cluster has null for it. */
static void hop_quantile(const struct snapshot *p, uint32_t i, const char *quantile, uint32_t us,
                         struct http_text *out)
{
    if (!snapshot_hop_knows(&p->hops[i], us))
        return;
    hop_begin(p, i, "tern_hop_seconds", out);
    http_text_addf(out, ",quantile=\"%s\"} %.9g\n", quantile, us * US);
}

static void hops(const struct snapshot *p, struct http_text *out)
{
    if (!p->n_stages)
        return;
    family(out, "tern_hop_bytes_total", "counter", "Bytes over a link, since the pipeline was opened.");
    for (uint32_t i = 0; i <= p->n_stages; i++) {
        hop_begin(p, i, "tern_hop_bytes_total", out);
        http_text_addf(out, "} %llu\n", (unsigned long long)p->hops[i].bytes);
    }
    family(
        out, "tern_hop_seconds", "summary",
        "From the end of computing on one side of a link to the last byte on the other, of the last steps; "
        "left out where it is shorter than the clocks can tell.");
    for (uint32_t i = 0; i <= p->n_stages; i++) {
        hop_quantile(p, i, "0.5", p->hops[i].p50_us, out);
        hop_quantile(p, i, "0.99", p->hops[i].p99_us, out);
        hop_begin(p, i, "tern_hop_seconds_count", out);
        http_text_addf(out, "} %llu\n", (unsigned long long)p->hops[i].n);
    }
    family(out, "tern_hop_clock_error_seconds", "gauge", "How far that may be off: two machines' clocks.");
    for (uint32_t i = 0; i <= p->n_stages; i++) {
        if (!p->hops[i].n || !p->hops[i].within_us)
            continue;
        hop_begin(p, i, "tern_hop_clock_error_seconds", out);
        http_text_addf(out, "} %.9g\n", p->hops[i].within_us * US);
    }
}

/* -- HTTP, and llama-server's names ---------------------------------------------------------------------- */

static void http_families(const struct http_counts *h, struct http_text *out)
{
    const struct {
        const char *reason;
        uint64_t n;
    } refused[] = { { "key", h->refused_key },
                    { "host", h->refused_host },
                    { "size", h->refused_size },
                    { "full", h->refused_full } };

    whole(out, "tern_http_connections_total", "counter", "Connections taken.", h->connections);
    whole(out, "tern_http_connections_open", "gauge", "Connections open now.", h->open);
    whole(out, "tern_http_requests_total", "counter", "Requests, refused ones included.", h->requests);
    family(out, "tern_http_refused_total", "counter",
           "Requests refused before a handler: key, Host or Origin, size, too many.");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        http_text_addf(out, "tern_http_refused_total{reason=\"%s\"} %llu\n", refused[i].reason,
                       (unsigned long long)refused[i].n);
    whole(out, "tern_http_timeouts_total", "counter", "Connections cut for being slow.", h->timeouts);
    whole(out, "tern_http_gone_total", "counter", "Requests whose client did not wait for the whole answer.",
          h->gone);
    family(out, "tern_http_body_bytes_total", "counter", "Bytes of bodies.");
    http_text_addf(out,
                   "tern_http_body_bytes_total{direction=\"in\"} %llu\n"
                   "tern_http_body_bytes_total{direction=\"out\"} %llu\n",
                   (unsigned long long)h->bytes_in, (unsigned long long)h->bytes_out);
}

static void llama_families(const struct snapshot *p, struct http_text *out)
{
    const struct sched_stats *s = &p->sched;

    whole(out, "llamacpp:prompt_tokens_total", "counter", "Tokens of prompts that were computed.",
          s->prompt_rows);
    real(out, "llamacpp:prompt_seconds_total", "counter",
         "From arrival to the first token, all jobs together.", (double)p->first_token.sum_us * US);
    whole(out, "llamacpp:tokens_predicted_total", "counter", "Tokens of answers.", p->answer_tokens);
    real(out, "llamacpp:tokens_predicted_seconds_total", "counter",
         "From each token to the next, all jobs together.", (double)p->between_tokens.sum_us * US);
    whole(out, "llamacpp:n_decode_total", "counter", "Steps.", p->steps);
    real(out, "llamacpp:n_busy_slots_per_decode", "gauge", "Rows of answers in a step, on average.",
         s->steps ? (double)s->decode_rows / (double)s->steps : 0);
    real(out, "llamacpp:prompt_tokens_seconds", "gauge", "Tokens of prompts a second, of late.",
         p->prompt_per_s);
    real(out, "llamacpp:predicted_tokens_seconds", "gauge", "Tokens of answers a second, of late.",
         p->answer_per_s);
    real(out, "llamacpp:kv_cache_usage_ratio", "gauge", "Share of the KV cache held by running jobs.",
         s->pages ? (double)(s->pages - s->pages_free - s->pages_cached) / s->pages : 0);
    whole(out, "llamacpp:requests_processing", "gauge", "Jobs that are being computed.", p->n_running);
    whole(out, "llamacpp:requests_deferred", "gauge", "Jobs in the queue.", p->n_waiting);
}

void metrics_text(const struct snapshot *p, const struct http_counts *h, const char *model,
                  struct http_text *out)
{
    service_families(p, model, out);
    scheduler_families(p, out);
    stages(p, out);
    hops(p, out);
    http_families(h, out);
    llama_families(p, out);
}
