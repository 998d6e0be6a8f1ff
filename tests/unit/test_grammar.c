/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammars: the notation with the places of what is wrong in it, masks compared with a recogniser by another
 * hand on several vocabularies, and grammars made to take forever.
 */
#include "unit/grammar_reference.h"
#include "unit/token_strings.h"

#include "coordinator/grammar.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

static enum tern_status parse(const char *text)
{
    struct grammar *g;
    const struct grammar *held;
    enum tern_status st = grammar_parse(text, strlen(text), &g, &unit_err);

    if (!st) {
        held = g;
        grammar_drop(&held);
        assert_null(held);
    }
    return st;
}

/* -- notation -------------------------------------------------------------------------------------------- */

static void test_valid(void **state)
{
    static const char *const texts[] = {
        "root ::= \"\"",
        "root::=\"a\"",
        "  # a comment\n\n root ::= \"a\" # and more\n# the end",
        "root ::= a-B_9\na-B_9 ::= \"x\"\r\n",
        "root ::= (\n  \"a\"\n  | # b\n \"b\"\n)\n",
        "root ::= \"a\" |\n  \"b\"",
        "root ::=\n \"a\"",
        "root ::= | \"a\"",
        "root ::= [a-zA-Z_\\]\\[\\\\-] [^] [-a] [a-]",
        "root ::= \"\\n\\r\\t\\\\\\\"\\x41\\u00e9\\U0001F600 \xe6\x97\xa5\" .",
        "root ::= \"a\"* \"b\"+ \"c\"? \"d\"{2} \"e\"{2,} \"f\"{2,3} \"g\"{,3} \"h\"{ 1 , 2 } (\"i\")*?",
        "root ::= \"a\" *",
        "root ::= root2 \"x\"\nroot2 ::= \"y\" root2 | \"\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (parse(texts[i]))
            fail_msg("'%s': %s", texts[i], unit_err.text);
}

static void test_invalid(void **state)
{
    static const struct {
        const char *text, *why;
        enum tern_status status;
    } t[] = {
        { "", "no rule 'root'", TERN_ERR_FORMAT },
        { "rot ::= \"a\"", "no rule 'root'", TERN_ERR_FORMAT },
        { "root := \"a\"", "line 1, column 6: expected ::=", TERN_ERR_FORMAT },
        { "root ::= \"a\nb", "line 1, column 10: the text that begins here", TERN_ERR_FORMAT },
        { "root ::= [a-z", "line 1, column 10: the class that begins here", TERN_ERR_FORMAT },
        { "root ::= \"a\"\n\n  x ::= y", "line 3, column 9: the rule 'y' is not defined", TERN_ERR_FORMAT },
        { "root ::= \"\xc3\xa9\" $", "line 1, column 14: expected an element", TERN_ERR_FORMAT },
        { "root ::= (\"a\"", "line 1, column 10: this parenthesis is never closed", TERN_ERR_FORMAT },
        { "root ::= \"a\")", "line 1, column 13: no parenthesis is open", TERN_ERR_FORMAT },
        { "root ::= (\"a\" $)", "line 1, column 15: expected an element", TERN_ERR_FORMAT },
        { "root ::= \"a\"\n| \"b\"", "line 2, column 1: a rule goes on in the next line", TERN_ERR_FORMAT },
        { "root ::= *", "line 1, column 10: there is nothing in front of it", TERN_ERR_FORMAT },
        { "root ::= \"a\"{", "line 1, column 14: expected a number", TERN_ERR_FORMAT },
        { "root ::= \"a\"{2", "line 1, column 15: expected , or }", TERN_ERR_FORMAT },
        { "root ::= \"a\"{3,2}", "smaller than the first", TERN_ERR_FORMAT },
        { "root ::= \"a\"{1000000}", "more than 65536 repetitions", TERN_ERR_LIMIT },
        { "root ::= \"\\q\"", "line 1, column 12: no such escape", TERN_ERR_FORMAT },
        { "root ::= \"\\x4\"", "hexadecimal", TERN_ERR_FORMAT },
        { "root ::= \"\\U00110000\"", "U+10FFFF", TERN_ERR_FORMAT },
        { "root ::= \"\\ud83d\"", "surrogate", TERN_ERR_FORMAT },
        { "root ::= [z-a]", "from the lower", TERN_ERR_FORMAT },
        { "root ::= []", "empty class", TERN_ERR_FORMAT },
        { "root ::= \"\xff\"", "not valid UTF-8", TERN_ERR_FORMAT },
        { "root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: this rule is defined already",
          TERN_ERR_FORMAT },
        { "root ::= <think>", "tokens in a grammar", TERN_ERR_UNSUPPORTED },
        { "root ::= ((\"a\"{300}){300}){300}", "too large", TERN_ERR_LIMIT },
        { "root ::= \"a\"?????????", "of each other", TERN_ERR_LIMIT },
        /* left recursion: direct, hidden behind what may be empty, in a circle, where nobody looks */
        { "root ::= root \"a\" | \"b\"", "line 1, column 1: the rule 'root' begins with itself",
          TERN_ERR_UNSUPPORTED },
        { "root ::= \"a\"? root", "begins with itself", TERN_ERR_UNSUPPORTED },
        { "root ::= (e root \"x\")?\ne ::= f f\nf ::= \"y\"*", "begins with itself", TERN_ERR_UNSUPPORTED },
        { "root ::= \"a\"\nxx ::= y \"b\"\ny ::= xx | \"c\"", "begins with itself", TERN_ERR_UNSUPPORTED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        enum tern_status st = parse(t[i].text);

        if (st != t[i].status || !strstr(unit_err.text, t[i].why))
            fail_msg("'%s' gives %s: %s", t[i].text, tern_status_name(st), st ? unit_err.text : "");
    }
}

/* Every beginning of a good grammar, and every byte of it changed, is refused or taken, and nothing else. */
static void test_broken(void **state)
{
    static const char good[] = "root ::= \"a\\u00e9\"{2,3} ([^a-c\\n]+ | x)*\nx ::= (\"y\" | .)? # end\n";
    char text[sizeof good];

    (void)state;
    for (size_t i = 0; i < sizeof good - 1; i++) {
        memcpy(text, good, sizeof good);
        text[i] = '\0';
        (void)!parse(text);
        for (int b = 1; b < 256; b += 3) {
            memcpy(text, good, sizeof good);
            text[i] = (char)b;
            (void)!parse(text);
        }
    }
}

/* -- masks ----------------------------------------------------------------------------------------------- */

/* The first and last characters of every length of UTF-8 and lead byte that is special. */
static const char *const edges[] = { "~",
                                     "\xc2\x80",
                                     "\xdf\xbf",
                                     "\xe0\xa0\x80",
                                     "\xe0\xbf\xbf",
                                     "\xe1\x80\x80",
                                     "\xec\xbf\xbf",
                                     "\xed\x80\x80",
                                     "\xed\x9f\xbf",
                                     "\xee\x80\x80",
                                     "\xef\xbf\xbf",
                                     "\xf0\x90\x80\x80",
                                     "\xf0\xbf\xbf\xbf",
                                     "\xf1\x80\x80\x80",
                                     "\xf3\xbf\xbf\xbf",
                                     "\xf4\x80\x80\x80",
                                     "\xf4\x8f\xbf\xbf" };
#define N_EDGES (sizeof edges / sizeof edges[0])
static uint32_t first_edge; /* their tokens */

static struct tern_tokenizer *small_vocabulary(void)
{
    static struct made m;
    static const char *const texts[] = { "aa",       "ab",       "ba",           "abcd", "a\n",
                                         "aaaaaaaa", "\xc3\xa9", "\xc3\xa9\x61", "00",   "\xf0\x9f\x98\x80",
                                         "\" ",      "{\"",      "a\"",          "bb",   "ab",
                                         "cd" };
    static const char *const halves[] = { "\xc3",     "\xa9\x61", "\x61\xf0\x9f", "\x98\x80\x30", "\xe2\x82",
                                          "\xed\xa0", "\xe0\x80", "\xf4\x90",     "\xf4\x8f" };
    struct tern_tokenizer *t;

    made_begin(&m, "llama-bpe");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        vocab_add_bytes(&m.w, texts[i], strlen(texts[i]));
        m.types[m.n++] = TERN_TOKEN_NORMAL;
    }
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
        vocab_add_bytes(&m.w, halves[i], strlen(halves[i]));
        m.types[m.n++] = TERN_TOKEN_NORMAL;
    }
    first_edge = (uint32_t)m.n;
    for (size_t i = 0; i < N_EDGES; i++) {
        vocab_add_bytes(&m.w, edges[i], strlen(edges[i]));
        m.types[m.n++] = TERN_TOKEN_NORMAL;
    }
    made_token(&m, "<s>", TERN_TOKEN_CONTROL);
    made_token(&m, "</s>", TERN_TOKEN_CONTROL);
    made_merges(&m, NULL);
    vocab_u32(&m.w, "tokenizer.ggml.bos_token_id", (uint32_t)m.n - 2);
    vocab_u32(&m.w, "tokenizer.ggml.eos_token_id", (uint32_t)m.n - 1);
    assert_ok(made_load(&m, NULL, &t));
    return t;
}

