/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler: see sched.h.  From top to bottom: life, admission, filling a step, sending, and what comes
 * home. */
#include "coordinator/sched.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/forward.h"
#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>

/* What a step in flight holds; results carry no runs. */
struct flight_run {
    struct seq *q;
    uint32_t slot, gen, pos, n, n_want;
};

struct flight {
    uint64_t number;
    uint32_t n_runs, n_want;
    struct flight_run runs[TERN_MAX_STEP_RUNS];
};

struct slot {
    struct seq *q; /* NULL: forgotten by its owner */
    uint32_t gen;  /* last generation used */
    bool open;     /* on the workers; to be freed there when q has ended or is forgotten */
};

struct sched {
    struct sched_options o;
    struct tern_kv_table *kv;       /* mirrors the workers' tables */
    struct slot *slots;             /* [n_slots] */
    uint32_t n_live;                /* LIVE ones */
    uint32_t reserved;              /* pages the LIVE ones may take */
    uint32_t cursor;                /* slot after the last one served with a decode row */
    struct seq *queue, **queue_end; /* waiting */

    struct flight flights[TERN_MAX_STEPS_IN_FLIGHT];
    uint32_t first_flight, n_flights, max_flights;
    uint64_t sent;

    float *x;    /* [max_rows][n_embd] on the way out */
    float *home; /* [SCHED_HEAD_ROWS][n_embd] */
    size_t x_bytes, home_bytes;
    uint32_t n_home;
    struct {
        struct seq *q;
        uint32_t pos;
    } home_of[SCHED_HEAD_ROWS];
    struct sched_stats stats;
};

/* -- life ------------------------------------------------------------------------------------------------ */

static enum tern_status blocks_new(struct sched *s, struct tern_err *err)
{
    const size_t n_embd = s->o.model->arch.n_embd;
    void *p;
    enum tern_status st;

    s->x_bytes = s->o.pipe->max_rows * n_embd * sizeof(float);
    s->home_bytes = SCHED_HEAD_ROWS * n_embd * sizeof(float);
    if ((st = tern_block_new(s->x_bytes, "rows to send", &p, err)))
        return st;
    s->x = p;
    if ((st = tern_block_new(s->home_bytes, "rows that come home", &p, err)))
        return st;
    s->home = p;
    return TERN_OK;
}

enum tern_status sched_new(const struct sched_options *o, struct sched **out, struct tern_err *err)
{
    struct sched *s = calloc(1, sizeof *s);
    enum tern_status st;

    TERN_BUG_IF(o->chunk < 1);
    if (!s)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the scheduler");
    s->o = *o;
    s->queue_end = &s->queue;
    s->max_flights =
        o->pipe->max_in_flight < TERN_MAX_STEPS_IN_FLIGHT ? o->pipe->max_in_flight : TERN_MAX_STEPS_IN_FLIGHT;
    s->stats.n_stages = o->pipe->n_stages;
    s->slots = calloc(o->n_slots, sizeof *s->slots);
    if (!s->slots)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u sequences", (unsigned)o->n_slots);
    else if (!(st = tern_kv_table_new(o->n_slots, o->n_pages, o->max_positions, &s->kv, err)))
        st = blocks_new(s, err);
    if (st) {
        sched_free(&s);
        return st;
    }
    *out = s;
    return TERN_OK;
}

void sched_free(struct sched **sp)
{
    struct sched *s = *sp;

    if (!s)
        return;
    tern_kv_table_free(&s->kv);
    free(s->slots);
    tern_block_free((void **)&s->x, s->x_bytes);
    tern_block_free((void **)&s->home, s->home_bytes);
    free(s);
    *sp = NULL;
}

const struct sched_stats *sched_stats(const struct sched *s)
{
    return &s->stats;
}

/* -- admission ------------------------------------------------------------------------------------------- */

static uint32_t pages_of(uint32_t positions)
{
    return (positions + TERN_PAGE - 1) / TERN_PAGE;
}

enum tern_status sched_add(struct sched *s, struct seq *q, struct tern_err *err)
{
    TERN_BUG_IF(!s->o.head && !q->on_hidden);
    if (q->n_ids > q->max_len || q->max_len > s->o.max_positions || pages_of(q->max_len) > s->o.n_pages)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a sequence of %u tokens does not fit a context of %u",
                         (unsigned)(q->n_ids > q->max_len ? q->n_ids : q->max_len),
                         (unsigned)s->o.max_positions);
    q->state = SEQ_QUEUED;
    q->next = NULL;
    *s->queue_end = q;
    s->queue_end = &q->next;
    return TERN_OK;
}

