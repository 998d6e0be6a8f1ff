/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of a request: what each one sets, and one refusal with its name for each mistake.
 */
#include "unit/api_bed.h"

#include <math.h>

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

static uint32_t length_of(const char *fields)
{
    text(fields);
    return r->gen.n_predict;
}

static void test_lengths(void **state)
{
    (void)state;
    assert_int_equal(length_of("'max_tokens':5"), 5);
    assert_int_equal(length_of("'max_tokens':5,'max_completion_tokens':6"), 6);
    assert_int_equal(length_of("'max_tokens':5,'n_predict':7,'max_completion_tokens':6"), 7);
    assert_true(length_of("'n_predict':-1") == UINT32_MAX);
    assert_int_equal(length_of("'max_tokens':0"), 0);
    model.max_tokens = 3;
    assert_int_equal(length_of("'max_tokens':5"), 3);
    assert_int_equal(length_of(""), 3);
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

static int logprobs_of(void (*take_fields)(const char *), const char *fields)
{
    take_fields(fields);
    return r->gen.n_logprobs;
}

static void test_logprobs(void **state)
{
    (void)state;
    assert_int_equal(logprobs_of(text, "'logprobs':0"), 0);
    assert_int_equal(logprobs_of(text, "'logprobs':5"), 5);
    assert_int_equal(logprobs_of(text, "'n_probs':7"), 7);
    assert_int_equal(logprobs_of(chat, "'logprobs':true"), 0);
    assert_int_equal(logprobs_of(chat, "'logprobs':true,'top_logprobs':20"), 20);
    assert_int_equal(logprobs_of(chat, "'logprobs':false"), -1);
    refuse_chat("'top_logprobs':2", "top_logprobs", "logprobs");
    refuse_chat("'logprobs':3", "logprobs", "true");
    refuse("'logprobs':true", "logprobs", "number");
    refuse("'logprobs':101", "logprobs", "100");
    refuse("'echo':true,'logprobs':1", "echo", "logprobs");
}

/* A whole answer is counted by what it may come to. */
static void test_logprobs_of_all(void **state)
{
    (void)state;
    model.ctx = 4096;
    text("'logprobs':62,'n':1");
    refuse_kind(API_TEXT, "{'prompt':'x','logprobs':100}", "logprobs", "4095");
    text("'logprobs':100,'stream':true,'n':128");
    text("'logprobs':100,'max_tokens':20,'n':128");
    refuse_kind(API_TEXT, "{'prompt':'x','logprobs':100,'max_tokens':21,'n':128}", "logprobs", "max_tokens");
    refuse_kind(API_TEXT, "{'prompt':['x','x','x'],'logprobs':30}", "logprobs", "stream");
    model.shift = true; /* without an end */
    refuse_kind(API_LLAMA, "{'prompt':'x','n_probs':1}", "logprobs", "4294967295");
    refuse_kind(API_LLAMA, "{'prompt':'x','n_probs':1,'stream':true}", "logprobs", "max_tokens");
    take(API_LLAMA, "{'prompt':'x','n_probs':1,'stream':true,'n_predict':131072}");
    model.shift = false;
    model.ctx = CTX;
}

static void test_switches(void **state)
{
    (void)state;
    text("'stream':true,'stream_options':{'include_usage':true},'echo':true,'cache_prompt':false,"
         "'return_tokens':true,'timings_per_token':true,'n_keep':-1,'user':'me','return_progress':true,"
         "'response_fields':7");
    assert_true(r->stream && r->include_usage && r->echo && r->no_cache && r->return_tokens &&
                r->timings_per_token && r->return_progress && !r->response_fields && r->n_keep == -1 &&
                tern_str_is(r->user, "me"));
    take(API_LLAMA, "{'prompt':'x','response_fields':['content','timings/predicted_ms']}");
    assert_int_equal(json_array_size(r->response_fields), 2);
    refuse_kind(API_LLAMA, "{'prompt':'x','response_fields':['content',{}]}", "response_fields", "object");
    refuse_kind(API_LLAMA, "{'prompt':'x','response_fields':'content'}", "response_fields", "array");
    refuse("'stream':1", "stream", "true or false");
    refuse("'stream_options':{}", "stream_options", "stream");
    refuse("'stream':true,'stream_options':{'include_usage':'yes'}", "stream_options.include_usage",
           "string");
    refuse("'stream':true,'stream_options':[]", "stream_options", "array");
    refuse("'user':{}", "user", "object");
    refuse_chat("'echo':true", "echo", "chat");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_lengths),     cmocka_unit_test(test_biases),
        cmocka_unit_test(test_stops),       cmocka_unit_test(test_counts),
        cmocka_unit_test(test_logprobs),    cmocka_unit_test(test_logprobs_of_all),
        cmocka_unit_test(test_switches),    cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_unsupported),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
