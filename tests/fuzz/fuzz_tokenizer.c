/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer on vocabularies and texts from anywhere.  The first byte chooses:
 *
 *   0  stream   byte: where to cut; the rest is fed to the streaming UTF-8 filter whole and in two parts
 *   1  file     u16: bytes of text; the text; the rest is a GGUF file
 *   2  made     a vocabulary in the few bytes described at made_vocabulary(); the rest is the text
 *   3  scored   one of SentencePiece's kind, described at scored_vocabulary(); the rest is the text
 *
 * What must hold: ids lie inside the vocabulary, the same call gives the same ids, and with all 256 bytes in
 * the vocabulary the tokens' pieces are the text again.
 */
#include "fuzz/fuzz.h"

#include "engine/tokenizer.h"
#include "engine/utf8.h"
#include "vocab_writer.h"

#define N_MADE   320 /* 256 bytes and what an input can add */
#define MAX_MADE 240

static uint8_t take(struct tern_cursor *c)
{
    uint8_t byte = 0;

    (void)tern_cursor_u8(c, &byte);
    return byte;
}

static void check_stream(struct tern_cursor *c)
{
    size_t at = take(c), n = tern_cursor_left(c), n_whole, n_cut;
    char *whole = malloc(3 * (n + 4) + 3), *cut = malloc(3 * (n + 4) + 15);
    const char *text = (const char *)c->at;
    struct tern_utf8 u = { .n = 0 };

    FUZZ_CHECK(whole && cut);
    at = at < n ? at : n;
    n_whole = tern_utf8_feed(&u, text, n, whole);
    FUZZ_CHECK(n_whole <= 3 * (n + 4));
    n_whole += tern_utf8_flush(&u, whole + n_whole);
    FUZZ_CHECK(tern_utf8_valid_prefix((uint8_t *)whole, n_whole) == n_whole);
    if (tern_utf8_valid_prefix((const uint8_t *)text, n) == n)
        FUZZ_CHECK(n_whole == n && memcmp(whole, text, n) == 0);
    n_cut = tern_utf8_feed(&u, text, at, cut);
    n_cut += tern_utf8_feed(&u, text + at, n - at, cut + n_cut);
    n_cut += tern_utf8_flush(&u, cut + n_cut);
    FUZZ_CHECK(n_cut == n_whole && memcmp(cut, whole, n_whole) == 0);
    free(whole);
    free(cut);
}

static void check_pieces(const struct tern_tokenizer *t, const struct tern_ids *ids, const char *text,
                         size_t len)
{
    bool spm = strcmp(tern_tokenizer_pre(t), "none") == 0;
    size_t at = 0;

    for (size_t i = 0; i < ids->n; i++) {
        struct tern_str s = tern_tokenizer_piece_after(t, i ? ids->ids[i - 1] : -1, ids->ids[i], true);

        for (size_t k = 0; k < s.len; k++)
            if (spm && s.ptr[k] == ' ' && len - at >= 3 && memcmp(text + at, "\xe2\x96\x81", 3) == 0) {
                at += 3;
            } else {
                FUZZ_CHECK(at < len && s.ptr[k] == text[at]);
                at++;
            }
    }
    FUZZ_CHECK(at == len);
}

/* parse: special tokens in the text are tokens.  whole: the vocabulary has every byte. */
static void check_encode(const struct tern_tokenizer *t, const char *text, size_t len, bool parse, bool whole)
{
    struct tern_ids ids = { 0 };
    struct tern_err err;
    size_t n;
    enum tern_status st = tern_tokenizer_encode(t, text, len, false, parse, &ids, &err);

    FUZZ_CHECK(st == TERN_OK || (!whole && st == TERN_ERR_UNSUPPORTED && ids.n == 0));
    n = ids.n;
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < tern_tokenizer_n_vocab(t));
        FUZZ_CHECK(parse || tern_tokenizer_type(t, ids.ids[i]) != TERN_TOKEN_CONTROL);
    }
    if (st == TERN_OK && whole)
        check_pieces(t, &ids, text, len);
    FUZZ_CHECK(tern_tokenizer_encode(t, text, len, true, parse, &ids, &err) == st);
    if (st == TERN_OK) { /* behind the first: perhaps BOS, the same again, perhaps EOS */
        size_t bos = tern_tokenizer_add_bos(t), extra = ids.n - 2 * n - bos;

        FUZZ_CHECK(ids.n >= 2 * n + bos && extra <= 1);
        FUZZ_CHECK(n == 0 || memcmp(ids.ids, ids.ids + n + bos, n * sizeof *ids.ids) == 0);
        FUZZ_CHECK(!bos || ids.ids[n] == tern_tokenizer_bos(t));
        FUZZ_CHECK(!extra || ids.ids[ids.n - 1] == tern_tokenizer_eos(t));
    }
    free(ids.ids);
}

