/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See stage_line.h.
 */
#include "lab/stage_line.h"

#include <stdlib.h>
#include <string.h>

#define MODEL TERN_SOURCE_DIR "/deploy/models/fable.gguf"

struct stage_lab lab;

const enum tern_boundary formats[N_FORMATS] = { TERN_BOUNDARY_F32,     TERN_BOUNDARY_F16,
                                                TERN_BOUNDARY_INT8,    TERN_BOUNDARY_INT8X2,
                                                TERN_BOUNDARY_INT8_64, TERN_BOUNDARY_INT8_ROW,
                                                TERN_BOUNDARY_INT8_32 };

int stage_lab_load(void **state)
{
    struct tern_model_options mo = { .with_embd = true };

    (void)state;
    tern_cpu_set_float_mode();
    tern_kernels_init(&lab.kern, tern_cpu_detect());
    assert_ok(tern_gguf_open(MODEL, &lab.gguf, &unit_err));
    assert_ok(tern_arch_read(lab.gguf, &lab.arch, &unit_err));
    assert_true(lab.arch.n_layers > 1 && lab.arch.n_layers <= MAX_LAYERS);
    assert_ok(tern_pool_new(2, &lab.pool, &unit_err));
    mo.last = lab.arch.n_layers;
    assert_ok(tern_model_load(lab.gguf, &lab.arch, &lab.kern, lab.pool, &mo, &lab.whole, &unit_err));
    mo.with_embd = false;
    for (uint32_t i = 0; i < lab.arch.n_layers; i++) {
        mo.first = i;
        mo.last = i + 1;
        mo.layout = i % 2 ? TERN_TILES_5TRIT : TERN_TILES_2BIT;
        assert_ok(tern_model_load(lab.gguf, &lab.arch, &lab.kern, lab.pool, &mo, &lab.single[i], &unit_err));
    }
    return 0;
}

int stage_lab_free(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < lab.arch.n_layers; i++)
        tern_model_free(&lab.single[i]);
    tern_model_free(&lab.whole);
    tern_pool_free(&lab.pool);
    tern_gguf_close(&lab.gguf);
    return 0;
}

/* -- a pipeline without wires ---- */

enum tern_kv_type line_kv = TERN_KV_DEFAULT;

void line_open(struct line *l, enum tern_boundary b, bool cut)
{
    struct tern_stage_options o = { .boundary = b,
                                    .kv = line_kv,
                                    .n_pages = N_PAGES,
                                    .n_slots = N_SLOTS,
                                    .max_positions = CONTEXT,
                                    .max_rows = MAX_ROWS };

    memset(l, 0, sizeof *l);
    l->boundary = b;
    l->n = cut ? lab.arch.n_layers : 1;
    l->next = 1;
    for (uint32_t i = 0; i < l->n; i++) {
        o.index = i;
        o.is_last = i + 1 == l->n;
        assert_ok(tern_stage_new(cut ? lab.single[i] : lab.whole, lab.pool, &o, &l->stages[i], &unit_err));
    }
    assert_ok(
        tern_step_new(MAX_ROWS, (uint32_t)tern_boundary_row_bytes(b, lab.arch.n_embd), &l->step, &unit_err));
}

void line_close(struct line *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        tern_stage_free(&l->stages[i]);
    tern_step_free(&l->step);
}

void line_begin(struct line *l)
{
    tern_step_clear(l->step);
    l->step->step = l->next++;
}

void line_op(struct line *l, uint32_t kind, uint32_t slot, uint32_t gen, uint32_t len)
{
    l->step->ops[l->step->n_ops++] =
        (struct tern_slot_op){ .kind = kind, .slot = slot, .gen = gen, .len = len };
}

/* Token i of text number `text`: any ids will do. */
static int32_t token(uint32_t text, uint32_t i)
{
    return (int32_t)((text * 977u + i * 131u + i * i * 7u) % 4000u);
}

void line_rows(struct line *l, uint32_t slot, uint32_t gen, uint32_t text, uint32_t pos, uint32_t n,
               uint32_t n_want)
{
    struct tern_step *s = l->step;
    float *x = malloc(lab.arch.n_embd * sizeof *x);

    assert_non_null(x);
    assert_true(s->n_rows + n <= MAX_ROWS);
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = token(text, pos + i);

        tern_forward_embed(lab.whole, &id, 1, x);
        tern_boundary_encode(l->boundary, &lab.kern, x, lab.arch.n_embd,
                             s->payload + (size_t)(s->n_rows + i) * s->row_bytes);
    }
    free(x);
    s->runs[s->n_runs++] = (struct tern_run){ slot, gen, pos, n, n_want };
    s->n_rows += n;
}

void line_run(struct line *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        assert_ok(tern_stage_run(l->stages[i], l->step, &unit_err));
    assert_int_equal(l->step->n_times, l->n);
}

void assert_same_rows(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            fail_msg("byte %zu of %zu differs: %02x and %02x", i, n, a[i], b[i]);
}

const struct tern_failed *failure_of(const struct tern_step *s, uint32_t slot, uint32_t gen)
{
    for (uint32_t i = 0; i < s->n_failed; i++)
        if (s->failed[i].slot == slot && s->failed[i].gen == gen)
            return &s->failed[i];
    return NULL;
}

uint8_t *rows_by_chunks(enum tern_boundary b, bool cut, uint32_t text, uint32_t n, uint32_t chunk)
{
    struct line l;
    uint8_t *out;
    size_t row;

    line_open(&l, b, cut);
    row = l.step->row_bytes;
    out = malloc(n * row);
    assert_non_null(out);
    for (uint32_t pos = 0; pos < n; pos += chunk) {
        uint32_t now = n - pos < chunk ? n - pos : chunk;

        line_begin(&l);
        if (pos == 0)
            line_op(&l, TERN_OP_OPEN, 1, 1, 0);
        line_rows(&l, 1, 1, text, pos, now, now);
        line_run(&l);
        assert_int_equal(l.step->n_failed, 0);
        assert_int_equal(l.step->n_rows, now);
        memcpy(out + pos * row, l.step->payload, now * row);
    }
    line_close(&l);
    return out;
}
