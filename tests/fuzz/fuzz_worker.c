/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a script of messages into the worker's state table: no sockets, but real loading and
 * computing.
 *
 * Checked: the state and what exists fit together after every message, whatever is said is well-formed and
 * goes where it belongs, and a bye of the owner always leads back to idle.
 */
#include "fuzz/fuzz.h"

#include "engine/base/cursor.h"
#include "engine/identity.h"
#include "worker/worker.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define MODEL      TERN_SOURCE_DIR "/deploy/models/fable.gguf"
#define N_KEYS     4 /* two coordinators, a worker, and one that is on no list */
#define MAX_ROWS   8
#define MAX_SCRIPT 200 /* messages; longer scripts find nothing shorter ones do not */
#define SETTLE_MS  10000

static struct {
    struct worker_file file;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_identity *id;
    struct tern_allow allow;
    struct worker *w;
    struct tern_step *step;
    struct tern_arena arena;
    uint8_t keys[N_KEYS][TERN_KEY_BYTES];
    uint64_t now, next_step;
    uint8_t bytes[TERN_MAX_HEADER_BYTES + 16];

    enum tern_client_state link;
    enum tern_status reply_answer, next_answer;
} lab;

/* -- the other side -------------------------------------------------------------------------------------- */

static void check_message(const void *header, size_t len, size_t payload_len, bool home)
{
    Tern__Header *h = NULL;

    tern_arena_reset(&lab.arena);
    FUZZ_CHECK(tern_wire_get(header, len, &lab.arena, &h, NULL) == TERN_OK);
    if (h->body_case == TERN__HEADER__BODY_RESULT) {
        FUZZ_CHECK(home && h->epoch == lab.w->epoch && h->layout == lab.w->layout);
        FUZZ_CHECK(payload_len == (size_t)h->result->n_part_rows * lab.w->plan.row_bytes);
    } else if (h->body_case == TERN__HEADER__BODY_STEP) {
        FUZZ_CHECK(!home && h->epoch == lab.w->epoch && h->layout == lab.w->layout);
        FUZZ_CHECK(payload_len == (size_t)h->step->n_part_rows * lab.w->plan.row_bytes);
    } else {
        FUZZ_CHECK(home && payload_len == 0);
    }
}

static enum tern_status net_reply(void *impl, const uint8_t *route, size_t route_len, const void *header,
                                  size_t header_len, const void *payload, size_t payload_len,
                                  struct tern_err *err)
{
    (void)impl;
    (void)payload;
    FUZZ_CHECK(route_len == 5 && route[0] < N_KEYS);
    check_message(header, header_len, payload_len, true);
    return lab.reply_answer == TERN_ERR_PEER ? TERN_FAIL(err, TERN_ERR_PEER, "gone") : lab.reply_answer;
}

static enum tern_status net_next_open(void *impl, const char *endpoint, const uint8_t *key,
                                      struct tern_err *err)
{
    (void)impl;
    (void)err;
    FUZZ_CHECK(strncmp(endpoint, "tcp://", 6) == 0 && key);
    return TERN_OK;
}

static void net_next_close(void *impl)
{
    (void)impl;
}

static enum tern_client_state net_next_state(void *impl)
{
    (void)impl;
    return lab.link;
}

static const char *net_next_why(void *impl)
{
    (void)impl;
    return "because";
}

static enum tern_status net_next_send(void *impl, const void *header, size_t header_len, const void *payload,
                                      size_t payload_len, struct tern_err *err)
{
    (void)impl;
    (void)payload;
    check_message(header, header_len, payload_len, false);
    return lab.next_answer == TERN_ERR_PEER ? TERN_FAIL(err, TERN_ERR_PEER, "gone") : lab.next_answer;
}

static uint64_t net_n_refused(void *impl)
{
    (void)impl;
    return 0;
}

static const struct worker_net net = { .reply = net_reply,
                                       .next_open = net_next_open,
                                       .next_close = net_next_close,
                                       .next_state = net_next_state,
                                       .next_why = net_next_why,
                                       .next_send = net_next_send,
                                       .n_refused = net_n_refused };

