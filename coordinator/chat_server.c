/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation with a server: see chat_server.h. */
#include "coordinator/chat_server.h"

#include "coordinator/chat_answer_stream.h"
#include "coordinator/http_client.h"
#include "coordinator/interrupt.h"
#include "coordinator/json_out.h"
#include "coordinator/terminal_text.h"
#include "engine/base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SILENCE_S 600  /* a long prompt is silent for as long as it is read */
#define BAN       -100 /* OpenAI's way of forbidding a token */

struct server_chat {
    struct chat chat; /* first: kinds get this */
    const struct chat_options *o;
    struct http_client *http;
    char *model; /* as the server knows it, owned */
    struct chat_answer_stream answer;
    uint64_t asked_ns, first_ns, last_ns; /* of this turn; first_ns 0: no text yet */
};

static struct server_chat *of(struct chat *c)
{
    return (struct server_chat *)c;
}

/* -- what is asked --------------------------------------------------------------------------------------- */

/* Takes value; what does not fit into memory is noticed at the end. */
static void put(json_t *o, const char *name, json_t *value)
{
    (void)json_object_set_new(o, name, value);
}

static json_t *stops_json(const struct generate_options *g)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < g->n_stops; i++)
        (void)json_array_append_new(list,
                                    json_out_text((struct tern_str){ g->stops[i], strlen(g->stops[i]) }));
    return list;
}

static json_t *biases_json(const struct sample_options *s)
{
    json_t *o = json_object();
    char id[16];

    for (uint32_t i = 0; i < s->n_bias; i++) {
        (void)snprintf(id, sizeof id, "%d", (int)s->bias[i].id);
        put(o, id, isinf(s->bias[i].value) ? json_integer(BAN) : json_real((double)s->bias[i].value));
    }
    return o;
}

static void put_form(const struct answer_options *a, json_t *o)
{
    json_t *schema;

    if (a->form && a->form_is_schema) {
        schema = json_loads(a->form, JSON_DECODE_ANY, NULL);
        put(o, "response_format",
            json_pack("{s:s, s:{s:s, s:b, s:o}}", "type", "json_schema", "json_schema", "name", "answer",
                      "strict", 1, "schema", schema));
    } else if (a->form) {
        put(o, "grammar", json_out_text((struct tern_str){ a->form, strlen(a->form) }));
    }
}

/* Only what the command line says; the last ones are not OpenAI's, but many servers know them. */
static void put_settings(const struct answer_options *a, json_t *o)
{
    const struct sample_options *s = &a->gen.sample;
    const uint32_t g = a->given;

    if (g & ANSWER_GIVEN_PREDICT && a->gen.n_predict != UINT32_MAX)
        put(o, "max_tokens", json_integer((json_int_t)a->gen.n_predict));
    if (g & ANSWER_GIVEN(ANSWER_OPT_TEMP))
        put(o, "temperature", json_real(s->temperature));
    if (g & ANSWER_GIVEN(ANSWER_OPT_TOP_P))
        put(o, "top_p", json_real(s->top_p));
    if (g & ANSWER_GIVEN(ANSWER_OPT_FREQUENCY))
        put(o, "frequency_penalty", json_real(s->frequency_penalty));
    if (g & ANSWER_GIVEN(ANSWER_OPT_PRESENCE))
        put(o, "presence_penalty", json_real(s->presence_penalty));
    if (a->seed_given)
        put(o, "seed", json_integer((json_int_t)s->seed));
    if (g & ANSWER_GIVEN(ANSWER_OPT_STOP))
        put(o, "stop", stops_json(&a->gen));
    if (g & ANSWER_GIVEN(ANSWER_OPT_BIAS))
        put(o, "logit_bias", biases_json(s));
    if (g & ANSWER_GIVEN(ANSWER_OPT_TOP_K))
        put(o, "top_k", json_integer((json_int_t)s->top_k));
    if (g & ANSWER_GIVEN(ANSWER_OPT_MIN_P))
        put(o, "min_p", json_real(s->min_p));
    if (g & ANSWER_GIVEN(ANSWER_OPT_REPEAT))
        put(o, "repeat_penalty", json_real(s->repeat_penalty));
    if (g & ANSWER_GIVEN(ANSWER_OPT_REPEAT_N))
        put(o, "repeat_last_n", json_integer((json_int_t)s->repeat_last_n));
    if (g & ANSWER_GIVEN(ANSWER_OPT_IGNORE_EOS))
        put(o, "ignore_eos", json_true());
}

