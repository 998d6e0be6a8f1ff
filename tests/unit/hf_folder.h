/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers out of folders that a test makes: files in, a tokenizer or a sentence out.
 */
#ifndef TERN_TESTS_UNIT_HF_FOLDER_H
#define TERN_TESTS_UNIT_HF_FOLDER_H

#include "unit/token_strings.h"

#include "engine/hf.h"
#include "engine/vocab.h"

#include <sys/stat.h>
#include <unistd.h>

struct folder {
    char path[64];
    const char *files[8]; /* names, borrowed */
    size_t n;
};

static inline void folder_make(struct folder *f)
{
    snprintf(f->path, sizeof f->path, "/tmp/tern-test-hf-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->n = 0;
}

static inline void folder_put(struct folder *f, const char *name, const void *bytes, size_t n)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", f->path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
    f->files[f->n++] = name;
}

static inline void folder_text(struct folder *f, const char *name, const char *text)
{
    folder_put(f, name, text, strlen(text));
}

static inline void folder_remove(struct folder *f)
{
    for (size_t i = 0; i < f->n; i++) {
        char path[128];

        snprintf(path, sizeof path, "%s/%s", f->path, f->files[i]);
        unlink(path);
    }
    rmdir(f->path);
}

/* The folder's keys as a GGUF without tensors; *bytes is the caller's to free after closing it. */
static inline enum tern_status folder_open(const char *path, uint32_t n_vocab, char **bytes,
                                           struct tern_gguf **g)
{
    struct tern_gguf_writer *w;
    size_t n;
    FILE *f = open_memstream(bytes, &n);
    enum tern_status st;

    assert_non_null(f);
    assert_ok(tern_gguf_writer_new(f, path, 32, &w, &unit_err));
    st = tern_hf_put_tokenizer(path, n_vocab, w, &unit_err);
    if (st == TERN_OK) {
        tern_gguf_begin(w);
        assert_ok(tern_gguf_finish(&w, &unit_err));
    } else {
        tern_gguf_writer_free(&w);
    }
    fclose(f);
    if (st == TERN_OK) {
        assert_ok(tern_gguf_parse(path, *bytes, n, g, &unit_err));
    } else {
        free(*bytes);
        *bytes = NULL;
    }
    return st;
}

static inline enum tern_status folder_tokenizer(const char *path, uint32_t n_vocab, const char *pre,
                                                struct tern_tokenizer **t)
{
    struct tern_gguf *g = NULL;
    char *bytes = NULL;
    enum tern_status st = folder_open(path, n_vocab, &bytes, &g);

    if (st == TERN_OK) {
        st = tern_tokenizer_new(g, pre, t, &unit_err);
        tern_gguf_close(&g);
        free(bytes);
    }
    return st;
}

static inline void expect_equal(const struct tern_tokenizer *a, const struct tern_tokenizer *b,
                                const char *text, size_t n, bool parse)
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
static inline void expect_equal_everywhere(const struct tern_tokenizer *a, const struct tern_tokenizer *b)
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

#endif
