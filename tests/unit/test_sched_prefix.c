/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared prefixes, admission and cancelling: the scheduler over a pipeline that remembers every row in its
 * pages and answers with what follows from all of them, so that a wrong page, length or order gives another
 * token than the sequence would get alone.
 */
#include "unit/sched_bed.h"
#include "unit/unit.h"

#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN 160
#define N_JOBS  512

struct bed;

struct job {
    struct seq seq;
    struct bed *bed;
    uint32_t n_want, n_tokens, started;
    bool keeps, done;
};

struct bed {
    struct fake fake;
    struct sched *sched;
    struct job jobs[N_JOBS];
    uint32_t n_jobs, n_started;
    uint32_t n_ops[5]; /* sent, by kind */
};

/* -- what is due ----------------------------------------------------------------------------------------- */

static void row_of_id(int32_t id, uint8_t *row)
{
    float x[1024];

    tern_forward_embed(env.model, &id, 1, x);
    tern_boundary_encode(WIRE, &env.kern, x, env.arch.n_embd, row);
}

static void row_of(uint64_t history, uint8_t *row)
{
    row_of_id((int32_t)(history % env.arch.n_vocab), row);
}

static uint64_t mark_of(int32_t id)
{
    static uint64_t marks[65536]; /* 0: not computed yet */
    uint8_t row[8192];

    assert_true(env.arch.n_vocab <= 65536);
    if (!marks[id]) {
        row_of_id(id, row);
        marks[id] = fake_mark(FAKE_MARK_0, row, tern_boundary_row_bytes(WIRE, env.arch.n_embd));
    }
    return marks[id];
}

/* The token that follows ids [n] when they are alone. */
static int32_t follows(const int32_t *ids, uint32_t n)
{
    uint64_t history = FAKE_MARK_0;

    for (uint32_t i = 0; i < n; i++) {
        const uint64_t mark = mark_of(ids[i]);

        history = fake_mark(history, &mark, sizeof mark);
    }
    return token_after((int32_t)(history % env.arch.n_vocab));
}

static void want_best(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    (void)q;
    (void)pos;
    out->k = 1;
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct job *j = q->user;
    struct logprob best;

    assert_false(j->done);
    logprobs_top(row->values, row->n, 0, 1, &best);
    best.id = row->ids[best.id];
    assert_int_equal(best.id, follows(q->ids, pos + 1));
    if (pos + 1 < q->n_ids)
        return; /* a given text is scored */
    if (++j->n_tokens < j->n_want)
        seq_push(q, best.id);
    else if (j->keeps)
        q->held = true;
    else
        seq_finish(q);
}

/* -- the bed --------------------------------------------------------------------------------------------- */

static void on_send(struct fake *f, const struct tern_step *s)
{
    struct bed *b = (struct bed *)(void *)f; /* its first member */

    for (uint32_t i = 0; i < s->n_ops; i++)
        b->n_ops[s->ops[i].kind]++;
}

static struct bed *bed_new(const struct sched_options *o, uint32_t n_stages)
{
    struct bed *b = calloc(1, sizeof *b);
    struct fake *f = &b->fake;
    struct sched_options so = *o;

    assert_non_null(b);
    f->marks = calloc((size_t)o->n_pages * TERN_PAGE, sizeof *f->marks);
    f->row_of = row_of;
    f->on_send = on_send;
    assert_non_null(f->marks);
    so.head = env.head;
    so.max_positions = MAX_LEN;
    b->sched = open_sched(f, n_stages, n_stages + 2, 48, (struct fake_stage){ 100, 20, 10, 0 }, so);
    return b;
}

static void bed_free(struct bed *b)
{
    close_sched(&b->fake, &b->sched);
    for (uint32_t i = 0; i < b->n_jobs; i++)
        seq_fini(&b->jobs[i].seq);
    free(b->fake.marks);
    free(b);
}

/* The k-th id of text t. */
static int32_t id_of(uint32_t t, uint32_t k)
{
    return (int32_t)((t * 7919 + k * 31 + k * k % 17 + 5) % env.arch.n_vocab);
}

/* The first n ids of text t, then more of text `tail` up to len. */
static struct job *add(struct bed *b, uint32_t t, uint32_t n, uint32_t tail, uint32_t len, uint32_t n_want)
{
    struct job *j = &b->jobs[b->n_jobs++];
    int32_t ids[MAX_LEN];

