/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of stacks: see grammar_stacks.h. */
#include "coordinator/grammar_stacks.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PILES  16384 /* a JSON value 5,000 arrays deep takes as many */
#define MAX_FRAMES 32768
#define N_BUCKETS  (2 * MAX_PILES)
#define N_JOINS    4096
#define MAX_DEPTH  2048 /* of joins within joins */

enum tern_status grammar_stacks_init(struct grammar_stacks *s, uint32_t bottom, struct tern_err *err)
{
    memset(s, 0, sizeof *s);
    s->frames = malloc(MAX_FRAMES * sizeof *s->frames);
    s->first = malloc((MAX_PILES + 1) * sizeof *s->first);
    s->bucket = calloc(N_BUCKETS, sizeof *s->bucket);
    s->moved = malloc(MAX_PILES * sizeof *s->moved);
    s->scratch = malloc(MAX_FRAMES * sizeof *s->scratch);
    s->joins = calloc(N_JOINS, sizeof *s->joins);
    if (!s->frames || !s->first || !s->bucket || !s->moved || !s->scratch || !s->joins) {
        grammar_stacks_fini(s);
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for an answer's grammar");
    }
    s->first[0] = 0;
    s->frames[0] = (struct grammar_frame){ bottom, GRAMMAR_NONE };
    s->first[1] = 1;
    s->n_piles = 1;
    return TERN_OK;
}

void grammar_stacks_fini(struct grammar_stacks *s)
{
    free(s->frames);
    free(s->first);
    free(s->bucket);
    free(s->moved);
    free(s->scratch);
    free(s->joins);
    memset(s, 0, sizeof *s);
}

static uint32_t fail(struct grammar_stacks *s, enum grammar_trouble why)
{
    s->trouble = why;
    return GRAMMAR_NONE;
}

static uint32_t hash_frames(const struct grammar_frame *f, uint32_t n)
{
    uint32_t hash = n;

    for (uint32_t i = 0; i < n; i++)
        hash = ((hash ^ f[i].back) * 16777619u ^ f[i].below) * 16777619u;
    return (hash ^ hash >> 15) % N_BUCKETS;
}

/* The pile with these frames. */
static uint32_t intern(struct grammar_stacks *s, const struct grammar_frame *f, uint32_t n)
{
    uint32_t slot = hash_frames(f, n);

    for (; s->bucket[slot]; slot = (slot + 1) % N_BUCKETS) {
        const uint32_t p = s->bucket[slot] - 1;

        if (s->first[p + 1] - s->first[p] == n && memcmp(s->frames + s->first[p], f, n * sizeof *f) == 0)
            return p;
    }
    if (s->n_piles == MAX_PILES || MAX_FRAMES - s->first[s->n_piles] < n)
        return fail(s, GRAMMAR_FULL);
    memcpy(s->frames + s->first[s->n_piles], f, n * sizeof *f);
    s->first[s->n_piles + 1] = s->first[s->n_piles] + n;
    s->bucket[slot] = s->n_piles + 1;
    return s->n_piles++;
}

static uint32_t join(struct grammar_stacks *s, uint32_t a, uint32_t b, int depth);

/* The frames of both onto the scratch; false: trouble. */
static bool merge(struct grammar_stacks *s, uint32_t a, uint32_t b, int depth)
{
    uint32_t i = s->first[a], j = s->first[b];
    const uint32_t i_end = s->first[a + 1], j_end = s->first[b + 1];

    if (!grammar_stacks_work(s, i_end - i + j_end - j))
        return false;
    while (i < i_end || j < j_end) {
        struct grammar_frame f;

        if (j == j_end || (i < i_end && s->frames[i].back < s->frames[j].back)) {
            f = s->frames[i++];
        } else if (i == i_end || s->frames[j].back < s->frames[i].back) {
            f = s->frames[j++];
        } else {
            f = s->frames[i];
            if (f.below != s->frames[j].below &&
                (f.below = join(s, f.below, s->frames[j].below, depth)) == GRAMMAR_NONE)
                return false;
            i++;
            j++;
        }
        if (s->n_scratch == MAX_FRAMES) {
            s->trouble = GRAMMAR_FULL;
            return false;
        }
        s->scratch[s->n_scratch++] = f;
    }
    return true;
}

