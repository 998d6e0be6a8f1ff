/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from a publisher's folder: parsed with limits, asked for with sentences.
 *
 * All numbers are read as doubles, because tokenizer_config.json usually holds a "model_max_length" that no
 * integer type can; whole numbers up to 2^53 are exact in them.  Two members of one name are refused.
 *
 * A tree of small things takes far more memory than its text ("{}," takes 75 times its size).  What it will
 * take is estimated from above before anything is allocated, and text that would take more than
 * TERN_HF_JSON_TIMES times its size, or than TERN_MAX_HF_MEMORY, is refused.
 */
#ifndef TERN_ENGINE_HF_JSON_H
#define TERN_ENGINE_HF_JSON_H

#include "engine/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory for a text of n bytes: at most this times n, and TERN_HF_JSON_SMALL besides.  A tokenizer.json takes
 * 8 times its size, one without a blank that has its merges as arrays 25 times; headers of safetensors 15. */
#define TERN_HF_JSON_TIMES 32
#define TERN_HF_JSON_SMALL 65536

/* The root must be an object.  name: what sentences call it.  The caller frees with json_decref. */
enum tern_status tern_hf_json_parse(const char *name, const void *bytes, size_t n, json_t **out,
                                    struct tern_err *err) TERN_MUST_CHECK;

/* Parses folder/file, which has at most TERN_MAX_HF_JSON bytes.  TERN_END when there is no such
 * file (nothing is filled in err).  The root is an object, or an array for the second. */
enum tern_status tern_hf_json_read(const char *folder, const char *file, json_t **out,
                                   struct tern_err *err) TERN_MUST_CHECK;

enum tern_status tern_hf_json_read_array(const char *folder, const char *file, json_t **out,
                                         struct tern_err *err) TERN_MUST_CHECK;

/* A whole number from 0 to max. */
bool tern_hf_json_whole(const json_t *value, uint64_t max, uint64_t *out);

/* A member that is absent and one that is null say the same: NULL. */
const json_t *tern_hf_json_get(const json_t *object, const char *key);

/* True when the member is there and true. */
bool tern_hf_json_is_true(const json_t *object, const char *key);

/* NULL when the member is absent or no string. */
const char *tern_hf_json_text(const json_t *object, const char *key);

#endif
