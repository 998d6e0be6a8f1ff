/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels one by one, on one thread: levels, then shapes, then ops.
 *
 * A time is the median of several takes, each of as many calls as fill a moment.  What reads from memory is
 * compared with the read bandwidth, ternary products with the int8 peak; of two shares the larger counts, for
 * that limit is the one that binds.  Both are measured at the level in question, every few cases.
 */
#include "coordinator/bench_kernels.h"

#include "coordinator/bench_ops.h"
#include "coordinator/commands.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "engine/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAKES          5
#define TAKE_NS        2000000
#define CASES_PER_TAKE 6 /* machines are noisy: what was measured long ago is no measure */

static const char *const shapes[] = { "2b4t", "llama3-8b", "large" };

struct kernels {
    const struct bench_options *o;
    char machine[96];
    struct bench_work *work;
    struct bench_probe *probe;
    struct tern_pool *pool; /* of one thread */
    struct tern_kernels kern;
    struct bench_takes takes, recent; /* of this level; of the last moment */
    uint32_t n_rows;
    json_t *rows;
};

struct row {
    const char *model, *of; /* of: "read", "int8" or NULL */
    struct bench_case c;
    double ns, gbs, gmacs, share;
};

/* Nanoseconds of one call. */
static double measure(struct kernels *k, const struct bench_case *c)
{
    double times[TAKES];
    uint64_t calls = 1, ns, t0;

    for (;; calls *= 2) { /* and warm up */
        t0 = tern_now_ns();
        for (uint64_t i = 0; i < calls; i++)
            c->call(k->work);
        ns = tern_now_ns() - t0;
        if (ns >= TAKE_NS / 2)
            break;
    }
    for (int t = 0; t < TAKES; t++) {
        t0 = tern_now_ns();
        for (uint64_t i = 0; i < calls; i++)
            c->call(k->work);
        times[t] = (double)(tern_now_ns() - t0) / (double)calls;
    }
    return bench_range_of(times, TAKES).median;
}

/* The share of whichever limit is nearer. */
static void rate(const struct kernels *k, struct row *r)
{
    const double read = bench_range_of(k->recent.read, k->recent.n).median,
                 dot = bench_range_of(k->recent.dot, k->recent.n).median,
                 by_read = r->c.memory ? r->c.bytes * 1e9 / r->ns / read : 0,
                 by_dot = r->c.product && dot > 0 ? r->c.macs * 1e9 / r->ns / dot : 0;

    r->gbs = r->c.bytes / r->ns;
    r->gmacs = r->c.macs / r->ns;
    if (by_read > 0 || by_dot > 0) {
        r->of = by_read > by_dot ? "read" : "int8";
        r->share = by_read > by_dot ? by_read : by_dot;
    }
}

/* -- output ---------------------------------------------------------------------------------------------- */

static void number(char *out, size_t cap, double v)
{
    snprintf(out, cap, "%s", "");
    if (v > 0)
        snprintf(out, cap, "%.2f", v);
}

static void print_md(const struct kernels *k, const struct row *r)
{
    char gbs[24], gmacs[24], share[32] = "";

    if (k->n_rows == 0)
        printf(
            "machine: %s, one thread\n\n"
            "| %-10s | %-9s | %-15s | %-22s | %-6s | %12s | %8s | %8s | %12s |\n"
            "| :--------- | :-------- | :-------------- | :--------------------- | :----- | -----------: | "
            "-------: | -------: | -----------: |\n",
            k->machine, "level", "model", "op", "shape", "from", "ns", "GB/s", "GMAC/s", "share");
    number(gbs, sizeof gbs, r->gbs);
    number(gmacs, sizeof gmacs, r->gmacs);
    if (r->of)
        snprintf(share, sizeof share, "%.1f %% %s", r->share * 100, r->of);
    printf("| %-10s | %-9s | %-15s | %-22s | %-6s | %12.0f | %8s | %8s | %12s |\n",
           tern_cpu_name(k->kern.level), r->model, r->c.op, r->c.shape, r->c.memory ? "memory" : "cache",
           r->ns * r->c.whole, gbs, gmacs, share);
}

