/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers by a grammar: what the sampler may draw, where an answer ends and with which reason, what is said
 * when nothing can follow, and that a second answer begins again.
 */
#include "unit/unit.h"

#include "coordinator/generate.h"
#include "coordinator/grammar.h"
#include "engine/base/mem.h"
#include "engine/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct tern_tokenizer *tok;
static struct tern_kernels kern;
static uint32_t n_vocab;
static float *logits;
static struct grammar_vocab *vocab;

static struct generate_options options(const char *gbnf)
{
    struct generate_options o = { .n_predict = 1000, .ctx = 1000, .n_logprobs = -1 };
    struct grammar *g;

    sample_options_default(&o.sample);
    o.sample.temperature = 0;
    assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
    o.grammar = g;
    o.grammar_vocab = vocab;
    return o;
}

static void begin(struct generate *g, const struct generate_options *o)
{
    const int32_t prompt[] = { 1, 2, 3 };

    assert_ok(generate_init(g, o, tok, &kern, n_vocab, prompt, 3, &unit_err));
    g->seq.state = SEQ_LIVE;
}

static void end(struct generate *g, struct generate_options *o)
{
    generate_fini(g);
    grammar_drop(&o->grammar);
}

/* Logits that prefer tokens in an order of chance. */
static void shuffle(uint64_t *seed)
{
    for (uint32_t i = 0; i < n_vocab; i++)
        logits[i] = (float)(unit_random(seed) % 100000) / 10000.0f;
}

/* One token; the model likes id best, or anything. */
static void step(struct generate *g, int32_t best)
{
    struct tern_head_want want = { 0 };

    if (best >= 0)
        logits[best] = 50;
    g->seq.want(&g->seq, g->seq.n_ids - 1, &want);
    assert_true(want.full);
    assert_ok(generate_reserve(g, &unit_err));
    tern_alloc_guard_begin("a token");
    g->seq.on_logits(&g->seq, g->seq.n_ids - 1, &(struct tern_head_row){ .logits = logits });
    tern_alloc_guard_end();
}

static void check_text(const struct generate *g, const char *want)
{
    if (g->n_text != strlen(want) || memcmp(g->text, want, g->n_text) != 0)
        fail_msg("'%.*s', not '%s'", (int)g->n_text, g->text, want);
}

/* Whatever the model likes, the text is by the grammar, and ends with it: by every way to draw. */
static void test_forced(void **state)
{
    uint64_t seed = 5;

    (void)state;
    for (int round = 0; round < 40; round++) {
        struct generate_options o = options("root ::= \"the \" (\"king\" | \"queen\") \"!\"");
        struct generate g;

        o.sample.temperature = round % 4 ? 1 : 0;
        o.sample.top_k = round % 4 == 1 ? 1 : round % 4 == 2 ? 40 : 0;
        o.sample.top_p = round % 8 == 3 ? 1 : 0.5;
        o.sample.min_p = round % 8 == 7 ? 0.5 : 0;
        o.sample.seed = (uint64_t)round;
        o.n_logprobs = round % 3 ? -1 : 2;
        begin(&g, &o);
        for (int i = 0; i < 40 && !generate_ended(&g); i++) {
            shuffle(&seed);
            step(&g, -1);
        }
        assert_int_equal(g.end, GENERATE_STOP);
        assert_true(g.complete);
        if (g.n_text == 9)
            check_text(&g, "the king!");
        else
            check_text(&g, "the queen!");
        if (o.n_logprobs >= 0) { /* of the raw logits: the best of them is nearer to 1 than what was drawn */
            assert_int_equal(g.tokens[0].n_top, 2);
            assert_true(g.tops[0].value >= g.tokens[0].logprob);
        }
        end(&g, &o);
    }
}

/* An end-of-text token may come when the text is whole, and only then; the last token of a text that its
 * grammar ended belongs to it. */
