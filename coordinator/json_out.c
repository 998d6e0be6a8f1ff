/* SPDX-License-Identifier: Apache-2.0 */
/* JSON on stdout: see json_out.h. */
#include "coordinator/json_out.h"

#include "coordinator/commands.h"
#include "engine/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

json_t *json_out_text(struct tern_str s)
{
    struct tern_utf8 stream = { .n = 0 };
    char *buf = malloc(3 * (s.len + 8)); /* tern_utf8_feed's bound and tern_utf8_flush's */
    json_t *v = NULL;
    size_t n;

    if (buf) {
        n = tern_utf8_feed(&stream, s.ptr, s.len, buf);
        n += tern_utf8_flush(&stream, buf + n);
        v = json_stringn(buf, n);
    }
    free(buf);
    return v;
}

json_t *json_out_number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

enum tern_status json_out_print(json_t **root, unsigned digits, struct tern_err *err)
{
    if (!*root)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the JSON output");
    /* A stream that fails says so when it is flushed. */
    (void)json_dumpf(*root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(digits) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(*root);
    *root = NULL;
    return cmd_flush(err);
}
