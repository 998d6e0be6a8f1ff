/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores into an order of merging, and the merging: by scanning for short stretches, with a heap over a
 * linked list for long ones.  Both do the same merges in the same order.
 */
#include "engine/spm.h"

#include "engine/base/limits.h"
#include "engine/heap64.h"
#include "engine/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_KEY      UINT32_MAX
#define SHORT_CHARS 24   /* up to here scanning all keys for each merge beats the heap */
#define WORD_BYTES  15   /* longest stretch the cache keeps */
#define WORD_IDS    4    /* and most tokens of it */
#define N_WORDS     2048 /* a power of two */
#define CACHE_FROM  4096 /* bytes of text that are worth setting up the cache */

/* A stretch and its tokens. */
struct tern_spm_word {
    uint8_t len, n; /* len 0: empty */
    char text[WORD_BYTES];
    int32_t ids[WORD_IDS];
};

/* -- loading ------------------------------------------------------------------------------------------ */

/* Higher scores give lower keys; NO_KEY is none of them. */
static uint32_t score_key(double score)
{
    float f = (float)score + 0.0f; /* -0 is 0 */
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits >> 31 ? bits : 0x7fffffffu - bits;
}

static void note_joins(struct tern_spm *s, const uint8_t *text, size_t len)
{
    bool valid = tern_utf8_valid_prefix(text, len) == len;

    for (size_t i = 1; i < len; i++)
        if (!valid || (text[i] & 0xc0) != 0x80)
            s->joins[text[i - 1] * 4u + text[i] / 64u] |= 1ull << text[i] % 64;
}

enum tern_status tern_spm_load(struct tern_spm *s, const struct tern_vocab *v, const struct tern_gguf *g,
                               struct tern_err *err)
{
    const struct tern_gguf_kv *scores;
    enum tern_status st = tern_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &s->add_space, err);

    if (st == TERN_END)
        s->add_space = true;
    else if (st)
        return st;
    if ((st = tern_vocab_array(g, "tokenizer.ggml.scores", false, v->n, &scores, err)) != TERN_OK)
        return st;
    s->keys = malloc(v->n * sizeof *s->keys);
    s->joins = calloc(65536 / 64, sizeof *s->joins);
    if (!s->keys || !s->joins)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the scores of %u tokens", v->n);
    s->has_bytes = true;
    for (unsigned b = 0; b < 256; b++)
        s->has_bytes = s->has_bytes && v->byte_ids[b] != TERN_NO_TOKEN;
    for (uint32_t id = 0; id < v->n; id++) {
        struct tern_str text = tern_vocab_text(v, id);
        double score = scores ? tern_gguf_array_f64(scores, id) : 0;

        if (isnan(score))
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: the score of token %u is not a number", g->name, id);
        s->keys[id] = score_key(score);
        if (!(v->flags[id] & TERN_VOCAB_PLAIN))
            continue;
        note_joins(s, (const uint8_t *)text.ptr, text.len);
    }
    return TERN_OK;
}

void tern_spm_free(struct tern_spm *s)
{
    free(s->keys);
    free(s->joins);
    memset(s, 0, sizeof *s);
}

/* -- merging ------------------------------------------------------------------------------------------ */

/* One call of tern_spm_encode. */
struct run {
    const struct tern_spm *s;
    const struct tern_vocab *v;
    struct tern_spm_scratch *scratch;
    struct tern_ids *out;
    struct tern_err *err;
};

void tern_spm_scratch_free(struct tern_spm_scratch *s)
{
    free(s->text);
    free(s->symbols);
    free(s->heap);
    free(s->words);
    memset(s, 0, sizeof *s);
}

static uint32_t pair_key(const struct run *r, const char *text, size_t len)
{
    uint32_t id = tern_vocab_find_plain(r->v, text, len);

    return id == TERN_NO_TOKEN ? NO_KEY : r->s->keys[id];
}

/* A character that is no token. */
static enum tern_status append_bytes(const struct run *r, const char *text, size_t len)
{
    bool all = true;

    for (size_t i = 0; i < len; i++)
        all = all && r->v->byte_ids[(uint8_t)text[i]] != TERN_NO_TOKEN;
    if (!all && r->v->unknown < 0)
        return TERN_FAIL(r->err, TERN_ERR_UNSUPPORTED,
                         "the vocabulary has neither a token for '%.*s' in the text nor tokens for its bytes "
                         "nor an unknown token",
                         (int)len, text);
    if (!all)
        r->out->ids[r->out->n++] = r->v->unknown;
    for (size_t i = 0; i < len && all; i++)
        r->out->ids[r->out->n++] = (int32_t)r->v->byte_ids[(uint8_t)text[i]];
    return TERN_OK;
}

/* A symbol that nothing merges with any more; TERN_END when it is an unused token. */
static enum tern_status append_symbol(const struct run *r, const char *text, size_t len)
{
    uint32_t id = tern_vocab_find_plain(r->v, text, len);

