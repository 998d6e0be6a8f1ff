/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every vocabulary there is, there and back: 100,000 random Unicode strings and as many of random bytes.  And
 * Qwen2's strings with the part of its vocabulary that can be had.
 */
#include "unit/hf_folder.h"

#include "engine/utf8.h"

#define N_STRINGS 100000

/* Half of it what texts are made of, half any code point there is (surrogates are none). */
static size_t random_unicode(uint64_t *seed, char *out)
{
    static const char *const bits[] = { " ",           "  ",           "\n",       "\r\n",
                                        "\t",          "the",          "'s",       "1234",
                                        "\xc2\xbd",    "\xcc\x81",     "!?",       "<s>",
                                        "<|eot_id|>",  "\xe2\x80\x8d", "\xc2\xa0", "\xe3\x80\x80",
                                        "\xef\xbb\xbf" };
    static const uint32_t ranges[][2] = { { 0, 0x80 },         { 0x80, 0x800 },      { 0x800, 0xd800 },
                                          { 0xe000, 0x10000 }, { 0x1f300, 0x1f700 }, { 0x10000, 0x110000 } };
    size_t n = 1 + unit_random(seed) % 16, len = 0;

    while (n-- > 0) {
        const uint32_t *range = ranges[unit_random(seed) % 6];
        const char *bit = bits[unit_random(seed) % (sizeof bits / sizeof bits[0])];

        if (unit_random(seed) % 2)
            len += tern_utf8_put(range[0] + (uint32_t)(unit_random(seed) % (range[1] - range[0])), out + len);
        else
            len += (size_t)sprintf(out + len, "%s", bit);
    }
    return len;
}

static size_t random_bytes(uint64_t *seed, char *out)
{
    size_t n = 1 + unit_random(seed) % 24;

    for (size_t i = 0; i < n; i++)
        out[i] = (char)(unit_random(seed) >> 8);
    return n;
}

/* What a text comes back as: with SentencePiece U+2581 as a space, and bytes without a token as U+FFFD. */
static size_t expected(const char *text, size_t len, bool spm, const bool lacks[256], char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len;)
        if (spm && len - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else if (lacks[(uint8_t)text[i]]) {
            n += tern_utf8_put(0xfffd, out + n);
            i++;
        } else {
            out[n++] = text[i++];
        }
    return n;
}

/* n_lacking: how many bytes have no token. */
static void find_lacking(const struct tern_tokenizer *t, bool lacks[256], int n_lacking)
{
    for (int b = 0; b < 256; b++) {
        struct tern_ids ids = { 0 };
        struct tern_str s;
        char byte = (char)b;

        assert_ok(tern_tokenizer_encode(t, &byte, 1, false, false, &ids, &unit_err));
        s = tern_tokenizer_piece(t, ids.ids[ids.n - 1], false);
        lacks[b] = s.ptr[s.len - 1] != byte;
        n_lacking -= lacks[b];
        free(ids.ids);
    }
    assert_int_equal(n_lacking, 0);
}

static void check_round_trips(const struct tern_tokenizer *t, bool spm, int n_lacking)
{
    bool lacks[256];
    uint64_t seed = 20261122;
    struct tern_ids ids = { 0 };
    char text[512], want[1536], got[1536];

    find_lacking(t, lacks, n_lacking);
    for (int i = 0; i < 2 * N_STRINGS; i++) {
        size_t len = i % 2 ? random_unicode(&seed, text) : random_bytes(&seed, text), n_want, n = 0;
        bool parse = i % 4 >= 2;

        if (i % 64 == 1)
            len += (size_t)sprintf(text + len, "\xe2\x96\x81x");
        n_want = expected(text, len, spm, lacks, want);
        ids.n = 0;
        assert_ok(tern_tokenizer_encode(t, text, len, false, parse, &ids, &unit_err));
        for (size_t k = 0; k < ids.n; k++) {
            struct tern_str s = tern_tokenizer_piece_after(t, k ? ids.ids[k - 1] : -1, ids.ids[k], true);

            assert_true(parse || tern_tokenizer_type(t, ids.ids[k]) != TERN_TOKEN_CONTROL);
            assert_true(s.len <= sizeof got - n);
            memcpy(got + n, s.ptr, s.len);
            n += s.len;
        }
        if (n != n_want || memcmp(got, want, n) != 0)
            fail_msg("string %d, '%.*s', comes back as '%.*s'", i, (int)len, text, (int)n, got);
    }
    free(ids.ids);
}

