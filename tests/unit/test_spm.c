/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece's BPE: known strings, its definition written the slow way, byte fallback, spaces, hostile
 * vocabularies and texts of megabytes.
 */
#include "unit/token_strings.h"

#include "engine/base/limits.h"

#include <time.h>

#define MARK "\xe2\x96\x81" /* U+2581 */

/* -- vocabularies made here --------------------------------------------------------------------------- */

struct spm_made {
    struct vocab_writer w;
    int32_t types[600];
    float scores[600];
    size_t n;
};

static void spm_token(struct spm_made *m, const char *text, int32_t type, float score)
{
    vocab_add(&m->w, text, strlen(text));
    m->types[m->n] = type;
    m->scores[m->n++] = score;
}

/* <unk>, <s>, </s> and, if asked for, the 256 bytes. */
static void spm_begin(struct spm_made *m, bool bytes)
{
    m->n = 0;
    vocab_begin(&m->w);
    vocab_text(&m->w, "tokenizer.ggml.model", "llama");
    vocab_open(&m->w, "tokenizer.ggml.tokens");
    spm_token(m, "<unk>", TERN_TOKEN_UNKNOWN, 0);
    spm_token(m, "<s>", TERN_TOKEN_CONTROL, 0);
    spm_token(m, "</s>", TERN_TOKEN_CONTROL, 0);
    for (int b = 0; bytes && b < 256; b++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", b);
        spm_token(m, name, TERN_TOKEN_BYTE, 0);
    }
}

static void spm_close(struct spm_made *m)
{
    vocab_close(&m->w);
    vocab_i32s(&m->w, "tokenizer.ggml.token_type", m->types, m->n);
    vocab_key(&m->w, "tokenizer.ggml.scores", TERN_GGUF_ARRAY);
    vocab_put_u32(&m->w, TERN_GGUF_F32);
    vocab_put_u64(&m->w, m->n);
    vocab_put(&m->w, m->scores, 4 * m->n);
}

static enum tern_status spm_load(struct spm_made *m, const char *pre, struct tern_tokenizer **t)
{
    enum tern_status st;

    vocab_end(&m->w);
    st = load(m->w.bytes, m->w.n, pre, t);
    free(m->w.bytes);
    return st;
}

/* -- known strings ------------------------------------------------------------------------------------ */

static void test_strings(void **state)
{
    size_t n;
    char *vocab;
    struct tern_tokenizer *t;

    (void)state;
    check_strings("llama-spm", "none");
    vocab = shared_file("tokenizers/llama-spm.vocab.gguf", &n);
    assert_ok(load(vocab, n, NULL, &t));
    assert_true(tern_tokenizer_add_bos(t));
    assert_int_equal(tern_tokenizer_bos(t), 1);
    assert_true(tern_tokenizer_is_eog(t, 2));
    assert_false(tern_tokenizer_is_eog(t, 0) || tern_tokenizer_is_eog(t, 1));
    expect_ids(t, "Hello", 5, true, false, "1 15043");
    expect_ids(t, "", 0, true, true, "1");
    /* Each part begins anew behind a special token, with a space of its own. */
    expect_ids(t, "Hello</s>Hello", 14, false, true, "15043 2 15043");
    expect_same(t, "Hello</s>Hello</s> x", 20, true);
    tern_tokenizer_free(&t);
    assert_int_equal(load(vocab, n, "gpt-2", &t), TERN_ERR_USAGE);
    assert_non_null(strstr(unit_err.text, "without a pre-tokenizer"));
    free(vocab);
}

/* -- by definition ------------------------------------------------------------------------------------ */

static int find_text(char tokens[][24], size_t n, const char *text, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(tokens[i]) == len && memcmp(tokens[i], text, len) == 0)
            return (int)i;
    return -1;
}

/* Merges text[0..len) of one-byte characters by the rule of spm.h; the lengths of what is left. */
static size_t merge_by_definition(char tokens[][24], const float *scores, size_t n_tokens, const char *text,
                                  size_t len, size_t *lens)
{
    size_t n = len;

    for (size_t i = 0; i < n; i++)
        lens[i] = 1;
    for (;;) {
        size_t best = n, begin = 0;
        float score = 0;

        for (size_t i = 0; i + 1 < n; begin += lens[i++]) {
            int id = find_text(tokens, n_tokens, text + begin, lens[i] + lens[i + 1]);

            if (id >= 0 && (best == n || scores[id] > score)) {
                best = i;
                score = scores[id];
            }
        }
        if (best == n)
            return n;
        lens[best] += lens[best + 1];
        n--;
        memmove(lens + best + 1, lens + best + 2, (n - best - 1) * sizeof *lens);
    }
}