static void test_ends(void **state)
{
    const int32_t eos = tern_tokenizer_eos(tok);
    struct generate_options o = options("root ::= [ab]{2,}");
    struct tern_str left;
    struct generate g;
    uint64_t seed = 3;

    (void)state;
    begin(&g, &o);
    for (int i = 0; i < 10 && !generate_ended(&g); i++) {
        shuffle(&seed);
        step(&g, eos);
    }
    assert_int_equal(g.end, GENERATE_STOP);
    assert_true(g.n_text >= 2 && !g.complete);
    assert_int_equal(generate_length(&g, &left), 3 + g.n_tokens - 1); /* the end itself is left out */
    end(&g, &o);

    o = options("root ::= \"a\"");
    o.n_predict = 1; /* the end by the grammar comes first */
    begin(&g, &o);
    step(&g, -1);
    assert_int_equal(g.end, GENERATE_STOP);
    assert_int_equal(generate_length(&g, &left), 4);
    end(&g, &o);

    o = options("root ::= \"abc\"");
    o.n_predict = 1;
    begin(&g, &o);
    shuffle(&seed);
    step(&g, tern_tokenizer_find(tok, "a"));
    assert_int_equal(g.end, GENERATE_LENGTH);
    end(&g, &o);

    o = options("root ::= \"\""); /* nothing to say: no token is drawn, not even an end */
    begin(&g, &o);
    step(&g, -1);
    assert_int_equal(g.end, GENERATE_STOP);
    assert_int_equal(g.n_tokens, 0);
    end(&g, &o);
}

static void test_stop_strings(void **state)
{
    struct generate_options o = options("root ::= [ab]{2,} \"!\"");
    struct generate g;

    (void)state;
    o.n_stops = 1;
    o.stops[0] = "ab";
    begin(&g, &o);
    memset(logits, 0, n_vocab * sizeof *logits);
    step(&g, tern_tokenizer_find(tok, "a"));
    logits[tern_tokenizer_find(tok, "a")] = 0;
    step(&g, tern_tokenizer_find(tok, "b"));
    assert_int_equal(g.end, GENERATE_STOP);
    assert_true(g.cut && !g.complete);
    check_text(&g, "");
    end(&g, &o);
}

/* No token of the vocabulary: a sentence, not a text. */
static void test_dead_end(void **state)
{
    struct generate_options o = options("root ::= \"a\" [^\\x00-\\U0010ffff]");
    struct generate g;

    (void)state;
    begin(&g, &o);
    step(&g, -1);
    assert_false(generate_ended(&g));
    step(&g, -1);
    assert_true(generate_ended(&g));
    assert_int_equal(g.end, GENERATE_ERROR);
    assert_non_null(strstr(g.seq.err.text, "cannot go on by its grammar: no token of this vocabulary"));
    end(&g, &o);
}

static void test_second_answer(void **state)
{
    const int32_t more[] = { 4, 5 };
    struct generate_options o = options("root ::= \"a!\"");
    struct generate g;

    (void)state;
    o.keep = true;
    begin(&g, &o);
    for (int answer = 0; answer < 2; answer++) {
        while (!generate_ended(&g))
            step(&g, -1);
        assert_int_equal(g.end, GENERATE_STOP);
        check_text(&g, "a!");
        if (answer == 0)
            assert_ok(generate_more(&g, more, 2, &unit_err));
    }
    end(&g, &o);
}

/* A token that ends answers beside the vocabulary's own may come when the text is whole. */
static void test_end_id(void **state)
{
    const int32_t end_id = tern_tokenizer_find(tok, "b");
    struct generate_options o = options("root ::= \"a\"+ | \"b\"");
    struct generate g;

    (void)state;
    o.end_id = &end_id;
    begin(&g, &o);
    memset(logits, 0, n_vocab * sizeof *logits);
    step(&g, end_id); /* "b" is the end here, and not text */
    assert_false(generate_ended(&g));
    step(&g, end_id);
    assert_int_equal(g.end, GENERATE_STOP);
    assert_true(g.text[0] == 'a');
    end(&g, &o);
}

static int set_up(void **state)
{
    struct tern_gguf *gguf;

    (void)state;
    assert_ok(tern_gguf_open(TERN_SOURCE_DIR "/deploy/models/fable.gguf", &gguf, &unit_err));
    assert_ok(tern_tokenizer_new(gguf, NULL, &tok, &unit_err));
    tern_gguf_close(&gguf);
    n_vocab = tern_tokenizer_n_vocab(tok);
    logits = calloc(n_vocab, sizeof *logits);
    assert_non_null(logits);
    tern_kernels_init(&kern, tern_cpu_detect());
    assert_ok(grammar_vocab_new(tok, n_vocab, &vocab, &unit_err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    grammar_vocab_free(&vocab);
    tern_tokenizer_free(&tok);
    free(logits);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forced),        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_stop_strings),  cmocka_unit_test(test_dead_end),
        cmocka_unit_test(test_second_answer), cmocka_unit_test(test_end_id),
    };
    return cmocka_run_group_tests_name("grammar answers", tests, set_up, tear_down);
}
