/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON schemas from anywhere.  What must hold: whatever is not refused is a grammar, or too large for one;
 * and the same schema gives the same text.
 */
#include "fuzz/fuzz.h"

#include "coordinator/grammar.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *schema = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    char *text, *again;
    const struct grammar *held;
    struct grammar *g;
    struct tern_err err;
    enum tern_status st;

    if (!schema)
        return 0;
    st = grammar_schema_text(schema, &text, &err);
    if (st) {
        FUZZ_CHECK(strstr(err.text, "JSON schema: ") == err.text);
    } else {
        st = grammar_parse(text, strlen(text), &g, &err);
        if (st != TERN_OK && st != TERN_ERR_LIMIT &&
            !(st == TERN_ERR_UNSUPPORTED && strstr(err.text, "left recursion"))) {
            fprintf(stderr, "%s\n%s\n", err.text, text);
            FUZZ_CHECK(!"the grammar of a schema can be read");
        }
        if (!st) {
            held = g;
            grammar_drop(&held);
        }
        FUZZ_CHECK(grammar_schema_text(schema, &again, &err) == TERN_OK && strcmp(text, again) == 0);
        free(again);
        free(text);
    }
    json_decref(schema);
    return 0;
}
