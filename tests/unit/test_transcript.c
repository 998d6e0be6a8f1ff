/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations as JSON, good and bad, and what of a model's text reaches a terminal.
 */
#include "unit/unit.h"

#include "coordinator/terminal_text.h"
#include "coordinator/transcript.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_message(const struct transcript *t, size_t i, enum tern_chat_role role, const char *text)
{
    assert_true(i < t->n);
    assert_int_equal(t->messages[i].role, role);
    assert_true(tern_str_is(t->messages[i].content, text));
}

static void test_messages(void **state)
{
    struct transcript t = { 0 };

    (void)state;
    assert_null(transcript_system(&t));
    assert_ok(transcript_set_system(&t, "", 0, &unit_err));
    assert_int_equal(t.n, 0);
    for (int i = 0; i < 100; i++)
        assert_ok(transcript_add(&t, i % 2 ? TERN_CHAT_ASSISTANT : TERN_CHAT_USER, "abc", 3, &unit_err));
    assert_ok(transcript_set_system(&t, "one", 3, &unit_err));
    assert_int_equal(t.n, 101);
    check_message(&t, 0, TERN_CHAT_SYSTEM, "one");
    check_message(&t, 1, TERN_CHAT_USER, "abc");
    assert_ok(transcript_set_system(&t, "two!", 4, &unit_err));
    assert_int_equal(t.n, 101);
    check_message(&t, 0, TERN_CHAT_SYSTEM, "two!");
    assert_ok(transcript_set_system(&t, NULL, 0, &unit_err));
    assert_null(transcript_system(&t));
    assert_int_equal(t.n, 100);
    transcript_cut(&t, 3);
    assert_int_equal(t.n, 3);
    assert_ok(transcript_add(&t, TERN_CHAT_USER, NULL, 0, &unit_err));
    check_message(&t, 3, TERN_CHAT_USER, "");
    transcript_free(&t);
}

static void test_file(void **state)
{
    char dir[] = "/tmp/tern-transcript-XXXXXX", path[64];
    struct transcript t = { 0 }, back = { 0 };
    struct stat sb;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x.json", dir);
    assert_ok(transcript_add(&t, TERN_CHAT_SYSTEM, "a\n\"b\" \x1b", 7, &unit_err));
    assert_ok(transcript_add(&t, TERN_CHAT_USER, "\xff z\xc3", 4, &unit_err));
    assert_ok(transcript_add(&t, TERN_CHAT_ASSISTANT, "a\0b", 3, &unit_err));
    assert_ok(transcript_save(&t, path, &unit_err));
    assert_ok(transcript_save(&t, path, &unit_err)); /* over the old one */
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    assert_ok(transcript_load(&back, path, &unit_err));
    assert_int_equal(back.n, 3);
    check_message(&back, 0, TERN_CHAT_SYSTEM, "a\n\"b\" \x1b");
    check_message(&back, 1, TERN_CHAT_USER, "\xef\xbf\xbd z\xef\xbf\xbd");
    assert_int_equal(back.messages[2].content.len, 3);
    assert_memory_equal(back.messages[2].content.ptr, "a\0b", 3);
    unlink(path);
    assert_int_equal(transcript_load(&back, path, &unit_err), TERN_ERR_IO);
    assert_int_equal(back.n, 3);
    assert_int_equal(mkfifo(path, 0600), 0); /* what is no regular file is not replaced */
    assert_int_equal(transcript_save(&t, path, &unit_err), TERN_ERR_IO);
    assert_int_equal(stat(path, &sb), 0);
    assert_true(S_ISFIFO(sb.st_mode));
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* nothing was left beside it */
    assert_int_equal(transcript_save(&t, path, &unit_err), TERN_ERR_IO);
    transcript_free(&t);
    transcript_free(&back);
}

static void refuse(struct transcript *t, const char *text, size_t len)
{
    enum tern_status st = transcript_parse(t, "x.json", text, len, &unit_err);

    if (st != TERN_ERR_FORMAT && st != TERN_ERR_LIMIT)
        fail_msg("'%.60s' is not refused", text);
    assert_non_null(strstr(unit_err.text, st == TERN_ERR_FORMAT ? "x.json" : "messages"));
    assert_int_equal(t->n, 1); /* untouched */
}

