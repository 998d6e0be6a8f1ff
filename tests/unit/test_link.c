/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links over loopback: who gets in, who does not and is told why, and what each end sees when the other
 * misbehaves or dies.
 */
#include "proto/link_impl.h"

#include "engine/base/log.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

/* A server with two keys on its list, and the contexts of both ends. */
struct bed {
    struct tern_link_context *server_ctx, *client_ctx;
    struct tern_server *server;
    struct tern_allow allow;
    struct tern_key server_key, ann, bob, eve; /* eve is not on the list */
    char list[64];
};

static void ok(enum tern_status st, const struct tern_err *err)
{
    if (st)
        fail_msg("%s: %s", tern_status_name(st), err->text);
}

static void write_list(struct bed *b, bool with_bob)
{
    char ann[TERN_Z85_CHARS + 1], bob[TERN_Z85_CHARS + 1];
    FILE *f = fopen(b->list, "w");

    assert_non_null(f);
    tern_key_to_z85(b->ann.public_key, ann);
    tern_key_to_z85(b->bob.public_key, bob);
    fprintf(f, "# who may\nann coordinator %s\n", ann);
    if (with_bob)
        fprintf(f, "bob worker %s\n", bob);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    struct tern_err err;
    int fd;

    assert_non_null(b);
    ok(tern_keys_init(&err), &err);
    ok(tern_key_generate(&b->server_key, &err), &err);
    ok(tern_key_generate(&b->ann, &err), &err);
    ok(tern_key_generate(&b->bob, &err), &err);
    ok(tern_key_generate(&b->eve, &err), &err);
    strcpy(b->list, "/tmp/tern-allow-XXXXXX");
    fd = mkstemp(b->list);
    assert_true(fd >= 0);
    close(fd);
    write_list(b, true);
    ok(tern_allow_open(b->list, &b->allow, &err), &err);
    ok(tern_link_context_new(&b->server_ctx, &err), &err);
    ok(tern_link_context_new(&b->client_ctx, &err), &err);
    ok(tern_server_open(b->server_ctx, "127.0.0.1:0", &b->server_key, &b->allow, &b->server, &err), &err);
    alarm(60); /* a hang is a failure too */
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bed *b = *state;

    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    tern_link_context_free(&b->client_ctx);
    tern_allow_close(&b->allow);
    tern_key_wipe(&b->server_key);
    tern_key_wipe(&b->ann);
    tern_key_wipe(&b->bob);
    tern_key_wipe(&b->eve);
    unlink(b->list);
    free(b);
    return 0;
}

/* One turn of both loops, a few milliseconds long. */
static void turn(struct bed *b, struct tern_client *c)
{
    zmq_pollitem_t items[TERN_SERVER_POLL_ITEMS + TERN_CLIENT_POLL_ITEMS];
    int n = 0;

    if (b->server) {
        tern_server_poll_items(b->server, items);
        n += TERN_SERVER_POLL_ITEMS;
    }
    if (c) {
        tern_client_poll_items(c, items + n);
        n += TERN_CLIENT_POLL_ITEMS;
    }
    zmq_poll(items, n, 5);
    if (b->server)
        tern_server_pump(b->server);
    if (c)
        tern_client_pump(c);
}

/* Until the client's state is no longer CONNECTING. */
static enum tern_client_state settle(struct bed *b, struct tern_client *c, uint64_t timeout_ms)
{
    uint64_t end = tern_now_ms() + timeout_ms;

    while (tern_client_pump(c) == TERN_CLIENT_CONNECTING && tern_now_ms() < end)
        turn(b, c);
    return tern_client_pump(c);
}

static struct tern_client *connect_as(struct bed *b, const struct tern_key *key, const uint8_t *server_key)
{
    struct tern_client *c;
    struct tern_err err;

    ok(tern_client_open(b->client_ctx, tern_server_endpoint(b->server), key, server_key, &c, &err), &err);
    return c;
}

static struct tern_client *connect_up(struct bed *b, const struct tern_key *key)
{
    struct tern_client *c = connect_as(b, key, b->server_key.public_key);

    assert_int_equal(settle(b, c, 5000), TERN_CLIENT_UP);
    return c;
}

/* The next message at the server; fails after two seconds. */
static void server_take(struct bed *b, struct tern_client *c, struct tern_link_message *m)
{
    uint64_t end = tern_now_ms() + 2000;
    struct tern_err err;
    enum tern_status st;

    while ((st = tern_server_recv(b->server, m, &err)) == TERN_AGAIN && tern_now_ms() < end)
        turn(b, c);
    ok(st, &err);
}

