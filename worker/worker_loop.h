/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop thread of ternd, which feeds the state machine from the sockets, and lends both to an idle compute
 * thread.
 */
#ifndef TERN_WORKER_WORKER_LOOP_H
#define TERN_WORKER_WORKER_LOOP_H

#include "engine/pool.h"
#include "proto/keys.h"
#include "worker/worker_config.h"
#include "worker/worker_file.h"

struct worker_loop_options { /* all borrowed */
    const struct worker_config *config;
    const struct worker_file *file;
    const struct tern_kernels *kern;
    struct tern_pool *pool;
    enum tern_tile_layout layout; /* chosen for this pool */
    const struct tern_key *key;
    struct tern_allow *allow;
    int signal_fd; /* a signalfd: each signal read means drain */
    void (*on_listening)(void *arg, const char *endpoint);
    void (*on_draining)(void *arg);
    void *arg;
};

/* Binds, calls on_listening, and runs until drained, or until the lifeline ends. */
enum tern_status worker_loop_run(const struct worker_loop_options *o, struct tern_err *err) TERN_MUST_CHECK;

#endif
