/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The race of the two layouts, and where its result is kept: see layout_choice.h.
 *
 * The buffer is cut into parts; a take runs one layout over the next few of them, so that by the time a part
 * comes round again it has left the caches.  Takes of the layouts alternate, so that what lasts disturbs
 * both; the best of each counts, since what comes and goes only slows a take down.
 */
#include "engine/layout_choice.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/cache_file.h"
#include "kernels/pack.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A matrix of K columns: a tile is 10240 or 8192 bytes, and PART whole tiles of either. */
#define K    2560
#define PART ((size_t)40960 * 25) /* bytes */

#define MIN_BUFFER  ((size_t)32 << 20)
#define MAX_BUFFER  ((size_t)128 << 20)
#define MIN_TAKE_NS 1500000u
#define MIN_TAKES   7
#define MAX_TAKES   31
#define BUDGET_NS   60000000u

/* 2 bits unless the other is faster by more than what two measurements differ in. */
#define MARGIN 1.03

/* All codes of weight zero in 2 bits, and a byte that five trits may have. */
#define FILL 0x55

struct race {
    const struct tern_kernels *kern;
    struct tern_pool *pool;
    uint8_t *buffer; /* [n_parts][PART] */
    size_t n_parts, next;
    int8_t q[K];
    float y[PART / 8192 * TERN_TILE_ROWS]; /* written by all takes, read by none */
    float act_scale;
    int32_t act_sum;
};

struct take {
    const struct race *race;
    enum tern_tile_layout layout;
    struct tern_ternary t;
};

static void fill_pass(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct race *r = arg;

    (void)thread;
    memset(r->buffer + first * PART, FILL, (last - first) * PART);
}

static void take_pass(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct take *t = arg;

    (void)thread;
    t->race->kern->ternary[t->layout](&t->t, first, last);
}

/* Weights per second of one layout over the next n parts. */
static double take(struct race *r, enum tern_tile_layout layout, size_t n, uint64_t *ns)
{
    size_t tile_bytes = tern_pack_tile_bytes(layout, K), n_tiles = PART / tile_bytes;
    struct take t = { .race = r,
                      .layout = layout,
                      .t = { .k_pad = tern_pack_k_pad(layout, K),
                             .m = n_tiles * TERN_TILE_ROWS,
                             .scale = 1,
                             .q = r->q,
                             .q_stride = K,
                             .act_scale = &r->act_scale,
                             .act_sum = &r->act_sum,
                             .n_rows = 1,
                             .y = r->y,
                             .y_stride = n_tiles * TERN_TILE_ROWS } };
    uint64_t begin = tern_now_ns();

    for (size_t i = 0; i < n; i++) {
        t.t.tiles = r->buffer + r->next * PART;
        r->next = (r->next + 1) % r->n_parts;
        tern_pool_run(r->pool, take_pass, &t, n_tiles, n_tiles / (tern_pool_threads(r->pool) * 4) + 1);
    }
    *ns = tern_now_ns() - begin;
    return (double)(n * n_tiles * TERN_TILE_ROWS) * K / ((double)*ns * 1e-9);
}

static void run_race(struct race *r, double rate[static TERN_N_TILE_LAYOUTS])
{
    uint64_t begin = tern_now_ns(), ns = 0;
    size_t parts = 1, n = 0;

    for (;; parts *= 2) { /* warms up, and finds how much is long enough to be timed */
        (void)take(r, TERN_TILES_5TRIT, parts, &ns);
        if (ns >= MIN_TAKE_NS || parts * 2 > r->n_parts)
            break;
    }
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++)
        rate[l] = 0;
    for (; n < MAX_TAKES && (n < MIN_TAKES || tern_now_ns() - begin < BUDGET_NS); n++)
        for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++) {
            double now = take(r, (enum tern_tile_layout)l, parts, &ns);

            rate[l] = now > rate[l] ? now : rate[l];
        }
}

/* Twice the last cache, within reason; machines that do not say get the least. */
static size_t buffer_bytes(void)
{
    long cache = sysconf(_SC_LEVEL4_CACHE_SIZE);
    size_t n;

    if (cache <= 0)
        cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    n = cache > 0 ? 2 * (size_t)cache : 0;
    n = n < MIN_BUFFER ? MIN_BUFFER : n > MAX_BUFFER ? MAX_BUFFER : n;
    return n / PART * PART;
}

static bool measure(const struct tern_kernels *kern, struct tern_pool *pool,
                    double rate[static TERN_N_TILE_LAYOUTS])
{
    size_t bytes = buffer_bytes();
    struct race *r = calloc(1, sizeof *r);
    void *block = NULL;
    bool ok = r && tern_block_new(bytes, "measuring", &block, NULL) == TERN_OK;

    if (ok) {
        r->kern = kern;
        r->pool = pool;
        r->buffer = block;
        r->n_parts = bytes / PART;
        r->act_scale = 1;
        for (size_t i = 0; i < K; i++)
            r->q[i] = (int8_t)((int)(i * 89 % 255) - 127);
        tern_pool_run(pool, fill_pass, r, r->n_parts, 1);
        tern_pool_hold(pool); /* as decoding does */
        run_race(r, rate);
        tern_pool_release(pool);
    }
    tern_block_free(&block, bytes);
    free(r);
    return ok;
}

