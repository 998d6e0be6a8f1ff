/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intruder ENDPOINT SERVERKEY KEYFILE|- ATTACK: a peer that speaks the link's language and misbehaves.
 *
 * On purpose not built on proto/link.c, which would not let it: a bare DEALER with CURVE keys ("-": a key
 * of its own, unknown to all). Prints one line, `handshake=yes|no sent=N replies=N`, where replies are all
 * messages that came back.  The attack `hold` says hello ten times a second and prints its count after each
 * until stdin ends.
 */
#include "proto/keys.h"
#include "proto/wire.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define LISTEN_MS 400
#define SHAKE_MS  2000 /* longer than a handshake takes */

struct intruder {
    void *ctx, *socket, *monitor;
    bool shaken;
    unsigned sent, replies;
};

static void die(const char *what)
{
    fprintf(stderr, "intruder: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(70);
}

static void connect_to(struct intruder *in, const char *endpoint, const char *server, const char *key_file)
{
    struct tern_key key;
    struct tern_err err;
    uint8_t server_key[TERN_KEY_BYTES];
    int zero = 0;
    enum tern_status st =
        strcmp(key_file, "-") == 0 ? tern_key_generate(&key, &err) : tern_key_load(key_file, &key, &err);

    if (st || !tern_key_from_z85(server, strlen(server), server_key)) {
        fprintf(stderr, "intruder: %s\n", st ? err.text : "not a key");
        exit(64);
    }
    in->ctx = zmq_ctx_new();
    in->socket = zmq_socket(in->ctx, ZMQ_DEALER);
    if (!in->socket || zmq_setsockopt(in->socket, ZMQ_LINGER, &zero, sizeof zero) ||
        zmq_setsockopt(in->socket, ZMQ_CURVE_SERVERKEY, server_key, sizeof server_key) ||
        zmq_setsockopt(in->socket, ZMQ_CURVE_PUBLICKEY, key.public_key, TERN_KEY_BYTES) ||
        zmq_setsockopt(in->socket, ZMQ_CURVE_SECRETKEY, key.secret_key, TERN_KEY_BYTES) ||
        zmq_socket_monitor(in->socket, "inproc://events", ZMQ_EVENT_HANDSHAKE_SUCCEEDED))
        die("socket");
    in->monitor = zmq_socket(in->ctx, ZMQ_PAIR);
    if (!in->monitor || zmq_connect(in->monitor, "inproc://events") || zmq_connect(in->socket, endpoint))
        die(endpoint);
    tern_key_wipe(&key);
}

/* Counts what comes for some time; `shake`: until the handshake is over at most. */
static void listen_for(struct intruder *in, int ms, bool shake)
{
    uint64_t end = (uint64_t)ms;
    void *clock = zmq_stopwatch_start();

    for (uint64_t now; (now = zmq_stopwatch_intermediate(clock) / 1000) < end;) {
        zmq_pollitem_t items[] = { { in->socket, 0, ZMQ_POLLIN, 0 }, { in->monitor, 0, ZMQ_POLLIN, 0 } };
        zmq_msg_t m;

        if (zmq_poll(items, 2, (long)(end - now)) < 0)
            die("poll");
        zmq_msg_init(&m);
        if (items[0].revents && zmq_msg_recv(&m, in->socket, ZMQ_DONTWAIT) >= 0)
            in->replies++;
        if (items[1].revents && zmq_msg_recv(&m, in->monitor, ZMQ_DONTWAIT) >= 0)
            in->shaken = true;
        zmq_msg_close(&m);
        if (shake && in->shaken)
            break;
    }
    zmq_stopwatch_stop(clock);
}

static void send_frames(struct intruder *in, const void *header, size_t n, const void *payload,
                        size_t n_payload, unsigned extra)
{
    int flags = ZMQ_DONTWAIT;

    if (zmq_send(in->socket, header, n, flags | (payload || extra ? ZMQ_SNDMORE : 0)) < 0)
        return;
    if (payload && zmq_send(in->socket, payload, n_payload, flags | (extra ? ZMQ_SNDMORE : 0)) < 0)
        return;
    for (unsigned i = extra; i > 0; i--)
        if (zmq_send(in->socket, "extra", 5, flags | (i > 1 ? ZMQ_SNDMORE : 0)) < 0)
            return;
    in->sent++;
}

/* -- messages ---------------------------------------------------------------------------------------------
 * */

static uint8_t bytes[TERN_MAX_HEADER_BYTES];

static size_t put(const Tern__Header *h)
{
    struct tern_err err;
    size_t n;

    if (tern_wire_put(h, bytes, sizeof bytes, &n, &err)) {
        fprintf(stderr, "intruder: %s\n", err.text);
        exit(70);
    }
    return n;
}

static void header(Tern__Header *h, Tern__Header__BodyCase body)
{
    tern__header__init(h);
    h->version = TERN_WIRE_VERSION;
    h->epoch = 0x1122334455667788u;
    h->layout = 1;
    h->body_case = body;
}

static size_t put_hello(void)
{
    Tern__Header h;
    Tern__Hello hello = TERN__HELLO__INIT;
    char name[] = "intruder", software[] = "tern 0.1.0";

    header(&h, TERN__HEADER__BODY_HELLO);
    hello.name = name;
    hello.software = software;
    h.hello = &hello;
    return put(&h);
}

static size_t put_ping(void)
{
    Tern__Header h;
    Tern__Ping ping = TERN__PING__INIT;

    header(&h, TERN__HEADER__BODY_PING);
    ping.seq = 1;
    h.ping = &ping;
    return put(&h);
}

static size_t put_bye(void)
{
    Tern__Header h;
    Tern__Bye bye = TERN__BYE__INIT;

    header(&h, TERN__HEADER__BODY_BYE);
    bye.reason = TERN_BYE_DONE;
    h.bye = &bye;
    return put(&h);
}

/* A step of one row that opens slot 0, in an epoch that nobody has. */
static size_t put_step(uint64_t number)
{
    struct tern_step *s;
    struct tern_err err;
    const uint8_t *payload;
    size_t n, n_payload;

    if (tern_step_new(1, 4, &s, &err))
        exit(71);
    s->step = number;
    s->n_ops = 1;
    s->ops[0] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .slot = 0, .gen = 1 };
    s->n_runs = 1;
    s->runs[0] = (struct tern_run){ .slot = 0, .gen = 1, .pos = 0, .n = 1, .n_want = 1 };
    s->n_rows = 1;
    if (tern_wire_put_step(s, false, 0x1122334455667788u, 1, 0, bytes, sizeof bytes, &n, &payload, &n_payload,
                           &err)) {
        fprintf(stderr, "intruder: %s\n", err.text);
        exit(70);
    }
    tern_step_free(&s);
    return n;
}