/* -- once ------------------------------------------------------------------------------------------------ */

static void write_list(char path[static 32])
{
    static const char *const roles[N_KEYS - 1] = { "coordinator", "coordinator", "worker" };
    int fd = mkstemp(strcpy(path, "/tmp/fuzz-allow-XXXXXX"));

    FUZZ_CHECK(fd >= 0);
    for (unsigned i = 0; i < N_KEYS; i++) {
        char z85[TERN_Z85_CHARS + 1];

        memset(lab.keys[i], (int)(17 * i + 1), TERN_KEY_BYTES);
        tern_key_to_z85(lab.keys[i], z85);
        FUZZ_CHECK(i + 1 == N_KEYS || dprintf(fd, "peer%u %s %s\n", i, roles[i], z85) > 0);
    }
    close(fd);
}

static void set_up(void)
{
    struct worker_options o = {
        .name = "fuzz", .file = &lab.file, .kern = &lab.kern, .net = &net, .allow = &lab.allow
    };
    struct tern_err err = { .text = "" };
    char list[32];
    enum tern_status st;

    tern_log_set_level(TERN_LOG_ERROR);
    tern_kernels_init(&lab.kern, tern_cpu_detect());
    st = worker_file_open(MODEL, NULL, &lab.file, &err);
    if (!st)
        st = tern_pool_new(1, &lab.pool, &err);
    if (!st)
        st = tern_identity_compute(lab.file.gguf, &lab.file.arch, TERN_IDENTITY_ALL, lab.pool, NULL, NULL,
                                   &lab.id, &err);
    write_list(list);
    if (!st)
        st = tern_allow_open(list, &lab.allow, &err);
    o.pool = lab.pool;
    o.memory_limit = (uint64_t)1 << 30;
    if (!st)
        st = worker_new(&o, &lab.w, &err);
    if (!st)
        st = tern_step_new(MAX_ROWS, 4096, &lab.step, &err);
    if (!st)
        st = tern_arena_init(&lab.arena, TERN_WIRE_ARENA_BYTES, "messages", &err);
    if (st)
        fprintf(stderr, "%s\n", err.text);
    FUZZ_CHECK(st == TERN_OK);
    lab.now = tern_now_ms();
}

/* -- what must hold -------------------------------------------------------------------------------------- */

static void check_worker(void)
{
    const struct worker *w = lab.w;
    uint32_t held = 0;

    switch (w->state) {
    case W_IDLE: FUZZ_CHECK(!w->run && !w->plan.expect && w->route_len == 0 && w->epoch == 0); break;
    case W_HELD: FUZZ_CHECK(!w->run && !w->loaded); break;
    case W_LOADING: FUZZ_CHECK(!w->loaded == !w->run && w->plan.last > w->plan.first); break;
    case W_READY: FUZZ_CHECK(w->run && w->loaded && !w->retired); break;
    case W_DRAINING: break;
    case W_N_STATES: FUZZ_CHECK(false);
    }
    FUZZ_CHECK(w->state == W_IDLE || memcmp(w->owner_key, lab.keys[0], TERN_KEY_BYTES) == 0 ||
               memcmp(w->owner_key, lab.keys[1], TERN_KEY_BYTES) == 0);
    FUZZ_CHECK(!(w->run && w->retired));
    if (w->run) {
        held = w->run->n_free + w->run->n_out + (w->run->filling != NULL);
        FUZZ_CHECK(held <= w->run->n_steps && w->run->stage);
    }
}

