/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mathematics in reading order: embed, layers, head.  One pass for all architectures (arch.h says what
 * each is made of):
 *
 *   n = norm(x); q, k, v = matrices of n, each behind its input norm; q, k normed by head and turned by RoPE;
 *   a = attention; x += post norm(o(sub or input norm(a)))
 *   n = norm(x); g = activation(gate(n)) * up(n), each behind its input norm; x += post norm(down(sub or
 *   input norm(g)))
 *
 * where every norm but the two on x may be absent.  All norms have the model's one epsilon.
 *
 * A batch is any mix of rows of several sequences.  A row's result never depends on its neighbours, on the
 * number of threads, or on how a prompt was cut into batches.
 *
 * Attention of one row: positions are cut into spans of TERN_SPAN, spans into pages of TERN_PAGE.  The
 * pages of a span are folded in order from a fresh state by `attend`; the state of the first span is the
 * whole, and those of the others are folded into it in order by `attend_merge`.  In a layer that slides a
 * row begins with the first position it sees: spans and pages before it are left out, and of its page what
 * comes before it.
 */
#ifndef TERN_ENGINE_FORWARD_H
#define TERN_ENGINE_FORWARD_H

#include "engine/boundary.h"
#include "engine/kv.h"
#include "engine/model.h"
#include "engine/pool.h"

/* One row of a batch: position `pos` of the sequence whose pages these are; pages cover positions 0..pos. */
struct tern_row {
    const uint32_t *pages; /* [pos / TERN_PAGE + 1] */
    uint32_t pos;
    uint32_t dead; /* not 0: skip this row: its sequence has failed (its x is left as it is) */
};

/* Everything a forward pass writes besides x and the KV; one per compute thread of a stage. */
struct tern_scratch;
enum tern_status tern_scratch_new(const struct tern_arch *arch, size_t max_rows, unsigned n_threads,
                                  struct tern_scratch **out, struct tern_err *err) TERN_MUST_CHECK;
void tern_scratch_free(struct tern_scratch **s);
/* From now on tern_forward_layers calls soon(arg) once, on its own thread, when all that is left to do is a
 * quarter of the last matrix (and when every row is dead, never).  It must be short, for threads of the pool
 * wait meanwhile.  NULL: nothing is called. */
void tern_scratch_on_soon(struct tern_scratch *s, void (*soon)(void *arg), void *arg);
/* What tern_scratch_new will take, for tern_model_need. */
size_t tern_scratch_bytes(const struct tern_arch *arch, size_t max_rows, unsigned n_threads);

/* x[i] = embedding of ids[i] times the architecture's scale, f32 [n][n_embd], before the rounding of any
 * boundary.  ids are below n_vocab (the caller has checked). */
void tern_forward_embed(const struct tern_model *m, const int32_t *ids, size_t n, float *x);

/*
 * Runs the slice's layers over n rows of x [n][n_embd], in place, writing K and V of each row to the store
 * at its position. x comes in rounded to the boundary format (decoded from a payload); after each layer
 * every row is encoded and decoded again.  Rows of one sequence are in ascending order of position, all
 * with the pages of the whole batch already appended.
 *
 * out [n][row_bytes] gets the rows as encoded behind the last layer: they are the payload for the next
 * stage.  Encoding x once more would not do: the scale of an int8 block may move by one unit in the last
 * place.  Rows that are dead keep what out held.
 *
 * A row that turns non-finite is marked dead (dead = layer + 1, counted over the whole model) and so are
 * the later rows of the batch with the same pages; the others go on.
 */
void tern_forward_layers(const struct tern_model *m, struct tern_pool *pool, struct tern_scratch *s,
                         struct tern_kv_store *kv, enum tern_boundary boundary, struct tern_row *rows,
                         size_t n, float *x, uint8_t *out);

/* The output norm, in place: x [n][n_embd]. */
void tern_forward_norm(const struct tern_model *m, float *x, size_t n);
/* logits [n][n_vocab] = head * x, of rows that are normed. */
void tern_forward_logits(const struct tern_model *m, struct tern_pool *pool, const float *x, size_t n,
                         float *logits);
/* Both. */
void tern_forward_head(const struct tern_model *m, struct tern_pool *pool, float *x, size_t n, float *logits);

#endif