static void check_vocabulary(const char *file, bool spm, int n_lacking)
{
    size_t n;
    char *vocab = shared_file(file, &n);
    struct tern_tokenizer *t;

    assert_ok(load(vocab, n, NULL, &t));
    free(vocab);
    check_round_trips(t, spm, n_lacking);
    tern_tokenizer_free(&t);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_vocabulary("tokenizers/gpt-2.vocab.gguf", false, 0);
}

static void test_falcon(void **state)
{
    (void)state;
    check_vocabulary("tokenizers/falcon.vocab.gguf", false, 28);
}

static void test_llama_bpe(void **state)
{
    (void)state;
    check_vocabulary("tokenizers/llama-bpe.vocab.gguf", false, 0);
}

static void test_llama_spm(void **state)
{
    (void)state;
    check_vocabulary("tokenizers/llama-spm.vocab.gguf", true, 0);
}

static void test_fable(void **state)
{
    struct tern_gguf *g;
    struct tern_tokenizer *t;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    check_round_trips(t, false, 0);
    tern_tokenizer_free(&t);
}

/* -- Qwen2 -------------------------------------------------------------------------------------------- */

/* Its vocabulary begins with that of an older tiktoken list, without numbers of several digits; Llama-3's
 * begins with the same list whole.  Ids from here on are of tokens that only Qwen2 has. */
#define N_OLDER 100256
#define N_QWEN2 99156

static bool is_number(const char *line, size_t len)
{
    static const char values[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n_digits = 0;
    uint32_t word = 0, n_bits = 0;

    for (size_t i = 0; i < len && line[i] != '='; i++) {
        word = word << 6 | (uint32_t)(strchr(values, line[i]) - values);
        n_bits += 6;
        if (n_bits >= 8) {
            uint8_t byte = (uint8_t)(word >> (n_bits -= 8));

            if (byte < '0' || byte > '9')
                return false;
            n_digits++;
        }
    }
    return n_digits > 1;
}

static struct tern_tokenizer *qwen2(void)
{
    size_t n_list, n = 0, line_no = 0;
    char *list = shared_file("tokenizers/llama3.tiktoken", &n_list), *made = malloc(n_list), *save;
    struct tern_tokenizer *t;
    struct folder f;
    unsigned rank = 0;

    assert_non_null(made);
    for (char *line = strtok_r(list, "\n", &save); line && line_no < N_OLDER;
         line = strtok_r(NULL, "\n", &save), line_no++) {
        size_t len = strcspn(line, " ");

        if (!is_number(line, len))
            n += (size_t)sprintf(made + n, "%.*s %u\n", (int)len, line, rank++);
    }
    assert_int_equal(rank, N_QWEN2);
    folder_make(&f);
    folder_put(&f, "tokenizer.model", made, n);
    assert_ok(folder_tokenizer(f.path, 151936, "qwen2", &t));
    folder_remove(&f);
    free(list);
    free(made);
    return t;
}

static void test_qwen2_strings(void **state)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    size_t n_in, n_out, n = 0, n_known = 0;
    char *in = shared_file("tokenizers/qwen2.inp", &n_in), *out = shared_file("tokenizers/qwen2.out", &n_out);
    struct tern_tokenizer *t = qwen2();

    (void)state;
    for (char *text = in, *line = out; text; n++) {
        char *next = strstr(text, separator), *end = strchr(line, '\n');
        bool known = true;

        if (end)
            *end = '\0';
        line += strspn(line, " ");
        for (size_t k = strlen(line); k > 0 && line[k - 1] == ' ';)
            line[--k] = '\0';
        for (char *at = line; *at; at += strspn(at, " "))
            known = strtol(at, &at, 10) < N_QWEN2 && known;
        if (known) {
            expect_ids(t, text, next ? (size_t)(next - text) : strlen(text), false, false, line);
            n_known++;
        }
        text = next ? next + sizeof separator - 1 : NULL;
        line = end ? end + 1 : line + strlen(line);
    }
    assert_int_equal(n, 47);
    assert_int_equal(n_known, 41); /* the other six have tokens that only Qwen2 has */
    tern_tokenizer_free(&t);
    free(in);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),      cmocka_unit_test(test_falcon), cmocka_unit_test(test_llama_bpe),
        cmocka_unit_test(test_llama_spm), cmocka_unit_test(test_fable),  cmocka_unit_test(test_qwen2_strings),
    };
    return cmocka_run_group_tests_name("vocabularies", tests, NULL, NULL);
}
