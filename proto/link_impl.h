/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the links: the context, small wrappers of libzmq, the ZAP handler, monitor events.
 */
#ifndef TERN_PROTO_LINK_IMPL_H
#define TERN_PROTO_LINK_IMPL_H

#include "proto/link.h"

/* Behind the symbol of libzmq's draft API; the option itself is in every release since 4.3.0. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define TERN_ZAP_ENDPOINT "inproc://zeromq.zap.01" /* fixed by RFC 27 */
#define TERN_ZAP_DOMAIN   "tern"

/* CURVE wraps each frame in a MESSAGE command: 8 bytes of name, 8 of nonce, 16 of authenticator, 1 of
 * flags. */
#define TERN_CURVE_OVERHEAD 33
/* The largest frame libzmq accepts, before and after the handshake: the larger of our two frames, wrapped. */
#define TERN_LINK_MAX_FRAME (TERN_MAX_PAYLOAD_BYTES + TERN_CURVE_OVERHEAD)

/* A handshake that takes longer is dropped; so are connections that never begin one. */
#define TERN_HANDSHAKE_MS 2000
/* How long closing waits for what was sent last (a Bye). */
#define TERN_LINGER_MS 200
/* Messages queued to one peer before a send answers TERN_AGAIN. */
#define TERN_SEND_QUEUE 64

/* zmq_socket() in this context.  The first one leaves the calling thread a plain one
 * (engine/base/thread.h). */
void *tern_link_socket(struct tern_link_context *ctx, int type);
/* A name no other monitor of this context has. */
void tern_link_monitor_name(struct tern_link_context *ctx, char out[static 48]);

struct tern_link_option {
    int option;
    int value;
};
enum tern_status tern_link_set_int(void *socket, int option, int value, struct tern_err *err) TERN_MUST_CHECK;
enum tern_status tern_link_set_bytes(void *socket, int option, const void *bytes, size_t n,
                                     struct tern_err *err) TERN_MUST_CHECK;
/* What both ends set: frame limit, handshake interval, linger, IPv6. */
enum tern_status tern_link_set_common(void *socket, bool ipv6, struct tern_err *err) TERN_MUST_CHECK;

/* The descriptor that is readable when the socket has news (ZMQ_FD); -1 without a socket. */
int tern_link_fd(void *socket);
/* What the news that there are amount to, all of them taken in: ZMQ_POLLIN and ZMQ_POLLOUT. */
int tern_link_events(void *socket);

/* Opens a PAIR that gets `events` of the socket. */
enum tern_status tern_link_monitor_open(struct tern_link_context *ctx, void *socket, int events, void **out,
                                        struct tern_err *err) TERN_MUST_CHECK;
/* Stops the events first: a monitor without a reader would block libzmq. */
void tern_link_monitor_close(void *socket, void **monitor);
/* False when no event is waiting. */
bool tern_link_monitor_read(void *monitor, uint16_t *event, uint32_t *value);

/*
 * Receives the frames of a message behind its routing id: header and at most one payload.  TERN_ERR_FORMAT
 * when there were more or one was larger than allowed; all frames have been taken off the socket then.
 */
enum tern_status tern_link_recv_frames(void *socket, struct tern_link_message *m,
                                       struct tern_err *err) TERN_MUST_CHECK;
/* Header, and payload unless NULL, as the last frames of a message. */
enum tern_status tern_link_send_frames(void *socket, const void *header, size_t header_len,
                                       const void *payload, size_t payload_len,
                                       struct tern_err *err) TERN_MUST_CHECK;
/* Takes the rest of a message off the socket. */
void tern_link_drain(void *socket);
bool tern_link_more(void *socket);

/* -- ZAP (RFC 27): libzmq asks before it completes a handshake ------------------------------------------- */

struct tern_zap {
    void *socket; /* REP; NULL when closed */
    const struct tern_allow *allow;
    uint64_t refused;      /* keys not on the list, and requests that made no sense */
    char last_address[64]; /* of the last refused one, for the log */
};
/* Must be done before any CURVE server socket exists in the context. */
enum tern_status tern_zap_open(struct tern_link_context *ctx, const struct tern_allow *allow,
                               struct tern_zap *out, struct tern_err *err) TERN_MUST_CHECK;
void tern_zap_close(struct tern_zap *z);
/* Answers what is waiting, at most a few dozen requests: true when there may be more. */
bool tern_zap_pump(struct tern_zap *z);

#endif