static void client_send(struct bed *b, struct tern_client *c, const char *header, const void *payload,
                        size_t n)
{
    uint64_t end = tern_now_ms() + 2000;
    struct tern_err err;
    enum tern_status st;

    while ((st = tern_client_send(c, header, strlen(header), payload, n, &err)) == TERN_AGAIN &&
           tern_now_ms() < end)
        turn(b, c);
    ok(st, &err);
}

static bool msg_is(zmq_msg_t *m, const char *text)
{
    return zmq_msg_size(m) == strlen(text) && memcmp(zmq_msg_data(m), text, strlen(text)) == 0;
}

/* Turns until *counter reaches n; fails after `timeout_ms`. */
static void wait_count(struct bed *b, const uint64_t *counter, uint64_t n, uint64_t timeout_ms)
{
    uint64_t end = tern_now_ms() + timeout_ms;

    while (*counter < n && tern_now_ms() < end)
        turn(b, NULL);
    assert_int_equal(*counter, n);
}

/* That the link of a listed peer works, both ways, with a maximal payload. */
static void exchange(struct bed *b, struct tern_client *c, const struct tern_key *key)
{
    uint8_t *big = malloc(TERN_MAX_PAYLOAD_BYTES);
    struct tern_link_message m;
    uint64_t end = tern_now_ms() + 2000;
    struct tern_err err;
    enum tern_status st;

    assert_non_null(big);
    for (size_t i = 0; i < TERN_MAX_PAYLOAD_BYTES; i++)
        big[i] = (uint8_t)(i * 7 + i / 256);
    tern_link_message_init(&m);
    client_send(b, c, "to server", big, TERN_MAX_PAYLOAD_BYTES);
    server_take(b, c, &m);
    assert_true(msg_is(&m.header, "to server") && m.has_payload);
    assert_int_equal(zmq_msg_size(&m.payload), TERN_MAX_PAYLOAD_BYTES);
    assert_memory_equal(zmq_msg_data(&m.payload), big, TERN_MAX_PAYLOAD_BYTES);
    assert_memory_equal(m.from_key, key->public_key, TERN_KEY_BYTES);
    ok(tern_server_send(b->server, m.route, m.route_len, "to client", 9, NULL, 0, &err), &err);
    while ((st = tern_client_recv(c, &m, &err)) == TERN_AGAIN && tern_now_ms() < end)
        turn(b, c);
    ok(st, &err);
    assert_true(msg_is(&m.header, "to client") && !m.has_payload);
    tern_link_message_close(&m);
    free(big);
}

static void test_listed_keys_work(void **state)
{
    struct bed *b = *state;
    struct tern_client *a = connect_up(b, &b->ann), *c = connect_up(b, &b->bob);
    const struct tern_allow_entry *e = tern_allow_find(&b->allow, b->ann.public_key);

    exchange(b, a, &b->ann);
    exchange(b, c, &b->bob);
    assert_string_equal(e->name, "ann");
    assert_int_equal(e->role, TERN_ROLE_COORDINATOR);
    assert_int_equal(tern_server_stats(b->server)->accepted, 2);
    assert_string_equal(tern_client_why(a), "");
    tern_client_close(&a);
    tern_client_close(&c);
    wait_count(b, &tern_server_stats(b->server)->closed, 2, 2000);
    assert_int_equal(tern_server_stats(b->server)->refused_protocol, 0);
}

static void test_unknown_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_as(b, &b->eve, b->server_key.public_key);
    char z85[TERN_Z85_CHARS + 1];
    struct tern_err err;

    assert_int_equal(settle(b, c, 5000), TERN_CLIENT_REFUSED);
    tern_key_to_z85(b->eve.public_key, z85);
    assert_non_null(strstr(tern_client_why(c), "allow-list"));
    assert_non_null(strstr(tern_client_why(c), z85));
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_ERR_PEER);
    assert_int_equal(tern_server_stats(b->server)->refused_key, 1);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    tern_client_close(&c);
}

static void test_wrong_server_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_as(b, &b->ann, b->eve.public_key);
    uint64_t t = tern_now_ms();

    assert_int_equal(settle(b, c, 5000), TERN_CLIENT_REFUSED);
    assert_true(tern_now_ms() - t < 3000);
    assert_non_null(strstr(tern_client_why(c), "public key"));
    assert_true(tern_server_stats(b->server)->refused_protocol >= 3);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    tern_client_close(&c);
}

