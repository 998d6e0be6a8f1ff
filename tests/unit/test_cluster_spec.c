/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cluster files: what is understood, what is refused and with which line number, and how layers are shared
 * out.
 */
#include "coordinator/cluster_spec.h"

#include "proto/keys.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Any 32 bytes are a public key as far as the text goes. */
static const char *key_text(unsigned n)
{
    static char text[8][TERN_Z85_CHARS + 1];
    static unsigned at;
    uint8_t key[TERN_KEY_BYTES];
    char *out = text[at++ % 8];

    memset(key, (int)n + 1, sizeof key);
    key[0] = (uint8_t)(n >> 8);
    tern_key_to_z85(key, out);
    return out;
}

/* '#' also begins a comment, but only at the beginning of a line: these bytes have four of them. */
static const char *hash_key_text(void)
{
    static char text[TERN_Z85_CHARS + 1];
    uint8_t key[TERN_KEY_BYTES] = { 0xff, 0x22, 0x80, 0xb1, 7 };

    tern_key_to_z85(key, text);
    return text;
}

static enum tern_status parse(const char *text, struct cluster_spec *spec, struct tern_err *err)
{
    memset(spec, 0xa5, sizeof *spec);
    memset(err, 0, sizeof *err);
    return cluster_spec_parse("hosts", text, strlen(text), spec, err);
}

static void test_good_file(void **state)
{
    struct cluster_spec spec;
    struct tern_err err;
    char text[1024];

    (void)state;
    assert_non_null(strchr(hash_key_text(), '#'));
    snprintf(text, sizeof text,
             "# machines of the second floor\r\n\n"
             "  alpha   tcp://10.0.0.7:7700 %s\n"
             "\tbeta.example-1 tcp://[fe80::1]:7700\t%s   \n"
             "gamma tcp://node-3.lan:65535 %s",
             key_text(0), hash_key_text(), key_text(2));
    assert_int_equal(parse(text, &spec, &err), TERN_OK);
    assert_int_equal(spec.n, 3);
    assert_string_equal(spec.members[0].name, "alpha");
    assert_string_equal(spec.members[0].endpoint, "tcp://10.0.0.7:7700");
    assert_int_equal(spec.members[0].line, 3);
    assert_false(spec.members[0].has_layers);
    assert_string_equal(spec.members[1].name, "beta.example-1");
    assert_string_equal(spec.members[1].endpoint, "tcp://[fe80::1]:7700");
    assert_int_equal(spec.members[1].key[4], 7);
    assert_string_equal(spec.members[2].endpoint, "tcp://node-3.lan:65535");
}

static void test_layers(void **state)
{
    struct cluster_spec spec;
    struct tern_err err;
    char text[1024];

    (void)state;
    snprintf(text, sizeof text,
             "a tcp://h:1 %s layers=0-3\nb tcp://h:2 %s layers=4\nc tcp://h:3 %s layers=5-5\n", key_text(0),
             key_text(1), key_text(2));
    assert_int_equal(parse(text, &spec, &err), TERN_OK);
    assert_int_equal(cluster_spec_plan(&spec, 6, &err), TERN_OK);
    assert_int_equal(spec.members[0].first, 0);
    assert_int_equal(spec.members[0].last, 4);
    assert_int_equal(spec.members[1].first, 4);
    assert_int_equal(spec.members[1].last, 5);
    assert_int_equal(spec.members[2].last, 6);
    assert_int_equal(cluster_spec_plan(&spec, 7, &err), TERN_ERR_USAGE);
    assert_non_null(strstr(err.text, "layers 0 to 6"));
    assert_int_equal(cluster_spec_plan(&spec, 5, &err), TERN_ERR_USAGE);
}

static void test_layers_that_do_not_follow(void **state)
{
    static const char *const pairs[][2] = {
        { "1-2", "3-5" }, { "0-2", "4-5" }, { "0-3", "3-5" }, { "3-5", "0-2" }
    };
    struct cluster_spec spec;
    struct tern_err err;
    char text[1024];

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        snprintf(text, sizeof text, "a tcp://h:1 %s layers=%s\nb tcp://h:2 %s layers=%s\n", key_text(0),
                 pairs[i][0], key_text(1), pairs[i][1]);
        assert_int_equal(parse(text, &spec, &err), TERN_OK);
        assert_int_equal(cluster_spec_plan(&spec, 6, &err), TERN_ERR_USAGE);
        assert_non_null(strstr(err.text, "begins at layer"));
    }
}

/* Each is refused, its sentence has the line's number and this word. */
static void test_bad_lines(void **state)
{
    static const struct {
        const char *format; /* %s: a key */
        const char *place, *word;
    } bad[] = {
        { "a tcp://h:1\n", "hosts:1:", "2 words" },
        { "\n\na tcp://h:1 %s layers=0-1 more\n", "hosts:3:", "5 words" },
        { "a/b tcp://h:1 %s\n", "hosts:1:", "letters" },
        { "a h:1 %s\n", "hosts:1:", "address" },
        { "a tcp://h %s\n", "hosts:1:", "address" },
        { "a tcp://h:0 %s\n", "hosts:1:", "address" },
        { "a tcp://h:65536 %s\n", "hosts:1:", "address" },
        { "a tcp://:77 %s\n", "hosts:1:", "address" },
        { "a ipc:///tmp/x %s\n", "hosts:1:", "address" },
        { "a tcp://h:1 short\n", "hosts:1:", "public key" },
        { "a tcp://h:1 %s~\n", "hosts:1:", "public key" },
        { "a tcp://h:1 %s layers\n", "hosts:1:", "layers=a-b" },
        { "a tcp://h:1 %s layers=\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=3-1\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=-1\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=1-\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=0-512\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=0-99999999999\n", "hosts:1:", "range" },
        { "a tcp://h:1 %s layers=0x1-2\n", "hosts:1:", "range" },
    };
    struct cluster_spec spec, before;
    struct tern_err err;
    char text[512];

    (void)state;
    memset(&before, 0xa5, sizeof before);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *at = strstr(bad[i].format, "%s");
        size_t head = at ? (size_t)(at - bad[i].format) : strlen(bad[i].format);

        snprintf(text, sizeof text, "%.*s%s%s", (int)head, bad[i].format, at ? key_text(0) : "",
                 at ? at + 2 : "");
        if (parse(text, &spec, &err) == TERN_OK)
            fail_msg("accepted: %s", text);
        if (!strstr(err.text, bad[i].place) || !strstr(err.text, bad[i].word))
            fail_msg("%s gave: %s", text, err.text);
        assert_memory_equal(&spec, &before, sizeof spec);
    }
}

