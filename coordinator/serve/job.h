/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence that a server computes for somebody: an answer to a prompt, or an embedding.
 *
 * Made and read by the thread that talks to the client, computed by the service's own (service.h).  What has
 * become final is handed over piece by piece; a reader that is slow holds up nobody, for what waits for it
 * is bounded by the answer's own length.
 *
 * Thread: job_wait, job_take, job_cancel and job_free from the one thread that submitted it.
 */
#ifndef TERN_COORDINATOR_SERVE_JOB_H
#define TERN_COORDINATOR_SERVE_JOB_H

#include "coordinator/embed.h"
#include "coordinator/generate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grammar;
struct job;
struct service;

enum job_kind { JOB_TEXT, JOB_EMBED };

/* What is asked for.  Everything is copied; a grammar is shared (grammar_hold). */
struct job_request {
    enum job_kind kind;
    const int32_t *ids; /* [n_ids] the prompt, 1 <= n_ids <= the service's context */
    uint32_t n_ids;
    uint64_t client, user;         /* for fairness: hashes of who asks, and for whom of his */
    bool at_end;                   /* the reader is not woken before all is there */
    bool no_cache;                 /* do not take from, nor leave anything in, the prefix cache */
    struct generate_options gen;   /* TEXT; ctx is set by the service, `keep` is false */
    bool shift;                    /* TEXT: a full context forgets its oldest half and goes on */
    uint32_t n_keep;               /* ... but not the first so many tokens */
    const struct grammar *grammar; /* TEXT: NULL, or what the answer must match */
    enum tern_pooling pooling;     /* EMBED */
    bool normalize;                /* EMBED */
};

/* What has come since the last job_take. */
struct job_piece {
    bool failed; /* no memory: nothing has been taken, and all the rest is empty */
    char *text;  /* [n_text] final, valid UTF-8; NUL behind it */
    size_t n_text;
    /* Tokens whose text is final (or that have none), with `end` counted from the beginning of the answer;
     * tops [n_tokens][n_logprobs], of which n_top each are there. */
    struct generate_token *tokens;
    uint32_t n_tokens;
    struct logprob *tops;
};

/* Where it stands. */
struct job_state {
    bool started;                /* has its slot */
    bool ended;                  /* with everything taken, nothing more will come */
    enum generate_end end;       /* why, once ended (EMBED: STOP or ERROR) */
    struct tern_err err;         /* of GENERATE_ERROR */
    int stop;                    /* which of gen.stops ended it, -1: none */
    int slot;                    /* of service_options' `parallel`, that it has or had; -1: none yet */
    uint32_t n_prompt, n_cached; /* tokens of the prompt, and how many of them were in the prefix cache */
    uint32_t n_prompt_done;      /* computed so far, cached ones included */
    uint32_t n_tokens;           /* generated so far */
    bool shifted;                /* the context was full and its oldest half has been forgotten */
    /* Milliseconds: in the queue, from there to the first token, from there to the last one. */
    double queue_ms, prompt_ms, answer_ms;
    const float *embedding; /* [n_rows][n_embd] once ended; the job's */
    uint32_t n_rows;
};

/* Waits until there is something to take (unless at_end) or it has ended, at most timeout_ms. */
void job_wait(struct job *j, int timeout_ms, struct job_state *out);

/* Moves what has come into *out, to be freed by job_piece_free.  Read job_wait's state first: text taken
 * after `ended` was seen is all there is. */
void job_take(struct job *j, struct job_piece *out);
void job_piece_free(struct job_piece *p);

/* Nobody wants it any more: its rows leave the steps not yet sent, its slot is freed on every worker. */
void job_cancel(struct job *j);

/* Cancels what has not ended.  Does not wait. */
void job_free(struct job **j);

#endif