    assert_true(b->n_jobs <= N_JOBS && len <= MAX_LEN);
    for (uint32_t k = 0; k < len; k++)
        ids[k] = k < n ? id_of(t, k) : id_of(tail, k);
    assert_ok(seq_init(&j->seq, ids, len, len + n_want <= MAX_LEN ? len + n_want : MAX_LEN, &unit_err));
    j->bed = b;
    j->n_want = n_want;
    j->seq.want = want_best;
    j->seq.on_logits = on_logits;
    j->seq.user = j;
    return j;
}

static void submit(struct bed *b, struct job *j)
{
    assert_ok(sched_add(b->sched, &j->seq, &unit_err));
}

/* In which order they got their slots is noted. */
static enum tern_status turn(struct bed *b)
{
    enum tern_status st;

    tern_alloc_guard_begin("a turn under test");
    st = sched_turn(b->sched, 0, &unit_err);
    tern_alloc_guard_end();
    assert_true(st == TERN_OK || st == TERN_END);
    for (uint32_t i = 0; i < b->n_jobs; i++)
        if (!b->jobs[i].started && b->jobs[i].seq.t_start_ns)
            b->jobs[i].started = ++b->n_started;
    return st;
}

static void run(struct bed *b)
{
    while (turn(b) == TERN_OK)
        ;
}

static void run_job(struct bed *b, struct job *j)
{
    submit(b, j);
    run(b);
    assert_true(j->seq.state == SEQ_ENDED && !j->seq.failed);
    assert_int_equal(j->n_tokens, j->n_want);
}

static const struct sched_stats *stats(const struct bed *b)
{
    return sched_stats(b->sched);
}

/* -- tests ----------------------------------------------------------------------------------------------- */

/* What an ended sequence leaves behind is found again: by one that goes on from it in its own slot, by one
 * that turns off in a copy. */
static void test_prefixes_are_found(void **state)
{
    const struct sched_options o = { .n_slots = 4, .n_at_once = 1, .n_pages = 20 };
    struct bed *b = bed_new(&o, 2);
    struct job *a, *c, *d;
    int32_t ids[MAX_LEN];
    uint64_t rows;

    (void)state;
    run_job(b, a = add(b, 1, 50, 1, 50, 10));
    assert_int_equal(a->seq.n_cached, 0);
    assert_int_equal(stats(b)->pages_cached, 2);
    /* The conversation goes on: all that was computed, which is all but the last token. */
    memcpy(ids, a->seq.ids, a->seq.n_ids * sizeof *ids);
    c = add(b, 2, 100, 2, 100, 5);
    memcpy(c->seq.ids, ids, a->seq.n_ids * sizeof *ids);
    rows = stats(b)->rows;
    run_job(b, c);
    assert_int_equal(c->seq.n_cached, a->seq.n_ids);
    assert_int_equal(stats(b)->rows - rows, c->seq.n_ids - a->seq.n_ids);
    assert_int_equal(b->n_ops[TERN_OP_OPEN], 1);
    assert_int_equal(b->n_ops[TERN_OP_FORK] + b->n_ops[TERN_OP_FREE], 0);
    /* Another one turns off behind 45 positions: whole pages are shared, the rest is copied. */
    run_job(b, d = add(b, 1, 45, 3, 90, 5));
    assert_int_equal(d->seq.n_cached, 45);
    assert_int_equal(b->n_ops[TERN_OP_FORK], 1);
    assert_int_equal(stats(b)->pages_cached, 4 + 3 - 1);
    assert_true(stats(b)->prefix_lookups == 3 && stats(b)->prefix_hits == 2);
    assert_true(stats(b)->prefix_tokens == c->seq.n_cached + 45 && stats(b)->prefix_evicted == 0);
    /* The same again: all but the last position of the prompt, whose logits are wanted. */
    run_job(b, c = add(b, 1, 45, 3, 90, 5));
    assert_int_equal(c->seq.n_cached, 89);
    bed_free(b);
}