/* Turns until nothing is being loaded, computed or torn down. */
static void settle(void)
{
    uint64_t end = tern_now_ms() + SETTLE_MS;
    struct worker *w = lab.w;

    for (;;) {
        struct pollfd p[WORKER_MAX_FDS];
        int fds[WORKER_MAX_FDS], n;
        bool computing;

        worker_turn(w);
        check_worker();
        computing = w->run && w->run->n_free + w->run->n_out + (w->run->filling != NULL) < w->run->n_steps;
        if (!worker_loader_busy(w->loader) && !w->retired && !computing)
            return;
        FUZZ_CHECK(tern_now_ms() < end);
        n = worker_fds(w, fds);
        for (int i = 0; i < n; i++)
            p[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
        poll(p, (nfds_t)n, 100);
    }
}

/* -- messages -------------------------------------------------------------------------------------------- */

static uint8_t byte(struct tern_cursor *c)
{
    uint8_t b = 0;

    if (!tern_cursor_u8(c, &b))
        return 0;
    return b;
}

static void deliver(unsigned key, unsigned route, const void *header, size_t len, const void *payload,
                    size_t payload_len)
{
    uint8_t id[5] = { (uint8_t)(key % N_KEYS), (uint8_t)route, 0, 0, 0 };
    /* Copies of the exact size: a read past the end is seen. */
    void *h = malloc(len ? len : 1), *p = malloc(payload_len ? payload_len : 1);
    struct worker_mail m = { h, p, len, payload_len, payload_len > 0, lab.keys[key % N_KEYS], id, sizeof id };

    FUZZ_CHECK(h && p);
    memcpy(h, header, len);
    memcpy(p, payload ? payload : "", payload_len);
    worker_take(lab.w, &m);
    free(h);
    free(p);
}

/* `who`: key in the low bits, another route, epoch or layout in the high ones; 0 is the first coordinator as
 * it should be. */
static void send(unsigned who, Tern__Header *h)
{
    size_t len = 0;

    h->version = TERN_WIRE_VERSION;
    h->epoch = who & 0x10 ? 2 : 1;
    h->layout += who & 0x20 ? 1 : 0;
    if (tern_wire_put(h, lab.bytes, sizeof lab.bytes, &len, NULL) == TERN_OK)
        deliver(who & 3, who >> 6 & 1, lab.bytes, len, NULL, 0);
}

static void send_hello(unsigned who)
{
    static char text[] = "x";
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Hello b = TERN__HELLO__INIT;

    b.name = b.software = text;
    h.body_case = TERN__HEADER__BODY_HELLO;
    h.hello = &b;
    send(who, &h);
    lab.next_step = 1;
}

static void send_assign(unsigned who, struct tern_cursor *c)
{
    static char next[] = "tcp://127.0.0.1:7";
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Assign a = TERN__ASSIGN__INIT;
    unsigned change = byte(c), value = byte(c);
    uint32_t *const fields[] = { &a.first_layer, &a.last_layer,    &a.boundary, &a.n_pages,
                                 &a.n_slots,     &a.max_positions, &a.max_rows, &a.stage,
                                 &a.n_tensors,   &a.dead_after_ms, &a.kv,       &a.max_in_flight };

    a.first_layer = change >> 5 & 1;
    a.last_layer = a.first_layer + 1 + (change >> 6 & 1);
    a.arch_hash = (ProtobufCBinaryData){ TERN_HASH_BYTES, lab.file.arch_hash };
    a.boundary = 3;
    a.n_pages = 4;
    a.n_slots = 4;
    a.max_positions = 64;
    a.max_rows = MAX_ROWS;
    a.dead_after_ms = 1000;
    a.max_in_flight = 8;
    a.n_tensors = worker_file_count(&lab.file, a.first_layer, a.last_layer);
    a.upstream_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, lab.keys[who & 3] };
    if (change & 0x80) {
        a.next_endpoint = next;
        a.next_key = (ProtobufCBinaryData){ TERN_KEY_BYTES, lab.keys[3] };
    }
    if (change & 0x10) {
        a.upstream_key.data = lab.keys[value & 3];
        a.stage = value >> 2 & 1;
    } else if ((change & 15) < sizeof fields / sizeof fields[0] && (change & 15) != 0) {
        *fields[change & 15] = value;
    }
    h.body_case = TERN__HEADER__BODY_ASSIGN;
    h.layout = lab.w->layout + 1;
    h.assign = &a;
    send(who, &h);
    lab.next_step = 1;
}

