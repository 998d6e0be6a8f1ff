/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server under clients that take too much (bytes, connections, time), hang up, or talk rubbish.
 */
#include "unit/http_bed.h"

#include <pthread.h>

#define NOTICED  1000 /* ms within which a hang-up must be known, */
#define TRIES    3    /* ... one of so many times: other programs may have the processors */
#define SHORT_MS 400  /* what limits of time are in these tests, */
#define SOON_MS  5000 /* ... and when they must have struck */

static int setup(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_body = 1000,
                                          .max_header = 2000,
                                          .header_timeout_ms = SHORT_MS,
                                          .body_timeout_ms = SHORT_MS,
                                          .idle_timeout_ms = SHORT_MS,
                                          .send_timeout_ms = SHORT_MS });
    return 0;
}

static int setup_patient(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_connections = 100, .max_per_client = 100 });
    return 0;
}

static int setup_small(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_body = 1000, .max_header = 2000 });
    return 0;
}

static int setup_flooded(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_connections = 8, .header_timeout_ms = SHORT_MS });
    return 0;
}

static int setup_crowded(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_connections = 3 });
    return 0;
}

static int setup_per_client(void **state)
{
    (void)state;
    bed_open(&bed, (struct http_options){ .max_per_client = 2 });
    return 0;
}

static void test_body_too_long(void **state)
{
    static char body[8000000];
    int fd;

    (void)state;
    memset(body, 'b', sizeof body);
    expect("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", 413, "\"status\":413");
    expect("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615\r\n\r\n", 413,
           NULL);
    expect("POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
           413, NULL);
    assert_null(strstr(answer, "100 Continue"));
    /* A client that sends it all before it listens hears the answer, too. */
    fd = bed_dial(&bed);
    bed_say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n");
    bed_send(fd, body, sizeof body);
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, " 413 "));
    close(fd);
    /* Without a length: just too long, and far too long. */
    fd = bed_dial(&bed);
    bed_say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n");
    bed_send(fd, body, 1001);
    bed_say(fd, "\r\n0\r\n\r\n");
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "\"status\":413,\"path\":\"/echo\""));
    close(fd);
    fd = bed_dial(&bed);
    bed_say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n");
    for (int i = 0; i < 3; i++)
        bed_send(fd, body, 3000);
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, " 413 "));
    close(fd);
    /* The longest that may be. */
    snprintf(
        answer, sizeof answer,
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n%.1000s",
        body);
    fd = bed_dial(&bed);
    bed_say(fd, answer);
    bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "200 OK"));
    close(fd);
    assert_int_equal(bed_counts(&bed).refused_size, 6);
    assert_int_equal(atomic_load(&bed.n_handled), 1);
    assert_int_equal(bed_counts(&bed).gone, 0);
}

static void test_header_too_long(void **state)
{
    static char header[1 << 17];
    int n = snprintf(header, sizeof header, "GET /show HTTP/1.1\r\nHost: localhost\r\nX-A: ");

    (void)state;
    memset(header + n, 'a', 2000);
    strcpy(header + n + 2000, "\r\n" END);
    expect(header, 431, "\"status\":431");
    assert_int_equal(bed_counts(&bed).refused_size, 1);
    /* Beyond any buffer: libmicrohttpd's own word. */
    memset(header + n, 'a', 100000);
    strcpy(header + n + 100000, "\r\n" END);
    expect(header, 431, NULL);
    n = snprintf(header, sizeof header, "GET /");
    memset(header + n, 'a', 100000);
    strcpy(header + n + 100000, " HTTP/1.1\r\nHost: localhost\r\n" END);
    expect(header, 414, NULL);
    assert_int_equal(atomic_load(&bed.n_handled), 0);
}

