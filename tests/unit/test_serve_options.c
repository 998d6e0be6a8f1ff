/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tern serve`: what it means, and what is refused with which sentence.
 */
#include "unit/unit.h"

#include "coordinator/serve/serve_options.h"

#include <string.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

static struct serve_options o;

/* words end with NULL. */
static enum tern_status parse(const char *const *words)
{
    char *argv[32] = { "serve", "-m", MODEL };
    int n = 3;

    for (; *words; words++)
        argv[n++] = (char *)(uintptr_t)*words;
    return serve_options_parse(n, argv, &o, &unit_err);
}
#define PARSE(...) parse((const char *const[]){ __VA_ARGS__, NULL })

static void test_defaults(void **state)
{
    (void)state;
    assert_ok(PARSE("-q"));
    assert_string_equal(o.host, "127.0.0.1");
    assert_int_equal(o.port, 8080);
    assert_int_equal(o.parallel, 4);
    assert_int_equal(o.max_queue, 64);
    assert_int_equal(o.max_tokens, 0);
    assert_int_equal(o.drain_s, 10);
    assert_false(o.no_page || o.shift || o.pooling_given || o.insecure_no_key);
    assert_null(o.api_key_file);
}

static void test_values(void **state)
{
    (void)state;
    assert_ok(PARSE("--host", "0.0.0.0", "--port", "0", "--api-key-file", "keys", "--tls-cert", "c",
                    "--tls-key", "k", "--parallel", "12", "--max-queue", "0", "-n", "500", "-c", "512"));
    assert_string_equal(o.host, "0.0.0.0");
    assert_int_equal(o.port, 0);
    assert_int_equal(o.parallel, 12);
    assert_int_equal(o.max_queue, 0);
    assert_int_equal(o.max_tokens, 500);
    assert_int_equal(o.engine.ctx, 512);
    assert_ok(PARSE("--allow-host", "a.example", "--allow-host", "b.example", "--allow-origin", "*",
                    "--max-body", "8M", "--max-connections", "9", "--drain-timeout", "0", "--no-page"));
    assert_int_equal(o.n_hosts, 2);
    assert_string_equal(o.hosts[1], "b.example");
    assert_int_equal(o.n_origins, 1);
    assert_true(o.max_body == (uint64_t)8 << 20);
    assert_true(o.no_page && o.drain_s == 0 && o.max_connections == 9);
    assert_ok(PARSE("--context-shift", "--keep", "7", "--pooling", "cls"));
    assert_true(o.shift && o.n_keep == 7 && o.pooling_given && o.pooling == TERN_POOL_CLS);
    assert_ok(PARSE("--parallel", "250"));
    assert_int_equal(o.n_prefixes, 6);
    assert_ok(PARSE("--parallel", "250", "--prefixes", "0", "--alias", "me", "--chat-template", "chatml"));
    assert_int_equal(o.n_prefixes, 0);
    assert_string_equal(o.alias, "me");
    assert_string_equal(o.chat_format, "chatml");
}

/* Whoever can be reached from elsewhere must say who may ask. */
static void test_addresses(void **state)
{
    static const char *const local[] = { "127.0.0.1", "127.8.9.1", "::1", "localhost" };
    static const char *const others[] = { "0.0.0.0", "::", "192.168.1.7", "example.org", "128.0.0.1", "0" };

    (void)state;
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        assert_ok(PARSE("--host", local[i]));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(PARSE("--host", others[i]), TERN_ERR_USAGE);
        assert_non_null(strstr(unit_err.text, "--api-key-file"));
        assert_ok(PARSE("--host", others[i], "--insecure-no-key"));
        assert_ok(PARSE("--host", others[i], "--api-key-file", "keys"));
    }
}

static void test_mistakes(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--port", "65536"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--port", "x"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--tls-cert", "c"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--tls-key", "k"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--parallel", "0"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--parallel", "250", "--prefixes", "100"), TERN_ERR_LIMIT);
    assert_int_equal(PARSE("--keep", "3"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--pooling", "most"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--alias", ""), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--host", ""), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--allow-host", ""), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--max-body", "much"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--local", "2", "--cluster", "f"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("--temp", "1"), TERN_ERR_USAGE);
    assert_int_equal(PARSE("word"), TERN_ERR_USAGE);
    assert_non_null(strstr(unit_err.text, "'word'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_mistakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
