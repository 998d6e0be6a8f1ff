/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use the HTTP server: keys, Host and Origin, other people's pages, requests with two readings.
 */
#include "unit/http_bed.h"

#include "coordinator/serve/http_keys.h"
#include "coordinator/serve/http_origin.h"

#define HOST  "Host: localhost\r\n"
#define KEY_A "0123456789abcdef-A"
#define KEY_B "0123456789abcdef-B-which-is-longer"

static char key_path[] = "/tmp/tern_http_keys_XXXXXX";

static int setup_plain(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .host = NULL });
    return 0;
}

static int setup_sites(void **state)
{
    static const char *const hosts[] = { "Tern.Example" };
    static const char *const origins[] = { "https://app.example", "http://127.0.0.1:3000" };

    (void)state;
    bed_open(&bed, (struct http_options){ .hosts = hosts, .n_hosts = 1, .origins = origins, .n_origins = 2 });
    return 0;
}

static void test_host(void **state)
{
    static const char *const good[] = {
        "localhost", "LOCALHOST:8080", "localhost.",    "127.0.0.1",    "127.0.0.1:1",      "192.0.2.9:65535",
        "[::1]",     "[::1]:8080",     "[2001:db8::1]", "tern.example", "TERN.example:443", "tern.example.",
    };
    static const char *const bad[] = {
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "tern.example.evil",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "",
        ":80",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:8x",
        "localhost:00000080",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[127.0.0.1]",
        "::1",
        "localhost/",
        "localhost..",
        ".localhost",
        ".",
        "local host",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "xtern.example",
        "*",
        "t\xc3\xa9rn.example",
        "[::1%25lo]",
    };
    char request[256];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(request, sizeof request, "GET /show HTTP/1.1\r\nHost: %s\r\n" END, good[i]);
        expect(request, 200, NULL);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(request, sizeof request, "GET /show HTTP/1.1\r\nHost: %s\r\n" END, bad[i]);
        expect(request, 403, "\"status\":403");
    }
    snprintf(request, sizeof request, "GET /show HTTP/1.1\r\nHost: evil.example\r\n" END);
    expect(request, 403, "does not answer to the name 'evil.example'");
    assert_non_null(strstr(answer, "--allow-host evil.example"));
    assert_int_equal(bed_counts(&bed).refused_host, sizeof bad / sizeof *bad + 1);
    assert_int_equal(atomic_load(&bed.n_handled), sizeof good / sizeof *good);
}

static void test_origin(void **state)
{
    static const struct {
        const char *host, *origin;
        int status;
        bool guest;
    } table[] = {
        { "localhost:8080", "http://localhost:8080", 200, false },
        { "localhost", "http://localhost", 200, false },
        { "localhost", "http://localhost:80", 200, false },
        { "127.0.0.1:8080", "http://127.0.0.1:8080", 200, false },
        { "[::1]:8080", "http://[::1]:8080", 200, false },
        { "tern.example", "https://tern.example", 200, false },   /* a proxy with TLS in front */
        { "127.0.0.1:8080", "https://tern.example", 200, false }, /* ... that changes Host */
        { "localhost:8080", "https://app.example", 200, true },
        { "localhost:8080", "https://APP.example:443", 200, true },
        { "localhost:8080", "http://127.0.0.1:3000", 200, true },
        { "localhost:8080", "http://app.example", 403, false },
        { "localhost:8080", "https://app.example:8443", 403, false },
        { "localhost:8080", "https://app.example.evil", 403, false },
        { "localhost:8080", "https://evil.example", 403, false },
        { "localhost:8080", "http://localhost:3000", 403, false },
        { "localhost:8080", "http://127.0.0.1:8080", 403, false },
        { "localhost:8080", "http://localhost", 403, false },
        { "localhost:8080", "null", 403, false },
        { "localhost:8080", "", 403, false },
        { "localhost:8080", "file://", 403, false },
        { "localhost:8080", "localhost:8080", 403, false },
        { "localhost:8080", "http://localhost:8080/", 403, false },
        { "localhost:8080", "http://evil@localhost:8080", 403, false },
        { "evil.example", "http://evil.example", 403, false },
    };
    char request[512];

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(request, sizeof request,
                 "POST /echo HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: 2\r\n" END "{}",
                 table[i].host, table[i].origin);
        expect(request, table[i].status, table[i].status == 200 ? "\r\n\r\n{}" : "\"status\":403");
        assert_int_equal(strstr(answer, "Access-Control-Allow-Origin: ") != NULL, table[i].guest);
        if (table[i].guest)
            assert_non_null(strstr(answer, table[i].origin));
        assert_non_null(strstr(answer, "Vary: Origin"));
    }
}

