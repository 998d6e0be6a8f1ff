/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/peer_clock.h"

/* Of two machines' clocks against each other, in millionths: crystals keep 20 to 50 each. */
#define DRIFT_PPM 100u
/* 73,000 years: differences and sums of two such times fit 64 bits with a sign. */
#define MAX_US (UINT64_C(1) << 61)

static int64_t clamp_us(uint64_t us)
{
    return (int64_t)(us < MAX_US ? us : MAX_US);
}

static uint32_t clamp_u32(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

void peer_clock_sent(struct peer_clock *c, uint64_t seq, uint64_t now_us)
{
    c->pings[seq % PEER_CLOCK_PINGS].seq = seq;
    c->pings[seq % PEER_CLOCK_PINGS].us = now_us;
}

static uint64_t error_of(const struct peer_clock *c, uint32_t i, uint64_t now_us)
{
    uint64_t got = c->samples[i].got_us, age = now_us > got ? now_us - got : 0;

    /* The two readings are cut to whole microseconds. */
    return c->samples[i].round_trip_us / 2 + age / (1000000 / DRIFT_PPM) + 1;
}

static void choose(struct peer_clock *c, uint64_t now_us)
{
    uint64_t least = UINT64_MAX, shortest = UINT64_MAX;

    for (uint32_t i = 0; i < c->n_samples; i++) {
        uint64_t error = error_of(c, i, now_us);

        if (error < least) {
            least = error;
            c->ahead_us = c->samples[i].ahead_us;
        }
        if (c->samples[i].round_trip_us < shortest)
            shortest = c->samples[i].round_trip_us;
    }
    c->known = true;
    c->within_us = clamp_u32(least);
    c->round_trip_us = shortest > 0 ? clamp_u32(shortest) : 1; /* 0 would say: not known */
}

void peer_clock_got(struct peer_clock *c, uint64_t seq, uint64_t their_us, uint64_t now_us)
{
    uint32_t p = (uint32_t)(seq % PEER_CLOCK_PINGS);
    uint64_t sent = c->pings[p].us;

    if (seq == 0 || c->pings[p].seq != seq || their_us == 0 || now_us < sent)
        return;
    c->samples[c->at].got_us = now_us;
    c->samples[c->at].round_trip_us = now_us - sent;
    c->samples[c->at].ahead_us = clamp_us(their_us) - clamp_us(sent + (now_us - sent) / 2);
    c->at = (c->at + 1) % PEER_CLOCK_SAMPLES;
    if (c->n_samples < PEER_CLOCK_SAMPLES)
        c->n_samples++;
    choose(c, now_us);
}

uint64_t peer_clock_ours(const struct peer_clock *c, uint64_t their_us, uint64_t first, uint64_t last)
{
    int64_t ours;

    if (!c->known || their_us == 0)
        return 0;
    ours = clamp_us(their_us) - c->ahead_us;
    if (ours < 0 || (uint64_t)ours < first)
        return first;
    return (uint64_t)ours > last ? last : (uint64_t)ours;
}
