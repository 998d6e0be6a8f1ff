/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scales as they were before a type rounded them: TQ1_0, TQ2_0 and F16 hold the scale of a matrix in 11 bits,
 * and a model computes a little differently with it.
 *
 * `tern convert` therefore writes the scales of such files once more, under TERN_EXACT_SCALE_KEY: an array of
 * f32, one for each tensor in the order of the directory, 0 for those that have none.  Who does not know the
 * key reads the rounded ones.  It is believed only where it rounds to what the tensor says, so a note that
 * does not belong to its file does nothing.
 */
#ifndef TERN_ENGINE_EXACT_SCALE_H
#define TERN_ENGINE_EXACT_SCALE_H

#include "engine/gguf.h"

#define TERN_EXACT_SCALE_KEY "tern.tensors.scale"

/* The scale of a matrix in which `found` was found.  Any thread. */
float tern_exact_scale(const struct tern_gguf *g, const struct tern_tensor *t, float found);

/* What is noted for a tensor of one of these types, or 0: it is part of how the tensor is read. */
float tern_exact_scale_noted(const struct tern_gguf *g, const struct tern_tensor *t);

/* Types that round a scale. */
bool tern_exact_scale_type(uint32_t type);

#endif
