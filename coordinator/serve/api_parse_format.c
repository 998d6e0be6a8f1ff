/* SPDX-License-Identifier: Apache-2.0 */
/* What an answer has to look like: response_format, json_schema, grammar: see api_request.h. */
#include "coordinator/serve/api_request.h"

#include "coordinator/grammar.h"

#include <stdio.h>
#include <string.h>

/* What there may be one of. */
struct wish {
    const json_t *schema; /* or NULL */
    bool any_object;      /* json_object without a schema */
    struct tern_str text; /* GBNF */
    const char *field;    /* that said so */
};

static enum tern_status one_only(struct wish *w, const char *field, struct api_fault *f)
{
    if (w->field)
        return API_REFUSE(f, field, "'%s' and '%s' exclude each other; send one of them.", w->field, field);
    w->field = field;
    return TERN_OK;
}

/* {"type": "json_schema", "json_schema": {"schema": {...}}}; the schema also beside the type, as llama-server
 * takes it. */
static enum tern_status parse_schema_format(const json_t *format, struct wish *w, struct api_fault *f)
{
    const json_t *wrapper = api_field(format, "json_schema"), *schema;

    if (wrapper && !json_is_object(wrapper))
        return API_REFUSE(f, "response_format.json_schema",
                          "'response_format.json_schema' must be an object, and is %s.",
                          api_type_name(wrapper));
    schema = wrapper ? api_field(wrapper, "schema") : api_field(format, "schema");
    if (!schema)
        return api_fault_set(f, TERN_ERR_USAGE, "missing_required_parameter",
                             "response_format.json_schema.schema",
                             "'response_format.json_schema.schema' is missing.");
    w->schema = schema;
    return one_only(w, "response_format", f);
}

static enum tern_status parse_response_format(const json_t *body, struct wish *w, struct api_fault *f)
{
    const json_t *format = NULL;
    struct tern_str type = { NULL, 0 };
    enum tern_status st = api_get_object(body, "response_format", &format, f);

    if (st || !format)
        return st;
    if ((st = api_get_string(format, "type", &type, f))) {
        (void)strcpy(f->param, "response_format.type");
        return st;
    }
    if (!type.ptr || tern_str_is(type, "text"))
        return TERN_OK;
    if (tern_str_is(type, "json_schema"))
        return parse_schema_format(format, w, f);
    if (!tern_str_is(type, "json_object"))
        return API_REFUSE(f, "response_format.type",
                          "'response_format.type' is '%.*s': there are text, json_object and json_schema.",
                          TERN_STR_ARGS(type));
    w->schema = api_field(format, "schema");
    w->any_object = !w->schema;
    return one_only(w, "response_format", f);
}

static enum tern_status parse_wish(const json_t *body, struct wish *w, struct api_fault *f)
{
    const json_t *schema = api_field(body, "json_schema");
    enum tern_status st;

    if ((st = parse_response_format(body, w, f)))
        return st;
    if (schema) {
        if ((st = one_only(w, "json_schema", f)))
            return st;
        w->schema = schema;
    }
    if ((st = api_get_string(body, "grammar", &w->text, f)))
        return st;
    return w->text.len ? one_only(w, "grammar", f) : TERN_OK;
}

enum tern_status api_parse_format(const json_t *body, struct api_request *r, struct api_fault *f)
{
    struct wish w = { 0 };
    struct grammar *g = NULL;
    enum tern_status st = parse_wish(body, &w, f);

    if (st || !w.field)
        return st;
    if (w.any_object)
        st = grammar_json_object(&g, &f->err);
    else if (w.schema)
        st = grammar_schema(w.schema, &g, &f->err);
    else
        st = grammar_parse(w.text.ptr, w.text.len, &g, &f->err);
    if (st)
        return api_fault_take(f, w.field);
    r->grammar = g;
    return TERN_OK;
}
