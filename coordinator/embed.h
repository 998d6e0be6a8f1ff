/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One text on its way to a vector: a sequence that wants hidden rows, and what becomes of them.
 *
 * Rows are those behind the output norm.  LAST is that of the last token (of the EOS, where the tokenizer
 * appends one), CLS that of the first, MEAN the sum over all in order of positions, in double, divided by
 * their number and rounded to float; NONE keeps each row by itself.  Normalised means divided by the square
 * root of the sum of squares, both in double and in order, then rounded; a row of zeros stays.  So the bits
 * depend on the rows alone, and these on nothing but text, model and --wire.
 *
 * Thread: the scheduler's.  No allocation between embed_init and embed_fini.
 */
#ifndef TERN_COORDINATOR_EMBED_H
#define TERN_COORDINATOR_EMBED_H

#include "coordinator/seq.h"
#include "engine/arch.h"
#include "kernels/kernels.h"

struct embed {
    struct seq seq; /* sched_add takes it; SEQ_ENDED: out is there, or it failed */
    const struct tern_kernels *kern;
    enum tern_pooling pooling;
    bool normalize;
    uint32_t n_embd;
    uint32_t n_rows; /* of out: 1, or one for each token with TERN_POOL_NONE */
    float *out;      /* [n_rows][n_embd] */
    double *sum;     /* [n_embd], MEAN only */
};

/* "none", "mean", "cls", "last". */
const char *embed_pooling_name(enum tern_pooling pooling);
bool embed_pooling_by_name(const char *name, enum tern_pooling *pooling);

/* e is zeroed or finished.  Copies ids [n], n at least 1; kern is borrowed. */
enum tern_status embed_init(struct embed *e, const int32_t *ids, uint32_t n, uint32_t n_embd,
                            enum tern_pooling pooling, bool normalize, const struct tern_kernels *kern,
                            struct tern_err *err) TERN_MUST_CHECK;
/* Not while a scheduler holds it. */
void embed_fini(struct embed *e);

#endif
