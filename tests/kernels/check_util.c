/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, guarded memory, verdicts and the clock of the kernel checks. */
#include "tests/kernels/check.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Failures printed for one op; the rest is only counted. */
#define SHOWN 5

const char *const check_kind_names[KIND_N] = { "random", "zero", "max",   "min",
                                               "swing",  "tiny", "large", "wild" };

/* -- numbers --------------------------------------------------------------------------------------------- */

/* splitmix64 (G. L. Steele et al., "Fast splittable pseudorandom number generators", 2014). */
uint64_t check_rand(struct check *c)
{
    uint64_t z = c->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t check_below(struct check *c, size_t n)
{
    return (size_t)(check_rand(c) % n);
}

float check_unit(struct check *c)
{
    return (float)((double)(check_rand(c) >> 11) * 0x1p-52 - 1.0);
}

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float one_f32(struct check *c, size_t i, enum check_kind kind)
{
    static const float tiny[8] = { 0.0f,    -0.0f,    0x1p-149f,   -0x1p-149f,
                                   FLT_MIN, -FLT_MIN, 0x1.8p-130f, -0x1p-126f };
    switch (kind) {
    case KIND_ZERO: return 0.0f;
    case KIND_MAX: return 1000.0f;
    case KIND_MIN: return -1000.0f;
    case KIND_SWING: return i % 2 ? -1000.0f : 1000.0f;
    case KIND_TINY: return check_below(c, 2) ? tiny[check_below(c, 8)] : check_unit(c) * 1e-38f;
    case KIND_LARGE: return check_unit(c) * bits_f32((uint32_t)(127 + check_below(c, 100)) << 23);
    case KIND_WILD: return bits_f32((uint32_t)check_rand(c));
    default: return check_unit(c) * 8.0f;
    }
}

void check_fill_f32(struct check *c, float *x, size_t n, enum check_kind kind)
{
    for (size_t i = 0; i < n; i++)
        x[i] = one_f32(c, i, kind);
}

void check_fill_f16(struct check *c, uint16_t *x, size_t n, enum check_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t sign = (uint16_t)(check_rand(c) & 0x8000u);
        switch (kind) {
        case KIND_ZERO: x[i] = 0; break;
        case KIND_MAX: x[i] = 0x7bff; break;
        case KIND_MIN: x[i] = 0xfbff; break;
        case KIND_SWING: x[i] = i % 2 ? 0xfbff : 0x7bff; break;
        case KIND_TINY: x[i] = (uint16_t)(sign | check_below(c, 0x402)); break;
        case KIND_LARGE: x[i] = (uint16_t)(sign | check_below(c, 0x7c00)); break;
        case KIND_WILD: x[i] = (uint16_t)check_rand(c); break;
        default: x[i] = (uint16_t)(sign | (0x3000 + check_below(c, 0x1400))); break;
        }
    }
}

void check_fill_q(struct check *c, int8_t *q, size_t n, enum check_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        switch (kind) {
        case KIND_ZERO: q[i] = 0; break;
        case KIND_MAX: q[i] = 127; break;
        case KIND_MIN: q[i] = -127; break;
        case KIND_SWING: q[i] = i % 2 ? -127 : 127; break;
        default: q[i] = (int8_t)((int)check_below(c, 255) - 127); break;
        }
    }
}

/* -- memory ---------------------------------------------------------------------------------------------- */

#define CANARY       64
#define CANARY_BYTE  0xc5
#define PATTERN_BYTE 0xa5

static struct slot {
    uint8_t *base; /* the mapping: `room` bytes, then one unreadable page */
    size_t room;
    uint8_t *out; /* the last output handed out */
    size_t bytes;
} slots[CHECK_SLOTS];

static uint8_t *guarded(size_t slot, size_t bytes)
{
    struct slot *s = &slots[slot];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page) / page * page;
    if (room > s->room) {
        if (s->base)
            munmap(s->base, s->room + page);
        void *p = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect((uint8_t *)p + room, page, PROT_NONE) != 0) {
            perror("check: no memory for a guarded buffer");
            exit(2);
        }
        s->base = p;
        s->room = room;
    }
    return s->base + s->room - bytes;
}

void *check_in(size_t slot, size_t bytes)
{
    return guarded(slot, bytes);
}

void *check_out(size_t slot, size_t bytes)
{
    uint8_t *p = guarded(slot, bytes + 2 * CANARY);
    memset(p, CANARY_BYTE, bytes + 2 * CANARY);
    memset(p + CANARY, PATTERN_BYTE, bytes);
    slots[slot].out = p + CANARY;
    slots[slot].bytes = bytes;
    return p + CANARY;
}

/* -- verdicts -------------------------------------------------------------------------------------------- */

void check_case(struct check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->where, sizeof c->where, format, args);
    va_end(args);
}

static bool show(struct check *c)
{
    return c->failures++ < SHOWN;
}

void check_canary(struct check *c, size_t slot)
{
    const struct slot *s = &slots[slot];
    for (size_t i = 0; i < CANARY; i++) {
        if (s->out[i - CANARY] == CANARY_BYTE && s->out[s->bytes + i] == CANARY_BYTE)
            continue;
        if (show(c))
            printf("    %s %s: writes outside its output\n", c->op, c->where);
        return;
    }
}

void check_same_f32(struct check *c, const char *what, const float *ref, const float *new, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy(&a, ref + i, sizeof a);
        memcpy(&b, new + i, sizeof b);
        if (a == b || ((a & 0x7fffffffu) > 0x7f800000u && (b & 0x7fffffffu) > 0x7f800000u))
            continue;
        if (show(c))
            printf("    %s %s: %s[%zu] is %a, reference %a\n", c->op, c->where, what, i, (double)new[i],
                   (double)ref[i]);
        return;
    }
}

void check_same_f16(struct check *c, const char *what, const uint16_t *ref, const uint16_t *new, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ref[i] == new[i] || ((ref[i] & 0x7fffu) > 0x7c00u && (new[i] & 0x7fffu) > 0x7c00u))
            continue;
        if (show(c))
            printf("    %s %s: %s[%zu] is 0x%04x, reference 0x%04x\n", c->op, c->where, what, i, new[i],
                   ref[i]);
        return;
    }
}

void check_same_bytes(struct check *c, const char *what, const void *ref, const void *new, size_t n)
{
    const uint8_t *a = ref, *b = new;
    for (size_t i = 0; i < n; i++) {
        if (a[i] == b[i])
            continue;
        if (show(c))
            printf("    %s %s: byte %zu of %s is %u, reference %u\n", c->op, c->where, i, what, b[i], a[i]);
        return;
    }
}

/* -- the clock: this thread's own time, so that neighbours on the machine count little ------------------- */

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Readings of about 10 ms; the best of eleven is what the machine can do undisturbed. */
void check_measure(struct check *c, const char *shape, size_t bytes, void (*call)(void *arg), void *arg)
{
    double begin = now_ns();
    call(arg);
    double once = now_ns() - begin, best = 0;
    size_t calls = once > 1e7 ? 1 : (size_t)(1e7 / (once + 1)) + 1;
    for (int reading = 0; reading < 11; reading++) {
        begin = now_ns();
        for (size_t i = 0; i < calls; i++)
            call(arg);
        double ns = (now_ns() - begin) / (double)calls;
        best = reading == 0 || ns < best ? ns : best;
    }
    printf("%-6s,%-14s,%-24s,%12.0f ns,%8.2f GB/s\n", tern_cpu_name(c->new.level), c->op, shape, best,
           (double)bytes / best);
}
