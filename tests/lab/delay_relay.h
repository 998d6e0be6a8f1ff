/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay behind delay_proxy: connections to some ports are passed on to others, each byte when its link
 * says so (delay_shape.h).
 *
 * One thread, epoll and a timer of nanoseconds.  Each direction of a connection has a bounded buffer; when
 * it is full its sender is not read, so TCP itself holds the sender back.  Ends of a direction and resets are
 * passed on, delayed like bytes.
 */
#ifndef TERN_TESTS_LAB_DELAY_RELAY_H
#define TERN_TESTS_LAB_DELAY_RELAY_H

#include "lab/delay_shape.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>

#define DELAY_MAX_LINKS 32

struct delay_link {
    struct sockaddr_in listen, to;
    struct delay_spec spec[2]; /* towards `to`, and back */
    uint64_t seed;
    uint16_t port; /* set by delay_relay_open: where it listens */
    /* Kept while it runs. */
    int fd;
    struct delay_shape shape[2];
    uint64_t n_connections, bytes[2];
};

struct delay_relay {
    struct delay_link links[DELAY_MAX_LINKS];
    uint32_t n_links;
    size_t buffer_bytes; /* of one direction of one connection */
    struct delay_conn *conns;
    int epoll, timer, stop[2];
};

/* Binds and listens; false: the reason is on stderr. */
bool delay_relay_open(struct delay_relay *r);
/* Until delay_relay_stop, which any thread or signal handler may call. */
void delay_relay_run(struct delay_relay *r);
void delay_relay_stop(struct delay_relay *r);
void delay_relay_close(struct delay_relay *r);

uint64_t delay_now_ns(void);

/* Measures what the relay adds by itself, and prints it (delay_calibrate.c); false: the reason is on
 * stderr. */
bool delay_calibrate(const struct delay_spec *spec, unsigned rounds, bool json);

#endif
