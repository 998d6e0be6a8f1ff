/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another machine's monotonic clock, read through heartbeats.
 *
 * A pong says what that clock showed at some moment between our ping and its arrival; taking the middle, the
 * error is at most half of the round trip.  Of the last pongs the one with the least error counts, where a
 * sample's error grows with its age, because clocks drift.  All numbers of the peer are untrusted: they may
 * give a wrong time, never an overflow.
 *
 * Thread: one.  No allocation.
 */
#ifndef TERN_COORDINATOR_PEER_CLOCK_H
#define TERN_COORDINATOR_PEER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define PEER_CLOCK_PINGS   64u /* on their way: 6.4 s of them */
#define PEER_CLOCK_SAMPLES 64u

/* All zeros: nothing is known. */
struct peer_clock {
    struct {
        uint64_t seq, us;
    } pings[PEER_CLOCK_PINGS];
    struct {
        uint64_t got_us, round_trip_us;
        int64_t ahead_us;
    } samples[PEER_CLOCK_SAMPLES];
    uint32_t n_samples, at;

    bool known;
    int64_t ahead_us;       /* of its clock against ours */
    uint32_t within_us;     /* how far that may be off */
    uint32_t round_trip_us; /* the shortest of the samples */
};

/* Ping `seq` was sent at now_us, our clock. */
void peer_clock_sent(struct peer_clock *c, uint64_t seq, uint64_t now_us);
/* Its pong came at now_us and says their_us.  What cannot be an answer is ignored. */
void peer_clock_got(struct peer_clock *c, uint64_t seq, uint64_t their_us, uint64_t now_us);

/* A time of theirs on our clock, not before `first` and not behind `last`; 0 when either clock is not
 * known (their_us 0 included). */
uint64_t peer_clock_ours(const struct peer_clock *c, uint64_t their_us, uint64_t first, uint64_t last);

#endif
