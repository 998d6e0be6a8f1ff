/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See peer.h.
 */
#include "lab/peer.h"

#include "engine/base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGS 32

/* -- a ternd ----------------------------------------------------------------------------------- */

static void path_of(const struct lab_ternd *d, const char *name, char out[static 128])
{
    assert_true(snprintf(out, 128, "%s/%s", d->dir, name) < 128);
}

static void write_file(const char *path, const char *text)
{
    /* A new file each time, moved into place: a reader sees the old list or the new one. */
    char temp[160];
    int fd;
    size_t n = strlen(text);

    snprintf(temp, sizeof temp, "%s.new", path);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
    assert_int_equal(rename(temp, path), 0);
}

void lab_ternd_allow(const struct lab_ternd *d, const char *allow)
{
    char path[128];

    path_of(d, "allow", path);
    write_file(path, allow);
}

/* In the child: never returns. */
static void exec_ternd(const struct lab_ternd *d, int ready, const char *const *args)
{
    char key[128], allow[128], log[128], fd[16];
    const char *argv[MAX_ARGS] = { TERN_BIN_DIR "/ternd",
                                   "--listen",
                                   "127.0.0.1:0",
                                   "--key",
                                   key,
                                   "--allow",
                                   allow,
                                   "--ready-fd",
                                   fd,
                                   "--threads",
                                   "2",
                                   "--model",
                                   TERN_SOURCE_DIR "/deploy/models/fable.gguf",
                                   "--verbose" };
    int n = 14, out;

    path_of(d, "key", key);
    path_of(d, "allow", allow);
    path_of(d, "log", log);
    snprintf(fd, sizeof fd, "%d", ready);
    while (args && *args && n < MAX_ARGS - 1)
        argv[n++] = *args++;
    /* However the test ends. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out < 0 || dup2(out, STDERR_FILENO) < 0)
        _exit(126);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

void lab_ternd_start(struct lab_ternd *d, const struct tern_key *key, const char *allow,
                     const char *const *args)
{
    struct pollfd p = { .events = POLLIN };
    char path[128];
    int ready[2];
    ssize_t n = 0;

    memset(d, 0, sizeof *d);
    snprintf(d->dir, sizeof d->dir, "/tmp/tern-peer-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    memcpy(d->public_key, key->public_key, TERN_KEY_BYTES);
    path_of(d, "key", path);
    assert_ok(tern_key_save(path, key, &unit_err));
    lab_ternd_allow(d, allow);
    assert_int_equal(pipe(ready), 0);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0) {
        close(ready[0]);
        exec_ternd(d, ready[1], args);
    }
    close(ready[1]);
    p.fd = ready[0];
    if (poll(&p, 1, LAB_PATIENCE_MS) == 1)
        n = read(ready[0], d->endpoint, sizeof d->endpoint - 1);
    close(ready[0]);
    if (n < 2 || d->endpoint[n - 1] != '\n')
        fail_msg("ternd does not listen; see %s/log", d->dir);
    d->endpoint[n - 1] = '\0';
}

unsigned lab_ternd_log(const struct lab_ternd *d, const char *text)
{
    char path[128], line[2048];
    unsigned n = 0;
    FILE *f;

    path_of(d, "log", path);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    fclose(f);
    return n;
}

unsigned lab_ternd_log_wait(const struct lab_ternd *d, const char *text, unsigned n)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS;

    while (lab_ternd_log(d, text) < n && tern_now_ms() < end)
        poll(NULL, 0, 10);
    return lab_ternd_log(d, text);
}

static void remove_files(const struct lab_ternd *d)
{
    static const char *const names[] = { "key", "allow", "log" };
    char path[128];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        path_of(d, names[i], path);
        unlink(path);
    }
    rmdir(d->dir);
}

int lab_ternd_wait(struct lab_ternd *d)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS;
    int status = 0;
    pid_t got = 0;

    while (got == 0 && tern_now_ms() < end) {
        got = waitpid(d->pid, &status, WNOHANG);
        if (got == 0)
            poll(NULL, 0, 10);
    }
    if (got == 0) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, &status, 0);
        fail_msg("ternd does not end; see %s/log", d->dir);
    }
    d->pid = 0;
    /* A log that may tell something is kept. */
    if (status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        remove_files(d);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int lab_ternd_stop(struct lab_ternd *d)
{
    kill(d->pid, SIGTERM);
    return lab_ternd_wait(d);
}

void lab_allow_add(char *list, size_t cap, const char *name, const char *role, const struct tern_key *key)
{
    char z85[TERN_Z85_CHARS + 1];
    size_t n = strlen(list);

    tern_key_to_z85(key->public_key, z85);
    assert_true((size_t)snprintf(list + n, cap - n, "%s %s %s\n", name, role, z85) < cap - n);
}

/* -- a peer of one ----------------------------------------------------------------------------- */

enum tern_client_state lab_peer_open(struct lab_peer *p, const struct lab_ternd *d,
                                     const struct tern_key *key, uint64_t epoch)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS;
    enum tern_client_state state;

    memset(p, 0, sizeof *p);
    p->epoch = epoch;
    tern_link_message_init(&p->m);
    assert_ok(tern_arena_init(&p->arena, TERN_WIRE_ARENA_BYTES, "messages", &unit_err));
    assert_ok(tern_link_context_new(&p->ctx, &unit_err));
    assert_ok(tern_client_open(p->ctx, d->endpoint, key, d->public_key, &p->client, &unit_err));
    do {
        state = tern_client_pump(p->client);
        poll(NULL, 0, 5);
    } while (state == TERN_CLIENT_CONNECTING && tern_now_ms() < end);
    return state;
}

void lab_peer_close(struct lab_peer *p)
{
    tern_link_message_close(&p->m);
    tern_client_close(&p->client);
    tern_link_context_free(&p->ctx);
    tern_arena_fini(&p->arena);
}

void lab_peer_send_raw(struct lab_peer *p, const void *header, size_t len, const void *payload,
                       size_t payload_len)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS;
    enum tern_status st;

    while ((st = tern_client_send(p->client, header, len, payload, payload_len, &unit_err)) == TERN_AGAIN &&
           tern_now_ms() < end)
        poll(NULL, 0, 2);
    assert_ok(st);
}

