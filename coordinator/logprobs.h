/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Natural log-probabilities of tokens, over all raw logits: before bias, penalties, filters and temperature.
 */
#ifndef TERN_COORDINATOR_LOGPROBS_H
#define TERN_COORDINATOR_LOGPROBS_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdint.h>

#define LOGPROBS_MAX_TOP 100

struct logprob {
    int32_t id;
    double value;
};

/* log(sum exp(logits)), so that a token's log-probability is its logit minus this.  False when a logit is
 * NaN or +infinity or all are -infinity. */
bool logprobs_norm(const struct tern_kernels *kern, const float *logits, uint32_t n_vocab, double *norm);

/* The k largest in descending order (equal ones by the lower id) into top [k]; returns how many there are:
 * min(k, n_vocab). */
uint32_t logprobs_top(const float *logits, uint32_t n_vocab, double norm, uint32_t k, struct logprob *top);

#endif