/* NULL: no memory. */
static char *make_body(const struct server_chat *c)
{
    const struct transcript *log = &c->chat.log;
    json_t *o = json_object(), *messages = json_array();
    char *text;
    bool ok = true;

    for (size_t i = 0; i < log->n; i++)
        ok &= json_array_append_new(messages, json_pack("{s:s, s:o}", "role",
                                                        tern_chat_role_name(log->messages[i].role), "content",
                                                        json_out_text(log->messages[i].content))) == 0;
    put(o, "model", json_string(c->model));
    ok &= json_object_set_new(o, "messages", messages) == 0;
    put(o, "stream", json_true());
    put(o, "stream_options", json_pack("{s:b}", "include_usage", 1));
    put_settings(&c->o->answer, o);
    put_form(&c->o->answer, o);
    text = ok ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}

/* -- what is answered ------------------------------------------------------------------------------------ */

static bool on_text(void *user, const char *text, size_t len)
{
    struct server_chat *c = user;

    c->last_ns = tern_now_ns();
    if (!c->first_ns)
        c->first_ns = c->last_ns;
    return c->chat.on_text(c->chat.user, text, len);
}

static enum tern_status on_bytes(void *user, const char *bytes, size_t n, struct tern_err *err)
{
    struct server_chat *c = user;

    return chat_answer_stream_feed(&c->answer, bytes, n, err);
}

static enum tern_status judge(struct server_chat *c, const struct http_client_answer *a, struct tern_err *err)
{
    struct chat_answer_stream *s = &c->answer;
    enum tern_status st;

    if (a->status / 100 != 2)
        return http_client_refusal(c->http, a, err);
    if (strcmp(a->type, "application/json") == 0) {
        if ((st = chat_answer_stream_whole(s, a->body ? a->body : "", a->len, err)))
            return st;
    } else if (strcmp(a->type, "text/event-stream") != 0) {
        return TERN_FAIL(err, TERN_ERR_FORMAT, "%s answers with '%.40s', which is no answer of a chat",
                         http_client_server(c->http), *a->type ? a->type : "something");
    }
    if (!s->ended && !s->done)
        return TERN_FAIL(err, TERN_ERR_PEER, "%s broke off in the middle of its answer",
                         http_client_server(c->http));
    return TERN_OK;
}

static void note_figures(struct server_chat *c)
{
    const struct chat_answer_stream *s = &c->answer;
    struct chat_figures *f = &c->chat.figures;

    f->n_kept = s->usage && s->cached_known ? s->n_cached : CHAT_UNKNOWN;
    f->n_prompt = s->usage && s->cached_known ? s->n_prompt - s->n_cached : CHAT_UNKNOWN;
    f->n_tokens = s->usage ? s->n_tokens : CHAT_UNKNOWN;
    f->first_ms = c->first_ns ? (double)(c->first_ns - c->asked_ns) / 1e6 : 0;
    f->rest_ms = c->first_ns ? (double)(c->last_ns - c->first_ns) / 1e6 : 0;
    f->rows_sent = -1;
}

static void note_end(struct server_chat *c, bool stopped)
{
    struct chat_answer *a = &c->chat.answer;

    *a = (struct chat_answer){ .text = c->answer.text ? c->answer.text : "", .n_text = c->answer.n_text };
    a->end = stopped ? GENERATE_INTERRUPTED : c->answer.limit ? GENERATE_LENGTH : GENERATE_STOP;
    if (a->end == GENERATE_LENGTH && !(c->o->answer.given & ANSWER_GIVEN_PREDICT))
        (void)snprintf(a->note, sizeof a->note,
                       "the server ends the answer at its limit of tokens, or its context is full; /reset "
                       "begins a new conversation");
}

static enum tern_status ask(struct chat *chat, struct tern_err *err)
{
    struct server_chat *c = of(chat);
    char *body = make_body(c);
    const struct http_client_request r = {
        .path = "/v1/chat/completions", .body = body, .type = "text/event-stream", .take = on_bytes, .user = c
    };
    struct http_client_answer a = { 0 };
    enum tern_status st;

