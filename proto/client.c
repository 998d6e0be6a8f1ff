/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client end of a link: a DEALER to one peer whose key is known beforehand.
 *
 * Until the first success the connection is tried again and again, each time with new sockets: libzmq's own
 * reconnecting would go on after the success too, and a second connection of the same peer in the same epoch
 * must not exist.  So libzmq is told to wait for an hour before it tries again, and does not live that long.
 *
 * Nothing is queued before the handshake: tern_client_send waits for UP.  (ZMQ_IMMEDIATE would see to that as
 * well, but with it libzmq throws away what came in and was not yet read when a connection ends: a peer's
 * last words.)
 */
#include "proto/endpoint.h"
#include "proto/link_impl.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS                                                                                               \
    (ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |                          \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                            \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED)
#define NEVER_MS 3600000
/* From the end of one attempt to the next. */
#define RETRY_MS 150
/* TCP's own connect, where nothing answers at all. */
#define CONNECT_MS 2000
/* A connection that is accepted and then closed before the handshake is through: this often in a row is no
 * accident. */
#define MAX_CLOSED 3
/* Messages read ahead. */
#define RECEIVE_QUEUE 64

struct tern_client {
    struct tern_link_context *ctx;
    void *dealer; /* NULL between two attempts */
    void *monitor;
    int fds[TERN_CLIENT_FDS];
    bool unsure; /* a send may have taken the news of messages in from the descriptor */
    bool full;   /* a send found no room since somebody was last told that there is some */
    struct tern_key key;
    uint8_t server_key[TERN_KEY_BYTES];
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    enum tern_client_state state;
    bool ended;        /* this attempt failed */
    bool unlisted;     /* refused for our key */
    int failure;       /* errno of a handshake that was broken off; 0 none */
    unsigned n_closed; /* attempts in a row that the peer broke off */
    uint64_t retry_at_ms;
    struct tern_err why;
};

static enum tern_status set_options(struct tern_client *c, struct tern_err *err)
{
    static const struct tern_link_option options[] = {
        { ZMQ_RCVHWM, RECEIVE_QUEUE },
        { ZMQ_RECONNECT_IVL, NEVER_MS },
        { ZMQ_CONNECT_TIMEOUT, CONNECT_MS },
    };
    enum tern_status st = tern_link_set_common(c->dealer, tern_endpoint_is_ipv6(c->endpoint), err);

    for (size_t i = 0; i < sizeof options / sizeof options[0] && !st; i++)
        st = tern_link_set_int(c->dealer, options[i].option, options[i].value, err);
    if (!st)
        st = tern_link_set_bytes(c->dealer, ZMQ_CURVE_SERVERKEY, c->server_key, TERN_KEY_BYTES, err);
    if (!st)
        st = tern_link_set_bytes(c->dealer, ZMQ_CURVE_PUBLICKEY, c->key.public_key, TERN_KEY_BYTES, err);
    if (!st)
        st = tern_link_set_bytes(c->dealer, ZMQ_CURVE_SECRETKEY, c->key.secret_key, TERN_KEY_BYTES, err);
    return st;
}

static void end_attempt(struct tern_client *c)
{
    c->fds[0] = c->fds[1] = -1;
    c->unsure = c->full = false;
    if (!c->dealer)
        return;
    tern_link_monitor_close(c->dealer, &c->monitor);
    if (c->state != TERN_CLIENT_UP)
        (void)zmq_setsockopt(c->dealer, ZMQ_LINGER, &(int){ 0 }, sizeof(int));
    zmq_close(c->dealer);
    c->dealer = NULL;
}

static enum tern_status begin_attempt(struct tern_client *c, struct tern_err *err)
{
    enum tern_status st = TERN_OK;

    c->ended = false;
    c->failure = 0;
    c->dealer = tern_link_socket(c->ctx, ZMQ_DEALER);
    if (!c->dealer)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot open a socket: %s",
                             zmq_strerror(zmq_errno()));
    st = set_options(c, err);
    if (!st)
        st = tern_link_monitor_open(c->ctx, c->dealer, EVENTS, &c->monitor, err);
    if (!st && zmq_connect(c->dealer, c->endpoint) != 0)
        st = TERN_FAIL_SYS(err, TERN_ERR_USAGE, zmq_errno(), "cannot connect to %s: %s", c->endpoint,
                           zmq_strerror(zmq_errno()));
    if (st) {
        end_attempt(c);
        return st;
    }
    c->fds[0] = tern_link_fd(c->dealer);
    c->fds[1] = tern_link_fd(c->monitor);
    c->unsure = true;
    return TERN_OK;
}

enum tern_status tern_client_open(struct tern_link_context *ctx, const char *endpoint,
                                  const struct tern_key *key, const uint8_t server_key[static TERN_KEY_BYTES],
                                  struct tern_client **out, struct tern_err *err)
{
    struct tern_client *c;
    enum tern_status st;

    if (!tern_endpoint_valid(endpoint, strlen(endpoint)))
        return TERN_FAIL(err, TERN_ERR_USAGE, "'%s' is not tcp://HOST:PORT", endpoint);
    c = calloc(1, sizeof *c);
    if (!c)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a link");
    c->ctx = ctx;
    memcpy(c->endpoint, endpoint, strlen(endpoint) + 1);
    memcpy(c->server_key, server_key, TERN_KEY_BYTES);
    st = tern_key_copy(key, &c->key, err);
    if (!st)
        st = begin_attempt(c, err);
    if (st) {
        tern_client_close(&c);
        return st;
    }
    *out = c;
    return TERN_OK;
}

