/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From nothing to a ready pipeline: connect, hello, assignment, loading.  Every way in which this can fail
 * ends in a sentence that names the worker and says what to do about it.
 */
#include "coordinator/cluster.h"

#include "engine/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REOPEN_MS 200u
#define LOAD_STALL_MS                                                                                        \
    60000u /* without a byte of progress: more than any disk takes over one tensor's share */

enum tern_status cluster_connect(struct cluster *c, struct cluster_peer *p, struct tern_err *err)
{
    p->state = PEER_CONNECTING;
    p->reopen_ms = 0;
    return tern_client_open(c->ctx, p->member->endpoint, c->key, p->member->key, &p->client, err);
}

/* -- the link ------------------------------------------------------------------------------------------- */

static void on_refused(struct cluster *c, const struct cluster_peer *p)
{
    char ours[TERN_Z85_CHARS + 1];

    tern_key_to_z85(c->key->public_key, ours);
    if (tern_client_unlisted(p->client))
        cluster_break(c, TERN_ERR_AUTH,
                      "%s does not accept our key; its allow-list needs the line `tern coordinator %s`",
                      peer_describe(p).z, ours);
    else
        cluster_break(c, TERN_ERR_AUTH, "%s: %s", peer_describe(p).z, tern_client_why(p->client));
}

void cluster_on_link(struct cluster *c, struct cluster_peer *p, enum tern_client_state state, uint64_t now)
{
    if (p->state == PEER_GONE)
        return;
    switch (state) {
    case TERN_CLIENT_CONNECTING: break;
    case TERN_CLIENT_UP:
        if (p->state == PEER_CONNECTING) {
            p->state = PEER_HELLO;
            p->hello_ms = now;
            p->heard_ms = now;
        }
        break;
    case TERN_CLIENT_REFUSED: on_refused(c, p); break;
    case TERN_CLIENT_LOST:
        if (p->state >= PEER_WELCOMED) {
            cluster_on_lost(c, p);
            break;
        }
        /* Not ours yet: perhaps it is being restarted.  The join time-out is the end of patience. */
        tern_client_close(&p->client);
        p->state = PEER_CONNECTING;
        p->reopen_ms = now + REOPEN_MS;
        break;
    }
}

/* -- hello ---------------------------------------------------------------------------------------------- */

static void send_hello(struct cluster *c, struct cluster_peer *p)
{
    static char name[] = "tern", software[] = "tern " TERN_VERSION;
    Tern__Header h;
    Tern__Hello hello = TERN__HELLO__INIT;

    cluster_header(c, &h, TERN__HEADER__BODY_HELLO);
    hello.name = name;
    hello.software = software;
    h.hello = &hello;
    if (cluster_post(c, p, &h) == TERN_OK)
        p->hello_ms = UINT64_MAX;
}

void cluster_on_busy(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    (void)c;
    snprintf(p->holder, sizeof p->holder, "%s", h->busy->holder);
    p->hello_ms = now + CLUSTER_BUSY_RETRY_MS;
}

void cluster_on_welcome(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    const Tern__Welcome *w = h->welcome;
    const struct cluster_member *m = p->member;

    if (w->arch_hash.len != TERN_HASH_BYTES) {
        cluster_break(c, TERN_ERR_USAGE, "%s has no model file; start its ternd with --model FILE",
                      peer_describe(p).z);
    } else if (memcmp(w->arch_hash.data, c->arch_hash, TERN_HASH_BYTES) != 0) {
        cluster_break(c, TERN_ERR_USAGE,
                      "%s has the file of another model: its hyper-parameters are not those of '%s'; start "
                      "its ternd with "
                      "--model on a copy of that file",
                      peer_describe(p).z, c->o.gguf->name);
    } else if (w->first_layer > m->first || w->last_layer < m->last) {
        cluster_break(
            c, TERN_ERR_USAGE,
            "%s cannot hold its layers: its model file has layers %u to %u only; change layers= in the "
            "cluster file or give it the whole model",
            peer_describe(p).z, w->first_layer, w->last_layer ? w->last_layer - 1 : 0);
    } else {
        p->state = PEER_WELCOMED;
        p->heard_ms = now;
        p->info.threads = w->threads;
        snprintf(p->info.cpu, sizeof p->info.cpu, "%s", w->cpu);
    }
}

