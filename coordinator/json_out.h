/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands share when they print JSON.
 */
#ifndef TERN_COORDINATOR_JSON_OUT_H
#define TERN_COORDINATOR_JSON_OUT_H

#include "engine/base/cursor.h"
#include "engine/base/status.h"

#include <jansson.h>

/* Bytes of a model or a token as a string; what is no UTF-8 becomes U+FFFD.  NULL: no memory. */
json_t *json_out_text(struct tern_str s);
/* JSON has no infinity and no NaN: those are null. */
json_t *json_out_number(double v);
/* Takes *root, prints it to stdout with numbers of `digits` digits and a newline.  *root NULL: no memory. */
enum tern_status json_out_print(json_t **root, unsigned digits, struct tern_err *err) TERN_MUST_CHECK;

#endif
