/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the wire refuses.  Each hostile header is a good one with one thing changed, and the good one passes.
 */
#include "golden/wire_samples.h"
#include "proto/endpoint.h"
#include "proto/wire_impl.h"
#include "unit/wire_arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tern_status get(const uint8_t *bytes, size_t len, struct tern_err *err)
{
    Tern__Header *h = NULL;
    enum tern_status st;
    /* On the heap and of exactly this size, for AddressSanitizer. */
    uint8_t *copy = malloc(len ? len : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    tern_arena_reset(&arena);
    st = tern_wire_get(copy, len, &arena, &h, err);
    assert_true((st == TERN_OK) == (h != NULL));
    if (st)
        assert_true(arena.used == 0 && strlen(err->text) > 10);
    free(copy);
    return st;
}

static size_t sample(const char *name, uint8_t *out, size_t cap)
{
    size_t n, len = 0;
    const struct wire_sample *s = wire_samples(&n);
    struct tern_err err;

    for (size_t i = 0; i < n; i++)
        if (strcmp(s[i].name, name) == 0)
            assert_int_equal(tern_wire_put(s[i].header, out, cap, &len, &err), TERN_OK);
    assert_true(len > 0);
    return len;
}

/* -- bytes made by hand ---------------------------------------------------------------------------------- */

struct bytes {
    uint8_t at[TERN_MAX_HEADER_BYTES + 64];
    size_t n;
};

static void put_varint(struct bytes *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        b->at[b->n++] = (uint8_t)(v | 0x80);
    b->at[b->n++] = (uint8_t)v;
}

static void put_number(struct bytes *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_bytes(struct bytes *b, unsigned field, const void *p, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    memcpy(b->at + b->n, p, n);
    b->n += n;
}

static void put_text(struct bytes *b, unsigned field, const char *text)
{
    put_bytes(b, field, text, strlen(text));
}

static void put_message(struct bytes *b, unsigned field, const struct bytes *m)
{
    put_bytes(b, field, m->at, m->n);
}

static void put_head(struct bytes *b)
{
    b->n = 0;
    put_number(b, 1, TERN_WIRE_VERSION);
    put_varint(b, 2 << 3 | 1);
    memset(b->at + b->n, 7, 8);
    b->n += 8;
}

/* A whole header with this body. */
static enum tern_status get_body(unsigned field, const struct bytes *body, struct tern_err *err)
{
    static struct bytes b;

    put_head(&b);
    put_message(&b, field, body);
    return get(b.at, b.n, err);
}

/* -- tests ----------------------------------------------------------------------------------------------- */

static void test_truncated_and_longer(void **state)
{
    size_t n;
    const struct wire_sample *s = wire_samples(&n);
    struct tern_err err;

    (void)state;
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[4096];
        size_t len = sample(s[i].name, bytes, sizeof bytes - 1), passed = 0;

        assert_int_equal(get(bytes, len, &err), TERN_OK);
        for (size_t cut = 0; cut < len; cut++)
            passed += get(bytes, cut, &err) == TERN_OK;
        assert_int_equal(passed, 0);
        bytes[len] = 0;
        assert_int_equal(get(bytes, len + 1, &err), TERN_ERR_FORMAT);
    }
}

static void test_changed_bytes(void **state)
{
    size_t n, accepted = 0;
    const struct wire_sample *s = wire_samples(&n);
    struct tern_err err;

    (void)state;
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[4096], again[4096];
        size_t len = sample(s[i].name, bytes, sizeof bytes), again_len = 0;

        for (size_t at = 0; at < len; at++)
            for (unsigned x = 1; x < 256; x += x < 16 ? 1 : 13) {
                Tern__Header *h = NULL;

                bytes[at] ^= (uint8_t)x;
                tern_arena_reset(&arena);
                /* Some changes make another legal header; that one goes back to the same bytes. */
                if (tern_wire_get(bytes, len, &arena, &h, &err) == TERN_OK) {
                    accepted++;
                    assert_int_equal(tern_wire_put(h, again, sizeof again, &again_len, &err), TERN_OK);
                    assert_int_equal(again_len, len);
                    assert_memory_equal(again, bytes, len);
                }
                bytes[at] ^= (uint8_t)x;
            }
    }
    assert_true(accepted > 1000);
}

