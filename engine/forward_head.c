/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of the walk: ids to rows, rows to logits. */
#include "engine/forward_pass.h"

void tern_forward_embed(const struct tern_model *m, const int32_t *ids, size_t n, float *x)
{
    size_t d = m->arch.n_embd, row_bytes = m->embd->bytes / m->arch.n_vocab;

    for (size_t i = 0; i < n; i++)
        tern_dequant_row((enum tern_dtype)m->embd->type, m->embd->data + (size_t)ids[i] * row_bytes, d,
                         x + i * d);
    for (size_t i = 0; m->arch.embd_scale != 1.0f && i < n * d; i++)
        x[i] *= m->arch.embd_scale;
}

struct head_pass {
    const struct tern_kernels *kern;
    struct tern_matvec mv;
};

static void pass_head(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct head_pass *p = arg;

    (void)thread;
    p->kern->matvec(&p->mv, first, last);
}

void tern_forward_norm(const struct tern_model *m, float *x, size_t n)
{
    size_t d = m->arch.n_embd;

    for (size_t i = 0; i < n; i++)
        m->kern->rmsnorm(x + i * d, m->output_norm, d, m->arch.rms_eps, x + i * d);
}

void tern_forward_logits(const struct tern_model *m, struct tern_pool *pool, const float *x, size_t n,
                         float *logits)
{
    size_t d = m->arch.n_embd, v = m->arch.n_vocab;
    struct head_pass p = { .kern = m->kern,
                           .mv = { .w = m->head->data,
                                   .row_bytes = m->head->bytes / v,
                                   .type = (enum tern_dtype)m->head->type,
                                   .k = d,
                                   .x = x,
                                   .x_stride = d,
                                   .n_x = n,
                                   .y = logits,
                                   .y_stride = v } };

    tern_pool_run(pool, pass_head, &p, v,
                  v / (tern_pool_threads(pool) * 16) + 4 * MIN_PIECE / p.mv.row_bytes + 1);
}

void tern_forward_head(const struct tern_model *m, struct tern_pool *pool, float *x, size_t n, float *logits)
{
    tern_forward_norm(m, x, n);
    tern_forward_logits(m, pool, x, n, logits);
}