static void test_pages_of_others(void **state)
{
    (void)state;
    /* What a browser asks first. */
    expect("OPTIONS /echo HTTP/1.1\r\n" HOST
           "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
           "Access-Control-Request-Headers: authorization,content-type\r\n" END,
           204, "Access-Control-Allow-Headers: authorization,content-type");
    assert_non_null(strstr(answer, "Access-Control-Allow-Origin: https://app.example"));
    assert_non_null(strstr(answer, "Access-Control-Allow-Methods: GET, POST, OPTIONS"));
    expect("OPTIONS /echo HTTP/1.1\r\n" HOST "Origin: https://evil.example\r\n"
           "Access-Control-Request-Method: POST\r\n" END,
           403, NULL);
    assert_null(strstr(answer, "Access-Control-"));
    expect("OPTIONS /echo HTTP/1.1\r\n" HOST "Origin: https://app.example\r\n"
           "Access-Control-Request-Headers: a\"b\r\n" END,
           204, NULL);
    assert_null(strstr(answer, "Allow-Headers"));
    expect("OPTIONS * HTTP/1.1\r\n" HOST END, 400, NULL);
    expect("OPTIONS / HTTP/1.1\r\n" HOST END, 204, "Allow: GET");
    /* A form can be posted without asking: it is not JSON. */
    expect("POST /echo HTTP/1.1\r\n" HOST "Origin: https://app.example\r\nContent-Type: text/plain\r\n"
           "Content-Length: 2\r\n" END "{}",
           415, "\"status\":415");
    /* Nobody unpacks it. */
    expect("POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: gzip\r\nContent-Length: 2\r\n" END "{}", 415,
           "compressed");
    assert_non_null(strstr(answer, "Accept-Encoding: identity\r\n"));
    expect("POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: identity\r\nContent-Length: 2\r\n" END "{}", 200,
           "{}");
    expect("POST /echo HTTP/1.1\r\n" HOST "Origin: http://localhost\r\nContent-Length: 2\r\n" END "{}", 415,
           NULL);
    expect("POST /echo HTTP/1.1\r\n" HOST "Origin: http://localhost\r\nContent-Type: application/jsonp\r\n"
           "Content-Length: 2\r\n" END "{}",
           415, NULL);
    expect("POST /echo HTTP/1.1\r\n" HOST "Origin: http://localhost\r\n"
           "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n" END "{}",
           200, "{}");
    expect("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n" END "{}", 200, "{}");
    assert_int_equal(atomic_load(&bed.n_handled), 3);
}

static void test_any_site(void **state)
{
    static const char *const any[] = { "*" };
    struct http_sites sites = { any, 1, NULL, 0 };
    struct tern_err err;

    (void)state;
    assert_int_equal(http_sites_judge(&sites, "evil.example", NULL, false, &err), HTTP_OWN);
    assert_int_equal(http_sites_judge(&sites, "evil.example", "http://evil.example", false, &err), HTTP_OWN);
    assert_int_equal(http_sites_judge(&sites, "a.example", "http://evil.example", false, &err), HTTP_REFUSED);
    sites = (struct http_sites){ NULL, 0, any, 1 };
    assert_int_equal(http_sites_judge(&sites, "localhost", "null", false, &err), HTTP_GUEST);
    assert_int_equal(http_sites_judge(&sites, "localhost", "http://a.example", false, &err), HTTP_GUEST);
    assert_int_equal(http_sites_judge(&sites, "a.example", "http://a.example", false, &err), HTTP_REFUSED);
    /* With TLS of our own, a page without is not ours. */
    sites = (struct http_sites){ NULL, 0, NULL, 0 };
    assert_int_equal(http_sites_judge(&sites, "localhost:443", "http://localhost:443", true, &err),
                     HTTP_REFUSED);
    assert_int_equal(http_sites_judge(&sites, "localhost", "https://localhost", true, &err), HTTP_OWN);
    assert_int_equal(http_sites_judge(&sites, NULL, NULL, false, &err), HTTP_OWN);
    assert_int_equal(http_sites_judge(&sites, NULL, "http://localhost", false, &err), HTTP_REFUSED);
}