#define MAX_CHECKED 60 /* bytes of a text: the reference does not do long ones */

struct bed {
    struct tern_tokenizer *tok;
    struct grammar_vocab *vocab;
    uint32_t n_vocab;
    uint32_t stride; /* tokens looked at: one out of so many, at random */
};

static void bed_open(struct bed *b, struct tern_tokenizer *tok, uint32_t stride)
{
    b->tok = tok;
    b->n_vocab = tern_tokenizer_n_vocab(tok) + 3; /* more logits than tokens */
    b->stride = stride;
    assert_ok(grammar_vocab_new(tok, b->n_vocab, &b->vocab, &unit_err));
}

static void bed_close(struct bed *b)
{
    grammar_vocab_free(&b->vocab);
    tern_tokenizer_free(&b->tok);
}

static bool bit(const uint64_t *mask, uint32_t id)
{
    return (mask[id / 64] >> (id % 64) & 1) != 0;
}

/* The mask and the reference agree on a token. */
static void check_token(const struct bed *b, struct ref *r, const char *gbnf, const uint64_t *mask,
                        const uint8_t *text, size_t len, uint32_t id)
{
    const struct tern_str piece = tern_tokenizer_piece(b->tok, (int32_t)id, false);
    uint8_t more[MAX_CHECKED];
    bool may, whole;

    memcpy(more, text, len);
    if (piece.len && piece.len < sizeof more - len)
        memcpy(more + len, piece.ptr, piece.len);
    else if (piece.len)
        return;
    may = ref_match(r, more, len + piece.len, &whole);
    if (!piece.len || tern_tokenizer_is_eog(b->tok, (int32_t)id))
        may = whole && tern_tokenizer_is_eog(b->tok, (int32_t)id);
    if (bit(mask, id) != may)
        fail_msg("%s'%.*s' then '%.*s' (%u) is %sallowed", gbnf, (int)len, (const char *)text, (int)piece.len,
                 piece.ptr, (unsigned)id, may ? "not " : "");
}

