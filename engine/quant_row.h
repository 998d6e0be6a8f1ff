/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of f32 to the types an embedding can have in a file: plain, sound quantisers without any search.
 */
#ifndef TERN_ENGINE_QUANT_ROW_H
#define TERN_ENGINE_QUANT_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* x: n elements, a multiple of the type's block; out: as many bytes as tern_gguf_tensor_bytes says.  False
 * for a type that is not one of enum tern_dtype. */
bool tern_quant_row(uint32_t type, const float *x, size_t n, void *out);

/* "f16", "Q4_K": ids by name, any case; false when unknown.  Ternary types too. */
bool tern_quant_type_by_name(const char *name, uint32_t *type);

#endif
