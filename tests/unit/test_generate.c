/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text out of tokens: ends, stop strings held back and cut, UTF-8 across tokens, the context's last
 * position, log-probabilities. Logits are made by hand so that greedy sampling gives the tokens each test
 * wants.
 */
#include "unit/unit.h"

#include "coordinator/generate.h"
#include "engine/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

static struct tern_gguf *gguf;
static struct tern_tokenizer *tok;
static struct tern_kernels kern;
static uint32_t n_vocab;
static float *logits;

static struct generate_options greedy(void)
{
    struct generate_options o = { 0 };

    sample_options_default(&o.sample);
    o.sample.temperature = 0;
    o.n_predict = 1000;
    o.ctx = 1000;
    o.n_logprobs = -1;
    return o;
}

static void begin(struct generate *g, const struct generate_options *o)
{
    const int32_t prompt[] = { 1, 2, 3 };

    assert_ok(generate_init(g, o, tok, &kern, n_vocab, prompt, 3, &unit_err));
    g->seq.state = SEQ_LIVE;
}

/* The model says id. */
static void say(struct generate *g, int32_t id)
{
    for (uint32_t i = 0; i < n_vocab; i++)
        logits[i] = 0;
    logits[id] = 5;
    assert_ok(generate_reserve(g, &unit_err));
    g->seq.on_logits(&g->seq, g->seq.n_ids - 1, &(struct tern_head_row){ .logits = logits });
}

/* The model says text, token by token, until it has ended; returns how many tokens it took. */
static size_t say_text(struct generate *g, const char *text, size_t len)
{
    struct tern_ids ids = { 0 };
    size_t i;

    assert_ok(tern_tokenizer_encode(tok, text, len, false, false, &ids, &unit_err));
    for (i = 0; i < ids.n && !generate_ended(g); i++)
        say(g, ids.ids[i]);
    free(ids.ids);
    return i;
}

static void check_text(const struct generate *g, const char *want)
{
    assert_int_equal(g->n_text, strlen(want));
    assert_memory_equal(g->text, want, g->n_text);
}

static void test_ends(void **state)
{
    struct generate_options o = greedy();
    struct generate g;

    (void)state;
    begin(&g, &o); /* end of text */
    say_text(&g, "a king", 6);
    assert_false(generate_ended(&g));
    say(&g, tern_tokenizer_eos(tok));
    assert_true(generate_ended(&g));
    assert_int_equal(g.end, GENERATE_STOP);
    check_text(&g, "a king");
    assert_int_equal(g.seq.state, SEQ_ENDED);
    generate_fini(&g);

    o.n_predict = 2; /* length */
    begin(&g, &o);
    assert_int_equal(say_text(&g, "a king and a queen", 18), 2);
    assert_int_equal(g.end, GENERATE_LENGTH);
    assert_int_equal(g.n_tokens, 2);
    generate_fini(&g);

    o.n_predict = 0;
    begin(&g, &o);
    say(&g, 5);
    assert_int_equal(g.end, GENERATE_LENGTH);
    assert_int_equal(g.n_tokens, 0);
    generate_fini(&g);

    o.n_predict =
        UINT32_MAX; /* context: prompt 3, positions 5; the token behind the last position is still good */
    o.ctx = 5;
    begin(&g, &o);
    assert_int_equal(g.seq.max_len, 5);
    assert_int_equal(say_text(&g, "a king and a queen", 18), 3);
    assert_int_equal(g.end, GENERATE_CONTEXT);
    assert_int_equal(g.n_tokens, 3);
    assert_int_equal(g.seq.n_ids, 5);
    generate_fini(&g);
}

static const int32_t more[] = { 4, 5 };

/* What the next turn begins behind. */
static void check_length(const struct generate *g, uint32_t n, const char *left)
{
    struct tern_str s;

    assert_int_equal(generate_length(g, &s), n);
    assert_true(tern_str_is(s, left));
}

