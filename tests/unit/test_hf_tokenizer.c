/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers from publishers' folders: the same ids as from a GGUF of the same vocabulary, whichever file it
 * comes in; what the files around it say; and files that are wrong.
 */
#include "unit/hf_folder.h"

/* -- the same as from GGUF ---------------------------------------------------------------------------- */

static void test_fable(void **state)
{
    char path[4096];
    size_t n = 0;
    char *file = shared_file("models/fable/fable.gguf", &n);
    struct tern_tokenizer *a, *b;

    (void)state;
    assert_ok(load(file, n, NULL, &a));
    assert_ok(folder_tokenizer(shared_path("models/fable/hf", path), 4096, NULL, &b));
    assert_string_equal(tern_tokenizer_pre(b), "llama-bpe");
    assert_string_equal(tern_tokenizer_pre_source(b), "file");
    expect_equal_everywhere(a, b);
    tern_tokenizer_free(&a);
    tern_tokenizer_free(&b);
    free(file);
}

static void test_tiktoken(void **state)
{
    size_t n, n_list;
    char *file = shared_file("tokenizers/llama-bpe.vocab.gguf", &n), *bytes;
    char *list = shared_file("tokenizers/llama3.tiktoken", &n_list);
    struct tern_tokenizer *a, *b;
    struct tern_gguf *g, *h;
    struct folder f;

    (void)state;
    folder_make(&f);
    folder_put(&f, "tokenizer.model", list, n_list);
    assert_ok(load(file, n, NULL, &a));
    assert_ok(folder_tokenizer(f.path, 128256, NULL, &b));
    expect_equal_everywhere(a, b);
    tern_tokenizer_free(&a);
    tern_tokenizer_free(&b);

    /* Even the lists are. */
    assert_ok(tern_gguf_parse("vocab", file, n, &g, &unit_err));
    assert_ok(folder_open(f.path, 128256, &bytes, &h));
    for (int i = 0; i < 2; i++) {
        const char *key = i ? "tokenizer.ggml.merges" : "tokenizer.ggml.tokens";
        const struct tern_gguf_kv *of_g = tern_gguf_find(g, key), *of_h = tern_gguf_find(h, key);

        assert_int_equal(of_g->bytes, of_h->bytes);
        assert_memory_equal(of_g->data, of_h->data, of_g->bytes);
    }
    tern_gguf_close(&g);
    tern_gguf_close(&h);
    free(bytes);
    folder_remove(&f);
    free(file);
    free(list);
}

/* -- what the files say ------------------------------------------------------------------------------- */

#define BPE_HEAD                                                                                             \
    "{\"added_tokens\": [{\"id\": 5, \"content\": \"<|end|>\", \"special\": true}, "                         \
    "{\"id\": 6, \"content\": \"[x]\", \"special\": false}], "
#define BPE_MODEL                                                                                            \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\xc4\xa0\": "               \
    "3, \"\xc4\xa0"                                                                                          \
    "ab\": 4}, \"merges\": [\"a b\", [\"\xc4\xa0\", \"ab\"]]}"
#define GPT2_PRE "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "

