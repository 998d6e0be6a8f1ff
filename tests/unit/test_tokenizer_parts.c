/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer's parts against their definitions, written here the slow and obvious way; and texts of
 * megabytes that would take hours if any part were quadratic.
 */
#include "unit/made_vocab.h"

#include "engine/base/limits.h"
#include "engine/bpe.h"
#include "engine/heap64.h"
#include "engine/pretokenizer.h"
#include "engine/special.h"
#include "engine/utf8.h"

#define LARGE 2000000 /* bytes: at one step a pair of bytes this would be 4e12 steps */

/* -- merging ------------------------------------------------------------------------------------------ */

/* Byte-pair merging on texts, by its definition: find the pair of lowest rank, merge its leftmost occurrence,
 * again. */
static size_t merge_by_definition(char merges[][2][16], size_t n_merges, const char *text, char pieces[][16])
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        snprintf(pieces[i], 16, "%c", text[i]);
    for (;;) {
        size_t rank = 0, at = n;

        for (; rank < n_merges && at == n; rank++)
            for (size_t i = 0; i + 1 < n && at == n; i++)
                if (strcmp(pieces[i], merges[rank][0]) == 0 && strcmp(pieces[i + 1], merges[rank][1]) == 0)
                    at = i;
        if (at == n)
            return n;
        memcpy(pieces[at] + strlen(pieces[at]), pieces[at + 1], strlen(pieces[at + 1]) + 1);
        n--;
        memmove(pieces[at + 1], pieces[at + 2], (n - at - 1) * sizeof *pieces);
    }
}

static void test_merging_equals_its_definition(void **state)
{
    uint64_t seed = 99;

    (void)state;
    for (int round = 0; round < 60; round++) {
        static char merges[40][2][16], pieces[200][16], text[200];
        char tokens[44][16] = { "a", "b", "c" };
        size_t n_tokens = 3, n_merges = 0;
        struct made m;
        struct tern_tokenizer *t;

        made_begin(&m, "gpt-2");
        for (int tries = 0; tries < 40; tries++) {
            const char *l = tokens[unit_random(&seed) % n_tokens], *r = tokens[unit_random(&seed) % n_tokens];

            if (strlen(l) + strlen(r) > 15)
                continue;
            snprintf(merges[n_merges][0], 16, "%s", l);
            snprintf(merges[n_merges][1], 16, "%s", r);
            snprintf(tokens[n_tokens], 16, "%s%s", merges[n_merges][0], merges[n_merges][1]);
            n_merges++;
            made_token(&m, tokens[n_tokens++], TERN_TOKEN_NORMAL);
        }
        vocab_close(&m.w);
        vocab_open(&m.w, "tokenizer.ggml.merges");
        for (size_t i = 0; i < n_merges; i++)
            vocab_add_merge(&m.w, merges[i][0], strlen(merges[i][0]), merges[i][1], strlen(merges[i][1]));
        vocab_close(&m.w);
        assert_ok(made_load(&m, NULL, &t));
        for (int k = 0; k < 20; k++) {
            struct tern_ids ids = { 0 };
            size_t len = 1 + unit_random(&seed) % 150,
                   n; /* both sides of the change from scanning to the heap */

            for (size_t i = 0; i < len; i++)
                text[i] = (char)('a' + unit_random(&seed) % (k % 2 ? 3 : 2));
            text[len] = '\0';
            n = merge_by_definition(merges, n_merges, text, pieces);
            assert_ok(tern_tokenizer_encode(t, text, len, false, false, &ids, &unit_err));
            assert_int_equal(ids.n, n);
            for (size_t i = 0; i < n; i++) {
                struct tern_str s = tern_tokenizer_piece(t, ids.ids[i], false);

                assert_int_equal(s.len, strlen(pieces[i]));
                assert_memory_equal(s.ptr, pieces[i], s.len);
            }
            free(ids.ids);
        }
        tern_tokenizer_free(&t);
    }
}

static void test_heap_sorts(void **state)
{
    uint64_t seed = 5, keys[1000], last;
    size_t n;

    (void)state;
    for (size_t size = 0; size <= 1000; size = size < 40 ? size + 1 : size * 5) {
        for (size_t i = 0; i < size; i++)
            keys[i] = unit_random(&seed) % 512;
        n = size / 2;
        tern_heap_build(keys, n);
        while (n < size)
            tern_heap_push(keys, &n, keys[n]);
        for (last = 0; n > 0;) {
            uint64_t key = tern_heap_pop(keys, &n);

            assert_true(key >= last);
            last = key;
        }
    }
}