/* -- assignment ----------------------------------------------------------------------------------------- */

static ProtobufCBinaryData bytes_of(const uint8_t *data, size_t len)
{
    /* protobuf-c has no const; nothing writes through it when serialising. */
    return (ProtobufCBinaryData){ .len = len, .data = (uint8_t *)(uintptr_t)data };
}

static bool belongs_to(const struct cluster_peer *p, const struct tern_identity_entry *e)
{
    int layer = tern_tensor_layer(e->tensor->name);

    return layer >= 0 && (uint32_t)layer >= p->member->first && (uint32_t)layer < p->member->last;
}

static void send_assign(struct cluster *c, struct cluster_peer *p)
{
    bool last = p->index + 1 == c->spec.n;
    const struct cluster_member *next = last ? NULL : &c->spec.members[p->index + 1];
    const uint8_t *upstream = p->index == 0 ? c->key->public_key : c->spec.members[p->index - 1].key;
    Tern__Header h;
    Tern__Assign a = TERN__ASSIGN__INIT;
    uint32_t n = 0;

    for (size_t i = 0; i < c->model->n; i++)
        n += belongs_to(p, &c->model->entries[i]);
    a.first_layer = p->member->first;
    a.last_layer = p->member->last;
    a.arch_hash = bytes_of(c->arch_hash, TERN_HASH_BYTES);
    a.boundary = (uint32_t)c->o.boundary;
    a.kv = (uint32_t)c->o.kv;
    a.n_pages = c->o.n_pages;
    a.n_slots = c->o.n_slots;
    a.max_positions = c->o.max_positions;
    a.max_rows = c->o.max_rows;
    a.n_tensors = n;
    a.upstream_key = bytes_of(upstream, TERN_KEY_BYTES);
    if (next) {
        a.next_endpoint = (char *)(uintptr_t)next->endpoint;
        a.next_key = bytes_of(next->key, TERN_KEY_BYTES);
    }
    a.stage = p->index;
    a.dead_after_ms = c->o.dead_after_ms;
    a.max_in_flight = c->o.max_in_flight;
    cluster_header(c, &h, TERN__HEADER__BODY_ASSIGN);
    h.assign = &a;
    if (cluster_post(c, p, &h) == TERN_OK) {
        p->assign_sent = true;
        p->tensor_next = 0;
    }
}

/* One message of entries from tensor_next on; tensor_next moves when it is sent. */
static enum tern_status send_tensors(struct cluster *c, struct cluster_peer *p)
{
    struct {
        char name[TERN_MAX_TENSOR_NAME + 1];
        uint64_t ne[4];
        Tern__Tensors__Entry entry;
    } store[CLUSTER_TENSORS_PER_MESSAGE];
    Tern__Tensors__Entry *list[CLUSTER_TENSORS_PER_MESSAGE];
    Tern__Tensors t = TERN__TENSORS__INIT;
    Tern__Header h;
    size_t i = p->tensor_next, n = 0;
    enum tern_status st;

    for (; i < c->model->n && n < CLUSTER_TENSORS_PER_MESSAGE; i++) {
        const struct tern_identity_entry *e = &c->model->entries[i];
        const struct tern_tensor *x = e->tensor;

        if (!belongs_to(p, e))
            continue;
        TERN_BUG_IF(x->name.len > TERN_MAX_TENSOR_NAME);
        memcpy(store[n].name, x->name.ptr, x->name.len);
        store[n].name[x->name.len] = '\0';
        memcpy(store[n].ne, x->ne, sizeof store[n].ne);
        tern__tensors__entry__init(&store[n].entry);
        store[n].entry.name = store[n].name;
        store[n].entry.type = x->type;
        store[n].entry.n_ne = x->n_dims;
        store[n].entry.ne = store[n].ne;
        store[n].entry.hash = bytes_of(e->hash, TERN_HASH_BYTES);
        list[n] = &store[n].entry;
        n++;
    }
    if (n > 0) {
        t.n_entries = n;
        t.entries = list;
        cluster_header(c, &h, TERN__HEADER__BODY_TENSORS);
        h.tensors = &t;
        st = cluster_post(c, p, &h);
        if (st)
            return st;
    }
    p->tensor_next = i;
    return TERN_OK;
}