void lab_peer_send(struct lab_peer *p, Tern__Header *h, const void *payload, size_t payload_len)
{
    uint8_t bytes[TERN_MAX_HEADER_BYTES];
    size_t len;

    h->version = TERN_WIRE_VERSION;
    h->epoch = h->epoch ? h->epoch : p->epoch;
    h->layout = h->layout ? h->layout : p->layout;
    assert_ok(tern_wire_put(h, bytes, sizeof bytes, &len, &unit_err));
    lab_peer_send_raw(p, bytes, len, payload, payload_len);
}

void lab_peer_hello(struct lab_peer *p)
{
    static char name[] = "test", software[] = "test 1";
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Hello b = TERN__HELLO__INIT;

    b.name = name;
    b.software = software;
    h.body_case = TERN__HEADER__BODY_HELLO;
    h.hello = &b;
    lab_peer_send(p, &h, NULL, 0);
}

void lab_peer_ping(struct lab_peer *p)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Ping b = TERN__PING__INIT;

    b.seq = ++p->ping_seq;
    h.body_case = TERN__HEADER__BODY_PING;
    h.ping = &b;
    lab_peer_send(p, &h, NULL, 0);
    p->pinged_ms = tern_now_ms();
}

void lab_peer_soon(struct lab_peer *p)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Soon b = TERN__SOON__INIT;

    h.body_case = TERN__HEADER__BODY_SOON;
    h.soon = &b;
    lab_peer_send(p, &h, NULL, 0);
}

void lab_peer_bye(struct lab_peer *p)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Bye b = TERN__BYE__INIT;

    b.reason = TERN_BYE_DONE;
    h.body_case = TERN__HEADER__BODY_BYE;
    h.bye = &b;
    lab_peer_send(p, &h, NULL, 0);
}

