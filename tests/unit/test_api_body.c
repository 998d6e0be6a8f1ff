/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests: prompts, conversations, what an answer must look like, hostile JSON, and refusals as
 * JSON.
 */
#include "unit/api_bed.h"

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
    /* Before it is encoded, by the longest token there is. */
    model.longest = 1;
    refuse_kind(API_TEXT,
                "{'prompt':[[1],'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']}",
                "prompt[1]", "at least 65 tokens");
    assert_string_equal(fault.type, "exceed_context_size_error");
    model.longest = 2;
    take(API_TEXT, body);
    model.longest = 0;
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

#define TALK "'messages':[{'role':'user','content':'u'},{'role':'assistant','content':'v'}]"

/* How messages become a text: variables of a template, and whether the last message goes on. */
static void test_manners(void **state)
{
    static const char going[] = "<s><|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\nv",
                      ended[] = "<s><|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\nv<|im_end|>\n",
                      anew[] = "<s><|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\nv<|im_end|>\n"
                               "<|im_start|>assistant\n";
    static const char file[] = "{% if enable_thinking is false %}x{% endif %}{{ my_date }}";

    (void)state;
    model.ctx = 1000;
    take(API_CHAT, "{" TALK ",'add_generation_prompt':false}");
    assert_true(ids_are(ended));
    take(API_CHAT, "{" TALK ",'chat_template_kwargs':{'add_generation_prompt':false,'no_such':[1]}}");
    assert_true(ids_are(ended));
    take(API_CHAT, "{" TALK ",'continue_final_message':true,'add_generation_prompt':false}");
    assert_true(ids_are(going));
    take(API_CHAT, "{" TALK ",'continue_final_message':true}");
    assert_true(ids_are(going));
    take(API_CHAT, "{" TALK ",'continue_final_message':false}");
    assert_true(ids_are(anew));
    refuse_kind(API_CHAT, "{" TALK ",'continue_final_message':true,'add_generation_prompt':true}",
                "continue_final_message", "exclude");
    refuse_kind(API_CHAT, "{'messages':[{'role':'user','content':'u'}],'continue_final_message':true}",
                "continue_final_message", "assistant");

    /* What no template reads has no effect anywhere; what one reads, and a format cannot, would have had. */
    take(API_CHAT, "{" TALK ",'chat_template_kwargs':{'enable_thinking':false,'date':'x','my_dates':1}}");
    assert_true(ids_are(going));
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':{'messages':[]}}", "chat_template_kwargs",
                "'messages'");
    model.template = (struct tern_str){ file, sizeof file - 1 };
    take(API_CHAT, "{" TALK ",'chat_template_kwargs':{'enable_thinking':null,'date':'x','my_dates':1}}");
    assert_true(ids_are(going));
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':{'enable_thinking':false}}",
                "chat_template_kwargs", "'enable_thinking'");
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':{'my_date':1}}", "chat_template_kwargs",
                "chatml");
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':{'enable_thinking':'false'}}",
                "chat_template_kwargs.enable_thinking", "true or false");
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':{'add_generation_prompt':1}}",
                "chat_template_kwargs.add_generation_prompt", "number");
    refuse_kind(API_CHAT, "{" TALK ",'chat_template_kwargs':[]}", "chat_template_kwargs", "array");
    take(API_TEXT, "{'prompt':'x','chat_template_kwargs':7}");
    model.template = (struct tern_str){ NULL, 0 };
    model.ctx = CTX;
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
    refuse("'json_schema':{'type':'unicorn'}", "json_schema", "types are");
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
        { "", "empty" },
        { "{", "line 1" },
        { "[1]", "array" },
        { "7", "expected" },
        { "null", "expected" },
        { "{\"prompt\":\"x\",}", "column" },
        { "{\"prompt\":\"x\"} {}", "line 1" },
        { "{\"prompt\":\"x\",\"prompt\":\"y\"}", "duplicate" },
        { "{\"prompt\":\"\xff\"}", "decode byte" },
        { "{\"prompt\":\"\xc3\x28\"}", "decode byte" },
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
        cmocka_unit_test(test_prompts), cmocka_unit_test(test_too_long), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_manners), cmocka_unit_test(test_format),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_fault),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