static void print_csv(const struct kernels *k, const struct row *r)
{
    if (k->n_rows == 0)
        puts("machine,level,model,op,shape,from,ns,gb_per_s,gmac_per_s,share,of");
    printf("\"%s\",%s,%s,%s,%s,%s,%.1f,%.3f,%.3f,", k->machine, tern_cpu_name(k->kern.level), r->model,
           r->c.op, r->c.shape, r->c.memory ? "memory" : "cache", r->ns * r->c.whole, r->gbs, r->gmacs);
    if (r->of)
        printf("%.4f,%s\n", r->share, r->of);
    else
        puts(",");
}

static enum tern_status print_row(struct kernels *k, const struct row *r, struct tern_err *err)
{
    switch (k->o->format) {
    case BENCH_MD: print_md(k, r); break;
    case BENCH_CSV: print_csv(k, r); break;
    case BENCH_JSON:
        json_array_append_new(k->rows,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:o, s:s?}", "level",
                                        tern_cpu_name(k->kern.level), "model", r->model, "op", r->c.op,
                                        "shape", r->c.shape, "from", r->c.memory ? "memory" : "cache", "ns",
                                        r->ns * r->c.whole, "gb_per_s", r->gbs, "gmac_per_s", r->gmacs,
                                        "share", r->of ? json_real(r->share) : json_null(), "of", r->of));
        break;
    }
    k->n_rows++;
    return k->o->format == BENCH_JSON ? TERN_OK : cmd_flush(err);
}

/* -- levels ---------------------------------------------------------------------------------------------- */

static enum tern_status run_shape(struct kernels *k, const char *name, struct tern_err *err)
{
    struct tern_synthetic s;
    struct row r;
    enum tern_status st;

    TERN_BUG_IF(!tern_synthetic_by_name(name, &s));
    for (uint32_t i = 0;; i++) {
        memset(&r, 0, sizeof r);
        if (!bench_work_case(k->work, &k->kern, &s, i, &r.c))
            return TERN_OK;
        if (i % CASES_PER_TAKE == 0) {
            k->recent.n = 0;
            bench_probe_take(k->probe, &k->kern, k->pool, &k->recent);
            bench_takes_add(&k->takes, &k->recent);
        }
        r.model = name;
        r.ns = measure(k, &r.c);
        rate(k, &r);
        if ((st = print_row(k, &r, err)) || (st = interrupt_check(err)))
            return st;
    }
}

static enum tern_status run_level(struct kernels *k, enum tern_cpu_level level, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    tern_kernels_init(&k->kern, level);
    if (k->kern.level != level) /* not in this build */
        return TERN_OK;
    k->takes.n = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && !st; i++)
        st = run_shape(k, shapes[i], err);
    if (!st && k->o->format == BENCH_MD)
        printf("\n%s: reads %.2f GB/s, int8 peak %.2f GMAC/s\n\n", tern_cpu_name(level),
               bench_range_of(k->takes.read, k->takes.n).median / 1e9,
               bench_range_of(k->takes.dot, k->takes.n).median / 1e9);
    return st;
}

static enum tern_status run_levels(struct kernels *k, struct tern_err *err)
{
    enum tern_status st;
    json_t *root;

    for (int i = 0; i < TERN_CPU_N_LEVELS; i++)
        if ((k->o->levels >> i & 1) && (st = run_level(k, (enum tern_cpu_level)i, err)))
            return st;
    if (k->o->format != BENCH_JSON)
        return cmd_flush(err);
    root = json_pack("{s:s, s:s, s:O}", "version", TERN_VERSION, "machine", k->machine, "kernels", k->rows);
    return json_out_print(&root, 8, err);
}

enum tern_status bench_kernels(const struct bench_options *o, struct tern_err *err)
{
    struct kernels *k = calloc(1, sizeof *k);
    enum tern_status st;

    if (!k)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to measure kernels");
    k->o = o;
    k->rows = o->format == BENCH_JSON ? json_array() : NULL;
    bench_machine_name(k->machine, sizeof k->machine);
    if (!(st = bench_work_new(&k->work, err)) && !(st = bench_probe_new(&k->probe, err)) &&
        !(st = tern_pool_new(1, &k->pool, err)))
        st = run_levels(k, err);
    bench_work_free(&k->work);
    bench_probe_free(&k->probe);
    tern_pool_free(&k->pool);
    json_decref(k->rows);
    free(k);
    return st;
}