static void check_vocabulary(const void *bytes, size_t n, const char *text, size_t len, bool whole)
{
    struct tern_gguf *g = NULL;
    struct tern_tokenizer *t = NULL;
    struct tern_err err = { .text = "" };

    if (tern_gguf_parse("fuzz", bytes, n, &g, &err) != TERN_OK) {
        FUZZ_CHECK(err.text[0] && !g);
        return;
    }
    if (tern_tokenizer_new(g, NULL, &t, &err) == TERN_OK) {
        tern_gguf_close(&g);
        for (int id = -1; id <= (int)tern_tokenizer_n_vocab(t); id++)
            FUZZ_CHECK(tern_tokenizer_piece(t, id, false).len <= tern_tokenizer_piece(t, id, true).len);
        check_encode(t, text, len, false, whole);
        check_encode(t, text, len, true, whole);
    } else {
        FUZZ_CHECK(err.text[0] && !t);
    }
    tern_tokenizer_free(&t);
    tern_gguf_close(&g);
}

static void check_file(struct tern_cursor *c)
{
    uint16_t len = 0;
    const uint8_t *text = c->at;

    (void)tern_cursor_u16(c, &len);
    if (len > tern_cursor_left(c))
        len = (uint16_t)tern_cursor_left(c);
    if (tern_cursor_bytes(c, len, &text))
        check_vocabulary(c->at, tern_cursor_left(c), (const char *)text, len, false);
}

/* What a made vocabulary has behind its bytes. */
struct made {
    struct {
        char text[MAX_MADE];
        size_t len;
    } tokens[N_MADE];
    int32_t types[N_MADE];
    uint8_t merges[64][2];
    size_t n, n_merges;
};

static void read_tokens(struct made *m, struct tern_cursor *c)
{
    for (size_t n = take(c) % 32; n > 0; n--) {
        uint8_t head = take(c);
        size_t len = head & 31;

        m->types[m->n] = head >> 5;
        m->tokens[m->n].len = 0;
        while (m->tokens[m->n].len < len && tern_cursor_left(c) > 0)
            m->tokens[m->n].text[m->tokens[m->n].len++] = (char)take(c);
        m->n++;
    }
}

/* Each merge names two tokens by number and makes a third. */
static void read_merges(struct made *m, struct tern_cursor *c)
{
    for (size_t n = take(c) % 32; n > 0; n--) {
        size_t l = take(c), r = take(c), total;

        l = l < m->n ? l : 'a';
        r = r < m->n ? r : 'b';
        total = m->tokens[l].len + m->tokens[r].len;
        if (total > MAX_MADE)
            continue;
        m->merges[m->n_merges][0] = (uint8_t)l;
        m->merges[m->n_merges++][1] = (uint8_t)r;
        memcpy(m->tokens[m->n].text, m->tokens[l].text, m->tokens[l].len);
        memcpy(m->tokens[m->n].text + m->tokens[l].len, m->tokens[r].text, m->tokens[r].len);
        m->tokens[m->n].len = total;
        m->types[m->n++] = TERN_TOKEN_NORMAL;
    }
}

/* byte: pre-tokenizer and BOS; byte: number of tokens, each byte (type << 5 | length) and its text; byte:
 * number of merges, each two numbers of tokens; byte: BOS's number.  Tokens 0 to 255 are the bytes. */