/* Nothing is skipped that somebody wants to see, and no_cache neither takes nor leaves anything. */
static void test_what_is_wanted_is_computed(void **state)
{
    const struct sched_options o = { .n_slots = 4, .n_at_once = 2, .n_pages = 20 };
    struct bed *b = bed_new(&o, 2);
    struct job *j;

    (void)state;
    run_job(b, add(b, 1, 60, 1, 60, 4));
    j = add(b, 1, 60, 1, 60, 1);
    j->seq.want_from = 20; /* scored from there on */
    run_job(b, j);
    assert_int_equal(j->seq.n_cached, 20);
    j = add(b, 1, 60, 1, 60, 1);
    j->seq.want_from = 0;
    run_job(b, j);
    assert_int_equal(j->seq.n_cached, 0);
    j = add(b, 1, 60, 1, 60, 3);
    j->seq.no_cache = true;
    run_job(b, j);
    assert_int_equal(j->seq.n_cached, 0);
    j = add(b, 7, 60, 7, 60, 3);
    j->seq.no_cache = true;
    run_job(b, j);
    run_job(b, j = add(b, 7, 60, 7, 60, 3));
    assert_int_equal(j->seq.n_cached, 0);
    bed_free(b);
}

static void test_least_recently_used_goes(void **state)
{
    const struct sched_options o = { .n_slots = 3, .n_at_once = 1, .n_pages = 20 };
    static const uint32_t texts[] = { 1, 2, 3, 1, 4, 1, 3, 4, 2 };
    static const uint32_t cached[] = { 0, 0, 0, 39, 0, 39, 39, 39, 0 }; /* 4 took the place of 2 */
    struct bed *b = bed_new(&o, 1);

    (void)state;
    for (uint32_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct job *j = add(b, texts[i], 40, texts[i], 40, 1);

        run_job(b, j);
        assert_int_equal(j->seq.n_cached, cached[i]);
    }
    assert_int_equal(stats(b)->prefix_evicted, 2);
    bed_free(b);
}

/* Pages, too, are made free by prefixes, in the middle of an answer if need be. */
static void test_pages_before_prefixes(void **state)
{
    const struct sched_options o = { .n_slots = 8, .n_at_once = 1, .n_pages = 5 };
    struct bed *b = bed_new(&o, 2);
    struct job *j;

    (void)state;
    for (uint32_t t = 1; t <= 4; t++)
        run_job(b, add(b, t, 20, t, 20, 5));
    assert_int_equal(stats(b)->pages_cached, 4);
    run_job(b, j = add(b, 9, 20, 9, 20, 120));
    assert_int_equal(stats(b)->prefix_evicted, 4);
    assert_int_equal(stats(b)->pages_cached, 5);
    assert_int_equal(stats(b)->pages_free, 0);
    bed_free(b);
}

/* Many with the same prompt at once: it is computed once. */
static void test_same_prompts_at_once(void **state)
{
    for (uint32_t stages = 1; stages <= 3; stages++) {
        const struct sched_options o = { .n_slots = 5, .n_at_once = 4, .n_pages = 25 };
        struct bed *b = bed_new(&o, stages);
        struct job *other;

        (void)state;
        for (uint32_t i = 0; i < 4; i++)
            submit(b, add(b, 1, 120, 1, 120, 3 + i));
        submit(b, other = add(b, 2, 30, 2, 30, 3)); /* does not wait with them */
        run(b);
        assert_int_equal(b->jobs[0].seq.n_cached, 0);
        for (uint32_t i = 1; i < 4; i++)
            assert_in_range(b->jobs[i].seq.n_cached, 119 - 15, 119);
        assert_true(other->seq.t_start_ns < b->jobs[1].seq.t_start_ns);
        for (uint32_t i = 0; i < b->n_jobs; i++)
            assert_true(b->jobs[i].seq.state == SEQ_ENDED && !b->jobs[i].seq.failed);
        bed_free(b);
    }
}

/* The client with the fewest running is next, its own in the order they came. */
static void test_clients_take_turns(void **state)
{
    static const uint64_t clients[] = { 1, 1, 1, 1, 2, 2, 3 };
    static const uint32_t order[] = { 1, 4, 6, 7, 2, 5, 3 };
    const struct sched_options o = { .n_slots = 3, .n_at_once = 3, .n_pages = 15 };
    struct bed *b = bed_new(&o, 2);

    (void)state;
    for (uint32_t i = 0; i < 7; i++) {
        struct job *j = add(b, i, 5, i, 5, 10 + 3 * i);

        j->seq.client = clients[i];
        submit(b, j);
    }
    run(b);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(b->jobs[i].started, order[i]);
    bed_free(b);
}

