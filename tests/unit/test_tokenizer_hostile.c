/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vocabularies that contradict themselves: each refused with a sentence that says where.
 */
#include "unit/made_vocab.h"

#include "engine/base/limits.h"

#include <unistd.h>

static void expect_refused(struct made *m, enum tern_status want, const char *sentence)
{
    struct tern_tokenizer *t = NULL;
    enum tern_status st = made_load(m, NULL, &t);

    assert_null(t);
    assert_int_equal(st, want);
    if (!strstr(unit_err.text, sentence))
        fail_msg("'%s' does not say '%s'", unit_err.text, sentence);
}

static void test_wrong_kinds(void **state)
{
    struct made m;

    (void)state;
    vocab_begin(&m.w);
    expect_refused(&m, TERN_ERR_FORMAT, "tokenizer.ggml.model");
    vocab_begin(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.model", "t5");
    expect_refused(&m, TERN_ERR_UNSUPPORTED, "'t5'");
    vocab_begin(&m.w);
    vocab_u32(&m.w, "tokenizer.ggml.model", 3);
    expect_refused(&m, TERN_ERR_FORMAT, "tokenizer.ggml.model");
    vocab_begin(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.model", "gpt2");
    expect_refused(&m, TERN_ERR_FORMAT, "no vocabulary");
    made_begin(&m, "nonesuch");
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_UNSUPPORTED, "--pre: default, falcon");
    made_begin(&m, "gpt-2");
    vocab_close(&m.w);
    expect_refused(&m, TERN_ERR_FORMAT, "no merges");
    vocab_begin(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.model", "gpt2");
    vocab_i32s(&m.w, "tokenizer.ggml.tokens", (int32_t[]){ 1, 2 }, 2);
    expect_refused(&m, TERN_ERR_FORMAT, "not an array of strings");
    vocab_begin(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.model", "gpt2");
    vocab_open(&m.w, "tokenizer.ggml.tokens");
    vocab_close(&m.w);
    expect_refused(&m, TERN_ERR_FORMAT, "no vocabulary");
}

static void test_unknown_override(void **state)
{
    struct made m;
    struct tern_tokenizer *t = NULL;

    (void)state;
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    assert_int_equal(made_load(&m, "llama-bp", &t), TERN_ERR_USAGE);
    assert_non_null(strstr(unit_err.text, "--pre: 'llama-bp'"));
    assert_non_null(strstr(unit_err.text, "llama-bpe, llama-v3, llama3, qwen2, stablelm2"));
    assert_null(t);
}

static void test_wrong_arrays(void **state)
{
    static const float scores[1] = { 0 };
    struct made m;

    (void)state;
    made_begin(&m, "gpt-2");
    m.types[100] = 7;
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_FORMAT, "token 100 has type 7");
    made_begin(&m, "gpt-2");
    m.types[100] = -1;
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_FORMAT, "token 100 has type -1");
    made_begin(&m, "gpt-2");
    made_token(&m, "<0x0a>", TERN_TOKEN_BYTE);
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_FORMAT, "token 256");
    made_begin(&m, "gpt-2");
    m.n--;
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_FORMAT, "has 255 elements");
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    vocab_key(&m.w, "tokenizer.ggml.scores", TERN_GGUF_ARRAY);
    vocab_put_u32(&m.w, TERN_GGUF_F32);
    vocab_put_u64(&m.w, 1);
    vocab_put(&m.w, scores, 4);
    expect_refused(&m, TERN_ERR_FORMAT, "scores has 1 elements");
    made_begin(&m, "gpt-2");
    vocab_close(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.token_type", "normal");
    expect_refused(&m, TERN_ERR_FORMAT, "not an array of numbers");
}