    if (!body)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the conversation");
    chat_answer_stream_free(&c->answer);
    c->answer = (struct chat_answer_stream){ .on_text = on_text, .user = c };
    c->first_ns = c->last_ns = 0;
    c->asked_ns = tern_now_ns();
    st = http_client_ask(c->http, &r, &a, err);
    free(body);
    if (!st)
        st = judge(c, &a, err);
    http_client_answer_free(&a);
    if (st && st != TERN_END)
        return st;
    note_figures(c);
    note_end(c, st == TERN_END);
    return TERN_OK;
}

/* -- the kind of chat ------------------------------------------------------------------------------------ */

static void write_safe(FILE *to, const char *text)
{
    struct terminal_text safe = { 0 };

    (void)terminal_text_write(&safe, to, true, text, strlen(text));
}

static void describe(const struct chat *chat, FILE *to)
{
    const struct server_chat *c = (const struct server_chat *)chat;

    write_safe(to, c->model);
    fputs(" at ", to);
    write_safe(to, http_client_server(c->http));
}

static void stats(const struct chat *chat, FILE *to)
{
    describe(chat, to);
    fprintf(to, "; %zu messages, %u answers\n", chat->log.n, (unsigned)chat->figures.n_answers);
}

static void forget(struct chat *chat)
{
    (void)chat; /* each turn sends everything */
}

/* The one model of a list as /v1/models gives it. */
static enum tern_status choose_model(struct server_chat *c, const struct http_client_answer *a,
                                     struct tern_err *err)
{
    json_t *root = a->len ? json_loadb(a->body, a->len, 0, NULL) : NULL;
    const json_t *list = json_object_get(root, "data");
    const char *id = json_string_value(json_object_get(json_array_get(list, 0), "id"));
    const char *second = json_string_value(json_object_get(json_array_get(list, 1), "id"));
    enum tern_status st = TERN_OK;

    if (!json_is_array(list) || (json_array_size(list) && !id))
        st = TERN_FAIL(err, TERN_ERR_FORMAT, "%s answers, but not as OpenAI's API does at /v1/models",
                       http_client_server(c->http));
    else if (!id)
        st = TERN_FAIL(err, TERN_ERR_PEER, "%s has no model", http_client_server(c->http));
    else if (json_array_size(list) > 1)
        st = TERN_FAIL(err, TERN_ERR_USAGE,
                       "%s has %zu models: choose one with --model, such as %.60s or %.60s",
                       http_client_server(c->http), json_array_size(list), id, second ? second : id);
    else if (!(c->model = strdup(id)))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the model's name");
    json_decref(root);
    return st;
}

static enum tern_status begin_talk(struct chat *chat, struct tern_err *err)
{
    struct server_chat *c = of(chat);
    struct http_client_answer a = { 0 };
    enum tern_status st;

    if (c->model)
        return TERN_OK;
    if ((st = http_client_ask(c->http, &(struct http_client_request){ .path = "/v1/models" }, &a, err)))
        return st;
    st = a.status == 200 ? choose_model(c, &a, err) : http_client_refusal(c->http, &a, err);
    http_client_answer_free(&a);
    return st;
}

static void close_talk(struct chat *chat)
{
    struct server_chat *c = of(chat);

    chat_answer_stream_free(&c->answer);
    http_client_close(&c->http);
    free(c->model);
    free(c);
}

static const struct chat_kind server_kind = { begin_talk, ask, NULL, forget, describe, stats, close_talk };

enum tern_status chat_server_open(const struct chat_options *o, struct chat **out, struct tern_err *err)
{
    const struct http_client_options ho = {
        .command = "chat", .server = o->server, .api_key_file = o->api_key_file, .silence_s = SILENCE_S
    };
    struct server_chat *c = calloc(1, sizeof *c);
    json_t *model =
        o->server_model ? json_out_text((struct tern_str){ o->server_model, strlen(o->server_model) }) : NULL;
    enum tern_status st = TERN_OK;

    if (c) {
        c->chat.kind = &server_kind;
        c->o = o;
        c->model = model ? strdup(json_string_value(model)) : NULL;
    }
    json_decref(model);
    if (!c || (o->server_model && !c->model))
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a conversation");
    if (!st)
        st = http_client_open(&ho, &c->http, err);
    if (st) {
        if (c)
            close_talk(&c->chat);
        return st;
    }
    *out = &c->chat;
    return TERN_OK;
}
