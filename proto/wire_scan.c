/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The strict check of a header's bytes.
 *
 * protobuf-c is lenient where Tern is not: it keeps unknown fields, cuts 64-bit varints to 32 bits, lets a
 * later value of a field win, and takes any order.  So the bytes are walked here first, and only the
 * canonical encoding passes, the one that protobuf-c itself writes: fields in ascending order, singular ones
 * once, varints in their shortest form, no explicit zeros or empty strings, number lists packed.  What passes
 * is then put back byte for byte.
 */
#include "proto/wire_impl.h"

#include "engine/base/limits.h"
#include "proto/wire.h"

/* The format's own numbers of how a value is laid out. */
enum wire_type { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2 };

/*
 * What a field may hold: bytes of a text, the exact bytes of a byte string (max), elements of a repeated
 * field, or a number. min > 0 means that the field must be there.  A text, byte string or repeated field that
 * is not listed is refused.
 */
struct limit {
    const ProtobufCMessageDescriptor *message;
    uint32_t field, min, max;
};

// clang-format off
static const struct limit limits[] = {
    { &tern__hello__descriptor,           1, 1, TERN_MAX_NAME_BYTES },
    { &tern__hello__descriptor,           2, 0, TERN_MAX_NAME_BYTES },
    { &tern__welcome__descriptor,         1, 1, TERN_MAX_NAME_BYTES },
    { &tern__welcome__descriptor,         2, 0, TERN_MAX_NAME_BYTES },
    { &tern__welcome__descriptor,         3, 0, 15 },
    { &tern__welcome__descriptor,         6, 0, TERN_HASH_BYTES },
    { &tern__welcome__descriptor,         7, 0, TERN_MAX_LAYERS },
    { &tern__welcome__descriptor,         8, 0, TERN_MAX_LAYERS },
    { &tern__busy__descriptor,            1, 0, TERN_MAX_NAME_BYTES },
    { &tern__assign__descriptor,          1, 0, TERN_MAX_LAYERS },
    { &tern__assign__descriptor,          2, 1, TERN_MAX_LAYERS },
    { &tern__assign__descriptor,          3, 1, TERN_HASH_BYTES },
    { &tern__assign__descriptor,         10, 1, TERN_KEY_BYTES },
    { &tern__assign__descriptor,         11, 0, TERN_MAX_ENDPOINT_BYTES },
    { &tern__assign__descriptor,         12, 0, TERN_KEY_BYTES },
    { &tern__assign__descriptor,         16, 1, TERN_MAX_STEPS_IN_FLIGHT },
    { &tern__tensors__descriptor,         1, 1, TERN_MAX_TENSORS_PER_MESSAGE },
    { &tern__tensors__entry__descriptor,  1, 1, TERN_MAX_TENSOR_NAME },
    { &tern__tensors__entry__descriptor,  3, 1, 4 },
    { &tern__tensors__entry__descriptor,  4, 1, TERN_HASH_BYTES },
    { &tern__step__descriptor,            1, 1, UINT32_MAX },
    { &tern__step__descriptor,            3, 1, TERN_MAX_STEP_ROWS },
    { &tern__step__descriptor,            6, 0, TERN_MAX_STEP_ROWS },
    { &tern__step__descriptor,            7, 0, TERN_MAX_STEP_OPS },
    { &tern__step__descriptor,            8, 0, TERN_MAX_STEP_RUNS },
    { &tern__step__descriptor,            9, 0, TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS },
    { &tern__step__descriptor,           10, 0, TERN_MAX_WORKERS },
    { &tern__result__descriptor,          1, 1, UINT32_MAX },
    { &tern__result__descriptor,          3, 1, TERN_MAX_STEP_ROWS },
    { &tern__result__descriptor,          6, 0, TERN_MAX_STEP_ROWS },
    { &tern__result__descriptor,          7, 0, TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS },
    { &tern__result__descriptor,          8, 0, TERN_MAX_WORKERS },
    { &tern__bye__descriptor,             1, 1, TERN_BYE_FAILED },
    { &tern__fault__descriptor,           2, 0, TERN_ERR_TEXT_BYTES - 1 },
};
// clang-format on

struct span {
    const uint8_t *at, *end;
};