/* A sequence that needs all pages gets them, however many small ones keep coming. */
static void test_large_ones_get_their_turn(void **state)
{
    const struct sched_options o = { .n_slots = 6, .n_at_once = 4, .n_pages = 5 };
    struct bed *b = bed_new(&o, 2);
    struct job *large;
    uint32_t n = 0;

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        submit(b, add(b, i, 10, i, 10, 10));
    large = add(b, 100, 100, 100, 100, 60);
    large->seq.client = 7;
    submit(b, large);
    for (; !large->started && n < 100; n++) {
        struct job *j = add(b, n + 20, 10, n + 20, 10, 10);

        j->seq.client = 1000 + n;
        submit(b, j);
        (void)turn(b);
    }
    assert_true(large->started && large->started <= 5);
    run(b);
    for (uint32_t i = 0; i < b->n_jobs; i++)
        assert_int_equal(b->jobs[i].n_tokens, b->jobs[i].n_want);
    bed_free(b);
}

/* What was computed of a prompt that nobody waits for any more serves the next one; without the cache it goes
 * at once, and the workers are told even if nothing else is to be sent. */
static void test_cancelled_prompts(void **state)
{
    for (uint32_t turns = 1; turns < 8; turns++) {
        const struct sched_options o = { .n_slots = 3, .n_at_once = 2, .n_pages = 15, .chunk = 16 };
        struct bed *b = bed_new(&o, 2);
        struct job *j = add(b, 1, 150, 1, 150, 5), *k;
        uint32_t sent;

        (void)state;
        submit(b, j);
        for (uint32_t i = 0; i < turns; i++)
            (void)turn(b);
        sent = j->seq.n_sent;
        sched_forget(b->sched, &j->seq);
        seq_fini(&j->seq); /* nobody may look at it any more */
        run_job(b, k = add(b, 1, 150, 1, 150, 5));
        assert_int_equal(k->seq.n_cached, sent < 149 ? sent : 149);
        k = add(b, 2, 150, 2, 150, 5);
        k->seq.no_cache = true;
        submit(b, k);
        (void)turn(b);
        seq_finish(&k->seq);
        k->done = true;
        run(b);
        assert_int_equal(tern_kv_pages_free(b->fake.kv), stats(b)->pages_free);
        assert_int_equal(stats(b)->pages_free + stats(b)->pages_cached, 15);
        assert_int_equal(stats(b)->pages_cached, 5);
        bed_free(b);
    }
}

/* When the KV of a prefix turns out to have failed, those who began with it begin anew and get what they
 * would have got alone. */
static void test_prefixes_that_fail(void **state)
{
    uint32_t n_again = 0;

    (void)state;
    for (uint64_t at = 1; at < 14; at++) {
        const struct sched_options o = { .n_slots = 5, .n_at_once = 4, .n_pages = 25, .chunk = 16 };
        struct bed *b = bed_new(&o, 3);

        b->fake.fault = FAIL_KV;
        b->fake.fault_step = at;
        b->fake.fault_slot = 0;
        b->fake.fault_gen = 1;
        submit(b, add(b, 1, 100, 1, 100, 8));
        for (uint32_t i = 0; i < 4; i++)
            submit(b, add(b, 1, 40 + 20 * i, 2 + i, 110, 8));
        run(b);
        for (uint32_t i = 0; i < 5; i++) {
            const struct job *j = &b->jobs[i];

            assert_int_equal(j->seq.state, SEQ_ENDED);
            assert_true(j->seq.failed == (i == 0 && j->n_tokens < j->n_want));
            assert_true(i == 0 || j->n_tokens == j->n_want);
            n_again += j->seq.retried;
        }
        bed_free(b);
    }
    assert_true(n_again >= 4);
}

/* -- thousands of steps at random ------------------------------------------------------------------------ */

static uint32_t next_random(uint64_t *r, uint32_t below)
{
    *r = *r * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*r >> 33) % below;
}

static void add_random(struct bed *b, uint64_t *r)
{
    const uint32_t len = 1 + next_random(r, 120), n = next_random(r, len + 1);
    struct job *j = add(b, next_random(r, 3), n, next_random(r, 5), len, 1 + next_random(r, 40));

    j->seq.client = next_random(r, 4);
    j->seq.no_cache = next_random(r, 8) == 0;
    j->keeps = next_random(r, 12) == 0;
    if (next_random(r, 10) == 0)
        j->seq.want_from = next_random(r, len);
    if (j->seq.want_from + 1 < len || j->n_want > MAX_LEN - len)
        j->n_want = 1;
    submit(b, j);
}

