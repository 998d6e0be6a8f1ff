/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links over loopback that must not come about, and peers that misbehave: each refused, counted, told why,
 * and a link that stands goes on.
 */
#include "unit/link_bed.h"

#include "engine/base/log.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static void test_unknown_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_as(b, &b->eve, b->server_key.public_key);
    char z85[TERN_Z85_CHARS + 1];
    struct tern_err err;

    assert_int_equal(bed_settle(b, c, BED_PATIENCE_MS), TERN_CLIENT_REFUSED);
    tern_key_to_z85(b->eve.public_key, z85);
    assert_non_null(strstr(tern_client_why(c), "allow-list"));
    assert_non_null(strstr(tern_client_why(c), z85));
    assert_int_equal(tern_client_send(c, "x", 1, NULL, 0, &err), TERN_ERR_PEER);
    bed_wait_count(b, &tern_server_stats(b->server)->refused_key, 1, BED_PATIENCE_MS);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    bed_hang_up(b, &c);
}

static void test_wrong_server_key(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_as(b, &b->ann, b->eve.public_key);

    assert_int_equal(bed_settle(b, c, BED_PATIENCE_MS), TERN_CLIENT_REFUSED);
    assert_non_null(strstr(tern_client_why(c), "public key"));
    /* The server may hear of the last attempt after the client. */
    for (int i = 0; i < 4000 && tern_server_stats(b->server)->refused_protocol < 3; i++)
        bed_turn(b, NULL);
    assert_true(tern_server_stats(b->server)->refused_protocol >= 3);
    assert_int_equal(tern_server_stats(b->server)->accepted, 0);
    bed_hang_up(b, &c);
}

static void test_plaintext_peer(void **state)
{
    struct bed *b = *state;
    struct tern_client *good = bed_connect_up(b, &b->ann);
    void *d = tern_link_socket(b->client_ctx, ZMQ_DEALER);
    struct tern_link_message m;
    int never = 3600000, zero = 0;
    struct tern_err err;

    zmq_setsockopt(d, ZMQ_RECONNECT_IVL, &never, sizeof never);
    zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    assert_int_equal(zmq_send(d, "hello", 5, ZMQ_DONTWAIT), 5);
    bed_wait_count(b, &tern_server_stats(b->server)->refused_protocol, 1, BED_PATIENCE_MS);
    tern_link_message_init(&m);
    assert_int_equal(tern_server_recv(b->server, &m, &err), TERN_AGAIN);
    bed_wait_count(b, &tern_server_stats(b->server)->accepted, 1, BED_PATIENCE_MS);
    bed_exchange(b, good, &b->ann);
    zmq_close(d);
    bed_hang_up(b, &good);
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
    struct tern_client *good = bed_connect_up(b, &b->ann);
    const uint64_t *refused = &tern_server_stats(b->server)->refused_protocol;
    uint8_t noise[300];
    uint32_t rng = 1;
    int fd;

    bed_exchange(b, good, &b->ann);
    fd = raw_connect(b);
    raw_send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    bed_wait_count(b, refused, 1, BED_PATIENCE_MS);
    close(fd);

    for (unsigned round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof noise; i++) {
            rng = rng * 1664525u + 1013904223u;
            noise[i] = (uint8_t)(rng >> 24);
        }
        noise[0] = round % 2 ? 0xff : noise[0]; /* half of them look like ZMTP at first */
        fd = raw_connect(b);
        raw_send(fd, noise, sizeof noise);
        bed_wait_count(b, refused, 2 + round, BED_PATIENCE_MS);
        close(fd);
    }
    bed_exchange(b, good, &b->ann);
    bed_wait_count(b, &tern_server_stats(b->server)->accepted, 1, BED_PATIENCE_MS);
    assert_int_equal(tern_server_stats(b->server)->closed, 0);
    bed_hang_up(b, &good);
}

