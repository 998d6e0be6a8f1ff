/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON schemas as grammars: texts that match and that do not, refusals with their places, and schemas made to
 * take forever.  Random schemas are in tests/e2e/json_schemas.py.
 */
#include "unit/made_vocab.h"

#include "coordinator/grammar.h"
#include "engine/base/log.h"

static struct tern_tokenizer *tok; /* bytes */
static struct grammar_vocab *vocab;

static enum tern_status compile(const char *schema, struct grammar **g)
{
    json_t *json = json_loads(schema, JSON_DECODE_ANY, NULL);
    enum tern_status st;

    assert_non_null(json);
    st = grammar_schema(json, g, &unit_err);
    json_decref(json);
    return st;
}

/* 2: the text is whole, 1: it may go on to be, 0: it cannot. */
static int match(const struct grammar *g, const char *text)
{
    struct grammar_state *s;
    int fits = 1;

    assert_ok(grammar_state_new(g, vocab, &s, &unit_err));
    for (; *text && fits; text++)
        fits = grammar_accept(s, (uint8_t)*text);
    fits += fits && grammar_is_whole(s);
    grammar_state_free(&s);
    return fits;
}

struct sample {
    const char *schema, *yes[6], *no[8];
};

static void check(const struct sample *t)
{
    struct grammar *g;
    const struct grammar *held;

    if (compile(t->schema, &g))
        fail_msg("%s: %s", t->schema, unit_err.text);
    for (int i = 0; i < 6 && t->yes[i]; i++)
        if (match(g, t->yes[i]) != 2)
            fail_msg("%s: '%s' is not matched", t->schema, t->yes[i]);
    for (int i = 0; i < 8 && t->no[i]; i++)
        if (match(g, t->no[i]) == 2)
            fail_msg("%s: '%s' is matched", t->schema, t->no[i]);
    held = g;
    grammar_drop(&held);
}

