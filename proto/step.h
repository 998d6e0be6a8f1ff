/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One trip through the pipeline, as plain data of fixed capacity: what a Step or Result message says, and its
 * payload.
 *
 * The same struct goes through the queue of an in-process stage and through a socket (wire.h), so both run
 * the same checks. The payload is opaque here: n_rows rows of row_bytes each.  Allocated once, reused for
 * every step.
 */
#ifndef TERN_PROTO_STEP_H
#define TERN_PROTO_STEP_H

#include "engine/base/limits.h"
#include "engine/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum tern_slot_op_kind { /* on the wire: never reused */
                         TERN_OP_OPEN = 1,
                         TERN_OP_FREE = 2,
                         TERN_OP_REWIND = 3,
                         TERN_OP_FORK = 4
};

enum tern_fail_code {                           /* on the wire: never reused */
                      TERN_FAILED_NUMERIC = 1,  /* a row is not finite */
                      TERN_FAILED_POSITION = 2, /* generation, position or length do not match */
                      TERN_FAILED_PAGES = 3     /* no page is left, or the sequence is too long */
};

struct tern_slot_op {
    uint32_t kind, slot, gen, len, from_slot, from_gen;
};

struct tern_run {
    uint32_t slot, gen, pos, n, n_want;
};

struct tern_failed {
    uint32_t slot, gen, code, where;
};

struct tern_stage_time {
    uint32_t compute_us, queue_us, bytes;
    /* When the last byte of the step had come in.  On the wire by the stage's own clock; as a pipe hands it
     * to the scheduler by the coordinator's, tern_now_ns() / 1000 (pipe.h).  0: not known. */
    uint64_t t_in_us;
};

struct tern_step {
    uint64_t step; /* number within the epoch, from 1 */
    uint32_t n_ops;
    struct tern_slot_op ops[TERN_MAX_STEP_OPS];
    uint32_t n_runs;
    struct tern_run runs[TERN_MAX_STEP_RUNS];
    uint32_t n_failed;
    struct tern_failed failed[TERN_MAX_STEP_RUNS + TERN_MAX_STEP_OPS];
    uint32_t n_times;
    struct tern_stage_time times[TERN_MAX_WORKERS];

    uint32_t
        n_rows; /* rows in the payload: all rows of the runs on the way, the wanted ones on the way home */
    uint32_t row_bytes;
    uint8_t *payload;   /* [n_rows][row_bytes] */
    size_t payload_cap; /* bytes allocated */

    /* Book-keeping of whoever holds it; never on the wire. */
    uint32_t rows_in;             /* rows received so far while parts are coming in */
    uint32_t parts_in, parts_out; /* messages received and sent */
    uint64_t t_in_ns;             /* when the last part came in */
    uint32_t bytes_in;            /* header and payload bytes received */
    uint32_t n_failed_in;         /* sequences that had failed before this stage */
    void *user;
};

/* With room for max_rows rows of row_bytes. */
enum tern_status tern_step_new(uint32_t max_rows, uint32_t row_bytes, struct tern_step **out,
                               struct tern_err *err) TERN_MUST_CHECK;
void tern_step_free(struct tern_step **s);
/* Empty again; buffers, row_bytes and capacity stay. */
void tern_step_clear(struct tern_step *s);

/* Notes a failed sequence once (by slot and generation).  It must be one of the step's own ops or runs. */
void tern_step_add_failed(struct tern_step *s, uint32_t slot, uint32_t gen, uint32_t code, uint32_t where);

/* Internal consistency that needs no context: op kinds, slot numbers below TERN_MAX_SLOTS, runs of 1..
 * rows that add up to n_rows, n_want <= n, no slot in two runs, counts within limits, failed sequences
 * once each and of this step. */
enum tern_status tern_step_check(const struct tern_step *s, struct tern_err *err) TERN_MUST_CHECK;
/* The part of it that holds on the way home too, where ops and runs no longer travel along: failed and
 * times. */
enum tern_status tern_step_check_result(const struct tern_step *s, struct tern_err *err) TERN_MUST_CHECK;

#endif
