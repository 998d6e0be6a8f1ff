/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server: answers of all kinds, to clients of all kinds; listening; the end.
 */
#include "unit/http_bed.h"

static int setup(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_body = 1000 });
    return 0;
}

static void test_replies(void **state)
{
    struct http_counts c;

    (void)state;
    expect("POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n" END "hello", 200,
           "\r\n\r\nhello");
    assert_non_null(strstr(answer, "X-Content-Type-Options: nosniff"));
    assert_non_null(strstr(answer, "Referrer-Policy: no-referrer"));
    assert_non_null(strstr(answer, "Cross-Origin-Resource-Policy: same-origin"));
    assert_non_null(strstr(answer, "Cache-Control: no-store"));
    assert_null(strstr(answer, "Server:"));
    expect("GET /show/%41%20b?a=1%26+2&b HTTP/1.1\r\nHost: localhost\r\nx-a: Y\r\n" END, 200,
           "GET /show/A b a=1& 2 x=Y");
    assert_non_null(strstr(answer, "X-Toy: yes"));
    expect("GET /show?a HTTP/1.1\r\nHost: localhost\r\n" END, 200, "a= x=NULL");
    expect("GET /show HTTP/1.1\r\nHost: localhost\r\n" END, 200, "a=NULL");
    expect("GET /nothing HTTP/1.1\r\nHost: localhost\r\n" END, 500, "\"status\":500");
    expect("GET /twice HTTP/1.1\r\nHost: localhost\r\n" END, 200, "\r\n\r\none");
    assert_int_equal(atomic_load(&bed.n_begun), 1);
    assert_int_equal(atomic_load(&bed.n_done), 1);
    c = bed_counts(&bed);
    assert_int_equal(c.connections, 6);
    assert_int_equal(c.requests, 6);
    assert_int_equal(c.bytes_in, 5);
    assert_int_equal(c.gone, 0);
}

static void test_streams(void **state)
{
    (void)state;
    expect("GET /stream?n=3 HTTP/1.1\r\nHost: localhost\r\n" END, 200, "Transfer-Encoding: chunked");
    assert_non_null(strstr(answer, "text/event-stream"));
    assert_non_null(strstr(answer, "\r\n3\r\n[2]\r\n3\r\n[1]\r\n3\r\n[0]\r\n0\r\n\r\n"));
    expect("GET /stream?n=0 HTTP/1.1\r\nHost: localhost\r\n" END, 200, "\r\n\r\n0\r\n\r\n");
    /* HTTP/1.0 knows no chunks: until the end of the connection. */
    expect("GET /stream?n=2 HTTP/1.0\r\n\r\n", 200, "\r\n\r\n[1][0]");
    assert_null(strstr(answer, "chunked"));
    bed_await(&bed.n_done, 3);
    expect("HEAD /stream HTTP/1.1\r\nHost: localhost\r\n" END, 200, "text/event-stream");
    assert_null(strstr(answer, "[2]"));
    bed_await(&bed.n_done, 4);
    assert_int_equal(atomic_load(&bed.n_begun), 4);
}

static void test_pieces_larger_than_buffers(void **state)
{
    struct bed_stream *s = calloc(1, sizeof *s);
    struct http_text t = { 0 };

    (void)state;
    assert_non_null(s);
    *s = (struct bed_stream){ .bed = &bed, .left = 1, .bytes = 300000 };
    assert_true(bed_more(s, &t));
    assert_int_equal(t.len, 300003);
    free(s);
    http_text_free(&t);
    expect("GET /big?n=700000 HTTP/1.1\r\nHost: localhost\r\n" END, 200, "Content-Length: 700000");
    assert_int_equal(strlen(strstr(answer, "\r\n\r\n")), 700004);
}

static void test_kinds_of_clients(void **state)
{
    int fd = bed_dial(&bed);

    (void)state;
    assert_true(fd >= 0);
    /* Two at once, then another one on the same connection. */
    bed_say(fd, "GET /show?a=one HTTP/1.1\r\nHost: localhost\r\n\r\nGET /show?a=two HTTP/1.1\r\nHost: "
                "localhost\r\n\r\n");
    bed_hear(fd, answer, sizeof answer, "a=two", BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "a=one"));
    assert_non_null(strstr(answer, "a=two"));
    bed_say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    bed_say(fd, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    bed_hear(fd, answer, sizeof answer, "abcde", BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "\r\n\r\nabcde"));
    /* One that waits to be asked for its body. */
    bed_say(fd,
            "POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    bed_hear(fd, answer, sizeof answer, "100 Continue\r\n\r\n", BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "100 Continue"));
    bed_say(fd, "body");
    bed_hear(fd, answer, sizeof answer, "\r\n\r\nbody", BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "\r\n\r\nbody"));
    bed_say(fd, "HEAD /show HTTP/1.1\r\nHost: localhost\r\n" END);
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "200 OK"));
    assert_null(strstr(answer, "GET"));
    close(fd);
    assert_int_equal(bed_counts(&bed).connections, 1);
    assert_int_equal(bed_counts(&bed).requests, 5);
    expect("GET /show HTTP/1.0\r\n\r\n", 200, "GET /show");
}

