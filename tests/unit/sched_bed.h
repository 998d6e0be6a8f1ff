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

/* A scheduler over a pipeline of nothing whose stages are alike but for their luck; so says the rest. */
static inline struct sched *open_sched(struct fake *f, uint32_t n_stages, uint32_t in_flight,
                                       uint32_t max_rows, struct fake_stage each, struct sched_options so)
{
    struct sched *s = NULL;

    f->pipe = (struct pipe){ .n_stages = n_stages,
                             .max_in_flight = in_flight,
                             .max_rows = max_rows,
                             .row_bytes = (uint32_t)tern_boundary_row_bytes(WIRE, env.arch.n_embd),
                             .remote = n_stages > 1,
                             .take = fake_take,
                             .give = fake_give,
                             .send = fake_send,
                             .recv = fake_recv,
                             .impl = f };
    for (uint32_t i = 0; i < n_stages; i++) {
        f->stages[i] = each;
        f->stages[i].rng = i + 1;
    }
    assert_ok(tern_kv_table_new(so.n_slots, so.n_pages, so.max_positions, &f->kv, &unit_err));
    for (uint32_t i = 0; i < in_flight; i++)
        assert_ok(tern_step_new(max_rows, f->pipe.row_bytes, &f->steps[i], &unit_err));
    so.pipe = &f->pipe;
    so.model = env.model;
    so.boundary = WIRE;
    so.now_us = fake_now_us;
    assert_ok(sched_new(&so, &s, &unit_err));
    return s;
}

static inline void close_sched(struct fake *f, struct sched **s)
{
    sched_free(s);
    for (uint32_t i = 0; i < f->pipe.max_in_flight; i++)
        tern_step_free(&f->steps[i]);
    tern_kv_table_free(&f->kv);
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
