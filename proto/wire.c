/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers to bytes and back; steps are in wire_step.c, the strict check of the bytes in wire_scan.c.
 */
#include "proto/wire.h"

#include "proto/endpoint.h"
#include "proto/wire_impl.h"

#include <string.h>

static void *arena_alloc(void *arena, size_t n)
{
    return tern_arena_alloc(arena, n);
}

/* Everything in the arena dies together. */
static void arena_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

const char *tern_wire_body_name(Tern__Header__BodyCase body)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(&tern__header__descriptor, (unsigned)body);

    return f && f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF ? f->name : "nothing";
}

/* What no single field shows. */
static enum tern_status check_whole(const Tern__Header *h, struct tern_err *err)
{
    if (h->version != TERN_WIRE_VERSION)
        return TERN_FAIL(err, TERN_ERR_UNSUPPORTED, "malformed message: it does not say its version");
    if (h->body_case == TERN__HEADER__BODY__NOT_SET)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: it has no body");
    if (h->epoch == 0 && h->body_case != TERN__HEADER__BODY_BUSY)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: %s has no epoch",
                         tern_wire_body_name(h->body_case));
    if (h->body_case == TERN__HEADER__BODY_ASSIGN) {
        const Tern__Assign *a = h->assign;
        size_t n = strlen(a->next_endpoint);

        if (a->first_layer >= a->last_layer)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: assign names the layers [%u, %u)",
                             a->first_layer, a->last_layer);
        if ((n == 0) != (a->next_key.len == 0))
            return TERN_FAIL(
                err, TERN_ERR_FORMAT,
                "malformed message: assign names the next worker's address or its key, but not both");
        if (n > 0 && !tern_endpoint_valid(a->next_endpoint, n))
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "malformed message: the next worker '%s' is not tcp://HOST:PORT",
                             a->next_endpoint);
    }
    return TERN_OK;
}

enum tern_status tern_wire_put(const Tern__Header *h, uint8_t *out, size_t cap, size_t *len,
                               struct tern_err *err)
{
    size_t n = tern__header__get_packed_size(h);
    enum tern_status st;

    if (n > cap || n > TERN_MAX_HEADER_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "a header of %zu bytes (%s) is larger than %zu", n,
                         tern_wire_body_name(h->body_case),
                         cap < TERN_MAX_HEADER_BYTES ? cap : TERN_MAX_HEADER_BYTES);
    st = check_whole(h, err);
    if (st)
        return st;
    n = tern__header__pack(h, out);
    /* What a peer would refuse is not sent: the fault shows here, where it was made. */
    st = tern_wire_scan(out, n, err);
    if (st)
        return st;
    *len = n;
    return TERN_OK;
}

enum tern_status tern_wire_get(const void *bytes, size_t len, struct tern_arena *arena, Tern__Header **out,
                               struct tern_err *err)
{
    ProtobufCAllocator alloc = { arena_alloc, arena_free, arena };
    size_t mark = arena->used;
    Tern__Header *h;
    enum tern_status st;

    if (len == 0)
        return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: it is empty");
    if (len > TERN_MAX_HEADER_BYTES)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "refused message: a header of %zu bytes, at most %d", len,
                         TERN_MAX_HEADER_BYTES);
    st = tern_wire_scan(bytes, len, err);
    if (st)
        return st;
    h = tern__header__unpack(&alloc, len, bytes);
    if (!h)
        /* The scan has accepted the bytes: only memory can be missing. */
        st = TERN_FAIL(err, TERN_ERR_LIMIT, "refused message: %zu bytes are not enough to unpack it",
                       arena->size - mark);
    else
        st = check_whole(h, err);
    if (st) {
        arena->used = mark;
        return st;
    }
    *out = h;
    return TERN_OK;
}
