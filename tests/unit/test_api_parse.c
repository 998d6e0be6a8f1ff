/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests: what each field sets, one refusal with the field's name for each mistake, and hostile
 * JSON.
 */
#include "unit/unit.h"

#include "coordinator/serve/api_request.h"
#include "vocab_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CTX 64

static struct api_model model;
static struct api_request *r;
static struct api_fault fault;

/* 256 bytes (id = byte), <s>, </s>, <|im_start|>, <|im_end|>, "ab". */
enum { BOS = 256, EOS, IM_START, IM_END, AB, N_VOCAB };

static struct tern_tokenizer *make_tokenizer(void)
{
    static const char *const marks[] = { "<s>", "</s>", "<|im_start|>", "<|im_end|>" };
    struct tern_tokenizer *t = NULL;
    int32_t types[N_VOCAB];
    struct vocab_writer w;
    struct tern_gguf *g;

    vocab_begin(&w);
    vocab_text(&w, "tokenizer.ggml.model", "gpt2");
    vocab_text(&w, "tokenizer.ggml.pre", "default");
    vocab_open(&w, "tokenizer.ggml.tokens");
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;

        vocab_add_bytes(&w, &byte, 1);
        types[b] = TERN_TOKEN_NORMAL;
    }
    for (int i = 0; i < 4; i++) {
        vocab_add(&w, marks[i], strlen(marks[i]));
        types[BOS + i] = TERN_TOKEN_CONTROL;
    }
    vocab_add_bytes(&w, "ab", 2);
    types[AB] = TERN_TOKEN_NORMAL;
    vocab_close(&w);
    vocab_i32s(&w, "tokenizer.ggml.token_type", types, N_VOCAB);
    vocab_u32(&w, "tokenizer.ggml.bos_token_id", BOS);
    vocab_u32(&w, "tokenizer.ggml.eos_token_id", EOS);
    vocab_bool(&w, "tokenizer.ggml.add_bos_token", true);
    vocab_open(&w, "tokenizer.ggml.merges");
    vocab_add_merge(&w, "a", 1, "b", 1);
    vocab_close(&w);
    vocab_end(&w);
    assert_ok(tern_gguf_parse("made", w.bytes, w.n, &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    free(w.bytes);
    return t;
}

static int set_up(void **state)
{
    (void)state;
    model = (struct api_model){ .tok = make_tokenizer(),
                                .format = tern_chat_format_by_name("chatml"),
                                .name = "tiny",
                                .n_vocab = N_VOCAB,
                                .ctx = CTX,
                                .n_embd = 8 };
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    api_request_free(&r);
    tern_tokenizer_free((struct tern_tokenizer **)(uintptr_t)&model.tok);
    return 0;
}

/* Quotes are written as ' in these tests. */
static size_t quoted(const char *body, char *out)
{
    size_t n = strlen(body);

    for (size_t i = 0; i <= n; i++)
        out[i] = body[i] == '\'' ? '"' : body[i];
    return n;
}

static enum tern_status parse(enum api_form_kind kind, const char *body)
{
    static char text[1 << 16];
    size_t n;

    assert_true(strlen(body) < sizeof text);
    n = quoted(body, text);
    api_request_free(&r);
    memset(&fault, 0, sizeof fault);
    return api_request_parse(&model, kind, text, n, &r, &fault);
}

static void take(enum api_form_kind kind, const char *body)
{
    if (parse(kind, body))
        fail_msg("%s: refused: %s (%s)", body, fault.err.text, fault.param);
}

/* A text request with these fields beside the prompt. */
static void text(const char *fields)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'prompt':'x'%s%s}", *fields ? "," : "", fields);
    take(API_TEXT, body);
}

static void refuse_kind(enum api_form_kind kind, const char *body, const char *param, const char *word)
{
    enum tern_status st = parse(kind, body);

    if (st < TERN_ERR_USAGE)
        fail_msg("%s: not refused", body);
    assert_null(r);
    assert_int_equal(fault.http, 400);
    if (strcmp(fault.param, param) != 0)
        fail_msg("%s: param is '%s', not '%s' (%s)", body, fault.param, param, fault.err.text);
    if (!strstr(fault.err.text, word))
        fail_msg("%s: '%s' does not say '%s'", body, fault.err.text, word);
}

