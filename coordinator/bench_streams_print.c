/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of `tern bench --streams` on stdout: Markdown and CSV row by row, JSON as one object at the end.
 */
#include "coordinator/bench_streams.h"

#include "coordinator/bench_print.h"
#include "coordinator/commands.h"
#include "coordinator/json_out.h"

#include <stdio.h>
#include <string.h>

static double per_stream(const struct bench_streams_result *r)
{
    return r->test.n_prompt || !r->test.n_streams ? 0 : r->median / r->test.n_streams;
}

/* Shares of all stages as "12/8 %", as many as there is room for. */
static void shares(const struct bench_flow *f, bool idle, char *out, size_t cap)
{
    size_t n = 0;

    for (uint32_t i = 0; i < f->n_stages && n + 16 < cap; i++) {
        const double v = idle ? f->stages[i].idle : f->stages[i].empty;

        if (v < 0)
            n += (size_t)snprintf(out + n, cap - n, "%s?", i ? "/" : "");
        else
            n += (size_t)snprintf(out + n, cap - n, "%s%.1f", i ? "/" : "", v * 100);
    }
    snprintf(out + n, cap - n, " %%");
}

static void layers(const struct bench_streams_session *s, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < s->n_stages && n + 8 < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%u", i ? "+" : "", (unsigned)s->layers[i]);
}

/* -- Markdown -------------------------------------------------------------------------------------------- */

static void md_header(struct bench_print *p, int table)
{
    if (p->table == table)
        return;
    if (p->table)
        putchar('\n');
    p->table = table;
    if (table == 1)
        puts("| model | threads | workers | layers | test | t/s | a stream | ttft p50 / p95 ms | itl p50 / "
             "p95 / p99 ms | rows | in flight | head | idle | empty |\n"
             "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | "
             "---: |");
    else
        puts("| model | threads | workers | layers | test | prompt t/s | chunks | rows of one | ideal | fill "
             "| chunk / trip ms | itl alone p50 ms | delay p50 / p95 / p99 ms | idle |\n"
             "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | "
             "---: |");
}

static void print_md(struct bench_print *p, const struct bench_streams_session *s,
                     const struct bench_streams_result *r)
{
    const struct bench_flow *f = &r->flow;
    char name[64], split[160], idle[256], empty[256], fill[16] = "?";

    bench_streams_name(&r->test, name);
    layers(s, split, sizeof split);
    shares(f, true, idle, sizeof idle);
    shares(f, false, empty, sizeof empty);
    if (f->busy >= 0)
        snprintf(fill, sizeof fill, "%.1f %%", f->busy * 100);
    md_header(p, r->test.n_prompt ? 2 : 1);
    printf("| %s | %u | %u | %s | %s | %.2f |", s->cost.model, (unsigned)s->threads, (unsigned)s->workers,
           split, name, r->median);
    if (r->test.n_prompt)
        printf(" %u | %.1f | %.1f %% | %s | %.1f / %.1f | %.1f | %.1f / %.1f / %.1f | %s |\n",
               (unsigned)f->chunks, f->chunk_rows, r->ideal * 100, fill, r->chunk_ms, r->trip_ms,
               r->alone.p50, r->delay.p50, r->delay.p95, r->delay.p99, idle);
    else
        printf(" %.2f | %.0f / %.0f | %.1f / %.1f / %.1f | %.1f | %.2f | %.1f %% | %s | %s |\n",
               per_stream(r), r->first.p50, r->first.p95, r->between.p50, r->between.p95, r->between.p99,
               f->rows, f->in_flight, f->head * 100, idle, empty);
}

/* -- CSV ------------------------------------------------------------------------------------------------- */

static void print_csv(struct bench_print *p, const struct bench_streams_session *s,
                      const struct bench_streams_result *r)
{
    const struct bench_flow *f = &r->flow;
    char name[64], split[160];

    if (p->n_rows == 0)
        puts(
            "model,level,wire,kv,threads,workers,layers,test,streams,n_prompt,n_gen,median_ts,per_stream_ts,"
            "ttft_p50_ms,ttft_p95_ms,itl_p50_ms,itl_p95_ms,itl_p99_ms,rows,in_flight,head_share,busiest_idle,"
            "busiest_empty,chunks,chunk_rows,ideal,fill,chunk_ms,trip_ms,alone_p50_ms,delay_p50_ms,"
            "delay_p99_ms");
    bench_streams_name(&r->test, name);
    layers(s, split, sizeof split);
    bench_print_quoted(s->cost.model);
    printf(",%s,%s,%s,%u,%u,%s,%s,%u,%u,%u,%.6g,%.6g,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.4f,%.4f,%.4f,%u,"
           "%.2f,%.4f,%.4f,%.3f,%.3f,%.3f,%.3f,%.3f\n",
           s->level, tern_boundary_name(p->o->engine.wire), tern_kv_type_name(p->o->engine.kv),
           (unsigned)s->threads, (unsigned)s->workers, split, name, (unsigned)r->test.n_streams,
           (unsigned)r->test.n_prompt, (unsigned)r->test.n_gen, r->median, per_stream(r), r->first.p50,
           r->first.p95, r->between.p50, r->between.p95, r->between.p99, f->rows, f->in_flight, f->head,
           f->stages[f->busiest].idle, f->stages[f->busiest].empty, (unsigned)f->chunks, f->chunk_rows,
           r->ideal, f->busy, r->chunk_ms, r->trip_ms, r->alone.p50, r->delay.p50, r->delay.p99);
}

