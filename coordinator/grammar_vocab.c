/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a vocabulary as trees of bytes: see grammar_vocab.h. */
#include "coordinator/grammar_vocab.h"

#include "engine/base/limits.h"
#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    struct tern_str text;
    int32_t id;
};

static int by_text(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    const size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
    const int c = memcmp(x->text.ptr, y->text.ptr, n);

    if (c != 0)
        return c;
    if (x->text.len != y->text.len)
        return x->text.len < y->text.len ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static size_t shared_prefix(struct tern_str a, struct tern_str b)
{
    size_t n = 0;

    while (n < a.len && n < b.len && a.ptr[n] == b.ptr[n])
        n++;
    return n;
}

/* How many plain characters it is; 0 when it is anything else, or more than a token of PLAIN has. */
static unsigned count_plain(struct tern_str s)
{
    const uint8_t *p = (const uint8_t *)s.ptr;
    size_t len;
    unsigned n = 0;

    for (size_t at = 0; at < s.len; at += len, n++) {
        len = 1;
        if (n == GRAMMAR_PLAIN_CHARS ||
            (p[at] < 0x80 ? !grammar_is_plain(p[at]) : tern_utf8_sequence(p + at, s.len - at, &len) <= 0))
            return 0;
    }
    return n;
}

/* The tokens of a tree, sorted. */
static uint32_t list_tokens(const struct tern_tokenizer *tok, uint32_t n_vocab, int tree,
                            struct entry *entries)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_vocab; i++) {
        struct tern_str text = tern_tokenizer_piece(tok, (int32_t)i, false);

        if (text.len && text.len <= TERN_MAX_TOKEN_BYTES && !tern_tokenizer_is_eog(tok, (int32_t)i) &&
            (count_plain(text) > 0) == (tree == GRAMMAR_PLAIN))
            entries[n++] = (struct entry){ text, (int32_t)i };
    }
    if (n)
        qsort(entries, n, sizeof *entries, by_text);
    return n;
}

static uint64_t count_nodes(const struct entry *entries, uint32_t n)
{
    uint64_t nodes = 0;

    for (uint32_t i = 0; i < n; i++)
        nodes += entries[i].text.len - (i ? shared_prefix(entries[i - 1].text, entries[i].text) : 0);
    return nodes;
}

/* open: [TERN_MAX_TOKEN_BYTES] the branch that is being filled. */
static void fill(struct grammar_tree *t, const struct entry *entries, uint32_t n, uint32_t *open)
{
    size_t depth = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct tern_str text = entries[i].text;
        const size_t same = i ? shared_prefix(entries[i - 1].text, text) : 0;

        while (depth > same)
            t->nodes[open[--depth]].end = t->n_nodes;
        while (depth < text.len) {
            open[depth] = t->n_nodes;
            t->nodes[t->n_nodes++] = (struct grammar_leaf){ 0, i, (uint16_t)depth, (uint8_t)text.ptr[depth] };
            depth++;
        }
        t->ids[i] = entries[i].id;
    }
    while (depth > 0)
        t->nodes[open[--depth]].end = t->n_nodes;
    t->nodes[t->n_nodes].first = n;
}

static enum tern_status make_tree(struct grammar_vocab *v, int tree, struct entry *entries, uint32_t *open,
                                  struct tern_err *err)
{
    struct grammar_tree *t = &v->trees[tree];
    const uint32_t n = list_tokens(v->tok, v->n_vocab, tree, entries);
    const uint64_t n_nodes = count_nodes(entries, n);

    if (n_nodes >= UINT32_MAX)
        return TERN_FAIL(err, TERN_ERR_LIMIT, "the vocabulary's texts are too long for a grammar");
    t->nodes = malloc((n_nodes + 1) * sizeof *t->nodes);
    t->ids = malloc(((size_t)n + 1) * sizeof *t->ids);
    if (!t->nodes || !t->ids)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the vocabulary of a grammar");
    fill(t, entries, n, open);
    for (uint32_t i = 0; i < n && tree == GRAMMAR_PLAIN; i++)
        for (unsigned c = count_plain(entries[i].text); c <= GRAMMAR_PLAIN_CHARS; c++)
            v->plain[c * v->n_words + (uint32_t)t->ids[i] / 64] |= UINT64_C(1) << ((uint32_t)t->ids[i] % 64);
    return TERN_OK;
}

enum tern_status grammar_vocab_new(const struct tern_tokenizer *tok, uint32_t n_vocab,
                                   struct grammar_vocab **out, struct tern_err *err)
{
    struct grammar_vocab *v = calloc(1, sizeof *v);
    struct entry *entries = malloc(((size_t)n_vocab + 1) * sizeof *entries);
    uint32_t *open = malloc(TERN_MAX_TOKEN_BYTES * sizeof *open);
    enum tern_status st = TERN_OK;

    if (v) {
        v->tok = tok;
        v->n_vocab = n_vocab;
        v->n_words = ((size_t)n_vocab + 63) / 64;
        v->ends = calloc(v->n_words, sizeof *v->ends);
        v->plain = calloc((GRAMMAR_PLAIN_CHARS + 1) * v->n_words, sizeof *v->plain);
    }
    if (!v || !v->ends || !v->plain || !entries || !open)
        st = TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for the vocabulary of a grammar");
    for (uint32_t i = 0; i < n_vocab && !st; i++)
        if (tern_tokenizer_is_eog(tok, (int32_t)i))
            v->ends[i / 64] |= UINT64_C(1) << (i % 64);
    for (int i = 0; i < GRAMMAR_TREES && !st; i++)
        st = make_tree(v, i, entries, open, err);
    free(entries);
    free(open);
    if (st)
        grammar_vocab_free(&v);
    else
        *out = v;
    return st;
}

void grammar_vocab_free(struct grammar_vocab **v)
{
    if (*v) {
        for (int i = 0; i < GRAMMAR_TREES; i++) {
            free((*v)->trees[i].nodes);
            free((*v)->trees[i].ids);
        }
        free((*v)->ends);
        free((*v)->plain);
        free(*v);
    }
    *v = NULL;
}
