/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiktoken list, as the publisher of Llama-3 ships it: lines "base64 rank", each a token's bytes and its
 * id.
 *
 * There are no merges in it, because any two neighbours merge whose bytes together are a token, by that
 * token's rank.  So the merges are all ways to cut a token into two: in order of the tokens, and of one token
 * in order of the left part's rank.  Special tokens are not in the list; a list of Llama-3's length gets
 * Llama-3's.
 */
#include "engine/base/limits.h"
#include "engine/hf_vocab.h"
#include "engine/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES                                                                                            \
    256 /* of one token: looking at all cuts takes their square; the longest of Llama-3 has 128 */
#define LLAMA3   128000
#define N_LLAMA3 256 /* special tokens behind the list */

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Strict: groups of four, '=' only at the end.  Returns the number of bytes, 0 when it is no base64. */
static size_t decode64(const char *text, size_t len, char *out)
{
    size_t n = 0;

    if (len == 0 || len % 4 != 0 || len / 4 * 3 > MAX_BYTES + 3)
        return 0;
    for (size_t i = 0; i < len; i += 4) {
        unsigned n_pads = i + 4 < len ? 0 : (text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=');
        uint32_t word = 0;

        for (unsigned k = 0; k < 4; k++) {
            int value = k < 4 - n_pads ? base64_value(text[i + k]) : 0;

            if (value < 0)
                return 0;
            word = word << 6 | (uint32_t)value;
        }
        for (unsigned k = 0; k < 3 - n_pads; k++)
            out[n++] = (char)(word >> (16 - 8 * k));
    }
    return n <= MAX_BYTES ? n : 0;
}

/* The list as a vocabulary of plain tokens, which can be looked up by their bytes. */
static enum tern_status read_list(const struct tern_hf_vocab *v, struct tern_vocab *list, const char *text,
                                  size_t len, struct tern_err *err)
{
    const char *end = text + len;
    uint32_t at = 0;

    list->bytes = malloc(len + MAX_BYTES + 3);
    list->offsets = malloc(((size_t)v->n_room + 1) * sizeof *list->offsets);
    list->flags = malloc(v->n_room);
    if (!list->bytes || !list->offsets || !list->flags)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for %u tokens", v->n_room);
    memset(list->flags, TERN_TOKEN_NORMAL | TERN_VOCAB_PLAIN, v->n_room);
    list->max_plain = MAX_BYTES;
    for (list->offsets[0] = 0; text < end;) {
        const char *line = text, *space = memchr(text, ' ', (size_t)(end - text)), *p;
        uint32_t rank = 0;
        size_t n = space ? decode64(line, (size_t)(space - line), list->bytes + at) : 0;

        for (p = space ? space + 1 : line; n && p < end && *p >= '0' && *p <= '9' && rank < TERN_MAX_VOCAB;
             p++)
            rank = rank * 10 + (uint32_t)(*p - '0');
        if (n && p < end && *p == '\r')
            p++;
        if (n == 0 || p == space + 1 || (p < end && *p != '\n') || rank != list->n)
            return TERN_FAIL(err, TERN_ERR_FORMAT,
                             "%s: line %u is not a token in base64 and its rank, which is %u", v->name,
                             list->n + 1, list->n);
        if (list->n >= v->n_room)
            return TERN_FAIL(err, TERN_ERR_FORMAT, "%s: more tokens than the %u the model has room for",
                             v->name, v->n_room);
        at += (uint32_t)n;
        list->offsets[++list->n] = at;
        text = p < end ? p + 1 : end;
    }
    return list->n ? tern_vocab_index(list, err)
                   : TERN_FAIL(err, TERN_ERR_FORMAT, "%s: a list of no tokens", v->name);
}

struct cut {
    uint32_t left, right;
};

static int compare_cuts(const void *a, const void *b)
{
    const struct cut *ca = a, *cb = b;

    return ca->left != cb->left ? (ca->left < cb->left ? -1 : 1)
                                : (ca->right > cb->right) - (ca->right < cb->right);
}

static enum tern_status add_merges(struct tern_hf_vocab *v, const struct tern_vocab *list, uint32_t id,
                                   struct tern_err *err)
{
    struct tern_str s = tern_vocab_text(list, id);
    struct cut cuts[MAX_BYTES];
    size_t n = 0;
    enum tern_status st = TERN_OK;

    for (size_t i = 1; i < s.len; i++) {
        uint32_t left = tern_vocab_find(list, s.ptr, i), right;

        if (left == TERN_NO_TOKEN)
            continue;
        right = tern_vocab_find(list, s.ptr + i, s.len - i);
        if (right != TERN_NO_TOKEN)
            cuts[n++] = (struct cut){ left, right };
    }
    qsort(cuts, n, sizeof *cuts, compare_cuts);
    for (size_t i = 0; i < n && st == TERN_OK; i++) {
        const char *left = v->texts[cuts[i].left], *right = v->texts[cuts[i].right];

        st = tern_hf_vocab_merge(v, left, strlen(left), right, strlen(right), err);
    }
    return st;
}

static enum tern_status add_llama3(struct tern_hf_vocab *v, struct tern_err *err)
{
    static const char *const named[] = {
        "<|begin_of_text|>",   "<|end_of_text|>",   NULL, NULL,        NULL, NULL,
        "<|start_header_id|>", "<|end_header_id|>", NULL, "<|eot_id|>"
    };
    enum tern_status st = TERN_OK;

    for (uint32_t i = 0, n_reserved = 0; i < N_LLAMA3 && st == TERN_OK; i++) {
        char text[40];

        if (i < sizeof named / sizeof named[0] && named[i])
            snprintf(text, sizeof text, "%s", named[i]);
        else
            snprintf(text, sizeof text, "<|reserved_special_token_%u|>", n_reserved++);
        st = tern_hf_vocab_add(v, LLAMA3 + i, text, true, err);
    }
    v->pre = "llama-bpe";
    v->bos = LLAMA3;
    v->eos = LLAMA3 + 1;
    v->add_bos = 1;
    return st;
}

enum tern_status tern_hf_vocab_tiktoken(struct tern_hf_vocab *v, const void *bytes, size_t n,
                                        struct tern_err *err)
{
    struct tern_vocab list = { .n = 0 };
    enum tern_status st = read_list(v, &list, bytes, n, err);

    for (uint32_t id = 0; id < list.n && st == TERN_OK; id++) {
        struct tern_str s = tern_vocab_text(&list, id);
        char text[2 * MAX_BYTES];

        st = tern_hf_vocab_set(v, id, text, tern_vocab_map(s.ptr, s.len, text), TERN_TOKEN_NORMAL, 0, false,
                               err);
    }
    for (uint32_t id = 0; id < list.n && st == TERN_OK; id++)
        st = add_merges(v, &list, id, err);
    if (st == TERN_OK && list.n == LLAMA3 && v->n_room >= LLAMA3 + N_LLAMA3)
        st = add_llama3(v, err);
    tern_vocab_free(&list);
    return st;
}
