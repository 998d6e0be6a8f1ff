/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena that tests of the wire unpack into, as cmocka's fixtures, and cmocka with what it wants.
 */
#ifndef TERN_TESTS_UNIT_WIRE_ARENA_H
#define TERN_TESTS_UNIT_WIRE_ARENA_H

#include "proto/wire.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static struct tern_arena arena;

static int setup(void **state)
{
    struct tern_err err;

    (void)state;
    return (int)tern_arena_init(&arena, TERN_WIRE_ARENA_BYTES, "a test", &err);
}

static int teardown(void **state)
{
    (void)state;
    tern_arena_fini(&arena);
    return 0;
}

#endif
