/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tern bench --kernels`: every op of the kernel table, at every level that is asked for, alone.
 */
#ifndef TERN_COORDINATOR_BENCH_KERNELS_H
#define TERN_COORDINATOR_BENCH_KERNELS_H

#include "coordinator/bench.h"

/* Prints to stdout, in the format of o.  TERN_END: interrupted. */
enum tern_status bench_kernels(const struct bench_options *o, struct tern_err *err) TERN_MUST_CHECK;

#endif