static void test_plaintext_peer(void **state)
{
    struct bed *b = *state;
    struct tern_client *good = connect_up(b, &b->ann);
    void *d = zmq_socket(tern_link_context_raw(b->client_ctx), ZMQ_DEALER);
    struct tern_link_message m;
    int never = 3600000, zero = 0;
    struct tern_err err;

    zmq_setsockopt(d, ZMQ_RECONNECT_IVL, &never, sizeof never);
    zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    assert_int_equal(zmq_send(d, "hello", 5, ZMQ_DONTWAIT), 5);
    wait_count(b, &tern_server_stats(b->server)->refused_protocol, 1, 4000);
    tern_link_message_init(&m);
    assert_int_equal(tern_server_recv(b->server, &m, &err), TERN_AGAIN);
    assert_int_equal(tern_server_stats(b->server)->accepted, 1);
    exchange(b, good, &b->ann);
    zmq_close(d);
    tern_client_close(&good);
}

static int raw_connect(const struct bed *b)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)atoi(strrchr(tern_server_endpoint(b->server), ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void raw_send(int fd, const void *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* ZMTP 3.0's greeting of a CURVE client, then the head of a frame of `n` bytes. */
static void send_greeting(int fd, uint64_t n)
{
    uint8_t bytes[73] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E' };

    bytes[64] = 6; /* a long command */
    for (unsigned i = 0; i < 8; i++)
        bytes[65 + i] = (uint8_t)(n >> (56 - 8 * i));
    raw_send(fd, bytes, sizeof bytes);
}

static void test_garbage(void **state)
{
    struct bed *b = *state;
    struct tern_client *good = connect_up(b, &b->ann);
    const uint64_t *refused = &tern_server_stats(b->server)->refused_protocol;
    uint8_t noise[300];
    uint32_t rng = 1;
    int fd;

    exchange(b, good, &b->ann);
    fd = raw_connect(b);
    raw_send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    wait_count(b, refused, 1, 4000);
    close(fd);

    for (unsigned round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof noise; i++) {
            rng = rng * 1664525u + 1013904223u;
            noise[i] = (uint8_t)(rng >> 24);
        }
        noise[0] = round % 2 ? 0xff : noise[0]; /* half of them look like ZMTP at first */
        fd = raw_connect(b);
        raw_send(fd, noise, sizeof noise);
        wait_count(b, refused, 2 + round, 4000);
        close(fd);
    }
    exchange(b, good, &b->ann);
    assert_int_equal(tern_server_stats(b->server)->accepted, 1);
    assert_int_equal(tern_server_stats(b->server)->closed, 0);
    tern_client_close(&good);
}

/* A frame over the limit, announced before and after the handshake. */
static void test_oversize(void **state)
{
    struct bed *b = *state;
    struct tern_client *good = connect_up(b, &b->ann), *bad;
    size_t n = 4 * TERN_MAX_PAYLOAD_BYTES;
    uint8_t *big = calloc(1, n);
    uint64_t end;
    int fd;

    assert_non_null(big);
    exchange(b, good, &b->ann);
    fd = raw_connect(b);
    send_greeting(fd, TERN_LINK_MAX_FRAME + 1);
    wait_count(b, &tern_server_stats(b->server)->refused_protocol, 1, 4000);
    close(fd);

    bad = connect_up(b, &b->bob);
    exchange(b, bad, &b->bob);
    client_send(b, bad, "x", big, n);
    end = tern_now_ms() + 2000;
    while (tern_client_pump(bad) == TERN_CLIENT_UP && tern_now_ms() < end)
        turn(b, bad);
    assert_int_equal(tern_client_pump(bad), TERN_CLIENT_LOST);
    wait_count(b, &tern_server_stats(b->server)->closed, 1, 2000);
    exchange(b, good, &b->ann);
    free(big);
    tern_client_close(&bad);
    tern_client_close(&good);
}

/* A header larger than a header may be passes libzmq's limit, and three frames do: they are taken off and
 * counted. */
static void test_bad_frames(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_up(b, &b->ann);
    char *header = malloc(TERN_MAX_HEADER_BYTES + 2);
    struct tern_link_message m;
    void *d = zmq_socket(tern_link_context_raw(b->client_ctx), ZMQ_DEALER);
    int zero = 0;
    struct tern_err err;

    assert_non_null(header);
    memset(header, 'h', TERN_MAX_HEADER_BYTES + 1);
    header[TERN_MAX_HEADER_BYTES + 1] = '\0';
    client_send(b, c, header, NULL, 0);
    client_send(b, c, "fine", NULL, 0);
    tern_link_message_init(&m);
    server_take(b, c, &m);
    assert_true(msg_is(&m.header, "fine"));
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 1);

    zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof zero);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_SERVERKEY, b->server_key.public_key, TERN_KEY_BYTES, &err), &err);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_PUBLICKEY, b->bob.public_key, TERN_KEY_BYTES, &err), &err);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_SECRETKEY, b->bob.secret_key, TERN_KEY_BYTES, &err), &err);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    for (unsigned n = 3; n < 40; n += 12)
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(zmq_send(d, "f", 1, ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)), 1);
    assert_int_equal(zmq_send(d, "last", 4, ZMQ_DONTWAIT), 4);
    server_take(b, c, &m);
    assert_true(msg_is(&m.header, "last"));
    assert_memory_equal(m.from_key, b->bob.public_key, TERN_KEY_BYTES);
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 5);
    exchange(b, c, &b->ann);
    tern_link_message_close(&m);
    zmq_close(d);
    free(header);
    tern_client_close(&c);
}

