/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known strings with known ids, of the data that lie beside the source tree; and the way there and back.
 */
#ifndef TERN_TESTS_UNIT_TOKEN_STRINGS_H
#define TERN_TESTS_UNIT_TOKEN_STRINGS_H

#include "unit/made_vocab.h"

static inline char *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes;
    long size;

    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, f), size);
    bytes[size] = '\0';
    fclose(f);
    *n = (size_t)size;
    return bytes;
}

/* Where the data lie. */
static inline char *shared_path(const char *name, char path[4096])
{
    const char *dir = getenv("TERN_SHARED");

    snprintf(path, 4096, "%s/%s", dir && *dir ? dir : TERN_SOURCE_DIR "/../shared", name);
    return path;
}

/* One of their files; skips the test when they are not there. */
static inline char *shared_file(const char *name, size_t *n)
{
    char path[4096];
    char *bytes;

    shared_path(name, path);
    bytes = read_all(path, n);
    if (!bytes) {
        print_message("skipped: %s is not there (TERN_SHARED names another folder of shared data)\n", path);
        skip();
    }
    return bytes;
}

/* What is encoded decodes to the same bytes. */
static inline void expect_same(const struct tern_tokenizer *t, const char *text, size_t len, bool parse)
{
    struct tern_ids ids = { 0 };
    size_t at = 0;

    assert_ok(tern_tokenizer_encode(t, text, len, false, parse, &ids, &unit_err));
    for (size_t i = 0; i < ids.n; i++) {
        struct tern_str s = tern_tokenizer_piece_after(t, i ? ids.ids[i - 1] : -1, ids.ids[i], parse);

        assert_true(s.len <= len - at);
        assert_memory_equal(s.ptr, text + at, s.len);
        at += s.len;
    }
    assert_int_equal(at, len);
    free(ids.ids);
}

/* Without special tokens. */
static inline void expect_round_trip(const struct tern_tokenizer *t, const char *text, size_t len)
{
    expect_same(t, text, len, false);
}

static inline void check_strings(const char *kind, const char *pre)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char name[64];
    size_t n_vocab, n_in, n_out, n = 0;
    char *vocab, *in, *out, *text, *line;
    struct tern_tokenizer *t;

    snprintf(name, sizeof name, "tokenizers/%s.vocab.gguf", kind);
    vocab = shared_file(name, &n_vocab);
    snprintf(name, sizeof name, "tokenizers/%s.inp", kind);
    in = shared_file(name, &n_in);
    snprintf(name, sizeof name, "tokenizers/%s.out", kind);
    out = shared_file(name, &n_out);
    assert_ok(load(vocab, n_vocab, NULL, &t));
    assert_string_equal(tern_tokenizer_pre(t), pre);
    assert_string_equal(tern_tokenizer_pre_source(t), "file");
    for (text = in, line = out; text; n++) {
        char *next = strstr(text, separator), *end = strchr(line, '\n');
        size_t len = next ? (size_t)(next - text) : strlen(text), k;

        k = end ? (size_t)(end - line) : strlen(line);
        while (k > 0 && line[k - 1] == ' ')
            k--;
        line[k] = '\0';
        line += strspn(line, " ");
        expect_ids(t, text, len, false, false, line);
        expect_round_trip(t, text, len);
        text = next ? next + sizeof separator - 1 : NULL;
        line = end ? end + 1 : line + strlen(line);
    }
    assert_true(n >= 40);
    tern_tokenizer_free(&t);
    free(vocab);
    free(in);
    free(out);
}

#endif
