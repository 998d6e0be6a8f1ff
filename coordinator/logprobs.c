/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities: see logprobs.h. */
#include "coordinator/logprobs.h"

#include "kernels/exact_math.h"

#include <math.h>

bool logprobs_norm(const struct tern_kernels *kern, const float *logits, uint32_t n_vocab, double *norm)
{
    float max = -INFINITY;

    for (uint32_t i = 0; i < n_vocab; i++) {
        if (!(logits[i] < INFINITY))
            return false;
        if (logits[i] > max)
            max = logits[i];
    }
    if (!(max > -INFINITY))
        return false;
    *norm = (double)max + tern_ln(kern->sum_exp(logits, n_vocab, max));
    return true;
}

uint32_t logprobs_top(const float *logits, uint32_t n_vocab, double norm, uint32_t k, struct logprob *top)
{
    uint32_t n = 0;

    if (k == 0)
        return 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        double v = (double)logits[i] - norm;
        uint32_t at;

        if (n == k && v <= top[n - 1].value)
            continue; /* equal to the last: the lower id is already there */
        if (n < k)
            n++;
        for (at = n - 1; at > 0 && top[at - 1].value < v; at--)
            top[at] = top[at - 1];
        top[at] = (struct logprob){ (int32_t)i, v };
    }
    return n;
}