/* The rows of one message stand together. */
static const struct limit *find_limit(const ProtobufCMessageDescriptor *message, uint32_t field)
{
    const struct limit *end = limits + sizeof limits / sizeof limits[0], *l = limits;

    while (l < end && l->message != message)
        l++;
    for (; l < end && l->message == message; l++)
        if (l->field == field)
            return l;
    return NULL;
}

bool tern_wire_has_limit(const ProtobufCMessageDescriptor *message, uint32_t field)
{
    return find_limit(message, field) != NULL;
}

bool tern_wire_text_valid(const uint8_t *text, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint32_t c = text[i++], low = 0;
        unsigned more = 0;

        if (c >= 0xf0 && c <= 0xf4) {
            more = 3;
            low = 0x10000;
            c &= 7;
        } else if (c >= 0xe0 && c < 0xf0) {
            more = 2;
            low = 0x800;
            c &= 15;
        } else if (c >= 0xc2 && c < 0xe0) {
            more = 1;
            low = 0x80;
            c &= 31;
        } else if (c >= 0x80) {
            return false;
        }
        for (; more > 0; more--) {
            if (i == len || (text[i] & 0xc0) != 0x80)
                return false;
            c = c << 6 | (text[i++] & 0x3f);
        }
        if (c < low || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
        if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            return false;
    }
    return true;
}

/* The shortest form only: no superfluous zero byte at the end. */
static bool get_varint(struct span *s, uint64_t *out)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        uint8_t b = *s->at++;

        if (shift == 63 && b > 1)
            return false;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            if (b == 0 && shift > 0)
                return false;
            *out = v;
            return true;
        }
    }
    return false;
}

static bool get_bytes(struct span *s, struct span *out)
{
    uint64_t n;

    if (!get_varint(s, &n) || n > (size_t)(s->end - s->at))
        return false;
    out->at = s->at;
    s->at += n;
    out->end = s->at;
    return true;
}

static enum tern_status bad(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                            const char *what, struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: %s.%s %s", m->short_name, f->name, what);
}

static enum tern_status over(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                             uint64_t has, uint64_t max, struct tern_err *err)
{
    return TERN_FAIL(err, TERN_ERR_LIMIT, "refused message: %s.%s is %llu, at most %llu", m->short_name,
                     f->name, (unsigned long long)has, (unsigned long long)max);
}

static enum tern_status scan_number(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                                    struct span *s, struct tern_err *err)
{
    const struct limit *l = find_limit(m, f->id);
    uint64_t v = 0;

    if (f->type == PROTOBUF_C_TYPE_FIXED64) {
        if (s->end - s->at < 8)
            return bad(m, f, "is cut short", err);
        for (unsigned i = 0; i < 8; i++)
            v |= (uint64_t)*s->at++ << 8 * i;
    } else if (!get_varint(s, &v)) {
        return bad(m, f, "is cut short or not in its shortest form", err);
    }
    if (v == 0)
        return bad(m, f, "is an explicit zero", err);
    if (f->type == PROTOBUF_C_TYPE_UINT32 && v > UINT32_MAX)
        return bad(m, f, "does not fit 32 bits", err);
    if (m == &tern__header__descriptor && f->id == 1 && v != TERN_WIRE_VERSION)
        return TERN_FAIL(
            err, TERN_ERR_UNSUPPORTED,
            "the peer speaks version %llu of the wire and this program %d: run the same release everywhere",
            (unsigned long long)v, TERN_WIRE_VERSION);
    /* A step's number is limited from below only. */
    if (l && l->max != UINT32_MAX && v > l->max)
        return over(m, f, v, l->max, err);
    return TERN_OK;
}

static enum tern_status scan_packed(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                                    struct span *s, struct tern_err *err)
{
    const struct limit *l = find_limit(m, f->id);
    struct span list;
    uint32_t n = 0, max = l ? l->max : 0;

    if (!get_bytes(s, &list))
        return bad(m, f, "is cut short", err);
    while (list.at < list.end) {
        uint64_t v;

        if (!get_varint(&list, &v))
            return bad(m, f, "has a number that is cut short or not in its shortest form", err);
        if (++n > max)
            return over(m, f, n, max, err);
    }
    return n > 0 ? TERN_OK : bad(m, f, "is an explicit empty list", err);
}

