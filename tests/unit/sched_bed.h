/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the scheduler share: the embedding and the head of a small model, and what follows from one
 * token when no layer runs between them.
 */
#ifndef TERN_TESTS_UNIT_SCHED_BED_H
#define TERN_TESTS_UNIT_SCHED_BED_H

#include "unit/fake_pipe.h"
#include "unit/unit.h"

#include "coordinator/logprobs.h"
#include "coordinator/sched.h"
#include "engine/forward.h"

#include <stdlib.h>
#include <string.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"
#define WIRE  TERN_BOUNDARY_INT8

static struct {
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_model *model;
    struct tern_head *head;
    float *logits;  /* [n_vocab] */
    int32_t *after; /* [n_vocab] the token that follows each, -1: not computed yet */
} env;

/* embed, round, head: what the pipeline of nothing gives. */
static inline int32_t token_after(int32_t id)
{
    static uint8_t row[8192];
    float x[1024];
    struct logprob best;

    assert_true(env.arch.n_embd <= 1024);
    if (env.after[id] < 0) {
        tern_forward_embed(env.model, &id, 1, x);
        tern_boundary_encode(WIRE, &env.kern, x, env.arch.n_embd, row);
        assert_true(tern_boundary_decode(WIRE, &env.kern, row, env.arch.n_embd, x));
        tern_forward_head(env.model, env.pool, x, 1, env.logits);
        logprobs_top(env.logits, env.arch.n_vocab, 0, 1, &best);
        env.after[id] = best.id;
    }
    return env.after[id];
}

static inline int set_up(void **state)
{
    struct tern_model_options mo = { .with_embd = true };

    (void)state;
    tern_cpu_set_float_mode();
    tern_kernels_init(&env.kern, tern_cpu_detect());
    if (tern_gguf_open(MODEL, &env.gguf, &unit_err) || tern_arch_read(env.gguf, &env.arch, &unit_err) ||
        tern_pool_new(2, &env.pool, &unit_err) ||
        tern_model_load(env.gguf, &env.arch, &env.kern, env.pool, &mo, &env.model, &unit_err) ||
        tern_head_new(env.model, env.pool, TERN_HEAD_AUTO, SCHED_HEAD_ROWS, &env.head, &unit_err)) {
        print_error("%s\n", unit_err.text);
        return -1;
    }
    env.after = malloc(env.arch.n_vocab * sizeof *env.after);
    env.logits = malloc(env.arch.n_vocab * sizeof *env.logits);
    if (!env.after || !env.logits)
        return -1;
    memset(env.after, 0xff, env.arch.n_vocab * sizeof *env.after);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    free(env.after);
    free(env.logits);
    tern_head_free(&env.head);
    tern_model_free(&env.model);
    tern_pool_free(&env.pool);
    tern_gguf_close(&env.gguf);
    return 0;
}

#endif