    if (id == TERN_NO_TOKEN)
        return append_bytes(r, text, len);
    if ((r->v->flags[id] & TERN_VOCAB_TYPE) == TERN_TOKEN_UNUSED)
        return TERN_END;
    r->out->ids[r->out->n++] = (int32_t)id;
    return TERN_OK;
}

/* At most SHORT_CHARS bytes.  TERN_END, and nothing is appended, when an unused token comes out of it. */
static enum tern_status merge_short(const struct run *r, const char *text, size_t len)
{
    uint32_t begin[SHORT_CHARS + 1], keys[SHORT_CHARS];
    size_t n = 0, step, before = r->out->n;
    enum tern_status st = TERN_OK;

    for (size_t at = 0; at < len; at += step) {
        int32_t code = tern_utf8_sequence((const uint8_t *)text + at, len - at, &step);

        step = code > 0 ? step : 1;
        begin[n++] = (uint32_t)at;
    }
    begin[n] = (uint32_t)len;
    for (size_t i = 0; i + 1 < n; i++)
        keys[i] = pair_key(r, text + begin[i], begin[i + 2] - begin[i]);
    for (;;) {
        uint32_t best = NO_KEY;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++)
            if (keys[i] < best) {
                best = keys[i];
                at = i;
            }
        if (best == NO_KEY)
            break;
        n--;
        for (size_t i = at + 1; i <= n; i++)
            begin[i] = begin[i + 1];
        for (size_t i = at + 1; i < n; i++)
            keys[i - 1] = keys[i];
        if (at + 1 < n)
            keys[at] = pair_key(r, text + begin[at], begin[at + 2] - begin[at]);
        if (at > 0)
            keys[at - 1] = pair_key(r, text + begin[at - 1], begin[at + 1] - begin[at - 1]);
    }
    for (size_t i = 0; i < n && st == TERN_OK; i++)
        st = append_symbol(r, text + begin[i], begin[i + 1] - begin[i]);
    if (st == TERN_END)
        r->out->n = before;
    return st;
}

static enum tern_status reserve(struct tern_spm_scratch *s, size_t n, struct tern_err *err)
{
    size_t cap = n + n / 4;

    if (n <= s->cap)
        return TERN_OK;
    free(s->symbols);
    free(s->heap);
    s->cap = 0;
    s->symbols = malloc(cap * sizeof *s->symbols);
    s->heap = malloc(2 * cap * sizeof *s->heap);
    if (!s->symbols || !s->heap)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory to tokenize a word of %zu bytes", n);
    s->cap = cap;
    return TERN_OK;
}

/* One symbol a character; returns how many.  A byte outside valid UTF-8 is one by itself. */
static uint32_t list_characters(const struct run *r, const char *text, size_t len)
{
    struct tern_spm_symbol *s = r->scratch->symbols;
    uint32_t n = 0;
    size_t step;

    for (size_t at = 0; at < len; at += step, n++) {
        int32_t code = tern_utf8_sequence((const uint8_t *)text + at, len - at, &step);

        step = code > 0 ? step : 1;
        s[n] = (struct tern_spm_symbol){ .at = (uint32_t)at, .prev = n - 1, .next = n + 1 };
    }
    s[n - 1].next = UINT32_MAX;
    return n;
}

/* Looks the pair that begins at symbol i up, and puts it into the heap if it is a token. */
static void look_up(const struct run *r, const char *text, size_t len, uint32_t i, size_t *n_heap)
{
    struct tern_spm_symbol *s = r->scratch->symbols;
    uint32_t right = s[i].next, end = right == UINT32_MAX ? UINT32_MAX : s[right].next;

    s[i].key = NO_KEY;
    if (right == UINT32_MAX)
        return;
    s[i].key = pair_key(r, text + s[i].at, (end == UINT32_MAX ? len : s[end].at) - s[i].at);
    if (s[i].key != NO_KEY)
        tern_heap_push(r->scratch->heap, n_heap, (uint64_t)s[i].key << 32 | i);
}

/*
 * Of the characters [i, end), which were merged into one symbol: a token, or both sides of the last merge by
 * the same rule, or the bytes of one character.
 */
static enum tern_status append_merged(const struct run *r, const char *text, size_t len, uint32_t i,
                                      uint32_t end, uint32_t n)
{
    const struct tern_spm_symbol *s = r->scratch->symbols;

    for (;;) {
        size_t to = end == n ? len : s[end].at;
        uint32_t id = tern_vocab_find_plain(r->v, text + s[i].at, to - s[i].at), last = i + 1;
        enum tern_status st;

        if (id != TERN_NO_TOKEN && (r->v->flags[id] & TERN_VOCAB_TYPE) != TERN_TOKEN_UNUSED) {
            r->out->ids[r->out->n++] = (int32_t)id;
            return TERN_OK;
        }
        if (last == end)
            return append_bytes(r, text + s[i].at, to - s[i].at);
        for (uint32_t k = last; k < end; k++)
            if (s[k].order > s[last].order)
                last = k;
        if ((st = append_merged(r, text, len, i, last, n)) != TERN_OK)
            return st;
        i = last;
    }
}

