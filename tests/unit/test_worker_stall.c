/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real ternd whose next peer takes nothing for a while, until the pipe between them is full: it must wait
 * without computing anything, and go on at once and without a loss when the peer takes again.  The peer is
 * another worker, a process that is stopped, or the coordinator, which here is this program.
 */
#include "lab/peer.h"
#include "lab/stage_line.h"

#include "engine/base/log.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Twice as many messages as wait in a link (TERN_SEND_QUEUE), of 256 KiB each: the system's buffers hold a
 * few of them. */
#define N_STEPS TERN_MAX_STEPS_IN_FLIGHT
#define EPOCH   7
#define N_ROWS  TERN_MAX_STEP_ROWS
/* At rest: less of this CPU in that time.  Spinning takes all that it can get, a tenth even of a machine that
 * is fully loaded. */
#define REST_MS  50
#define LOOK_MS  1000
#define PATIENCE 60000

static struct {
    struct tern_key worker, next, head, up;
    struct tern_identity *id;
    uint8_t arch_hash[TERN_HASH_BYTES];
    struct tern_step *step, *back;
} net;

static int set_up(void **state)
{
    stage_lab_load(state);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_key_generate(&net.worker, &unit_err));
    assert_ok(tern_key_generate(&net.next, &unit_err));
    assert_ok(tern_key_generate(&net.head, &unit_err));
    assert_ok(tern_key_generate(&net.up, &unit_err));
    assert_ok(tern_identity_compute(lab.gguf, &lab.arch, TERN_IDENTITY_ALL, lab.pool, NULL, NULL, &net.id,
                                    &unit_err));
    assert_ok(tern_step_new(N_ROWS, lab.arch.n_embd * 4, &net.step, &unit_err));
    assert_ok(tern_step_new(N_ROWS, lab.arch.n_embd * 4, &net.back, &unit_err));
    for (uint32_t i = 0; i < N_ROWS * lab.arch.n_embd; i++) {
        const float x = (float)(i * 2654435761u >> 8) / 16777216.0f - 0.5f;

        memcpy(net.step->payload + i * sizeof x, &x, sizeof x);
    }
    alarm(240); /* a hang is a failure too */
    return 0;
}

static int tear_down(void **state)
{
    tern_identity_free(&net.id);
    tern_step_free(&net.step);
    tern_step_free(&net.back);
    tern_key_wipe(&net.worker);
    tern_key_wipe(&net.next);
    tern_key_wipe(&net.head);
    tern_key_wipe(&net.up);
    stage_lab_free(state);
    return 0;
}

/* -- the worker ------------------------------------------------------------------------------------------ */

static void start(struct lab_ternd *d)
{
    char allow[512] = "";

    lab_allow_add(allow, sizeof allow, "head", "coordinator", &net.head);
    lab_allow_add(allow, sizeof allow, "up", "worker", &net.up);
    lab_ternd_start(d, &net.worker, allow, NULL);
}

/* Has it, and an assignment of one layer for it. */
static void hold(const struct lab_ternd *d, struct lab_peer *p, Tern__Assign *a)
{
    assert_int_equal(lab_peer_open(p, d, &net.head, EPOCH), TERN_CLIENT_UP);
    lab_peer_be_welcome(p);
    *a = lab_assign(&lab.arch, net.arch_hash, net.id, 0, 1, net.head.public_key);
    a->boundary = TERN_BOUNDARY_F32;
    a->max_rows = a->max_positions = N_ROWS;
    a->max_in_flight = N_STEPS;
    a->dead_after_ms = 600000;
}

/* Every eighth step says the same to a new sequence.  The others are for one that does not exist: they go the
 * same way, and take no time to compute. */
static bool is_live(uint32_t i)
{
    return i % 8 == 1;
}

static void send_steps(struct lab_peer *p)
{
    struct tern_step *s = net.step;

    for (uint32_t i = 1; i <= N_STEPS; i++) {
        const uint32_t slot = is_live(i) ? 0 : 1;

        s->step = i;
        s->n_ops = 0;
        if (is_live(i) && i > 1)
            s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_FREE, .slot = 0, .gen = i - 8 };
        if (is_live(i))
            s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .slot = 0, .gen = i };
        s->runs[0] = (struct tern_run){ slot, i, 0, N_ROWS, N_ROWS };
        s->n_runs = 1;
        s->n_rows = N_ROWS;
        lab_peer_step(p, s);
    }
}

