/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sample of every message, for golden bytes (tests/golden/wire/NAME.hex), unit tests and fuzz seeds.
 */
#ifndef TERN_TESTS_GOLDEN_WIRE_SAMPLES_H
#define TERN_TESTS_GOLDEN_WIRE_SAMPLES_H

#include "proto/wire.h"

struct wire_sample {
    const char *name;
    const char *comment;
    const Tern__Header *header;
};

/* Static data; *n gets how many. */
const struct wire_sample *wire_samples(size_t *n);

#endif