/* A peer that chooses a routing id of its own: a long one is refused, and no one loses his replies. */
static void test_routing_id_of_ones_own(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_up(b, &b->ann);
    void *d = zmq_socket(tern_link_context_raw(b->client_ctx), ZMQ_DEALER);
    char id[200];
    int zero = 0;
    struct tern_err err;

    memset(id, 'i', sizeof id);
    zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(d, ZMQ_ROUTING_ID, id, sizeof id);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_SERVERKEY, b->server_key.public_key, TERN_KEY_BYTES, &err), &err);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_PUBLICKEY, b->bob.public_key, TERN_KEY_BYTES, &err), &err);
    ok(tern_link_set_bytes(d, ZMQ_CURVE_SECRETKEY, b->bob.secret_key, TERN_KEY_BYTES, &err), &err);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    assert_int_equal(zmq_send(d, "squat", 5, ZMQ_DONTWAIT), 5);
    for (uint64_t end = tern_now_ms() + 2000;
         tern_server_stats(b->server)->refused_frames == 0 && tern_now_ms() < end;) {
        struct tern_link_message m;

        tern_link_message_init(&m);
        turn(b, c);
        assert_int_equal(tern_server_recv(b->server, &m, &err), TERN_AGAIN);
        tern_link_message_close(&m);
    }
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 1);
    exchange(b, c, &b->ann);
    zmq_close(d);
    tern_client_close(&c);
}

static void test_removed_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_up(b, &b->bob), *again;
    struct tern_link_message m;
    bool changed;

    exchange(b, c, &b->bob);
    write_list(b, false);
    tern_allow_refresh(&b->allow, &changed);
    assert_true(changed);

    /* The old connection stands, and its messages say whose they are: the owner looks the key up. */
    tern_link_message_init(&m);
    client_send(b, c, "still here", NULL, 0);
    server_take(b, c, &m);
    assert_null(tern_allow_find(&b->allow, m.from_key));
    tern_link_message_close(&m);

    /* A new one is refused, until the key is back. */
    again = connect_as(b, &b->bob, b->server_key.public_key);
    assert_int_equal(settle(b, again, 5000), TERN_CLIENT_REFUSED);
    tern_client_close(&again);
    write_list(b, true);
    tern_allow_refresh(&b->allow, &changed);
    assert_true(changed);
    again = connect_up(b, &b->bob);
    exchange(b, again, &b->bob);
    tern_client_close(&again);
    tern_client_close(&c);
}

static void test_late_server(void **state)
{
    struct bed *b = *state;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    struct tern_client *c;
    struct tern_err err;
    uint64_t end;

    strcpy(endpoint, tern_server_endpoint(b->server));
    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    ok(tern_client_open(b->client_ctx, endpoint, &b->ann, b->server_key.public_key, &c, &err), &err);
    end = tern_now_ms() + 600;
    while (tern_now_ms() < end)
        turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_CONNECTING);
    assert_non_null(strstr(tern_client_why(c), "nobody answers"));
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_AGAIN);

    ok(tern_link_context_new(&b->server_ctx, &err), &err);
    ok(tern_server_open(b->server_ctx, endpoint + 6, &b->server_key, &b->allow, &b->server, &err), &err);
    assert_int_equal(settle(b, c, 5000), TERN_CLIENT_UP);
    exchange(b, c, &b->ann);
    tern_client_close(&c);
}

