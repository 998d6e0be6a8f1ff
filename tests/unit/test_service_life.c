/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service tells of itself, and how it survives the death of a worker.
 */
#include "unit/unit.h"

#include "unit/service_bed.h"

#include "coordinator/serve/snapshot_json.h"

#include <dirent.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The picture as JSON, with the steps behind one. */
static void check_json(uint64_t since)
{
    static const char *const keys[] = { "version", "uptime_s",    "now_us",  "ready", "why",
                                        "model",   "coordinator", "stages",  "hops",  "scheduler",
                                        "rates",   "totals",      "latency", "slots" };
    char *text = NULL;
    size_t len = 0;
    json_t *o, *steps;

    assert_ok(snapshot_json(bed_service, true, since, &text, &len, &unit_err));
    assert_int_equal(strlen(text), len);
    assert_null(strchr(text, '\n'));
    o = json_loads(text, 0, NULL);
    assert_non_null(o);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_non_null(json_object_get(o, keys[i]));
    assert_int_equal(json_array_size(json_object_get(o, "stages")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "hops")), 2);
    assert_true(json_is_null(json_object_get(o, "why")));
    steps = json_object_get(o, "steps");
    assert_true(json_array_size(steps) >= 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(steps, 0), "n")), since + 1);
    json_decref(o);
    free(text);
    assert_ok(snapshot_json(bed_service, false, 0, &text, &len, &unit_err));
    assert_null(strstr(text, "\"steps\":["));
    free(text);
}

/* What is told of a service that is at work. */
static void test_snapshot(void **state)
{
    struct snapshot *s = calloc(1, sizeof *s);
    struct snapshot_step *steps = calloc(2000, sizeof *steps);
    struct snapshot_slot slots[4];
    struct job_request r;
    struct job_state st;
    int32_t ids[BED_CTX];
    struct job *j;
    uint32_t n;

    (void)state;
    assert_non_null(s);
    assert_non_null(steps);
    bed_open_service(2, 2);
    bed_make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(bed_service, &r, &j, &unit_err));
    for (uint32_t i = 0; i < 20; i++) {
        struct job_piece p;

        job_wait(j, BED_PATIENCE, &st);
        job_take(j, &p);
        job_piece_free(&p);
    }
    n = service_slots(bed_service, slots, 4);
    assert_int_equal(n, 1);
    assert_int_equal(slots[0].job, 1);
    assert_int_equal(slots[0].n_prompt, r.n_ids);
    assert_int_equal(slots[0].n_prompt_done, r.n_ids);
    assert_true(slots[0].n_tokens > 1 && !slots[0].prompting);
    service_snapshot(bed_service, s);
    assert_true(s->ready);
    assert_int_equal(s->n_stages, 1);
    assert_int_equal(s->n_running, 1);
    assert_int_equal(s->n_waiting, 0);
    assert_true(s->steps > 1 && s->answer_tokens > 1 && s->answer_per_s > 0);
    assert_int_equal(s->prompt_tokens, r.n_ids);
    assert_true(s->stages[0].ms_per_step > 0 && s->stages[0].idle_share >= 0);
    assert_true(s->first_token.n == 1 && s->first_token_last.p50_us > 0);
    assert_true(s->between_tokens.n > 0 && s->between_tokens_last.p99_us >= s->between_tokens_last.p50_us);
    n = service_traces(bed_service, 0, steps, 2000);
    assert_true(n > 1);
    for (uint32_t i = 1; i < n; i++)
        assert_int_equal(steps[i].number, steps[i - 1].number + 1);
    assert_int_equal(service_traces(bed_service, steps[n - 1].number - 1, steps, 1), 1);
    job_free(&j);
    bed_check_idle();
    check_json(steps[n - 2].number);
    free(steps);
    free(s);
    service_close(&bed_service);
}