/* -- attacks ----------------------------------------------------------------------------------------------
 * */

static int attack(struct intruder *in, const char *name)
{
    static uint8_t big[1 << 20];
    size_t n;

    memset(big, 0x5a, sizeof big);
    if (strcmp(name, "silent") == 0) {
        /* Connects, and that is all. */
    } else if (strcmp(name, "hello") == 0) {
        send_frames(in, bytes, put_hello(), NULL, 0, 0);
    } else if (strcmp(name, "version") == 0) {
        n = put_hello();
        bytes[1]++; /* field 1 stands first, and small numbers take one byte */
        send_frames(in, bytes, n, NULL, 0, 0);
    } else if (strcmp(name, "ping") == 0) {
        send_frames(in, bytes, put_ping(), NULL, 0, 0);
    } else if (strcmp(name, "bye") == 0) {
        send_frames(in, bytes, put_bye(), NULL, 0, 0);
    } else if (strcmp(name, "epoch") == 0) {
        for (uint64_t i = 1; i < 20; i++)
            send_frames(in, bytes, put_step(i), big, 4, 0);
    } else if (strcmp(name, "unknown") == 0) {
        n = put_hello();
        memcpy(bytes + n, "\xa8\x1f\x01", 3); /* field 501, varint 1 */
        send_frames(in, bytes, n + 3, NULL, 0, 0);
    } else if (strcmp(name, "garbage") == 0) {
        for (unsigned i = 0; i < 50; i++)
            send_frames(in, big + i, 100 + i, big, i * 100, 0);
    } else if (strcmp(name, "empty") == 0) {
        send_frames(in, "", 0, NULL, 0, 0);
    } else if (strcmp(name, "frames") == 0) {
        send_frames(in, bytes, put_ping(), big, 4, 5);
    } else if (strcmp(name, "oversized") == 0) {
        send_frames(in, bytes, put_step(1), big, sizeof big, 0);
    } else if (strcmp(name, "flood") == 0) {
        for (unsigned i = 0; i < 2000; i++)
            send_frames(in, bytes, put_ping(), NULL, 0, 0);
    } else if (strcmp(name, "hold") == 0) {
        for (struct pollfd p = { .fd = 0, .events = POLLIN }; poll(&p, 1, 0) == 0;) {
            send_frames(in, bytes, put_hello(), NULL, 0, 0);
            listen_for(in, 100, false);
            printf("sent=%u replies=%u\n", in->sent, in->replies);
            fflush(stdout);
        }
    } else {
        fprintf(stderr, "intruder: there is no attack named %s\n", name);
        return 64;
    }
    listen_for(in, LISTEN_MS, false);
    printf("handshake=%s sent=%u replies=%u\n", in->shaken ? "yes" : "no", in->sent, in->replies);
    return 0;
}

int main(int argc, char **argv)
{
    struct intruder in = { 0 };
    struct tern_err err;
    int code;

    if (argc != 5) {
        fprintf(stderr, "usage: intruder ENDPOINT SERVERKEY KEYFILE|- ATTACK\n");
        return 64;
    }
    if (tern_keys_init(&err))
        return 70;
    connect_to(&in, argv[1], argv[2], argv[3]);
    listen_for(&in, strcmp(argv[3], "-") == 0 ? LISTEN_MS : SHAKE_MS, true);
    code = attack(&in, argv[4]);
    zmq_close(in.socket);
    zmq_close(in.monitor);
    zmq_ctx_term(in.ctx);
    return code;
}
