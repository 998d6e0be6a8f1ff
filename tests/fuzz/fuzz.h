/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every fuzz target defines: one run over one input.  libFuzzer calls it in the fuzz preset,
 * tests/fuzz/replay.c in all the others.
 *
 * A target checks properties with FUZZ_CHECK: a wrong answer must be as loud as a crash, in release builds
 * too.
 */
#ifndef TERN_TESTS_FUZZ_FUZZ_H
#define TERN_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                                     \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: property does not hold: %s\n", __FILE__, __LINE__, #cond);               \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