static void test_wrong_merges(void **state)
{
    static const struct {
        const char *merge, *sentence;
    } wrong[] = { { "ab", "merge 0 is not two texts" },
                  { "a ", "merge 0 is not two texts" },
                  { "", "merge 0 is not two texts" },
                  { " ", "merge 0 is not two texts" },
                  { "a zz", "names a token" },
                  { "zz a", "names a token" },
                  { "a c", "makes a token" },
                  { "a  b", "names a token" },
                  { "\xff\xff\xff a", "names a token" },
                  { "a \xc3", "names a token" } };
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *merges[] = { wrong[i].merge, NULL };

        made_begin(&m, "gpt-2");
        made_token(&m, "ab", TERN_TOKEN_NORMAL);
        made_merges(&m, merges);
        expect_refused(&m, TERN_ERR_FORMAT, wrong[i].sentence);
    }
    /* One that would make a control token is left out; of two equal ones the first counts. */
    const char *merges[] = { "c d", "a b", "b c", "a b", NULL };
    made_begin(&m, "gpt-2");
    made_token(&m, "cd", TERN_TOKEN_CONTROL);
    made_token(&m, "ab", TERN_TOKEN_NORMAL);
    made_token(&m, "bc", TERN_TOKEN_NORMAL);
    made_merges(&m, merges);
    assert_ok(made_load(&m, NULL, &t));
    expect(t, "abcd", "257 99 100");
    tern_tokenizer_free(&t);
}

static void test_wrong_ids(void **state)
{
    struct made m;
    struct tern_tokenizer *t;

    (void)state;
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    vocab_u32(&m.w, "tokenizer.ggml.eos_token_id", 256);
    expect_refused(&m, TERN_ERR_FORMAT, "eos_token_id is 256");
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    vocab_text(&m.w, "tokenizer.ggml.bos_token_id", "x");
    expect_refused(&m, TERN_ERR_FORMAT, "bos_token_id");
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    vocab_bool(&m.w, "tokenizer.ggml.add_bos_token", true);
    expect_refused(&m, TERN_ERR_FORMAT, "add_bos_token is set");
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", UINT32_MAX); /* none */
    assert_ok(made_load(&m, NULL, &t));
    assert_int_equal(tern_tokenizer_bos(t), -1);
    tern_tokenizer_free(&t);
}

static void test_limits(void **state)
{
    struct made m;
    struct tern_tokenizer *t;
    char text[TERN_MAX_TOKEN_BYTES + 2];

    (void)state;
    memset(text, 'a', sizeof text);
    text[TERN_MAX_TOKEN_BYTES + 1] = '\0';
    made_begin(&m, "gpt-2");
    made_token(&m, text, TERN_TOKEN_NORMAL);
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_LIMIT, "token 256 is 4097 bytes long");

    text[TERN_MAX_TOKEN_BYTES] = '\0';
    made_begin(&m, "llama3");
    made_token(&m, text, TERN_TOKEN_NORMAL);
    made_merges(&m, NULL);
    assert_ok(made_load(&m, NULL, &t));
    expect(t, text, "256");
    tern_tokenizer_free(&t);

    text[TERN_MAX_SPECIAL_BYTES + 1] = '\0';
    made_begin(&m, "gpt-2");
    made_token(&m, text, TERN_TOKEN_USER);
    made_merges(&m, NULL);
    expect_refused(&m, TERN_ERR_LIMIT, "special token 256 is too long");

    vocab_begin(&m.w);
    vocab_text(&m.w, "tokenizer.ggml.model", "gpt2");
    vocab_open(&m.w, "tokenizer.ggml.tokens");
    for (int i = 0; i <= TERN_MAX_VOCAB; i++)
        vocab_add(&m.w, "", 0);
    vocab_close(&m.w);
    expect_refused(&m, TERN_ERR_LIMIT, "1048577 tokens");
}