static void assign(struct cluster *c, struct cluster_peer *p, uint64_t now)
{
    if (!p->assign_sent) {
        send_assign(c, p);
        if (!p->assign_sent)
            return;
    }
    while (p->tensor_next < c->model->n)
        if (send_tensors(c, p) != TERN_OK)
            return;
    p->state = PEER_LOADING;
    p->load_ms = now;
}

/* -- loading -------------------------------------------------------------------------------------------- */

void cluster_on_loading(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    uint64_t done = 0, total = 0;

    if (h->loading->done != p->load_done || h->loading->total != p->load_total)
        p->load_ms = now;
    p->load_done = h->loading->done;
    p->load_total = h->loading->total;
    for (uint32_t i = 0; i < c->spec.n; i++) {
        /* Hostile numbers may not wrap into nonsense: nothing is larger than 2^50 bytes. */
        done += c->peers[i].load_done & ((UINT64_C(1) << 50) - 1);
        total += c->peers[i].load_total & ((UINT64_C(1) << 50) - 1);
    }
    (void)progress_update(&c->bar, done, total);
}

void cluster_on_ready(struct cluster *c, struct cluster_peer *p, const Tern__Header *h, uint64_t now)
{
    (void)now;
    p->info.weight_bytes = h->ready->weight_bytes;
    p->info.kv_bytes = h->ready->kv_bytes;
    p->state = PEER_READY;
    for (uint32_t i = 0; i < c->spec.n; i++)
        if (c->peers[i].state != PEER_READY)
            return;
    progress_end(&c->bar);
    c->ready = true;
    TERN_BUG_IF(!tern_queue_push(c->events, &c->tag.ready));
}

/* -- clocks --------------------------------------------------------------------------------------------- */

static void on_join_timeout(struct cluster *c, const struct cluster_peer *p)
{
    const double seconds = c->o.join_timeout_ms / 1000.0;
    const char *why = p->client ? tern_client_why(p->client) : "";

    if (p->state == PEER_CONNECTING)
        cluster_break(c, TERN_ERR_PEER, "%s does not answer after %.1f s: %s", peer_describe(p).z, seconds,
                      *why ? why
                           : "is ternd running there, is the port right, does a firewall let it through?");
    else if (p->holder[0])
        cluster_break(
            c, TERN_ERR_BUSY,
            "%s is busy: it works for the coordinator '%s'; end that one first, or use another worker",
            peer_describe(p).z, p->holder);
    else
        cluster_break(c, TERN_ERR_PEER,
                      "%s took the connection but did not answer hello within %.1f s; restart its ternd and "
                      "see its log",
                      peer_describe(p).z, seconds);
}

static void tick_joining(struct cluster *c, struct cluster_peer *p, uint64_t now)
{
    struct tern_err err;
    enum tern_status st;

    if (now >= c->join_until_ms) {
        on_join_timeout(c, p);
        return;
    }
    if (p->reopen_ms && now >= p->reopen_ms) {
        st = cluster_connect(c, p, &err);
        if (st)
            cluster_break(c, st, "%s", err.text);
    } else if (p->state == PEER_HELLO && now >= p->hello_ms) {
        send_hello(c, p);
    }
}

void cluster_join_tick(struct cluster *c, uint64_t now)
{
    uint32_t n_welcomed = 0;

    for (uint32_t i = 0; i < c->spec.n && !c->broken; i++) {
        struct cluster_peer *p = &c->peers[i];

        if (p->state < PEER_WELCOMED)
            tick_joining(c, p, now);
        else
            n_welcomed++;
        if (p->state == PEER_WELCOMED && c->assigned)
            assign(c, p, now);
        if (p->state == PEER_LOADING && now > p->load_ms && now - p->load_ms > LOAD_STALL_MS)
            cluster_break(c, TERN_ERR_PEER,
                          "%s has not got on with loading for %u s; see its log, and whether it can reach "
                          "the next worker",
                          peer_describe(p).z, LOAD_STALL_MS / 1000);
    }
    if (n_welcomed == c->spec.n && !c->joined && !c->broken) {
        c->joined = true;
        TERN_BUG_IF(!tern_queue_push(c->events, &c->tag.joined));
    }
}