static void refuse(const char *fields, const char *param, const char *word)
{
    char body[4096];

    (void)snprintf(body, sizeof body, "{'prompt':'x',%s}", fields);
    refuse_kind(API_TEXT, body, param, word);
}

/* -- values ---------------------------------------------------------------------------------------------- */

static void test_defaults(void **state)
{
    struct sample_options s;

    (void)state;
    sample_options_default(&s);
    text("");
    assert_true(r->gen.sample.temperature == s.temperature && r->gen.sample.top_k == s.top_k &&
                r->gen.sample.top_p == s.top_p && r->gen.sample.min_p == s.min_p);
    assert_true(r->gen.n_predict == UINT32_MAX && r->gen.n_logprobs == -1 && r->n == 1);
    assert_true(!r->seed_given && !r->stream && !r->echo && !r->no_cache && !r->grammar);
    assert_int_equal(r->prompts.n, 1);
    assert_int_equal(r->prompts.ids.n, 2);
    assert_int_equal(r->prompts.ids.ids[0], BOS);
    /* null says the same as nothing */
    text("'temperature':null,'stop':null,'seed':null,'n':null,'stream':null,'stream_options':null,"
         "'logprobs':null,'logit_bias':null,'user':null,'tools':null,'response_format':null,'echo':null,"
         "'suffix':null,'best_of':null,'max_tokens':null");
    assert_true(r->gen.sample.temperature == s.temperature && r->gen.n_predict == UINT32_MAX);
    /* what nobody knows is ignored */
    text("'frobnicate':[1,{}],'service_tier':'auto','metadata':{'a':'b'},'store':true,'model':'gpt-4'");
}

static void test_sampling(void **state)
{
    const struct sample_options *s;

    (void)state;
    text("'temperature':0.5,'top_k':7,'top_p':0.25,'min_p':0,'repeat_penalty':1.5,'frequency_penalty':-0.5,"
         "'presence_penalty':2,'repeat_last_n':-1,'seed':42");
    s = &r->gen.sample;
    assert_true(s->temperature == 0.5 && s->top_k == 7 && s->top_p == 0.25 && s->min_p == 0);
    assert_true(s->repeat_penalty == 1.5 && s->frequency_penalty == -0.5 && s->presence_penalty == 2);
    assert_true(s->repeat_last_n == -1 && s->seed == 42 && r->seed_given);
    text("'top_k':-1,'seed':-1");
    assert_true(r->gen.sample.top_k == 0 && !r->seed_given);
    text("'seed':4294967295");
    assert_false(r->seed_given);
    text("'seed':9223372036854775807,'top_k':5.0");
    assert_true(r->gen.sample.seed == INT64_MAX && r->gen.sample.top_k == 5);
    text("'samplers':['penalties','dry','top_k','typ_p','top_p','min_p','xtc','temperature']");
    assert_true(r->gen.sample.top_k == 40 && r->gen.sample.min_p > 0);
    text("'samplers':['top_p','temperature'],'top_p':0.5,'repeat_penalty':2");
    s = &r->gen.sample;
    assert_true(s->top_k == 0 && s->top_p == 0.5 && s->min_p == 0 && s->repeat_penalty == 1 &&
                s->temperature == 0.8);
    text("'samplers':[]");
    assert_true(r->gen.sample.temperature == 1 && r->gen.sample.top_p == 1);
}

static void test_lengths(void **state)
{
    (void)state;
    text("'max_tokens':5");
    assert_int_equal(r->gen.n_predict, 5);
    text("'max_tokens':5,'max_completion_tokens':6");
    assert_int_equal(r->gen.n_predict, 6);
    text("'max_tokens':5,'n_predict':7,'max_completion_tokens':6");
    assert_int_equal(r->gen.n_predict, 7);
    text("'n_predict':-1");
    assert_true(r->gen.n_predict == UINT32_MAX);
    text("'max_tokens':0");
    assert_int_equal(r->gen.n_predict, 0);
    model.max_tokens = 3;
    text("'max_tokens':5");
    assert_int_equal(r->gen.n_predict, 3);
    text("");
    assert_int_equal(r->gen.n_predict, 3);
    model.max_tokens = 0;
}

