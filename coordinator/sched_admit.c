/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets a slot, what it begins with, and whose KV goes for it: see sched.h. */
#include "coordinator/sched_impl.h"

#include "engine/base/log.h"

/* A sequence waits for another that is about to compute the same positions, if there are so many more than it
 * would find now. */
#define WORTH_WAITING 16

/* Operations of a step that are left for prefixes that go while it is filled. */
#define OPS_FOR_ROWS (TERN_MAX_STEP_OPS / 4)

/* -- the queue ------------------------------------------------------------------------------------------- */

void sched_queue_push(struct sched *s, struct seq *q)
{
    q->next = NULL;
    *s->queue_end = q;
    s->queue_end = &q->next;
    s->stats.n_queued++;
}

void sched_queue_push_first(struct sched *s, struct seq *q)
{
    q->next = s->queue;
    s->queue = q;
    if (!q->next)
        s->queue_end = &q->next;
    s->stats.n_queued++;
}

void sched_queue_remove(struct sched *s, struct seq *q)
{
    for (struct seq **at = &s->queue; *at; at = &(*at)->next)
        if (*at == q) {
            *at = q->next;
            if (!q->next)
                s->queue_end = at;
            q->next = NULL;
            s->stats.n_queued--;
            return;
        }
}

struct share {
    uint32_t client, user; /* LIVE ones of q's client, and those of them for q's user */
};

static struct share share_of(const struct sched *s, const struct seq *q)
{
    struct share n = { 0, 0 };

    for (uint32_t i = 0; i < s->kv.n; i++) {
        const struct seq *other = s->kv.slots[i].q;

        if (!other || other->client != q->client)
            continue;
        n.client++;
        n.user += other->whom == q->whom;
    }
    return n;
}

/* Of the client with the fewest LIVE ones, and of that one's user with the fewest, the first that has not
 * been passed over in this round. */
static struct seq *whose_turn(const struct sched *s)
{
    struct seq *best = NULL;
    struct share fewest = { 0, 0 };

    for (struct seq *q = s->queue; q; q = q->next) {
        struct share n;

        if (q->passed == s->round)
            continue;
        n = share_of(s, q);
        if (!best || n.client < fewest.client || (q->client == best->client && n.user < fewest.user)) {
            best = q;
            fewest = n;
        }
    }
    return best;
}

/* Positions of q that others may have computed: not those whose rows it wants to see. */
static uint32_t may_skip(const struct seq *q)
{
    if (q->no_cache || q->retried)
        return 0;
    return q->want_from < q->n_ids - 1 ? q->want_from : q->n_ids - 1;
}

/* Is a LIVE sequence about to send what q begins with?  It has its room, so it will. */
static bool should_wait(const struct sched *s, const struct seq *q)
{
    const uint32_t n = may_skip(q);
    uint32_t have;

    (void)kv_slots_match(&s->kv, q->ids, n, &have);
    for (uint32_t i = 0; i < s->kv.n; i++) {
        const struct seq *other = s->kv.slots[i].q;
        uint32_t common;

        if (!other || !s->kv.slots[i].shared || s->kv.slots[i].bad || !sched_wants_rows(other))
            continue;
        common = kv_ids_common(other->ids, q->ids, n < other->n_ids ? n : other->n_ids);
        if (common > other->n_sent && common >= have + WORTH_WAITING)
            return true;
    }
    return false;
}

struct seq *sched_next(struct sched *s)
{
    struct seq *q;

    if (!s->queue || s->n_live >= s->o.n_at_once)
        return NULL;
    s->round++;
    while ((q = whose_turn(s)) && should_wait(s, q))
        q->passed = s->round;
    /* The one whose turn it is waits for its room, however large, and all others behind it. */
    return q && kv_slots_pages_of(q->max_len) <= s->o.n_pages - s->reserved ? q : NULL;
}

/* -- slots that go back ---------------------------------------------------------------------------------- */

/* LIVE sequences and the pages they may take. */
static void recount(struct sched *s)
{
    s->n_live = s->reserved = s->n_answering = 0;
    for (uint32_t i = 0; i < s->kv.n; i++) {
        const struct seq *q = s->kv.slots[i].q;

        if (!q)
            continue;
        s->n_live++;
        s->reserved += kv_slots_pages_of(q->max_len);
        s->n_answering += sched_is_answering(q);
    }
}

void sched_settle(struct sched *s)
{
    for (struct seq *q = s->queue, *next; q; q = next) {
        next = q->next;
        if (q->state == SEQ_ENDED)
            sched_queue_remove(s, q);
    }
    for (uint32_t i = 0; i < s->kv.n; i++) {
        const struct seq *q = s->kv.slots[i].q;

        if (q && q->state == SEQ_ENDED)
            kv_slots_retire(&s->kv, i, !q->failed);
    }
    recount(s);
}

static bool to_be_freed(const struct kv_slot *slot)
{
    return slot->open && !slot->q && !slot->prefix;
}