/* User and system time of all its threads, in milliseconds; -1 when there is no such process. */
static long cpu_ms(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, sys = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = fopen(path, "r");
    if (!f)
        return -1;
    if (!fgets(line, sizeof line, f) ||
        sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) !=
            2)
        user = sys = 0;
    fclose(f);
    return (long)((user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

/* Waits until it uses hardly any CPU, twice in a row. */
static bool comes_to_rest(pid_t pid)
{
    const uint64_t end = tern_now_ms() + PATIENCE;
    unsigned n = 0;

    while (n < 2 && tern_now_ms() < end) {
        const long before = cpu_ms(pid);

        poll(NULL, 0, LOOK_MS);
        n = before >= 0 && cpu_ms(pid) - before < REST_MS ? n + 1 : 0;
    }
    return n == 2;
}

/* What a child says. */
static void expect_byte(int fd, char want)
{
    struct pollfd told = { .fd = fd, .events = POLLIN };
    char byte = '?';

    assert_int_equal(poll(&told, 1, PATIENCE), 1);
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, want);
}

/* -- the next worker stalls ------------------------------------------------------------------------------ */

/* In the child: takes steps, and says when it has all of them. */
static _Noreturn void serve_next(int to_parent)
{
    struct tern_allow_entry e = { .name = "w1", .role = TERN_ROLE_WORKER };
    struct tern_allow allow = { .entries = &e, .n = 1 };
    struct tern_link_context *ctx;
    struct tern_link_message m;
    struct tern_server *s;
    struct tern_err err;
    uint32_t n = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memcpy(e.key, net.worker.public_key, TERN_KEY_BYTES);
    if (tern_link_context_new(&ctx, &err) ||
        tern_server_open(ctx, "127.0.0.1:0", &net.next, &allow, &s, &err) ||
        write(to_parent, tern_server_endpoint(s), strlen(tern_server_endpoint(s))) < 0)
        _exit(1);
    tern_link_message_init(&m);
    for (;;) {
        struct pollfd fds[TERN_SERVER_FDS];

        if (!tern_server_poll_fds(s, fds))
            poll(fds, TERN_SERVER_FDS, 100);
        tern_server_pump(s);
        while (tern_server_recv(s, &m, &err) == TERN_OK)
            if (++n == N_STEPS * tern_wire_step_parts(net.step) && write(to_parent, "!", 1) != 1)
                _exit(1);
    }
}

static void await_computed(struct lab_peer *p)
{
    const uint64_t end = tern_now_ms() + PATIENCE;
    Tern__Header *h;

    do {
        h = lab_peer_next(p, 1000);
        if (h && h->body_case == TERN__HEADER__BODY_FAULT)
            fail_msg("fault: %s", h->fault->text);
        assert_true(tern_now_ms() < end);
    } while (!h || h->body_case != TERN__HEADER__BODY_PONG || h->pong->steps < N_STEPS);
}

/* A worker that is ready, with a next one: that one's process. */
static pid_t begin_with_next(struct lab_ternd *d, struct lab_peer *p, Tern__Assign *a, char *endpoint,
                             int fds[2])
{
    pid_t next;

    net.step->n_rows = N_ROWS;
    assert_int_equal(pipe(fds), 0);
    next = fork();
    assert_true(next >= 0);
    if (next == 0)
        serve_next(fds[1]);
    assert_true(read(fds[0], endpoint, TERN_MAX_ENDPOINT_BYTES) > 0);
    start(d);
    hold(d, p, a);
    a->next_endpoint = endpoint;
    a->next_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, net.next.public_key };
    lab_peer_assign(p, a, net.id, false);
    (void)lab_peer_wait(p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    return next;
}

static void test_next_worker_stalls(void **state)
{
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1] = "";
    struct lab_ternd d;
    struct lab_peer p;
    Tern__Assign a;
    int fds[2];
    pid_t next = begin_with_next(&d, &p, &a, endpoint, fds);

    (void)state;
    kill(next, SIGSTOP);
    send_steps(&p);
    await_computed(&p);
    assert_true(comes_to_rest(d.pid));
    kill(next, SIGCONT);
    expect_byte(fds[0], '!');

    lab_peer_bye(&p);
    lab_peer_close(&p);
    assert_int_equal(lab_ternd_stop(&d), 0);
    kill(next, SIGKILL);
    assert_int_equal(waitpid(next, NULL, 0), next);
    close(fds[0]);
    close(fds[1]);
}