static void test_versions(void **state)
{
    struct bytes b = { .n = 0 }, ping = { .n = 0 };
    struct tern_err err;

    (void)state;
    put_number(&ping, 1, 5);
    put_head(&b);
    put_message(&b, 19, &ping);
    assert_int_equal(get(b.at, b.n, &err), TERN_OK);
    b.at[1] = TERN_WIRE_VERSION + 1;
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "same release"));
    /* Without a version, and with the version of the future and fields of the future. */
    assert_int_equal(get(b.at + 2, b.n - 2, &err), TERN_ERR_UNSUPPORTED);
    put_number(&b, 99, 1);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_UNSUPPORTED);
}

/* The same bytes with one more field, in every message type at every depth. */
static void test_unknown_fields(void **state)
{
    static const unsigned unknown[] = { 23, 99, 1000, 536870911 };
    struct tern_err err;

    (void)state;
    for (unsigned i = 0; i < tern__header__descriptor.n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &tern__header__descriptor.fields[i];
        const ProtobufCMessageDescriptor *m = f->descriptor;

        if (!m)
            continue;
        for (size_t k = 0; k < sizeof unknown / sizeof unknown[0]; k++) {
            struct bytes body = { .n = 0 };

            put_number(&body, unknown[k], 1);
            assert_int_equal(get_body(f->id, &body, &err), TERN_ERR_FORMAT);
            assert_non_null(strstr(err.text, "has no field"));
            for (unsigned j = 0; j < m->n_fields; j++) {
                struct bytes outer = { .n = 0 };

                if (!m->fields[j].descriptor)
                    continue;
                put_message(&outer, m->fields[j].id, &body);
                assert_int_equal(get_body(f->id, &outer, &err), TERN_ERR_FORMAT);
                assert_non_null(strstr(err.text, "has no field"));
            }
        }
    }
    {
        struct bytes b, ping = { .n = 0 };

        put_head(&b);
        put_message(&b, 19, &ping);
        assert_int_equal(get(b.at, b.n, &err), TERN_OK);
        put_number(&b, 23, 1);
        assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);
    }
}

/* Every text, byte string and repeated field has a limit, or nothing of it passes. */
static void check_limits(const ProtobufCMessageDescriptor *m)
{
    for (unsigned i = 0; i < m->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->fields[i];

        if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES ||
            f->label == PROTOBUF_C_LABEL_REPEATED)
            if (!tern_wire_has_limit(m, f->id))
                fail_msg("%s.%s has no limit", m->short_name, f->name);
        if (f->descriptor)
            check_limits(f->descriptor);
    }
}

static void test_every_field_has_a_limit(void **state)
{
    (void)state;
    check_limits(&tern__header__descriptor);
}