static void queue_pop(struct sched *s)
{
    struct seq *q = s->queue;

    s->queue = q->next;
    if (!s->queue)
        s->queue_end = &s->queue;
    q->next = NULL;
}

/* Sequences that ended while waiting leave the queue. */
static struct seq *queue_head(struct sched *s)
{
    while (s->queue && s->queue->state == SEQ_ENDED)
        queue_pop(s);
    return s->queue;
}

void sched_forget(struct sched *s, struct seq *q)
{
    for (struct seq **at = &s->queue; *at;) {
        if (*at == q)
            *at = q->next;
        else
            at = &(*at)->next;
    }
    for (s->queue_end = &s->queue; *s->queue_end;)
        s->queue_end = &(*s->queue_end)->next;
    for (uint32_t i = 0; i < s->o.n_slots; i++)
        if (s->slots[i].q == q)
            s->slots[i].q = NULL;
    for (uint32_t i = 0; i < TERN_MAX_STEPS_IN_FLIGHT; i++)
        for (uint32_t r = 0; r < s->flights[i].n_runs; r++)
            if (s->flights[i].runs[r].q == q)
                s->flights[i].runs[r].q = NULL;
    q->state = SEQ_ENDED;
}

static bool is_live(const struct slot *slot)
{
    return slot->q && slot->q->state == SEQ_LIVE;
}

/* LIVE sequences and the pages they may take: those that ended no longer count, for they are freed before
 * others open. */
static void recount(struct sched *s)
{
    s->n_live = 0;
    s->reserved = 0;
    for (uint32_t i = 0; i < s->o.n_slots; i++)
        if (is_live(&s->slots[i])) {
            s->n_live++;
            s->reserved += pages_of(s->slots[i].q->max_len);
        }
}

static bool fits(const struct sched *s, const struct seq *q)
{
    return s->n_live < s->o.n_slots && pages_of(q->max_len) <= s->o.n_pages - s->reserved;
}

static bool wants_rows(const struct seq *q)
{
    return q && q->state == SEQ_LIVE && !q->held && q->n_sent < q->n_ids;
}

/* And the workers' tables agree with n_sent. */
static bool has_rows(const struct seq *q)
{
    return wants_rows(q) && !q->rewound;
}

static bool any_work(struct sched *s)
{
    struct seq *q = queue_head(s);

    recount(s);
    if (q && fits(s, q))
        return true;
    for (uint32_t i = 0; i < s->o.n_slots; i++)
        if (wants_rows(s->slots[i].q))
            return true;
    return false;
}

static void add_op(struct tern_step *step, uint32_t kind, uint32_t slot, uint32_t gen)
{
    step->ops[step->n_ops++] = (struct tern_slot_op){ .kind = kind, .slot = slot, .gen = gen };
}

/* Sequences that go on from an earlier position than they were at. */
static enum tern_status rewind_slots(struct sched *s, struct tern_step *step, struct tern_err *err)
{
    enum tern_status st;

    for (uint32_t i = 0; i < s->o.n_slots && step->n_ops < TERN_MAX_STEP_OPS / 4; i++) {
        struct seq *q = s->slots[i].q;

        if (!wants_rows(q) || !q->rewound)
            continue;
        if ((st = tern_kv_rewind(s->kv, i, q->gen, q->n_sent, err)))
            return st;
        add_op(step, TERN_OP_REWIND, i, q->gen);
        step->ops[step->n_ops - 1].len = q->n_sent;
        q->rewound = false;
    }
    return TERN_OK;
}

/* Slots of ended sequences go back, then waiting sequences take what is free; the workers do the same in
 * the same order. */
static enum tern_status admit(struct sched *s, struct tern_step *step, struct tern_err *err)
{
    enum tern_status st;
    struct seq *q;

