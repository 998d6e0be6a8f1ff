/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A false worker in a thread of its own: it answers a coordinator by the book but for one thing.
 */
#ifndef TERN_TESTS_UNIT_LIAR_H
#define TERN_TESTS_UNIT_LIAR_H

#include "unit/unit.h"

#include "engine/arch.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "proto/link.h"
#include "proto/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
    STUCK,     /* no result, but pongs */
    BOASTS,    /* pongs say that more has been computed than was sent */
    BAD_CLOCK, /* says it is the end of time, and the beginning */
    NO_RESULT, /* computed, it says, but keeps the result */
    BYE,
    LEAVES,      /* says so, and then sends the result */
    LEAVES_SLOW, /* says so, and sends nothing */
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
    uint32_t layout, n_tensors, n_busy, bye_reason;
    uint64_t n_pongs;
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

    b.reason = l->bye_reason ? l->bye_reason : TERN_BYE_DRAINING;
    h.bye = &b;
    say(l, &h, NULL, 0);
}

static void say_pong(struct liar *l, uint64_t seq, const void *payload, size_t len)
{
    Tern__Header h = header(l, TERN__HEADER__BODY_PONG);
    Tern__Pong p = TERN__PONG__INIT;

    p.seq = seq;
    p.steps = l->mode == BOASTS ? UINT64_MAX - l->n_pongs++ % 2 : l->mode == NO_RESULT;
    p.clock_us = l->mode == BAD_CLOCK ? UINT64_MAX : 1;
    p.memory_bytes = UINT64_MAX;
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
    time.t_in_us = l->mode == BAD_CLOCK;
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
    case SILENT:
    case STUCK:
    case BOASTS:
    case NO_RESULT: break;
    case LEAVES:
        say_bye(l);
        say_result(l, step);
        break;
    case LEAVES_SLOW: say_bye(l); break;
    case FAULT: say_fault(l); break;
    case BYE:
        l->bye_reason = TERN_BYE_DONE;
        say_bye(l);
        break;
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

/* A port that is free: the endpoint must be known before the server is there.  Below those which the kernel
 * gives away, so that nobody else gets it meanwhile. */
static void find_port(struct liar *l)
{
    struct tern_allow allow = { .entries = &l->coordinator, .n = 1 };
    struct tern_link_context *ctx = NULL;
    struct tern_server *s = NULL;
    static unsigned n;
    char address[32];

    assert_ok(tern_link_context_new(&ctx, &unit_err));
    do {
        assert_true(n < 1000);
        snprintf(address, sizeof address, "127.0.0.1:%u", 10000 + ((unsigned)getpid() * 37 + n++) % 20000);
    } while (tern_server_open(ctx, address, &l->key, &allow, &s, &unit_err));
    snprintf(l->endpoint, sizeof l->endpoint, "%s", tern_server_endpoint(s));
    tern_server_close(&s);
    tern_link_context_free(&ctx);
}

#endif
