/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator against workers that misbehave: a false worker in a thread of this program answers by the
 * book but for one thing, and the pipeline must either not care or break with a sentence that names the
 * worker and the fault.
 */
#include "coordinator/pipe.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "proto/link.h"
#include "proto/wire.h"
#include "unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

enum mode {
    GOOD,
    /* while joining */
    NO_WELCOME,
    BUSY,
    BUSY_TWICE,
    NO_MODEL,
    OTHER_ARCH,
    FEW_LAYERS,
    SILENT_LOADING,
    FAULT_LOADING,
    LATE,
    /* while running */
    WRONG_ROWS,
    WRONG_STEP,
    WRONG_LAYOUT,
    SHORT_PAYLOAD,
    NO_TIMES,
    STRANGE_FAILURE,
    RESULT_TWICE,
    GARBAGE,
    UNKNOWN_FIELD,
    OTHER_VERSION,
    OTHER_EPOCH,
    A_STEP,
    FUTURE_PONG,
    PONG_WITH_PAYLOAD,
    READY_TWICE,
    SILENT,
    BYE,
    FAULT,
};

/* -- the false worker ----------------------------------------------------------------------------------- */

struct liar {
    enum mode mode;
    struct tern_key key;
    struct tern_allow_entry coordinator;
    struct tern_arch arch;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    uint32_t row_bytes;
    atomic_bool stop;
    pthread_t thread;

    /* The thread's. */
    struct tern_server *server;
    struct tern_arena arena;
    struct tern_link_message m;
    uint64_t epoch;
    uint32_t layout, n_tensors, n_busy;
};

static void say(struct liar *l, const Tern__Header *h, const void *payload, size_t payload_len)
{
    uint8_t bytes[TERN_MAX_HEADER_BYTES];
    struct tern_err err;
    size_t len = 0;

    if (tern_wire_put(h, bytes, sizeof bytes - 2, &len, &err) != TERN_OK)
        tern_bug(__FILE__, __LINE__, err.text);
    if (l->mode == UNKNOWN_FIELD && h->body_case == TERN__HEADER__BODY_RESULT) {
        bytes[len++] = 0xf8; /* field 31, a varint */
        bytes[len++] = 0x01;
        bytes[len++] = 0x01;
    }
    if (l->mode == OTHER_VERSION && h->body_case == TERN__HEADER__BODY_RESULT)
        bytes[1] = 2;
    if (l->mode == GARBAGE && h->body_case == TERN__HEADER__BODY_RESULT)
        memset(bytes, 0x5a, len);
    if (tern_server_send(l->server, l->m.route, l->m.route_len, bytes, len, payload, payload_len, &err) !=
        TERN_OK)
        tern_log(TERN_LOG_DEBUG, "liar", "could not send");
}

static Tern__Header header(const struct liar *l, Tern__Header__BodyCase body)
{
    Tern__Header h = TERN__HEADER__INIT;

    h.version = TERN_WIRE_VERSION;
    h.epoch = l->epoch;
    h.layout = l->layout;
    h.body_case = body;
    return h;
}

static void on_hello(struct liar *l, const Tern__Header *in)
{
    static char name[] = "liar", software[] = "none", cpu[] = "ref", holder[] = "alice";
    uint8_t hash[TERN_HASH_BYTES];
    Tern__Header h;
    Tern__Welcome w = TERN__WELCOME__INIT;
    Tern__Busy busy = TERN__BUSY__INIT;

    if (l->mode == NO_WELCOME)
        return;
    if (l->mode == BUSY || (l->mode == BUSY_TWICE && l->n_busy++ < 2)) {
        h = header(l, TERN__HEADER__BODY_BUSY);
        h.epoch = 0;
        busy.holder = holder;
        h.busy = &busy;
        say(l, &h, NULL, 0);
        return;
    }
    l->epoch = in->epoch;
    h = header(l, TERN__HEADER__BODY_WELCOME);
    tern_arch_hash(&l->arch, hash);
    hash[0] ^= l->mode == OTHER_ARCH;
    w.name = name;
    w.software = software;
    w.cpu = cpu;
    w.threads = 3;
    w.arch_hash.len = l->mode == NO_MODEL ? 0 : sizeof hash;
    w.arch_hash.data = hash;
    w.last_layer = l->arch.n_layers - (l->mode == FEW_LAYERS);
    h.welcome = &w;
    say(l, &h, NULL, 0);
}

