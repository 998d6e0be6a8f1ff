/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links over loopback: listed peers get in, lists change, servers come late, ends die, queues fill.
 */
#include "unit/link_bed.h"
#include "unit/link_child.h"

#include "engine/base/log.h"

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static void test_listed_keys_work(void **state)
{
    struct bed *b = *state;
    struct tern_client *a = bed_connect_up(b, &b->ann), *c = bed_connect_up(b, &b->bob);
    const struct tern_allow_entry *e = tern_allow_find(&b->allow, b->ann.public_key);

    bed_exchange(b, a, &b->ann);
    bed_exchange(b, c, &b->bob);
    assert_string_equal(e->name, "ann");
    assert_int_equal(e->role, TERN_ROLE_COORDINATOR);
    /* Told later than messages, perhaps. */
    bed_wait_count(b, &tern_server_stats(b->server)->accepted, 2, BED_PATIENCE_MS);
    assert_string_equal(tern_client_why(a), "");
    bed_hang_up(b, &a);
    bed_hang_up(b, &c);
    bed_wait_count(b, &tern_server_stats(b->server)->closed, 2, BED_PATIENCE_MS);
    assert_int_equal(tern_server_stats(b->server)->refused_protocol, 0);
}

static void test_removed_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_up(b, &b->bob), *again;
    struct tern_link_message m;
    bool changed;

    bed_exchange(b, c, &b->bob);
    bed_write_list(b, false);
    tern_allow_refresh(&b->allow, &changed);
    assert_true(changed);

    /* The old connection stands, and its messages say whose they are: the owner looks the key up. */
    tern_link_message_init(&m);
    bed_client_send(b, c, "still here", NULL, 0);
    bed_server_take(b, c, &m);
    assert_null(tern_allow_find(&b->allow, m.from_key));
    tern_link_message_close(&m);

    /* A new one is refused, until the key is back. */
    again = bed_connect_as(b, &b->bob, b->server_key.public_key);
    assert_int_equal(bed_settle(b, again, BED_PATIENCE_MS), TERN_CLIENT_REFUSED);
    bed_hang_up(b, &again);
    bed_write_list(b, true);
    tern_allow_refresh(&b->allow, &changed);
    assert_true(changed);
    again = bed_connect_up(b, &b->bob);
    bed_exchange(b, again, &b->bob);
    bed_hang_up(b, &again);
    bed_hang_up(b, &c);
}

static void test_late_server(void **state)
{
    struct bed *b = *state;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    struct tern_client *c;
    struct tern_err err;
    uint64_t end;
    unsigned n = 0;

    /* A port below those which the kernel gives away, so that it stays free while nobody is there. */
    tern_server_close(&b->server);
    do {
        assert_true(n < 1000);
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u",
                 10000 + ((unsigned)getpid() * 37 + n++) % 20000);
    } while (tern_server_open(b->server_ctx, endpoint + 6, &b->server_key, &b->allow, &b->server, &err));
    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    bed_ok(tern_client_open(b->client_ctx, endpoint, &b->ann, b->server_key.public_key, &c, &err), &err);
    bed_keep(b, c);
    end = tern_now_ms() + BED_PATIENCE_MS;
    while (!strstr(tern_client_why(c), "nobody answers") && tern_now_ms() < end)
        bed_turn(b, c);
    end = tern_now_ms() + 300;
    while (tern_now_ms() < end)
        bed_turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_CONNECTING);
    assert_non_null(strstr(tern_client_why(c), "nobody answers"));
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_AGAIN);

    bed_ok(tern_link_context_new(&b->server_ctx, &err), &err);
    bed_ok(tern_server_open(b->server_ctx, endpoint + 6, &b->server_key, &b->allow, &b->server, &err), &err);
    assert_int_equal(bed_settle(b, c, BED_PATIENCE_MS), TERN_CLIENT_UP);
    bed_exchange(b, c, &b->ann);
    bed_hang_up(b, &c);
}