/* One answer behind the other: what of the last one stays, however it ended. */
static void test_more(void **state)
{
    struct generate_options o = greedy();
    struct generate g;
    size_t n;

    (void)state;
    o.keep = true;
    o.n_predict = 100;
    begin(&g, &o); /* the end of text does not stay */
    assert_int_equal(g.seq.max_len, 1000);
    n = say_text(&g, "a king", 6);
    say(&g, tern_tokenizer_eos(tok));
    assert_int_equal(g.end, GENERATE_STOP);
    assert_int_equal(g.seq.state, SEQ_LIVE);
    assert_true(g.seq.held);
    check_length(&g, 3 + (uint32_t)n, "");
    say(&g, 7); /* came home too late */
    assert_int_equal(g.n_tokens, n + 1);
    g.seq.n_sent = g.seq.n_ids;
    assert_ok(generate_more(&g, more, 2, &unit_err));
    assert_int_equal(g.n_kept, 3 + n);
    assert_int_equal(g.seq.n_ids, 5 + n);
    assert_int_equal(g.seq.want_from, 4 + n);
    assert_false(g.seq.held || g.seq.rewound);
    check_text(&g, "");

    say_text(&g, "a queen", 7); /* interrupted: all stays */
    n = g.seq.n_ids;
    generate_stop(&g, GENERATE_INTERRUPTED);
    check_length(&g, (uint32_t)n, "");
    generate_fini(&g);

    o.n_predict = 2; /* length: the last token was never sent */
    begin(&g, &o);
    say_text(&g, "a king and a queen", 18);
    assert_int_equal(g.seq.n_ids, 4);
    check_length(&g, 5, "");
    assert_ok(generate_more(&g, more, 1, &unit_err));
    assert_int_equal(g.seq.n_ids, 6);
    assert_int_equal(g.seq.ids[4], g.tokens[1].id);
    generate_fini(&g);
}

/* The tokens of a stop string go, and the text in front of it that one of them prints is handed out. */
static void test_more_after_stop(void **state)
{
    struct generate_options o = greedy();
    struct generate g;

    (void)state;
    o.keep = true;
    o.n_stops = 1;
    o.stops[0] = "ng and";
    begin(&g, &o);
    say_text(&g, "a king and a queen", 18);
    assert_int_equal(g.end, GENERATE_STOP);
    check_text(&g, "a ki");
    assert_true(g.cut);
    g.seq.n_sent = g.seq.n_ids;
    check_length(&g, 4, " ki"); /* "a", " king", " and" */
    assert_ok(generate_more(&g, more, 2, &unit_err));
    assert_true(g.seq.rewound);
    assert_int_equal(g.seq.n_sent, 4);
    assert_int_equal(g.seq.n_ids, 6);
    assert_int_equal(g.seq.ids[4], 4);
    generate_fini(&g);
}

static void test_end_token(void **state)
{
    const int32_t id = 9;
    struct generate_options o = greedy();
    struct generate g;

    (void)state;
    o.end_id = &id;
    begin(&g, &o);
    say(&g, 9);
    assert_int_equal(g.end, GENERATE_STOP);
    check_text(&g, "");
    assert_int_equal(g.seq.state, SEQ_ENDED);
    generate_fini(&g);
}

static void test_end_by_others(void **state)
{
    struct generate_options o = greedy();
    struct tern_err e;
    struct generate g;

    (void)state;
    begin(&g, &o);
    say_text(&g, "a king", 6);
    (void)TERN_FAIL(&e, TERN_ERR_NUMERIC, "broken");
    seq_fail(&g.seq, &e);
    assert_true(generate_ended(&g));
    assert_int_equal(g.end, GENERATE_ERROR);
    generate_stop(&g, GENERATE_INTERRUPTED); /* too late */
    assert_int_equal(g.end, GENERATE_ERROR);
    check_text(&g, "a king");
    generate_fini(&g);

    begin(&g, &o);
    generate_stop(&g, GENERATE_INTERRUPTED);
    assert_int_equal(g.end, GENERATE_INTERRUPTED);
    assert_int_equal(g.seq.state, SEQ_ENDED);
    assert_false(g.seq.failed);
    generate_fini(&g);

    begin(&g, &o); /* logits that are no numbers */
    for (uint32_t i = 0; i < n_vocab; i++)
        logits[i] = NAN;
    g.seq.on_logits(&g.seq, 2, &(struct tern_head_row){ .logits = logits });
    assert_true(generate_ended(&g));
    assert_true(g.seq.failed);
    assert_int_equal(g.seq.err.status, TERN_ERR_NUMERIC);
    generate_fini(&g);
}

static void test_ignore_eos(void **state)
{
    struct generate_options o = greedy();
    struct generate g;

    (void)state;
    o.ignore_eos = true;
    assert_ok(generate_forbid_eog(&o.sample, tok, n_vocab, &unit_err));
    assert_true(o.sample.n_bias >= 1);
    begin(&g, &o);
    say(&g, tern_tokenizer_eos(tok));
    assert_false(generate_ended(&g));
    assert_int_not_equal(g.tokens[0].id, tern_tokenizer_eos(tok));
    generate_fini(&g);
}