static void test_merging_equals_its_definition(void **state)
{
    uint64_t seed = 31;

    (void)state;
    for (int round = 0; round < 100; round++) {
        static char tokens[60][24];
        float scores[60];
        size_t n_tokens = 0;
        struct spm_made m;
        struct tern_tokenizer *t;

        spm_begin(&m, true);
        for (int i = 0; i < 3 + round % 40; i++) {
            char *text = tokens[n_tokens];
            size_t len = i < 3 ? 1 : 2 + unit_random(&seed) % 5;

            for (size_t k = 0; k < len; k++)
                text[k] = (char)('a' + (i < 3 ? (unsigned)i : unit_random(&seed) % 3));
            text[len] = '\0';
            if (find_text(tokens, n_tokens, text, len) >= 0)
                continue;
            scores[n_tokens] = (float)(unit_random(&seed) % 12) - 6; /* ties are common */
            spm_token(&m, text, TERN_TOKEN_NORMAL, scores[n_tokens++]);
        }
        spm_close(&m);
        vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", false);
        assert_ok(spm_load(&m, NULL, &t));
        for (int k = 0; k < 20; k++) {
            struct tern_ids ids = { 0 };
            char text[200];
            size_t lens[200], at = 0, n, len = 1 + unit_random(&seed) % 150;

            for (size_t i = 0; i < len; i++)
                text[i] = (char)('a' + unit_random(&seed) % (k % 2 ? 3 : 2));
            n = merge_by_definition(tokens, scores, n_tokens, text, len, lens);
            assert_ok(tern_tokenizer_encode(t, text, len, false, false, &ids, &unit_err));
            assert_int_equal(ids.n, n);
            for (size_t i = 0; i < n; at += lens[i++]) {
                struct tern_str s = tern_tokenizer_piece(t, ids.ids[i], false);

                assert_int_equal(s.len, lens[i]);
                assert_memory_equal(s.ptr, text + at, s.len);
            }
            free(ids.ids);
        }
        tern_tokenizer_free(&t);
    }
}

/* Words repeat in long texts and come from a cache then: the same as in short ones. */
static void test_long_texts_equal_short_ones(void **state)
{
    size_t n, n_vocab;
    char *vocab = shared_file("tokenizers/llama-spm.vocab.gguf", &n_vocab);
    char *text = shared_file("models/fable/validation.txt", &n);
    struct tern_ids all = { 0 }, lines = { 0 };
    struct tern_tokenizer *t;

    (void)state;
    assert_ok(load(vocab, n_vocab, NULL, &t));
    assert_ok(tern_tokenizer_encode(t, text, n, false, false, &all, &unit_err));
    /* A piece that begins with a space at the end of a word: what the encoder puts in front there. */
    for (size_t at = 0, end; at < n; at = end) {
        for (end = at + 1; end < n && !(text[end] == ' ' && text[end - 1] != ' ' && end > at + 40);)
            end++;
        assert_ok(tern_tokenizer_encode(t, text + at + (at > 0), end - at - (at > 0), false, false, &lines,
                                        &unit_err));
    }
    assert_int_equal(all.n, lines.n);
    assert_memory_equal(all.ids, lines.ids, all.n * sizeof *all.ids);
    free(all.ids);
    free(lines.ids);
    tern_tokenizer_free(&t);
    free(text);
    free(vocab);
}

/* -- spaces, bytes, kinds of tokens ------------------------------------------------------------------- */

static void test_spaces(void **state)
{
    struct spm_made m;
    struct tern_tokenizer *t;

    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        spm_begin(&m, true);
        spm_token(&m, MARK, TERN_TOKEN_NORMAL, -1);        /* 259 */
        spm_token(&m, MARK "a", TERN_TOKEN_NORMAL, -2);    /* 260 */
        spm_token(&m, "a", TERN_TOKEN_NORMAL, -3);         /* 261 */
        spm_token(&m, "a a", TERN_TOKEN_NORMAL, 5);        /* 262: no text can have this */
        spm_token(&m, MARK MARK, TERN_TOKEN_NORMAL, -4);   /* 263 */
        spm_token(&m, "[x " MARK "]", TERN_TOKEN_USER, 0); /* 264: literal */
        spm_close(&m);
        vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", prefix);
        assert_ok(spm_load(&m, NULL, &t));
        expect(t, "a a", prefix ? "260 260" : "261 260");
        expect(t, "a" MARK "a", prefix ? "260 260" : "261 260");
        expect(t, " ", prefix ? "263" : "259");
        expect(t, "[x " MARK "]a", prefix ? "264 260" : "264 261");
        expect_ids(t, "a<s>a", 5, false, true, prefix ? "260 1 260" : "261 1 261");
        expect_same(t, " a  <s> a[x", 11, true);
        assert_int_equal(tern_tokenizer_piece(t, 260, false).len, 2);
        assert_int_equal(tern_tokenizer_piece_after(t, -1, 260, false).len, prefix ? 1 : 2);
        assert_int_equal(tern_tokenizer_piece_after(t, 1, 260, false).len, prefix ? 1 : 2);
        assert_int_equal(tern_tokenizer_piece_after(t, 261, 260, false).len, 2);
        assert_int_equal(tern_tokenizer_piece_after(t, -1, 264, false).len, 7);
        tern_tokenizer_free(&t);
    }
}