/* The entries of layers [first, first + n); `spoil` counts down to the one that is changed. */
static void send_tensors(unsigned who, struct tern_cursor *c)
{
    enum { MAX = 40 };
    static struct {
        char name[TERN_MAX_TENSOR_NAME + 1];
        uint8_t hash[TERN_HASH_BYTES];
        Tern__Tensors__Entry e;
    } store[MAX];
    Tern__Tensors__Entry *list[MAX];
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Tensors t = TERN__TENSORS__INIT;
    unsigned pick = byte(c), spoil = byte(c);
    int first = pick & 1, last = first + 1 + (pick >> 1 & 1);
    size_t n = 0;

    for (size_t i = 0; i < lab.id->n && n < MAX; i++) {
        const struct tern_identity_entry *x = &lab.id->entries[i];
        int layer = tern_tensor_layer(x->tensor->name);

        if (layer < first || layer >= last)
            continue;
        snprintf(store[n].name, sizeof store[n].name, "%.*s", (int)x->tensor->name.len, x->tensor->name.ptr);
        memcpy(store[n].hash, x->hash, TERN_HASH_BYTES);
        tern__tensors__entry__init(&store[n].e);
        store[n].e.name = store[n].name;
        store[n].e.type = x->tensor->type + (spoil == 3 * n + 2);
        store[n].e.n_ne = x->tensor->n_dims;
        store[n].e.ne = (uint64_t *)(uintptr_t)x->tensor->ne;
        store[n].hash[0] ^= spoil == 3 * n + 1;
        store[n].name[0] ^= spoil == 3 * n + 3;
        store[n].e.hash = (ProtobufCBinaryData){ TERN_HASH_BYTES, store[n].hash };
        list[n] = &store[n].e;
        n++;
    }
    t.n_entries = n;
    t.entries = list;
    h.body_case = TERN__HEADER__BODY_TENSORS;
    h.layout = lab.w->layout;
    h.tensors = &t;
    send(who, &h);
}

static void send_step(unsigned who, struct tern_cursor *c)
{
    struct tern_step *s = lab.step;
    uint8_t shape = byte(c), fill = byte(c);
    const uint8_t *payload = NULL;
    size_t len = 0, payload_len = 0;

    tern_step_clear(s);
    s->row_bytes = lab.w->plan.row_bytes + (shape >> 7);
    if (s->row_bytes < 4 || (size_t)s->row_bytes * MAX_ROWS > s->payload_cap)
        return;
    s->step = lab.next_step + (shape >> 6 & 1);
    for (unsigned i = 0; i < (shape & 3u); i++) {
        unsigned op = byte(c), names = byte(c);

        s->ops[s->n_ops++] = (struct tern_slot_op){ 1 + op % 4, names & 3,      1 + (names >> 2 & 3),
                                                    op >> 2,    names >> 4 & 3, 1 + (names >> 6) };
    }
    for (unsigned i = 0; i < (shape >> 2 & 3u); i++) {
        unsigned names = byte(c), pos = byte(c);
        uint32_t n = 1 + (names >> 4 & 1);

        s->runs[s->n_runs++] = (struct tern_run){ names & 3, 1 + (names >> 2 & 3), pos, n, names >> 5 & 1 };
        s->n_rows += n;
    }
    if (shape & 0x20 && s->n_runs > 0)
        s->failed[s->n_failed++] = (struct tern_failed){ s->runs[0].slot, s->runs[0].gen, 1, 0 };
    memset(s->payload, fill, (size_t)s->n_rows * s->row_bytes);
    if (tern_wire_put_step(s, false, who & 0x10 ? 2 : 1, lab.w->layout + (who & 0x20 ? 1 : 0), 0, lab.bytes,
                           sizeof lab.bytes, &len, &payload, &payload_len, NULL) != TERN_OK)
        return;
    lab.next_step++;
    deliver(who & 3, who >> 6 & 1, lab.bytes, len, payload, payload_len);
}