/* A worker that was told to end is owed an end of what it still has to send: it hears that the next one has
 * died, as it does at other times. */
static void test_next_worker_dies_while_draining(void **state)
{
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1] = "";
    struct lab_ternd d;
    struct lab_peer p;
    Tern__Assign a;
    int fds[2];
    pid_t next = begin_with_next(&d, &p, &a, endpoint, fds);

    (void)state;
    kill(d.pid, SIGTERM);
    (void)lab_peer_wait(&p, TERN__HEADER__BODY_BYE, LAB_PATIENCE_MS);
    kill(next, SIGKILL);
    assert_int_equal(waitpid(next, NULL, 0), next);
    assert_non_null(
        strstr(lab_peer_wait(&p, TERN__HEADER__BODY_FAULT, LAB_PATIENCE_MS)->fault->text, "is lost"));
    assert_int_equal(lab_ternd_wait(&d), 0);
    lab_peer_close(&p);
    close(fds[0]);
    close(fds[1]);
}

/* -- the coordinator stalls ------------------------------------------------------------------------------ */

/* In the child: a coordinator that assigns, says so, and then wants all results. */
static _Noreturn void coordinate(const struct lab_ternd *d, int to_parent)
{
    uint8_t *first = malloc(net.back->payload_cap);
    struct lab_peer p;
    Tern__Assign a;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hold(d, &p, &a);
    a.stage = 1;
    a.upstream_key.data = net.up.public_key;
    lab_peer_assign(&p, &a, net.id, false);
    (void)lab_peer_wait(&p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    if (!first || write(to_parent, "1", 1) != 1)
        _exit(1);
    for (uint32_t i = 1; i <= N_STEPS; i++) {
        lab_peer_result(&p, net.back, N_ROWS);
        if (i == 1)
            memcpy(first, net.back->payload, net.back->payload_cap);
        if (net.back->step != i || net.back->n_rows != N_ROWS || net.back->n_failed != (is_live(i) ? 0 : 1) ||
            (is_live(i) && memcmp(net.back->payload, first, net.back->payload_cap) != 0))
            _exit(2);
    }
    lab_peer_bye(&p);
    lab_peer_close(&p);
    _exit(write(to_parent, "2", 1) == 1 ? 0 : 1);
}

/* The last test: a child that finds something wrong in the lab's functions goes on to the end of this
 * program, and its parent hears nothing more. */
static void test_coordinator_stalls(void **state)
{
    struct lab_ternd d;
    struct lab_peer p;
    int fds[2];
    pid_t head;

    (void)state;
    start(&d);
    assert_int_equal(pipe(fds), 0);
    head = fork();
    assert_true(head >= 0);
    if (head == 0)
        coordinate(&d, fds[1]);
    close(fds[1]);
    expect_byte(fds[0], '1');
    kill(head, SIGSTOP);
    assert_int_equal(lab_peer_open(&p, &d, &net.up, EPOCH), TERN_CLIENT_UP);
    p.layout = 1;
    send_steps(&p);
    assert_true(comes_to_rest(d.pid));
    kill(head, SIGCONT);
    expect_byte(fds[0], '2');
    assert_int_equal(waitpid(head, NULL, 0), head);
    lab_peer_close(&p);
    assert_int_equal(lab_ternd_stop(&d), 0);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next_worker_stalls),
        cmocka_unit_test(test_next_worker_dies_while_draining),
        cmocka_unit_test(test_coordinator_stalls),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
