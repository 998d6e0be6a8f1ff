/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields that are known and not done here.  Those that would change an answer are refused, each at a value
 * that is not the one which switches it off; all others, and unknown ones, are ignored as llama-server does.
 */
#include "coordinator/serve/api_request.h"

#include <stdio.h>
#include <string.h>

enum off {
    OFF_ZERO,     /* 0, false */
    OFF_ONE,      /* 1 */
    OFF_NEGATIVE, /* 0 and below */
    OFF_EMPTY,    /* an empty array, object or text */
    OFF_NONE,     /* "none", or what a server would do by itself: "auto" */
    OFF_TEXT,     /* ["text"] */
    OFF_NULL      /* nothing but null */
};

static const struct {
    const char *name;
    enum off off;
    const char *why;
} fields[] = {
    /* OpenAI's. */
    { "tools", OFF_EMPTY, "no tool is called here" },
    { "tool_choice", OFF_NONE, "no tool is called here" },
    { "functions", OFF_EMPTY, "no tool is called here" },
    { "function_call", OFF_NONE, "no tool is called here" },
    { "modalities", OFF_TEXT, "the model reads and writes text alone" },
    { "audio", OFF_NULL, "the model reads and writes text alone" },
    { "web_search_options", OFF_NULL, "nothing is searched for in the web" },
    { "suffix", OFF_EMPTY, "text is only added at the end" },
    /* llama-server's. */
    { "mirostat", OFF_ZERO, "there is no such sampler here" },
    { "dynatemp_range", OFF_ZERO, "there is no such sampler here" },
    { "xtc_probability", OFF_ZERO, "there is no such sampler here" },
    { "dry_multiplier", OFF_ZERO, "there is no such sampler here" },
    { "typical_p", OFF_ONE, "there is no such sampler here" },
    { "top_n_sigma", OFF_NEGATIVE, "there is no such sampler here" },
    { "adaptive_target", OFF_NEGATIVE, "there is no such sampler here" },
    { "min_keep", OFF_NEGATIVE, "samplers always keep one token and no more" },
    { "grammar_lazy", OFF_ZERO, "a grammar holds from the first token on" },
    { "grammar_triggers", OFF_EMPTY, "a grammar holds from the first token on" },
    { "post_sampling_probs", OFF_ZERO, "probabilities are those before sampling" },
    { "t_max_predict_ms", OFF_NEGATIVE, "there is no limit of time; use n_predict" },
    { "n_discard", OFF_NEGATIVE, "a full context always forgets half of what is not kept" },
    { "n_indent", OFF_NEGATIVE, "lines are not indented" },
    { "lora", OFF_EMPTY, "there are no adapters" },
    { "image_data", OFF_EMPTY, "the model reads and writes text alone" },
};

static bool is_off(const json_t *v, enum off off)
{
    const char *text = json_string_value(v);

    switch (off) {
    case OFF_ZERO: return json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0);
    case OFF_ONE: return json_is_number(v) && json_number_value(v) == 1;
    case OFF_NEGATIVE: return json_is_number(v) && json_number_value(v) <= 0;
    case OFF_EMPTY:
        return (json_is_array(v) && json_array_size(v) == 0) ||
               (json_is_object(v) && json_object_size(v) == 0) ||
               (json_is_string(v) && json_string_length(v) == 0);
    case OFF_NONE: return text && (strcmp(text, "none") == 0 || strcmp(text, "auto") == 0);
    case OFF_TEXT:
        text = json_string_value(json_array_get(v, 0));
        return json_array_size(v) == 1 && text && strcmp(text, "text") == 0;
    default: return false;
    }
}

enum tern_status api_parse_unsupported(const json_t *body, enum api_form_kind kind, struct api_fault *f)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const json_t *v = api_field(body, fields[i].name);

        if (v && !is_off(v, fields[i].off))
            return API_UNSUPPORTED(f, fields[i].name, "'%s' is not supported: %s.", fields[i].name,
                                   fields[i].why);
    }
    if (kind == API_CHAT && json_is_true(api_field(body, "echo")))
        return API_UNSUPPORTED(f, "echo", "'echo' is for /v1/completions; a chat has no text to repeat.");
    return TERN_OK;
}
