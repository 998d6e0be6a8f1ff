/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers from publishers' folders: the same ids as from a GGUF of the same vocabulary, whichever file it
 * comes in; what the files around it say; and files that are wrong.
 */
#include "unit/hf_folder.h"

#include "engine/vocab.h"

/* -- the same as from GGUF ---------------------------------------------------------------------------- */

static void expect_equal(const struct tern_tokenizer *a, const struct tern_tokenizer *b, const char *text,
                         size_t n, bool parse)
{
    struct tern_ids ids = { 0 }, same = { 0 };

    assert_ok(tern_tokenizer_encode(a, text, n, true, parse, &ids, &unit_err));
    assert_ok(tern_tokenizer_encode(b, text, n, true, parse, &same, &unit_err));
    assert_int_equal(ids.n, same.n);
    assert_memory_equal(ids.ids, same.ids, ids.n * sizeof *ids.ids);
    free(ids.ids);
    free(same.ids);
}

/* Stories, random Unicode and special tokens. */
static void expect_equal_everywhere(const struct tern_tokenizer *a, const struct tern_tokenizer *b)
{
    size_t n;
    char *text = shared_file("models/fable/validation.txt", &n);
    uint64_t seed = 8;

    expect_equal(a, b, text, n, true);
    free(text);
    for (int round = 0; round < 2000; round++) {
        char made[256];
        size_t len = 0;

        while (len < 200)
            if (unit_random(&seed) % 4)
                made[len++] = "the  a1n<|'s\n"[unit_random(&seed) % 13];
            else
                len += tern_vocab_map((const char[]){ (char)unit_random(&seed) }, 1, made + len);
        expect_equal(a, b, made, len, round % 2);
    }
    assert_int_equal(tern_tokenizer_n_vocab(a), tern_tokenizer_n_vocab(b));
    assert_int_equal(tern_tokenizer_bos(a), tern_tokenizer_bos(b));
    assert_int_equal(tern_tokenizer_eos(a), tern_tokenizer_eos(b));
    assert_int_equal(tern_tokenizer_add_bos(a), tern_tokenizer_add_bos(b));
    for (int32_t id = 0; id < (int32_t)tern_tokenizer_n_vocab(a); id++) {
        struct tern_str sa = tern_tokenizer_piece(a, id, true), sb = tern_tokenizer_piece(b, id, true);

        assert_true(tern_str_eq(sa, sb));
        assert_int_equal(tern_tokenizer_type(a, id), tern_tokenizer_type(b, id));
        assert_int_equal(tern_tokenizer_is_eog(a, id), tern_tokenizer_is_eog(b, id));
    }
}

