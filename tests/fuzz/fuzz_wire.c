/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire and the small text formats of proto/.  The first byte says what the rest is: 0 a header frame, 1 a
 * header frame and its payload (the frame's length in two bytes comes first), 2 an allow-list, 3 a key file,
 * 4 Z85, 5 an endpoint.
 */
#include "fuzz/fuzz.h"
#include "proto/allow.h"
#include "proto/endpoint.h"
#include "proto/keys.h"
#include "proto/wire.h"

#include <string.h>

#define MAX_ROWS  16
#define ROW_BYTES 5

static struct tern_arena arena;
static struct tern_step *step;

static void init(void)
{
    struct tern_err err;

    if (step)
        return;
    FUZZ_CHECK(tern_keys_init(&err) == TERN_OK);
    FUZZ_CHECK(tern_arena_init(&arena, TERN_WIRE_ARENA_BYTES, "a fuzzer", &err) == TERN_OK);
    FUZZ_CHECK(tern_step_new(MAX_ROWS, ROW_BYTES, &step, &err) == TERN_OK);
}

/* What is accepted is canonical: it goes back to the same bytes. */
static Tern__Header *fuzz_header(const uint8_t *data, size_t size)
{
    static uint8_t again[TERN_MAX_HEADER_BYTES];
    Tern__Header *h = NULL;
    struct tern_err err = { .text = "" };
    size_t len = 0;

    tern_arena_reset(&arena);
    if (tern_wire_get(data, size, &arena, &h, &err)) {
        FUZZ_CHECK(!h && err.text[0] && err.status >= TERN_ERR_USAGE && arena.used == 0);
        return NULL;
    }
    FUZZ_CHECK(tern_wire_put(h, again, sizeof again, &len, &err) == TERN_OK);
    FUZZ_CHECK(len == size && memcmp(again, data, len) == 0);
    return h;
}

static void fuzz_step(const uint8_t *data, size_t size)
{
    static uint8_t head[TERN_MAX_HEADER_BYTES];
    size_t n = size < 2 ? 0 : (size_t)(data[0] | data[1] << 8), len, payload_len;
    const uint8_t *payload;
    struct tern_err err;
    Tern__Header *h;
    enum tern_status st;
    bool result;

    if (size < 2 || n > size - 2)
        return;
    h = fuzz_header(data + 2, n);
    if (!h)
        return;
    tern_step_clear(step);
    st = tern_wire_get_step(h, data + 2 + n, size - 2 - n, MAX_ROWS, step, &err);
    if (st != TERN_OK) {
        FUZZ_CHECK(st == TERN_ERR_FORMAT && step->parts_in == 0 && step->n_rows == 0);
        return;
    }
    result = h->body_case == TERN__HEADER__BODY_RESULT;
    FUZZ_CHECK(tern_step_check_result(step, &err) == TERN_OK && step->n_rows <= MAX_ROWS);
    FUZZ_CHECK(result || tern_step_check(step, &err) == TERN_OK);
    /* All of it fits one part here: the way back gives the same message. */
    FUZZ_CHECK(tern_wire_step_parts(step) == 1);
    FUZZ_CHECK(tern_wire_put_step(step, result, h->epoch, h->layout, 0, head, sizeof head, &len, &payload,
                                  &payload_len, &err) == TERN_OK);
    FUZZ_CHECK(len == n && memcmp(head, data + 2, n) == 0);
    FUZZ_CHECK(payload_len == size - 2 - n &&
               (payload_len == 0 || memcmp(payload, data + 2 + n, payload_len) == 0));
}

static void fuzz_allow(const char *text, size_t size)
{
    struct tern_allow_entry *e = NULL;
    struct tern_err err;
    size_t n = 0;

    if (tern_allow_parse("list", text, size, &e, &n, &err)) {
        FUZZ_CHECK(!e && n == 0);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(e[i].name[0] && e[i].role != TERN_ROLE_NONE && memchr(e[i].name, 0, sizeof e[i].name));
        for (size_t k = 0; k < i; k++)
            FUZZ_CHECK(memcmp(e[i].key, e[k].key, TERN_KEY_BYTES) != 0);
    }
    free(e);
}

static void fuzz_key(const char *text, size_t size)
{
    struct tern_key key;
    struct tern_err err;

    if (tern_key_parse("key", text, size, &key, &err) == TERN_OK)
        tern_key_wipe(&key);
}

static void fuzz_z85(const char *text, size_t size)
{
    uint8_t key[TERN_KEY_BYTES];
    char again[TERN_Z85_CHARS + 1];

    if (!tern_key_from_z85(text, size, key))
        return;
    tern_key_to_z85(key, again);
    FUZZ_CHECK(size == TERN_Z85_CHARS && memcmp(again, text, size) == 0);
}

static void fuzz_endpoint(const char *text, size_t size)
{
    char zero_ended[512], out[TERN_MAX_ENDPOINT_BYTES + 1];
    struct tern_err err;

    if (tern_endpoint_valid(text, size))
        FUZZ_CHECK(size <= TERN_MAX_ENDPOINT_BYTES && memcmp(text, "tcp://", 6) == 0 &&
                   !memchr(text, 0, size));
    if (size >= sizeof zero_ended)
        return;
    memcpy(zero_ended, text, size);
    zero_ended[size] = '\0';
    (void)tern_endpoint_is_ipv6(zero_ended);
    if (tern_endpoint_from_listen(zero_ended, out, &err) == TERN_OK)
        FUZZ_CHECK(strlen(out) <= TERN_MAX_ENDPOINT_BYTES && strncmp(out, "tcp://", 6) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;

    init();
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 0: (void)fuzz_header(data + 1, size - 1); break;
    case 1: fuzz_step(data + 1, size - 1); break;
    case 2: fuzz_allow(text, size - 1); break;
    case 3: fuzz_key(text, size - 1); break;
    case 4: fuzz_z85(text, size - 1); break;
    case 5: fuzz_endpoint(text, size - 1); break;
    default: break;
    }
    return 0;
}
