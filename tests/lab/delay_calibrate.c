/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delay_proxy --calibrate: round trips of small messages over loopback, directly, through the relay without a
 * delay, and through it with the delay that was asked for.
 *
 * What the relay adds to one way is half of what it adds to a round trip, its delay taken off.
 */
#include "lab/delay_relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE 2600 /* bytes: a row of int8 codes and its header in a model of two billion weights */

/* -- who answers ----------------------------------------------------------------------------------------- */

static void *answer(void *arg)
{
    const int listener = *(int *)arg, one = 1;
    char buffer[MESSAGE];
    int fd;

    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        ssize_t n;

        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while ((n = recv(fd, buffer, sizeof buffer, MSG_WAITALL)) == MESSAGE)
            if (send(fd, buffer, (size_t)n, MSG_NOSIGNAL) != n)
                break;
        close(fd);
    }
    return NULL;
}

static int listen_any(uint16_t *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4) ||
        getsockname(fd, (struct sockaddr *)&at, &len)) {
        fprintf(stderr, "delay_proxy: cannot listen: %s\n", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *port = ntohs(at.sin_port);
    return fd;
}

/* -- round trips ----------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorted microseconds of `rounds` round trips behind a few that do not count. */
static bool round_trips(uint16_t port, unsigned rounds, double *us)
{
    const struct sockaddr_in to = { .sin_family = AF_INET,
                                    .sin_port = htons(port),
                                    .sin_addr = { htonl(INADDR_LOOPBACK) } };
    const int one = 1;
    char buffer[MESSAGE] = { 0 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (unsigned i = 0; ok && i < rounds + 10; i++) {
        uint64_t t0 = delay_now_ns();

        ok = send(fd, buffer, MESSAGE, MSG_NOSIGNAL) == MESSAGE &&
             recv(fd, buffer, MESSAGE, MSG_WAITALL) == MESSAGE;
        if (i >= 10)
            us[i - 10] = (double)(delay_now_ns() - t0) / 1e3;
    }
    if (!ok)
        fprintf(stderr, "delay_proxy: a round trip failed: %s\n", strerror(errno));
    if (fd >= 0)
        close(fd);
    qsort(us, rounds, sizeof *us, compare);
    return ok;
}

static void *run(void *relay)
{
    delay_relay_run(relay);
    return NULL;
}

static bool through_relay(uint16_t port, const struct delay_spec *spec, unsigned rounds, double *us)
{
    struct delay_relay *r = calloc(1, sizeof *r);
    const struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    pthread_t thread;
    bool ok;

    if (!r)
        return false;
    r->n_links = 1;
    r->buffer_bytes = 1u << 20;
    r->links[0].listen = r->links[0].to = loopback;
    r->links[0].to.sin_port = htons(port);
    r->links[0].spec[0] = r->links[0].spec[1] = *spec;
    ok = delay_relay_open(r) && pthread_create(&thread, NULL, run, r) == 0;
    if (ok) {
        ok = round_trips(r->links[0].port, rounds, us);
        delay_relay_stop(r);
        pthread_join(thread, NULL);
    }
    delay_relay_close(r);
    free(r);
    return ok;
}

/* -- the figures ----------------------------------------------------------------------------------------- */

struct way_figures {
    double delay_ms, p50, p99; /* microseconds that one way takes beyond the delay */
};

static bool figures(uint16_t port, const struct delay_spec *spec, unsigned rounds, double direct, double *us,
                    struct way_figures *out)
{
    const double asked = (double)spec->delay_ns / 1e3;

    if (!through_relay(port, spec, rounds, us))
        return false;
    out->delay_ms = asked / 1e3;
    out->p50 = (us[rounds / 2] - direct) / 2 - asked;
    out->p99 = (us[rounds * 99 / 100] - direct) / 2 - asked;
    return true;
}

bool delay_calibrate(const struct delay_spec *spec, unsigned rounds, bool json)
{
    const struct delay_spec none = { 0 };
    struct way_figures at[2];
    uint16_t port = 0;
    int listener = listen_any(&port);
    double *us = calloc(rounds, sizeof *us), direct[2];
    pthread_t thread;
    bool ok = listener >= 0 && us && pthread_create(&thread, NULL, answer, &listener) == 0;

    if (ok) {
        ok = round_trips(port, rounds, us);
        direct[0] = us[rounds / 2];
        direct[1] = us[rounds * 99 / 100];
        ok = ok && figures(port, &none, rounds, direct[0], us, &at[0]) &&
             figures(port, spec, rounds, direct[0], us, &at[1]);
        shutdown(listener, SHUT_RDWR);
        pthread_join(thread, NULL);
    }
    if (ok && json)
        printf("{\"rounds\": %u, \"message_bytes\": %d, \"direct_round_trip_us\": {\"p50\": %.1f, \"p99\": "
               "%.1f}, \"added_us\": {\"p50\": %.1f, \"p99\": %.1f}, \"delay_ms\": %.3f, "
               "\"beyond_delay_us\": {\"p50\": %.1f, \"p99\": %.1f}}\n",
               rounds, MESSAGE, direct[0], direct[1], at[0].p50, at[0].p99, at[1].delay_ms, at[1].p50,
               at[1].p99);
    else if (ok)
        printf("| one way, %d bytes | p50 us | p99 us |\n| :--- | ---: | ---: |\n"
               "| direct (half a round trip) | %.1f | %.1f |\n| added without a delay | %.1f | %.1f |\n"
               "| added beyond a delay of %.3f ms | %.1f | %.1f |\n",
               MESSAGE, direct[0] / 2, direct[1] / 2, at[0].p50, at[0].p99, at[1].delay_ms, at[1].p50,
               at[1].p99);
    free(us);
    if (listener >= 0)
        close(listener);
    return ok;
}