static void test_matches(void **state)
{
    static const struct sample samples[] = {
        { "{}", { "1", "\"x\"", "null", "[1, {\"a\": [ ] }]", "{}" }, { "", "x", "[1,]", "{\"a\"}", "01" } },
        { "true", { "-0.5e+3", "[[[]]]" }, { "+1", ".5", "1.", "nul" } },
        { "{\"type\": \"integer\", \"minimum\": -12, \"maximum\": 345}",
          { "-12", "-9", "0", "7", "99", "345" },
          { "-13", "-20", "346", "400", "1000", "00", "-0", "1.0" } },
        { "{\"type\": \"integer\", \"exclusiveMinimum\": 9.5, \"exclusiveMaximum\": 100}",
          { "10", "99" },
          { "9", "100" } },
        { "{\"type\": \"number\", \"exclusiveMinimum\": -1, \"maximum\": 1}",
          { "-0.999999", "0", "-0.5", "1", "1.0", "0.25" },
          { "-1", "-1.0", "1.1", "2", "-2" } },
        { "{\"type\": [\"string\", \"null\"], \"maxLength\": 2}",
          { "null", "\"\"", "\"ab\"", "\"\\n\\u00e9\"" },
          { "\"abc\"", "1" } },
        { "{\"type\": \"string\"}",
          { "\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"" },
          { "\"\\ud83d\"", "\"\\ude00\"", "\"\n\"", "\"\\x\"" } },
        { "{\"enum\": [\"a\", 1, null, [true], {\"k\": \"\\\"\"}]}",
          { "\"a\"", "1", "null", "[true]", "{\"k\":\"\\\"\"}" },
          { "\"b\"", "true" } },
        { "{\"type\": \"string\", \"enum\": [\"a\", 1]}", { "\"a\"" }, { "1" } },
        { "{\"enum\": [0.1, {\"k\": 0.30000000000000004}]}",
          { "0.1", "{\"k\":0.30000000000000004}" },
          { "0.10000000000000001", "{\"k\":0.3}" } },
        { "{\"const\": \"\xc3\xa9\"}", { "\"\xc3\xa9\"" }, { "\"e\"" } },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}, \"b\": {\"type\": \"null\"}, "
          "\"c\": {\"type\": \"null\"}}, \"required\": [\"b\"]}",
          { "{\"b\":null}", "{ \"a\": null, \"b\": null }", "{\"b\":null,\"c\":null}",
            "{\n  \"a\": null,\n  \"b\": null,\n  \"c\": null\n}" },
          { "{}", "{\"a\":null}", "{\"b\":null,\"a\":null}", "{\"b\":null,}", "{\"b\":null,\"d\":null}",
            "{  \"b\":null}", "{\"b\":1}" } },
        { "{\"properties\": {\"ab\": {\"type\": \"null\"}, \"a\\\"\": {\"type\": \"null\"}}, "
          "\"additionalProperties\": {\"type\": \"integer\"}}",
          { "{}", "{\"ab\":null,\"a\":1}", "{\"abc\":1,\"b\":2,\"\":3}", "{\"a\\\"\":null}" },
          { "{\"ab\":1}", "{\"a\":1,\"ab\":null}", "{\"\\u0061b\":1}", "{\"a\\\"\":1}", "{\"a\"\":1}" } },
        { "{\"type\": \"object\"}", { "{}", "{\"x\":[1]}" }, { "[]" } },
        { "{\"type\": \"object\", \"required\": [\"z\"]}", { "{\"z\":1}", "{\"z\":1,\"y\":2}" }, { "{}" } },
        { "{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1, \"maxItems\": 3}",
          { "[true]", "[true, false,true]" },
          { "[]", "[true,true,true,true]", "[1]" } },
        { "{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}, {\"const\": 2}], \"items\": {\"const\": "
          "3}, "
          "\"maxItems\": 4}",
          { "[1,2]", "[1,2,3]", "[1, 2, 3, 3]" },
          { "[]", "[1]", "[2,1]", "[1,2,3,3,3]" } },
        { "{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}]}", { "[1]" }, { "[1,2]" } },
        { "{\"items\": [{\"const\": 1}], \"additionalItems\": true}", { "[1]", "[1,\"x\"]" }, { "[2]" } },
        { "{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"null\"}], \"description\": \"x\"}",
          { "1", "null" },
          { "\"x\"" } },
        { "{\"$ref\": \"#/$defs/a~1b%20c\", \"$defs\": {\"a/b c\": {\"const\": 5}}}", { "5" }, { "6" } },
        { "{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}", { "[]", "[[],[[]]]" }, { "[1]" } },
        { "{\"allOf\": [{\"$ref\": \"#/definitions/p\"}, {\"properties\": {\"b\": {\"const\": 2}}, "
          "\"required\": "
          "[\"b\"]}], \"definitions\": {\"p\": {\"type\": \"object\", \"properties\": {\"a\": {\"const\": "
          "1}}}}}",
          { "{\"a\":1,\"b\":2}", "{\"b\":2}" },
          { "{\"a\":1}", "{}" } },
        { "{\"type\": \"string\", \"pattern\": \"^\\\\d{2}[a-c\\\"]?(x|y)+$\"}",
          { "\"12x\"", "\"12ax\"", "\"12\\\"xy\"" },
          { "\"1x\"", "\"12\"", "\"12dx\"" } },
        { "{\"type\": \"string\", \"pattern\": \"b\"}",
          { "\"b\"", "\"abc\"", "\"\\nb\"" },
          { "\"a\"", "\"\"" } },
        { "{\"type\": \"string\", \"format\": \"date-time\"}",
          { "\"2024-02-28T23:59:59Z\"" },
          { "\"2024-02-30T00:00:00Z\"", "\"2024-13-01T00:00:00Z\"", "\"2024-01-01\"" } },
        { "{\"type\": \"string\", \"format\": \"ipv4\"}",
          { "\"255.0.1.20\"" },
          { "\"256.0.0.1\"", "\"1.2.3\"" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
        check(&samples[i]);
}

static void test_refused(void **state)
{
    static const struct {
        const char *schema, *why;
    } t[] = {
        { "1", "#: a schema is an object, or true" },
        { "false", "#: false matches nothing" },
        { "{\"properties\": {\"a\": {\"items\": {\"not\": {}}}}}", "#/properties/a/items/not: this keyword" },
        { "{\"anyOf\": [{}, {\"if\": {}}]}", "#/anyOf/1/if: this keyword is not supported" },
        { "{\"type\": \"array\", \"uniqueItems\": true}", "#/uniqueItems" },
        { "{\"type\": \"number\", \"multipleOf\": 0.5}", "#/multipleOf" },
        { "{\"type\": \"number\", \"minimum\": 0.5}", "#/minimum: numbers can be bounded by integers only" },
        { "{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 4}", "no number is within" },
        { "{\"type\": \"integer\", \"minimum\": 1e30}", "at most 18 digits" },
        { "{\"type\": \"integer\", \"minimum\": \"x\"}", "#/minimum: must be a number" },
        { "{\"type\": \"text\"}", "#/type: types are" },
        { "{\"type\": []}", "#/type" },
        { "{\"minLength\": 1, \"minItems\": 1}", "keywords of several types" },
        { "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}", "#/minLength" },
        { "{\"type\": \"string\", \"minLength\": -1}", "#/minLength" },
        { "{\"type\": \"string\", \"maxLength\": 99999999}", "#/maxLength" },
        { "{\"type\": \"string\", \"pattern\": \"(?=a)\"}", "#/pattern: of groups" },
        { "{\"type\": \"string\", \"pattern\": \"a^\"}", "#/pattern: ^ and $" },
        { "{\"type\": \"string\", \"pattern\": \"(a\"}", "#/pattern: a parenthesis" },
        { "{\"type\": \"string\", \"pattern\": \"a)\"}", "#/pattern: a parenthesis" },
        { "{\"type\": \"string\", \"pattern\": \"\\\\1\"}", "#/pattern: this escape" },
        { "{\"type\": \"string\", \"pattern\": \"a{3,2}\"}", "#/pattern" },
        { "{\"type\": \"string\", \"pattern\": \"a\", \"maxLength\": 3}", "#/pattern: cannot be combined" },
        { "{\"enum\": [1], \"minimum\": 3}", "#/minimum: cannot stand beside enum" },
        { "{\"enum\": []}", "#/enum" },
        { "{\"type\": \"string\", \"const\": 1}", "#/const: there is no value of the type" },
        { "{\"anyOf\": [{}], \"type\": \"string\"}", "#/type: cannot stand beside anyOf" },
        { "{\"anyOf\": []}", "#/anyOf" },
        { "{\"$ref\": \"http://x\"}", "#/$ref: only references within" },
        { "{\"$ref\": \"#/nowhere\"}", "#/$ref: there is nothing" },
        { "{\"$ref\": \"#\"}", "refers to itself" },
        { "{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}", "refers to itself" },
        { "{\"allOf\": [{\"properties\": {\"a\": {}}}, {\"properties\": {\"a\": {}}}]}",
          "#/allOf: two of them" },
        { "{\"allOf\": [{\"type\": \"string\"}, {}]}", "#/allOf: only objects" },
        { "{\"type\": \"object\", \"properties\": {}, \"required\": [\"a\"], \"additionalProperties\": "
          "false}",
          "#/required: names a property" },
        { "{\"type\": \"array\", \"prefixItems\": [{}], \"minItems\": 2}", "#/minItems" },
        { "{\"type\": \"object\", \"properties\": []}", "properties is an object" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct grammar *g;

        if (!compile(t[i].schema, &g) || !strstr(unit_err.text, t[i].why))
            fail_msg("%s: '%s'", t[i].schema, unit_err.text);
    }
}

/* Bounded: deep ones, many properties that may all be left out, many alternatives, numbers without end. */
static void test_hostile(void **state)
{
    char *text = malloc(1 << 20);
    struct grammar *g;
    const struct grammar *held;
    const uint64_t t0 = tern_now_ns();
    size_t n = 0;

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < 1000; i++)
        n += (size_t)sprintf(text + n, "{\"type\": \"array\", \"items\": ");
    n += (size_t)sprintf(text + n, "{\"not\": {}}");
    memset(text + n, '}', 1000);
    text[n + 1000] = '\0';
    assert_int_not_equal(compile(text, &g), TERN_OK);
    assert_non_null(strstr(unit_err.text, "#.../items/items/"));

    n = (size_t)sprintf(text, "{\"type\": \"object\", \"properties\": {");
    for (int i = 0; i < 1500; i++)
        n += (size_t)sprintf(text + n, "%s\"property%d\": {\"type\": \"null\"}", i ? ", " : "", i);
    sprintf(text + n, "}}");
    assert_ok(compile(text, &g));
    assert_int_equal(match(g, "{\"property0\":null,\"property700\":null,\"property1499\":null}"), 2);
    assert_int_equal(match(g, "{\"property7\":null,\"property6\":null}"), 0);
    held = g;
    grammar_drop(&held);

    n = (size_t)sprintf(text, "{\"enum\": [");
    for (int i = 0; i < 60000; i++)
        n += (size_t)sprintf(text + n, "%s%d", i ? "," : "", i);
    sprintf(text + n, "]}");
    assert_int_equal(compile(text, &g), TERN_ERR_LIMIT);
    assert_int_equal(compile("{\"type\": \"array\", \"items\": {}, \"maxItems\": 60000}", &g),
                     TERN_ERR_LIMIT);
    assert_ok(compile("{\"type\": \"array\", \"items\": {\"type\": \"string\", \"maxLength\": 20000}, "
                      "\"maxItems\": 1000}",
                      &g)); /* the string is written once */
    held = g;
    grammar_drop(&held);
    assert_true(tern_now_ns() - t0 < 60u * 1000000000u);
    free(text);
}

static void test_json_object(void **state)
{
    struct grammar *g;
    const struct grammar *held;

    (void)state;
    assert_ok(grammar_json_object(&g, &unit_err));
    assert_int_equal(match(g, "{\"a\": [1, -2.5e-1, \"\\u00e9\", {\"b\": null}], \"c\":true}"), 2);
    assert_int_equal(match(g, "{\n                    "), 1);
    assert_int_equal(match(g, "{\n                     "), 0); /* blanks have an end */
    assert_int_equal(match(g, "[1]"), 0);
    assert_int_equal(match(g, "{} "), 0);
    held = g;
    grammar_drop(&held);
}

static int set_up(void **state)
{
    static struct made m;

    (void)state;
    made_begin(&m, "llama-bpe");
    made_merges(&m, NULL);
    assert_ok(made_load(&m, NULL, &tok));
    assert_ok(grammar_vocab_new(tok, 256, &vocab, &unit_err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    grammar_vocab_free(&vocab);
    tern_tokenizer_free(&tok);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_json_object),
    };
    return cmocka_run_group_tests_name("grammar schema", tests, set_up, tear_down);
}