static void test_small_folder(void **state)
{
    struct tern_tokenizer *t;
    struct tern_gguf *g;
    struct tern_str text;
    struct folder f;
    char *bytes;
    uint64_t eot;

    (void)state;
    folder_make(&f);
    folder_text(
        &f, "tokenizer.json",
        BPE_HEAD GPT2_PRE
        "\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": "
        "\"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": "
        "\"<|end|>\"}}], \"special_tokens\": {\"<|end|>\": {\"ids\": [5]}}}]}, " BPE_MODEL "}");
    folder_text(&f, "tokenizer_config.json",
                "{\"eos_token\": \"ab\", \"unk_token\": \"a\", \"pad_token\": {\"content\": \"[x]\"}, "
                "\"added_tokens_decoder\": "
                "{\"99999999999999999999999\": {\"content\": \"far\"}, \"8\": "
                "{\"content\": \"<|late|>\", \"special\": true}}, \"chat_template\": [{\"name\": \"tool\", "
                "\"template\": \"no\"}, {\"name\": \"default\", \"template\": \"{{ yes }}\"}]}");
    folder_text(&f, "generation_config.json", "{\"bos_token_id\": 8, \"eos_token_id\": [5, 8]}");
    assert_ok(folder_tokenizer(f.path, 12, NULL, &t));
    assert_string_equal(tern_tokenizer_pre(t), "gpt-2");
    assert_int_equal(tern_tokenizer_n_vocab(t), 12);
    expect_ids(t, "ab ab[x]<|late|>", 16, true, true, "2 4 6 8 5");
    assert_int_equal(tern_tokenizer_bos(t), 8);
    assert_int_equal(tern_tokenizer_eos(t), 5); /* what the template appends, not what the name says */
    assert_false(tern_tokenizer_add_bos(t));
    assert_true(tern_tokenizer_is_eog(t, 5) && tern_tokenizer_is_eog(t, 8));
    assert_int_equal(tern_tokenizer_type(t, 6), TERN_TOKEN_USER);
    assert_int_equal(tern_tokenizer_type(t, 7), TERN_TOKEN_UNUSED);
    assert_int_equal(tern_tokenizer_find(t, "[PAD11]"), -1);
    tern_tokenizer_free(&t);
    assert_ok(folder_open(f.path, 12, &bytes, &g));
    assert_ok(tern_gguf_string(g, "tokenizer.chat_template", &text, &unit_err));
    assert_true(tern_str_is(text, "{{ yes }}"));
    assert_ok(tern_gguf_u64(g, "tokenizer.ggml.eot_token_id", &eot, &unit_err));
    assert_int_equal(eot, 8);
    assert_ok(tern_gguf_u64(g, "tokenizer.ggml.padding_token_id", &eot, &unit_err));
    assert_int_equal(eot, 6);
    assert_null(tern_gguf_find(g, "tokenizer.ggml.unknown_token_id"));
    tern_gguf_close(&g);
    free(bytes);

    folder_text(&f, "generation_config.json", "{\"eos_token_id\": 8}"); /* not the tokenizer's, which is 5 */
    assert_ok(folder_tokenizer(f.path, 12, NULL, &t));
    assert_int_equal(tern_tokenizer_eos(t), 5);
    assert_true(tern_tokenizer_is_eog(t, 5) && tern_tokenizer_is_eog(t, 8));
    tern_tokenizer_free(&t);
    folder_text(&f, "generation_config.json", "{\"eos_token_id\": 2}"); /* a word */
    assert_ok(folder_tokenizer(f.path, 12, NULL, &t));
    assert_false(tern_tokenizer_is_eog(t, 2));
    tern_tokenizer_free(&t);

    folder_text(&f, "chat_template.jinja", "{{ file }}"); /* the newer place has the say */
    assert_ok(folder_open(f.path, 12, &bytes, &g));
    assert_ok(tern_gguf_string(g, "tokenizer.chat_template", &text, &unit_err));
    assert_true(tern_str_is(text, "{{ file }}"));
    tern_gguf_close(&g);
    free(bytes);
    folder_remove(&f);
}

