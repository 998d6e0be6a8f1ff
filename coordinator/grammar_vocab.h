/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens of a vocabulary as trees of bytes, laid out in the order in which a walk meets the nodes: what
 * is behind a node stands between it and its end, so a walk leaves out a branch by going on there.
 *
 * There are two trees.  PLAIN has the tokens made of at most GRAMMAR_PLAIN_CHARS characters that hardly any
 * string cares about: those of ASCII from the blank to the tilde but " and \, and all beyond ASCII.  Where
 * each of them may come, and comes to the same, nobody need walk that tree, which has nine tokens out of ten.
 * Tokens that print nothing, and those that end a text, are in neither.
 */
#ifndef TERN_COORDINATOR_GRAMMAR_VOCAB_H
#define TERN_COORDINATOR_GRAMMAR_VOCAB_H

#include "coordinator/grammar.h"

#define GRAMMAR_PLAIN_CHARS 32

enum { GRAMMAR_PLAIN, GRAMMAR_OTHER, GRAMMAR_TREES };

struct grammar_leaf {
    uint32_t end;   /* the node to go on with if this branch is left out */
    uint32_t first; /* its tokens, which are its text: ids[first] up to the next node's first */
    uint16_t depth; /* bytes in front of it */
    uint8_t byte;
};

struct grammar_tree {
    struct grammar_leaf *nodes; /* [n_nodes + 1] */
    int32_t *ids;
    uint32_t n_nodes;
};

struct grammar_vocab {
    const struct tern_tokenizer *tok; /* borrowed */
    uint32_t n_vocab;
    size_t n_words; /* of a mask */
    uint64_t *ends; /* [n_words] end-of-text tokens */
    uint64_t
        *plain; /* [GRAMMAR_PLAIN_CHARS + 1][n_words] those of the tree with at most so many characters */
    struct grammar_tree trees[GRAMMAR_TREES];
};

/* A byte of PLAIN that is a character. */
static inline bool grammar_is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

#endif
