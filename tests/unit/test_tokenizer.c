/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer from outside: known ids of known texts, special tokens, damaged vocabularies.
 */
#include "unit/token_strings.h"

/* -- known vocabularies ------------------------------------------------------------------------------- */

static void test_gpt2_strings(void **state)
{
    (void)state;
    check_strings("gpt-2", "gpt-2");
}

static void test_falcon_strings(void **state)
{
    (void)state;
    check_strings("falcon", "falcon");
}

static void test_llama_strings(void **state)
{
    (void)state;
    check_strings("llama-bpe", "llama-bpe");
}

static void test_llama_vectors(void **state)
{
    size_t n;
    char *vocab = shared_file("tokenizers/llama-bpe.vocab.gguf", &n);
    struct tern_tokenizer *t;

    (void)state;
    assert_ok(load(vocab, n, NULL, &t));
    expect(t, "hello", "15339");
    expect(t, "Hello, I'm 25 years old in 2024.\n\nWhat's up?",
           "9906 11 358 2846 220 914 1667 2362 304 220 2366 19 382 3923 596 709 30");
    expect(t, "User: What is 12345+678?<", "1502 25 3639 374 220 4513 1774 10 17458 76514");
    expect(t, "a=b+c; // x", "64 22861 50238 26 443 865");
    expect(t, "ied 4 \xc2\xbd months", "1142 220 19 220 27154 4038");
    expect_ids(t, "hello<|eot_id|>", 15, true, true, "128000 15339 128009");
    assert_true(tern_tokenizer_is_eog(t, 128001) && tern_tokenizer_is_eog(t, 128009));
    for (int32_t id = 0; id < 128256; id++) /* exactly these */
        assert_int_equal(tern_tokenizer_is_eog(t, id), id == 128001 || id == 128009);
    tern_tokenizer_free(&t);
    free(vocab);
}

/* The key tokenizer.ggml.pre taken away: the vocabulary itself tells; and the caller may overrule. */
static void test_llama_without_pre(void **state)
{
    size_t n;
    char *vocab = shared_file("tokenizers/llama-bpe.vocab.gguf", &n);
    char *key = memmem(vocab, n, "tokenizer.ggml.pre", 18);
    struct tern_tokenizer *t;

    (void)state;
    assert_non_null(key);
    memcpy(key, "tokenizer.ggml.prx", 18);
    assert_ok(load(vocab, n, NULL, &t));
    assert_string_equal(tern_tokenizer_pre(t), "llama-bpe");
    assert_string_equal(tern_tokenizer_pre_source(t), "guessed");
    assert_true(tern_tokenizer_add_bos(t));
    expect(t, "I'm", "40 2846");
    tern_tokenizer_free(&t);

    assert_ok(load(vocab, n, "default", &t));
    assert_string_equal(tern_tokenizer_pre_source(t), "override");
    assert_true(tern_tokenizer_add_bos(t)); /* the file says so */
    expect(t, "I'm", "40 6 76");
    tern_tokenizer_free(&t);
    free(vocab);
}

static struct tern_tokenizer *fable(void)
{
    struct tern_gguf *g;
    struct tern_tokenizer *t;

    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    return t;
}

