/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several jobs of one request with a service that is only played: queues that are full, jobs that fail, and
 * requests that are given up.
 */
#include "unit/unit.h"

#include "coordinator/serve/api_batch.h"
#include "coordinator/serve/service.h"

#include <stdlib.h>
#include <string.h>

/* -- the played service ---------------------------------------------------------------------------------- */

struct job {
    uint32_t number; /* filled into n_ids */
    uint32_t looks;  /* until it ends */
    bool taken;
};

static struct {
    uint32_t room, submitted, freed, refused, live, most_live;
    enum tern_status why; /* when there is no room */
    bool no_memory;
} played;

enum tern_status service_submit(struct service *s, const struct job_request *r, struct job **out,
                                struct tern_err *err)
{
    struct job *j;

    (void)s;
    if (played.live == played.room)
        return TERN_FAIL(err, played.why, "there is no room");
    j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->number = r->n_ids;
    j->looks = 1 + r->n_ids % 3;
    *out = j;
    played.submitted++;
    played.live++;
    played.most_live = played.live > played.most_live ? played.live : played.most_live;
    return TERN_OK;
}

void service_count_refused(struct service *s)
{
    (void)s;
    played.refused++;
}

void job_wait(struct job *j, int timeout_ms, struct job_state *out)
{
    (void)timeout_ms;
    memset(out, 0, sizeof *out);
    j->looks -= j->looks > 0;
    out->ended = j->looks == 0;
    out->end = out->ended ? GENERATE_STOP : GENERATE_RUNNING;
    out->n_prompt = j->number;
}

void job_take(struct job *j, struct job_piece *out)
{
    memset(out, 0, sizeof *out);
    out->failed = played.no_memory;
    if (j->taken || out->failed)
        return;
    out->text = strdup("x");
    out->n_text = 1;
    j->taken = true;
}

void job_piece_free(struct job_piece *p)
{
    free(p->text);
    memset(p, 0, sizeof *p);
}

void job_free(struct job **j)
{
    free(*j);
    *j = NULL;
    played.freed++;
    played.live--;
}

/* -- what a request sees --------------------------------------------------------------------------------- */

static uint32_t pieces[64], waits[64], ends[64];

static void fill(void *user, uint32_t i, struct job_request *out)
{
    assert_ptr_equal(user, pieces);
    out->n_ids = 100 + i;
}

static void piece(void *user, uint32_t i, const struct job_piece *p, const struct job_state *s)
{
    assert_ptr_equal(user, pieces);
    assert_int_equal(s->n_prompt, 100 + i);
    assert_int_equal(ends[i], 0);
    pieces[i] += (uint32_t)p->n_text;
}

static void waiting(void *user, uint32_t i, const struct job_state *s)
{
    assert_ptr_equal(user, pieces);
    assert_true(!s->ended && s->n_prompt == 100 + i);
    waits[i]++;
}

static void ended(void *user, uint32_t i, const struct job_state *s)
{
    assert_ptr_equal(user, pieces);
    assert_true(s->ended);
    ends[i]++;
}

static const struct api_batch_calls calls = { fill, piece, waiting, ended };
static struct api_batch b;
static struct api_fault fault;

static enum tern_status begin(uint32_t n, uint32_t room)
{
    memset(&played, 0, sizeof played);
    memset(pieces, 0, sizeof pieces);
    memset(waits, 0, sizeof waits);
    memset(ends, 0, sizeof ends);
    memset(&fault, 0, sizeof fault);
    played.room = room;
    played.why = TERN_ERR_BUSY;
    return api_batch_begin(&b, NULL, n, &calls, pieces, &fault);
}

static void check_all(uint32_t n, uint32_t room)
{
    enum tern_status st;
    unsigned turns = 0;

    assert_int_equal(begin(n, room), TERN_OK);
    while ((st = api_batch_turn(&b, 100, &fault)) == TERN_OK)
        assert_true(++turns < 1000);
    assert_int_equal(st, TERN_END);
    for (uint32_t i = 0; i < n; i++) /* all has come with the first look; the end may be some later */
        assert_true(pieces[i] == 1 && waits[i] == (100 + i) % 3 - ((100 + i) % 3 > 0) && ends[i] == 1);
    assert_int_equal(played.submitted, n);
    assert_int_equal(played.freed, n);
    assert_true(played.most_live <= room && played.most_live <= API_WINDOW);
    assert_int_equal(played.refused, 0);
    api_batch_end(&b);
    assert_int_equal(played.freed, n);
}

static void test_all(void **state)
{
    (void)state;
    check_all(1, 100);
    check_all(7, 100);
    check_all(40, 100); /* no more than a window at a time */
    check_all(40, 3);   /* nor than there is room for */
    check_all(40, 1);
}

static void test_full(void **state)
{
    (void)state;
    assert_int_equal(begin(3, 0), TERN_ERR_BUSY);
    assert_int_equal(fault.http, 503);
    assert_true(fault.retry_after_s > 0);
    assert_int_equal(played.refused, 1);
    api_batch_end(&b);
    /* Others take the room that ours have left: what has been done is not thrown away. */
    assert_int_equal(begin(6, 2), TERN_OK);
    while (played.live > 0) {
        played.room = played.live;
        assert_int_equal(api_batch_turn(&b, 0, &fault), TERN_OK);
    }
    played.room = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(api_batch_turn(&b, 1, &fault), TERN_OK);
    assert_int_equal(played.submitted, 2);
    played.room = 2;
    while (b.n_ended < 6)
        assert_true(api_batch_turn(&b, 0, &fault) < TERN_ERR_USAGE);
    api_batch_end(&b);
    assert_int_equal(played.freed, 6);
    assert_int_equal(played.refused, 0);
}

static void test_broken(void **state)
{
    (void)state;
    assert_int_equal(begin(6, 2), TERN_OK);
    played.why = TERN_ERR_PEER; /* while some are under way */
    assert_int_equal(api_batch_turn(&b, 0, &fault), TERN_ERR_PEER);
    assert_int_equal(fault.http, 503);
    assert_int_equal(played.live, 2);
    api_batch_end(&b); /* gives them up */
    assert_int_equal(played.live, 0);
    assert_int_equal(begin(2, 2), TERN_OK);
    played.no_memory = true;
    assert_int_equal(api_batch_turn(&b, 0, &fault), TERN_ERR_MEMORY);
    api_batch_end(&b);
    assert_int_equal(played.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