static enum tern_status scan_message(const ProtobufCMessageDescriptor *m, struct span s,
                                     struct tern_err *err);

/* A text, a byte string or a message. */
static enum tern_status scan_bytes(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                                   struct span *s, struct tern_err *err)
{
    const struct limit *l = find_limit(m, f->id);
    struct span value;
    size_t n;

    if (!get_bytes(s, &value))
        return bad(m, f, "is cut short", err);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return scan_message(f->descriptor, value, err);
    n = (size_t)(value.end - value.at);
    if (n == 0)
        return bad(m, f, "is explicitly empty", err);
    if (!l || n > l->max)
        return over(m, f, n, l ? l->max : 0, err);
    if (f->type == PROTOBUF_C_TYPE_BYTES && n != l->max)
        return bad(m, f, "has a wrong length", err);
    if (f->type == PROTOBUF_C_TYPE_STRING && !tern_wire_text_valid(value.at, n))
        return bad(m, f, "is not plain UTF-8 text", err);
    return TERN_OK;
}

static enum tern_status scan_field(const ProtobufCMessageDescriptor *m, const ProtobufCFieldDescriptor *f,
                                   unsigned wire_type, struct span *s, struct tern_err *err)
{
    bool packed = f->label == PROTOBUF_C_LABEL_REPEATED && f->flags & PROTOBUF_C_FIELD_FLAG_PACKED;
    unsigned want;

    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64: want = packed ? WIRE_BYTES : WIRE_VARINT; break;
    case PROTOBUF_C_TYPE_FIXED64: want = WIRE_64BIT; break;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: want = WIRE_BYTES; break;
    default: return bad(m, f, "has a type that this program does not use", err);
    }
    if (wire_type != want)
        return bad(m, f, "has a wrong wire type", err);
    if (packed)
        return scan_packed(m, f, s, err);
    return want == WIRE_BYTES ? scan_bytes(m, f, s, err) : scan_number(m, f, s, err);
}

/* Fields that must be there.  `seen` has a bit for each index into m->fields. */
static enum tern_status check_required(const ProtobufCMessageDescriptor *m, uint64_t seen,
                                       struct tern_err *err)
{
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const ProtobufCFieldDescriptor *f;

        if (limits[i].message != m || limits[i].min == 0)
            continue;
        f = protobuf_c_message_descriptor_get_field(m, limits[i].field);
        if (!(seen >> (f - m->fields) & 1))
            return bad(m, f, "is missing", err);
    }
    return TERN_OK;
}

static enum tern_status scan_message(const ProtobufCMessageDescriptor *m, struct span s, struct tern_err *err)
{
    uint64_t seen = 0;
    uint32_t last = 0, n = 0;
    bool one_of = false;

    while (s.at < s.end) {
        const ProtobufCFieldDescriptor *f;
        const struct limit *l;
        enum tern_status st;
        uint64_t tag;

        if (!get_varint(&s, &tag) || tag > UINT32_MAX)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "malformed message: a field number of %s is not readable",
                             m->short_name);
        f = protobuf_c_message_descriptor_get_field(m, (unsigned)(tag >> 3));
        if (!f)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "refused message: %s has no field %u", m->short_name,
                             (unsigned)(tag >> 3));
        if (f->id < last || (f->id == last && (f->label != PROTOBUF_C_LABEL_REPEATED ||
                                               f->flags & PROTOBUF_C_FIELD_FLAG_PACKED)))
            return bad(m, f, "is set twice or out of order", err);
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            if (one_of)
                return bad(m, f, "is a second body", err);
            one_of = true;
        }
        n = f->id == last ? n + 1 : 1;
        last = f->id;
        l = find_limit(m, f->id);
        if (f->label == PROTOBUF_C_LABEL_REPEATED && n > (l ? l->max : 0))
            return over(m, f, n, l ? l->max : 0, err);
        st = scan_field(m, f, (unsigned)(tag & 7), &s, err);
        if (st)
            return st;
        seen |= UINT64_C(1) << (f - m->fields);
    }
    return check_required(m, seen, err);
}

enum tern_status tern_wire_scan(const uint8_t *bytes, size_t len, struct tern_err *err)
{
    struct span s = { bytes, bytes + len };

    return scan_message(&tern__header__descriptor, s, err);
}
