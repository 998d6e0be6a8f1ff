/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece's models in publishers' folders: as tokenizer.model, and converted to tokenizer.json.
 */
#include "unit/hf_folder.h"

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

/* As Gemma's: no space in front, spaces and lines as added tokens, neither pre-tokenizer nor post-processor
 * that counts. */
static void test_like_gemma(void **state)
{
    static const char json[] = "{\"added_tokens\": [{\"id\": 1, \"content\": \"<bos>\", \"special\": true}, "
                               "{\"id\": 2, \"content\": "
                               "\"<end_of_turn>\", \"special\": true}, {\"id\": 7, \"content\": "
                               "\"\xe2\x96\x81\xe2\x96\x81\", \"special\": "
                               "false}, {\"id\": 8, \"content\": \"\\n\\n\", \"special\": false}], "
                               "\"normalizer\": {\"type\": \"Replace\", "
                               "\"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}, "
                               "\"pre_tokenizer\": {\"type\": \"Split\", "
                               "\"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\"}, "
                               "\"model\": {\"type\": \"BPE\", "
                               "\"unk_token\": \"<unk>\", \"byte_fallback\": true, \"vocab\": {\"<unk>\": 0, "
                               "\"<bos>\": 1, \"<end_of_turn>\": "
                               "2, \"a\": 3, \"\xe2\x96\x81\": 4, \"\xe2\x96\x81"
                               "a\": 5, \"aa\": 6, \"\xe2\x96\x81\xe2\x96\x81\": 7, \"\\n\\n\": 8, "
                               "\"<0x0A>\": 9, \"b\": 10}, \"merges\": "
                               "[[\"\xe2\x96\x81\", \"a\"], [\"a\", \"a\"]]}}";
    struct tern_tokenizer *t;
    struct folder f;

    (void)state;
    folder_make(&f);
    folder_text(&f, "tokenizer.json", json);
    folder_text(&f, "tokenizer_config.json",
                "{\"bos_token\": \"<bos>\", \"add_bos_token\": true, \"add_eos_token\": false}");
    assert_ok(folder_tokenizer(f.path, 14, NULL, &t));
    expect_ids(t, "aaa a", 5, true, true, "1 6 3 5");
    expect(t, "a  b\n\n\n", "3 7 10 8 9");
    expect(t, "\xc3\xa9 a", "0 5"); /* neither its bytes nor U+FFFD's are there */
    expect_same(t, "a  aa\n\n\n<end_of_turn> a", 23, true);
    assert_true(tern_tokenizer_is_eog(t, 2));
    assert_int_equal(tern_tokenizer_eos(t), -1);
    assert_int_equal(tern_tokenizer_type(t, 13), TERN_TOKEN_UNUSED);
    tern_tokenizer_free(&t);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_converted_sentencepiece),
        cmocka_unit_test(test_like_gemma),
    };
    return cmocka_run_group_tests_name("hf_sentencepiece", tests, NULL, NULL);
}