/* Compares a mask with the reference; returns one of the tokens that are allowed and print, or -1. */
static int32_t check_mask(const struct bed *b, struct ref *r, const char *gbnf, struct grammar_state *s,
                          const uint8_t *text, size_t len)
{
    const uint64_t *mask = grammar_mask(s);
    uint32_t n_allowed = 0;
    int32_t chosen = -1;
    bool whole;

    (void)ref_match(r, text, len, &whole);
    assert_int_equal(grammar_is_whole(s), whole);
    for (uint32_t id = 0; id < b->n_vocab; id++) {
        const struct tern_str piece = tern_tokenizer_piece(b->tok, (int32_t)id, false);

        if (unit_random(&r->seed) % b->stride == 0) {
            check_token(b, r, gbnf, mask, text, len, id);
            if (!bit(mask, id))
                assert_false(grammar_accept(s, (int32_t)id)); /* ... and nothing changes */
        }
        if (bit(mask, id) && piece.len && piece.len < MAX_CHECKED - len - 1 &&
            !tern_tokenizer_is_eog(b->tok, (int32_t)id) && unit_random(&r->seed) % ++n_allowed == 0)
            chosen = (int32_t)id;
    }
    if (chosen >= 0)
        check_token(b, r, gbnf, mask, text, len, (uint32_t)chosen);
    return chosen;
}