static void test_two_readings(void **state)
{
    static const char *const bad[] = {
        "Content-Length: 5\r\nContent-Length: 5\r\n" END "hello",
        "Content-Length: 5\r\nContent-Length: 6\r\n" END "hello",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END "0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END "0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END "0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n" END "0\r\n\r\n",
        "Transfer-Encoding: identity\r\n" END,
        "Transfer-Encoding: \r\n" END,
        "Host: localhost\r\n" END,
        "Content-Length: -1\r\n" END,
        "Content-Length: +5\r\n" END "hello",
        "Content-Length: 5, 5\r\n" END "hello",
        "Content-Length: 0x5\r\n" END "hello",
        "Content-Length: \r\n" END,
    };
    char request[512];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = bed_dial(&bed);

        snprintf(request, sizeof request, "POST /echo HTTP/1.1\r\n" HOST "%s", bad[i]);
        bed_say(fd, request);
        bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
        if (strncmp(answer, "HTTP/1.1 400 ", 13) != 0)
            fail_msg("%s for: %s", answer, request);
        close(fd);
    }
    /* Also without leave to close, nothing behind such a request is taken for another one. */
    expect("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
           "GET /show HTTP/1.1\r\n" HOST END,
           400, NULL);
    expect("GET /show%00/x HTTP/1.1\r\n" HOST END, 400, "\"status\":400");
    expect("GET /show?a=1%00 HTTP/1.1\r\n" HOST END, 400, NULL);
    expect("GET http://localhost/show HTTP/1.1\r\n" HOST END, 400, NULL);
    expect("GET show HTTP/1.1\r\n" HOST END, 400, NULL);
    expect("GET /show HTTP/1.1\r\n" END, 400, NULL);
    assert_int_equal(atomic_load(&bed.n_handled), 0);
    expect("GET /show HTTP/1.1\r\n" HOST END, 200, NULL);
}

static void write_keys(const char *text, mode_t mode)
{
    bed_write_file(key_path, text, strlen(text), mode);
}

static int setup_keys(void **state)
{
    (void)state;
    write_keys("# people\n\nanna " KEY_A "\n" KEY_B "\r\n", 0600);
    bed_open(&bed, (struct http_options){ .api_key_file = key_path });
    return 0;
}

static void test_keys(void **state)
{
    char a[64], *client;

    (void)state;
    expect("GET /show HTTP/1.1\r\n" HOST END, 401, "WWW-Authenticate: Bearer");
    assert_non_null(strstr(answer, "Authorization: Bearer KEY"));
    expect("GET /show HTTP/1.1\r\n" HOST "Authorization: Bearer " KEY_A "\r\n" END, 200, "client=");
    client = strstr(answer, "client=");
    snprintf(a, sizeof a, "%s", client);
    expect("GET /show HTTP/1.1\r\n" HOST "authorization: bearer  " KEY_A "\r\n" END, 200, a);
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: " KEY_A "\r\n" END, 200, a);
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: " KEY_B "\r\n" END, 200, NULL);
    assert_null(strstr(answer, a));
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: " KEY_A "x\r\n" END, 401, "not one of this server's");
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: 0123456789abcdef-\r\n" END, 401, NULL);
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: \r\n" END, 401, NULL);
    expect("GET /show HTTP/1.1\r\n" HOST "X-Api-Key: anna\r\n" END, 401, NULL);
    expect("GET /show HTTP/1.1\r\n" HOST "Authorization: Basic " KEY_A "\r\n" END, 401, NULL);
    expect("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", 401, NULL);
    expect("GET /public HTTP/1.1\r\n" HOST END, 200, NULL);
    expect("HEAD /public HTTP/1.1\r\n" HOST END, 200, NULL);
    expect("POST /public HTTP/1.1\r\n" HOST "Content-Length: 0\r\n" END, 401, NULL);
    assert_int_equal(bed_counts(&bed).refused_key, 8);
    /* Who has a key may use any name of the server; a page that was lured there has none. */
    expect("GET /show HTTP/1.1\r\nHost: some.name\r\nX-Api-Key: " KEY_A "\r\n" END, 200, a);
    expect("GET /show HTTP/1.1\r\nHost: some.name\r\nX-Api-Key: wrong\r\n" END, 403, NULL);
    expect("GET /public HTTP/1.1\r\nHost: some.name\r\n" END, 403, NULL);
    expect("GET /show HTTP/1.1\r\nHost: some.name\r\nOrigin: http://evil.example\r\nX-Api-Key: " KEY_A
           "\r\n" END,
           403, "pages of http://evil.example");
}