/* An entry of the heap is stale when the pair at its index has another key by now; see merge_long of bpe.c,
 * with keys for ranks: where two pairs share a key, either may stand for the other. */
static enum tern_status merge_long(const struct run *r, const char *text, size_t len)
{
    struct tern_spm_symbol *s;
    uint32_t n, order = 0;
    size_t n_heap = 0;
    enum tern_status st = reserve(r->scratch, len, r->err);

    if (st)
        return st;
    s = r->scratch->symbols;
    n = list_characters(r, text, len);
    for (uint32_t i = 0; i < n; i++)
        look_up(r, text, len, i, &n_heap);
    while (n_heap > 0) {
        uint64_t entry = tern_heap_pop(r->scratch->heap, &n_heap);
        uint32_t at = (uint32_t)entry, gone = s[at].next;

        if (s[at].key != (uint32_t)(entry >> 32))
            continue;
        s[at].next = s[gone].next;
        s[gone].key = NO_KEY;
        s[gone].order = ++order;
        if (s[at].next != UINT32_MAX)
            s[s[at].next].prev = at;
        look_up(r, text, len, at, &n_heap);
        if (s[at].prev != UINT32_MAX)
            look_up(r, text, len, s[at].prev, &n_heap);
    }
    for (uint32_t i = 0, end; i != UINT32_MAX && st == TERN_OK; i = s[i].next) {
        end = s[i].next == UINT32_MAX ? n : s[i].next;
        st = append_merged(r, text, len, i, end, n);
    }
    return st;
}

/* -- a text ------------------------------------------------------------------------------------------- */

static struct tern_spm_word *find_word(const struct run *r, const char *text, size_t len)
{
    uint64_t a = 0, b = 0;

    memcpy(&a, text, len < 8 ? len : 8);
    if (len > 8)
        memcpy(&b, text + 8, len - 8);
    a = (a ^ b * 0x9e3779b97f4a7c15u ^ len) * 0xd6e8feb86659fd93u;
    return &r->scratch->words[(a >> 40) & (N_WORDS - 1)];
}

/* Text that no token reaches into or out of. */
static enum tern_status encode_stretch(const struct run *r, const char *text, size_t len)
{
    struct tern_spm_word *word = r->scratch->words && len <= WORD_BYTES ? find_word(r, text, len) : NULL;
    size_t before = r->out->n;
    enum tern_status st;

    if (word && word->len == len && memcmp(word->text, text, len) == 0) {
        if ((st = tern_ids_reserve(r->out, WORD_IDS, r->err)) != TERN_OK)
            return st;
        memcpy(r->out->ids + before, word->ids, sizeof word->ids);
        r->out->n += word->n;
        return TERN_OK;
    }
    if (len > TERN_MAX_PIECE_BYTES)
        return TERN_FAIL(r->err, TERN_ERR_LIMIT,
                         "a word of %zu bytes without a break in the text; at most %d", len,
                         TERN_MAX_PIECE_BYTES);
    if ((st = tern_ids_reserve(r->out, len, r->err)) != TERN_OK)
        return st;
    st = len <= SHORT_CHARS ? merge_short(r, text, len) : TERN_END;
    if (st == TERN_END)
        st = merge_long(r, text, len);
    if (st == TERN_OK && word && r->out->n - before <= WORD_IDS) {
        word->len = (uint8_t)len;
        word->n = (uint8_t)(r->out->n - before);
        memcpy(word->text, text, len);
        memcpy(word->ids, r->out->ids + before, word->n * sizeof *word->ids);
    }
    return st;
}

enum tern_status tern_spm_encode(const struct tern_spm *s, const struct tern_vocab *v, const char *text,
                                 size_t len, struct tern_spm_scratch *scratch, struct tern_ids *out,
                                 struct tern_err *err)
{
    const struct run r = { s, v, scratch, out, err };
    enum tern_status st = TERN_OK;
    size_t begin = 0;

    if (len + 1 > scratch->text_cap) {
        free(scratch->text);
        scratch->text_cap = 0;
        scratch->text = malloc(len + 1);
        if (!scratch->text)
            return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a text of %zu bytes", len);
        scratch->text_cap = len + 1;
    }
    if (!scratch->words && len >= CACHE_FROM)
        scratch->words = calloc(N_WORDS, sizeof *scratch->words); /* without it: slower */
    if (s->add_space)
        scratch->text[0] = ' ';
    len = s->add_space + tern_vocab_spaces(text, len, scratch->text + s->add_space);
    text = scratch->text;
    for (size_t i = 1; i <= len && st == TERN_OK; i++) {
        const uint8_t *p = (const uint8_t *)text + i;

        if (i < len && ((*p & 0xc0) == 0x80 || (s->joins[p[-1] * 4u + *p / 64u] >> *p % 64 & 1)))
            continue;
        st = encode_stretch(&r, text + begin, i - begin);
        begin = i;
    }
    return st;
}
