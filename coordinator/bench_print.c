/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of `tern bench` on stdout: Markdown and CSV row by row, JSON as one object at the end.
 */
#include "coordinator/bench_print.h"

#include "coordinator/commands.h"
#include "coordinator/json_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

/* -- the machine ----------------------------------------------------------------------------------------- */

/* The kernel names no CPU on some machines. */
void bench_machine_name(char *out, size_t cap)
{
    char line[256], *name = NULL;
    FILE *f = fopen("/proc/cpuinfo", "re");
    struct utsname u;

    while (f && !name && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && (name = strchr(line, ':')))
            name += strspn(name, ": \t");
    if (f)
        fclose(f);
    if (name)
        name[strcspn(name, "\n")] = '\0';
    snprintf(out, cap, "%s (%s)", name ? name : "unnamed CPU", uname(&u) == 0 ? u.machine : "?");
}

enum tern_status bench_print_new(const struct bench_options *o, struct bench_print **out,
                                 struct tern_err *err)
{
    struct bench_print *p = calloc(1, sizeof *p);

    if (!p)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the results");
    p->o = o;
    bench_machine_name(p->machine, sizeof p->machine);
    if (o->format == BENCH_JSON) {
        p->rows = json_array();
        p->sessions = json_array();
    }
    *out = p;
    return TERN_OK;
}

void bench_print_free(struct bench_print **p)
{
    if (*p) {
        json_decref((*p)->rows);
        json_decref((*p)->sessions);
        free(*p);
    }
    *p = NULL;
}

/* -- Markdown -------------------------------------------------------------------------------------------- */

static void print_md(struct bench_print *p, const struct bench_session *s, const struct bench_result *r)
{
    const struct bench_cost *c = &s->cost;
    char test[64], speed[48], bytes[24] = "", limit[24] = "";

    if (p->n_rows == 0)
        printf("| %-20s | %10s | %8s | %10s | %6s | %15s | %4s | %8s | %7s | %7s | %15s | %17s | %9s | %10s "
               "|\n"
               "| :------------------- | ---------: | -------: | ---------: | -----: | --------------: | "
               "---: | -------: | "
               "------: | ------: | --------------: | ----------------: | --------: | ---------: |\n",
               "model", "size", "params", "level", "layout", "head", "kv", "wire", "threads", "workers",
               "test", "t/s", "MB/token", "limit");
    bench_test_name(&r->test, test);
    snprintf(speed, sizeof speed, "%.2f \xc2\xb1 %.2f", r->mean, r->deviation);
    if (r->bytes > 0)
        snprintf(bytes, sizeof bytes, "%.1f", r->bytes / 1e6);
    if (r->share >= 0)
        snprintf(limit, sizeof limit, "%.1f %% %s", r->share * 100, r->limit);
    /* The sign takes two bytes and one column. */
    printf("| %-20s | %6.2f GiB | %6.2f B | %10s | %6s | %15s | %4s | %8s | %7u | %7u | %15s | %18s | %9s | "
           "%10s "
           "|\n",
           c->model, (double)c->file_bytes / 1073741824.0, (double)c->params / 1e9, s->level, c->layout,
           c->head, tern_kv_type_name(p->o->engine.kv), tern_boundary_name(p->o->engine.wire),
           (unsigned)r->threads, (unsigned)r->workers, test, speed, bytes, limit);
}

static void keep_line(struct bench_print *p, const struct bench_session *s)
{
    struct bench_range read = bench_range_of(s->takes.read, s->takes.n),
                       dot = bench_range_of(s->takes.dot, s->takes.n);
    char peak[24] = "", range[48] = "";

    if (dot.median > 0) {
        snprintf(peak, sizeof peak, "%.2f", dot.median / 1e9);
        snprintf(range, sizeof range, "%.2f..%.2f", dot.min / 1e9, dot.max / 1e9);
    }
    if (p->n_lines < BENCH_MAX_LIST)
        snprintf(p->lines[p->n_lines++], sizeof p->lines[0],
                 "| %7u | %9.2f | %6.2f..%6.2f | %11s | %16s | %8.3f | %11.3f |", (unsigned)s->threads,
                 read.median / 1e9, read.min / 1e9, read.max / 1e9, peak, range, s->load_ms / 1e3,
                 s->first_ms / 1e3);
}

static void print_md_end(const struct bench_print *p)
{
    printf("\nmachine: %s\n", p->machine);
    if (p->n_lines == 0)
        return;
    printf("\n| %7s | %9s | %14s | %11s | %16s | %8s | %11s |\n"
           "| ------: | --------: | -------------: | ----------: | ---------------: | -------: | ----------: "
           "|\n",
           "threads", "read GB/s", "min..max", "int8 GMAC/s", "min..max", "load s", "first tok s");
    for (uint32_t i = 0; i < p->n_lines; i++)
        puts(p->lines[i]);
}

/* -- CSV ------------------------------------------------------------------------------------------------- */