void lab_peer_step(struct lab_peer *p, const struct tern_step *s)
{
    uint8_t bytes[TERN_MAX_HEADER_BYTES];

    for (uint32_t i = 0; i < tern_wire_step_parts(s); i++) {
        const uint8_t *payload;
        size_t len, payload_len;

        assert_ok(tern_wire_put_step(s, false, p->epoch, p->layout, i, bytes, sizeof bytes, &len, &payload,
                                     &payload_len, &unit_err));
        lab_peer_send_raw(p, bytes, len, payload_len ? payload : NULL, payload_len);
    }
}

Tern__Header *lab_peer_next(struct lab_peer *p, int ms)
{
    uint64_t end = tern_now_ms() + (uint64_t)ms;
    Tern__Header *h;

    for (;;) {
        enum tern_status st;

        tern_link_message_close(&p->m);
        tern_link_message_init(&p->m);
        st = tern_client_recv(p->client, &p->m, &unit_err);
        if (st == TERN_OK)
            break;
        if (st != TERN_AGAIN)
            fail_msg("receive: %s", unit_err.text);
        if (tern_now_ms() >= end || tern_client_pump(p->client) == TERN_CLIENT_LOST)
            return NULL;
        if (!p->quiet && tern_now_ms() - p->pinged_ms >= 100)
            lab_peer_ping(p);
        poll(NULL, 0, 2);
    }
    tern_arena_reset(&p->arena);
    assert_ok(
        tern_wire_get(zmq_msg_data(&p->m.header), zmq_msg_size(&p->m.header), &p->arena, &h, &unit_err));
    return h;
}

static bool is_small_talk(const Tern__Header *h)
{
    return h->body_case == TERN__HEADER__BODY_PONG || h->body_case == TERN__HEADER__BODY_LOADING;
}

Tern__Header *lab_peer_wait(struct lab_peer *p, Tern__Header__BodyCase body, int ms)
{
    uint64_t end = tern_now_ms() + (uint64_t)ms;

    for (uint64_t now = tern_now_ms(); now < end; now = tern_now_ms()) {
        Tern__Header *h = lab_peer_next(p, (int)(end - now));

        if (!h)
            break;
        if (h->body_case == body)
            return h;
        if (h->body_case == TERN__HEADER__BODY_FAULT)
            fail_msg("'%s' was due, a fault came: %s", tern_wire_body_name(body), h->fault->text);
        if (!is_small_talk(h))
            fail_msg("'%s' was due, '%s' came", tern_wire_body_name(body), tern_wire_body_name(h->body_case));
    }
    fail_msg("'%s' was due, nothing came in %d ms", tern_wire_body_name(body), ms);
    return NULL;
}

void lab_peer_be_welcome(struct lab_peer *p)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS;
    Tern__Header *h;

    for (;;) {
        lab_peer_hello(p);
        do
            h = lab_peer_next(p, LAB_PATIENCE_MS);
        while (h && is_small_talk(h));
        if (!h || h->body_case != TERN__HEADER__BODY_BUSY || tern_now_ms() > end)
            break;
        poll(NULL, 0, 20);
    }
    assert_non_null(h);
    assert_int_equal(h->body_case, TERN__HEADER__BODY_WELCOME);
}

uint64_t lab_peer_rejected(struct lab_peer *p, uint64_t due)
{
    uint64_t end = tern_now_ms() + LAB_PATIENCE_MS, n;
    Tern__Header *h;

    do {
        lab_peer_ping(p);
        do /* a worker that hears nothing sends pongs unasked: those on their way are older */
            h = lab_peer_wait(p, TERN__HEADER__BODY_PONG, LAB_PATIENCE_MS);
        while (h->pong->seq != p->ping_seq);
        n = h->pong->rejected;
    } while (n < due && tern_now_ms() < end);
    return n;
}

bool lab_peer_silence(struct lab_peer *p, int ms)
{
    uint64_t end = tern_now_ms() + (uint64_t)ms;

    for (uint64_t now = tern_now_ms(); now < end; now = tern_now_ms()) {
        Tern__Header *h = lab_peer_next(p, (int)(end - now));

        if (h && (p->quiet || !is_small_talk(h)))
            return false;
    }
    return true;
}

