/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata that a user knows better than the file: "KEY=TYPE:VALUE", as llama.cpp writes it.
 *
 * TYPE is int (a whole number of 64 bits), float, bool (true or false) or str.  The record takes the place of
 * the file's of that name, whatever its type was, or is added.  What was read while the file was parsed (its
 * alignment, the types of its tensors) stays as it is.
 */
#ifndef TERN_ENGINE_GGUF_OVERRIDE_H
#define TERN_ENGINE_GGUF_OVERRIDE_H

#include "engine/gguf.h"

/* Whether that is such a text; TERN_ERR_USAGE with a sentence when not. */
enum tern_status tern_override_check(const char *text, struct tern_err *err) TERN_MUST_CHECK;

/* Applies texts [n] in their order.  They are borrowed, and outlive g.  On failure some may have been
 * applied: g is to be closed. */
enum tern_status tern_override_apply(struct tern_gguf *g, const char *const *texts, uint32_t n,
                                     struct tern_err *err) TERN_MUST_CHECK;

#endif
