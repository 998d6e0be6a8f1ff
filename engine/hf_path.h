/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What paths say of publishers' folders: which folder a path means, and what the model in it is called.
 */
#ifndef TERN_ENGINE_HF_PATH_H
#define TERN_ENGINE_HF_PATH_H

#include "engine/gguf.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * The folder that path means, to be freed: path itself, or, of one of the files that such folders have
 * (*.safetensors, *.json), the folder around it.  TERN_END when it is neither (nothing is filled in err); a
 * file without a config.json beside it is refused.
 */
enum tern_status tern_hf_find_folder(const char *path, char **out, struct tern_err *err) TERN_MUST_CHECK;

/* Fails when path is a file of weights that the model g, opened from the folder around it, does not use. */
enum tern_status tern_hf_check_file(const char *path, const struct tern_gguf *g,
                                    struct tern_err *err) TERN_MUST_CHECK;

/*
 * What the model in a folder is called: "org/name" in the cache of huggingface_hub, which has it as
 * models--org--name/snapshots/HASH; else the folder's own name.  With its organisation where the
 * configuration ("_name_or_path"; or NULL) has one and the same name: what else stands there is often the
 * model that this one was made from, or a path of its publisher's.
 */
void tern_hf_model_name(const char *folder, const char *name_or_path, char *out, size_t room);

#endif