/* Processes that are ours: pids [cap], how many. */
static uint32_t children(pid_t *pids, uint32_t cap)
{
    char path[64], line[256];
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        FILE *f;
        int pid;

        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/children", e->d_name);
        if (e->d_name[0] == '.' || (f = fopen(path, "r")) == NULL)
            continue;
        if (fgets(line, sizeof line, f))
            for (char *at = line; n < cap && sscanf(at, "%d", &pid) == 1; at = strchr(at, ' ') + 1)
                pids[n++] = pid;
        fclose(f);
    }
    closedir(d);
    return n;
}

/* Until there is a pipeline again, nothing is taken; unless there is one already. */
static void check_refused(const struct job_request *r)
{
    struct snapshot *s = calloc(1, sizeof *s);
    struct job *j = NULL;
    enum tern_status st = service_submit(bed_service, r, &j, &unit_err);

    assert_non_null(s);
    service_snapshot(bed_service, s);
    if (st == TERN_OK) {
        assert_int_equal(s->reopened, 1);
        job_free(&j);
    } else {
        assert_int_equal(st, TERN_ERR_PEER);
        assert_true(s->reopened == 1 || (!s->ready && strstr(s->why, "w")));
    }
    free(s);
}

/* A worker dies: the jobs of that moment fail, naming it, and a little later there is a pipeline again that
 * says the same. */
static void test_broken(void **state)
{
    struct snapshot *s = calloc(1, sizeof *s);
    struct job *running, *waiting;
    struct job_request r;
    struct answer before, after;
    struct job_state st;
    int32_t ids[BED_CTX];
    pid_t pids[8];

    (void)state;
    assert_non_null(s);
    bed_engine.local = 2;
    bed_open_service(1, 4);
    bed_ask_alone(3, &before);
    assert_int_equal(before.state.end, GENERATE_LENGTH);
    bed_make_request(10, ids, &r);
    r.gen.n_predict = UINT32_MAX;
    assert_ok(service_submit(bed_service, &r, &running, &unit_err));
    assert_ok(service_submit(bed_service, &r, &waiting, &unit_err));
    job_wait(running, BED_PATIENCE, &st);
    assert_int_equal(children(pids, 8), 2);
    assert_int_equal(kill(pids[0], SIGKILL), 0);
    bed_drop_all(running, &st);
    assert_int_equal(st.end, GENERATE_ERROR);
    assert_true(st.err.status == TERN_ERR_PEER && (strstr(st.err.text, "w1") || strstr(st.err.text, "w2")));
    job_wait(waiting, BED_PATIENCE, &st);
    assert_true(st.ended && st.end == GENERATE_ERROR);
    job_free(&running);
    job_free(&waiting);
    check_refused(&r);
    for (int i = 0; i < 6000 && !service_ready(bed_service, NULL); i++)
        usleep(10000);
    bed_ask_alone(3, &after);
    assert_null(bed_difference(&before, &after));
    assert_int_equal(children(pids, 8), 2);
    /* Clocks are compared by heartbeats, which come by and by. */
    for (int i = 0; i < 500; i++) {
        service_snapshot(bed_service, s);
        if (s->hops[1].n)
            break;
        bed_answer_free(&after);
        bed_ask_alone(3, &after);
    }
    assert_true(s->ready);
    assert_int_equal(s->reopened, 1);
    assert_int_equal(s->jobs_failed, 2);
    assert_true(s->steps > s->sched.steps && s->sched.steps > 0);
    assert_int_equal(s->n_stages, 2);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(s->hops[i].bytes > 0 && s->hops[i].n > 0);
        assert_true(s->hops[i].p99_us >= s->hops[i].p50_us);
    }
    assert_true(s->stages[1].live.memory_bytes > 0 && *s->stages[1].live.endpoint);
    bed_check_idle();
    service_close(&bed_service);
    assert_int_equal(children(pids, 8), 0);
    bed_engine.local = 0;
    bed_answer_free(&before);
    bed_answer_free(&after);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, bed_set_up, NULL);
}