static void test_bytes(void **state)
{
    struct spm_made m;
    struct tern_tokenizer *t;
    struct tern_ids ids = { 0 };

    (void)state;
    spm_begin(&m, true);
    spm_token(&m, "a", TERN_TOKEN_NORMAL, 0);            /* 259 */
    spm_token(&m, "\xe2\x82\xac", TERN_TOKEN_NORMAL, 0); /* 260 */
    spm_close(&m);
    vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", false);
    assert_ok(spm_load(&m, NULL, &t));
    expect(t, "a\xe2\x82\xac\xc3\xa9", "259 260 198 172");
    expect(t,
           "\xff"
           "a\xe2\x82",
           "258 259 229 133");
    expect_ids(t, "a\0\n", 3, false, false, "259 3 13");
    expect(t, "<0x41>", "63 51 123 55 52 65"); /* text does not make byte tokens */
    expect(t, "<s>", "63 118 65");
    tern_tokenizer_free(&t);

    /* Without bytes: the unknown token a character, or a sentence. */
    for (int unknown = 0; unknown < 2; unknown++) {
        spm_begin(&m, false);
        spm_token(&m, "a", TERN_TOKEN_NORMAL, 0); /* 3 */
        spm_close(&m);
        vocab_u32(&m.w, "tokenizer.ggml.unknown_token_id", unknown ? 0 : UINT32_MAX);
        vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", false);
        assert_ok(spm_load(&m, NULL, &t));
        if (unknown) {
            expect(t,
                   "a\xe2\x82\xac"
                   "a\xff",
                   "3 0 3 0");
        } else {
            assert_int_equal(tern_tokenizer_encode(t, "ab", 2, false, false, &ids, &unit_err),
                             TERN_ERR_UNSUPPORTED);
            assert_non_null(strstr(unit_err.text, "'b'"));
            assert_int_equal(ids.n, 0);
        }
        tern_tokenizer_free(&t);
    }
    free(ids.ids);
}

/* An unused token may be a step to another one, and comes apart where it was put together otherwise. */
static void test_unused_tokens_come_apart(void **state)
{
    struct spm_made m;
    struct tern_tokenizer *t;
    char text[400];

    (void)state;
    spm_begin(&m, true);
    spm_token(&m, "a", TERN_TOKEN_NORMAL, 0);     /* 259 */
    spm_token(&m, "b", TERN_TOKEN_NORMAL, 0);     /* 260 */
    spm_token(&m, "ab", TERN_TOKEN_UNUSED, 9);    /* 261 */
    spm_token(&m, "abab", TERN_TOKEN_UNUSED, 8);  /* 262 */
    spm_token(&m, "ababb", TERN_TOKEN_NORMAL, 7); /* 263 */
    spm_token(&m, "q", TERN_TOKEN_UNUSED, 7);     /* 264 */
    spm_close(&m);
    vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", false);
    assert_ok(spm_load(&m, NULL, &t));
    expect(t, "ababb", "263");
    expect(t, "aba", "259 260 259");
    expect(t, "abab", "259 260 259 260");
    expect(t, "q", "116");
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "ab"[i % 2];
    expect_same(t, text, sizeof text, false);
    tern_tokenizer_free(&t);
}

/* -- hostile ------------------------------------------------------------------------------------------ */