/* -- special tokens ----------------------------------------------------------------------------------- */

/* The rule of special.h as it stands there.  owner[i]: the token that byte i was cut out with, or -1. */
static void cut_by_definition(char specials[][12], size_t n, const char *text, size_t len, int *owner)
{
    for (size_t i = 0; i < len; i++)
        owner[i] = -1;
    for (size_t want = 12; want-- > 1;)
        for (size_t k = 0; k < n; k++)
            for (size_t i = 0; strlen(specials[k]) == want && i + want <= len; i++) {
                bool fits = memcmp(text + i, specials[k], want) == 0;

                for (size_t j = 0; j < want; j++)
                    fits = fits && owner[i + j] < 0;
                for (size_t j = 0; fits && j < want; j++)
                    owner[i + j] = (int)k;
            }
}

static void test_special_tokens_equal_their_definition(void **state)
{
    uint64_t seed = 4711;

    (void)state;
    for (int round = 0; round < 400; round++) {
        char specials[24][12], text[200];
        int owner[200];
        size_t n = 1 + unit_random(&seed) % 24, len = unit_random(&seed) % 200, n_kept = 0;
        struct made m;
        struct tern_tokenizer *t;
        struct tern_ids ids = { 0 };
        size_t at = 0;

        made_begin(&m, "gpt-2");
        for (size_t k = 0; k < n; k++) {
            size_t size = 1 + unit_random(&seed) % 10, same = 0;

            for (size_t i = 0; i < size; i++)
                specials[n_kept][i] = (char)('a' + unit_random(&seed) % (round % 3 + 1));
            specials[n_kept][size] = '\0';
            while (strcmp(specials[same], specials[n_kept]) != 0)
                same++;
            if (same == n_kept)
                made_token(&m, specials[n_kept++], TERN_TOKEN_USER);
        }
        made_merges(&m, NULL);
        assert_ok(made_load(&m, NULL, &t));
        for (size_t i = 0; i < len; i++)
            text[i] = (char)('a' + unit_random(&seed) % (round % 3 + 1) + (unit_random(&seed) % 20 == 0) * 5);
        cut_by_definition(specials, n_kept, text, len, owner);
        assert_ok(tern_tokenizer_encode(t, text, len, false, round % 2, &ids, &unit_err));
        for (size_t i = 0; i < ids.n; i++) {
            assert_true(at < len);
            if (ids.ids[i] < 256) {
                assert_int_equal(owner[at], -1);
                assert_int_equal(ids.ids[i], text[at++]);
            } else {
                assert_int_equal(owner[at], ids.ids[i] - 256);
                at += strlen(specials[ids.ids[i] - 256]);
            }
        }
        assert_int_equal(at, len);
        free(ids.ids);
        tern_tokenizer_free(&t);
    }
}

/* -- pre-tokenizers ----------------------------------------------------------------------------------- */

struct joined {
    char text[4096];
    size_t n;
};

static enum tern_status join(void *arg, const char *piece, size_t len, struct tern_err *err)
{
    struct joined *j = arg;

    (void)err;
    assert_true(len > 0 && j->n + len + 1 < sizeof j->text);
    memcpy(j->text + j->n, piece, len);
    j->n += len;
    j->text[j->n++] = '|';
    return TERN_OK;
}

static struct tern_pretok *pretok(const char *name, bool jit)
{
    const struct tern_pretok_kind *kind = tern_pretok_find((struct tern_str){ name, strlen(name) });
    struct tern_pretok *p;

    assert_non_null(kind);
    assert_ok(tern_pretok_new(kind, jit, &p, &unit_err));
    return p;
}

