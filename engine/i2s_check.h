/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the three layouts of I2_S a file was probably written in, told by what training leaves behind.
 *
 * Nothing in a file names its layout, every code is legal in all three, and the wrong one gives a matrix of
 * the same shares of -1, 0 and +1.  But A and B differ by an order of the columns of each 128, and C puts
 * quarters of four rows into one row; and in a trained model the shares of zeros of rows and columns mean
 * something: neuron j of an FFN is row j of gate and up and column j of down and element j of ffn_sub_norm;
 * channel i of the residual stream is a column of q, k, v, gate and up, a row of o and down, an element
 * of two norms.  In the right layout such pairs of statistics are correlated, in the others the correlation
 * is (mostly) gone.
 *
 * For each pair of statistics of n elements with correlation r, n r^2 is about chi-square of one degree when
 * there is none; `evidence` is the sum over pairs.  Layouts are compared by it.  Weights without such
 * structure (random ones) give all layouts the same evidence but for chance, and no answer.
 */
#ifndef TERN_ENGINE_I2S_CHECK_H
#define TERN_ENGINE_I2S_CHECK_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/pool.h"
#include "kernels/pack.h"

struct tern_i2s_check {
    size_t pairs;       /* 0: nothing in I2_S to look at */
    double evidence[3]; /* enum tern_i2s_layout; -1 for a layout the shapes do not allow */
    enum tern_i2s_layout likely;
    bool sure; /* `likely` has far more evidence than the others */
};

/* Looks at some layers, all of a small model. */
enum tern_status tern_i2s_check(const struct tern_gguf *g, const struct tern_arch *arch,
                                struct tern_pool *pool, struct tern_i2s_check *out,
                                struct tern_err *err) TERN_MUST_CHECK;

#endif
