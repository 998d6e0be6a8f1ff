/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `--local N`: N ternd child processes on loopback with throw-away keys that never touch a disk.
 *
 * Keys and allow-lists are handed over in memory files; each child binds a free port and reports it through a
 * pipe.  A child dies with its coordinator, however that dies: by PR_SET_PDEATHSIG and, should that not reach
 * it, by the end of file on a pipe it watches.
 */
#ifndef TERN_COORDINATOR_LOCAL_WORKERS_H
#define TERN_COORDINATOR_LOCAL_WORKERS_H

#include "coordinator/cluster_spec.h"
#include "engine/base/status.h"
#include "engine/file_option.h"
#include "proto/keys.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct local_workers;

struct local_workers_options {
    uint32_t n;            /* processes */
    const uint32_t *split; /* [n] layer counts, or NULL: even */
    const char *model_path;
    unsigned threads;                     /* of each worker */
    const char *cpu;                      /* level name for the workers, or NULL: the best */
    const struct tern_file_options *file; /* or NULL: all defaults */
    const char *layout;                   /* of tiles: "2bit", "1.6bit", or NULL: each chooses */
    bool verbose;                         /* let the workers' logs through; else only warnings and errors */
};

/* Call from the thread that lives longest (main): the death signal is tied to the thread that forked.
 * *spec and *key are what pipe_remote_open wants. */
enum tern_status local_workers_start(const struct local_workers_options *o, struct local_workers **out,
                                     struct cluster_spec *spec, struct tern_key *key,
                                     struct tern_err *err) TERN_MUST_CHECK;
/* Process number of worker i (0-based), or 0 when it is not running. */
pid_t local_workers_pid(const struct local_workers *w, uint32_t i);
/* Asks them to end, waits briefly, then kills; reaps. */
void local_workers_stop(struct local_workers **w);

#endif
