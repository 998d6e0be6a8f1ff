/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of a request's JSON: see api_body.h. */
#include "coordinator/serve/api_body.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#define LARGE ((size_t)64 << 10)

static pthread_mutex_t large = PTHREAD_MUTEX_INITIALIZER;

void api_body_begin(size_t n)
{
    if (n > LARGE)
        pthread_mutex_lock(&large);
}

void api_body_end(size_t n)
{
    if (n > LARGE)
        pthread_mutex_unlock(&large);
}

/* What the parser will have to build, from above: brackets, and commas and colons outside of strings. */
static enum tern_status check_size(const char *body, size_t n, struct api_fault *f)
{
    size_t containers = 0, values = 0, depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        char c = body[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        containers += c == '{' || c == '[';
        values += c == ',' || c == '{' || c == '[';
        depth += c == '{' || c == '[';
        depth -= depth && (c == '}' || c == ']');
        if (depth > API_MAX_DEPTH)
            return API_REFUSE(f, NULL, "The body's JSON is nested deeper than %d levels.", API_MAX_DEPTH);
        if (containers > API_MAX_CONTAINERS || values > API_MAX_VALUES)
            return API_REFUSE(f, NULL,
                              "The body's JSON has more than %d objects and arrays or %d values; send less "
                              "at a time.",
                              API_MAX_CONTAINERS, API_MAX_VALUES);
    }
    return TERN_OK;
}

enum tern_status api_body_parse(const char *body, size_t n, json_t **out, struct api_fault *f)
{
    enum tern_status st = check_size(body, n, f);
    json_error_t why;
    json_t *root;

    if (st)
        return st;
    if (n == 0)
        return api_fault_set(f, TERN_ERR_FORMAT, "invalid_json", NULL,
                             "The body is empty: send a JSON object, with its Content-Length.");
    root = json_loadb(body, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!root)
        return api_fault_set(f, TERN_ERR_FORMAT, "invalid_json", NULL,
                             "The body is not valid JSON: line %d, column %d (byte %d): %s.", why.line,
                             why.column, why.position, why.text);
    if (!json_is_object(root)) {
        const char *is = api_type_name(root);

        json_decref(root);
        return api_fault_set(f, TERN_ERR_FORMAT, "invalid_json", NULL,
                             "The body must be a JSON object, and is %s.", is);
    }
    *out = root;
    return TERN_OK;
}

const json_t *api_field(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_null(v) ? NULL : v;
}

const char *api_type_name(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

static enum tern_status wrong_type(const char *key, const char *want, const json_t *v, struct api_fault *f)
{
    return api_fault_set(f, TERN_ERR_USAGE, "invalid_type", key, "'%s' must be %s, and is %s.", key, want,
                         api_type_name(v));
}

enum tern_status api_get_bool(const json_t *o, const char *key, bool *out, struct api_fault *f)
{
    const json_t *v = api_field(o, key);

    if (!v)
        return TERN_OK;
    if (!json_is_boolean(v))
        return wrong_type(key, "true or false", v, f);
    *out = json_is_true(v);
    return TERN_OK;
}

enum tern_status api_get_number(const json_t *o, const char *key, double lo, double hi, double *out,
                                struct api_fault *f)
{
    const json_t *v = api_field(o, key);
    double x = json_number_value(v);

    if (!v)
        return TERN_OK;
    if (!json_is_number(v))
        return wrong_type(key, "a number", v, f);
    if (!(x >= lo && x <= hi))
        return API_REFUSE(f, key, "'%s' must be from %g to %g, and is %g.", key, lo, hi, x);
    *out = x;
    return TERN_OK;
}

bool api_is_whole(const json_t *v, int64_t lo, int64_t hi, int64_t *out)
{
    int64_t x;

    if (json_is_integer(v)) {
        x = json_integer_value(v);
    } else {
        double d = json_real_value(v);

        /* The bounds are those of 53 bits, where every whole double is exact. */
        if (!json_is_real(v) || d != floor(d) || fabs(d) > 9007199254740992.0)
            return false;
        x = (int64_t)d;
    }
    if (x < lo || x > hi)
        return false;
    *out = x;
    return true;
}

enum tern_status api_get_whole(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                               struct api_fault *f)
{
    const json_t *v = api_field(o, key);

    if (!v)
        return TERN_OK;
    if (!json_is_number(v))
        return wrong_type(key, "a whole number", v, f);
    if (!api_is_whole(v, lo, hi, out))
        return API_REFUSE(f, key, "'%s' must be a whole number from %lld to %lld, and is %.17g.", key,
                          (long long)lo, (long long)hi, json_number_value(v));
    return TERN_OK;
}

enum tern_status api_get_string(const json_t *o, const char *key, struct tern_str *out, struct api_fault *f)
{
    const json_t *v = api_field(o, key);

    if (!v)
        return TERN_OK;
    if (!json_is_string(v))
        return wrong_type(key, "a string", v, f);
    *out = (struct tern_str){ json_string_value(v), json_string_length(v) };
    return TERN_OK;
}

enum tern_status api_get_object(const json_t *o, const char *key, const json_t **out, struct api_fault *f)
{
    const json_t *v = api_field(o, key);

    if (!v)
        return TERN_OK;
    if (!json_is_object(v))
        return wrong_type(key, "an object", v, f);
    *out = v;
    return TERN_OK;
}

enum tern_status api_get_array(const json_t *o, const char *key, const json_t **out, struct api_fault *f)
{
    const json_t *v = api_field(o, key);

    if (!v)
        return TERN_OK;
    if (!json_is_array(v))
        return wrong_type(key, "an array", v, f);
    *out = v;
    return TERN_OK;
}