static void say_ready(struct liar *l)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_READY);
    Tern__Ready r = TERN__READY__INIT;

    r.weight_bytes = 123;
    h.ready = &r;
    say(l, &h, NULL, 0);
}

static void say_fault(struct liar *l)
{
    static char text[] = "the dog ate it";
    Tern__Header h = header(l, TERN__HEADER__BODY_FAULT);
    Tern__Fault f = TERN__FAULT__INIT;

    f.status = TERN_ERR_MEMORY;
    f.text = text;
    h.fault = &f;
    say(l, &h, NULL, 0);
}

static void say_bye(struct liar *l)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_BYE);
    Tern__Bye b = TERN__BYE__INIT;

    b.reason = TERN_BYE_DRAINING;
    h.bye = &b;
    say(l, &h, NULL, 0);
}

static void say_pong(struct liar *l, uint64_t seq, const void *payload, size_t len)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_PONG);
    Tern__Pong p = TERN__PONG__INIT;

    p.seq = seq;
    h.pong = &p;
    say(l, &h, payload, len);
}

/* All wanted rows as zeros, and what the mode says. */
static void say_result(struct liar *l, const Tern__Step *in)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_RESULT);
    Tern__Result r = TERN__RESULT__INIT;
    Tern__StageTime time = TERN__STAGE_TIME__INIT, *times[] = { &time };
    Tern__Failed failed = TERN__FAILED__INIT, *list[] = { &failed };
    uint8_t *payload;

    r.step = in->step + (l->mode == WRONG_STEP);
    r.n_parts = 1;
    for (size_t i = 0; i < in->n_runs; i++)
        r.n_rows += in->runs[i]->n_want;
    r.n_rows -= l->mode == WRONG_ROWS;
    r.n_part_rows = r.n_rows;
    r.n_times = l->mode != NO_TIMES;
    r.times = times;
    if (l->mode == STRANGE_FAILURE) {
        failed.slot = 3;
        failed.gen = 9;
        failed.code = TERN_FAILED_NUMERIC;
        r.n_failed = 1;
        r.failed = list;
    }
    h.layout += l->mode == WRONG_LAYOUT;
    h.result = &r;
    payload = calloc(r.n_rows + 1, l->row_bytes);
    TERN_BUG_IF(!payload);
    if (l->mode == OTHER_EPOCH) {
        h.epoch++;
        say(l, &h, payload, (size_t)r.n_rows * l->row_bytes);
        h.epoch--;
    }
    say(l, &h, payload, (size_t)r.n_rows * l->row_bytes - (l->mode == SHORT_PAYLOAD));
    if (l->mode == RESULT_TWICE)
        say(l, &h, payload, (size_t)r.n_rows * l->row_bytes);
    free(payload);
}

static void say_a_step(struct liar *l)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_STEP);
    Tern__Step s = TERN__STEP__INIT;

    s.step = 1;
    s.n_parts = 1;
    h.step = &s;
    say(l, &h, NULL, 0);
}

static void on_step(struct liar *l, const Tern__Step *step)
{
    switch (l->mode) {
    case SILENT: break;
    case FAULT: say_fault(l); break;
    case BYE: say_bye(l); break;
    case FUTURE_PONG: say_pong(l, UINT64_MAX, NULL, 0); break;
    case PONG_WITH_PAYLOAD: say_pong(l, 0, "pong", 4); break;
    case READY_TWICE: say_ready(l); break;
    case A_STEP: say_a_step(l); break;
    default: say_result(l, step); break;
    }
}

