/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of the delay proxy's links: when a piece of bytes arrives.
 */
#include "unit/unit.h"

#include "lab/delay_shape.h"

#define MS 1000000ull

static struct delay_spec spec_of(const char *text)
{
    struct delay_spec s = { 0 };

    assert_true(delay_spec_parse(text, &s));
    return s;
}

static void test_specs(void **state)
{
    static const char *const bad[] = {
        "",          "delay",     "delay=",      "delay=x",      "delay=-1",     "delay=1,", "delay=1;rate=2",
        "stall=5",   "stall=/5",  "stall=1/",    "stall=1/1000", "stall=1/2000", "rate=nan", "rate=1 ",
        "jitter=1x", "latency=1", "delay=60001", " delay=1",
    };
    struct delay_spec s = spec_of("delay=1.5,jitter=2,rate=1e6,stall=5/200");

    (void)state;
    assert_true(s.delay_ns == 3 * MS / 2 && s.jitter_ns == 2 * MS && s.rate == 1000000);
    assert_true(s.stall_every_ns == 5000 * MS && s.stall_ns == 200 * MS);
    assert_true(delay_spec_parse("rate=0,stall=0/0", &s));
    assert_true(s.delay_ns == 3 * MS / 2 && s.rate == 0 && s.stall_every_ns == 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct delay_spec before = s;

        assert_false(delay_spec_parse(bad[i], &s));
        assert_memory_equal(&before, &s, sizeof s);
    }
}

static void test_delay_and_jitter(void **state)
{
    const struct delay_spec spec = spec_of("delay=10,jitter=4");
    struct delay_shape a, b, c;
    uint64_t sum = 0, differ = 0;

    (void)state;
    delay_shape_init(&a, &spec, 7, 0);
    delay_shape_init(&b, &spec, 7, 0);
    delay_shape_init(&c, &spec, 8, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t now = i * 100 * MS, due = delay_shape_due(&a, now, 0, 100);

        assert_true(due >= now + 10 * MS && due <= now + 14 * MS);
        assert_true(delay_shape_due(&b, now, 0, 100) == due);
        differ += delay_shape_due(&c, now, 0, 100) != due;
        sum += due - now;
    }
    assert_true(sum > 11900 * MS && sum < 12100 * MS);
    assert_true(differ > 900);
    /* Never before the piece in front. */
    assert_true(delay_shape_due(&a, 0, 99 * MS, 1) == 99 * MS);
    assert_true(delay_shape_read_at(&a) == 0);
}

static void test_rate(void **state)
{
    const struct delay_spec spec = spec_of("delay=5,rate=1500000");
    struct delay_shape s;
    uint64_t due = 0;

    (void)state;
    delay_shape_init(&s, &spec, 1, 0);
    for (int i = 0; i < 1000; i++) /* all at once: one millisecond each, one behind the other */
        due = delay_shape_due(&s, 0, due, DELAY_PIECE);
    assert_true(due == 1005 * MS);
    assert_true(delay_shape_read_at(&s) == 1000 * MS - DELAY_QUEUE_NS);
    /* A link that was idle has saved nothing up. */
    assert_true(delay_shape_due(&s, 5000 * MS, due, DELAY_PIECE) == 5006 * MS);
}

static void test_stalls(void **state)
{
    const struct delay_spec spec = spec_of("delay=1,stall=1/100");
    const uint64_t t0 = 12345 * MS;
    struct delay_shape s;

    (void)state;
    delay_shape_init(&s, &spec, 1, t0);
    assert_true(delay_shape_due(&s, t0, 0, 1) == t0 + MS); /* the first one comes after the first second */
    assert_true(delay_shape_due(&s, t0 + 998 * MS, 0, 1) == t0 + 999 * MS);
    assert_true(delay_shape_due(&s, t0 + 999 * MS, 0, 1) == t0 + 1100 * MS);
    assert_true(delay_shape_due(&s, t0 + 1098 * MS, 0, 1) == t0 + 1100 * MS);
    assert_true(delay_shape_due(&s, t0 + 1099 * MS, 0, 1) == t0 + 1100 * MS);
    assert_true(delay_shape_due(&s, t0 + 1100 * MS, 0, 1) == t0 + 1101 * MS);
    assert_true(delay_shape_due(&s, t0 + 7050 * MS, 0, 1) == t0 + 7100 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_delay_and_jitter),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_stalls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
