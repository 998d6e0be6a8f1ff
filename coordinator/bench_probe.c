/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's limits: see bench_probe.h. */
#include "coordinator/bench_probe.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_BUFFER  ((size_t)256 << 20)
#define MAX_BUFFER  ((size_t)1 << 30)
#define PIECE       ((size_t)1 << 20)
#define DOT_UNITS   8        /* pieces of work per thread, so that one slow thread holds nobody up for long */
#define DOT_PASS_NS 10000000 /* about what a pass of multiply-adds takes */

struct bench_probe {
    void *buffer;
    size_t bytes;
    size_t steps; /* of probe_dot in one unit; 0: not known for `level` */
    enum tern_cpu_level level;
};

struct job {
    const struct bench_probe *p;
    const struct tern_kernels *kern;
    bool own_dot; /* the level has a probe; the reference's would say nothing about it */
};

/* Results of the probes end here, so that no compiler may leave them out. */
static volatile uint32_t sink;

static void fill(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct job *j = arg;

    (void)thread;
    memset((uint8_t *)j->p->buffer + first * PIECE, 0x55, (last - first) * PIECE);
}

static void read_pieces(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct job *j = arg;

    (void)thread;
    sink = j->kern->probe_read((const uint8_t *)j->p->buffer + first * PIECE, (last - first) * PIECE);
}

static void dot_units(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct job *j = arg;

    (void)thread;
    for (size_t i = first; i < last; i++)
        sink = j->kern->probe_dot(j->p->steps);
}

enum tern_status bench_probe_new(struct bench_probe **out, struct tern_err *err)
{
    struct bench_probe *p = calloc(1, sizeof *p);
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t want = l3 > 0 ? 8 * (size_t)l3 : 0;
    struct tern_kernels ref;
    struct job j = { p, &ref, false };
    enum tern_status st;

    if (!p)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to measure the machine");
    p->bytes = want < MIN_BUFFER ? MIN_BUFFER : want > MAX_BUFFER ? MAX_BUFFER : want / PIECE * PIECE;
    if ((st = tern_block_new(p->bytes, "measuring the machine", &p->buffer, err))) {
        free(p);
        return st;
    }
    fill(&j, 0, p->bytes / PIECE, 0); /* pages nobody wrote to are all the same one */
    *out = p;
    return TERN_OK;
}

void bench_probe_free(struct bench_probe **pp)
{
    struct bench_probe *p = *pp;

    if (p) {
        tern_block_free(&p->buffer, p->bytes);
        free(p);
    }
    *pp = NULL;
}

/* How many steps make a pass of the wanted length, found by doubling. */
static void calibrate(struct bench_probe *p, const struct tern_kernels *kern)
{
    size_t steps = 1024;
    uint64_t ns = 0;

    while (steps < SIZE_MAX / 4) {
        uint64_t t0 = tern_now_ns();

        sink = kern->probe_dot(steps);
        ns = tern_now_ns() - t0;
        if (ns > DOT_PASS_NS / DOT_UNITS)
            break;
        steps *= 2;
    }
    p->steps = steps;
    p->level = kern->level;
}

static double timed(struct tern_pool *pool, tern_pool_fn *fn, struct job *j, size_t n, size_t grain,
                    double work)
{
    uint64_t t0 = tern_now_ns(), ns;

    tern_pool_run(pool, fn, j, n, grain);
    ns = tern_now_ns() - t0;
    return work * 1e9 / (double)(ns ? ns : 1);
}

void bench_probe_take(struct bench_probe *p, const struct tern_kernels *kern, struct tern_pool *pool,
                      struct bench_takes *t)
{
    struct job j = { p, kern, false };
    struct tern_kernels ref;
    const size_t pieces = p->bytes / PIECE, units = (size_t)tern_pool_threads(pool) * DOT_UNITS;

    tern_kernels_init(&ref, TERN_CPU_REF);
    j.own_dot = kern->level == TERN_CPU_REF || kern->probe_dot != ref.probe_dot;
    if (j.own_dot && (!p->steps || p->level != kern->level))
        calibrate(p, kern);
    for (int i = 0; i < BENCH_TAKE_PASSES && t->n < BENCH_MAX_TAKES; i++) {
        double work = (double)units * (double)p->steps * (double)kern->probe_dot_macs;

        t->read[t->n] = timed(pool, read_pieces, &j, pieces, 4, (double)p->bytes);
        t->dot[t->n++] = j.own_dot ? timed(pool, dot_units, &j, units, 1, work) : 0;
    }
}

void bench_takes_add(struct bench_takes *to, const struct bench_takes *from)
{
    for (uint32_t i = 0; i < from->n && to->n < BENCH_MAX_TAKES; i++) {
        to->read[to->n] = from->read[i];
        to->dot[to->n++] = from->dot[i];
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct bench_range bench_range_of(const double *v, uint32_t n)
{
    struct bench_range r = { 0, 0, 0 };
    double *sorted = n ? malloc(n * sizeof *v) : NULL;

    if (!sorted)
        return r;
    memcpy(sorted, v, n * sizeof *v);
    qsort(sorted, n, sizeof *sorted, compare);
    r.min = sorted[0];
    r.max = sorted[n - 1];
    r.median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    free(sorted);
    return r;
}