/* -- what an answer belongs to --------------------------------------------------------------------------- */

/* What /proc/cpuinfo says of the first CPU's make; the speed of the moment and the like are left out. */
static void hash_cpu(crypto_generichash_state *h)
{
    static const char *const names[] = { "vendor_id",   "cpu family", "model",
                                         "stepping",    "cache size", "CPU implementer",
                                         "CPU variant", "CPU part",   "CPU revision" };
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");

    while (f && fgets(line, sizeof line, f) && line[0] != '\n')
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            if (strncmp(line, names[i], strlen(names[i])) == 0) /* "model" is also "model name" */
                crypto_generichash_update(h, (const unsigned char *)line, strlen(line));
    if (f)
        fclose(f);
}

static void make_key(const struct tern_kernels *kern, const struct tern_pool *pool,
                     uint8_t key[static TERN_CACHE_KEY_BYTES])
{
    static const char format[] = "tern tile layout 2 " TERN_KERNELS_ID;
    char what[96];
    crypto_generichash_state h;
    int n = snprintf(what, sizeof what, "level %s threads %u cpus %ld buffer %zu", tern_cpu_name(kern->level),
                     tern_pool_threads(pool), sysconf(_SC_NPROCESSORS_ONLN), buffer_bytes());

    crypto_generichash_init(&h, NULL, 0, TERN_CACHE_KEY_BYTES);
    crypto_generichash_update(&h, (const unsigned char *)format, sizeof format);
    crypto_generichash_update(&h, (const unsigned char *)what, (size_t)n);
    hash_cpu(&h);
    crypto_generichash_final(&h, key, TERN_CACHE_KEY_BYTES);
}

/* -- the choice ------------------------------------------------------------------------------------------ */

static enum tern_tile_layout faster(const double rate[static TERN_N_TILE_LAYOUTS])
{
    return rate[TERN_TILES_5TRIT] > rate[TERN_TILES_2BIT] * MARGIN ? TERN_TILES_5TRIT : TERN_TILES_2BIT;
}

static bool sound(const double rate[static TERN_N_TILE_LAYOUTS])
{
    for (int l = 0; l < TERN_N_TILE_LAYOUTS; l++)
        if (!isfinite(rate[l]) || rate[l] <= 0)
            return false;
    return true;
}

void tern_layout_choose(enum tern_layout_wish wish, const struct tern_kernels *kern, struct tern_pool *pool,
                        struct tern_layout_choice *out)
{
    struct tern_layout_choice c = { .layout = TERN_TILES_2BIT, .source = TERN_LAYOUT_ASKED };
    uint8_t key[TERN_CACHE_KEY_BYTES];

    if (wish != TERN_LAYOUT_AUTO) {
        c.layout = wish == TERN_LAYOUT_5TRIT ? TERN_TILES_5TRIT : TERN_TILES_2BIT;
        *out = c;
        return;
    }
    /* Chooses libsodium's fastest BLAKE2b; any number of calls from any thread do no harm. */
    TERN_BUG_IF(sodium_init() < 0);
    make_key(kern, pool, key);
    if (tern_cache_load(key, c.rate, sizeof c.rate) && sound(c.rate)) {
        c.source = TERN_LAYOUT_CACHED;
    } else if (measure(kern, pool, c.rate) && sound(c.rate)) {
        c.source = TERN_LAYOUT_MEASURED;
        tern_cache_store(key, c.rate, sizeof c.rate);
    } else {
        memset(c.rate, 0, sizeof c.rate);
        c.source = TERN_LAYOUT_NO_MEMORY;
    }
    c.layout = faster(c.rate);
    *out = c;
}

const char *tern_layout_source_name(const struct tern_layout_choice *c)
{
    switch (c->source) {
    case TERN_LAYOUT_ASKED: return "asked for";
    case TERN_LAYOUT_CACHED: return "remembered";
    case TERN_LAYOUT_MEASURED: return "measured";
    default: return "no memory to measure";
    }
}

void tern_layout_log(const struct tern_layout_choice *c)
{
    if (c->rate[0] > 0)
        tern_log(TERN_LOG_INFO, "layout", "%s (%s): 2bit %.1f, 1.6bit %.1f thousand million weights a second",
                 tern_pack_layout_name(c->layout), tern_layout_source_name(c),
                 c->rate[TERN_TILES_2BIT] * 1e-9, c->rate[TERN_TILES_5TRIT] * 1e-9);
    else
        tern_log(TERN_LOG_INFO, "layout", "%s (%s)", tern_pack_layout_name(c->layout),
                 tern_layout_source_name(c));
}
