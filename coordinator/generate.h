/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer being made: a sequence, its sampler, and the text that comes out of it.
 *
 * Text is complete, valid UTF-8.  What could still become a stop string is held back, so whatever
 * generate_ready() shows is final.
 *
 * Thread: the scheduler's.  Memory grows in generate_reserve() only, which is called between turns.
 */
#ifndef TERN_COORDINATOR_GENERATE_H
#define TERN_COORDINATOR_GENERATE_H

#include "coordinator/logprobs.h"
#include "coordinator/sample.h"
#include "coordinator/seq.h"
#include "engine/tokenizer.h"
#include "kernels/kernels.h"

#include <stdio.h>

struct grammar;
struct grammar_state;
struct grammar_vocab;

#define GENERATE_MAX_STOPS      16 /* a user's */
#define GENERATE_MAX_STOP_BYTES 256

enum generate_end {
    GENERATE_RUNNING,
    GENERATE_STOP,    /* end-of-text token, a stop string, or nothing can follow in the grammar */
    GENERATE_LENGTH,  /* n_predict tokens */
    GENERATE_CONTEXT, /* no position left */
    GENERATE_ERROR,
    GENERATE_INTERRUPTED
};

struct generate_options {
    uint32_t n_predict; /* UINT32_MAX: until the end of text or context */
    uint32_t ctx;       /* positions */
    bool ignore_eos; /* end-of-text tokens are text like any other (bias forbids them: generate_forbid_eog) */
    bool keep;       /* an ended answer's sequence keeps its slot, for generate_more */
    bool shift; /* a full context forgets the older half of what is behind the first n_keep tokens, which is
                      * computed again as if the text had begun so; not together with keep */
    uint32_t n_keep;       /* with shift */
    const int32_t *end_id; /* a token that ends an answer beside the end-of-text tokens, or NULL */
    uint32_t n_stops;
    const char *stops[GENERATE_MAX_STOPS + 1]; /* and a chat format's */
    const struct grammar *grammar;             /* what the answer must match, or NULL; borrowed, */
    const struct grammar_vocab *grammar_vocab; /* ... as is this, of as many tokens as there are logits */
    /* -1: none; else the chosen token's, and this many of the most probable.  Of the raw logits, whatever
     * options and grammar forbid. */
    int n_logprobs;
    struct sample_options sample;
};

struct generate_token {
    int32_t id;
    uint32_t n_top; /* entries in tops */
    size_t end;     /* of the text with it */
    double logprob; /* when n_logprobs >= 0 */
};

struct generate {
    struct seq seq;
    const struct generate_options *o; /* borrowed, as are the next three */
    const struct tern_tokenizer *tok;
    const struct tern_kernels *kern;
    FILE *logits_out; /* raw f32 logits of every sampled position, or NULL */
    uint32_t n_vocab;
    uint32_t n_kept;   /* ids there were before this answer's prompt */
    uint32_t n_prompt; /* ids of the prompt behind them */
    struct sampler *sampler;
    struct grammar_state *grammar; /* or NULL */
    struct tern_utf8 utf8;
    char *text; /* [n_text], generated so far */
    size_t n_text, text_cap;
    size_t n_ready;                /* bytes that are final */
    struct generate_token *tokens; /* [n_tokens] */
    struct logprob *tops;          /* [tokens_cap][n_logprobs] */
    uint32_t n_tokens, tokens_cap;
    enum generate_end end;
    bool complete; /* ended by its grammar: the last token is text like those before it */
    bool cut;      /* ended by a stop string, which some of the last tokens print, */
    int stop;      /* ... namely stops[stop]; else -1 */
    uint32_t n_shifts;
};

/* "stop", "length", "context", "error", "interrupted". */
const char *generate_end_name(enum generate_end e);

/* Adds a bias of -infinity for every end-of-text token of the vocabulary. */
enum tern_status generate_forbid_eog(struct sample_options *o, const struct tern_tokenizer *tok,
                                     uint32_t n_vocab, struct tern_err *err) TERN_MUST_CHECK;

/* ids [n]: the prompt, 1 <= n <= o->ctx. */
enum tern_status generate_init(struct generate *g, const struct generate_options *o,
                               const struct tern_tokenizer *tok, const struct tern_kernels *kern,
                               uint32_t n_vocab, const int32_t *ids, uint32_t n,
                               struct tern_err *err) TERN_MUST_CHECK;
void generate_fini(struct generate *g);

/* Room for what the next turn may add; text, tokens and tops move only here, and only when asked for. */
bool generate_wants_room(const struct generate *g);
enum tern_status generate_reserve(struct generate *g, struct tern_err *err) TERN_MUST_CHECK;

/* Ends what has not ended, keeping its text. */
void generate_stop(struct generate *g, enum generate_end why);

/* True when no more will come; a sequence that failed is noticed here. */
bool generate_ended(struct generate *g);

/* Text from offset *shown that may be shown; advances *shown. */
struct tern_str generate_ready(struct generate *g, size_t *shown);

/* How many tokens are final, at least `from`, of which that is known: their text may be shown (or they have
 * none), and they do not belong to a stop string. */
uint32_t generate_ready_tokens(const struct generate *g, uint32_t from);

/* The ids an ended answer leaves behind, prompt and all: the end-of-text token and those that print a stop
 * string do not belong to it.  *left: the end of the text, if none of these ids prints it. */
uint32_t generate_length(const struct generate *g, struct tern_str *left);

/* A new answer behind the last one, which has ended with its sequence kept and nothing in flight: ids [n] are
 * the prompt, 1 <= n <= o->ctx - generate_length. */
enum tern_status generate_more(struct generate *g, const int32_t *ids, uint32_t n,
                               struct tern_err *err) TERN_MUST_CHECK;

#endif