static void test_rows_of_the_table(void **state)
{
    static const struct {
        const char *name, *text, *pieces;
    } rows[] = {
        { "llama-bpe", "I'M 1234567 (x)\n\n  y", "I|'M| |123|456|7| (|x|)\n\n| | y|" },
        { "llama3", "a\t b\r\n \n c", "a|\t| b|\r\n \n| c|" },
        { "llama-v3", "x  ", "x|  |" },
        { "qwen2", "I'm 1234 ok", "I|'m| |1|2|3|4| ok|" },
        { "stablelm2", "12'LL", "1|2|'LL|" },
        { "gpt-2", "I'M I'm 12345 (x)\n\ny", "I|'|M| I|'m| 12345| (|x|)|\n|\n|y|" },
        { "gpt-2", "a   b   ", "a|  | b|   |" },
        { "default", "I'm 12345 (x) \n=", "I|'|m| |123|45| |(|x|)| \n|=|" },
        { "falcon", "I'm 12345 a`b", "I|'|m| |123|45| a|`|b|" },
        { "falcon3", "I'm 123 a`b", "I|'|m| |1|2|3| a|`|b|" },
        { "falcon3-upstream", "I'm 1234 a`b", "I|'m| |123|4| a|`b|" },
        { "falcon_e", "x12", "x|1|2|" },
        { "falcon_e", "helloWorld HTTPServer I'm", "hello|World| HTTPServer| I|'|m|" },
        { "falcon_e", "a`b \tx\n\n  y /*\n", "a|`|b| |\tx|\n\n| | y| |/*|\n|" },
        /* a mark is of either case, as are letters that have none */
        { "falcon_e",
          "E\xcc\x81t\xc3\xa9"
          "B \xe4\xb8\xad"
          "A",
          "E\xcc\x81t\xc3\xa9|B| \xe4\xb8\xad|A|" },
        /* U+180E is no white space since Unicode 6.3, U+3000 and U+0085 are; U+00BD is a number */
        { "llama-bpe",
          "a\xe1\xa0\x8e\xe1\xa0\x8e"
          "b",
          "a|\xe1\xa0\x8e\xe1\xa0\x8e|b|" },
        { "llama-bpe", "a  \xe1\xa0\x8e", "a| | \xe1\xa0\x8e|" },
        { "llama-bpe", "a\xe3\x80\x80\xc2\x85 !", "a|\xe3\x80\x80\xc2\x85| !|" },
        { "llama-bpe", "4 \xc2\xbd", "4| |\xc2\xbd|" },
        /* bytes that are not UTF-8 end the text before them: what follows is not seen from there */
        { "llama-bpe", "a \xff b\xe2\x82", "a| |\xff| b|\xe2|\x82|" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int jit = 0; jit < 2; jit++) {
            struct tern_pretok *p = pretok(rows[i].name, jit);
            struct joined j = { .n = 0 };

            assert_ok(tern_pretok_split(p, rows[i].text, strlen(rows[i].text), join, &j, &unit_err));
            j.text[j.n] = '\0';
            assert_string_equal(j.text, rows[i].pieces);
            tern_pretok_free(&p);
        }
    assert_null(tern_pretok_find((struct tern_str){ "llama-bp", 8 }));
    assert_null(tern_pretok_find((struct tern_str){ "", 0 }));
}

struct sum {
    uint64_t hash;
    size_t n, bytes;
};

static enum tern_status add_up(void *arg, const char *piece, size_t len, struct tern_err *err)
{
    struct sum *s = arg;

    (void)piece;
    (void)err;
    s->hash = s->hash * 31 + len;
    s->n++;
    s->bytes += len;
    return TERN_OK;
}

static char *repeat(const char *unit, size_t len)
{
    size_t n = strlen(unit);
    char *text = malloc(len);

    assert_non_null(text);
    for (size_t i = 0; i < len; i++)
        text[i] = unit[i % n];
    return text;
}

/* Whole units of runs and mixtures, and what each tokenizer's expressions find hardest. */
static const char *const units[] = { " ",    "\n",  "a",         "1",           "\xf0\x9f\x98\x80",
                                     "!",    " \n", "\t ",       "'",           "\xff",
                                     "'l",   " a",  "e\xcc\x81", "   x",        "\xe2\x80\xa8",
                                     "\r\n", "A",   "aB",        "\xe4\xb8\xad" };

/* JIT and interpreter cut long runs into the same pieces, every byte into one, in linear time. */
static void test_long_runs_are_cut(void **state)
{
    static const char *const names[] = { "llama-bpe", "qwen2",   "gpt-2",   "default",
                                         "falcon",    "falcon3", "falcon_e" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tern_pretok *fast = pretok(names[i], true), *slow = pretok(names[i], false);

        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
            size_t len = LARGE / 16 / strlen(units[u]) * strlen(units[u]);
            char *text = repeat(units[u], len);
            struct sum a = { 0 }, b = { 0 };

            assert_ok(tern_pretok_split(fast, text, len, add_up, &a, &unit_err));
            assert_ok(tern_pretok_split(slow, text, len, add_up, &b, &unit_err));
            assert_int_equal(a.bytes, len);
            assert_int_equal(a.n, b.n);
            assert_int_equal(a.hash, b.hash);
            free(text);
        }
        tern_pretok_free(&fast);
        tern_pretok_free(&slow);
    }
}

static enum tern_status refuse(void *arg, const char *piece, size_t len, struct tern_err *err)
{
    int *left = arg;

