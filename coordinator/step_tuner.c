/* SPDX-License-Identifier: Apache-2.0 */
/* How large steps are and how many: see step_tuner.h. */
#include "coordinator/step_tuner.h"

#include <string.h>

#define MEAN_OF  16   /* measurements that a mean remembers */
#define FORGET   2048 /* measurements of other sizes after which one counts half */
#define OUTLIER  4.0  /* times the mean; more is cut */
#define GUESS_AB 4.0  /* a / b of a stage of which one size is known */
#define GAIN     0.98 /* another number of groups must be better by that much */
#define PACE_OF  4    /* chunks that a line's pace remembers */
#define MARGIN   2.0  /* mean deviations that a chunk is foreseen to take longer: 19 of 20 do not */
#define SPREADS  64   /* measurements that a line's spread remembers */
/* A round that has as many groups as it takes and not one more is longer by so much of the spread (mean
 * deviation): from simulating rings of 3 to 9 stations whose times are gamma distributed. */
#define UNEVEN 0.85

void step_tuner_init(struct step_tuner *t, uint32_t n_stages, bool remote, uint32_t max_flights,
                     uint32_t max_rows, uint32_t fixed_chunk)
{
    memset(t, 0, sizeof *t);
    t->n_stages = n_stages;
    t->remote = remote;
    t->max_flights = max_flights;
    t->max_rows = max_rows;
    t->fixed_chunk = fixed_chunk;
}

/* -- lines ----------------------------------------------------------------------------------------------- */

static double at(const struct tuner_line *l, double rows)
{
    return l->a + l->b * rows;
}

static uint32_t size_of(uint32_t rows)
{
    uint32_t i = 0;

    while (i + 1 < TUNER_SIZES && (1u << i) < rows)
        i++;
    return i;
}

struct sums {
    double w, x, y, xx, xy;
};

static void add_point(struct sums *s, double weight, double rows, double us)
{
    const double w = weight / (us * us); /* relative errors count */

    s->w += w;
    s->x += w * rows;
    s->y += w * us;
    s->xx += w * rows * rows;
    s->xy += w * rows * us;
}

/* The line nearest to the means; beyond the largest size a guess with little weight holds it. */
static void fit(struct tuner_line *l)
{
    struct sums s = { 0 };
    double largest = 0, mean_x, mean_y, det;

    for (uint32_t i = 0; i < TUNER_SIZES; i++) {
        const struct tuner_size *z = &l->sizes[i];
        double age = (double)(l->n - z->when) / FORGET;

        if (!z->n)
            continue;
        add_point(&s, z->n / (1 + age * age), z->rows, z->us);
        largest = z->rows > largest ? z->rows : largest;
    }
    mean_x = s.x / s.w;
    mean_y = s.y / s.w;
    add_point(&s, 0.05, 4 * largest, mean_y * (GUESS_AB + 4 * largest) / (GUESS_AB + mean_x));
    det = s.w * s.xx - s.x * s.x;
    l->b = (s.w * s.xy - s.x * s.y) / det;
    l->b = l->b > 0 ? l->b : 0;
    l->a = (s.y - l->b * s.x) / s.w;
    if (l->a < 0) {
        l->a = 0;
        l->b = s.xy / s.xx;
    }
}

/* How far from what is usual for its size, as a share of it. */
static void note_spread(struct tuner_line *l, const struct tuner_size *z, uint32_t rows, double us)
{
    double off;

    if (z->n < MEAN_OF || at(l, z->rows) <= 0)
        return;
    off = us / (z->us * at(l, rows) / at(l, z->rows)) - 1;
    off = off < -1 ? 1 : off < 0 ? -off : off < 1 ? off : 1;
    l->n_spread += l->n_spread < SPREADS;
    l->spread += (off - l->spread) / l->n_spread;
}

static void note_pace(struct tuner_line *l, uint32_t rows, double us)
{
    double pace;

    if (rows < CHUNK_LEAST || at(l, rows) <= 0)
        return;
    pace = us / at(l, rows);
    pace = pace < 1 / OUTLIER ? 1 / OUTLIER : pace > OUTLIER ? OUTLIER : pace;
    l->pace = l->pace > 0 ? l->pace + (pace - l->pace) / PACE_OF : pace;
}

