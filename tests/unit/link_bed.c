/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/link_bed.h"

#include "engine/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

void bed_ok(enum tern_status st, const struct tern_err *err)
{
    if (st)
        fail_msg("%s: %s", tern_status_name(st), err->text);
}

void bed_write_list(struct bed *b, bool with_bob)
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

int bed_setup(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    struct tern_err err;
    int fd;

    assert_non_null(b);
    bed_ok(tern_keys_init(&err), &err);
    bed_ok(tern_key_generate(&b->server_key, &err), &err);
    bed_ok(tern_key_generate(&b->ann, &err), &err);
    bed_ok(tern_key_generate(&b->bob, &err), &err);
    bed_ok(tern_key_generate(&b->eve, &err), &err);
    strcpy(b->list, "/tmp/tern-allow-XXXXXX");
    fd = mkstemp(b->list);
    assert_true(fd >= 0);
    close(fd);
    bed_write_list(b, true);
    bed_ok(tern_allow_open(b->list, &b->allow, &err), &err);
    bed_ok(tern_link_context_new(&b->server_ctx, &err), &err);
    bed_ok(tern_link_context_new(&b->client_ctx, &err), &err);
    bed_ok(tern_server_open(b->server_ctx, "127.0.0.1:0", &b->server_key, &b->allow, &b->server, &err), &err);
    alarm(200); /* a hang is a failure too */
    *state = b;
    return 0;
}

int bed_teardown(void **state)
{
    struct bed *b = *state;

    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        tern_client_close(&b->clients[i]);
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

void bed_keep(struct bed *b, struct tern_client *c)
{
    unsigned i = 0;

    while (i < MAX_CLIENTS && b->clients[i])
        i++;
    assert_true(i < MAX_CLIENTS);
    b->clients[i] = c;
}

void bed_hang_up(struct bed *b, struct tern_client **c)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        if (b->clients[i] == *c)
            b->clients[i] = NULL;
    tern_client_close(c);
}

/* One turn of both loops, a few milliseconds long. */
void bed_turn(struct bed *b, struct tern_client *c)
{
    struct pollfd fds[TERN_SERVER_FDS + TERN_CLIENT_FDS];
    nfds_t n = 0;

    if (b->server) {
        (void)tern_server_poll_fds(b->server, fds);
        n += TERN_SERVER_FDS;
    }
    if (c) {
        (void)tern_client_poll_fds(c, fds + n);
        n += TERN_CLIENT_FDS;
    }
    poll(fds, n, 5);
    if (b->server)
        tern_server_pump(b->server);
    if (c)
        tern_client_pump(c);
}

/* Until the client's state is no longer CONNECTING. */
enum tern_client_state bed_settle(struct bed *b, struct tern_client *c, uint64_t timeout_ms)
{
    uint64_t end = tern_now_ms() + timeout_ms;

    while (tern_client_pump(c) == TERN_CLIENT_CONNECTING && tern_now_ms() < end)
        bed_turn(b, c);
    return tern_client_pump(c);
}

struct tern_client *bed_connect_as(struct bed *b, const struct tern_key *key, const uint8_t *server_key)
{
    struct tern_client *c;
    struct tern_err err;

    bed_ok(tern_client_open(b->client_ctx, tern_server_endpoint(b->server), key, server_key, &c, &err), &err);
    bed_keep(b, c);
    return c;
}

struct tern_client *bed_connect_up(struct bed *b, const struct tern_key *key)
{
    struct tern_client *c = bed_connect_as(b, key, b->server_key.public_key);

    assert_int_equal(bed_settle(b, c, BED_PATIENCE_MS), TERN_CLIENT_UP);
    return c;
}

/* The next message at the server; fails when none comes. */
void bed_server_take(struct bed *b, struct tern_client *c, struct tern_link_message *m)
{
    uint64_t end = tern_now_ms() + BED_PATIENCE_MS;
    struct tern_err err;
    enum tern_status st;

    while ((st = tern_server_recv(b->server, m, &err)) == TERN_AGAIN && tern_now_ms() < end)
        bed_turn(b, c);
    bed_ok(st, &err);
}

void bed_client_send(struct bed *b, struct tern_client *c, const char *header, const void *payload, size_t n)
{
    uint64_t end = tern_now_ms() + BED_PATIENCE_MS;
    struct tern_err err;
    enum tern_status st;

    while ((st = tern_client_send(c, header, strlen(header), payload, n, &err)) == TERN_AGAIN &&
           tern_now_ms() < end)
        bed_turn(b, c);
    bed_ok(st, &err);
}

bool bed_msg_is(zmq_msg_t *m, const char *text)
{
    return zmq_msg_size(m) == strlen(text) && memcmp(zmq_msg_data(m), text, strlen(text)) == 0;
}

/* Turns until *counter reaches n; fails after `timeout_ms`. */
void bed_wait_count(struct bed *b, const uint64_t *counter, uint64_t n, uint64_t timeout_ms)
{
    uint64_t end = tern_now_ms() + timeout_ms;

    while (*counter < n && tern_now_ms() < end)
        bed_turn(b, NULL);
    if (*counter != n) {
        const struct tern_server_stats *t = tern_server_stats(b->server);

        fail_msg(
            "%llu, not %llu, after %llu ms; accepted %llu key %llu protocol %llu frames %llu closed %llu",
            (unsigned long long)*counter, (unsigned long long)n, (unsigned long long)timeout_ms,
            (unsigned long long)t->accepted, (unsigned long long)t->refused_key,
            (unsigned long long)t->refused_protocol, (unsigned long long)t->refused_frames,
            (unsigned long long)t->closed);
    }
}

/* That the link of a listed peer works, both ways, with a maximal payload. */
void bed_exchange(struct bed *b, struct tern_client *c, const struct tern_key *key)
{
    uint8_t *big = malloc(TERN_MAX_PAYLOAD_BYTES);
    struct tern_link_message m;
    uint64_t end = tern_now_ms() + BED_PATIENCE_MS;
    struct tern_err err;
    enum tern_status st;

    assert_non_null(big);
    for (size_t i = 0; i < TERN_MAX_PAYLOAD_BYTES; i++)
        big[i] = (uint8_t)(i * 7 + i / 256);
    tern_link_message_init(&m);
    bed_client_send(b, c, "to server", big, TERN_MAX_PAYLOAD_BYTES);
    bed_server_take(b, c, &m);
    assert_true(bed_msg_is(&m.header, "to server") && m.has_payload);
    assert_int_equal(zmq_msg_size(&m.payload), TERN_MAX_PAYLOAD_BYTES);
    assert_memory_equal(zmq_msg_data(&m.payload), big, TERN_MAX_PAYLOAD_BYTES);
    assert_memory_equal(m.from_key, key->public_key, TERN_KEY_BYTES);
    bed_ok(tern_server_send(b->server, m.route, m.route_len, "to client", 9, NULL, 0, &err), &err);
    while ((st = tern_client_recv(c, &m, &err)) == TERN_AGAIN && tern_now_ms() < end)
        bed_turn(b, c);
    bed_ok(st, &err);
    assert_true(bed_msg_is(&m.header, "to client") && !m.has_payload);
    tern_link_message_close(&m);
    free(big);
}