static void test_biases(void **state)
{
    const struct sample_bias *b;

    (void)state;
    text("'logit_bias':{'97':-100,'ab':1.5,'3':false}");
    b = r->gen.sample.bias;
    assert_int_equal(r->gen.sample.n_bias, 3);
    for (int i = 0; i < 3; i++) {
        float want = b[i].id == 97 ? -100 : b[i].id == AB ? 1.5F : -INFINITY;

        assert_true((b[i].id == 97 || b[i].id == AB || b[i].id == 3) && b[i].value == want);
    }
    text("'logit_bias':[[98,false],['ca',-0.5]]");
    b = r->gen.sample.bias;
    assert_int_equal(r->gen.sample.n_bias, 3);
    assert_true(b[0].id == 98 && isinf(b[0].value) && b[1].id == 'c' && b[2].id == 'a' &&
                b[2].value == -0.5F);
    text("'ignore_eos':true");
    assert_true(r->gen.ignore_eos && r->gen.sample.n_bias > 0 && isinf(r->gen.sample.bias[0].value));
    refuse("'logit_bias':{'261':1}", "logit_bias", "261");
    refuse("'logit_bias':{'-1':1}", "logit_bias", "-1");
    refuse("'logit_bias':{'7':'x'}", "logit_bias", "number");
    refuse("'logit_bias':{'7':true}", "logit_bias", "number");
    refuse("'logit_bias':{'7':1e300}", "logit_bias", "number");
    refuse("'logit_bias':[7]", "logit_bias", "pairs");
    refuse("'logit_bias':[[7,1,2]]", "logit_bias", "pairs");
    refuse("'logit_bias':[[{},1]]", "logit_bias", "object");
    refuse("'logit_bias':3", "logit_bias", "a number");
}

static void test_stops(void **state)
{
    (void)state;
    text("'stop':'abc'");
    assert_int_equal(r->gen.n_stops, 1);
    assert_string_equal(r->gen.stops[0], "abc");
    text("'stop':['a','','b\\n']");
    assert_int_equal(r->gen.n_stops, 2);
    assert_string_equal(r->gen.stops[1], "b\n");
    refuse("'stop':7", "stop", "a number");
    refuse("'stop':['a',7]", "stop[1]", "a number");
    refuse("'stop':['a\\u0000b']", "stop[0]", "NUL");
    refuse("'stop':['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17']", "stop",
           "16");
}

static void test_counts(void **state)
{
    (void)state;
    text("'n':3,'best_of':3");
    assert_int_equal(r->n, 3);
    text("'n_cmpl':2");
    assert_int_equal(r->n, 2);
    refuse("'n':0", "n", "1 to 128");
    refuse("'n':129", "n", "1 to 128");
    refuse("'n':1.5", "n", "whole");
    refuse("'best_of':2", "best_of", "equal");
    refuse_kind(API_TEXT, "{'prompt':['a','b'],'n':65}", "prompt", "128");
}

static void test_logprobs(void **state)
{
    (void)state;
    text("'logprobs':0");
    assert_int_equal(r->gen.n_logprobs, 0);
    text("'logprobs':5");
    assert_int_equal(r->gen.n_logprobs, 5);
    text("'n_probs':7");
    assert_int_equal(r->gen.n_logprobs, 7);
    take(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'logprobs':true}");
    assert_int_equal(r->gen.n_logprobs, 0);
    take(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'logprobs':true,'top_logprobs':20}");
    assert_int_equal(r->gen.n_logprobs, 20);
    take(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'logprobs':false}");
    assert_int_equal(r->gen.n_logprobs, -1);
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'top_logprobs':2}", "top_logprobs",
                "logprobs");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'logprobs':3}", "logprobs", "true");
    refuse("'logprobs':true", "logprobs", "number");
    refuse("'logprobs':101", "logprobs", "100");
    refuse("'echo':true,'logprobs':1", "echo", "logprobs");
}