/* The server is a process of its own here, and is killed. */
static void test_server_dies(void **state)
{
    struct bed *b = *state;
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1] = "";
    struct tern_link_message m;
    struct tern_client *c;
    zmq_pollitem_t items[TERN_CLIENT_POLL_ITEMS];
    struct tern_err err;
    uint64_t t, end;
    int fds[2], status;
    pid_t pid;

    tern_server_close(&b->server);
    tern_link_context_free(&b->server_ctx);
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct tern_link_context *ctx;
        struct tern_server *s;

        if (tern_link_context_new(&ctx, &err) ||
            tern_server_open(ctx, "127.0.0.1:0", &b->server_key, &b->allow, &s, &err) ||
            write(fds[1], tern_server_endpoint(s), strlen(tern_server_endpoint(s))) < 0)
            _exit(1);
        tern_link_message_init(&m);
        for (;;) {
            zmq_pollitem_t served[TERN_SERVER_POLL_ITEMS];

            tern_server_poll_items(s, served);
            zmq_poll(served, TERN_SERVER_POLL_ITEMS, 100);
            tern_server_pump(s);
            if (tern_server_recv(s, &m, &err) == TERN_OK &&
                tern_server_send(s, m.route, m.route_len, "last words", 10, NULL, 0, &err))
                _exit(2);
        }
    }
    assert_true(read(fds[0], endpoint, sizeof endpoint - 1) > 0);
    ok(tern_client_open(b->client_ctx, endpoint, &b->ann, b->server_key.public_key, &c, &err), &err);
    assert_int_equal(settle(b, c, 5000), TERN_CLIENT_UP);
    client_send(b, c, "speak", NULL, 0);
    tern_client_poll_items(c, items);
    assert_int_equal(zmq_poll(items, 1, 3000), 1);

    kill(pid, SIGKILL);
    t = tern_now_ms();
    while (tern_client_pump(c) == TERN_CLIENT_UP && tern_now_ms() - t < 2000)
        turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_LOST);
    assert_true(tern_now_ms() - t < 500);
    assert_non_null(strstr(tern_client_why(c), "lost"));
    waitpid(pid, &status, 0);

    /* What had arrived is still there; nothing can be sent, and nothing connects again. */
    tern_link_message_init(&m);
    ok(tern_client_recv(c, &m, &err), &err);
    assert_true(msg_is(&m.header, "last words"));
    tern_link_message_close(&m);
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_ERR_PEER);
    ok(tern_link_context_new(&b->server_ctx, &err), &err);
    ok(tern_server_open(b->server_ctx, endpoint + 6, &b->server_key, &b->allow, &b->server, &err), &err);
    end = tern_now_ms() + 700;
    while (tern_now_ms() < end)
        turn(b, c);
    assert_int_equal(tern_client_pump(c), TERN_CLIENT_LOST);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    tern_client_close(&c);
    close(fds[0]);
    close(fds[1]);
}

static void test_client_goes(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_up(b, &b->ann);
    struct tern_link_message m;
    struct tern_err err;
    enum tern_status st;
    uint64_t end;

    tern_link_message_init(&m);
    client_send(b, c, "hi", NULL, 0);
    server_take(b, c, &m);
    tern_client_close(&c);
    wait_count(b, &tern_server_stats(b->server)->closed, 1, 2000);
    /* The monitor may be a little ahead of the socket. */
    end = tern_now_ms() + 2000;
    while ((st = tern_server_send(b->server, m.route, m.route_len, "x", 1, NULL, 0, &err)) == TERN_OK &&
           tern_now_ms() < end)
        turn(b, NULL);
    assert_int_equal(st, TERN_ERR_PEER);
    tern_link_message_close(&m);
}

/* A peer that does not read is told AGAIN to after a bounded number of messages, and gets all of them once
 * it does. */
static void test_full_queue(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = connect_up(b, &b->ann);
    uint8_t *big = calloc(1, TERN_MAX_PAYLOAD_BYTES);
    unsigned sent = 0, got = 0;
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
        ok(st, &err);
        sent++;
        assert_true(sent < 1000);
        usleep(1000);
    }
    end = tern_now_ms() + 10000;
    while (got < sent && tern_now_ms() < end) {
        unsigned no;

        st = tern_server_recv(b->server, &m, &err);
        if (st == TERN_AGAIN) {
            turn(b, c);
            continue;
        }
        ok(st, &err);
        memcpy(&no, zmq_msg_data(&m.payload), sizeof no);
        assert_int_equal(no, got);
        got++;
    }
    assert_int_equal(got, sent);
    exchange(b, c, &b->ann);
    tern_link_message_close(&m);
    free(big);
    tern_client_close(&c);
}

