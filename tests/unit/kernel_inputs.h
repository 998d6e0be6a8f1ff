/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inputs for the unit tests of kernels/: the same numbers in every run, and cmocka with what it wants.
 */
#ifndef TERN_TESTS_UNIT_KERNEL_INPUTS_H
#define TERN_TESTS_UNIT_KERNEL_INPUTS_H

#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static inline uint64_t rnd(void)
{
    static uint64_t state = 20240229;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 20;
}

/* -1 .. 1 */
static inline float unit(void)
{
    return (float)((double)(rnd() % 2000001) / 1e6 - 1.0);
}

/* f as little-endian f16 bytes. */
static inline void put_f16(uint8_t *p, float f)
{
    struct tern_kernels k;
    uint16_t h;

    tern_kernels_init(&k, TERN_CPU_REF);
    k.f32_to_f16(&f, 1, &h);
    memcpy(p, &h, sizeof h);
}

#endif
