/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split GGUF files: NAME-00001-of-00003.gguf and so on, each with its share of the tensors, the first with
 * the metadata.
 */
#ifndef TERN_ENGINE_GGUF_SPLIT_H
#define TERN_ENGINE_GGUF_SPLIT_H

#include "engine/gguf.h"

/*
 * If g, which was opened from path, is the first part of a split file, opens the others beside it and gives
 * g their tensors.  A file that is not split stays as it is; another part than the first, a part that is
 * missing or of another model, and counts that do not agree are refused with a sentence.  On failure g is as
 * it was.
 */
enum tern_status tern_split_join(const char *path, struct tern_gguf *g, struct tern_err *err) TERN_MUST_CHECK;

#endif
