/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON of a request: parsed within bounds, and asked for field by field with a sentence for each mistake.
 *
 * A field that is absent and one that is null say the same: the output keeps what it has, the default.
 */
#ifndef TERN_COORDINATOR_SERVE_API_BODY_H
#define TERN_COORDINATOR_SERVE_API_BODY_H

#include "coordinator/serve/api_fault.h"
#include "engine/base/cursor.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A tree takes more memory than its text: "[]," 60 times its size.  Deeper or with more parts than any
 * client sends is refused before anything is allocated. */
#define API_MAX_DEPTH      64
#define API_MAX_CONTAINERS 65536  /* objects and arrays: at most 15 MB of them */
#define API_MAX_VALUES     524288 /* of all kinds: at most 70 MB of them; a prompt of as many token ids */

/* body [n], NUL behind it.  The root is an object; freed with json_decref.  Invalid UTF-8 and two fields of
 * one name are refused. */
enum tern_status api_body_parse(const char *body, size_t n, json_t **out,
                                struct api_fault *f) TERN_MUST_CHECK;

/* Around the time in which a body of n bytes is a tree and its texts become ids: that takes up to 50 times a
 * large one's size, so they wait for each other.  end takes the same n. */
void api_body_begin(size_t n);
void api_body_end(size_t n);

/* NULL when absent or null. */
const json_t *api_field(const json_t *o, const char *key);
/* "a string", "an array", ...: for sentences. */
const char *api_type_name(const json_t *v);

enum tern_status api_get_bool(const json_t *o, const char *key, bool *out,
                              struct api_fault *f) TERN_MUST_CHECK;
enum tern_status api_get_number(const json_t *o, const char *key, double lo, double hi, double *out,
                                struct api_fault *f) TERN_MUST_CHECK;
/* Whole numbers, also written as 5.0. */
enum tern_status api_get_whole(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                               struct api_fault *f) TERN_MUST_CHECK;
/* Borrowed from the tree; may hold NULs. */
enum tern_status api_get_string(const json_t *o, const char *key, struct tern_str *out,
                                struct api_fault *f) TERN_MUST_CHECK;
enum tern_status api_get_object(const json_t *o, const char *key, const json_t **out,
                                struct api_fault *f) TERN_MUST_CHECK;
enum tern_status api_get_array(const json_t *o, const char *key, const json_t **out,
                               struct api_fault *f) TERN_MUST_CHECK;

/* A value that is a whole number in [lo, hi]. */
bool api_is_whole(const json_t *v, int64_t lo, int64_t hi, int64_t *out);

#endif