static void test_encodings(void **state)
{
    struct bytes b = { .n = 0 }, ping = { .n = 0 }, pong = { .n = 0 }, zero = { .n = 0 };
    struct tern_err err;

    (void)state;
    put_number(&ping, 1, 5);
    put_number(&pong, 1, 5);
    put_number(&pong, 2, 6);
    assert_int_equal(get_body(20, &pong, &err), TERN_OK);

    /* Two bodies; the same one twice. */
    put_head(&b);
    put_message(&b, 19, &ping);
    put_message(&b, 20, &pong);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);
    put_head(&b);
    put_message(&b, 19, &ping);
    put_message(&b, 19, &ping);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);

    /* A field twice, out of order, explicitly zero, with another wire type. */
    put_number(&pong, 2, 6);
    assert_int_equal(get_body(20, &pong, &err), TERN_ERR_FORMAT);
    pong.n = 0;
    put_number(&pong, 2, 6);
    put_number(&pong, 1, 5);
    assert_int_equal(get_body(20, &pong, &err), TERN_ERR_FORMAT);
    put_number(&zero, 1, 0);
    assert_int_equal(get_body(19, &zero, &err), TERN_ERR_FORMAT);
    pong.n = 0;
    put_text(&pong, 1, "xx");
    assert_int_equal(get_body(20, &pong, &err), TERN_ERR_FORMAT);
    for (unsigned type = 1; type < 8; type++) {
        pong.n = 0;
        put_varint(&pong, 1 << 3 | type);
        memset(pong.at + pong.n, 1, 8);
        pong.n += 8;
        assert_int_equal(get_body(20, &pong, &err), TERN_ERR_FORMAT);
    }

    /* Varints: longer than needed, longer than 64 bits, more than 32 where 32 are meant. */
    memcpy(ping.at, "\x08\x85\x00", ping.n = 3);
    assert_int_equal(get_body(19, &ping, &err), TERN_ERR_FORMAT);
    memcpy(ping.at, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", ping.n = 11);
    assert_int_equal(get_body(19, &ping, &err), TERN_ERR_FORMAT);
    memcpy(ping.at, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ping.n = 11);
    assert_int_equal(get_body(19, &ping, &err), TERN_OK);
    memcpy(ping.at, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ping.n = 13);
    assert_int_equal(get_body(19, &ping, &err), TERN_ERR_FORMAT);
    put_head(&b);
    put_number(&b, 3, UINT64_C(1) << 32);
    put_message(&b, 19, &pong);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "32 bits"));
}

static void test_no_body_no_epoch(void **state)
{
    struct bytes b, empty = { .n = 0 };
    struct tern_err err;

    (void)state;
    put_head(&b);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);
    b.n = 0;
    put_number(&b, 1, TERN_WIRE_VERSION);
    put_message(&b, 19, &empty);
    assert_int_equal(get(b.at, b.n, &err), TERN_ERR_FORMAT);
    b.n = 0;
    put_number(&b, 1, TERN_WIRE_VERSION);
    put_message(&b, 12, &empty);
    assert_int_equal(get(b.at, b.n, &err), TERN_OK);
    assert_int_equal(get(b.at, 0, &err), TERN_ERR_FORMAT);
}

static void test_texts(void **state)
{
    static const char *const bad[] = {
        "new\nline", "tab\t",     "bell\a",       "del\x7f",         "c1\xc2\x85",
        "\xff",      "\xc3",      "\xc0\xaf",     "\xed\xa0\x80",    "\xf4\x90\x80\x80",
        "\x80",      "a\xe2\x82", "\xe0\x80\xaf", "\xf0\x80\x80\xaf"
    };
    static const char *const good[] = { "a", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\xb2",
                                        "with space" };
    char name[TERN_MAX_NAME_BYTES + 2];
    struct tern_err err;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct bytes hello = { .n = 0 };

        put_text(&hello, 1, good[i]);
        assert_int_equal(get_body(10, &hello, &err), TERN_OK);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bytes hello = { .n = 0 };

        put_text(&hello, 1, bad[i]);
        assert_int_equal(get_body(10, &hello, &err), TERN_ERR_FORMAT);
    }
    for (size_t n = 0; n <= TERN_MAX_NAME_BYTES + 1; n++) {
        struct bytes hello = { .n = 0 };

        memset(name, 'n', n);
        put_bytes(&hello, 1, name, n);
        assert_int_equal(get_body(10, &hello, &err), n == 0                    ? TERN_ERR_FORMAT
                                                     : n > TERN_MAX_NAME_BYTES ? TERN_ERR_LIMIT
                                                                               : TERN_OK);
    }
    {
        struct bytes hello = { .n = 0 };

        put_bytes(&hello, 1, "a\0b", 3);
        assert_int_equal(get_body(10, &hello, &err), TERN_ERR_FORMAT);
    }
}

