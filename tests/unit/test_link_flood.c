/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strangers at the door: 500 connections that say nothing and 60 that announce a maximal frame and send all
 * of it but the last byte, none of them authenticated.  The server, a process of its own, must not grow by 32
 * MB, must not spin, and must let a listed peer in.
 */
#include "unit/link_child.h"

#include "engine/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

#define N_SILENT 500
#define N_GREEDY 60
#define N_ALL    (N_SILENT + N_GREEDY)
#define FLOOD_MS 5000
#define JOIN_MS  3000
/* Sanitizers keep freed memory back and pad what is allocated: there only a leak without bound would show. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#define MAX_GROWTH_KB (128 * 1024)
#else
#define MAX_GROWTH_KB (32 * 1024)
#endif

struct bed {
    struct tern_key server_key, friend_key;
    struct tern_allow allow;
    char list[64];
    char endpoint[TERN_MAX_ENDPOINT_BYTES + 1];
    pid_t pid;
};

static void ok(enum tern_status st, const struct tern_err *err)
{
    if (st)
        fail_msg("%s: %s", tern_status_name(st), err->text);
}

static int setup(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    char z85[TERN_Z85_CHARS + 1];
    struct tern_err err;
    int fds[2], fd;
    FILE *f;

    assert_non_null(b);
    alarm(240);
    ok(tern_keys_init(&err), &err);
    ok(tern_key_generate(&b->server_key, &err), &err);
    ok(tern_key_generate(&b->friend_key, &err), &err);
    strcpy(b->list, "/tmp/tern-allow-XXXXXX");
    fd = mkstemp(b->list);
    assert_true(fd >= 0);
    f = fdopen(fd, "w");
    assert_non_null(f);
    tern_key_to_z85(b->friend_key.public_key, z85);
    fprintf(f, "friend coordinator %s\n", z85);
    assert_int_equal(fclose(f), 0);
    ok(tern_allow_open(b->list, &b->allow, &err), &err);
    assert_int_equal(pipe(fds), 0);
    b->pid = fork();
    assert_true(b->pid >= 0);
    if (b->pid == 0)
        link_child_serve(&b->server_key, &b->allow, fds[1], "welcome");
    assert_true(read(fds[0], b->endpoint, sizeof b->endpoint - 1) > 0);
    close(fds[0]);
    close(fds[1]);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bed *b = *state;
    int status;

    kill(b->pid, SIGKILL);
    waitpid(b->pid, &status, 0);
    tern_allow_close(&b->allow);
    tern_key_wipe(&b->server_key);
    tern_key_wipe(&b->friend_key);
    unlink(b->list);
    free(b);
    return 0;
}

/* A line of /proc/PID/status, in kB. */
static long status_kb(pid_t pid, const char *what)
{
    char path[64], line[256];
    long kb = -1;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, what, strlen(what)) == 0)
            kb = atol(line + strlen(what) + 1);
    fclose(f);
    assert_true(kb > 0);
    return kb;
}

