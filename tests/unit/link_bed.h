/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of links lie on: a server and its clients in one process, over loopback.
 */
#ifndef TERN_TESTS_UNIT_LINK_BED_H
#define TERN_TESTS_UNIT_LINK_BED_H

#include "proto/link_impl.h"

#define MAX_CLIENTS     8
#define BED_PATIENCE_MS 30000 /* for what comes soon: only a failure takes the time */

/* A server with two keys on its list, and the contexts of both ends. */
struct bed {
    struct tern_link_context *server_ctx, *client_ctx;
    struct tern_server *server;
    struct tern_allow allow;
    struct tern_key server_key, ann, bob, eve; /* eve is not on the list */
    char list[64];
    struct tern_client *clients[MAX_CLIENTS]; /* still open; a failed test leaves them to teardown */
};

/* Fails the test with the sentence of the error. */
void bed_ok(enum tern_status st, const struct tern_err *err);
/* The allow-list: ann, and bob if he is wanted. */
void bed_write_list(struct bed *b, bool with_bob);
/* cmocka's fixtures; *state is the bed. */
int bed_setup(void **state);
int bed_teardown(void **state);
/* A client that teardown closes, should the test not get to it; and closing one. */
void bed_keep(struct bed *b, struct tern_client *c);
void bed_hang_up(struct bed *b, struct tern_client **c);
/* One turn of both loops, a few milliseconds long; c may be NULL. */
void bed_turn(struct bed *b, struct tern_client *c);
/* Until the client's state is no longer CONNECTING. */
enum tern_client_state bed_settle(struct bed *b, struct tern_client *c, uint64_t timeout_ms);
/* A client, and one whose handshake has succeeded. */
struct tern_client *bed_connect_as(struct bed *b, const struct tern_key *key, const uint8_t *server_key);
struct tern_client *bed_connect_up(struct bed *b, const struct tern_key *key);
/* The next message at the server; fails when none comes. */
void bed_server_take(struct bed *b, struct tern_client *c, struct tern_link_message *m);
void bed_client_send(struct bed *b, struct tern_client *c, const char *header, const void *payload, size_t n);
bool bed_msg_is(zmq_msg_t *m, const char *text);
/* Turns until *counter reaches n; fails after timeout_ms. */
void bed_wait_count(struct bed *b, const uint64_t *counter, uint64_t n, uint64_t timeout_ms);
/* That the link of a listed peer works, both ways, with a maximal payload. */
void bed_exchange(struct bed *b, struct tern_client *c, const struct tern_key *key);

#endif
