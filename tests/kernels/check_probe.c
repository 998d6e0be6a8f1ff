/* SPDX-License-Identifier: Apache-2.0 */
/* The probes of the machine's limits: a probe that skips work would overstate them. */
#include "tests/kernels/check.h"

#include <stdio.h>
#include <string.h>

static void compare_read(struct check *c)
{
    static const size_t sizes[] = { 4096, 8192, 12288, 65536, 1 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_case(c, "%zu bytes", sizes[i]);
        uint8_t *p = check_in(0, sizes[i]);
        for (size_t b = 0; b < sizes[i]; b++)
            p[b] = (uint8_t)check_rand(c);
        uint32_t x[2] = { c->ref.probe_read(p, sizes[i]), c->new.probe_read(p, sizes[i]) };
        check_same_bytes(c, "words", &x[0], &x[1], sizeof x[0]);
        /* Every byte counts: one in each 64 changed in turn shows. */
        for (size_t b = check_below(c, 64); b < sizes[i]; b += 4096 + 64) {
            p[b] ^= 0x5a;
            uint32_t other = c->new.probe_read(p, sizes[i]);
            if (other == x[1]) {
                c->failures++;
                printf("    %s %s: byte %zu is not read\n", c->op, c->where, b);
                return;
            }
            x[1] = other;
        }
    }
}

static void compare_dot(struct check *c)
{
    static const size_t steps[] = { 0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 4096, 65537 };
    check_case(c, "macs");
    if (c->new.probe_dot_macs == 0 || c->new.probe_dot_macs % 4 != 0) {
        c->failures++;
        printf("    %s: %zu products a step\n", c->op, c->new.probe_dot_macs);
    }
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        check_case(c, "%zu steps", steps[i]);
        uint32_t ref = c->ref.probe_dot(steps[i] * c->new.probe_dot_macs / c->ref.probe_dot_macs);
        uint32_t new = c->new.probe_dot(steps[i]);
        check_same_bytes(c, "sum", &ref, &new, sizeof ref);
    }
}

struct read_arg {
    const struct tern_kernels *k;
    const void *p;
    size_t bytes;
};

/* What the probes return must be used, or there would be nothing to measure. */
static volatile uint32_t sink;

static void call_read(void *arg)
{
    const struct read_arg *a = arg;
    sink = a->k->probe_read(a->p, a->bytes);
}

static void measure_read(struct check *c)
{
    static const struct {
        const char *name;
        size_t bytes;
    } sizes[] = { { "16 KiB", 16 << 10 }, { "256 KiB", 256 << 10 }, { "256 MiB", 256u << 20 } };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *p = check_in(0, sizes[i].bytes);
        memset(p, 1, sizes[i].bytes);
        struct read_arg a = { &c->new, p, sizes[i].bytes };
        check_measure(c, sizes[i].name, a.bytes, call_read, &a);
    }
}

#define DOT_STEPS 100000

static void call_dot(void *arg)
{
    const struct tern_kernels *k = arg;
    sink = k->probe_dot(DOT_STEPS);
}

/* Bytes are those of the weights that such products would need at one byte each: GB/s reads as GMAC/s. */
static void measure_dot(struct check *c)
{
    check_measure(c, "GB/s are GMAC/s", DOT_STEPS * c->new.probe_dot_macs, call_dot, &c->new);
}

const struct check_op check_probe_ops[] = {
    { "probe_read", compare_read, measure_read, offsetof(struct tern_kernels, probe_read) },
    { "probe_dot", compare_dot, measure_dot, offsetof(struct tern_kernels, probe_dot) },
    { 0 },
};