static uint32_t join(struct grammar_stacks *s, uint32_t a, uint32_t b, int depth)
{
    const uint32_t base = s->n_scratch;
    struct grammar_join *j;
    uint32_t joined = GRAMMAR_NONE;

    if (a == b)
        return a;
    if (a > b) {
        uint32_t t = a;

        a = b;
        b = t;
    }
    j = &s->joins[(a * 2654435761u ^ b * 40503u) % N_JOINS];
    if (j->a == a && j->b == b)
        return j->joined;
    if (depth == MAX_DEPTH)
        return fail(s, GRAMMAR_WORK);
    if (merge(s, a, b, depth + 1))
        joined = intern(s, s->scratch + base, s->n_scratch - base);
    s->n_scratch = base;
    if (joined != GRAMMAR_NONE)
        *j = (struct grammar_join){ a, b, joined };
    return joined;
}

uint32_t grammar_stacks_join(struct grammar_stacks *s, uint32_t a, uint32_t b)
{
    return join(s, a, b, 0);
}

bool grammar_stacks_put_frame(struct grammar_stacks *s, uint32_t back, uint32_t below)
{
    if (s->n_scratch == MAX_FRAMES) {
        s->trouble = GRAMMAR_FULL;
        return false;
    }
    s->scratch[s->n_scratch++] = (struct grammar_frame){ back, below };
    return true;
}

bool grammar_stacks_put_pile(struct grammar_stacks *s, uint32_t pile)
{
    for (uint32_t i = s->first[pile]; i < s->first[pile + 1]; i++)
        if (!grammar_stacks_put_frame(s, s->frames[i].back, s->frames[i].below))
            return false;
    return true;
}

/* Shell's: the library's may allocate. */
static void sort_frames(struct grammar_frame *f, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint32_t i = gap; i < n; i++) {
            const struct grammar_frame moving = f[i];
            uint32_t j = i;

            for (; j >= gap && f[j - gap].back > moving.back; j -= gap)
                f[j] = f[j - gap];
            f[j] = moving;
        }
}

uint32_t grammar_stacks_make(struct grammar_stacks *s)
{
    const uint32_t n = s->n_scratch;
    struct grammar_frame *f = s->scratch;
    uint32_t out = 0, made = GRAMMAR_NONE;
    bool fine = grammar_stacks_work(s, n);

    if (n > 1 && fine)
        sort_frames(f, n);
    for (uint32_t i = 0; i < n && fine; i++) {
        if (!out || f[out - 1].back != f[i].back)
            f[out++] = f[i];
        else if (f[out - 1].below != f[i].below)
            fine = (f[out - 1].below = join(s, f[out - 1].below, f[i].below, 0)) != GRAMMAR_NONE;
    }
    if (fine)
        made = intern(s, f, out);
    s->n_scratch = 0;
    return made;
}

/* -- collecting ------------------------------------------------------------------------------------------ */

void grammar_stacks_unmark(struct grammar_stacks *s)
{
    memset(s->moved, 0, s->n_piles * sizeof *s->moved);
}

void grammar_stacks_mark(struct grammar_stacks *s, uint32_t pile)
{
    s->moved[pile] = 1;
}

/* What is below a pile has a lower number: marks go down, and what stays moves down, in one sweep each. */
void grammar_stacks_collect(struct grammar_stacks *s)
{
    uint32_t n = 0, n_frames = 0;

    s->moved[0] = 1;
    for (uint32_t p = s->n_piles; p-- > 1;)
        for (uint32_t i = s->first[p]; s->moved[p] && i < s->first[p + 1]; i++)
            if (s->frames[i].below != GRAMMAR_NONE)
                s->moved[s->frames[i].below] = 1;
    memset(s->bucket, 0, N_BUCKETS * sizeof *s->bucket);
    memset(s->joins, 0, N_JOINS * sizeof *s->joins);
    for (uint32_t p = 0, at = 0; p < s->n_piles; p++) {
        const uint32_t end = s->first[p + 1];
        uint32_t slot;

        if (s->moved[p]) {
            const uint32_t first = n_frames;

            for (uint32_t i = at; i < end; i++) {
                s->frames[n_frames] = s->frames[i];
                if (s->frames[n_frames].below != GRAMMAR_NONE)
                    s->frames[n_frames].below = s->moved[s->frames[n_frames].below];
                n_frames++;
            }
            for (slot = hash_frames(s->frames + first, n_frames - first); s->bucket[slot];)
                slot = (slot + 1) % N_BUCKETS;
            if (n > 0) /* the bottom is found by its number only */
                s->bucket[slot] = n + 1;
            s->moved[p] = n++;
            s->first[n] = n_frames;
        }
        at = end;
    }
    s->n_piles = n;
}