/* A byte every 50 ms: never silent, never done.  Returns when the other side has had enough. */
static int drip(const char *begin, char byte)
{
    int fd = bed_dial(&bed), ms;
    uint64_t start = tern_now_ms();

    bed_say(fd, begin);
    while (bed_send(fd, &byte, 1) && tern_now_ms() - start < BED_GIVE_UP_MS) {
        struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };

        if (poll(&p, 1, 50) > 0)
            break;
    }
    ms = (int)(tern_now_ms() - start);
    bed_hear(fd, answer, sizeof answer, NULL, 500);
    close(fd);
    return ms;
}

static void expect_cut(int ms)
{
    if (ms < SHORT_MS - 50 || ms > SOON_MS)
        fail_msg("cut after %d ms", ms);
}

static void test_slow_senders(void **state)
{
    struct http_counts c;

    (void)state;
    expect_cut(drip("", 'G'));
    assert_non_null(strstr(answer, " 408 "));
    assert_non_null(strstr(answer, "\"status\":408,\"path\":\"(none)\""));
    expect_cut(drip("GET /show?a=1 HTTP/1.1\r\nHost: localhost\r\nX-A: ", 'a'));
    assert_non_null(strstr(answer, " 408 "));
    assert_non_null(strstr(answer, "\"path\":\"/show\""));
    expect_cut(drip("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n", 'a'));
    assert_non_null(strstr(answer, " 408 "));
    assert_non_null(strstr(answer, "\"path\":\"/echo\""));
    expect_cut(
        drip("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n300\r\n", 'a'));
    assert_non_null(strstr(answer, " 408 "));
    c = bed_counts(&bed);
    assert_int_equal(c.timeouts, 4);
    assert_int_equal(atomic_load(&bed.n_handled), 0);
}