static void test_what_must_be_unique(void **state)
{
    static const struct {
        const char *second, *word;
        unsigned key;
    } bad[] = {
        { "a tcp://h:2", "name", 1 },
        { "b tcp://h:1", "address", 1 },
        { "b tcp://h:2", "key", 0 },
    };
    struct cluster_spec spec;
    struct tern_err err;
    char text[512];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "a tcp://h:1 %s\n# between\n%s %s\n", key_text(0), bad[i].second,
                 key_text(bad[i].key));
        assert_int_equal(parse(text, &spec, &err), TERN_ERR_FORMAT);
        assert_non_null(strstr(err.text, "hosts:3:"));
        assert_non_null(strstr(err.text, bad[i].word));
    }
    snprintf(text, sizeof text, "a tcp://h:1 %s layers=0-2\nb tcp://h:2 %s\n", key_text(0), key_text(1));
    assert_int_equal(parse(text, &spec, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "line 1 says its layers and line 2 does not"));
}

static void test_files_that_are_none(void **state)
{
    static const char zero[] = "a tcp://h:1 \0 x\n";
    struct cluster_spec spec;
    struct tern_err err;
    char dir[] = "/tmp/tern-spec-XXXXXX", path[64];
    FILE *f;

    (void)state;
    assert_int_equal(parse("", &spec, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "no worker"));
    assert_int_equal(parse("# only words\n\n", &spec, &err), TERN_ERR_FORMAT);
    assert_int_equal(cluster_spec_parse("hosts", zero, sizeof zero - 1, &spec, &err), TERN_ERR_FORMAT);
    assert_non_null(strstr(err.text, "zero byte"));
    assert_int_equal(cluster_spec_read("/nonexistent/hosts", &spec, &err), TERN_ERR_IO);
    assert_int_equal(cluster_spec_read("/tmp", &spec, &err), TERN_ERR_USAGE);
    assert_int_equal(cluster_spec_read("/dev/zero", &spec, &err), TERN_ERR_USAGE);

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/hosts", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "a tcp://h:1 %s\n", key_text(0));
    fclose(f);
    assert_int_equal(cluster_spec_read(path, &spec, &err), TERN_OK);
    assert_int_equal(spec.n, 1);
    assert_int_equal(truncate(path, 70000), 0);
    assert_int_equal(cluster_spec_read(path, &spec, &err), TERN_ERR_LIMIT);
    unlink(path);
    rmdir(dir);
}

static void test_too_many_workers(void **state)
{
    size_t cap = 100 * (TERN_MAX_WORKERS + 1), n = 0;
    char *text = malloc(cap);
    struct cluster_spec spec;
    struct tern_err err;

    (void)state;
    assert_non_null(text);
    for (unsigned i = 0; i <= TERN_MAX_WORKERS; i++)
        n += (size_t)snprintf(text + n, cap - n, "w%u tcp://h:%u %s\n", i, i + 1, key_text(i));
    assert_int_equal(parse(text, &spec, &err), TERN_ERR_LIMIT);
    assert_non_null(strstr(err.text, "hosts:65:"));
    *strrchr(text, 'w') = '\0';
    assert_int_equal(parse(text, &spec, &err), TERN_OK);
    assert_int_equal(spec.n, TERN_MAX_WORKERS);
    free(text);
}

/* Shares differ by one at most, the larger ones come first, and they cover the model. */
static void test_even_shares(void **state)
{
    struct cluster_spec spec;
    struct tern_err err;

    (void)state;
    memset(&spec, 0, sizeof spec);
    for (uint32_t n_layers = 1; n_layers <= 80; n_layers++) {
        for (uint32_t n = 1; n <= TERN_MAX_WORKERS; n++) {
            uint32_t next = 0, before = UINT32_MAX;

            spec.n = n;
            if (n > n_layers) {
                assert_int_equal(cluster_spec_plan(&spec, n_layers, &err), TERN_ERR_USAGE);
                continue;
            }
            assert_int_equal(cluster_spec_plan(&spec, n_layers, &err), TERN_OK);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t share = spec.members[i].last - spec.members[i].first;

                assert_int_equal(spec.members[i].first, next);
                assert_true(share == n_layers / n || share == n_layers / n + 1);
                assert_true(share <= before);
                before = share;
                next = spec.members[i].last;
            }
            assert_int_equal(next, n_layers);
        }
    }
    spec.n = 0;
    assert_int_equal(cluster_spec_plan(&spec, 4, &err), TERN_ERR_USAGE);
    spec.n = 1;
    assert_int_equal(cluster_spec_plan(&spec, 0, &err), TERN_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_layers_that_do_not_follow),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_what_must_be_unique),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_too_many_workers),
        cmocka_unit_test(test_even_shares),
    };

    return cmocka_run_group_tests_name("cluster_spec", tests, NULL, NULL);
}
