/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the time of the layers goes: decode steps and prompt steps on a stage of its own, without a head, and
 * what each call of the pool takes.
 *
 *   lab_walk FILE THREADS PROMPT DECODE [SEQUENCES [CHUNK [LEVEL]]]
 *
 * The linker hands calls of tern_pool_run to the clock below.  Passes are told apart by their function and
 * their range, in the order in which they are first seen.
 */
#include "engine/base/log.h"
#include "worker/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PASSES 64

static struct pass_time {
    tern_pool_fn *fn;
    size_t n;
    uint64_t ns, calls;
} passes[MAX_PASSES];
static size_t n_passes;

void __real_tern_pool_run(struct tern_pool *pool, tern_pool_fn *fn, void *arg, size_t n, size_t grain);
void __wrap_tern_pool_run(struct tern_pool *pool, tern_pool_fn *fn, void *arg, size_t n, size_t grain);

void __wrap_tern_pool_run(struct tern_pool *pool, tern_pool_fn *fn, void *arg, size_t n, size_t grain)
{
    uint64_t t0 = tern_now_ns();
    size_t i = 0;

    __real_tern_pool_run(pool, fn, arg, n, grain);
    while (i < n_passes && !(passes[i].fn == fn && passes[i].n == n))
        i++;
    if (i == n_passes && n_passes < MAX_PASSES)
        passes[n_passes++] = (struct pass_time){ fn, n, 0, 0 };
    if (i < n_passes) {
        passes[i].ns += tern_now_ns() - t0;
        passes[i].calls++;
    }
}

struct walk {
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_stage *stage;
    struct tern_step *step;
    uint64_t next;
    uint32_t seed;
};

static void check(enum tern_status st, const struct tern_err *err)
{
    if (st == TERN_OK)
        return;
    fprintf(stderr, "lab_walk: %s\n", err->text);
    exit(1);
}

static void add_rows(struct walk *w, uint32_t slot, uint32_t pos, uint32_t n)
{
    float *x = malloc(w->arch.n_embd * sizeof *x);
    struct tern_step *s = w->step;

    for (uint32_t i = 0; x && i < n; i++) {
        for (uint32_t j = 0; j < w->arch.n_embd; j++) {
            w->seed = w->seed * 1664525u + 1013904223u;
            x[j] = (float)(int32_t)w->seed / 2147483648.0f;
        }
        tern_boundary_encode(TERN_BOUNDARY_DEFAULT, &w->kern, x, w->arch.n_embd,
                             s->payload + (size_t)(s->n_rows + i) * s->row_bytes);
    }
    free(x);
    if (pos == 0)
        s->ops[s->n_ops++] = (struct tern_slot_op){ .kind = TERN_OP_OPEN, .slot = slot, .gen = 1 };
    s->runs[s->n_runs++] = (struct tern_run){ slot, 1, pos, n, 1 };
    s->n_rows += n;
}

static void begin(struct walk *w)
{
    tern_step_clear(w->step);
    w->step->step = w->next++;
}

/* Seconds. */
static double run(struct walk *w)
{
    struct tern_err err;
    uint64_t t0 = tern_now_ns();

    check(tern_stage_run(w->stage, w->step, &err), &err);
    if (w->step->n_failed) {
        fprintf(stderr, "lab_walk: a row is not finite\n");
        exit(1);
    }
    return 1e-9 * (double)(tern_now_ns() - t0);
}

static void report(const char *what, double tokens, double s)
{
    printf("%s: %.2f tokens/s, %.3f ms a token\n", what, tokens / s, 1e3 * s / tokens);
    for (size_t i = 0; i < n_passes; i++)
        printf("  pass %2zu  range %5zu  calls %6llu  us a call %9.2f  share %5.1f %%\n", i, passes[i].n,
               (unsigned long long)passes[i].calls, 1e-3 * (double)passes[i].ns / (double)passes[i].calls,
               1e-7 * (double)passes[i].ns / s);
    n_passes = 0;
    memset(passes, 0, sizeof passes);
}

int main(int argc, char **argv)
{
    uint32_t arg[5] = { 1, 512, 64, 1, 512 };
    struct walk w = { .next = 1, .seed = 1 };
    struct tern_model_options mo = { 0 };
    struct tern_stage_options so = { .boundary = TERN_BOUNDARY_DEFAULT, .is_last = true };
    enum tern_cpu_level level = tern_cpu_detect();
    struct tern_gguf *gguf;
    struct tern_pool *pool;
    struct tern_model *model;
    struct tern_err err;
    double s = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: lab_walk FILE THREADS PROMPT DECODE [SEQUENCES [CHUNK [LEVEL]]]\n");
        return 64;
    }
    for (int i = 2; i < argc && i < 7; i++)
        arg[i - 2] = (uint32_t)strtoul(argv[i], NULL, 10);
    if (argc > 7)
        for (level = 0; strcmp(tern_cpu_name(level), argv[7]) != 0;)
            level++;
    tern_cpu_set_float_mode();
    tern_kernels_init(&w.kern, level);
    check(tern_gguf_open(argv[1], &gguf, &err), &err);
    check(tern_arch_read(gguf, &w.arch, &err), &err);
    check(tern_pool_new(arg[0], &pool, &err), &err);
    mo.last = w.arch.n_layers;
    check(tern_model_load(gguf, &w.arch, &w.kern, pool, &mo, &model, &err), &err);
    so.max_rows = arg[4] < arg[3] ? arg[3] : arg[4];
    so.n_slots = arg[3] + 1;
    so.max_positions = arg[1] + arg[2] + 1;
    so.n_pages = so.n_slots * (so.max_positions / TERN_PAGE + 1);
    check(tern_stage_new(model, pool, &so, &w.stage, &err), &err);
    check(tern_step_new(so.max_rows, (uint32_t)tern_boundary_row_bytes(so.boundary, w.arch.n_embd), &w.step,
                        &err),
          &err);
    n_passes = 0;
    memset(passes, 0, sizeof passes);
    for (uint32_t at = 0, n; at < arg[1]; at += n) {
        n = arg[1] - at < arg[4] ? arg[1] - at : arg[4];
        begin(&w);
        add_rows(&w, 0, at, n);
        s += run(&w);
    }
    if (arg[1])
        report("prompt", arg[1], s);
    s = 0;
    for (uint32_t t = 0; t < arg[2]; t++) {
        begin(&w);
        for (uint32_t i = 0; i < arg[3]; i++)
            add_rows(&w, i + 1, t, 1);
        s += run(&w);
    }
    if (arg[2])
        report("decode", (double)arg[2] * arg[3], s);
    tern_stage_free(&w.stage);
    tern_step_free(&w.step);
    tern_model_free(&model);
    tern_pool_free(&pool);
    tern_gguf_close(&gguf);
    return 0;
}