static void check_grammars(const struct bed *b, int n, uint64_t seed)
{
    static struct ref r;
    static char gbnf[1 << 16];
    int n_masks = 0;

    for (int i = 0; i < n; i++) {
        struct grammar_state *s;
        struct grammar *g;
        const struct grammar *held;

        ref_new(&r, seed + 977 * (uint64_t)i);
        ref_gbnf(&r, gbnf);
        assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
        assert_ok(grammar_state_new(g, b->vocab, &s, &unit_err));
        held = g;
        grammar_drop(&held); /* the state holds it */
        for (int walk = 0; walk < 2; walk++, grammar_restart(s)) {
            uint8_t text[64];
            size_t len = 0;

            for (int k = 0; k < 10; k++, n_masks++) {
                int32_t id = check_mask(b, &r, gbnf, s, text, len);
                struct tern_str piece = tern_tokenizer_piece(b->tok, id, false);

                if (id < 0)
                    break;
                tern_alloc_guard_begin("a token");
                assert_true(grammar_accept(s, id));
                tern_alloc_guard_end();
                memcpy(text + len, piece.ptr, piece.len);
                len += piece.len;
            }
        }
        grammar_state_free(&s);
    }
    assert_true(n_masks > 2 * n);
}

static void test_masks_small(void **state)
{
    struct bed b;

    (void)state;
    bed_open(&b, small_vocabulary(), 1);
    check_grammars(&b, 400, 1);
    bed_close(&b);
}

static void check_file(const char *path, uint32_t stride, int n)
{
    struct tern_gguf *g;
    struct tern_tokenizer *t;
    struct bed b;

    assert_ok(tern_gguf_open(path, &g, &unit_err));
    assert_ok(tern_tokenizer_new(g, NULL, &t, &unit_err));
    tern_gguf_close(&g);
    bed_open(&b, t, stride);
    check_grammars(&b, n, stride);
    bed_close(&b);
}

static void test_masks_fable(void **state)
{
    (void)state;
    check_file(TERN_SOURCE_DIR "/deploy/models/fable.gguf", 20, 100);
}

static void check_shared(const char *name)
{
    char path[4096];
    size_t n;

    free(shared_file(name, &n));
    check_file(shared_path(name, path), 400, 12);
}

static void test_masks_llama_bpe(void **state)
{
    (void)state;
    check_shared("tokenizers/llama-bpe.vocab.gguf");
}

static void test_masks_llama_spm(void **state)
{
    (void)state;
    check_shared("tokenizers/llama-spm.vocab.gguf");
}

static void test_masks_falcon(void **state)
{
    (void)state;
    check_shared("tokenizers/falcon.vocab.gguf");
}

/* Behind a text all of `may` can come and none of `not`. */
static void check_next(const struct bed *b, const char *gbnf, const char *text, const char *may,
                       const char * not )
{
    struct grammar *g;
    const struct grammar *held;
    struct grammar_state *s;
    const uint64_t *mask;

    assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
    assert_ok(grammar_state_new(g, b->vocab, &s, &unit_err));
    for (; *text; text++)
        assert_true(grammar_accept(s, (uint8_t)*text));
    mask = grammar_mask(s);
    for (; *may; may++)
        if (!bit(mask, (uint8_t)*may))
            fail_msg("%s: '%c' is not allowed", gbnf, *may);
    for (; *not ; not ++)
        if (bit(mask, (uint8_t) * not ))
            fail_msg("%s: '%c' is allowed", gbnf, *not );
    grammar_state_free(&s);
    held = g;
    grammar_drop(&held);
}

