/* SPDX-License-Identifier: Apache-2.0 */
/* What the server is and does: /v1/models, /health, /props, /slots, /lora-adapters, /metrics. */
#include "coordinator/serve/api_impl.h"

#include "coordinator/json_out.h"
#include "coordinator/serve/metrics_text.h"
#include "engine/base/limits.h"

#include <string.h>

/* -- models ---------------------------------------------------------------------------------------------- */

static json_t *model_json(const struct api *a)
{
    const struct session *s = service_session(a->service);
    json_t *meta = json_pack("{s:I, s:I, s:I, s:I, s:s}", "n_vocab", (json_int_t)a->model.n_vocab, "n_ctx",
                             (json_int_t)a->model.ctx, "n_ctx_train", (json_int_t)s->arch.n_ctx_train,
                             "n_embd", (json_int_t)a->model.n_embd, "fingerprint", a->fingerprint);

    return json_pack("{s:s, s:s, s:I, s:s, s:{s:[s], s:[s]}, s:o}", "id", a->model.name, "object", "model",
                     "created", (json_int_t)a->started, "owned_by", "tern", "architecture",
                     "input_modalities", "text", "output_modalities", "text", "meta", meta);
}

enum tern_status api_get_models(struct api *a, struct http_exchange *x, const struct http_request *r,
                                struct api_fault *f)
{
    (void)r;
    (void)f;
    api_reply_json(x, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(a)));
    return TERN_OK;
}

enum tern_status api_get_model(struct api *a, struct http_exchange *x, const struct http_request *r,
                               struct api_fault *f)
{
    const char *id = strstr(r->path, "/models/") + strlen("/models/");

    if (strcmp(id, a->model.name) != 0) {
        (void)api_fault_set(f, TERN_ERR_USAGE, "model_not_found", "model",
                            "There is no model '%.80s' here; it is '%.80s'.", id, a->model.name);
        f->http = 404;
        f->type = "not_found_error";
        return TERN_ERR_USAGE;
    }
    api_reply_json(x, 200, model_json(a));
    return TERN_OK;
}

/* -- health ---------------------------------------------------------------------------------------------- */

enum tern_status api_get_health(struct api *a, struct http_exchange *x, const struct http_request *r,
                                struct api_fault *f)
{
    (void)r;
    if (!service_ready(a->service, &f->err)) {
        char why[TERN_ERR_TEXT_BYTES];

        memcpy(why, f->err.text, sizeof why);
        api_fault_http(f, 503, why);
        return TERN_ERR_BUSY;
    }
    api_reply_json(x, 200, json_pack("{s:s}", "status", "ok"));
    return TERN_OK;
}

/* -- settings -------------------------------------------------------------------------------------------- */

static json_t *biases(const struct sample_options *s)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < s->n_bias; i++) {
        json_t *value = json_out_number((double)s->bias[i].value);

        (void)json_array_append_new(list,
                                    json_pack("{s:o, s:i}", "bias", value, "token", (int)s->bias[i].id));
    }
    return list;
}

json_t *api_settings(const struct api *a, const struct api_request *r)
{
    struct sample_options defaults;
    const struct sample_options *s = r ? &r->gen.sample : &defaults;
    const bool limit = r && r->gen.n_predict != UINT32_MAX;
    const json_int_t most = a->o.max_tokens ? (json_int_t)a->o.max_tokens : -1;
    const json_int_t n_predict = limit ? (json_int_t)r->gen.n_predict : most;
    const char *grammar = r ? json_string_value(api_field(r->body, "grammar")) : NULL;
    json_t *stops = json_array(), *all, *more;

    sample_options_default(&defaults);
    for (uint32_t i = 0; r && i < r->n_user_stops; i++)
        (void)json_array_append_new(stops, json_string(r->gen.stops[i]));
    all = json_pack("{s:I, s:f, s:I, s:f, s:f, s:I, s:f, s:f, s:f, s:o}", "seed",
                    r ? (json_int_t)s->seed : (json_int_t)UINT32_MAX, "temperature", s->temperature, "top_k",
                    (json_int_t)s->top_k, "top_p", s->top_p, "min_p", s->min_p, "repeat_last_n",
                    (json_int_t)s->repeat_last_n, "repeat_penalty", s->repeat_penalty, "presence_penalty",
                    s->presence_penalty, "frequency_penalty", s->frequency_penalty, "stop", stops);
    more = json_pack("{s:I, s:I, s:I, s:b, s:b, s:o, s:I, s:s, s:[s,s,s,s,s], s:b}", "max_tokens", n_predict,
                     "n_predict", n_predict, "n_keep", (json_int_t)(r ? r->n_keep : a->o.n_keep),
                     "ignore_eos", r ? r->gen.ignore_eos : 0, "stream", r ? r->stream : 1, "logit_bias",
                     r ? biases(s) : json_array(), "n_probs",
                     (json_int_t)(r && r->gen.n_logprobs > 0 ? r->gen.n_logprobs : 0), "grammar",
                     grammar ? grammar : "", "samplers", "penalties", "top_k", "top_p", "min_p",
                     "temperature", "timings_per_token", r ? r->timings_per_token : 0);
    (void)json_object_update(all, more);
    json_decref(more);
    return all;
}