static void test_pre_tokenizers(void **state)
{
#define SPLIT(expr)                                                                                          \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" expr                                                 \
    "\"}, \"behavior\": \"Isolated\", \"invert\": false}"
#define TAIL  " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define HEAD  "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define CASED                                                                                                \
    HEAD UPPER "*" LOWER "+|" HEAD UPPER "+" LOWER "*|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*"    \
               "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
    static const struct {
        const char *steps, *name;
    } kinds[] = {
        { SPLIT(WORDS "\\\\p{N}{1,3}|" TAIL) ", " BYTES, "llama-bpe" },
        { SPLIT(WORDS "\\\\p{N}|" TAIL) ", " BYTES, "qwen2" },
        { "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}", "gpt-2" },
        { "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, {\"type\": \"ByteLevel\"}, {\"type\": "
          "\"Digits\", \"individual_digits\": false}, " SPLIT("[0-9][0-9][0-9]"),
          "falcon" },
        { "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, {\"type\": \"ByteLevel\"}, {\"type\": "
          "\"Digits\", \"individual_digits\": true}",
          "falcon3" },
        { "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, {\"type\": \"ByteLevel\"}, " SPLIT(
              "[0-9]") ", " SPLIT("[0-9][0-9][0-9]"),
          "falcon3" },
        { "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, " SPLIT(
              CASED) ", " BYTES ", {\"type\": \"Digits\", \"individual_digits\": true}",
          "falcon_e" },
        { "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, " SPLIT(CASED) ", " BYTES
                                                                                     ", " SPLIT("[0-9]"),
          "falcon_e" },
        { SPLIT("\\\\p{L}+") ", " BYTES, NULL },
        { SPLIT(WORDS "\\\\p{N}{1,3}|" TAIL) ", " BYTES ", " BYTES, NULL },
        { "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", NULL },
    };
    struct tern_tokenizer *t;
    char json[4096];
    struct folder f;

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        folder_make(&f);
        snprintf(json, sizeof json,
                 BPE_HEAD "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [%s]}, " BPE_MODEL
                          "}",
                 kinds[i].steps);
        folder_text(&f, "tokenizer.json", json);
        if (kinds[i].name) {
            assert_ok(folder_tokenizer(f.path, 7, NULL, &t));
            assert_string_equal(tern_tokenizer_pre(t), kinds[i].name);
        } else { /* the model opens; for texts somebody has to choose */
            assert_int_equal(folder_tokenizer(f.path, 7, NULL, &t), TERN_ERR_UNSUPPORTED);
            assert_non_null(strstr(unit_err.text, "--pre"));
            assert_ok(folder_tokenizer(f.path, 7, "gpt-2", &t));
        }
        expect(t, "ab ab", "2 4");
        tern_tokenizer_free(&t);
        folder_remove(&f);
    }
}

/* Without a template nothing is put around a text; an older folder's added tokens stand in a file of their
 * own. */
static void test_older_folder(void **state)
{
    struct tern_tokenizer *t;
    struct folder f;

    (void)state;
    folder_make(&f);
    folder_text(&f, "tokenizer.json", BPE_HEAD GPT2_PRE BPE_MODEL "}");
    folder_text(&f, "config.json", "{\"bos_token_id\": 0, \"eos_token_id\": 5}");
    assert_ok(folder_tokenizer(f.path, 8, "llama-bpe", &t)); /* whose custom it is to add BOS */
    assert_false(tern_tokenizer_add_bos(t));
    expect_ids(t, "ab", 2, true, true, "2");
    assert_int_equal(tern_tokenizer_bos(t), 0);
    assert_int_equal(tern_tokenizer_eos(t), 5);
    tern_tokenizer_free(&t);
    folder_remove(&f);

    folder_make(&f);
    folder_text(&f, "tokenizer.model", "YQ== 0\nYg== 1\nYWI= 2\n");
    folder_text(&f, "added_tokens.json", "{\"<pad>\": 3, \"[y]\": 4, \"<far>\": 9}");
    assert_ok(folder_tokenizer(f.path, 6, "gpt-2", &t));
    expect_ids(t, "ab<pad>[y]", 10, false, true, "2 3 4");
    assert_int_equal(tern_tokenizer_type(t, 3), TERN_TOKEN_CONTROL);
    assert_int_equal(tern_tokenizer_type(t, 4), TERN_TOKEN_USER);
    tern_tokenizer_free(&t);
    folder_text(&f, "added_tokens.json", "{\"<pad>\": \"3\"}");
    assert_int_equal(folder_tokenizer(f.path, 6, "gpt-2", &t), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "added_tokens.json: '<pad>' has no number"));
    folder_remove(&f);
}

/* -- wrong files -------------------------------------------------------------------------------------- */

