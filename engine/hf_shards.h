/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All arrays of a folder: those of model.safetensors, or of the files that model.safetensors.index.json
 * names, each of which must hold exactly the arrays the index says.
 */
#ifndef TERN_ENGINE_HF_SHARDS_H
#define TERN_ENGINE_HF_SHARDS_H

#include "engine/hf_safetensors.h"
#include "engine/mapping.h"

#include <stdbool.h>

struct tern_hf_shards {
    struct tern_mapping *maps;      /* [n_maps] */
    struct tern_safetensors *files; /* [n_maps]; their names are borrowed by the arrays */
    size_t n_maps;
    struct tern_hf_array *arrays; /* [n] of all files, sorted by name; names are unique */
    size_t n;
};

enum tern_status tern_hf_shards_open(const char *folder, struct tern_hf_shards *out,
                                     struct tern_err *err) TERN_MUST_CHECK;

/* The caller has taken maps. */
void tern_hf_shards_give_maps(struct tern_hf_shards *s);

/* Unmaps what is still in maps; also of a zeroed struct. */
void tern_hf_shards_close(struct tern_hf_shards *s);

/* NULL when absent. */
const struct tern_hf_array *tern_hf_shards_find(const struct tern_hf_shards *s, const char *name);

/* True when a shard may be called so: a file of the folder itself. */
bool tern_hf_is_plain_name(const char *name);

#endif
