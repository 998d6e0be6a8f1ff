/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assignment as plain, checked data: which layers, which neighbours, and what the tensors must hash to.
 */
#ifndef TERN_WORKER_WORKER_PLAN_H
#define TERN_WORKER_WORKER_PLAN_H

#include "engine/boundary.h"
#include "engine/kv.h"
#include "proto/wire.h"
#include "worker/worker_file.h"

#include <stdbool.h>
#include <stdint.h>

/* What the coordinator says about one tensor of our file. */
struct worker_expect {
    bool said;
    uint8_t hash[TERN_HASH_BYTES];
};

struct worker_plan {
    uint32_t first, last; /* [first, last) */
    enum tern_boundary boundary;
    enum tern_kv_type kv;
    uint32_t n_pages, n_slots, max_positions, max_rows, stage, dead_after_ms;
    uint32_t row_bytes;
    uint32_t n_steps;   /* step buffers: all that may be in flight, and one that is coming in */
    size_t steps_bytes; /* of all of them; what no step has filled yet is not resident */
    bool is_last;
    uint8_t upstream_key[TERN_KEY_BYTES], next_key[TERN_KEY_BYTES];
    char next_endpoint[TERN_MAX_ENDPOINT_BYTES + 1];

    uint32_t n_tensors, n_said;
    struct worker_expect *expect; /* [file's tensors], in file order; owned */
};

/* What a worker brings to an assignment. */
struct worker_means {
    const struct worker_file *file;
    enum tern_tile_layout layout;
    unsigned threads;
    uint64_t memory_limit; /* 0: none */
};

/* Refuses with a sentence for the coordinator's user: another model, layers we lack, too little memory. */
enum tern_status worker_plan_read(const Tern__Assign *a, const struct worker_means *means,
                                  struct worker_plan *out, struct tern_err *err) TERN_MUST_CHECK;

/* Takes one Tensors message.  TERN_AGAIN until every tensor was spoken of. */
enum tern_status worker_plan_add(struct worker_plan *p, const Tern__Tensors *t,
                                 const struct worker_file *file, struct tern_err *err) TERN_MUST_CHECK;

void worker_plan_fini(struct worker_plan *p);

/* Step buffers an assignment can ask for. */
#define WORKER_MAX_STEPS (TERN_MAX_STEPS_IN_FLIGHT + 1)

#endif