static void test_keys_change(void **state)
{
    static const char with_a[] = "GET /show HTTP/1.1\r\n" HOST "X-Api-Key: " KEY_A "\r\n" END;
    static const char with_b[] = "GET /show HTTP/1.1\r\n" HOST "X-Api-Key: " KEY_B "\r\n" END;

    (void)state;
    expect(with_a, 200, NULL);
    write_keys(KEY_B "\n", 0600);
    expect(with_a, 401, NULL);
    expect(with_b, 200, NULL);
    /* Of the same length and in the same second. */
    write_keys(KEY_A "\n", 0600);
    expect(with_a, 200, NULL);
    expect(with_b, 401, NULL);
    /* One that must not be used leaves the old keys in force, until it may be. */
    write_keys("b " KEY_B "\n", 0644);
    expect(with_a, 200, NULL);
    expect(with_b, 401, NULL);
    assert_int_equal(chmod(key_path, 0600), 0);
    expect(with_b, 200, NULL);
    expect(with_a, 401, NULL);
    assert_int_equal(unlink(key_path), 0);
    expect(with_b, 401, NULL);
    write_keys(KEY_A "\n", 0600);
    expect(with_a, 200, NULL);
}

static void refuse_keys(const char *text, mode_t mode, const char *part)
{
    struct http_keys *k = NULL;
    struct tern_err err = { .text = "" };

    write_keys(text, mode);
    assert_int_not_equal(http_keys_open(key_path, &k, &err), TERN_OK);
    assert_null(k);
    if (!strstr(err.text, part))
        fail_msg("no '%s' in: %s", part, err.text);
    assert_null(strstr(err.text, KEY_A));
}

static void test_key_files(void **state)
{
    static char many[HTTP_MAX_KEYS * 8 + 100], line[HTTP_MAX_KEY_BYTES + 100];
    size_t n = 0;

    (void)state;
    refuse_keys("", 0600, "no key");
    refuse_keys("# a comment\n \t\n", 0600, "no key");
    refuse_keys(KEY_A "\n", 0604, "open to others (mode 0604)");
    refuse_keys(KEY_A "\n", 0660, "chmod 600");
    refuse_keys("a b c\n", 0600, "line 1: a line is `key` or `name key`");
    refuse_keys("\n" KEY_A "\nx " KEY_A "\n", 0600, "line 3: a key of an earlier line");
    refuse_keys("a\x01"
                "b\n",
                0600, "a key is at most");
    refuse_keys("n\xc3\xa9 " KEY_A "\n", 0600, "a name is at most");
    memset(line, 'k', HTTP_MAX_KEY_BYTES + 1);
    refuse_keys(line, 0600, "a key is at most");
    for (int i = 0; i <= HTTP_MAX_KEYS; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "k%d\n", i);
    refuse_keys(many, 0600, "more than 1024 keys");
    unlink(key_path);
    assert_int_equal(mkdir(key_path, 0700), 0);
    {
        struct http_keys *k = NULL;

        assert_int_not_equal(http_keys_open(key_path, &k, &unit_err), TERN_OK);
        assert_non_null(strstr(unit_err.text, "not a regular file"));
    }
    rmdir(key_path);
}

static int forget_keys(void **state)
{
    unlink(key_path);
    return teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_host, setup_sites, teardown),
        cmocka_unit_test_setup_teardown(test_origin, setup_sites, teardown),
        cmocka_unit_test_setup_teardown(test_pages_of_others, setup_sites, teardown),
        cmocka_unit_test(test_any_site),
        cmocka_unit_test_setup_teardown(test_two_readings, setup_plain, teardown),
        cmocka_unit_test_setup_teardown(test_keys, setup_keys, forget_keys),
        cmocka_unit_test_setup_teardown(test_keys_change, setup_keys, forget_keys),
        cmocka_unit_test(test_key_files),
    };
    int fd = mkstemp(key_path);

    if (fd < 0)
        return 1;
    close(fd);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