static void on_message(struct liar *l)
{
    struct tern_err err;
    Tern__Header *h = NULL;
    bool silent = l->mode == SILENT_LOADING && l->n_tensors > 0;

    tern_arena_reset(&l->arena);
    if (tern_wire_get(zmq_msg_data(&l->m.header), zmq_msg_size(&l->m.header), &l->arena, &h, &err) != TERN_OK)
        tern_bug(__FILE__, __LINE__, err.text); /* what the coordinator sends is sound */
    switch (h->body_case) {
    case TERN__HEADER__BODY_HELLO: on_hello(l, h); break;
    case TERN__HEADER__BODY_ASSIGN:
        l->layout = h->layout;
        l->n_tensors = h->assign->n_tensors;
        if (l->mode == FAULT_LOADING)
            say_fault(l);
        break;
    case TERN__HEADER__BODY_TENSORS:
        TERN_BUG_IF(h->tensors->n_entries > l->n_tensors);
        l->n_tensors -= (uint32_t)h->tensors->n_entries;
        if (l->n_tensors == 0 && l->mode != SILENT_LOADING && l->mode != FAULT_LOADING)
            say_ready(l);
        l->n_tensors += l->mode == SILENT_LOADING;
        break;
    case TERN__HEADER__BODY_STEP: on_step(l, h->step); break;
    case TERN__HEADER__BODY_PING:
        if (!silent && (l->mode != SILENT || h->ping->seq < 3))
            say_pong(l, h->ping->seq, NULL, 0);
        break;
    default: break;
    }
}

static void open_server(struct liar *l, struct tern_link_context *ctx, struct tern_allow *allow)
{
    struct tern_err err;

    if (tern_server_open(ctx, l->endpoint + strlen("tcp://"), &l->key, allow, &l->server, &err) != TERN_OK)
        tern_bug(__FILE__, __LINE__, err.text);
}

static void *liar_main(void *arg)
{
    struct liar *l = arg;
    struct tern_allow allow = { .entries = &l->coordinator, .n = 1 };
    struct tern_link_context *ctx = NULL;
    struct tern_err err;

    if (l->mode == LATE)
        nanosleep(&(struct timespec){ .tv_nsec = 900000000 }, NULL);
    if (tern_link_context_new(&ctx, &err) != TERN_OK)
        tern_bug(__FILE__, __LINE__, err.text);
    open_server(l, ctx, &allow);
    tern_link_message_init(&l->m);
    while (!atomic_load(&l->stop)) {
        struct pollfd fds[TERN_SERVER_FDS];

        if (!tern_server_poll_fds(l->server, fds))
            poll(fds, TERN_SERVER_FDS, 20);
        tern_server_pump(l->server);
        while (tern_server_recv(l->server, &l->m, &err) == TERN_OK)
            on_message(l);
    }
    tern_link_message_close(&l->m);
    tern_server_close(&l->server);
    tern_link_context_free(&ctx);
    return NULL;
}

/* A port that was free a moment ago: the endpoint must be known before the server is there. */
static void find_port(struct liar *l)
{
    struct tern_allow allow = { .entries = &l->coordinator, .n = 1 };
    struct tern_link_context *ctx = NULL;
    struct tern_server *s = NULL;

    assert_ok(tern_link_context_new(&ctx, &unit_err));
    assert_ok(tern_server_open(ctx, "127.0.0.1:*", &l->key, &allow, &s, &unit_err));
    snprintf(l->endpoint, sizeof l->endpoint, "%s", tern_server_endpoint(s));
    tern_server_close(&s);
    tern_link_context_free(&ctx);
}

/* -- the coordinator ------------------------------------------------------------------------------------ */

static struct {
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_key key;
} world;

