/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests from anywhere.  The first byte chooses the form (chat, completions, llama-server's), the
 * rest is the body.
 *
 * What must hold: a body is refused with a sentence and a status, or gives prompts within the context, of
 * tokens that exist, and options that a sampler takes; and no words of a conversation make a control token.
 */
#include "coordinator/serve/api_request.h"
#include "fuzz/fuzz_vocab.h"

#include <math.h>
#include <string.h>

#define CTX 4096

static const char *const marks[] = { "<B>", "<E>", "<|im_start|>", "<|im_end|>" };
enum { N_MARKS = sizeof marks / sizeof marks[0], N_VOCAB = 256 + N_MARKS };

/* Kept for the process. */
static const struct tern_tokenizer *tokenizer(void)
{
    static const struct tern_tokenizer *made;

    if (!made)
        made = fuzz_vocab_new("default", marks, N_MARKS, TERN_TOKEN_CONTROL);
    return made;
}

static void check_prompts(const struct api_request *r)
{
    FUZZ_CHECK(r->prompts.n >= 1 && (uint64_t)r->prompts.n * r->n <= API_MAX_CHOICES && r->n >= 1);
    FUZZ_CHECK(r->prompts.from[0] == 0 && r->prompts.from[r->prompts.n] == r->prompts.ids.n);
    for (size_t i = 0; i < r->prompts.n; i++) {
        const size_t from = r->prompts.from[i], n = r->prompts.from[i + 1] - from;

        FUZZ_CHECK(n >= 1 && n <= CTX);
        for (size_t k = 0; k < n; k++)
            FUZZ_CHECK(r->prompts.ids.ids[from + k] >= 0 && r->prompts.ids.ids[from + k] < N_VOCAB);
    }
}

static void check_options(const struct api_request *r)
{
    const struct sample_options *s = &r->gen.sample;

    FUZZ_CHECK(isfinite(s->temperature) && s->top_p >= 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1);
    FUZZ_CHECK(s->repeat_penalty > 0 && isfinite(s->frequency_penalty) && isfinite(s->presence_penalty));
    FUZZ_CHECK(s->repeat_last_n >= -1 && s->n_bias <= SAMPLE_MAX_BIAS);
    for (uint32_t i = 0; i < s->n_bias; i++)
        FUZZ_CHECK(s->bias[i].id >= 0 && s->bias[i].id < N_VOCAB && !isnan(s->bias[i].value));
    FUZZ_CHECK(r->gen.n_stops <= GENERATE_MAX_STOPS + 1 && r->n_user_stops <= GENERATE_MAX_STOPS);
    for (uint32_t i = 0; i < r->gen.n_stops; i++)
        FUZZ_CHECK(r->gen.stops[i][0] && strlen(r->gen.stops[i]) <= GENERATE_MAX_STOP_BYTES);
    FUZZ_CHECK(r->gen.n_logprobs >= -1 && r->gen.n_logprobs <= LOGPROBS_MAX_TOP && r->n_keep >= -1);
}

/* ChatML writes two marks for each message, and one where an answer begins. */
static void check_marks(const struct api_request *r, const char *text, size_t len)
{
    json_t *body = json_loadb(text, len, JSON_ALLOW_NUL, NULL);
    const size_t n_messages = json_array_size(json_object_get(body, "messages"));
    size_t n = 0;

    for (size_t i = 0; i < r->prompts.ids.n; i++)
        n += r->prompts.ids.ids[i] > FUZZ_EOS;
    FUZZ_CHECK(n <= 2 * n_messages + 1);
    json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct api_model m = { .tok = tokenizer(),
                                 .format = tern_chat_format_by_name("chatml"),
                                 .name = "tiny",
                                 .n_vocab = N_VOCAB,
                                 .ctx = CTX,
                                 .n_embd = 8 };
    struct api_request *r = NULL;
    struct api_fault f;
    char *body;

    if (size < 1)
        return 0;
    body = malloc(size); /* of its exact size, with the NUL that a server puts there */
    FUZZ_CHECK(body);
    memcpy(body, data + 1, size - 1);
    body[size - 1] = '\0';
    if (api_request_parse(&m, (enum api_form_kind)(data[0] % 3), body, size - 1, &r, &f) == TERN_OK) {
        check_prompts(r);
        check_options(r);
        if (r->kind == API_CHAT)
            check_marks(r, body, size - 1);
        api_request_free(&r);
    } else {
        json_t *e = api_fault_json(&f, data[0] & 4);

        FUZZ_CHECK(!r && f.err.text[0] && f.http >= 400 && f.http < 600 && e);
        json_decref(e);
    }
    free(body);
    return 0;
}
