/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding special tokens in text.  The rule: candidates by length of their text, longest
 * first (of equal lengths the lower id); for each in that order, every occurrence in what is still text is
 * cut out.
 *
 * A trie over the texts finds the candidates of every position in one pass over the text, and a heap decides
 * among those that overlap in the rule's order, so a text costs O(n log n), however many special tokens there
 * are.
 */
#ifndef TERN_ENGINE_SPECIAL_H
#define TERN_ENGINE_SPECIAL_H

#include "engine/vocab.h"

struct tern_special_node {
    uint32_t child; /* index of the first child; children stand side by side, by byte */
    uint16_t n_children;
    uint8_t byte;  /* on the edge to this node */
    uint8_t depth; /* bytes from the root */
    uint32_t id;   /* the token that ends here, or TERN_NO_TOKEN */
};

struct tern_special {
    struct tern_special_node *nodes; /* nodes[0] is the root; NULL when there are no special tokens */
    size_t n_nodes;
    uint32_t first[256]; /* the root's child of a byte, or 0 */
};

/* A token cut out of a text. */
struct tern_special_cut {
    uint32_t at, len, id;
};

/* Builds the trie over tokens of the types in the mask (1 << enum tern_token_type).  tern_special_free gives
 * *s back, also after a failure. */
enum tern_status tern_special_build(struct tern_special *s, const struct tern_vocab *v, unsigned types,
                                    struct tern_err *err) TERN_MUST_CHECK;
void tern_special_free(struct tern_special *s);

/* The tokens to cut out of text[0..len), in order of their places.  *cuts is malloc'ed (NULL when *n is 0):
 * the caller frees it.  len < 2^32. */
enum tern_status tern_special_find(const struct tern_special *s, const char *text, size_t len,
                                   struct tern_special_cut **cuts, size_t *n,
                                   struct tern_err *err) TERN_MUST_CHECK;

#endif