void lab_peer_result(struct lab_peer *p, struct tern_step *s, uint32_t max_rows)
{
    enum tern_status st;

    tern_step_clear(s);
    do {
        Tern__Header *h = lab_peer_wait(p, TERN__HEADER__BODY_RESULT, LAB_PATIENCE_MS);
        const void *payload = p->m.has_payload ? zmq_msg_data(&p->m.payload) : NULL;

        st = tern_wire_get_step(h, payload, p->m.has_payload ? zmq_msg_size(&p->m.payload) : 0, max_rows, s,
                                &unit_err);
    } while (st == TERN_AGAIN);
    assert_ok(st);
}

/* -- assignments ------------------------------------------------------------------------------- */

static bool in_slice(const struct tern_identity_entry *e, uint32_t first, uint32_t last)
{
    int layer = tern_tensor_layer(e->tensor->name);

    return layer >= 0 && (uint32_t)layer >= first && (uint32_t)layer < last;
}

Tern__Assign lab_assign(const struct tern_arch *arch, uint8_t arch_hash[static TERN_HASH_BYTES],
                        const struct tern_identity *id, uint32_t first, uint32_t last, uint8_t *upstream)
{
    Tern__Assign a = TERN__ASSIGN__INIT;

    tern_arch_hash(arch, arch_hash);
    a.first_layer = first;
    a.last_layer = last;
    a.arch_hash = (ProtobufCBinaryData){ TERN_HASH_BYTES, arch_hash };
    a.boundary = 3;
    a.n_pages = 24;
    a.n_slots = 8;
    a.max_positions = 160;
    a.max_rows = 128;
    for (size_t i = 0; i < id->n; i++)
        a.n_tensors += in_slice(&id->entries[i], first, last);
    a.upstream_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, upstream };
    a.dead_after_ms = 20000;
    a.max_in_flight = 8;
    return a;
}

static void send_entries(struct lab_peer *p, Tern__Tensors__Entry **list, size_t n)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Tensors t = TERN__TENSORS__INIT;

    t.n_entries = n;
    t.entries = list;
    h.body_case = TERN__HEADER__BODY_TENSORS;
    h.tensors = &t;
    lab_peer_send(p, &h, NULL, 0);
}

void lab_peer_assign(struct lab_peer *p, Tern__Assign *a, const struct tern_identity *id, bool spoil)
{
    enum { BATCH = 16 };
    struct {
        char name[TERN_MAX_TENSOR_NAME + 1];
        uint8_t hash[TERN_HASH_BYTES];
        Tern__Tensors__Entry e;
    } store[BATCH];
    Tern__Tensors__Entry *list[BATCH];
    Tern__Header h = TERN__HEADER__INIT;
    size_t n = 0;

    p->layout++;
    h.body_case = TERN__HEADER__BODY_ASSIGN;
    h.assign = a;
    lab_peer_send(p, &h, NULL, 0);
    for (size_t i = 0; i < id->n; i++) {
        const struct tern_identity_entry *x = &id->entries[i];

        if (!in_slice(x, a->first_layer, a->last_layer))
            continue;
        snprintf(store[n].name, sizeof store[n].name, "%.*s", (int)x->tensor->name.len, x->tensor->name.ptr);
        memcpy(store[n].hash, x->hash, TERN_HASH_BYTES);
        store[n].hash[7] ^= spoil ? 1 : 0;
        spoil = false;
        tern__tensors__entry__init(&store[n].e);
        store[n].e.name = store[n].name;
        store[n].e.type = x->tensor->type;
        store[n].e.n_ne = x->tensor->n_dims;
        store[n].e.ne = (uint64_t *)(uintptr_t)x->tensor->ne;
        store[n].e.hash = (ProtobufCBinaryData){ TERN_HASH_BYTES, store[n].hash };
        list[n] = &store[n].e;
        if (++n == BATCH) {
            send_entries(p, list, n);
            n = 0;
        }
    }
    if (n > 0)
        send_entries(p, list, n);
}
