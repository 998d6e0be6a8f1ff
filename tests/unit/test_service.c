/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service in company: whoever asks, and however many do, each gets what he would get alone, to the bit; and
 * what was cancelled, refused or never read leaves nothing behind.
 */
#include "unit/unit.h"

#include "unit/service_bed.h"

#include "engine/base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_THREADS 16
/* Requests of each thread, answered and cancelled at once. */
#if defined(__SANITIZE_THREAD__)
#define N_EACH    2
#define N_REGRETS 100
#elif defined(__SANITIZE_ADDRESS__)
#define N_EACH    6
#define N_REGRETS 400
#else
#define N_EACH    40
#define N_REGRETS 1000
#endif

static struct answer known[BED_KINDS];

struct client {
    pthread_t thread;
    uint64_t random;
    uint32_t n_cancelled, n_refused, n_same;
    const char *wrong;
    uint32_t wrong_kind;
};

/* Waits for some of the answer and goes. */
static void leave_early(struct client *c, struct job **j)
{
    struct job_state state;

    if (unit_random(&c->random) % 2)
        usleep((unsigned)(unit_random(&c->random) % 20000));
    else
        job_wait(*j, (int)(unit_random(&c->random) % 50), &state);
    if (unit_random(&c->random) % 2)
        job_cancel(*j);
    job_free(j);
    c->n_cancelled++;
}

static void *client_main(void *user)
{
    struct client *c = user;

    for (uint32_t k = 0; k < N_EACH && !c->wrong; k++) {
        const uint32_t kind = (uint32_t)(unit_random(&c->random) % BED_KINDS);
        int32_t ids[BED_CTX];
        struct job_request r;
        struct answer a;
        struct tern_err err;
        struct job *j;

        bed_make_request(kind, ids, &r);
        r.at_end = unit_random(&c->random) % 2 == 0;
        while (service_submit(bed_service, &r, &j, &err) == TERN_ERR_BUSY) {
            c->n_refused++;
            usleep(5000);
        }
        if (unit_random(&c->random) % 4 == 0) {
            leave_early(c, &j);
            continue;
        }
        bed_read_all(j, &r, unit_random(&c->random) % 4 ? 0 : 3000, &a);
        job_free(&j);
        c->wrong = bed_difference(&a, &known[kind]);
        c->wrong_kind = kind;
        c->n_same++;
        bed_answer_free(&a);
    }
    return NULL;
}

/* N_THREADS clients at a service that is open. */
static void keep_company(void)
{
    struct client clients[N_THREADS] = { { 0 } };
    uint32_t same = 0, refused = 0;

    for (uint32_t i = 0; i < N_THREADS; i++) {
        clients[i].random = 88172645463325252u + i * 1000003u;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++)
        pthread_join(clients[i].thread, NULL);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        if (clients[i].wrong)
            fail_msg("request of kind %u: %s is another in company", (unsigned)clients[i].wrong_kind,
                     clients[i].wrong);
        same += clients[i].n_same;
        refused += clients[i].n_refused;
    }
    assert_true(same > N_THREADS * N_EACH / 2);
    assert_true(refused > 0);
    bed_check_idle();
    service_close(&bed_service);
}

/* Alone in this process, in company here, and in company on workers. */
static void test_company(void **state)
{
    (void)state;
    bed_open_service(5, 6);
    bed_make_grammars();
    for (uint32_t i = 0; i < BED_KINDS; i++) {
        bed_ask_alone(i, &known[i]);
        assert_int_not_equal(known[i].state.end, GENERATE_ERROR);
    }
    assert_true(known[10].state.shifted);
    assert_true(known[12].n_text > 4 && memcmp(known[12].text, "The ", 4) == 0);
    assert_true(known[13].n_text > 0 && known[13].text[0] == '{');
    assert_int_equal(known[10].state.n_tokens, 2 * BED_CTX);
    bed_check_idle();
    keep_company();
    bed_free_grammars();
    bed_engine.local = 3;
    bed_open_service(8, 4);
    bed_make_grammars();
    keep_company();
    bed_free_grammars();
    bed_engine.local = 0;
    for (uint32_t i = 0; i < BED_KINDS; i++)
        bed_answer_free(&known[i]);
}

/* What follows a shift is what follows the shortened text, asked for by itself. */
static void test_shift(void **state)
{
    int32_t ids[BED_CTX + 8];
    const uint32_t n_keep = 4, n_more = 10;
    uint32_t n, n_drop;
    struct job_request r = { 0 };
    struct answer a, b;
    struct job *j;

    (void)state;
    bed_open_service(2, 2);
    n = bed_encode("Once upon a time there was a fox", ids, BED_CTX);
    r.ids = ids;
    r.n_ids = n;
    sample_options_default(&r.gen.sample);
    r.gen.sample.temperature = 0;
    r.gen.n_logprobs = 2;
    r.gen.ignore_eos = true;
    r.gen.n_predict = BED_CTX - n + 1 + n_more;
    r.shift = true;
    r.n_keep = n_keep;
    assert_ok(service_submit(bed_service, &r, &j, &unit_err));
    bed_read_all(j, &r, 0, &a);
    job_free(&j);
    assert_int_equal(a.state.end, GENERATE_LENGTH);
    assert_true(a.state.shifted);
    /* The text so far: BED_CTX ids, and the one behind them that found no room. */
    for (uint32_t i = 0; i <= BED_CTX - n; i++)
        ids[n + i] = a.tokens[i].id;
    n_drop = (BED_CTX - n_keep) / 2;
    memmove(ids + n_keep, ids + n_keep + n_drop, (BED_CTX + 1 - n_keep - n_drop) * sizeof *ids);
    r.n_ids = BED_CTX + 1 - n_drop;
    r.shift = false;
    r.gen.n_predict = n_more;
    assert_ok(service_submit(bed_service, &r, &j, &unit_err));
    bed_read_all(j, &r, 0, &b);
    job_free(&j);
    assert_int_equal(b.n_tokens, n_more);
    for (uint32_t i = 0; i < n_more; i++) {
        assert_int_equal(b.tokens[i].id, a.tokens[BED_CTX - n + 1 + i].id);
        assert_memory_equal(&b.tokens[i].logprob, &a.tokens[BED_CTX - n + 1 + i].logprob, sizeof(double));
    }
    bed_answer_free(&a);
    bed_answer_free(&b);
    /* Without it the answer ends. */
    r.n_ids = n = bed_encode("Once upon a time there was a fox", ids, BED_CTX);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(bed_service, &r, &j, &unit_err));
    bed_read_all(j, &r, 0, &a);
    job_free(&j);
    assert_int_equal(a.state.end, GENERATE_CONTEXT);
    assert_int_equal(a.n_tokens, BED_CTX - n + 1);
    bed_answer_free(&a);
    bed_check_idle();
    service_close(&bed_service);
}