/* What is shown never has to be taken back, and the stop string never shows. */
static void check_stop(const char *const *stops, uint32_t n, const char *said, const char *want, bool ends)
{
    struct generate_options o = greedy();
    struct generate g;
    struct tern_ids ids = { 0 };
    char shown_text[256];
    size_t shown = 0, n_shown = 0;

    o.n_stops = n;
    for (uint32_t i = 0; i < n; i++)
        o.stops[i] = stops[i];
    begin(&g, &o);
    assert_ok(tern_tokenizer_encode(tok, said, strlen(said), false, false, &ids, &unit_err));
    for (size_t i = 0; i < ids.n && !generate_ended(&g); i++) {
        struct tern_str s;

        say(&g, ids.ids[i]);
        s = generate_ready(&g, &shown);
        assert_true(n_shown + s.len < sizeof shown_text);
        memcpy(shown_text + n_shown, s.ptr, s.len);
        n_shown += s.len;
        assert_true(n_shown <= strlen(want) && memcmp(shown_text, want, n_shown) == 0);
    }
    free(ids.ids);
    assert_int_equal(generate_ended(&g), ends);
    if (ends)
        assert_int_equal(g.end, GENERATE_STOP);
    generate_stop(&g, GENERATE_LENGTH);
    n_shown += generate_ready(&g, &shown).len;
    assert_int_equal(n_shown, strlen(want));
    check_text(&g, want);
    generate_fini(&g);
}

static void test_stop_strings(void **state)
{
    const char *const king[] = { "king" }, *const two[] = { "queen", "king" }, *const inner[] = { "ng a" };
    const char *const same[] = { "aab" }, *const whole[] = { "once" };

    (void)state;
    check_stop(king, 1, "there was a king and", "there was a ", true);
    check_stop(two, 2, "there was a king and a queen", "there was a ", true);
    check_stop(inner, 1, "there was a king and", "there was a ki", true); /* begins and ends inside tokens */
    check_stop(same, 1, "xaaab yes", "xa", true); /* the search must not skip an overlap */
    check_stop(whole, 1, "once", "", true);
    check_stop(king, 1, "he is kind, kin", "he is kind, kin", false); /* held back, then let go */
}

/* Which stop string it was, and which tokens may be shown: none that prints a piece of it. */
static void test_ready_tokens(void **state)
{
    struct generate_options o = greedy();
    struct generate g;

    (void)state;
    o.n_stops = 2;
    o.stops[0] = "queen";
    o.stops[1] = "ng and";
    begin(&g, &o);
    assert_int_equal(g.stop, -1);
    say_text(&g, "a ki", 4);
    assert_int_equal(generate_ready_tokens(&g, 0), g.n_tokens);
    generate_fini(&g);
    begin(&g, &o);
    assert_int_equal(say_text(&g, "a king", 6), 2);
    assert_int_equal(generate_ready_tokens(&g, 0), 1); /* "ng" may become the second stop string */
    say_text(&g, " and", 4);
    assert_int_equal(g.end, GENERATE_STOP);
    assert_int_equal(g.stop, 1);
    assert_int_equal(generate_ready_tokens(&g, 1), 1); /* " king" is a part of it */
    generate_fini(&g);

    begin(&g, &o); /* the end of text is a token without text */
    say_text(&g, "a", 1);
    say(&g, tern_tokenizer_eos(tok));
    assert_int_equal(g.stop, -1);
    assert_int_equal(g.tokens[1].end, 1);
    assert_int_equal(generate_ready_tokens(&g, 0), 2);
    generate_fini(&g);
}

