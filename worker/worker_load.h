/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that checks and loads a slice, so that the loop thread keeps answering.
 *
 * It owns the model.  One job at a time: compare the coordinator's hashes with those of our own file
 * (computed once, then kept), then repack the layers, unless they are the ones already there.  A cancelled
 * job stops at the next of these points; the slice it has loaded by then stays for a later assignment.
 */
#ifndef TERN_WORKER_WORKER_LOAD_H
#define TERN_WORKER_WORKER_LOAD_H

#include "engine/model.h"
#include "engine/pool.h"
#include "worker/worker_plan.h"

#include <stdbool.h>
#include <stdint.h>

struct worker_loader;

struct worker_load_options { /* all borrowed */
    const struct worker_file *file;
    const struct tern_kernels *kern;
    struct tern_pool *pool;
    enum tern_tile_layout layout;
};

enum tern_status worker_loader_new(const struct worker_load_options *o, struct worker_loader **out,
                                   struct tern_err *err) TERN_MUST_CHECK;
/* Cancels and waits for the thread. */
void worker_loader_free(struct worker_loader **l);

/* Takes over p's list of hashes.  Only when not busy, and when nobody uses the model. */
void worker_loader_start(struct worker_loader *l, struct worker_plan *p);
bool worker_loader_busy(const struct worker_loader *l);
void worker_loader_cancel(struct worker_loader *l);
/* Readable when a job has ended. */
int worker_loader_fd(const struct worker_loader *l);
/* TERN_AGAIN while there is no result; then, once, TERN_OK, TERN_END (cancelled), or why it failed. */
enum tern_status worker_loader_result(struct worker_loader *l, struct tern_err *err) TERN_MUST_CHECK;
/* Bytes; of the part of the job at hand. */
void worker_loader_progress(const struct worker_loader *l, uint64_t *done, uint64_t *total);
/* The slice loaded last; NULL when there is none, or while busy. */
const struct tern_model *worker_loader_model(const struct worker_loader *l);
/* How many slices were really repacked since the start. */
uint64_t worker_loader_n_loads(const struct worker_loader *l);

#endif