    for (uint32_t i = 0; i < s->o.n_slots && step->n_ops < TERN_MAX_STEP_OPS / 2; i++)
        if (s->slots[i].open && !is_live(&s->slots[i])) {
            if ((st = tern_kv_free(s->kv, i, s->slots[i].gen, err)))
                return st;
            add_op(step, TERN_OP_FREE, i, s->slots[i].gen);
            s->slots[i].open = false;
            s->slots[i].q = NULL;
        }
    for (uint32_t i = 0; i < s->o.n_slots && step->n_ops < TERN_MAX_STEP_OPS; i++) {
        if (s->slots[i].open)
            continue;
        if (!(q = queue_head(s)) || !fits(s, q))
            break;
        if ((st = tern_kv_open(s->kv, i, s->slots[i].gen + 1, err)))
            return st;
        queue_pop(s);
        q->state = SEQ_LIVE;
        q->slot = i;
        q->gen = ++s->slots[i].gen;
        q->t_start_ns = tern_now_ns();
        s->slots[i].q = q;
        s->slots[i].open = true;
        add_op(step, TERN_OP_OPEN, i, q->gen);
        recount(s);
    }
    return TERN_OK;
}

/* -- filling a step -------------------------------------------------------------------------------------- */

/* Embeds the next n rows of q into the step.  An embedding that is not finite fails the sequence and sends
 * nothing. */
static enum tern_status add_run(struct sched *s, struct tern_step *step, struct flight *f, struct seq *q,
                                uint32_t n, struct tern_err *err)
{
    const struct tern_model *m = s->o.model;
    const uint32_t n_embd = m->arch.n_embd, pos = q->n_sent, end = pos + n;
    float *x = s->x + (size_t)step->n_rows * n_embd;
    uint32_t want, from, to;
    enum tern_status st;

    tern_forward_embed(m, q->ids + pos, n, x);
    if (!m->kern->all_finite(x, (size_t)n * n_embd)) {
        struct tern_err e;

        (void)TERN_FAIL(&e, TERN_ERR_NUMERIC,
                        "the embedding of a token is not finite; the model file is damaged");
        seq_fail(q, &e);
        return TERN_OK;
    }
    if ((st = tern_kv_append(s->kv, q->slot, q->gen, pos, n, &from, &to, err)))
        return st;
    for (uint32_t i = 0; i < n; i++)
        tern_boundary_encode(s->o.boundary, m->kern, x + (size_t)i * n_embd, n_embd,
                             step->payload + (size_t)(step->n_rows + i) * step->row_bytes);
    want = end <= q->want_from ? 0 : end - (q->want_from > pos ? q->want_from : pos);
    step->runs[step->n_runs++] = (struct tern_run){ q->slot, q->gen, pos, n, want };
    step->n_rows += n;
    f->runs[f->n_runs++] = (struct flight_run){ q, q->slot, q->gen, pos, n, want };
    f->n_want += want;
    q->n_sent = end;
    return TERN_OK;
}

/* A sequence whose prompt has gone and that waits for one token's row. */
static bool is_decoding(const struct seq *q)
{
    return has_rows(q) && q->n_sent > 0 && q->n_ids - q->n_sent == 1;
}

static bool has_room(const struct sched *s, const struct tern_step *step)
{
    return step->n_runs < TERN_MAX_STEP_RUNS && step->n_rows < s->o.pipe->max_rows;
}

/* One row of each sequence that is ready.  A pipeline of several stages is kept full by sending shares: as
 * many groups as there are stages, one in each. */
static enum tern_status fill_decode(struct sched *s, struct tern_step *step, struct flight *f,
                                    struct tern_err *err)
{
    uint32_t n_groups = s->o.pipe->n_stages < s->max_flights ? s->o.pipe->n_stages : s->max_flights;
    uint32_t share = (s->n_live + n_groups - 1) / n_groups;
    enum tern_status st;

    for (uint32_t k = 0, start = s->cursor; k < s->o.n_slots && share && has_room(s, step); k++) {
        uint32_t i = (start + k) % s->o.n_slots;

        if (!is_decoding(s->slots[i].q))
            continue;
        if ((st = add_run(s, step, f, s->slots[i].q, 1, err)))
            return st;
        s->cursor = (i + 1) % s->o.n_slots;
        share--;
    }
    return TERN_OK;
}

static enum tern_status fill_prompts(struct sched *s, struct tern_step *step, struct flight *f,
                                     struct tern_err *err)
{
    uint32_t budget = s->o.chunk;
    enum tern_status st;