static void test_wrong_json(void **state)
{
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}"
    static const struct {
        const char *json;
        enum tern_status status;
        const char *sentence;
    } wrong[] = {
        { "{", TERN_ERR_FORMAT, "not valid JSON" },
        { "[]", TERN_ERR_FORMAT, "not an object" },
        { "{\"a\": 1, \"a\": 2}", TERN_ERR_FORMAT, "not valid JSON" },
        { "{}", TERN_ERR_UNSUPPORTED, "neither byte-level" },
        { "{\"model\": 7}", TERN_ERR_UNSUPPORTED, "neither byte-level" },
        { "{\"model\": {\"type\": \"Unigram\"}}", TERN_ERR_UNSUPPORTED, "'Unigram'" },
        { "{" GPT2_PRE "\"model\": {\"end_of_word_suffix\": \"</w>\"}}", TERN_ERR_UNSUPPORTED,
          "ends of words" },
        { "{" GPT2_PRE "\"model\": {}}", TERN_ERR_FORMAT, "model.vocab" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": []}}", TERN_ERR_FORMAT, "model.vocab" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": {\"a\": -1}}}", TERN_ERR_FORMAT, "'a' has no number" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": {\"a\": 0.5}}}", TERN_ERR_FORMAT, "'a' has no number" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": {\"a\": 1e300}}}", TERN_ERR_FORMAT, "'a' has no number" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": {\"a\": 8}}}", TERN_ERR_FORMAT, "beyond the 8 tokens" },
        { "{" GPT2_PRE "\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}}}", TERN_ERR_FORMAT, "two tokens 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB "}}", TERN_ERR_FORMAT, "model.merges is not" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [\"ab\"]}}", TERN_ERR_FORMAT, "merge 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [7]}}", TERN_ERR_FORMAT, "merge 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [[\"a\"]]}}", TERN_ERR_FORMAT, "merge 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [[\"a\", \"b\", \"c\"]]}}", TERN_ERR_FORMAT,
          "merge 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [[\"a\", \"b c\"]]}}", TERN_ERR_FORMAT,
          "merge 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": [[\"a\", \"zz\"]]}}", TERN_ERR_FORMAT, "merge 0" },
        { "{\"model\": {\"byte_fallback\": true, " VOCAB ", \"merges\": [\"a a\"]}}", TERN_ERR_FORMAT,
          "makes 'aa'" },
        { "{" GPT2_PRE "\"added_tokens\": [{\"id\": 3}], \"model\": {" VOCAB ", \"merges\": []}}",
          TERN_ERR_FORMAT, "added token 0" },
        { "{" GPT2_PRE "\"model\": {" VOCAB ", \"merges\": []}, \"post_processor\": {\"type\": "
          "\"TemplateProcessing\", \"single\": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}",
          TERN_ERR_LIMIT, "17 parts around a text" },
    };
    struct tern_tokenizer *t = NULL;
    struct folder f;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        folder_make(&f);
        folder_text(&f, "tokenizer.json", wrong[i].json);
        if (folder_tokenizer(f.path, 8, NULL, &t) != wrong[i].status ||
            !strstr(unit_err.text, wrong[i].sentence))
            fail_msg("%s: '%s' does not say '%s'", wrong[i].json, unit_err.text, wrong[i].sentence);
        assert_null(t);
        folder_remove(&f);
    }
}

/* Small things in great numbers, which take far more memory than their text. */
static void test_json_without_end(void **state)
{
    size_t n = 20000000;
    char *json = malloc(n);
    struct tern_tokenizer *t = NULL;
    struct folder f;

    (void)state;
    assert_non_null(json);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < n; i++)
            json[i] = (kind ? "1," : "[]")[i % 2];
        folder_make(&f);
        folder_put(&f, "tokenizer.json", json, n);
        assert_int_equal(folder_tokenizer(f.path, 8, NULL, &t), TERN_ERR_LIMIT);
        assert_non_null(strstr(unit_err.text, "so many small parts"));
        folder_remove(&f);
    }
    free(json);
}

