/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/base: errors, the cursor over untrusted bytes, checked sizes, arenas, the log's limiter.
 */
#include "unit/unit.h"

#include "engine/base/cursor.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <fcntl.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static void test_err_is_printable(void **state)
{
    struct tern_err err;

    (void)state;
    assert_int_equal(TERN_FAIL(&err, TERN_ERR_FORMAT, "bad\x1b[2J %s", "x\ny"), TERN_ERR_FORMAT);
    assert_string_equal(err.text, "bad?[2J x?y");
    assert_int_equal(err.status, TERN_ERR_FORMAT);
    assert_string_equal(tern_status_name(TERN_ERR_FORMAT), "format");
    assert_int_equal(tern_status_exit_code(TERN_ERR_USAGE), EX_USAGE);
    assert_int_equal(TERN_FAIL(NULL, TERN_ERR_IO, "nobody listens"), TERN_ERR_IO);
}

static void test_cursor_stops_at_the_end(void **state)
{
    static const uint8_t bytes[] = { 1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f };
    struct tern_cursor c;
    uint8_t a = 0;
    uint16_t b = 0;
    uint32_t d = 0;
    uint64_t e = 0;
    float f = 0;
    const uint8_t *p = NULL;

    (void)state;
    tern_cursor_init(&c, bytes, sizeof bytes);
    assert_true(tern_cursor_u8(&c, &a) && tern_cursor_u16(&c, &b) && tern_cursor_u32(&c, &d));
    assert_true(tern_cursor_u64(&c, &e) && tern_cursor_f32(&c, &f));
    assert_int_equal(a, 1);
    assert_int_equal(b, 2);
    assert_int_equal(d, 3);
    assert_int_equal(e, 4);
    assert_true(f == 1.0f);
    assert_int_equal(tern_cursor_left(&c), 0);
    assert_false(tern_cursor_u8(&c, &a));
    assert_true(c.bad);
    tern_cursor_init(&c, bytes, sizeof bytes);
    assert_false(tern_cursor_bytes(&c, UINT64_MAX, &p)); /* no wrap */
    assert_null(p);
    assert_false(tern_cursor_u8(&c, &a)); /* bad stays bad */
    tern_cursor_init(&c, bytes, 7);
    assert_false(tern_cursor_u64(&c, &e));
    assert_int_equal(e, 4); /* untouched */
    tern_cursor_init(&c, NULL, 0);
    assert_false(tern_cursor_skip(&c, 1));
}

static void test_sizes_do_not_wrap(void **state)
{
    size_t r = 7;

    (void)state;
    assert_false(tern_mul_size(SIZE_MAX, 2, &r));
    assert_false(tern_add_size(SIZE_MAX, 1, &r));
    assert_int_equal(r, 7);
    assert_true(tern_mul_size(1u << 20, 1u << 20, &r));
    assert_true(r == (size_t)1 << 40);
}

static void test_arena(void **state)
{
    struct tern_arena a;
    char *p, *q;

    (void)state;
    assert_ok(tern_arena_init(&a, 4096, "a test", &unit_err));
    p = tern_arena_alloc(&a, 100);
    q = tern_arena_alloc(&a, 1);
    assert_non_null(p);
    assert_true(q >= p + 100 && ((uintptr_t)q & 63) == 0);
    assert_null(tern_arena_alloc(&a, 4096));
    assert_null(tern_arena_alloc(&a, SIZE_MAX));
    tern_arena_reset(&a);
    assert_ptr_equal(tern_arena_alloc(&a, 4096), p);
    tern_arena_fini(&a);
}

static void test_block_too_large_is_a_sentence(void **state)
{
    void *p = NULL;
    struct tern_err err;

    (void)state;
    assert_int_equal(tern_block_new(SIZE_MAX / 2, "a test", &p, &err), TERN_ERR_MEMORY);
    assert_null(p);
    assert_non_null(strstr(err.text, "a test"));
}

/* What goes into a Fault message must be text, whatever file name or cut went into the sentence. */
static void test_err_is_utf8(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa6", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa6" },
        { "caf\xe9.gguf", "caf?.gguf" }, /* Latin-1 */
        { "\xc2\x9b"
          "2J",
          "??2J" },                                      /* a control of the second half */
        { "\xc0\xaf \xe0\x80\xaf", "?? ???" },           /* longer than need be */
        { "\xed\xa0\x80 \xf4\x90\x80\x80", "??? ????" }, /* surrogate; beyond the last */
        { "cut \xe2\x82", "cut ??" },
        { "\xff\xfe", "??" },
    };
    struct tern_err err;
    char name[TERN_ERR_TEXT_BYTES + 3];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)TERN_FAIL(&err, TERN_ERR_IO, "%s", cases[i].in);
        assert_string_equal(err.text, cases[i].out);
    }
    for (size_t i = 0; i + 3 <= sizeof name; i += 3)
        memcpy(name + i, "\xe2\x82\xac", 3);
    name[sizeof name - 1] = '\0';
    for (unsigned shift = 0; shift < 3; shift++) {
        (void)TERN_FAIL(&err, TERN_ERR_IO, "%.*s%s", (int)shift, "ab", name);
        assert_int_equal(strlen(err.text), TERN_ERR_TEXT_BYTES - 1);
        for (unsigned cut = (TERN_ERR_TEXT_BYTES - 1 - shift) % 3, i = 1; i <= cut; i++)
            assert_int_equal(err.text[TERN_ERR_TEXT_BYTES - 1 - i], '?');
    }
}

/* A reader of stderr that sleeps: lines are lost, nobody waits. */
static void test_log_into_a_full_pipe(void **state)
{
    char block[4096] = { 0 };
    int ends[2], saved = dup(STDERR_FILENO);

    (void)state;
    assert_true(saved >= 0);
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], block, sizeof block) > 0)
        continue;
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0); /* from here on a write would wait for ever */
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    alarm(20);
    tern_log(TERN_LOG_ERROR, "test", "nobody reads this");
    alarm(0);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(ends[0]);
    close(ends[1]);
}

static void test_log_limit(void **state)
{
    struct tern_log_limit l = { 0 };
    uint64_t held = 99;

    (void)state;
    assert_true(tern_log_limit(&l, 5, 1000, &held));
    assert_int_equal(held, 0);
    assert_false(tern_log_limit(&l, 6, 1000, &held));
    assert_false(tern_log_limit(&l, 900, 1000, &held));
    assert_true(tern_log_limit(&l, 1005, 1000, &held));
    assert_int_equal(held, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_is_printable),
        cmocka_unit_test(test_cursor_stops_at_the_end),
        cmocka_unit_test(test_sizes_do_not_wrap),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_block_too_large_is_a_sentence),
        cmocka_unit_test(test_log_limit),
        cmocka_unit_test(test_err_is_utf8),
        cmocka_unit_test(test_log_into_a_full_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