/* -- JSON ------------------------------------------------------------------------------------------------ */

static json_t *spread(const struct bench_spread *s)
{
    return json_pack("{s:i, s:o, s:o, s:o}", "n", (int)s->n, "p50", json_out_number(s->p50), "p95",
                     json_out_number(s->p95), "p99", json_out_number(s->p99));
}

static json_t *share(double v)
{
    return v < 0 ? json_null() : json_out_number(v);
}

static json_t *flow_json(const struct bench_flow *f)
{
    json_t *stages = json_array();

    for (uint32_t i = 0; i < f->n_stages; i++)
        json_array_append_new(stages, json_pack("{s:o, s:o, s:o, s:o}", "idle", share(f->stages[i].idle),
                                                "empty", share(f->stages[i].empty), "step_ms",
                                                json_out_number(f->stages[i].step_ms), "chunk_ms",
                                                json_out_number(f->stages[i].chunk_ms)));
    return json_pack("{s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:o}", "seconds",
                     json_out_number(f->seconds), "steps", (int)f->steps, "chunks", (int)f->chunks, "rows",
                     json_out_number(f->rows), "chunk_rows", json_out_number(f->chunk_rows), "in_flight",
                     json_out_number(f->in_flight), "head_share", json_out_number(f->head), "head_ms",
                     json_out_number(f->head_ms), "busy", share(f->busy), "busiest", (int)f->busiest,
                     "stages", stages);
}

static json_t *row_json(const struct bench_streams_session *s, const struct bench_streams_result *r)
{
    json_t *o, *samples = json_array();
    char name[64], split[160];

    for (uint32_t i = 0; i < r->n_samples; i++)
        json_array_append_new(samples, json_out_number(r->samples[i]));
    bench_streams_name(&r->test, name);
    layers(s, split, sizeof split);
    o = json_pack("{s:s, s:i, s:i, s:s, s:i, s:i, s:i, s:o, s:o, s:o}", "test", name, "threads",
                  (int)s->threads, "workers", (int)s->workers, "layers", split, "streams",
                  (int)r->test.n_streams, "n_prompt", (int)r->test.n_prompt, "n_gen", (int)r->test.n_gen,
                  "median_ts", json_out_number(r->median), "samples_ts", samples, "flow",
                  flow_json(&r->flow));
    json_object_set_new(o, "first_token_ms", spread(&r->first));
    json_object_set_new(o, "between_tokens_ms", spread(&r->between));
    if (!r->test.n_prompt) {
        json_object_set_new(o, "per_stream_ts", json_out_number(per_stream(r)));
        return o;
    }
    json_object_set_new(o, "ideal", json_out_number(r->ideal));
    json_object_set_new(o, "chunk_ms", json_out_number(r->chunk_ms));
    json_object_set_new(o, "trip_ms", json_out_number(r->trip_ms));
    json_object_set_new(o, "trips_ms", spread(&r->trips));
    json_object_set_new(o, "alone_ms", spread(&r->alone));
    json_object_set_new(o, "delay_ms", spread(&r->delay));
    return o;
}

static json_t *session_json(const struct bench_print *p, const struct bench_streams_session *s)
{
    json_t *split = json_array(), *times = json_array();

    for (uint32_t i = 0; i < s->n_stages; i++) {
        json_array_append_new(split, json_integer(s->layers[i]));
        if (s->split.measured)
            json_array_append_new(times, json_out_number(s->split.layer_ms[i]));
    }
    return json_pack("{s:o, s:s, s:s, s:s, s:i, s:i, s:o, s:o, s:o}", "model",
                     json_out_text((struct tern_str){ s->cost.model, strlen(s->cost.model) }), "level",
                     s->level, "wire", tern_boundary_name(p->o->engine.wire), "kv",
                     tern_kv_type_name(p->o->engine.kv), "threads", (int)s->threads, "workers",
                     (int)s->workers, "layers", split, "layer_ms", times, "head_ms",
                     s->split.measured ? json_out_number(s->split.head_ms) : json_null());
}

/* -- one after the other --------------------------------------------------------------------------------- */

enum tern_status bench_streams_print_row(struct bench_print *p, const struct bench_streams_session *s,
                                         const struct bench_streams_result *r, struct tern_err *err)
{
    switch (p->o->format) {
    case BENCH_MD: print_md(p, s, r); break;
    case BENCH_CSV: print_csv(p, s, r); break;
    case BENCH_JSON: json_array_append_new(p->rows, row_json(s, r)); break;
    }
    p->n_rows++;
    return p->o->format == BENCH_JSON ? TERN_OK : cmd_flush(err);
}

void bench_streams_print_session(struct bench_print *p, const struct bench_streams_session *s)
{
    char split[160];

    if (p->o->format == BENCH_JSON)
        json_array_append_new(p->sessions, session_json(p, s));
    if (p->o->format != BENCH_MD || !s->split.measured)
        return;
    layers(s, split, sizeof split);
    printf("\nmeasured: head %.2f ms a step; a layer", s->split.head_ms);
    for (uint32_t i = 0; i < s->n_stages; i++)
        printf(" %.3f", s->split.layer_ms[i]);
    printf(" ms on each worker: layers %s\n", split);
}
