/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a link does to bytes: when a piece that came in now may go on.
 *
 * A link serialises (rate), then travels (delay and jitter), then may stand still (stalls).  Bytes keep
 * their order, so a piece is never due before the one in front of it.  The same seed gives the same jitter.
 * All connections through one link share its rate and its stalls.
 */
#ifndef TERN_TESTS_LAB_DELAY_SHAPE_H
#define TERN_TESTS_LAB_DELAY_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#define DELAY_PIECE 1500 /* bytes that a limited link sends at a time */
#define DELAY_QUEUE_NS                                                                                       \
    50000000ul /* a limited link has this much waiting at most: senders wait for the rest */

struct delay_spec {
    uint64_t delay_ns, jitter_ns;      /* one way: delay .. delay + jitter */
    uint64_t rate;                     /* bytes per second; 0: no limit */
    uint64_t stall_every_ns, stall_ns; /* nothing arrives for stall_ns, every stall_every_ns; 0: never */
};

struct delay_shape {
    struct delay_spec spec;
    uint64_t random;
    uint64_t start_ns; /* stalls count from here */
    uint64_t free_ns;  /* the link has sent everything that was given to it */
};

/* "delay=10,jitter=2,rate=1e6,stall=5/200": milliseconds, bytes per second, seconds / milliseconds.  What is
 * not named stays as it is.  False when it is not of this form. */
bool delay_spec_parse(const char *text, struct delay_spec *spec);

void delay_shape_init(struct delay_shape *s, const struct delay_spec *spec, uint64_t seed, uint64_t now_ns);

/* When the last of n bytes that came in at now_ns arrives, given that the piece in front does at
 * before_ns. */
uint64_t delay_shape_due(struct delay_shape *s, uint64_t now_ns, uint64_t before_ns, uint32_t n);

/* When to read on: now_ns or earlier, or later while too much waits to be sent. */
uint64_t delay_shape_read_at(const struct delay_shape *s);

#endif
