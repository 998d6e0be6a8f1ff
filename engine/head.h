/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output head, read smaller: which tokens can matter is found in a screened copy of it, and only those
 * rows are computed from the file's tensor.
 *
 * SCREENED keeps int8 rows with the norms of what their encoding lost.  For each row of x the approximate
 * logit of every token has a rigorous bound (head.c has the proof), so that the k best are certainly among
 * the candidates, whose logits are those of the full head bit for bit: what is drawn from them is the same
 * token.  Half the bytes of an f16 head are read.
 *
 * STATISTICAL keeps 4-bit rows and takes their errors for independent of x and uniform: each of the k best is
 * lost with a probability of about 1e-9 (six deviations; 1.5e-8 for the worst x).  Named in every output,
 * never chosen by itself.
 *
 * Thread: one at a time; the pool's threads take part.  No allocation after creation.
 */
#ifndef TERN_ENGINE_HEAD_H
#define TERN_ENGINE_HEAD_H

#include "engine/model.h"
#include "engine/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tern_head_mode {
    TERN_HEAD_AUTO, /* SCREENED when the file's head takes more than 6 bits a weight, else FULL */
    TERN_HEAD_FULL,
    TERN_HEAD_SCREENED,
    TERN_HEAD_STATISTICAL
};

/* "auto", "full", "screened", "statistical". */
const char *tern_head_mode_name(enum tern_head_mode mode);
bool tern_head_mode_by_name(const char *name, enum tern_head_mode *mode);

/* What AUTO means for a head of this type; other modes stay. */
enum tern_head_mode tern_head_mode_for(enum tern_head_mode mode, enum tern_dtype type);

/* Bytes of the screened copy of a head [n_vocab][n_embd]; 0 for FULL. */
size_t tern_head_copy_bytes(enum tern_head_mode mode, enum tern_dtype type, size_t n_vocab, size_t n_embd);

/* What one row of x asks for. */
struct tern_head_want {
    bool full;             /* all logits */
    uint32_t k;            /* else the k best tokens, at least 1, ... */
    const int32_t *forced; /* ... chosen among all but these, which are computed whatever they are; */
    uint32_t n_forced;     /* distinct ids below n_vocab */
};

/* What it gets: all logits, or those of some tokens. */
struct tern_head_row {
    const float *logits; /* [n_vocab], or NULL: */
    const int32_t *ids;  /* [n] ascending */
    const float *values; /* [n] their logits */
    uint32_t n;
};

struct tern_head_stats {
    uint64_t rows;       /* of x, all in all */
    uint64_t screened;   /* of these, answered by candidates */
    uint64_t recomputed; /* rows of the head computed for them */
    uint64_t full;       /* rows of x that asked for all logits, or whose mode is FULL */
    uint64_t fallback;   /* rows of x for which screening would not pay or not hold: all logits, too */
};

struct tern_head;

/* Encodes the model's head with all threads.  model (with_embd) and pool are borrowed.  max_rows: rows of x
 * at a time.  Fails on lack of memory and when the file was truncated meanwhile. */
enum tern_status tern_head_new(const struct tern_model *model, struct tern_pool *pool,
                               enum tern_head_mode mode, uint32_t max_rows, struct tern_head **out,
                               struct tern_err *err) TERN_MUST_CHECK;
void tern_head_free(struct tern_head **head);

/*
 * x [n][n_embd] is overwritten by its rows after the output norm; want [n].  out [n] is valid until the next
 * call.  A row gets all logits even if it did not ask for them when the candidates would be too many, or when
 * a value of x or of the head is not finite.
 */
void tern_head_run(struct tern_head *head, float *x, uint32_t n, const struct tern_head_want *want,
                   struct tern_head_row *out);

/* FULL, SCREENED or STATISTICAL. */
enum tern_head_mode tern_head_mode(const struct tern_head *head);
const struct tern_head_stats *tern_head_stats(const struct tern_head *head);

/* What one token reads of the head in its mode, without the candidates' rows. */
size_t tern_head_bytes_read(const struct tern_head *head);

#endif
