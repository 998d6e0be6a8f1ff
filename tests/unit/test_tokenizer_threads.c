/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One tokenizer, many threads: each gets what a single one gets.
 */
#include "unit/made_vocab.h"

#include <pthread.h>

#define N_THREADS 4

struct job {
    const struct tern_tokenizer *t;
    struct tern_ids ids;
    enum tern_status st;
    bool differs;
};

static const char text[] =
    "Once upon a time <|eot_id|> there lived\n\n a king, 1234567 \xff years \xf0\x9f\x98\x80 ago. "
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static void *encode_again_and_again(void *arg)
{
    struct job *j = arg;
    struct tern_ids ids = { 0 };

    j->st = tern_tokenizer_encode(j->t, text, sizeof text - 1, true, true, &j->ids, NULL);
    for (int i = 0; i < 100 && j->st == TERN_OK; i++) {
        ids.n = 0;
        j->st = tern_tokenizer_encode(j->t, text, sizeof text - 1, true, true, &ids, NULL);
        j->differs |= ids.n != j->ids.n || memcmp(ids.ids, j->ids.ids, ids.n * sizeof *ids.ids) != 0;
        for (size_t k = 0; k < ids.n; k++)
            j->differs |= tern_tokenizer_piece(j->t, ids.ids[k], true).len == 0;
    }
    free(ids.ids);
    return NULL;
}

static void expect_agreement(const struct tern_tokenizer *t)
{
    struct job jobs[N_THREADS + 1] = { { .differs = false } };
    pthread_t threads[N_THREADS];

    for (int i = 0; i <= N_THREADS; i++)
        jobs[i].t = t;
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again_and_again, &jobs[i]), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    encode_again_and_again(&jobs[N_THREADS]);
    for (int i = 0; i <= N_THREADS; i++) {
        assert_int_equal(jobs[i].st, TERN_OK);
        assert_false(jobs[i].differs);
        assert_int_equal(jobs[i].ids.n, jobs[N_THREADS].ids.n);
        assert_memory_equal(jobs[i].ids.ids, jobs[N_THREADS].ids.ids, jobs[i].ids.n * sizeof(int32_t));
    }
    for (int i = 0; i <= N_THREADS; i++)
        free(jobs[i].ids.ids);
}

static void test_byte_pairs(void **state)
{
    struct tern_gguf *g;
    struct tern_tokenizer *t;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    expect_agreement(t);
    tern_tokenizer_free(&t);
}

static void test_sentencepiece(void **state)
{
    static const char *const words[] = { "<unk>", "<s>", "</s>", "a",    "aa",
                                         "aaaa",  "on",  "ce",   "once", "<|eot_id|>" };
    struct vocab_writer w;
    struct tern_tokenizer *t;

    (void)state;
    vocab_begin(&w);
    vocab_text(&w, "tokenizer.ggml.model", "llama");
    vocab_open(&w, "tokenizer.ggml.tokens");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        vocab_add(&w, words[i], strlen(words[i]));
    for (int b = 0; b < 256; b++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", b);
        vocab_add(&w, name, 6);
    }
    vocab_close(&w);
    vocab_end(&w);
    assert_ok(load(w.bytes, w.n, NULL, &t));
    free(w.bytes);
    expect_agreement(t);
    tern_tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_pairs),
        cmocka_unit_test(test_sentencepiece),
    };
    return cmocka_run_group_tests_name("tokenizer_threads", tests, NULL, NULL);
}
