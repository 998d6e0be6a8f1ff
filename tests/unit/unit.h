/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every cmocka program here includes: cmocka wants these headers in front of it.
 */
#ifndef TERN_TESTS_UNIT_UNIT_H
#define TERN_TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/base/status.h"

/* Fails with the error's own sentence. */
#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        struct tern_err *e_ = &unit_err;                                                                     \
        enum tern_status st_ = (call);                                                                       \
        if (st_ != TERN_OK)                                                                                  \
            fail_msg("%s: %s: %s", #call, tern_status_name(st_), e_->text);                                  \
    } while (0)

/* What main returns when nothing could be tested at all; ctest then counts the program as skipped. */
#define UNIT_SKIPPED 77

/* Every test file passes &unit_err where an error is wanted. */
static struct tern_err unit_err __attribute__((unused));

/* xorshift64: the same inputs in every run. */
static inline uint64_t unit_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

#endif
