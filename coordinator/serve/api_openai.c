/* SPDX-License-Identifier: Apache-2.0 */
/* What OpenAI's two forms of answers have in common: see api_openai.h. */
#include "coordinator/serve/api_openai.h"

json_t *api_openai_null_or(json_t *v)
{
    return v ? v : json_null();
}

/* With a usage chunk at the end all others say that theirs is not there yet, as OpenAI has it. */
static void send(struct api_answer *a, const char *object, json_t *choices, json_t *usage,
                 const struct job_state *s, struct http_text *out)
{
    json_t *chunk = api_answer_shell(a, object, choices);

    if (a->r->include_usage)
        (void)json_object_set_new(chunk, "usage", api_openai_null_or(usage));
    if (s)
        (void)json_object_set_new(chunk, "timings", api_answer_timings(s));
    api_sse_json(out, chunk);
}

void api_openai_event(struct api_answer *a, const char *object, json_t *choices, const struct job_state *s,
                      struct http_text *out)
{
    send(a, object, choices, NULL, s, out);
}

void api_openai_end(struct api_answer *a, const char *object, struct http_text *out)
{
    if (a->r->include_usage)
        send(a, object, json_array(), api_answer_usage(a), a->n_choices == 1 ? &a->choices[0].state : NULL,
             out);
    http_text_addf(out, "data: [DONE]\n\n");
}

json_t *api_openai_whole(const struct api_answer *a, const char *object, json_t *choices)
{
    json_t *root = api_answer_shell(a, object, choices);

    (void)json_object_set_new(root, "usage", api_answer_usage(a));
    if (a->n_choices == 1)
        (void)json_object_set_new(root, "timings", api_answer_timings(&a->choices[0].state));
    return root;
}