void bench_print_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_csv(const struct bench_print *p, const struct bench_session *s,
                      const struct bench_result *r)
{
    const struct bench_cost *c = &s->cost;
    const struct bench_test *t = &r->test;
    char test[64];

    if (p->n_rows == 0)
        puts("machine,model,file_bytes,params,level,layout,head,kv,wire,threads,workers,test,n_prompt,n_gen,"
             "n_depth,n_seqs,mean_ts,stddev_ts,median_ts,bytes_per_token,macs_per_token,share,limit,"
             "read_bytes_per_s,int8_macs_per_s,load_ms,first_token_ms");
    bench_test_name(t, test);
    bench_print_quoted(p->machine);
    putchar(',');
    bench_print_quoted(c->model);
    printf(",%llu,%llu,%s,%s,%s,%s,%s,%u,%u,%s,%u,%u,%u,%u,%.6g,%.6g,%.6g,%.0f,%.0f,", //
           (unsigned long long)c->file_bytes, (unsigned long long)c->params, s->level, c->layout, c->head,
           tern_kv_type_name(p->o->engine.kv), tern_boundary_name(p->o->engine.wire), (unsigned)r->threads,
           (unsigned)r->workers, test, (unsigned)t->n_prompt, (unsigned)t->n_gen, (unsigned)t->depth,
           (unsigned)t->n_seqs, r->mean, r->deviation, r->median, r->bytes, r->macs);
    if (r->share >= 0)
        printf("%.4f,%s", r->share, r->limit);
    else
        putchar(',');
    printf(",%.6g,%.6g,%.1f,%.1f\n", bench_range_of(r->around.read, r->around.n).median,
           bench_range_of(r->around.dot, r->around.n).median, s->load_ms, s->first_ms);
}

/* -- JSON ------------------------------------------------------------------------------------------------ */

static json_t *integer(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static json_t *numbers(const double *v, uint32_t n)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(a, json_out_number(v[i]));
    return a;
}

static json_t *takes(const double *v, uint32_t n)
{
    struct bench_range r = bench_range_of(v, n);

    return json_pack("{s:o, s:o, s:o, s:o}", "median", json_out_number(r.median), "min",
                     json_out_number(r.min), "max", json_out_number(r.max), "samples", numbers(v, n));
}

static json_t *row_json(const struct bench_print *p, const struct bench_session *s,
                        const struct bench_result *r)
{
    const struct bench_cost *c = &s->cost;
    const struct bench_test *t = &r->test;
    char test[64];
    json_t *o;

    bench_test_name(t, test);
    o = json_pack("{s:o, s:o, s:o, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:i, s:i, s:i, s:i}", "model",
                  json_out_text((struct tern_str){ c->model, strlen(c->model) }), "file_bytes",
                  integer(c->file_bytes), "params", integer(c->params), "level", s->level, "layout",
                  c->layout, "head", c->head, "kv", tern_kv_type_name(p->o->engine.kv), "wire",
                  tern_boundary_name(p->o->engine.wire), "threads", (int)r->threads, "workers",
                  (int)r->workers, "test", test, "n_prompt", (int)t->n_prompt, "n_gen", (int)t->n_gen,
                  "n_depth", (int)t->depth, "n_seqs", (int)t->n_seqs);
    json_object_set_new(o, "mean_ts", json_out_number(r->mean));
    json_object_set_new(o, "stddev_ts", json_out_number(r->deviation));
    json_object_set_new(o, "median_ts", json_out_number(r->median));
    json_object_set_new(o, "samples_ts", numbers(r->samples, r->n_samples));
    json_object_set_new(o, "bytes_per_token", json_out_number(r->bytes));
    json_object_set_new(o, "macs_per_token", json_out_number(r->macs));
    json_object_set_new(o, "share", r->share >= 0 ? json_out_number(r->share) : json_null());
    json_object_set_new(o, "limit", r->share >= 0 ? json_string(r->limit) : json_null());
    json_object_set_new(o, "read_bytes_per_s",
                        json_out_number(bench_range_of(r->around.read, r->around.n).median));
    json_object_set_new(o, "int8_macs_per_s",
                        json_out_number(bench_range_of(r->around.dot, r->around.n).median));
    return o;
}

static json_t *session_json(const struct bench_session *s)
{
    const struct bench_cost *c = &s->cost;

    return json_pack("{s:i, s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "threads",
                     (int)s->threads, "workers", (int)s->workers, "level", s->level, "load_ms",
                     json_out_number(s->load_ms), "first_token_ms", json_out_number(s->first_ms),
                     "ternary_macs", integer(c->ternary_macs), "head_macs", integer(c->head_macs),
                     "layer_bytes", integer(c->layer_bytes), "head_bytes", integer(c->head_bytes),
                     "kv_bytes_per_position", integer(c->kv_bytes), "read_bytes_per_s",
                     takes(s->takes.read, s->takes.n), "int8_macs_per_s", takes(s->takes.dot, s->takes.n));
}

/* -- one after the other --------------------------------------------------------------------------------- */

enum tern_status bench_print_row(struct bench_print *p, const struct bench_session *s,
                                 const struct bench_result *r, struct tern_err *err)
{
    switch (p->o->format) {
    case BENCH_MD: print_md(p, s, r); break;
    case BENCH_CSV: print_csv(p, s, r); break;
    case BENCH_JSON: json_array_append_new(p->rows, row_json(p, s, r)); break;
    }
    p->n_rows++;
    return p->o->format == BENCH_JSON ? TERN_OK : cmd_flush(err);
}

void bench_print_session(struct bench_print *p, const struct bench_session *s)
{
    if (p->o->format == BENCH_MD)
        keep_line(p, s);
    else if (p->o->format == BENCH_JSON)
        json_array_append_new(p->sessions, session_json(s));
}

enum tern_status bench_print_end(struct bench_print *p, struct tern_err *err)
{
    json_t *root;

    if (p->o->format == BENCH_MD)
        print_md_end(p);
    if (p->o->format != BENCH_JSON)
        return cmd_flush(err);
    root = json_pack("{s:s, s:s, s:O, s:O}", "version", TERN_VERSION, "machine", p->machine, "sessions",
                     p->sessions, "results", p->rows);
    return json_out_print(&root, 12, err);
}