/* False where it took long, or pieces came several at a time. */
static bool answers_at_once(bool last_try)
{
    uint64_t begin = tern_now_ms(), last, longest = 0, ms;
    int fd = bed_dial(&bed), n = 0;
    char buf[4096];

    for (int i = 0; i < 100; i++) {
        bed_say(fd, "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
        bed_hear(fd, buf, sizeof buf, "client=", BED_GIVE_UP_MS);
    }
    ms = tern_now_ms() - begin;
    bed_say(fd, "GET /drops HTTP/1.1\r\nHost: localhost\r\n" END);
    for (last = tern_now_ms(); recv(fd, buf, sizeof buf, 0) > 0; n++) {
        uint64_t now = tern_now_ms();

        if (now - last > longest)
            longest = now - last;
        last = now;
    }
    close(fd);
    if (ms <= 2000 && n >= 20 && longest <= 300)
        return true;
    if (last_try)
        fail_msg("%d ms for 100 requests; %d receipts, at most %d ms between two", (int)ms, n, (int)longest);
    return false;
}

/* Nothing may wait for a full packet or a late acknowledgement, 40 ms and more each.  Another program may
 * have had the processors: not ten times. */
static void test_at_once(void **state)
{
    (void)state;
    for (int i = 1; !answers_at_once(i == 10); i++)
        continue;
}

static void open_must_fail(struct http_options o, const char *part)
{
    struct http_server *s = NULL;
    struct tern_err err = { .text = "" };

    o.handle = bed_handle;
    assert_int_not_equal(http_server_open(&o, &s, &err), TERN_OK);
    assert_null(s);
    if (!strstr(err.text, part))
        fail_msg("no '%s' in: %s", part, err.text);
}

static void test_listening(void **state)
{
    const char *const bad[] = { "two words" };
    char url[64];
    struct bed other;

    (void)state;
    snprintf(url, sizeof url, "http://127.0.0.1:%u", bed.port);
    assert_string_equal(http_server_url(bed.server), url);
    snprintf(url, sizeof url, "cannot listen on 127.0.0.1:%u: ", bed.port);
    open_must_fail((struct http_options){ .host = "127.0.0.1", .port = bed.port }, url);
    open_must_fail((struct http_options){ .host = "127.0.0.1", .port = bed.port }, "use --port");
    open_must_fail((struct http_options){ .host = "192.0.2.1" }, "no such address, use --host");
    open_must_fail((struct http_options){ .host = "no such host" }, "cannot listen on 'no such host'");
    open_must_fail((struct http_options){ .host = "" }, "not an address");
    open_must_fail((struct http_options){ .host = "127.0.0.1", .tls_cert = "x" }, "both");
    open_must_fail((struct http_options){ .host = "127.0.0.1", .hosts = bad, .n_hosts = 1 }, "two words");
    open_must_fail((struct http_options){ .host = "127.0.0.1", .origins = bad, .n_origins = 1 }, "two words");
    open_must_fail((struct http_options){ .host = "127.0.0.1", .api_key_file = "/nonexistent/keys" },
                   "/nonexistent/keys");
    bed_open(&other, (struct http_options){ .host = "0.0.0.0" });
    assert_int_equal(bed_ask(&other, "GET /show HTTP/1.1\r\nHost: 127.0.0.1\r\n" END, answer, sizeof answer),
                     200);
    bed_close(&other);
}

static void test_ipv6(void **state)
{
    struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct bed six;

    (void)state;
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        if (fd >= 0)
            close(fd);
        print_message("no IPv6 here\n");
        skip();
    }
    close(fd);
    bed_open(&six, (struct http_options){ .host = "[::1]" });
    assert_int_equal(strncmp(http_server_url(six.server), "http://[::1]:", 13), 0);
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sa.sin6_port = htons(six.port);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    bed_say(fd, "GET /show HTTP/1.1\r\nHost: [::1]:80\r\n" END);
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "200 OK"));
    close(fd);
    bed_close(&six);
    /* Both families at once. */
    bed_open(&six, (struct http_options){ .host = "::" });
    assert_int_equal(bed_ask(&six, "GET /show HTTP/1.1\r\nHost: 127.0.0.1\r\n" END, answer, sizeof answer),
                     200);
    bed_close(&six);
}

static void test_drain(void **state)
{
    int idle = bed_dial(&bed), busy = bed_dial(&bed);
    clock_t before;

    (void)state;
    bed_say(idle, "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_hear(idle, answer, sizeof answer, "client", BED_GIVE_UP_MS);
    bed_say(busy, "GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_await(&bed.n_blocked, 1);
    assert_int_equal(http_server_busy(bed.server), 1);
    http_server_drain(bed.server);
    assert_true(bed_closed(idle, BED_GIVE_UP_MS));
    assert_int_equal(bed_dial(&bed), -1);
    /* Waiting for the rest does not cost the processor. */
    before = clock();
    bed_sleep(500);
    assert_true(clock() - before < CLOCKS_PER_SEC / 4);
    assert_int_equal(http_server_busy(bed.server), 1);
    close(idle);
    close(busy);
    bed_await(&bed.n_noticed, 1);
    bed_settle(&bed);
    assert_int_equal(bed_counts(&bed).gone, 1);
}

/* Closing breaks off whatever is under way. */
static void test_close(void **state)
{
    static const char *const paths[] = { "/block", "/stall", "/endless", "/echo" };
    int fds[4];
    uint64_t begin;

    (void)state;
    for (int i = 0; i < 4; i++) {
        fds[i] = bed_dial(&bed);
        snprintf(answer, sizeof answer, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n",
                 paths[i], i == 3 ? 10 : 0);
        bed_say(fds[i], answer);
    }
    bed_await(&bed.n_blocked, 1);
    bed_await(&bed.n_begun, 2);
    begin = tern_now_ms();
    http_server_close(&bed.server);
    assert_true(tern_now_ms() - begin < BED_GIVE_UP_MS / 2);
    assert_int_equal(atomic_load(&bed.n_done), 2);
    for (int i = 0; i < 4; i++) {
        assert_true(bed_closed(fds[i], BED_GIVE_UP_MS));
        close(fds[i]);
    }
    http_server_close(&bed.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_replies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_larger_than_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kinds_of_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listening, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ipv6, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