/* The server is a process of its own here, and is killed. */
static void test_server_dies(void **state)
{
    struct bed *b = *state;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1] = "";
    struct tern_link_message m;
    struct tern_client *c;
    struct pollfd fd[TERN_CLIENT_FDS];
    struct tern_err err;
    uint64_t t, end;
    int fds[2], status;
    pid_t pid;

    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        link_child_serve(&b->server_key, &b->allow, fds[1], "last words");
    assert_true(read(fds[0], endpoint, sizeof endpoint - 1) > 0);
    bed_ok(tern_client_open(b->client_ctx, endpoint, &b->ann, b->server_key.public_key, &c, &err), &err);
    bed_keep(b, c);
    assert_int_equal(bed_settle(b, c, BED_PATIENCE_MS), TERN_CLIENT_UP);
    /* A descriptor tells of news to those who know that there was nothing. */
    tern_link_message_init(&m);
    assert_int_equal(tern_client_recv(c, &m, &err), TERN_AGAIN);
    assert_false(tern_client_poll_fds(c, fd));
    bed_client_send(b, c, "speak", NULL, 0);
    assert_int_equal(poll(fd, 1, BED_PATIENCE_MS), 1);

    kill(pid, SIGKILL);
    t = tern_now_ms();
    while (tern_client_pump(c) == TERN_CLIENT_UP && tern_now_ms() - t < BED_PATIENCE_MS)
        bed_turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_LOST);
    assert_true(tern_now_ms() - t < 1500); /* heartbeats would take longer; test_pipe asks for 500 ms */
    assert_non_null(strstr(tern_client_why(c), "lost"));
    waitpid(pid, &status, 0);

    /* What had arrived is still there; nothing can be sent, and nothing connects again. */
    tern_link_message_init(&m);
    bed_ok(tern_client_recv(c, &m, &err), &err);
    assert_true(bed_msg_is(&m.header, "last words"));
    tern_link_message_close(&m);
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_ERR_PEER);
    bed_ok(tern_link_context_new(&b->server_ctx, &err), &err);
    bed_ok(tern_server_open(b->server_ctx, endpoint + 6, &b->server_key, &b->allow, &b->server, &err), &err);
    end = tern_now_ms() + 700;
    while (tern_now_ms() < end)
        bed_turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_LOST);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    bed_hang_up(b, &c);
    close(fds[0]);
    close(fds[1]);
}

static void test_client_goes(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_up(b, &b->ann);
    struct tern_link_message m;
    struct tern_err err;
    enum tern_status st;
    uint64_t end;

    tern_link_message_init(&m);
    bed_client_send(b, c, "hi", NULL, 0);
    bed_server_take(b, c, &m);
    bed_hang_up(b, &c);
    bed_wait_count(b, &tern_server_stats(b->server)->closed, 1, BED_PATIENCE_MS);
    /* The monitor may be a little ahead of the socket, which first takes messages and then has no room. */
    end = tern_now_ms() + BED_PATIENCE_MS;
    do {
        bed_turn(b, NULL);
        st = tern_server_send(b->server, m.route, m.route_len, "x", 1, NULL, 0, &err);
    } while ((st == TERN_OK || st == TERN_AGAIN) && tern_now_ms() < end);
    assert_int_equal(st, TERN_ERR_PEER);
    tern_link_message_close(&m);
}

/* Tries to send now and then for a while, as its descriptors say: how often it has looked. */
static unsigned look_for_room(struct tern_client *c, const void *big, unsigned *sent)
{
    const uint64_t end = tern_now_ms() + 400;
    struct pollfd fds[TERN_CLIENT_FDS];
    unsigned turns = 0;
    struct tern_err err;

    for (; tern_now_ms() < end; turns++) {
        memcpy((void *)(uintptr_t)big, sent, sizeof *sent);
        if (tern_client_send(c, "h", 1, big, TERN_MAX_PAYLOAD_BYTES, &err) == TERN_OK)
            ++*sent;
        else if (!tern_client_poll_fds(c, fds))
            poll(fds, TERN_CLIENT_FDS, 50);
    }
    return turns;
}

/* A peer that does not read is told AGAIN to after a bounded number of messages, and gets all of them once
 * it does. */