static int open_world(void **state)
{
    (void)state;
    tern_log_set_level(TERN_LOG_ERROR);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_key_generate(&world.key, &unit_err));
    assert_ok(tern_gguf_open(MODEL, &world.gguf, &unit_err));
    assert_ok(tern_arch_read(world.gguf, &world.arch, &unit_err));
    tern_kernels_init(&world.kern, TERN_CPU_REF);
    assert_ok(tern_pool_new(1, &world.pool, &unit_err));
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    tern_pool_free(&world.pool);
    tern_gguf_close(&world.gguf);
    tern_key_wipe(&world.key);
    return 0;
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
    memcpy(l->coordinator.key, world.key.public_key, TERN_KEY_BYTES);
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
        .join_timeout_ms = 1500,
        .quiet = true,
    };

    return pipe_remote_open(&o, spec, &world.key, p, err);
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
    return st ? st : p->recv(p, 3000, out, err);
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

static void test_joining(void **state)
{
    const struct {
        enum mode mode;
        enum tern_status status;
        const char *const *words;
    } cases[] = {
        { NO_WELCOME, TERN_ERR_PEER, WORDS("did not answer hello within 1.5 s") },
        { BUSY, TERN_ERR_BUSY, WORDS("busy", "'alice'") },
        { NO_MODEL, TERN_ERR_USAGE, WORDS("has no model file", "--model") },
        { OTHER_ARCH, TERN_ERR_USAGE, WORDS("another model", "fable.gguf") },
        { FEW_LAYERS, TERN_ERR_USAGE, WORDS("cannot hold its layers") },
        { SILENT_LOADING, TERN_ERR_PEER, WORDS("has been silent for 0.") },
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
        struct liar l;
        struct cluster_spec spec;
        struct pipe *p = NULL;
        struct tern_step *s = NULL;

        start_liar(&l, modes[i], &spec);
        assert_ok(open_pipe(&spec, &p, &unit_err));
        assert_int_equal(p->stages[0].threads, 3);
        assert_int_equal(p->stages[0].weight_bytes, 123);
        assert_string_equal(p->stages[0].cpu, "ref");
        assert_ok(one_step(p, &s, &unit_err));
        assert_int_equal(s->n_rows, 2);
        assert_int_equal(s->n_runs, 1);
        assert_int_equal(s->n_ops, 1);
        assert_true(s->bytes_in > 2 * p->row_bytes);
        p->give(p, s);
        p->close(p);
        stop_liar(&l);
    }
}

static void test_running(void **state)
{
    const struct {
        enum mode mode;
        enum tern_status status;
        const char *const *words;
    } cases[] = {
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
        { SILENT, TERN_ERR_PEER, WORDS("has been silent for 0.") },
        { BYE, TERN_ERR_PEER, WORDS("is leaving") },
        { FAULT, TERN_ERR_MEMORY, WORDS("the dog ate it") },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct liar l;
        struct cluster_spec spec;
        struct pipe *p = NULL;
        struct tern_step *s = NULL;
        struct tern_err err = { 0 };
        enum tern_status st;

        start_liar(&l, cases[i].mode, &spec);
        assert_ok(open_pipe(&spec, &p, &unit_err));
        st = one_step(p, &s, &err);
        if (st != cases[i].status)
            fail_msg("case %zu gave %s: %s", i, tern_status_name(st), err.text);
        expect_words(err.text, cases[i].words);
        p->close(p);
        stop_liar(&l);
    }
}

/* The step itself comes back whole, then the second copy of its result breaks the pipe. */
static void test_result_twice(void **state)
{
    struct liar l;
    struct cluster_spec spec;
    struct pipe *p = NULL;
    struct tern_step *s = NULL;
    struct tern_err err = { 0 };

    (void)state;
    start_liar(&l, RESULT_TWICE, &spec);
    assert_ok(open_pipe(&spec, &p, &unit_err));
    assert_ok(one_step(p, &s, &unit_err));
    p->give(p, s);
    assert_int_equal(p->recv(p, 3000, &s, &err), TERN_ERR_STATE);
    expect_words(err.text, WORDS("no step is on its way"));
    p->close(p);
    stop_liar(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joining),
        cmocka_unit_test(test_what_is_tolerated),
        cmocka_unit_test(test_running),
        cmocka_unit_test(test_result_twice),
    };

    return cmocka_run_group_tests_name("cluster", tests, open_world, close_world);
}
