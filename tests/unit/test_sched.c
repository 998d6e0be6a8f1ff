/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler over a pipeline of our own that sends the wanted rows back as they came, keeps a page table
 * of its own, and can be told to misbehave.  Since no layer runs, each next token is a function of the last
 * one alone, known beforehand.
 */
#include "unit/sched_bed.h"
#include "unit/unit.h"

#include "coordinator/embed.h"
#include "coordinator/logprobs.h"
#include "coordinator/sched.h"
#include "engine/base/mem.h"
#include "engine/forward.h"
#include "engine/kv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_SEQS  10
#define N_SLOTS 3
#define MAX_LEN 64

/* -- the bench ------------------------------------------------------------------------------------------- */

struct item {
    struct seq seq;
    uint32_t n_prompt, n_tokens, n_want; /* tokens to make */
    uint32_t next_pos;
    bool keeps; /* is held when it has them */
    struct bench *b;
};

struct bench {
    struct fake fake;
    struct sched *sched;
    struct item items[N_SEQS];
};

/* Every other sequence asks for the best token only. */
static void want_best(struct seq *q, uint32_t pos, struct tern_head_want *out)
{
    assert_int_equal(pos, ((struct item *)q->user)->next_pos);
    out->k = 1;
}

static void on_logits(struct seq *q, uint32_t pos, const struct tern_head_row *row)
{
    struct item *t = q->user;
    struct logprob best;

    assert_int_equal(pos, t->next_pos);
    t->next_pos++;
    assert_int_equal(row->logits == NULL, q->want != NULL);
    if (row->logits) {
        logprobs_top(row->logits, env.arch.n_vocab, 0, 1, &best);
    } else {
        logprobs_top(row->values, row->n, 0, 1, &best);
        best.id = row->ids[best.id];
    }
    if (++t->n_tokens == t->n_want && t->keeps)
        q->held = true;
    else if (t->n_tokens == t->n_want)
        seq_finish(q);
    else
        seq_push(q, best.id);
}

/* Item i: a prompt of 1 + 5 i tokens and 3 + i to be made. */
static void item_init(struct bench *b, uint32_t i)
{
    struct item *t = &b->items[i];
    int32_t ids[MAX_LEN];

    memset(t, 0, sizeof *t);
    t->n_prompt = 1 + 5 * i;
    t->n_want = 3 + i;
    t->b = b;
    for (uint32_t k = 0; k < t->n_prompt; k++)
        ids[k] = (int32_t)((i * 97 + k * 31 + 5) % env.arch.n_vocab);
    assert_ok(seq_init(&t->seq, ids, t->n_prompt, MAX_LEN, &unit_err));
    t->next_pos = t->n_prompt - 1;
    t->seq.want = i % 2 ? want_best : NULL;
    t->seq.on_logits = on_logits;
    t->seq.user = t;
}

static struct bench *bench_new(uint32_t n_stages, uint32_t in_flight, uint32_t chunk)
{
    struct bench *b = calloc(1, sizeof *b);
    const struct sched_options so = { .head = env.head,
                                      .n_slots = N_SLOTS,
                                      .n_pages = N_SLOTS * MAX_LEN / TERN_PAGE,
                                      .max_positions = MAX_LEN,
                                      .chunk = chunk };

    assert_non_null(b);
    b->sched =
        open_sched(&b->fake, n_stages, in_flight, chunk + N_SLOTS, (struct fake_stage){ 10, 10, 0, 0 }, so);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        item_init(b, i);
        assert_ok(sched_add(b->sched, &b->items[i].seq, &unit_err));
        assert_int_equal(b->items[i].seq.state, SEQ_QUEUED);
    }
    return b;
}

static void bench_free(struct bench *b)
{
    close_sched(&b->fake, &b->sched);
    for (uint32_t i = 0; i < N_SEQS; i++)
        seq_fini(&b->items[i].seq);
    free(b);
}

static enum tern_status run(struct bench *b)
{
    enum tern_status st;

    do {
        tern_alloc_guard_begin("a turn under test");
        st = sched_turn(b->sched, 0, &unit_err);
        tern_alloc_guard_end();
        assert_int_not_equal(st, TERN_AGAIN); /* the pipeline always has the result of what is in flight */
    } while (st == TERN_OK);
    return st;
}