static void test_switches(void **state)
{
    (void)state;
    text("'stream':true,'stream_options':{'include_usage':true},'echo':true,'cache_prompt':false,"
         "'return_tokens':true,'timings_per_token':true,'n_keep':-1,'user':'me'");
    assert_true(r->stream && r->include_usage && r->echo && r->no_cache && r->return_tokens &&
                r->timings_per_token && r->n_keep == -1 && tern_str_is(r->user, "me"));
    refuse("'stream':1", "stream", "true or false");
    refuse("'stream_options':{}", "stream_options", "stream");
    refuse("'stream':true,'stream_options':{'include_usage':'yes'}", "stream_options.include_usage",
           "string");
    refuse("'stream':true,'stream_options':[]", "stream_options", "array");
    refuse("'user':{}", "user", "object");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':'x'}],'echo':true}", "echo", "chat");
}

static void test_ranges(void **state)
{
    static const char *const numbers[] = { "temperature",
                                           "top_p",
                                           "min_p",
                                           "repeat_penalty",
                                           "frequency_penalty",
                                           "presence_penalty",
                                           "top_k",
                                           "repeat_last_n",
                                           "seed",
                                           "max_tokens",
                                           "max_completion_tokens",
                                           "n_predict",
                                           "n",
                                           "n_keep",
                                           "n_probs",
                                           "best_of" };
    static const char *const wrong[] = { "'x'", "true", "[]", "{}" };

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
            char fields[100];

            (void)snprintf(fields, sizeof fields, "'%s':%s", numbers[i], wrong[k]);
            refuse(fields, numbers[i], "number");
        }
    refuse("'temperature':-1.5", "temperature", "-1");
    refuse("'temperature':1e3", "temperature", "100");
    refuse("'top_p':1.1", "top_p", "1");
    refuse("'min_p':-0.1", "min_p", "0");
    refuse("'top_k':2147483648", "top_k", "2147483647");
    refuse("'top_k':1e300", "top_k", "whole");
    refuse("'max_tokens':-2", "max_tokens", "-1");
    refuse("'repeat_penalty':0", "repeat_penalty", "0.01");
    refuse("'seed':0.5", "seed", "whole");
}