/* A frame over the limit, announced before and after the handshake. */
static void test_oversize(void **state)
{
    struct bed *b = *state;
    struct tern_client *good = bed_connect_up(b, &b->ann), *bad;
    size_t n = 4 * TERN_MAX_PAYLOAD_BYTES;
    uint8_t *big = calloc(1, n);
    uint64_t end;
    int fd;

    assert_non_null(big);
    bed_exchange(b, good, &b->ann);
    fd = raw_connect(b);
    send_greeting(fd, TERN_LINK_MAX_FRAME + 1);
    bed_wait_count(b, &tern_server_stats(b->server)->refused_protocol, 1, BED_PATIENCE_MS);
    close(fd);

    bad = bed_connect_up(b, &b->bob);
    bed_exchange(b, bad, &b->bob);
    bed_client_send(b, bad, "x", big, n);
    end = tern_now_ms() + BED_PATIENCE_MS;
    while (tern_client_pump(bad) == TERN_CLIENT_UP && tern_now_ms() < end)
        bed_turn(b, bad);
    assert_int_equal(tern_client_pump(bad), TERN_CLIENT_LOST);
    bed_wait_count(b, &tern_server_stats(b->server)->closed, 1, BED_PATIENCE_MS);
    bed_exchange(b, good, &b->ann);
    free(big);
    bed_hang_up(b, &bad);
    bed_hang_up(b, &good);
}

/* A peer with bob's key and without Tern's manners. */
static void *open_rude(struct bed *b)
{
    void *d = tern_link_socket(b->client_ctx, ZMQ_DEALER);
    struct tern_err err;

    bed_ok(tern_link_set_int(d, ZMQ_LINGER, 0, &err), &err);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_SERVERKEY, b->server_key.public_key, TERN_KEY_BYTES, &err), &err);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_PUBLICKEY, b->bob.public_key, TERN_KEY_BYTES, &err), &err);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_SECRETKEY, b->bob.secret_key, TERN_KEY_BYTES, &err), &err);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    return d;
}

/* A header larger than a header may be passes libzmq's limit, and three frames do: they are taken off and
 * counted. */
static void test_bad_frames(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_up(b, &b->ann);
    char *header = malloc(TERN_MAX_HEADER_BYTES + 2);
    struct tern_link_message m;
    void *d;

    assert_non_null(header);
    memset(header, 'h', TERN_MAX_HEADER_BYTES + 1);
    header[TERN_MAX_HEADER_BYTES + 1] = '\0';
    bed_client_send(b, c, header, NULL, 0);
    bed_client_send(b, c, "fine", NULL, 0);
    tern_link_message_init(&m);
    bed_server_take(b, c, &m);
    assert_true(bed_msg_is(&m.header, "fine"));
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 1);

    d = open_rude(b);
    for (unsigned n = 3; n < 40; n += 12)
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(zmq_send(d, "f", 1, ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)), 1);
    assert_int_equal(zmq_send(d, "last", 4, ZMQ_DONTWAIT), 4);
    bed_server_take(b, c, &m);
    assert_true(bed_msg_is(&m.header, "last"));
    assert_memory_equal(m.from_key, b->bob.public_key, TERN_KEY_BYTES);
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 5);
    bed_exchange(b, c, &b->ann);
    tern_link_message_close(&m);
    zmq_close(d);
    free(header);
    bed_hang_up(b, &c);
}

/* Bursts of refused messages, more than are skipped in one go: "nothing is waiting" is never said while
 * something is, of which no descriptor would tell again. */
static void test_behind_a_burst(void **state)
{
    enum { PEERS = 16, REFUSED = 8 };
    struct bed *b = *state;
    struct tern_link_message m;
    struct pollfd fds[TERN_SERVER_FDS];
    void *d[PEERS];
    unsigned n_fine = 0, n_more = 0; /* n_more: depends on how fast libzmq's thread is */
    struct tern_err err;

    for (unsigned p = 0; p < PEERS; p++) {
        d[p] = open_rude(b);
        for (unsigned i = 0; i < REFUSED; i++)
            for (unsigned f = 0; f < 3; f++)
                assert_int_equal(zmq_send(d[p], "f", 1, ZMQ_DONTWAIT | (f < 2 ? ZMQ_SNDMORE : 0)), 1);
        assert_int_equal(zmq_send(d[p], "fine", 4, ZMQ_DONTWAIT), 4);
    }
    bed_wait_count(b, &tern_server_stats(b->server)->accepted, PEERS, BED_PATIENCE_MS);
    poll(NULL, 0, 300); /* all that libzmq reads ahead is there now */
    tern_link_message_init(&m);
    while (n_fine < PEERS) {
        enum tern_status st = tern_server_recv(b->server, &m, &err);

        if (st == TERN_AGAIN) {
            (void)tern_server_poll_fds(b->server, fds);
            assert_int_equal(poll(fds, 1, BED_PATIENCE_MS), 1);
        } else if (st == TERN_ERR_FORMAT) {
            n_more++;
        } else {
            bed_ok(st, &err);
            assert_true(bed_msg_is(&m.header, "fine"));
            n_fine++;
        }
    }
    print_message("told %u times that there may be more\n", n_more);
    assert_int_equal(tern_server_stats(b->server)->refused_frames, PEERS * REFUSED);
    tern_link_message_close(&m);
    for (unsigned p = 0; p < PEERS; p++)
        zmq_close(d[p]);
}