static void test_fable_golden(void **state)
{
    struct tern_tokenizer *t = fable();
    size_t n, n_lines = 0;
    char *golden = read_all(TERN_SOURCE_DIR "/tests/golden/fable_tokens.txt", &n), *save;

    (void)state;
    assert_non_null(golden);
    for (char *line = strtok_r(golden, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *text = strchr(line, '\t'), *to, *from;

        if (line[0] == '#')
            continue;
        assert_non_null(text);
        *text++ = '\0';
        for (to = from = text; *from; from++)
            if (from[0] == '\\' && from[1] == 'n') {
                *to++ = '\n';
                from++;
            } else {
                *to++ = *from;
            }
        expect_ids(t, text, (size_t)(to - text), true, true, line);
        expect_round_trip(t, text, (size_t)(to - text));
        n_lines++;
    }
    assert_int_equal(n_lines, 16);
    assert_int_equal(tern_tokenizer_n_vocab(t), 4096);
    assert_int_equal(tern_tokenizer_bos(t), 4080);
    assert_int_equal(tern_tokenizer_eos(t), 4081);
    assert_true(tern_tokenizer_is_eog(t, 4081));
    free(golden);
    tern_tokenizer_free(&t);
}

static void test_round_trips(void **state)
{
    static const char *const bits[] = { "the ",  "<|eot_id|>",   "\xf0\x9f\x98", "\xe2\x82\xac",
                                        "\xff",  "\xc0\x80",     "  \n ",        "'ll",
                                        "12345", "\xed\xa0\x80", "\xc2\xa0",     "." };
    struct tern_tokenizer *t = fable();
    uint64_t seed = 20260101;
    char text[600];

    (void)state;
    for (int round = 0; round < 2000; round++) {
        size_t n = unit_random(&seed) % 300, len = 0;

        while (len < n) {
            const char *bit = bits[unit_random(&seed) % (sizeof bits / sizeof bits[0])];

            if (round % 2) {
                text[len++] = (char)unit_random(&seed);
            } else {
                memcpy(text + len, bit, strlen(bit));
                len += strlen(bit);
            }
        }
        expect_round_trip(t, text, len);
    }
    tern_tokenizer_free(&t);
}

static void test_invalid_utf8_is_cut_off(void **state)
{
    struct tern_tokenizer *t = fable();

    (void)state;
    /* ids of single bytes are those bytes in this vocabulary */
    expect(t, "Once\xff", "2091 255");
    expect(t, "\xe2\x82Once", "226 130 2091");
    expect_ids(t, "Once\0Once", 9, false, false, "2091 0 2091");
    expect_ids(t, NULL, 0, false, true, "");
    expect_ids(t, NULL, 0, true, true, "4080");
    tern_tokenizer_free(&t);
}

/* -- vocabularies made here --------------------------------------------------------------------------- */

static void test_ignore_merges(void **state)
{
    static const char *const merges[] = { "a b", NULL };
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    for (int i = 0; i < 2; i++) {
        made_begin(&m, i ? "llama-bpe" : "gpt-2");
        made_token(&m, "ab", TERN_TOKEN_NORMAL);
        made_token(&m, "abc", TERN_TOKEN_NORMAL); /* no merge leads here */
        made_merges(&m, merges);
        assert_ok(made_load(&m, NULL, &t));
        expect(t, "abc abcd", i ? "257 32 256 99 100" : "256 99 32 256 99 100");
        assert_int_equal(tern_tokenizer_add_bos(t), false); /* there is no BOS */
        tern_tokenizer_free(&t);
    }
}

static void test_special_tokens(void **state)
{
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    made_begin(&m, "llama-bpe");
    made_token(&m, "<s>", TERN_TOKEN_CONTROL);       /* 256 */
    made_token(&m, "</s>", TERN_TOKEN_CONTROL);      /* 257 */
    made_token(&m, "<unk>", TERN_TOKEN_UNKNOWN);     /* 258 */
    made_token(&m, "[USER]", TERN_TOKEN_USER);       /* 259 */
    made_token(&m, "[PAD]", TERN_TOKEN_UNUSED);      /* 260 */
    made_token(&m, "<|eot_id|>", TERN_TOKEN_NORMAL); /* 261: the file is wrong */
    made_token(&m, "ctl", TERN_TOKEN_CONTROL);       /* 262: the text of a whole piece */
    made_token(&m, "", TERN_TOKEN_USER);             /* 263 */
    made_merges(&m, NULL);
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", 256);
    vocab_u32(&m.w, "tokenizer.ggml.eos_token_id", 257);
    vocab_bool(&m.w, "tokenizer.ggml.add_eos_token", true);
    assert_ok(made_load(&m, NULL, &t));
    expect_ids(t, "a<s>", 4, true, true, "256 97 256 257");
    expect_ids(t, "a<s>", 4, true, false, "256 97 60 115 62 257");
    expect_ids(t, "[USER]x<unk>", 12, false, true, "259 120 258");
    expect_ids(t, "[USER]x<unk>", 12, false, false, "259 120 60 117 110 107 62");
    expect_ids(t, "[PAD]", 5, false, true, "91 80 65 68 93");
    expect_ids(t, "<|eot_id|>", 10, false, true, "261");
    expect_ids(t, "ctl", 3, false, true, "262");
    expect_ids(t, "ctl", 3, false, false, "99 116 108"); /* text alone never makes a control token */
    assert_true(tern_tokenizer_is_eog(t, 261) && tern_tokenizer_is_eog(t, 257));
    assert_false(tern_tokenizer_is_eog(t, 256) || tern_tokenizer_is_eog(t, -1) ||
                 tern_tokenizer_is_eog(t, 264));
    assert_int_equal(tern_tokenizer_type(t, 261), TERN_TOKEN_CONTROL);
    assert_int_equal(tern_tokenizer_piece(t, 256, false).len, 0);
    assert_int_equal(tern_tokenizer_piece(t, 256, true).len, 3);
    assert_int_equal(tern_tokenizer_piece(t, 259, false).len, 6);
    assert_int_equal(tern_tokenizer_piece(t, 260, false).len, 0);
    assert_int_equal(tern_tokenizer_piece(t, 264, true).len, 0);
    assert_int_equal(tern_tokenizer_piece(t, -1, true).len, 0);
    assert_int_equal(tern_tokenizer_piece(t, INT32_MIN, true).len, 0);
    assert_int_equal(tern_tokenizer_find(t, "<|eot_id|>"), 261);
    assert_int_equal(tern_tokenizer_find(t, "[USER]"), 259);
    assert_int_equal(tern_tokenizer_find(t, "a"), 97);
    assert_int_equal(tern_tokenizer_find(t, "ctl"), 262);
    assert_int_equal(tern_tokenizer_find(t, "no such token"), -1);
    assert_int_equal(tern_tokenizer_find(t, ""), -1);
    tern_tokenizer_free(&t);
    assert_null(t);
    tern_tokenizer_free(&t);
}

/* GPT-2's default for both is 11, where that is a token of its kind. */
static void test_default_bos(void **state)
{
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    for (int i = 0; i < 2; i++) {
        made_begin(&m, NULL);
        if (i)
            m.types[11] = TERN_TOKEN_CONTROL;
        made_merges(&m, NULL);
        assert_ok(made_load(&m, NULL, &t));
        assert_string_equal(tern_tokenizer_pre(t), "default");
        assert_string_equal(tern_tokenizer_pre_source(t), "guessed");
        assert_int_equal(tern_tokenizer_bos(t), i ? 11 : -1);
        assert_int_equal(tern_tokenizer_eos(t), i ? 11 : -1);
        assert_int_equal(tern_tokenizer_is_eog(t, 11), i);
        tern_tokenizer_free(&t);
    }
}

static void test_damaged_special_tokens(void **state)
{
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    for (int doubled = 0; doubled < 2; doubled++) {
        made_begin(&m, "llama-bpe");
        made_token(&m, doubled ? "<|bos|><|bos|>" : "<|bos|>", TERN_TOKEN_CONTROL); /* 256 */
        made_token(&m, "<|bos|><|eot_id|>", TERN_TOKEN_CONTROL);
        made_token(&m, "<|bos|><|one|>", TERN_TOKEN_CONTROL);
        made_token(&m, doubled ? "plain" : "<|bos|><|two|>", TERN_TOKEN_CONTROL);
        made_token(&m, "<|bos|>[X]", TERN_TOKEN_USER);
        made_token(&m, "<|bos|>text", TERN_TOKEN_NORMAL);
        made_merges(&m, NULL);
        vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", 256);
        assert_ok(made_load(&m, NULL, &t));
        expect_ids(t, "<|eot_id|><|bos|>[X]", 20, false, true, "257 256 260");
        assert_true(tern_tokenizer_is_eog(t, 257));
        assert_int_equal(tern_tokenizer_piece(t, 256, true).len, 7);
        assert_int_equal(tern_tokenizer_piece(t, 261, true).len, 11); /* ordinary tokens stay */
        assert_int_equal(tern_tokenizer_repaired(t), 4);
        tern_tokenizer_free(&t);
    }
    /* Padding that was made user-defined: texts do not have it, whatever they say. */
    made_begin(&m, "llama-bpe");
    made_token(&m, "[PAD256]", TERN_TOKEN_USER);
    made_token(&m, "[PAD256]", TERN_TOKEN_USER); /* 257: not at its place, so somebody's own */
    made_token(&m, "[PAD]", TERN_TOKEN_USER);
    made_merges(&m, NULL);
    assert_ok(made_load(&m, NULL, &t));
    assert_int_equal(tern_tokenizer_repaired(t), 1);
    assert_int_equal(tern_tokenizer_type(t, 256), TERN_TOKEN_UNUSED);
    expect(t, "[PAD256][PAD]", "257 258");
    tern_tokenizer_free(&t);

    /* Two such tokens may be meant so. */
    made_begin(&m, "llama-bpe");
    made_token(&m, "<|bos|>", TERN_TOKEN_CONTROL);
    made_token(&m, "<|bos|><|one|>", TERN_TOKEN_CONTROL);
    made_token(&m, "<|bos|><|two|>", TERN_TOKEN_CONTROL);
    made_merges(&m, NULL);
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", 256);
    assert_ok(made_load(&m, NULL, &t));
    expect_ids(t, "<|bos|><|one|>", 14, false, true, "257");
    assert_int_equal(tern_tokenizer_repaired(t), 0);
    tern_tokenizer_free(&t);
}

/* A vocabulary without all bytes: the unknown token, or a sentence. */
static void test_missing_bytes(void **state)
{
    struct vocab_writer w;
    struct tern_tokenizer *t;
    struct tern_ids ids = { 0 };

    (void)state;
    for (int unknown = 0; unknown < 2; unknown++) {
        int32_t types[] = { 1, 1, 2, 6 };

        vocab_begin(&w);
        vocab_text(&w, "tokenizer.ggml.model", "gpt2");
        vocab_open(&w, "tokenizer.ggml.tokens");
        vocab_add(&w, "a", 1);
        vocab_add(&w, "b", 1);
        vocab_add(&w, "<unk>", 5);
        vocab_add(&w, "<0x0A>", 6);
        vocab_close(&w);
        vocab_i32s(&w, "tokenizer.ggml.token_type", types, 4);
        vocab_open(&w, "tokenizer.ggml.merges");
        vocab_close(&w);
        if (unknown)
            vocab_u32(&w, "tokenizer.ggml.unknown_token_id", 2);
        vocab_end(&w);
        assert_ok(load(w.bytes, w.n, NULL, &t));
        free(w.bytes);
        expect(t, "ab\n", "0 1 3");
        assert_int_equal(tern_tokenizer_piece(t, 3, false).ptr[0], '\n');
        if (unknown) {
            expect(t, "abzzb", "0 1 2 2 1");
        } else {
            assert_ok(tern_tokenizer_encode(t, "ab", 2, false, false, &ids, &unit_err));
            assert_int_equal(tern_tokenizer_encode(t, "abzb", 4, false, false, &ids, &unit_err),
                             TERN_ERR_UNSUPPORTED);
            assert_non_null(strstr(unit_err.text, "0x7a"));
            assert_int_equal(ids.n, 2); /* a failure leaves what was there */
        }
        tern_tokenizer_free(&t);
    }
    free(ids.ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_strings),      cmocka_unit_test(test_falcon_strings),
        cmocka_unit_test(test_llama_strings),     cmocka_unit_test(test_llama_vectors),
        cmocka_unit_test(test_llama_without_pre), cmocka_unit_test(test_fable_golden),
        cmocka_unit_test(test_round_trips),       cmocka_unit_test(test_invalid_utf8_is_cut_off),
        cmocka_unit_test(test_ignore_merges),     cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_default_bos),       cmocka_unit_test(test_damaged_special_tokens),
        cmocka_unit_test(test_missing_bytes),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