/* More than fits is refused at once, what waits is served, what can never run is told so. */
static void test_refused(void **state)
{
    struct job *jobs[3];
    int32_t ids[BED_CTX + 1], first[BED_CTX];
    struct job_request r, bad;
    struct answer a;
    struct job *j = NULL;

    (void)state;
    bed_open_service(1, 2);
    bed_make_request(10, first, &r);
    r.gen.n_predict = UINT32_MAX; /* with shift: the first one never ends, the others wait behind it */
    assert_ok(service_submit(bed_service, &r, &jobs[0], &unit_err));
    bed_make_request(2, ids, &r);
    r.gen.n_predict = 60;
    for (uint32_t i = 1; i < 3; i++)
        assert_ok(service_submit(bed_service, &r, &jobs[i], &unit_err));
    assert_int_equal(service_submit(bed_service, &r, &j, &unit_err), TERN_ERR_BUSY);
    assert_null(j);
    job_free(&jobs[1]);
    job_free(&jobs[0]);
    bed_read_all(jobs[2], &r, 0, &a);
    assert_int_equal(a.state.end, GENERATE_LENGTH);
    assert_true(a.state.queue_ms > 0 && a.state.prompt_ms > 0 && a.state.answer_ms > 0);
    bed_answer_free(&a);
    job_free(&jobs[2]);
    bad = r;
    bad.n_ids = BED_CTX + 1;
    for (uint32_t i = 0; i <= BED_CTX; i++)
        ids[i] = 1;
    assert_int_equal(service_submit(bed_service, &bad, &j, &unit_err), TERN_ERR_LIMIT);
    bad.n_ids = 0;
    assert_int_equal(service_submit(bed_service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    bad.n_ids = 1;
    ids[0] = (int32_t)service_session(bed_service)->arch.n_vocab;
    assert_int_equal(service_submit(bed_service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    ids[0] = -1;
    assert_int_equal(service_submit(bed_service, &bad, &j, &unit_err), TERN_ERR_USAGE);
    assert_null(j);
    bed_check_idle();
    service_close(&bed_service);
}

/* A cancelled answer stops where it is, also one that waits. */
static void test_cancel(void **state)
{
    struct job *running, *waiting;
    struct job_state st;
    int32_t ids[BED_CTX];
    struct job_request r;
    struct snapshot *s = calloc(1, sizeof *s);
    uint64_t t0;

    (void)state;
    assert_non_null(s);
    bed_open_service(1, 4);
    bed_make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX; /* with shift: it never ends */
    assert_ok(service_submit(bed_service, &r, &running, &unit_err));
    assert_ok(service_submit(bed_service, &r, &waiting, &unit_err));
    job_wait(running, BED_PATIENCE, &st);
    assert_false(st.ended);
    job_wait(waiting, 0, &st);
    assert_false(st.started);
    t0 = tern_now_ms();
    job_cancel(waiting);
    job_cancel(running);
    bed_drop_all(running, &st);
    assert_int_equal(st.end, GENERATE_INTERRUPTED);
    job_wait(waiting, BED_PATIENCE, &st);
    assert_true(st.ended && st.end == GENERATE_INTERRUPTED && !st.started);
    assert_true(tern_now_ms() - t0 < 30000);
    job_free(&running);
    job_free(&waiting);
    bed_check_idle();
    service_snapshot(bed_service, s);
    assert_int_equal(s->jobs, 2);
    assert_int_equal(s->jobs_cancelled, 2);
    free(s);
    service_close(&bed_service);
}

static void *regret_main(void *user)
{
    int32_t ids[BED_CTX];
    struct job_request r;

    (void)user;
    bed_make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX;
    for (uint32_t k = 0; k < N_REGRETS; k++) {
        struct tern_err err;
        struct job *j;

        while (service_submit(bed_service, &r, &j, &err))
            usleep(200);
        job_free(&j);
    }
    return NULL;
}

/* Those cancelled at once, whether the driver has heard of them already or not: none of them may go on, and
 * none would end by itself. */
static void test_regrets(void **state)
{
    pthread_t threads[4];

    (void)state;
    bed_open_service(2, 64);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, regret_main, NULL), 0);
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    bed_check_idle();
    service_close(&bed_service);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_cancel),  cmocka_unit_test(test_regrets),
        cmocka_unit_test(test_shift),   cmocka_unit_test(test_company),
    };

    return cmocka_run_group_tests(tests, bed_set_up, NULL);
}
