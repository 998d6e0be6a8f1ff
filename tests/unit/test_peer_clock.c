/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Estimating another machine's clock from heartbeats: made-up links with delay, jitter, asymmetry and drift,
 * and peers that say anything.
 */
#include "coordinator/peer_clock.h"
#include "unit/unit.h"

#include <string.h>

#define SECOND 1000000u

/* A link and a clock behind it. */
struct far {
    int64_t ahead_us;
    int64_t drift_ppm;
    uint64_t out_us, back_us, jitter_us;
    uint64_t rng;
};

static uint64_t their_clock(const struct far *f, uint64_t now)
{
    return (uint64_t)((int64_t)now + f->ahead_us + (int64_t)now * f->drift_ppm / 1000000);
}

static int64_t true_ahead(const struct far *f, uint64_t now)
{
    return (int64_t)their_clock(f, now) - (int64_t)now;
}

static uint64_t jitter(struct far *f)
{
    return f->jitter_us ? unit_random(&f->rng) % f->jitter_us : 0;
}

/* n heartbeats, ten a second, from *now on; every tenth pong is lost. */
static void beat(struct peer_clock *c, struct far *f, uint64_t *seq, uint64_t *now, int n)
{
    for (int i = 0; i < n; i++, *now += SECOND / 10) {
        uint64_t there = *now + f->out_us + jitter(f), home = there + f->back_us + jitter(f);

        peer_clock_sent(c, ++*seq, *now);
        if (*seq % 10 != 0)
            peer_clock_got(c, *seq, their_clock(f, there), home);
    }
}

static void check_truth(const struct peer_clock *c, const struct far *f, uint64_t now)
{
    int64_t off = c->ahead_us - true_ahead(f, now);

    assert_true(c->known);
    if (off > (int64_t)c->within_us || -off > (int64_t)c->within_us)
        fail_msg("off by %lld us, said to be within %u", (long long)off, c->within_us);
}

static void test_links(void **state)
{
    static const struct far links[] = {
        { 0, 0, 40, 40, 0, 1 },
        { INT64_C(86400) * SECOND, 0, 200, 200, 5000, 2 },     /* up for a day longer */
        { -INT64_C(3600) * SECOND, 40, 10000, 10000, 500, 3 }, /* booted later, fast */
        { 12345678, -50, 50000, 1000, 20000, 4 },              /* lopsided, slow */
        { -1, 95, 30, 30, 3000000, 5 },                        /* mostly stalled */
    };

    (void)state;
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        struct far f = links[i];
        struct peer_clock c = { 0 };
        uint64_t seq = 0, now = UINT64_C(7200) * SECOND;

        for (int k = 0; k < 200; k++) {
            beat(&c, &f, &seq, &now, 7);
            check_truth(&c, &f, now - 7 * SECOND / 10);
        }
        assert_true(c.round_trip_us >= f.out_us + f.back_us);
        if (f.jitter_us < 10000)
            assert_true(c.round_trip_us <= f.out_us + f.back_us + f.jitter_us / 2);
    }
}

/* One quick answer among slow ones is what counts, and is forgotten when it has become old. */
static void test_quick_answer(void **state)
{
    struct far slow = { 500, 0, 40000, 2000, 0, 1 }, quick = { 500, 0, 30, 20, 0, 1 };
    struct peer_clock c = { 0 };
    uint64_t seq = 0, now = SECOND;

    (void)state;
    beat(&c, &slow, &seq, &now, 5);
    assert_true(c.within_us > 20000);
    beat(&c, &quick, &seq, &now, 1);
    assert_in_range(c.ahead_us, 490, 510);
    assert_int_equal(c.round_trip_us, 50);
    assert_in_range(c.within_us, 25, 30);
    beat(&c, &slow, &seq, &now, 20);
    assert_in_range(c.ahead_us, 490, 510);
    assert_in_range(c.within_us, 200, 260); /* 2 s of drift */
    beat(&c, &slow, &seq, &now, 2 * PEER_CLOCK_SAMPLES);
    assert_int_equal(c.round_trip_us, 42000);
    assert_true(c.within_us > 20000);
}

static void test_hostile(void **state)
{
    static const uint64_t numbers[] = { 0,
                                        1,
                                        SECOND,
                                        UINT64_C(1) << 61,
                                        (UINT64_C(1) << 61) + 1,
                                        INT64_MAX,
                                        (uint64_t)INT64_MAX + 1,
                                        UINT64_MAX - 1,
                                        UINT64_MAX };
    const size_t n = sizeof numbers / sizeof numbers[0];

    (void)state;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            struct peer_clock c = { 0 };
            uint64_t ours;

            peer_clock_sent(&c, 1, 10 * SECOND);
            peer_clock_got(&c, 1, numbers[i], 11 * SECOND);
            assert_int_equal(c.known, numbers[i] != 0);
            ours = peer_clock_ours(&c, numbers[k], 10 * SECOND, 12 * SECOND);
            if (!c.known || numbers[k] == 0)
                assert_int_equal(ours, 0);
            else
                assert_in_range(ours, 10 * SECOND, 12 * SECOND);
        }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            struct peer_clock c = { 0 };

            /* Pings never sent, sent long ago, or from the future. */
            peer_clock_sent(&c, 7, numbers[i]);
            peer_clock_got(&c, 8, 5, numbers[k]);
            peer_clock_got(&c, 0, 5, numbers[k]);
            peer_clock_got(&c, 7 + PEER_CLOCK_PINGS, 5, numbers[k]);
            assert_false(c.known);
            peer_clock_got(&c, 7, 5, numbers[k]);
            assert_int_equal(c.known, numbers[k] >= numbers[i]);
            peer_clock_sent(&c, 9, numbers[k]);
            peer_clock_got(&c, 9, UINT64_MAX, UINT64_MAX);
        }
}

/* Times of a step keep between sending and coming home, and their differences where they are true. */
static void test_ours(void **state)
{
    struct far f = { 777777, 0, 100, 100, 0, 1 };
    struct peer_clock c = { 0 };
    uint64_t seq = 0, now = SECOND;

    (void)state;
    assert_int_equal(peer_clock_ours(&c, 5 * SECOND, 0, UINT64_MAX), 0);
    beat(&c, &f, &seq, &now, 3);
    assert_int_equal(peer_clock_ours(&c, their_clock(&f, 3 * SECOND), 2 * SECOND, 4 * SECOND), 3 * SECOND);
    assert_int_equal(peer_clock_ours(&c, their_clock(&f, 3 * SECOND), 2 * SECOND, 2 * SECOND), 2 * SECOND);
    assert_int_equal(peer_clock_ours(&c, their_clock(&f, 1), 2 * SECOND, 4 * SECOND), 2 * SECOND);
    assert_int_equal(peer_clock_ours(&c, 1, 2 * SECOND, 4 * SECOND), 2 * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_quick_answer),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_ours),
    };

    return cmocka_run_group_tests_name("peer_clock", tests, NULL, NULL);
}