    /* Oldest first: the order in which slots were given, which generations alone do not tell. */
    while (budget && has_room(s, step)) {
        struct seq *oldest = NULL;
        uint32_t n, room = s->o.pipe->max_rows - step->n_rows;

        for (uint32_t i = 0; i < s->o.n_slots; i++) {
            struct seq *q = s->slots[i].q;
            bool taken = false;

            if (!has_rows(q) || is_decoding(q) || (oldest && oldest->t_start_ns <= q->t_start_ns))
                continue;
            for (uint32_t r = 0; r < f->n_runs; r++)
                taken |= f->runs[r].q == q;
            if (!taken)
                oldest = q;
        }
        if (!oldest)
            break;
        n = oldest->n_ids - oldest->n_sent;
        n = n < budget ? n : budget;
        n = n < room ? n : room;
        if ((st = add_run(s, step, f, oldest, n, err)))
            return st;
        budget -= n;
    }
    return TERN_OK;
}

/* -- sending --------------------------------------------------------------------------------------------- */

/* Fills and sends one step; TERN_END when there is nothing to send or no room in flight. */
static enum tern_status send_one(struct sched *s, struct tern_err *err)
{
    struct pipe *pipe = s->o.pipe;
    struct flight *f;
    struct tern_step *step;
    uint64_t t0;
    enum tern_status st;

    if (s->n_flights >= s->max_flights || !any_work(s))
        return TERN_END;
    step = pipe->take(pipe);
    if (!step)
        return TERN_END;
    t0 = tern_now_ns();
    tern_step_clear(step);
    f = &s->flights[(s->first_flight + s->n_flights) % TERN_MAX_STEPS_IN_FLIGHT];
    f->n_runs = 0;
    f->n_want = 0;
    if ((st = rewind_slots(s, step, err)) || (st = admit(s, step, err)) ||
        (st = fill_decode(s, step, f, err)) || (st = fill_prompts(s, step, f, err)) ||
        (st = tern_model_check(s->o.model, err))) {
        pipe->give(pipe, step);
        return st;
    }
    /* A step may be left with operations only, when every embedding failed: the workers' tables still need
     * them. */
    s->stats.embed_us += (tern_now_ns() - t0) / 1000;
    s->stats.rows += step->n_rows;
    f->number = ++s->sent;
    s->n_flights++;
    return pipe->send(pipe, step, err);
}

/* -- coming home ----------------------------------------------------------------------------------------- */

static void stamp(struct seq *q, uint64_t now_ns)
{
    if (!q->t_first_ns)
        q->t_first_ns = now_ns;
    q->t_last_ns = now_ns;
}

static enum tern_status flush_home(struct sched *s, struct tern_err *err)
{
    struct tern_head_want want[SCHED_HEAD_ROWS] = { { 0 } };
    struct tern_head_row rows[SCHED_HEAD_ROWS];
    uint64_t t0 = tern_now_ns(), now;
    enum tern_status st;

    if (s->n_home == 0)
        return TERN_OK;
    for (uint32_t i = 0; i < s->n_home; i++) {
        struct seq *q = s->home_of[i].q;

        want[i].full = !q->want;
        if (q->want)
            q->want(q, s->home_of[i].pos, &want[i]);
    }
    tern_head_run(s->o.head, s->home, s->n_home, want, rows);
    now = tern_now_ns();
    s->stats.head_us += (now - t0) / 1000;
    if ((st = tern_model_check(s->o.model, err)))
        return st;
    for (uint32_t i = 0; i < s->n_home; i++) {
        struct seq *q = s->home_of[i].q;

        if (q->state != SEQ_LIVE)
            continue;
        stamp(q, now);
        q->on_logits(q, s->home_of[i].pos, &rows[i]);
    }
    s->n_home = 0;
    return TERN_OK;
}

static void fail_run(const struct flight_run *r, const struct tern_failed *why)
{
    struct tern_err e;

    switch (why->code) {
    case TERN_FAILED_NUMERIC:
        (void)TERN_FAIL(
            &e, TERN_ERR_NUMERIC,
            "a value became infinite or not a number in layer %u; the model file there is damaged",
            (unsigned)why->where);
        break;
    case TERN_FAILED_PAGES:
        (void)TERN_FAIL(&e, TERN_ERR_LIMIT, "stage %u has no room left for the sequence in its KV cache",
                        (unsigned)why->where);
        break;
    case TERN_FAILED_POSITION:
        (void)TERN_FAIL(&e, TERN_ERR_STATE, "stage %u lost track of the sequence's position",
                        (unsigned)why->where);
        break;
    default:
        (void)TERN_FAIL(&e, TERN_ERR_STATE, "stage %u gave up on the sequence with the unknown code %u",
                        (unsigned)why->where, (unsigned)why->code);
    }
    seq_fail(r->q, &e);
}