/* A class that lacks one character lacks its token, in the midst of a text as at its bounds. */
static void test_edges(void **state)
{
    static const char *const forms[] = { "root ::= [^%s]*", "root ::= [^%s]{0,3}", "root ::= . [^%s] .{40}" };
    struct bed b;

    (void)state;
    bed_open(&b, small_vocabulary(), 1);
    for (size_t i = 0; i < 3 * N_EDGES; i++) {
        struct grammar *g;
        const struct grammar *held;
        struct grammar_state *s;
        char gbnf[64];

        snprintf(gbnf, sizeof gbnf, forms[i % 3], edges[i / 3]);
        assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
        assert_ok(grammar_state_new(g, b.vocab, &s, &unit_err));
        if (i % 3 == 2)
            assert_true(grammar_accept(s, 'a'));
        for (uint32_t e = 0; e < N_EDGES; e++)
            if (bit(grammar_mask(s), first_edge + e) != (e != i / 3))
                fail_msg("%s: edge %u", gbnf, (unsigned)e);
        grammar_state_free(&s);
        held = g;
        grammar_drop(&held);
    }
    bed_close(&b);
}

/* The same rule, entered at two places of the text, returns to what was there at each. */
static void test_stacks(void **state)
{
    static const char q[] =
        "root ::= q \"x\" | \"a\" q \"y\" | \"aaaa\" q \"z\"\nq ::= d \"e\"\nd ::= \"a\"* \"f\"";
    static const char p[] = "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"";
    struct bed b;

    (void)state;
    bed_open(&b, small_vocabulary(), 1);
    check_next(&b, q, "fe", "x", "yz");
    check_next(&b, q, "aaf", "e", "xyz");
    check_next(&b, q, "aafe", "xy", "z");
    check_next(&b, q, "aaaaafe", "xyz", "ef");
    check_next(&b, p, "aaad", "bc", "ad");
    check_next(&b, p, "aaadbc", "bc", "ad");
    check_next(&b, p, "aaadbcb", "", "abcd");
    bed_close(&b);
}

/* -- grammars made to take forever ----------------------------------------------------------------------- */

/* n times a token, each behind its mask; returns how many were allowed. */
static int say(struct bed *b, const char *gbnf, const char *text, int n, bool *done, const char **why)
{
    struct grammar *g;
    const struct grammar *held;
    struct grammar_state *s;
    const int32_t id = tern_tokenizer_find(b->tok, text);
    const uint64_t t0 = tern_now_ns();
    int i;

    assert_true(id >= 0);
    assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
    assert_ok(grammar_state_new(g, b->vocab, &s, &unit_err));
    tern_alloc_guard_begin("a token");
    for (i = 0; i < n && bit(grammar_mask(s), (uint32_t)id); i++)
        if (!grammar_accept(s, id))
            break;
    tern_alloc_guard_end();
    *done = grammar_is_done(s);
    *why = grammar_why(s);
    grammar_state_free(&s);
    held = g;
    grammar_drop(&held);
    assert_true(tern_now_ns() - t0 < 60u * 1000000000u);
    return i;
}

