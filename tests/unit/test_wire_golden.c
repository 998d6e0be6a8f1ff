/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of every message are files (tests/golden/wire/NAME.hex): a change of the wire shows here and
 * needs a new version, unless this one has never been released (CONTRIBUTING.md).
 *
 * `test_wire_golden --write DIR` writes them anew (NAME.hex), with --binary as raw bytes for the fuzzer's
 * corpus.
 */
#include "golden/wire_samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static bool same_message(const ProtobufCMessage *a, const ProtobufCMessage *b);

/* One element at p and q. */
static bool same_value(const ProtobufCFieldDescriptor *f, const void *p, const void *q)
{
    const ProtobufCBinaryData *x = p, *y = q;

    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32: return memcmp(p, q, 4) == 0;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64: return memcmp(p, q, 8) == 0;
    case PROTOBUF_C_TYPE_STRING: return strcmp(*(char *const *)p, *(char *const *)q) == 0;
    case PROTOBUF_C_TYPE_BYTES:
        return x->len == y->len && (x->len == 0 || memcmp(x->data, y->data, x->len) == 0);
    case PROTOBUF_C_TYPE_MESSAGE:
        return same_message(*(ProtobufCMessage *const *)p, *(ProtobufCMessage *const *)q);
    default: return false;
    }
}

static bool same_message(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    if (!a || !b || a->descriptor != b->descriptor || a->n_unknown_fields || b->n_unknown_fields)
        return false;
    for (unsigned i = 0; i < a->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &a->descriptor->fields[i];
        const char *x = (const char *)a + f->offset, *y = (const char *)b + f->offset;
        size_t size = f->type == PROTOBUF_C_TYPE_MESSAGE ? sizeof(void *) : 8;

        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            int in_a, in_b;

            memcpy(&in_a, (const char *)a + f->quantifier_offset, sizeof in_a);
            memcpy(&in_b, (const char *)b + f->quantifier_offset, sizeof in_b);
            if (in_a != in_b || (in_a == (int)f->id && !same_value(f, x, y)))
                return false;
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n, m;

            memcpy(&n, (const char *)a + f->quantifier_offset, sizeof n);
            memcpy(&m, (const char *)b + f->quantifier_offset, sizeof m);
            if (n != m)
                return false;
            for (size_t k = 0; k < n; k++)
                if (!same_value(f, *(const char *const *)x + k * size, *(const char *const *)y + k * size))
                    return false;
        } else if (!same_value(f, x, y)) {
            return false;
        }
    }
    return true;
}

/* Lines of hex digits; # begins a comment. */
static size_t read_hex(const char *name, uint8_t *out, size_t cap)
{
    char path[4096], line[256];
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/tests/golden/wire/%s.hex", TERN_SOURCE_DIR, name);
    f = fopen(path, "r");
    if (!f)
        fail_msg("there is no %s", path);
    while (fgets(line, sizeof line, f)) {
        unsigned byte;

        for (const char *p = line; *p != '#' && sscanf(p, "%2x", &byte) == 1; p += 2) {
            assert_true(n < cap);
            out[n++] = (uint8_t)byte;
        }
    }
    fclose(f);
    return n;
}

static void test_golden(void **state)
{
    size_t n;
    const struct wire_sample *s = wire_samples(&n);
    uint64_t bodies = 0;
    struct tern_arena arena;
    struct tern_err err;

    (void)state;
    assert_int_equal(tern_arena_init(&arena, TERN_WIRE_ARENA_BYTES, "a test", &err), TERN_OK);
    for (size_t i = 0; i < n; i++) {
        uint8_t want[4096], got[4096];
        size_t want_len = read_hex(s[i].name, want, sizeof want), got_len = 0;
        Tern__Header *back = NULL;

        if (tern_wire_put(s[i].header, got, sizeof got, &got_len, &err))
            fail_msg("%s: %s", s[i].name, err.text);
        if (want_len != got_len || memcmp(want, got, want_len) != 0)
            fail_msg("%s: the bytes of the wire have changed", s[i].name);
        if (tern_wire_get(want, want_len, &arena, &back, &err))
            fail_msg("%s: %s", s[i].name, err.text);
        if (!same_message(&back->base, &s[i].header->base))
            fail_msg("%s: another message came back", s[i].name);
        bodies |= UINT64_C(1) << s[i].header->body_case;
        tern_arena_reset(&arena);
    }
    /* Every body there is has a sample. */
    for (unsigned i = 0; i < tern__header__descriptor.n_fields; i++)
        if (tern__header__descriptor.fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            assert_true(bodies >> tern__header__descriptor.fields[i].id & 1);
    tern_arena_fini(&arena);
}

static int write_samples(const char *dir, bool binary)
{
    size_t n;
    const struct wire_sample *s = wire_samples(&n);

    for (size_t i = 0; i < n; i++) {
        char path[4096];
        uint8_t bytes[4096];
        size_t len;
        struct tern_err err;
        FILE *f;

        snprintf(path, sizeof path, "%s/%s%s", dir, s[i].name, binary ? "" : ".hex");
        f = fopen(path, "w");
        if (!f || tern_wire_put(s[i].header, bytes, sizeof bytes, &len, &err)) {
            fprintf(stderr, "cannot write %s\n", path);
            return 1;
        }
        if (binary) {
            /* The first byte says what the rest is: tests/fuzz/fuzz_wire.c. */
            fputc(0, f);
            fwrite(bytes, 1, len, f);
        } else {
            fprintf(f, "# %s: %s\n", tern_wire_body_name(s[i].header->body_case), s[i].comment);
            for (size_t k = 0; k < len; k++)
                fprintf(f, "%02x%s", bytes[k], k % 32 == 31 || k + 1 == len ? "\n" : "");
        }
        fclose(f);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden) };

    if (argc >= 3 && strcmp(argv[1], "--write") == 0)
        return write_samples(argv[2], argc > 3 && strcmp(argv[3], "--binary") == 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
