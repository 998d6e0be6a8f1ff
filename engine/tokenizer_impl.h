/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tokenizer is made of: shared by loading (tokenizer.c) and encoding (tokenizer_encode.c), for nobody
 * else.
 */
#ifndef TERN_ENGINE_TOKENIZER_IMPL_H
#define TERN_ENGINE_TOKENIZER_IMPL_H

#include "engine/bpe.h"
#include "engine/pretokenizer.h"
#include "engine/special.h"
#include "engine/spm.h"
#include "engine/tokenizer.h"
#include "engine/vocab.h"

struct tern_tokenizer {
    struct tern_vocab vocab;             /* vocab.spm tells which of the two kinds this is */
    struct tern_merges merges;           /* BPE */
    struct tern_spm spm;                 /* SPM */
    struct tern_special always;          /* user-defined tokens */
    struct tern_special parsed;          /* and control and unknown ones */
    const struct tern_pretok_kind *kind; /* BPE; NULL for SPM */
    struct tern_pretok *pretok;          /* BPE */
    const char *pre_source;
    bool add_bos, add_eos;
};

#endif
