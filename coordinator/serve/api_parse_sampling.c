/* SPDX-License-Identifier: Apache-2.0 */
/* How tokens are drawn, and where a text ends: see api_request.h. */
#include "coordinator/serve/api_request.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- numbers --------------------------------------------------------------------------------------------- */

static enum tern_status parse_seed(const json_t *body, struct api_request *r, struct api_fault *f)
{
    int64_t seed = -1;
    enum tern_status st = api_get_whole(body, "seed", INT64_MIN, INT64_MAX, &seed, f);

    if (st || seed == -1 || seed == UINT32_MAX) /* both are llama-server's words for: draw one */
        return st;
    r->gen.sample.seed = (uint64_t)seed;
    r->seed_given = true;
    return TERN_OK;
}

static enum tern_status parse_numbers(const json_t *body, struct sample_options *s, struct api_fault *f)
{
    int64_t top_k = s->top_k;
    enum tern_status st;

    if ((st = api_get_number(body, "temperature", -1, 100, &s->temperature, f)) ||
        (st = api_get_number(body, "top_p", 0, 1, &s->top_p, f)) ||
        (st = api_get_number(body, "min_p", 0, 1, &s->min_p, f)) ||
        (st = api_get_number(body, "repeat_penalty", 0.01, 100, &s->repeat_penalty, f)) ||
        (st = api_get_number(body, "frequency_penalty", -100, 100, &s->frequency_penalty, f)) ||
        (st = api_get_number(body, "presence_penalty", -100, 100, &s->presence_penalty, f)) ||
        (st = api_get_whole(body, "repeat_last_n", -1, TERN_MAX_CONTEXT, &s->repeat_last_n, f)) ||
        (st = api_get_whole(body, "top_k", -1, INT32_MAX, &top_k, f)))
        return st;
    s->top_k = top_k < 0 ? 0 : (uint32_t)top_k;
    return TERN_OK;
}

/* -- the order of samplers ------------------------------------------------------------------------------- */

/* Those we have, in their order, and those of llama-server's that are off unless asked for by a number. */
static const char *const ours[] = { "penalties", "top_k", "top_p", "min_p", "temperature" };
static const char *const idle[] = { "dry", "top_n_sigma", "typ_p", "typical_p", "xtc" };
enum { N_OURS = sizeof ours / sizeof ours[0], N_IDLE = sizeof idle / sizeof idle[0] };

static void switch_off(struct sample_options *s, size_t which)
{
    switch (which) {
    case 0:
        s->repeat_penalty = 1;
        s->frequency_penalty = s->presence_penalty = 0;
        break;
    case 1: s->top_k = 0; break;
    case 2: s->top_p = 1; break;
    case 3: s->min_p = 0; break;
    default: s->temperature = s->temperature > 0 ? 1 : s->temperature; break;
    }
}

static bool is_idle(const char *name)
{
    for (size_t i = 0; i < N_IDLE; i++)
        if (strcmp(name, idle[i]) == 0)
            return true;
    return false;
}

/* One that is not named is not applied. */
static enum tern_status parse_samplers(const json_t *body, struct sample_options *s, struct api_fault *f)
{
    const json_t *list = NULL;
    size_t next = 0;
    enum tern_status st = api_get_array(body, "samplers", &list, f);

    if (st || !list)
        return st;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        size_t at = 0;

        if (!name)
            return API_REFUSE(f, "samplers", "'samplers' must be an array of names.");
        if (is_idle(name))
            continue;
        while (at < N_OURS && strcmp(name, ours[at]) != 0)
            at++;
        if (at == N_OURS)
            return API_UNSUPPORTED(f, "samplers", "'samplers' names '%.40s', which is not supported.", name);
        if (at < next)
            return API_UNSUPPORTED(f, "samplers",
                                   "'samplers' has another order than penalties, top_k, top_p, min_p, "
                                   "temperature, which is the only one here.");
        for (; next < at; next++)
            switch_off(s, next);
        next = at + 1;
    }
    for (; next < N_OURS; next++)
        switch_off(s, next);
    return TERN_OK;
}

/* -- biases ---------------------------------------------------------------------------------------------- */

static enum tern_status add_bias(const struct api_model *m, int64_t id, double value,
                                 struct sample_options *s, struct api_fault *f)
{
    if (id < 0 || id >= (int64_t)m->n_vocab)
        return API_REFUSE(f, "logit_bias", "'logit_bias' names the token %lld, and the model has %u of them.",
                          (long long)id, (unsigned)m->n_vocab);
    if (s->n_bias == SAMPLE_MAX_BIAS)
        return API_REFUSE(f, "logit_bias", "'logit_bias' names more than %d tokens.", SAMPLE_MAX_BIAS);
    s->bias[s->n_bias++] = (struct sample_bias){ (int32_t)id, (float)value };
    return TERN_OK;
}

/* Every token of a text. */
static enum tern_status add_text_bias(const struct api_model *m, const char *text, size_t len, double value,
                                      struct sample_options *s, struct api_fault *f)
{
    struct tern_ids ids = { 0 };
    enum tern_status st = TERN_OK;

