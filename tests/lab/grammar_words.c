/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random words of grammars: tokens drawn uniformly from the mask until the text is whole, without any model.
 *
 *   grammar_words VOCAB.gguf gbnf FILE SEED N      N words of a grammar, a JSON string each line
 *   grammar_words VOCAB.gguf schemas FILE SEED N   FILE: a JSON array of schemas; for each a line: the array
 *                                                  of N words, or the sentence it was refused with
 *   grammar_words VOCAB.gguf time FILE SEED N      the microseconds a mask takes, over N words
 *
 * A word that has taken WORD_TOKENS tokens goes on with what closes it: an end, else a quote, bracket, brace.
 */
#include "coordinator/grammar.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORD_TOKENS 60
#define MAX_TOKENS  4000
#define MAX_TEXT    (1u << 20)

static struct tern_tokenizer *tok;
static struct grammar_vocab *vocab;
static uint32_t n_vocab;
static uint64_t seed;
static struct tern_err err;
static char text[MAX_TEXT];
static int32_t ids[1u << 20];
static uint32_t times[1u << 20], n_times;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void need(enum tern_status st)
{
    if (st) {
        fprintf(stderr, "grammar_words: %s\n", err.text);
        exit(1);
    }
}

/* Of this thread alone: the machine may have other things to do. */
static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t list_allowed(const uint64_t *mask)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_vocab; i++)
        if (mask[i / 64] >> (i % 64) & 1)
            ids[n++] = (int32_t)i;
    return n;
}

/* Among those allowed any that closes something, if there is one: a bracket may as well be text. */
static int32_t closing(uint32_t n)
{
    int32_t best = ids[draw() % n];
    uint32_t n_closers = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct tern_str s = tern_tokenizer_piece(tok, ids[i], false);

        if (tern_tokenizer_is_eog(tok, ids[i]))
            return ids[i];
        if (s.len == 1 && strchr("\"}]", s.ptr[0]) && draw() % ++n_closers == 0)
            best = ids[i];
    }
    return best;
}

/* A word into text; its length, or -1 when it has not become whole. */
static int word(struct grammar_state *s, FILE *why)
{
    size_t len = 0;

    for (int i = 0; i < MAX_TOKENS && !grammar_is_done(s); i++) {
        const uint64_t t0 = cpu_ns(), *mask = grammar_mask(s);
        uint32_t n;
        struct tern_str piece;
        int32_t id;

        if (n_times < sizeof times / sizeof times[0])
            times[n_times++] = (uint32_t)((cpu_ns() - t0) / 100);
        n = list_allowed(mask);
        if (n == 0) {
            if (grammar_is_whole(s))
                break;
            fprintf(why, "%.*s: %s\n", (int)len, text, grammar_why(s));
            return -1;
        }
        id = i < WORD_TOKENS ? ids[draw() % n] : closing(n);
        if (!grammar_accept(s, id)) {
            fprintf(why, "a token of the mask is not accepted\n");
            exit(1);
        }
        if (tern_tokenizer_is_eog(tok, id))
            break;
        piece = tern_tokenizer_piece(tok, id, false);
        if (piece.len > MAX_TEXT - len)
            return -1;
        memcpy(text + len, piece.ptr, piece.len);
        len += piece.len;
    }
    if (!grammar_is_whole(s))
        fprintf(why, "not whole behind %d tokens: ...%.*s\n", MAX_TOKENS, 200,
                text + (len > 200 ? len - 200 : 0));
    return grammar_is_whole(s) ? (int)len : -1;
}

static json_t *words(const struct grammar *g, int n)
{
    struct grammar_state *s;
    json_t *out = json_array();

    need(grammar_state_new(g, vocab, &s, &err));
    for (int i = 0; i < n; i++) {
        int len = word(s, stderr);

        json_array_append_new(out, len < 0 ? json_null() : json_stringn(text, (size_t)len));
        grammar_restart(s);
    }
    grammar_state_free(&s);
    return out;
}

static char *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *p = malloc(MAX_TEXT);

    if (!f || !p) {
        fprintf(stderr, "grammar_words: cannot read %s\n", path);
        exit(1);
    }
    *n = fread(p, 1, MAX_TEXT, f);
    fclose(f);
    return p;
}

static void put(json_t *v)
{
    json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    putchar('\n');
    json_decref(v);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void put_times(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n_times; i++)
        sum += times[i];
    qsort(times, n_times, sizeof *times, by_size);
    if (n_times)
        printf("%u masks: mean %.1f us, p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n",
               (unsigned)n_times, (double)sum / 10 / n_times, times[n_times / 2] / 10.0,
               times[n_times * 9ull / 10] / 10.0, times[n_times * 99ull / 100] / 10.0,
               times[n_times * 999ull / 1000] / 10.0, times[n_times - 1] / 10.0);
}

static void each_schema(const char *body, size_t len, int n)
{
    json_t *schemas = json_loadb(body, len, 0, NULL), *schema;
    size_t i;

    json_array_foreach(schemas, i, schema)
    {
        struct grammar *g;
        const struct grammar *held;

        if (grammar_schema(schema, &g, &err)) {
            put(json_string(err.text));
            continue;
        }
        put(words(g, n));
        held = g;
        grammar_drop(&held);
    }
    json_decref(schemas);
}

int main(int argc, char **argv)
{
    struct tern_gguf *gguf;
    size_t len;
    char *body;
    int n;

    if (argc != 6) {
        fprintf(stderr, "usage: grammar_words VOCAB.gguf gbnf|schemas|time FILE SEED N\n");
        return 2;
    }
    need(tern_gguf_open(argv[1], &gguf, &err));
    need(tern_tokenizer_new(gguf, NULL, &tok, &err));
    tern_gguf_close(&gguf);
    n_vocab = tern_tokenizer_n_vocab(tok);
    need(grammar_vocab_new(tok, n_vocab, &vocab, &err));
    body = read_whole(argv[3], &len);
    seed = strtoull(argv[4], NULL, 10) * 2 + 1;
    n = atoi(argv[5]);
    if (strcmp(argv[2], "schemas") == 0) {
        each_schema(body, len, n);
    } else {
        struct grammar *g;
        const struct grammar *held;
        json_t *all, *w;
        size_t i;

        need(grammar_parse(body, len, &g, &err));
        all = words(g, n);
        json_array_foreach(all, i, w) if (strcmp(argv[2], "time") != 0) put(json_incref(w));
        json_decref(all);
        held = g;
        grammar_drop(&held);
    }
    if (strcmp(argv[2], "time") == 0)
        put_times();
    free(body);
    grammar_vocab_free(&vocab);
    tern_tokenizer_free(&tok);
    return 0;
}