static void test_hostile(void **state)
{
    static const char *const bad[] = { "",
                                       "{",
                                       "[1]",
                                       "{}",
                                       "7",
                                       "\"messages\"",
                                       "{\"messages\":{}}",
                                       "[{\"role\":\"user\"}]",
                                       "[{\"content\":\"x\"}]",
                                       "[{\"role\":\"tool\",\"content\":\"x\"}]",
                                       "[{\"role\":\"user\",\"content\":[\"x\"]}]",
                                       "[{\"role\":\"user\\u0000\",\"content\":\"x\"}]",
                                       "[{\"role\":\"user\",\"content\":\"x\",\"\\u0000\":1}]",
                                       "[{\"role\":\"user\",\"content\":\"\xff\"}]",
                                       "[{\"role\":\"user\",\"role\":\"user\",\"content\":\"x\"}]",
                                       "[{\"role\":\"user\\u001b[2J\",\"content\":\"x\"}]",
                                       "[{\"role\":\"user\",\"content\":\"x\"}] x" };
    const size_t many = TRANSCRIPT_MAX_MESSAGES + 1;
    static const char one[] = "{\"role\":\"user\",\"content\":\"\"},";
    struct transcript t = { 0 };
    char *big;

    (void)state;
    assert_ok(transcript_add(&t, TERN_CHAT_USER, "x", 1, &unit_err));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuse(&t, bad[i], strlen(bad[i]));
        for (const char *c = unit_err.text; *c; c++)
            assert_true((unsigned char)*c >= ' ');
    }
    big = malloc(many * (sizeof one - 1) + 2);
    assert_non_null(big);
    memset(big, '[', 100000);
    refuse(&t, big, 100000);
    for (size_t i = 0; i < many; i++)
        memcpy(big + 1 + i * (sizeof one - 1), one, sizeof one - 1);
    big[many * (sizeof one - 1)] = ']';
    refuse(&t, big, many * (sizeof one - 1) + 1);
    free(big);
    assert_ok(transcript_parse(&t, "x.json", "{\"model\":1,\"messages\":[]}", 25, &unit_err));
    assert_int_equal(t.n, 0);
    transcript_free(&t);
}

/* -- the terminal ---------------------------------------------------------------------------------------- */

static void filter(const char *text, size_t n, size_t step, const char *want)
{
    struct terminal_text t = { 0 };
    char out[TERMINAL_TEXT_OUT];
    size_t at = 0;

    for (size_t i = 0; i < n; i += step)
        at += terminal_text_filter(&t, text + i, n - i < step ? n - i : step, out + at);
    if (at != strlen(want) || memcmp(out, want, at) != 0)
        fail_msg("'%.*s', not '%s'", (int)at, out, want);
}

static void test_terminal(void **state)
{
    static const char text[] = "a\tb\n\x1b[2J\r\x07\x7f \xc2\x9b"
                               "31m \xc2\xa0\xc3\x9f \xf0\x9f\x99\x82\xc2\x85";

    (void)state;
    for (size_t step = 1; step < sizeof text; step++) /* cut anywhere */
        filter(text, sizeof text - 1, step,
               "a\tb\n^[[2J^M^G^? \xef\xbf\xbd"
               "31m \xc2\xa0\xc3\x9f \xf0\x9f\x99\x82\xef\xbf\xbd");
    filter("\0x", 2, 2, "^@x");
}

/* Through a stream: as it is, or safe. */
static void test_write(void **state)
{
    static char text[5000], got[20000];
    struct terminal_text t = { 0 };
    FILE *f;

    (void)state;
    memset(text, 27, sizeof text);
    for (int terminal = 0; terminal < 2; terminal++) {
        f = fmemopen(got, sizeof got, "wb");
        assert_non_null(f);
        assert_true(terminal_text_write(&t, f, terminal, text, sizeof text));
        assert_int_equal(ftell(f), terminal ? 2 * sizeof text : sizeof text);
        fclose(f);
        assert_int_equal(got[0], terminal ? '^' : 27);
        assert_int_equal(got[9999], terminal ? '[' : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages), cmocka_unit_test(test_file),  cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_terminal), cmocka_unit_test(test_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