static void test_silent_ones(void **state)
{
    uint64_t begin = tern_now_ms();
    int fd = bed_dial(&bed);

    (void)state;
    assert_true(bed_closed(fd, SOON_MS));
    expect_cut((int)(tern_now_ms() - begin));
    close(fd);
    /* Between two requests. */
    fd = bed_dial(&bed);
    bed_say(fd, "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_hear(fd, answer, sizeof answer, "client", BED_GIVE_UP_MS);
    begin = tern_now_ms();
    assert_true(bed_closed(fd, SOON_MS));
    expect_cut((int)(tern_now_ms() - begin));
    close(fd);
    assert_int_equal(bed_counts(&bed).timeouts, 1);
    /* An answer that takes longer than all of these is not cut. */
    fd = bed_dial(&bed);
    bed_say(fd, "GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_false(bed_closed(fd, 3 * SHORT_MS));
    close(fd);
}

static void dial_narrow(int *fd)
{
    int small = 4096;

    *fd = bed_dial(&bed);
    (void)setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
}

static void test_slow_readers(void **state)
{
    uint64_t begin, n_cut;
    int fd, ms;

    (void)state;
    dial_narrow(&fd);
    bed_say(fd, "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_await(&bed.n_begun, 1);
    ms = bed_await(&bed.n_done, 1);
    if (ms > SOON_MS)
        fail_msg("cut after %d ms", ms);
    close(fd);
    /* On a crowded machine libmicrohttpd was seen to give up that one before the watchdog did. */
    n_cut = bed_counts(&bed).timeouts + 1;
    dial_narrow(&fd);
    begin = tern_now_ms();
    bed_say(fd, "GET /big?n=30000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (bed_counts(&bed).timeouts < n_cut && tern_now_ms() - begin < BED_GIVE_UP_MS)
        bed_sleep(10);
    expect_cut((int)(tern_now_ms() - begin));
    close(fd);
    /* One that takes a little now and then takes all the time it wants. */
    fd = bed_dial(&bed);
    bed_say(fd, "GET /big?n=30000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    begin = tern_now_ms();
    while (tern_now_ms() - begin < 4 * SHORT_MS) {
        assert_true(recv(fd, answer, 1 << 18, 0) > 0);
        bed_sleep(20);
    }
    close(fd);
    assert_int_equal(bed_counts(&bed).timeouts, n_cut);
}

enum farewell { CLOSES, RESETS, CLOSES_HALF };

/* Asks for a path, goes, and returns after how many milliseconds that was noticed. */
static int hang_up(const char *path, enum farewell how)
{
    bool blocks = strcmp(path, "/block") == 0;
    atomic_int *begun = blocks ? &bed.n_blocked : &bed.n_begun, *over = blocks ? &bed.n_noticed : &bed.n_done;
    int n_begun = atomic_load(begun), n_over = atomic_load(over), fd = bed_dial(&bed), ms;
    struct linger hard = { .l_onoff = 1 };

    snprintf(answer, sizeof answer, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
             path);
    bed_say(fd, answer);
    bed_await(begun, n_begun + 1);
    bed_sleep(100);
    assert_int_equal(atomic_load(over), n_over);
    if (how == RESETS)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (how == CLOSES_HALF) /* is gone, too */
        shutdown(fd, SHUT_WR);
    else
        close(fd);
    ms = bed_await(over, n_over + 1);
    if (how == CLOSES_HALF)
        close(fd);
    return ms;
}

static void test_hang_up(void **state)
{
    static const struct {
        const char *path;
        enum farewell how;
    } cases[] = { { "/block", CLOSES },     { "/stall", CLOSES }, { "/endless", CLOSES },
                  { "/block", RESETS },     { "/stall", RESETS }, { "/endless", RESETS },
                  { "/block", CLOSES_HALF } };
    uint64_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int ms = NOTICED + 1;

        for (int k = 0; k < TRIES && ms > NOTICED; k++, n++)
            ms = hang_up(cases[i].path, cases[i].how);
        if (ms > NOTICED)
            fail_msg("%s: noticed after %d ms", cases[i].path, ms);
    }
    bed_settle(&bed);
    assert_int_equal(bed_counts(&bed).gone, n);
}

static void test_too_many_connections(void **state)
{
    int fds[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        fds[i] = bed_dial(&bed);
        bed_say(fds[i], "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
        bed_hear(fds[i], answer, sizeof answer, "client", BED_GIVE_UP_MS);
        assert_non_null(strstr(answer, "200 OK"));
    }
    expect("GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n", 503, "\"status\":503");
    assert_non_null(strstr(answer, "Retry-After: 1"));
    assert_int_equal(bed_counts(&bed).refused_full, 1);
    close(fds[0]);
    bed_open_at_most(&bed, 2);
    expect("GET /show HTTP/1.1\r\nHost: localhost\r\n" END, 200, NULL);
    close(fds[1]);
    close(fds[2]);
}

static void test_too_many_of_one(void **state)
{
    int a = bed_dial(&bed), b = bed_dial(&bed), c;

    (void)state;
    bed_say(a, "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_hear(a, answer, sizeof answer, "client", BED_GIVE_UP_MS);
    c = bed_dial(&bed);
    bed_say(c, "GET /show HTTP/1.1\r\nHost: localhost\r\n\r\n");
    bed_hear(c, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, " 429 "));
    assert_non_null(strstr(answer, "Retry-After: 1"));
    /* The third stays away: then the second is none too many. */
    close(c);
    bed_say(b, "GET /show HTTP/1.1\r\nHost: localhost\r\n" END);
    bed_hear(b, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
    assert_non_null(strstr(answer, "200 OK"));
    close(a);
    close(b);
}

static void *ask_often(void *arg)
{
    int *failed = arg;

    for (int i = 0; i < 20; i++) {
        static const char request[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
                                      "GET /stream?n=5 HTTP/1.1\r\nHost: localhost\r\n" END;
        char mine[4096];
        int fd = bed_dial(&bed);

        (void)bed_send(fd, request, strlen(request));
        bed_hear(fd, mine, sizeof mine, NULL, BED_GIVE_UP_MS);
        close(fd);
        *failed += !strstr(mine, "\r\n\r\nabc") || !strstr(mine, "[0]\r\n0\r\n\r\n");
    }
    return NULL;
}

/* Strangers that only connect, far more than there may be: they are gone after a while, and nobody hangs. */
static void test_flood(void **state)
{
    int fds[200];

    (void)state;
    for (int i = 0; i < 200; i++)
        fds[i] = bed_dial(&bed);
    for (int i = 0; i < 200; i++) {
        assert_true(bed_closed(fds[i], SOON_MS));
        close(fds[i]);
    }
    assert_true(bed_counts(&bed).timeouts >= 8);
    bed_open_at_most(&bed, 0);
    expect("GET /show HTTP/1.1\r\nHost: localhost\r\n" END, 200, NULL);
}

static void test_many_at_once(void **state)
{
    pthread_t threads[64];
    int failed[64] = { 0 };

    (void)state;
    for (int i = 0; i < 64; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &failed[i]), 0);
    for (int i = 0; i < 64; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
    assert_int_equal(bed_counts(&bed).requests, 64 * 20 * 2);
    assert_int_equal(bed_counts(&bed).gone, 0);
}

/* Pieces of requests and of nothing, in any order. */
static size_t rubbish(uint64_t *seed, char *buf, size_t cap)
{
    static const char *const pieces[] = {
        "GET ",
        "POST ",
        "/show",
        "/echo",
        "/stream",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Host: localhost\r\n",
        "Host:",
        "Content-Length: ",
        "Content-Length: 5\r\n",
        "-1\r\n",
        "99999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "5\r\nabcde\r\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "?a=%00&b=%zz&%",
        "%41%",
        ":",
        "\t",
        " ",
        "Expect: 100-continue\r\n",
        "Origin: http://localhost\r\n",
        "Cookie: a=\"b; c",
        "X-A: \xff\xfe\r\n",
        ";ext=\"\r\n",
        "Upgrade: h2c\r\n",
    };
    size_t n = 0, want = unit_random(seed) % 24;

    for (size_t i = 0; i < want; i++) {
        uint64_t kind = unit_random(seed) % 8;
        const char *piece = pieces[unit_random(seed) % (sizeof pieces / sizeof *pieces)];

        if (n + 128 > cap)
            break;
        if (kind == 0) {
            for (size_t k = unit_random(seed) % 64; k > 0; k--)
                buf[n++] = (char)unit_random(seed);
        } else {
            memcpy(buf + n, piece, strlen(piece));
            n += strlen(piece);
        }
    }
    return n;
}

static int count_files(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_rubbish(void **state)
{
    uint64_t seed = 0x5eed;
    int n_open = count_files();
    char buf[4096];

    (void)state;
    for (int i = 0; i < 2000; i++) {
        size_t n = rubbish(&seed, buf, sizeof buf);
        int fd = bed_dial(&bed);

        assert_true(fd >= 0);
        (void)bed_send(fd, buf, n);
        shutdown(fd, SHUT_WR);
        bed_hear(fd, answer, sizeof answer, NULL, BED_GIVE_UP_MS);
        close(fd);
    }
    expect("GET /show HTTP/1.1\r\nHost: localhost\r\n" END, 200, NULL);
    bed_open_at_most(&bed, 0);
    assert_int_equal(http_server_busy(bed.server), 0);
    for (int i = 0; i < BED_GIVE_UP_MS / 5 && count_files() != n_open; i++)
        bed_sleep(5); /* a connection is counted out before its descriptor is closed */
    assert_int_equal(count_files(), n_open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_body_too_long, setup_small, teardown),
        cmocka_unit_test_setup_teardown(test_header_too_long, setup_small, teardown),
        cmocka_unit_test_setup_teardown(test_slow_senders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hang_up, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_connections, setup_crowded, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_of_one, setup_per_client, teardown),
        cmocka_unit_test_setup_teardown(test_flood, setup_flooded, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_rubbish, setup_patient, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