/* A token's text, empty for one that there is none of. */
static json_t *token_text(const struct api *a, int32_t id)
{
    return id < 0 ? json_string("") : api_token_text(a->model.tok, id);
}

enum tern_status api_get_props(struct api *a, struct http_exchange *x, const struct http_request *r,
                               struct api_fault *f)
{
    const struct tern_chat_format *format = a->model.format;
    struct snapshot snap;

    (void)r;
    (void)f;
    service_snapshot(a->service, &snap);
    api_reply_json(x, 200,
                   json_pack("{s:{s:I, s:o}, s:I, s:s, s:s, s:s, s:s, s:o, s:o, s:{s:b, s:b}, s:s, s:s}",
                             "default_generation_settings", "n_ctx", (json_int_t)a->model.ctx, "params",
                             api_settings(a, NULL), "total_slots", (json_int_t)snap.parallel, "model_path",
                             a->model.name, "model_alias", a->model.name, "chat_template",
                             format ? tern_chat_template_jinja(format) : "", "chat_format",
                             format ? tern_chat_format_name(format) : "none", "bos_token",
                             token_text(a, tern_tokenizer_bos(a->model.tok)), "eos_token",
                             token_text(a, tern_tokenizer_eos(a->model.tok)), "modalities", "vision", 0,
                             "audio", 0, "build_info", "tern " TERN_VERSION, "fingerprint", a->fingerprint));
    return TERN_OK;
}

/* -- slots ----------------------------------------------------------------------------------------------- */

/* s NULL: nobody is in this one. */
static json_t *slot_json(const struct api *a, uint32_t id, const struct snapshot_slot *s)
{
    json_t *one = json_pack("{s:I, s:I, s:I, s:b, s:b}", "id", (json_int_t)id, "id_task",
                            s ? (json_int_t)s->job : (json_int_t)-1, "n_ctx", (json_int_t)a->model.ctx,
                            "speculative", 0, "is_processing", s != NULL);
    json_t *more;

    if (!s)
        return one;
    more = json_pack("{s:I, s:I, s:I, s:f, s:{s:b, s:I}}", "n_prompt_tokens", (json_int_t)s->n_prompt,
                     "n_prompt_tokens_processed", (json_int_t)s->n_prompt_done, "n_prompt_tokens_cache",
                     (json_int_t)s->n_cached, "seconds", s->seconds, "next_token", "has_next_token", 1,
                     "n_decoded", (json_int_t)s->n_tokens);
    (void)json_object_update(one, more);
    json_decref(more);
    return one;
}

enum tern_status api_get_slots(struct api *a, struct http_exchange *x, const struct http_request *r,
                               struct api_fault *f)
{
    struct snapshot_slot slots[TERN_MAX_SLOTS];
    const struct snapshot_slot *at[TERN_MAX_SLOTS] = { NULL };
    const char *fail = http_argument(x, "fail_on_no_slot");
    struct snapshot snap;
    uint32_t n = service_slots(a->service, slots, TERN_MAX_SLOTS);
    json_t *list;

    (void)r;
    service_snapshot(a->service, &snap);
    if (fail && strcmp(fail, "0") != 0 && snap.n_running >= snap.parallel) {
        api_fault_http(f, 503, "No slot is free.");
        return TERN_ERR_BUSY;
    }
    for (uint32_t i = 0; i < n; i++)
        if (slots[i].slot < snap.parallel)
            at[slots[i].slot] = &slots[i];
    list = json_array();
    for (uint32_t id = 0; id < snap.parallel; id++)
        (void)json_array_append_new(list, slot_json(a, id, at[id]));
    api_reply_json(x, 200, list);
    return TERN_OK;
}

/* -- adapters -------------------------------------------------------------------------------------------- */

/* There are none, and so has llama-server without any. */
enum tern_status api_get_adapters(struct api *a, struct http_exchange *x, const struct http_request *r,
                                  struct api_fault *f)
{
    (void)a;
    (void)r;
    (void)f;
    api_reply_json(x, 200, json_array());
    return TERN_OK;
}

/* -- metrics --------------------------------------------------------------------------------------------- */

enum tern_status api_get_metrics(struct api *a, struct http_exchange *x, const struct http_request *r,
                                 struct api_fault *f)
{
    struct http_text text = { 0 };
    struct http_counts counts;
    struct snapshot snap;

    (void)r;
    service_snapshot(a->service, &snap);
    http_exchange_counts(x, &counts);
    metrics_text(&snap, &counts, a->model.name, &text);
    if (text.failed) {
        http_text_free(&text);
        return api_fault_set(f, TERN_ERR_MEMORY, NULL, NULL, "No memory for the metrics.");
    }
    http_reply(x, 200, METRICS_TYPE, text.ptr, text.len);
    http_text_free(&text);
    return TERN_OK;
}