static void test_full_queue(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_up(b, &b->ann);
    uint8_t *big = calloc(1, TERN_MAX_PAYLOAD_BYTES);
    unsigned sent = 0, got = 0, before, turns;
    struct pollfd fds[TERN_CLIENT_FDS];
    struct tern_link_message m;
    uint64_t end;
    struct tern_err err;
    enum tern_status st;

    assert_non_null(big);
    tern_link_message_init(&m);
    for (;;) {
        memcpy(big, &sent, sizeof sent);
        st = tern_client_send(c, "h", 1, big, TERN_MAX_PAYLOAD_BYTES, &err);
        if (st == TERN_AGAIN)
            break;
        bed_ok(st, &err);
        sent++;
        assert_true(sent < 1000);
        usleep(1000);
    }
    /* Whoever waits for room does not spin, and is told. */
    do {
        before = sent;
        turns = look_for_room(c, big, &sent);
        assert_true(turns < 200 && sent < 1000);
    } while (sent > before); /* the other end still takes some */
    assert_int_equal(tern_client_send(c, "h", 1, big, TERN_MAX_PAYLOAD_BYTES, &err), TERN_AGAIN);
    assert_false(tern_client_poll_fds(c, fds));
    end = tern_now_ms() + BED_PATIENCE_MS;
    while (got < sent && tern_now_ms() < end) {
        unsigned no;

        st = tern_server_recv(b->server, &m, &err);
        if (st == TERN_AGAIN) {
            bed_turn(b, c);
            continue;
        }
        bed_ok(st, &err);
        memcpy(&no, zmq_msg_data(&m.payload), sizeof no);
        assert_int_equal(no, got);
        got++;
    }
    assert_int_equal(got, sent);
    assert_int_equal(poll(fds, 1, BED_PATIENCE_MS), 1);
    bed_exchange(b, c, &b->ann);
    tern_link_message_close(&m);
    free(big);
    bed_hang_up(b, &c);
}

/* The same the other way round: a server with one peer that reads and one that does not. */
static void test_full_queue_home(void **state)
{
    struct bed *b = *state;
    struct tern_client *lazy = bed_connect_up(b, &b->ann), *good = bed_connect_up(b, &b->bob);
    uint8_t *big = calloc(1, TERN_MAX_PAYLOAD_BYTES);
    struct pollfd fds[TERN_SERVER_FDS];
    unsigned sent = 0, got = 0, turns = 0;
    struct tern_link_message m, in;
    enum tern_status st = TERN_OK;
    uint64_t end;
    struct tern_err err;

    assert_non_null(big);
    bed_exchange(b, good, &b->bob);
    tern_link_message_init(&m);
    tern_link_message_init(&in);
    bed_client_send(b, lazy, "here", NULL, 0);
    bed_server_take(b, lazy, &m);
    for (end = tern_now_ms() + 800; tern_now_ms() < end && sent < 1000; turns++) {
        st = tern_server_send(b->server, m.route, m.route_len, "h", 1, big, TERN_MAX_PAYLOAD_BYTES, &err);
        if (st == TERN_OK) {
            sent++;
            end = tern_now_ms() + 800; /* the other end still takes some */
        } else if (!tern_server_poll_fds(b->server, fds))
            poll(fds, TERN_SERVER_FDS, 20);
        assert_int_equal(tern_server_recv(b->server, &in, &err), TERN_AGAIN);
    }
    assert_int_equal(st, TERN_AGAIN);
    assert_true(turns < sent + 200);
    bed_exchange(b, good, &b->bob);
    for (end = tern_now_ms() + BED_PATIENCE_MS; got < sent && tern_now_ms() < end;) {
        st = tern_client_recv(lazy, &in, &err);
        got += st == TERN_OK;
        if (st == TERN_AGAIN)
            bed_turn(b, lazy);
    }
    assert_int_equal(got, sent);
    bed_ok(tern_server_send(b->server, m.route, m.route_len, "room", 4, NULL, 0, &err), &err);
    tern_link_message_close(&m);
    tern_link_message_close(&in);
    free(big);
    bed_hang_up(b, &lazy);
    bed_hang_up(b, &good);
}

