/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speaking with real ternd processes: starting them with keys and lists of the test's own, and playing any
 * peer of theirs by hand.
 *
 * For cmocka programs: whatever cannot be set up fails the running test.
 */
#ifndef TERN_TESTS_LAB_PEER_H
#define TERN_TESTS_LAB_PEER_H

#include "unit/unit.h"

#include "engine/identity.h"
#include "proto/link.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <sys/types.h>

/* How long anything is waited for that comes soon: only a failure takes the time. */
#define LAB_PATIENCE_MS 30000

/* -- a ternd ----------------------------------------------------------------------------------- */

struct lab_ternd {
    pid_t pid;
    char dir[64]; /* its files: key, allow, log */
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    uint8_t public_key[TERN_KEY_BYTES];
};

/* Starts a ternd on a free port of 127.0.0.1 with a copy of `key` and the model of this repository, and
 * waits until it listens.  `args`: more arguments, NULL at the end, or NULL. */
void lab_ternd_start(struct lab_ternd *d, const struct tern_key *key, const char *allow,
                     const char *const *args);
/* Writes another allow-list. */
void lab_ternd_allow(const struct lab_ternd *d, const char *allow);
/* Lines of its log that contain the text. */
unsigned lab_ternd_log(const struct lab_ternd *d, const char *text);
/* The same, once there are n of them; what there is when they do not come. */
unsigned lab_ternd_log_wait(const struct lab_ternd *d, const char *text, unsigned n);
/* Waits for its end; the exit code, or -signal.  Removes its files. */
int lab_ternd_wait(struct lab_ternd *d);
/* SIGTERM first. */
int lab_ternd_stop(struct lab_ternd *d);

/* Appends "name role key" to a list. */
void lab_allow_add(char *list, size_t cap, const char *name, const char *role, const struct tern_key *key);

/* -- a peer of one ----------------------------------------------------------------------------- */

struct lab_peer {
    struct tern_link_context *ctx;
    struct tern_client *client;
    struct tern_link_message m; /* the last one received */
    struct tern_arena arena;
    uint64_t epoch, ping_seq, pinged_ms;
    uint32_t layout;
    uint64_t steps_sent;
    bool quiet; /* no pings of its own while waiting */
};

/* Connects and waits for the handshake; the link's state after that. */
enum tern_client_state lab_peer_open(struct lab_peer *p, const struct lab_ternd *d,
                                     const struct tern_key *key, uint64_t epoch);
void lab_peer_close(struct lab_peer *p);

/* Sends; fills version, and epoch and layout when they are 0. */
void lab_peer_send(struct lab_peer *p, Tern__Header *h, const void *payload, size_t payload_len);
void lab_peer_send_raw(struct lab_peer *p, const void *header, size_t len, const void *payload,
                       size_t payload_len);
void lab_peer_hello(struct lab_peer *p);
void lab_peer_ping(struct lab_peer *p);
void lab_peer_soon(struct lab_peer *p);
void lab_peer_bye(struct lab_peer *p);
/* All parts of a step. */
void lab_peer_step(struct lab_peer *p, const struct tern_step *s);

/* The next message, or NULL after the time; it lives until the next call.  Pings every 100 ms meanwhile
 * unless quiet. */
Tern__Header *lab_peer_next(struct lab_peer *p, int ms);
/* The next one that is neither Pong (unless wanted) nor Loading; fails unless it is of the wanted kind. */
Tern__Header *lab_peer_wait(struct lab_peer *p, Tern__Header__BodyCase body, int ms);
/* Says hello until the worker is free: it may hear of the end of its last holder a little later. */
void lab_peer_be_welcome(struct lab_peer *p);
/* What the worker has refused or dropped, once that is `due`; what there is when it does not come to that. */
uint64_t lab_peer_rejected(struct lab_peer *p, uint64_t due);
/* True when nothing but Pong or Loading comes within the time; quiet peers: when nothing at all comes. */
bool lab_peer_silence(struct lab_peer *p, int ms);
/* A whole result. */
void lab_peer_result(struct lab_peer *p, struct tern_step *s, uint32_t max_rows);

/* -- assignments ------------------------------------------------------------------------------- */

/* An Assign with good values for layers [first, last); the strings and bytes are borrowed from the
 * arguments. */
Tern__Assign lab_assign(const struct tern_arch *arch, uint8_t arch_hash[static TERN_HASH_BYTES],
                        const struct tern_identity *id, uint32_t first, uint32_t last, uint8_t *upstream);
/* Sends it as the peer's next layout, and the list of tensors after it; `spoil` changes one hash. */
void lab_peer_assign(struct lab_peer *p, Tern__Assign *a, const struct tern_identity *id, bool spoil);

#endif