static void fill_assign(struct bytes *a, size_t hash, size_t up, const char *next, size_t next_key,
                        unsigned first, unsigned in_flight)
{
    uint8_t key[64];

    memset(key, 9, sizeof key);
    a->n = 0;
    if (first)
        put_number(a, 1, first);
    put_number(a, 2, 3);
    put_bytes(a, 3, key, hash);
    put_bytes(a, 10, key, up);
    if (next[0])
        put_text(a, 11, next);
    if (next_key)
        put_bytes(a, 12, key, next_key);
    put_number(a, 16, in_flight);
}

static void test_assign(void **state)
{
    static const char *const bad[] = { "http://a:1",    "tcp://a",        "tcp://:7101",       "tcp://a:0",
                                       "tcp://a:65536", "tcp://a b:1",    "tcp://a:1/x",       "tcp://*:7101",
                                       "tcp://a:01",    "tcp://::1:7101", "tcp://a;tcp://b:1", "ipc:///tmp/x",
                                       "inproc://x",    "tcp://a:+1" };
    struct bytes a;
    struct tern_err err;

    (void)state;
    fill_assign(&a, 32, 32, "", 0, 0, 8);
    assert_int_equal(get_body(13, &a, &err), TERN_OK);
    fill_assign(&a, 32, 32, "tcp://node-2.example:7101", 32, 2, 8);
    assert_int_equal(get_body(13, &a, &err), TERN_OK);
    fill_assign(&a, 32, 32, "tcp://[2001:db8::1]:7101", 32, 0, 8);
    assert_int_equal(get_body(13, &a, &err), TERN_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fill_assign(&a, 32, 32, bad[i], 32, 0, 8);
        assert_int_equal(get_body(13, &a, &err), TERN_ERR_FORMAT);
    }
    for (size_t n = 0; n <= 33; n++) {
        fill_assign(&a, n, 32, "", 0, 0, 8);
        assert_true((get_body(13, &a, &err) == TERN_OK) == (n == 32));
        fill_assign(&a, 32, n, "", 0, 0, 8);
        assert_true((get_body(13, &a, &err) == TERN_OK) == (n == 32));
        fill_assign(&a, 32, 32, "tcp://a:1", n, 0, 8);
        assert_true((get_body(13, &a, &err) == TERN_OK) == (n == 32));
    }
    fill_assign(&a, 32, 32, "", 32, 0, 8);
    assert_int_equal(get_body(13, &a, &err), TERN_ERR_FORMAT);
    fill_assign(&a, 32, 32, "", 0, 0, TERN_MAX_STEPS_IN_FLIGHT);
    assert_int_equal(get_body(13, &a, &err), TERN_OK);
    fill_assign(&a, 32, 32, "", 0, 0, TERN_MAX_STEPS_IN_FLIGHT + 1);
    assert_int_equal(get_body(13, &a, &err), TERN_ERR_LIMIT);
    fill_assign(&a, 32, 32, "", 0, 0, 0);
    assert_int_equal(get_body(13, &a, &err), TERN_ERR_FORMAT);
    fill_assign(&a, 32, 32, "", 0, 3, 8);
    assert_int_equal(get_body(13, &a, &err), TERN_ERR_FORMAT);
    a.n = 0;
    put_number(&a, 2, 3);
    assert_int_equal(get_body(13, &a, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "missing"));
}

static void put_entry(struct bytes *tensors, unsigned n_ne, size_t hash)
{
    struct bytes e = { .n = 0 }, ne = { .n = 0 };
    uint8_t h[40] = { 1 };

    put_text(&e, 1, "t");
    for (unsigned i = 0; i < n_ne; i++)
        put_varint(&ne, i * 1000);
    put_message(&e, 3, &ne);
    put_bytes(&e, 4, h, hash);
    put_message(tensors, 1, &e);
}