static void test_unsupported(void **state)
{
    static const char *const off[] = {
        "'tools':[]",           "'tool_choice':'none'",  "'tool_choice':'auto'",
        "'functions':[]",       "'modalities':['text']", "'mirostat':0",
        "'dynatemp_range':0.0", "'xtc_probability':0",   "'dry_multiplier':0",
        "'typical_p':1.0",      "'top_n_sigma':-1",      "'lora':[]",
        "'suffix':''",          "'min_keep':0",          "'post_sampling_probs':false",
        "'n_indent':0"
    };
    static const char *const on[][2] = {
        { "'tools':[{'type':'function'}]", "tools" },
        { "'tool_choice':'required'", "tool_choice" },
        { "'tool_choice':{'type':'function'}", "tool_choice" },
        { "'functions':[{}]", "functions" },
        { "'function_call':{'name':'f'}", "function_call" },
        { "'modalities':['text','audio']", "modalities" },
        { "'modalities':['audio']", "modalities" },
        { "'audio':{'voice':'x'}", "audio" },
        { "'web_search_options':{}", "web_search_options" },
        { "'suffix':'x'", "suffix" },
        { "'mirostat':1", "mirostat" },
        { "'dynatemp_range':0.5", "dynatemp_range" },
        { "'xtc_probability':0.5", "xtc_probability" },
        { "'dry_multiplier':0.8", "dry_multiplier" },
        { "'typical_p':0.9", "typical_p" },
        { "'top_n_sigma':1", "top_n_sigma" },
        { "'lora':[{'id':0,'scale':1}]", "lora" },
        { "'grammar_lazy':true", "grammar_lazy" },
        { "'post_sampling_probs':true", "post_sampling_probs" },
        { "'t_max_predict_ms':5", "t_max_predict_ms" },
        { "'min_keep':2", "min_keep" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        text(off[i]);
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++) {
        refuse(on[i][0], on[i][1], "not supported");
        assert_string_equal(fault.code, "unsupported_parameter");
    }
    refuse("'samplers':['temperature','top_k']", "samplers", "order");
    refuse("'samplers':['mirostat']", "samplers", "mirostat");
    refuse("'samplers':[7]", "samplers", "names");
    refuse("'samplers':'kpt'", "samplers", "array");
}

/* -- prompts --------------------------------------------------------------------------------------------- */

static void check_ids(size_t i, const int32_t *want, size_t n)
{
    assert_true(i < r->prompts.n);
    assert_int_equal(r->prompts.from[i + 1] - r->prompts.from[i], n);
    assert_memory_equal(r->prompts.ids.ids + r->prompts.from[i], want, n * sizeof *want);
}

static void test_prompts(void **state)
{
    (void)state;
    take(API_TEXT, "{'prompt':'cab'}");
    check_ids(0, (const int32_t[]){ BOS, 'c', AB }, 3);
    take(API_TEXT, "{'prompt':[1,2,260]}");
    check_ids(0, (const int32_t[]){ 1, 2, 260 }, 3);
    take(API_TEXT, "{'prompt':[7,'c',8]}");
    check_ids(0, (const int32_t[]){ 7, 'c', 8 }, 3);
    take(API_TEXT, "{'prompt':['a',8]}");
    check_ids(0, (const int32_t[]){ BOS, 'a', 8 }, 3);
    take(API_TEXT, "{'prompt':['a','b']}");
    check_ids(0, (const int32_t[]){ BOS, 'a' }, 2);
    check_ids(1, (const int32_t[]){ BOS, 'b' }, 2);
    take(API_TEXT, "{'prompt':[[1,2],'b',[3,'c']]}");
    check_ids(0, (const int32_t[]){ 1, 2 }, 2);
    check_ids(1, (const int32_t[]){ BOS, 'b' }, 2);
    check_ids(2, (const int32_t[]){ 3, 'c' }, 2);
    take(API_LLAMA, "{'prompt':{'prompt_string':'a'}}");
    check_ids(0, (const int32_t[]){ BOS, 'a' }, 2);
    /* as with llama-server, who writes a prompt may write control tokens */
    take(API_TEXT, "{'prompt':'<|im_end|>'}");
    check_ids(0, (const int32_t[]){ BOS, IM_END }, 2);

    refuse_kind(API_TEXT, "{}", "prompt", "missing");
    refuse_kind(API_TEXT, "{'prompt':null}", "prompt", "missing");
    refuse_kind(API_TEXT, "{'prompt':7}", "prompt", "string");
    refuse_kind(API_TEXT, "{'prompt':[]}", "prompt", "empty");
    refuse_kind(API_TEXT, "{'prompt':[261]}", "prompt", "261");
    refuse_kind(API_TEXT, "{'prompt':[-1]}", "prompt", "-1");
    refuse_kind(API_TEXT, "{'prompt':[1,1.5]}", "prompt", "1.5");
    refuse_kind(API_TEXT, "{'prompt':[1,null]}", "prompt", "null");
    refuse_kind(API_TEXT, "{'prompt':['a',[]]}", "prompt[1]", "empty");
    refuse_kind(API_TEXT, "{'prompt':[['a',{}]]}", "prompt[0]", "object");
    refuse_kind(API_TEXT, "{'prompt':{'prompt_string':'a','multimodal_data':['x']}}", "prompt", "multimodal");
}

static void test_too_long(void **state)
{
    char body[400] = "{'prompt':'";
    json_t *j;

    (void)state;
    for (int i = 0; i < CTX; i++)
        strcat(body, "x");
    strcat(body, "'}");
    refuse_kind(API_TEXT, body, "prompt", "65 tokens and the context 64");
    assert_string_equal(fault.code, "context_length_exceeded");
    j = api_fault_json(&fault, false);
    assert_non_null(j);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "error"), "n_prompt_tokens")), 65);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "error"), "n_ctx")), CTX);
    json_decref(j);
    body[strlen(body) - 3] = '\0'; /* one token less */
    strcat(body, "'}");
    take(API_TEXT, body);
}

/* -- conversations --------------------------------------------------------------------------------------- */

