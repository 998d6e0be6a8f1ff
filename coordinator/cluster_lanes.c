/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes of text: see cluster_lanes.h. */
#include "coordinator/cluster_lanes.h"

#include <stdlib.h>
#include <string.h>

#define BIN_US  10000u
#define N_BINS  (CLUSTER_LANES_SECONDS * 100u)
#define N_LANES (TERN_MAX_WORKERS + 1u)
#define MAX_US  (1ull << 53) /* of a clock that makes sense */

struct cluster_lanes {
    uint64_t last_step, now_us;
    double began_s;                 /* when the server did, on its own clock */
    uint64_t newest;                /* bin that has been reached; the N_BINS up to it are remembered */
    uint16_t busy[N_LANES][N_BINS]; /* microseconds of work in bin b at [b % N_BINS] */
};

struct cluster_lanes *cluster_lanes_new(void)
{
    return calloc(1, sizeof(struct cluster_lanes));
}

void cluster_lanes_free(struct cluster_lanes **l)
{
    free(*l);
    *l = NULL;
}

/* Bins up to b exist, the new ones empty. */
static void reach(struct cluster_lanes *l, uint64_t b)
{
    if (b <= l->newest)
        return;
    if (b - l->newest >= N_BINS) {
        memset(l->busy, 0, sizeof l->busy);
    } else {
        for (uint64_t i = l->newest + 1; i <= b; i++)
            for (uint32_t lane = 0; lane < N_LANES; lane++)
                l->busy[lane][i % N_BINS] = 0;
    }
    l->newest = b;
}

/* Work from `from` to `to`; what lies outside of the bins there are is left out. */
static void add(struct cluster_lanes *l, uint32_t lane, uint64_t from, uint64_t to)
{
    const uint64_t oldest = l->newest >= N_BINS ? l->newest - N_BINS + 1 : 0;

    if (from < oldest * BIN_US)
        from = oldest * BIN_US;
    if (to > (l->newest + 1) * BIN_US)
        to = (l->newest + 1) * BIN_US;
    while (from < to) {
        const uint64_t b = from / BIN_US, end = (b + 1) * BIN_US < to ? (b + 1) * BIN_US : to;
        uint16_t *busy = &l->busy[lane][b % N_BINS];
        const uint64_t sum = *busy + (end - from);

        *busy = (uint16_t)(sum < BIN_US ? sum : BIN_US);
        from = end;
    }
}

static uint64_t time_of(const json_t *v)
{
    const json_int_t t = json_integer_value(v);

    return t > 0 && (uint64_t)t < MAX_US ? (uint64_t)t : 0;
}

static void add_step(struct cluster_lanes *l, const json_t *step)
{
    const json_t *stages = json_object_get(step, "stages");
    const uint64_t taken = time_of(json_object_get(step, "taken")),
                   done = time_of(json_object_get(step, "done"));
    size_t i;
    json_t *times;

    if (taken && done > taken)
        add(l, 0, taken, done);
    json_array_foreach(stages, i, times)
    {
        const uint64_t start = time_of(json_array_get(times, 1)), end = time_of(json_array_get(times, 2));

        if (i + 1 >= N_LANES)
            break;
        if (start && end > start)
            add(l, (uint32_t)i + 1, start, end);
    }
}

uint64_t cluster_lanes_add(struct cluster_lanes *l, const json_t *root)
{
    const json_t *steps = json_object_get(root, "steps");
    const uint64_t now = time_of(json_object_get(root, "now_us"));
    const double began_s = (double)now / 1e6 - json_number_value(json_object_get(root, "uptime_s"));
    size_t i;
    json_t *step;

    if (now < l->now_us || began_s > l->began_s + 1)
        memset(l, 0, sizeof *l);
    l->now_us = now;
    l->began_s = began_s;
    reach(l, now / BIN_US);
    json_array_foreach(steps, i, step)
    {
        const json_int_t n = json_integer_value(json_object_get(step, "n"));

        if (n <= 0 || (uint64_t)n <= l->last_step)
            continue; /* seen before */
        l->last_step = (uint64_t)n;
        add_step(l, step);
    }
    return l->last_step;
}

void cluster_lanes_draw(const struct cluster_lanes *l, uint32_t i, double now_us, unsigned seconds,
                        unsigned cells, bool utf8, FILE *to)
{
    static const char *const blocks[] = { " ",
                                          "\xe2\x96\x81",
                                          "\xe2\x96\x82",
                                          "\xe2\x96\x83",
                                          "\xe2\x96\x84",
                                          "\xe2\x96\x85",
                                          "\xe2\x96\x86",
                                          "\xe2\x96\x87",
                                          "\xe2\x96\x88" };
    static const char *const ascii[] = { " ", ".", ":", "-", "=", "+", "*", "#", "@" };
    const uint64_t end = now_us > 0 && now_us < (double)MAX_US ? (uint64_t)now_us / BIN_US + 1 : 0;
    const uint64_t n = (uint64_t)seconds * 1000000 / BIN_US;

    for (unsigned c = 0; c < cells && i < N_LANES; c++) {
        const uint64_t back_from = n - n * c / cells, back_to = n - n * (c + 1) / cells;
        const uint64_t from = end >= back_from ? end - back_from : 0,
                       last = end >= back_to ? end - back_to : 0;
        const uint64_t until = last > from ? last : from + 1;
        uint64_t sum = 0;
        unsigned level;

        for (uint64_t b = from; b < until; b++)
            if (b <= l->newest && b + N_BINS > l->newest)
                sum += l->busy[i][b % N_BINS];
        /* A little is not nothing. */
        level = (unsigned)((sum * 8 + (until - from) * BIN_US - 1) / ((until - from) * BIN_US));
        fputs((utf8 ? blocks : ascii)[level < 8 ? level : 8], to);
    }
}