static void test_wrong_files(void **state)
{
    static const float scores[] = { 0, 1, 2, 3 };
    struct spm_made m;
    struct tern_tokenizer *t = NULL;

    (void)state;
    spm_begin(&m, false);
    spm_token(&m, "a", TERN_TOKEN_NORMAL, __builtin_nanf(""));
    spm_close(&m);
    assert_int_equal(spm_load(&m, NULL, &t), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "score of token 3"));
    spm_begin(&m, false);
    vocab_close(&m.w);
    vocab_key(&m.w, "tokenizer.ggml.scores", TERN_GGUF_ARRAY);
    vocab_put_u32(&m.w, TERN_GGUF_F32);
    vocab_put_u64(&m.w, 4);
    vocab_put(&m.w, scores, sizeof scores);
    assert_int_equal(spm_load(&m, NULL, &t), TERN_ERR_FORMAT);
    assert_non_null(strstr(unit_err.text, "has 4 elements"));
    spm_begin(&m, false);
    spm_close(&m);
    vocab_text(&m.w, "tokenizer.ggml.add_space_prefix", "yes");
    assert_int_equal(spm_load(&m, NULL, &t), TERN_ERR_FORMAT);
    assert_null(t);
}

/* Neither scores nor types: bytes are told by their names, bos, eos and unknown by their places. */
static void test_bare_file(void **state)
{
    struct spm_made m;
    struct tern_tokenizer *t;

    (void)state;
    spm_begin(&m, true);
    spm_token(&m, "ab", TERN_TOKEN_NORMAL, 0);
    vocab_close(&m.w);
    assert_ok(spm_load(&m, NULL, &t));
    expect(t, "ab", "35 259");
    assert_int_equal(tern_tokenizer_bos(t), 1);
    assert_int_equal(tern_tokenizer_eos(t), 2);
    tern_tokenizer_free(&t);
}

/* Looking through the keys once for each token would take minutes. */
static void test_many_keys(void **state)
{
    struct spm_made m;
    struct tern_tokenizer *t;
    clock_t began;
    double seconds;
    char name[16];

    (void)state;
    spm_begin(&m, true);
    for (int i = 0; i < 400000; i++) {
        snprintf(name, sizeof name, "t%d", i);
        vocab_add(&m.w, name, strlen(name));
    }
    vocab_close(&m.w);
    for (int i = 0; i < 60000; i++) {
        snprintf(name, sizeof name, "k%d", i);
        vocab_text(&m.w, name, "");
    }
    began = clock();
    assert_ok(spm_load(&m, NULL, &t));
    seconds = (double)(clock() - began) / CLOCKS_PER_SEC;
    if (seconds > 20)
        fail_msg("loading took %.0f s", seconds);
    tern_tokenizer_free(&t);
}

/* 2 MB without a break: at one step a pair of bytes this would be hours. */
static void test_one_long_word(void **state)
{
    size_t n = 2000000, n_vocab;
    char *vocab = shared_file("tokenizers/llama-spm.vocab.gguf", &n_vocab), *text = malloc(n);
    struct tern_tokenizer *t;

    (void)state;
    assert_non_null(text);
    assert_ok(load(vocab, n_vocab, NULL, &t));
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < n; i++)
            text[i] = kind == 0   ? 'a'
                      : kind == 1 ? (char)('a' + i * 7 % 26)
                      : kind == 2 ? ' '
                                  : "\xf0\x9f\x98\x80"[i % 4];
        expect_round_trip(t, text, n);
    }
    tern_tokenizer_free(&t);
    free(text);
    free(vocab);
}

/* A vocabulary whose tokens reach over every boundary: then a word is as long as the text. */
static void test_limit_of_a_word(void **state)
{
    size_t n = TERN_MAX_PIECE_BYTES + 1;
    char *text = malloc(n);
    struct spm_made m;
    struct tern_tokenizer *t;
    struct tern_ids ids = { 0 };

    (void)state;
    assert_non_null(text);
    memset(text, 'a', n);
    spm_begin(&m, true);
    spm_token(&m, "aa", TERN_TOKEN_NORMAL, 0);
    spm_close(&m);
    vocab_bool(&m.w, "tokenizer.ggml.add_space_prefix", false);
    assert_ok(spm_load(&m, NULL, &t));
    assert_int_equal(tern_tokenizer_encode(t, text, n, false, false, &ids, &unit_err), TERN_ERR_LIMIT);
    assert_int_equal(ids.n, 0);
    tern_tokenizer_free(&t);
    free(ids.ids);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_merging_equals_its_definition),
        cmocka_unit_test(test_long_texts_equal_short_ones),
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_unused_tokens_come_apart),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_bare_file),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_one_long_word),
        cmocka_unit_test(test_limit_of_a_word),
    };
    return cmocka_run_group_tests_name("spm", tests, NULL, NULL);
}