static bool ids_are(const char *text)
{
    const struct tern_ids *ids = &r->prompts.ids;
    size_t n = 0;

    for (size_t i = 0; i < ids->n; i++) {
        struct tern_str p = tern_tokenizer_piece(model.tok, ids->ids[i], true);

        if (strncmp(text + n, p.ptr, p.len) != 0)
            return false;
        n += p.len;
    }
    return text[n] == '\0';
}

static void test_messages(void **state)
{
    model.ctx = 1000;
    (void)state;
    take(API_CHAT, "{'messages':[{'role':'developer','content':'s'},{'role':'user','content':'u'}]}");
    assert_true(ids_are("<s><|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
                        "<|im_start|>assistant\n"));
    assert_true(r->gen.end_id && *r->gen.end_id == IM_END);
    take(API_CHAT, "{'messages':[{'role':'user','content':[{'type':'text','text':'a'},"
                   "{'type':'text','text':'b'}]}]}");
    assert_true(ids_are("<s><|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"));
    /* nobody's words become control tokens */
    take(API_CHAT, "{'messages':[{'role':'user','content':'<|im_end|>'}]}");
    assert_true(ids_are("<s><|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n"));
    {
        size_t n = 0;

        for (size_t i = 0; i < r->prompts.ids.n; i++)
            n += r->prompts.ids.ids[i] == IM_END;
        assert_int_equal(n, 1);
    }
    /* an assistant's last words are gone on with */
    take(API_CHAT, "{'messages':[{'role':'user','content':'u'},{'role':'assistant','content':'Sure'}]}");
    assert_true(ids_are("<s><|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\nSure"));
    model.ctx = CTX;

    refuse_kind(API_CHAT, "{}", "messages", "missing");
    refuse_kind(API_CHAT, "{'messages':[]}", "messages", "0");
    refuse_kind(API_CHAT, "{'messages':'hi'}", "messages", "string");
    refuse_kind(API_CHAT, "{'messages':[7]}", "messages[0]", "object");
    refuse_kind(API_CHAT, "{'messages':[{'content':'x'}]}", "messages[0].role", "string");
    refuse_kind(API_CHAT, "{'messages':[{'role':'king','content':'x'}]}", "messages[0].role", "king");
    refuse_kind(API_CHAT, "{'messages':[{'role':'tool','content':'x'}]}", "messages[0].role", "tools");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user'}]}", "messages[0].content", "missing");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':null}]}", "messages[0].content", "null");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':[7]}]}", "messages[0].content[0]", "object");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':[{'type':'image_url','image_url':{}}]}]}",
                "messages[0].content[0]", "image_url");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':[{'type':'text'}]}]}",
                "messages[0].content[0]", "text");
    refuse_kind(API_CHAT, "{'messages':[{'role':'assistant','content':'x','tool_calls':[{}]}]}",
                "messages[0]", "tool");
    model.format = NULL;
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':'x'}]}", "messages", "chat-template");
    model.format = tern_chat_format_by_name("chatml");
}

/* -- what an answer must look like ----------------------------------------------------------------------- */

static void test_format(void **state)
{
    (void)state;
    text("'response_format':{'type':'text'}");
    assert_null(r->grammar);
    text("'response_format':{'type':'json_object'}");
    assert_non_null(r->grammar);
    text("'response_format':{'type':'json_schema','json_schema':{'name':'x','strict':true,"
         "'schema':{'type':'object','properties':{'a':{'type':'integer'}},'required':['a']}}}");
    assert_non_null(r->grammar);
    text("'response_format':{'type':'json_object','schema':{'type':'string'}}");
    assert_non_null(r->grammar);
    text("'json_schema':{'type':'array','items':{'type':'boolean'}}");
    assert_non_null(r->grammar);
    text("'grammar':'root ::= [a-c]+'");
    assert_non_null(r->grammar);
    text("'grammar':''");
    assert_null(r->grammar);
    refuse("'response_format':'json'", "response_format", "object");
    refuse("'response_format':{'type':'xml'}", "response_format.type", "xml");
    refuse("'response_format':{'type':7}", "response_format.type", "number");
    refuse("'response_format':{'type':'json_schema'}", "response_format.json_schema.schema", "missing");
    refuse("'response_format':{'type':'json_schema','json_schema':[]}", "response_format.json_schema",
           "array");
    refuse("'response_format':{'type':'json_object'},'grammar':'root ::= [a]'", "grammar", "exclude");
    refuse("'json_schema':{},'grammar':'root ::= [a]'", "grammar", "exclude");
    refuse("'grammar':7", "grammar", "number");
    refuse("'grammar':'root ::= ('", "grammar", "line");
    refuse("'json_schema':{'type':'unicorn'}", "json_schema", "unicorn");
}

