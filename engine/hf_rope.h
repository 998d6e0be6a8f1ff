/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RoPE and windows of attention in config.json, which name them in three ways: rope_theta with rope_scaling,
 * rope_parameters, and rope_parameters for each kind of layer.
 */
#ifndef TERN_ENGINE_HF_ROPE_H
#define TERN_ENGINE_HF_ROPE_H

#include "engine/hf_config.h"

#include <jansson.h>

/* Fills rope_theta, rope and swa of c, whose family and n_layers are known.  Scaling other than none, factor
 * 1 and Llama-3.1's is refused, and so is the last where only some layers would have it. */
enum tern_status tern_hf_read_rope(const char *file, const json_t *config, struct tern_hf_config *c,
                                   struct tern_err *err) TERN_MUST_CHECK;

/* The divisor of the frequency of each pair, which GGUF calls rope_freqs.weight; out [head_dim / 2]. */
void tern_hf_rope_factors(const struct tern_hf_config *c, float *out);

#endif
