/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ZAP handler: who may complete a handshake.
 *
 * Requests come from libzmq's own thread in this process and carry what a stranger sent: the key is proven,
 * all the rest is checked. An accepted peer's User-Id is its key in Z85, so that every later message says
 * whose it is.
 */
#include "proto/link_impl.h"

#include <errno.h>
#include <string.h>

/* version, request id, domain, address, routing id, mechanism, credentials */
enum { F_VERSION, F_ID, F_DOMAIN, F_ADDRESS, F_IDENTITY, F_MECHANISM, F_KEY, N_FRAMES };

#define MAX_PER_PUMP 64

struct request {
    zmq_msg_t frames[N_FRAMES];
    unsigned n; /* N_FRAMES + 1 when there were more */
};

enum tern_status tern_zap_open(struct tern_link_context *ctx, const struct tern_allow *allow,
                               struct tern_zap *out, struct tern_err *err)
{
    struct tern_zap z = { .allow = allow };
    enum tern_status st;

    z.socket = tern_link_socket(ctx, ZMQ_REP);
    if (!z.socket)
        return TERN_FAIL_SYS(err, TERN_ERR_IO, zmq_errno(), "cannot open the ZAP handler: %s",
                             zmq_strerror(zmq_errno()));
    st = tern_link_set_int(z.socket, ZMQ_LINGER, 0, err);
    if (!st && zmq_bind(z.socket, TERN_ZAP_ENDPOINT) != 0)
        st = TERN_FAIL_SYS(
            err, TERN_ERR_STATE, zmq_errno(),
            "refusing to listen: the handler that checks keys (ZAP) cannot be bound (%s), and without it "
            "every key would be accepted",
            zmq_strerror(zmq_errno()));
    if (st) {
        tern_zap_close(&z);
        return st;
    }
    *out = z;
    return TERN_OK;
}

void tern_zap_close(struct tern_zap *z)
{
    if (!z->socket)
        return;
    /* Frees the name at once; closing alone frees it some time later, in libzmq's own thread. */
    (void)zmq_unbind(z->socket, TERN_ZAP_ENDPOINT);
    zmq_close(z->socket);
    z->socket = NULL;
}

/* False when nothing is waiting. */
static bool request_recv(void *socket, struct request *r)
{
    r->n = 0;
    do {
        zmq_msg_t *f;

        if (r->n == N_FRAMES) {
            tern_link_drain(socket);
            r->n++;
            break;
        }
        f = &r->frames[r->n];
        zmq_msg_init(f);
        if (zmq_msg_recv(f, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(f);
            break;
        }
        r->n++;
    } while (tern_link_more(socket));
    return r->n > 0;
}

static void request_close(struct request *r)
{
    for (unsigned i = 0; i < r->n && i < N_FRAMES; i++)
        zmq_msg_close(&r->frames[i]);
}

static bool frame_is(struct request *r, unsigned i, const char *text)
{
    size_t n = strlen(text);

    return zmq_msg_size(&r->frames[i]) == n && memcmp(zmq_msg_data(&r->frames[i]), text, n) == 0;
}

static bool request_valid(struct request *r)
{
    return r->n == N_FRAMES && frame_is(r, F_VERSION, "1.0") && frame_is(r, F_DOMAIN, TERN_ZAP_DOMAIN) &&
           frame_is(r, F_MECHANISM, "CURVE") && zmq_msg_size(&r->frames[F_KEY]) == TERN_KEY_BYTES;
}

static void note_refused(struct tern_zap *z, struct request *r)
{
    size_t n = 0;

    z->refused++;
    if (r->n > F_ADDRESS) {
        n = zmq_msg_size(&r->frames[F_ADDRESS]);
        if (n >= sizeof z->last_address)
            n = sizeof z->last_address - 1;
        memcpy(z->last_address, zmq_msg_data(&r->frames[F_ADDRESS]), n);
    }
    z->last_address[n] = '\0';
}

/* A reply that cannot be sent leaves the stranger outside: his handshake runs into its limit. */
static void reply(void *socket, struct request *r, const char *status, const char *text, const char *user)
{
    const void *id = r->n > F_ID ? zmq_msg_data(&r->frames[F_ID]) : "";
    size_t id_len = r->n > F_ID ? zmq_msg_size(&r->frames[F_ID]) : 0;

    (void)zmq_send(socket, "1.0", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    (void)zmq_send(socket, id, id_len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    (void)zmq_send(socket, status, 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    (void)zmq_send(socket, text, strlen(text), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    (void)zmq_send(socket, user, strlen(user), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    (void)zmq_send(socket, "", 0, ZMQ_DONTWAIT);
}

bool tern_zap_pump(struct tern_zap *z)
{
    struct request r;

    for (unsigned i = 0; i < MAX_PER_PUMP; i++) {
        if (!request_recv(z->socket, &r))
            return false;
        if (!request_valid(&r)) {
            note_refused(z, &r);
            reply(z->socket, &r, "500", "not a request this handler knows", "");
        } else if (!tern_allow_find(z->allow, zmq_msg_data(&r.frames[F_KEY]))) {
            note_refused(z, &r);
            reply(z->socket, &r, "400", "key not listed", "");
        } else {
            char user[TERN_Z85_CHARS + 1];

            tern_key_to_z85(zmq_msg_data(&r.frames[F_KEY]), user);
            reply(z->socket, &r, "200", "", user);
        }
        request_close(&r);
    }
    return true;
}