/* A full context forgets the older half behind what is to be kept. */
static void test_shift(void **state)
{
    struct generate_options o = greedy();
    struct generate g;
    const int32_t want[] = { 1, 2, 13, 14, 15, 16, 17, 18 };

    (void)state;
    o.ctx = 10;
    o.shift = true;
    o.n_keep = 2;
    o.ignore_eos = true;
    begin(&g, &o); /* 1, 2, 3 */
    for (int32_t id = 10; id <= 16; id++)
        say(&g, id);
    assert_int_equal(g.seq.n_ids, 10);
    g.seq.n_sent = 10;
    say(&g, 17); /* finds no room: 3, 10, 11, 12 go */
    assert_int_equal(g.n_shifts, 1);
    assert_false(generate_ended(&g));
    assert_int_equal(g.seq.n_ids, 7);
    assert_int_equal(g.seq.n_sent, 2);
    assert_true(g.seq.rewound);
    assert_int_equal(g.seq.want_from, 6);
    say(&g, 18);
    assert_int_equal(g.seq.n_ids, 8);
    assert_memory_equal(g.seq.ids, want, sizeof want);
    assert_int_equal(g.n_tokens, 9);
    generate_fini(&g);

    o.n_keep = 9; /* then nothing can go */
    begin(&g, &o);
    for (int32_t id = 10; id <= 17; id++)
        say(&g, id);
    assert_int_equal(g.end, GENERATE_CONTEXT);
    assert_int_equal(g.n_shifts, 0);
    generate_fini(&g);
}

static void test_utf8_across_tokens(void **state)
{
    static const char text[] = "\xe2\x98\x83 snow \xf0\x9f\x90\x89";
    struct generate_options o = greedy();
    struct generate g;
    struct tern_ids ids = { 0 };
    size_t shown = 0;

    (void)state;
    begin(&g, &o);
    assert_ok(tern_tokenizer_encode(tok, text, strlen(text), false, false, &ids, &unit_err));
    for (size_t i = 0; i < ids.n; i++) {
        struct tern_str s;

        say(&g, ids.ids[i]);
        s = generate_ready(&g, &shown);
        /* never the first bytes of a character without its last */
        for (size_t k = s.len; k-- > 0 && ((uint8_t)s.ptr[k] & 0x80);)
            if (((uint8_t)s.ptr[k] & 0xc0) == 0xc0) {
                assert_true(s.len - k == ((uint8_t)s.ptr[k] >= 0xf0 ? 4 : (uint8_t)s.ptr[k] >= 0xe0 ? 3 : 2));
                break;
            }
    }
    check_text(&g, text);
    /* Half a character at the end becomes U+FFFD. */
    assert_true(ids.n > 0);
    say(&g, ids.ids[0]);
    if (g.n_text == strlen(text)) {
        generate_stop(&g, GENERATE_LENGTH);
        assert_true(g.n_text >= strlen(text) + 3);
        assert_memory_equal(g.text + g.n_text - 3, "\xef\xbf\xbd", 3);
    }
    generate_fini(&g);
    free(ids.ids);
}

static void test_logprobs(void **state)
{
    struct generate_options o = greedy();
    struct generate g;
    double want;

    (void)state;
    o.n_logprobs = 3;
    o.sample.bias[0] = (struct sample_bias){ 17, -10 }; /* log-probabilities are of the raw logits */
    o.sample.n_bias = 1;
    begin(&g, &o);
    for (int i = 0; i < 600; i++) /* past the first reservation */
        say(&g, 17);
    want = 5 - log(exp(5) + n_vocab - 1);
    for (uint32_t i = 0; i < 600; i++) {
        assert_int_equal(g.tokens[i].id, 0);
        assert_true(fabs(g.tokens[i].logprob - (want - 5)) < 1e-6);
        assert_int_equal(g.tokens[i].n_top, 3);
        assert_int_equal(g.tops[3 * i].id, 17);
        assert_true(fabs(g.tops[3 * i].value - want) < 1e-6);
        assert_int_equal(g.tops[3 * i + 1].id, 0);
        assert_int_equal(g.tops[3 * i + 2].id, 1);
    }
    generate_fini(&g);
}

static int set_up(void **state)
{
    (void)state;
    tern_kernels_init(&kern, tern_cpu_detect());
    if (tern_gguf_open(MODEL, &gguf, &unit_err) || tern_tokenizer_new(gguf, NULL, &tok, &unit_err)) {
        print_error("%s\n", unit_err.text);
        return -1;
    }
    n_vocab = tern_tokenizer_n_vocab(tok);
    logits = calloc(n_vocab, sizeof *logits);
    return logits ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(logits);
    tern_tokenizer_free(&tok);
    tern_gguf_close(&gguf);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_more),
        cmocka_unit_test(test_more_after_stop),
        cmocka_unit_test(test_end_token),
        cmocka_unit_test(test_end_by_others),
        cmocka_unit_test(test_ignore_eos),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_ready_tokens),
        cmocka_unit_test(test_shift),
        cmocka_unit_test(test_utf8_across_tokens),
        cmocka_unit_test(test_logprobs),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
