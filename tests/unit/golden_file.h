/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goldens of the oracle (tests/oracle/oracle_golden.py writes them), little-endian, read whole.
 */
#ifndef TERN_TESTS_UNIT_GOLDEN_FILE_H
#define TERN_TESTS_UNIT_GOLDEN_FILE_H

#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN_SITES 7 /* at most: the inputs of the seven matrices of a layer */

/* What the oracle quantised in front of a matrix, or of several with one input. */
struct golden_site {
    uint32_t layer, which, width;
    const float *scales; /* [n_rows] */
    const int8_t *codes; /* [n_rows][width] */
};

struct golden {
    uint8_t *bytes;
    uint32_t n_layers, n_embd, n_vocab, n_ids, logits_every, n_rows, n_sites, embedding;
    const uint8_t *digest;  /* [32] of the weights */
    float spread;           /* of logits over the vocabulary */
    const int32_t *ids;     /* [n_ids], teacher-forced */
    const int32_t *first;   /* [n_ids] the best token after each */
    const float *margin;    /* [n_ids] by so much */
    const uint16_t *logits; /* f16 [n_ids / logits_every][n_vocab], of positions 0, logits_every, ... */
    const float *x; /* [n_layers + 1][n_rows][n_embd]: the stream in front of each layer, and behind the last,
                     * of the first n_rows ids; each layer was fed what stands here */
    struct golden_site *sites; /* [n_layers][n_sites] */
};

static inline const void *golden_take(const uint8_t **at, size_t *left, size_t n)
{
    const uint8_t *p = *at;

    if (n > *left)
        fail_msg("a golden file is cut short");
    *at += n;
    *left -= n;
    return p;
}

static inline void golden_parse(struct golden *g, size_t size)
{
    const uint8_t *at = g->bytes;
    uint32_t n[8];

    assert_memory_equal(golden_take(&at, &size, 8), "TERNORA1", 8);
    memcpy(n, golden_take(&at, &size, sizeof n), sizeof n);
    g->n_layers = n[0];
    g->n_embd = n[1];
    g->n_vocab = n[2];
    g->n_ids = n[3];
    g->logits_every = n[4];
    g->n_rows = n[5];
    g->n_sites = n[6];
    g->embedding = n[7];
    assert_in_range(g->n_sites, 1, GOLDEN_SITES);
    g->digest = golden_take(&at, &size, 32);
    memcpy(&g->spread, golden_take(&at, &size, 4), 4);
    g->ids = golden_take(&at, &size, 4 * (size_t)g->n_ids);
    g->first = golden_take(&at, &size, 4 * (size_t)g->n_ids);
    g->margin = golden_take(&at, &size, 4 * (size_t)g->n_ids);
    g->logits = golden_take(&at, &size, 2 * (size_t)(g->n_ids / g->logits_every) * g->n_vocab);
    g->x = golden_take(&at, &size, 4 * ((size_t)g->n_layers + 1) * g->n_rows * g->n_embd);
    g->sites = calloc((size_t)g->n_layers * g->n_sites, sizeof *g->sites);
    assert_non_null(g->sites);
    for (uint32_t i = 0; i < g->n_layers * g->n_sites; i++) {
        struct golden_site *s = &g->sites[i];

        memcpy(&s->layer, golden_take(&at, &size, 12), 12);
        assert_int_equal(s->layer, i / g->n_sites);
        s->scales = golden_take(&at, &size, 4 * (size_t)g->n_rows);
        s->codes = golden_take(&at, &size, (size_t)g->n_rows * s->width);
    }
    assert_int_equal(size, 0);
}

static inline void golden_open(const char *path, struct golden *g)
{
    FILE *f = fopen(path, "rb");
    long size;

    if (!f)
        fail_msg("%s: cannot be opened", path);
    memset(g, 0, sizeof *g);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    assert_true(size > 0 && size < 1 << 24);
    rewind(f);
    g->bytes = malloc((size_t)size);
    assert_non_null(g->bytes);
    assert_int_equal(fread(g->bytes, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    golden_parse(g, (size_t)size);
}

static inline void golden_close(struct golden *g)
{
    free(g->bytes);
    free(g->sites);
}

#endif