/* User and system time, in milliseconds. */
static long cpu_ms(pid_t pid)
{
    char path[64], line[1024];
    unsigned long user, sys;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_int_equal(
        sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys),
        2);
    return (long)((user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

static int raw_connect(const struct bed *b)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_port = htons((uint16_t)atoi(strrchr(b->endpoint, ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* A stranger; a greedy one has a frame to send. */
struct stranger {
    int fd;
    bool greedy;
    size_t sent;
};

/* A ZMTP greeting, the head of a maximal command frame, and its body. */
static uint8_t speech[73 + TERN_LINK_MAX_FRAME];

static void write_speech(void)
{
    static const uint8_t greeting[17] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E' };

    memset(speech, 0x5a, sizeof speech);
    memset(speech, 0, 64);
    memcpy(speech, greeting, sizeof greeting);
    speech[64] = 6; /* a long command */
    for (unsigned i = 0; i < 8; i++)
        speech[65 + i] = (uint8_t)((uint64_t)TERN_LINK_MAX_FRAME >> (56 - 8 * i));
}

/* Says more of its speech; comes back when it was thrown out.  Returns 1 then. */
static unsigned push(const struct bed *b, struct stranger *s)
{
    char drop[256];
    ssize_t n;

    if (s->greedy && s->sent < sizeof speech - 1) {
        n = send(s->fd, speech + s->sent, sizeof speech - 1 - s->sent, MSG_NOSIGNAL);
        if (n > 0)
            s->sent += (size_t)n;
    }
    n = recv(s->fd, drop, sizeof drop, 0);
    if (n > 0 || (n < 0 && errno == EAGAIN))
        return 0;
    close(s->fd);
    s->fd = raw_connect(b);
    s->sent = 0;
    return 1;
}

/* Connects as the listed peer and gets an answer; how long it took. */
static uint64_t join(const struct bed *b)
{
    struct tern_link_context *ctx;
    struct tern_link_message m;
    struct tern_client *c;
    struct tern_err err;
    enum tern_status st = TERN_AGAIN;
    uint64_t begin = tern_now_ms();
    bool sent = false;

    ok(tern_link_context_new(&ctx, &err), &err);
    ok(tern_client_open(ctx, b->endpoint, &b->friend_key, b->server_key.public_key, &c, &err), &err);
    tern_link_message_init(&m);
    while (st == TERN_AGAIN && tern_now_ms() - begin < 10 * JOIN_MS) {
        struct pollfd fds[TERN_CLIENT_FDS];

        if (!tern_client_poll_fds(c, fds))
            poll(fds, TERN_CLIENT_FDS, 10);
        if (tern_client_pump(c) == TERN_CLIENT_UP && !sent)
            sent = tern_client_send(c, "hello", 5, NULL, 0, &err) == TERN_OK;
        st = tern_client_recv(c, &m, &err);
    }
    ok(st, &err);
    begin = tern_now_ms() - begin;
    tern_link_message_close(&m);
    tern_client_close(&c);
    tern_link_context_free(&ctx);
    return begin;
}

/* The same, with more tries where it took long: other programs may have the processors. */
static uint64_t join_soon(const struct bed *b)
{
    uint64_t took = join(b);

    for (int i = 0; i < 2 && took >= JOIN_MS; i++)
        took = join(b);
    return took;
}

static void test_flood(void **state)
{
    static struct stranger all[N_ALL];
    struct bed *b = *state;
    uint64_t took = join(b), end;
    long before = status_kb(b->pid, "VmRSS"), peak, cpu;
    unsigned back = 0;

    print_message("alone: joined in %d ms, %ld kB\n", (int)took, before);
    write_speech();
    cpu = cpu_ms(b->pid);
    for (unsigned i = 0; i < N_ALL; i++) {
        all[i].greedy = i >= N_SILENT;
        all[i].fd = raw_connect(b);
    }
    /* They come back whenever the handshake's time limit throws them out. */
    end = tern_now_ms() + FLOOD_MS;
    while (tern_now_ms() < end) {
        for (unsigned i = 0; i < N_ALL; i++)
            back += push(b, &all[i]);
        poll(NULL, 0, 20);
    }
    cpu = cpu_ms(b->pid) - cpu;
    took = join_soon(b);
    peak = status_kb(b->pid, "VmHWM");
    print_message("flooded: joined in %d ms, grew by %ld kB, used %ld ms of CPU in %d ms, %u came back\n",
                  (int)took, peak - before, cpu, FLOOD_MS, back);
    assert_true(back >= N_ALL); /* nobody stays who does not authenticate */
    assert_true(took < JOIN_MS);
    assert_true(peak - before < MAX_GROWTH_KB);
    /* A spinning thread would use all of it; ten times as much room is left for slow machines. */
    assert_true(cpu < FLOOD_MS / 3);
    for (unsigned i = 0; i < N_ALL; i++)
        close(all[i].fd);
    assert_true(join_soon(b) < JOIN_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_flood, setup, teardown) };
    struct tern_link_context *ctx;
    struct tern_err err;

    /* Raises the descriptor limit of this process too. */
    if (tern_link_context_new(&ctx, &err))
        return 1;
    tern_link_context_free(&ctx);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
