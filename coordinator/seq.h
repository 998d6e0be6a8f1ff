/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence as the scheduler sees it: token ids, how far they have gone into the pipeline, and what to
 * do with logits, or with hidden rows.
 *
 * Owned by whoever made it, who must keep it until the scheduler is freed or told to forget it.  The
 * scheduler sends ids[n_sent .. n_ids) when it can; logits of positions want_from and later come back
 * through on_logits, which may push the next id or finish the sequence.  Prompts, generation and scoring of
 * given text differ in that callback only; embedding asks for on_hidden instead, and costs no head.  A
 * sequence with nothing to send, or that is held, keeps its slot and can be gone on with later.
 */
#ifndef TERN_COORDINATOR_SEQ_H
#define TERN_COORDINATOR_SEQ_H

#include "engine/base/status.h"
#include "engine/head.h"

#include <stdbool.h>
#include <stdint.h>

enum seq_state {
    SEQ_IDLE,   /* not given to a scheduler */
    SEQ_QUEUED, /* waits for a slot */
    SEQ_LIVE,   /* has a slot */
    SEQ_ENDED   /* finished or failed; its slot goes back with the next step */
};

struct seq {
    int32_t *ids; /* [cap], owned */
    uint32_t n_ids, cap;
    uint32_t n_given;   /* ids it began with, or was extended to; those pushed since are an answer */
    uint32_t want_from; /* first position whose logits or hidden row are wanted */
    uint32_t max_len;   /* positions it may ever take in the KV cache; what the scheduler reserves */
    uint32_t n_sent;    /* positions given to the pipeline */
    bool held;          /* nothing is sent for now */
    bool rewound;       /* n_sent went back: the workers are told before more is sent */

    enum seq_state state;
    bool failed; /* ended with err */
    struct tern_err err;
    uint32_t slot, gen; /* while LIVE */
    struct seq *next;   /* in the scheduler's queue */
    uint64_t passed;    /* the scheduler's: the round in which it was passed over */
    bool retried;       /* the prefix it was given had failed, it begins anew without one */
    uint64_t client; /* sequences of one client wait for each other before those of others do; 0: nobody's */
    uint64_t whom;   /* that the client asks for: they divide its turns, and have none of their own */
    bool no_cache;   /* its KV is of no use to others, nor theirs to it */
    uint32_t n_cached; /* positions that were there already when it got its slot */

    /* Which logits of position pos will do: *out is {0}.  NULL: all of them.  Asked just before the head
     * runs, on the scheduler's thread. */
    void (*want)(struct seq *q, uint32_t pos, struct tern_head_want *out);
    /* The logits of position pos, in ascending order of positions; on the scheduler's thread, inside its
     * allocation guard. */
    void (*on_logits)(struct seq *q, uint32_t pos, const struct tern_head_row *row);
    /* Instead of logits, when not NULL: row [n_embd] of position pos behind the output norm, in the same
     * order and place.  Finite or not: the callee looks. */
    void (*on_hidden)(struct seq *q, uint32_t pos, const float *row);
    void *user;

    uint64_t t_start_ns; /* got its slot */
    uint64_t t_first_ns; /* first logits or row */
    uint64_t t_last_ns;  /* last ones */
};

/* Copies n ids; room for cap >= n.  max_len starts as cap, want_from as n - 1 (the last of the prompt). */
enum tern_status seq_init(struct seq *q, const int32_t *ids, uint32_t n, uint32_t cap,
                          struct tern_err *err) TERN_MUST_CHECK;
void seq_fini(struct seq *q);

/* One more id, to be sent next.  There must be room. */
void seq_push(struct seq *q, int32_t id);

/* n more ids, of which the last one's logits are wanted; no longer held.  There must be room. */
void seq_extend(struct seq *q, const int32_t *ids, uint32_t n);
/* Forgets ids from len on, sent or not; nothing of the sequence may be in flight. */
void seq_rewind(struct seq *q, uint32_t len);

/* Forgets n_drop ids behind the first n_keep; those behind them move up and are sent again, for what they are
 * depends on all before them.  Nothing of the sequence may be in flight; seq_extend follows. */
void seq_shift(struct seq *q, uint32_t n_keep, uint32_t n_drop);

/* No more from this sequence: what is in flight is dropped when it comes back. */
void seq_finish(struct seq *q);
/* The same because of an error, which is copied. */
void seq_fail(struct seq *q, const struct tern_err *err);

#endif
