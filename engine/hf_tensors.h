/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the arrays of a folder to the tensors a GGUF of the model would have: names, order of dimensions, and
 * the view that says how their bytes become weights (gguf.h).
 */
#ifndef TERN_ENGINE_HF_TENSORS_H
#define TERN_ENGINE_HF_TENSORS_H

#include "engine/gguf.h"
#include "engine/hf_config.h"
#include "engine/hf_shards.h"

struct tern_hf_tensors {
    struct tern_tensor *tensors; /* [n], and room for one more; name.ptr is NULL, name.len is set */
    char *names;                 /* of all tensors in their order, one behind another, unterminated */
    size_t names_bytes;
    size_t n;
    uint32_t matrix_type; /* of the ternary matrices (of the first one) */
    bool has_input_norms; /* a variant of the family that BitNet has made; its floats are master weights */
};

/* name: what sentences call the folder. */
enum tern_status tern_hf_tensors_make(const char *name, const struct tern_hf_config *c,
                                      const struct tern_hf_shards *s, struct tern_hf_tensors *out,
                                      struct tern_err *err) TERN_MUST_CHECK;
void tern_hf_tensors_free(struct tern_hf_tensors *t);

#endif
