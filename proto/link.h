/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypted ZeroMQ links: one CURVE server socket per worker, one CURVE client socket per peer to talk to.
 *
 * There is no plaintext mode.  A server refuses to open before its ZAP handler answers: without one libzmq
 * would accept every key.  Limits that act before authentication: MAXMSGSIZE (the largest payload,
 * wrapped), a handshake interval of 2 s, RCVHWM 8 a peer, and a raised descriptor limit
 * (tern_link_context_new).
 *
 * A link serves one thread at a time: several share it under a lock of theirs.  Nothing blocks: sends answer
 * TERN_AGAIN when the peer's queue is full (try the whole message again later).  One server a context.
 *
 * To wait for a link, poll its descriptors with poll(2), or epoll(7) by level.  They tell of news only, and
 * of more than messages: so after each poll receive until TERN_AGAIN, try again to send what had no room, and
 * pump.  A send may take in the news of messages, and receiving the news of room, without which nobody is
 * woken: so before all wait, somebody must fill the descriptors anew, or receive until TERN_AGAIN.
 */
#ifndef TERN_PROTO_LINK_H
#define TERN_PROTO_LINK_H

#include "engine/base/status.h"
#include "proto/allow.h"
#include "proto/keys.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

struct tern_link_context; /* a libzmq context with Tern's settings */
struct tern_server;       /* ROUTER + ZAP handler + monitor */
struct tern_client;       /* DEALER + monitor */

enum tern_status tern_link_context_new(struct tern_link_context **out, struct tern_err *err) TERN_MUST_CHECK;
/* All links must be closed before.  Waits a moment for what was sent last; what takes longer (a name server
 * that does not answer) is left to end by itself. */
void tern_link_context_free(struct tern_link_context **ctx);

/* What came from a peer.  The frames live until tern_link_message_close(). */
struct tern_link_message {
    zmq_msg_t header;
    zmq_msg_t payload; /* empty when the message had one frame */
    bool has_payload;
    uint8_t from_key[TERN_KEY_BYTES]; /* server: the authenticated key of the sender */
    uint8_t route[16];                /* server: where replies go (libzmq's routing id) */
    size_t route_len;
};
void tern_link_message_init(struct tern_link_message *m);
void tern_link_message_close(struct tern_link_message *m);

/* Counted since the server opened. */
struct tern_server_stats {
    uint64_t accepted;         /* handshakes that succeeded */
    uint64_t refused_key;      /* keys not on the list */
    uint64_t refused_protocol; /* plaintext peers, garbage, time-outs of the handshake */
    uint64_t refused_frames;   /* messages of more than two frames, or too large */
    uint64_t closed; /* accepted connections that ended; libzmq also ends one whose frame is far too large */
};

/* Binds tcp://ADDR:PORT ("*" or 0 as PORT takes a free one).  `allow` is borrowed and consulted at each
 * handshake; the caller refreshes it. */
enum tern_status tern_server_open(struct tern_link_context *ctx, const char *addr_port,
                                  const struct tern_key *key, const struct tern_allow *allow,
                                  struct tern_server **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_server_close(struct tern_server **s);
/* "tcp://127.0.0.1:41234", the port really bound. */
const char *tern_server_endpoint(const struct tern_server *s);
/* fds[0]: messages, or room for some; the others: call tern_server_pump.  True when there is something that
 * the descriptors do not tell: look at everything instead of waiting.  Of room for one peer among several
 * they may have told before: whoever has something left to send tries again now and then. */
#define TERN_SERVER_FDS 3
bool tern_server_poll_fds(struct tern_server *s, struct pollfd fds[static TERN_SERVER_FDS]);
/* Answers pending ZAP requests, reads monitor events, logs (seldom) that peers were refused.  Call it at
 * least every 100 ms. */
void tern_server_pump(struct tern_server *s);
/* TERN_AGAIN when nothing is waiting.  `m` is initialised; what it held is closed first.  Messages of the
 * wrong form are counted and skipped: TERN_ERR_FORMAT after a number of them, behind which there may be
 * more. */
enum tern_status tern_server_recv(struct tern_server *s, struct tern_link_message *m,
                                  struct tern_err *err) TERN_MUST_CHECK;
/* payload may be NULL.  TERN_ERR_PEER when the route is gone. */
enum tern_status tern_server_send(struct tern_server *s, const uint8_t *route, size_t route_len,
                                  const void *header, size_t header_len, const void *payload,
                                  size_t payload_len, struct tern_err *err) TERN_MUST_CHECK;
const struct tern_server_stats *tern_server_stats(const struct tern_server *s);

enum tern_client_state {
    TERN_CLIENT_CONNECTING, /* no handshake yet; tern_client_pump tries again until the first success */
    TERN_CLIENT_UP,
    TERN_CLIENT_REFUSED, /* it does not know our key, has another one than we were told, or is no Tern */
    TERN_CLIENT_LOST     /* was up, and the connection is gone; never comes back */
};

/* Connects (in the background) to endpoint, which must prove server_key.  The key is copied. */
enum tern_status tern_client_open(struct tern_link_context *ctx, const char *endpoint,
                                  const struct tern_key *key, const uint8_t server_key[static TERN_KEY_BYTES],
                                  struct tern_client **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_client_close(struct tern_client **c);
/* fds[0]: messages, or room for some; fds[1]: call tern_client_pump.  Fill them anew before every poll: each
 * attempt to connect has new sockets.  True as for a server, and of room they tell always. */
#define TERN_CLIENT_FDS 2
bool tern_client_poll_fds(struct tern_client *c, struct pollfd fds[static TERN_CLIENT_FDS]);
/* Reads monitor events and returns the state; call it at least every 100 ms.  What came before a
 * connection was LOST can still be received. */
enum tern_client_state tern_client_pump(struct tern_client *c);
/* A sentence on why it is REFUSED or LOST, or on how the last attempt to connect ended; empty when there
 * is nothing to say. */
const char *tern_client_why(const struct tern_client *c);
/* REFUSED, and what would help is a line with our key in its allow-list. */
bool tern_client_unlisted(const struct tern_client *c);
/* TERN_AGAIN when nothing is waiting, TERN_ERR_FORMAT for a message of the wrong form (it has been taken
 * off). */
enum tern_status tern_client_recv(struct tern_client *c, struct tern_link_message *m,
                                  struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_client_send(struct tern_client *c, const void *header, size_t header_len,
                                  const void *payload, size_t payload_len,
                                  struct tern_err *err) TERN_MUST_CHECK;

#endif