bool sched_has_slots_to_free(const struct sched *s)
{
    for (uint32_t i = 0; i < s->kv.n; i++)
        if (to_be_freed(&s->kv.slots[i]))
            return true;
    return false;
}

enum tern_status sched_tidy(struct sched *s, struct tern_step *step, struct tern_err *err)
{
    enum tern_status st;

    for (uint32_t i = 0; i < s->kv.n && step->n_ops < TERN_MAX_STEP_OPS / 4; i++) {
        struct seq *q = s->kv.slots[i].q;

        if (!q || !q->rewound || !sched_wants_rows(q))
            continue;
        if ((st = kv_slots_rewind(&s->kv, step, i, q->n_sent, err)))
            return st;
        q->rewound = false;
    }
    for (uint32_t i = 0; i < s->kv.n && step->n_ops < TERN_MAX_STEP_OPS / 2; i++)
        if (to_be_freed(&s->kv.slots[i]) && (st = kv_slots_free(&s->kv, step, i, err)))
            return st;
    return TERN_OK;
}

enum tern_status sched_evict(struct sched *s, struct tern_step *step, uint32_t spare, struct tern_err *err)
{
    const uint32_t i = kv_slots_oldest(&s->kv, spare);

    if (i == KV_NO_SLOT || step->n_ops >= TERN_MAX_STEP_OPS)
        return TERN_END;
    s->stats.prefix_evicted++;
    return kv_slots_free(&s->kv, step, i, err);
}

/* -- admission ------------------------------------------------------------------------------------------- */

/* Makes a slot and a page free without touching `spare`.  TERN_END: there is none. */
static enum tern_status make_room(struct sched *s, struct tern_step *step, uint32_t spare, bool page,
                                  struct tern_err *err)
{
    enum tern_status st;

    while (kv_slots_unused(&s->kv) == KV_NO_SLOT || (page && tern_kv_pages_free(s->kv.table) == 0))
        if ((st = sched_evict(s, step, spare, err)))
            return st;
    return TERN_OK;
}

static void settle_in(struct sched *s, struct seq *q, uint32_t i, uint32_t n_cached)
{
    struct kv_slot *slot = &s->kv.slots[i];

    slot->q = q;
    slot->prefix = false;
    slot->shared = !q->no_cache;
    slot->used = slot->opened = ++s->kv.clock;
    q->state = SEQ_LIVE;
    q->slot = i;
    q->gen = slot->gen;
    q->n_sent = q->n_cached = n_cached;
    q->t_start_ns = tern_now_ns();
    s->stats.prefix_lookups += !q->no_cache;
    s->stats.prefix_hits += n_cached > 0;
    s->stats.prefix_tokens += n_cached;
    recount(s);
}

/* Goes on in the slot of a prefix, which is cut to len. */
static enum tern_status take_over(struct sched *s, struct tern_step *step, struct seq *q, uint32_t i,
                                  uint32_t len, struct tern_err *err)
{
    enum tern_status st;

    if (kv_slots_length(&s->kv, i) > len && (st = kv_slots_rewind(&s->kv, step, i, len, err)))
        return st;
    settle_in(s, q, i, len);
    return TERN_OK;
}

/* TERN_END: no operation or slot is left in this step. */
static enum tern_status give_slot(struct sched *s, struct tern_step *step, struct seq *q,
                                  struct tern_err *err)
{
    uint32_t len, i, from = kv_slots_match(&s->kv, q->ids, may_skip(q), &len);
    const bool prefix = from != KV_NO_SLOT && s->kv.slots[from].prefix;
    enum tern_status st;

    if (from != KV_NO_SLOT)
        s->kv.slots[from].used = ++s->kv.clock;
    if (prefix && kv_slots_length(&s->kv, from) - len <= TERN_PAGE)
        return take_over(s, step, q, from, len, err);
    st = make_room(s, step, from, len % TERN_PAGE != 0, err);
    if (st == TERN_END && prefix && step->n_ops < TERN_MAX_STEP_OPS)
        return take_over(s, step, q, from, len, err);
    if (st)
        return st;
    if (step->n_ops >= TERN_MAX_STEP_OPS)
        return TERN_END;
    i = kv_slots_unused(&s->kv);
    st = len ? kv_slots_fork(&s->kv, step, i, from, len, err) : kv_slots_open(&s->kv, step, i, err);
    if (!st)
        settle_in(s, q, i, len);
    return st;
}

enum tern_status sched_admit(struct sched *s, struct tern_step *step, struct tern_err *err)
{
    struct seq *q;
    enum tern_status st = TERN_OK;

    while (!st && step->n_ops < TERN_MAX_STEP_OPS - OPS_FOR_ROWS && (q = sched_next(s))) {
        st = give_slot(s, step, q, err);
        if (!st)
            sched_queue_remove(s, q);
    }
    return st == TERN_END ? TERN_OK : st;
}