static void test_wrong_models(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *sentence;
    } wrong[] = {
#define BYTES_OF(s) s, sizeof s - 1
        { BYTES_OF("\n\x7f"), "cut off" },
        { BYTES_OF("\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "cut off" },
        { BYTES_OF("\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "cut off" },
        { BYTES_OF("\n\x03\n\x01"
                   "a"),
          "kind 1" },
        { BYTES_OF("\n\x03\n\x7f"
                   "a"),
          "a piece is cut off" },
        { BYTES_OF("\n\x05\n\x01"
                   "a\x18\x07"),
          "unknown type" },
        { BYTES_OF("\n\x03\n\x01\0"), "zero byte" },
        { BYTES_OF("\n\x08\n\x01"
                   "a\x15\x00\x00\xc0\x7f"),
          "not a number" },
        { BYTES_OF("\n\x00\x13"), "cut off" },
        { BYTES_OF("IQ== 1\n"), "line 1" },
        { BYTES_OF("IQ=="), "line 1" },
        { BYTES_OF("IQ== \n"), "line 1" },
        { BYTES_OF("IQ= 0\n"), "line 1" },
        { BYTES_OF("I=Q= 0\n"), "line 1" },
        { BYTES_OF("==== 0\n"), "line 1" },
        { BYTES_OF("IQ== 0\nIg== 99999999999999999999\n"), "line 2" },
        { BYTES_OF("IQ== 0\nIg== 1\nIw== 2\n"), "more tokens than the 2" },
        { BYTES_OF("hello"), "line 1" },
    };
    struct tern_tokenizer *t = NULL;
    struct folder f;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        folder_make(&f);
        folder_put(&f, "tokenizer.model", wrong[i].bytes, wrong[i].n);
        unit_err.text[0] = '\0';
        if (folder_tokenizer(f.path, 2, NULL, &t) == TERN_OK || !strstr(unit_err.text, wrong[i].sentence))
            fail_msg("model %zu: '%s' does not say '%s'", i, unit_err.text, wrong[i].sentence);
        assert_null(t);
        folder_remove(&f);
    }
}

static void test_wrong_neighbours(void **state)
{
    static const char *const wrong[] = {
        "{",
        "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
        "{\"added_tokens_decoder\": {\"-1\": {\"content\": \"a\"}}}",
        "{\"added_tokens_decoder\": {\"5\": {}}}",
        "{\"added_tokens_decoder\": {\"1 \": {\"content\": \"a\"}}}",
    };
    struct tern_tokenizer *t = NULL;
    struct folder f;

    (void)state;
    folder_make(&f);
    assert_int_equal(folder_tokenizer(f.path, 8, NULL, &t), TERN_END);
    assert_int_equal(folder_tokenizer(f.path, 0, NULL, &t), TERN_ERR_LIMIT);
    assert_int_equal(folder_tokenizer(f.path, UINT32_MAX, NULL, &t), TERN_ERR_LIMIT);
    folder_text(&f, "tokenizer.json", BPE_HEAD GPT2_PRE BPE_MODEL "}");
    folder_text(&f, "tokenizer_config.json",
                "{\"eos_token\": 7, \"added_tokens_decoder\": 3, \"chat_template\": 1}");
    assert_ok(folder_tokenizer(f.path, 8, NULL, &t));
    assert_int_equal(tern_tokenizer_eos(t), -1);
    tern_tokenizer_free(&t);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        f.n = 1;
        folder_text(&f, "tokenizer_config.json", wrong[i]);
        assert_int_equal(folder_tokenizer(f.path, 8, NULL, &t), TERN_ERR_FORMAT);
        assert_non_null(strstr(unit_err.text, "tokenizer_config.json"));
    }
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fable),
        cmocka_unit_test(test_tiktoken),
        cmocka_unit_test(test_small_folder),
        cmocka_unit_test(test_older_folder),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_wrong_json),
        cmocka_unit_test(test_json_without_end),
        cmocka_unit_test(test_wrong_models),
        cmocka_unit_test(test_wrong_neighbours),
    };
    return cmocka_run_group_tests_name("hf_tokenizer", tests, NULL, NULL);
}