static void note(struct tuner_line *l, uint32_t rows, double us)
{
    struct tuner_size *z = &l->sizes[size_of(rows)];
    double share;

    us = us > 1 ? us : 1;
    note_spread(l, z, rows, us);
    note_pace(l, rows, us);
    if (z->n >= MEAN_OF && us > OUTLIER * z->us)
        us = OUTLIER * z->us;
    z->n += z->n < MEAN_OF;
    share = 1.0 / z->n;
    z->rows += (rows - z->rows) * share;
    z->us += (us - z->us) * share;
    z->when = ++l->n;
    fit(l);
}

/* The median of the last ones. */
static void note_link(struct step_tuner *t, double us)
{
    double sorted[TUNER_LINKS];
    uint32_t n;

    t->links[t->n_links++ % TUNER_LINKS] = us > 0 ? us : 0;
    n = t->n_links < TUNER_LINKS ? t->n_links : TUNER_LINKS;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = i;

        for (; j > 0 && sorted[j - 1] > t->links[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = t->links[i];
    }
    t->link = sorted[n / 2];
}

void step_tuner_note(struct step_tuner *t, const struct tuner_sample *s)
{
    double computed = 0;

    if (s->n_want)
        note(&t->home, s->n_want, (double)s->home);
    if (!s->stages || !s->n_rows)
        return;
    t->sum_a = t->sum_b = 0;
    for (uint32_t i = 0; i < t->n_stages; i++) {
        note(&t->stages[i], s->n_rows, (double)s->stages[i]);
        computed += (double)s->stages[i];
        t->sum_a += t->stages[i].a;
        t->sum_b += t->stages[i].b;
    }
    if (t->remote)
        note_link(t, (double)s->away - (double)s->waited - computed);
}

double step_tuner_slowest(const struct step_tuner *t, double rows)
{
    double most = 0;

    for (uint32_t i = 0; i < t->n_stages; i++)
        most = at(&t->stages[i], rows) > most ? at(&t->stages[i], rows) : most;
    return most;
}

/* The way of a step of so many rows through all stages and links, without waiting. */
static double way_through(const struct step_tuner *t, double rows)
{
    return t->sum_a + t->sum_b * rows + t->link;
}

/* -- choices --------------------------------------------------------------------------------------------- */

static double mean_spread(const struct step_tuner *t)
{
    double sum = t->home.spread;

    for (uint32_t i = 0; i < t->n_stages; i++)
        sum += t->stages[i].spread;
    return sum / (t->n_stages + 1);
}

/* From one row of a sequence to its next one; `spread`: by which times are uneven. */
static double round_of(const struct step_tuner *t, uint32_t n, uint32_t groups, double spread)
{
    const double rows = (double)n / groups;
    double slowest = step_tuner_slowest(t, rows), home = at(&t->home, rows);
    double alone = way_through(t, rows) + home, queued, spare;

    slowest = slowest > home ? slowest : home;
    queued = groups * slowest;
    /* Steps that wait somewhere, or are missing: the more, the less does it matter that times are uneven. */
    spare = 1 + (queued > alone ? queued - alone : alone - queued) / slowest;
    return (alone > queued ? alone : queued) * (1 + UNEVEN * spread / (spare * spare));
}

uint32_t step_tuner_groups(struct step_tuner *t, uint32_t n)
{
    const uint32_t most = n < t->max_flights ? n : t->max_flights;
    const uint32_t rows = t->max_rows < TERN_MAX_STEP_RUNS ? t->max_rows : TERN_MAX_STEP_RUNS;
    uint32_t least = (n + rows - 1) / rows, best;
    double spread;

    if (!t->remote || most <= 1)
        return least > 1 ? least : 1;
    least = least > most ? most : least;
    best = t->groups < least ? least : t->groups > most ? most : t->groups;
    if (!t->stages[0].n || !t->home.n) {
        best = t->n_stages < least ? least : t->n_stages;
        return best < most ? best : most;
    }
    for (uint32_t g = least; g <= most; g++)
        if (round_of(t, n, g, 0) < (best == t->groups ? GAIN : 1) * round_of(t, n, best, 0))
            best = g;
    t->groups = best;
    /* Lines are not so sure that more than one could be told from none. */
    spread = mean_spread(t);
    t->one_more = best < most &&
                  round_of(t, n, best + 1, spread) < (t->one_more ? 1 : GAIN) * round_of(t, n, best, spread);
    return best + t->one_more;
}

/* So many rows at most while answers are being made. */
static double bearable(const struct step_tuner *t, uint32_t n_decode)
{
    const double rows = n_decode ? n_decode : 1;
    double more = 2 * (way_through(t, rows) + at(&t->home, rows));

    more = more > CHUNK_PATIENCE_US ? more : CHUNK_PATIENCE_US;
    return t->sum_b > 0 ? more / t->sum_b : TERN_MAX_STEP_ROWS;
}

uint32_t step_tuner_chunk(const struct step_tuner *t, uint32_t rest, uint32_t n_decode, uint32_t largest,
                          bool answering)
{
    uint32_t most = n_decode < t->max_rows ? t->max_rows - n_decode : 0, best = 0, n;
    double least = 0, bound;

    if (t->fixed_chunk)
        return t->fixed_chunk < most ? t->fixed_chunk : most;
    if (!t->stages[0].n)
        return t->remote && most > CHUNK_START ? CHUNK_START : most;
    bound = answering ? bearable(t, n_decode) : TERN_MAX_STEP_ROWS;
    bound = bound > CHUNK_LEAST ? bound : CHUNK_LEAST;
    most = most < bound ? most : (uint32_t)bound;
    for (uint32_t c = CHUNK_LEAST; c < most + CHUNK_LEAST / 2; c += CHUNK_LEAST / 2) {
        const uint32_t rows = c < most ? c : most, chunks = (rest + rows - 1) / rows;
        /* The last one leaves the pipeline as late as the largest in front of it. */
        const double tail = rows + n_decode > largest ? rows + n_decode : largest;
        const double way = way_through(t, tail), slow = step_tuner_slowest(t, rows + n_decode);
        const bool full = chunks > t->max_flights && slow < way / t->max_flights;
        const double apart = full ? way / t->max_flights : slow;
        const double time = chunks * apart + way - step_tuner_slowest(t, tail);

        if (!best || time < least) {
            best = rows;
            least = time;
        }
    }
    if (!best || rest == 0)
        return most;
    n = (rest + best - 1) / best; /* all of a size */
    best = (rest + n - 1) / n;
    return best < most ? best : most;
}

bool step_tuner_keeps_busy(const struct step_tuner *t, uint32_t largest, uint32_t n_flights, double work)
{
    if (t->sum_a + t->sum_b <= 0)
        return n_flights <= t->n_stages;
    return n_flights == 0 || work <= 1.001 * way_through(t, largest);
}

bool step_tuner_knows(const struct step_tuner *t, uint32_t rows)
{
    for (uint32_t i = 0; i < TUNER_SIZES; i++)
        if (t->stages[0].sizes[i].n && 4 * t->stages[0].sizes[i].rows >= rows)
            return true;
    return false;
}

/* Chunks rather too long than too short: one that waits for a stage longer than foreseen makes answers wait,
 * too.  Not so steps of answers, or chunks would seldom find stages free among many of them. */
static double foreseen(const struct tuner_line *l, double rows)
{
    if (rows < CHUNK_LEAST || l->pace <= 0)
        return at(l, rows);
    return at(l, rows) * l->pace * (1 + MARGIN * l->spread);
}

double step_tuner_pass(const struct step_tuner *t, double *free_us, double sent_us, double rows)
{
    const double hop = t->link / (t->n_stages + 1);
    double now = sent_us, waited = 0;

    for (uint32_t i = 0; i < t->n_stages; i++) {
        now += hop;
        if (free_us[i] > now) {
            waited += free_us[i] - now;
            now = free_us[i];
        }
        now += foreseen(&t->stages[i], rows);
        free_us[i] = now;
    }
    return waited;
}

double step_tuner_slack(const struct step_tuner *t, double rows)
{
    const double slack = step_tuner_slowest(t, rows) / 16;

    return slack > 1000 ? slack : 1000;
}