void tern_client_close(struct tern_client **c)
{
    if (!*c)
        return;
    end_attempt(*c);
    tern_key_wipe(&(*c)->key);
    free(*c);
    *c = NULL;
}

/* Between two attempts there is no socket: the descriptor -1 is never ready. */
bool tern_client_poll_fds(struct tern_client *c, struct pollfd fds[static TERN_CLIENT_FDS])
{
    for (int i = 0; i < TERN_CLIENT_FDS; i++)
        fds[i] = (struct pollfd){ .fd = c->fds[i], .events = POLLIN };
    if (c->unsure || c->full) {
        const int events = tern_link_events(c->dealer);
        const bool room = c->full && (events & ZMQ_POLLOUT) != 0;

        c->unsure = (events & ZMQ_POLLIN) != 0;
        c->full = c->full && !room;
        return c->unsure || room;
    }
    return false;
}

static void refuse(struct tern_client *c, const char *what)
{
    c->state = TERN_CLIENT_REFUSED;
    (void)TERN_FAIL(&c->why, TERN_ERR_AUTH, "%s %s", c->endpoint, what);
}

static void refuse_key(struct tern_client *c)
{
    char z85[TERN_Z85_CHARS + 1], what[200];

    tern_key_to_z85(c->key.public_key, z85);
    (void)snprintf(what, sizeof what, "does not accept our key; its allow-list needs the line `NAME ROLE %s`",
                   z85);
    c->unlisted = true;
    refuse(c, what);
}

static void on_event(struct tern_client *c, uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        c->state = TERN_CLIENT_UP;
        c->why.text[0] = '\0';
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: refuse_key(c); break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        refuse(c, "does not speak Tern's encrypted protocol; is a ternd listening on this port?");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: c->failure = (int)value; break;
    case ZMQ_EVENT_DISCONNECTED:
        if (c->state == TERN_CLIENT_UP) {
            c->state = TERN_CLIENT_LOST;
            (void)TERN_FAIL(&c->why, TERN_ERR_PEER, "the connection to %s was lost", c->endpoint);
        } else if (c->state == TERN_CLIENT_CONNECTING && !c->ended) {
            /* Timed out: perhaps it is busy.  Closed by the peer: our message could not be opened with its
             * key. */
            bool timed_out = c->failure == EAGAIN || c->failure == ETIMEDOUT;

            c->n_closed = timed_out ? 0 : c->n_closed + 1;
            (void)TERN_FAIL(&c->why, TERN_ERR_PEER, "%s %s", c->endpoint,
                            timed_out
                                ? "took the connection but does not answer; is it a ternd, and not stopped?"
                                : "closed the connection during the handshake; is its public key the one in "
                                  "the cluster file (tern keygen --show its key file), and is it a ternd?");
            if (c->n_closed >= MAX_CLOSED)
                c->state = TERN_CLIENT_REFUSED;
            c->ended = true;
        }
        break;
    case ZMQ_EVENT_CLOSED:
    case ZMQ_EVENT_CONNECT_RETRIED:
        if (c->state == TERN_CLIENT_CONNECTING && !c->ended) {
            c->n_closed = 0;
            c->ended = true;
            (void)TERN_FAIL(&c->why, TERN_ERR_PEER,
                            "nobody answers at %s; is ternd running there, is the port right, does a "
                            "firewall let it through?",
                            c->endpoint);
        }
        break;
    default: break;
    }
}

enum tern_client_state tern_client_pump(struct tern_client *c)
{
    uint16_t event;
    uint32_t value;
    struct tern_err err;

    while (c->monitor && tern_link_monitor_read(c->monitor, &event, &value))
        on_event(c, event, value);
    if (c->state == TERN_CLIENT_REFUSED) {
        end_attempt(c);
    } else if (c->state == TERN_CLIENT_CONNECTING) {
        uint64_t now = tern_now_ms();

        if (c->ended && c->dealer) {
            end_attempt(c);
            c->retry_at_ms = now + RETRY_MS;
        }
        if (!c->dealer && now >= c->retry_at_ms && begin_attempt(c, &err)) {
            /* Out of descriptors, say: the next attempt may fare better. */
            c->why = err;
            c->retry_at_ms = now + RETRY_MS;
        }
    }
    return c->state;
}

bool tern_client_unlisted(const struct tern_client *c)
{
    return c->unlisted;
}

const char *tern_client_why(const struct tern_client *c)
{
    return c->why.text;
}

enum tern_status tern_client_recv(struct tern_client *c, struct tern_link_message *m, struct tern_err *err)
{
    enum tern_status st = TERN_AGAIN;

    tern_link_message_close(m);
    if (c->dealer)
        st = tern_link_recv_frames(c->dealer, m, err);
    c->unsure = st != TERN_AGAIN;
    return st;
}

enum tern_status tern_client_send(struct tern_client *c, const void *header, size_t header_len,
                                  const void *payload, size_t payload_len, struct tern_err *err)
{
    enum tern_status st = TERN_AGAIN;

    if (c->state == TERN_CLIENT_LOST || c->state == TERN_CLIENT_REFUSED) {
        st = TERN_FAIL(err, TERN_ERR_PEER, "%s", c->why.text);
    } else if (c->state == TERN_CLIENT_UP) {
        st = tern_link_send_frames(c->dealer, header, header_len, payload, payload_len, err);
        c->unsure = true;
        c->full = st == TERN_AGAIN || c->full;
    }
    return st;
}
