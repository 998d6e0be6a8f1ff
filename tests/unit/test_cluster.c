/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator against workers that misbehave: a false worker in a thread of this program answers by the
 * book but for one thing, and the pipeline must either not care or break with a sentence that names the
 * worker and the fault.
 */
#include "unit/liar.h"
#include "unit/pipe_world.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* -- the coordinator ------------------------------------------------------------------------------------ */

static struct tern_key coordinator_key;

static int open_world(void **state)
{
    (void)state;
    world_begin(TERN_LOG_ERROR, TERN_CPU_REF, 1);
    assert_ok(tern_key_generate(&coordinator_key, &unit_err));
    return 0;
}

static int forget_world(void **state)
{
    tern_key_wipe(&coordinator_key);
    return close_world(state);
}

static void start_liar(struct liar *l, enum mode mode, struct cluster_spec *spec)
{
    memset(l, 0, sizeof *l);
    memset(spec, 0, sizeof *spec);
    l->mode = mode;
    l->arch = world.arch;
    l->row_bytes = (uint32_t)tern_boundary_row_bytes(TERN_BOUNDARY_INT8, world.arch.n_embd);
    snprintf(l->coordinator.name, sizeof l->coordinator.name, "tern");
    l->coordinator.role = TERN_ROLE_COORDINATOR;
    memcpy(l->coordinator.key, coordinator_key.public_key, TERN_KEY_BYTES);
    assert_ok(tern_key_generate(&l->key, &unit_err));
    assert_ok(tern_arena_init(&l->arena, TERN_WIRE_ARENA_BYTES, "messages", &unit_err));
    find_port(l);
    spec->n = 1;
    snprintf(spec->members[0].name, sizeof spec->members[0].name, "liar");
    memcpy(spec->members[0].endpoint, l->endpoint, sizeof l->endpoint);
    memcpy(spec->members[0].key, l->key.public_key, TERN_KEY_BYTES);
    assert_int_equal(pthread_create(&l->thread, NULL, liar_main, l), 0);
}

static void stop_liar(struct liar *l)
{
    atomic_store(&l->stop, true);
    pthread_join(l->thread, NULL);
    tern_arena_fini(&l->arena);
    tern_key_wipe(&l->key);
}

static enum tern_status open_pipe(const struct cluster_spec *spec, struct pipe **p, struct tern_err *err)
{
    struct pipe_options o = {
        .gguf = world.gguf,
        .arch = &world.arch,
        .kern = &world.kern,
        .pool = world.pool,
        .boundary = TERN_BOUNDARY_INT8,
        .n_pages = 4,
        .n_slots = 2,
        .max_positions = 64,
        .max_rows = 8,
        .dead_after_ms = 800,
        .step_timeout_ms = 1600,
        .join_timeout_ms = 1500,
        .quiet = true,
    };

    return pipe_remote_open(&o, spec, &coordinator_key, p, err);
}

/* A pipe over a liar that joins by the book. */
struct scene {
    struct liar l;
    struct cluster_spec spec;
    struct pipe *p;
};

static void begin(struct scene *s, enum mode mode)
{
    start_liar(&s->l, mode, &s->spec);
    s->p = NULL;
    assert_ok(open_pipe(&s->spec, &s->p, &unit_err));
}

static void end(struct scene *s)
{
    s->p->close(s->p);
    stop_liar(&s->l);
}

/* Three rows, two of them wanted. */
static enum tern_status one_step(struct pipe *p, struct tern_step **out, struct tern_err *err)
{
    struct tern_step *s = p->take(p);
    enum tern_status st;

    assert_non_null(s);
    s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .slot = 0, .gen = 1 };
    s->runs[s->n_runs++] = (struct tern_run){ .slot = 0, .gen = 1, .pos = 0, .n = 3, .n_want = 2 };
    s->n_rows = 3;
    memset(s->payload, 0, (size_t)3 * s->row_bytes);
    st = p->send(p, s, err);
    return st ? st : p->recv(p, 30000, out, err);
}

static void expect_words(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (!strstr(text, *words))
            fail_msg("'%s' is missing in: %s", *words, text);
}

#define WORDS(...)                                                                                           \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        "worker liar (tcp://127.0.0.1:", __VA_ARGS__, NULL                                                   \
    }

/* What a liar does, and what the pipe must say of it. */
struct lie {
    enum mode mode;
    enum tern_status status;
    const char *const *words;
};

static void test_joining(void **state)
{
    const struct lie cases[] = {
        { NO_WELCOME, TERN_ERR_PEER, WORDS("did not answer hello within 1.5 s") },
        { BUSY, TERN_ERR_BUSY, WORDS("busy", "'alice'") },
        { NO_MODEL, TERN_ERR_USAGE, WORDS("has no model file", "--model") },
        { OTHER_ARCH, TERN_ERR_USAGE, WORDS("another model", "fable.gguf") },
        { FEW_LAYERS, TERN_ERR_USAGE, WORDS("cannot hold its layers") },
        { SILENT_LOADING, TERN_ERR_PEER, WORDS("has been silent for ") },
        { FAULT_LOADING, TERN_ERR_MEMORY, WORDS("the dog ate it") },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct liar l;
        struct cluster_spec spec;
        struct pipe *p = NULL;
        struct tern_err err = { 0 };

        start_liar(&l, cases[i].mode, &spec);
        assert_int_equal(open_pipe(&spec, &p, &err), cases[i].status);
        assert_null(p);
        expect_words(err.text, cases[i].words);
        stop_liar(&l);
    }
}

