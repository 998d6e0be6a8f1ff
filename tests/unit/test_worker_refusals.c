/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real ternd whose own upstream sends nonsense about single sequences: each is refused, counted and logged
 * once, and the sequence beside it in the same step gets the rows it would get alone; and sends more steps
 * than were agreed.
 */
#include "lab/peer.h"
#include "lab/stage_line.h"

#include <stdlib.h>
#include <string.h>

static struct {
    struct tern_key worker, head;
    struct tern_identity *id;
    uint8_t arch_hash[TERN_HASH_BYTES];
    struct lab_ternd d;
    char allow[256];
} net;

static int set_up(void **state)
{
    stage_lab_load(state);
    assert_ok(tern_keys_init(&unit_err));
    assert_ok(tern_key_generate(&net.worker, &unit_err));
    assert_ok(tern_key_generate(&net.head, &unit_err));
    assert_ok(tern_identity_compute(lab.gguf, &lab.arch, TERN_IDENTITY_ALL, lab.pool, NULL, NULL, &net.id,
                                    &unit_err));
    lab_allow_add(net.allow, sizeof net.allow, "head", "coordinator", &net.head);
    lab_ternd_start(&net.d, &net.worker, net.allow, NULL);
    return 0;
}

static int tear_down(void **state)
{
    int code = lab_ternd_stop(&net.d);

    tern_identity_free(&net.id);
    tern_key_wipe(&net.worker);
    tern_key_wipe(&net.head);
    stage_lab_free(state);
    return code;
}

/* One step: ten good rows of slot 0 from pos on, and a run that must be refused. */
static void refuse_beside(struct lab_peer *p, struct line *l, const uint8_t *want, uint32_t pos,
                          struct tern_run bad, bool open, uint32_t code)
{
    size_t row_bytes = l->step->row_bytes;
    struct tern_step *back;

    assert_ok(tern_step_new(MAX_ROWS, l->step->row_bytes, &back, &unit_err));
    line_begin(l);
    l->step->step = ++p->steps_sent;
    if (pos == 0)
        line_op(l, TERN_OP_OPEN, 0, 1, 0);
    if (open)
        line_op(l, TERN_OP_OPEN, bad.slot, bad.gen, 0);
    line_rows(l, 0, 1, 1, pos, 10, 10);
    line_rows(l, bad.slot, bad.gen, 2, bad.pos, bad.n, bad.n_want);
    if (code == TERN_FAILED_NUMERIC)
        memset(l->step->payload + 10 * row_bytes, 0xff, bad.n * row_bytes); /* NaN throughout */
    lab_peer_step(p, l->step);
    lab_peer_result(p, back, MAX_ROWS);
    assert_int_equal(back->n_failed, 1);
    assert_int_equal(back->failed[0].slot, bad.slot);
    assert_int_equal(back->failed[0].gen, bad.gen);
    assert_int_equal(back->failed[0].code, code);
    assert_same_rows(back->payload, want + pos * row_bytes, 10 * row_bytes);
    tern_step_free(&back);
}

static void test_refused_sequences(void **state)
{
    const struct tern_run not_finite = { 1, 5, 0, 3, 3 }, beyond = { 2, 1, CONTEXT - 3, 4, 4 };
    const struct tern_run former = { 1, 4, 0, 2, 2 };
    uint8_t *want = rows_by_chunks(TERN_BOUNDARY_INT8, false, 1, 30, 30);
    Tern__Assign a;
    struct lab_peer p;
    struct line l;
    uint64_t before;

    (void)state;
    a = lab_assign(&lab.arch, net.arch_hash, net.id, 0, lab.arch.n_layers, net.head.public_key);
    assert_int_equal(lab_peer_open(&p, &net.d, &net.head, 0x2000), TERN_CLIENT_UP);
    lab_peer_be_welcome(&p);
    lab_peer_assign(&p, &a, net.id, false);
    (void)lab_peer_wait(&p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    before = lab_peer_rejected(&p, 0);
    line_open(&l, TERN_BOUNDARY_INT8, false);
    refuse_beside(&p, &l, want, 0, not_finite, true, TERN_FAILED_NUMERIC);
    refuse_beside(&p, &l, want, 10, beyond, true, TERN_FAILED_POSITION);
    refuse_beside(&p, &l, want, 20, former, false, TERN_FAILED_POSITION);
    assert_int_equal(lab_peer_rejected(&p, before + 3), before + 3);
    assert_int_equal(lab_ternd_log_wait(&net.d, "warn refused", 1), 1);
    line_close(&l);
    free(want);
    lab_peer_bye(&p);
    lab_peer_close(&p);
}

/* More steps in flight than the assignment says: the epoch ends. */
static void test_too_many_steps(void **state)
{
    Tern__Assign a;
    struct lab_peer p;
    struct line l;

    (void)state;
    a = lab_assign(&lab.arch, net.arch_hash, net.id, 0, lab.arch.n_layers, net.head.public_key);
    a.max_in_flight = 2;
    assert_int_equal(lab_peer_open(&p, &net.d, &net.head, 0x3000), TERN_CLIENT_UP);
    lab_peer_be_welcome(&p);
    lab_peer_assign(&p, &a, net.id, false);
    (void)lab_peer_wait(&p, TERN__HEADER__BODY_READY, LAB_PATIENCE_MS);
    line_open(&l, TERN_BOUNDARY_INT8, false);
    for (uint32_t i = 0; i < a.n_slots; i++) {
        line_begin(&l);
        l.step->step = i + 1;
        line_op(&l, TERN_OP_OPEN, i, 1, 0);
        line_rows(&l, i, 1, 7, 0, 64, 1);
        lab_peer_step(&p, l.step);
    }
    line_close(&l);
    for (Tern__Header *h = NULL; !h || h->body_case != TERN__HEADER__BODY_FAULT;) {
        h = lab_peer_next(&p, LAB_PATIENCE_MS);
        assert_non_null(h);
        if (h->body_case == TERN__HEADER__BODY_FAULT && !strstr(h->fault->text, "more than 2 steps"))
            fail_msg("another fault: %s", h->fault->text);
    }
    lab_peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_sequences),
        cmocka_unit_test(test_too_many_steps),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
