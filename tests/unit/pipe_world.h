/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a coordinator has of a model, shared by all tests of pipes in one process.
 */
#ifndef TERN_TESTS_UNIT_PIPE_WORLD_H
#define TERN_TESTS_UNIT_PIPE_WORLD_H

#include "unit/unit.h"

#include "coordinator/pipe.h"
#include "engine/base/log.h"

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

static struct {
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
} world;

/* Below `level` nothing is logged: when a pipe breaks, its link thread's own words are not what is tested. */
static inline void world_begin(enum tern_log_level level, enum tern_cpu_level cpu, unsigned n_threads)
{
    tern_log_set_level(level);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_gguf_open(MODEL, &world.gguf, &unit_err));
    assert_ok(tern_arch_read(world.gguf, &world.arch, &unit_err));
    tern_kernels_init(&world.kern, cpu);
    assert_ok(tern_pool_new(n_threads, &world.pool, &unit_err));
}

static inline int close_world(void **state)
{
    (void)state;
    tern_pool_free(&world.pool);
    tern_gguf_close(&world.gguf);
    return 0;
}

#endif