static void test_fable(void **state)
{
    char path[4096];
    size_t n;
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

/* -- SentencePiece ------------------------------------------------------------------------------------ */

static void put_varint(struct vocab_writer *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        vocab_put(w, (const uint8_t[]){ (uint8_t)(v | 0x80) }, 1);
    vocab_put(w, (const uint8_t[]){ (uint8_t)v }, 1);
}

static void put_message(struct vocab_writer *w, unsigned number, const void *bytes, size_t n)
{
    put_varint(w, number << 3 | 2);
    put_varint(w, n);
    vocab_put(w, bytes, n);
}

static void put_piece(struct vocab_writer *w, struct tern_str text, float score, uint64_t type)
{
    struct vocab_writer piece = { 0 };

    put_message(&piece, 1, text.ptr, text.len);
    put_varint(&piece, 2 << 3 | 5);
    vocab_put(&piece, &score, 4);
    if (type != TERN_TOKEN_NORMAL) {
        put_varint(&piece, 3 << 3);
        put_varint(&piece, type);
    }
    put_message(w, 1, piece.bytes, piece.n);
    free(piece.bytes);
}

/* The pieces of a vocabulary file, as SentencePiece would write them. */
static void put_model(struct vocab_writer *w, const struct tern_gguf *g)
{
    static const uint8_t trainer[] = { 3 << 3, 2, 0xc0, 2, 0 },
                         normalizer[] = { 1 << 3 | 2, 8, 'i', 'd', 'e', 'n', 't', 'i', 't', 'y', 3 << 3, 1 };
    const struct tern_gguf_kv *tokens = tern_gguf_find(g, "tokenizer.ggml.tokens");
    const struct tern_gguf_kv *scores = tern_gguf_find(g, "tokenizer.ggml.scores");
    const struct tern_gguf_kv *types = tern_gguf_find(g, "tokenizer.ggml.token_type");
    struct tern_cursor c;
    struct tern_str text;

    tern_cursor_init(&c, tokens->data, tokens->bytes);
    for (uint64_t i = 0; i < tokens->n; i++) {
        assert_true(tern_gguf_next_string(&c, &text));
        put_piece(w, text, (float)tern_gguf_array_f64(scores, i), (uint64_t)tern_gguf_array_i64(types, i));
    }
    put_message(w, 2, trainer, sizeof trainer);
    put_message(w, 3, normalizer, sizeof normalizer);
}

static void test_sentencepiece(void **state)
{
    size_t n;
    char *file = shared_file("tokenizers/llama-spm.vocab.gguf", &n);
    struct vocab_writer w = { 0 };
    struct tern_tokenizer *a, *b;
    struct tern_gguf *g;
    struct folder f;

    (void)state;
    assert_ok(tern_gguf_parse("vocab", file, n, &g, &unit_err));
    put_model(&w, g);
    tern_gguf_close(&g);
    folder_make(&f);
    folder_put(&f, "tokenizer.model", w.bytes, w.n);
    assert_ok(load(file, n, NULL, &a));
    assert_ok(folder_tokenizer(f.path, 32000, NULL, &b));
    expect_equal_everywhere(a, b);
    tern_tokenizer_free(&b);

    /* What is cut off anywhere is refused; but the description of the normaliser, the last 14 bytes, may be
     * missing as a whole. */
    for (size_t cut = w.n - 40; cut < w.n; cut++) {
        f.n = 0;
        folder_put(&f, "tokenizer.model", w.bytes, cut);
        assert_int_equal(folder_tokenizer(f.path, 32000, NULL, &b) == TERN_OK, cut == w.n - 14);
        tern_tokenizer_free(&b);
    }
    assert_int_equal(folder_tokenizer(f.path, 31999, NULL, &b), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "beyond the 31999 tokens"));
    folder_remove(&f);
    tern_tokenizer_free(&a);
    free(w.bytes);
    free(file);
}

/* A merge of a converted tokenizer: how a token can be put together of two. */
struct pair {
    uint32_t id, left, right;
    float score;
};

static int by_score(const void *a, const void *b)
{
    const struct pair *pa = a, *pb = b;

    return pa->score != pb->score ? (pa->score < pb->score ? 1 : -1) : (pa->id > pb->id) - (pa->id < pb->id);
}

/* The text of a token as tokenizer.json has it. */
static void put_json_text(FILE *f, struct tern_str s, bool space)
{
    fputc('"', f);
    for (size_t i = 0; i < s.len; i++) {
        if (space && s.ptr[i] == ' ')
            fputs("\xe2\x96\x81", f);
        else if (s.ptr[i] == '"' || s.ptr[i] == '\\' || (uint8_t)s.ptr[i] < 0x20)
            fprintf(f, "\\u%04x", (uint8_t)s.ptr[i]);
        else
            fputc(s.ptr[i], f);
    }
    fputc('"', f);
}