static void test_busy_and_wrong_addresses(void **state)
{
    static const char *const wrong[] = { "",
                                         "7101",
                                         "127.0.0.1",
                                         "127.0.0.1:",
                                         "127.0.0.1:65536",
                                         "127.0.0.1:-1",
                                         "127.0.0.1:7 1",
                                         "tcp://127.0.0.1:7101",
                                         "a b:7101",
                                         "[::1:7101" };
    struct bed *b = *state;
    struct tern_link_context *ctx;
    struct tern_server *s = NULL;
    struct tern_client *c = NULL;
    struct tern_err err;

    bed_ok(tern_link_context_new(&ctx, &err), &err);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(tern_server_open(ctx, wrong[i], &b->server_key, &b->allow, &s, &err),
                         TERN_ERR_USAGE);
        assert_int_equal(tern_client_open(ctx, wrong[i], &b->ann, b->server_key.public_key, &c, &err),
                         i == 7 ? TERN_OK : TERN_ERR_USAGE);
        bed_hang_up(b, &c);
    }
    assert_int_equal(
        tern_server_open(ctx, tern_server_endpoint(b->server) + 6, &b->server_key, &b->allow, &s, &err),
        TERN_ERR_IO);
    assert_non_null(strstr(err.text, "in use"));
    assert_int_equal(tern_server_open(ctx, "203.0.113.1:0", &b->server_key, &b->allow, &s, &err),
                     TERN_ERR_IO);
    assert_non_null(strstr(err.text, "no such address"));
    /* None of the failures has left a ZAP handler behind. */
    bed_ok(tern_server_open(ctx, "localhost:*", &b->server_key, &b->allow, &s, &err), &err);
    assert_memory_equal(tern_server_endpoint(s), "tcp://127.0.0.1:", 16);
    tern_server_close(&s);
    tern_link_context_free(&ctx);
}

static void test_ipv6(void **state)
{
    struct bed *b = *state;
    struct tern_client *c;
    struct tern_err err;

    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    bed_ok(tern_link_context_new(&b->server_ctx, &err), &err);
    if (tern_server_open(b->server_ctx, "[::1]:0", &b->server_key, &b->allow, &b->server, &err)) {
        print_message("no IPv6 on this machine: %s\n", err.text);
        skip();
    }
    c = bed_connect_up(b, &b->ann);
    bed_exchange(b, c, &b->ann);
    bed_hang_up(b, &c);
}

/* In place of the C library's: a name server that does not answer.  libzmq asks on its own thread. */
#define SLOW_HOST "slow.invalid"
#define SLOW_US   3000000

int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict out)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    if (node && strcmp(node, SLOW_HOST) == 0) {
        usleep(SLOW_US);
        return EAI_AGAIN;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hints, out);
}

/* The end of a program does not wait for its name server. */
static void test_end_while_a_name_is_looked_up(void **state)
{
    struct bed *b = *state;
    struct tern_link_context *ctx;
    struct tern_client *c;
    struct tern_err err;
    uint64_t start;

    bed_ok(tern_link_context_new(&ctx, &err), &err);
    bed_ok(tern_client_open(ctx, "tcp://" SLOW_HOST ":7000", &b->ann, b->server_key.public_key, &c, &err),
           &err);
    usleep(300000);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_CONNECTING);
    start = tern_now_ms();
    tern_client_close(&c);
    tern_link_context_free(&ctx);
    assert_null(ctx);
    assert_in_range(tern_now_ms() - start, 0, SLOW_US / 1000 - 600);
    usleep(SLOW_US); /* so that nothing of it is left when this program ends */
}

int main(void)
{
#define BED(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        BED(test_listed_keys_work),
        BED(test_removed_key),
        BED(test_late_server),
        BED(test_server_dies),
        BED(test_client_goes),
        BED(test_full_queue),
        BED(test_full_queue_home),
        BED(test_busy_and_wrong_addresses),
        BED(test_ipv6),
        BED(test_end_while_a_name_is_looked_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
