/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real ternd and its protocol: who is listened to, what ends an epoch, and that rows come back as the
 * stage computes them.
 */
#include "lab/peer.h"
#include "lab/stage_line.h"

#include "engine/base/log.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    struct tern_key worker, worker2, head, other, upstream;
    struct tern_identity *id;
    uint8_t arch_hash[TERN_HASH_BYTES];
    struct lab_ternd d;
    char allow[1024];
    uint64_t epoch;
} net;

static int set_up(void **state)
{
    stage_lab_load(state);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_key_generate(&net.worker, &unit_err));
    assert_ok(tern_key_generate(&net.worker2, &unit_err));
    assert_ok(tern_key_generate(&net.head, &unit_err));
    assert_ok(tern_key_generate(&net.other, &unit_err));
    assert_ok(tern_key_generate(&net.upstream, &unit_err));
    assert_ok(tern_identity_compute(lab.gguf, &lab.arch, TERN_IDENTITY_ALL, lab.pool, NULL, NULL, &net.id,
                                    &unit_err));
    lab_allow_add(net.allow, sizeof net.allow, "head", "coordinator", &net.head);
    lab_allow_add(net.allow, sizeof net.allow, "other", "coordinator", &net.other);
    lab_allow_add(net.allow, sizeof net.allow, "up", "worker", &net.upstream);
    lab_allow_add(net.allow, sizeof net.allow, "w1", "worker", &net.worker);
    lab_ternd_start(&net.d, &net.worker, net.allow, NULL);
    net.epoch = 0x1000;
    return 0;
}

static int tear_down(void **state)
{
    int code = net.d.pid ? lab_ternd_stop(&net.d) : 0;

    tern_identity_free(&net.id);
    tern_key_wipe(&net.worker);
    tern_key_wipe(&net.worker2);
    tern_key_wipe(&net.head);
    tern_key_wipe(&net.other);
    tern_key_wipe(&net.upstream);
    stage_lab_free(state);
    return code;
}

/* -- scenes ---------------------------------------------------------------------------------------------- */

static void connect_as(struct lab_peer *p, const struct tern_key *key)
{
    assert_int_equal(lab_peer_open(p, &net.d, key, net.epoch++), TERN_CLIENT_UP);
}

/* A coordinator that holds the worker. */
static void hold(struct lab_peer *p)
{
    connect_as(p, &net.head);
    lab_peer_be_welcome(p);
}

static Tern__Assign whole_model(void)
{
    return lab_assign(&lab.arch, net.arch_hash, net.id, 0, lab.arch.n_layers, net.head.public_key);
}