/* tokenizer.json of the kind that converters make of SentencePiece's models. */
static char *json_of_spm(const struct tern_gguf *g, size_t *n_out)
{
    const struct tern_gguf_kv *tokens = tern_gguf_find(g, "tokenizer.ggml.tokens");
    const struct tern_gguf_kv *scores = tern_gguf_find(g, "tokenizer.ggml.scores");
    struct tern_vocab v;
    struct tern_cursor c;
    struct tern_str text;
    struct pair *pairs = malloc(200000 * sizeof *pairs);
    size_t n = 0;
    char *json;
    FILE *f = open_memstream(&json, n_out);

    assert_ok(tern_vocab_load(&v, g, true, &unit_err));
    assert_true(f && pairs);
    fputs("{\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true},"
          "{\"id\": 1, \"content\": \"<s>\", \"special\": true},"
          "{\"id\": 2, \"content\": \"</s>\", \"special\": true}],"
          "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
          "\"\xe2\x96\x81\"}, {\"type\": \"Replace\"}]}, \"pre_tokenizer\": null, \"post_processor\": {"
          "\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
          "{\"Sequence\": {\"id\": \"A\"}}]}, \"decoder\": {\"type\": \"Sequence\"}, \"model\": {\"type\": "
          "\"BPE\", \"unk_token\": \"<unk>\", \"byte_fallback\": true, \"vocab\": {",
          f);
    tern_cursor_init(&c, tokens->data, tokens->bytes);
    for (uint32_t i = 0; i < tokens->n; i++) {
        assert_true(tern_gguf_next_string(&c, &text));
        fputs(i ? ", " : "", f);
        put_json_text(f, text, false);
        fprintf(f, ": %u", i);
        text = tern_vocab_text(&v, i);
        for (size_t k = 1; (v.flags[i] & TERN_VOCAB_PLAIN) && k < text.len; k++) {
            uint32_t left = tern_vocab_find_plain(&v, text.ptr, k);
            uint32_t right = tern_vocab_find_plain(&v, text.ptr + k, text.len - k);

            if (left == TERN_NO_TOKEN || right == TERN_NO_TOKEN)
                continue;
            assert_true(n < 200000);
            pairs[n++] = (struct pair){ i, left, right, (float)tern_gguf_array_f64(scores, i) };
        }
    }
    qsort(pairs, n, sizeof *pairs, by_score);
    fputs("}, \"merges\": [", f);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ", [" : "[", f);
        put_json_text(f, tern_vocab_text(&v, pairs[i].left), true);
        fputs(", ", f);
        put_json_text(f, tern_vocab_text(&v, pairs[i].right), true);
        fputs("]", f);
    }
    fputs("]}}", f);
    fclose(f);
    tern_vocab_free(&v);
    free(pairs);
    return json;
}

static void test_converted_sentencepiece(void **state)
{
    size_t n, n_json;
    char *file = shared_file("tokenizers/llama-spm.vocab.gguf", &n), *json;
    struct tern_tokenizer *a, *b;
    struct tern_gguf *g;
    struct folder f;

    (void)state;
    assert_ok(tern_gguf_parse("vocab", file, n, &g, &unit_err));
    json = json_of_spm(g, &n_json);
    tern_gguf_close(&g);
    folder_make(&f);
    folder_put(&f, "tokenizer.json", json, n_json);
    folder_text(&f, "tokenizer_config.json",
                "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"model_max_length\": "
                "1000000000000000019884624838656}");
    assert_ok(load(file, n, NULL, &a));
    assert_ok(folder_tokenizer(f.path, 32000, NULL, &b));
    expect_equal_everywhere(a, b);
    folder_remove(&f);
    tern_tokenizer_free(&a);
    tern_tokenizer_free(&b);
    free(json);
    free(file);
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
                "{\"eos_token\": \"ab\", \"pad_token\": {\"content\": \"[x]\"}, \"added_tokens_decoder\": "
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
    tern_gguf_close(&g);
    free(bytes);

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
        { "[]", TERN_ERR_FORMAT, "no object" },
        { "{\"a\": 1, \"a\": 2}", TERN_ERR_FORMAT, "not valid JSON" },
        { "{}", TERN_ERR_UNSUPPORTED, "neither byte-level" },
        { "{\"model\": 7}", TERN_ERR_UNSUPPORTED, "neither byte-level" },
        { "{\"model\": {\"type\": \"Unigram\"}}", TERN_ERR_UNSUPPORTED, "'Unigram'" },
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
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_converted_sentencepiece),
        cmocka_unit_test(test_small_folder),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_wrong_json),
        cmocka_unit_test(test_wrong_models),
        cmocka_unit_test(test_wrong_neighbours),
    };
    return cmocka_run_group_tests_name("hf_tokenizer", tests, NULL, NULL);
}