static void test_what_is_tolerated(void **state)
{
    static const enum mode modes[] = { GOOD, BUSY_TWICE, LATE, OTHER_EPOCH };

    (void)state;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct scene c;
        struct tern_step *s = NULL;

        begin(&c, modes[i]);
        assert_int_equal(c.p->stages[0].threads, 3);
        assert_int_equal(c.p->stages[0].weight_bytes, 123);
        assert_string_equal(c.p->stages[0].cpu, "ref");
        assert_ok(one_step(c.p, &s, &unit_err));
        assert_int_equal(s->n_rows, 2);
        assert_int_equal(s->n_runs, 1);
        assert_int_equal(s->n_ops, 1);
        assert_true(s->bytes_in > 2 * c.p->row_bytes);
        c.p->give(c.p, s);
        end(&c);
    }
}

static void test_running(void **state)
{
    const struct lie cases[] = {
        { WRONG_ROWS, TERN_ERR_FORMAT, WORDS("came back with 1 rows, 2 were wanted") },
        { WRONG_STEP, TERN_ERR_STATE, WORDS("result of step 2, but another step is due") },
        { WRONG_LAYOUT, TERN_ERR_STATE, WORDS("another layout") },
        { SHORT_PAYLOAD, TERN_ERR_FORMAT, WORDS("broke the protocol") },
        { NO_TIMES, TERN_ERR_FORMAT, WORDS("0 stage times for 1 stages") },
        { STRANGE_FAILURE, TERN_ERR_FORMAT, WORDS("failure of a sequence that was not in it") },
        { GARBAGE, TERN_ERR_FORMAT, WORDS("cannot be understood") },
        { UNKNOWN_FIELD, TERN_ERR_FORMAT, WORDS("cannot be understood", "no field 31") },
        { OTHER_VERSION, TERN_ERR_FORMAT, WORDS("cannot be understood", "version") },
        { A_STEP, TERN_ERR_STATE, WORDS("'step', which is not legal now") },
        { FUTURE_PONG, TERN_ERR_STATE, WORDS("a ping that was never sent") },
        { PONG_WITH_PAYLOAD, TERN_ERR_STATE, WORDS("'pong' with a payload") },
        { READY_TWICE, TERN_ERR_STATE, WORDS("'ready', which is not legal now") },
        { SILENT, TERN_ERR_PEER, WORDS("has been silent for ") },
        { STUCK, TERN_ERR_PEER, WORDS("answers but has not finished step 1 for ", "--step-timeout") },
        { BOASTS, TERN_ERR_PEER, WORDS("says that step 1 is done but has not sent its result for ") },
        { NO_RESULT, TERN_ERR_PEER, WORDS("says that step 1 is done but has not sent its result for ") },
        { LEAVES_SLOW, TERN_ERR_PEER, WORDS("is leaving: its ternd was told to end") },
        { BYE, TERN_ERR_PEER, WORDS("is leaving") },
        { FAULT, TERN_ERR_MEMORY, WORDS("the dog ate it") },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scene c;
        struct tern_step *s = NULL;
        struct tern_err err = { 0 };
        enum tern_status st;

        begin(&c, cases[i].mode);
        st = one_step(c.p, &s, &err);
        if (st != cases[i].status)
            fail_msg("case %zu gave %s: %s", i, tern_status_name(st), err.text);
        expect_words(err.text, cases[i].words);
        end(&c);
    }
}

/* What is on its way comes home whole; then it is over: by a second copy of a result, or since the worker
 * leaves, and nothing new leaves in between. */
static void test_after_a_step(void **state)
{
    const struct lie cases[] = {
        { RESULT_TWICE, TERN_ERR_STATE, WORDS("no step is on its way") },
        { LEAVES, TERN_ERR_PEER, WORDS("is leaving: its ternd was told to end") },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scene c;
        struct tern_step *s = NULL;
        struct tern_err err = { 0 };

        begin(&c, cases[i].mode);
        assert_ok(one_step(c.p, &s, &unit_err));
        c.p->give(c.p, s);
        assert_int_equal(c.p->recv(c.p, 30000, &s, &err), cases[i].status);
        expect_words(err.text, cases[i].words);
        end(&c);
    }
}

/* Whatever a worker says of its clock, times stay between sending and coming home. */
static void test_clocks_of_liars(void **state)
{
    struct pipe_stage_live live;
    struct scene c;
    struct tern_step *s = NULL;
    uint64_t sent = tern_now_ns() / 1000;

    (void)state;
    begin(&c, BAD_CLOCK);
    c.p->live(c.p, 0, &live);
    assert_string_equal(live.endpoint, c.l.endpoint);
    for (int i = 0; i < 600 && live.round_trip_us == 0; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
        c.p->live(c.p, 0, &live);
    }
    assert_true(live.round_trip_us > 0 && live.clock_within_us > 0);
    assert_int_equal(live.memory_bytes, UINT64_MAX);
    assert_false(live.suspect);
    assert_ok(one_step(c.p, &s, &unit_err));
    assert_true(s->times[0].t_in_us >= sent && s->times[0].t_in_us <= tern_now_ns() / 1000);
    c.p->give(c.p, s);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joining),         cmocka_unit_test(test_what_is_tolerated),
        cmocka_unit_test(test_running),         cmocka_unit_test(test_after_a_step),
        cmocka_unit_test(test_clocks_of_liars),
    };

    return cmocka_run_group_tests_name("cluster", tests, open_world, forget_world);
}