    (void)piece;
    (void)len;
    return (*left)-- > 0 ? TERN_OK : TERN_FAIL(err, TERN_ERR_MEMORY, "enough");
}

static void test_split_stops_where_told(void **state)
{
    struct tern_pretok *p = pretok("default", true);
    int left = 3;

    (void)state;
    assert_int_equal(tern_pretok_split(p, "a b c 1234567", 13, refuse, &left, &unit_err), TERN_ERR_MEMORY);
    assert_int_equal(left, -1);
    tern_pretok_free(&p);
}

/* -- large texts -------------------------------------------------------------------------------------- */

static void encode_large(const struct tern_tokenizer *t, const char *text, size_t len)
{
    struct tern_ids ids = { 0 };
    size_t at = 0;

    assert_ok(tern_tokenizer_encode(t, text, len, false, true, &ids, &unit_err));
    for (size_t i = 0; i < ids.n; i++) {
        struct tern_str s = tern_tokenizer_piece(t, ids.ids[i], true);

        assert_true(s.len <= len - at && memcmp(s.ptr, text + at, s.len) == 0);
        at += s.len;
    }
    assert_int_equal(at, len);
    free(ids.ids);
}

/* One word of megabytes in a vocabulary whose merges reach far: "aa", "aaaa", ... */
static void test_one_long_word(void **state)
{
    struct made m;
    struct tern_tokenizer *t;
    char token[1025] = "a", *text;
    uint64_t seed = 3;

    (void)state;
    made_begin(&m, "gpt-2");
    for (size_t n = 2; n <= 1024; n *= 2) {
        memset(token, 'a', n);
        made_token(&m, token, TERN_TOKEN_NORMAL);
    }
    made_token(&m, "ab", TERN_TOKEN_NORMAL);
    made_token(&m, "ba", TERN_TOKEN_NORMAL);
    vocab_close(&m.w);
    vocab_open(&m.w, "tokenizer.ggml.merges");
    for (size_t n = 1; n < 1024; n *= 2)
        vocab_add_merge(&m.w, token, n, token, n);
    vocab_add_merge(&m.w, "a", 1, "b", 1);
    vocab_add_merge(&m.w, "b", 1, "a", 1);
    vocab_close(&m.w);
    assert_ok(made_load(&m, NULL, &t));
    text = repeat("a", LARGE);
    encode_large(t, text, LARGE);
    for (size_t i = 0; i < LARGE; i++)
        text[i] = (char)('a' + unit_random(&seed) % 3);
    encode_large(t, text, LARGE);
    for (size_t i = 0; i < LARGE; i++)
        text[i] = (char)unit_random(&seed);
    encode_large(t, text, LARGE);
    free(text);
    tern_tokenizer_free(&t);
}

/* Special tokens that begin and overlap at every byte. */
static void test_many_special_tokens(void **state)
{
    static const char *const texts[] = { "a", "ab", "aaaaaaab", "b" };
    struct made m;
    struct tern_tokenizer *t;
    char token[TERN_MAX_SPECIAL_BYTES + 1];

    (void)state;
    made_begin(&m, "gpt-2");
    for (size_t n = 1; n <= TERN_MAX_SPECIAL_BYTES; n++) {
        memset(token, 'a', n);
        token[n] = '\0';
        made_token(&m, token, n % 3 ? TERN_TOKEN_CONTROL : TERN_TOKEN_USER);
    }
    made_merges(&m, NULL);
    assert_ok(made_load(&m, NULL, &t));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *text = repeat(texts[i], LARGE / 8);

        encode_large(t, text, LARGE / 8);
        free(text);
    }
    tern_tokenizer_free(&t);
}

static void test_real_vocabulary_large_texts(void **state)
{
    struct tern_gguf *g;
    struct tern_tokenizer *t;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        char *text = repeat(units[u], LARGE / 4);

        encode_large(t, text, LARGE / 4);
        free(text);
    }
    tern_tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging_equals_its_definition),
        cmocka_unit_test(test_heap_sorts),
        cmocka_unit_test(test_special_tokens_equal_their_definition),
        cmocka_unit_test(test_rows_of_the_table),
        cmocka_unit_test(test_long_runs_are_cut),
        cmocka_unit_test(test_split_stops_where_told),
        cmocka_unit_test(test_one_long_word),
        cmocka_unit_test(test_many_special_tokens),
        cmocka_unit_test(test_real_vocabulary_large_texts),
    };
    return cmocka_run_group_tests_name("tokenizer_parts", tests, NULL, NULL);
}
