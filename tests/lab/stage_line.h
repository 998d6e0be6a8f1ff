/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages on the model of this repository, run one after another without wires: for unit tests of the stage.
 * All functions fail the running cmocka test when something is wrong.
 */
#ifndef TERN_TESTS_LAB_STAGE_LINE_H
#define TERN_TESTS_LAB_STAGE_LINE_H

#include "unit/unit.h"

#include "engine/forward.h"
#include "worker/stage.h"

#include <stdbool.h>

#define MAX_LAYERS 16
#define MAX_ROWS   128
#define N_SLOTS    8
#define N_PAGES    24
#define CONTEXT    160

/* Every format a boundary can have. */
#define N_FORMATS 7
extern const enum tern_boundary formats[N_FORMATS];

/* What all tests share; loaded once. */
struct stage_lab {
    struct tern_gguf *gguf;
    struct tern_arch arch;
    struct tern_kernels kern;
    struct tern_pool *pool;
    struct tern_model *whole;              /* all layers, with the embedding, in 2 bits */
    struct tern_model *single[MAX_LAYERS]; /* one layer each, in either layout in turn */
};
extern struct stage_lab lab;

/* Group set-up and tear-down. */
int stage_lab_load(void **state);
int stage_lab_free(void **state);

/* -- a pipeline without wires ------------------------------------------------------------------ */

struct line {
    enum tern_boundary boundary;
    uint32_t n;
    struct tern_stage *stages[MAX_LAYERS];
    struct tern_step *step;
    uint64_t next;
};

/* Of the lines opened from now on. */
extern enum tern_kv_type line_kv;

/* cut: a stage for each layer; otherwise one for all. */
void line_open(struct line *l, enum tern_boundary b, bool cut);
void line_close(struct line *l);

/* A step: begin, operations and rows, run. */
void line_begin(struct line *l);
void line_op(struct line *l, uint32_t kind, uint32_t slot, uint32_t gen, uint32_t len);
/* Rows [pos, pos + n) of text number `text`, n_want of them wanted back. */
void line_rows(struct line *l, uint32_t slot, uint32_t gen, uint32_t text, uint32_t pos, uint32_t n,
               uint32_t n_want);
void line_run(struct line *l);

void assert_same_rows(const uint8_t *a, const uint8_t *b, size_t n);
/* NULL when the sequence is not among the failed ones. */
const struct tern_failed *failure_of(const struct tern_step *s, uint32_t slot, uint32_t gen);
/* A text in chunks, all rows wanted; returns them, the caller frees. */
uint8_t *rows_by_chunks(enum tern_boundary b, bool cut, uint32_t text, uint32_t n, uint32_t chunk);

#endif