static void test_limits_of_texts(void **state)
{
    struct made m;
    struct tern_tokenizer *t;
    struct tern_ids ids = { 0 };
    char *text = malloc(TERN_MAX_PIECE_BYTES + 1);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', TERN_MAX_PIECE_BYTES + 1);
    made_begin(&m, "gpt-2");
    made_merges(&m, NULL);
    assert_ok(made_load(&m, NULL, &t));
    /* The length is looked at before the text. */
    assert_int_equal(
        tern_tokenizer_encode(t, text, (size_t)TERN_MAX_TEXT_BYTES + 1, true, true, &ids, &unit_err),
        TERN_ERR_LIMIT);
    assert_int_equal(tern_tokenizer_encode(t, text, SIZE_MAX, true, true, &ids, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(tern_tokenizer_encode(t, text, TERN_MAX_PIECE_BYTES + 1, true, true, &ids, &unit_err),
                     TERN_ERR_LIMIT);
    assert_non_null(strstr(unit_err.text, "a word of 16777217 bytes"));
    assert_int_equal(ids.n, 0);
    free(ids.ids);
    free(text);
    tern_tokenizer_free(&t);
}

/* A file that loses its end between opening and reading. */
static void test_file_cut_while_open(void **state)
{
    char path[] = "/tmp/tern-test-vocab-XXXXXX";
    int fd = mkstemp(path);
    struct made m;
    struct tern_gguf *g;
    struct tern_tokenizer *t = NULL;

    (void)state;
    assert_true(fd >= 0);
    assert_ok(tern_mapping_guard_install(&unit_err));
    made_begin(&m, "gpt-2");
    for (int i = 0; i < 200; i++)
        made_token(&m, "a token that makes the file longer than one page", TERN_TOKEN_NORMAL);
    made_merges(&m, NULL);
    vocab_end(&m.w);
    assert_int_equal(write(fd, m.w.bytes, m.w.n), m.w.n);
    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(tern_tokenizer_new(g, NULL, &t, &unit_err), TERN_ERR_IO);
    assert_null(t);
    tern_gguf_close(&g);
    close(fd);
    unlink(path);
    free(m.w.bytes);
}

/* Every byte of a small vocabulary file changed, one after another: a sentence or a tokenizer that works. */
static void test_corrupted_files(void **state)
{
    static const char *const merges[] = { "a b", "ab c", NULL };
    struct made m;
    struct tern_gguf *g;
    struct tern_tokenizer *t;
    uint64_t seed = 7;
    size_t n_refused = 0;

    (void)state;
    made_begin(&m, "llama-bpe");
    made_token(&m, "ab", TERN_TOKEN_NORMAL);
    made_token(&m, "abc", TERN_TOKEN_NORMAL);
    made_token(&m, "<|bos|>", TERN_TOKEN_CONTROL);
    made_merges(&m, merges);
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", 258);
    vocab_end(&m.w);
    for (size_t i = 0; i < m.w.n; i++) {
        uint8_t was = m.w.bytes[i];
        struct tern_ids ids = { 0 };

        m.w.bytes[i] ^= (uint8_t)(1 + unit_random(&seed) % 255);
        unit_err.text[0] = '\0';
        if (tern_gguf_parse("test.gguf", m.w.bytes, m.w.n, &g, &unit_err) == TERN_OK) {
            if (tern_tokenizer_new(g, NULL, &t, &unit_err) == TERN_OK) {
                if (tern_tokenizer_encode(t, "abc <|bos|> d\xff", 14, true, true, &ids, &unit_err) == TERN_OK)
                    for (size_t k = 0; k < ids.n; k++)
                        assert_true(ids.ids[k] >= 0 && (uint32_t)ids.ids[k] < tern_tokenizer_n_vocab(t));
                tern_tokenizer_free(&t);
            } else {
                n_refused += unit_err.text[0] != '\0';
            }
            tern_gguf_close(&g);
        }
        free(ids.ids);
        m.w.bytes[i] = was;
    }
    assert_true(n_refused > 10);
    free(m.w.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_kinds),     cmocka_unit_test(test_unknown_override),
        cmocka_unit_test(test_wrong_arrays),    cmocka_unit_test(test_wrong_merges),
        cmocka_unit_test(test_wrong_ids),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_of_texts), cmocka_unit_test(test_file_cut_while_open),
        cmocka_unit_test(test_corrupted_files),
    };
    return cmocka_run_group_tests_name("tokenizer_hostile", tests, NULL, NULL);
}