/* Every token follows from the one before it. */
static void check_item(const struct item *t)
{
    const struct seq *q = &t->seq;

    assert_int_equal(q->state, SEQ_ENDED);
    assert_false(q->failed);
    assert_int_equal(t->n_tokens, t->n_want);
    assert_int_equal(q->n_ids, t->n_prompt + t->n_want - 1);
    for (uint32_t i = t->n_prompt; i < q->n_ids; i++)
        assert_int_equal(q->ids[i], token_after(q->ids[i - 1]));
}

/* -- tests ----------------------------------------------------------------------------------------------- */

/* Goes on behind the first `len` ids with n others, for 4 tokens. */
static void go_on(struct item *t, uint32_t len, uint32_t n)
{
    const int32_t ids[] = { 9, 8, 7, 6, 5, 4, 3, 2, 1 };

    seq_rewind(&t->seq, len);
    seq_extend(&t->seq, ids, n);
    t->n_prompt = len + n;
    t->n_tokens = 0;
    t->n_want = 4;
    t->next_pos = t->n_prompt - 1;
}

/* A sequence that is held keeps its slot while others come and go, and goes on from where it was or from an
 * earlier position: the pipeline's tables check every one. */
static void test_going_on(void **state)
{
    (void)state;
    for (uint32_t stages = 1; stages <= 3; stages++) {
        struct bench *b = bench_new(stages, stages + 1, 3);
        struct item *t = &b->items[2];
        struct seq *q = &t->seq;
        uint64_t rows;
        uint32_t len;

        t->keeps = true;
        for (int turn = 0; turn < 4; turn++) {
            assert_int_equal(run(b), TERN_END);
            assert_int_equal(q->state, SEQ_LIVE);
            assert_int_equal(t->n_tokens, t->n_want);
            assert_int_equal(q->n_ids, t->n_prompt + t->n_want - 1);
            for (uint32_t i = t->n_prompt; i < q->n_ids; i++)
                assert_int_equal(q->ids[i], token_after(q->ids[i - 1]));
            assert_true(tern_kv_length(b->fake.kv, q->slot, q->gen, &len));
            assert_int_equal(len, q->n_ids);
            rows = sched_stats(b->sched)->rows;
            assert_int_equal(run(b), TERN_END); /* nothing more is sent of it */
            assert_int_equal(sched_stats(b->sched)->rows, rows);
            go_on(t, turn % 2 ? q->n_ids : q->n_ids - 5, turn ? 9 : 1);
        }
        q->held = true; /* in the middle of a prompt */
        assert_int_equal(run(b), TERN_END);
        assert_int_equal(t->n_tokens, 0);
        sched_forget(b->sched, q);
        assert_int_equal(run(b), TERN_END);
        bench_free(b);
    }
}

static void test_more_sequences_than_slots(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 64 }, stages[] = { 1, 2, 3 };

    (void)state;
    for (int c = 0; c < 3; c++)
        for (int s = 0; s < 3; s++) {
            struct bench *b = bench_new(stages[s], stages[s] + 1, chunks[c]);
            const struct sched_stats *st = sched_stats(b->sched);
            uint64_t rows = 0, home = 0;

            assert_int_equal(run(b), TERN_END);
            for (uint32_t i = 0; i < N_SEQS; i++) {
                check_item(&b->items[i]);
                rows += b->items[i].seq.n_ids;
                home += b->items[i].n_tokens;
            }
            assert_true(b->fake.max_chunk <= chunks[c]);
            assert_true(b->fake.most_line <= stages[s] + 1);
            if (chunks[c] == 1) /* one chunk need not wait for the other */
                assert_true(b->fake.most_line >= stages[s]);
            /* One-row chunks of prompts count as rows of decoding here, so only larger chunks tell. */
            if (chunks[c] == 64)
                assert_true(b->fake.max_decode <= (N_SLOTS + stages[s] - 1) / stages[s]);
            assert_true(st->rows == rows && st->rows_home == home && st->steps == b->fake.sent);
            assert_true(st->stages[0].compute_us == 10 * (st->steps + rows) &&
                        st->stages[0].bytes == 100 * st->steps);
            bench_free(b);
        }
}