/* -- hostile bodies -------------------------------------------------------------------------------------- */

static void refuse_bytes(const char *body, size_t n, const char *word)
{
    api_request_free(&r);
    memset(&fault, 0, sizeof fault);
    assert_true(api_request_parse(&model, API_TEXT, body, n, &r, &fault) >= TERN_ERR_USAGE);
    assert_null(r);
    assert_int_equal(fault.http, 400);
    if (!strstr(fault.err.text, word))
        fail_msg("'%s' does not say '%s'", fault.err.text, word);
}

static void test_hostile(void **state)
{
    static char big[3 << 20];
    static const char *const bad[][2] = {
        { "", "line 1" },
        { "{", "line 1" },
        { "[1]", "array" },
        { "7", "number" },
        { "null", "null" },
        { "{\"prompt\":\"x\",}", "column" },
        { "{\"prompt\":\"x\"} {}", "line 1" },
        { "{\"prompt\":\"x\",\"prompt\":\"y\"}", "duplicate" },
        { "{\"prompt\":\"\xff\"}", "UTF-8" },
        { "{\"prompt\":\"\xc3\x28\"}", "UTF-8" },
        { "{\"prompt\":\"\\ud800\"}", "Unicode" },
        { "{\"prompt\":\"x\",\"seed\":99999999999999999999}", "integer" },
        { "{\"prompt\":\"x\",\"top_p\":1e999}", "real" },
        { "{\"prompt\":\"x\",\"top_p\":NaN}", "token" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse_bytes(bad[i][0], strlen(bad[i][0]), bad[i][1]);
    memset(big, '[', 1000);
    refuse_bytes(big, 1000, "nested");
    big[0] = '[';
    for (size_t i = 0; i < sizeof big / 3; i++)
        memcpy(big + 3 * i, "[],", 3);
    refuse_bytes(big, sizeof big, "objects and arrays");
    memset(big, ',', sizeof big);
    refuse_bytes(big, sizeof big, "values");
    memset(big, 'x', sizeof big); /* a long text is no crime, only too long for this context */
    memcpy(big, "{\"prompt\":\"", 11);
    memcpy(big + sizeof big - 2, "\"}", 2);
    refuse_bytes(big, sizeof big, "tokens and the context");
}

/* -- refusals as JSON ------------------------------------------------------------------------------------ */

static void test_fault(void **state)
{
    json_t *j, *e;

    (void)state;
    refuse("'temperature':'hot'", "temperature", "string");
    j = api_fault_json(&fault, false);
    e = json_object_get(j, "error");
    assert_string_equal(json_string_value(json_object_get(e, "type")), "invalid_request_error");
    assert_string_equal(json_string_value(json_object_get(e, "param")), "temperature");
    assert_string_equal(json_string_value(json_object_get(e, "code")), "invalid_type");
    json_decref(j);
    api_fault_http(&fault, 503, "busy");
    assert_int_equal(fault.retry_after_s, 1);
    j = api_fault_json(&fault, true);
    e = json_object_get(j, "error");
    assert_int_equal(json_integer_value(json_object_get(e, "code")), 503);
    assert_string_equal(json_string_value(json_object_get(e, "type")), "unavailable_error");
    assert_true(json_is_null(json_object_get(e, "param")));
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_sampling), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_biases),      cmocka_unit_test(test_stops),    cmocka_unit_test(test_counts),
        cmocka_unit_test(test_logprobs),    cmocka_unit_test(test_switches), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_unsupported), cmocka_unit_test(test_prompts),  cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_messages),    cmocka_unit_test(test_format),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_fault),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
