/* SPDX-License-Identifier: Apache-2.0 */
/* One sequence: see seq.h. */
#include "coordinator/seq.h"

#include <stdlib.h>
#include <string.h>

enum tern_status seq_init(struct seq *q, const int32_t *ids, uint32_t n, uint32_t cap, struct tern_err *err)
{
    int32_t *copy;

    TERN_BUG_IF(n == 0 || cap < n);
    copy = calloc(cap, sizeof *copy);
    if (!copy)
        return TERN_FAIL(err, TERN_ERR_MEMORY, "no memory for a sequence of %u tokens", (unsigned)cap);
    memcpy(copy, ids, n * sizeof *ids);
    memset(q, 0, sizeof *q);
    q->ids = copy;
    q->n_ids = q->n_given = n;
    q->cap = cap;
    q->max_len = cap;
    q->want_from = n - 1;
    return TERN_OK;
}

void seq_fini(struct seq *q)
{
    free(q->ids);
    memset(q, 0, sizeof *q);
}

void seq_push(struct seq *q, int32_t id)
{
    TERN_BUG_IF(q->n_ids >= q->cap);
    q->ids[q->n_ids++] = id;
}

void seq_extend(struct seq *q, const int32_t *ids, uint32_t n)
{
    TERN_BUG_IF(n == 0 || n > q->cap - q->n_ids);
    memcpy(q->ids + q->n_ids, ids, n * sizeof *ids);
    q->n_ids += n;
    q->n_given = q->n_ids;
    q->want_from = q->n_ids - 1;
    q->held = false;
}

void seq_rewind(struct seq *q, uint32_t len)
{
    TERN_BUG_IF(len > q->n_ids);
    q->n_ids = len;
    q->n_given = q->n_given < len ? q->n_given : len;
    if (q->n_sent > len) {
        q->n_sent = len;
        q->rewound = true;
    }
}

void seq_shift(struct seq *q, uint32_t n_keep, uint32_t n_drop)
{
    const uint32_t n_ids = q->n_ids;

    TERN_BUG_IF(n_keep > n_ids || n_drop > n_ids - n_keep);
    seq_rewind(q, n_keep);
    memmove(q->ids + n_keep, q->ids + n_keep + n_drop, (n_ids - n_keep - n_drop) * sizeof *q->ids);
    q->n_ids = n_ids - n_drop;
}

void seq_finish(struct seq *q)
{
    q->state = SEQ_ENDED;
}

void seq_fail(struct seq *q, const struct tern_err *err)
{
    if (q->state == SEQ_ENDED)
        return;
    q->failed = true;
    q->err = *err;
    q->state = SEQ_ENDED;
}