static void test_a_failed_sequence_harms_no_other(void **state)
{
    (void)state;
    for (uint64_t at = 1; at < 20; at++) {
        struct bench *b = bench_new(2, 3, 7);
        uint32_t failed = 0;

        b->fake.fault = FAIL_SEQUENCE;
        b->fake.fault_step = at;
        b->fake.fault_slot = 1;
        b->fake.fault_gen = 1; /* the first to have slot 1: item 1, ended by step 20 or so */
        assert_int_equal(run(b), TERN_END);
        for (uint32_t i = 0; i < N_SEQS; i++) {
            if (b->items[i].seq.failed) {
                failed++;
                assert_int_equal(i, 1);
                assert_int_equal(b->items[i].seq.err.status, TERN_ERR_NUMERIC);
                assert_non_null(strstr(b->items[i].seq.err.text, "layer 3"));
            } else {
                check_item(&b->items[i]);
            }
        }
        assert_true(failed == 1 || at > 6);
        bench_free(b);
    }
}

static void test_rows_that_are_not_finite(void **state)
{
    uint32_t failed = 0;

    (void)state;
    for (uint64_t at = 1; at < 8; at++) {
        struct bench *b = bench_new(1, 2, 7);
        uint32_t here = 0;

        b->fake.fault = BAD_SCALE;
        b->fake.fault_step = at;
        assert_int_equal(run(b), TERN_END);
        for (uint32_t i = 0; i < N_SEQS; i++) {
            if (b->items[i].seq.failed) {
                assert_int_equal(b->items[i].seq.err.status, TERN_ERR_NUMERIC);
                here++;
            } else {
                check_item(&b->items[i]);
            }
        }
        assert_true(here <= 1);
        failed += here;
        bench_free(b);
    }
    assert_true(failed >= 5);
}

static void test_results_that_were_not_asked_for(void **state)
{
    static const enum fault faults[] = { WRONG_ROWS, WRONG_STEP, BREAK };
    static const enum tern_status want[] = { TERN_ERR_STATE, TERN_ERR_STATE, TERN_ERR_PEER };

    (void)state;
    for (int i = 0; i < 3; i++)
        for (uint64_t at = 1; at < 12; at += 5) {
            struct bench *b = bench_new(2, 3, 7);

            b->fake.fault = faults[i];
            b->fake.fault_step = at;
            assert_int_equal(run(b), want[i]);
            assert_true(strlen(unit_err.text) > 10);
            bench_free(b);
        }
}

static void test_more_times_than_stages(void **state)
{
    struct bench *b = bench_new(2, 3, 7);

    (void)state;
    b->fake.fault = TOO_MANY_TIMES;
    assert_int_equal(run(b), TERN_END);
    assert_true(sched_stats(b->sched)->stages[1].bytes > 0);
    assert_true(sched_stats(b->sched)->stages[2].bytes == 0);
    bench_free(b);
}

static void test_forgotten_and_cancelled(void **state)
{
    (void)state;
    for (uint32_t turns = 0; turns < 30; turns++) {
        struct bench *b = bench_new(3, 4, 7);
        enum tern_status st = TERN_OK;

        for (uint32_t i = 0; i < turns && !st; i++)
            st = sched_turn(b->sched, 0, &unit_err);
        if (b->items[2].seq.state != SEQ_ENDED) {
            sched_forget(b->sched, &b->items[2].seq);
            seq_fini(&b->items[2].seq); /* nobody may look at it any more */
            b->items[2].n_want = 0;
        }
        if (b->items[9].seq.state == SEQ_QUEUED || b->items[9].seq.state == SEQ_LIVE) {
            seq_finish(&b->items[9].seq);
            b->items[9].n_want = 0;
        }
        assert_int_equal(run(b), TERN_END);
        for (uint32_t i = 0; i < N_SEQS; i++)
            if (b->items[i].n_want)
                check_item(&b->items[i]);
        bench_free(b);
    }
}

/* What the pipeline of nothing makes of token id, behind the output norm. */
static void hidden_of(int32_t id, float *x)
{
    static uint8_t row[8192];

    tern_forward_embed(env.model, &id, 1, x);
    tern_boundary_encode(WIRE, &env.kern, x, env.arch.n_embd, row);
    assert_true(tern_boundary_decode(WIRE, &env.kern, row, env.arch.n_embd, x));
    tern_forward_norm(env.model, x, 1);
}

