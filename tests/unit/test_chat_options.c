/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern chat`: what each option sets, and one sentence for each mistake.
 */
#include "unit/unit.h"

#include "coordinator/chat_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct chat_options o;

/* Splits at spaces. */
static enum tern_status parse(const char *line)
{
    static char copy[4096];
    char *argv[1100] = { NULL };
    int argc = 0;

    chat_options_free(&o);
    assert_true((size_t)snprintf(copy, sizeof copy, "chat %s", line) < sizeof copy);
    for (char *w = strtok(copy, " "); w && argc < 1099; w = strtok(NULL, " "))
        argv[argc++] = w;
    return chat_options_parse(argc, argv, &o, &unit_err);
}

static void test_values(void **state)
{
    (void)state;
    assert_ok(parse(""));
    assert_true(o.answer.gen.n_predict == UINT32_MAX);
    assert_true(o.answer.gen.sample.temperature == 0.8 && o.answer.gen.sample.top_k == 40);
    assert_int_equal(o.answer.gen.n_logprobs, -1);
    assert_null(o.format);
    assert_null(o.system.text);
    assert_int_equal(o.n_messages, 0);
    assert_false(o.no_history);

    assert_ok(parse("-p one -p two --system Be --chat-template chatml -n 5 -s 9 --temp 0 -r STOP --load f "
                    "--no-history --json -c 100"));
    assert_int_equal(o.n_messages, 2);
    assert_string_equal(o.messages[1].text, "two");
    assert_int_equal(o.messages[1].len, 3);
    assert_string_equal(o.system.text, "Be");
    assert_string_equal(tern_chat_format_name(o.format), "chatml");
    assert_int_equal(o.answer.gen.n_predict, 5);
    assert_int_equal(o.answer.gen.sample.seed, 9);
    assert_int_equal(o.answer.gen.n_stops, 1);
    assert_string_equal(o.load, "f");
    assert_true(o.no_history && o.engine.json);

    assert_ok(parse("--top-k 0"));
    assert_int_equal(o.engine.head, TERN_HEAD_FULL);
}

static void test_files(void **state)
{
    char path[] = "/tmp/tern-words-XXXXXX", line[200];
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a\nb\n\n", 5), 5);
    close(fd);
    snprintf(line, sizeof line, "--system no -f %s --system-file %s", path, path);
    assert_ok(parse(line));
    assert_int_equal(o.messages[0].len, 4);
    assert_memory_equal(o.messages[0].text, "a\nb\n", 4);
    assert_int_equal(o.system.len, 4);
    assert_ok(truncate(path, (off_t)CHAT_MAX_MESSAGE_BYTES + 1) ? TERN_ERR_IO : TERN_OK);
    snprintf(line, sizeof line, "-f %s", path);
    assert_int_equal(parse(line), TERN_ERR_LIMIT);
    unlink(path);
    assert_int_equal(parse(line), TERN_ERR_IO);
}

static void refuse(const char *line, enum tern_status st, const char *says)
{
    assert_int_equal(parse(line), st);
    if (!strstr(unit_err.text, says))
        fail_msg("'%s' is refused with '%s', not '%s'", line, unit_err.text, says);
}

static void test_refusals(void **state)
{
    static char many[4096] = "";

    (void)state;
    refuse("--chat-template elvish", TERN_ERR_USAGE, "bitnet, bitnet-fork, llama3, ");
    refuse("--chat-template", TERN_ERR_USAGE, "--chat-template");
    refuse("--elvish", TERN_ERR_USAGE, "--elvish");
    refuse("words", TERN_ERR_USAGE, "-p");
    refuse("--temp x", TERN_ERR_USAGE, "--temp");
    refuse("--logprobs 3", TERN_ERR_USAGE, "--logprobs");
    for (int i = 0; i <= CHAT_MAX_MESSAGES; i++)
        strcat(many, "-p x ");
    refuse(many, TERN_ERR_LIMIT, "256 messages");
}

/* With a server, what the command line does not say is not said. */
static void test_server(void **state)
{
    (void)state;
    assert_ok(parse("--server http://h:1 --model NAME --api-key-file k --temp 0 -s 4 -n 5 -q"));
    assert_string_equal(o.server, "http://h:1");
    assert_string_equal(o.server_model, "NAME");
    assert_string_equal(o.api_key_file, "k");
    assert_int_equal(o.answer.given,
                     ANSWER_GIVEN(ANSWER_OPT_TEMP) | ANSWER_GIVEN(ANSWER_OPT_SEED) | ANSWER_GIVEN_PREDICT);
    assert_ok(parse("--server h -p -m"));
    assert_null(o.server_model);
    refuse("--server h -m f", TERN_ERR_USAGE, "-m and --server");
    refuse("--server h --local 2", TERN_ERR_USAGE, "--local and --server");
    refuse("--server h --model a -t 2", TERN_ERR_USAGE, "-t and --server");
    refuse("--server h --chat-template chatml", TERN_ERR_USAGE, "--chat-template and --server");
    refuse("--server h -q --verbose", TERN_ERR_USAGE, "--verbose");
    refuse("--api-key-file k", TERN_ERR_USAGE, "--server");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_refusals),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    chat_options_free(&o);
    return failed;
}