/* `silence`: how long we may compute ourselves without a word, in milliseconds. */
static void hold_ready_for(struct lab_peer *p, uint32_t silence)
{
    Tern__Assign a = whole_model();

    a.dead_after_ms = silence;
    hold(p);
    lab_peer_assign(p, &a, net.id, false);
    (void)lab_peer_wait(p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
}

static void release(struct lab_peer *p)
{
    lab_peer_bye(p);
    poll(NULL, 0, 30);
    lab_peer_close(p);
}

/* The worker gives up the epoch with this status and this word in its sentence, and is free again. */
static void expect_fault(struct lab_peer *p, enum tern_status status, const char *word)
{
    Tern__Header *h = lab_peer_wait(p, TERN__HEADER__BODY_FAULT, LAB_PATIENCE_MS);

    if (!strstr(h->fault->text, word))
        fail_msg("no '%s' in: %s", word, h->fault->text);
    assert_int_equal(h->fault->status, status);
    lab_peer_close(p);
    hold(p);
    release(p);
}

static void hold_ready(struct lab_peer *p)
{
    hold_ready_for(p, 60000);
}

/* Rows as a coordinator would send them, and what comes back; compared with a stage of our own. */
static void run_text(struct lab_peer *p, uint32_t slot, uint32_t gen, uint32_t text, uint32_t n)
{
    uint8_t *want = rows_by_chunks(TERN_BOUNDARY_INT8, false, text, n, n);
    struct line l;
    struct tern_step *back;

    line_open(&l, TERN_BOUNDARY_INT8, false);
    assert_ok(tern_step_new(MAX_ROWS, l.step->row_bytes, &back, &unit_err));
    for (uint32_t pos = 0, chunk = 20; pos < n; pos += chunk) {
        uint32_t now = n - pos < chunk ? n - pos : chunk;

        line_begin(&l);
        l.step->step = ++p->steps_sent;
        if (pos == 0)
            line_op(&l, TERN_OP_OPEN, slot, gen, 0);
        line_rows(&l, slot, gen, text, pos, now, now);
        lab_peer_step(p, l.step);
        lab_peer_result(p, back, MAX_ROWS);
        assert_int_equal(back->step, p->steps_sent);
        assert_int_equal(back->n_failed, 0);
        assert_int_equal(back->n_rows, now);
        assert_same_rows(back->payload, want + (size_t)pos * l.step->row_bytes,
                         (size_t)now * l.step->row_bytes);
    }
    tern_step_free(&back);
    line_close(&l);
    free(want);
}

/* -- tests ----------------------------------------------------------------------------------------------- */

static void test_hello(void **state)
{
    struct lab_peer p;
    Tern__Header *h;

    (void)state;
    connect_as(&p, &net.head);
    p.quiet = true;
    lab_peer_hello(&p);
    h = lab_peer_wait(&p, TERN__HEADER__BODY_WELCOME, LAB_PATIENCE_MS);
    assert_int_equal(h->epoch, p.epoch);
    assert_int_equal(h->welcome->threads, 2);
    assert_int_equal(h->welcome->first_layer, 0);
    assert_int_equal(h->welcome->last_layer, lab.arch.n_layers);
    tern_arch_hash(&lab.arch, net.arch_hash);
    assert_int_equal(h->welcome->arch_hash.len, TERN_HASH_BYTES);
    assert_memory_equal(h->welcome->arch_hash.data, net.arch_hash, TERN_HASH_BYTES);
    lab_peer_ping(&p);
    h = lab_peer_wait(&p, TERN__HEADER__BODY_PONG, LAB_PATIENCE_MS);
    assert_int_equal(h->pong->seq, 1);
    assert_int_equal(h->epoch, p.epoch);
    release(&p);
}

/* Announced or not, too early, more than once; at last nothing follows but the end. */
static void test_steps(void **state)
{
    struct lab_peer p;

    (void)state;
    hold_ready(&p);
    run_text(&p, 0, 1, 1, 50);
    lab_peer_soon(&p);
    run_text(&p, 1, 1, 2, 33);
    lab_peer_soon(&p);
    poll(NULL, 0, 5);
    lab_peer_soon(&p);
    lab_peer_soon(&p);
    run_text(&p, 2, 1, 3, 33);
    lab_peer_soon(&p);
    release(&p);
}

/* A second coordinator finds the slice loaded. */
static void test_no_reload(void **state)
{
    struct lab_peer p;
    Tern__Assign a = whole_model();

    (void)state;
    for (int i = 0; i < 3; i++) {
        hold_ready(&p);
        run_text(&p, 0, 1, 3, 10);
        release(&p);
    }
    assert_true(lab_ternd_log_wait(&net.d, "loads=1", 3) >= 3);
    assert_int_equal(lab_ternd_log(&net.d, "loads=2"), 0);

    /* Another slice is loaded anew, within one epoch. */
    hold_ready(&p);
    a.first_layer = 1;
    a = lab_assign(&lab.arch, net.arch_hash, net.id, 1, 3, net.head.public_key);
    lab_peer_assign(&p, &a, net.id, false);
    (void)lab_peer_wait(&p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    assert_int_equal(lab_ternd_log_wait(&net.d, "loads=2", 1), 1);
    release(&p);
}

static void test_busy(void **state)
{
    struct lab_peer p, second;
    Tern__Header *h;

    (void)state;
    hold_ready(&p);
    connect_as(&second, &net.other);
    second.quiet = true;
    lab_peer_hello(&second);
    h = lab_peer_wait(&second, TERN__HEADER__BODY_BUSY, LAB_PATIENCE_MS);
    assert_int_equal(h->epoch, 0);
    assert_string_equal(h->busy->holder, "head");
    lab_peer_close(&second);

    /* Another process with the holder's own key. */
    connect_as(&second, &net.head);
    second.quiet = true;
    lab_peer_hello(&second);
    (void)lab_peer_wait(&second, TERN__HEADER__BODY_BUSY, LAB_PATIENCE_MS);
    /* It may not give orders either: that would end the holder's epoch. */
    lab_peer_bye(&second);
    lab_peer_close(&second);
    run_text(&p, 0, 1, 1, 20);
    release(&p);
}

/* The holder vanishes without a word: its worker is free for the next one at once. */
static void test_lost_holder(void **state)
{
    struct lab_peer p;

    (void)state;
    hold_ready(&p); /* who is silent is waited for longer than we have patience */
    lab_peer_close(&p);
    connect_as(&p, &net.other);
    p.quiet = true;
    lab_peer_be_welcome(&p);
    release(&p);
}

static void test_silence(void **state)
{
    struct lab_peer p, second;
    Tern__Header *h = NULL;
    uint64_t start = tern_now_ms();

    (void)state;
    hold_ready_for(&p, 2000);
    p.quiet = true;
    connect_as(&second, &net.other);
    second.quiet = true;
    while (tern_now_ms() - start < LAB_PATIENCE_MS) {
        lab_peer_hello(&second);
        h = lab_peer_next(&second, 200);
        if (h && h->body_case == TERN__HEADER__BODY_WELCOME)
            break;
    }
    assert_non_null(h);
    assert_int_equal(h->body_case, TERN__HEADER__BODY_WELCOME);
    assert_true(tern_now_ms() - start >= 1900);
    release(&second);
    lab_peer_close(&p);
}

/* -- those who are not listened to ----------------------------------------------------------------------- */

static void test_unlisted_key(void **state)
{
    struct tern_key key;
    struct lab_peer p;

    (void)state;
    assert_ok(tern_key_generate(&key, &unit_err));
    assert_int_not_equal(lab_peer_open(&p, &net.d, &key, 1), TERN_CLIENT_UP);
    lab_peer_close(&p);
    tern_key_wipe(&key);
}

static void test_worker_as_coordinator(void **state)
{
    struct lab_peer p;

    (void)state;
    connect_as(&p, &net.upstream);
    p.quiet = true;
    lab_peer_hello(&p);
    lab_peer_ping(&p);
    lab_peer_bye(&p);
    assert_true(lab_peer_silence(&p, 300));
    assert_int_equal(lab_ternd_log_wait(&net.d, "may not send this here", 1), 1);
    lab_peer_close(&p);
}

static void test_dropped_messages(void **state)
{
    static const uint8_t garbage[] = { 0xff, 0xff, 0xff, 0x01, 0x00 };
    uint8_t bytes[TERN_MAX_HEADER_BYTES];
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Ping ping = TERN__PING__INIT;
    struct lab_peer p, up;
    struct line l;
    uint64_t before;
    size_t len;

    (void)state;
    hold_ready(&p);
    before = lab_peer_rejected(&p, 0);
    ping.seq = 1;
    h.body_case = TERN__HEADER__BODY_PING;
    h.ping = &ping;
    h.epoch = 999999; /* another epoch */
    lab_peer_send(&p, &h, NULL, 0);
    h.epoch = p.epoch;
    lab_peer_send(&p, &h, "x", 1); /* a payload where none belongs */
    assert_ok(tern_wire_put(&h, bytes, sizeof bytes, &len, &unit_err));
    bytes[len] = 0xf8; /* field 31, a varint: no field of ours */
    bytes[len + 1] = 0x01;
    bytes[len + 2] = 0x05;
    lab_peer_send_raw(&p, bytes, len + 3, NULL, 0);
    lab_peer_send_raw(&p, garbage, sizeof garbage, NULL, 0);
    p.layout++; /* steps of another assignment */
    line_open(&l, TERN_BOUNDARY_INT8, false);
    line_begin(&l);
    lab_peer_step(&p, l.step);
    lab_peer_soon(&p);
    p.layout--;
    /* A listed worker, but not the one upstream. */
    connect_as(&up, &net.upstream);
    up.epoch = p.epoch;
    up.layout = p.layout;
    up.quiet = true;
    lab_peer_step(&up, l.step);
    assert_true(lab_peer_silence(&up, 200));
    lab_peer_close(&up);
    assert_int_equal(lab_peer_rejected(&p, before + 7), before + 7);
    line_close(&l);
    run_text(&p, 0, 1, 1, 20);
    release(&p);
}

/* -- what ends an epoch ---------------------------------------------------------------------------------- */

static void test_bad_steps(void **state)
{
    struct lab_peer p;
    struct line l;

    (void)state;
    line_open(&l, TERN_BOUNDARY_INT8, false);
    hold_ready(&p);
    line_begin(&l);
    l.step->step = 2;
    lab_peer_step(&p, l.step);
    expect_fault(&p, TERN_ERR_STATE, "lost");

    /* Rows of another format than the one agreed on. */
    hold_ready(&p);
    l.step->row_bytes -= 4;
    line_rows(&l, 0, 1, 1, 0, 1, 1);
    l.step->step = 1;
    lab_peer_step(&p, l.step);
    expect_fault(&p, TERN_ERR_FORMAT, "bytes");
    line_close(&l);
}

static void assign_and_fault(Tern__Assign a, bool spoil, enum tern_status status, const char *word)
{
    struct lab_peer p;

    hold(&p);
    lab_peer_assign(&p, &a, net.id, spoil);
    expect_fault(&p, status, word);
}

static void test_bad_assignments(void **state)
{
    static char nowhere[] = "tcp://127.0.0.1:9";
    Tern__Assign a = whole_model();
    uint8_t other[TERN_HASH_BYTES] = { 1 };

    (void)state;
    assign_and_fault(a, true, TERN_ERR_USAGE, "differs");
    a.n_pages = 0;
    assign_and_fault(a, false, TERN_ERR_LIMIT, "KV pages");
    a = whole_model();
    a.max_rows = TERN_MAX_STEP_ROWS + 1;
    assign_and_fault(a, false, TERN_ERR_LIMIT, "rows");
    a = whole_model();
    a.boundary = 77;
    assign_and_fault(a, false, TERN_ERR_UNSUPPORTED, "boundary");
    a = whole_model();
    a.kv = 2;
    assign_and_fault(a, false, TERN_ERR_UNSUPPORTED, "KV type");
    a = whole_model();
    a.n_tensors++;
    assign_and_fault(a, false, TERN_ERR_USAGE, "tensors");
    a = whole_model();
    a.arch_hash.data = other;
    assign_and_fault(a, false, TERN_ERR_USAGE, "another model");
    a = whole_model();
    a.last_layer = lab.arch.n_layers + 1;
    assign_and_fault(a, false, TERN_ERR_USAGE, "layers");
    a = whole_model();
    a.upstream_key.data = net.other.public_key;
    a.stage = 1;
    assign_and_fault(a, false, TERN_ERR_AUTH, "allow-list");
    a = whole_model();
    a.next_endpoint = nowhere;
    a.next_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, net.worker2.public_key };
    assign_and_fault(a, false, TERN_ERR_IO, "does not answer");
}

static void test_reconnect_ends_the_epoch(void **state)
{
    struct lab_peer p, again;

    (void)state;
    hold_ready(&p);
    connect_as(&again, &net.head);
    again.epoch = p.epoch;
    again.layout = p.layout;
    lab_peer_ping(&again);
    lab_peer_close(&p);
    expect_fault(&again, TERN_ERR_STATE, "connection");
}

static void test_key_removed(void **state)
{
    char shorter[1024] = "";
    struct lab_peer p;

    (void)state;
    lab_allow_add(shorter, sizeof shorter, "other", "coordinator", &net.other);
    hold_ready(&p);
    lab_ternd_allow(&net.d, shorter);
    assert_non_null(
        strstr(lab_peer_wait(&p, TERN__HEADER__BODY_FAULT, LAB_PATIENCE_MS)->fault->text, "allow-list"));
    lab_peer_hello(&p);
    assert_true(lab_peer_silence(&p, 300));
    lab_peer_close(&p);
    lab_ternd_allow(&net.d, net.allow);
    for (int i = 0; lab_peer_open(&p, &net.d, &net.head, net.epoch) != TERN_CLIENT_UP && i < 100; i++) {
        lab_peer_close(&p);
        poll(NULL, 0, 100);
    }
    net.epoch++;
    lab_peer_be_welcome(&p);
    release(&p);
}

/* -- two in a row, and the end --------------------------------------------------------------------------- */

static void test_two_workers(void **state)
{
    char allow[1024] = "";
    struct lab_ternd second;
    struct lab_peer a, b;
    Tern__Assign first, last;
    uint32_t cut = lab.arch.n_layers / 2;
    uint8_t *want = rows_by_chunks(TERN_BOUNDARY_INT8, false, 7, 90, 90);
    struct tern_step *back;
    struct line l;

    (void)state;
    lab_allow_add(allow, sizeof allow, "head", "coordinator", &net.head);
    lab_allow_add(allow, sizeof allow, "w1", "worker", &net.worker);
    lab_ternd_start(&second, &net.worker2, allow, NULL);
    hold(&a);
    assert_int_equal(lab_peer_open(&b, &second, &net.head, a.epoch), TERN_CLIENT_UP);
    lab_peer_hello(&b);
    (void)lab_peer_wait(&b, TERN__HEADER__BODY_WELCOME, LAB_PATIENCE_MS);
    first = lab_assign(&lab.arch, net.arch_hash, net.id, 0, cut, net.head.public_key);
    first.next_endpoint = second.endpoint;
    first.next_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, second.public_key };
    last = lab_assign(&lab.arch, net.arch_hash, net.id, cut, lab.arch.n_layers, net.worker.public_key);
    last.stage = 1;
    lab_peer_assign(&a, &first, net.id, false);
    lab_peer_assign(&b, &last, net.id, false);
    (void)lab_peer_wait(&a, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    (void)lab_peer_wait(&b, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);

    line_open(&l, TERN_BOUNDARY_INT8, false);
    assert_ok(tern_step_new(MAX_ROWS, l.step->row_bytes, &back, &unit_err));
    /* Several in flight, then their results in order. */
    for (uint32_t i = 0; i < 6; i++) {
        line_begin(&l);
        if (i == 0)
            line_op(&l, TERN_OP_OPEN, 2, 4, 0);
        line_rows(&l, 2, 4, 7, i * 15, 15, 15);
        lab_peer_step(&a, l.step);
    }
    for (uint32_t i = 0; i < 6; i++) {
        lab_peer_ping(&a);
        lab_peer_result(&b, back, MAX_ROWS);
        assert_int_equal(back->step, i + 1);
        assert_int_equal(back->n_times, 2);
        assert_true(back->times[0].bytes > 0 && back->times[1].bytes > 0);
        assert_same_rows(back->payload, want + (size_t)i * 15 * back->row_bytes,
                         15 * (size_t)back->row_bytes);
    }
    /* The second one dies: the first says so. */
    kill(second.pid, SIGKILL);
    assert_int_equal(lab_ternd_wait(&second), -SIGKILL);
    lab_peer_close(&b);
    expect_fault(&a, TERN_ERR_PEER, "lost");
    tern_step_free(&back);
    line_close(&l);
    free(want);
}

static void test_memory_limit(void **state)
{
    static const char *const args[] = { "--memory", "12M", NULL };
    struct lab_ternd small, old = net.d;
    Tern__Assign a = whole_model();

    (void)state;
    lab_ternd_start(&small, &net.worker2, net.allow, args);
    net.d = small;
    a.max_in_flight = TERN_MAX_STEPS_IN_FLIGHT;
    a.max_rows = TERN_MAX_STEP_ROWS;
    assign_and_fault(a, false, TERN_ERR_MEMORY, "64 steps in flight");
    a = whole_model();
    a.n_pages = 4096;
    assign_and_fault(a, false, TERN_ERR_MEMORY, "--memory allows 12 MiB");
    assert_int_equal(lab_ternd_stop(&net.d), 0);
    net.d = old;
}

static void test_drain(void **state)
{
    struct lab_peer p;
    Tern__Header *h;

    (void)state;
    hold_ready(&p);
    run_text(&p, 0, 1, 1, 20);
    kill(net.d.pid, SIGTERM);
    h = lab_peer_wait(&p, TERN__HEADER__BODY_BYE, LAB_PATIENCE_MS);
    assert_int_equal(h->bye->reason, TERN_BYE_DRAINING);
    assert_int_equal(lab_ternd_wait(&net.d), 0);
    lab_peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_no_reload),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_lost_holder),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_unlisted_key),
        cmocka_unit_test(test_worker_as_coordinator),
        cmocka_unit_test(test_dropped_messages),
        cmocka_unit_test(test_bad_steps),
        cmocka_unit_test(test_bad_assignments),
        cmocka_unit_test(test_reconnect_ends_the_epoch),
        cmocka_unit_test(test_key_removed),
        cmocka_unit_test(test_two_workers),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_drain), /* last: it ends the worker of all others */
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
