/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a whole model file with a doubting eye: what a parser need not look at, and what is legal but known
 * to be wrong.
 *
 * Broken is what makes Tern refuse the model or give garbage: values that are not numbers, codes that are no
 * ternary weights, scales that are not positive or differ, bytes that changed since `tern convert` hashed
 * them, I2_S that was plainly written in another layout (i2s_check.h).  Doubtful is what Tern mends or
 * guesses while loading: special tokens whose text a converter damaged, a tokenizer without its
 * pre-tokenizer's name, a placeholder where the chat template should be.
 */
#ifndef TERN_ENGINE_VERIFY_H
#define TERN_ENGINE_VERIFY_H

#include "engine/arch.h"
#include "engine/gguf.h"
#include "engine/i2s_check.h"
#include "engine/pool.h"
#include "engine/tokenizer.h"

struct tern_verify_matrix {
    const struct tern_tensor *tensor;
    uint64_t n[3]; /* of -1, 0, +1; all 0 when it could not be read */
    float scale;
};

struct tern_verify_finding {
    bool broken; /* else doubtful */
    char text[TERN_ERR_TEXT_BYTES];
};

#define TERN_VERIFY_MAX_FINDINGS 100

struct tern_verify {
    size_t n_matrices;
    struct tern_verify_matrix *matrices; /* ternary ones, in file order */
    size_t n_findings, n_held_back;      /* beyond the most that are kept */
    size_t n_broken;                     /* of all */
    struct tern_verify_finding *findings;
    size_t n_values;           /* floats of norms, embedding and head that were looked at */
    bool has_hashes;           /* written by `tern convert`; compared */
    struct tern_i2s_check i2s; /* pairs 0: nothing to look at */
};

/* tok may be NULL: a file without a tokenizer, or one that cannot be used, which is the caller's to say.
 * Bytes done and in all go to progress, which may be NULL; false gives up with TERN_END. */
enum tern_status tern_verify_file(const struct tern_gguf *g, const struct tern_arch *arch,
                                  const struct tern_tokenizer *tok, struct tern_pool *pool,
                                  bool (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                                  struct tern_verify **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_verify_free(struct tern_verify **v);

#endif