static void send_small(unsigned who, Tern__Header__BodyCase body)
{
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Ping ping = TERN__PING__INIT;
    Tern__Bye bye = TERN__BYE__INIT;
    Tern__Soon soon = TERN__SOON__INIT;

    ping.seq = 3;
    bye.reason = TERN_BYE_DONE;
    h.body_case = body;
    if (body == TERN__HEADER__BODY_BYE)
        h.bye = &bye;
    else if (body == TERN__HEADER__BODY_PING)
        h.ping = &ping;
    else
        h.soon = &soon;
    if (body == TERN__HEADER__BODY_SOON)
        h.layout = lab.w->layout;
    send(who, &h);
}

static void send_raw(unsigned who, struct tern_cursor *c)
{
    const uint8_t *bytes = NULL;
    size_t n = byte(c);

    if (n > tern_cursor_left(c))
        n = tern_cursor_left(c);
    if (tern_cursor_bytes(c, n, &bytes))
        deliver(who & 3, who >> 6 & 1, bytes, n, who & 0x10 ? "xy" : NULL, who & 0x10 ? 2 : 0);
}

/* -- the script ------------------------------------------------------------------------------------------ */

static void change_world(unsigned what)
{
    static const enum tern_status answers[] = { TERN_OK, TERN_AGAIN, TERN_ERR_PEER, TERN_OK };

    lab.link = (enum tern_client_state)(what & 3);
    lab.reply_answer = answers[what >> 2 & 3];
    lab.next_answer = answers[what >> 4 & 3];
}

static void play(struct tern_cursor *c)
{
    unsigned op = byte(c), who = op >> 4 ? byte(c) : 0;

    switch (op & 15) {
    case 0: send_hello(who); break;
    case 1: send_assign(who, c); break;
    case 2: send_tensors(who, c); break;
    case 3: send_step(who, c); break;
    case 4: send_small(who, TERN__HEADER__BODY_PING); break;
    case 5: send_small(who, TERN__HEADER__BODY_BYE); break;
    case 6: send_raw(who, c); break;
    case 7:
        lab.now += 20u * byte(c);
        worker_clock(lab.w, lab.now);
        worker_tick(lab.w);
        break;
    case 8: worker_turn(lab.w); break;
    case 9: settle(); break;
    case 10: change_world(byte(c)); break;
    case 11: worker_drain(lab.w); break;
    case 12: send_small(who, TERN__HEADER__BODY_SOON); break;
    default: break;
    }
    check_worker();
}

/* Whatever has happened, the owner's bye leads back to idle. */
static void finish(void)
{
    struct worker *w = lab.w;

    change_world(TERN_CLIENT_UP);
    if (w->state != W_IDLE) {
        static const Tern__Bye bye = TERN__BYE__INIT;
        Tern__Bye b = bye;
        Tern__Header h = TERN__HEADER__INIT;
        size_t len = 0;

        b.reason = TERN_BYE_DONE;
        h.version = TERN_WIRE_VERSION;
        h.epoch = w->epoch;
        h.body_case = TERN__HEADER__BODY_BYE;
        h.bye = &b;
        FUZZ_CHECK(tern_wire_put(&h, lab.bytes, sizeof lab.bytes, &len, NULL) == TERN_OK);
        deliver(w->route[0], w->route[1], lab.bytes, len, NULL, 0);
    }
    FUZZ_CHECK(w->state == W_IDLE);
    settle();
    FUZZ_CHECK(w->state == W_IDLE && !w->run && !w->retired);
    w->done = false; /* a drained worker would end; this one serves the next script */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tern_cursor c;

    if (!lab.w)
        set_up();
    tern_cursor_init(&c, data, size);
    change_world(TERN_CLIENT_UP);
    for (int i = 0; i < MAX_SCRIPT && tern_cursor_left(&c) > 0; i++)
        play(&c);
    finish();
    return 0;
}
