/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of all live rows over their pages. */
#include "engine/forward_pass.h"

#include <math.h>
#include <string.h>

/* One unit is one row's query heads of one KV head: blocks of positions folded in order. */
static void attend_units(void *arg, size_t first, size_t last, unsigned thread)
{
    const struct pass *p = arg;
    const struct tern_arch *a = &p->m->arch;
    struct tern_scratch *s = p->s;
    size_t hd = a->head_dim, group = a->n_heads / a->n_kv_heads;
    float *acc = s->head_acc + thread * s->head_acc_stride;
    struct tern_attend t = { .type = TERN_KV_F16,
                             .n_rows = 1,
                             .n_heads = group,
                             .head_dim = hd,
                             .score_scale = 1.0f / sqrtf((float)hd),
                             .acc = acc,
                             .acc_stride = group * hd,
                             .max = acc + group * hd,
                             .sum = acc + group * hd + group };

    for (size_t unit = first; unit < last; unit++) {
        size_t i = unit / a->n_kv_heads;
        uint32_t h = (uint32_t)(unit % a->n_kv_heads);
        const struct tern_row *r = &p->rows[s->live[i]];
        uint32_t n_pos = r->pos + 1;

        t.q = s->q + (i * a->n_heads + h * group) * hd;
        memset(acc, 0, group * hd * sizeof *acc);
        for (size_t g = 0; g < group; g++) {
            t.max[g] = -INFINITY;
            t.sum[g] = 0.0f;
        }
        for (uint32_t at = 0; at < n_pos; at += TERN_PAGE) {
            uint32_t page = r->pages[at / TERN_PAGE];

            t.k = tern_kv_k(p->kv, page, p->i_layer, h);
            t.v = tern_kv_v(p->kv, page, p->i_layer, h);
            t.n_pos = n_pos - at < TERN_PAGE ? n_pos - at : TERN_PAGE;
            p->kern->attend(&t);
        }
        for (size_t g = 0; g < group; g++)
            p->kern->attend_finish(acc + g * hd, t.sum[g], hd,
                                   s->att + (i * a->n_heads + h * group + g) * hd);
    }
}

void tern_pass_attention(struct pass *p)
{
    const struct tern_arch *a = &p->m->arch;
    size_t cost = 2 * p->n_pos * a->head_dim * (a->n_heads / a->n_kv_heads); /* of one unit, in elements */

    tern_pool_run(p->pool, attend_units, p, p->n_live * a->n_kv_heads, MIN_PIECE / 2 / cost + 1);
}
