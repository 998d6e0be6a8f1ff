/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From logits to one token: bias and penalties, a mask if there is one, top-k, top-p, min-p, temperature,
 * draw, in this order.
 *
 * The same logits, options, history and seed give the same token on every machine: the generator is our
 * own, exp and log are kernels/exact_math.h, sums have one order, and equal logits are ordered by the lower
 * id.  All three filters keep a prefix of the candidates in descending order, so candidates come off a heap
 * one by one and the vocabulary is never sorted.
 *
 * No allocation after creation.  Thread: one at a time per sampler.
 */
#ifndef TERN_COORDINATOR_SAMPLE_H
#define TERN_COORDINATOR_SAMPLE_H

#include "engine/base/status.h"
#include "engine/head.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_MAX_BIAS 1024 /* entries of --logit-bias, end-of-text tokens of --ignore-eos included */

struct sample_bias {
    int32_t id;
    float value; /* -INFINITY forbids the token */
};

struct sample_options {
    double temperature; /* <= 0: greedy, the largest logit after bias and penalties */
    uint32_t top_k;     /* 0: off */
    double top_p;       /* >= 1: off; at least one candidate stays */
    double min_p;       /* <= 0: off */
    /* 1: off; logits of seen tokens are divided by it when positive, multiplied otherwise */
    double repeat_penalty;
    /* 0: off; count * frequency + presence is subtracted */
    double frequency_penalty, presence_penalty;
    /* how many of the last tokens count as seen, prompt included; -1: all; 0: penalties off */
    int64_t repeat_last_n;
    uint64_t seed;
    uint32_t n_bias;
    struct sample_bias bias[SAMPLE_MAX_BIAS];
};

/* llama.cpp's defaults, and a fixed seed of 0. */
void sample_options_default(struct sample_options *o);

struct sampler;

/* Options are copied.  n_vocab at least 1; bias ids must be below it. */
enum tern_status sampler_new(const struct sample_options *o, const struct tern_kernels *kern,
                             uint32_t n_vocab, struct sampler **out, struct tern_err *err) TERN_MUST_CHECK;
void sampler_free(struct sampler **s);

/* Which logits sampler_pick will do with, behind this history: the best ones, and every token that a bias or
 * a penalty touches; all of them when top-k is off and the draw is not greedy.  out->forced is the sampler's,
 * until its next call. */
void sampler_want(struct sampler *s, const int32_t *history, uint32_t n_history, struct tern_head_want *out);

/*
 * history [n_history]: the sequence's tokens so far, oldest first; ids outside the vocabulary count for
 * nothing.  row: all logits, or those of the tokens
 * that sampler_want asked for, which give the same token.  Exactly one number is drawn from the generator
 * per call that is not greedy. TERN_ERR_NUMERIC when a logit is NaN or +infinity or when no token is
 * possible.
 */
enum tern_status sampler_pick(struct sampler *s, const struct tern_head_row *row, const int32_t *history,
                              uint32_t n_history, int32_t *id, struct tern_err *err) TERN_MUST_CHECK;

/* Only the tokens of the mask (bit id % 64 of word id / 64) can be drawn by the next sampler_pick, whose row
 * must be all logits.  Borrowed until then. */
void sampler_allow(struct sampler *s, const uint64_t *mask);

/* The survivors of the last sampler_pick that was not greedy, in descending order: for tests. */
uint32_t sampler_survivors(const struct sampler *s, const int32_t **ids);

/* xoshiro256** seeded by splitmix64 (Blackman and Vigna, https://prng.di.unimi.it): 64 bits a call. */
struct sample_rng {
    uint64_t s[4];
};
void sample_rng_seed(struct sample_rng *r, uint64_t seed);
uint64_t sample_rng_next(struct sample_rng *r);

#endif
