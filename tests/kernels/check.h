/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness that compares every instruction level with the scalar reference.
 *
 * A check runs one op of kernels.h on the same input at the reference and at the level under test and demands
 * equal bits.  Inputs come in kinds, since uniform noise never saturates anything.  Every buffer ends at an
 * unreadable page; outputs have canaries around them as well.  The generator starts afresh for every op, so a
 * failure replays alone.
 */
#ifndef TERN_TESTS_KERNELS_CHECK_H
#define TERN_TESTS_KERNELS_CHECK_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum check_kind {
    KIND_RANDOM, /* spread evenly around zero */
    KIND_ZERO,
    KIND_MAX, /* every element the same largest value */
    KIND_MIN,
    KIND_SWING, /* largest and smallest in turn */
    KIND_TINY,  /* down to subnormals, both signs of zero */
    KIND_LARGE, /* magnitudes from 1 to 1e30, so that sums and squares overflow */
    KIND_WILD,  /* any bit pattern, infinities and NaNs included */
    KIND_N
};
extern const char *const check_kind_names[KIND_N];

struct check {
    struct tern_kernels ref, new; /* what to compare */
    uint64_t rng;
    unsigned failures; /* of the op under test */
    bool bench;        /* measure instead of comparing */
    const char *op;    /* for messages */
    char where[160];   /* the case under test */
};

/* One op: how to compare it, how to measure it (may be NULL), and where its pointer lies in struct
 * tern_kernels. */
struct check_op {
    const char *name;
    void (*compare)(struct check *c);
    void (*measure)(struct check *c);
    size_t offset;
};
/* Lists that end with a NULL name. */
extern const struct check_op check_ternary_ops[], check_row_ops[], check_dot_ops[], check_probe_ops[],
    check_screen_ops[];

/* -- numbers --------------------------------------------------------------------------------------------- */

uint64_t check_rand(struct check *c);
/* 0 .. n - 1 */
size_t check_below(struct check *c, size_t n);
/* -1 .. 1 */
float check_unit(struct check *c);
void check_fill_f32(struct check *c, float *x, size_t n, enum check_kind kind);
/* The same kinds as halves. */
void check_fill_f16(struct check *c, uint16_t *x, size_t n, enum check_kind kind);
/* Activation codes -127..127: kinds RANDOM, ZERO, MAX, MIN, SWING; others count as RANDOM. */
void check_fill_q(struct check *c, int8_t *q, size_t n, enum check_kind kind);

/* -- memory ---------------------------------------------------------------------------------------------- */

/* Slots 0 .. CHECK_SLOTS - 1.  An input ends at an unreadable page and is valid until the slot is used again.
 * */
#define CHECK_SLOTS 12
void *check_in(size_t slot, size_t bytes);
/* An output filled with a pattern between two canaries, behind the second of which lies an unreadable page.
 * */
void *check_out(size_t slot, size_t bytes);

/* -- verdicts -------------------------------------------------------------------------------------------- */

/* Names the case, as printf does. */
__attribute__((format(printf, 2, 3))) void check_case(struct check *c, const char *format, ...);
/* The canaries of an output are whole. */
void check_canary(struct check *c, size_t slot);
/* Equal bits; two NaNs are equal whatever their bits. */
void check_same_f32(struct check *c, const char *what, const float *ref, const float *new, size_t n);
void check_same_f16(struct check *c, const char *what, const uint16_t *ref, const uint16_t *new, size_t n);
void check_same_bytes(struct check *c, const char *what, const void *ref, const void *new, size_t n);

/* Measures call(arg) and prints level, op, shape, ns and GB/s. */
void check_measure(struct check *c, const char *shape, size_t bytes, void (*call)(void *arg), void *arg);

#endif