/* A peer that chooses a routing id of its own: a long one is refused, and no one loses his replies. */
static void test_routing_id_of_ones_own(void **state)
{
    struct bed *b = *state;
    struct tern_client *c = bed_connect_up(b, &b->ann);
    void *d = tern_link_socket(b->client_ctx, ZMQ_DEALER);
    char id[200];
    int zero = 0;
    struct tern_err err;

    memset(id, 'i', sizeof id);
    zmq_setsockopt(d, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(d, ZMQ_ROUTING_ID, id, sizeof id);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_SERVERKEY, b->server_key.public_key, TERN_KEY_BYTES, &err), &err);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_PUBLICKEY, b->bob.public_key, TERN_KEY_BYTES, &err), &err);
    bed_ok(tern_link_set_bytes(d, ZMQ_CURVE_SECRETKEY, b->bob.secret_key, TERN_KEY_BYTES, &err), &err);
    assert_int_equal(zmq_connect(d, tern_server_endpoint(b->server)), 0);
    assert_int_equal(zmq_send(d, "squat", 5, ZMQ_DONTWAIT), 5);
    for (uint64_t end = tern_now_ms() + BED_PATIENCE_MS;
         tern_server_stats(b->server)->refused_frames == 0 && tern_now_ms() < end;) {
        struct tern_link_message m;

        tern_link_message_init(&m);
        bed_turn(b, c);
        assert_int_equal(tern_server_recv(b->server, &m, &err), TERN_AGAIN);
        tern_link_message_close(&m);
    }
    assert_int_equal(tern_server_stats(b->server)->refused_frames, 1);
    bed_exchange(b, c, &b->ann);
    zmq_close(d);
    bed_hang_up(b, &c);
}

static void test_no_server_without_zap(void **state)
{
    struct bed *b = *state;
    struct tern_link_context *ctx;
    struct tern_server *s = NULL;
    struct tern_err err;
    void *squatter;

    bed_ok(tern_link_context_new(&ctx, &err), &err);
    squatter = tern_link_socket(ctx, ZMQ_REP);
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

    bed_ok(tern_link_context_new(&ctx, &err), &err);
    router = tern_link_socket(ctx, ZMQ_ROUTER);
    bed_ok(tern_link_set_common(router, false, &err), &err);
    bed_ok(tern_link_set_int(router, ZMQ_CURVE_SERVER, 1, &err), &err);
    bed_ok(tern_link_set_bytes(router, ZMQ_CURVE_SECRETKEY, key.secret_key, TERN_KEY_BYTES, &err), &err);
    bed_ok(tern_link_set_bytes(router, ZMQ_ZAP_DOMAIN, TERN_ZAP_DOMAIN, 4, &err), &err);
    bed_ok(tern_link_set_int(router, ZMQ_ZAP_ENFORCE_DOMAIN, 1, &err), &err);
    assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &n), 0);
    bed_ok(tern_client_open(b->client_ctx, endpoint, &b->ann, key.public_key, &c, &err), &err);
    bed_keep(b, c);
    assert_int_not_equal(bed_settle(b, c, 1500), TERN_CLIENT_UP);
    bed_hang_up(b, &c);
    zmq_close(router);
    tern_link_context_free(&ctx);
}

int main(void)
{
#define BED(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)
    const struct CMUnitTest tests[] = {
        BED(test_unknown_key),
        BED(test_wrong_server_key),
        BED(test_plaintext_peer),
        BED(test_garbage),
        BED(test_oversize),
        BED(test_bad_frames),
        BED(test_behind_a_burst),
        BED(test_routing_id_of_ones_own),
        BED(test_no_server_without_zap),
        BED(test_handler_vanishes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