/* The result must be what was asked for: the next step, all wanted rows, no more stages than there are. */
static enum tern_status check_home(const struct sched *s, const struct flight *f,
                                   const struct tern_step *step, struct tern_err *err)
{
    if (step->step != f->number)
        return TERN_FAIL(err, TERN_ERR_STATE, "the result of step %llu came where that of step %llu was due",
                         (unsigned long long)step->step, (unsigned long long)f->number);
    if (step->n_rows != f->n_want || step->row_bytes != s->o.pipe->row_bytes)
        return TERN_FAIL(err, TERN_ERR_STATE,
                         "step %llu came back with %u rows of %u bytes; %u of %u were asked for",
                         (unsigned long long)step->step, (unsigned)step->n_rows, (unsigned)step->row_bytes,
                         (unsigned)f->n_want, (unsigned)s->o.pipe->row_bytes);
    return TERN_OK;
}

static void count_home(struct sched *s, const struct tern_step *step)
{
    s->stats.steps++;
    s->stats.rows_home += step->n_rows;
    s->stats.bytes_home += step->bytes_in;
    for (uint32_t i = 0; i < step->n_times && i < s->stats.n_stages; i++) {
        s->stats.stages[i].compute_us += step->times[i].compute_us;
        s->stats.stages[i].queue_us += step->times[i].queue_us;
        s->stats.stages[i].bytes += step->times[i].bytes;
    }
}

/* One row, decoded: to its sequence when that wants it as it is, else into the queue of the head. */
static enum tern_status take_row(struct sched *s, struct seq *q, uint32_t pos, const uint8_t *row,
                                 struct tern_err *err)
{
    const struct tern_model *m = s->o.model;
    float *x = s->home + (size_t)s->n_home * m->arch.n_embd;
    struct tern_err e;

    if (!tern_boundary_decode(s->o.boundary, m->kern, row, m->arch.n_embd, x)) {
        (void)TERN_FAIL(&e, TERN_ERR_NUMERIC, "the last worker sent back a row that is not finite");
        seq_fail(q, &e);
    } else if (q->on_hidden) {
        tern_forward_norm(m, x, 1);
        stamp(q, tern_now_ns());
        q->on_hidden(q, pos, x);
    } else {
        s->home_of[s->n_home].q = q;
        s->home_of[s->n_home++].pos = pos;
    }
    return s->n_home == SCHED_HEAD_ROWS ? flush_home(s, err) : TERN_OK;
}

static enum tern_status take_home(struct sched *s, const struct flight *f, const struct tern_step *step,
                                  struct tern_err *err)
{
    const uint8_t *row = step->payload;
    enum tern_status st;

    for (uint32_t r = 0; r < f->n_runs; r++) {
        const struct flight_run *run = &f->runs[r];

        for (uint32_t i = 0; i < step->n_failed && run->q; i++)
            if (step->failed[i].slot == run->slot && step->failed[i].gen == run->gen)
                fail_run(run, &step->failed[i]);
        for (uint32_t i = 0; i < run->n_want; i++, row += step->row_bytes) {
            if (!run->q || run->q->state != SEQ_LIVE)
                continue;
            if ((st = take_row(s, run->q, run->pos + run->n - run->n_want + i, row, err)))
                return st;
        }
    }
    return flush_home(s, err);
}

enum tern_status sched_turn(struct sched *s, int timeout_ms, struct tern_err *err)
{
    struct pipe *pipe = s->o.pipe;
    struct tern_step *step = NULL;
    struct flight *f;
    enum tern_status st;

    while (!(st = send_one(s, err)))
        ;
    if (st != TERN_END)
        return st;
    if (s->n_flights == 0)
        return TERN_END;
    if ((st = pipe->recv(pipe, timeout_ms, &step, err)))
        return st;
    f = &s->flights[s->first_flight];
    if (!(st = check_home(s, f, step, err))) {
        count_home(s, step);
        st = take_home(s, f, step, err);
    }
    s->first_flight = (s->first_flight + 1) % TERN_MAX_STEPS_IN_FLIGHT;
    s->n_flights--;
    pipe->give(pipe, step);
    return st;
}
