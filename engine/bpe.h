/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair merging: of all adjacent pairs that are a known merge, the one of lowest rank is
 * merged first, of equal ones the leftmost, until none is left.
 *
 * A piece of n bytes costs O(n log n), so one word of 10 MB is a matter of seconds.
 */
#ifndef TERN_ENGINE_BPE_H
#define TERN_ENGINE_BPE_H

#include "engine/vocab.h"

#define TERN_NO_RANK UINT32_MAX

struct tern_merge {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* TERN_NO_RANK in an empty slot */
};

struct tern_merges {
    uint32_t n;
    uint32_t *results; /* [n] by rank: the id that the pair becomes */
    struct tern_merge *slots;
    uint64_t slot_mask;
    uint64_t seed;
};

/*
 * Reads tokenizer.ggml.merges.  A merge whose parts or result are no tokens at all betrays a corrupt file and
 * refuses it; one that involves a token which text may not become (a control token) is left out.  Of equal
 * pairs the first counts. tern_merges_free gives *m back, also after a failure.
 */
enum tern_status tern_merges_load(struct tern_merges *m, const struct tern_vocab *v,
                                  const struct tern_gguf *g, struct tern_err *err) TERN_MUST_CHECK;
void tern_merges_free(struct tern_merges *m);

struct tern_bpe_symbol {
    uint32_t id;
    uint32_t prev, next; /* indexes; UINT32_MAX at the ends */
    uint32_t rank; /* of the pair that begins here, TERN_NO_RANK when it is no merge or the symbol is gone */
};

/* Memory for long pieces, kept from piece to piece of one call; a zeroed one is empty. */
struct tern_bpe_scratch {
    struct tern_bpe_symbol *symbols; /* [cap] */
    uint64_t *heap;                  /* [2 cap] rank << 32 | index of the left symbol */
    size_t cap;
};
void tern_bpe_scratch_free(struct tern_bpe_scratch *s);

/* Merges `ids`, n >= 1 tokens of single bytes, in place; *n becomes how many are left.  TERN_NO_TOKEN may
 * stand among them. */
enum tern_status tern_bpe_merge(const struct tern_merges *m, uint32_t *ids, size_t *n,
                                struct tern_bpe_scratch *s, struct tern_err *err) TERN_MUST_CHECK;

#endif