static void made_vocabulary(struct tern_cursor *c)
{
    static const char *const pres[] = { "llama-bpe", "default", "gpt-2",   "qwen2",
                                        "falcon_e",  "falcon3", "nonesuch" };
    static struct made m;
    struct vocab_writer w;
    uint8_t options = take(c), bos;
    size_t pre = options % 8;

    if (m.types[0] == 0) /* the first run */
        for (size_t i = 0; i < 256; i++) {
            m.tokens[i].len = vocab_map((const char[]){ (char)i }, 1, m.tokens[i].text);
            m.types[i] = TERN_TOKEN_NORMAL;
        }
    m.n = 256;
    m.n_merges = 0;
    read_tokens(&m, c);
    read_merges(&m, c);
    bos = take(c);
    vocab_begin(&w);
    vocab_text(&w, "tokenizer.ggml.model", "gpt2");
    if (pre < sizeof pres / sizeof pres[0])
        vocab_text(&w, "tokenizer.ggml.pre", pres[pre]);
    vocab_open(&w, "tokenizer.ggml.tokens");
    for (size_t i = 0; i < m.n; i++)
        vocab_add(&w, m.tokens[i].text, m.tokens[i].len);
    vocab_close(&w);
    vocab_i32s(&w, "tokenizer.ggml.token_type", m.types, m.n);
    vocab_open(&w, "tokenizer.ggml.merges");
    for (size_t i = 0; i < m.n_merges; i++) {
        const size_t l = m.merges[i][0], r = m.merges[i][1];
        char line[2 * MAX_MADE + 1];
        size_t n = m.tokens[l].len;

        memcpy(line, m.tokens[l].text, n);
        line[n++] = ' ';
        memcpy(line + n, m.tokens[r].text, m.tokens[r].len);
        vocab_add(&w, line, n + m.tokens[r].len);
    }
    vocab_close(&w);
    if (options & 16)
        vocab_u32(&w, "tokenizer.ggml.bos_token_id", 200u + bos);
    if (options & 32)
        vocab_bool(&w, "tokenizer.ggml.add_eos_token", (options & 64) != 0);
    vocab_end(&w);
    check_vocabulary(w.bytes, w.n, (const char *)c->at, tern_cursor_left(c), true);
    free(w.bytes);
}

/* byte: options; byte: number of tokens, each byte (type << 5 | length), a byte of score, and its text.
 * Tokens 0 to 258 are <unk>, <s>, </s> and the bytes. */
static void scored_vocabulary(struct tern_cursor *c)
{
    struct vocab_writer w;
    uint8_t options = take(c);
    float scores[N_MADE] = { 0 };
    int32_t types[N_MADE] = { TERN_TOKEN_UNKNOWN, TERN_TOKEN_CONTROL, TERN_TOKEN_CONTROL };
    size_t n = 3;

    vocab_begin(&w);
    vocab_text(&w, "tokenizer.ggml.model", "llama");
    vocab_open(&w, "tokenizer.ggml.tokens");
    vocab_add(&w, "<unk>", 5);
    vocab_add(&w, "<s>", 3);
    vocab_add(&w, "</s>", 4);
    for (int b = 0; b < 256; b++, n++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", b);
        vocab_add(&w, name, 6);
        types[n] = TERN_TOKEN_BYTE;
    }
    for (size_t more = take(c) % 48; more > 0; more--, n++) {
        uint8_t head = take(c);
        char text[31];
        size_t len = 0;

        types[n] = head >> 5 == TERN_TOKEN_BYTE ? TERN_TOKEN_NORMAL : head >> 5;
        scores[n] = (float)(int8_t)take(c);
        while (len < (head & 31) && len < sizeof text && tern_cursor_left(c) > 0)
            text[len++] = (char)take(c);
        vocab_add(&w, text, len);
    }
    vocab_close(&w);
    vocab_i32s(&w, "tokenizer.ggml.token_type", types, n);
    vocab_key(&w, "tokenizer.ggml.scores", TERN_GGUF_ARRAY);
    vocab_put_u32(&w, TERN_GGUF_F32);
    vocab_put_u64(&w, n);
    vocab_put(&w, scores, n * sizeof *scores);
    if (options & 1)
        vocab_bool(&w, "tokenizer.ggml.add_space_prefix", (options & 2) != 0);
    vocab_end(&w);
    check_vocabulary(w.bytes, w.n, (const char *)c->at, tern_cursor_left(c), true);
    free(w.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tern_cursor c;

    tern_cursor_init(&c, data, size);
    switch (take(&c) % 4) {
    case 0: check_stream(&c); break;
    case 1: check_file(&c); break;
    case 2: made_vocabulary(&c); break;
    default: scored_vocabulary(&c); break;
    }
    return 0;
}