static void test_counts(void **state)
{
    static struct bytes b;
    struct bytes ne = { .n = 0 };
    struct tern_err err;

    (void)state;
    for (unsigned n = 0; n <= 5; n++) {
        b.n = 0;
        put_entry(&b, n, 32);
        assert_true((get_body(14, &b, &err) == TERN_OK) == (n >= 1 && n <= 4));
    }
    b.n = 0;
    put_entry(&b, 1, 31);
    assert_int_equal(get_body(14, &b, &err), TERN_ERR_FORMAT);
    for (unsigned n = TERN_MAX_TENSORS_PER_MESSAGE - 1; n <= TERN_MAX_TENSORS_PER_MESSAGE + 1; n++) {
        b.n = 0;
        for (unsigned i = 0; i < n; i++)
            put_entry(&b, 2, 32);
        assert_int_equal(get_body(14, &b, &err), n > TERN_MAX_TENSORS_PER_MESSAGE ? TERN_ERR_LIMIT : TERN_OK);
    }
    /* A dimension that is not packed. */
    b.n = 0;
    put_text(&ne, 1, "t");
    put_number(&ne, 3, 5);
    put_message(&b, 1, &ne);
    assert_int_equal(get_body(14, &b, &err), TERN_ERR_FORMAT);

    /* Thousands of empty entries in a legal number of bytes. */
    for (unsigned field = 7; field <= 10; field++) {
        struct bytes none = { .n = 0 };

        b.n = 0;
        put_number(&b, 1, 1);
        put_number(&b, 3, 1);
        while (b.n < TERN_MAX_HEADER_BYTES - 32)
            put_message(&b, field, &none);
        assert_int_equal(get_body(17, &b, &err), TERN_ERR_LIMIT);
    }
}

static void test_sizes(void **state)
{
    uint8_t out[256], big[TERN_MAX_HEADER_BYTES + 1] = { 0 };
    Tern__Header h = TERN__HEADER__INIT;
    Tern__Fault fault = TERN__FAULT__INIT;
    struct tern_arena small;
    size_t len = 77, n = sample("tensors", out, sizeof out);
    Tern__Header *back = NULL;
    char text[TERN_ERR_TEXT_BYTES + 1];
    struct tern_err err;

    (void)state;
    assert_int_equal(get(big, sizeof big, &err), TERN_ERR_LIMIT);
    /* An arena that is too small is an answer, at every size. */
    for (size_t size = 4096; size > 0; size -= 64) {
        assert_int_equal(tern_arena_init(&small, 4096, "a test", &err), TERN_OK);
        small.size = size;
        if (tern_wire_get(out, n, &small, &back, &err)) {
            assert_int_equal(err.status, TERN_ERR_LIMIT);
            assert_int_equal(small.used, 0);
        }
        small.size = 4096;
        tern_arena_fini(&small);
    }
    /* Put: too long a text, too small a buffer, no epoch. */
    memset(text, 'x', sizeof text);
    text[TERN_ERR_TEXT_BYTES] = '\0';
    h.version = TERN_WIRE_VERSION;
    h.epoch = 1;
    h.body_case = TERN__HEADER__BODY_FAULT;
    h.fault = &fault;
    fault.text = text;
    assert_int_equal(tern_wire_put(&h, big, sizeof big, &len, &err), TERN_ERR_LIMIT);
    text[TERN_ERR_TEXT_BYTES - 1] = '\0';
    assert_int_equal(tern_wire_put(&h, out, sizeof out, &len, &err), TERN_ERR_LIMIT);
    assert_int_equal(len, 77);
    assert_int_equal(tern_wire_put(&h, big, sizeof big, &len, &err), TERN_OK);
    h.epoch = 0;
    assert_int_equal(tern_wire_put(&h, big, sizeof big, &len, &err), TERN_ERR_FORMAT);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(tern_wire_body_name(TERN__HEADER__BODY_STEP), "step");
    assert_string_equal(tern_wire_body_name(TERN__HEADER__BODY_FAULT), "fault");
    assert_string_equal(tern_wire_body_name(TERN__HEADER__BODY__NOT_SET), "nothing");
    assert_string_equal(tern_wire_body_name((Tern__Header__BodyCase)1), "nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated_and_longer),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_every_field_has_a_limit),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_no_body_no_epoch),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_assign),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