static void test_bombs(void **state)
{
    char *text = malloc(1 << 18);
    struct bed b;
    const char *why;
    bool done;
    size_t n = 0;

    (void)state;
    bed_open(&b, small_vocabulary(), 1);
    /* 2^n stacks, which share what they have in common: read on one token, and on each */
    n = 0;
    for (int i = 0; i < 200; i++)
        n += (size_t)sprintf(text + n,
                             i ? "r%d ::= r%d \"x\" | r%d \"y\"\n" : "root ::= r1 \"x\" | r1 \"y\"\n", i,
                             i + 1, i + 1);
    sprintf(text + n, "r200 ::= \"a\"+");
    assert_int_equal(say(&b, text, "a", 500, &done, &why), 500);
    assert_int_equal(say(&b, "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\"", "a", 500, &done, &why),
                     500);
    assert_int_equal(say(&b, "root ::= \"a\" root root | \"a\"", "a", 300, &done, &why), 300);
    assert_int_equal(say(&b, "root ::= (\"a\"* \"a\"*)* (\"a\"?){200}", "a", 500, &done, &why), 500);
    /* as deep as it goes, and then a sentence */
    assert_int_equal(say(&b, "root ::= \"a\" root \"b\" | \"c\"", "a", 10000, &done, &why), 10000);
    assert_true(say(&b, "root ::= \"a\" root \"b\" | \"c\"", "a", 20000, &done, &why) < 20000);
    assert_non_null(strstr(why, "nested too deeply"));
    /* what is at the end need not be remembered */
    assert_int_equal(say(&b, "root ::= \"a\" root | \"b\"", "a", 40000, &done, &why), 40000);
    /* written out it has an end */
    assert_int_equal(say(&b, "root ::= \"a\"{20000}", "a", 30000, &done, &why), 20000);
    assert_true(done);
    /* parentheses, and rules in rules */
    n = (size_t)sprintf(text, "root ::= ");
    for (int i = 0; i < 129; i++)
        n += (size_t)sprintf(text + n, "(");
    assert_int_equal(parse(text), TERN_ERR_LIMIT);
    n = (size_t)sprintf(text, "root ::= r0\n");
    for (int i = 0; i < 10000; i++)
        n += (size_t)sprintf(text + n, "r%d ::= r%d\n", i, i + 1);
    sprintf(text + n, "r10000 ::= \"a\"");
    assert_int_equal(say(&b, text, "a", 2, &done, &why), 1);
    memset(text, ' ', 1 << 18);
    memcpy(text, "root ::= \"a\"", 12);
    assert_int_equal(grammar_parse(text, GRAMMAR_MAX_BYTES + 1, NULL, &unit_err), TERN_ERR_LIMIT);
    bed_close(&b);
    free(text);
}

/* Ends: by name, when the text is whole; other tokens can be named as ends. */
static void test_ends(void **state)
{
    static const char gbnf[] = "root ::= \"ab\" \"c\"*";
    struct grammar *g;
    const struct grammar *held;
    struct grammar_state *s;
    struct bed b;
    int32_t eos, also;

    (void)state;
    bed_open(&b, small_vocabulary(), 1);
    eos = tern_tokenizer_eos(b.tok);
    also = tern_tokenizer_find(b.tok, "cd");
    assert_ok(grammar_parse(gbnf, strlen(gbnf), &g, &unit_err));
    assert_ok(grammar_state_new(g, b.vocab, &s, &unit_err));
    grammar_also_ends(s, also);
    assert_false(bit(grammar_mask(s), (uint32_t)eos) || bit(grammar_mask(s), (uint32_t)also));
    assert_false(grammar_accept(s, eos));
    assert_true(grammar_accept(s, tern_tokenizer_find(b.tok, "ab")));
    assert_true(bit(grammar_mask(s), (uint32_t)eos) && bit(grammar_mask(s), (uint32_t)also));
    assert_true(grammar_accept(s, eos) && grammar_accept(s, also));
    assert_true(grammar_is_whole(s) && !grammar_is_done(s));
    assert_false(grammar_accept(s, -1) || grammar_accept(s, (int32_t)b.n_vocab));
    grammar_restart(s);
    assert_false(grammar_is_whole(s));
    grammar_state_free(&s);
    held = g;
    grammar_drop(&held);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),           cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_broken),          cmocka_unit_test(test_masks_small),
        cmocka_unit_test(test_masks_fable),     cmocka_unit_test(test_masks_llama_bpe),
        cmocka_unit_test(test_masks_llama_spm), cmocka_unit_test(test_masks_falcon),
        cmocka_unit_test(test_edges),           cmocka_unit_test(test_stacks),
        cmocka_unit_test(test_bombs),           cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests_name("grammar", tests, NULL, NULL);
}
