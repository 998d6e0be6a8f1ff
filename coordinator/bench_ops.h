/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops of the kernel table as cases to measure: one call on the sizes of a real model, with its bytes and
 * multiply-adds.
 *
 * Cases "from memory" walk through a set of data far larger than the caches, call by call, as decoding does;
 * the others use the same data again and again.
 */
#ifndef TERN_COORDINATOR_BENCH_OPS_H
#define TERN_COORDINATOR_BENCH_OPS_H

#include "engine/synthetic.h"
#include "kernels/kernels.h"

struct bench_work; /* data that all cases share */

struct bench_case {
    char op[32], shape[48];
    bool product;       /* of int8: the peak is a limit */
    bool memory;        /* the data come from memory, else from the caches */
    double bytes, macs; /* of one call; 0: says nothing */
    double whole;       /* how many calls make what `shape` says */
    void (*call)(struct bench_work *w);
};

enum tern_status bench_work_new(struct bench_work **out, struct tern_err *err) TERN_MUST_CHECK;
void bench_work_free(struct bench_work **w);

/* Sets case i of shape s up for the level of kern; false behind the last. */
bool bench_work_case(struct bench_work *w, const struct tern_kernels *kern, const struct tern_synthetic *s,
                     uint32_t i, struct bench_case *out);

#endif