    if (len > TERN_MAX_TOKEN_BYTES)
        return API_REFUSE(f, "logit_bias", "'logit_bias' has a text of %zu bytes: at most %d.", len,
                          TERN_MAX_TOKEN_BYTES);
    if (tern_tokenizer_encode(m->tok, text, len, false, false, &ids, &f->err))
        st = api_fault_take(f, "logit_bias");
    for (size_t i = 0; !st && i < ids.n; i++)
        st = add_bias(m, ids.ids[i], value, s, f);
    free(ids.ids);
    return st;
}

static enum tern_status bias_value(const json_t *v, double *out, struct api_fault *f)
{
    *out = json_is_false(v) ? -INFINITY : json_number_value(v);
    if (json_is_false(v) || (json_is_number(v) && fabs(*out) <= 1e6))
        return TERN_OK;
    return API_REFUSE(f, "logit_bias",
                      "'logit_bias' has a value that is neither a number from -1e6 to 1e6 nor false.");
}

/* {"50256": -100, " the": 1.5}: whole numbers are ids. */
static enum tern_status object_bias(const struct api_model *m, const json_t *o, struct sample_options *s,
                                    struct api_fault *f)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        double value;
        char *end;
        long long id;
        enum tern_status st = bias_value(v, &value, f);

        if (st)
            return st;
        errno = 0;
        id = strtoll(key, &end, 10);
        st = *key && !*end && !errno ? add_bias(m, id, value, s, f)
                                     : add_text_bias(m, key, strlen(key), value, s, f);
        if (st)
            return st;
    }
    return TERN_OK;
}

/* [[50256, false], [" the", 1.5]] */
static enum tern_status array_bias(const struct api_model *m, const json_t *a, struct sample_options *s,
                                   struct api_fault *f)
{
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *pair = json_array_get(a, i), *what = json_array_get(pair, 0);
        double value;
        int64_t id;
        enum tern_status st;

        if (json_array_size(pair) != 2)
            return API_REFUSE(f, "logit_bias", "'logit_bias' must have pairs of a token and a number.");
        if ((st = bias_value(json_array_get(pair, 1), &value, f)))
            return st;
        if (json_is_string(what))
            st = add_text_bias(m, json_string_value(what), json_string_length(what), value, s, f);
        else if (api_is_whole(what, INT64_MIN, INT64_MAX, &id))
            st = add_bias(m, id, value, s, f);
        else
            st = API_REFUSE(f, "logit_bias", "'logit_bias' has %s where a token should be.",
                            api_type_name(what));
        if (st)
            return st;
    }
    return TERN_OK;
}

static enum tern_status parse_bias(const struct api_model *m, const json_t *body, struct sample_options *s,
                                   struct api_fault *f)
{
    const json_t *v = api_field(body, "logit_bias");

    if (!v)
        return TERN_OK;
    if (json_is_object(v))
        return object_bias(m, v, s, f);
    if (json_is_array(v))
        return array_bias(m, v, s, f);
    return API_REFUSE(f, "logit_bias", "'logit_bias' must be an object or an array of pairs, and is %s.",
                      api_type_name(v));
}

enum tern_status api_parse_sampling(const struct api_model *m, const json_t *body, struct api_request *r,
                                    struct api_fault *f)
{
    struct sample_options *s = &r->gen.sample;
    enum tern_status st;

    if ((st = parse_seed(body, r, f)) || (st = parse_numbers(body, s, f)) ||
        (st = parse_samplers(body, s, f)) || (st = parse_bias(m, body, s, f)) ||
        (st = api_get_bool(body, "ignore_eos", &r->gen.ignore_eos, f)))
        return st;
    if (r->gen.ignore_eos && generate_forbid_eog(s, m->tok, m->n_vocab, &f->err))
        return API_REFUSE(f, "logit_bias", "'ignore_eos' and 'logit_bias' together name more than %d tokens.",
                          SAMPLE_MAX_BIAS);
    return TERN_OK;
}

/* -- stops ----------------------------------------------------------------------------------------------- */

static enum tern_status add_stop(const json_t *v, const char *where, struct api_request *r,
                                 struct api_fault *f)
{
    const size_t len = json_string_length(v);

    if (!json_is_string(v))
        return api_fault_set(f, TERN_ERR_USAGE, "invalid_type", where, "'%s' must be a string, and is %s.",
                             where, api_type_name(v));
    if (len == 0)
        return TERN_OK;
    if (len > GENERATE_MAX_STOP_BYTES || strlen(json_string_value(v)) != len)
        return API_REFUSE(f, where, "'%s' must have at most %d bytes and no NUL.", where,
                          GENERATE_MAX_STOP_BYTES);
    if (r->gen.n_stops == GENERATE_MAX_STOPS)
        return API_REFUSE(f, "stop", "'stop' has more than %d texts.", GENERATE_MAX_STOPS);
    r->gen.stops[r->gen.n_stops++] = json_string_value(v);
    r->n_user_stops = r->gen.n_stops;
    return TERN_OK;
}

enum tern_status api_parse_stops(const json_t *body, struct api_request *r, struct api_fault *f)
{
    const json_t *v = api_field(body, "stop");

    if (!v)
        return TERN_OK;
    if (!json_is_array(v))
        return add_stop(v, "stop", r, f);
    for (size_t i = 0; i < json_array_size(v); i++) {
        char where[40];
        enum tern_status st;

        (void)snprintf(where, sizeof where, "stop[%zu]", i);
        if ((st = add_stop(json_array_get(v, i), where, r, f)))
            return st;
    }
    return TERN_OK;
}