static void test_no_server_without_zap(void **state)
{
    struct bed *b = *state;
    struct tern_link_context *ctx;
    struct tern_server *s = NULL;
    struct tern_err err;
    void *squatter;

    ok(tern_link_context_new(&ctx, &err), &err);
    squatter = zmq_socket(tern_link_context_raw(ctx), ZMQ_REP);
    assert_int_equal(zmq_bind(squatter, TERN_ZAP_ENDPOINT), 0);
    assert_int_equal(tern_server_open(ctx, "127.0.0.1:0", &b->server_key, &b->allow, &s, &err),
                     TERN_ERR_STATE);
    assert_non_null(strstr(err.text, "every key would be accepted"));
    assert_null(s);
    zmq_close(squatter);
    tern_link_context_free(&ctx);
}

/* Should the handler vanish under a running server, nobody gets in any more. */
static void test_handler_vanishes(void **state)
{
    struct bed *b = *state;
    struct tern_link_context *ctx;
    struct tern_err err;
    struct tern_key key = b->server_key;
    char endpoint[64];
    size_t n = sizeof endpoint;
    struct tern_client *c;
    void *router;

    ok(tern_link_context_new(&ctx, &err), &err);
    router = zmq_socket(tern_link_context_raw(ctx), ZMQ_ROUTER);
    ok(tern_link_set_common(router, false, &err), &err);
    ok(tern_link_set_int(router, ZMQ_CURVE_SERVER, 1, &err), &err);
    ok(tern_link_set_bytes(router, ZMQ_CURVE_SECRETKEY, key.secret_key, TERN_KEY_BYTES, &err), &err);
    ok(tern_link_set_bytes(router, ZMQ_ZAP_DOMAIN, TERN_ZAP_DOMAIN, 4, &err), &err);
    ok(tern_link_set_int(router, ZMQ_ZAP_ENFORCE_DOMAIN, 1, &err), &err);
    assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &n), 0);
    ok(tern_client_open(b->client_ctx, endpoint, &b->ann, key.public_key, &c, &err), &err);
    assert_int_not_equal(settle(b, c, 1500), TERN_CLIENT_UP);
    tern_client_close(&c);
    zmq_close(router);
    tern_link_context_free(&ctx);
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

    ok(tern_link_context_new(&ctx, &err), &err);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(tern_server_open(ctx, wrong[i], &b->server_key, &b->allow, &s, &err),
                         TERN_ERR_USAGE);
        assert_int_equal(tern_client_open(ctx, wrong[i], &b->ann, b->server_key.public_key, &c, &err),
                         i == 7 ? TERN_OK : TERN_ERR_USAGE);
        tern_client_close(&c);
    }
    assert_int_equal(
        tern_server_open(ctx, tern_server_endpoint(b->server) + 6, &b->server_key, &b->allow, &s, &err),
        TERN_ERR_IO);
    assert_non_null(strstr(err.text, "in use"));
    assert_int_equal(tern_server_open(ctx, "203.0.113.1:0", &b->server_key, &b->allow, &s, &err),
                     TERN_ERR_IO);
    assert_non_null(strstr(err.text, "no such address"));
    /* None of the failures has left a ZAP handler behind. */
    ok(tern_server_open(ctx, "localhost:*", &b->server_key, &b->allow, &s, &err), &err);
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
    ok(tern_link_context_new(&b->server_ctx, &err), &err);
    if (tern_server_open(b->server_ctx, "[::1]:0", &b->server_key, &b->allow, &b->server, &err)) {
        print_message("no IPv6 on this machine: %s\n", err.text);
        skip();
    }
    c = connect_up(b, &b->ann);
    exchange(b, c, &b->ann);
    tern_client_close(&c);
}

int main(void)
{
#define BED(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        BED(test_listed_keys_work),
        BED(test_unknown_key),
        BED(test_wrong_server_key),
        BED(test_plaintext_peer),
        BED(test_garbage),
        BED(test_oversize),
        BED(test_bad_frames),
        BED(test_routing_id_of_ones_own),
        BED(test_removed_key),
        BED(test_late_server),
        BED(test_server_dies),
        BED(test_client_goes),
        BED(test_full_queue),
        BED(test_no_server_without_zap),
        BED(test_handler_vanishes),
        BED(test_busy_and_wrong_addresses),
        BED(test_ipv6),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
