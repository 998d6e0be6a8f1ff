/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from a publisher's folder: parsed with limits, asked for with sentences.
 *
 * All numbers are read as doubles, because tokenizer_config.json usually holds a "model_max_length" that no
 * integer type can; whole numbers up to 2^53 are exact in them.  Two members of one name are refused.
 */
#ifndef TERN_ENGINE_HF_JSON_H
#define TERN_ENGINE_HF_JSON_H

#include "engine/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The root must be an object.  name: what sentences call it.  The caller frees with json_decref. */
enum tern_status tern_hf_json_parse(const char *name, const void *bytes, size_t n, json_t **out,
                                    struct tern_err *err) TERN_MUST_CHECK;

/* Maps folder/file, which has at most TERN_MAX_HF_JSON bytes, and parses it.  TERN_END when there is no such
 * file (nothing is filled in err).  The root is an object, or an array for the second. */
enum tern_status tern_hf_json_read(const char *folder, const char *file, json_t **out,
                                   struct tern_err *err) TERN_MUST_CHECK;

enum tern_status tern_hf_json_read_array(const char *folder, const char *file, json_t **out,
                                         struct tern_err *err) TERN_MUST_CHECK;

/* "folder/file", to be freed; NULL without memory. */
char *tern_hf_path(const char *folder, const char *file);

/* A whole number from 0 to max. */
bool tern_hf_json_whole(const json_t *value, uint64_t max, uint64_t *out);

/* A member that is absent and one that is null say the same: NULL. */
const json_t *tern_hf_json_get(const json_t *object, const char *key);

/* True when the member is there and true. */
bool tern_hf_json_is_true(const json_t *object, const char *key);

/* NULL when the member is absent or no string. */
const char *tern_hf_json_text(const json_t *object, const char *key);

#endif