/* A held one goes on from where it is or from earlier, or is given up. */
static void go_on(struct bed *b, struct job *j, uint64_t *r)
{
    const int32_t more[] = { 9, 8, 7, 6, 5, 4, 3 };
    const uint32_t room = j->seq.max_len - j->seq.n_ids, n = 1 + next_random(r, 7);

    if (n >= room || next_random(r, 3) == 0) {
        sched_forget(b->sched, &j->seq);
        return;
    }
    if (next_random(r, 2))
        seq_rewind(&j->seq, 1 + next_random(r, j->seq.n_ids));
    seq_extend(&j->seq, more, n);
    j->n_tokens = 0;
    j->n_want = 1 + next_random(r, 4) < room - n ? 1 + next_random(r, 2) : 1;
    j->keeps = next_random(r, 2);
}

static void check_pages(const struct bed *b)
{
    const struct sched_stats *st = stats(b);

    assert_int_equal(st->pages_free, tern_kv_pages_free(b->fake.kv));
    assert_true(st->pages_free + st->pages_cached <= st->pages);
    assert_true(st->n_live <= 4);
    assert_true(st->n_live > 0 || st->pages_free + st->pages_cached <= st->pages);
}

static void play(uint64_t seed, uint32_t n_stages, uint32_t chunk)
{
    const struct sched_options o = { .n_slots = 7, .n_at_once = 4, .n_pages = 14, .chunk = chunk };
    struct bed *b = bed_new(&o, n_stages);
    uint64_t r = seed;

    for (uint32_t i = 0; i < 500; i++) {
        const uint32_t what = next_random(&r, 16);

        if (what < 5 && b->n_jobs < 400)
            add_random(b, &r);
        for (uint32_t k = 0; k < b->n_jobs; k++) {
            struct job *j = &b->jobs[k];

            /* Nothing of one that is rewound may be in flight. */
            if (j->seq.state == SEQ_LIVE && j->seq.held && b->fake.n_line == 0)
                go_on(b, j, &r);
            else if (j->seq.state != SEQ_ENDED && next_random(&r, 100) == 0) {
                j->done = true;
                if (next_random(&r, 2))
                    seq_finish(&j->seq);
                else
                    sched_forget(b->sched, &j->seq);
            }
        }
        (void)turn(b);
        check_pages(b);
    }
    for (uint32_t k = 0; k < b->n_jobs; k++)
        b->jobs[k].keeps = false;
    for (uint32_t n = 1; n;) {
        run(b);
        n = 0;
        for (uint32_t k = 0; k < b->n_jobs; k++)
            if (b->jobs[k].seq.state == SEQ_LIVE) {
                sched_forget(b->sched, &b->jobs[k].seq);
                n++;
            }
    }
    for (uint32_t k = 0; k < b->n_jobs; k++)
        assert_true(b->jobs[k].seq.state == SEQ_ENDED && !b->jobs[k].seq.failed);
    assert_int_equal(stats(b)->pages_free + stats(b)->pages_cached, 14);
    assert_true(stats(b)->prefix_hits > 10 && stats(b)->prefix_evicted > 5);
    /* Who needs all pages gets all of them, and gives them back. */
    for (uint32_t i = 0; i < 4; i++) {
        struct job *j = add(b, 50 + i, 110, 50 + i, i < 2 ? 128 : 96, 1);

        j->seq.max_len = j->seq.n_ids;
        j->seq.no_cache = true;
        j->keeps = true;
        submit(b, j);
    }
    run(b);
    assert_true(stats(b)->pages_cached == 0 && stats(b)->pages_free == 0);
    for (uint32_t k = b->n_jobs - 4; k < b->n_jobs; k++)
        sched_forget(b->sched, &b->jobs[k].seq);
    run(b);
    assert_int_equal(tern_kv_pages_free(b->fake.kv), 14);
    bed_free(b);
}

static void test_anything_goes(void **state)
{
    static const uint32_t chunks[] = { 0, 1, 7, 32 };

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        play(i + 1, 1 + i % 3, chunks[i % 4]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefixes_are_found),        cmocka_unit_test(test_what_is_wanted_is_computed),
        cmocka_unit_test(test_least_recently_used_goes),  cmocka_unit_test(test_pages_before_prefixes),
        cmocka_unit_test(test_same_prompts_at_once),      cmocka_unit_test(test_clients_take_turns),
        cmocka_unit_test(test_large_ones_get_their_turn), cmocka_unit_test(test_cancelled_prompts),
        cmocka_unit_test(test_prefixes_that_fail),        cmocka_unit_test(test_anything_goes),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