/* Vectors are made beside texts, and neither notices. */
static void test_embeddings_among_texts(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 64 };
    const int32_t ids[] = { 9, 200, 31, 9, 77, 3, 120, 54, 8, 61, 17 };
    const uint32_t n = sizeof ids / sizeof ids[0], d = env.arch.n_embd;
    float x[1024];

    (void)state;
    for (int c = 0; c < 3; c++) {
        struct bench *b = bench_new(2, 3, chunks[c]);
        struct embed e[4];
        double sum[1024] = { 0 };

        for (int k = 0; k < 4; k++) {
            assert_ok(embed_init(&e[k], ids, n, d, (enum tern_pooling)k, false, &env.kern, &unit_err));
            assert_ok(sched_add(b->sched, &e[k].seq, &unit_err));
        }
        assert_int_equal(run(b), TERN_END);
        for (uint32_t i = 0; i < N_SEQS; i++)
            check_item(&b->items[i]);
        assert_true(e[TERN_POOL_NONE].n_rows == n && e[TERN_POOL_MEAN].n_rows == 1);
        for (uint32_t i = 0; i < n; i++) {
            hidden_of(ids[i], x);
            assert_memory_equal(e[TERN_POOL_NONE].out + (size_t)i * d, x, d * sizeof *x);
            if (i == 0)
                assert_memory_equal(e[TERN_POOL_CLS].out, x, d * sizeof *x);
            for (uint32_t j = 0; j < d; j++)
                sum[j] += (double)x[j];
        }
        assert_memory_equal(e[TERN_POOL_LAST].out, x, d * sizeof *x);
        for (uint32_t j = 0; j < d; j++)
            assert_true(e[TERN_POOL_MEAN].out[j] == (float)(sum[j] / n));
        bench_free(b);
        for (int k = 0; k < 4; k++) {
            assert_true(e[k].seq.state == SEQ_ENDED && !e[k].seq.failed);
            embed_fini(&e[k]);
        }
    }
}

/* Whoever asks for many users gets no more turns for it: they divide his own.  The fourth is another's. */
static void test_users_divide_their_clients_turns(void **state)
{
    static const struct {
        uint64_t whom[4];
        uint32_t waits;
    } cases[] = { { { 7, 8, 9, 7 }, 2 }, { { 7, 7, 8, 7 }, 1 } };

    (void)state;
    for (uint32_t c = 0; c < 2; c++) {
        struct bench *b = bench_new(2, 4, 8);

        for (uint32_t i = 0; i < N_SEQS; i++) {
            if (i >= 4) {
                sched_forget(b->sched, &b->items[i].seq);
                continue;
            }
            b->items[i].seq.client = i < 3 ? 1 : 2;
            b->items[i].seq.whom = cases[c].whom[i];
        }
        assert_ok(sched_turn(b->sched, 0, &unit_err));
        for (uint32_t i = 0; i < 4; i++)
            assert_int_equal(b->items[i].seq.state, i == cases[c].waits ? SEQ_QUEUED : SEQ_LIVE);
        assert_int_equal(run(b), TERN_END);
        for (uint32_t i = 0; i < 4; i++)
            check_item(&b->items[i]);
        bench_free(b);
    }
}

static void test_what_never_fits(void **state)
{
    struct bench *b = bench_new(1, 2, 7);
    int32_t ids[MAX_LEN + 1] = { 0 };
    struct seq q;

    (void)state;
    assert_ok(seq_init(&q, ids, MAX_LEN + 1, MAX_LEN + 1, &unit_err));
    assert_int_equal(sched_add(b->sched, &q, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(q.state, SEQ_IDLE);
    q.max_len = MAX_LEN;
    assert_int_equal(sched_add(b->sched, &q, &unit_err), TERN_ERR_LIMIT);
    seq_fini(&q);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_sequences_than_slots),
        cmocka_unit_test(test_going_on),
        cmocka_unit_test(test_a_failed_sequence_harms_no_other),
        cmocka_unit_test(test_rows_that_are_not_finite),
        cmocka_unit_test(test_results_that_were_not_asked_for),
        cmocka_unit_test(test_more_times_than_stages),
        cmocka_unit_test(test_forgotten_and_cancelled),
        cmocka_unit_test(test_embeddings_among_texts),
        cmocka_unit_test(test_users_divide_their_clients_turns),
        cmocka_unit_test(test_what_never_fits),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
